"""What a page asks about a statement, and the answer as plain data: decided again, changed, or typed as an exercise's.

Runs wherever SymPy does, in a browser too; nothing here displays anything.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp

from kexue_lib.derivation import _arguments as accept
from kexue_lib.derivation import _display as show
from kexue_lib.derivation import form, typed
from kexue_lib.derivation._cannot import attempted
from kexue_lib.derivation._claim import EVIDENCE
from kexue_lib.derivation._deciding import decide, decide_induction
from kexue_lib.derivation._errors import DerivationError, Refusal, VacuousClaim
from kexue_lib.derivation._time import OutOfTime, cpu_seconds, within
from kexue_lib.derivation._truth import NoValue, truth, value_text
from kexue_lib.derivation._unknowns import admits

__all__ = ["again", "changed", "editable", "exercise"]

_LIMIT = 30.0
_BOOKS = 120.0  # for a claim of the book: it is known to have a proof
_READING = 10.0  # seconds of CPU for reading what was typed
_PATIENCE = 15.0  # and for the numbers of one point: browsers run Python several times slower than computers do
_HASTE = 0.4  # and for those that come before the proof of a claim which the book holds
_SLOW = "it takes too long to read; are there large numbers in it?"
_EASY = (0, 1, -1, 2, sp.Rational(1, 2), -2, 3)  # values that a reader can put in
_EASY_MATRICES = tuple(
    sp.ImmutableMatrix(2, 2, entries)
    for entries in ([0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 1], [1, 0, 0, 2], [0, 1, 1, 0], [1, 1, 1, 1])
)
_MOST_EASY = 400


def again(
    text: str,
    uses: Sequence[str] = (),
    *,
    seconds: float = _BOOKS,
    tell: Callable[[int], None] = lambda points: None,
) -> dict[str, Any]:
    """Decide a claim once more.

    Args:
        text: the claim's machine form.
        uses: the evidence of the claims that it builds on.
        seconds: CPU time that the attempts at a proof may take.
        tell: hears, before a proof is sought, at how many points the claim was found true.

    Returns:
        "answer" ("proved", "checked", "false", "undefined", "undecided", "nothing to check"), "method" or "reason",
        "seconds", and what `changed` gives besides where the answer is no.

    >>> x = sp.Symbol("x", real=True)
    >>> again(form.write(sp.Ge(x**2 + 1, 2 * x)))["answer"]
    'proved'
    """
    found = form.read(text)
    asked = typed.Read(found.statement, found.given)
    return _answer(asked, found.facts, found.induction, uses, seconds, haste=_HASTE, tell=tell)


def editable(text: str) -> dict[str, str]:
    """A claim as a reader may change it.

    Args:
        text: the claim's machine form.

    Returns:
        The fields of `typed.Typed`: "symbols", "given" and "statement".
    """
    found = form.read(text)
    return typed.write(found.statement, found.given)._asdict()


def changed(
    symbols: str,
    given: str,
    statement: str,
    original: str = "",
    uses: Sequence[str] = (),
    *,
    seconds: float = _LIMIT,
    tell: Callable[[int], None] = lambda points: None,
) -> dict[str, Any]:
    """Decide what a reader typed.

    Args:
        symbols: lines such as "x, y: real".
        given: a condition a line.
        statement: an equation, an inequality, or And, Or, Not, Implies of them.
        original: the machine form of the claim that was changed; what it builds on may be built on.
        uses: the evidence of those claims.
        seconds: CPU time that the attempts at a proof may take.
        tell: as for `again`.

    Returns:
        As `again`; where the answer is no, "values" (pairs of LaTeX), "formula" (the statement with them put in) and
        "sides" (their values); where the text cannot be read, "answer" "unreadable" with "field", "line", "column".

    >>> changed("x: real", "", "x^2 >= x")["values"]
    [['x', '\\\\frac{1}{2}']]
    """
    try:
        found = within(_READING, typed.read, typed.Typed(symbols, given, statement))
    except typed.TypedError as error:
        return _unreadable(error.field, error.reason, error.line, error.column)
    except OutOfTime:
        return _unreadable("statement", _SLOW)
    facts, induction = _foundation(found.statement, original)
    return _answer(found, facts, induction, uses if facts else (), seconds, tell=tell)


def exercise(
    kind: str, answer: str, symbols: str, given: str, wanted: str, *, seconds: float = _LIMIT
) -> dict[str, Any]:
    """Mark what a reader typed as the answer of an exercise.

    Args:
        kind: "expression" (equal to the one wanted) or "statement" (equivalent to the one wanted).
        answer: what was typed.
        symbols: the declarations of the exercise.
        given: its conditions.
        wanted: the solution.
        seconds: CPU time that the attempts at a proof may take.

    >>> exercise("expression", "(x + 1)^2", "x: real", "", "x^2 + 2*x + 1")["answer"]
    'proved'
    """
    try:
        conditions = typed.read(typed.Typed(symbols, given, "0 = 0")).given
        theirs, ours = (within(_READING, _value, kind, text, symbols) for text in (answer, wanted))
    except typed.TypedError as error:
        return _unreadable("answer", error.reason, 1, error.column)
    except OutOfTime:
        return _unreadable("answer", _SLOW)
    if theirs == ours:
        return {"answer": "proved", "method": "the same expression", "seconds": 0.0}
    if kind == "expression":
        try:
            statement = accept.equation("the answer", theirs, ours)
        except (TypeError, ValueError):
            return _unreadable("answer", "expected one expression, such as 2*x")
    elif theirs in (sp.true, sp.false):  # so by the assumptions
        statement = ours if theirs == sp.true else sp.Not(ours)
    else:
        statement = sp.Equivalent(theirs, ours, evaluate=False)
    found = _answer(typed.Read(statement, conditions), (), (), (), seconds)
    return {key: value for key, value in found.items() if key != "formula"}  # it would give the solution away


def _value(kind: str, text: str, symbols: str) -> Any:
    if kind == "expression":
        return typed.expression(text, symbols)
    return typed.read(typed.Typed(symbols, "", text)).whole


def _unreadable(field: str, reason: str, line: int = 1, column: int = 1) -> dict[str, Any]:
    return {"answer": "unreadable", "reason": reason, "field": field, "line": line, "column": column}


def _foundation(statement: Any, original: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The facts and the induction of the claim changed, as far as they speak of what the new statement declares."""
    if not original:
        return (), ()
    before = form.read(original)
    known = statement.free_symbols
    facts = tuple(fact for fact in before.facts if fact.free_symbols & known)
    induction = before.induction if before.induction and before.induction[0] in known else ()
    return facts, induction


def _answer(
    asked: typed.Read,
    facts: Sequence[Any],
    induction: Sequence[Any],
    uses: Sequence[str],
    seconds: float,
    *,
    haste: float = math.inf,
    tell: Callable[[int], None] = lambda points: None,
) -> dict[str, Any]:
    start = cpu_seconds()
    statement, given = asked.whole, asked.given
    try:
        _refuse_constants(statement)
        conditions = accept.conditions("the statement", given)
        accept.check_names(statement, *conditions)
    except Refusal as refused:
        return _no(asked._replace(given=()), refused.named("it"), refused.counterexample) | _time(start)
    except DerivationError as error:
        return _no(asked._replace(given=()), error, None) | _time(start)
    except (TypeError, ValueError) as error:
        return {"answer": "undecided", "reason": str(error)} | _time(start)
    try:
        if induction:
            n, *base = induction
            conditions = tuple(c for c in conditions if c != sp.Ge(n, min(base)))
            at = lambda value: statement if value == n else statement.subs(n, value)
            decide_induction(at, n, tuple(map(int, base)), conditions, list(facts), seconds, patience=_PATIENCE)
            evidence, method = "proved", f"by induction from {n} = {min(base)}"
        else:
            manner = {"patience": _PATIENCE, "haste": haste, "tell": tell}
            decision = decide(statement, conditions, list(facts), seconds, **manner)
            evidence, method = decision.evidence, decision.method
    except Refusal as refused:
        return _no(asked, refused.named("it"), refused.counterexample) | _time(start)
    except OutOfTime:
        return {"answer": "undecided", "reason": "it took too long"} | _time(start)
    except Exception as error:  # a page has to answer: what fails inside of SymPy decides nothing
        return {"answer": "undecided", "reason": f"SymPy fails on it ({type(error).__name__})"} | _time(start)
    evidence = min([evidence, *uses], key=EVIDENCE.index)
    return {"answer": evidence, "method": method, "formula": show.latex(asked.statement)} | _time(start)


def _refuse_constants(statement: Any) -> None:
    if statement == sp.true:
        raise Refusal("true at once: SymPy sees it while reading", vacuous=True)
    if statement == sp.false:
        raise Refusal("the statement is False", {})
    if isinstance(statement, sp.Eq) and statement.lhs == statement.rhs:
        raise Refusal("both sides are the same once SymPy has read them", vacuous=True)


def _time(start: float) -> dict[str, float]:
    return {"seconds": round(cpu_seconds() - start, 2)}


def _no(asked: typed.Read, error: DerivationError, point: dict[Any, Any] | None) -> dict[str, Any]:
    """The answer where a statement was refused: why, and at which values a reader can see it."""
    statement = asked.whole
    reason = str(error).removeprefix("it: ").removeprefix("the statement: ")
    if isinstance(error, VacuousClaim):
        return {"answer": "nothing to check", "reason": reason}
    if point is None:
        return {"answer": "undecided", "reason": reason.removeprefix("could not decide: ")}
    easy = _easy(statement, asked.given, point)
    point = easy or point
    answer = "undefined" if reason.startswith("undefined") and not easy else "false"
    values = [[show.latex(unknown), show.latex(value)] for unknown, value in point.items()]
    found = {"answer": answer, "reason": reason, "values": values, "formula": _put_in(asked.statement, point)}
    zero = next((d for d in asked.divisors if attempted(lambda d=d: sp.simplify(d.subs(point)) == 0)), None)
    if zero is not None:  # a divisor that SymPy cancelled
        return found | {"answer": "undefined", "reason": f"dividing by {zero}"}
    of_matrices = any(getattr(side, "is_Matrix", False) for side in statement.args)
    if isinstance(statement, sp.core.relational.Relational) and easy and not of_matrices:
        left, right = (value_text(side, point) for side in statement.args)
        found["reason"] = f"{left} against {right}"
    elif easy:
        found["reason"] = ""
    elif ": " in reason:
        found["reason"] = reason.split(": ", 1)[1]
    return found


def _put_in(statement: Any, point: dict[Any, Any]) -> str:
    """LaTeX of the statement with the values in it; of an equation of matrices, what its sides come to."""
    matrices = {unknown: value for unknown, value in point.items() if isinstance(unknown, sp.MatrixSymbol)}
    if matrices and isinstance(statement, sp.Eq):
        numbers = {unknown: value for unknown, value in point.items() if isinstance(unknown, sp.Symbol)}
        numeric = lambda side: _explicit(side.xreplace(matrices).subs(numbers).doit())
        sides = attempted(lambda: [numeric(side) for side in statement.args], ())
        if sides and not any(side.free_symbols for side in sides) and sides[0] != sides[1]:
            left, right = (_PutIn({}).doprint(side) for side in statement.args)
            return rf"{left} = {show.latex(sides[0])} \neq {show.latex(sides[1])} = {right}"
    binding = (sp.Sum, sp.Product, sp.Integral, sp.Derivative, sp.Limit, sp.Subs)
    bound = {s for e in statement.atoms(*binding) for s in (*getattr(e, "variables", ()), *e.args[1:2])}
    numbers = {unknown: value for unknown, value in point.items() if isinstance(unknown, sp.Symbol)}
    return _PutIn({unknown: value for unknown, value in numbers.items() if unknown not in bound}).doprint(statement)


def _explicit(value: Any) -> Any:
    return value.as_explicit() if isinstance(value, sp.MatrixExpr) else value


def _easy(statement: Any, given: tuple[Any, ...], point: dict[Any, Any]) -> dict[Any, Any] | None:
    """A counterexample in small numbers, where the unknowns are numbers or matrices and one is found at once."""
    unknowns = list(point)
    if not unknowns or statement.has(sp.Integral, sp.Limit, sp.IndexedBase):
        return None
    matrices = [u for u in unknowns if isinstance(u, sp.MatrixSymbol)]
    if any(not isinstance(u, (sp.Symbol, sp.MatrixSymbol)) for u in unknowns):
        return None
    if any(getattr(point[m], "shape", None) != (2, 2) for m in matrices):
        return None
    sizes = {s for m in matrices for size in m.shape for s in size.free_symbols}
    pools = [
        _EASY_MATRICES if u in matrices else (point[u],) if u in sizes else map(sp.sympify, _EASY) for u in unknowns
    ]
    candidates = (dict(zip(unknowns, values)) for values in itertools.islice(itertools.product(*pools), _MOST_EASY))
    search = lambda: next((c for c in candidates if _is_in_domain(c, given) and _fails(statement, c)), None)
    try:
        return within(2.0, search)
    except OutOfTime:
        return None


def _is_in_domain(point: dict[Any, Any], given: tuple[Any, ...]) -> bool:
    fits = all(admits(symbol, value) for symbol, value in point.items())
    return fits and all(attempted(lambda c=c: truth(c, point).value) for c in given)


def _fails(statement: Any, point: dict[Any, Any]) -> bool:
    try:
        found = truth(statement, point)
    except NoValue:
        return False
    return found.value is False and not found.undefined


class _PutIn(type(show._PRINTER)):
    """LaTeX of a statement with the values of a counterexample in the places of its symbols."""

    def __init__(self, values: dict[Any, Any]) -> None:
        settings = show._PRINTER._settings
        super().__init__({name: settings[name] for name in self._default_settings})
        self.values = values

    def _print_Symbol(self, symbol: sp.Symbol, style: str = "plain") -> str:
        if symbol not in self.values:
            return super()._print_Symbol(symbol, style)
        value = show.latex(self.values[symbol])
        return rf"{{\class{{put-in}}{{({value})}}}}" if len(value) < 30 else super()._print_Symbol(symbol, style)
