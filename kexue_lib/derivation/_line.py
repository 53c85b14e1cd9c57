"""Statements about one real unknown and polynomials in it, decided on the finitely many cells of the real line.

Between two neighbouring roots of all polynomials that occur, and at each root, every one of them has one sign: what
holds on each of these cells holds for every real number. The roots are isolated in exact arithmetic.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp
from sympy.core.relational import Relational
from sympy.logic.boolalg import And, Equivalent, Implies, Not, Or

Cell = dict[sp.Expr, int]
_HIGHEST = 60  # degree of all polynomials together
_LOST = object()
_OF_SIGN = {"real", "extended_real", "finite", "complex", "commutative", "positive", "negative", "nonnegative"}
_OF_SIGN |= {"nonpositive", "nonzero", "zero", "integer"}


def holds_on_the_line(statement: Any, given: Sequence[Any]) -> bool:
    """Whether the statement is proved for every real value of its one unknown that the conditions allow.

    Conditions of other kinds are left out, which makes the domain no smaller. A relation with a zero in a denominator
    counts as not holding.
    """
    return next(_failures(statement, given), _LOST) is None


def failing_value(statement: Any, given: Sequence[Any]) -> sp.Expr | None:
    """A value of the one real unknown for which the statement fails, None where there is none or none is known.

    It satisfies every condition and all that is assumed of the unknown.
    """
    (symbol, *others) = statement.free_symbols or (None,)
    if others or not isinstance(symbol, sp.Symbol) or not set(symbol._assumptions_orig) <= _OF_SIGN:
        return None
    if any(c.free_symbols != {symbol} or _relations(c, symbol) is None for c in given):
        return None
    cell = next(_failures(statement, given), _LOST)
    if cell is None or cell is _LOST:
        return None
    sample, factor, interval = cell
    if factor is None:
        return sample
    return next(r for r in sp.real_roots(factor) if interval[0] <= r <= interval[1])


def _failures(statement: Any, given: Sequence[Any]) -> Iterator[Any]:
    """Yield the cells on which the statement fails, then None; `_LOST` where it is of another kind."""
    symbols = statement.free_symbols
    symbol = next(iter(symbols), None)
    if len(symbols) != 1 or not isinstance(symbol, sp.Symbol) or not symbol.is_extended_real:
        yield _LOST
        return
    known = [c for c in given if c.free_symbols == symbols and _relations(c, symbol) is not None]
    domain = [*known, *_assumed(symbol)]
    signs: dict[Any, list[tuple[sp.Expr, bool]]] = {}
    for part in (statement, *domain):
        found = _relations(part, symbol)
        if found is None:
            yield _LOST
            return
        signs |= found
    factors = list(dict.fromkeys(f for parts in signs.values() for f, _ in parts if f.has(symbol)))
    if sum(sp.degree(f, symbol) for f in factors) > _HIGHEST:
        yield _LOST
        return
    for cell, *where in _cells(factors, symbol):
        if not _value(statement, signs, cell) and all(_value(c, signs, cell) for c in domain):
            yield where
    yield None


def _assumed(symbol: sp.Symbol) -> list[Any]:
    """What the unknown's assumptions say of its sign, as conditions."""
    facts = ((symbol.is_positive, sp.Gt), (symbol.is_nonnegative, sp.Ge), (symbol.is_negative, sp.Lt))
    facts += ((symbol.is_nonpositive, sp.Le), (symbol.is_nonzero, sp.Ne))
    return [kind(symbol, 0, evaluate=False) for fact, kind in facts if fact]


def _relations(statement: Any, symbol: sp.Symbol) -> dict[Any, list[tuple[sp.Expr, bool]]] | None:
    """Each relation in the statement with its difference as irreducible factors, None where it is of another kind.

    The flag of a factor says that it stands in the denominator.
    """
    if statement in (sp.true, sp.false):
        return {}
    if isinstance(statement, (And, Or, Not, Implies, Equivalent)):
        found: dict[Any, list[tuple[sp.Expr, bool]]] = {}
        for part in statement.args:
            inside = _relations(part, symbol)
            if inside is None:
                return None
            found |= inside
        return found
    if not isinstance(statement, Relational) or getattr(statement.lhs, "is_Matrix", False):
        return None
    gap = statement.lhs - statement.rhs
    if not gap.is_rational_function(symbol) or gap.free_symbols - {symbol}:
        return None
    factors = []
    for side, below in zip(sp.fraction(sp.together(gap)), (False, True)):
        if not all(c.is_Rational for c in sp.Poly(side, symbol).all_coeffs()):
            return None
        constant, powers = sp.factor_list(side, symbol)
        factors += [(sp.sympify(constant), below), *((f, below) for f, count in powers for _ in range(count))]
    return {statement: factors}


def _cells(
    factors: Sequence[sp.Expr], symbol: sp.Symbol
) -> Iterator[tuple[Cell, sp.Rational, sp.Expr | None, tuple[sp.Rational, sp.Rational]]]:
    """The sign of each factor on each cell of the line, a point of it; of a root its factor and what isolates it."""
    polynomials = [sp.Poly(f, symbol) for f in factors]
    near = sp.Rational(1, 4) if symbol.is_integer else None
    roots = sp.intervals(polynomials, strict=True, eps=near) if factors else []
    if symbol.is_integer:  # those beside a root one by one; further ones have the signs of the last beside it
        beside = {n for (a, b), _ in roots for n in range(int(sp.floor(a)) - 1, int(sp.ceiling(b)) + 2)} or {0}
        for n in map(sp.Integer, sorted(beside, key=abs)):
            yield {f: int(sp.sign(f.subs(symbol, n))) for f in factors}, n, None, (n, n)
        return
    ends = [end for interval, _ in roots for end in interval]
    inner = [(one + other) / 2 for one, other in zip(ends[1::2], ends[2::2])]
    for sample in [ends[0] - 1, *inner, ends[-1] + 1] if ends else [sp.Integer(0)]:
        yield {f: int(sp.sign(f.subs(symbol, sample))) for f in factors}, sample, None, (sample, sample)
    for interval, zeros in roots:
        at = interval[0]
        signs = {f: 0 if i in zeros else int(sp.sign(f.subs(symbol, at))) for i, f in enumerate(factors)}
        yield signs, at, factors[next(iter(zeros))], interval


def _value(statement: Any, signs: dict[Any, list[tuple[sp.Expr, bool]]], cell: Cell) -> bool:
    if statement in (sp.true, sp.false):
        return bool(statement)
    if isinstance(statement, Relational):
        sign = 1
        for factor, below in signs[statement]:
            one = cell[factor] if factor in cell else int(sp.sign(factor))
            if below and one == 0:
                return False
            sign *= one
        return bool(statement.func(sp.Integer(sign), 0))
    values = [_value(part, signs, cell) for part in statement.args]
    if isinstance(statement, Implies):
        return not values[0] or values[1]
    if isinstance(statement, Equivalent):
        return len(set(values)) == 1
    return {And: all, Or: any, Not: lambda v: not v[0]}[statement.func](values)
