"""A search for the point where an inequality comes closest to failing, between the points of the other tests.

It only proposes points; whether the inequality fails there is decided by the bounded numbers.
"""

import functools
import itertools
import math
import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.polys.polyerrors import BasePolynomialError

from kexue_lib.derivation._cannot import Cannot, attempted
from kexue_lib.derivation._points import Domain, Point
from kexue_lib.derivation._products import sides

_LAZY = (sp.Sum, sp.Product, sp.Integral, sp.Limit, sp.Derivative, sp.MatrixSymbol, sp.Indexed, AppliedUndef)
_IN_MATH = (sp.exp, sp.log, sp.sin, sp.cos, sp.tan, sp.atan, sp.asin, sp.acos, sp.sinh, sp.cosh, sp.tanh, sp.asinh)
_IN_MATH += (sp.Abs, sp.Max, sp.Min, sp.erf, sp.erfc, sp.gamma, sp.floor, sp.ceiling, sp.sign, sp.Piecewise)
_REACH = 1e12
_SEED, _BRANCHES, _SLANTED, _CORNERS, _BARRIERS = 1729, 4, 8, 60, (1.0, 0.1, 0.01, 0.001)
_TOUCH, _NEAR = 1e-9, 1e-6  # of an order that may turn to equality; of a minimum, where values tell half of the digits
_CANNOT = (ValueError, ZeroDivisionError, OverflowError, TypeError)


def suspects(relation: Any, domain: Domain, seen: list[Point]) -> list[Point]:
    """Points at which the difference of the two sides seems negative, or has a stationary point that is exact.

    `seen` are points of the domain, from which the search starts.
    """
    found = [*_on_a_boundary(relation, domain, seen), *_at_corners(domain, seen)]
    branches = itertools.product(*(values[:2] for values in domain.solved.values()))
    for branch in itertools.islice(branches, _BRANCHES):
        descent = _Descent(relation, domain, seen, dict(zip(domain.solved, branch)))
        found += [*descent.stationary(), *descent.lowest()] if descent.possible else []
    return found


def _on_a_boundary(relation: Any, domain: Domain, seen: list[Point]) -> Iterator[Point]:
    """Exact stationary points of polynomials of degree two where a condition of degree two is an equation."""
    gap = relation.gts - relation.lts
    for condition in domain.conditions:
        if not isinstance(condition, (sp.Eq, sp.Le, sp.Ge)) or getattr(condition.lhs, "is_Matrix", False):
            continue
        known = condition.lhs - condition.rhs
        symbols = sorted(gap.free_symbols | known.free_symbols, key=domain.structure.key)
        if len(symbols) > 3 or not all(isinstance(s, sp.Symbol) and s.is_extended_real for s in symbols):
            continue
        if not all(e.is_polynomial(*symbols) and sp.Poly(e, *symbols).total_degree() <= 2 for e in (gap, known)):
            continue
        multiplier = sp.Dummy("m", real=True)
        system = [sp.diff(gap - multiplier * known, s) for s in symbols]
        solve = functools.partial(sp.solve, [*system, known], [*symbols, multiplier], dict=True)
        for solution in attempted(solve, [])[:4]:
            values = {s: solution.get(s, s) for s in symbols}
            if all(value.is_number and value.is_extended_real for value in values.values()):
                yield (seen[0] if seen else {}) | values


def _at_corners(domain: Domain, seen: list[Point]) -> Iterator[Point]:
    """Where as many polynomial conditions as there are symbols in them hold with equality."""
    bounds = [side for side, strict in sides(domain.conditions) if not strict]
    symbols = sorted({s for bound in bounds for s in bound.free_symbols}, key=domain.structure.key)
    if not all(isinstance(s, sp.Symbol) and s.is_extended_real for s in symbols):
        return
    bounds += [s for s in symbols if s.is_nonnegative and not s.is_positive]
    bounds = [sp.Poly(b, *symbols) for b in dict.fromkeys(bounds) if symbols and b.is_polynomial(*symbols)]
    affine = [b for b in bounds if b.is_linear]
    curved = bounds if len(symbols) == 2 and all(b.total_degree() <= 2 for b in bounds) else []
    for chosen in itertools.islice(itertools.combinations(affine, len(symbols)), _CORNERS):
        yield from _solutions(functools.partial(sp.linsolve, [b.as_expr() for b in chosen], symbols), symbols, seen)
    for chosen in itertools.islice(itertools.combinations(curved, 2), _CORNERS // 10):
        if not set(chosen) <= set(affine):
            yield from _solutions(
                functools.partial(sp.nonlinsolve, [b.as_expr() for b in chosen], symbols), symbols, seen
            )


def _solutions(solve: Any, symbols: list[sp.Symbol], seen: list[Point]) -> Iterator[Point]:
    for values in attempted(solve, sp.S.EmptySet):
        if all(value.is_number and value.is_extended_real for value in values):
            yield (seen[0] if seen else {}) | dict(zip(symbols, values))


class _Descent:
    """Minimise the difference of the two sides over the real unknowns of the domain."""

    def __init__(self, relation: Any, domain: Domain, seen: list[Point], solved: dict[sp.Symbol, sp.Expr]) -> None:
        self.domain, self.seen, self.solved = domain, seen, solved
        self.random = random.Random(_SEED)
        self.expression = (relation.gts - relation.lts).subs(self.solved)
        self.symbols = [
            s for s in domain.free if s.is_extended_real and s.is_integer is not True and self.expression.has(s)
        ]
        others = self.expression.free_symbols - set(self.symbols)
        known = all(isinstance(f, _IN_MATH) for f in self.expression.atoms(sp.Function))
        self.possible = bool(self.symbols) and known and not (self.expression.has(*_LAZY) or others)
        if self.possible:
            self.gap = self._function(self.expression)
            self.above = [self._function(bound) for bound in self._bounds()]

    def _function(self, expression: sp.Expr) -> Any:
        return sp.lambdify(self.symbols, expression, modules="math", cse=True)

    def _bounds(self) -> list[sp.Expr]:
        """What has to be positive (boundaries belong to the aimed points)."""
        unknowns = {symbol: symbol for symbol in self.symbols} | self.solved
        bounds = [value for symbol, value in unknowns.items() if symbol.is_nonnegative]
        bounds += [-value for symbol, value in unknowns.items() if symbol.is_nonpositive]
        for part in self.domain.conditions:
            if isinstance(part, (sp.Lt, sp.Le, sp.Gt, sp.Ge)):
                bounds.append((part.gts - part.lts).subs(self.solved))
            elif not isinstance(part, (sp.Eq, sp.Ne)):
                self.possible = False
        return [bound for bound in bounds if not bound.has(*_LAZY)]

    def lowest(self) -> Iterator[Point]:
        """Where descents from several starts end, if the difference is negative there."""
        starts = [[float(p[s]) for s in self.symbols] for p in self.seen]
        starts = [start for start in starts if self._value(start) is not None]
        for start in [*sorted(starts, key=self._value)[:2], *starts[1::6][:2]]:
            for weight in _BARRIERS if self.above else ():  # not to run aground on a boundary
                start = self._descend(start, weight)
            end = self._descend(start)
            if self._value(end) <= 0:
                yield self._point([sp.Rational(str(x)) for x in end])
            if abs(self._value(end)) < _TOUCH:
                yield self._point(list(map(_closed_form, end)))

    def stationary(self) -> Iterator[Point]:
        """Exact stationary points of polynomials, where a strict inequality may turn out to be none."""
        polynomial = self.expression.is_polynomial(*self.symbols)
        if not polynomial or len(self.symbols) > 3 or sp.Poly(self.expression, *self.symbols).total_degree() > 4:
            return
        gradient = [sp.diff(self.expression, symbol) for symbol in self.symbols]
        try:
            solutions = sp.solve(gradient, self.symbols, dict=True)
        except (Cannot, BasePolynomialError, ValueError):
            return
        for solution in solutions[:8]:
            values = [solution.get(s, s).subs(dict.fromkeys(self.symbols, 1)) for s in self.symbols]
            if all(value.is_extended_real for value in values):
                yield self._point(values)

    def _value(self, coordinates: list[Any], weight: float = 0.0) -> Any:
        """The difference at a point of the domain, with a barrier along its boundary; None outside of it."""
        if max(map(abs, coordinates)) > _REACH:
            return None
        try:
            inside = [bound(*coordinates) for bound in self.above]
            if any(distance <= 0 for distance in inside):
                return None
            value = self.gap(*coordinates)
            if weight:
                value -= weight * sum(math.log(min(distance, 1)) for distance in inside)
            return value if math.isfinite(value) else None
        except _CANNOT:
            return None

    def _descend(self, start: list[Any], weight: float = 0.0) -> list[Any]:
        best, value = list(start), self._value(start, weight)
        step = [max(abs(x), 0.1) / 2 for x in best]
        for _ in range(45):
            moved = False
            for trial in self._moves(best, step):
                new = self._value(trial, weight)
                if new is not None and new < value:
                    best, value, moved = trial, new, True
            if not moved:
                step = [s / 3 for s in step]
                if max(step) < 1e-12:
                    break
        return best

    def _moves(self, point: list[Any], step: list[Any]) -> Iterator[list[Any]]:
        """Steps along each axis and along the diagonals to the next one, and far steps by a factor."""
        for i in range(len(point)):
            for sign in (1, -1):
                yield _moved(point, i, sign * step[i])
            for factor in (4, -1):
                yield _moved(point, i, (factor - 1) * point[i])
            j = (i + 1) % len(point)
            for one, other in ((1, 1), (1, -1), (-1, 1), (-1, -1)) if j != i else ():
                yield _moved(_moved(point, i, one * step[i]), j, other * step[j])
        for _ in range(_SLANTED if self.above and len(point) > 1 else 0):  # along a boundary
            scale = 4.0 ** -self.random.randrange(4)
            yield [x + scale * s * self.random.gauss(0, 1) for x, s in zip(point, step)]

    def _point(self, coordinates: list[sp.Expr]) -> Point:
        point: Point = dict(zip(self.symbols, coordinates))
        others = self.seen[0] if self.seen else {}
        point = {k: v for k, v in others.items() if k not in self.solved} | point
        return point | {symbol: expression.subs(point) for symbol, expression in self.solved.items()}


def _closed_form(x: float) -> sp.Expr:
    """A number of a short form near x: rational, the root, logarithm or exponential of one, or such a multiple of π."""
    forms = ((x, lambda r: r), (x * x, lambda r: (1 if x > 0 else -1) * sp.sqrt(r)), (x / math.pi, lambda r: r * sp.pi))
    forms += ((math.exp(x), sp.log),) if abs(x) < 9 else ()
    forms += ((math.log(abs(x)), lambda r: (1 if x > 0 else -1) * sp.exp(r)),) if x else ()
    for value, inverse in forms:
        near = Fraction(value).limit_denominator(60)
        if abs(near - value) < _NEAR * max(1, abs(value)) and (near > 0 or inverse is not sp.log):
            return inverse(sp.Rational(near))
    return sp.Rational(str(x))


def _moved(point: list[Any], i: int, side: Any) -> list[Any]:
    return [*point[:i], point[i] + side, *point[i + 1 :]]
