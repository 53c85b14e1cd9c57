"""Closed forms of sums, derivatives by an entry, and rules for Kronecker deltas and binomial coefficients.

Part of :mod:`kexue_lib.derivation`, which is the place to call. Sums follow Karr's convention: a sum from 1 to B is
F(B) - F(0) with F(k) - F(k - 1) = f(k) for every integer B, also a negative one. An identity between such sums that
holds for arbitrary values f(k) holds for every B.
"""

from collections.abc import Callable

import sympy as sp

from kexue_lib.derivation._indexed_facts import Facts

_HIGHEST_POWER = 12
_KINKED = (sp.Abs, sp.sign, sp.Max, sp.Min, sp.Piecewise, sp.Heaviside, sp.floor, sp.ceiling, sp.frac, sp.Mod)
_NOT_ANALYTIC = (sp.arg, sp.re, sp.im, sp.conjugate, sp.DiracDelta, sp.LambertW)
_OPAQUE = (sp.Integral, sp.Limit, sp.Derivative, sp.Subs, sp.Lambda)


# --- closed forms -----------------------------------------------------------------------------------------------------


def closed_form(body: sp.Expr, k: sp.Symbol, high: sp.Expr, facts: Facts) -> sp.Expr | None:
    """The sum of a monomial over k = 1 ... high, where it is known: powers, geometric sums, binomial coefficients."""
    powers = body.as_powers_dict()
    power = powers.pop(k, sp.Integer(0))
    if not (power.is_Integer and 0 <= power <= _HIGHEST_POWER):
        return None
    rest = sp.Mul(*(base**exponent for base, exponent in powers.items()))
    if not rest.has(k):
        return sp.expand(rest * power_sum(int(power), high))
    binomials = [part for part in sp.Mul.make_args(rest) if isinstance(part, sp.binomial) and part.has(k)]
    ratio = geometric_ratio(sp.Mul(*(part for part in sp.Mul.make_args(rest) if part not in binomials)), k)
    if ratio is None:
        return None
    if len(binomials) == 1:
        return _binomial_sum(binomials[0], int(power), ratio, k, high, facts)
    if len(binomials) == 2 and power == 0 and ratio == 1:
        return _vandermonde(binomials, k, high, facts)
    if not binomials and facts.is_nonzero(ratio - 1):
        return geometric_sum(int(power), ratio, high)
    return None


def power_sum(power: int, high: sp.Expr) -> sp.Expr:
    """Faulhaber's polynomial for 1^p + ... + high^p, an identity in Karr's convention for every integer."""
    x = sp.Dummy("x")
    polynomial = (sp.bernoulli(power + 1, x + 1) - sp.bernoulli(power + 1, 1)) / (power + 1)
    return sp.expand(sp.expand(polynomial).xreplace({x: high}))


def geometric_ratio(body: sp.Expr, k: sp.Symbol) -> sp.Expr | None:
    """r where the body is r^k, None where it is something else."""
    ratio: sp.Expr = sp.Integer(1)
    for part in sp.Mul.make_args(body):
        if part == 1:
            continue
        base, exponent = part.as_base_exp()
        slope = sp.expand(exponent).coeff(k, 1)
        if base.has(k) or sp.expand(exponent - slope * k) != 0 or slope.has(k):
            return None
        ratio *= base**slope
    return ratio


def geometric_sum(power: int, ratio: sp.Expr, high: sp.Expr) -> sp.Expr:
    """The sum of k^p r^k over k = 1 ... high, for r != 1.

    From (k + 1)^p r^(k + 1) - k^p r^k = r^k [(r - 1) k^p + r (binomial(p, q) k^q summed over q < p)], summed over k.
    """
    lower = [geometric_sum(q, ratio, high) for q in range(power)]
    return (geometric_edge(power, ratio, high) - ratio * _binomial_mix(power, lower)) / (ratio - 1)


def geometric_edge(power: int, ratio: sp.Expr, high: sp.Expr) -> sp.Expr:
    """What k^p r^k grows by from k = 1 to high + 1."""
    return (high + 1) ** power * ratio**high * ratio - ratio


def _binomial_mix(power: int, lower: list[sp.Expr]) -> sp.Expr:
    return sp.Add(*(sp.binomial(power, q) * total for q, total in enumerate(lower)))


def _binomial_sum(
    choose: sp.Expr, power: int, ratio: sp.Expr, k: sp.Symbol, high: sp.Expr, facts: Facts
) -> sp.Expr | None:
    """The binomial theorem: binomial(N, k) k^p r^k over k = 0 ... N, for N >= 0, by falling factorials of k.

    N (N - 1) ... (N - q + 1) r^q (1 + r)^(N - q) stands for a polynomial in r; where 1 + r could be a zero to a
    negative power, only p = 0 is used.
    """
    top, bottom = choose.args
    if bottom == top - k:
        bottom = k
    missing = sp.expand(top - high)
    if bottom != k or top.has(k) or not (missing.is_Integer and abs(missing) <= 4) or not facts.at_least_zero(top):
        return None
    base = sp.factor(sp.together(1 + ratio))
    if power and not base.free_symbols and not facts.is_nonzero(base):
        return None
    total: sp.Expr = sp.Integer(0)
    for q in range(power + 1):
        stirling = sp.functions.combinatorial.numbers.stirling(power, q)
        total += stirling * sp.expand(sp.ff(top, q)) * ratio**q * base**top * base ** (-q)
    if power == 0:
        total -= 1
    for beyond in range(1, int(missing) + 1):  # terms up to N that the range leaves out; those after N are zero
        last = high + beyond
        total -= sp.binomial(top, last) * last**power * ratio**last
    return total


def _vandermonde(pair: list[sp.Expr], k: sp.Symbol, high: sp.Expr, facts: Facts) -> sp.Expr | None:
    """Vandermonde's convolution: binomial(a, k) binomial(b, c - k) over k = 0 ... c, for integers c >= 0.

    Both sides are polynomials in a and b for each c, so it holds for all of them.
    """
    for (a, first), (b, second) in ((pair[0].args, pair[1].args), (pair[1].args, pair[0].args)):
        total = sp.expand(second + k)
        if first == k and total == high and not (a.has(k) or b.has(k)) and facts.at_least_zero(high):
            return sp.binomial(a + b, high) - sp.binomial(b, high)
    return None


def binomial_value(choose: sp.Expr, facts: Facts) -> sp.Expr:
    """binomial(n, k) as 0 where k > n >= 0 or k < 0, and by Pascal's rule where n is a sum n' + 1 with n' >= 0."""
    top, bottom = choose.args
    if not (bottom.is_integer and facts.at_least_zero(top)):
        return choose
    if facts.at_least_zero(bottom - top - 1) or facts.at_least_zero(-bottom - 1):
        return sp.Integer(0)
    if sp.expand(bottom - top) == 0 or bottom == 0:
        return sp.Integer(1)
    shift, rest = sp.expand(top).as_coeff_Add()
    if rest != 0 and shift.is_Integer and 0 < shift <= 4 and facts.at_least_zero(top - 1):
        below = (sp.binomial(top - 1, bottom - move) for move in (0, 1))
        return sp.Add(*(binomial_value(part, facts) if isinstance(part, sp.binomial) else part for part in below))
    return choose


def factorial_value(factorial: sp.Expr, facts: Facts) -> sp.Expr:
    """(n + 2)! as (n + 2) (n + 1) n! for n >= 0, and (n - 1)! as n! / n, which is defined for n >= 1 only."""
    shift, rest = sp.expand(factorial.args[0]).as_coeff_Add()
    if rest == 0 or not shift.is_Integer or abs(shift) > 6 or not rest.is_integer:
        return factorial
    if shift > 0 and facts.at_least_zero(rest):
        return sp.factorial(rest) * sp.Mul(*(rest + i for i in range(1, int(shift) + 1)))
    if shift < 0:
        return sp.factorial(rest) / sp.Mul(*(rest - i for i in range(int(-shift))))
    return factorial


# --- Kronecker deltas -------------------------------------------------------------------------------------------------


def delta_root(delta: sp.Expr, k: sp.Symbol) -> sp.Expr | None:
    """The index at which the delta is one, where it moves with k by whole steps."""
    gap = sp.expand(delta.args[0] - delta.args[1])
    slope = gap.coeff(k, 1)
    rest = sp.expand(gap - slope * k)
    if slope not in (1, -1) or rest.has(k) or not rest.is_integer:
        return None
    return sp.expand(-slope * rest)


def merged_delta(term: sp.Expr) -> sp.Expr:
    """f(i, k) times delta(i, k) as f(i, i) times delta(i, k), for two symbols that are not bound."""
    for delta in sorted(term.atoms(sp.KroneckerDelta), key=sp.default_sort_key):
        factors = sp.Mul.make_args(term)
        if delta not in factors or not all(side.is_Symbol for side in delta.args):
            continue
        keep, drop = sorted(delta.args, key=sp.default_sort_key)
        rest = sp.Mul(*(factor for factor in factors if factor != delta))
        if rest.has(drop) and not _bound_in(rest, drop, keep):
            replaced = rest.xreplace({drop: keep})
            if not replaced.has(sp.zoo, sp.nan, sp.oo):
                term = delta * replaced
    return term


def _bound_in(expression: sp.Expr, *symbols: sp.Symbol) -> bool:
    return any(
        limit[0] in symbols
        for holder in expression.atoms(sp.Sum, sp.Product, *_OPAQUE)
        for limit in (getattr(holder, "limits", None) or [(symbol,) for symbol in holder.bound_symbols])
    )


def as_delta(pieces: sp.Expr) -> sp.Expr:
    """Two pieces, one for equal integer indices, as b + (a - b) delta; other pieces as they are."""
    if len(pieces.args) != 2 or pieces.args[1].cond != sp.true:
        return pieces
    (one, condition), (other, _) = pieces.args
    if isinstance(condition, sp.Ne):
        one, other, condition = other, one, sp.Eq(condition.lhs, condition.rhs, evaluate=False)
    if not (isinstance(condition, sp.Eq) and all(side.is_integer for side in condition.args)):
        return pieces
    if any(part.has(sp.Pow, sp.log) for part in (one, other)):  # a piece may be undefined where it is not chosen
        return pieces
    delta = sp.KroneckerDelta(condition.lhs, condition.rhs)
    return other + (one - other) * delta


# --- derivatives ------------------------------------------------------------------------------------------------------


def entry_derivative(expression: sp.Expr, variable: sp.Expr) -> sp.Expr | None:
    """The derivative by an entry x[i] or a symbol, of sums and products of any length; None where no rule applies.

    d x[j] / d x[i] is delta(i, j). Finite sums are differentiated term by term; a product is the sum over k of f'(k)
    times all other factors, written f(j)^(1 - delta(j, k)) so that no factor is divided by. Everything around them is
    differentiated by the chain rule, and functions with kinks, or not analytic, are left to the caller.
    """
    holders = (sp.Sum, sp.Product, sp.Indexed)
    inner = _outermost(expression, holders)
    marks = {part: sp.Dummy("u", **_assumptions(part)) for part in inner}
    outer = expression.xreplace(marks)
    slopes = {mark: _holder_derivative(part, variable) for part, mark in marks.items()}
    if any(slope is None for slope in slopes.values()):
        return None
    slopes = {mark: slope for mark, slope in slopes.items() if slope != 0}
    if variable.is_Symbol:
        slopes[variable] = sp.Integer(1)
    for mark in slopes:
        if any(part.has(mark) for part in outer.atoms(*_KINKED, *_NOT_ANALYTIC, *_OPAQUE)):
            return None
    total = sp.Add(*(sp.diff(outer, mark) * slope for mark, slope in slopes.items()))
    return total.xreplace({mark: part for part, mark in marks.items()})


def _holder_derivative(part: sp.Expr, variable: sp.Expr) -> sp.Expr | None:
    if isinstance(part, sp.Indexed):
        if variable.is_Symbol:
            return None if part.has(variable) else sp.Integer(0)
        if any(index.has(sp.Indexed) for index in part.indices):
            return None
        if part.base != variable.base or len(part.indices) != len(variable.indices):
            return sp.Integer(0)
        return sp.Mul(*(sp.KroneckerDelta(i, j) for i, j in zip(part.indices, variable.indices)))
    source = variable if variable.is_Symbol else variable.base
    if not part.has(source):
        return sp.Integer(0)
    fresh = {limit[0]: sp.Dummy("j", integer=True) for limit in part.limits}
    body = part.function.xreplace(fresh)
    limits = [tuple(piece.xreplace(fresh) for piece in limit) for limit in part.limits]
    ends = [end for limit in limits for end in limit[1:]]
    if any(len(limit) != 3 for limit in limits) or any(end.has(source, sp.oo, -sp.oo) for end in ends):
        return None
    slope = entry_derivative(body, variable)
    if slope is None or isinstance(part, sp.Sum):
        return slope if slope is None else sp.Sum(slope, *limits)
    return _product_derivative(body, slope, limits)


def _product_derivative(body: sp.Expr, slope: sp.Expr, limits: list[tuple]) -> sp.Expr | None:
    if len(limits) != 1:
        return None
    j, low, high = limits[0]
    k = sp.Dummy("k", integer=True)
    others = sp.Product(body ** (1 - sp.KroneckerDelta(j, k)), (j, low, high))
    return sp.Sum(slope.xreplace({j: k}) * others, (k, low, high))


def _outermost(expression: sp.Basic, kinds: tuple[type, ...]) -> list[sp.Basic]:
    if isinstance(expression, kinds):
        return [expression]
    found: list[sp.Basic] = []
    for part in expression.args:
        found += [inner for inner in _outermost(part, kinds) if inner not in found]
    return found


def _assumptions(part: sp.Expr) -> dict[str, bool]:
    names = ("integer", "real", "positive", "nonnegative", "negative", "nonzero", "finite", "commutative")
    known = {name: getattr(part, f"is_{name}") for name in names}
    return {name: value for name, value in known.items() if value}


def opaque(expression: sp.Basic) -> tuple[sp.Basic, Callable[[sp.Basic], sp.Basic]]:
    """Sums, products and entries as symbols with the same assumptions, and the way back."""
    marks = {
        part: sp.Dummy(f"u{count}", **_assumptions(part))
        for count, part in enumerate(_outermost(expression, (sp.Sum, sp.Product, sp.Indexed)))
    }
    back = {mark: part for part, mark in marks.items()}
    return expression.xreplace(marks), lambda form: form.xreplace(back)
