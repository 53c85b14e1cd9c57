"""Elementary functions of complex balls, with proven radii.

The value at the midpoint is mpmath's with guard bits; how far the function can
move over the ball is bounded by its derivative there. On a branch cut the value is SymPy's (arguments in (-pi, pi])
where the ball is real, and undecided where it straddles the cut.
"""

from fractions import Fraction
from functools import lru_cache
from math import isqrt

from mpmath.libmp import (
    fone,
    fzero,
    mpc_abs,
    mpc_exp,
    mpc_log,
    mpc_sqrt,
    mpf_abs,
    mpf_add,
    mpf_atan2,
    mpf_cmp,
    mpf_exp,
    mpf_log,
    mpf_pow,
    mpf_shift,
    mpf_sqrt,
    mpf_sub,
)

from kexue_lib.derivation._balls import (
    COMPLEX,
    DISC,
    ONE,
    ZERO,
    Ball,
    I,
    add,
    holds_zero,
    inverse,
    lower,
    mul,
    neg,
    pi,
    power_int,
    raw,
    real_part,
    real_sign,
    sides,
    sub,
    upper,
)
from kexue_lib.derivation._radii import (
    HUGE,
    NoValue,
    Straddle,
    Undefined,
    power_of_two,
    rounding,
    up_add,
    up_div,
    up_expm1,
    up_log1p,
    up_mul,
)

GUARD = 12
_HALF = Ball.exact(Fraction(1, 2))


def finish(re, im, spread, flags, bits):
    rad = up_add(spread, up_add(rounding(re, bits), rounding(im, bits)))
    return Ball(re, im, rad, flags)


# --- exponential and logarithm ---


def exp(x, bits):
    """The exponential."""
    if x.a == 0 and not x.b:
        return ONE
    if x.inf:
        return x if x.inf > 0 else ZERO
    re, im, rad = raw(x, bits + whole_bits(x) + GUARD)
    if re[1] and re[2] + re[3] > HUGE:
        if re[0] and mpf_cmp(mpf_abs(re), mpf_shift(rad, 1)) > 0:
            return Ball(fzero, fzero, power_of_two(-(2**HUGE)), x.flags)
        raise NoValue("the exponential of a huge number")
    if im == fzero:
        value, imaginary = mpf_exp(re, bits + 4, "n"), fzero
        size = mpf_abs(value)
    else:
        value, imaginary = mpc_exp((re, im), bits + GUARD, "n")
        size = mpc_abs((value, imaginary), 30, "u")
    return finish(value, imaginary, up_mul(up_mul(size, SLACK), up_expm1(rad)), x.flags, bits)


SLACK = mpf_add(fone, mpf_shift(fone, -20))


def whole_bits(x):
    """Extra bits that the size of an argument costs a periodic or exponential function."""
    if x.a is not None:
        return max(0, Fraction(x.a).numerator.bit_length() - Fraction(x.a).denominator.bit_length()) if x.a else 0
    return 0


def log(x, bits):
    """The principal logarithm."""
    if x.a is not None:
        if not (x.a or x.b):
            raise Undefined("log(0)")
        if x.a == 1 and not x.b:
            return ZERO
    if x.inf:
        if x.inf > 0:
            return x
        raise NoValue("log(-oo)")
    if holds_zero(x):
        raise Straddle(0)
    if not x.flags & COMPLEX and real_sign(x) == -1:
        return add(log(neg(x), bits), mul(pi(bits), I, bits), bits)
    if x.flags and meets_cut(x):
        raise Straddle(None)
    re, im, rad = raw(x, 2 * bits + GUARD if x.a is not None else bits)
    if re[1] and im[1] and abs(re[2] + re[3] - im[2] - im[3]) > 8 * bits:  # the squares could not be added
        return _log_of_flat(re, im, rad, x.flags, bits)
    value, imaginary = (mpf_log(re, bits + 4, "n"), fzero) if im == fzero else mpc_log((re, im), bits + GUARD, "n")
    spread = up_log1p(up_div(rad, lower(x))) if rad[1] else fzero
    return finish(value, imaginary, spread, x.flags, bits)


def _log_of_flat(re, im, rad, flags, bits):
    """The logarithm where one part is negligible beside the other: it counts as an error, but keeps its side."""
    real_rules = re[2] + re[3] > im[2] + im[3]
    large, small = (re, im) if real_rules else (im, re)
    angle = mpf_atan2(im, re, bits + 4, "n")
    spread = up_log1p(up_div(up_add(rad, mpf_abs(small)), mpf_abs(large)))
    return finish(mpf_log(mpf_abs(large), bits + 4, "n"), angle, spread, flags, bits)


def meets_cut(x, beyond=fzero):
    """Whether a complex ball reaches the real line to the left of `beyond` without lying on it."""
    re, im, rad = raw(x, 60)
    if x.a is not None and x.b:
        return False
    return mpf_cmp(mpf_abs(im), rad) <= 0 and mpf_cmp(mpf_sub(re, rad, 60, "f"), beyond) < 0


def argument(x, bits):
    """The argument in (-pi, pi]."""
    if x.a == 0 and not x.b:
        raise Undefined("arg(0)")
    if not x.flags & COMPLEX:
        sign = real_sign(x)
        if sign is None:
            raise Straddle(0)
        return ZERO if sign > 0 else pi(bits)
    if x.flags & DISC:
        raise NoValue("not analytic")
    if x.a is None and (holds_zero(x) or meets_cut(x)):
        raise Straddle(0 if holds_zero(x) else None)
    re, im, rad = raw(x, bits + GUARD)
    spread = up_mul(up_div(rad, lower(x)), (0, 7, -2, 3)) if rad[1] else fzero
    return finish(mpf_atan2(im, re, bits, "n"), fzero, spread, 0, bits)


def sqrt(x, bits):
    """The principal square root."""
    if x.a is not None and not x.b:
        root = exact_root(x.a, 2)
        if root is not None:
            return root
    if x.inf:
        if x.inf > 0:
            return x
        raise NoValue("sqrt(-oo)")
    if not x.flags & COMPLEX and real_sign(x) == -1:
        return mul(I, sqrt(neg(x), bits), bits)
    if holds_zero(x):
        if x.flags & DISC:
            raise NoValue("not analytic")
        return Ball(fzero, fzero, mpf_sqrt(upper(x), 30, "u"), COMPLEX)
    if x.flags and meets_cut(x):
        raise Straddle(None)
    re, im, rad = raw(x, bits + GUARD)
    value, imaginary = (mpf_sqrt(re, bits, "n"), fzero) if im == fzero else mpc_sqrt((re, im), bits + GUARD, "n")
    # |sqrt(m + d) - sqrt(m)| = |d| / |sqrt(m + d) + sqrt(m)|, and the roots lie in the right half-plane.
    spread = up_div(rad, mpf_sqrt(lower(x), 30, "d")) if rad[1] else fzero
    return finish(value, imaginary, spread, x.flags, bits)


def exact_root(q, n):
    """The principal n-th root of a rational where it is one, as a ball; else None."""
    if q < 0:
        root = exact_root(-q, n) if n == 2 else None
        return None if root is None else Ball.exact(0, root.a)
    p, d = _integer_root(q.numerator, n), _integer_root(q.denominator, n)
    if p is None or d is None:
        return None
    return Ball.exact(p if d == 1 else Fraction(p, d))


def _integer_root(k, n):
    if k < 2:
        return k
    if n == 2:
        root = isqrt(k)
        return root if root * root == k else None
    if k.bit_length() > 4000 or k.bit_length() < n:
        return None
    low, high = 1, 1 << (k.bit_length() // n + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**n <= k else (low, middle - 1)
    return low if low**n == k else None


def power(x, y, bits):
    """x**y, the principal value; 0**0 is 1."""
    if x.a is not None and y.a is not None and not (x.b or y.b) and type(y.a) is not int:
        return _root(x.a, y.a, bits)
    return _power(x, y, bits)


def _power(x, y, bits):
    if y.a is not None and not y.b:
        if type(y.a) is int:
            return power_int(x, y.a, bits)
        if y.a == Fraction(1, 2):
            return sqrt(x, bits)
        if y.a == Fraction(-1, 2):
            return inverse(sqrt(x, bits), bits)
        if x.a is not None and not x.b and x.a >= 0 and y.a.denominator <= 64:
            root = exact_root(x.a, y.a.denominator)
            if root is not None:
                return power_int(root, y.a.numerator, bits)
    if x.inf or y.inf:
        return _power_infinite(x, y, bits)
    if x.a == 1 and not x.b:
        return ONE
    if x.a == 0 and not x.b:
        sign = real_sign(y)
        if sign == 1:
            return ZERO
        raise Undefined("0 to a negative power") if sign == -1 else Straddle(0, 1)
    if holds_zero(x):
        return _power_near_zero(x, y)
    return _power_by_log(x, y, bits)


@lru_cache(maxsize=4096)
def _root(x, y, bits):
    """A rational to a fraction, remembered: entries that were scaled together all have such a factor."""
    return _power(Ball.exact(x), Ball.exact(y), bits)


def _power_by_log(x, y, bits):
    guard = GUARD + max(0, exponent_of(y)) + max(0, exponent_of(x)).bit_length()
    return exp(mul(y, log(x, bits + guard), bits + guard), bits)


def exponent_of(x):
    re, im, _ = raw(x, 30)
    return max((part[2] + part[3] for part in (re, im) if part[1]), default=0)


def _power_near_zero(x, y):
    low = sides(real_part(y))[0]
    if x.flags & DISC or y.flags or low[0] or not low[1]:
        raise Straddle(0)
    reach = upper(x)
    if mpf_cmp(reach, fone) >= 0:
        raise NoValue("a power of a wide ball around zero")
    return Ball(fzero, fzero, mpf_pow(reach, low, 30, "u"), COMPLEX)


def _power_infinite(x, y, bits):
    if y.inf and not x.inf and not x.flags:
        gap, sign = real_sign(sub(x, ONE, bits)), real_sign(x)
        if sign == 1 and gap:
            return Ball.infinite(1) if gap * y.inf > 0 else ZERO
    if x.inf > 0 and not y.inf and not y.flags and (side := real_sign(y)):
        return Ball.infinite(1) if side > 0 else ZERO
    if x.inf > 0 and y.inf:
        return Ball.infinite(1) if y.inf > 0 else ZERO
    raise NoValue("a power of infinities")
