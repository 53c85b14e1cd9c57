"""Where a statement is most likely to fail: the places that its own parts single out."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from kexue_lib.derivation._cannot import attempted
from kexue_lib.derivation._given import bound_symbols, parameters
from kexue_lib.derivation._letters import is_matrix
from kexue_lib.derivation._needs import Need, needs

Key = Callable[[Any], Any]  # by which expressions are put in an order that names have no part in

_LAZY = (sp.Sum, sp.Product, sp.Integral, sp.Limit, sp.Derivative, sp.Indexed, sp.MatrixExpr, AppliedUndef)
_CRITICAL = 10  # expressions looked at
_SOLVED = 10  # operations of an equation that is not polynomial
_TARGETS = 24
_PERIODS = (0, 1, -1, 2, -3)  # members of an infinite family of solutions that are tried


def critical(statement: Any, given: Sequence[Any], key: Key) -> list[sp.Expr]:
    """Expressions whose zeros are boundaries: of definition, of a piece, of an order, of a branch of a function."""
    found: list[sp.Expr] = []
    for part in (statement, *given):
        for need in sorted(needs(part), key=lambda need: (need.kind, key(need.subject))):
            found += _of_need(need)
        for relation in sorted(part.atoms(Relational), key=key):
            if not (is_matrix(relation.lhs) or is_matrix(relation.rhs)):
                found.append(relation.lhs - relation.rhs)
        for lazy in sorted(part.atoms(sp.Limit, sp.Integral, sp.Sum), key=key):
            found += _of_lazy(lazy)
        for atom in sorted(part.atoms(sp.Function, sp.Pow, sp.Max, sp.Min), key=lambda a: (a.count_ops(), key(a))):
            found += _of_function(atom)
    bound = set().union(*(bound_symbols(part) for part in (statement, *given)))
    usable = [e for e in dict.fromkeys(found) if e.free_symbols and not e.free_symbols & bound and not e.has(*_LAZY)]
    return [e for e in usable if e.is_zero is not False][:_CRITICAL]


def _of_need(need: Need) -> list[sp.Expr]:
    if need.kind in ("nonzero", "nonnegative", "positive"):
        return [need.subject]
    if need.kind == "not_pole":
        return [need.subject, need.subject + 1, need.subject + 2]
    return []


def _of_lazy(e: Any) -> list[sp.Expr]:
    """Coefficients, rates, exponents of what has a limit or a range without end: at their zeros general values fail."""
    if isinstance(e, sp.Limit):
        return list(parameters(e.args[0], e.args[1]))
    endless = [limit[0] for limit in e.limits if any(end.is_infinite for end in limit[1:])]
    names = endless or ([limit[0] for limit in e.limits] if isinstance(e, sp.Integral) else [])
    return [found for name in names for found in parameters(e.function, name)]


def _of_function(e: Any) -> list[sp.Expr]:
    """Kinks and jumps, and for complex arguments points on the cut along the negative axis."""
    if not e.args:
        return []
    inside = e.args[0]
    if isinstance(e, (sp.Abs, sp.sign, sp.Heaviside)):
        return [inside]
    if isinstance(e, (sp.Max, sp.Min)):
        return [one - other for one, other in itertools.combinations(_compared(e), 2)]
    if isinstance(e, sp.KroneckerDelta):
        return [e.args[0] - e.args[1]]
    if isinstance(e, (sp.floor, sp.ceiling, sp.frac)):
        return [inside, inside - 1]
    if isinstance(e, sp.Pow) and e.base.is_zero:
        return [e.exp]
    if isinstance(e, sp.log) or (isinstance(e, sp.Pow) and not e.exp.is_integer):
        return [] if inside.is_nonnegative else [inside + 2, inside - 1]
    return []


def _compared(e: Any) -> list[sp.Expr]:
    """What a maximum or minimum is taken of, those in it included."""
    if not isinstance(e, (sp.Max, sp.Min)):
        return [e]
    return list(dict.fromkeys(found for argument in e.args for found in _compared(argument)))


def branches(statement: Any) -> list[sp.Expr]:
    """Expressions whose sign chooses a branch: in pieces, absolute values, maxima and minima."""
    found: list[sp.Expr] = []
    for atom in sorted(statement.atoms(sp.Abs, sp.sign, sp.Heaviside, sp.Max, sp.Min), key=sp.default_sort_key):
        found += _of_function(atom)
    for piecewise in sorted(statement.atoms(sp.Piecewise), key=sp.default_sort_key):
        orders = sorted(piecewise.atoms(Relational), key=sp.default_sort_key)
        found += [order.lhs - order.rhs for order in orders]
    bound = bound_symbols(statement)
    return [e for e in dict.fromkeys(found) if e.free_symbols and not e.free_symbols & bound and not e.has(*_LAZY)]


def zeros(expression: sp.Expr, symbol: sp.Symbol) -> list[sp.Expr]:
    """Values of the symbol at which the expression vanishes; of an infinite family some members."""
    operations = expression.count_ops()
    if not expression.has(symbol) or operations > 60:
        return []
    return attempted(lambda: _solutions(expression, symbol, operations), [])


def _solutions(expression: sp.Expr, symbol: sp.Symbol, operations: int) -> list[sp.Expr]:
    if expression.is_polynomial(symbol):
        degree = sp.degree(expression, symbol)
        if degree == 1:
            slope = sp.diff(expression, symbol)
            return [sp.cancel(symbol - expression / slope)]
        if degree > 4 or (degree > 2 and len(expression.free_symbols) > 1) or operations > 25:
            return []
        return [root for root in sp.roots(expression, symbol) if not root.has(symbol)]
    if any(root.base.has(symbol) for root in _square_roots(expression)):
        return zeros(_without_root(expression, symbol), symbol)
    if operations > _SOLVED:
        return []
    domain = sp.S.Reals if symbol.is_extended_real else sp.S.Complexes
    name = sp.Dummy(symbol.name, real=symbol.is_extended_real)
    solutions = sp.solveset(expression.subs(symbol, name), name, domain)
    return [value for value in _members(solutions) if not value.has(name)]


def _square_roots(expression: sp.Expr) -> list[sp.Pow]:
    return [p for p in expression.atoms(sp.Pow) if p.exp.is_Rational and p.exp.q == 2]


def _without_root(expression: sp.Expr, symbol: sp.Symbol) -> sp.Expr:
    """A + B √C has its zeros among those of A² - B² C; a place too many does no harm to one that is only tried."""
    bases = [root.base for root in _square_roots(expression) if root.base.has(symbol)]
    base = max(bases, key=lambda base: (base.count_ops(), sp.default_sort_key(base)))
    root = sp.Dummy()
    changes = {p: root ** (2 * p.exp) for p in _square_roots(expression) if p.base == base}
    even, odd = sp.Integer(0), sp.Integer(0)
    for (power,), coefficient in sp.Poly(sp.numer(sp.together(expression.xreplace(changes))), root).terms():
        term = coefficient * base ** (power // 2)
        even, odd = (even, odd + term) if power % 2 else (even + term, odd)
    return sp.expand(even**2 - odd**2 * base)


def _members(solutions: Any) -> Iterator[sp.Expr]:
    if isinstance(solutions, sp.FiniteSet):
        yield from solutions
    elif isinstance(solutions, sp.ImageSet):
        if len(solutions.lamda.variables) == 1:
            yield from (solutions.lamda(k) for k in _PERIODS)
    elif isinstance(solutions, sp.Union):
        for part in solutions.args:
            yield from _members(part)
    elif isinstance(solutions, sp.Intersection):
        for part in solutions.args:
            if not isinstance(part, (type(sp.S.Reals), sp.Interval)):
                yield from _members(part)
    elif isinstance(solutions, sp.Complement):
        yield from _members(solutions.args[0])
    elif isinstance(solutions, sp.Interval):
        yield from (end for end in (solutions.start, solutions.end) if end.is_finite)


def targets(
    statement: Any, given: Sequence[Any], symbols: Sequence[sp.Symbol], key: Key
) -> list[tuple[sp.Symbol, sp.Expr]]:
    """Pairs of a symbol and a value, possibly in terms of the others, that put the statement on a boundary."""
    found: list[tuple[sp.Symbol, sp.Expr]] = []
    for expression in critical(statement, given, key):
        for symbol in symbols:
            found += [(symbol, value) for value in _in_order(zeros(expression, symbol), key)[:6]]
            if len(found) > _TARGETS:
                return list(dict.fromkeys(found))
    return list(dict.fromkeys(found))


def constants(statement: Any, given: Sequence[Any]) -> list[sp.Expr]:
    """The numbers beyond two that occur in a statement, smallest first."""
    numbers = {abs(n) for part in (statement, *given) for n in part.atoms(sp.Number) if n.is_finite}
    return sorted(n for n in numbers if n > 2)[:6]


def solve_for_one(gap: sp.Expr, excluded: set[sp.Symbol], key: Key) -> tuple[sp.Symbol | None, list[sp.Expr]]:
    """A symbol that `gap == 0` determines by the others, linear ones preferred, and its possible values."""
    candidates = sorted(
        (s for s in gap.free_symbols - excluded if isinstance(s, sp.Symbol)),
        key=lambda s: (not sp.diff(gap, s).is_number, not _linear(gap, s), key(s)),
    )
    for symbol in candidates:
        values = zeros(gap, symbol)
        if values:
            return symbol, _in_order(values, key)
    return None, []


def _in_order(values: Sequence[sp.Expr], key: Key) -> list[sp.Expr]:
    return sorted(values, key=lambda value: (value.count_ops(), key(value)))


def _linear(expression: sp.Expr, symbol: sp.Symbol) -> bool:
    return bool(expression.is_polynomial(symbol)) and sp.degree(expression, symbol) == 1
