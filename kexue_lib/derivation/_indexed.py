"""Equalities between sums and products of symbolic length, proved for every size.

Part of :mod:`kexue_lib.derivation`, which is the place to call. Conditions on every index of a range are written
``ForEvery(x[k] <= M, (k, 1, n))``.
"""

from collections.abc import Iterator, Sequence

import sympy as sp
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean

from kexue_lib.derivation._indexed_facts import Facts, ForEvery, Prover, denominators
from kexue_lib.derivation._indexed_forms import form, sum_over
from kexue_lib.derivation._indexed_rules import entry_derivative, geometric_edge, geometric_ratio, opaque

__all__ = ["ForEvery", "entry_derivative", "normal_form", "vanishes"]

_TRIGONOMETRIC = (sp.sin, sp.cos, sp.tan, sp.sinh, sp.cosh, sp.tanh)
_DEEPEST_INDUCTION = 2
_LARGEST_STEP = 6


def normal_form(expression: sp.Expr, given: Sequence[Boolean] = ()) -> sp.Expr:
    """The one normal form of an expression with sums, products and entries, under the conditions.

    Equal normal forms are equal wherever every subexpression is defined; the contrary need not hold.
    """
    return sp.expand(form(sp.sympify(expression), Facts(given)), power_exp=False)


def vanishes(gap: sp.Expr, given: Sequence[Boolean] = (), prove: Prover | None = None) -> bool:
    """Whether gap = 0 is proved for every size, entry and symbol that the assumptions and `given` allow.

    It is taken for granted that every subexpression of the gap is defined there: its denominators are not zero.
    `prove` decides statements without sums.
    """
    gap = sp.sympify(gap)
    if not isinstance(gap, sp.Expr) or gap.is_commutative is False or gap.has(sp.zoo, sp.nan):
        return False
    gap, given = with_larger_sizes(gap, given)
    return is_zero(gap, known(gap, given, prove))


def known(gap: sp.Expr, given: Sequence[Boolean], prove: Prover | None) -> Facts:
    """The facts of a statement about the gap: its conditions, and that what it divides by is not zero."""
    return Facts(given, prove, sorted(set(denominators(gap)), key=sp.default_sort_key))


def is_zero(gap: sp.Expr, facts: Facts, depth: int = 0) -> bool:
    """Whether the gap is proved to be zero: by its normal form, in exponentials, by closed sums, or by induction."""
    forms = [form(gap, facts)]
    if form_is_zero(forms[0], facts):
        return True
    if gap.has(*_TRIGONOMETRIC):
        forms.append(form(_in_exponentials(gap), facts))
        if form_is_zero(forms[1], facts):
            return True
    if any(_vanishes_termwise(value, facts) or _vanishes_by_geometric_sums(value, facts) for value in forms):
        return True
    return depth < _DEEPEST_INDUCTION and any(
        _by_induction(gap, n, base, facts, depth) for n, base in induction_sizes(gap, facts)
    )


def _in_exponentials(gap: sp.Expr) -> sp.Expr:
    return gap.replace(lambda e: isinstance(e, _TRIGONOMETRIC), lambda e: e.rewrite(sp.exp))


def form_is_zero(value: sp.Expr, facts: Facts) -> bool:
    """Whether an expression in normal form is zero, with sums and entries as unknowns, under the given equations."""
    if value == 0:
        return True
    value = substituted(value, facts)
    plain, back = opaque(value)
    numerator = _numerator(plain)
    if numerator == 0:
        return True
    again = form(back(numerator), facts)
    plain, back = opaque(substituted(again, facts))
    numerator = _numerator(plain)
    if numerator == 0:
        return True
    if numerator.is_number:
        return bool(sp.simplify(numerator) == 0)
    return facts.decides(sp.Eq(plain, 0, evaluate=False))


def _numerator(value: sp.Expr) -> sp.Expr:
    """The numerator over a common denominator, with powers and exponentials of sums taken apart."""
    terms = sp.expand(value)
    numerator = sp.expand(sp.numer(sp.together(terms)))
    return numerator if numerator == 0 else sp.expand(sp.powsimp(numerator, deep=True))


# --- equations among the conditions -----------------------------------------------------------------------------------


def substituted(value: sp.Expr, facts: Facts) -> sp.Expr:
    """The value with each given equation solved for a symbol, or for a sum with a nonzero number before it."""
    equations = [form(equation.lhs - equation.rhs, facts) for equation in facts.equations]
    for position, equation in enumerate(equations):
        target, solution = _solved(equation)
        if target is None:
            continue
        for later in range(position + 1, len(equations)):
            equations[later] = form(equations[later].xreplace({target: solution}), facts)
        if value.has(target):
            replaced = value.xreplace({target: solution})
            value = form(replaced, facts) if not replaced.has(sp.zoo, sp.nan) else value
    return value


def _solved(equation: sp.Expr) -> tuple[sp.Expr | None, sp.Expr]:
    """The last of the unknowns that the equation determines; bound indices stay out of it."""
    terms = sp.Add.make_args(equation)
    unknowns = {part for term in terms for part in sp.Mul.make_args(term) if _is_unknown(part)}
    for unknown in sorted(unknowns, key=lambda u: (isinstance(u, sp.Symbol), sp.default_sort_key(u)), reverse=True):
        slope = sp.expand(equation).coeff(unknown, 1)
        rest = sp.expand(equation - slope * unknown)
        if slope.is_number and slope.is_nonzero and not rest.has(unknown):
            return unknown, sp.expand(-rest / slope)
    return None, sp.Integer(0)


def _is_unknown(part: sp.Expr) -> bool:
    if isinstance(part, sp.Symbol):
        return part.is_integer is not True
    return isinstance(part, (sp.Sum, sp.Product, sp.Indexed, sp.core.function.AppliedUndef))


# --- sums over one range ----------------------------------------------------------------------------------------------


def _vanishes_termwise(value: sp.Expr, facts: Facts) -> bool:
    """Sums over one range as one sum, whose terms are zero: over denominators that no single term shows."""
    merged = merged_sums(substituted(value, facts))
    if merged is None:
        return False
    rest, groups = merged
    if not groups or not form_is_zero(rest, facts):
        return False
    return all(
        form_is_zero(form(body, inner), inner)
        for limit, body in groups
        for inner in (facts.with_range(*limit),)
        if body != 0
    )


def merged_sums(value: sp.Expr) -> tuple[sp.Expr, list[tuple[sp.Tuple, sp.Expr]]] | None:
    """The part without sums, and for each range the whole body; None where a term has more than a single sum."""
    rest: sp.Expr = sp.Integer(0)
    bodies: dict[sp.Expr, sp.Expr] = {}
    for term in sp.Add.make_args(value):
        factors = sp.Mul.make_args(term)
        sums = [part for part in factors if isinstance(part, sp.Sum)]
        if not sums:
            rest += term
            continue
        if len(sums) > 1 or len(sums[0].limits) > 1 or len(sums[0].limits[0]) != 3 or sums[0].limits[0][1] != 1:
            return None
        k, _, high = sums[0].limits[0]
        index = sp.Dummy("k", dummy_index=1, integer=True, positive=k.is_positive)
        factor = sp.Mul(*(part for part in factors if part != sums[0]))
        key = (index, high)
        bodies[key] = bodies.get(key, sp.Integer(0)) + factor * sums[0].function.xreplace({k: index})
    ordered = sorted(bodies.items(), key=lambda item: sp.default_sort_key(item[0][1]))
    return rest, [(sp.Tuple(index, 1, high), body) for (index, high), body in ordered]


def _vanishes_by_geometric_sums(value: sp.Expr, facts: Facts) -> bool:
    """Sums S of k^p r^k whose factors are divisible by r - 1: (r - 1) S is known for every r, also for r = 1."""
    value = sp.expand(substituted(value, facts))
    seen: set[sp.Expr] = set()
    while True:
        found = [(total, *parts) for total in value.atoms(sp.Sum) if (parts := _geometric_parts(total)) is not None]
        if not found:
            return bool(seen) and form_is_zero(form(value, facts), facts)
        total, power, ratio, high = min(found, key=lambda item: (-item[1], sp.default_sort_key(item[0])))
        factor = value.coeff(total, 1)
        rest = sp.expand(value - factor * total)
        quotient = None if rest.has(total) or total in seen else _divided(factor, ratio - 1)
        if quotient is None:
            return False
        seen.add(total)
        k, low, _ = total.limits[0]
        lower = [sum_over(k**q * ratio**k, k, low, high, facts.with_range(k, low, high)) for q in range(power)]
        lower = [sp.binomial(power, q) * part for q, part in enumerate(lower)]
        value = sp.expand(rest + quotient * (geometric_edge(power, ratio, high) - ratio * sp.Add(*lower)))


def _geometric_parts(total: sp.Sum) -> tuple[int, sp.Expr, sp.Expr] | None:
    if len(total.limits) != 1 or len(total.limits[0]) != 3 or total.limits[0][1] != 1:
        return None
    k, _, high = total.limits[0]
    powers = total.function.as_powers_dict()
    power = powers.pop(k, sp.Integer(0))
    ratio = geometric_ratio(sp.Mul(*(base**exponent for base, exponent in powers.items())), k)
    if ratio is None or not (power.is_Integer and power >= 0):
        return None
    return int(power), ratio, high


def _divided(factor: sp.Expr, divisor: sp.Expr) -> sp.Expr | None:
    """factor / divisor where it is defined also at the zeros of the divisor."""
    exponentials = sorted((factor * divisor).atoms(sp.exp), key=sp.default_sort_key)
    unit = sp.Dummy("E")
    rates = [part.exp for part in exponentials]
    if rates:
        ratios = [sp.cancel(rate / rates[0]) for rate in rates]
        if not all(ratio.is_Rational for ratio in ratios):
            return None
        step = sp.Rational(1, sp.ilcm(1, 1, *(ratio.q for ratio in ratios)))
        marks = {part: unit ** int(ratio / step) for part, ratio in zip(exponentials, ratios)}
        factor, divisor = (sp.together(side.xreplace(marks)) for side in (factor, divisor))
    quotient = sp.cancel(factor / divisor)
    remaining = sp.denom(sp.together(quotient))
    if not all(part.as_base_exp()[0] in (unit,) or part.is_nonzero for part in sp.Mul.make_args(remaining)):
        return None
    return quotient.xreplace({unit: sp.exp(rates[0] * step)}) if rates else quotient


# --- induction over a size --------------------------------------------------------------------------------------------


def induction_sizes(gap: sp.Expr, facts: Facts) -> Iterator[tuple[sp.Symbol, int]]:
    """The sizes to argue by, each with the smallest value that assumptions and conditions leave."""
    ends = {
        symbol
        for holder in gap.atoms(sp.Sum, sp.Product)
        for limit in holder.limits
        for end in limit[1:]
        for symbol in end.free_symbols & gap.free_symbols
    }
    for n in sorted(ends, key=sp.default_sort_key):
        special = (n.is_even, n.is_odd, n.is_prime, n.is_composite)
        base = facts.smallest(n) if n.is_integer and isinstance(n, sp.Symbol) else None
        if base is not None and all(known is None for known in special):
            yield n, base


def without(n: sp.Symbol, facts: Facts, base: int, prove: Prover | None) -> Facts:
    """The conditions that do not speak of n, and that it is at least its smallest value.

    A condition on n need not hold for n if it holds for n + 1, so an induction may not use it.
    """
    free = [condition for condition in facts.given if not condition.has(n)]
    nonzero = [value for value in facts.nonzero if not value.has(n)]
    bound = sp.Ge(n, base)
    return Facts([*free, bound] if isinstance(bound, Relational) else free, prove, nonzero)


def _by_induction(gap: sp.Expr, n: sp.Symbol, base: int, facts: Facts, depth: int) -> bool:
    """gap(base) = 0, and gap(n + 1) = 0 follows from gap(n) = 0 for every n >= base, solved for one of its sums."""
    inner = without(n, facts, base, facts.prove)
    start = gap.xreplace({n: sp.Integer(base)})
    if start.has(sp.zoo, sp.nan) or not is_zero(start, inner, depth + 1):
        return False
    hypothesis, step = form(gap, inner), form(gap.xreplace({n: n + 1}), inner)
    numerator = sp.expand(sp.numer(sp.together(hypothesis)))
    running = [
        part for part in numerator.atoms(sp.Sum, sp.Product) if any(end.has(n) for l in part.limits for end in l[1:])
    ]
    for total in sorted(running, key=sp.default_sort_key):
        slope = numerator.coeff(total, 1)
        rest = sp.expand(numerator - slope * total)
        if rest.has(total) or slope.has(total) or not inner.is_nonzero(slope):
            continue
        if form_is_zero(form(step.xreplace({total: -rest / slope}), inner), inner):
            return True
    return False


def with_larger_sizes(gap: sp.Expr, given: Sequence[Boolean]) -> tuple[sp.Expr, list[Boolean]]:
    """Sizes n of products up to n - c as m + c: the products to n and n - 1 then meet without a division."""
    given = list(given)
    for product in sorted(gap.atoms(sp.Product), key=sp.default_sort_key):
        for limit in product.limits:
            size = sp.expand(limit[2] - limit[1] + 1) if len(limit) == 3 else sp.Integer(0)
            edge, n = size.as_coeff_Add()
            if not (edge.is_Integer and -_LARGEST_STEP <= edge < 0 and n.is_Symbol and n.is_integer and gap.has(n)):
                continue
            if not Facts(given).at_least_zero(size) or n.is_even is not None or n.is_prime is not None:
                continue
            larger = {n: sp.Dummy(n.name, integer=True, nonnegative=True) - edge}
            gap, given = gap.xreplace(larger), [condition.xreplace(larger) for condition in given]
    return gap, given
