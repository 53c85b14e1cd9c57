"""Whether a number that digits cannot tell from zero is exactly zero: the one question that is put to SymPy."""

from functools import lru_cache

import sympy as sp
from sympy.polys.polyerrors import PolynomialError


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
    except (NotImplementedError, ValueError, TypeError, PolynomialError, ZeroDivisionError):
        return None
    return None
