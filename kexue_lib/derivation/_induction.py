"""Proofs by induction: the base cases, and the step from the hypothesis that is displayed."""

from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp
from sympy.core.relational import GreaterThan, LessThan, Relational, StrictGreaterThan, StrictLessThan

from kexue_lib.derivation._elimination import eliminated, opaque_parts, polynomial_is_nonzero
from kexue_lib.derivation._function_matrices import determinant_step
from kexue_lib.derivation._letters import Prover, is_matrix
from kexue_lib.derivation._matrices import MatrixSum, matrices_equal
from kexue_lib.derivation._ranges import common_ranges, peeled, written_out
from kexue_lib.derivation._recurrences import Recurrence, Rewriter, instances, rules

_ORDERED = (GreaterThan, LessThan, StrictGreaterThan, StrictLessThan)
_SIZED = (sp.Determinant, MatrixSum)
_EXPLICIT = 6  # greatest size of a determinant that a base case multiplies out


class NoProof(ValueError):
    """The base case or the step was not proved; says which."""


def prove_induction(
    statement: Callable[[Any], Any],
    n: sp.Symbol,
    base: int | tuple[int, ...],
    given: Sequence[Any],
    prove: Prover,
    uses: Sequence[Any] = (),
) -> tuple[Any, Any, Any]:
    """Prove statement(n) for every integer n ≥ base.

    Args:
        statement: of one argument, the index; an equation, an order or an And of them.
        n: the index, an integer symbol.
        base: the first value; several consecutive ones where the step needs as many previous values.
        given: conditions that do not speak of n, and `Recurrence`s.
        prove: decides ordinary statements.
        uses: earlier results, as conditions or `Recurrence`s.

    Returns:
        The base statement, the hypothesis and the statement of the step, as displayed.

    Raises:
        NoProof: saying which part was not proved.
        ValueError: n is no integer symbol, or base no run of integers.
    """
    bases = tuple(int(b) for b in (base if isinstance(base, (tuple, list)) else (base,)))
    if not n.is_integer or not bases or any(b - bases[0] != at for at, b in enumerate(bases)):
        raise ValueError("n must be an integer symbol and base a run of integers")
    facts = [fact for fact in (*given, *uses) if not _is_range(fact, n, bases[0])]
    if any(n in fact.free_symbols for fact in facts):
        raise NoProof("a condition that speaks of n would have to hold for every n: give it as a Recurrence")
    starts = [instance(statement, n, b) for b in bases]
    for b, start in zip(bases, starts, strict=True):
        if not _Problem(facts, prove, 0).base_holds(start):
            raise NoProof(f"the base case {n} = {b}")
    # n = m + the last base value, m ≥ 0, is how SymPy's assumptions learn that n ≥ base
    m = sp.Dummy("m", integer=True, nonnegative=True)
    last = m + bases[-1]
    before = [statement(last - back) for back in range(len(bases))]
    if not _Problem(facts, prove, bases[-1]).step_holds(statement(last + 1), before):
        raise NoProof("the step")
    shown = [statement(n - back) for back in reversed(range(len(bases)))]
    return sp.And(*starts), sp.And(*shown), statement(n + 1)


def instance(statement: Callable[[Any], Any], n: sp.Symbol, value: int) -> Any:
    """The statement at a number, no relation between sums or products left to SymPy's first look.

    SymPy answers some at once, and not always rightly: an empty product counts as nonpositive in some processes, so
    that `Eq(Product(1 - x/j, (j, 1, 0)), 1)` can be False. What it answered is built again, term by term, and kept.
    """
    found, general = statement(sp.Integer(value)), statement(n)
    if found not in (True, False) and len(_parts(found)) == len(_parts(general)):
        return found
    if not general.has(sp.Sum, sp.Product) or general.has(sp.MatrixExpr):
        return found  # equal by structure, or by the assumptions of symbols
    with sp.evaluate(False):
        raw = statement(sp.Integer(value))
    return sp.And(*(_kept(part) for part in _parts(raw)), evaluate=False)


def _kept(part: Any) -> Any:
    return part.func(*map(_rebuilt, part.args), evaluate=False) if isinstance(part, Relational) else part


def _rebuilt(e: Any) -> Any:
    return e.func(*map(_rebuilt, e.args)) if e.args else e


def _is_range(fact: Any, n: sp.Symbol, first: int) -> bool:
    """A condition such as n ≥ 1 that the induction satisfies by itself."""
    if not isinstance(fact, Relational) or n not in fact.free_symbols:
        return False
    return fact.xreplace({n: first + sp.Dummy(integer=True, nonnegative=True)}) == True  # noqa: E712


def _parts(statement: Any) -> list[Any]:
    return list(statement.args) if isinstance(statement, sp.And) else [statement]


class _Problem:
    """One base case or step: the facts that may be used, and the prover for what is left.

    The unknown parts of a statement, such as a sum to n or the value of an unknown function, are opaque: a proof must
    hold whatever they are, so their values enter only by equations that hold.
    """

    def __init__(self, facts: Sequence[Any], prove: Prover, floor: int) -> None:
        self.facts, self.prove, self.floor = list(facts), prove, floor
        self.plain = [fact for fact in facts if not isinstance(fact, Recurrence)]
        self.rewrite = Rewriter(rules(facts), self.nonzero, floor)

    def nonzero(self, coefficient: sp.Expr) -> bool:
        if coefficient.is_number:
            return coefficient.is_zero is False
        if coefficient.is_nonzero or polynomial_is_nonzero(coefficient):
            return True
        return bool(self.prove(sp.Ne(coefficient, 0), self.plain))

    # --- base ----------------------------------------------------------------------------------------------------

    def base_holds(self, statement: Any) -> bool:
        """Whether the statement holds at a number."""
        return all(self._base_part(part) for part in _parts(statement))

    def _base_part(self, part: Any) -> bool:
        if part in (True, sp.true):
            return True
        if not isinstance(part, Relational):
            return False
        if is_matrix(part.lhs) or is_matrix(part.rhs):
            sides = [_explicit(side) for side in part.args]
            return isinstance(part, sp.Eq) and self._matrices(*sides, [])
        if isinstance(part, _ORDERED) and not (_is_real(part.lhs) or _is_real(part.rhs)):
            return False
        lhs, rhs = (self.rewrite(_explicit(self.rewrite(_explicit(side)))) for side in part.args)
        if isinstance(part, sp.Eq) and sp.expand(lhs - rhs) == 0:
            return True
        return self._decide(part.func, lhs - rhs, [], [])

    def _matrices(self, lhs: Any, rhs: Any, hypotheses: list[Any]) -> bool:
        return lhs == rhs or matrices_equal(lhs, rhs, [*self.plain, *hypotheses], self.prove)

    # --- step ----------------------------------------------------------------------------------------------------

    def step_holds(self, goal: Any, hypotheses: list[Any]) -> bool:
        """Whether the goal, the statement at n + 1, follows from the hypotheses, those at n, n - 1, …"""
        known = [part for hypothesis in hypotheses for part in _parts(hypothesis)]
        if any(not isinstance(part, Relational) for part in (*known, *_parts(goal)) if part != True):  # noqa: E712
            return False
        known = [part for part in known if isinstance(part, Relational)]
        return all(part == True or self._step_part(part, known) for part in _parts(goal))  # noqa: E712

    def _step_part(self, goal: Any, known: list[Any]) -> bool:
        if is_matrix(goal.lhs) or is_matrix(goal.rhs):
            return isinstance(goal, sp.Eq) and self._matrix_step(goal, known)
        if isinstance(goal, _ORDERED) and not (_is_real(goal.lhs) or _is_real(goal.rhs)):
            return False  # with one real side, a real gap makes the other one real
        known = [part for part in known if not is_matrix(part.lhs)]
        gaps = [part.lhs - part.rhs for part in (goal, *known)]
        gaps = [determinant_step(gap, self.floor, self.prove, self.plain) for gap in gaps]
        gaps = [self.rewrite(gap) for gap in common_ranges([self.rewrite(gap) for gap in gaps], self.floor)]
        gaps = [self.rewrite(gap) for gap in common_ranges(gaps, self.floor)]
        gap, *others = [_powers_apart(gap) for gap in gaps]
        equations = [other for other, part in zip(others, known, strict=True) if isinstance(part, sp.Eq)]
        orders = [(part.func, other) for other, part in zip(others, known, strict=True) if isinstance(part, _ORDERED)]
        targets = {a for g in gaps for a in g.atoms(sp.core.function.AppliedUndef)}
        stated = [f.lhs - f.rhs for f in self.plain if isinstance(f, sp.Eq) and not is_matrix(f.lhs)]
        relations = [_powers_apart(g) for g in (*instances(self.facts, targets), *stated)] + equations
        gap, *rest = eliminated([gap, *(other for _, other in orders)], relations, self.nonzero)
        return self._decide(goal.func, gap, [(func, g) for (func, _), g in zip(orders, rest, strict=True)], equations)

    def _matrix_step(self, goal: Any, known: list[Any]) -> bool:
        known = [part for part in known if isinstance(part, sp.Eq) and is_matrix(part.lhs)]
        lhs, rhs, *sides = (
            peeled(side, self.floor) for side in (*goal.args, *(side for part in known for side in part.args))
        )
        hypotheses = [sp.Eq(a, b, evaluate=False) for a, b in zip(sides[::2], sides[1::2], strict=True)]
        if self._matrices(lhs, rhs, hypotheses):
            return True
        values = {part.lhs: part.rhs for part in hypotheses}
        return self._matrices(*(_power_lowered(side, values) for side in (lhs, rhs)), hypotheses)

    # --- what is left --------------------------------------------------------------------------------------------

    def _decide(self, func: Any, gap: sp.Expr, orders: list[tuple[Any, sp.Expr]], equations: list[sp.Expr]) -> bool:
        """Whether gap (=, <, ≤, >, ≥) 0 follows, the opaque parts being symbols of which only assumptions are known."""
        names = opaque_parts([gap, *(g for _, g in orders), *equations])
        gap = sp.expand(gap.xreplace(names))
        if func is sp.Eq and sp.simplify(gap) == 0:
            return True
        hidden = [fact.xreplace(names) for fact in self.plain]
        conditions = [f(g.xreplace(names), 0) for f, g in orders]
        hidden += [condition for condition in conditions if condition not in (sp.true, sp.false)]
        if self._proved(func(gap, 0), hidden):
            return True
        if func not in _ORDERED:
            return False
        sign = 1 if func in (GreaterThan, StrictGreaterThan) else -1
        return any(self._chained(sign * gap, func, f, g.xreplace(names), hidden) for f, g in orders if f in _ORDERED)

    def _proved(self, statement: Any, given: list[Any]) -> bool:
        return statement == True or (statement != False and bool(self.prove(statement, given)))  # noqa: E712

    def _chained(self, gap: sp.Expr, goal: Any, func: Any, other: sp.Expr, given: list[Any]) -> bool:
        """gap = c h + r with the hypothesis h ≥ 0, c ≥ 0 and r ≥ 0: then gap ≥ 0, strictly if r > 0, or c and h are."""
        other = sp.expand(other if func in (GreaterThan, StrictGreaterThan) else -other)
        strict = goal in (StrictGreaterThan, StrictLessThan)
        factors = [sp.S.One]
        for symbol in sorted(other.atoms(sp.Dummy) & gap.atoms(sp.Dummy), key=sp.default_sort_key):
            slope = other.coeff(symbol, 1)
            own: sp.Expr = gap.coeff(symbol, 1)
            factor = sp.cancel(own / slope) if slope != 0 else sp.zoo
            if sp.denom(factor).is_number:
                factors.append(sp.factor(factor))
        for factor in factors:
            rest = sp.factor(sp.expand(gap - factor * other))
            positive = func in (StrictGreaterThan, StrictLessThan) and self._proved(factor > 0, given)
            remainder = rest > 0 if strict and not positive else rest >= 0
            if self._proved(remainder, given) and self._proved(factor >= 0, given):
                return True
        return False


def _is_real(e: Any) -> bool:
    """Whether it is known to be real, a sum or product by its terms."""
    totals = e.atoms(sp.Sum, sp.Product)
    names = {total: sp.Dummy(real=True) for total in totals if total.function.is_real}
    return bool(e.is_real or e.xreplace(names).is_real)


def _powers_apart(e: Any) -> Any:
    """Powers and factorials of m + c by those of m, for m ≥ 0."""
    return sp.expand(sp.expand_power_exp(e.replace(sp.factorial, _factorial)))


def _factorial(argument: Any) -> Any:
    offset, rest = argument.as_coeff_Add()
    if not (offset.is_Integer and offset > 0 and rest.is_integer and rest.is_nonnegative and rest != 0):
        return sp.factorial(argument)
    return sp.Mul(*(rest + step for step in range(1, int(offset) + 1))) * sp.factorial(rest)


def _explicit(e: Any) -> Any:
    """Sums, products and determinants of given small length, written out."""
    if isinstance(e, sp.Determinant) and e.arg.shape[0].is_Integer and e.arg.shape[0] <= _EXPLICIT:
        return e.arg.as_explicit().det() if e.arg.shape[0] > 0 else sp.S.One
    if isinstance(e, (sp.Sum, sp.Product)):
        terms = written_out(e)
        gather = sp.Add if isinstance(e, sp.Sum) else sp.Mul
        return e if terms is None else gather(*(_explicit(term) for term in terms))
    if isinstance(e, MatrixSum):
        return e.doit(deep=False)
    return e.func(*(_explicit(part) for part in e.args)) if e.args and e.has(sp.Sum, sp.Product, *_SIZED) else e


def _power_lowered(e: Any, values: dict[Any, Any]) -> Any:
    """B^(k+1) as B^k B where the hypothesis gives B^k."""
    for power, value in values.items():
        if isinstance(power, sp.MatPow):
            raised = sp.MatPow(power.base, power.exp + 1)
            e = e.xreplace({raised: sp.MatMul(value, power.base)})
    return e
