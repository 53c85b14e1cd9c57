"""The numerical evidence for one statement, and the errors that refuse it."""

from collections.abc import Sequence
from typing import Any

import mpmath
import sympy as sp
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanFunction

from kexue_lib.derivation._errors import DerivationError, VacuousClaim
from kexue_lib.derivation._indexed_facts import ForEvery
from kexue_lib.derivation._points import Domain, Point, counterexample
from kexue_lib.derivation._search import suspects
from kexue_lib.derivation._time import OutOfTime, cpu_seconds, within
from kexue_lib.derivation._truth import NoValue, Truth, truth, value_text
from kexue_lib.derivation._unknowns import Entries

ENOUGH = 20  # points that a checked statement needs
POINTS = 60  # points that a checked statement gets
CROSS = 16  # points at which every statement is put to the test before a proof is sought
DIGITS = 45  # that equal sides share, unless a sum, an integral or a limit gives fewer
AGREE = 3  # points at which a proved statement must be seen to hold


class NumericalTest:
    """Tests of one statement at point after point of its domain, with bounded errors."""

    def __init__(self, title: str, statement: Any, given: Sequence[Any], *, seconds: float) -> None:
        self.title = title
        self.statement = _decimals_exact(statement)
        self.domain = Domain(self.statement, [_decimals_exact(condition) for condition in given])
        self.points = self.domain.points(4 * POINTS)
        self.seconds, self.spent = seconds, 0.0
        self.found = self.drawn = 0
        self.exhausted = False
        self.trouble = self.limit = ""
        self.seen: list[Point] = []

    def run(self, count: int, enough: int = POINTS) -> None:
        """Go on until the statement was found true at `count` points (`enough` if slow); raise where false."""
        while self.found < count and self.spent < 12 * self.seconds and not self.exhausted:
            if self.found >= enough and self.spent > self.seconds / 10:
                return
            start = cpu_seconds()
            try:
                point = within(2 * self.seconds, next, self.points, None)
                if point is None:
                    self.exhausted = True
                    return
                self.drawn += 1
                self.judge(point, within(2 * self.seconds, truth, self.statement, point))
            except OutOfTime:
                self.trouble = self.trouble or "the numbers take too long"
            except NoValue as reason:
                self.trouble = self.trouble or str(reason)
            self.spent += cpu_seconds() - start

    def search(self) -> None:
        """Look for the point where an inequality is closest to failing; raise if it fails there."""
        for relation in sp.And.make_args(self.statement):
            if not isinstance(relation, (sp.Lt, sp.Le, sp.Gt, sp.Ge)):
                continue
            try:
                for point in within(self.seconds, suspects, relation, self.domain):
                    if not within(self.seconds, self.domain.contains, point):
                        continue
                    result = within(self.seconds, truth, self.statement, point)
                    if result.value is False:
                        self.judge(point, result)
            except (OutOfTime, NoValue):  # the search only adds to the test
                continue

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
            raise DerivationError(self.title, f"undefined at {where}: {result.undefined}", values)
        sides = ""
        if result.sides:
            one, other = (value_text(side, point, apart) for side, apart in zip(result.sides, reversed(result.sides)))
            sides = f": {one} against {other}"
        raise DerivationError(self.title, f"false at {where}{sides}", values)

    def require(self, needed: int, otherwise: str) -> None:
        """Raise unless enough points were found (all of them, where the domain has fewer than a proof needs)."""
        every_point = self.exhausted and self.drawn and self.found == self.drawn
        if self.domain.is_empty or (every_point and needed < ENOUGH):
            needed = 1
        if self.found >= needed:
            return
        if not (self.drawn or self.trouble):
            raise VacuousClaim(self.title, "no point that satisfies the conditions was found")
        reason = f" ({self.trouble})" if self.trouble else ""
        found = f"{self.found} of the {needed} points needed were decided{reason}"
        raise DerivationError(self.title, f"could not decide: {otherwise}; {found}")

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
            words.append("entries of eight kinds")
        return ", ".join(words)


def _power(size: float) -> str:
    return f"1e{int(mpmath.floor(mpmath.log10(size)))}"


def _decimals_exact(statement: Any) -> Any:
    """Decimal numbers as the fractions that they are printed as."""
    if isinstance(statement, (Relational, BooleanFunction)) and not isinstance(statement, ForEvery):
        return statement.func(*map(_decimals_exact, statement.args), evaluate=False)
    return statement.xreplace({number: sp.Rational(str(number)) for number in statement.atoms(sp.Float)})
