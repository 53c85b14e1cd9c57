"""Equations that hold for every index, such as a recurrence of unknown functions, and their use as rules."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.logic.boolalg import Boolean

_ROUNDS = 40  # rewritings of one expression before it is left as it is

Nonzero = Callable[[sp.Expr], bool]


class Recurrence(Boolean):
    """An equation for every value of its variables that their assumptions allow.

    `Recurrence(Eq(P(k + 1, x), …), k, x)` with k positive and x real says so for every k ≥ 1 and every real x; symbols
    that are not among the variables mean the ones of the statement around it.

    >>> k = sp.Symbol("k", integer=True, nonnegative=True)
    >>> F = sp.Function("F")
    >>> Recurrence(sp.Eq(F(k + 2), F(k + 1) + F(k)), k)
    Recurrence(Eq(F(k + 2), F(k) + F(k + 1)), (k,))
    """

    def __new__(cls, equation: Any, *variables: Any) -> "Recurrence":
        if len(variables) == 1 and isinstance(variables[0], (tuple, sp.Tuple)):
            (variables,) = variables
        if not isinstance(equation, sp.Eq):
            raise TypeError(f"equation must be an unevaluated Eq, got {equation!r}")
        if not variables or not all(isinstance(variable, sp.Symbol) for variable in variables):
            raise TypeError(f"variables must be symbols, got {variables!r}")
        return super().__new__(cls, equation, sp.Tuple(*variables))

    @property
    def equation(self) -> Any:
        """The equation."""
        return self.args[0]

    @property
    def variables(self) -> tuple[Any, ...]:
        """The symbols that it holds for every value of."""
        return tuple(self.args[1])

    @property
    def bound_symbols(self) -> list[Any]:
        """The variables."""
        return list(self.args[1])

    @property
    def free_symbols(self) -> set[Any]:
        """The symbols that it says something about: all but the variables."""
        return self.equation.free_symbols - set(self.variables)

    def _eval_subs(self, old: Any, new: Any) -> Any:
        return self if old in self.variables else None

    def _eval_simplify(self, **kwargs: Any) -> "Recurrence":
        return self

    def _latex(self, printer: Any) -> str:
        names = ",\\ ".join(printer._print(variable) for variable in self.variables)
        return rf"{printer._print(self.equation)} \quad \text{{for every }} {names}"


def may_be(variable: sp.Symbol, value: Any) -> bool:
    """Whether the value is known to have every property that the variable is assumed to have."""
    return all(getattr(value, f"is_{name}", None) is truth for name, truth in variable.assumptions0.items())


def instance(equation: Any, variables: Sequence[Any], values: dict[Any, Any]) -> sp.Expr | None:
    """lhs - rhs with values for all variables, None where a value is not one that its variable may have."""
    if set(values) != set(variables) or not all(may_be(variable, value) for variable, value in values.items()):
        return None
    differentiated = {symbol for e in equation.atoms(sp.Derivative) for symbol in e.variables}
    if any(not values[variable].is_Symbol for variable in differentiated & set(variables)):
        return None
    summed = {symbol for e in equation.atoms(sp.Sum, sp.Product, sp.Integral) for symbol in e.bound_symbols}
    if summed & (set(variables) | {symbol for value in values.values() for symbol in value.free_symbols}):
        return None  # a value must not fall under an index of the same name
    return (equation.lhs - equation.rhs).xreplace(values)


def matched(pattern: Sequence[Any], target: Sequence[Any], variables: Iterable[Any]) -> dict[Any, Any] | None:
    """Values of the variables that turn the arguments of the pattern, each `variable + number`, into the target's."""
    values: dict[Any, Any] = {}
    if len(pattern) != len(target):
        return None
    for form, wanted in zip(pattern, target, strict=True):
        held = form.free_symbols & set(variables)
        if not held:
            if sp.expand(form - wanted) != 0:
                return None
            continue
        variable = next(iter(held))
        offset = sp.expand(form - variable)
        if len(held) > 1 or offset.free_symbols:
            return None
        value = sp.expand(wanted - offset)
        if values.setdefault(variable, value) != value:
            return None
    return values


@dataclass(frozen=True)
class Rule:
    """An equation for all values of its variables, read as `head -> the rest`; the head has the greatest index."""

    equation: Any
    variables: tuple[Any, ...]
    head: Any
    place: int | None

    @property
    def free_symbols(self) -> set[Any]:
        """The symbols that keep their meaning."""
        return self.equation.free_symbols - set(self.variables)

    def value(self, target: Any, nonzero: Nonzero) -> sp.Expr | None:
        """What the target, an application of the same function, equals by the rule."""
        values = matched(self.head.args, target.args, self.variables)
        gap = None if values is None else instance(self.equation, self.variables, values)
        if gap is None:
            return None
        mark = sp.Dummy()
        gap = sp.expand(gap.xreplace({target: mark}))
        slope = gap.coeff(mark, 1)
        rest = sp.expand(gap - slope * mark)
        if rest.has(mark) or slope.has(AppliedUndef, mark) or not nonzero(slope):
            return None
        return sp.expand(-rest / slope)


def rules(facts: Iterable[Any]) -> list[Rule]:
    """The recurrences among the facts, and equations for a single application, as rules that lower an index."""
    read = [(f.equation, f.variables) if isinstance(f, Recurrence) else (f, ()) for f in facts]
    found = (_oriented(*pair) for pair in read if isinstance(pair[0], sp.Eq) and not pair[0].has(sp.Derivative))
    return [rule for rule in found if rule is not None]


def _oriented(equation: Any, variables: tuple[Any, ...]) -> Rule | None:
    applied = sorted(equation.atoms(AppliedUndef), key=sp.default_sort_key)
    defined = equation.lhs
    if isinstance(defined, AppliedUndef) and defined.func not in {a.func for a in equation.rhs.atoms(AppliedUndef)}:
        return Rule(equation, variables, defined, None)
    for head in applied:
        others = [a for a in applied if a.func == head.func and a != head]
        for place, form in enumerate(head.args):
            lower = [sp.expand(form - other.args[place]) for other in others]
            if form.free_symbols & set(variables) and all(step.is_Integer and step > 0 for step in lower):
                return Rule(equation, variables, head, place)
    return None


class Rewriter:
    """Applies rules to the applications in an expression, also under derivatives and sums where the rules allow.

    Under a derivative by x, or a sum over k, an equation may be used only if it holds for every x, or k: so only if
    they stand in it for nothing but its variables. An index `m + c` of the free size m is lowered while c > floor;
    a number as far as the rule goes.
    """

    def __init__(self, found: Sequence[Rule], nonzero: Nonzero, floor: int) -> None:
        self.rules, self.nonzero, self.floor = found, nonzero, floor

    def __call__(self, expression: Any) -> Any:
        for _ in range(_ROUNDS):
            replaced = self._walk(expression, frozenset())
            if replaced == expression:
                break
            expression = replaced
        return expression

    def _walk(self, e: Any, bound: frozenset[Any]) -> Any:
        if not e.has(AppliedUndef):
            return e
        if isinstance(e, sp.Derivative):
            inner = self._walk(e.expr, bound | set(e.variables))
            return e if inner == e.expr else sp.diff(inner, *e.variables)
        if isinstance(e, (sp.Sum, sp.Product)):
            inner = self._walk(e.function, bound | set(e.bound_symbols))
            return e if inner == e.function else e.func(inner, *e.limits)
        if isinstance(e, (sp.Integral, sp.Limit, sp.Lambda, sp.Subs)):
            return e
        if isinstance(e, AppliedUndef):
            return self._applied(e, bound)
        return e.func(*(self._walk(part, bound) for part in e.args))

    def _applied(self, target: Any, bound: frozenset[Any]) -> Any:
        for rule in self.rules:
            if rule.head.func != target.func or rule.free_symbols & bound:
                continue
            if rule.place is not None:
                index = target.args[rule.place]
                if not index.is_number and index.as_coeff_Add()[0] <= self.floor:
                    continue
            value = rule.value(target, lambda slope: self._nonzero(slope, bound))
            if value is not None:
                return value
        return target

    def _nonzero(self, slope: sp.Expr, bound: frozenset[Any]) -> bool:
        """Conditions say nothing about a bound symbol, even where it has the name of one that they speak of."""
        return bool(slope.is_nonzero) if slope.free_symbols & bound else self.nonzero(slope)


def instances(facts: Iterable[Any], targets: Iterable[Any]) -> list[sp.Expr]:
    """The equations, as gaps, that the recurrences give when one of their applications becomes one of the targets.

    Where a recurrence holds for every x, its derivative by x does too.
    """
    targets = sorted(targets, key=sp.default_sort_key)
    found: dict[sp.Expr, None] = {}
    for fact in facts:
        if not isinstance(fact, Recurrence):
            continue
        for pattern in sorted(fact.equation.atoms(AppliedUndef), key=sp.default_sort_key):
            for target in targets:
                values = matched(pattern.args, target.args, fact.variables) if pattern.func == target.func else None
                gap = None if values is None else instance(fact.equation, fact.variables, values)
                if values is None or gap is None:
                    continue
                found[sp.expand(gap)] = None
                if gap.has(sp.Derivative):
                    continue
                for symbol in sorted(set(values.values()) & target.free_symbols, key=sp.default_sort_key):
                    if symbol.is_Symbol and not symbol.is_integer and symbol not in fact.free_symbols:
                        found[sp.expand(sp.diff(gap, symbol))] = None
    return [gap for gap in found if gap != 0]
