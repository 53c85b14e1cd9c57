"""Proofs: the ways to prove a statement, cheap ones first, each an equivalence on the domain of the statement.

A proof has two parts. `well_defined` shows that every part of the statement has a value wherever assumptions and
conditions allow; a route then shows the relation between values that exist. Only SymPy's own "cannot" counts as no
proof; what else goes wrong comes through.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sympy as sp
from sympy.core.relational import Relational
from sympy.matrices.expressions.matexpr import MatrixElement

from kexue_lib.derivation import _indexed as indexed
from kexue_lib.derivation import _indexed_orders as indexed_orders
from kexue_lib.derivation import _matrices as matrices
from kexue_lib.derivation._calculus import evaluated, met
from kexue_lib.derivation._cannot import attempted
from kexue_lib.derivation._given import bound_symbols, matrix_facts, normalised, parts
from kexue_lib.derivation._invertibility import undefined_inverses
from kexue_lib.derivation._letters import is_matrix
from kexue_lib.derivation._line import holds_on_the_line
from kexue_lib.derivation._multipliers import follows_by_multiple
from kexue_lib.derivation._needs import Need, needs
from kexue_lib.derivation._products import follows_by_products
from kexue_lib.derivation._sign import is_real, prove_nonzero, prove_sign
from kexue_lib.derivation._zero import LAZY, real_routes, same_derivative, vanishes, vanishing_routes, zero_under

Route = tuple[str, Callable[[], bool]]


def plain(statement: Any, given: Sequence[Any] = ()) -> bool:
    """Whether an ordinary statement is proved: what the routes for sums and matrices ask about their parts."""
    if statement in (sp.true, True):
        return True
    if statement in (sp.false, False):
        return False
    if isinstance(statement, sp.And):
        return all(plain(part, given) for part in statement.args)
    if isinstance(statement, sp.Eq):
        gap = statement.lhs - statement.rhs
        return vanishes(gap) or zero_under(gap, given)
    if isinstance(statement, sp.Ne):
        return prove_nonzero(statement.lhs - statement.rhs, given)
    if isinstance(statement, Relational):
        return prove_sign(statement.gts - statement.lts, isinstance(statement, (sp.Gt, sp.Lt)), given)
    return False


def well_defined(statement: Any, given: Sequence[Any]) -> list[Need]:
    """The needs of a statement that are not shown to be met: none means that it has a meaning everywhere.

    The second part of an implication, and a later part of a conjunction, is needed only where the earlier hold.
    """
    if isinstance(statement, sp.Implies):
        return [*well_defined(statement.args[0], given), *well_defined(statement.args[1], [*given, statement.args[0]])]
    open_needs = []
    for need in dict.fromkeys(needs(statement, tuple(given))):
        if need.kind == "invertible":
            continue  # decided for all matrices together, below
        if not attempted(lambda need=need: met(need)):
            open_needs.append(need)
    if statement.has(sp.Inverse, sp.MatPow):
        found = undefined_inverses(statement, matrix_facts(given), plain)
        open_needs += [Need("invertible", matrix, tuple(given)) for matrix in found]
    return open_needs


def routes(statement: Any, given: Sequence[Any]) -> Iterator[Route]:
    """Ways to prove a statement, cheap ones first: what each does in words, and the attempt itself."""
    if isinstance(statement, sp.Eq):
        if is_matrix(statement.lhs):
            yield from _matrix_routes(statement.lhs, statement.rhs, given)
        else:
            yield from _equality_routes(statement.lhs, statement.rhs, given)
    elif isinstance(statement, sp.Ne):
        if not is_matrix(statement.lhs):
            gap = statement.lhs - statement.rhs
            yield "the difference is never zero", lambda: prove_nonzero(evaluated(gap, given), given)
    elif isinstance(statement, Relational):
        strict = isinstance(statement, (sp.StrictLessThan, sp.StrictGreaterThan))
        yield from _order_routes(statement.gts, statement.lts, strict, given)
    elif isinstance(statement, sp.Implies):
        yield from routes(statement.args[1], [*given, statement.args[0]])
    elif isinstance(statement, (sp.And, sp.Equivalent)):
        pieces = statement.args
        if isinstance(statement, sp.Equivalent):
            pieces = [sp.Implies(a, b, evaluate=False) for a, b in zip(pieces, (*pieces[1:], pieces[0]))]
        yield "each part on its own", lambda: all(proved(piece, given) for piece in pieces)
    elif isinstance(statement, sp.Or):
        yield "one of the parts, where the others fail", lambda: _any_of(statement.args, given)
    elif isinstance(statement, sp.Not) and not isinstance(statement.args[0], sp.Not):
        yield "the negated statement", lambda: proved(sp.Not(statement.args[0]), given)
    yield "the signs between the roots", lambda: holds_on_the_line(statement, parts(given))


def proved(statement: Any, given: Sequence[Any]) -> bool:
    """Whether some route proves the statement."""
    if statement in (sp.true, True):
        return True
    return any(attempted(attempt) for _, attempt in routes(normalised(statement), given))


def _any_of(alternatives: Sequence[Any], given: Sequence[Any]) -> bool:
    """One part follows from the negation of the others; real sides make the negation of an order an order."""
    for part in alternatives:
        if proved(part, [*given, *(sp.Not(other) for other in alternatives if other != part)]):
            return True
    return False


# --- equalities -------------------------------------------------------------------------------------------------------


def _equality_routes(lhs: Any, rhs: Any, given: Sequence[Any]) -> Iterator[Route]:
    if lhs.has(sp.MatrixSymbol) or rhs.has(sp.MatrixSymbol):
        gap = lhs - rhs
        yield "matrix algebra", lambda: matrices.scalar_vanishes(gap, list(given), plain)
        lhs, rhs = entries_as_symbols(sp.Tuple(lhs.doit(), rhs.doit()))
    gap = lhs - rhs
    if gap.has(*LAZY, sp.UnevaluatedExpr):
        yield from _lazy_routes(gap.replace(lambda e: isinstance(e, sp.UnevaluatedExpr), lambda e: e.args[0]), given)
        return
    if given:
        yield "substituting the conditions", lambda: zero_under(gap, given)
    yield from vanishing_routes(gap)
    yield from real_routes(lhs, rhs, given)
    if gap.has(sp.Abs, sp.Max, sp.Min, sp.Piecewise, sp.sign, sp.Heaviside):
        yield "distinguishing cases", lambda: zero_under(gap, given)
    yield "differentiating both sides", lambda: same_derivative(gap, given)


def _lazy_routes(gap: Any, given: Sequence[Any]) -> Iterator[Route]:
    """Sums of any length by their normal form and by induction; derivatives, integrals and limits by their values."""
    if gap.has(sp.Sum, sp.Product, sp.Indexed):
        yield "the normal form of its sums", lambda: indexed.vanishes(gap, list(given), plain)
    if gap.has(sp.Derivative, sp.Subs) and not gap.has(sp.Integral, sp.Limit, sp.Sum, sp.Product):
        yield "differentiating", lambda: _zero(evaluated(gap, given), given)
        return
    if gap.has(sp.Integral):
        yield "comparing integrands", lambda: _same_integrands(gap, given)
    if gap.has(sp.Integral, sp.Limit, sp.Derivative, sp.Subs) or _infinite(gap):
        words = "evaluating " + " and ".join(
            name
            for kind, name in ((sp.Integral, "integrals"), (sp.Limit, "limits"), (sp.Derivative, "derivatives"))
            if gap.has(kind)
        )
        words = words if words != "evaluating " else "evaluating infinite sums"
        yield words, lambda: _zero(evaluated(gap, given), given)
    yield "differentiating both sides", lambda: same_derivative(gap, given)


def _infinite(gap: Any) -> bool:
    return any(end.is_infinite for e in gap.atoms(sp.Sum, sp.Product) for limit in e.limits for end in limit[1:])


def _zero(gap: Any, given: Sequence[Any]) -> bool:
    if gap.has(sp.Integral, sp.Limit, sp.Sum, sp.Product):
        finite = not gap.has(sp.Integral, sp.Limit) and not _infinite(gap)
        return finite and indexed.vanishes(gap, list(given), plain)
    return vanishes(gap) or zero_under(gap, given)


def _same_integrands(gap: Any, given: Sequence[Any]) -> bool:
    """Integrals over the same range, whose integrands cancel; each of them converges, as the needs show."""
    groups: dict[Any, Any] = {}
    names = [sp.Dummy(f"t{i}", real=True) for i in range(max(len(e.limits) for e in gap.atoms(sp.Integral)))]
    for term in sp.Add.make_args(sp.expand(gap, deep=False)):
        factor, lazy = term.as_independent(sp.Integral, as_Add=False)
        if not isinstance(lazy, sp.Integral):
            return False
        named = {limit[0]: name for limit, name in zip(lazy.limits, names)}
        if len(named) < len(lazy.limits):
            return False
        # the ends of an inner integral may depend on the variables of those around it
        outer = [{v: named[v] for v, *_ in lazy.limits[i + 1 :]} for i in range(len(lazy.limits))]
        key = tuple(tuple(end.xreplace(seen) for end in limit[1:]) for limit, seen in zip(lazy.limits, outer))
        groups[key] = groups.get(key, 0) + factor * lazy.function.xreplace(named)
    return all(_zero(evaluated(total, given), given) for total in groups.values())


# --- orders -----------------------------------------------------------------------------------------------------------


def _order_routes(large: Any, small: Any, strict: bool, given: Sequence[Any]) -> Iterator[Route]:
    gap = large - small
    if gap.has(sp.MatrixSymbol):
        yield "scalars of matrices", lambda: _matrix_order(large, small, strict, given)
        return
    if not gap.has(*LAZY):
        if given:
            yield "products of conditions", lambda: follows_by_products(gap, strict, given)
        yield "the sign of the difference", lambda: prove_sign(gap, strict, given)
        yield "the stated inequalities", lambda: _from_facts(gap, strict, given)
        if given:
            yield "a multiple of a condition", lambda: follows_by_multiple(gap, strict, given)
        return
    value = gap
    if gap.has(sp.Derivative, sp.Integral, sp.Limit) or _infinite(gap):
        value = evaluated(gap, given)
        yield "the sign of the evaluated difference", lambda: prove_sign(value, strict, given)
    yield "the stated inequalities", lambda: _from_facts(gap, strict, given)
    yield "its sums, for every length", lambda: indexed_orders.nonnegative(value, strict, list(given), plain)


def _matrix_order(large: Any, small: Any, strict: bool, given: Sequence[Any]) -> bool:
    """Traces, determinants and inner products as symbols that carry their signs."""
    scalars = matrices.scalars_in_atoms([large, small], list(given), plain)
    return scalars is not None and prove_sign(scalars[0] - scalars[1], strict, ())


def _from_facts(gap: Any, strict: bool, given: Sequence[Any]) -> bool:
    """The difference is a sum of positive multiples of differences that the conditions say to be non-negative.

    Equations may be added in any multiple. Tried with each condition alone and with all of them together.
    """
    facts = [c for c in parts(given) if isinstance(c, (sp.Gt, sp.Lt, sp.Ge, sp.Le))]
    if not facts or not is_real(gap, given):
        return False
    gaps = [(fact.gts - fact.lts, isinstance(fact, (sp.Gt, sp.Lt))) for fact in facts]
    choices = [[pair] for pair in gaps] + [[one, other] for i, one in enumerate(gaps) for other in gaps[i + 1 :]]
    for chosen in choices + ([gaps] if len(gaps) > 2 else []):
        rest = gap - sum(difference for difference, _ in chosen)
        if prove_sign(rest, strict and not any(s for _, s in chosen), given, 1) or zero_under(rest, given):
            return not strict or any(s for _, s in chosen) or prove_sign(rest, True, given, 1)
    for difference, sharp in gaps:
        ratio = sp.cancel(sp.together(gap / difference))
        if prove_sign(ratio, strict, given, 1) and (sharp or not strict):
            return True
    return False


# --- matrices ---------------------------------------------------------------------------------------------------------


def _matrix_routes(lhs: Any, rhs: Any, given: Sequence[Any]) -> Iterator[Route]:
    if lhs.has(sp.MatrixSymbol) or rhs.has(sp.MatrixSymbol):
        yield "matrix algebra", lambda: matrices.matrices_equal(lhs, rhs, list(given), plain)
    if all(sp.sympify(size).is_Integer for size in matrices.shape(lhs)):

        def entries() -> list[tuple[Any, Any]]:
            pair = [entries_as_symbols(explicit(side)) for side in (lhs, rhs)]
            return list(zip(*pair))

        yield "entry by entry, expanding", lambda: all(sp.expand(a - b) == 0 for a, b in entries())
        yield "entry by entry", lambda: all(a == b or proved(sp.Eq(a, b, evaluate=False), given) for a, b in entries())


def explicit(matrix: Any) -> sp.ImmutableMatrix:
    """The entries of a matrix expression with a shape in numbers."""
    matrix = sp.sympify(matrix).doit()
    return sp.ImmutableMatrix(matrix.as_explicit() if hasattr(matrix, "as_explicit") else matrix)


def entries_as_symbols(expression: Any) -> Any:
    """Entries of unknown matrices as symbols, equal ones the same; an entry under a sum over its index stays."""
    bound = bound_symbols(expression)
    free = (element for element in expression.atoms(MatrixElement) if not element.free_symbols & bound)
    elements = sorted(free, key=sp.default_sort_key)
    return expression.xreplace({element: sp.Dummy(str(element)) for element in elements})
