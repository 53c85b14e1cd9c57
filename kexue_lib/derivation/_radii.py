"""Radii of balls: non-negative floats of 30 bits, always rounded up, and the answers other than a number."""

from mpmath.libmp import fone, fzero, mpf_add, mpf_div, mpf_exp, mpf_log, mpf_mul, mpf_sub

RADIUS_BITS = 30  # bits of a radius, always rounded up
HUGE = 40_000  # bits of the exponent beyond which an exponential is not worth computing


class NoValue(Exception):
    """The value cannot be enclosed at this precision, or at all."""


class Straddle(NoValue):
    """Argument `position` may or may not be exactly `guess` (or exactly real, where `guess` is None)."""

    def __init__(self, guess, position=0):
        super().__init__("cannot be told from an exceptional point")
        self.guess, self.position = guess, position


class Undefined(Exception):
    """The expression has no value at this point."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


def up_add(x, y):
    """x + y, rounded up."""
    return mpf_add(x, y, RADIUS_BITS, "u") if x[1] and y[1] else (x if x[1] else y)


def up_mul(x, y):
    """x y, rounded up."""
    return mpf_mul(x, y, RADIUS_BITS, "u")


def up_div(x, y):
    """x / y, rounded up."""
    return mpf_div(x, y, RADIUS_BITS, "u")


def down_sub(x, y):
    """x - y, rounded down; not below zero."""
    difference = mpf_sub(x, y, RADIUS_BITS, "f")
    return fzero if difference[0] else difference


def up_expm1(r):
    """exp(r) - 1, rounded up."""
    if not r[1]:
        return fzero
    magnitude = r[2] + r[3]
    if magnitude < -8:
        return up_mul(r, up_add(fone, r))
    if magnitude > HUGE:
        raise NoValue("the exponential of a huge number")
    return mpf_sub(mpf_exp(r, RADIUS_BITS + 10, "u"), fone, RADIUS_BITS, "u")


def up_log1p(x):
    """log(1 + x), rounded up."""
    return mpf_log(mpf_add(fone, x, 60, "u"), RADIUS_BITS, "u") if x[1] and x[2] + x[3] > -20 else x


def rounding(value, bits):
    """A bound of the error made by rounding to `bits` bits."""
    return (0, 1, value[2] + value[3] - bits, 1) if value[1] else fzero


def power_of_two(exponent):
    """2**exponent as a radius."""
    return (0, 1, exponent, 1)


def mpf_cmp_key(value):
    """A key by which non-negative floats sort."""
    return (value[2] + value[3], value[1] << max(0, 64 - value[3])) if value[1] else (-(10**30), 0)
