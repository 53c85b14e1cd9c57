"""Derivations whose every step is checked by machine: proved by SymPy, checked at many digits, or measured in a run."""

import math
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sympy as sp
from sympy.core.relational import Relational

from kexue_lib import derivation_display as show
from kexue_lib.derivation_evidence import CROSS, ENOUGH, POINTS, DerivationError, NumericalTest, VacuousClaim
from kexue_lib.derivation_numerics import DIGITS, is_boolean
from kexue_lib.derivation_proof import routes
from kexue_lib.derivation_sign import shifted_by_conditions
from kexue_lib.derivation_time import OutOfTime, within

__all__ = ["Claim", "Derivation", "DerivationError", "VacuousClaim"]

_VERDICTS = ("reproduced", "holds at small scale", "not resolved", "does not hold", "slip in the source")


@dataclass(frozen=True)
class Claim:
    """One checked statement, as the ledger lists it.

    `label` counts the chapter's claims from C1, `statement` is LaTeX with the conditions, `evidence` is "proved",
    "checked" or "measured", `scope` says for which case, and `method` how the evidence was found.
    """

    chapter: str
    label: str
    title: str
    statement: str
    evidence: str
    scope: str
    method: str


class Derivation:
    """The checked steps of one chapter.

    Args:
        chapter: the chapter's slug, its key in the ledger.
        time_limit: CPU seconds that the symbolic attempts at one step may take, a quarter of it for each attempt.
            Several times what the slowest proof needs, or its evidence would depend on the machine.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> x = sp.Symbol("x", real=True)
    >>> d = Derivation("squareplus")
    >>> d.equal("Difference of squares", (x - 1) * (x + 1), x**2 - 1)
    x**2 - 1
    >>> d.claims[0].label, d.claims[0].evidence
    ('C1', 'proved')
    """

    def __init__(self, chapter: str, *, time_limit: float | int = 15.0) -> None:
        _check_text("chapter", chapter)
        if not re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", chapter):
            raise ValueError(f"chapter must be a slug such as 'smooth_topk', got {chapter!r}")
        if isinstance(time_limit, bool) or not isinstance(time_limit, (int, float)):
            raise TypeError(f"time_limit must be a number of seconds, got {time_limit!r}")
        if not (time_limit > 0 and math.isfinite(time_limit)):
            raise ValueError(f"time_limit must be positive and finite, got {time_limit!r}")
        self.chapter = chapter
        self.time_limit = float(time_limit)
        self.timings: dict[str, float] = {}
        self._claims: list[Claim] = []

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims so far, in order."""
        return tuple(self._claims)

    def define(self, title: str, symbol: Any, expression: Any) -> Any:
        """Display a definition, `symbol := expression`; it is no claim. Returns the expression.

        >>> Derivation("rope").define("Angle", sp.Symbol("theta"), sp.pi / 4)
        pi/4
        """
        _check_text("title", title)
        name, meaning = sp.sympify(symbol), sp.sympify(expression)
        row = f"{show.latex(name)} := {show.latex(meaning)}"
        heading = [show.text(line, r"\textbf") for line in show.wrapped(title)]
        show.publish(
            {
                "text/latex": show.array([*heading, rf"\displaystyle {row}"]),
                "text/plain": f"[definition] {title}: {name} := {meaning}",
            }
        )
        return expression

    def equal(self, title: str, lhs: Any, rhs: Any, *, given: Any = (), scope: str = "") -> Any:
        """Claim `lhs == rhs` for every value of the symbols that their assumptions and `given` allow.

        Args:
            title: what the step says, in words.
            lhs: an expression or matrix; sums, integrals, limits and derivatives may be unevaluated.
            rhs: the same kind.
            given: conditions, such as `[x > 0, sp.Eq(p + q, 1)]`.
            scope: for which case the statement is made ("n = 3"); part of the display.

        Returns:
            rhs as given.

        Raises:
            DerivationError: false (with a counterexample), or fewer than 20 points to check it at.
            VacuousClaim: both sides are the same by construction.

        >>> t = sp.Symbol("t", positive=True)
        >>> Derivation("softmax").equal("Wrong sign", sp.log(1 / t), sp.log(t))
        Traceback (most recent call last):
        ...
        kexue_lib.derivation.DerivationError: Wrong sign: ...
        """
        title, given, scope = _check_common(title, given, scope)
        left, right = _side("lhs", lhs), _side("rhs", rhs)
        if getattr(left, "is_Matrix", False) != getattr(right, "is_Matrix", False):
            raise ValueError(f"rhs must be a matrix exactly if lhs is one: {title}")
        if getattr(left, "is_Matrix", False) and left.shape != right.shape:
            raise ValueError(f"rhs has shape {right.shape}, lhs has shape {left.shape}: {title}")
        if left == right:
            raise VacuousClaim(title, f"both sides are {left} by construction")
        statement = sp.Eq(left, right, evaluate=False)
        self._claim(title, statement, given, scope)
        return rhs

    def holds(self, title: str, statement: Any, *, given: Any = (), scope: str = "") -> Any:
        """Claim an inequality or any SymPy Boolean for every value that the assumptions and `given` allow.

        Args:
            title: what the step says, in words.
            statement: a relation, or And, Or, Not, Implies, Equivalent of relations.
            given: conditions.
            scope: for which case the statement is made; part of the display.

        Returns:
            statement.

        Raises:
            DerivationError: false (with a counterexample), or fewer than 20 points to check it at.
            VacuousClaim: the statement is a bare True, or nothing satisfies the conditions.

        >>> x = sp.Symbol("x", real=True)
        >>> Derivation("softmax").holds("The exponential lies above its tangent", sp.exp(x) >= 1 + x)
        exp(x) >= x + 1
        """
        title, given, scope = _check_common(title, given, scope)
        if not is_boolean(statement):
            raise TypeError(f"statement must be a relation or another SymPy Boolean, got {type(statement).__name__}")
        if statement in (sp.true, True):
            raise VacuousClaim(title, "the statement is True by construction")
        if statement in (sp.false, False):
            raise DerivationError(title, "the statement is False")
        if isinstance(statement, sp.Eq) and statement.lhs == statement.rhs:
            raise VacuousClaim(title, f"both sides are {statement.lhs} by construction")
        self._claim(title, statement, given, scope)
        return statement

    def measured(
        self,
        title: str,
        observed: Any,
        expected: Any,
        *,
        rtol: float | int = 1e-6,
        atol: float | int = 0.0,
        scope: str = "",
    ) -> Any:
        """Claim that a number (or array) from a run agrees with what theory predicts.

        Args:
            title: what was measured, in words.
            observed: a number, tensor or array.
            expected: the same, of the same shape or a single number.
            rtol: relative tolerance.
            atol: absolute tolerance.
            scope: the conditions of the run; part of the display.

        Returns:
            observed.

        Raises:
            DerivationError: outside of the tolerance, NaN or infinite.
            VacuousClaim: observed is the same object as expected.

        >>> Derivation("scaling_law").measured("Slope", -0.502, -0.5, rtol=1e-2)
        -0.502
        """
        title, _, scope = _check_common(title, (), scope)
        for name, tolerance in (("rtol", rtol), ("atol", atol)):
            if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)):
                raise TypeError(f"{name} must be a number, got {tolerance!r}")
            if not (0 <= tolerance < math.inf):
                raise ValueError(f"{name} must be finite and not negative, got {tolerance!r}")
        if observed is expected and not isinstance(expected, (int, float)):
            raise VacuousClaim(title, "observed and expected are the same object")
        seen, wanted = _numbers("observed", observed), _numbers("expected", expected)
        if len(wanted) == 1 and len(seen) > 1:
            wanted = wanted * len(seen)
        if len(seen) != len(wanted):
            raise ValueError(f"observed has {len(seen)} numbers, expected has {len(wanted)}")
        if not seen:
            raise VacuousClaim(title, "observed is empty")
        for index, (value, target) in enumerate(zip(seen, wanted)):
            if not (math.isfinite(abs(value)) and math.isfinite(abs(target))):
                raise DerivationError(title, f"observed {value}, expected {target} (entry {index})")
            if abs(value - target) > atol + rtol * abs(target):
                gap = abs(value - target)
                raise DerivationError(
                    title,
                    f"observed {value}, expected {target} (entry {index}): off by {gap:.3g}, rtol={rtol}, atol={atol}",
                )
        bounds = [f"{100 * rtol:.6g} %"] * (rtol > 0) + [f"{atol:.6g} absolute"] * (atol > 0)
        row, plain = _measured_rows(expected, wanted, rtol, atol)
        method = f"a run agrees within {' and '.join(bounds)}" if bounds else "a run agrees exactly"
        self._add(title, [row], "", plain, "measured", scope, method, 0.0)
        return observed

    def verdict(self, title: str, *, claimed: str, obtained: str, verdict: str, why: str = "") -> None:
        """Set a published number or claim against ours; displayed as a row, no claim.

        Args:
            title: what is compared.
            claimed: what the source says.
            obtained: what our run gives.
            verdict: "reproduced", "holds at small scale", "not resolved", "does not hold" or "slip in the source".
            why: the reason, in words.

        >>> Derivation("rope").verdict("Decay", claimed="yes", obtained="only on average", verdict="does not hold")
        """
        for name, value in (("title", title), ("claimed", claimed), ("obtained", obtained)):
            _check_text(name, value)
        if not isinstance(why, str):
            raise TypeError(f"why must be a str, got {type(why).__name__}")
        if verdict not in _VERDICTS:
            raise ValueError(f"verdict must be one of {', '.join(map(repr, _VERDICTS))}, got {verdict!r}")
        row = {
            "chapter": self.chapter,
            "title": title,
            "claimed": claimed,
            "obtained": obtained,
            "verdict": verdict,
            "why": why,
        }
        reason = f" — {why}" if why else ""
        show.publish(
            {
                "text/markdown": f"**{title}** — *{verdict}*. Claimed: {claimed}. Obtained: {obtained}.{reason}",
                "text/plain": f"[{verdict}] {title}: claimed {claimed}; obtained {obtained}{reason}",
                show.VERDICT_MIME: row,
            }
        )

    # --- evidence ---------------------------------------------------------------------------------------------------

    def _claim(self, title: str, statement: Any, given: Sequence[Any], scope: str) -> None:
        if shifted_by_conditions(sp.Integer(0), given)[1] is None:
            raise VacuousClaim(title, "the conditions contradict each other")
        patience = min(self.time_limit, 3.0)  # points are many, and more of them prove nothing
        test = NumericalTest(title, statement, given, seed=f"{self.chapter}: {title}", seconds=patience)
        test.run(CROSS, enough=3)
        test.search()
        words, seconds = None, 0.0
        if not _has_float(statement, *given):
            start = time.thread_time()
            words = self._proof(statement, given)
            seconds = time.thread_time() - start
        if words:
            test.require(3, "proved, but it could not be put to the test numerically")
            evidence, method = "proved", f"SymPy, {words}"
        else:
            test.run(POINTS)
            test.require(ENOUGH, "no proof found, and too few points of the domain could be evaluated")
            evidence = "checked"
            method = f"{DIGITS} digits" if test.domain.is_empty else f"{test.found} points to {DIGITS} digits"
            if _has_float(statement, *given):
                method += ", decimal numbers as printed"
        rows, conditions = show.statement_latex(statement, given, show.domain_latex(test.domain.symbols))
        plain = _plain(statement) + (f" given {', '.join(map(_plain, given))}" if given else "")
        self._add(title, rows, conditions, plain, evidence, scope, method, seconds)

    def _proof(self, statement: Any, given: Sequence[Any]) -> str | None:
        """The words of the first route that proves the statement within the time limit."""
        left = self.time_limit
        attempts = routes(statement, given)
        while left > 0.01:
            start = time.thread_time()
            try:
                words, attempt = within(left, next, attempts, (None, None))
                if words is None:
                    return None
                # No route may use up the time of those after it.
                if within(min(left, max(self.time_limit / 4, 0.5)), attempt):
                    return words
            except (OutOfTime, Exception):  # a route that SymPy cannot finish proves nothing
                pass
            left -= time.thread_time() - start
        return None

    def _add(
        self,
        title: str,
        rows: list[str],
        conditions: str,
        plain: str,
        evidence: str,
        scope: str,
        method: str,
        seconds: float,
    ) -> None:
        label = f"C{len(self._claims) + 1}"
        statement = show.statement_block(rows, conditions)
        claim = Claim(self.chapter, label, title, statement, evidence, scope, method)
        self._claims.append(claim)
        self.timings[label] = seconds
        suffix = f" ({scope})" if scope else ""
        show.publish(
            {
                "text/latex": show.claim_latex(label, title, rows, conditions, scope, evidence, method),
                "text/plain": f"[{label} {evidence}] {title}: {plain}{suffix}",
                show.CLAIM_MIME: asdict(claim),
            }
        )


# --- arguments --------------------------------------------------------------------------------------------------------


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"{name} must not be empty")


def _check_common(title: Any, given: Any, scope: Any) -> tuple[str, tuple[Any, ...], str]:
    _check_text("title", title)
    if not isinstance(scope, str):
        raise TypeError(f"scope must be a str, got {type(scope).__name__}")
    conditions = given if isinstance(given, (tuple, list)) else (given,)
    for condition in conditions:
        if not is_boolean(condition) and not isinstance(condition, sp.AppliedPredicate):
            raise TypeError(f"given must hold relations or other SymPy Booleans, got {condition!r}")
    if any(condition in (sp.false, False) for condition in conditions):
        raise VacuousClaim(title, "given contains a condition that is False")
    return title, tuple(c for c in conditions if c not in (sp.true, True)), scope


def _side(name: str, value: Any) -> Any:
    try:
        side = sp.sympify(value)
    except (sp.SympifyError, AttributeError) as error:
        raise TypeError(f"{name} must be a SymPy expression or matrix, got {type(value).__name__}") from error
    if isinstance(side, sp.MatrixBase):
        side = side.as_immutable()
    if not isinstance(side, (sp.Expr, sp.MatrixBase, sp.MatrixExpr)):
        raise TypeError(f"{name} must be a SymPy expression or matrix, got {type(value).__name__}")
    if side.has(sp.nan):
        raise ValueError(f"{name} contains NaN, which equals nothing")
    return side


def _has_float(*statements: Any) -> bool:
    return any(statement.has(sp.Float) for statement in statements)


def _numbers(name: str, value: Any) -> list[Any]:
    """The entries of a number, tensor, array or nested list, as Python numbers."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if isinstance(value, (sp.MatrixBase, list, tuple)):
        return [number for entry in value for number in _numbers(name, entry)]
    if hasattr(value, "tolist") and not isinstance(value, sp.Basic):
        value = value.tolist()
        return _numbers(name, value) if isinstance(value, list) else _numbers(name, [value])
    if isinstance(value, (bool, str)):
        raise TypeError(f"{name} must hold numbers, got {value!r}")
    try:
        number = complex(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must hold numbers, got {value!r}") from error
    return [number.real if number.imag == 0 else number]


def _measured_rows(expected: Any, wanted: list[Any], rtol: float | int, atol: float | int) -> tuple[str, str]:
    """The interval that the run hit, as LaTeX and in words: unlike the run's digits it is the same on every machine."""
    if atol and not any(wanted):
        return rf"|\text{{observed}}| \le {_scientific(f'{atol:.6g}')}", f"|observed| <= {atol:.6g}"
    bounds = [(f"{100 * rtol:.6g}", r"\,\%", " %")] * (rtol > 0) + [(f"{atol:.6g}", "", "")] * (atol > 0)
    distance = " + ".join(f"{_scientific(bound)}{unit}" for bound, unit, _ in bounds)
    plain = " + ".join(f"{bound}{unit}" for bound, _, unit in bounds)
    if isinstance(expected, sp.Expr) and not expected.is_Number:
        target, words = show.latex(expected), str(expected)
    elif len(wanted) > 6:
        target, words = r"\text{the expected}", "the expected"
    else:
        values = [f"{value:.6g}" for value in wanted]
        target, words = r",\ ".join(_scientific(value) for value in values), ", ".join(values)
    what = f"{len(wanted)} values observed" if len(wanted) > 6 else "observed"
    if not bounds:
        return rf"\text{{{what} exactly: }} {target}", f"{what} exactly: {words}"
    return rf"\text{{{what} within }} {distance} \text{{ of }} {target}", f"{what} within {plain} of {words}"


def _scientific(value: str) -> str:
    power = lambda m: f"10^{{{m[1].strip('+')}{m[2]}}}"
    value = re.sub(r"(?<![\d.])1e([+-])0*(\d+)", power, value)
    return re.sub(r"e([+-])0*(\d+)", lambda m: rf" \cdot {power(m)}", value)


def _plain(statement: Any) -> str:
    sign = {"==": "=", "!=": "!="}.get(getattr(statement, "rel_op", ""), getattr(statement, "rel_op", ""))
    if not isinstance(statement, Relational):
        return str(statement)
    return f"{statement.lhs} {sign} {statement.rhs}".replace("\n", " ")
