"""Polynomials in letters that do not commute, and their rewriting by equations between them.

A letter stands for a matrix of symbolic shape, a word for a product of matrices, the empty word for the identity.
Part of :mod:`kexue_lib.derivation`, which is the place to call.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heappop, heappush
from itertools import count
from typing import Any

import sympy as sp

from kexue_lib.derivation._cannot import Cannot

_REDUCTIONS = 2000  # rewritings of one polynomial before giving up
_RULES = 80  # rules that a completion may reach
_OVERLAPS = 600  # critical pairs that a completion may look at
_LONGEST = 9  # letters of a word that may become the left side of a derived rule
_TERMS = 24  # terms of a derived rule


class TooManySteps(ValueError):
    """The counted steps are used up: nothing is decided."""


@dataclass(frozen=True)
class Letter:
    """A matrix `base`, possibly transposed, conjugated, inverted; `rows` and `cols` are those of the letter itself."""

    base: Any
    rows: sp.Expr
    cols: sp.Expr
    transposed: bool = False
    conjugated: bool = False
    inverted: bool = False

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.base, self.transposed, self.conjugated, self.inverted))

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """The place of the letter in the order of letters: inverses of sums last, so that they are eliminated first."""
        rank = 2 * (self.base.is_MatAdd or self.base.is_MatMul) + self.inverted
        return (rank, str(self.base), self.transposed, self.conjugated, sp.default_sort_key(self.base))

    def turned(self) -> "Letter":
        """The transposed letter."""
        return replace(self, rows=self.cols, cols=self.rows, transposed=not self.transposed)


Word = tuple[Letter, ...]
Words = dict[Word, sp.Expr]  # a polynomial: word -> commuting coefficient


def order(word: Word) -> tuple[Any, ...]:
    """Length first, then the letters: compatible with multiplication and well-founded, so rewriting ends."""
    return (len(word), tuple(letter.key for letter in word))


def settled(coefficient: sp.Expr) -> sp.Expr:
    """A commuting coefficient in a form in which a rational zero is 0."""
    coefficient = sp.expand(coefficient)
    if coefficient.is_number or not any(power.exp.could_extract_minus_sign() for power in coefficient.atoms(sp.Pow)):
        return coefficient
    try:
        return sp.cancel(sp.together(coefficient))
    except (sp.PolynomialError, Cannot):
        return coefficient


def total(parts: Iterable[tuple[Word, sp.Expr]]) -> Words:
    """Like words gathered, zeros dropped."""
    gathered: dict[Word, list[sp.Expr]] = {}
    for word, coefficient in parts:
        gathered.setdefault(word, []).append(coefficient)
    sums = ((word, settled(sp.Add(*coefficients))) for word, coefficients in gathered.items())
    return {word: coefficient for word, coefficient in sums if coefficient != 0}


def plus(*polynomials: Words) -> Words:
    """The sum."""
    return total(item for polynomial in polynomials for item in polynomial.items())


def times(first: Words, second: Words) -> Words:
    """The product, in this order."""
    return total((u + v, a * b) for u, a in first.items() for v, b in second.items())


def scaled(factor: sp.Expr, polynomial: Words) -> Words:
    """The polynomial times a commuting factor."""
    return total((word, factor * coefficient) for word, coefficient in polynomial.items())


def lead(polynomial: Words) -> Word:
    """The greatest word."""
    return max(polynomial, key=order)


def find(word: Word, pattern: Word) -> int | None:
    """Where the pattern first stands in the word."""
    size = len(pattern)
    return next((at for at in range(len(word) - size + 1) if word[at : at + size] == pattern), None)


class Rewriting:
    """Rules `word -> smaller polynomial` from equations that hold, completed by their overlaps.

    Sound: every rule is an equation divided by the coefficient of its greatest word, which `nonzero` has proved not to
    vanish; so whatever reduces to zero lies in the two-sided ideal of the equations. Incomplete where the counted steps
    run out. `tidy` brings a polynomial to the caller's form (scalars drawn out of words) and makes no word larger.
    """

    def __init__(self, tidy: Callable[[Words], Words], nonzero: Callable[[sp.Expr], bool]) -> None:
        self.rules: dict[Word, Words] = {}
        self._tidy, self._nonzero = tidy, nonzero
        self._pending: list[Words] = []
        self._overlaps: list[Any] = []
        self._count = count()

    def add(self, equation: Words) -> None:
        """Accept an equation `equation == 0`."""
        self._pending.append(equation)

    def reduced(self, polynomial: Words) -> Words:
        """The polynomial with all rules applied; raises TooManySteps."""
        polynomial = self._tidy(polynomial)
        for _ in range(_REDUCTIONS):
            for word in sorted(polynomial, key=order, reverse=True):
                replacement = self.rewritten(word)
                if replacement is not None:
                    rest = {other: c for other, c in polynomial.items() if other != word}
                    polynomial = self._tidy(plus(rest, scaled(polynomial[word], replacement)))
                    break
            else:
                return polynomial
        raise TooManySteps("rewriting")

    def rewritten(self, word: Word) -> Words | None:
        """One rewriting of a word, None where no rule fits."""
        for pattern, replacement in self.rules.items():
            at = find(word, pattern)
            if at is not None:
                return times(times({word[:at]: sp.S.One}, replacement), {word[at + len(pattern) :]: sp.S.One})
        return None

    def complete(self) -> None:
        """Orient what was added, and add what two overlapping rules imply, up to the counted bounds."""
        self._orient()
        for _ in range(_OVERLAPS):
            if not self._overlaps or len(self.rules) >= _RULES:
                return
            *_, first, second = heappop(self._overlaps)
            if first in self.rules and second in self.rules:
                self._pending += [left for left in self._critical(first, second) if len(left) <= _TERMS]
                self._orient()

    def _orient(self) -> None:
        while self._pending:
            self._pending.sort(key=lambda p: (len(p), max((order(word) for word in p), default=(0, ()))), reverse=True)
            try:
                polynomial = self.reduced(self._pending.pop())
            except TooManySteps:
                continue
            if not polynomial:
                continue
            greatest = lead(polynomial)
            if not 0 < len(greatest) <= _LONGEST or not self._nonzero(polynomial[greatest]):
                continue
            stale = [pattern for pattern in self.rules if find(pattern, greatest) is not None]
            for pattern in stale:  # a rule whose left side is no longer reduced is an equation again
                self._pending.append(plus({pattern: sp.S.One}, scaled(sp.S.NegativeOne, self.rules.pop(pattern))))
            rest = {word: -c / polynomial[greatest] for word, c in polynomial.items() if word != greatest}
            self.rules[greatest] = total(rest.items())
            self._note_overlaps(greatest)

    def _note_overlaps(self, added: Word) -> None:
        for pattern in self.rules:
            for first, second in dict.fromkeys(((added, pattern), (pattern, added))):
                if any(first[-size:] == second[:size] for size in range(1, min(len(first), len(second)))):
                    place = (len(first) + len(second), order(first), order(second), next(self._count))
                    heappush(self._overlaps, (*place, first, second))

    def _critical(self, first: Word, second: Word) -> Iterator[Words]:
        """What the two ways of rewriting an overlap `ABC` (first = AB, second = BC) leave between them."""
        for size in range(1, min(len(first), len(second))):
            if first[-size:] == second[:size]:
                one = times(self.rules[first], {second[size:]: sp.S.One})
                other = times({first[:-size]: sp.S.One}, self.rules[second])
                yield plus(one, scaled(sp.S.NegativeOne, other))
