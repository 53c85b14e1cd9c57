"""A search for the point where an inequality comes closest to failing, between the points of a random test.

Part of :mod:`kexue_lib.derivation`, which is the place to call.
"""

from collections.abc import Iterator
from typing import Any

import mpmath
import sympy as sp

from kexue_lib.derivation_points import Domain, Point

_LAZY = (sp.Sum, sp.Product, sp.Integral, sp.Limit, sp.Derivative, sp.MatrixSymbol, sp.Indexed)
_SIDE = mpmath.mpf(1) / 1024
_REACH = 60  # coordinates beyond it are left to the random points: there sides may meet to all digits computed


class Descent:
    """Minimise the difference of the two sides of an inequality over the real unknowns of its domain."""

    def __init__(self, relation: Any, domain: Domain) -> None:
        self.domain = domain
        self.reach = _REACH * (10**10 if domain.wide else 1)
        self.strict = isinstance(relation, (sp.StrictLessThan, sp.StrictGreaterThan))
        self.solved = {symbol: values[0] for symbol, values in domain.solved.items()}
        gap = (relation.gts - relation.lts).subs(self.solved)
        self.symbols = [s for s in domain.free if s.is_extended_real and s.is_integer is not True and gap.has(s)]
        others = gap.free_symbols - set(self.symbols)
        self.possible = bool(self.symbols) and not (gap.has(*_LAZY) or domain.functions or others)
        if self.possible:
            self.gap_expression = gap
            self.gap = self._function(gap)
            self.size = self._function(sp.Add(*map(sp.Abs, sp.Add.make_args(gap))))
            self.above = [self._function(bound) for bound in self._bounds()]

    def _function(self, expression: sp.Expr) -> Any:
        return sp.lambdify(self.symbols, expression, modules="mpmath", cse=True)

    def _bounds(self) -> list[sp.Expr]:
        """What has to be positive (boundaries belong to the structured points)."""
        unknowns = {symbol: symbol for symbol in self.symbols} | self.solved
        bounds = [value for symbol, value in unknowns.items() if symbol.is_nonnegative]
        bounds += [-value for symbol, value in unknowns.items() if symbol.is_nonpositive]
        for condition in self.domain.conditions:
            for part in sp.And.make_args(condition):
                if isinstance(part, (sp.Lt, sp.Le, sp.Gt, sp.Ge)):
                    bounds.append((part.gts - part.lts).subs(self.solved))
                elif not isinstance(part, (sp.Eq, sp.Ne)):
                    self.possible = False
        return bounds

    def suspects(self) -> list[Point]:
        """Points at which the difference is negative, or at which it vanishes although it must not."""
        found: list[Point] = []
        if not self.possible:
            return found
        with mpmath.workdps(40 if self.domain.wide else 20):
            starts = [[mpmath.mpf(p[s].evalf(30)) for s in self.symbols] for p in self.domain.points(16)]
            starts = [start for start in starts if max(map(abs, start)) < self.reach and self._value(start) is not None]
            starts = [*sorted(starts, key=self._value)[:2], *starts[1::6][:2]]
            for start in starts:
                lowest = self._descend(start)
                value = self._value(lowest)
                if value < 0:
                    found.append(self._point([sp.Rational(str(mpmath.nstr(x, 20))) for x in lowest]))
                if self.strict and value < mpmath.mpf("1e-8") * max(self.size(*lowest), self.size(*start)):
                    found += self._touching(lowest)
        return found

    def _value(self, coordinates: list[Any]) -> Any:
        """The difference at a point of the domain, None outside of it."""
        if max(map(abs, coordinates)) > self.reach:
            return None
        try:
            if any(mpmath.re(bound(*coordinates)) <= 0 for bound in self.above):
                return None
            value = self.gap(*coordinates)
        except (ValueError, ZeroDivisionError, OverflowError, TypeError):
            return None
        if mpmath.im(value) != 0 or not mpmath.isfinite(value):
            return None
        return mpmath.re(value)

    def _descend(self, start: list[Any]) -> list[Any]:
        best, value = list(start), self._value(start)
        step = [max(abs(x), mpmath.mpf(1) / 10) / 2 for x in best]
        for _ in range(45):
            moved = False
            for trial in self._moves(best, step):
                new = self._value(trial)
                if new is not None and new < value:
                    best, value, moved = trial, new, True
            if not moved:
                step = [s / 3 for s in step]
                if max(step) < mpmath.mpf("1e-12"):
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

    def _touching(self, lowest: list[Any]) -> list[Point]:
        """A point near `lowest` at which the two sides meet, to 50 digits."""
        with mpmath.workdps(60):
            for moving in [*([i] for i in range(len(lowest))), list(range(len(lowest)))][
                : None if len(lowest) > 1 else 1
            ]:
                start = [x if i in moving else mpmath.mpf(mpmath.nstr(x, 3)) for i, x in enumerate(lowest)]
                fixed = {s: sp.Rational(mpmath.nstr(x, 3)) for i, (s, x) in enumerate(zip(self.symbols, lowest))}
                free = [self.symbols[i] for i in moving]
                gap = self.gap_expression.subs({s: v for s, v in fixed.items() if s not in free})
                root = _stationary(gap, free, [start[i] for i in moving])
                if root is None or max(abs(x - start[i]) for x, i in zip(root, moving)) > mpmath.mpf("0.1"):
                    continue
                if self._meets(
                    gap, free, root, [dict(zip(moving, root)).get(i, x) for i, x in enumerate(start)], moving
                ):
                    return [self._point([*(fixed | {s: sp.Float(x, 55) for s, x in zip(free, root)}).values()])]
        return []

    def _meets(self, gap: sp.Expr, free: list[Any], root: list[Any], point: list[Any], moving: list[int]) -> bool:
        """Whether the difference is zero at `root` and grows beside it: in a tail it would be small at both."""
        value = sp.lambdify(free, gap, modules="mpmath")
        near = abs(value(*root))
        for position, i in enumerate(moving):
            beside = [abs(value(*_moved(root, position, side))) for side in (_SIDE, -_SIDE)]
            interior = all(self._value(_moved(point, i, side)) is not None for side in (_SIDE, -_SIDE))
            if not interior or near > mpmath.mpf("1e-35") * min(beside):
                return False
        return True

    def _point(self, coordinates: list[sp.Expr]) -> Point:
        point: Point = dict(zip(self.symbols, coordinates))
        return point | {symbol: expression.subs(point) for symbol, expression in self.solved.items()}


def _moved(point: list[Any], i: int, side: Any) -> list[Any]:
    return [*point[:i], point[i] + side, *point[i + 1 :]]


def _stationary(gap: sp.Expr, symbols: list[Any], start: list[Any]) -> list[Any] | None:
    """Where the gradient vanishes, by Newton's method from `start`."""
    gradient = [sp.diff(gap, symbol) for symbol in symbols]
    try:
        if len(symbols) == 1:
            slope = sp.lambdify(symbols, gradient[0], modules="mpmath")
            return [mpmath.findroot(slope, (start[0], start[0] * (1 + mpmath.mpf("1e-6")) + mpmath.mpf("1e-7")))]
        root = mpmath.findroot(sp.lambdify(symbols, gradient, modules="mpmath"), start)
        return [root[i] for i in range(len(symbols))]
    except (ValueError, ZeroDivisionError, OverflowError, TypeError, ArithmeticError):
        return None
