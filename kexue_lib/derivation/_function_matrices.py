"""Determinants of matrices whose entries are a function of row and column, reduced to a smaller size."""

from collections.abc import Sequence
from typing import Any

import sympy as sp

from kexue_lib.derivation._letters import Prover

_STEPS = 4  # sizes that a determinant is lowered by


def determinant_step(e: Any, floor: int, prove: Prover, given: Sequence[Any]) -> Any:
    """The expression with determinants of size m + c, c > floor, lowered to smaller ones where a rule applies."""
    for _ in range(_STEPS):
        lowered = e.replace(
            lambda node: isinstance(node, sp.Determinant) and _too_large(node.arg, floor),
            lambda node: smaller(node, prove, given) or node,
        )
        if lowered == e:
            return e
        e = lowered
    return e


def _too_large(matrix: Any, floor: int) -> bool:
    size = matrix.shape[0]
    return isinstance(matrix, sp.FunctionMatrix) and not size.is_number and bool(size.as_coeff_Add()[0] > floor)


def smaller(determinant: Any, prove: Prover, given: Sequence[Any] = ()) -> Any:
    """The determinant of a function matrix of size N ≥ 2 by those of smaller size, None where no rule applies."""
    matrix = determinant.arg
    if not (matrix.shape[0] - 2).is_nonnegative:
        return None
    entry = _Entry(matrix)
    by_rule = _triangular(entry) or _tridiagonal(entry)
    if by_rule is not None:
        return by_rule
    forms = [form for turned in (False, True) if (form := _eliminated(entry, prove, given, turned)) is not None]
    same = [form for form in forms if form.has(matrix.lamda)]  # of the same family, for which the hypothesis speaks
    return next(iter([*same, *forms]), None)


class _Entry:
    """The entry as a function of row and column, both integers from 0 on."""

    def __init__(self, matrix: Any) -> None:
        self.size, self.names = matrix.shape[0], matrix.lamda.variables
        self.i, self.j = (sp.Dummy(str(name), integer=True, nonnegative=True) for name in self.names)
        self.body = matrix.lamda.expr.xreplace(dict(zip(self.names, (self.i, self.j), strict=True)))

    def at(self, i: Any, j: Any) -> Any:
        return self.body.subs({self.i: i, self.j: j}, simultaneous=True)

    def determinant(self, size: Any, body: Any) -> Any:
        """Of that size with the entries of `body`, written with the names of the matrix it came from."""
        if body == self.body or sp.simplify(body - self.body) == 0:
            body = self.body
        body = body.xreplace(dict(zip((self.i, self.j), self.names, strict=True)))
        return sp.Determinant(sp.FunctionMatrix(size, size, sp.Lambda(tuple(self.names), body)))

    def beyond(self, distance: int) -> tuple[Any, Any]:
        """The entries at least that far below and above the diagonal."""
        away = self.i + sp.Dummy("away", integer=True, nonnegative=True) + distance
        return sp.simplify(self.at(away, self.i)), sp.simplify(self.at(self.i, away))


def _triangular(entry: _Entry) -> Any:
    """Zero below, or above, the diagonal: the product of the diagonal."""
    if sp.S.Zero not in entry.beyond(1):
        return None
    k = sp.Symbol("k", integer=True, nonnegative=True)
    return sp.Product(entry.at(k, k), (k, 0, entry.size - 1))


def _tridiagonal(entry: _Entry) -> Any:
    """Zero off the three middle diagonals: by the last row and then the last column,

    det_N = a_(N-1,N-1) det_(N-1) - a_(N-1,N-2) a_(N-2,N-1) det_(N-2), with det_0 = 1.
    """
    if entry.beyond(2) != (0, 0):
        return None
    last = entry.size - 1
    one, two = (entry.determinant(entry.size - less, entry.body) for less in (1, 2))
    return entry.at(last, last) * one - entry.at(last, last - 1) * entry.at(last - 1, last) * two


def _eliminated(entry: _Entry, prove: Prover, given: Sequence[Any], turned: bool) -> Any:
    """The last row cleared from the right to the left: from each column j + 1 take c_j times column j.

    That keeps the determinant. If F(N-1, j+1) = c_j F(N-1, j) for all j, the last row becomes (F(N-1, 0), 0, …, 0), so
    det_N F = (-1)^(N-1) F(N-1, 0) det_(N-1) of F(i, j+1) - c_j F(i, j); factors of one row or one column stand outside.
    `turned` does the same with rows and columns exchanged.
    """
    i, j = (entry.j, entry.i) if turned else (entry.i, entry.j)
    last = entry.size - 1

    def at(row: Any, column: Any) -> Any:
        return entry.body.subs({i: row, j: column}, simultaneous=True)

    ratio = sp.powsimp(sp.simplify(at(last, j + 1) / at(last, j)))
    if sp.simplify(at(last, j + 1) - ratio * at(last, j)) != 0 or not _defined(ratio, prove, given):
        return None
    rest = sp.factor(sp.expand(sp.expand_power_exp(at(i, j + 1) - ratio * at(i, j))))
    rest, column = rest.as_independent(i, as_Add=False)[::-1]
    rest, row = rest.as_independent(j, as_Add=False)[::-1]
    if not rest.has(i) or not rest.has(j) or not all(_defined(e, prove, given) for e in (rest, row, column)):
        return None
    names = [sp.Symbol(str(name), integer=True, nonnegative=True) for name in (i, j)]
    rows = sp.Product(row.xreplace({i: names[0]}), (names[0], 0, last - 1))
    columns = sp.Product(column.xreplace({j: names[1]}), (names[1], 0, last - 1))
    columns = columns.doit() if not column.has(j) else columns
    rows = rows.doit() if not row.has(i) else rows
    return (-1) ** last * at(last, 0) * rows * columns * entry.determinant(last, rest)


def _defined(e: Any, prove: Prover, given: Sequence[Any]) -> bool:
    """Whether no power in it divides by what may be zero."""
    divisors = [power.base for power in e.atoms(sp.Pow) if not power.exp.is_nonnegative]
    return all(base.is_nonzero or prove(sp.Ne(base, 0), given) for base in sorted(divisors, key=sp.default_sort_key))
