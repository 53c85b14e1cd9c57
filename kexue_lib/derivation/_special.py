"""Special and combinatorial functions of balls: exact on integers, mpmath's value with an honest radius elsewhere.

Rational cases are computed exactly. Otherwise the value at the midpoint is mpmath's, computed at two precisions that
have to agree, and its radius four times what the function moves to the neighbouring points; balls too wide for that,
or too near to a singularity, are refused. The error functions are entire with a simple derivative: their radii are
proven, on wide balls too.
"""

from fractions import Fraction
from math import comb, factorial

import mpmath
import sympy as sp
from mpmath.libmp import fone, fzero, mpf_exp, mpf_shift

from kexue_lib.derivation._balls import (
    COMPLEX,
    DISC,
    ONE,
    ZERO,
    Ball,
    add,
    div,
    inverse,
    magnitude,
    mul,
    neg,
    rational,
    raw,
    real_sign,
    sub,
    upper,
)
from kexue_lib.derivation._cannot import Cannot
from kexue_lib.derivation._radii import HUGE, NoValue, Straddle, Undefined, power_of_two, rounding, up_add, up_mul
from kexue_lib.derivation._regular import room as distance
from kexue_lib.derivation._rounding import floor

GUARD = 40
_REFUSALS = (ValueError, ZeroDivisionError, OverflowError, Cannot, TypeError, mpmath.mp.NoConvergence)
_TWO = Ball.exact(2)


def narrow(name, balls, bits, function=None):
    """The ball of mpmath's function of this name, or of `function`, over narrow balls."""
    function = function or getattr(mpmath, name)
    if any(ball.inf for ball in balls) or any((magnitude(ball) or 0) > 4000 for ball in balls):
        raise NoValue("an infinite or huge argument")
    values = [_at_middle(function, balls, bits + extra, ()) for extra in (GUARD, 2 * GUARD)]
    spread = abs(values[0] - values[1])
    for place, ball in enumerate(balls):
        rad = raw(ball, bits)[2] if ball.a is None else fzero
        if not rad[1]:
            continue
        if not _moves_little(ball, rad, name, balls, place):
            raise NoValue("a wide argument of a special function")
        for direction in (1, -1, *((1j, -1j) if ball.flags else ())):
            moved = _at_middle(function, balls, bits + GUARD, (place, rad, direction))
            spread += abs(moved - values[0])
    value = values[1]
    flags = 0
    for ball in balls:
        flags |= ball.flags
    if not isinstance(value, mpmath.mpf):
        flags |= COMPLEX
    if not (mpmath.isfinite(value) and mpmath.isfinite(spread)):
        raise NoValue("not finite")
    re, im = value._mpc_ if isinstance(value, mpmath.mpc) else (value._mpf_, fzero)
    rad = up_add(mpf_shift(mpmath.mpf(spread)._mpf_, 2), up_add(rounding(re, bits), rounding(im, bits)))
    return Ball(re, im, rad, flags)


def _moves_little(ball, rad, name, balls, place):
    """Whether the ball is small beside the distance to all that disturbs the function."""
    re, im, _ = raw(ball, 120)
    with mpmath.workprec(120):
        middle = mpmath.mp.make_mpf(re) if im == fzero else mpmath.mp.make_mpc((re, im))
        room = distance(name, balls, place, middle)
        if room is None:  # an unknown function: no disc proves it analytic
            room = 0 if ball.flags & DISC else min(1, abs(middle))
        return mpmath.ldexp(mpmath.mp.make_mpf(rad), 20) <= room


def _at_middle(function, balls, bits, move):
    with mpmath.workprec(bits):
        arguments = []
        for place, ball in enumerate(balls):
            if ball.a is not None and type(ball.a) is int and not ball.b:
                value = ball.a
            else:
                re, im, _ = raw(ball, bits)
                value = mpmath.mp.make_mpf(re) if im == fzero else mpmath.mp.make_mpc((re, im))
            if move and move[0] == place:
                value = value + mpmath.mp.make_mpf(move[1]) * move[2]
            arguments.append(value)
        try:
            return mpmath.mp.convert(function(*arguments))
        except _REFUSALS as error:
            raise NoValue(str(error)) from error


def from_mpmath(name):
    """The ball function that follows mpmath's function of this name."""
    return lambda *arguments: narrow(name, arguments[:-1], arguments[-1])


def airy_slope(name):
    """The ball function of the derivative of an Airy function."""
    return lambda x, bits: narrow(name, (x,), bits, lambda x: getattr(mpmath, name)(x, derivative=1))


# --- factorials ---


def _integer(x):
    return x.a if x.a is not None and type(x.a) is int and not x.b else None


def _refuse_poles(x):
    """Where gamma has a pole, or may have one."""
    n = _integer(x)
    if n is not None:
        if n <= 0:
            raise Undefined("the gamma function at a pole")
        return
    if x.a is None and not x.inf and real_sign(sub(x, _TWO, 60)) != 1:
        near = _nearest(x)
        if near is not None and near <= 0:
            raise Straddle(near)


def _nearest(x):
    re, im, rad = raw(x, 80)
    with mpmath.workprec(200):
        middle, reach = mpmath.mpc(mpmath.mp.make_mpf(re), mpmath.mp.make_mpf(im)), mpmath.mp.make_mpf(rad)
        whole = int(mpmath.nint(middle.real))
        return whole if abs(middle - whole) <= reach else None


def gamma(x, bits):
    """The gamma function."""
    if x.inf > 0:
        return x
    _refuse_poles(x)
    n = _integer(x)
    if n is not None and n <= 4000:
        return Ball.exact(factorial(n - 1))
    return narrow("gamma", (x,), bits)


def loggamma(x, bits):
    """The logarithm of the gamma function."""
    if x.inf > 0:
        return x
    _refuse_poles(x)
    return ZERO if _integer(x) in (1, 2) else narrow("loggamma", (x,), bits)


def lower_gamma(a, x, bits):
    """The integral of t**(a-1) exp(-t) from 0 to x."""
    return narrow("lower gamma", (a, x), bits, lambda a, x: mpmath.gammainc(a, 0, x))


def factorial_(x, bits):
    """x!"""
    n = _integer(x)
    if n is not None and n < 0:
        raise Undefined("the factorial of a negative integer")
    return gamma(add(x, ONE, bits), bits)


def factorial2(x, bits):
    """x!!"""
    n = _integer(x)
    if n is None or n < -1 or n > 6000:
        raise NoValue("a double factorial")
    return Ball.exact(int(sp.factorial2(n)))


def digamma(x, bits):
    """The logarithmic derivative of gamma."""
    _refuse_poles(x)
    return narrow("digamma", (x,), bits)


def polygamma(n, x, bits):
    """The n-th derivative of digamma."""
    _refuse_poles(x)
    return narrow("polygamma", (n, x), bits)


def binomial(n, k, bits):
    """The binomial coefficient, zero for negative integers k."""
    top, bottom = _integer(n), _integer(k)
    if bottom is not None:
        if bottom < 0:
            return ZERO
        if top is not None and top >= 0 and top <= 100_000:
            return Ball.exact(comb(top, bottom))
        if bottom <= 3000:
            return div(falling(n, k, bits), Ball.exact(factorial(bottom)), bits)
    return narrow("binomial", (n, k), bits)


def _steps(x, count, step, bits):
    value = ONE
    for k in range(count):
        value = mul(value, add(x, Ball.exact(step * k), bits), bits)
    return value


def rising(x, k, bits):
    """x (x+1) ... (x+k-1)."""
    count = _integer(k)
    if count is None or abs(count) > 3000:
        return narrow("rf", (x, k), bits)
    if count >= 0:
        return _steps(x, count, 1, bits)
    return inverse(_steps(sub(x, ONE, bits), -count, -1, bits), bits)


def falling(x, k, bits):
    """x (x-1) ... (x-k+1)."""
    count = _integer(k)
    if count is None or abs(count) > 3000:
        return narrow("ff", (x, k), bits)
    if count >= 0:
        return _steps(x, count, -1, bits)
    return inverse(_steps(add(x, ONE, bits), -count, 1, bits), bits)


def beta(x, y, bits):
    """The beta function."""
    return div(mul(gamma(x, bits), gamma(y, bits), bits), gamma(add(x, y, bits), bits), bits)


def harmonic(n, *rest):
    """The harmonic number, of order one unless an order is given."""
    *order, bits = rest
    power = _integer(order[0]) if order else 1
    count = _integer(n)
    if count is not None and 0 <= count <= 3000 and power is not None:
        total = Fraction(0)
        for k in range(1, count + 1):
            total += Fraction(1, k**power) if power >= 0 else k**-power
        return rational(total, 0, bits)
    if power == 1:
        return narrow("harmonic", (n,), bits)
    raise NoValue("a harmonic number of this order")


def zeta(s, *rest):
    """The zeta function of Riemann or Hurwitz."""
    if _integer(s) == 1:
        raise Undefined("zeta(1)")
    return narrow("zeta", (s, *rest[:-1]), rest[-1])


# --- error functions ---


def _error_function(function, direction):
    def ball(x, bits):
        re, im, rad = raw(x, 2 * bits) if x.a is not None else raw(x, bits)
        if x.inf or max((part[2] + part[3] for part in (re, im) if part[1]), default=0) > 60:
            raise NoValue("an error function at a huge number")
        value = _at_middle(function, (x,), bits + GUARD, ())
        parts = value._mpc_ if isinstance(value, mpmath.mpc) else (value._mpf_, fzero)
        spread = up_mul(rad, _gaussian_slope(x, direction)) if rad[1] else fzero
        spread = up_add(spread, up_add(rounding(parts[0], bits), rounding(parts[1], bits)))
        return Ball(*parts, spread, x.flags)

    return ball


def _gaussian_slope(x, direction):
    """A bound of 2/sqrt(pi) |exp(-direction x**2)| on the ball."""
    middle = Ball(*raw(x, 60)[:2], fzero, COMPLEX)
    exponent = neg(mul(middle, middle, 60)) if direction > 0 else mul(middle, middle, 60)
    rad = raw(x, 60)[2]
    more = up_mul(rad, up_add(mpf_shift(upper(middle), 1), rad))
    reach = mpmath.libmp.mpf_add(exponent.re, up_add(more, power_of_two(-20)), 30, "u")
    if reach[1] and reach[2] + reach[3] > HUGE:
        raise NoValue("an error function on a wide ball")
    return up_mul(mpf_exp(reach, 30, "u"), (0, 5, -2, 3))


_erf, erfi = _error_function(mpmath.erf, 1), _error_function(mpmath.erfi, -1)
erfc = _error_function(mpmath.erfc, 1)


def erf(x, bits):
    """The error function, as 1 - erfc where it is close to 1."""
    if x.a == 0 and not x.b:
        return ZERO
    if x.inf:
        return Ball.exact(x.inf)
    if not x.flags and real_sign(sub(x, ONE, 60)) == 1:
        return sub(ONE, erfc(x, bits), bits)
    if not x.flags and real_sign(add(x, ONE, 60)) == -1:
        return sub(erfc(neg(x), bits), ONE, bits)
    return _erf(x, bits)


# --- polynomials ---


def _by_recurrence(first, step):
    """Orthogonal polynomials of whole degree: p_0 = 1, p_1 = first(x), p_(k+1) = step(k, x, p_k, p_(k-1))."""

    def ball(n, x, bits):
        degree = _integer(n)
        if degree is None or not 0 <= degree <= 2000:
            raise NoValue("a polynomial of no moderate whole degree")
        previous, current = ZERO, ONE
        for k in range(degree):
            if k == 0:
                previous, current = ONE, first(x, bits)
                continue
            a, b, c, d = step(k)
            following = sub(
                mul(add(mul(Ball.exact(a), x, bits), Ball.exact(b), bits), current, bits),
                mul(Ball.exact(c), previous, bits),
                bits,
            )
            previous, current = current, mul(following, Ball.exact(Fraction(1, d)), bits)
        return current

    return ball


legendre = _by_recurrence(lambda x, bits: x, lambda k: (2 * k + 1, 0, k, k + 1))
chebyshev_t = _by_recurrence(lambda x, bits: x, lambda k: (2, 0, 1, 1))
chebyshev_u = _by_recurrence(lambda x, bits: mul(_TWO, x, bits), lambda k: (2, 0, 1, 1))
hermite = _by_recurrence(lambda x, bits: mul(_TWO, x, bits), lambda k: (2, 0, 2 * k, 1))
hermite_prob = _by_recurrence(lambda x, bits: x, lambda k: (1, 0, k, 1))
laguerre = _by_recurrence(lambda x, bits: sub(ONE, x, bits), lambda k: (-1, 2 * k + 1, k, k + 1))


# --- of integers and steps ---


def kronecker(i, j, bits):
    """1 where the indices are equal, 0 elsewhere."""
    difference = sub(i, j, bits)
    if difference.a is not None:
        return ZERO if difference.a or difference.b else ONE
    if real_sign(difference) is None:
        raise Straddle(0)
    return ZERO


def heaviside(x, *rest, wide=False):
    """The unit step, 1/2 or the given value at zero."""
    *at_zero, _ = rest
    known = real_sign(x)
    if known is None:
        if wide and not x.flags & DISC:
            return Ball(fone, fzero, fone, 0)
        raise Straddle(0)
    if known == 0:
        return at_zero[0] if at_zero else Ball.exact(Fraction(1, 2))
    return ONE if known > 0 else ZERO


def modulus(x, y, bits):
    """x - y floor(x/y)."""
    quotient = div(x, y, bits)
    try:
        return sub(x, mul(y, floor(quotient, bits), bits), bits)
    except Straddle as straddle:
        if straddle.guess is None or y.a is None:
            raise NoValue(str(straddle)) from straddle
        raise Straddle(straddle.guess * y.a) from straddle


def fractional(x, bits):
    """x - floor(x)."""
    return sub(x, floor(x, bits), bits)


def polylog(s, z, bits):
    """The polylogarithm, by its singularity at 1 undefined where s is not above 1."""
    if z.a == 1 and not z.b and not z.flags and real_sign(sub(s, ONE, bits)) != 1:
        raise Undefined("a polylogarithm at its pole")
    return narrow("polylog", (s, z), bits)
