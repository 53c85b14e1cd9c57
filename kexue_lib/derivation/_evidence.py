"""The numerical evidence for one statement, and the errors that refuse it."""

import math
from collections.abc import Sequence
from typing import Any

import mpmath
import sympy as sp
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanFunction

from kexue_lib.derivation._aims import branches
from kexue_lib.derivation._cannot import attempted
from kexue_lib.derivation._errors import Refusal
from kexue_lib.derivation._indexed_facts import ForEvery
from kexue_lib.derivation._letters import is_matrix
from kexue_lib.derivation._line import failing_value
from kexue_lib.derivation._points import Domain, Point, counterexample
from kexue_lib.derivation._search import suspects
from kexue_lib.derivation._time import OutOfTime, cpu_seconds, within
from kexue_lib.derivation._truth import NoValue, Truth, truth, value_text
from kexue_lib.derivation._unknowns import Entries

ENOUGH = 20  # points that a checked statement needs
POINTS = 60  # points that a checked statement gets
CROSS = 14  # points at which every statement is put to the test before a proof is sought
ENTRIES = 28  # the same for orders between sums over vectors, whose entries are drawn in one manner after another
COSTLY = 4  # the same where a point takes quadrature or a limit
DIGITS = 45  # that equal sides share, unless a sum, an integral or a limit gives fewer
AGREE = 3  # points at which a proved statement must be seen to hold


class NumericalTest:
    """Tests of one statement at point after point of its domain, with bounded errors."""

    def __init__(self, statement: Any, given: Sequence[Any], *, seconds: float) -> None:
        self.statement = _decimals_exact(statement)
        self.domain = Domain(self.statement, [_decimals_exact(condition) for condition in given])
        self.points = self.domain.points(4 * POINTS)
        self.seconds, self.spent = seconds, 0.0
        self.found = self.drawn = 0
        self.exhausted = False
        self.trouble = self.limit = ""
        self.seen: list[Point] = []
        self.met: list[Point] = []

    @property
    def is_costly(self) -> bool:
        """Whether one point takes quadrature, extrapolation or a sum without end."""
        ends = (e for total in self.statement.atoms(sp.Sum, sp.Product) for limit in total.limits for e in limit[1:])
        return self.statement.has(sp.Integral, sp.Limit) or any(end.is_infinite for end in ends)

    @property
    def crossing(self) -> int:
        """The points at which the statement is put to the test before a proof is sought."""
        over_entries = self.domain.indexed and not isinstance(self.statement, (sp.Eq, sp.Ne))
        return COSTLY if self.is_costly else ENTRIES if over_entries else CROSS

    def run(self, count: int, haste: float = math.inf) -> None:
        """Go on until the statement was found true at `count` points; raise where false.

        After `haste` seconds the points that a proved statement needs are enough.
        """
        most = 12 * self.seconds
        while self.found < (count if self.spent < haste else min(count, AGREE)) and self.spent < most:
            start = cpu_seconds()
            try:
                point = within(2 * self.seconds, next, self.points, None)
                if point is None:
                    self.exhausted = True
                if self.exhausted:
                    return
                self.drawn += 1
                self.met.append(point)
                self.judge(point, within(2 * self.seconds, _truth, self.statement, point))
            except OutOfTime:
                self.trouble = self.trouble or "the numbers take too long"
            except NoValue as reason:
                self.trouble = self.trouble or str(reason)
            self.spent += cpu_seconds() - start

    def search(self) -> None:
        """Look for the point where an inequality is closest to failing; raise if it fails there.

        A statement about polynomials in one unknown fails where exact arithmetic says so.
        """
        value = attempted(lambda: failing_value(self.statement, self.domain.given), None)
        if value is not None:
            point = {next(iter(self.statement.free_symbols)): value}
            self.judge(point, _truth(self.statement, point))
            raise Refusal(f"false at {', '.join(f'{symbol} = {at}' for symbol, at in point.items())}", point)
        for relation in sp.And.make_args(self.statement):
            if not isinstance(relation, (sp.Lt, sp.Le, sp.Gt, sp.Ge)):
                continue
            try:
                for point in within(self.seconds, suspects, relation, self.domain, self.seen):
                    if not within(self.seconds, self.domain.contains, point):
                        continue
                    result = within(self.seconds, truth, self.statement, point)
                    if result.value is False:
                        self.judge(point, result)
            except (OutOfTime, NoValue):  # the search only adds to the test
                continue

    def corners(self) -> None:
        """Look where two boundaries meet; raise where the statement is false there."""
        try:
            for point in within(12 * self.seconds, lambda: list(self.domain.corners())):
                self.judge(point, within(2 * self.seconds, _truth, self.statement, point))
        except (OutOfTime, NoValue):  # these points only add to the test
            pass

    def judge(self, point: Point, result: Truth) -> None:
        """Count a point at which the statement holds; raise where it does not."""
        if result.value is None:
            self.trouble = self.trouble or result.reason
            return
        if result.value:
            self.found += 1
            self.limit = self.limit or result.reason
            self.seen.append(point)
            return
        values = counterexample(point)
        where = ", ".join(f"{symbol} = {value}" for symbol, value in values.items()) or "every point"
        if result.undefined:
            raise Refusal(f"undefined at {where}: {result.undefined}", values)
        sides = ""
        if result.sides and not any(map(is_matrix, result.sides)):
            one, other = (value_text(side, point, apart) for side, apart in zip(result.sides, reversed(result.sides)))
            sides = f": {one} against {other}"
        raise Refusal(f"false at {where}{sides}", values)

    def require_every_branch(self) -> None:
        """Raise where a side of some boundary was reached by points, but by none that could be decided."""
        for expression in branches(self.statement):
            reached, decided = (
                {_sign(expression, point) for point in points} - {None} for points in (self.met, self.seen)
            )
            if reached - decided:
                where = {1: "> 0", -1: "< 0", 0: "= 0"}[min(reached - decided)]
                raise Refusal(
                    f"could not decide: no proof was found, and no point with {expression} {where} was decided",
                )

    def require(self, needed: int, otherwise: str) -> None:
        """Raise unless enough points were found (all of them, where the domain has fewer than a proof needs)."""
        every_point = self.exhausted and self.drawn and self.found == self.drawn
        if self.domain.is_empty or (every_point and needed < ENOUGH):
            needed = 1
        if self.found >= needed:
            return
        if not (self.drawn or self.trouble):
            raise Refusal("could not decide: no point that satisfies the conditions was found")
        reason = f" ({self.trouble})" if self.trouble else ""
        found = f"{self.found} of the {needed} points needed were decided{reason}"
        raise Refusal(f"could not decide: {otherwise}; {found}")

    def reach(self) -> str:
        """How many points, to how many digits and how far out the statement was tested, in words."""
        digits = self.limit or f"to {DIGITS} digits"
        if self.domain.is_empty:
            return digits
        words = [f"{self.found} points {digits}"]
        sizes = [v for p in self.seen for s, v in p.items() if isinstance(s, sp.Symbol) and s.is_integer is not True]
        magnitudes = [abs(complex(v)) for v in sizes if v != 0]
        if magnitudes:
            words.append(f"sizes {_power(min(magnitudes))} to {_power(max(magnitudes))}")
        whole = [abs(int(v)) for p in self.seen for s, v in p.items() if isinstance(s, sp.Symbol) and s.is_integer]
        if whole:
            words.append(f"integers up to {max(whole)}")
        if any(isinstance(v, Entries) for p in self.seen for v in p.values()):
            words.append("entries of nine kinds")
        return ", ".join(words)


def _truth(statement: Any, point: Point) -> Truth:
    """The truth of the statement; no value where SymPy fails on the numbers, as it does on roots of some large ones."""
    found = attempted(lambda: truth(statement, point), None)
    if found is None:
        raise NoValue("SymPy fails on the numbers")
    return found


def _sign(expression: Any, point: Point) -> int | None:
    """The sign of a real expression at a point, None where it has none."""
    numbers = {key: value for key, value in point.items() if isinstance(key, sp.Symbol)}
    value = expression.subs(numbers)
    return int(sp.sign(value)) if value.is_extended_real and value.is_number and sp.sign(value).is_Integer else None


def _power(size: float) -> str:
    return f"1e{int(mpmath.floor(mpmath.log10(size)))}"


def _decimals_exact(statement: Any) -> Any:
    """Decimal numbers as the fractions that they are printed as."""
    if isinstance(statement, (Relational, BooleanFunction)) and not isinstance(statement, ForEvery):
        return statement.func(*map(_decimals_exact, statement.args), evaluate=False)
    return statement.xreplace({number: sp.Rational(str(number)) for number in statement.atoms(sp.Float)})
