"""Functions of balls that are not analytic: modulus, sign, integer part, extremum, conjugate.

On a disc they continue analytically from a piece of the real line that has no
kink; a ball across a kink is enclosed whole where that is asked for, and otherwise undecided.
"""

from fractions import Fraction

from mpmath.libmp import fone, fzero, mpc_abs, mpf_abs, mpf_add, mpf_cmp, mpf_floor, mpf_neg, mpf_sub
from mpmath.libmp import to_int as mpf_to_int

from kexue_lib.derivation._balls import (
    COMPLEX,
    DISC,
    Ball,
    I,
    add,
    div,
    from_bounds,
    hull,
    imaginary_part,
    mul,
    neg,
    real_part,
    real_sign,
    sides,
    sub,
)
from kexue_lib.derivation._elementary import finish, sqrt
from kexue_lib.derivation._radii import NoValue, Straddle, mpf_cmp_key


def absolute(x, bits, wide=False):
    """The modulus; `wide` allows an enclosure of all values of a ball that reaches both signs."""
    if x.inf:
        return Ball.infinite(1)
    if not x.flags & COMPLEX:
        sign = real_sign(x)
        if sign is None:
            if x.flags & DISC:
                raise NoValue("not analytic")
            low, high = sides(x)
            return from_bounds(fzero, max(mpf_abs(low), mpf_abs(high), key=mpf_cmp_key), bits)
        return neg(x) if sign < 0 else x
    if x.flags & DISC:
        raise NoValue("not analytic")
    if x.a is not None:
        return sqrt(Ball.exact(Fraction(x.a) ** 2 + Fraction(x.b) ** 2), bits)
    value = mpc_abs((x.re, x.im), bits, "n")
    return finish(value, fzero, x.rad, 0, bits)


def sign(x, bits, wide=False):
    """-1, 0, 1, or x/|x| for complex x."""
    if x.flags & COMPLEX:
        return div(x, absolute(x, bits), bits)
    known = real_sign(x)
    if known is None:
        if wide and not x.flags:
            return Ball(fzero, fzero, fone, 0)
        raise Straddle(0)
    return Ball.exact(known)


def floor(x, bits, wide=False):
    """The greatest integer not above x, of real and imaginary part."""
    if x.flags & COMPLEX:
        parts = floor(real_part(x), bits), floor(imaginary_part(x), bits)
        return add(parts[0], mul(I, parts[1], bits), bits)
    if x.inf:
        return x
    if x.a is not None:
        return Ball.exact(x.a.numerator // x.a.denominator)
    low, high = (mpf_to_int(mpf_floor(side, 0)) for side in _real_sides(x))
    if low == high:
        return Ball.exact(low)
    if wide and not x.flags:
        return hull(Ball.exact(low), Ball.exact(high), bits)
    if high - low > 1:
        raise NoValue("the integer part of a wide ball")
    raise Straddle(high)


def _real_sides(x):
    return mpf_sub(x.re, x.rad), mpf_add(x.re, x.rad)


def ceiling(x, bits, wide=False):
    """The least integer not below x."""
    return neg(floor(neg(x), bits, wide))


def extremum(balls, direction, bits, wide=False):
    """The greatest (`direction` 1) or least (-1) of real balls."""
    best = balls[0]
    for other in balls[1:]:
        if best.inf or other.inf:
            if best.inf == -direction or other.inf == direction:
                best = other
            continue
        order = real_sign(sub(other, best, bits))
        if order is None:
            if best.flags & DISC or other.flags & DISC:
                raise NoValue("not analytic")
            best = _extremum_of_close(best, other, direction, bits)
        elif order == direction:
            best = other
    return best


def _extremum_of_close(x, y, direction, bits):

    low, high = zip(*(sides(one, bits) for one in (x, y)))
    pick = lambda a, b: a if (mpf_cmp(a, b) > 0) == (direction > 0) else b
    return from_bounds(pick(*low), pick(*high), bits)


def conjugate(x, bits):
    """The complex conjugate."""
    if not x.flags & COMPLEX:
        return x
    if x.flags & DISC:
        raise NoValue("not analytic")
    if x.a is not None:
        return Ball.exact(x.a, -x.b)
    return Ball(x.re, mpf_neg(x.im), x.rad, x.flags)
