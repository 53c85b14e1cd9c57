"""Proofs that an expression is positive, non-negative or never zero wherever assumptions and conditions allow.

Each of these proofs shows on its way that the expression is real. A False means "not proved", never "false".
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import sympy as sp

from kexue_lib.derivation._given import cases, equations, shifted
from kexue_lib.derivation._needs import Need, kinks, needs, real_needs

_LAZY = (sp.Sum, sp.Product, sp.Integral, sp.Limit, sp.Derivative)
_STEPS = (sp.floor, sp.ceiling, sp.frac, sp.Mod, sp.sign, sp.Heaviside, sp.Piecewise, sp.KroneckerDelta)
_BOUNDED = (sp.sin, sp.cos, sp.tanh, sp.erf)
_CASES = 6  # splits one after another


def prove_sign(expression: Any, strict: bool, given: Sequence[Any] = (), depth: int = 2, splits: int = _CASES) -> bool:
    """Whether `expression > 0` (`>= 0` if not strict) has been proved under the conditions."""
    expression = sp.sympify(expression)
    form, rest = shifted(expression, given)
    if rest is None:
        return True
    form, rest = _from_one(sp.sympify(form), rest)
    if form.has(sp.nan, sp.zoo):
        return False
    if _has_sign(form, strict, rest, 0):
        return True
    branches = cases(form, rest) if splits else None
    if branches is not None:
        return all(prove_sign(piece, strict, conditions, depth, splits - 1) for piece, conditions in branches)
    if any(_has_sign(f, strict, rest, depth) for f in dict.fromkeys((form, expression))):
        return True
    return depth > 0 and _by_exponential(form, strict, rest, depth)


def _from_one(form: sp.Expr, rest: list[Any]) -> tuple[sp.Expr, list[Any]]:
    """Positive integers as one more than integers that are not negative: so that n - 1 is seen not to be."""
    names = sorted((s for s in form.free_symbols if s.is_integer and s.is_positive), key=str)
    change = {s: 1 + sp.Dummy(s.name, integer=True, nonnegative=True) for s in names if isinstance(s, sp.Symbol)}
    change = {s: v for s, v in change.items() if not (s.is_odd or s.is_even or s.is_prime)}
    return (form.subs(change), [c.subs(change) for c in rest]) if change else (form, rest)


def _by_exponential(expression: sp.Expr, strict: bool, rest: Sequence[Any], depth: int) -> bool:
    """A real number is positive exactly if its exponential exceeds one; logarithms turn into factors."""
    if not expression.has(sp.log) or expression.has(*_LAZY) or not is_real(expression, rest, 0):
        return False
    power = sp.powsimp(sp.expand(sp.exp(sp.expand_log(expression))))
    return not power.has(sp.log) and prove_sign(power - 1, strict, rest, depth - 1, 2)


def prove_nonzero(expression: Any, given: Sequence[Any] = (), depth: int = 2, splits: int = _CASES) -> bool:
    """Whether the expression is proved to vanish nowhere under the conditions."""
    form, rest = shifted(sp.sympify(expression), given)
    if rest is None:
        return True
    form, rest = _from_one(sp.sympify(form), rest)
    if form.has(sp.nan, sp.zoo):
        return False
    if form.is_zero is False:
        return True
    numerator = sp.fraction(sp.factor(sp.together(form)))[0]
    factors = [factor.as_base_exp()[0] for factor in sp.Mul.make_args(numerator)]
    pending = [factor for factor in factors if not (factor.is_zero is False or _excluded(factor, rest))]
    if all(_never_zero(factor, rest, depth) for factor in pending):
        return True
    for equation in equations(rest):  # such as a sum that is one
        if form == equation.lhs and equation.rhs.is_zero is False:
            return True
    branches = cases(form, rest) if splits else None
    return branches is not None and all(prove_nonzero(f, c, depth, splits - 1) for f, c in branches)


def _never_zero(factor: sp.Expr, rest: Sequence[Any], depth: int) -> bool:
    if _no_real_root(factor):
        return True
    if isinstance(factor, (sp.cosh, sp.exp)) and factor.args[0].is_extended_real:
        return True
    if isinstance(factor, sp.sinh) and factor.args[0].is_extended_real:
        return prove_nonzero(factor.args[0], rest, depth, 1)
    if factor.is_extended_real is False and not factor.is_imaginary:
        real, imaginary = factor.as_real_imag()
        return any(part.is_nonzero for part in (real, imaginary))
    return any(_has_sign(sign * factor, True, rest, depth) for sign in (1, -1))


def _excluded(factor: sp.Expr, rest: Sequence[Any]) -> bool:
    """A condition a ≠ b says that the factor, which is a constant multiple of a - b, is not zero."""
    for fact in rest:
        if isinstance(fact, sp.Ne):
            ratio = sp.cancel(sp.together(factor / (fact.lhs - fact.rhs)))
            if ratio.is_zero is False and ratio.is_finite is not False and ratio.is_number:
                return True
            if fact.rhs == 0 and sp.simplify(ratio).is_zero is False and not sp.fraction(ratio)[0].has(*_LAZY):
                return True
    return False


def _no_real_root(factor: sp.Expr) -> bool:
    """One real unknown, a polynomial: Sturm's theorem counts the real roots exactly."""
    count = _roots_in_domain(factor)
    return count == 0


def _roots_in_domain(expression: sp.Expr) -> int | None:
    if len(expression.free_symbols) != 1:
        return None
    (symbol,) = expression.free_symbols
    if not symbol.is_extended_real or not expression.is_polynomial(symbol):
        return None
    polynomial = sp.Poly(expression, symbol)
    if polynomial.is_zero or not all(c.is_Rational for c in polynomial.all_coeffs()):
        return None
    if symbol.is_nonnegative:
        return int(polynomial.count_roots(0, None)) - (1 if symbol.is_positive and polynomial.eval(0) == 0 else 0)
    if symbol.is_nonpositive:
        return int(polynomial.count_roots(None, 0)) - (1 if symbol.is_negative and polynomial.eval(0) == 0 else 0)
    return int(polynomial.count_roots())


def prove_need(need: Need, depth: int = 1) -> bool:
    """Whether a need about the values of one expression is met; those about sums and integrals are not decided here."""
    subject, given = need.subject, need.given
    if need.kind == "nonzero":
        return prove_nonzero(subject, given, depth)
    if need.kind == "not_pole":
        return bool(subject.is_positive) or subject.is_integer is False or prove_sign(subject, True, given, depth)
    if need.kind in ("positive", "nonnegative"):
        return prove_sign(subject, need.kind == "positive", given, depth)
    if need.kind in ("within", "between"):
        strict = need.kind == "between"
        return all(prove_sign(1 + sign * subject, strict, given, depth) for sign in (1, -1))
    if need.kind == "real":
        return is_real(subject, given, depth)
    return False


def is_real(expression: Any, given: Sequence[Any] = (), depth: int = 1) -> bool:
    """Whether the expression is proved to be real."""
    form, rest = shifted(sp.sympify(expression), given)
    if rest is None or form.is_extended_real:
        return True
    return all(need.kind != "real" and prove_need(need, depth) for need in real_needs(form, tuple(rest)))


# --- one sign, without cases ------------------------------------------------------------------------------------------


def _has_sign(expression: sp.Expr, strict: bool, facts: Sequence[Any], depth: int) -> bool:
    return _has_one_sign(expression, strict, tuple(facts), depth)


# The parts of a statement ask the same questions again and again.
@lru_cache(maxsize=4096)
def _has_one_sign(expression: sp.Expr, strict: bool, facts: tuple[Any, ...], depth: int) -> bool:
    if _obvious(expression, strict) or _by_coefficients(expression, strict) or _stated(expression, strict, facts):
        return True
    if expression.has(sp.nan, sp.zoo) or (depth <= 0 and expression.has(*_LAZY)):
        return False
    if _by_range(expression, strict, depth):
        return True
    seen: list[sp.Expr] = []
    for form in _forms(expression) if depth > 0 else (sp.factor(expression),):
        if form in seen:
            continue
        seen.append(form)
        if _obvious(form, strict) or _by_factors(form, strict, facts, depth):
            return True
    for form in seen:
        if _by_coefficients(form, strict) or _by_discriminant(form, strict, depth + 1) or _by_radical(form, strict):
            return True
        if _by_roots(form, strict) or _by_range(form, strict, depth):
            return True
    return depth > 0 and any(
        _by_slope(expression, strict, symbol, facts, depth) for symbol in _real_symbols(expression)
    )


def _stated(expression: sp.Expr, strict: bool, facts: Sequence[Any]) -> bool:
    """The expression is a positive multiple of what a condition says to be positive."""
    for fact in facts:
        if isinstance(fact, (sp.Gt, sp.Lt)) or (isinstance(fact, (sp.Ge, sp.Le)) and not strict):
            ratio = sp.cancel(sp.together(expression / (fact.gts - fact.lts)))
            if ratio.is_positive:
                return True
    return False


def _forms(expression: sp.Expr) -> Iterator[sp.Expr]:
    """Ways to write an expression, those that cost most last."""
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
    """exp(x), exp(x/2), … of a real x as powers of one positive unknown, above one with x; its domain is no smaller."""
    form = sp.expand(expression.rewrite(sp.exp), complex=False)
    for symbol in _real_symbols(form):
        waves = [wave for wave in form.atoms(sp.exp) if wave.has(symbol)]
        factors = [wave.args[0] / symbol for wave in waves]
        if not waves or not all(factor.is_Rational for factor in factors):
            continue
        unit = sp.Rational(1, sp.ilcm(1, *(factor.q for factor in factors)))
        base = sp.Dummy(f"exp_{symbol.name}", positive=True)
        if symbol.is_nonnegative:
            base = 1 + (base if symbol.is_positive else sp.Dummy(f"exp_{symbol.name}", nonnegative=True))
        replaced = form.xreplace({wave: base ** (factor / unit) for wave, factor in zip(waves, factors)})
        form = form if replaced.has(symbol) else replaced
    return form


def _without_roots(expression: sp.Expr) -> sp.Expr:
    """Positive symbols under a root become powers of new ones, so that the expression is rational in them."""
    changes = {}
    for symbol in sorted(expression.free_symbols, key=str):
        if symbol.is_nonnegative:
            exponents = [p.exp.q for p in expression.atoms(sp.Pow) if p.base.has(symbol) and p.exp.is_Rational]
            order = sp.ilcm(1, *exponents) if exponents else 1
            if order > 1:
                known = {"positive": True} if symbol.is_positive else {"nonnegative": True}
                changes[symbol] = sp.Dummy(f"r_{symbol.name}", **known) ** order
    return sp.powdenest(expression.subs(changes)) if changes else expression


def _real_symbols(expression: sp.Expr) -> list[sp.Symbol]:
    return sorted((s for s in expression.free_symbols if isinstance(s, sp.Symbol) and s.is_extended_real), key=str)


def _obvious(expression: sp.Expr, strict: bool) -> bool:
    return bool(expression.is_positive if strict else expression.is_nonnegative)


def _by_factors(expression: sp.Expr, strict: bool, facts: Sequence[Any], depth: int) -> bool:
    """A product, each of whose factors has a known sign."""
    numerator, denominator = sp.fraction(expression)
    factors = [*sp.Mul.make_args(numerator), *sp.Mul.make_args(denominator)]
    if len(factors) < 2 or (len(factors) == 2 and 1 in factors and not factors[0].is_Pow):
        return False
    negative = 0
    for factor in factors:
        if factor == 1:
            continue
        base, exponent = factor.as_base_exp()
        below = factor in sp.Mul.make_args(denominator)
        if exponent.is_even and base.is_extended_real:
            if (strict or below) and not (base.is_zero is False or _excluded(base, facts) or _nonzero(base, depth)):
                return False
            continue
        if _part(factor, strict or below, facts, depth):
            continue
        if _part(-factor, strict or below, facts, depth):
            negative += 1
            continue
        return False
    return negative % 2 == 0


def _nonzero(expression: sp.Expr, depth: int) -> bool:
    return _part(expression, True, (), depth) or _part(-expression, True, (), depth)


def _part(expression: sp.Expr, strict: bool, facts: Sequence[Any], depth: int) -> bool:
    return (
        _obvious(expression, strict)
        or _by_coefficients(expression, strict)
        or _stated(expression, strict, facts)
        or _by_discriminant(expression, strict, depth)
        or _by_radical(expression, strict)
        or _by_roots(expression, strict)
        or _by_range(expression, strict, depth)
        or (depth > 0 and any(_by_slope(expression, strict, s, facts, depth - 1) for s in _real_symbols(expression)))
    )


def _by_coefficients(expression: sp.Expr, strict: bool) -> bool:
    """A polynomial whose coefficients are not negative, in quantities that are not negative."""
    terms = sp.Add.make_args(sp.expand(expression))
    if not all(term.is_nonnegative for term in terms):
        return False
    return not strict or any(term.is_positive for term in terms)


def _by_roots(expression: sp.Expr, strict: bool) -> bool:
    """One real unknown, a polynomial without a root in its domain and positive at one point of it (Sturm)."""
    if _roots_in_domain(expression) != 0:
        return False
    (symbol,) = expression.free_symbols
    inside = -1 if symbol.is_nonpositive else 1
    return bool(expression.subs(symbol, inside) > 0)


def _by_range(expression: sp.Expr, strict: bool, depth: int) -> bool:
    """Sines, cosines and hyperbolic tangents of real arguments as 1 - u or u - 1 with any u >= 0."""
    waves = sorted((f for f in expression.atoms(*_BOUNDED) if f.args[0].is_extended_real), key=sp.default_sort_key)
    if depth <= 0 or not waves:
        return False
    wave = waves[0]
    open_end = isinstance(wave, (sp.tanh, sp.erf))
    u = sp.Dummy("u", positive=True) if open_end else sp.Dummy("u", nonnegative=True)
    forms = (sp.factor(expression.xreplace({wave: end})) for end in (1 - u, u - 1))
    return any(_part(form, strict, (), depth - 1) or _by_factors(form, strict, (), depth - 1) for form in forms)


def _by_discriminant(expression: sp.Expr, strict: bool, depth: int) -> bool:
    """a x^2 + b x + c with a > 0 (or a, c >= 0) and 4 a c - b^2 >= 0, for real x and real b."""
    if depth <= 0 or not expression.is_Add:
        return False
    for symbol in _real_symbols(expression):
        if not expression.is_polynomial(symbol) or sp.degree(expression, symbol) != 2:
            continue
        a, b, c = sp.Poly(expression, symbol).all_coeffs()
        if not b.is_extended_real:
            continue
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
        or _by_factors(form, strict, (), depth - 1)
        or _by_discriminant(sp.expand(form), strict, depth - 1)
    )


def _by_radical(expression: sp.Expr, strict: bool) -> bool:
    """c sqrt(A) + B with c > 0 and real B exceeds zero where c^2 A > B^2."""
    if not expression.is_Add:
        return False
    roots = sorted((p for p in expression.atoms(sp.Pow) if p.exp == sp.S.Half), key=sp.default_sort_key)
    for root in (p for p in roots if p.base.is_positive):
        outside: sp.Expr = expression.coeff(root)
        rest: sp.Expr = expression.coeff(root, 0)
        if not (outside.is_positive and rest.is_extended_real and not outside.has(root)):
            continue
        positive = sp.Add(*(term for term in sp.Add.make_args(rest) if term.is_nonnegative))
        rest = rest - positive  # what is not negative anyway is not needed
        if sp.expand(expression - outside * root - rest - positive) == 0:
            form = sp.factor(sp.expand(outside**2 * root.base - rest**2))
            if _obvious(form, strict) or _by_coefficients(form, strict) or _by_roots(form, strict):
                return True
    return False


# --- monotonicity -----------------------------------------------------------------------------------------------------


def _by_slope(expression: sp.Expr, strict: bool, symbol: sp.Symbol, facts: Sequence[Any], depth: int) -> bool:
    """Not below zero at an anchor, and rising away from it on both sides, as far as the symbol's domain goes.

    Sound because the domain of a real, positive or non-negative symbol is an interval, and the expression is
    shown to be smooth on all of it: an expression may rise on both sides of a jump and still fall across it.
    """
    if symbol.is_integer or symbol.is_rational or symbol.is_irrational or expression.has(*_LAZY, *_STEPS):
        return False
    if symbol.is_nonpositive or (symbol.is_nonzero and not symbol.is_positive):
        return False
    if any(fact.has(symbol) for fact in facts):
        return False
    if not smooth(expression, symbol, facts):
        return False
    return any(_rises_from(expression, strict, symbol, anchor, depth) for anchor in _anchors(expression, symbol))


def smooth(expression: Any, symbol: Any, given: Sequence[Any] = ()) -> bool:
    """Whether the expression is defined and differentiable by the symbol on the whole domain."""
    return _is_smooth(expression, symbol, tuple(given))


@lru_cache(maxsize=4096)
def _is_smooth(expression: Any, symbol: Any, given: tuple[Any, ...]) -> bool:
    wanted = [*needs(expression, given), *kinks(expression, symbol, given)]
    return all(_cheaply(need) for need in dict.fromkeys(wanted))


def _cheaply(need: Need) -> bool:
    """A need decided without the slopes that asked for it."""
    if need.kind == "real":
        return bool(need.subject.is_extended_real)
    return prove_need(need, 0)


def _anchors(expression: sp.Expr, symbol: sp.Symbol) -> list[sp.Expr]:
    """Where the expression may be smallest: the end of the domain, and 0, 1 and simple zeros of the slope."""
    found = [sp.Integer(0)] if symbol.is_nonnegative else [sp.Integer(0), sp.Integer(1)]
    numerator = sp.fraction(sp.factor(sp.together(sp.diff(expression, symbol))))[0]
    for factor in sp.Mul.make_args(numerator):
        inside = factor.args[0] if isinstance(factor, (sp.log, sp.sinh)) else factor
        inside = inside - 1 if isinstance(factor, sp.log) else inside
        if inside.is_polynomial(symbol) and sp.degree(inside, symbol) == 1:
            root = sp.solve(inside, symbol)
            found += [r for r in root if r.is_positive or (r.is_extended_real and not symbol.is_nonnegative)]
    return list(dict.fromkeys([*found, *([sp.Integer(1)] if symbol.is_positive else [])]))


def _rises_from(expression: sp.Expr, strict: bool, symbol: sp.Symbol, anchor: sp.Expr, depth: int) -> bool:
    at = expression.subs(symbol, anchor)
    if at.has(sp.nan, sp.zoo, sp.oo):
        return False
    outside = anchor.is_zero and symbol.is_positive  # the open end: the value there is only approached
    if outside and not smooth(expression.subs(symbol, (s := sp.Dummy("s", nonnegative=True))), s):
        return False
    start = sp.simplify(at)
    fine = start == 0 or _obvious(start, False) or (start.free_symbols and _has_sign(start, False, (), 0))
    if not fine or (strict and not outside and not _obvious(start, True)):
        return False
    step = sp.Dummy(symbol.name, positive=True)
    sides = [anchor + step]
    if not symbol.is_nonnegative:
        sides.append(anchor - step)
    elif anchor.is_positive:
        sides.append(anchor / (1 + step))  # all of (0, anchor)
    return all(_rises(expression.subs(symbol, side), strict and outside, step, depth) for side in sides)


def _rises(form: sp.Expr, strict: bool, step: sp.Symbol, depth: int) -> bool:
    """Whether the slope is not negative, or the slope's, as long as slopes get simpler, with both zero at the start."""
    slope = sp.diff(form, step)
    for f in _forms(slope):
        if _obvious(f, strict) or _by_factors(f, strict, (), depth - 1) or _by_coefficients(f, strict):
            return True
        if not strict and _by_range(f, False, 1):
            return True
    if depth <= 1 and not slope.count_ops() < form.count_ops():
        return False
    whole = slope.subs(step, (s := sp.Dummy("s", nonnegative=True)))
    start = sp.simplify(slope.subs(step, 0))
    if start.has(sp.nan, sp.zoo, sp.oo) or not _obvious(start, False) or not smooth(whole, s):
        return False
    return _rises(slope, strict, step, max(depth - 1, 1))
