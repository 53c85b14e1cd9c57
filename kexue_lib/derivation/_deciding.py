"""How one claim is decided: put to the test, then proved, and if no proof is found put to the test at many points."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sympy as sp

from kexue_lib.derivation._cannot import attempted
from kexue_lib.derivation._claim import has_float
from kexue_lib.derivation._decision import Decision, InductionProof
from kexue_lib.derivation._errors import Refusal
from kexue_lib.derivation._evidence import AGREE, COSTLY, ENOUGH, POINTS, NumericalTest
from kexue_lib.derivation._given import apart, normalised, parts, shifted
from kexue_lib.derivation._induction import NoProof, instance, prove_induction
from kexue_lib.derivation._noncommutative import as_matrices
from kexue_lib.derivation._proof import plain, routes, well_defined
from kexue_lib.derivation._recurrences import Recurrence, Rewriter, rules
from kexue_lib.derivation._time import OutOfTime, cpu_seconds, within

PATIENCE = 3.0  # seconds for the numbers of one point: points are many, and more of them prove nothing
_SMALL = 6  # values of an index at which a recurrence is followed


def decide(
    statement: Any,
    given: Sequence[Any],
    facts: Sequence[Any],
    time_limit: float,
    *,
    patience: float = PATIENCE,
    haste: float = math.inf,
    tell: Callable[[int], None] = lambda points: None,
) -> Decision:
    """Prove the statement under the conditions, with earlier results as further facts, or check it; raise if false.

    `patience` are the seconds for the numbers of one point. After `haste` seconds of numbers, and the points that a
    proved statement needs, a proof is sought before the other points. `tell` hears how many points there were by then.
    """
    statement, *others = apart([normalised(part) for part in (statement, *given, *facts)])
    statement, given, facts = as_matrices(statement), others[: len(given)], others[len(given) :]
    if shifted(sp.Integer(0), [c for c in given if not isinstance(c, Recurrence)])[1] is None:
        raise Refusal("the conditions contradict each other", vacuous=True)
    patience = min(time_limit, patience)
    tests = [NumericalTest(s, g, seconds=patience) for s, g in _followed(statement, given)]
    for test in tests:
        test.run(COSTLY if len(tests) > 1 else test.crossing, haste / len(tests))
        test.search()
    narrow = [] if len(tests) > 1 else [NumericalTest(s, [*given, *c], seconds=patience) for s, c in _needed(statement)]
    for test in narrow:
        test.run(COSTLY, haste)
        test.search()
    tell(sum(test.found for test in tests))
    words, seconds = None, 0.0
    if not has_float(statement, *given):
        start = cpu_seconds()
        words = _proof(statement, [*given, *facts], time_limit)
        seconds = cpu_seconds() - start
    if words:
        for test in tests:
            test.require(AGREE, "proved, but not seen to hold in numbers")
        return Decision("proved", f"SymPy, {words}", seconds)
    for test in tests:
        test.corners()
        test.run(ENOUGH + COSTLY if test.is_costly else POINTS)
        test.require(ENOUGH, "no proof was found")
        test.require_every_branch()
    for test in narrow:
        test.run(ENOUGH)
        test.require(AGREE, "no proof was found")
    method = "; ".join(dict.fromkeys(test.reach() for test in tests[-1:]))
    return Decision(
        "checked", method + (", decimal numbers as printed" if has_float(statement, *given) else ""), seconds
    )


def decide_induction(
    statement: Callable[[Any], Any],
    n: sp.Symbol,
    base: int | tuple[int, ...],
    given: Sequence[Any],
    facts: Sequence[Any],
    time_limit: float,
    *,
    patience: float = PATIENCE,
) -> InductionProof:
    """Prove statement(n) for every n from the base on; raise where it is false, or a part is not proved."""
    first = min(base) if isinstance(base, tuple) else base
    patience = min(time_limit, patience)
    for size in range(first, first + _SMALL):
        single = instance(statement, n, size)
        if single in (sp.true, True):
            continue
        if single in (sp.false, False):
            raise Refusal(f"false at {n} = {size}", {n: sp.Integer(size)})
        for reduced, conditions in _followed(single, [c for c in given if n not in c.free_symbols]):
            test = NumericalTest(reduced, conditions, seconds=patience)
            try:
                test.run(3)
            except Refusal as refused:
                values = {n: sp.Integer(size)} | (refused.counterexample or {})
                raise Refusal(f"at {n} = {size} {refused.reason}", values) from None
    start = cpu_seconds()
    open_needs = within(time_limit, well_defined, statement(n), [*given, *facts, sp.Ge(n, first)])
    if open_needs:
        raise Refusal(f"could not decide: {open_needs[0].subject} is not shown to be {open_needs[0].kind}")
    try:
        proof = within(time_limit, prove_induction, statement, n, base, list(given), plain, list(facts))
    except NoProof as missing:
        raise Refusal(f"could not decide: {missing} was not proved") from missing
    except OutOfTime:
        raise Refusal("could not decide: the step took too long") from None
    return InductionProof(*proof, cpu_seconds() - start)


def _proof(statement: Any, given: Sequence[Any], time_limit: float) -> str | None:
    """The words of the first route that proves the statement, once it is shown to be defined everywhere."""
    left, words = time_limit, None
    attempts = routes(statement, given)
    # No attempt may use up the time of those after it.
    share = lambda: min(left, max(time_limit / 2, 0.5))
    while words is None and left > 0.01:
        start = cpu_seconds()
        try:
            name, attempt = within(left, next, attempts, (None, None))
            if name is None:
                return None
            if within(share(), attempted, attempt):
                words = name
        except OutOfTime:
            pass
        left -= cpu_seconds() - start
    if words is None:
        return None
    try:
        return None if within(max(left, time_limit / 2), well_defined, statement, given) else words
    except OutOfTime:
        return None


def _needed(statement: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Each alternative where the others fail, a conclusion where its premise holds: few other points decide."""
    if isinstance(statement, sp.Implies):
        yield statement.args[1], [statement.args[0]]
    elif isinstance(statement, sp.Or):
        for part in statement.args:
            yield part, [sp.Not(other) for other in statement.args if other != part]


def _followed(statement: Any, given: Sequence[Any]) -> list[tuple[Any, list[Any]]]:
    """The statement itself; where recurrences define its functions, at small indices with their values put in."""
    recurrences = [c for c in given if isinstance(c, Recurrence)]
    if not recurrences:
        return [(statement, list(given))]
    others = [c for c in parts(given) if not isinstance(c, Recurrence)]
    names = sorted((s for s in statement.free_symbols if isinstance(s, sp.Symbol) and s.is_integer), key=str)
    found = []
    for values in itertools.islice(itertools.product(range(_SMALL), repeat=len(names)), 40):
        at = dict(zip(names, map(sp.Integer, values)))
        if not all(_admitted(symbol, value) for symbol, value in at.items()):
            continue
        here = [c.subs(at) for c in others]
        if sp.false in here:
            continue
        follow = Rewriter(rules([*recurrences, *here]), lambda slope: slope.is_zero is False, 0)
        reduced = follow(_written_out(statement.subs(at)))
        if reduced not in (sp.true, sp.false):
            found.append((reduced, [follow(c) for c in here if follow(c) != sp.true]))
    return [(s, [c for c in g if not c.has(sp.core.function.AppliedUndef)]) for s, g in found]


def _admitted(symbol: sp.Symbol, value: sp.Integer) -> bool:
    return not (symbol.is_positive and value <= 0)


def _written_out(statement: Any) -> Any:
    """Sums whose ends are numbers, term by term."""
    return statement.replace(
        lambda e: isinstance(e, (sp.Sum, sp.Product)) and all(end.is_Integer for lim in e.limits for end in lim[1:]),
        lambda e: e.doit(),
    )
