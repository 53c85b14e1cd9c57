"""Scalars made of matrices: traces, entries, inner products and sums over entries as commuting atoms."""

from collections.abc import Sequence
from itertools import pairwise, permutations
from typing import Any

import sympy as sp

from kexue_lib.derivation._cannot import NoRule
from kexue_lib.derivation._letters import Letters
from kexue_lib.derivation._words import Letter, TooManySteps, Word, Words, order, total

_ROW, _COLUMN = sp.Symbol("row", integer=True, nonnegative=True), sp.Symbol("column", integer=True, nonnegative=True)
_BOUND = 4  # indices of a sum that stays as it is
_TURNS = 500  # rewritings of words under a trace before giving up
Limit = tuple[Any, sp.Expr, sp.Expr]  # index, lowest and highest value


class Scalars(Letters):
    """The part of the algebra that turns 1×1 words and words under a trace into commuting atoms.

    A 1×1 word equals its transposed word and commutes with every matrix; tr(u v) = tr(v u) and tr(w') = tr(w). The
    sum over the whole range of an index that stands in two places joins the words, since Σ_k e_k e_k' = 1; in one
    place it leaves the vector of ones.
    """

    # --- atoms ---------------------------------------------------------------------------------------------------

    def atom(self, kind: str, content: Any, **assumptions: bool) -> sp.Dummy:
        """The commuting symbol of a scalar; `meaning` remembers what it stands for."""
        if (kind, content) not in self.atoms:
            self.atoms[(kind, content)] = dummy = sp.Dummy(f"{kind}{len(self.atoms)}", **assumptions)
            self.meaning[dummy] = (kind, content)
        return self.atoms[(kind, content)]

    def unit(self, index: sp.Expr, size: Any) -> Letter:
        """The unit vector e_i as a column."""
        base = sp.FunctionMatrix(size, 1, sp.Lambda((_ROW, _COLUMN), sp.KroneckerDelta(_ROW, index)))
        self.units[base] = index
        return Letter(base, size, sp.S.One)

    def tidy(self, words: Words) -> Words:
        """The 1×1 parts of every word drawn out as scalars."""
        parts = []
        for word, coefficient in words.items():
            scalar, rest = self._drawn(word)
            parts.append((rest, coefficient * scalar))
        return total(parts)

    def _drawn(self, word: Word) -> tuple[sp.Expr, Word]:
        cuts = [0] * bool(word and word[0].rows == 1) + [at + 1 for at, letter in enumerate(word) if letter.cols == 1]
        if len(cuts) < 2:
            return sp.S.One, word
        scalars = [self._scalar_word(word[a:b]) for a, b in pairwise(cuts)]
        return sp.Mul(*scalars), word[: cuts[0]] + word[cuts[-1] :]

    def _scalar_word(self, word: Word) -> sp.Expr:
        if len(word) == 2 and {word[0].base, word[1].base} <= set(self.units):
            return self._product_of_units(word)
        replacement = self.rewriting.rewritten(word)
        if replacement is not None:
            drawn = ((coefficient, self._drawn(other)[0]) for other, coefficient in replacement.items())
            return sp.Add(*(coefficient * scalar for coefficient, scalar in drawn))
        mirrored = self._mirrored(word)
        word = min(word, mirrored or word, key=order)
        return self.atom("scalar", word, **self._sign(word, mirrored))

    def _product_of_units(self, word: Word) -> sp.Expr:
        first, second = (self.units[letter.base] for letter in word)
        if first is None or second is None:
            return word[0].cols if first is second else sp.S.One
        return sp.KroneckerDelta(first, second)

    def _mirrored(self, word: Word) -> Word | None:
        """The transposed word, where it is one word."""
        words = self.transposed({word: sp.S.One})
        return next(iter(words)) if list(words.values()) == [1] else None

    def _sign(self, word: Word, mirrored: Word | None) -> dict[str, bool]:
        """Real for real letters; w'w and w'Pw are not negative for real w and positive definite P."""
        real = all(letter.base in self.units or self.facts.says(letter.base, *self.real_names) for letter in word)
        if not real:
            return {"complex": True}
        middle = word[len(word) // 2]
        square = word == mirrored and (len(word) % 2 == 0 or self.facts.says(middle.base, sp.Q.positive_definite))
        return {"nonnegative": True} if square else {"real": True}

    def trace(self, words: Words, size: Any) -> sp.Expr:
        """tr of a polynomial of that size."""
        parts = (c * (self._trace_word(word) if word else size) for word, c in words.items())
        return sp.expand(sp.Add(*parts))

    def _trace_word(self, word: Word) -> sp.Expr:
        turns = [word[at:] + word[:at] for at in range(len(word))]
        for turn in turns:
            if turn[0].rows == 1:
                return self._drawn(turn)[0]
        for turn in turns:
            replacement = self.rewriting.rewritten(turn)
            if replacement is not None:
                self._turns += 1
                if self._turns > _TURNS:
                    raise TooManySteps("turning words under a trace")
                return self.trace(replacement, turn[0].rows)
        mirrored = self._mirrored(word)
        both = turns if mirrored is None else turns + [mirrored[at:] + mirrored[:at] for at in range(len(mirrored))]
        signs = [self._sign(turn, self._mirrored(turn)) for turn in turns]
        sign = next((sign for sign in signs if "nonnegative" in sign), signs[0])
        return self.atom("trace", min(both, key=order), **sign)

    def element(self, words: Words, shape: tuple[Any, Any], i: sp.Expr, j: sp.Expr) -> sp.Expr:
        """The entry (i, j): e_i' M e_j."""
        left: Word = () if shape[0] == 1 else (self.unit(i, shape[0]).turned(),)
        right: Word = () if shape[1] == 1 else (self.unit(j, shape[1]),)
        parts = []
        for word, coefficient in words.items():
            whole = left + word + right
            parts.append(coefficient * (self._drawn(whole)[0] if whole else 1))
        return sp.expand(sp.Add(*parts))

    # --- sums over entries ---------------------------------------------------------------------------------------

    def summed(self, body: sp.Expr, limits: Sequence[Limit]) -> sp.Expr:
        """Σ over the indices, whose ranges are independent, of a polynomial in atoms; raises NoRule."""
        terms = sp.Add.make_args(sp.expand(body))
        return sp.expand(sp.Add(*(self._summed_term(term, list(limits)) for term in terms)))

    def _summed_term(self, term: sp.Expr, limits: list[Limit]) -> sp.Expr:
        for limit in limits:
            outside, words, others = self._sorted(term, {limit[0]})
            joined = self._joined(words, others, *limit)
            if joined is not None:
                rest = [other for other in limits if other is not limit]
                return self.summed(outside * joined, rest)
        if not limits:
            return term
        return self._kept(term, limits)

    def _kept(self, term: sp.Expr, limits: list[Limit]) -> sp.Expr:
        """A sum that no rule takes apart is an atom: one for each set of indices that hang together, whatever names."""
        bound = {limits[0][0]}
        while True:
            outside, words, others = self._sorted(term, bound)
            found = {self._index(x) for word in words for x in word} | {s for o in others for s in o.free_symbols}
            linked = bound | (found & {index for index, *_ in limits})
            if linked == bound:
                break
            bound = linked
        own = [limit for limit in limits if limit[0] in bound]
        if len(own) > _BOUND:
            raise NoRule("a sum over many indices")
        forms = []
        for turn in permutations(own):
            names = {
                index: sp.Symbol(f"slot{at}", integer=True, nonnegative=True) for at, (index, *_) in enumerate(turn)
            }
            named = words
            for index, name in names.items():
                named = [self._renamed(word, index, name) for word in named]
            named = sorted((min(w, self._mirrored(w) or w, key=order) for w in named), key=order)
            ranges = tuple(limit[1:] for limit in turn)
            forms.append((tuple(named), sp.Mul(*others).xreplace(names), ranges))
        least = min(forms, key=lambda form: ([order(w) for w in form[0]], sp.default_sort_key(form[1]), str(form[2])))
        return self.summed(outside * self.atom("sum", least), [limit for limit in limits if limit not in own])

    def _sorted(self, term: sp.Expr, bound: set[Any]) -> tuple[sp.Expr, list[Word], list[sp.Expr]]:
        """A product as its factors free of the indices, its entries that carry one, and the other factors that do."""
        outside, words, others = sp.S.One, [], []
        for factor in sp.Mul.make_args(term):
            base, exponent = factor.as_base_exp()
            kind, content = self.meaning.get(base, ("", ()))
            if not self.mentions(factor, bound):
                outside *= factor
            elif kind == "scalar" and exponent.is_Integer and exponent > 0 and self._carried(content, bound):
                words += [content] * int(exponent)
            elif factor.atoms(sp.Dummy) & set(self.meaning):
                raise NoRule("a function of entries within a sum")
            else:
                others.append(factor)
        return outside, words, others

    def _carried(self, word: Word, bound: set[Any]) -> bool:
        """Whether the word depends on the indices by its outer unit vectors alone."""
        inner = [x for at, x in enumerate(word) if not (at in (0, len(word) - 1) and self._index(x) in bound)]
        return not self.mentions(inner, bound)

    def _index(self, letter: Letter) -> Any:
        return self.units.get(letter.base)

    def _joined(
        self, words: list[Word], others: list[sp.Expr], index: Any, low: sp.Expr, high: sp.Expr
    ) -> sp.Expr | None:
        """Σ over one index of the product of these factors, None where no rule takes it apart."""
        if not words and not others:
            return high - low + 1
        for delta in others:
            if isinstance(delta, sp.KroneckerDelta) and index in delta.args[:2]:
                place = next(arg for arg in delta.args[:2] if arg != index)
                if not place.has(index) and self._within(place, low, high):
                    rest = [other.subs(index, place) for other in others if other is not delta]
                    return sp.Mul(*rest, *(self._drawn(self._renamed(word, index, place))[0] for word in words))
        ends = [letter for word in words for letter in (word[0], word[-1]) if self._index(letter) == index]
        whole = bool(ends) and low == 0 and all(sp.expand(_length(e) - 1 - high) == 0 for e in ends)
        if others or not whole or len(ends) > 2:
            return None
        if len(ends) == 1:
            return self._drawn(tuple(self._put(letter, index, self.ones(high + 1)) for letter in words[0]))[0]
        if len(words) == 1:
            return self._trace_word(words[0][1:-1])
        first = words[0] if self._index(words[0][-1]) == index else self._turned_word(words[0])
        second = words[1] if self._index(words[1][0]) == index else self._turned_word(words[1])
        return self._drawn(first[:-1] + second[1:])[0]

    def _within(self, place: sp.Expr, low: sp.Expr, high: sp.Expr) -> bool:
        if place in self.ranges and self.ranges[place] == (low, high):
            return True
        return all(fact == True or self.prove(fact, self.given) for fact in (low <= place, place <= high))  # noqa: E712

    def _turned_word(self, word: Word) -> Word:
        mirrored = self._mirrored(word)
        if mirrored is None:
            raise NoRule("a word whose transposed is a sum")
        return mirrored

    def ones(self, size: Any) -> Letter:
        """The vector of ones as a column."""
        base = sp.OneMatrix(size, 1)
        self.units[base] = None
        return Letter(base, size, sp.S.One)

    def _put(self, letter: Letter, index: Any, other: Letter) -> Letter:
        if self._index(letter) != index:
            return letter
        return other.turned() if letter.transposed else other

    def _renamed(self, word: Word, index: Any, place: sp.Expr) -> Word:
        """The word with e_place for e_index."""
        size = next((_length(x) for x in word if self._index(x) == index), sp.S.One)
        return tuple(self._put(letter, index, self.unit(place, size)) for letter in word)


def _length(vector: Letter) -> sp.Expr:
    return vector.cols if vector.transposed else vector.rows
