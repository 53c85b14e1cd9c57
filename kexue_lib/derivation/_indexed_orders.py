"""Inequalities between sums of symbolic length, proved for every size."""

from collections.abc import Iterator, Sequence

import sympy as sp
from sympy.logic.boolalg import Boolean

from kexue_lib.derivation._indexed import (
    induction_sizes,
    is_zero,
    known,
    merged_sums,
    substituted,
    with_larger_sizes,
    without,
)
from kexue_lib.derivation._indexed_facts import Facts, Prover, has_indexed, is_nonnegative, is_positive, is_real
from kexue_lib.derivation._indexed_forms import form
from kexue_lib.derivation._indexed_rules import opaque
from kexue_lib.derivation._indexed_tangents import above_its_tangent

_DEEPEST = 3


def nonnegative(gap: sp.Expr, strict: bool = False, given: Sequence[Boolean] = (), prove: Prover | None = None) -> bool:
    """Whether gap >= 0, or > 0, is proved for every size, entry and symbol that the assumptions and `given` allow.

    It is taken for granted that every subexpression of the gap is defined there. `prove` decides statements without
    sums; a proved order is one between real numbers.
    """
    gap = sp.sympify(gap)
    if not isinstance(gap, sp.Expr) or gap.is_commutative is False or gap.has(sp.zoo, sp.nan):
        return False
    gap, given = with_larger_sizes(gap, given)
    return _at_least(gap, strict, known(gap, given, prove), 0)


def _at_least(gap: sp.Expr, strict: bool, facts: Facts, depth: int) -> bool:
    if _entry_sign(gap, strict, facts):
        return True
    value = form(gap, facts)
    reduced = substituted(value, facts)
    if any(_entry_sign(part, strict, facts) for part in dict.fromkeys((value, reduced))):
        return True
    if not strict and has_indexed(gap) and is_zero(gap, facts):
        return True
    if _termwise(reduced, strict, facts) or _by_pairs(reduced, strict, facts):
        return True
    if not strict and above_its_tangent(value, facts, lambda body, inner: _entry_sign(body, False, inner)):
        return True
    if depth >= _DEEPEST:
        return False
    return (
        _over_denominator(reduced, strict, facts, depth)
        or _apart_from_one_term(reduced, strict, facts, depth)
        or _triangle_inequality(reduced, strict, facts, depth)
        or _squares(reduced, strict, facts, depth)
        or _exponentials(reduced, strict, facts, depth)
        or _by_induction(gap, strict, facts, depth)
    )


# --- statements about single terms ------------------------------------------------------------------------------------


def _entry_sign(body: sp.Expr, strict: bool, facts: Facts) -> bool:
    """The sign of an expression for arbitrary values of its sums and entries, under the conditions on them."""
    if is_positive(body, facts) if strict else is_nonnegative(body, facts):
        return True
    plain, conditions = _for_these_entries(body, facts)
    if plain.is_number:
        return bool(plain.is_positive if strict else plain.is_nonnegative)
    if _decided(plain, strict, facts, conditions):
        return True
    return _between_exponentials(plain, strict, facts, conditions) or _by_tangent_of_log(
        plain, strict, facts, conditions
    )


def _decided(plain: sp.Expr, strict: bool, facts: Facts, conditions: list[Boolean]) -> bool:
    """The sign of a number: of its factors, from one of the conditions, or by the caller's prover."""
    if plain.is_rational_function(*plain.free_symbols):
        plain = sp.factor(sp.together(plain))
    if _by_factors(plain, strict, facts, conditions):
        return True
    statement = sp.StrictGreaterThan(plain, 0) if strict else sp.GreaterThan(plain, 0)
    if statement in (sp.true, sp.false):
        return statement == sp.true
    return facts.prove is not None and bool(facts.prove(statement, conditions))


def _by_factors(plain: sp.Expr, strict: bool, facts: Facts, conditions: list[Boolean]) -> bool:
    """An even number of factors with the other sign."""
    sign = is_positive if strict else is_nonnegative
    others = 0
    for factor in sp.Mul.make_args(plain):
        if sign(factor, facts) or _follows(factor, strict, facts, conditions):
            continue
        if not (sign(-factor, facts) or _follows(-factor, strict, facts, conditions)):
            return False
        others += 1
    return others % 2 == 0


def _follows(value: sp.Expr, strict: bool, facts: Facts, conditions: list[Boolean]) -> bool:
    """value >= 0 from one condition A >= B where value - (A - B) is not negative."""
    for condition in conditions:
        if isinstance(condition, (sp.StrictLessThan, sp.StrictGreaterThan, sp.LessThan, sp.GreaterThan)):
            known_gap = condition.gts - condition.lts
            sharp = strict and not isinstance(condition, (sp.StrictLessThan, sp.StrictGreaterThan))
            surplus = sp.expand(value - known_gap)
            if (surplus == 0 and not sharp) or (is_positive if sharp else is_nonnegative)(surplus, facts):
                return True
    return False


def _between_exponentials(plain: sp.Expr, strict: bool, facts: Facts, conditions: list[Boolean]) -> bool:
    """c exp(a) >= c exp(b) for a >= b, c > 0 and real a and b."""
    terms = [term.as_independent(sp.exp, as_Add=False) for term in sp.Add.make_args(sp.expand(plain, power_exp=False))]
    if len(terms) != 2 or sp.expand(terms[0][0] + terms[1][0]) != 0:
        return False
    (factor, one), (_, other) = terms if is_positive(terms[0][0], facts) else terms[::-1]
    exponents = [sp.Add(*(p.exp for p in sp.Mul.make_args(part) if isinstance(p, sp.exp))) for part in (one, other)]
    exact = all(part in (1, sp.exp(e)) or sp.powsimp(part) == sp.exp(e) for part, e in zip((one, other), exponents))
    if not exact or not is_positive(factor, facts) or not all(e.is_real for e in exponents):
        return False
    return _decided(exponents[0] - exponents[1], strict, facts, conditions)


def _for_these_entries(body: sp.Expr, facts: Facts) -> tuple[sp.Expr, list[Boolean]]:
    """The body with entries and sums as symbols, with the conditions as they read for these entries."""
    conditions = [condition for condition in facts.given if condition not in facts.universal]
    ranges = [(universal.limit, universal.condition) for universal in facts.universal] + list(_bounds_by_sums(facts))
    for (index, low, high), condition in ranges:
        for position in sorted(_indices(body), key=sp.default_sort_key):
            if facts.is_inside(position, low, high):
                conditions.append(condition.xreplace({index: position}))
    kept = [condition for condition in conditions if condition not in (sp.true, sp.false)]
    plain, _ = opaque(sp.Tuple(body, *kept))
    unknown = plain[0].free_symbols
    return plain[0], [c for c in plain[1:] if c.free_symbols & unknown and c not in (sp.true, sp.false)]


def _bounds_by_sums(facts: Facts) -> Iterator[tuple[sp.Tuple, Boolean]]:
    """Nonnegative terms e(k) with a given sum c: no single one is above c."""
    for equation in facts.equations:
        merged = merged_sums(form(equation.lhs - equation.rhs, facts))
        if merged is None or len(merged[1]) != 1:
            continue
        total, ((limit, body),) = merged
        for sign in (1, -1):
            if facts.at_least_zero(limit[2]) and is_nonnegative(sign * body, facts.with_range(*limit)):
                yield limit, sp.GreaterThan(-sign * total - sign * body, 0)


def _indices(body: sp.Expr) -> set[sp.Expr]:
    bound = {limit[0] for holder in body.atoms(sp.Sum, sp.Product) for limit in holder.limits}
    entries = (index for entry in body.atoms(sp.Indexed) for index in entry.indices)
    return {index for index in entries if not index.free_symbols & bound}


def _by_tangent_of_log(plain: sp.Expr, strict: bool, facts: Facts, conditions: list[Boolean]) -> bool:
    """log(U) >= 1 - 1 / U for U > 0: the logarithms combined into c log(U), with c > 0, and bounded."""
    rest, logs = _logarithms(plain)
    if not logs or rest.has(sp.log) or not all(_is_positive_now(a, facts, conditions) for _, a in logs):
        return False
    scale = abs(logs[0][0])
    combined = sp.cancel(sp.together(sp.Mul(*(argument ** (factor / scale) for factor, argument in logs))))
    bound = sp.factor(sp.together(rest + scale * (1 - 1 / combined)))
    if bound == 0:
        return not strict
    if bound.is_positive or (not strict and bound.is_nonnegative):
        return True
    statement = sp.StrictGreaterThan(bound, 0) if strict else sp.GreaterThan(bound, 0)
    return statement == sp.true or (statement != sp.false and _is_proved(statement, facts, conditions))


def _is_proved(statement: Boolean, facts: Facts, conditions: list[Boolean]) -> bool:
    return facts.prove is not None and bool(facts.prove(statement, conditions))


def _is_positive_now(value: sp.Expr, facts: Facts, conditions: list[Boolean]) -> bool:
    if is_positive(value, facts):
        return True
    statement = sp.StrictGreaterThan(value, 0)
    return statement == sp.true or (statement != sp.false and _is_proved(statement, facts, conditions))


def _logarithms(value: sp.Expr) -> tuple[sp.Expr, list[tuple[sp.Expr, sp.Expr]]]:
    """The terms c log(A) with rational c, and the rest."""
    rest: sp.Expr = sp.Integer(0)
    logs: list[tuple[sp.Expr, sp.Expr]] = []
    for term in sp.Add.make_args(sp.expand(value, log=False)):
        factor, part = term.as_coeff_Mul()
        if isinstance(part, sp.log) and factor.is_Rational:
            logs.append((factor, part.args[0]))
        else:
            rest += term
    return rest, logs


# --- sums term by term, pair by pair ----------------------------------------------------------------------------------


def _termwise(value: sp.Expr, strict: bool, facts: Facts) -> bool:
    """Each range as one sum of terms with one sign; what is left over has it too, or is shared out among the terms."""
    merged = merged_sums(value)
    if merged is None or not merged[1]:
        return False
    rest, groups = merged
    ranges = [(limit, body, facts.with_range(*limit)) for limit, body in groups]
    if not all(facts.at_least_zero(limit[2]) for limit, _, _ in ranges):
        return False
    if (_entry_sign(rest, strict, facts) or (not strict and rest == 0)) and all(
        _entry_sign(body, False, inner) for _, body, inner in ranges
    ):
        return True
    if len(ranges) > 1:
        return False
    limit, body, inner = ranges[0]
    if not facts.at_least_zero(limit[2] - 1):
        return False
    shares = [1 / limit[2], *_shares(limit, facts)]
    return any(_entry_sign(sp.expand(body + rest * share), strict and share == shares[0], inner) for share in shares)


def _shares(limit: sp.Tuple, facts: Facts) -> Iterator[sp.Expr]:
    """Weights w[k] whose sum over the range is one by a given equation."""
    for equation in facts.equations:
        merged = merged_sums(form(equation.lhs - equation.rhs, facts))
        if merged is None or len(merged[1]) != 1:
            continue
        total, ((own, body),) = merged
        if own == limit and total.is_number and total.is_nonzero:
            yield -body / total


def _by_pairs(value: sp.Expr, strict: bool, facts: Facts) -> bool:
    """Products of two sums as one sum over pairs (j, k), of terms that are nonnegative once j and k are exchanged."""
    sizes = {limit[2] for total in value.atoms(sp.Sum) for limit in total.limits if len(limit) == 3}
    if strict or len(sizes) != 1:
        return False
    size = sizes.pop()
    if not facts.at_least_zero(size - 1):
        return False
    j, k = (sp.Dummy(name, dummy_index=place + 2, integer=True, positive=True) for place, name in enumerate("jk"))
    limit = sp.Tuple(sp.Dummy("k", dummy_index=1, integer=True, positive=True), 1, size)
    shares = [1 / size, *_shares(limit, facts)]
    inner = facts.with_range(j, sp.Integer(1), size).with_range(k, sp.Integer(1), size)
    for share in shares:
        weights = tuple(share.xreplace({limit[0]: index}) for index in (j, k))
        bodies = [_pair_body(term, j, k, size, weights) for term in sp.Add.make_args(value)]
        if None in bodies:
            return False
        body = sp.Add(*bodies)
        body += body.xreplace({j: k, k: j})
        if _entry_sign(body, False, inner):
            return True
    return False


def _pair_body(
    term: sp.Expr, j: sp.Symbol, k: sp.Symbol, size: sp.Expr, weights: tuple[sp.Expr, sp.Expr]
) -> sp.Expr | None:
    """The term as a sum over pairs; single sums, and terms without any, get the weights, which add up to one."""
    factors: list[sp.Expr] = []
    free = [j, k]
    for factor in sp.Mul.make_args(term):
        base, exponent = factor.as_base_exp()
        if not isinstance(base, sp.Sum):
            if factor.has(sp.Sum):
                return None
            factors.append(factor)
            continue
        if not exponent.is_Integer or exponent < 1 or any(limit[1:] != (1, size) for limit in base.limits):
            return None
        for _ in range(int(exponent)):
            if len(base.limits) > len(free):
                return None
            factors.append(base.function.xreplace({limit[0]: free.pop(0) for limit in base.limits}))
    return sp.Mul(*factors, *(dict(zip((j, k), weights))[index] for index in free))


# --- reductions to simpler inequalities -------------------------------------------------------------------------------


def _over_denominator(value: sp.Expr, strict: bool, facts: Facts, depth: int) -> bool:
    """A fraction with a positive denominator has the sign of its numerator."""
    plain, back = opaque(value)
    numerator, denominator = sp.fraction(sp.together(plain))
    if denominator == 1 or not is_positive(back(denominator), facts):
        return False
    return has_indexed(back(denominator)) and _at_least(back(numerator), strict, facts, depth + 1)


def _apart_from_one_term(value: sp.Expr, strict: bool, facts: Facts, depth: int) -> bool:
    """The i-th term of a sum for itself: the others are nonnegative, and this one with what is outside of the sum."""
    merged = merged_sums(value)
    if merged is None or len(merged[1]) != 1:
        return False
    rest, ((limit, body),) = merged
    inner = facts.with_range(*limit)
    for i in sorted(_indices(rest), key=sp.default_sort_key):
        if not facts.is_inside(i, limit[1], limit[2]):
            continue
        own = sp.expand(body.xreplace({limit[0]: i}) + rest)
        if _entry_sign(body, False, inner) and _at_least(own, strict, facts, depth + 1):
            return True
        others = strict and facts.at_least_zero(limit[2] - 2) and _entry_sign(body, True, inner)
        if others and _at_least(own, False, facts, depth + 1):
            return True
    return False


def _triangle_inequality(value: sp.Expr, strict: bool, facts: Facts, depth: int) -> bool:
    """-|sum of z[k]| >= -(sum of |z[k]|), also for complex terms."""
    smaller = sp.Add(*(_with_smaller_moduli(term, facts) for term in sp.Add.make_args(value)))
    return smaller != value and _at_least(smaller, strict, facts, depth + 1)


def _with_smaller_moduli(term: sp.Expr, facts: Facts) -> sp.Expr:
    factor, modulus = term.as_coeff_Mul()
    if not (factor.is_negative and isinstance(modulus, sp.Abs) and modulus.has(sp.Sum)):
        return term
    parts: list[sp.Expr] = []
    for part in sp.Add.make_args(modulus.args[0]):
        sums = [f for f in sp.Mul.make_args(part) if isinstance(f, sp.Sum)]
        if len(sums) != 1:
            parts.append(sp.Abs(part))
            continue
        inner = facts
        for limit in reversed(sums[0].limits):
            if len(limit) != 3 or not inner.at_least_zero(limit[2] - limit[1] + 1):
                return term
            inner = inner.with_range(*limit)
        parts.append(sp.Abs(part / sums[0]) * sp.Sum(sp.Abs(sums[0].function), *sums[0].limits))
    return factor * sp.Add(*parts)


def _squares(value: sp.Expr, strict: bool, facts: Facts, depth: int) -> bool:
    """A >= B follows from A >= 0 and A^2 >= B^2, for a root A and a real B."""
    roots = [
        term
        for term in sp.Add.make_args(value)
        if any(isinstance(part, sp.Pow) and part.exp == sp.S.Half for part in sp.Mul.make_args(term))
        and is_nonnegative(term, facts)
    ]
    if len(roots) != 1:
        return False
    rest = sp.Add(*(term for term in sp.Add.make_args(value) if term != roots[0]))
    return is_real(rest) and _at_least(roots[0] ** 2 - rest**2, strict, facts, depth + 1)


def _exponentials(value: sp.Expr, strict: bool, facts: Facts, depth: int) -> bool:
    """log(A) + log(B) + c >= log(D) follows from A B exp(c) >= D for positive A, B and D, and real c."""
    rest, logs = _logarithms(value)
    if not logs or rest.has(sp.log) or not is_real(rest):
        return False
    if not all(is_positive(argument, facts) for _, argument in logs):
        return False
    sides: list[sp.Expr] = []
    for sign in (1, -1):
        powers = [argument ** (sign * factor) for factor, argument in logs if sign * factor > 0]
        terms = [sign * term for term in sp.Add.make_args(rest) if term.could_extract_minus_sign() == (sign < 0)]
        sides.append(sp.Mul(*powers) * sp.exp(sp.Add(*terms)))
    return _at_least(sides[0] - sides[1], strict, facts, depth + 1)


def _by_induction(gap: sp.Expr, strict: bool, facts: Facts, depth: int) -> bool:
    """The gap has the sign at the smallest size, and does not shrink from any size n to n + 1."""
    for n, base in induction_sizes(gap, facts):
        inner = without(n, facts, base, facts.prove)
        start = gap.xreplace({n: sp.Integer(base)})
        if start.has(sp.zoo, sp.nan) or not _at_least(start, strict, inner, _DEEPEST):
            continue
        growth = sp.expand(form(gap.xreplace({n: n + 1}), inner) - form(gap, inner))
        if _at_least(growth, False, inner, depth + 2):
            return True
    return False
