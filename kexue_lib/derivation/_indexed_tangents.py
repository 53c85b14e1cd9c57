"""Inequalities of convexity: Jensen's, the arithmetic and geometric mean, Gibbs' and their kin."""

from collections.abc import Callable, Iterator

import sympy as sp

from kexue_lib.derivation._indexed import merged_sums, substituted
from kexue_lib.derivation._indexed_facts import Facts, is_nonnegative, is_positive, is_real
from kexue_lib.derivation._indexed_forms import form
from kexue_lib.derivation._indexed_rules import opaque

_KINKED = (sp.Abs, sp.sign, sp.Max, sp.Min, sp.Piecewise, sp.Heaviside, sp.floor, sp.ceiling)
Sign = Callable[[sp.Expr, Facts], bool]
Equation = tuple[sp.Expr, sp.Expr]  # terms e(k) and a number c with (e(k) summed) + c = 0


def above_its_tangent(value: sp.Expr, facts: Facts, nonnegative: Sign) -> bool:
    """Whether a sum of convex functions of its entries is proved to lie above its tangent at one point, which is zero.

    Sums inside of functions get names mu. To the value, a sum over k of f(x[k]) and a number, multiples of the given
    equations and of those that define the mu are added, so that the number is zero and f(x) has a double zero at some
    x0. With f'' >= 0 on an interval that holds x0 and all entries, no term is negative.
    """
    named, definitions = _named_sums(_exponentials_of_sums(value, facts), facts)
    merged = merged_sums(substituted(named, facts))
    if merged is None or len(merged[1]) != 1:
        return False
    rest, ((limit, body),) = merged
    if not facts.at_least_zero(limit[2]):
        return False
    equations = [(sp.Integer(1), -limit[2]), *_equations(definitions, limit, facts)]
    plain, back = opaque(sp.Tuple(body, *(terms for terms, _ in equations)))
    factors = [sp.Dummy(f"lambda{i}") for i in range(len(equations))]
    lagrangian = plain[0] + sp.Add(*(factor * terms for factor, terms in zip(factors, plain[1:])))
    number = rest + sp.Add(*(factor * constant for factor, (_, constant) in zip(factors, equations)))
    entries = sorted(
        (mark for mark in plain.free_symbols - body.free_symbols if back(mark).has(limit[0])), key=sp.default_sort_key
    )
    names = [name for name, _ in definitions]
    for entry in entries:
        others = [other for other in entries if other != entry]
        inner = _without_entry(back(entry), facts).with_range(*limit)
        for point in _points(entry, others, names, limit[2]):
            if _touches(lagrangian, number, entry, others, point, factors, inner, nonnegative, back):
                return True
    return False


def _exponentials_of_sums(value: sp.Expr, facts: Facts) -> sp.Expr:
    """Real powers of products of positive terms as exponentials of sums of logarithms."""

    def is_power(part: sp.Basic) -> bool:
        base, exponent = part.as_base_exp() if isinstance(part, sp.Expr) else (part, sp.Integer(1))
        return isinstance(base, sp.Product) and is_real(exponent) and is_positive(base.function, facts)

    def exponential(part: sp.Expr) -> sp.Expr:
        base, exponent = part.as_base_exp()
        return sp.exp(exponent * sp.Sum(sp.log(base.function), *base.limits))

    powers = value.replace(lambda part: isinstance(part, sp.Pow) and is_power(part), exponential)
    products = powers.replace(is_power, exponential)
    return value if products == value else form(products, facts)


def _named_sums(value: sp.Expr, facts: Facts) -> tuple[sp.Expr, list[tuple[sp.Symbol, sp.Expr]]]:
    """Sums inside of functions under names, positive where the statement takes their logarithm."""
    inside = {total for holder in value.atoms(sp.Pow, sp.Function) for total in holder.atoms(sp.Sum)}
    outermost = [total for total in inside if not any(other != total and other.has(total) for other in inside)]
    definitions: list[tuple[sp.Symbol, sp.Expr]] = []
    divided = {form(part, facts) for part in facts.nonzero}
    for count, total in enumerate(sorted(outermost, key=sp.default_sort_key)):
        positive = is_positive(total, facts) or (is_nonnegative(total, facts) and total in divided)
        positive = positive or _is_positive_mean(total, facts)
        if not is_real(total):
            return value, []
        name = sp.Dummy(f"mu{count}", real=True, **({"positive": True} if positive else {}))
        definitions.append((name, total))
    named = value.xreplace({total: name for name, total in definitions})
    return named, definitions


def _is_positive_mean(total: sp.Expr, facts: Facts) -> bool:
    """The sum of w(k) f(k) is positive for f > 0, w >= 0 and weights w(k) with a given positive sum."""
    own = merged_sums(total)
    if own is None or len(own[1]) != 1 or own[0] != 0:
        return False
    ((limit, body),) = own[1]
    inner = facts.with_range(*limit)
    for weights, constant in _equations([], limit, facts):
        for sign in (1, -1):
            given_sum = is_positive(-sign * constant, facts) and is_nonnegative(sign * weights, inner)
            if given_sum and is_positive(sp.cancel(body / (sign * weights)), inner):
                return True
    return False


def _equations(definitions: list[tuple[sp.Symbol, sp.Expr]], limit: sp.Tuple, facts: Facts) -> Iterator[Equation]:
    gaps = [total - name for name, total in definitions]
    gaps += [form(equation.lhs - equation.rhs, facts) for equation in facts.equations]
    names = {total: name for name, total in definitions}
    for place, gap in enumerate(gaps):
        merged = merged_sums(gap if place < len(definitions) else gap.xreplace(names))
        if merged is not None and [own for own, _ in merged[1]] == [limit]:
            yield merged[1][0][1], merged[0]


def _without_entry(entry: sp.Indexed, facts: Facts) -> Facts:
    """The facts that do not speak of the entry: f'' >= 0 has to hold on its interval, not under conditions on it."""
    if not isinstance(entry, sp.Indexed):
        return Facts(())
    given = [condition for condition in facts.given if not condition.has(entry.base)]
    return Facts(given, facts.prove, [value for value in facts.nonzero if not value.has(entry.base)])


def _points(entry: sp.Symbol, others: list[sp.Symbol], names: list[sp.Symbol], size: sp.Expr) -> Iterator[sp.Expr]:
    """Where the entries may all lie when the inequality is an equality, inside of the entry's own interval."""
    candidates = [*others, *(f for name in names for f in (name, sp.exp(name), name / size, sp.exp(name / size)))]
    candidates += [sp.Integer(1), sp.Integer(0), 1 / size]
    for point in candidates:
        if point.is_real and (point.is_positive or not entry.is_positive):
            yield point


def _touches(
    lagrangian: sp.Expr,
    number: sp.Expr,
    entry: sp.Symbol,
    others: list[sp.Symbol],
    point: sp.Expr,
    factors: list[sp.Symbol],
    facts: Facts,
    nonnegative: Sign,
    back: Callable[[sp.Expr], sp.Expr],
) -> bool:
    if not (entry.is_positive or (entry.is_real and entry.is_nonnegative is None and entry.is_nonpositive is None)):
        return False
    slope = sp.diff(lagrangian, entry)
    zeros = [part.subs(entry, point) for part in (lagrangian, slope)]
    conditions = [c for zero in zeros for c in _coefficients(zero, others)] + [number]
    if any(condition.has(sp.zoo, sp.nan, sp.oo, *others) for condition in conditions):
        return False
    solutions = sp.solve(conditions, factors, dict=True)
    if len(solutions) != 1:
        return False
    solved = {factor: solutions[0].get(factor, sp.Integer(0)) for factor in factors}
    solved = {factor: value.subs(dict.fromkeys(factors, 0)) for factor, value in solved.items()}
    function = sp.expand(lagrangian.subs(solved))
    checks = [number.subs(solved), *(sp.diff(function, entry, order).subs(entry, point) for order in (0, 1))]
    if function.has(*_KINKED) or not all(sp.simplify(sp.expand(check)) == 0 for check in checks):
        return False
    if not _smooth(function, entry):
        return False
    return nonnegative(back(sp.simplify(sp.diff(function, entry, 2))), facts)


def _coefficients(zero: sp.Expr, others: list[sp.Symbol]) -> list[sp.Expr]:
    """The factors of the different expressions in the other entries: all of them have to vanish."""
    found: dict[sp.Expr, sp.Expr] = {}
    for term in sp.Add.make_args(sp.expand(zero)):
        factor, part = term.as_independent(*others, as_Add=False) if others else (term, sp.Integer(1))
        found[part] = found.get(part, sp.Integer(0)) + factor
    return [factor for factor in found.values() if factor != 0]


def _smooth(function: sp.Expr, entry: sp.Symbol) -> bool:
    """Whether the function is real and without poles on the whole interval of the entry, by its assumptions."""
    if not function.is_real:
        return False
    for part in function.atoms(sp.Pow):
        if part.has(entry) and not (part.exp.is_Integer and part.exp > 0) and not part.base.is_positive:
            return False
    return all(part.args[0].is_positive for part in function.atoms(sp.log) if part.has(entry))
