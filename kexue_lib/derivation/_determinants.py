"""Determinants of symbolic size: products, sums, and function matrices by a recursion in the size."""

from typing import TYPE_CHECKING, Any

import sympy as sp

from kexue_lib.derivation._cannot import NoRule
from kexue_lib.derivation._words import Letter, Word, Words, order, plus, scaled, times

if TYPE_CHECKING:
    from kexue_lib.derivation._matrices import MatrixAlgebra

_TURNED = 24  # ways of turning 1 + U V that are compared


def invertible_words(algebra: "MatrixAlgebra", words: Words) -> bool:
    """Whether a polynomial is known to be invertible: a product of invertible letters, or a sum whose inverse is there.

    Known means stated in `given`, or that the inverse stands in the statement, where it is taken to be defined.
    """
    words = algebra.rewriting.reduced(words)
    if len(words) == 1:
        ((word, factor),) = words.items()
        if all(_invertible_letter(algebra, letter) for letter in word) and algebra.nonzero(factor):
            return True
    return any(_proportional(algebra, words, known) for known in algebra.composite.values())


def _proportional(algebra: "MatrixAlgebra", words: Words, known: Words) -> bool:
    if set(words) != set(known) or not words:
        return False
    head = max(words, key=order)
    ratio = words[head] / known[head]
    return algebra.nonzero(words[head]) and not plus(words, scaled(-ratio, known))


def _invertible_letter(algebra: "MatrixAlgebra", letter: Letter) -> bool:
    if letter.base in algebra.powers:
        return invertible_words(algebra, algebra.powers[letter.base][0])
    return letter.base in algebra.inverted or letter.base in algebra.composite


def determinant_of_words(algebra: "MatrixAlgebra", words: Words, size: Any) -> sp.Expr:
    """The determinant as a product of atoms, in a form that is the same for the ways of writing it.

    det(c A B) = c^n det A det B for square A, B; det(P + Q) = det P det(1 + P^-1 Q) for an invertible P; and
    Sylvester's det(1 + U V) = det(1 + V U) for U, V of any shape. All of them hold for every size.
    """
    words = algebra.rewriting.reduced(words)
    if size == 1:
        return algebra.trace(words, size)
    if not size.is_positive:
        raise NoRule("the determinant of a matrix that may be empty")
    if not words:
        return sp.S.Zero
    if len(words) == 1:
        ((word, factor),) = words.items()
        if all(letter.rows == letter.cols for letter in word):
            return factor**size * sp.Mul(*(_of_letter(algebra, letter) for letter in word))
    heads = [
        w
        for w in sorted(words, key=order)
        if algebra.nonzero(words[w]) and all(_invertible_letter(algebra, x) for x in w)
    ]
    if heads and len(words) > 1:
        head = {heads[0]: words[heads[0]]}
        rest = times(algebra.inverse(head, size), plus(words, scaled(sp.S.NegativeOne, head)))
        return determinant_of_words(algebra, head, size) * _one_plus(algebra, algebra.rewriting.reduced(rest), size)
    return _without_head(algebra, words, size)


def _without_head(algebra: "MatrixAlgebra", words: Words, size: Any) -> sp.Expr:
    """Square factors that all words share stand outside; the rest is an atom."""
    factor = sp.S.One
    while len(words) > 1:
        first, last = {w[:1] for w in words}, {w[-1:] for w in words}
        if len(first) == 1 and () not in first and (x := next(iter(first))[0]).rows == x.cols:
            words = {w[1:]: c for w, c in words.items()}
        elif len(last) == 1 and () not in last and (x := next(iter(last))[0]).rows == x.cols:
            words = {w[:-1]: c for w, c in words.items()}
        else:
            break
        factor *= _of_letter(algebra, x)
    if factor != 1:
        return factor * determinant_of_words(algebra, words, size)
    words = min((words, algebra.rewriting.reduced(algebra.transposed(words))), key=_rank)
    return _sum_atom(algebra, words, size)


def _rank(words: Words) -> Any:
    return sorted((order(word), sp.default_sort_key(c)) for word, c in words.items())


def _sum_atom(algebra: "MatrixAlgebra", words: Words, size: Any) -> sp.Expr:
    known = any(_proportional(algebra, words, other) for other in algebra.composite.values())
    assumptions = {"complex": True, "zero": False} if known else {"complex": True}
    return algebra.atom("det", algebra.expression(words, size, size), **assumptions)


def _of_letter(algebra: "MatrixAlgebra", letter: Letter) -> sp.Expr:
    base, says = letter.base, algebra.facts.says
    if base in algebra.composite:
        return 1 / determinant_of_words(algebra, algebra.composite[base], letter.rows)
    if base in algebra.powers:
        words, exponent = algebra.powers[base]
        return determinant_of_words(algebra, words, letter.rows) ** exponent
    if says(base, sp.Q.singular):
        return sp.S.Zero
    assumptions = {"real": True} if says(base, *algebra.real_names) else {"complex": True}
    if says(base, sp.Q.positive_definite):
        assumptions = {"positive": True}
    value = algebra.atom("det", base, **assumptions)
    value = sp.conjugate(value) if letter.conjugated else value
    return 1 / value if letter.inverted else value


def _one_plus(algebra: "MatrixAlgebra", rest: Words, size: Any) -> sp.Expr:
    """det(1 + R), with R turned round (U V to V U, and transposed) to its least form, a scalar where there is one."""
    if not rest:
        return sp.S.One
    if set(rest) == {()}:
        return (1 + rest[()]) ** size
    one: Words = {(): sp.S.One}
    forms = _turns(rest, size) + _turns(algebra.rewriting.reduced(algebra.transposed(rest)), size)
    for form, side in forms:
        if side == 1:
            return 1 + algebra.trace(algebra.tidy(form), side)
    form, side = min(forms, key=lambda pair: _rank(pair[0]))
    if len(form) == 1 and () not in form:
        ((word, factor),) = form.items()
        if algebra.nonzero(factor) and all(_invertible_letter(algebra, letter) for letter in word):
            # det(1 + X) = det X det(1 + X^-1): of the two, the smaller one is the atom
            inverse = algebra.rewriting.reduced(algebra.inverse(form, side))
            others = _turns(inverse, side) + _turns(algebra.rewriting.reduced(algebra.transposed(inverse)), side)
            other, _ = min(others, key=lambda pair: _rank(pair[0]))
            if _rank(other) < _rank(form):
                return determinant_of_words(algebra, form, side) * _sum_atom(algebra, plus(one, other), side)
    return _sum_atom(algebra, plus(one, form), side)


def _turns(words: Words, size: Any) -> list[tuple[Words, Any]]:
    """The polynomials U V, V U, … as far as all words share their first letter, each with its size."""
    forms = [(words, size)]
    while len(forms) < _TURNED:
        words, size = forms[-1]
        firsts: set[Word] = {word[:1] for word in words}
        if len(firsts) != 1 or () in firsts:
            return forms
        letter = next(iter(firsts))[0]
        turned = ({word[1:] + word[:1]: c for word, c in words.items()}, letter.cols)
        if turned in forms:
            return forms
        forms.append(turned)
    return forms
