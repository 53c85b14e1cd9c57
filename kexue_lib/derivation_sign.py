"""Proofs that an expression is positive or non-negative under its symbols' assumptions and given conditions.

Part of :mod:`kexue_lib.derivation`, which is the place to call.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp
from sympy.calculus.util import continuous_domain, function_range
from sympy.core.relational import Relational


def prove_sign(expression: sp.Expr, strict: bool, given: Sequence[Any] = ()) -> bool:
    """Whether `expression > 0` (`>= 0` if not strict) has been proved; False means: not proved."""
    shifted, rest = shifted_by_conditions(expression, given)
    if rest is None:
        return True
    branches = cases(shifted, rest)
    if branches is not None:
        return all(prove_sign(form, strict, conditions) for form, conditions in branches)
    return any(_has_sign(form, strict, 2) for form in dict.fromkeys((shifted, expression)))


def shifted_by_conditions(expression: sp.Expr, given: Sequence[Any]) -> tuple[sp.Expr, list[Any] | None]:
    """Build orderings into the symbols: a < b becomes b = a + t with t positive; equations are solved.

    Returns the expression and the conditions that are left, None where they contradict each other.
    """
    pending = [part for condition in given for part in sp.And.make_args(condition)]
    for _ in range(len(pending)):
        for condition in pending:
            change = _change_of_variable(condition)
            if change is not None:
                expression = expression.subs(change)
                pending = [c.subs(change) for c in pending if c != condition]
                break
        else:
            break
    return expression, None if sp.false in pending else [c for c in pending if c != sp.true]


def _change_of_variable(condition: Any) -> dict[sp.Symbol, sp.Expr] | None:
    if isinstance(condition, sp.Eq) and not getattr(condition.lhs, "is_Matrix", False):
        gap = sp.expand(condition.lhs - condition.rhs)
        shares = _simplex(gap)
        if shares is not None:
            return shares
        for symbol in sorted(gap.free_symbols, key=str):
            slope = sp.diff(gap, symbol)
            if slope.is_nonzero and not slope.has(symbol) and not _signed(symbol):
                return {symbol: sp.simplify(symbol - gap / slope)}
        for symbol in sorted(gap.free_symbols, key=str):
            slope = sp.diff(gap, symbol)
            if slope.is_nonzero and not slope.has(symbol):
                return {symbol: sp.simplify(symbol - gap / slope)}
        return None
    if not isinstance(condition, (sp.Lt, sp.Le, sp.Gt, sp.Ge)):
        return None
    gap = sp.expand(condition.gts - condition.lts)
    strict = isinstance(condition, (sp.Lt, sp.Gt))
    whole = all(symbol.is_integer for symbol in gap.free_symbols) and gap.is_integer
    step = (
        sp.Dummy("t", positive=True, integer=whole or None)
        if strict
        else sp.Dummy("t", nonnegative=True, integer=whole or None)
    )
    slopes = {s: sp.diff(gap, s) for s in sorted(gap.free_symbols, key=str) if s.is_extended_real}
    linear = {s: slope for s, slope in slopes.items() if slope.is_number and slope != 0}
    for symbol, slope in linear.items():  # symbol = bound + step keeps a positive symbol positive
        value = symbol - gap / slope + step / slope
        if slope.is_positive and _keeps(symbol, sp.expand(value)):
            return {symbol: sp.expand(value)}
    for symbol, slope in linear.items():  # 0 < symbol < bound
        bound = sp.expand(symbol - gap / slope)
        if slope.is_negative and symbol.is_nonnegative and not symbol.is_positive and bound == 0 and not strict:
            return {symbol: sp.Integer(0)}
        if slope.is_negative and symbol.is_positive and strict and bound.is_positive and not symbol.is_integer:
            return {symbol: bound * step / (1 + step)}
    for symbol, slope in linear.items():
        value = sp.expand(symbol - gap / slope + step / slope)
        if not _signed(symbol):
            return {symbol: value}
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
    parts = [sp.Dummy(s.name, positive=True) for s in symbols]
    return {s: total * part / slope / sum(parts) for s, part, slope in zip(symbols, parts, slopes)}


def _signed(symbol: sp.Symbol) -> bool:
    return any(fact is not None for fact in (symbol.is_positive, symbol.is_negative, symbol.is_nonnegative))


def _keeps(symbol: sp.Symbol, value: sp.Expr) -> bool:
    return (not symbol.is_positive or bool(value.is_positive)) and (
        not symbol.is_nonnegative or bool(value.is_nonnegative)
    )


def cases(expression: sp.Expr, given: Sequence[Any]) -> list[tuple[sp.Expr, list[Any]]] | None:
    """Split at the first absolute value, sign, maximum, minimum or piece; None where there is nothing to split."""
    kinds = (sp.Abs, sp.sign, sp.Max, sp.Min, sp.Heaviside, sp.Piecewise)
    for atom in sorted(expression.atoms(*kinds), key=lambda a: (len(str(a)), str(a))):
        if isinstance(atom, sp.Piecewise):
            branches, excluded = [], []
            for piece, condition in atom.args:
                if condition == sp.true:
                    conditions = list(excluded)
                elif isinstance(condition, Relational):
                    conditions = [*excluded, condition]
                    excluded.append(sp.Not(condition))
                else:
                    return None
                branches.append((expression.xreplace({atom: piece}), [*given, *conditions]))
            return branches
        if not all(argument.is_extended_real for argument in atom.args[:1]):
            continue
        if isinstance(atom, (sp.Max, sp.Min)):
            one, rest = atom.args[0], atom.func(*atom.args[1:])
            above = sp.Ge(one, rest, evaluate=False)
            below = sp.Le(one, rest, evaluate=False)
            larger = isinstance(atom, sp.Max)
            return [
                (expression.xreplace({atom: one if larger else rest}), [*given, above]),
                (expression.xreplace({atom: rest if larger else one}), [*given, below]),
            ]
        inside = atom.args[0]
        signs = {sp.Abs: (inside, sp.Integer(0), -inside), sp.sign: (1, 0, -1), sp.Heaviside: (1, atom, 0)}[atom.func]
        if any(c == sp.Ne(inside, 0) or c == sp.Ne(-inside, 0) for c in given):
            signs = (signs[0], None, signs[2])
        kinds_of = (
            sp.Gt(inside, 0, evaluate=False),
            sp.Eq(inside, 0, evaluate=False),
            sp.Lt(inside, 0, evaluate=False),
        )
        return [
            (expression.xreplace({atom: sp.sympify(s)}), [*given, c]) for s, c in zip(signs, kinds_of) if s is not None
        ]
    return None


def _has_sign(expression: sp.Expr, strict: bool, depth: int) -> bool:
    expression = sp.sympify(expression)
    if expression.has(sp.nan, sp.zoo):
        return False
    seen: list[sp.Expr] = []
    for form in _forms(expression):
        if form in seen:
            continue
        seen.append(form)
        if _obvious(form, strict) or _by_factors(form, strict, depth):
            return True
    for form in seen:
        if _by_coefficients(form, strict) or _by_discriminant(form, strict, depth + 1) or _by_radical(form, strict):
            return True
    if _by_range(expression, strict):
        return True
    if depth > 0 and any(_by_slope(expression, strict, symbol, depth) for symbol in _real_symbols(expression)):
        return True
    return any(_by_factors(form, strict, depth, ranges=True) for form in seen)


def _forms(expression: sp.Expr) -> Iterator[sp.Expr]:
    yield expression
    yield sp.factor(sp.together(expression))
    rooted = _without_roots(expression)
    if rooted != expression:
        yield sp.factor(sp.together(rooted))
        expression = rooted
    yield sp.factor(sp.together(sp.expand(expression.rewrite(sp.exp))))
    in_new = _in_new_exponentials(expression)
    if in_new != expression:
        yield sp.factor(sp.together(in_new))
    yield sp.factor(sp.simplify(expression))


def _in_new_exponentials(expression: sp.Expr) -> sp.Expr:
    """exp(x), exp(x/2), … of a real x as powers of one positive unknown."""
    form = sp.expand(expression.rewrite(sp.exp), complex=False)
    for symbol in _real_symbols(form):
        waves = [wave for wave in form.atoms(sp.exp) if wave.has(symbol)]
        factors = [wave.args[0] / symbol for wave in waves]
        if not waves or not all(factor.is_Rational for factor in factors):
            continue
        unit = sp.Rational(1, sp.ilcm(1, *(factor.q for factor in factors)))
        base = sp.Dummy(f"exp_{symbol.name}", positive=True)
        replaced = form.xreplace({wave: base ** (factor / unit) for wave, factor in zip(waves, factors)})
        form = form if replaced.has(symbol) else replaced
    return form


def _without_roots(expression: sp.Expr) -> sp.Expr:
    """Positive symbols under a root become powers of new ones, so that the expression is rational in them."""
    changes = {}
    for symbol in expression.free_symbols:
        if symbol.is_nonnegative:
            exponents = [p.exp.q for p in expression.atoms(sp.Pow) if p.base.has(symbol) and p.exp.is_Rational]
            order = sp.ilcm(1, *exponents) if exponents else 1
            if order > 1:
                facts = {"positive": True} if symbol.is_positive else {"nonnegative": True}
                changes[symbol] = sp.Dummy(f"r_{symbol.name}", **facts) ** order
    return sp.powdenest(expression.subs(changes)) if changes else expression


def _real_symbols(expression: sp.Expr) -> list[sp.Symbol]:
    return sorted((s for s in expression.free_symbols if s.is_extended_real), key=str)


def _obvious(expression: sp.Expr, strict: bool) -> bool:
    return bool(expression.is_positive if strict else expression.is_nonnegative)


def _by_factors(expression: sp.Expr, strict: bool, depth: int, ranges: bool = False) -> bool:
    """A product, each of whose factors has a known sign."""
    numerator, denominator = sp.fraction(expression)
    factors = [*sp.Mul.make_args(numerator), *sp.Mul.make_args(denominator)]
    if len(factors) < 2 or (len(factors) == 2 and 1 in factors):
        return False
    negative = 0
    for factor in factors:
        if factor == 1:
            continue
        base, exponent = factor.as_base_exp()
        if exponent.is_even and base.is_extended_real:
            if strict and not (base.is_nonzero or _nonzero(base, depth)):
                return False
            continue
        below = factor in sp.Mul.make_args(denominator)
        if _part(factor, strict or below, depth, ranges):
            continue
        if _part(-factor, strict or below, depth, ranges):
            negative += 1
            continue
        return False
    return negative % 2 == 0


def _nonzero(expression: sp.Expr, depth: int) -> bool:
    return _part(expression, True, depth) or _part(-expression, True, depth)


def _part(expression: sp.Expr, strict: bool, depth: int, ranges: bool = False) -> bool:
    return (
        _obvious(expression, strict)
        or _by_coefficients(expression, strict)
        or _by_discriminant(expression, strict, depth)
        or _by_radical(expression, strict)
        or (ranges and _by_range(expression, strict))
        or (depth > 0 and any(_by_slope(expression, strict, symbol, depth - 1) for symbol in _real_symbols(expression)))
    )


def _by_coefficients(expression: sp.Expr, strict: bool) -> bool:
    """A polynomial whose coefficients are not negative, in quantities that are not negative."""
    terms = sp.Add.make_args(sp.expand(expression))
    if not all(term.is_nonnegative for term in terms):
        return False
    return not strict or any(term.is_positive for term in terms)


def _by_discriminant(expression: sp.Expr, strict: bool, depth: int) -> bool:
    """a x^2 + b x + c with a > 0 (or a, c >= 0) and 4 a c - b^2 >= 0, for real x."""
    if depth <= 0 or not expression.is_Add:
        return False
    for symbol in _real_symbols(expression):
        if not expression.is_polynomial(symbol) or sp.degree(expression, symbol) != 2:
            continue
        a, b, c = sp.Poly(expression, symbol).all_coeffs()
        discriminant = sp.factor(4 * a * c - b**2)
        if strict:
            if _sub(a, True, depth) and _sub(discriminant, True, depth):
                return True
        elif _sub(a, False, depth) and _sub(c, False, depth) and _sub(discriminant, False, depth):
            return True
    return False


def _sub(expression: sp.Expr, strict: bool, depth: int) -> bool:
    form = sp.factor(expression)
    return (
        _obvious(form, strict)
        or _by_coefficients(form, strict)
        or _by_factors(form, strict, depth - 1)
        or _by_discriminant(sp.expand(form), strict, depth - 1)
    )


def _by_radical(expression: sp.Expr, strict: bool) -> bool:
    """c sqrt(A) + B with c > 0 exceeds zero where c^2 A > B^2."""
    if not expression.is_Add:
        return False
    for root in (p for p in expression.atoms(sp.Pow) if p.exp == sp.S.Half and p.base.is_positive):
        outside, rest = expression.coeff(root), expression.coeff(root, 0)
        if outside.is_positive and not outside.has(root) and sp.expand(expression - outside * root - rest) == 0:
            form = sp.factor(sp.expand(outside**2 * root.base - rest**2))
            if _obvious(form, strict) or _by_coefficients(form, strict):
                return True
    return False


def _by_range(expression: sp.Expr, strict: bool) -> bool:
    """One real unknown: the range of values that SymPy's calculus finds."""
    if len(expression.free_symbols) != 1:
        return False
    (symbol,) = expression.free_symbols
    if not symbol.is_extended_real or symbol.is_integer or expression.has(sp.Sum, sp.Integral, sp.Product):
        return False
    x = sp.Dummy("x", real=True)
    domain = sp.S.Reals
    if symbol.is_nonnegative:
        domain = sp.Interval.open(0, sp.oo) if symbol.is_positive else sp.Interval(0, sp.oo)
    elif symbol.is_nonpositive:
        domain = sp.Interval.open(-sp.oo, 0) if symbol.is_negative else sp.Interval(-sp.oo, 0)
    form = expression.subs(symbol, x)
    try:
        if continuous_domain(form, x, domain) != domain:
            return False
        values = function_range(form, x, domain)
        wanted = sp.Interval.open(0, sp.oo) if strict else sp.Interval(0, sp.oo)
        return values.is_subset(wanted) is True
    except (NotImplementedError, ValueError, TypeError, AttributeError, RecursionError):
        return False


def _by_slope(expression: sp.Expr, strict: bool, symbol: sp.Symbol, depth: int) -> bool:
    """Zero or more at the lower end of an interval, and rising on it (all reals: from a point to both sides)."""
    if symbol.is_integer or expression.has(sp.Sum, sp.Integral, sp.Product, sp.floor, sp.ceiling, sp.Derivative):
        return False
    if symbol.is_nonnegative:
        if strict and not symbol.is_positive:
            return False
        return _rises(expression, strict, symbol, 1, depth)
    if symbol.is_positive is None and symbol.is_negative is None and not strict:
        return _rises(expression, False, symbol, 1, depth) and _rises(expression, False, symbol, -1, depth)
    return False


def _rises(expression: sp.Expr, strict: bool, symbol: sp.Symbol, direction: int, depth: int) -> bool:
    step = sp.Dummy(symbol.name, positive=True)
    form = expression.subs(symbol, direction * step)
    start = form.subs(step, 0)
    if start.has(sp.nan, sp.zoo, sp.oo):
        return False
    if not (start == 0 or _obvious(sp.simplify(start), False) or (start.free_symbols and _has_sign(start, False, 0))):
        return False
    slope = sp.diff(form, step)
    return any(
        _obvious(f, strict) or _by_factors(f, strict, depth - 1) or _by_coefficients(f, strict) for f in _forms(slope)
    ) or (depth > 1 and _rises(slope, strict, step, 1, depth - 1))
