"""Whether a number that digits cannot tell from zero is exactly zero: the one question that is put to SymPy."""

from functools import lru_cache

import sympy as sp
from sympy.polys.polyerrors import PolynomialError

from kexue_lib.derivation._cannot import Cannot


def exact_number(ball):
    """The SymPy number of an exact ball."""
    number = sp.Rational(ball.a.numerator, ball.a.denominator)
    return number + sp.I * sp.Rational(ball.b.numerator, ball.b.denominator) if ball.b else number


@lru_cache(maxsize=2000)
def is_exactly_zero(expression):
    """Whether a number is zero, symbolically; None where SymPy does not say."""
    if expression.has(sp.nan, sp.zoo, sp.oo, -sp.oo):
        return None
    try:
        if sp.expand(expression) == 0:
            return True
        if sp.count_ops(expression) > 150:
            return None
        if sp.simplify(expression) == 0:
            return True
        if expression.is_algebraic and sp.count_ops(expression) < 40:
            unknown = sp.Dummy()
            return sp.minimal_polynomial(expression, unknown) == unknown
    except (Cannot, ValueError, TypeError, PolynomialError, ZeroDivisionError):
        return None
    return None


_TERMS = 8  # of a sum that an exact test looks at one by one


def written_out(expression, point):
    """Short finite sums and products, not nested, term by term."""

    def terms(total):
        (index, low, high), *more = total.limits
        low, high = (end.xreplace(point) for end in (low, high))
        short = low.is_Integer and high.is_Integer and 0 <= high - low <= _TERMS
        if more or not short or total.function.has(sp.Sum, sp.Product):
            return total
        combine = sp.Add if isinstance(total, sp.Sum) else sp.Mul
        return combine(*(total.function.xreplace({index: sp.Integer(k)}) for k in range(low, high + 1)))

    return expression.replace(lambda e: isinstance(e, (sp.Sum, sp.Product)), terms)
