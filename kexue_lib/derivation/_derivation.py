"""The derivation of one chapter: what its calls claim, how each claim is decided, and what is displayed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

import sympy as sp

from kexue_lib.derivation import _arguments as accept
from kexue_lib.derivation import _display as show
from kexue_lib.derivation import _measured as measured
from kexue_lib.derivation import form
from kexue_lib.derivation._claim import EVIDENCE, Claim, plain
from kexue_lib.derivation._decision import Decision
from kexue_lib.derivation._errors import DerivationError, Refusal, VacuousClaim

_VERDICTS = ("reproduced", "holds at small scale", "not resolved", "does not hold", "slip in the source")


class _Fact(NamedTuple):
    """What a claim says, for the claims that build on it."""

    statement: Any
    given: tuple[Any, ...]


class Derivation:
    """The checked steps of one chapter.

    Args:
        chapter: the chapter's slug, its key in the ledger.
        time_limit: CPU seconds that the symbolic attempts at one step may take, half of it for each attempt.
            Several times what the slowest proof needs, or its evidence would depend on the machine.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> import sympy as sp
    >>> x = sp.Symbol("x", real=True)
    >>> d = Derivation("squareplus")
    >>> d.equal("Difference of squares", (x - 1) * (x + 1), x**2 - 1)
    x**2 - 1
    >>> d["C1"].evidence
    'proved'
    """

    __module__ = "kexue_lib.derivation"

    def __init__(self, chapter: str, *, time_limit: float | int = 30.0) -> None:
        accept.check_chapter(chapter, time_limit)
        self.chapter = chapter
        self.time_limit = float(time_limit)
        self.timings: dict[str, float] = {}
        self._claims: list[Claim] = []
        self._facts: dict[str, _Fact] = {}
        self._calculation: list[tuple[Claim, dict[str, Any]]] | None = None

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims and steps so far, in order."""
        return tuple(self._claims)

    def __getitem__(self, label: str) -> Claim:
        """The claim with a label, such as `d["C3"]`.

        Raises:
            KeyError: there is none.
        """
        for claim in self._claims:
            if claim.label == label:
                return claim
        raise KeyError(f"{label}: this derivation has {', '.join(c.label for c in self._claims) or 'no claims'}")

    def define(self, title: str, symbol: Any, expression: Any) -> Any:
        """Display a definition, `symbol := expression`; it is no claim. Returns the expression.

        >>> Derivation("rope").define("Angle", sp.Symbol("theta"), sp.pi / 4)
        pi/4
        """
        accept.check_text("title", title)
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

    def equal(
        self, title: str, lhs: Any, rhs: Any, *, given: Any = (), uses: Any = (), scope: str = "", instance: str = ""
    ) -> Any:
        """Claim `lhs == rhs` for every value of the symbols that their assumptions and `given` allow.

        Args:
            title: what the step says, in words.
            lhs: an expression or matrix; sums, integrals, limits and derivatives may be unevaluated, sizes symbolic.
            rhs: the same kind.
            given: conditions, such as `[x > 0, sp.Eq(p + q, 1)]`.
            uses: earlier claims that the proof may build on, such as `(d["C3"],)`; `(d["C3"], {x: y + 1})` takes
                one at other values. The evidence is never stronger than theirs.
            scope: for which case the statement is made; part of the display.
            instance: the size that stands for every size, such as "n = 3", where a proof for every n failed.

        Returns:
            rhs as given.

        Raises:
            DerivationError: false or undefined somewhere (with a counterexample), or not to be decided.
            VacuousClaim: both sides are the same by construction.

        >>> t = sp.Symbol("t", positive=True)
        >>> Derivation("softmax").equal("Wrong sign", sp.log(1 / t), sp.log(t))
        Traceback (most recent call last):
        ...
        kexue_lib.derivation.DerivationError: Wrong sign: ...
        """
        accept.check_text("title", title)
        self._claim(title, accept.equation(title, lhs, rhs), given, uses, scope, instance)
        return rhs

    def holds(
        self, title: str, statement: Any, *, given: Any = (), uses: Any = (), scope: str = "", instance: str = ""
    ) -> Any:
        """Claim an inequality or any SymPy Boolean for every value that the assumptions and `given` allow.

        Args:
            title: what the step says, in words.
            statement: a relation, or And, Or, Not, Implies, Equivalent of relations.
            given: conditions.
            uses: earlier claims that the proof may build on.
            scope: for which case the statement is made; part of the display.
            instance: the size that stands for every size.

        Returns:
            statement.

        Raises:
            DerivationError: false or undefined somewhere (with a counterexample), or not to be decided.
            VacuousClaim: the statement is a bare True, or nothing satisfies the conditions.

        >>> x = sp.Symbol("x", real=True)
        >>> Derivation("softmax").holds("The exponential lies above its tangent", sp.exp(x) >= 1 + x)
        exp(x) >= x + 1
        """
        accept.check_text("title", title)
        if not accept.is_boolean(statement) and not isinstance(statement, sp.AppliedPredicate):
            raise TypeError(f"statement: got {type(statement).__name__}, expected a relation or another SymPy Boolean")
        if statement in (sp.true, True):
            raise VacuousClaim(title, "the statement is True by construction")
        if statement in (sp.false, False):
            raise DerivationError(
                title, "the statement is False: SymPy answered it at once (evaluate=False keeps it as written)"
            )
        if isinstance(statement, sp.Eq) and statement.lhs == statement.rhs:
            raise VacuousClaim(title, f"both sides are {statement.lhs} by construction")
        self._claim(title, statement, given, uses, scope, instance)
        return statement

    def induction(
        self,
        title: str,
        statement: Callable[[Any], Any],
        n: sp.Symbol,
        *,
        base: int | tuple[int, ...] = 1,
        given: Any = (),
        uses: Any = (),
        scope: str = "",
    ) -> Any:
        """Claim `statement(n)` for every integer n from `base` on, by induction.

        The base case and the step, from the displayed hypothesis `statement(n)`, are proved and displayed.

        Args:
            title: what is claimed, in words.
            statement: a function of n that returns an equation, an inequality, or And of them.
            n: an integer symbol.
            base: the first n; `(0, 1)` proves two of them and lets the step use the two last ones.
            given: conditions; `Recurrence(equation, k)` is one that holds for every k.
            uses: earlier claims that the proof may build on.
            scope: for which case the statement is made; part of the display.

        Returns:
            statement(n).

        Raises:
            DerivationError: false for some n (with it), or a part that was not proved.
        """
        accept.check_text("title", title)
        accept.check_text("scope", scope, empty=True)
        if not (isinstance(n, sp.Symbol) and n.is_integer):
            raise TypeError(f"n: got {n!r}, expected an integer symbol")
        conditions = accept.conditions(title, given)
        used = accept.claims_used(uses, self.claims)
        facts = self._facts_of(used, conditions)
        from kexue_lib.derivation._deciding import decide_induction

        try:
            proof = decide_induction(statement, n, base, conditions, facts, self.time_limit)
        except Refusal as refused:
            raise refused.named(title) from None
        first = min(base) if isinstance(base, tuple) else base
        rows, where = show.induction_latex(proof, n, first, conditions)
        words = f"SymPy, the base case and the step from n to n + 1, for every n ≥ {first}, by induction"
        decision = Decision("proved", words, proof.seconds)
        conditions = (*conditions, sp.Ge(n, first))
        over = (n, *map(sp.Integer, base if isinstance(base, tuple) else (base,)))
        self._add(
            title, form.Form(statement(n), conditions, tuple(facts), over), rows, where, decision, scope, "", used
        )
        return statement(n)

    @contextmanager
    def calculation(self, title: str) -> Iterator[None]:
        """Gather the steps of one calculation under a folded line; the ledger lists them as steps, not as claims.

        >>> x = sp.Symbol("x", real=True)
        >>> d = Derivation("squareplus")
        >>> with d.calculation("Squaring out"):
        ...     _ = d.equal("One square", (x + 1) ** 2, x**2 + 2 * x + 1)
        >>> d.claims[0].label, d.claims[0].kind
        ('S1', 'step')
        """
        accept.check_text("title", title)
        if self._calculation is not None:
            raise ValueError(f"title: got {title!r} inside of another calculation, expected one after the other")
        self._calculation = []
        try:
            yield
        finally:
            steps, self._calculation = self._calculation, None
            if steps:
                show.publish(show.calculation(self.chapter, title, steps))

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
        accept.check_text("title", title)
        accept.check_text("scope", scope, empty=True)
        wanted = measured.compare(title, observed, expected, rtol, atol)
        bounds = [f"{100 * rtol:.6g} %"] * (rtol > 0) + [f"{atol:.6g} absolute"] * (atol > 0)
        row, words = measured.rows(expected, wanted, rtol, atol)
        method = f"a run agrees within {' and '.join(bounds)}" if bounds else "a run agrees exactly"
        self._record(title, [row], "", words, Decision("measured", method, 0.0), scope, "", (), "")
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
            accept.check_text(name, value)
        accept.check_text("why", why, empty=True)
        if verdict not in _VERDICTS:
            raise ValueError(f"verdict: got {verdict!r}, expected one of {', '.join(map(repr, _VERDICTS))}")
        show.publish(
            show.verdict(
                {
                    "chapter": self.chapter,
                    "title": title,
                    "claimed": claimed,
                    "obtained": obtained,
                    "verdict": verdict,
                    "why": why,
                }
            )
        )

    # --- claims -------------------------------------------------------------------------------------------------------

    def _claim(self, title: str, statement: Any, given: Any, uses: Any, scope: str, instance: str) -> None:
        accept.check_text("scope", scope, empty=True)
        accept.check_text("instance", instance, empty=True)
        conditions = accept.conditions(title, given)
        accept.check_names(statement, *conditions)
        used = accept.claims_used(uses, self.claims)
        facts = self._facts_of(used, conditions)
        from kexue_lib.derivation._deciding import decide  # on first use: it brings all that proves and tests

        try:
            decision = decide(statement, conditions, facts, self.time_limit)
        except Refusal as refused:
            raise refused.named(title) from None
        rows, where = show.statement_latex(statement, conditions, show.domain_latex(statement, conditions))
        parts = form.Form(statement, conditions, tuple(facts))
        self._add(title, parts, rows, where, decision, scope, instance, used)

    def _facts_of(self, used: Sequence[tuple[Claim, dict[Any, Any]]], given: tuple[Any, ...]) -> list[Any]:
        """What the claims used say, at the values wanted, once their own conditions are among those given."""
        from kexue_lib.derivation._given import bound_symbols

        facts = []
        for claim, values in used:
            fact = self._facts[claim.label]
            bound = set().union(*(bound_symbols(part) for part in (fact.statement, *fact.given)))
            for name, value in values.items():
                if clash := bound & {name, *sp.sympify(value).free_symbols}:
                    raise ValueError(f"uses: got {name} = {value}, but {claim.label} binds {min(map(str, clash))}")
            missing = [c for c in fact.given if c.subs(values) not in (*given, sp.true)]
            statement = fact.statement.xreplace(values) if values else fact.statement
            facts.append(statement if not missing else sp.Implies(sp.And(*missing).subs(values), statement))
        return facts

    def _add(
        self,
        title: str,
        parts: form.Form,
        rows: list[str],
        where: str,
        decision: Decision,
        scope: str,
        instance: str,
        used: Sequence[tuple[Claim, dict[Any, Any]]],
    ) -> None:
        labels = tuple(dict.fromkeys(claim.label for claim, _ in used))
        weakest = min([decision.evidence, *(claim.evidence for claim, _ in used)], key=EVIDENCE.index)
        decision = decision._replace(evidence=weakest)
        statement, conditions = parts.statement, tuple(c for c in parts.given if c not in (sp.true, True))
        words = plain(statement) + (f" given {', '.join(map(plain, conditions))}" if conditions else "")
        text = form.write(statement, conditions, parts.facts, parts.induction)
        claim = self._record(title, rows, where, words, decision, scope, instance, labels, text)
        self._facts[claim.label] = _Fact(statement, conditions)

    def _record(
        self,
        title: str,
        rows: list[str],
        where: str,
        words: str,
        decision: Decision,
        scope: str,
        instance: str,
        uses: tuple[str, ...],
        text: str,
    ) -> Claim:
        kind, letter = ("claim", "C") if self._calculation is None else ("step", "S")
        label = f"{letter}{1 + sum(claim.kind == kind for claim in self._claims)}"
        claim = Claim(
            *(self.chapter, label, title, show.statement_block(rows, where), decision.evidence, scope),
            *(decision.method, kind, instance, uses, text),
        )
        self._claims.append(claim)
        self.timings[label] = decision.seconds
        suffix = f" ({scope})" if scope else ""
        bundle = {
            "text/latex": show.claim_latex(claim, rows, where),
            "text/plain": f"[{label} {show.badge(claim)}] {title}: {words}{suffix}",
            show.CLAIM_MIME: asdict(claim) | {"uses": list(uses)},  # JSON has no tuples
        }
        if self._calculation is None:
            show.publish(bundle)
        else:
            self._calculation.append((claim, bundle))
        return claim
