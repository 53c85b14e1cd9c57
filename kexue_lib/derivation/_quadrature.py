"""Definite integrals of balls: adaptive Gauss-Legendre quadrature with a proven error (Petras' algorithm).

On a piece of the interval the integrand is evaluated on a whole disc around the
Bernstein ellipse of the piece. Where it is analytic and bounded by M there, the rule with n nodes errs by at most
64/15 M rho**(2-2n) / (1 - rho**-2) times half the length; elsewhere the piece is halved, until pieces with a kink are
negligible. Singular ends and infinite ranges are cut into blocks that halve or double, whose decay bounds the rest.
Waves that are not damped are faded out smoothly at several lengths; there the radius is ten times the spread.
"""

import itertools
from fractions import Fraction
from functools import lru_cache
from math import erfc

import mpmath
import sympy as sp
from mpmath.libmp import fzero

from kexue_lib.derivation._balls import (
    COMPLEX,
    ONE,
    ZERO,
    Ball,
    add,
    disc,
    from_bounds,
    holds_zero,
    mul,
    neg,
    raw,
    real_sign,
    sub,
    upper,
    with_radius,
)
from kexue_lib.derivation._compile import ON_DISC, ON_HULL, POINT, compiled, rule
from kexue_lib.derivation._radii import NoValue, Undefined, power_of_two
from kexue_lib.derivation._series import extrapolated

_BITS = 112
_SINGULAR_BITS = 420  # near a singular end x = a + exp(-u) has to keep its distance from a
_EPS, _NESTED, _LOOSE = mpmath.mpf("2e-22"), mpmath.mpf("1e-11"), mpmath.mpf("1e-2")
_RHOS = (6, mpmath.mpf("2.4"))
_NODES = (8, 12, 16, 20, 26, 34)
_MOST_PIECES = 1200
_FLOAT = mpmath.mpf("3e-16")  # what the fading, a double, may err


@rule(sp.Integral)
def _(expression):
    return _nested(expression.function, expression.limits)


def _nested(body, limits):
    """The closure of a nested integral; the last limit is the outermost."""
    if not limits:
        return compiled(body)
    *inner, limit = limits
    if len(limit) != 3:
        raise NoValue("an integral without limits")
    variable, low, high = limit
    integrand, low, high = _nested(body, inner), compiled(low), compiled(high)
    waves = [wave.args[0] for wave in body.atoms(sp.sin, sp.cos) if wave.has(variable)]
    waves += [-sp.I * power.args[0] for power in body.atoms(sp.exp) if power.has(variable)]
    slopes = [compiled(slope) for slope in (_slope(wave, variable) for wave in waves) if slope is not None]

    nested = bool(inner) or body.has(sp.Integral)

    def value(env):
        a, b = low(env), high(env)
        return Line(integrand, variable, env, slopes, nested).integral(a, b)

    return value


def _slope(argument, variable):
    if not argument.is_polynomial(variable):
        return None
    polynomial = sp.Poly(argument, variable)
    return polynomial.coeff_monomial(variable) if polynomial.degree() == 1 else None


@lru_cache(maxsize=32)
def nodes(n):
    """Nodes and weights of the Gauss-Legendre rule on (-1, 1)."""
    with mpmath.workprec(_BITS + 40):
        rule_ = []
        for k in range(1, n // 2 + 1):
            x = mpmath.cos(mpmath.pi * (k - mpmath.mpf("0.25")) / (n + mpmath.mpf("0.5")))
            for _ in range(9):
                p, q = mpmath.mpf(1), mpmath.mpf(0)
                for j in range(n):
                    p, q = ((2 * j + 1) * x * p - j * q) / (j + 1), p
                slope = n * (x * p - q) / (x * x - 1)
                x -= p / slope
            weight = 2 / ((1 - x * x) * slope * slope)
            rule_ += [(_float(x), _float(weight)), (_float(-x), _float(weight))]
    return tuple(rule_)


def _float(value):
    return Ball(value._mpf_, fzero, mpmath.ldexp(abs(value), -_BITS)._mpf_, 0)


class Line:
    """An integrand along the real line."""

    def __init__(self, integrand, variable, env, slopes=(), nested=False):
        self.integrand, self.variable, self.slopes = integrand, variable, slopes
        self.outer, self.pieces = env, 0
        self.nested = nested or env.nested
        self.eps = _LOOSE if env.mode != POINT else _NESTED if self.nested else _EPS
        self.use(_BITS)

    def use(self, bits):
        """Compute with so many bits."""
        self.bits, self.env = bits, self.outer.at(bits, exact_tests=False)
        self.env.mode, self.env.nested = self.outer.mode, self.nested

    def at(self, ball, mode):
        """The integrand on a ball."""
        self.outer.spend(8)
        env = self.env
        bound, before = env.bind(self.variable, ball), env.mode
        env.mode = max(mode, before)
        try:
            return self.integrand(env)
        finally:
            env.release(bound)
            env.mode = before

    def integral(self, a, b):
        """The integral from a to b."""
        if a.inf or b.inf:
            return self._infinite(a, b)
        width = sub(b, a, 400)
        if width.a is not None and not (width.a or width.b):
            return ZERO
        if not (a.flags | b.flags) and real_sign(a) and real_sign(b) and real_sign(a) != real_sign(b):
            return add(self.integral(a, ZERO), self.integral(ZERO, b), self.bits)
        half = mul(width, Ball.exact(Fraction(1, 2)), self.bits + 60)
        return add(self._from_end(a, half), neg(self._from_end(b, neg(half))), self.bits)

    def _from_end(self, end, width):
        """The integral from an end over a width; the end may be singular."""

        def plain(t, mode):
            return mul(self.at(add(end, mul(width, t, self.bits), self.bits), mode), width, self.bits)

        if self._is_singular(plain):
            return self._stretched(end, width, -1)
        return self._adaptive(plain)

    def _is_singular(self, function):
        tiny = mpmath.ldexp(1, -40)._mpf_
        try:
            upper(function(from_bounds(fzero, tiny, 60), ON_HULL))
        except (NoValue, Undefined):
            return True
        return False

    def _stretched(self, end, width, direction):
        """The integral over x = end + width y, y from 1 to oo or from 1 to 0, by blocks that double or halve."""
        at_zero = end.a == 0 and not end.b
        self.use(_BITS if direction > 0 or at_zero else _SINGULAR_BITS)

        def on_block(block):
            size = Fraction(2) ** (block if direction > 0 else -block - 1)
            scale = mul(width, Ball.exact(size), self.bits)

            def function(t, mode):
                here = add(end, mul(scale, add(t, ONE, self.bits), self.bits), self.bits)
                return mul(self.at(here, mode), scale, self.bits)

            return function

        try:
            return self._blocks(on_block)
        finally:
            self.use(_BITS)

    def _blocks(self, on_block):
        total, sizes, signs = ZERO, [], []
        for block in range(600):
            value = self._adaptive(on_block(block), max(sizes, default=mpmath.mpf(0)))
            if value.inf:
                return value
            total = add(total, value, self.bits)
            sizes.append(mpmath.mp.make_mpf(upper(value)))
            signs.append(real_sign(value) if not value.flags & COMPLEX else None)
            tail = _decay(sizes, self.eps)
            if tail is not None:
                return with_radius(total, tail._mpf_, self.bits)
            if block >= 30 and sizes[-1] >= mpmath.mpf("0.9995") * sizes[-9] and sizes[-1]:
                if len(set(signs[-9:])) == 1 and signs[-1]:
                    return Ball.infinite(signs[-1])
                raise NoValue("an integral that does not settle")
        raise NoValue("an integral that converges too slowly")

    def _infinite(self, a, b):
        if a.inf and b.inf:
            if a.inf == b.inf:
                return ZERO
            low, high = (a, b) if a.inf < 0 else (b, a)
            value = add(self._infinite(low, ZERO), self._infinite(ZERO, high), self.bits)
            return value if a.inf < 0 else neg(value)
        if a.inf:
            return neg(self._infinite(b, a))
        direction = b.inf
        frequency = self._frequency()
        if frequency is not None and self._is_undamped(a, direction, frequency):
            return self._faded(a, direction, frequency)
        start = add(a, Ball.exact(direction), self.bits)
        near = self.integral(a, start)
        return add(near, self._to_infinity(a, direction), self.bits)

    def _to_infinity(self, a, direction):
        # dx has the sign of the direction, and so has the step that multiplies the integrand.
        return self._stretched(a, Ball.exact(direction), 1)

    # --- one piece after the other ---

    def _adaptive(self, function, scale=mpmath.mpf(0)):  # noqa: B008 — immutable
        """The integral of a function over (0, 1)."""
        for place in (1, 4, 7, 10, 15):
            scale = max(scale, self._sampled(function, Ball.exact(Fraction(place, 16)), 1))
        total = ZERO
        todo = [(0, 0)]
        seen = 0
        while todo:
            place, level = todo.pop()
            seen += 1
            self.pieces += 1
            if self.pieces > _MOST_PIECES * 4 or seen > _MOST_PIECES:
                raise NoValue("an integrand that takes too many pieces")
            centre = Ball.exact(Fraction(2 * place + 1, 2 << level))
            value, scale = self._piece(function, centre, level, scale)
            if value is None:
                if seen > 150 and total is ZERO:
                    raise NoValue("an integrand that no disc encloses")
                todo += [(2 * place + 1, level + 1), (2 * place, level + 1)]
            else:
                total = add(total, value, self.bits)
        return total

    def _piece(self, function, centre, level, scale):
        """The integral over a piece of length 2**-level, or None where it has to be halved."""
        half = power_of_two(-level - 1)
        size = mpmath.ldexp(1, -level - 1)
        scale = max(scale, self._sampled(function, centre, size))
        goal = self.eps * scale
        bound = self._bound(function, centre, size)
        if bound is not None:
            n, error = bound(goal)
            if n is not None:
                try:
                    return self._rule(function, centre, half, n, error), scale
                except NoValue:  # a pole nearby, closer than the precision
                    if level >= 140:
                        raise
        if level < 8 and scale:
            return None, scale
        try:
            reach = mpmath.mp.make_mpf(upper(function(disc(centre, half, 0), ON_HULL)))
            if 2 * size * reach <= goal or (level > 200 and not scale):
                return Ball(
                    fzero, fzero, (2 * size * reach)._mpf_, COMPLEX if _is_complex(function, centre) else 0
                ), scale
        except (NoValue, Undefined):
            if level >= 70:
                return self._around_singularity(function, centre, level), scale
        if level >= 140:
            raise NoValue("an integrand that is too rough")
        return None, scale

    def _around_singularity(self, function, centre, level):
        """A bound over a tiny piece where the integrand is not bounded but grows slower than 1/distance."""
        masses = []
        for exponent in (-level // 2, 10 - level, -level):
            step = Ball.exact(Fraction(2) ** exponent)
            values = [function(add(centre, one, self.bits), POINT) for one in (step, neg(step))]
            masses.append(max(mpmath.ldexp(mpmath.mp.make_mpf(upper(value)), exponent) for value in values))
        growth = mpmath.log(masses[1] / masses[0], 2) / (10 - level - (-level // 2)) if masses[0] else mpmath.mpf(1)
        if growth < mpmath.mpf("0.02"):
            raise Undefined("a pole in an integral")
        if growth < mpmath.mpf("0.1"):
            raise NoValue("an integrand with a strong singularity")
        return Ball(fzero, fzero, (8 * masses[2] / growth)._mpf_, COMPLEX if _is_complex(function, centre) else 0)

    def _sampled(self, function, place, size):
        try:
            return size * mpmath.mp.make_mpf(upper(function(place, POINT)))
        except NoValue:
            return mpmath.mpf(0)

    def _bound(self, function, centre, size):
        bounds = []
        for rho in _RHOS:
            radius = (size * (rho + 1 / mpmath.mpf(rho)) / 2)._mpf_
            try:
                reach = upper(function(disc(centre, radius), ON_DISC))
            except (NoValue, Undefined):
                continue
            bounds.append((rho, mpmath.mp.make_mpf(reach) * size * 64 / 15 / (1 - mpmath.mpf(rho) ** -2)))
            break

        def choose(goal):
            for rho, factor in bounds:
                for n in _NODES:
                    error = factor * mpmath.mpf(rho) ** (2 - 2 * n)
                    if error <= goal or not error:
                        return n, error
            return None, None

        return choose if bounds else None

    def _rule(self, function, centre, half, n, error):
        total, bits = ZERO, self.bits
        scale = Ball(half, fzero, fzero, 0)
        for node, weight in nodes(n):
            value = function(add(centre, mul(scale, node, bits), bits), POINT)
            total = add(total, mul(value, weight, bits), bits)
        return with_radius(mul(total, scale, bits), error._mpf_, bits)

    # --- waves ---

    def _frequency(self):
        """The lowest frequency of the sines, cosines and complex exponentials exp(i ω x) of a linear argument."""
        found = []
        for slope in self.slopes:
            ball = slope(self.env)
            if holds_zero(ball):
                continue
            re, _im, _ = raw(ball, 60)
            size = abs(mpmath.mp.make_mpf(re))
            if size:
                found.append(size)
        return min(found) if found else None

    def _is_undamped(self, a, direction, frequency):
        sizes = [self._amplitude(a, direction, frequency, place) for place in (1, 300)]
        return sizes[1] > mpmath.mpf("1e-20") * sizes[0]

    def _amplitude(self, a, direction, frequency, place):
        best = mpmath.mpf(0)
        for k in range(24):
            step = mpmath.mpf(place * (1 + mpmath.mpf(k) / 60) + k * mpmath.mpf("0.37")) / frequency * direction
            ball = add(a, Ball(step._mpf_, fzero, fzero, 0), self.bits)
            best = max(best, mpmath.mp.make_mpf(upper(self.at(ball, POINT))))
        return best

    def _faded(self, a, direction, frequency):
        """A wave that decays slowly, from a to infinity: faded out at five lengths, and what they tend to."""
        early, late = (self._amplitude(a, direction, frequency, place) for place in (200, 800))
        if late > mpmath.mpf("0.93") * early:
            far = [self._amplitude(a, direction, frequency, 10**exponent) for exponent in (4, 6, 9, 15, 25)]
            if min(far) < early / 2:
                raise NoValue("a wave that fades late")
            raise Undefined("an integral that oscillates for ever")
        unit = mpmath.mpf(3) / frequency
        start = 8
        first = add(a, Ball((unit * start * direction)._mpf_, fzero, fzero, 0), self.bits)
        near = self.integral(a, first)
        lengths = [mpmath.mpf(240) * mpmath.mpf(2) ** (mpmath.mpf(j - 4) / 3) for j in range(5)]
        sums, error, flags = self._wave_sums(a, unit * direction, start, lengths)
        with mpmath.workprec(_BITS):
            value, spread = min(
                (extrapolated(sums, exponent, mpmath.cbrt(2)) for exponent in (1, mpmath.mpf("0.5"))),
                key=lambda pair: pair[1],
            )
            radius = 10 * spread + error + mpmath.mpf("1e-18") * abs(value)
        if radius > mpmath.mpf("1e-3") * max(abs(value), mpmath.mpf("1e-3")):
            raise NoValue("an oscillating integral that does not settle")
        far = Ball(value.real._mpf_, value.imag._mpf_ if flags else fzero, radius._mpf_, flags)
        return add(near, mul(far, Ball.exact(direction), self.bits), self.bits)

    def _wave_sums(self, a, unit, start, lengths):
        sums, error, flags = [mpmath.mpc(0)] * len(lengths), mpmath.mpf(0), 0
        half = abs(unit) / 2
        for piece in range(start, int(lengths[-1])):
            for node, weight in nodes(24):
                with mpmath.workprec(_BITS):
                    place = piece + (1 + mpmath.mp.make_mpf(node.re)) / 2
                    step = place * unit
                ball = self.at(add(a, Ball(step._mpf_, fzero, fzero, 0), self.bits), POINT)
                re, im, rad = raw(ball, _BITS)
                flags |= ball.flags
                with mpmath.workprec(_BITS):
                    part = mpmath.mp.make_mpc((re, im)) * mpmath.mp.make_mpf(weight.re) * half
                    error += mpmath.mp.make_mpf(rad) * half + abs(part) * _FLOAT
                    for j, length in enumerate(lengths):
                        if place < length:
                            sums[j] += part * erfc(17 * float(place / length) - 10.6) / 2
        return sums, error, flags


def _decay(sizes, eps):
    """A bound of the blocks still to come, from a decay that has settled; None while it matters or has not."""
    if len(sizes) < 8:
        if len(sizes) >= 4 and not any(sizes[-3:]):
            return mpmath.mpf(0) if any(sizes) else None
        return None
    last = sizes[-6:]
    if not any(last):
        return mpmath.mpf(0)
    if any(not first for first in last[:-1]):
        return None
    ratio = max(second / first for first, second in itertools.pairwise(last))
    if ratio >= mpmath.mpf("0.95"):
        return None
    tail = 4 * last[-1] * ratio / (1 - ratio)
    return tail if tail <= eps * max(sizes) else None


def _is_complex(function, centre):
    try:
        return bool(function(centre, POINT).flags & COMPLEX)
    except (NoValue, Undefined):
        return True
