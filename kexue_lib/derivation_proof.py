"""Symbolic proofs by SymPy's own machinery: each route that succeeds says so in words, none of them guesses.

Part of :mod:`kexue_lib.derivation`, which is the place to call.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sympy as sp
from sympy.core.relational import Relational

from kexue_lib.derivation_matrices import MatrixAlgebra
from kexue_lib.derivation_points import solve_for_one
from kexue_lib.derivation_sign import cases, prove_sign, shifted_by_conditions

Route = tuple[str, Callable[[], bool]]


def routes(statement: Any, given: Sequence[Any]) -> Iterator[Route]:
    """Ways to prove a statement, cheap ones first: what each does in words, and the attempt itself."""
    if isinstance(statement, sp.Eq):
        yield from _equality_routes(statement.lhs, statement.rhs, given)
    elif isinstance(statement, sp.Ne):
        gap = statement.lhs - statement.rhs
        yield "the difference is never zero", lambda: _is_never_zero(gap, given)
    elif isinstance(statement, Relational):
        strict = isinstance(statement, (sp.StrictLessThan, sp.StrictGreaterThan))
        yield from _order_routes(statement.gts, statement.lts, strict, given)
    elif isinstance(statement, sp.Implies):
        yield from routes(statement.args[1], [*given, statement.args[0]])
    elif isinstance(statement, (sp.And, sp.Equivalent)):
        parts = statement.args
        if isinstance(statement, sp.Equivalent):
            parts = [sp.Implies(a, b, evaluate=False) for a, b in zip(parts, (*parts[1:], parts[0]))]
        yield "each part on its own", lambda: all(_any_route(part, given) for part in parts)
    elif isinstance(statement, sp.Or):
        yield "one of the parts", lambda: _any_of(statement.args, given)
    elif isinstance(statement, sp.Not):
        yield "the negated statement", lambda: _any_route(sp.Not(statement.args[0]), given)
    if not isinstance(statement, sp.Eq):
        yield "SymPy's simplification of the statement", lambda: _simplifies_to_true(statement, given)


def _any_route(statement: Any, given: Sequence[Any]) -> bool:
    if statement == sp.true:
        return True
    if isinstance(statement, sp.Not) and isinstance(statement.args[0], sp.Not):
        return False
    return any(attempt() for _, attempt in routes(statement, given))


def _any_of(parts: Sequence[Any], given: Sequence[Any]) -> bool:
    """One part follows from the negation of the others."""
    for part in parts:
        others = [sp.Not(other) for other in parts if other != part]
        if _any_route(part, [*given, *others]):
            return True
    return False


def _simplifies_to_true(statement: Any, given: Sequence[Any]) -> bool:
    if given:
        return False
    return sp.simplify(statement) == sp.true


def _is_never_zero(gap: sp.Expr, given: Sequence[Any]) -> bool:
    form = sp.factor(gap)
    return bool(form.is_nonzero) or prove_sign(gap, True, given) or prove_sign(-gap, True, given)


# --- equalities -------------------------------------------------------------------------------------------------------


def _equality_routes(lhs: Any, rhs: Any, given: Sequence[Any]) -> Iterator[Route]:
    if getattr(lhs, "is_Matrix", False) or getattr(rhs, "is_Matrix", False):
        yield from _matrix_routes(lhs, rhs, given)
        return
    if lhs.has(sp.MatrixSymbol):
        yield "matrix algebra", lambda gap=lhs - rhs: MatrixAlgebra(given).trace_is_zero(gap)
        lhs, rhs = _entries_as_symbols(lhs.doit()), _entries_as_symbols(rhs.doit())
    if given:
        yield (
            "substituting the conditions",
            lambda: any(_vanishes(reduced) for reduced in _under_conditions(lhs - rhs, given)),
        )
        yield "division by the given equations", lambda: _in_ideal(lhs - rhs, given)
    gap = lhs - rhs
    lazy = gap.has(sp.Sum, sp.Product, sp.Integral, sp.Limit, sp.Derivative, sp.Subs, sp.UnevaluatedExpr)
    if lazy:
        if gap.has(sp.Derivative, sp.Subs):
            yield "differentiating", lambda: _vanishes(_differentiated(gap))
        yield "comparing term by term", lambda: _termwise(gap)
        if gap.has(sp.Integral):
            yield "completing the square", lambda: _by_squares(gap)
        yield "induction over the upper limit", lambda: _induction(gap)
        yield "evaluating sums, integrals and limits", lambda: _vanishes(gap.doit())
        yield "evaluating sums, integrals and limits", lambda: _vanishes(_integrated(gap))
        yield "differentiating both sides", lambda: _same_derivative(gap)
        yield "simplifying", lambda: sp.simplify(gap) == 0
        if given:
            yield "evaluating under the conditions", lambda: _vanishes(_without_excluded(gap.doit(), given))
        return
    for words, transform in _SIMPLIFICATIONS:
        yield words, lambda transform=transform: transform(gap) == 0
    if lhs.is_extended_real and rhs.is_extended_real:
        if gap.has(sp.log, sp.asinh, sp.acosh, sp.atanh):
            yield "exponentials of both sides", lambda: _vanishes(_exponential(lhs) - _exponential(rhs))
        if lhs.is_nonnegative and rhs.is_nonnegative:
            yield "squares of both sides", lambda: _vanishes(lhs**2 - rhs**2)
    if gap.has(sp.Abs, sp.Max, sp.Min, sp.Piecewise, sp.sign, sp.Heaviside):
        yield "distinguishing cases", lambda: _by_cases(gap, given)
    yield "their quotient is one", lambda: rhs != 0 and sp.simplify(lhs / rhs) == 1
    yield "differentiating both sides", lambda: _same_derivative(gap)


def _exp_form(gap: sp.Expr) -> sp.Expr:
    form = sp.expand(gap.rewrite(sp.exp), complex=False)
    return sp.cancel(sp.together(sp.powsimp(form))).expand()


def _powers(gap: sp.Expr) -> sp.Expr:
    return sp.powsimp(sp.expand(sp.powdenest(sp.expand_log(gap))))


def _logs(gap: sp.Expr) -> sp.Expr:
    return sp.simplify(sp.logcombine(sp.expand_log(sp.factor(gap), factor=True)))


def _complex_parts(gap: sp.Expr) -> sp.Expr:
    return sp.trigsimp(sp.expand(sp.expand_complex(gap)))


_SIMPLIFICATIONS: list[tuple[str, Callable[[sp.Expr], sp.Expr]]] = [
    ("expanding", sp.expand),
    ("a common denominator", lambda gap: sp.cancel(sp.together(gap))),
    ("rules for powers and logarithms", _powers),
    ("writing it in exponentials", _exp_form),
    ("clearing radicals", lambda gap: sp.expand(sp.radsimp(sp.together(gap)))),
    ("trigonometric identities", lambda gap: sp.trigsimp(sp.expand(sp.expand_trig(gap)))),
    ("rules for factorials", lambda gap: sp.gammasimp(gap.rewrite(sp.gamma))),
    ("simplifying", sp.simplify),
    ("combining logarithms", _logs),
    ("real and imaginary parts", _complex_parts),
    ("known values of special functions", lambda gap: sp.simplify(sp.hyperexpand(sp.expand_func(gap)))),
    ("clearing radicals", lambda gap: sp.simplify(sp.sqrtdenest(sp.expand(gap)))),
    ("folding the pieces", lambda gap: sp.simplify(sp.piecewise_fold(gap))),
]


def _vanishes(gap: Any) -> bool:
    """Whether one of the simplifications turns the expression into zero."""
    gap = sp.sympify(gap)
    if gap == 0:
        return True
    if gap.has(sp.nan, sp.zoo, sp.oo, -sp.oo):
        return False
    if isinstance(gap, sp.Piecewise) or gap.has(sp.Piecewise):
        gap = sp.piecewise_fold(gap)
        if isinstance(gap, sp.Piecewise):
            return all(_vanishes(piece) for piece, condition in gap.args if condition != sp.false)
    quick = _SIMPLIFICATIONS[:8]
    return any(transform(gap) == 0 for _, transform in quick)


def _exponential(side: sp.Expr) -> sp.Expr:
    return sp.powsimp(sp.expand(sp.exp(sp.expand_log(side.rewrite(sp.log)))))


def _differentiated(gap: sp.Expr) -> sp.Expr:
    return gap.replace(lambda e: isinstance(e, (sp.Derivative, sp.Subs)), lambda e: e.doit())


def _integrated(gap: sp.Expr) -> sp.Expr:
    def evaluated(integral: sp.Integral) -> sp.Expr:
        function = sp.expand(integral.function.rewrite(sp.exp))
        return sp.Integral(function, *integral.limits).doit(conds="piecewise")

    return gap.replace(lambda e: isinstance(e, sp.Integral), evaluated).doit()


def _by_squares(gap: sp.Expr) -> bool:
    """Integrals of a polynomial times exp(-a x^2 + b x + c) over the real line, with x shifted by b / (2 a)."""

    def evaluated(integral: sp.Integral) -> sp.Expr:
        x, *ends = integral.limits[0]
        parts = sp.Mul.make_args(sp.powsimp(sp.factor_terms(integral.function)))
        exponent = sp.expand(sum(part.args[0] for part in parts if isinstance(part, sp.exp)))
        factor = sp.Mul(*(part for part in parts if not isinstance(part, sp.exp)))
        if len(integral.limits) > 1 or ends != [-sp.oo, sp.oo] or not factor.is_polynomial(x):
            return integral
        if not exponent.is_polynomial(x) or sp.degree(exponent, x) != 2:
            return integral
        curvature, slope, constant = (sp.simplify(part) for part in sp.Poly(exponent, x).all_coeffs())
        if not (-curvature).is_positive:
            return integral
        shift = -slope / (2 * curvature)
        moments = sp.Poly(sp.expand(factor.subs(x, x + shift)), x).terms()
        even = ((power // 2, value) for (power,), value in moments if power % 2 == 0)
        rate = -curvature  # the moments of exp(-rate x^2)
        total = sum(value * sp.gamma(k + sp.S.Half) / rate ** (k + sp.S.Half) for k, value in even)
        return total * sp.exp(constant - slope**2 / (4 * curvature))

    form = gap.replace(lambda e: isinstance(e, sp.Integral), evaluated)
    return not form.has(sp.Integral) and _vanishes(form)


def _without_excluded(gap: sp.Expr, given: Sequence[Any]) -> sp.Expr:
    """Drop the pieces whose condition a given inequality `a != b` excludes."""
    excluded = [c.lhs - c.rhs for condition in given for c in sp.And.make_args(condition) if isinstance(c, sp.Ne)]

    def impossible(condition: Any) -> bool:
        ratios = [sp.simplify((condition.lhs - condition.rhs) / gap) for gap in excluded]
        return any(ratio.is_nonzero for ratio in ratios)

    gap = gap.replace(lambda e: isinstance(e, sp.Eq), lambda e: sp.false if impossible(e) else e)
    return gap.replace(lambda e: isinstance(e, sp.Ne), lambda e: sp.true if impossible(e) else e)


def _termwise(gap: sp.Expr) -> bool:
    """Sums (or integrals) over the same range, whose terms cancel."""
    terms = sp.Add.make_args(sp.expand(gap, deep=False))
    groups: dict[Any, list[Any]] = {}
    for term in terms:
        factor, lazy = sp.Integer(1), None
        for part in sp.Mul.make_args(term):
            if isinstance(part, (sp.Sum, sp.Integral)) and lazy is None:
                lazy = part
            else:
                factor *= part
        if lazy is None:
            return False
        variables = [limit[0] for limit in lazy.limits]
        if any(factor.has(variable) for variable in variables):
            return False
        key = (lazy.func, tuple(limit[1:] for limit in lazy.limits))
        groups.setdefault(key, []).append((variables, factor, lazy.function))
    for members in groups.values():
        first = members[0][0]
        total = sum(factor * function.xreplace(dict(zip(names, first))) for names, factor, function in members)
        if not _vanishes(total):
            return False
    return True


def _induction(gap: sp.Expr) -> bool:
    """The statement holds at the smallest value of the upper limit and follows from each value for the next."""
    for total, n, last in _running_sums(gap):
        known = sp.Dummy("S")
        form = gap.xreplace({total: known})
        hypothesis = sp.solve(form, known)
        if len(hypothesis) != 1:
            continue
        base = _smallest(n)
        combined = known + last if isinstance(total, sp.Sum) else known * last
        step = form.subs(n, n + 1).xreplace({known: combined}).xreplace({known: hypothesis[0]})
        if base is not None and _vanishes(gap.subs(n, base).doit()) and _vanishes(step):
            return True
    return False


def _running_sums(gap: sp.Expr) -> Iterator[tuple[sp.Expr, sp.Symbol, sp.Expr]]:
    """Sums and products that grow by one known term when an integer in their upper limit grows by one."""
    for total in sorted(gap.atoms(sp.Sum, sp.Product), key=sp.default_sort_key):
        if len(total.limits) != 1:
            continue
        index, lower, upper = total.limits[0]
        for n in sorted(upper.free_symbols, key=str):
            if not n.is_integer or (upper - n).has(n) or lower.has(n) or total.function.has(n):
                continue
            if any(other != total and other.has(n) for other in gap.atoms(sp.Sum, sp.Product, sp.Integral)):
                continue
            yield total, n, total.function.xreplace({index: upper.subs(n, n + 1)})


def _smallest(n: sp.Symbol) -> sp.Integer | None:
    if n.is_positive:
        return sp.Integer(1)
    if n.is_nonnegative:
        return sp.Integer(0)
    return None


def _same_derivative(gap: sp.Expr) -> bool:
    """The derivative of the difference is zero on an interval, and the difference is zero at one of its points."""
    for symbol in sorted(gap.free_symbols, key=str):
        if not (symbol.is_extended_real and symbol.is_integer is not True):
            continue
        start = next((p for p in (0, 1) if symbol.is_positive is not True or p), 1)
        if symbol.is_positive is None and symbol.is_nonzero:
            continue
        slope = sp.diff(gap if gap.has(sp.Integral) else gap.doit(), symbol)
        if not _vanishes(slope):
            continue
        at_start = gap.subs(symbol, start)
        if _vanishes(at_start.doit()):
            return True
    return False


def _by_cases(gap: sp.Expr, given: Sequence[Any]) -> bool:
    form, rest = shifted_by_conditions(gap, given)
    if rest is None or any(_vanishes(reduced) for reduced in (form, *_under_conditions(gap, given))):
        return True
    branches = cases(form, rest)
    return branches is not None and all(_by_cases(piece, conditions) for piece, conditions in branches)


def _under_conditions(gap: sp.Expr, given: Sequence[Any]) -> Iterator[sp.Expr]:
    """The expression with the given equations solved and substituted, and the orderings built in."""
    equations = [e for c in given for e in sp.And.make_args(c) if isinstance(e, sp.Eq)]
    gap = gap.doit()
    for equation in equations:
        symbol, values = solve_for_one(equation.lhs - equation.rhs, set())
        slope = sp.diff(equation.lhs - equation.rhs, symbol) if symbol is not None else sp.Integer(0)
        if len(values) == 1 and slope.is_nonzero:
            gap = gap.subs(symbol, values[0])
            equations = [e.subs(symbol, values[0]) for e in equations]
    yield gap
    yield shifted_by_conditions(gap, given)[0]


def _in_ideal(gap: sp.Expr, given: Sequence[Any]) -> bool:
    """The numerator is a combination of the given polynomial equations."""
    equations = [
        sp.numer(sp.together(e.lhs - e.rhs)) for c in given for e in sp.And.make_args(c) if isinstance(e, sp.Eq)
    ]
    if not equations:
        return False
    numerator = sp.numer(sp.together(gap))
    symbols = sorted(set().union(*(p.free_symbols for p in (*equations, numerator))), key=str)
    if not all(p.is_polynomial(*symbols) for p in (*equations, numerator)):
        return False
    basis = sp.groebner(equations, *symbols, order="grevlex")
    return sp.reduced(numerator, list(basis.exprs), *symbols, order="grevlex")[1] == 0


# --- orders -----------------------------------------------------------------------------------------------------------


def _order_routes(large: sp.Expr, small: sp.Expr, strict: bool, given: Sequence[Any]) -> Iterator[Route]:
    gap = large - small
    yield "the sign of the difference", lambda: prove_sign(gap, strict, given)
    if gap.has(sp.Sum, sp.Product, sp.Integral, sp.Limit, sp.Derivative):
        yield "induction over the upper limit", lambda: _order_by_induction(gap, strict, given)
        yield "the sign of the evaluated difference", lambda: prove_sign(gap.doit(), strict, given)
    if large.has(sp.log) or small.has(sp.log):
        yield (
            "exponentials of both sides",
            lambda: _real(large, small) and prove_sign(_exponential(large) - _exponential(small), strict, given),
        )


def _order_by_induction(gap: sp.Expr, strict: bool, given: Sequence[Any]) -> bool:
    """The difference is positive at the smallest upper limit and does not fall from each value to the next."""
    for total, n, last in _running_sums(gap):
        known = sp.Dummy("S", real=True)
        form = gap.xreplace({total: known})
        growth = sp.expand(form.subs(n, n + 1).xreplace({known: known + last}) - form)
        base = _smallest(n)
        if base is None or growth.has(known) or not isinstance(total, sp.Sum):
            continue
        if prove_sign(gap.subs(n, base).doit(), strict, given) and prove_sign(growth, False, given):
            return True
    return False


def _real(*sides: sp.Expr) -> bool:
    return all(side.is_extended_real for side in sides)


# --- matrices ---------------------------------------------------------------------------------------------------------


def _matrix_routes(lhs: Any, rhs: Any, given: Sequence[Any]) -> Iterator[Route]:
    if lhs.has(sp.MatrixSymbol) or rhs.has(sp.MatrixSymbol):
        yield "matrix algebra", lambda: MatrixAlgebra(given).is_zero(lhs - rhs)
        yield "matrix algebra", lambda: _matrix_expression(lhs - rhs, given)
    if all(sp.sympify(size).is_Integer for size in lhs.shape):

        def entries() -> list[tuple[Any, Any]]:
            pair = [_entries_as_symbols(_as_explicit(side)) for side in (lhs, rhs)]
            return list(zip(*pair))

        yield "entry by entry, expanding", lambda: all(sp.expand(a - b) == 0 for a, b in entries())
        yield (
            "entry by entry, a common denominator",
            lambda: all(sp.cancel(sp.together(a - b)) == 0 for a, b in entries()),
        )
        yield "entry by entry", lambda: all(_entry(a, b, given) for a, b in entries())


def _entry(left: sp.Expr, right: sp.Expr, given: Sequence[Any]) -> bool:
    return left == right or any(attempt() for _, attempt in _equality_routes(left, right, given))


def _as_explicit(matrix: Any) -> sp.ImmutableMatrix:
    matrix = sp.sympify(matrix).doit()
    return sp.ImmutableMatrix(matrix.as_explicit() if hasattr(matrix, "as_explicit") else matrix)


def _entries_as_symbols(expression: Any) -> Any:
    elements = sorted(expression.atoms(sp.matrices.expressions.matexpr.MatrixElement), key=str)
    return expression.xreplace({element: sp.Dummy(str(element)) for element in elements})


def _matrix_expression(gap: Any, given: Sequence[Any]) -> bool:
    facts = sp.And(*[fact for fact in given if isinstance(fact, sp.AppliedPredicate)])
    forms = (gap.doit(), gap.expand().doit())
    return any(getattr(sp.refine(form, facts), "is_ZeroMatrix", False) for form in forms)
