"""Circular, hyperbolic and inverse functions of complex balls, and the functions that are not analytic.

Radii follow from bounds of the derivative on the ball, as in
:mod:`kexue_lib.derivation._elementary`.
"""

import mpmath
from mpmath.libmp import (
    fone,
    fzero,
    mpc_cos_sin,
    mpf_abs,
    mpf_add,
    mpf_cmp,
    mpf_cos_sin,
    mpf_exp,
    mpf_lt,
    mpf_shift,
    mpf_sqrt,
)

from kexue_lib.derivation._balls import (
    COMPLEX,
    DISC,
    MINUS_ONE,
    ONE,
    ZERO,
    Ball,
    I,
    add,
    div,
    holds_zero,
    inverse,
    lower,
    mul,
    neg,
    pi,
    raw,
    real_sign,
    scaled,
    sub,
    upper,
)
from kexue_lib.derivation._elementary import (
    GUARD,
    SLACK,
    argument,
    exp,
    exponent_of,
    finish,
    log,
    meets_cut,
    sqrt,
    whole_bits,
)
from kexue_lib.derivation._radii import (
    HUGE,
    NoValue,
    Straddle,
    Undefined,
    down_sub,
    mpf_cmp_key,
    up_add,
    up_div,
    up_expm1,
    up_mul,
)

# --- circular and hyperbolic ---


def cos_sin(x, bits):
    """Cosine and sine."""
    if x.a == 0 and not x.b:
        return ONE, ZERO
    if x.inf:
        raise NoValue("a wave at infinity")
    re, im, rad = raw(x, bits + whole_bits(x) + GUARD)
    if max((part[2] + part[3] for part in (re, im) if part[1]), default=0) > HUGE:
        raise NoValue("a wave at a huge number")
    if im == fzero:
        c, s = mpf_cos_sin(re, bits + 4, "n")
        if not x.flags:  # |cos x - cos m|, |sin x - sin m| <= |x - m| on the real line, and never above 2
            spread = rad if mpf_lt(rad, fone) else mpf_shift(fone, 1)
            return finish(c, fzero, spread, 0, bits), finish(s, fzero, spread, 0, bits)
        pair, growth = ((c, fzero), (s, fzero)), fone
    else:
        pair = mpc_cos_sin((re, im), bits + GUARD, "n")
        growth = mpf_exp(mpf_abs(im), 30, "u")
    # The derivative on the ball is at most exp(|Im m| + r) in modulus.
    spread = up_mul(growth, up_expm1(rad))
    return tuple(finish(*value, spread, x.flags, bits) for value in pair)


def cos(x, bits):
    """The cosine."""
    return cos_sin(x, bits)[0]


def sin(x, bits):
    """The sine."""
    return cos_sin(x, bits)[1]


def tan(x, bits):
    """The tangent."""
    c, s = cos_sin(x, bits)
    return div(s, c, bits)


def cot(x, bits):
    """The cotangent."""
    c, s = cos_sin(x, bits)
    return div(c, s, bits)


def sec(x, bits):
    """The secant."""
    return inverse(cos_sin(x, bits)[0], bits)


def csc(x, bits):
    """The cosecant."""
    return inverse(cos_sin(x, bits)[1], bits)


def sinc(x, bits):
    """sin(x) / x, 1 at zero."""
    if x.a == 0 and not x.b:
        return ONE
    if holds_zero(x):
        # |sin(x)/x - 1| <= |x|**2 exp(|x|) / 6
        reach = upper(x)
        spread = up_mul(up_mul(reach, reach), up_add(fone, up_expm1(reach)))
        return Ball(fone, fzero, spread, x.flags)
    return div(sin(x, bits), x, bits)


def _with_cancellation(x, bits):
    """Bits for exp(x) - exp(-x), which cancels for small x."""
    return bits + max(0, 2 - (exponent_of(x) if not holds_zero(x) else 0)) + GUARD


def sinh(x, bits):
    """The hyperbolic sine."""
    if x.a == 0 and not x.b:
        return ZERO
    if x.inf:
        return x
    wide = _with_cancellation(x, bits)
    up = exp(x, wide)
    if not x.flags and holds_zero(x) and x.rad is not None and mpf_lt(x.rad, fone):
        return Ball(fzero, fzero, up_expm1(upper(x)), 0)
    return _rounded(scaled(sub(up, inverse(up, wide), wide), -1), bits)


def cosh(x, bits):
    """The hyperbolic cosine."""
    if x.inf:
        return Ball.infinite(1)
    up = exp(x, bits + GUARD)
    return scaled(add(up, exp(neg(x), bits + GUARD), bits), -1)


def tanh(x, bits):
    """The hyperbolic tangent, as 1 - 2/(exp(2x) + 1) on the right, so that its distance to 1 is seen."""
    if x.a == 0 and not x.b:
        return ZERO
    if x.inf:
        return ONE if x.inf > 0 else MINUS_ONE
    if _to_the_left(x):
        return neg(tanh(neg(x), bits))
    wide = _with_cancellation(x, bits)
    tail = div(Ball.exact(2), add(exp(scaled(x, 1), wide), ONE, wide), wide)
    return _rounded(sub(ONE, tail, wide), bits)


def _to_the_left(x):
    return x.a < 0 if x.a is not None else bool(x.re[0])


def coth(x, bits):
    """The hyperbolic cotangent."""
    return inverse(tanh(x, bits), bits) if not holds_zero(x) else inverse(x, bits)


def sech(x, bits):
    """The hyperbolic secant."""
    return inverse(cosh(x, bits), bits)


def csch(x, bits):
    """The hyperbolic cosecant."""
    return inverse(sinh(x, bits), bits)


def _rounded(x, bits):
    if x.a is not None or x.inf:
        return x
    zero = (fzero, fzero)
    re, im = (mpf_add(part, fzero, bits, "n") for part in (x.re, x.im))
    return finish(re, im, x.rad, x.flags, bits) if (re, im) != zero else x


# --- inverse functions ---


def _at_midpoint(function, x, bits):
    """mpmath's value at the midpoint with guard bits, as two floats."""
    re, im, _ = raw(x, 2 * bits + GUARD if x.a is not None else bits + GUARD)
    with mpmath.workprec(bits + 2 * GUARD):
        argument_ = mpmath.mp.make_mpf(re) if im == fzero else mpmath.mp.make_mpc((re, im))
        value = function(argument_)
    return (value._mpf_, fzero) if isinstance(value, mpmath.mpf) else value._mpc_


def _inverse_function(function, x, bits, slope, flags):
    re, im = _at_midpoint(function, x, bits)
    _, _, rad = raw(x, 2 * bits + GUARD)
    spread = up_mul(up_mul(rad, slope(x)), SLACK) if rad[1] else fzero
    return finish(re, im, spread, flags if im == fzero else flags | COMPLEX, bits)


def _distance(x, centre):
    return lower(sub(x, centre, 60))


def _beyond_unit(x, bits):
    """Real balls: -1, 0 or 1 for left of -1, inside, right of 1; None across an end."""
    right, left = real_sign(sub(x, ONE, bits)), real_sign(add(x, ONE, bits))
    if right is None or left is None:
        return None
    return 1 if right > 0 else -1 if left < 0 else 0


def asin(x, bits):
    """The principal arc sine."""
    if x.a == 0 and not x.b:
        return ZERO
    gap = up_root_slope(x)
    if gap is None:  # at an end the function moves like a square root
        _check_disc(x)
        reach = min((upper(sub(x, end, 60)) for end in (ONE, MINUS_ONE)), key=mpf_cmp_key)
        end = scaled(pi(bits), -1)
        end = end if real_sign(x) == 1 else neg(end)
        return Ball(end.re, fzero, up_add(end.rad, up_mul((0, 1, 2, 1), mpf_sqrt(reach, 30, "u"))), COMPLEX)
    if x.flags and x.b == 0 and _meets_two_cuts(x):
        raise Straddle(None)
    if not x.flags and _beyond_unit(x, bits) == 0:
        return _inverse_function(mpmath.asin, x, bits, lambda _: gap, 0)
    return _inverse_function(mpmath.asin, x, bits, lambda _: gap, x.flags)


def up_root_slope(x):
    """A bound of |1 - x**2|**(-1/2) on the ball; None where it is not bounded."""
    product = [_distance(x, end) for end in (ONE, MINUS_ONE)]
    if not (product[0][1] and product[1][1]):
        return fone if x.a in (1, -1) and not x.b else None
    return up_div(fone, mpf_sqrt(mpmath.libmp.mpf_mul(*product, 30, "d"), 30, "d"))


def _check_disc(x):
    if x.flags & DISC:
        raise NoValue("not analytic")


def _meets_two_cuts(x):
    re, im, rad = raw(x, 60)
    return mpf_cmp(mpf_abs(im), rad) <= 0 and mpf_cmp(mpf_add(mpf_abs(re), rad, 60, "c"), fone) > 0


def acos(x, bits):
    """The principal arc cosine."""
    if x.a == 1 and not x.b:
        return ZERO
    wide = bits + GUARD
    if x.a is not None and not x.b and abs(x.a) < 1:
        return _inverse_function(mpmath.acos, x, bits, up_root_slope, 0)
    return sub(scaled(pi(wide), -1), asin(x, wide), bits)


def atan(x, bits):
    """The principal arc tangent."""
    if x.a == 0 and not x.b:
        return ZERO
    if x.inf:
        return Ball(*raw(scaled(pi(bits), -1) if x.inf > 0 else neg(scaled(pi(bits), -1)), bits), 0)
    if x.a is not None and x.a == 0 and abs(x.b) == 1:
        raise Undefined("atan at a pole")
    if not x.flags:
        reach = down_sub(mpf_abs(raw(x, 60)[0]), raw(x, 60)[2])
        slope = up_div(fone, mpf_add(fone, mpmath.libmp.mpf_mul(reach, reach), 30, "d"))
    else:
        product = [_distance(x, end) for end in (I, neg(I))]
        re, im, rad = raw(x, 60)
        high = mpf_cmp(mpf_add(mpf_abs(im), rad, 60, "c"), fone) >= 0
        if not (product[0][1] and product[1][1]) or (x.rad and high and mpf_cmp(mpf_abs(re), rad) <= 0):
            raise NoValue("the arc tangent across its cut")
        slope = up_div(fone, mpmath.libmp.mpf_mul(*product, 30, "d"))
    return _inverse_function(mpmath.atan, x, bits, lambda _: slope, x.flags)


def atan2(y, x, bits):
    """The argument of x + i y for real balls."""
    return argument(add(x, mul(I, y, bits), bits), bits) if not (x.flags or y.flags) else _complex_atan2(y, x, bits)


def _complex_atan2(y, x, bits):
    size = sqrt(add(mul(x, x, bits), mul(y, y, bits), bits), bits)
    return neg(mul(I, log(div(add(x, mul(I, y, bits), bits), size, bits), bits), bits))


def asinh(x, bits):
    """The principal inverse hyperbolic sine."""
    if not x.flags:
        return _inverse_function(mpmath.asinh, x, bits, lambda _: fone, 0) if x.a != 0 else ZERO
    return neg(mul(I, asin(mul(I, x, bits), bits), bits))


def acosh(x, bits):
    """The principal inverse hyperbolic cosine."""
    if x.a == 1 and not x.b:
        return ZERO
    if x.inf:
        return x
    slope = up_root_slope(x)
    if slope is None:
        raise Straddle(1)
    if x.flags and not x.b and meets_cut(x, fone):
        raise Straddle(None)
    flags = x.flags if x.flags or _beyond_unit(x, bits) == 1 else COMPLEX
    return _inverse_function(mpmath.acosh, x, bits, lambda _: slope, flags)


def atanh(x, bits):
    """The principal inverse hyperbolic tangent."""
    if x.a is not None and not x.b and abs(x.a) in (0, 1):
        if x.a == 0:
            return ZERO
        raise Undefined("atanh at a pole")
    product = [_distance(x, end) for end in (ONE, MINUS_ONE)]
    if not (product[0][1] and product[1][1]):
        raise Straddle(1 if real_sign(x) == 1 else -1)
    if x.flags and not x.b and _meets_two_cuts(x):
        raise Straddle(None)
    slope = up_div(fone, mpmath.libmp.mpf_mul(*product, 30, "d"))
    flags = x.flags if x.flags or _beyond_unit(x, bits) == 0 else COMPLEX
    return _inverse_function(mpmath.atanh, x, bits, lambda _: slope, flags)


def of_inverse(function):
    """The function of 1/x: acot, asec, acsc, acoth, asech, acsch."""
    return lambda x, bits: function(inverse(x, bits), bits)


def acot(x, bits):
    """The principal arc cotangent, atan(1/x), pi/2 at zero."""
    if x.a == 0 and not x.b:
        return scaled(pi(bits), -1)
    return atan(inverse(x, bits), bits)
