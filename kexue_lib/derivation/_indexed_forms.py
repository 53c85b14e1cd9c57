"""The normal form of sums and products of symbolic length.

Part of :mod:`kexue_lib.derivation`, which is the place to call. Bound indices get canonical names; every sum runs from
1 to a size without a constant part, over one monomial that no factor can be drawn out of. Each step is an identity for
arbitrary values of the terms in Karr's convention, so it holds for every size, unless it says which range it needs.
"""

import itertools
from typing import Any

import sympy as sp
from sympy.logic.boolalg import Boolean

from kexue_lib.derivation._indexed_facts import Facts, is_positive, is_real
from kexue_lib.derivation._indexed_rules import (
    as_delta,
    binomial_value,
    closed_form,
    delta_root,
    entry_derivative,
    factorial_value,
    merged_delta,
)
from kexue_lib.derivation._indexed_terms import (
    argument_offsets,
    bound_index,
    depth,
    first_offset,
    fresh_index,
    partial_fractions,
    renamed,
    split_power,
    with_names,
)

_LONGEST_EDGE = 30
_LARGEST_FUNCTION = 800  # operations; larger ones are not differentiated
_MOST_INDICES = 4
_LEFT_ALONE = (sp.Integral, sp.Limit, sp.Subs, sp.Lambda, sp.MatrixExpr, sp.MatrixBase, Boolean)
_UNDEFINED = (sp.zoo, sp.nan, sp.oo, -sp.oo)

Limit = tuple[sp.Symbol, sp.Expr]


def form(expression: sp.Basic, facts: Facts) -> sp.Basic:
    """The normal form of an expression under the facts; what no rule covers stays as it is."""
    if not expression.args or isinstance(expression, _LEFT_ALONE) or not getattr(expression, "is_commutative", True):
        return expression
    if expression not in facts.forms:
        facts.forms[expression] = _form(expression, facts)
    return facts.forms[expression]


def _form(expression: sp.Basic, facts: Facts) -> sp.Basic:
    if isinstance(expression, (sp.Sum, sp.Product)):
        return _over_ranges(expression, facts)
    if isinstance(expression, sp.Derivative):
        return _differentiated(expression, facts)
    if isinstance(expression, sp.Piecewise):
        pieces = as_delta(expression)
        return form(pieces, facts) if pieces != expression else expression
    if isinstance(expression, sp.Indexed):
        return expression.func(expression.base, *(sp.expand(index) for index in expression.indices))
    rebuilt = expression.func(*(form(part, facts) for part in expression.args))
    if isinstance(rebuilt, sp.Add):
        return rebuilt
    if isinstance(rebuilt, sp.KroneckerDelta):
        return _delta(rebuilt, facts)
    if isinstance(rebuilt, sp.Mul):
        return sp.Add(
            *(merged_delta(term) for term in sp.Add.make_args(sp.expand(rebuilt, deep=False, power_exp=False)))
        )
    if isinstance(rebuilt, (sp.Pow, sp.exp)):
        return split_power(rebuilt)
    if isinstance(rebuilt, sp.log):
        return _logarithm(rebuilt, facts)
    if isinstance(rebuilt, sp.binomial):
        return binomial_value(rebuilt, facts)
    if isinstance(rebuilt, sp.factorial):
        return sp.expand(factorial_value(rebuilt, facts))
    return rebuilt


def _delta(delta: sp.Expr, facts: Facts) -> sp.Expr:
    gap = sp.expand(delta.args[0] - delta.args[1])
    return sp.Integer(0) if facts.at_least_zero(gap - 1) or facts.at_least_zero(-gap - 1) else delta


def _logarithm(logarithm: sp.Expr, facts: Facts) -> sp.Expr:
    """log(a b) = log(a) + log(b) with all factors but one positive, and so for products of any length."""
    argument = sp.factor_terms(logarithm.args[0])
    parts: list[sp.Expr] = []
    rest: list[sp.Expr] = []
    for factor in sp.Mul.make_args(argument):
        base, exponent = factor.as_base_exp()
        if isinstance(factor, sp.exp) and is_real(factor.exp):
            parts.append(factor.exp)
        elif is_positive(base, facts) and is_real(exponent) and base is not sp.E:
            parts.append(exponent * _positive_logarithm(base, facts))
        else:
            rest.append(factor)
    if rest:
        parts.append(sp.log(sp.Mul(*rest)))
    return sp.expand(sp.Add(*parts))


def _positive_logarithm(base: sp.Expr, facts: Facts) -> sp.Expr:
    if isinstance(base, sp.Product) and is_positive(base.function, facts):
        return form(sp.Sum(sp.log(base.function), *base.limits), facts)
    return sp.log(base)


def _differentiated(derivative: sp.Derivative, facts: Facts) -> sp.Expr:
    slope: Any = form(derivative.expr, facts)
    if slope.has(sp.Piecewise):
        return derivative
    for variable, count in derivative.variable_count:
        if not (count.is_Integer and isinstance(variable, (sp.Symbol, sp.Indexed))):
            return derivative
        for _ in range(int(count)):
            slope = entry_derivative(slope, variable) if slope.count_ops() < _LARGEST_FUNCTION else None
            if slope is None:
                return derivative
            slope = form(slope, facts)
    return slope


# --- ranges -----------------------------------------------------------------------------------------------------------


def _over_ranges(expression: sp.Expr, facts: Facts) -> sp.Expr:
    """A sum or product with its indices replaced by fresh ones, from the outermost, then added from the innermost."""
    fresh: dict[sp.Symbol, sp.Symbol] = {}
    levels: list[tuple[sp.Symbol, sp.Expr, sp.Expr, Facts]] = []
    for limit in reversed(expression.limits):
        if len(limit) != 3:
            return renamed(expression)
        low, high = (form(sp.expand(end.xreplace(fresh)), facts) for end in limit[1:])
        if not (low.is_integer and high.is_integer) or low.has(*_UNDEFINED) or high.has(*_UNDEFINED):
            return renamed(expression)
        index = fresh_index(low, high, facts)
        levels.append((index, low, high, facts))
        facts = facts.with_range(index, low, high)
        fresh = {**fresh, limit[0]: index}
    body = form(expression.function.xreplace(fresh), facts)
    if body.has(sp.Piecewise):  # SymPy draws pieces out of a sum that is made anew, even where they depend on its index
        return expression
    for index, low, high, outer in reversed(levels):
        if isinstance(expression, sp.Sum):
            body = sum_over(body, index, low, high, outer)
        else:
            body = _product_over(body, index, low, high, outer)
    return body


# --- sums -------------------------------------------------------------------------------------------------------------


def sum_over(body: sp.Expr, k: sp.Symbol, low: sp.Expr, high: sp.Expr, facts: Facts, turns: int = 3) -> sp.Expr:
    """The normal form of the sum of a body in normal form over k = low ... high."""
    terms = sp.Add.make_args(sp.expand(body, power_exp=False))
    return sp.expand(sp.Add(*(_term_sum(term, k, low, high, facts, turns) for term in terms)), deep=False)


def _term_sum(term: sp.Expr, k: sp.Symbol, low: sp.Expr, high: sp.Expr, facts: Facts, turns: int) -> sp.Expr:
    factor, rest = term.as_independent(k, as_Add=False)
    if rest == 1:
        return sp.expand(factor * (high - low + 1))
    for part in sp.Mul.make_args(rest):
        if isinstance(part, sp.KroneckerDelta) and delta_root(part, k) is not None:
            collapsed = _delta_sum(part, sp.Mul(factor, rest / part), k, low, high, facts)
            if collapsed is not None:
                return collapsed
    fractions = partial_fractions(rest, k)
    if fractions is not None:
        return sp.expand(factor * sum_over(fractions, k, low, high, facts, turns))
    if turns:
        aligned = _aligned(rest, k, low, high, facts)
        if aligned is not None:
            return sp.expand(factor * sum_over(*aligned, facts, turns - 1))
    return sp.expand(factor * _from_one(rest, k, low, high, facts))


def _delta_sum(
    delta: sp.Expr, rest: sp.Expr, k: sp.Symbol, low: sp.Expr, high: sp.Expr, facts: Facts
) -> sp.Expr | None:
    """delta(k, i) f(k) sums to f(i) for i inside of the range, to 0 outside; else f(i) times the sum of the deltas."""
    root = delta_root(delta, k)
    if facts.is_outside(root, low, high):
        return sp.Integer(0)
    value = rest.xreplace({k: root})
    if value.has(*_UNDEFINED):
        return None
    if facts.is_inside(root, low, high):
        return form(value, facts)
    if rest.has(k):
        return sp.expand(form(value, facts) * _term_sum(delta, k, low, high, facts, 1))
    return None


def _aligned(
    term: sp.Expr, k: sp.Symbol, low: sp.Expr, high: sp.Expr, facts: Facts
) -> tuple[sp.Expr, sp.Symbol, sp.Expr, sp.Expr] | None:
    """The term with k moved, or turned around, so that its first entry is x[k]; None where it is so already."""
    offsets = list(argument_offsets(term, k, set()))
    ahead = [d for c, d in offsets if c == 1]
    behind = [d for c, d in offsets if c == -1]
    steep = [sp.floor(d.as_coeff_Add()[0] / c) for c, d in offsets if c > 1]
    moves: list[tuple[sp.Expr, sp.Expr, sp.Expr]] = []
    if ahead or (steep and not behind):
        shift = first_offset(ahead) if ahead else min(steep)
        moves.append((k - shift, low + shift, high + shift))
    if behind:
        shift = first_offset(behind)
        moves.append((shift - k, shift - high, shift - low))
    candidates = []
    for position, (image, start, end) in enumerate(moves):
        start, end = sp.expand(start), sp.expand(end)
        index = fresh_index(start, end, facts)
        moved = form(term.xreplace({k: image.xreplace({k: index})}), facts.with_range(index, start, end))
        if not moved.has(*_UNDEFINED):
            key = sp.default_sort_key(moved.xreplace({index: bound_index(99, False)}))
            candidates.append((key, position, moved, index, start, end))
    if not candidates:
        return None
    _, _, moved, index, start, end = min(candidates, key=lambda candidate: candidate[:2])
    return None if (start, end) == (low, high) and moved.xreplace({index: k}) == term else (moved, index, start, end)


def _from_one(term: sp.Expr, k: sp.Symbol, low: sp.Expr, high: sp.Expr, facts: Facts) -> sp.Expr:
    """low ... high as 1 ... high without 1 ... low - 1, and these up to a size without a constant part."""
    whole = _up_to(term, k, high, facts)
    before = sp.Integer(0) if low == 1 else _up_to(term, k, sp.expand(low - 1), facts)
    if whole is None or before is None:
        return _canonical(term, [(k, low, high)], facts)
    return sp.expand(whole - before)


def _up_to(term: sp.Expr, k: sp.Symbol, high: sp.Expr, facts: Facts) -> sp.Expr | None:
    edge, size = high.as_coeff_Add()
    if not edge.is_Integer or abs(edge) > _LONGEST_EDGE:
        edge, size = sp.Integer(0), high
    steps = range(1, int(edge) + 1) if edge > 0 else range(int(edge) + 1, 1)
    ends = [form(term.xreplace({k: size + step}), facts) for step in steps]
    if any(end.has(*_UNDEFINED) for end in ends):
        return None
    rest = sp.Integer(0) if size == 0 else _full_sum(term, k, size, facts)
    return sp.Add(rest, *(ends if edge > 0 else (-end for end in ends)))


def _full_sum(term: sp.Expr, k: sp.Symbol, size: sp.Expr, facts: Facts) -> sp.Expr:
    forwards = facts.at_least_zero(size)
    if not forwards and facts.at_least_zero(-size):
        turned = term.xreplace({k: -k})  # 1 ... B is minus B + 1 ... 0 for a negative B
        return -sum_over(form(turned, facts), k, sp.Integer(0), sp.expand(-size - 1), facts, 0)
    index = fresh_index(sp.Integer(1), size, facts)
    body = form(term.xreplace({k: index}), facts.with_range(index, sp.Integer(1), size))
    total: sp.Expr = sp.Integer(0)
    for part in sp.Add.make_args(body):
        factor, part = part.as_independent(index, as_Add=False)
        closed = size if part == 1 else closed_form(part, index, size, facts)
        value = form(closed, facts) if closed is not None else _opened(part, index, size, facts)
        total += sp.expand(factor * value)
    return total


def _opened(term: sp.Expr, k: sp.Symbol, size: sp.Expr, facts: Facts) -> sp.Expr:
    """Sums that are factors of the term become indices of one multiple sum."""
    factors: list[sp.Expr] = []
    limits: list[tuple[sp.Symbol, sp.Expr, sp.Expr]] = []
    for factor in sp.Mul.make_args(term):
        base, exponent = factor.as_base_exp()
        copies = int(exponent) if isinstance(base, sp.Sum) and exponent.is_Integer and exponent > 0 else 0
        open_up = copies and all(len(limit) == 3 and limit[1] == 1 for limit in base.limits)
        if not open_up or 1 + len(limits) + copies * len(base.limits) > _MOST_INDICES:
            factors.append(factor)
            continue
        for _ in range(copies):
            fresh = {limit[0]: sp.Dummy("j", **limit[0].assumptions0) for limit in base.limits}
            factors.append(base.function.xreplace(fresh))
            limits += [(fresh[limit[0]], limit[1], limit[2].xreplace(fresh)) for limit in base.limits]
    body = sp.Mul(*factors)
    if len(limits) == 1 and limits[0][2] == k:
        return _triangle(body, limits[0][0], k, size, facts)
    return _canonical(body, [*limits, (k, sp.Integer(1), size)], facts)


def _triangle(body: sp.Expr, j: sp.Symbol, k: sp.Symbol, size: sp.Expr, facts: Facts) -> sp.Expr:
    """Of f(j, k) and f(k, j) over j <= k one is kept: together they are the square and the diagonal.

    For a size n < 0 Karr's convention turns both ranges around, and the same relation holds.
    """
    swapped = body.xreplace({j: k, k: j})
    key, other = (sp.default_sort_key(with_names(part, [(j, 1), (k, 2)])) for part in (body, swapped))
    if body.has(k) and key < other:
        return _canonical(body, [(j, sp.Integer(1), k), (k, sp.Integer(1), size)], facts)
    one = sp.Integer(1)
    inner = sum_over(body, j, one, size, facts.with_range(k, one, size), 0)
    square = sum_over(inner, k, one, size, facts, 0)
    diagonal = sum_over(form(body.xreplace({j: k}), facts), k, one, size, facts, 0)
    if body.has(k) and key == other:
        return sp.expand((square + diagonal) / 2)
    inner = sum_over(swapped, j, one, k, facts.with_range(k, one, size), 0)
    return sp.expand(square + diagonal - sum_over(inner, k, one, size, facts, 0))


def _canonical(body: sp.Expr, limits: list[tuple[sp.Symbol, sp.Expr, sp.Expr]], facts: Facts) -> sp.Expr:
    """The sum with its indices in the order, and under the names, that come first; finite sums may be exchanged."""
    start = depth(body)
    best: tuple[tuple, sp.Expr] | None = None
    for order in itertools.permutations(limits):
        inner = [index for index, _, _ in order]
        if any(limit[2].has(*inner[: place + 1]) for place, limit in enumerate(order)):
            continue
        names = {
            index: bound_index(start + place + 1, bool(index.is_positive)) for place, (index, _, _) in enumerate(order)
        }
        total = sp.Sum(body.xreplace(names), *(tuple(part.xreplace(names) for part in limit) for limit in order))
        key = sp.default_sort_key(total)
        if best is None or key < best[0]:
            best = (key, total)
    assert best is not None  # the order that was given is one
    return best[1]


# --- products ---------------------------------------------------------------------------------------------------------


def _product_over(body: sp.Expr, k: sp.Symbol, low: sp.Expr, high: sp.Expr, facts: Facts) -> sp.Expr:
    """The product over k = low ... high, factor by factor, shifted to begin at 1."""
    size = sp.expand(high - low + 1)
    index = fresh_index(sp.Integer(1), size, facts)
    shifted = form(body.xreplace({k: sp.expand(index + low - 1)}), facts.with_range(index, sp.Integer(1), size))
    factored = sp.factor(sp.together(shifted))
    return sp.Mul(*(_factor_product(part, index, size, facts) for part in sp.Mul.make_args(factored)))


def _factor_product(factor: sp.Expr, k: sp.Symbol, size: sp.Expr, facts: Facts) -> sp.Expr:
    base, exponent = factor.as_base_exp()
    if not factor.has(k):
        return split_power(factor**size)
    if base == sp.E or (not base.has(k) and (exponent.is_integer or (base.is_positive and is_real(exponent)))):
        return base ** sum_over(sp.expand(exponent), k, sp.Integer(1), size, facts)
    if is_positive(base, facts) and exponent.has(k) and is_real(exponent):
        return sp.exp(sum_over(form(exponent * sp.log(base), facts), k, sp.Integer(1), size, facts))
    if not exponent.has(k) and (exponent.is_integer or (is_positive(base, facts) and is_real(exponent))):
        return _plain_product(base, k, size, facts) ** exponent
    left_out = _without_one(base, exponent, k, size, facts)
    return left_out if left_out is not None else _plain_product(factor, k, size, facts)


def _without_one(base: sp.Expr, exponent: sp.Expr, k: sp.Symbol, size: sp.Expr, facts: Facts) -> sp.Expr | None:
    """base(k)^(a + b delta(k, i)): the product of base(k)^a, times base(i)^b for i in the range and base(i) != 0."""
    deltas = sorted(exponent.atoms(sp.KroneckerDelta), key=sp.default_sort_key)
    if len(deltas) != 1 or delta_root(deltas[0], k) is None:
        return None
    root = delta_root(deltas[0], k)
    extra: sp.Expr = sp.expand(exponent).coeff(deltas[0], 1)
    power = sp.expand(exponent - extra * deltas[0])
    value = form(base.xreplace({k: root}), facts)
    if not (extra.is_Integer and power.is_Integer and facts.is_inside(root, sp.Integer(1), size)):
        return None
    if not facts.is_nonzero(value):
        return None
    return _plain_product(base, k, size, facts) ** power * value**extra


def _plain_product(body: sp.Expr, k: sp.Symbol, size: sp.Expr, facts: Facts) -> sp.Expr:
    """The product over 1 ... n + c as 1 ... n times the last c factors for n >= 0: nothing is divided by."""
    edge, rest = size.as_coeff_Add()
    if not (edge.is_Integer and 0 < edge <= _LONGEST_EDGE and facts.at_least_zero(rest)):
        edge, rest = sp.Integer(0), size
    ends = [form(body.xreplace({k: rest + step}), facts) for step in range(1, int(edge) + 1)]
    if any(end.has(*_UNDEFINED) for end in ends):
        edge, rest, ends = sp.Integer(0), size, []
    if rest == 0:
        return sp.Mul(*ends)
    if body == k and facts.at_least_zero(rest):
        return sp.Mul(sp.factorial(rest), *ends)
    name = bound_index(depth(body) + 1, bool(k.is_positive))
    return sp.Mul(sp.Product(body.xreplace({k: name}), (name, 1, rest)), *ends)
