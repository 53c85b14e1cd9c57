"""A search for the point where an inequality comes closest to failing, between the points of a random test."""

from typing import Any

import mpmath
import sympy as sp

from kexue_lib.derivation_points import Domain, Point

_LAZY = (sp.Sum, sp.Product, sp.Integral, sp.Limit, sp.Derivative, sp.MatrixSymbol, sp.Indexed)
_REACH = 60  # coordinates beyond it are left to the random points: there sides may meet to all digits computed


class Descent:
    """Minimise the difference of the two sides of an inequality over the real unknowns of its domain."""

    def __init__(self, relation: Any, domain: Domain) -> None:
        self.domain = domain
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
        with mpmath.workdps(20):
            starts = [[mpmath.mpf(p[s].evalf(30)) for s in self.symbols] for p in self.domain.points(16)]
            starts = [start for start in starts if max(map(abs, start)) < _REACH and self._value(start) is not None]
            starts = sorted(starts, key=self._value)[:3]
            for start in starts:
                lowest = self._descend(start)
                value = self._value(lowest)
                if value < 0:
                    found.append(self._point([sp.Rational(str(mpmath.nstr(x, 20))) for x in lowest]))
                if self.strict and value < mpmath.mpf("1e-8") * max(self.size(*lowest), mpmath.mpf("1e-20")):
                    found += self._touching(lowest)
        return found

    def _value(self, coordinates: list[Any]) -> Any:
        """The difference at a point of the domain, None outside of it."""
        if max(map(abs, coordinates)) > _REACH:
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
            for i in range(len(best)):
                for sign in (1, -1):
                    trial = [*best[:i], best[i] + sign * step[i], *best[i + 1 :]]
                    new = self._value(trial)
                    if new is not None and new < value:
                        best, value, moved = trial, new, True
                        break
            if not moved:
                step = [s / 3 for s in step]
                if max(step) < mpmath.mpf("1e-12"):
                    break
        return best

    def _touching(self, lowest: list[Any]) -> list[Point]:
        """Points near `lowest` at which the two sides meet, to 50 digits."""
        with mpmath.workdps(60):
            for i, symbol in enumerate(self.symbols):
                others = [sp.Rational(str(mpmath.nstr(x, 3))) for x in lowest]
                fixed = {s: v for s, v in zip(self.symbols, others) if s is not symbol}
                gap = self.gap_expression.subs(fixed)
                slope = sp.lambdify(symbol, sp.diff(gap, symbol), modules="mpmath")
                value = sp.lambdify(symbol, gap, modules="mpmath")
                try:
                    root = mpmath.findroot(
                        slope, (lowest[i], lowest[i] * (1 + mpmath.mpf("1e-6")) + mpmath.mpf("1e-7"))
                    )
                    near, beside = abs(value(root)), abs(value(root + mpmath.mpf("1e-3")))
                except (ValueError, ZeroDivisionError, OverflowError, TypeError, ArithmeticError):
                    continue
                # In a tail both are small; where the sides meet only the first is.
                rounded = [mpmath.mpf(other.p) / other.q for other in others]
                sides = (mpmath.mpf("1e-3"), mpmath.mpf("-1e-3"))
                around = [[*rounded[:i], root + side, *rounded[i + 1 :]] for side in sides]
                interior = all(self._value(point) is not None for point in around)
                if interior and near <= mpmath.mpf("1e-35") * beside and abs(root - lowest[i]) < mpmath.mpf("0.1"):
                    exact = [sp.Float(root, 55) if s is symbol else v for s, v in zip(self.symbols, others)]
                    return [self._point(exact)]
        return []

    def _point(self, coordinates: list[sp.Expr]) -> Point:
        point: Point = dict(zip(self.symbols, coordinates))
        return point | {symbol: expression.subs(point) for symbol, expression in self.solved.items()}
