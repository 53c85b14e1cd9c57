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


def holds_on_the_line(statement: Any, given: Sequence[Any]) -> bool:
    """Whether the statement is proved for every real value of its one unknown that the conditions allow.

    Conditions of other kinds are left out, which makes the domain no smaller. A relation with a zero in a denominator
    counts as not holding.
    """
    symbols = statement.free_symbols
    if len(symbols) != 1:
        return False
    (symbol,) = symbols
    if not symbol.is_extended_real:
        return False
    known = [c for c in given if c.free_symbols == symbols and _relations(c, symbol) is not None]
    domain = [*known, *_assumed(symbol)]
    signs: dict[Any, list[tuple[sp.Expr, bool]]] = {}
    for part in (statement, *domain):
        found = _relations(part, symbol)
        if found is None:
            return False
        signs |= found
    factors = list(dict.fromkeys(f for parts in signs.values() for f, _ in parts if f.has(symbol)))
    if sum(sp.degree(f, symbol) for f in factors) > _HIGHEST:
        return False
    return all(
        _value(statement, signs, cell) or not all(_value(c, signs, cell) for c in domain)
        for cell in _cells(factors, symbol)
    )


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


def _cells(factors: Sequence[sp.Expr], symbol: sp.Symbol) -> Iterator[Cell]:
    """The sign of each factor on each cell of the line."""
    roots = sp.intervals([sp.Poly(f, symbol) for f in factors], strict=True) if factors else []
    ends = [end for interval, _ in roots for end in interval]
    inner = [(one + other) / 2 for one, other in zip(ends[1::2], ends[2::2])]
    for sample in [ends[0] - 1, *inner, ends[-1] + 1] if ends else [sp.Integer(0)]:
        yield {f: int(sp.sign(f.subs(symbol, sample))) for f in factors}
    for (end, _), zeros in roots:
        yield {f: 0 if i in zeros else int(sp.sign(f.subs(symbol, end))) for i, f in enumerate(factors)}


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
