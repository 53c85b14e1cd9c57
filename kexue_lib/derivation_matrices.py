"""Identities between matrix expressions of symbolic shape, proved as identities of non-commuting words.

Part of :mod:`kexue_lib.derivation`, which is the place to call.
"""

from collections.abc import Sequence
from typing import Any

import sympy as sp

_STEPS = 400  # rewritings before giving up


class MatrixAlgebra:
    """Matrix expressions as polynomials in letters that do not commute.

    A letter stands for a matrix, a transposed matrix, or the inverse of a sum; for the latter,
    W = (X + … + Y)^{-1} gives the rules W X = 1 - … - W Y and X W = 1 - … - Y W, X being the longest word.
    """

    def __init__(self, given: Sequence[Any]) -> None:
        facts = [fact for fact in given if isinstance(fact, sp.AppliedPredicate)]
        self.symmetric = {f.arg for f in facts if f.function in (sp.Q.symmetric, sp.Q.diagonal, sp.Q.positive_definite)}
        self.orthogonal = {f.arg for f in facts if f.function == sp.Q.orthogonal}
        self.letters: dict[Any, sp.Symbol] = {}
        self.inverted: dict[sp.Expr, sp.Symbol] = {}

    def _letter(self, matrix: Any) -> sp.Symbol:
        return self.letters.setdefault(matrix, sp.Symbol(f"L{len(self.letters)}", commutative=False))

    def words(self, expression: Any) -> sp.Expr:
        """The polynomial of a matrix expression; raises NotImplementedError for what it has no letter for."""
        if isinstance(expression, sp.MatrixSymbol):
            return self._letter(expression)
        if isinstance(expression, sp.Transpose):
            inner = expression.arg
            if inner in self.symmetric:
                return self._letter(inner)
            if inner in self.orthogonal:
                return self._letter(inner) ** -1
            if isinstance(inner, sp.MatrixSymbol):
                return self._letter(sp.Transpose(inner))
            return self._transposed(inner)
        if isinstance(expression, sp.Identity):
            return sp.Integer(1)
        if isinstance(expression, sp.ZeroMatrix):
            return sp.Integer(0)
        if isinstance(expression, sp.MatAdd):
            return sp.expand(sp.Add(*(self.words(part) for part in expression.args)))
        if isinstance(expression, sp.MatMul):
            parts = [self.words(p) if getattr(p, "is_Matrix", False) else self._scalar(p) for p in expression.args]
            return sp.expand(sp.Mul(*parts))
        if isinstance(expression, sp.Inverse):
            return self._inverse(self.words(expression.arg))
        if isinstance(expression, sp.MatPow) and sp.sympify(expression.exp).is_Integer:
            base = self.words(expression.base)
            base = self._inverse(base) if expression.exp < 0 else base
            return sp.expand(base ** abs(int(expression.exp)))
        raise NotImplementedError(type(expression).__name__)

    def _scalar(self, factor: Any) -> sp.Expr:
        if factor.has(sp.MatrixSymbol) or not factor.is_commutative:
            raise NotImplementedError("a scalar that contains matrices")
        return factor

    def _transposed(self, inner: Any) -> sp.Expr:
        if isinstance(inner, sp.MatMul):
            parts = [sp.Transpose(p) if getattr(p, "is_Matrix", False) else p for p in reversed(inner.args)]
            return self.words(sp.MatMul(*parts))
        if isinstance(inner, sp.MatAdd):
            return self.words(sp.MatAdd(*(sp.Transpose(part) for part in inner.args)))
        if isinstance(inner, sp.Inverse):
            return self._inverse(self.words(sp.Transpose(inner.arg)))
        if isinstance(inner, sp.Transpose):
            return self.words(inner.arg)
        if isinstance(inner, (sp.Identity, sp.ZeroMatrix)):
            return self.words(inner)
        raise NotImplementedError(type(inner).__name__)

    def _inverse(self, words: sp.Expr) -> sp.Expr:
        words = self.reduced(words)
        if not words.is_Add:
            return words**-1
        return self.inverted.setdefault(words, sp.Symbol(f"W{len(self.inverted)}", commutative=False))

    def reduced(self, words: sp.Expr) -> sp.Expr:
        """Apply the rules of the inverted sums until nothing changes."""
        words = sp.expand(words)
        for _ in range(_STEPS):
            for term in sp.Add.make_args(words):
                replacement = self._rewritten(term)
                if replacement is not None:
                    words = sp.expand(words - term + replacement)
                    break
            else:
                return words
        raise NotImplementedError("too many steps")

    def _rewritten(self, term: sp.Expr) -> sp.Expr | None:
        factor, letters = _split(term)
        for total, inverse in self.inverted.items():
            lead_factor, lead = max((_split(part) for part in total.args), key=lambda p: (len(p[1]), str(p[1])))
            rest = total - lead_factor * sp.Mul(*lead)
            for pattern, left in (([inverse, *lead], True), ([*lead, inverse], False)):
                at = _find(letters, pattern)
                if at is not None:
                    middle = 1 - (inverse * rest if left else rest * inverse)
                    before, after = letters[:at], letters[at + len(pattern) :]
                    return sp.expand(factor / lead_factor * sp.Mul(*before) * middle * sp.Mul(*after))
        return None

    def is_zero(self, expression: Any) -> bool:
        """Whether the expression is the zero matrix, possibly after multiplying by an inverted sum."""
        words = self.reduced(self.words(expression))
        sums = list(self.inverted)
        products = [words, *(s * words for s in sums), *(words * s for s in sums)]
        return any(self.reduced(product) == 0 for product in products)

    def trace_is_zero(self, gap: sp.Expr) -> bool:
        """Whether a combination of traces cancels, up to turning words round and transposing them."""
        total: dict[Any, sp.Expr] = {}
        for term in sp.Add.make_args(sp.expand(gap)):
            factor, trace = term.as_independent(sp.Trace, as_Add=False)
            if not isinstance(trace, sp.Trace) or factor.has(sp.MatrixSymbol):
                return False
            words, mirrored = (self.reduced(self.words(m)) for m in (trace.arg, sp.Transpose(trace.arg)))
            # tr X = (tr X + tr X^T) / 2 makes the form symmetric
            for part in (*sp.Add.make_args(words), *sp.Add.make_args(mirrored)):
                number, letters = _split(part)
                if letters:
                    turns = [tuple(letters[i:] + letters[:i]) for i in range(len(letters))]
                    key: Any = min(turns, key=str)
                else:
                    key = trace.arg.shape[0]
                total[key] = total.get(key, 0) + factor * number
        return all(sp.expand(value) == 0 for value in total.values())


def _split(term: sp.Expr) -> tuple[sp.Expr, list[sp.Expr]]:
    """A term as its number and its letters, powers written out."""
    commuting, others = term.args_cnc()
    letters: list[sp.Expr] = []
    for factor in others:
        base, exponent = factor.as_base_exp()
        letters += [base if exponent > 0 else base**-1] * abs(int(exponent))
    return sp.Mul(*commuting), letters


def _find(letters: list[sp.Expr], pattern: list[sp.Expr]) -> int | None:
    for start in range(len(letters) - len(pattern) + 1):
        if letters[start : start + len(pattern)] == pattern:
            return start
    return None
