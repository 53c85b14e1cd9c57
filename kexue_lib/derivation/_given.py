"""Conditions: scalar predicates as relations, and orderings and equations built into the symbols themselves."""

from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanFunction

from kexue_lib.derivation._indexed_facts import ForEvery
from kexue_lib.derivation._ranges import without_empty

MATRIX_FACTS = {
    getattr(sp.Q, name)
    for name in (
        *("symmetric", "orthogonal", "unitary", "diagonal", "invertible", "singular", "positive_definite"),
        *("real_elements", "lower_triangular", "upper_triangular"),
    )
}
_RELATIONS = {
    sp.Q.positive: sp.StrictGreaterThan,
    sp.Q.negative: sp.StrictLessThan,
    sp.Q.nonnegative: sp.GreaterThan,
    sp.Q.nonpositive: sp.LessThan,
    sp.Q.zero: sp.Eq,
    sp.Q.nonzero: sp.Ne,
}
_LAZY = (sp.Sum, sp.Product, sp.Integral, sp.Limit, sp.Indexed)


def normalised(statement: Any) -> Any:
    """The statement with predicates of scalars such as Q.positive(x) written as relations, and without empty sums.

    Raises ValueError for a predicate that nothing here could honour.
    """
    if isinstance(statement, sp.AppliedPredicate):
        predicate, argument = statement.function, statement.arguments[0]
        if predicate in _RELATIONS and not getattr(argument, "is_Matrix", False):
            return _RELATIONS[predicate](argument, sp.Integer(0), evaluate=False)
        if predicate in MATRIX_FACTS and getattr(argument, "is_Matrix", False):
            return statement
        raise ValueError(f"given: got {statement}, expected a relation, or that assumption on the symbol itself")
    if isinstance(statement, BooleanFunction) and not isinstance(statement, ForEvery):
        return statement.func(*map(normalised, statement.args), evaluate=False)
    return without_empty(statement) if isinstance(statement, Relational) else statement


def parts(given: Sequence[Any]) -> list[Any]:
    """The conditions one by one, conjunctions taken apart."""
    return [part for condition in given for part in sp.And.make_args(condition)]


def matrix_facts(given: Sequence[Any]) -> list[Any]:
    """The predicates of matrices, and the equations between matrices, among the conditions."""
    return [c for c in parts(given) if isinstance(c, sp.AppliedPredicate) or _of_matrices(c)]


def equations(given: Sequence[Any]) -> Iterator[sp.Eq]:
    """The equations between scalars among the conditions."""
    yield from (c for c in parts(given) if isinstance(c, sp.Eq) and not _of_matrices(c))


def _of_matrices(condition: Any) -> bool:
    return isinstance(condition, (sp.Eq, sp.Ne)) and bool(getattr(condition.lhs, "is_Matrix", False))


def apart(statements: Sequence[Any]) -> list[Any]:
    """The statements with other names for bound variables that are also free somewhere: one name, one meaning."""
    free = set().union(*(statement.free_symbols for statement in statements))
    clashes = sorted(free & set().union(*(_summed(statement) for statement in statements)), key=sp.default_sort_key)
    names = {name: sp.Dummy(name.name, **name.assumptions0) for name in clashes}
    return [_renamed(statement, names) for statement in statements] if names else list(statements)


def _summed(expression: Any) -> set[Any]:
    """The bound names that can be given another one: a derivative's is its argument as well."""
    found = {limit[0] for lazy in expression.atoms(sp.Sum, sp.Product, sp.Integral) for limit in lazy.limits}
    found |= {limit.args[1] for limit in expression.atoms(sp.Limit)}
    return found | {every.limit[0] for every in expression.atoms(ForEvery)}


def _renamed(e: Any, names: dict[Any, Any]) -> Any:
    if not (names.keys() & _summed(e)):
        return e
    args = [_renamed(argument, names) for argument in e.args]
    if isinstance(e, (sp.Sum, sp.Product, sp.Integral)):
        # the ends of an inner range may depend on the variables of those around it
        outer = [{v: names[v] for v, *_ in e.limits[i + 1 :] if v in names} for i in range(len(e.limits))]
        limits = [(names.get(v, v), *(x.xreplace(o) for x in ends)) for (v, *ends), o in zip(args[1:], outer)]
        own = {v: names[v] for v, *_ in e.limits if v in names}
        return e.func(args[0].xreplace(own), *limits)
    if isinstance(e, sp.Limit) and e.args[1] in names:
        own = {e.args[1]: names[e.args[1]]}
        return e.func(args[0].xreplace(own), own[e.args[1]], *args[2:])
    if isinstance(e, ForEvery) and e.limit[0] in names:
        own = {e.limit[0]: names[e.limit[0]]}
        return ForEvery(args[0].xreplace(own), (own[e.limit[0]], *args[1][1:]))
    if isinstance(e, (Relational, BooleanFunction)):
        return e.func(*args, evaluate=False)
    return e.func(*args)


# --- changes of variables ---------------------------------------------------------------------------------------------


def shifted(expression: Any, given: Sequence[Any]) -> tuple[Any, list[Any] | None]:
    """Build orderings into the symbols: a < b becomes b = a + t with t positive; equations are solved.

    Sound because each change of variables maps the new symbols' domain onto a superset of the points that the
    condition allows: what is proved in the new symbols holds wherever the condition does.
    Returns the expression and the conditions that are left, None where they contradict each other.
    """
    pending = [c for c in parts(given) if c != sp.true]
    for _ in range(len(pending)):
        for condition in pending:
            change = _change_of_variable(condition)
            if change is not None and not _captured(change, (expression, *pending)):
                expression = expression.subs(change)
                pending = [c.subs(change) for c in pending if c != condition]
                if isinstance(condition, sp.Eq):
                    pending += [fact for symbol, value in change.items() for fact in _still_signed(symbol, value)]
                pending = [c for c in parts(pending) if c != sp.true]
                break
        else:
            break
    return expression, None if sp.false in pending else pending


def _captured(change: dict[Any, Any], statements: Sequence[Any]) -> bool:
    """Whether a value speaks of a name that is bound somewhere: put in there it would mean the bound one."""
    names = set().union(*(value.free_symbols for value in change.values()))
    return any(names & bound_symbols(statement) for statement in statements)


def _still_signed(symbol: sp.Symbol, value: sp.Expr) -> Iterator[Any]:
    """What the assumption about a symbol's sign says of the value that replaces it."""
    if symbol.is_positive and not value.is_positive:
        yield sp.Gt(value.args[0], 1) if isinstance(value, sp.log) else sp.Gt(value, 0)
    elif symbol.is_nonnegative and not value.is_nonnegative:
        yield sp.Ge(value.args[0], 1) if isinstance(value, sp.log) else sp.Ge(value, 0)


def _change_of_variable(condition: Any) -> dict[sp.Symbol, sp.Expr] | None:
    if isinstance(condition, sp.Eq) and not _of_matrices(condition):
        return _solved(sp.expand(condition.lhs - condition.rhs))
    if not isinstance(condition, (sp.Lt, sp.Le, sp.Gt, sp.Ge)):
        return None
    gap = sp.expand(condition.gts - condition.lts)
    if gap.has(*_LAZY):
        return None
    strict = isinstance(condition, (sp.Lt, sp.Gt))
    whole = bool(gap.free_symbols) and all(s.is_integer for s in gap.free_symbols) and gap.is_integer
    least = sp.Integer(1 if strict and whole else 0)
    facts = {"integer": True} if whole else {}
    step = sp.Dummy("t", **facts, **({"positive": True} if strict and not whole else {"nonnegative": True}))
    slopes = {s: sp.diff(gap, s) for s in sorted(gap.free_symbols, key=str) if s.is_extended_real}
    linear = {s: slope for s, slope in slopes.items() if slope.is_number and slope != 0 and slope.is_extended_real}
    for symbol, slope in linear.items():  # symbol = bound + step keeps a positive symbol positive
        value = sp.expand(symbol - gap / slope + (step + least) / slope)
        if slope.is_positive and _keeps(symbol, value):
            return {symbol: value}
    for symbol, slope in linear.items():  # 0 < symbol < bound
        bound = sp.expand(symbol - gap / slope)
        if slope.is_negative and symbol.is_nonnegative and not symbol.is_positive and bound == 0 and not strict:
            return {symbol: sp.Integer(0)}
        if slope.is_negative and symbol.is_positive and strict and bound.is_positive and not symbol.is_integer:
            return {symbol: bound * step / (1 + step)}
    for symbol, slope in linear.items():
        value = sp.expand(symbol - gap / slope + (step + least) / slope)
        if not _signed(symbol) and (symbol.is_integer is not True or value.is_integer):
            return {symbol: value}
    return None


def _solved(gap: sp.Expr) -> dict[sp.Symbol, sp.Expr] | None:
    """An equation solved for a symbol in which it is linear, with a slope that is known not to vanish."""
    if gap.has(*_LAZY):
        return None
    shares = _simplex(gap)
    if shares is not None:
        return shares
    for symbol in sorted((s for s in gap.free_symbols if isinstance(s, sp.Symbol)), key=lambda s: (_signed(s), str(s))):
        slope = sp.diff(gap, symbol)
        if slope.is_nonzero and not slope.has(symbol):
            return {symbol: sp.simplify(symbol - gap / slope)}
    return None


def _simplex(gap: sp.Expr) -> dict[sp.Symbol, sp.Expr] | None:
    """Positive shares of a positive total, p + q + … = c, as c u / (u + v + …) with positive u, v, …"""
    symbols = sorted(gap.free_symbols, key=str)
    if len(symbols) < 2 or not all(s.is_positive and s.is_integer is not True for s in symbols):
        return None
    if not gap.is_polynomial(*symbols) or sp.Poly(gap, *symbols).total_degree() != 1:
        return None
    total, slopes = -gap.subs(dict.fromkeys(symbols, 0)), [sp.diff(gap, s) for s in symbols]
    if total.is_negative:
        total, slopes = -total, [-slope for slope in slopes]
    if not (total.is_positive and all(slope.is_positive for slope in slopes)):
        return None
    shares = [sp.Dummy(s.name, positive=True) for s in symbols]
    return {s: total * share / slope / sum(shares) for s, share, slope in zip(symbols, shares, slopes)}


def _signed(symbol: sp.Symbol) -> bool:
    return any(fact is not None for fact in (symbol.is_positive, symbol.is_negative, symbol.is_nonnegative))


def _keeps(symbol: sp.Symbol, value: sp.Expr) -> bool:
    return (
        (not symbol.is_positive or bool(value.is_positive))
        and (not symbol.is_nonnegative or bool(value.is_nonnegative))
        and (not symbol.is_integer or bool(value.is_integer))
    )


# --- cases ------------------------------------------------------------------------------------------------------------

_SPLIT = (sp.Abs, sp.sign, sp.Max, sp.Min, sp.Heaviside, sp.Piecewise)


def bound_symbols(expression: Any) -> set[Any]:
    """The variables that sums, products, integrals, limits and derivatives of an expression bind."""
    found = set()
    for lazy in expression.atoms(sp.Sum, sp.Product, sp.Integral):
        found |= {limit[0] for limit in lazy.limits}
    found |= {limit.args[1] for limit in expression.atoms(sp.Limit)}
    found |= {every.args[1][0] for every in expression.atoms(ForEvery)}
    found |= {symbol for e in expression.atoms(sp.Derivative, sp.Subs) for symbol in e.variables}
    return found | {symbol for e in expression.atoms(sp.Lambda) for symbol in e.signature}


def parameters(e: Any, variable: sp.Symbol) -> Iterator[sp.Expr]:
    """The coefficients, rates and exponents that a function of the variable is built with, like terms collected."""
    if not e.has(variable):
        if e.free_symbols:
            yield e
        return
    if isinstance(e, (sp.Sum, sp.Product, sp.Integral)):
        names = {limit[0] for limit in e.limits}
        pieces = [(e.function, name) for name in (variable, *names)]
        pieces += [(end, variable) for limit in e.limits for end in limit[1:]]
        found = (p for part, name in pieces for p in parameters(part, name))
        yield from (p for p in found if not p.free_symbols & names)
        return
    if isinstance(e, sp.Add):
        coefficients: dict[Any, Any] = {}
        for term in sp.Add.make_args(sp.expand(e)):
            outside, inside = term.as_independent(variable, as_Add=False)
            coefficients[inside] = coefficients.get(inside, 0) + outside
        for inside, outside in coefficients.items():
            yield from parameters(sp.factor(outside), variable)
            yield from parameters(inside, variable)
        return
    if isinstance(e, sp.Pow) and e.exp.has(variable) and not e.base.has(variable) and e.base.free_symbols:
        yield e.base - 1  # the rate is log of the base
    for argument in e.args:
        yield from parameters(argument, variable)


def cases(expression: sp.Expr, given: Sequence[Any]) -> list[tuple[sp.Expr, list[Any]]] | None:
    """Split at the first absolute value, sign, maximum, minimum, piece or excluded point; None: nothing to split.

    Sound because the conditions of the branches cover the domain. What depends on a bound variable has no
    one sign, and is never split.
    """
    bound = bound_symbols(expression)
    for atom in sorted(expression.atoms(*_SPLIT), key=lambda a: (len(str(a)), sp.default_sort_key(a))):
        if atom.free_symbols & bound:
            continue
        branches = _pieces(atom) if isinstance(atom, sp.Piecewise) else _branches(atom, given)
        if branches is not None:
            return [(expression.xreplace({atom: value}), [*given, *conditions]) for value, conditions in branches]
    for fact in parts(given):  # a ≠ b for real sides: below or above
        if isinstance(fact, sp.Ne) and fact.lhs.is_extended_real and fact.rhs.is_extended_real:
            others = [c for c in parts(given) if c != fact]
            orders = (sp.Gt(fact.lhs, fact.rhs, evaluate=False), sp.Lt(fact.lhs, fact.rhs, evaluate=False))
            return [(expression, [*others, order]) for order in orders]
    return None


def _pieces(atom: Any) -> list[tuple[Any, list[Any]]] | None:
    branches: list[tuple[Any, list[Any]]] = []
    excluded: list[Any] = []
    for piece, condition in atom.args:
        if condition == sp.true:
            return [*branches, (piece, list(excluded))]
        if not isinstance(condition, Relational):
            return None
        branches.append((piece, [*excluded, condition]))
        excluded.append(sp.Not(condition))
    return None  # the pieces might not cover the domain


def _branches(atom: Any, given: Sequence[Any]) -> list[tuple[Any, list[Any]]] | None:
    if not all(argument.is_extended_real for argument in atom.args):
        return None
    if isinstance(atom, (sp.Max, sp.Min)):
        one, rest = atom.args[0], atom.func(*atom.args[1:])
        above, below = sp.Ge(one, rest, evaluate=False), sp.Le(one, rest, evaluate=False)
        larger, smaller = (one, rest) if isinstance(atom, sp.Max) else (rest, one)
        return [(larger, [above]), (smaller, [below])]
    inside = atom.args[0]
    values = {
        sp.Abs: lambda: (inside, 0, -inside),
        sp.sign: lambda: (1, 0, -1),
        sp.Heaviside: lambda: (1, sp.Heaviside(0, *atom.args[1:]), 0),
    }[atom.func]()
    orders = [kind(inside, 0, evaluate=False) for kind in (sp.Gt, sp.Eq, sp.Lt)]
    branches = [(sp.sympify(value), [order]) for value, order in zip(values, orders)]
    excluded = any(c in (sp.Ne(inside, 0), sp.Ne(-inside, 0)) for c in parts(given))
    return [branches[0], branches[2]] if excluded else branches
