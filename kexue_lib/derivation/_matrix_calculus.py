"""Derivatives of scalars by a matrix or one of its entries, for every size."""

from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy.core.relational import StrictGreaterThan, StrictLessThan
from sympy.matrices.expressions.matexpr import MatrixElement

from kexue_lib.derivation._cannot import NoRule
from kexue_lib.derivation._words import Word, Words, plus, scaled, times

if TYPE_CHECKING:
    from kexue_lib.derivation._matrices import MatrixAlgebra

_OPEN = (sp.Q.invertible, sp.Q.real_elements)  # facts that leave the entries free of each other
_KINKED = (sp.Abs, sp.sign, sp.Max, sp.Min, sp.Piecewise, sp.conjugate, sp.re, sp.im, sp.arg, sp.floor, sp.ceiling)


def derivative_by_matrix(algebra: "MatrixAlgebra", e: Any) -> Words:
    """The words of an unevaluated Derivative(f, X)."""
    if len(e.variables) != 1 or not isinstance(e.variables[0], sp.MatrixSymbol):
        raise NoRule("a derivative of higher order by a matrix")
    return gradient(algebra, algebra.scalar(e.expr), e.variables[0])


def derivative(algebra: "MatrixAlgebra", e: Any) -> sp.Expr:
    """The scalar of an unevaluated Derivative(f, X[i, j], …)."""
    value = algebra.scalar(e.expr)
    for entry in e.variables:
        if not (isinstance(entry, MatrixElement) and isinstance(entry.parent, sp.MatrixSymbol)):
            raise NoRule("a derivative by something else than an entry")
        words = algebra.rewriting.reduced(gradient(algebra, value, entry.parent))
        value = algebra.element(words, entry.parent.shape, entry.i, entry.j)
    return value


def gradient(algebra: "MatrixAlgebra", value: sp.Expr, matrix: Any) -> Words:
    """The matrix of ∂f/∂X[i, j] for a scalar f in atoms.

    From the differential: d tr(X M) = tr(dX M) gives M', d X^-1 = -X^-1 dX X^-1, d det P = det P tr(P^-1 dP) where P
    is invertible, and the chain rule for the rest. It needs the entries of X to vary freely and independently, so a
    symmetric X, or one under an equation, is refused.
    """
    _check_free(algebra, matrix)
    if value.has(*_KINKED):
        raise NoRule("a function that is not differentiable everywhere")
    parts = []
    for atom in sorted(value.atoms(sp.Dummy) & set(algebra.meaning), key=sp.default_sort_key):
        slope = value.diff(atom)
        if slope.has(sp.Derivative, sp.Subs):
            raise NoRule("the derivative of an unknown function")
        parts.append(scaled(slope, _of_atom(algebra, atom, matrix)))
    return plus(*parts)


def _check_free(algebra: "MatrixAlgebra", matrix: Any) -> None:
    for fact in algebra.given:
        if not fact.has(matrix):
            continue
        stated = isinstance(fact, sp.AppliedPredicate) and fact.function in _OPEN
        if not stated and not isinstance(fact, (sp.Ne, StrictLessThan, StrictGreaterThan)):
            raise NoRule("a derivative by a matrix whose entries are bound by a condition")


def _of_atom(algebra: "MatrixAlgebra", atom: sp.Dummy, matrix: Any) -> Words:
    kind, content = algebra.meaning[atom]
    if kind in ("scalar", "trace"):
        return plus(
            *(
                _of_letter(algebra, content[at], content[at + 1 :] + content[:at], matrix)
                for at in range(len(content))
                if algebra.mentions(content[at], {matrix})
            )
        )
    if not algebra.mentions(content, {matrix}):
        return {}
    if kind == "det":
        words = algebra.words(content)
        if content not in algebra.inverted and words not in algebra.composite.values():
            raise NoRule("the derivative of a determinant that may vanish")
        return scaled(atom, _of_words(algebra, words, algebra.inverse(words, content.shape[0]), matrix))
    raise NoRule("the derivative of a sum over entries")


def _of_words(algebra: "MatrixAlgebra", words: Words, others: Words, matrix: Any) -> Words:
    """The gradient of tr(P M) by way of P, the words, where M, the others, is held fixed."""
    parts = []
    for word, coefficient in words.items():
        if algebra.mentions(coefficient, {matrix}):
            raise NoRule("a scalar factor that depends on the matrix")
        for at, letter in enumerate(word):
            if algebra.mentions(letter, {matrix}):
                for other, factor in others.items():
                    rest = word[at + 1 :] + other + word[:at]
                    parts.append(scaled(coefficient * factor, _of_letter(algebra, letter, rest, matrix)))
    return plus(*parts)


def _of_letter(algebra: "MatrixAlgebra", letter: Any, rest: Word, matrix: Any) -> Words:
    """The gradient of tr(L M) by way of the letter L, where M, the rest, is held fixed."""
    others: Words = {rest: sp.S.One}
    if letter.base in algebra.composite:  # dW = -W dP W
        inverse: Words = {(letter,): sp.S.One}
        inner = times(times(inverse, others), inverse)
        return scaled(sp.S.NegativeOne, _of_words(algebra, algebra.composite[letter.base], inner, matrix))
    if letter.base != matrix or letter.conjugated:
        raise NoRule("the derivative of this matrix function")
    if letter.inverted:  # tr(dL M) = -tr(dX L M L), all of it transposed for a transposed L
        others = times(times({(letter,): sp.S.NegativeOne}, others), {(letter,): sp.S.One})
    return others if letter.transposed else algebra.transposed(others)
