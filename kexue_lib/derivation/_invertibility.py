"""Which inverses of a statement do not follow from its conditions."""

from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp

from kexue_lib.derivation._blocks import block_determinant
from kexue_lib.derivation._cannot import Cannot
from kexue_lib.derivation._determinants import determinant_of_words, invertible_words
from kexue_lib.derivation._letters import Prover, cannot_prove
from kexue_lib.derivation._matrices import MatrixAlgebra
from kexue_lib.derivation._words import TooManySteps, Words, settled

_CANNOT = (Cannot, TooManySteps, sp.PolynomialError)


def undefined_inverses(expression: Any, given: Sequence[Any] = (), prove: Prover = cannot_prove) -> list[Any]:
    """The inverted matrices in the expression whose invertibility does not follow from `given`.

    A statement is defined on its whole domain only if the list is empty. Inverses within an inverted matrix are
    looked at on their own, so while one is looked at the inner ones count as defined.
    """
    inverted = dict.fromkeys(_inverted(expression, given, prove))
    return [matrix for matrix in inverted if not follows(matrix, given, prove)]


def _inverted(expression: Any, given: Sequence[Any], prove: Prover) -> Iterator[Any]:
    for node in sp.preorder_traversal(expression):
        if isinstance(node, sp.Inverse):
            yield node.arg
        elif isinstance(node, sp.MatPow):
            exponent = node.exp
            if not (exponent.is_nonnegative or prove(exponent >= 0, given)):
                yield node.base


def follows(matrix: Any, given: Sequence[Any], prove: Prover) -> bool:
    """Whether the matrix is invertible by `given`: stated, positive definite, or of a determinant without zero."""
    try:
        algebra = MatrixAlgebra(given, prove)
        algebra.learn()
        if matrix.has(sp.BlockMatrix):
            value = block_determinant(algebra, matrix)
            return value is not None and _nowhere_zero(algebra, value)
        words = algebra.words(matrix)
        algebra.rewriting.complete()
        words = algebra.rewriting.reduced(words)
        if invertible_words(algebra, words) or positive_definite(algebra, words):
            return True
        return _nowhere_zero(algebra, determinant_of_words(algebra, words, matrix.shape[0]))
    except _CANNOT:
        return False


def positive_definite(algebra: MatrixAlgebra, words: Words) -> bool:
    """A sum of terms c w* P w with c > 0 and P positive definite, one of them with an invertible w.

    Each term is Hermitian and not negative, the one definite, so the sum has no kernel.
    """
    definite = False
    for word, coefficient in words.items():
        if not (coefficient.is_positive or algebra.prove(coefficient > 0, algebra.given)):
            return False
        adjoint = algebra.conjugated(algebra.transposed({word: sp.S.One}))
        if adjoint != {word: sp.S.One}:
            return False
        half = len(word) // 2
        if len(word) % 2 and not algebra.facts.says(word[half].base, sp.Q.positive_definite):
            return False
        definite = definite or not half or invertible_words(algebra, {word[:half]: sp.S.One})
    return definite


def _nowhere_zero(algebra: MatrixAlgebra, determinant: sp.Expr) -> bool:
    """Whether every factor is a nonzero scalar, or a factor of a determinant that `given` says is not zero."""
    known = [determinant_of_words(algebra, words, base.shape[0]) for base, words in _stated(algebra)]
    for expression in algebra.facts.unequal:
        try:
            known.append(algebra.scalar(expression))
        except Cannot:
            continue
    factors = {factor for value in known for factor in _factors(value)}
    return all(
        algebra.nonzero(factor) or any(_multiple(factor, other) for other in factors)
        for factor in _factors(determinant)
    )


def _stated(algebra: MatrixAlgebra) -> list[tuple[Any, Words]]:
    stated = {matrix: algebra.words(matrix) for matrix in algebra.facts.stated(sp.Q.invertible, sp.Q.positive_definite)}
    return [(matrix, words) for matrix, words in stated.items() if words]


def _factors(value: sp.Expr) -> list[sp.Expr]:
    """The bases of a product: a power vanishes only where its base does."""
    factors = []
    for factor in sp.Mul.make_args(sp.factor_terms(sp.together(value))):
        base, _ = factor.as_base_exp()
        factors.append(base.args[0] if isinstance(base, sp.conjugate) else base)
    return factors


def _multiple(factor: sp.Expr, other: sp.Expr) -> bool:
    if factor == other:
        return True
    ratio = settled(factor / other)
    return bool(ratio.is_number and ratio.is_nonzero)
