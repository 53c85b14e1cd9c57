"""Elimination of opaque parts (sums, unknown functions, powers of symbolic exponent) from equations that hold."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef

_STEPS = 60  # parts that are eliminated
_KINDS = (sp.Sum, sp.Product, sp.Integral, sp.Derivative, sp.Subs, sp.Determinant, sp.Trace, AppliedUndef, sp.factorial)
_KNOWN = ("real", "positive", "nonnegative", "nonzero", "integer")


def _is_opaque(e: Any) -> bool:
    return isinstance(e, _KINDS) or (e.is_Pow and not e.exp.is_number)


def opaque_parts(expressions: Iterable[Any]) -> dict[Any, sp.Dummy]:
    """A symbol for each outermost opaque part, with what SymPy knows of the part's sign."""
    found: dict[Any, sp.Dummy] = {}

    def walk(e: Any) -> None:
        if _is_opaque(e):
            if e not in found:
                known = {name: True for name in _KNOWN if getattr(e, f"is_{name}", None)}
                if isinstance(e, (sp.Sum, sp.Product)) and e.function.is_real:
                    known = {"real": True}
                found[e] = sp.Dummy(f"part{len(found)}", **(known or {"complex": True}))
            return
        for part in e.args:
            walk(part)

    for expression in expressions:
        walk(expression)
    return found


def polynomial_is_nonzero(e: sp.Expr) -> bool:
    """Whether it is a polynomial in nonnegative symbols with coefficients of one sign and a constant term."""
    symbols = sorted(e.free_symbols, key=sp.default_sort_key)
    if not symbols or not all(symbol.is_nonnegative for symbol in symbols) or not e.is_polynomial(*symbols):
        return False
    polynomial = sp.Poly(e, *symbols)
    coefficients = polynomial.coeffs()
    one_sign = all(c.is_positive for c in coefficients) or all(c.is_negative for c in coefficients)
    return bool(one_sign and polynomial.coeff_monomial(1).is_nonzero)


def eliminated(goals: Sequence[Any], relations: Sequence[Any], nonzero: Callable[[sp.Expr], bool]) -> list[Any]:
    """The goals with opaque parts replaced by what the relations, each equal to zero, say of them.

    Gauss's elimination, where a relation is solved for a part only if the part's coefficient is proved not to vanish
    and holds no opaque part itself. So the goals keep their values wherever the relations hold.
    """
    names = opaque_parts([*relations, *goals])
    places = {name: place for place, name in enumerate(sorted(names.values(), key=_height(names), reverse=True))}
    rows = [sp.expand(relation.xreplace(names)) for relation in relations]
    goals = [sp.expand(goal.xreplace(names)) for goal in goals]
    for _ in range(_STEPS):
        rows = [row for row in dict.fromkeys(rows) if row != 0]
        pivot = _pivot(rows, places, nonzero)
        if pivot is None:
            break
        row, name, slope = pivot
        value = sp.expand(-(row - slope * name) / slope)
        rows = [_put(other, name, value) for other in rows if other is not row]
        goals = [_put(goal, name, value) for goal in goals]
    goals = [_multiple(goal, rows, list(places)) for goal in goals]
    back = {name: part for part, name in names.items()}
    return [goal.xreplace(back) for goal in goals]


def _multiple(goal: Any, rows: list[Any], names: list[Any]) -> Any:
    """Zero for a goal that is a relation times a polynomial: no division, so the factor needs no proof."""
    for row in rows:
        for name in names:
            slope = row.coeff(name, 1)
            if slope == 0 or goal.coeff(name, 1) == 0:
                continue
            factor = sp.cancel(goal.coeff(name, 1) / slope)
            if sp.denom(factor).is_number and sp.expand(goal - factor * row) == 0:
                return sp.S.Zero
    return goal


def _put(e: Any, name: Any, value: Any) -> Any:
    if not e.has(name):
        return e
    e = sp.expand(e.xreplace({name: value}))
    return e if e.is_polynomial() else sp.expand(sp.cancel(sp.together(e)))


def _height(names: dict[Any, Any]) -> Callable[[Any], Any]:
    parts = {name: part for part, name in names.items()}

    def key(name: Any) -> Any:
        part = parts[name]
        numbers = [a.as_coeff_Add()[0] for f in part.atoms(AppliedUndef) for a in f.args]
        rank = 2 if isinstance(part, (sp.Sum, sp.Product, sp.Determinant)) else int(isinstance(part, sp.Derivative))
        return (rank, max(numbers, default=sp.S.Zero), sp.default_sort_key(part))

    return key


def _pivot(rows: list[Any], places: dict[Any, int], nonzero: Callable[[sp.Expr], bool]) -> Any:
    candidates = []
    for at, row in enumerate(rows):
        for name in row.atoms(sp.Dummy) & set(places):
            slope = row.coeff(name, 1)
            if slope.has(*places) or sp.expand(row - slope * name).has(name):
                continue
            candidates.append((not slope.is_number, places[name], at, name, slope))
    for _, _, at, name, slope in sorted(candidates, key=lambda c: c[:3]):
        if slope.is_nonzero or nonzero(slope):
            return rows[at], name, slope
    return None
