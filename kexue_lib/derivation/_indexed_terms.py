"""Single terms of sums of symbolic length: their powers, their fractions, and the names of their indices."""

from collections.abc import Iterator

import sympy as sp

from kexue_lib.derivation._cannot import Cannot
from kexue_lib.derivation._indexed_facts import Facts

_FIRST_INDEX = 10**9  # canonical indices are dummies numbered from here on: equal wherever they are made
_HIGHEST_EXPANDED = 8
_JUMPS = (sp.KroneckerDelta, sp.Piecewise, sp.sign, sp.Heaviside, sp.floor, sp.ceiling, sp.Mod)


# --- powers and fractions ---------------------------------------------------------------------------------------------


def split_power(power: sp.Expr) -> sp.Expr:
    """Powers of sums are multiplied out, and exponents split: base^(a + b) is base^a base^b.

    At a base of zero the factors may be undefined where the power is not. But what follows holds for every base other
    than zero, and both sides are continuous in the base, so it holds there too; a base that jumps is left alone.
    """
    base, exponent = power.as_base_exp()
    if base == 0 or power.is_Number:
        return power
    if exponent.is_Integer and exponent > 0:
        return sp.expand(power, deep=False) if exponent <= _HIGHEST_EXPANDED else power
    if isinstance(base, sp.Add) and exponent.is_Integer:
        return _reduced_denominator(base) ** exponent
    if isinstance(base, sp.Add) and exponent.is_integer:
        base = sp.factor(sp.together(base))
    power = sp.expand_power_base(base ** sp.expand(exponent), deep=False)
    return sp.Mul(*(_split_exponent(part) for part in sp.Mul.make_args(power)))


def _split_exponent(power: sp.Expr) -> sp.Expr:
    base, exponent = power.as_base_exp()
    if not isinstance(exponent, sp.Add) or base == 0 or (base.has(*_JUMPS) and not base.is_nonzero):
        return power
    return sp.Mul(*(base**part for part in exponent.args))


def _reduced_denominator(base: sp.Expr) -> sp.Expr:
    reduced = sp.factor_terms(base)
    parts = sp.Mul.make_args(reduced)
    flipped = [-part if part.is_Add and part.could_extract_minus_sign() else part for part in parts]
    sign = (-1) ** sum(part != other for part, other in zip(parts, flipped))
    return sign * sp.Mul(*flipped)


def partial_fractions(term: sp.Expr, k: sp.Symbol) -> sp.Expr | None:
    """Partial fractions in k: the terms with equal denominators meet after a shift."""
    rational = [part for part in sp.Mul.make_args(term) if part.has(k) and part.is_rational_function(k)]
    poles = [part for part in rational if isinstance(part, sp.Pow) and part.exp.is_negative]
    if not poles or (len(poles) == 1 and len(rational) == 1 and sp.degree(poles[0].base, k) == 1):
        return None
    if any(part.has(sp.Sum, sp.Product, sp.Indexed) for part in rational):
        return None
    whole = sp.Mul(*rational)
    try:
        parts = sp.apart(whole, k)
    except (Cannot, sp.PolynomialError):
        return None
    if not isinstance(parts, sp.Add):
        return None
    reduced = (
        sp.Mul(*(split_power(f) if isinstance(f, sp.Pow) else f for f in sp.Mul.make_args(p))) for p in parts.args
    )
    return sp.expand(sp.Add(*reduced) * (term / whole), power_exp=False)


# --- indices ----------------------------------------------------------------------------------------------------------


def fresh_index(low: sp.Expr, high: sp.Expr, facts: Facts) -> sp.Symbol:
    """An index of its own for a range: positive, or not negative, where all of the range is proved to be."""
    if facts.at_least_zero(high - low + 1):
        if facts.at_least_zero(low - 1):
            return sp.Dummy("k", integer=True, positive=True)
        if facts.at_least_zero(low):
            return sp.Dummy("k", integer=True, nonnegative=True)
    return sp.Dummy("k", integer=True)


def bound_index(level: int, positive: bool) -> sp.Symbol:
    """The canonical index of a level, counted from the innermost sum."""
    assumptions = {"integer": True, "positive": True} if positive else {"integer": True}
    return sp.Dummy(f"k{level}", dummy_index=_FIRST_INDEX + level, **assumptions)


def depth(expression: sp.Expr) -> int:
    """How many canonical indices are in use inside of an expression."""
    levels = [dummy.dummy_index - _FIRST_INDEX for dummy in expression.atoms(sp.Dummy)]
    return max((level for level in levels if level > 0), default=0)


def renamed(expression: sp.Expr) -> sp.Expr:
    """A sum with ends that are not known to be integers, or infinite: only its indices get canonical names."""
    symbols = [limit[0] for limit in expression.limits]
    inner = [part for part in sp.preorder_traversal(expression.function) if hasattr(part, "bound_symbols")]
    ends = [end for limit in expression.limits for end in limit[1:]]
    if any(end.has(*symbols) for end in ends) or any(set(part.bound_symbols) & set(symbols) for part in inner):
        return expression
    start = depth(expression)
    names = {
        symbol: sp.Dummy(f"k{start + i + 1}", dummy_index=_FIRST_INDEX + start + i + 1, **symbol.assumptions0)
        for i, symbol in enumerate(symbols)
    }
    return expression.xreplace(names)


def with_names(expression: sp.Expr, names: list[tuple[sp.Symbol, int]]) -> sp.Expr:
    """The expression with names for its free indices that only serve to compare."""
    return expression.xreplace({index: bound_index(10**6 + level, False) for index, level in names})


def first_offset(offsets: list[sp.Expr]) -> sp.Expr:
    """The offset that moves with a shift: of those that differ by numbers the smallest."""

    def key(offset: sp.Expr) -> tuple:
        number, symbolic = offset.as_coeff_Add()
        return (symbolic != 0, sp.default_sort_key(symbolic), number)

    return min(offsets, key=key)


def argument_offsets(expression: sp.Expr, k: sp.Symbol, bound: set[sp.Symbol]) -> Iterator[tuple[sp.Expr, sp.Expr]]:
    """(c, d) for each argument c k + d of an entry, a function or a power that is no polynomial."""
    if not expression.has(k):
        return
    if isinstance(expression, (sp.Sum, sp.Product)):
        yield from argument_offsets(expression.function, k, bound | {limit[0] for limit in expression.limits})
        return
    arguments: tuple[sp.Expr, ...] = ()
    if isinstance(expression, sp.Indexed):
        arguments = expression.indices
    elif isinstance(expression, sp.Function) and not isinstance(expression, sp.exp):
        arguments = expression.args
    elif isinstance(expression, sp.Pow) and not (expression.exp.is_Integer and expression.exp > 0):
        arguments = (expression.base,)
    for argument in (sp.expand(part) for part in arguments if isinstance(part, sp.Expr)):
        slope = argument.coeff(k, 1)
        if slope.is_Integer and slope != 0:
            rest = sp.expand(argument - slope * k)
            if rest.is_integer and not rest.has(k, *bound):
                yield slope, rest
    for part in expression.args:
        yield from argument_offsets(part, k, bound)
