"""The numerical evidence for one statement, and the errors that refuse it.

Part of :mod:`kexue_lib.derivation`, which is the place to call.
"""

import time
from collections.abc import Sequence
from typing import Any

import mpmath
import sympy as sp
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanFunction

from kexue_lib.derivation_numerics import NoValue, Truth, number, truth
from kexue_lib.derivation_points import Domain, Point, counterexample, is_far, substitute, with_dummies
from kexue_lib.derivation_search import Descent
from kexue_lib.derivation_time import OutOfTime, within

ENOUGH = 20  # points that a checked statement needs
POINTS = 24  # points that a checked statement gets
CROSS = 10  # points at which every statement is put to the test before a proof is sought


class DerivationError(AssertionError):
    """A step that is false or cannot be checked.

    `title` names the step, `counterexample` maps its symbols to values (None where there is none).
    """

    __module__ = "kexue_lib.derivation"  # where readers import it from

    def __init__(self, title: str, message: str, counterexample: dict[Any, Any] | None = None) -> None:
        super().__init__(f"{title}: {message}")
        self.title = title
        self.counterexample = counterexample


class VacuousClaim(DerivationError):
    """There is nothing to check: both sides are the same by construction, or nothing satisfies the conditions."""

    __module__ = "kexue_lib.derivation"


class NumericalTest:
    """Numerical tests of one statement at point after point of its domain."""

    def __init__(self, title: str, statement: Any, given: Sequence[Any], *, seed: str, seconds: float) -> None:
        self.title = title
        self.statement = with_dummies(_decimals_exact(statement))
        self.domain = Domain(self.statement, [_decimals_exact(condition) for condition in given], seed)
        self.points = self.domain.points(POINTS * 3)
        self.seconds, self.spent = seconds, 0.0
        self.found = self.drawn = 0
        self.exhausted = False
        self.trouble = ""

    def run(self, count: int, enough: int = POINTS) -> None:
        """Go on until the statement was found true at `count` points (`enough` if slow); raise where false."""
        while self.found < count and self.spent < 12 * self.seconds:
            if self.found >= enough and self.spent > self.seconds / 10:
                return
            start = time.thread_time()
            try:
                point = within(2 * self.seconds, next, self.points, None)
                if point is None:
                    self.exhausted = True
                    return
                self.drawn += 1
                self._at(point, within(2 * self.seconds, self._truth, point))
            except OutOfTime:
                self.trouble = "too slow"
            except (NoValue, TypeError, ValueError, NotImplementedError, ArithmeticError, AttributeError) as error:
                self.trouble = str(error)
            self.spent += time.thread_time() - start

    def search(self) -> None:
        """Look for the point where an inequality is closest to failing; raise if it fails there."""
        for relation in sp.And.make_args(self.statement):
            if not isinstance(relation, (sp.Lt, sp.Le, sp.Gt, sp.Ge)):
                continue
            try:
                descent = Descent(relation, self.domain)
                suspects = within(self.seconds, descent.suspects)
            except (OutOfTime, Exception):  # the search only adds to the test
                continue
            for point in suspects:
                touching = any(value.has(sp.Float) for value in point.values())
                if touching or within(self.seconds, self._truth, point).value is False:
                    self._at(point, Truth(False, relation.args))

    def _truth(self, point: Point) -> Truth:
        return truth(substitute(self.statement, point), far=is_far(point))

    def _at(self, point: Point, result: Truth) -> None:
        if result.value is None:
            return
        if result.value:
            self.found += 1
            return
        values = counterexample(point)
        where = ", ".join(f"{symbol} = {value}" for symbol, value in values.items()) or "every point"
        sides = f": {' against '.join(_short(side.subs(values)) for side in result.sides)}" if result.sides else ""
        raise DerivationError(self.title, f"false at {where}{sides}", values)

    def require(self, needed: int, otherwise: str) -> None:
        """Raise unless enough points were found (all of them, where the domain has fewer than a proof needs)."""
        if self.domain.is_empty or (self.exhausted and self.drawn and self.found == self.drawn and needed < ENOUGH):
            needed = 1
        if self.found >= needed:
            return
        if not (self.drawn or self.trouble):
            raise VacuousClaim(self.title, "no point of the domain satisfies the conditions")
        reason = f" ({self.trouble})" if self.trouble else ""
        raise DerivationError(self.title, f"{otherwise}: {self.found} of {needed} points found{reason}")


def _decimals_exact(statement: Any) -> Any:
    """Decimal numbers as the fractions that they are printed as."""
    if isinstance(statement, (Relational, BooleanFunction)):
        return statement.func(*map(_decimals_exact, statement.args), evaluate=False)
    return statement.xreplace({number: sp.Rational(str(number)) for number in statement.atoms(sp.Float)})


def _short(side: Any) -> str:
    """A side of a statement at a point, for an error message."""
    try:
        value = number(with_dummies(sp.sympify(side)), 20)
    except Exception:  # only the wording is at stake
        return str(side)[:200]
    if value is None:
        return "undefined"
    return mpmath.nstr(value if value.imag else value.real, 15)
