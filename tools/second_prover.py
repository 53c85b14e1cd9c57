"""A second opinion on claims that a derivation decided: their machine form, put to the solver z3.

Run as a script it writes ``about/confirmed.json``: the stored claims that z3 proves too, for the ledger to mark.

Only what both understand in the same way is translated: real and whole numbers, field operations, roots, pieces,
orders and logic. Other functions of real arguments become unknown reals, equal where their arguments are; a point that
violates such a statement says nothing about the functions and is no contradiction.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import notebooks
import sympy as sp
import z3
from sympy.core.function import AppliedUndef

from kexue_lib.derivation import MatrixSum, form  # noqa: F401 (a form may hold its sums, and its reader looks among what is loaded)

# The solver's own count of work, not seconds: the answer is the same on every machine.
EFFORT = 2_000_000
_CONSTANTS = {
    sp.pi: (sp.Rational(314159265358979, 10**14), sp.Rational(314159265358980, 10**14)),
    sp.E: (sp.Rational(271828182845904, 10**14), sp.Rational(271828182845905, 10**14)),
    sp.EulerGamma: (sp.Rational(577215664901532, 10**15), sp.Rational(577215664901533, 10**15)),
}
_OPAQUE = (sp.exp, sp.log, sp.sin, sp.cos, sp.tan, sp.sinh, sp.cosh, sp.tanh, sp.atan, sp.asinh, sp.erf, sp.gamma)
_OPAQUE += (sp.factorial, sp.binomial, sp.Indexed, AppliedUndef, sp.Sum, sp.Product)


class NotTranslated(ValueError):
    """Something in the statement has no counterpart in z3."""


def confirm(text: str) -> str:
    """Whether z3 proves the claim whose machine form this is.

    Args:
        text: the `form` of a claim.

    Returns:
        "confirmed" where the claim follows from its conditions, the assumptions on its symbols and its definedness;
        "contradicted" where they have a point that violates it; "unknown" where z3 finds neither or the point may be
        none of the functions'; "not translated" where the claim has other parts.
    """
    statement, given = form.read(text)[:2]
    translation = _Translation()
    try:
        conditions = [translation.boolean(condition) for condition in given]
        translation.facts += conditions
        claim = translation.boolean(statement)
    except (NotTranslated, z3.Z3Exception):
        return "not translated"
    if claim is None or z3.is_true(claim):
        return "not translated"
    if _check(translation.facts) != z3.sat:  # nothing, or nothing that z3 sees, satisfies the conditions
        return "unknown"
    answer = _check([*translation.facts, z3.Not(claim)])
    if answer == z3.unsat:
        return "confirmed"
    return "contradicted" if answer == z3.sat and not translation.opaque else "unknown"


def _check(facts: Sequence[Any]) -> Any:
    whole = any(_has_integers(fact) for fact in facts)
    for logic in (None, *(() if whole else ("QF_NRA",))):
        context = z3.Context()  # of its own, so that no answer depends on the claims before it
        solver = z3.SolverFor(logic, ctx=context) if logic else z3.Solver(ctx=context)
        solver.set("rlimit", EFFORT)
        solver.add(*(fact.translate(context) for fact in facts))
        answer = solver.check()
        if answer != z3.unknown:
            return answer
    return z3.unknown


def _has_integers(fact: Any) -> bool:
    return z3.is_int(fact) or any(map(_has_integers, fact.children()))


class _Translation:
    """The translation of one claim; `facts` are what its symbols and its definedness assume."""

    def __init__(self) -> None:
        self.facts: list[Any] = []
        self.opaque = False
        self.known: dict[Any, Any] = {}
        self.path: list[Any] = []

    # --- logic --------------------------------------------------------------------------------------------------------

    def boolean(self, e: Any) -> Any:
        """The formula of a statement."""
        if e in (True, False, sp.true, sp.false):
            return z3.BoolVal(bool(e))
        if isinstance(e, (sp.Eq, sp.Ne)) and any(getattr(side, "is_Matrix", False) for side in e.args):
            return self._entrywise(e)
        relations: dict[type, Callable[[Any, Any], Any]] = {
            sp.Eq: lambda left, right: left == right,
            sp.Ne: lambda left, right: left != right,
            sp.Lt: lambda left, right: left < right,
            sp.Le: lambda left, right: left <= right,
            sp.Gt: lambda left, right: left > right,
            sp.Ge: lambda left, right: left >= right,
        }
        for kind, relation in relations.items():
            if isinstance(e, kind):
                return relation(*(self.real(side) for side in e.args))
        connectives: dict[type, Callable[..., Any]] = {
            sp.And: z3.And,
            sp.Or: z3.Or,
            sp.Not: z3.Not,
            sp.Implies: z3.Implies,
            sp.Equivalent: lambda first, *others: z3.And(*(first == other for other in others)),
        }
        for kind, connective in connectives.items():
            if isinstance(e, kind):
                return connective(*map(self.boolean, e.args))
        if isinstance(e, sp.AppliedPredicate):
            return self._predicate(e)
        raise NotTranslated(type(e).__name__)

    def _entrywise(self, e: Any) -> Any:
        left, right = e.args
        if not all(isinstance(side, sp.MatrixBase) for side in e.args) or left.shape != right.shape:
            raise NotTranslated("a matrix of symbolic shape")
        same = z3.And(*(self.real(one) == self.real(other) for one, other in zip(left, right)))
        return same if isinstance(e, sp.Eq) else z3.Not(same)

    def _predicate(self, e: Any) -> Any:
        signs = {
            sp.Q.positive: sp.Gt,
            sp.Q.negative: sp.Lt,
            sp.Q.nonnegative: sp.Ge,
            sp.Q.nonpositive: sp.Le,
            sp.Q.zero: sp.Eq,
            sp.Q.nonzero: sp.Ne,
        }
        if e.function not in signs or getattr(e.arguments[0], "is_Matrix", False):
            raise NotTranslated(str(e.function))
        return self.boolean(signs[e.function](e.arguments[0], 0, evaluate=False))

    # --- numbers ------------------------------------------------------------------------------------------------------

    def real(self, e: Any) -> Any:
        """The real term of an expression."""
        if e in self.known and (isinstance(e, sp.Symbol) or not self.path):
            return self.known[e]
        term = self._real(e)
        if isinstance(e, sp.Symbol) or not self.path:  # inside of a branch, its facts hold there only
            self.known[e] = term
        return term

    def _real(self, e: Any) -> Any:
        if isinstance(e, (sp.Rational, sp.Float)):
            exact = sp.Rational(str(e))
            return z3.RealVal(f"{exact.p}/{exact.q}")
        if e in _CONSTANTS:
            low, high = _CONSTANTS[e]
            return self._unknown(e, lambda r: z3.And(r > self.real(low), r < self.real(high)))
        if isinstance(e, sp.Symbol):
            return self._symbol(e)
        if isinstance(e, (sp.Add, sp.Mul)):
            return reduce(
                (lambda a, b: a + b) if isinstance(e, sp.Add) else (lambda a, b: a * b), map(self.real, e.args)
            )
        if isinstance(e, sp.Pow):
            return self._power(e.base, e.exp)
        if isinstance(e, sp.Piecewise):
            return self._pieces(e)
        if isinstance(e, sp.KroneckerDelta):
            return z3.If(self.real(e.args[0]) == self.real(e.args[1]), z3.RealVal(1), z3.RealVal(0))
        if isinstance(e, (sp.Max, sp.Min)):
            larger = lambda a, b: z3.If(a >= b, a, b)
            smaller = lambda a, b: z3.If(a <= b, a, b)
            return reduce(larger if isinstance(e, sp.Max) else smaller, map(self.real, e.args))
        if isinstance(e, (sp.Abs, sp.sign, sp.floor, sp.ceiling)):
            return self._of_one(e, self.real(e.args[0]))
        if isinstance(e, _OPAQUE):
            return self._function(e)
        raise NotTranslated(type(e).__name__)

    def _of_one(self, e: Any, argument: Any) -> Any:
        if isinstance(e, sp.Abs):
            return z3.If(argument >= 0, argument, -argument)
        if isinstance(e, sp.sign):
            return z3.If(argument > 0, z3.RealVal(1), z3.If(argument < 0, z3.RealVal(-1), z3.RealVal(0)))
        down = z3.ToReal(z3.ToInt(argument if isinstance(e, sp.floor) else -argument))
        return down if isinstance(e, sp.floor) else -down

    def _symbol(self, e: sp.Symbol) -> Any:
        if not e.is_real:
            raise NotTranslated(f"{e} may be complex or infinite")
        name = f"{e.name}_{len(self.known)}"
        whole = z3.Int(name)
        term = z3.ToReal(whole) if e.is_integer else z3.Real(name)
        facts = {
            "is_positive": term > 0,
            "is_negative": term < 0,
            "is_nonnegative": term >= 0,
            "is_nonpositive": term <= 0,
            "is_nonzero": term != 0,
        }
        self.facts += [fact for assumption, fact in facts.items() if getattr(e, assumption)]
        parities = [whole % 2 == parity for parity, holds in ((0, e.is_even), (1, e.is_odd)) if holds]
        self.facts += parities
        if any(getattr(e, f"is_{other}") is not None for other in ("prime", "rational") if not e.is_integer):
            raise NotTranslated(f"{e} is not any number")
        return term

    def _power(self, base: Any, exponent: Any) -> Any:
        if base == sp.E:
            return self._function(sp.exp(exponent, evaluate=False))
        if isinstance(exponent, sp.Integer):
            return self._whole_power(self.real(base), int(exponent))
        if isinstance(exponent, sp.Rational):
            return self._whole_power(self._root(base, int(exponent.q)), int(exponent.p))
        term = self.real(base)
        self.real(exponent)
        self._shown(term > 0)
        return self._unknown(sp.Pow(base, exponent, evaluate=False), lambda r: r > 0)

    def _whole_power(self, base: Any, exponent: int) -> Any:
        if exponent == 0:
            return z3.RealVal(1)
        product = reduce(lambda a, b: a * b, [base] * abs(exponent))
        if exponent > 0:
            return product
        self._assume(base != 0)
        return 1 / product

    def _root(self, base: Any, degree: int) -> Any:
        term = self.real(base)
        self._shown(term >= 0)
        root = z3.Real(f"root_{degree}_{len(self.known)}")
        self._assume(root >= 0)
        self._assume(self._whole_power(root, degree) == term)
        return root

    def _pieces(self, e: sp.Piecewise) -> Any:
        earlier, values = [], []
        for value, condition in e.args:
            holds = self.boolean(condition)
            with self._under(*(z3.Not(other) for other in earlier), holds):
                values.append((holds, self.real(value)))
            earlier.append(holds)
        self._assume(z3.Or(*earlier))
        result = values[-1][1]
        for holds, value in reversed(values[:-1]):
            result = z3.If(holds, value, result)
        return result

    def _function(self, e: Any) -> Any:
        if isinstance(e, (sp.Sum, sp.Product)):
            return self._total(e)
        if isinstance(e, (AppliedUndef, sp.Indexed)) and not e.is_extended_real:
            raise NotTranslated(f"{e} may be complex")
        if isinstance(e, sp.Indexed):
            return self._unknown(e)
        arguments = [self.real(argument) for argument in e.args]
        if isinstance(e, (sp.log, sp.gamma)):
            self._shown(arguments[0] > 0)
        if isinstance(e, (sp.factorial, sp.binomial)):
            self._shown(z3.And(*(argument >= 0 for argument in arguments)))
        bounds = {
            sp.exp: lambda r: r > 0,
            sp.sin: lambda r: z3.And(r >= -1, r <= 1),
            sp.cos: lambda r: z3.And(r >= -1, r <= 1),
            sp.tanh: lambda r: z3.And(r > -1, r < 1),
            sp.erf: lambda r: z3.And(r > -1, r < 1),
            sp.cosh: lambda r: r >= 1,
            sp.gamma: lambda r: r > 0,
            sp.factorial: lambda r: r >= 1,
        }
        return self._unknown(e, bounds.get(e.func))

    def _total(self, e: Any) -> Any:
        endless = any(end.has(sp.oo, -sp.oo) for limit in e.limits for end in limit[1:])
        if endless or not e.function.is_extended_real:
            raise NotTranslated("a sum that may be complex or infinite")
        return self._unknown(e)

    # --- unknowns and facts -------------------------------------------------------------------------------------------

    def _unknown(self, e: Any, bounds: Callable[[Any], Any] | None = None) -> Any:
        """A real of which only bounds are known, the same wherever the expression is the same once expanded."""
        self.opaque = True
        totals = (sp.Sum, sp.Product, sp.Indexed)
        key = e if isinstance(e, totals) else ("unknown", e.func, *(sp.expand(argument) for argument in e.args))
        if key not in self.known:
            self.known[key] = z3.Real(f"unknown_{len(self.known)}")
            if bounds is not None:
                self.facts.append(bounds(self.known[key]))
        return self.known[key]

    @contextmanager
    def _under(self, *conditions: Any) -> Iterator[None]:
        """Inside of a branch, definedness is assumed only where the branch is taken."""
        self.path += conditions
        yield
        del self.path[len(self.path) - len(conditions) :]

    def _assume(self, fact: Any) -> None:
        self.facts.append(z3.Implies(z3.And(*self.path), fact) if self.path else fact)

    def _shown(self, fact: Any) -> None:
        """Where a root or logarithm may leave the real line, nothing is translated."""
        if _check([*self.facts, *self.path, z3.Not(fact)]) != z3.unsat:
            raise NotTranslated("a root or logarithm that may be complex")


CONFIRMED = notebooks.ROOT / "about" / "confirmed.json"


def stored_claims() -> Iterator[dict]:
    """Yield the bundles of all claims and steps in the stored notebooks that have a machine form."""
    for path in notebooks.all_notebooks():
        content = notebooks.read(path)
        steps = (step for group in notebooks.bundles(content, notebooks.CALCULATION) for step in group["steps"])
        for claim in (*notebooks.bundles(content, notebooks.CLAIM), *steps):
            if claim["form"]:
                yield claim


def main() -> None:
    """Put every stored claim to z3, write down which it confirms, and print the counts."""
    answers: Counter[str] = Counter()
    confirmed: dict[str, list[str]] = {}
    for claim in stored_claims():
        answer = confirm(claim["form"])
        answers[answer] += 1
        if answer == "confirmed" and claim["evidence"] == "proved":
            confirmed.setdefault(claim["chapter"], []).append(claim["label"])
    CONFIRMED.write_text(json.dumps(confirmed, indent=1) + "\n", encoding="utf-8")
    print(", ".join(f"{count} {answer}" for answer, count in sorted(answers.items())))


if __name__ == "__main__":
    main()
