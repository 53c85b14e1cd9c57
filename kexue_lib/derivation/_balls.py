"""Complex balls: numbers that carry a bound of their own error, or are exact rationals.

A ball is the set of complex numbers within `rad` of its midpoint; every operation
returns a ball that holds the result for all numbers of its operands. Rationals, and complex numbers with rational
parts, stay exact as long as they are of moderate length. Wide balls are as good as narrow ones: quadrature asks for
the values of an integrand on a whole disc at once.

Two flags say what is known beyond the disc: `COMPLEX` that the value need not be real, `DISC` that it is a function on
a disc around a piece of the real line. Without `COMPLEX` the number is real wherever the variable is, which lets |x|,
log x or a condition continue analytically from the real line; with neither flag the number itself is real.
"""

from fractions import Fraction
from functools import lru_cache

from mpmath.libmp import (
    fone,
    from_int,
    from_man_exp,
    from_rational,
    fzero,
    mpc_abs,
    mpc_mul,
    mpc_mul_mpf,
    mpf_abs,
    mpf_add,
    mpf_cmp,
    mpf_div,
    mpf_mul,
    mpf_neg,
    mpf_pi,
    mpf_shift,
    mpf_sub,
    to_rational,
)

from kexue_lib.derivation._radii import (
    HUGE,
    RADIUS_BITS,
    NoValue,
    Straddle,
    Undefined,
    down_sub,
    mpf_cmp_key,
    rounding,
    up_add,
    up_div,
    up_mul,
)

COMPLEX, DISC = 1, 2
_LONGEST = 6_000  # bits of a numerator or denominator up to which a rational stays exact


class Ball:
    """A disc in the complex plane, an exact number `a + b i` with rational parts, or a signed infinity."""

    __slots__ = ("a", "b", "flags", "im", "inf", "rad", "re")

    def __init__(self, re, im, rad, flags, a=None, b=0, inf=0):
        self.re, self.im, self.rad, self.flags, self.a, self.b, self.inf = re, im, rad, flags, a, b, inf

    @staticmethod
    def exact(a, b=0):
        """The exact number a + b i for ints or Fractions."""
        return Ball(None, None, None, COMPLEX if b else 0, a, b)

    @staticmethod
    def infinite(sign):
        """+oo or -oo."""
        return Ball(fzero, fzero, fzero, 0, inf=sign)

    @property
    def is_exact(self):
        """Whether the number is an exact rational, or complex with rational parts."""
        return self.a is not None

    @property
    def is_real(self):
        """Whether the number is known to be real."""
        return not self.flags

    def __repr__(self):
        if self.inf:
            return "Ball(oo)" if self.inf > 0 else "Ball(-oo)"
        if self.a is not None:
            return f"Ball({self.a}{f' + {self.b} i' if self.b else ''})"
        from mpmath.libmp import to_str

        imaginary = f" + {to_str(self.im, 20)} i" if self.flags else ""
        return f"Ball({to_str(self.re, 20)}{imaginary} ± {to_str(self.rad, 3)})"


ZERO, ONE, MINUS_ONE, I = Ball.exact(0), Ball.exact(1), Ball.exact(-1), Ball.exact(0, 1)


# --- from exact numbers and back ---


def _part(q, bits):
    if type(q) is int:
        value = from_int(q, bits, "n")
        return value, (rounding(value, bits) if q.bit_length() > bits else fzero)
    value = from_rational(q.numerator, q.denominator, bits, "n")
    return value, rounding(value, bits)


def raw(x, bits):
    """Midpoint (two floats) and radius of a ball; an exact number is rounded."""
    if x.a is None:
        return x.re, x.im, x.rad
    re, rad = _part(x.a, bits)
    if not x.b:
        return re, fzero, rad
    im, more = _part(x.b, bits)
    return re, im, up_add(rad, more)


def rational(a, b, bits):
    """The exact number a + b i, or a ball where its numerators have become too long."""
    if type(a) is Fraction:
        if a.denominator == 1:
            a = a.numerator
        elif a.denominator.bit_length() > _LONGEST or a.numerator.bit_length() > _LONGEST:
            return _rounded(a, b, bits)
    if type(a) is int and a.bit_length() > 16 * _LONGEST:
        return _rounded(a, b, bits)
    if not b:
        return Ball(None, None, None, 0, a, 0)
    if type(b) is Fraction and b.denominator.bit_length() > _LONGEST:
        return _rounded(a, b, bits)
    return Ball(None, None, None, COMPLEX, a, b)


def _rounded(a, b, bits):
    re, im, rad = raw(Ball.exact(a, b), bits)
    return Ball(re, im, rad, COMPLEX if b else 0)


def disc(centre, radius, flags=DISC):
    """The ball of rational centre and radius, as the values of a variable that runs through it."""
    re, im, rad = raw(centre, 200)
    return Ball(re, im, up_add(rad, radius), flags)


def fraction(value):
    """The exact rational value of a float of mpmath's."""
    p, q = to_rational(value)
    return Fraction(int(p), int(q))


@lru_cache(maxsize=64)
def pi(bits):
    """pi."""
    value = mpf_pi(bits, "n")
    return Ball(value, fzero, rounding(value, bits), 0)


# --- size and place ---


def upper(x):
    """A bound from above of the modulus."""
    if x.inf:
        raise NoValue("infinite")
    re, im, rad = raw(x, RADIUS_BITS)
    return up_add(mpf_abs(re) if im == fzero else mpc_abs((re, im), RADIUS_BITS, "u"), rad)


def lower(x, bits=RADIUS_BITS):
    """A bound from below of the modulus, zero where the ball holds zero."""
    if x.inf:
        return fone
    re, im, rad = raw(x, max(bits, RADIUS_BITS))
    return down_sub(mpf_abs(re) if im == fzero else mpc_abs((re, im), RADIUS_BITS, "d"), rad)


def holds_zero(x):
    """Whether zero may be among the numbers of the ball."""
    return not (x.a or x.b) if x.a is not None else not x.inf and not lower(x)[1]


def sides(x, bits=200):
    """The least and the greatest real part."""
    re, _, rad = raw(x, bits)
    wide = bits + 40
    return mpf_sub(re, rad, wide, "f"), mpf_add(re, rad, wide, "c")


def real_sign(x):
    """The sign of the real part: 1, 0, -1, or None where the ball leaves it open."""
    if x.inf:
        return x.inf
    if x.a is not None:
        return (x.a > 0) - (x.a < 0)
    if mpf_cmp(mpf_abs(x.re), x.rad) > 0:
        return -1 if x.re[0] else 1
    return 0 if not (x.re[1] or x.rad[1]) else None


def magnitude(x):
    """An exponent e with the midpoint below 2**e, hardly below 2**(e-2); None for zero."""
    if x.inf:
        return None
    if x.a is not None and not x.b:
        return x.a.numerator.bit_length() - x.a.denominator.bit_length() + 1 if x.a else None
    parts = [part[2] + part[3] for part in raw(x, RADIUS_BITS)[:2] if part[1]]
    return max(parts) if parts else None


def with_radius(x, extra, bits):
    """The ball with its radius enlarged."""
    re, im, rad = raw(x, bits)
    return Ball(re, im, up_add(rad, extra), x.flags)


def hull(x, y, bits):
    """A ball around both."""
    if x.inf or y.inf:
        if x.inf == y.inf:
            return x
        raise NoValue("infinite or not")
    middle = mul(add(x, y, bits), Ball.exact(Fraction(1, 2)), bits)
    reach = [upper(sub(middle, one, bits)) for one in (x, y)]
    return with_radius(middle, max(reach, key=lambda r: mpf_cmp_key(r)), bits)


# --- arithmetic ---


def neg(x):
    """-x."""
    if x.inf:
        return Ball.infinite(-x.inf)
    if x.a is not None:
        return Ball(None, None, None, x.flags, -x.a, -x.b)
    return Ball(mpf_neg(x.re), mpf_neg(x.im), x.rad, x.flags)


def add(x, y, bits):
    """x + y."""
    if x.a is not None and y.a is not None:
        return rational(x.a + y.a, x.b + y.b, bits)
    if x.inf or y.inf:
        if x.inf and y.inf and x.inf != y.inf:
            raise Undefined("oo - oo")
        return x if x.inf else y
    if x.a == 0 and not x.b:
        return y
    if y.a == 0 and not y.b:
        return x
    xr, xi, rx = raw(x, bits)
    yr, yi, ry = raw(y, bits)
    re = mpf_add(xr, yr, bits, "n")
    rad = up_add(up_add(rx, ry), rounding(re, bits))
    flags = x.flags | y.flags
    if not flags:
        return Ball(re, fzero, rad, 0)
    im = mpf_add(xi, yi, bits, "n")
    return Ball(re, im, up_add(rad, rounding(im, bits)), flags)


def sub(x, y, bits):
    """x - y."""
    return add(x, neg(y), bits)


def mul(x, y, bits):
    """x y."""
    if x.a is not None:
        if y.a is not None:
            if not (x.b or y.b):
                return rational(x.a * y.a, 0, bits)
            return rational(x.a * y.a - x.b * y.b, x.a * y.b + x.b * y.a, bits)
        if not x.b and x.a in (0, 1, -1):
            if y.inf and not x.a:
                raise Undefined("0 times oo")
            return (ZERO, y, neg(y))[x.a]
    elif y.a is not None and not y.b and y.a in (0, 1, -1):
        return mul(y, x, bits)
    if x.inf or y.inf:
        return _mul_infinite(x, y)
    xr, xi, rx = raw(x, bits)
    yr, yi, ry = raw(y, bits)
    flags = x.flags | y.flags
    if not flags:
        re = mpf_mul(xr, yr, bits, "n")
        rad = rounding(re, bits)
        if rx[1]:
            rad = up_add(rad, up_mul(up_add(mpf_abs(yr), ry), rx))
        if ry[1]:
            rad = up_add(rad, up_mul(mpf_abs(xr), ry))
        return Ball(re, fzero, rad, 0)
    if xi == fzero or yi == fzero:
        re, im = mpc_mul_mpf((yr, yi), xr, bits, "n") if xi == fzero else mpc_mul_mpf((xr, xi), yr, bits, "n")
    else:
        re, im = mpc_mul((xr, xi), (yr, yi), bits, "n")
    rad = up_add(rounding(re, bits), rounding(im, bits))
    if rx[1]:
        rad = up_add(rad, up_mul(up_add(mpc_abs((yr, yi), RADIUS_BITS, "u"), ry), rx))
    if ry[1]:
        rad = up_add(rad, up_mul(mpc_abs((xr, xi), RADIUS_BITS, "u"), ry))
    return Ball(re, im, rad, flags)


def _mul_infinite(x, y):
    signs = [real_sign(one) if not one.flags & COMPLEX else None for one in (x, y)]
    if None in signs:
        raise NoValue("an infinity times a number of unknown sign")
    if 0 in signs:
        raise Undefined("0 times oo")
    return Ball.infinite(signs[0] * signs[1])


def inverse(x, bits):
    """1 / x."""
    if x.a is not None:
        if not x.b:
            if not x.a:
                raise Undefined("division by zero")
            return rational(1 / Fraction(x.a), 0, bits)
        square = Fraction(x.a) ** 2 + Fraction(x.b) ** 2
        return rational(x.a / square, -x.b / square, bits)
    if x.inf:
        return ZERO
    size = lower(x)
    if not size[1]:
        raise Straddle(0)
    if x.im == fzero:
        re, im = mpf_div(fone, x.re, bits, "n"), fzero
    else:
        square = mpf_add(mpf_mul(x.re, x.re), mpf_mul(x.im, x.im), bits + 10, "n")
        re = mpf_div(x.re, square, bits + 4, "n")
        im = mpf_neg(mpf_div(x.im, square, bits + 4, "n"))
    rad = up_add(rounding(re, bits), rounding(im, bits))
    if x.rad[1]:
        middle = mpc_abs((x.re, x.im), RADIUS_BITS, "d")
        rad = up_add(rad, up_div(x.rad, mpf_mul(middle, size, RADIUS_BITS, "d")))
    return Ball(re, im, rad, x.flags)


def div(x, y, bits):
    """x / y."""
    return mul(x, inverse(y, bits), bits)


def power_int(x, n, bits):
    """x**n for an integer n; 0**0 is 1."""
    if n == 0:
        return ONE
    if x.a is not None:
        if n < 0:
            return inverse(power_int(x, -n, bits), bits)
        if not x.b and x.a in (0, 1, -1):
            return Ball.exact(x.a if n % 2 else abs(x.a))
        longest = max(part.bit_length() for q in (x.a, x.b) for part in (q.numerator, q.denominator))
        if longest * n <= 4 * _LONGEST and (not x.b or n <= 64):
            return rational(x.a**n, 0, bits) if not x.b else _by_squaring(x, n, bits)
    if x.inf:
        return ZERO if n < 0 else Ball.infinite(x.inf if n % 2 else 1)
    if n < 0:
        return inverse(power_int(x, -n, bits), bits)
    if n.bit_length() > HUGE:
        raise NoValue("a huge exponent")
    extra = 2 * n.bit_length() + 4
    if x.rad is not None and x.rad[1] and n.bit_length() < 40:
        narrow = with_radius(x, fzero, bits)
        narrow.rad = fzero
        value = _by_squaring(narrow, n, bits + extra)
        # |(m + d)**n - m**n| <= (|m| + r)**n - |m|**n, which is below n r (|m| + r)**(n-1).
        reach = power_up(upper(x), n - 1)
        return with_radius(value, up_mul(up_mul(from_int(n), x.rad), reach), bits)
    return _by_squaring(x, n, bits + extra)


def power_up(value, n):
    """A non-negative float to a whole power, rounded up."""
    result = fone
    while n:
        if n & 1:
            result = up_mul(result, value)
        value = up_mul(value, value)
        n >>= 1
    return result


def _by_squaring(x, n, bits):
    result = None
    while n:
        if n & 1:
            result = x if result is None else mul(result, x, bits)
        n >>= 1
        if n:
            x = mul(x, x, bits)
    return result


def scaled(x, exponent):
    """x 2**exponent, exactly."""
    if x.a is not None:
        factor = Fraction(2) ** exponent
        return Ball(None, None, None, x.flags, x.a * factor, x.b * factor if x.b else 0)
    return Ball(mpf_shift(x.re, exponent), mpf_shift(x.im, exponent), mpf_shift(x.rad, exponent), x.flags, inf=x.inf)


def real_part(x):
    """The real part, with the radius of the whole."""
    if x.a is not None:
        return Ball.exact(x.a)
    return Ball(x.re, fzero, x.rad, 0, inf=x.inf)


def imaginary_part(x):
    """The imaginary part, with the radius of the whole."""
    if x.a is not None:
        return Ball.exact(x.b)
    return ZERO if not x.flags else Ball(x.im, fzero, x.rad, 0)


def from_bounds(low, high, bits):
    """The real ball from one float to another."""
    middle = mpf_shift(mpf_add(low, high, bits, "n"), -1)
    reach = max(mpf_sub(high, middle, RADIUS_BITS, "u"), mpf_sub(middle, low, RADIUS_BITS, "u"), key=mpf_cmp_key)
    return Ball(middle, fzero, reach, 0)


def float_ball(value, bits):
    """The ball of zero radius around a float of mpmath's."""
    return Ball(from_man_exp(*value.man_exp, bits, "n"), fzero, fzero, 0)
