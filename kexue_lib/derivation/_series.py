"""Sums and products: term by term where they are finite, with a bound of the tail where they are infinite.

An infinite sum is a partial sum and what is known of its tail. Terms that shrink
by a settled ratio are bounded by a geometric series. Terms of one sign that shrink like a power, and terms that
alternate or oscillate, are accelerated, and the radius is ten times what the last acceleration step moved. Terms that
do not tend to zero, and terms of one sign that are not below c/k, have no finite sum. How the terms behave is seen on a
long stretch, not proven: such a value refutes or supports a statement, it never proves one.
"""

import itertools

import mpmath
import sympy as sp
from mpmath.libmp import fzero, mpf_shift

from kexue_lib.derivation._balls import (
    COMPLEX,
    ONE,
    ZERO,
    Ball,
    add,
    inverse,
    magnitude,
    mul,
    neg,
    raw,
    real_sign,
    sub,
    upper,
    with_radius,
)
from kexue_lib.derivation._compile import compiled, rule
from kexue_lib.derivation._elementary import exp, log
from kexue_lib.derivation._radii import NoValue, Straddle, Undefined, up_add, up_mul

_MOST = 20_000
_FAR = (6, 9, 15, 25, 40, 80)  # powers of ten
_LONG = 4096  # terms after which the behaviour of a series is taken to show
_BITS = 260  # precision of what acceleration can reach


@rule(sp.Sum)
def _(expression):
    return _nested(expression.function, expression.limits, _sum)


@rule(sp.Product)
def _(expression):
    return _nested(expression.function, expression.limits, _product)


def _nested(body, limits, combine):
    """The closure of a nested sum or product; the last limit is the outermost."""
    if not limits:
        return compiled(body)
    *inner, limit = limits
    if len(limit) != 3:
        raise NoValue("a sum without limits")
    index, low, high = limit
    term, low, high = _nested(body, inner, combine), compiled(low), compiled(high)

    def value(env):
        first, last = low(env), high(env)

        def at(k):
            bound = env.bind(index, Ball.exact(k))
            try:
                return term(env)
            finally:
                env.release(bound)

        if first.inf or last.inf:
            return _infinite(at, first, last, env, combine)
        first, last = _whole(first, env), _whole(last, env)
        if last >= first - 1:
            return combine(at, first, last, env)
        # Karr's convention: what a sum over an empty range in reverse has to be for sums to add up.
        reverse = combine(at, last + 1, first - 1, env)
        return neg(reverse) if combine is _sum else inverse(reverse, env.bits)

    return value


def _whole(ball, env):
    if ball.a is None:
        from kexue_lib.derivation._rounding import floor

        try:
            floor(ball, env.bits)
        except Straddle as straddle:
            raise NoValue("a limit of a sum that may be an integer") from straddle
        raise Undefined("a sum to a number that is no integer")
    if ball.b or type(ball.a) is not int:
        raise Undefined("a sum to a number that is no integer")
    return ball.a


def _sum(at, first, last, env):
    _check_length(first, last, env)
    total, smallest, largest = ZERO, None, None
    bits = env.bits
    for k in range(first, last + 1):
        ball = at(k)
        size = magnitude(ball)
        if size is not None:
            smallest = size if smallest is None else min(smallest, size)
            largest = size if largest is None else max(largest, size)
        total = add(total, ball, bits)
    if largest is not None:
        env.needs(largest - smallest)
    return total


def _product(at, first, last, env):
    _check_length(first, last, env)
    total = ONE
    for k in range(first, last + 1):
        total = mul(total, at(k), env.bits)
    return total


def _check_length(first, last, env):
    if last - first >= _MOST:
        raise NoValue("too many terms")
    env.spend(max(last - first, 0) + 1)


def _infinite(at, first, last, env, combine):
    need = env.need
    series = _infinite_sum if combine is _sum else _infinite_product
    try:
        if last.inf > 0 and not first.inf:
            return series(at, _whole(first, env), env)
        if first.inf < 0 and not last.inf:
            return series(lambda k: at(-k), -_whole(last, env), env)
        if first.inf < 0 < last.inf:
            join = add if combine is _sum else mul
            return join(series(at, 0, env), series(lambda k: at(-k), 1, env), env.bits)
    finally:
        env.need = need  # the far terms of a series are no parts that a comparison has to see
    raise NoValue("a sum from +oo or to -oo")


# --- infinite sums ---


class _Terms:
    """The terms of a series from its start on, computed once, and their partial sums."""

    def __init__(self, at, start, env, bits):
        self.at, self.start, self.env, self.bits = at, start, env, bits
        self.balls, self.sums = [], [ZERO]

    def reach(self, count):
        """Have the first `count` terms."""
        self.env.spend(max(0, count - len(self.balls)))
        for k in range(len(self.balls), count):
            ball = self.at(self.start + k)
            if ball.inf:
                raise Undefined("an infinite term of a sum")
            self.balls.append(ball if ball.a is None else _inexact(ball, self.bits))
            self.sums.append(add(self.sums[-1], self.balls[-1], self.bits))

    def largest(self, place, length=6):
        """The largest modulus in the block from `place` on."""
        return max(mpmath.mp.make_mpf(upper(ball)) for ball in self.balls[place : place + length])


def _inexact(ball, bits):
    return Ball(*raw(ball, bits), ball.flags) if ball.a or ball.b else ball


def _infinite_sum(at, start, env):
    terms = _Terms(at, start, env, env.bits)
    bits = env.bits
    count = 48
    while count <= _LONG:
        terms.reach(count)
        ratio = _settled_ratio(terms, count)
        if ratio is not None:
            tail = _geometric_tail(terms, count, ratio)
            goal = mpmath.ldexp(max(mpmath.mp.make_mpf(upper(terms.sums[-1])), tail), -bits)
            if tail <= goal or count * 2 > _LONG:
                return with_radius(terms.sums[-1], tail._mpf_, bits)
        count *= 2
    return _slow_sum(terms)


def _settled_ratio(terms, count):
    """The largest ratio of neighbouring blocks late in the series, if it stays away from one."""
    half = count // 2
    blocks = [terms.largest(place) for place in range(half - 12, count - 5, 6)]
    if all(not block for block in blocks):
        return mpmath.mpf(0) if count > 1000 else None
    if any(not block for block in blocks):
        return None
    early = max(blocks[1] / blocks[0], blocks[2] / blocks[1])
    late = max(blocks[-1] / blocks[-2], blocks[-2] / blocks[-3])
    worst = max(second / first for first, second in itertools.pairwise(blocks))
    if worst >= 1 or 1 - late < mpmath.mpf("0.8") * (1 - early) or 1 - late < mpmath.mpf("1e-3"):
        return None
    return (1 + max(late, early)) / 2 if late > early else late


def _geometric_tail(terms, count, ratio):
    return 12 * terms.largest(count - 6) * (ratio / (1 - ratio) if ratio else 0)


def _slow_sum(terms):
    """The sum of terms that do not shrink geometrically."""
    terms.reach(_LONG)
    signs = {real_sign(ball) if not ball.flags & COMPLEX else None for ball in terms.balls[_LONG // 4 :]}
    order = _order_of_decay(terms)
    if order is None or order < mpmath.mpf("0.02"):
        if signs in ({1}, {-1}, {0, 1}, {0, -1}):
            return _divergent(terms, signs, order)
        if order is not None and (order <= -mpmath.mpf("0.02") or _largest_at(terms, 4) > mpmath.mpf("1e-3")):
            _check_far(terms, 0)
            raise Undefined("a sum whose terms do not tend to zero")
        raise NoValue("a series that does not settle")
    if signs in ({1}, {-1}):
        return _one_sign(terms, next(iter(signs)))
    pattern = [real_sign(ball) if not ball.flags & COMPLEX else None for ball in terms.balls[-200:]]
    pairs = itertools.pairwise(pattern)
    if None not in pattern and 0 not in pattern and all(b is not None and a == -b for a, b in pairs):
        return _alternating(terms)
    return _oscillating(terms, order)


def _largest_at(terms, divisor):
    return terms.largest(_LONG // divisor - 64, 64)


def _order_of_decay(terms):
    """p where the terms shrink like k**-p, from blocks at three scales; None where the scales disagree."""
    sizes = [_largest_at(terms, divisor) for divisor in (4, 2, 1)]
    if not all(sizes):
        return None
    first, second = (mpmath.log(a / b, 2) for a, b in itertools.pairwise(sizes))
    if first < 0 and second < 0:
        return second
    return second if abs(first - second) < max(mpmath.mpf("0.2"), abs(second) / 2) else None


def _divergent(terms, signs, order):
    sign = 1 if 1 in signs else -1
    if order is None or _largest_at(terms, 1) < mpmath.mpf("1e-3"):
        raise NoValue("a series that does not settle")
    _check_far(terms, 0)
    return Ball.infinite(sign)


def _check_far(terms, power):
    """Terms times k**power that fade far beyond those added up, as those of exp(-k / 10**9) do, decide nothing."""
    near = _largest_at(terms, 1) * mpmath.mpf(_LONG) ** power
    for exponent in _FAR:
        k = 10**exponent
        sizes = [mpmath.mp.make_mpf(upper(terms.at(terms.start + k + j))) for j in range(6)]
        if max(sizes) * mpmath.mpf(k) ** power < near / 2:
            raise NoValue("a series whose terms fade late")


def _one_sign(terms, sign):
    """Terms of one sign that shrink like a power of k."""
    with mpmath.workprec(_BITS):
        scales = [2**j for j in range(4, 13)]
        sizes = [abs(_middle(terms.balls[k - 1])) for k in scales]
        orders = [mpmath.log(a / b, 2) for a, b in itertools.pairwise(sizes)]
        order, spread = extrapolated(orders, 1)
        before, after = (abs(orders[j] - orders[j - 1]) for j in (-2, -1))
        if spread > mpmath.mpf("1e-3") or after > mpmath.mpf("0.62") * before + mpmath.mpf("1e-12"):
            return _coarse(terms, orders[-1])
        if order < 1 - mpmath.mpf("1e-3") or abs(order - 1) <= 10 * spread + mpmath.mpf("1e-12"):
            _check_far(terms, 1)
            return Ball.infinite(sign)
        if order < 1 + mpmath.mpf("1e-3"):
            raise NoValue("a series close to the harmonic one")
        sums = [_middle(terms.sums[k]) for k in scales]
        nearest = mpmath.nint(2 * order) / 2
        value, spread = extrapolated(sums, (nearest if abs(order - nearest) < 10 * spread else order) - 1)
        far = abs(value - sums[-1])
        if far > 4 * sizes[-1] * scales[-1] / (order - 1):
            raise NoValue("a series whose acceleration fails")
        rad = up_add(raw(terms.sums[-1], terms.bits)[2], mpmath.mpf(10 * spread)._mpf_)
    return Ball(value.real._mpf_, value.imag._mpf_, up_mul(rad, (0, 5, 3, 3)), 0)


def _coarse(terms, order):
    """Terms of one sign that shrink like no power, say a logarithm times one: the tail to a factor of two."""
    if order < mpmath.mpf("1.5"):
        raise NoValue("a series that shrinks like no power")
    tail = _LONG * abs(_middle(terms.balls[-1])) / (order - 1)
    value = _middle(terms.sums[-1])
    value += tail * mpmath.sign(_middle(terms.balls[-1]).real)
    return Ball(value.real._mpf_, fzero, tail._mpf_, 0)


def _middle(ball):
    re, im, _ = raw(ball, _BITS)
    return mpmath.mp.make_mpc((re, im))


def extrapolated(values, exponent, growth=2):
    """Richardson's extrapolation of values at growing places, errors N**-exponent, N**-(exponent+1),…"""
    row, ends = list(values), [values[-1]]
    step = 0
    while len(row) > 1:
        factor = mpmath.mpf(growth) ** (exponent + step)
        row = [(factor * b - a) / (factor - 1) for a, b in itertools.pairwise(row)]
        ends.append(row[-1])
        step += 1
    moves = [abs(b - a) for a, b in itertools.pairwise(ends)]
    # Two steps in a row that hardly move, or one after a step that was small already.
    doubts = [max(a, b) for a, b in itertools.pairwise([*moves, moves[-2] / 1000 if len(moves) > 1 else moves[-1]])]
    best = min(range(len(moves)), key=lambda j: doubts[j])
    spread = doubts[best]
    return ends[best + 1], spread


def _alternating(terms):
    """Terms of alternating signs: the algorithm of Cohen, Rodriguez Villegas and Zagier, by two lengths."""
    skip = 64
    with mpmath.workprec(_BITS):
        sizes = [abs(_middle(ball)) for ball in terms.balls[skip : skip + 120]]
        if any(b > a for a, b in itertools.pairwise(sizes)):
            raise NoValue("an alternating series whose terms do not decrease")
        head = _middle(terms.sums[skip])
        sign = real_sign(terms.balls[skip])
        values = [head + sign * _accelerated(sizes, n) for n in (60, 80, 110)]
        spread = 10 * (abs(values[2] - values[1]) + abs(values[1] - values[0]) * mpmath.mpf("1e-3"))
        value = values[2]
        late = abs(_middle(terms.sums[-1]) - value)
        if late > 2 * abs(_middle(terms.balls[-1])) + spread:
            last = terms.sums[-1]
            return with_radius(last, mpf_shift(upper(terms.balls[-1]), 1), terms.bits)
        rad = up_add(up_mul(raw(terms.sums[skip], terms.bits)[2], (0, 5, 10, 3)), mpmath.mpf(spread)._mpf_)
    return Ball(value.real._mpf_, value.imag._mpf_, up_add(rad, upper(_tiny(value))), 0)


def _tiny(value):
    return Ball(mpmath.ldexp(abs(value), 20 - _BITS)._mpf_, mpmath.libmp.fzero, mpmath.libmp.fzero, 0)


def _accelerated(sizes, n):
    d = (3 + mpmath.sqrt(8)) ** n
    d = (d + 1 / d) / 2
    b, c, total = mpmath.mpf(-1), -d, mpmath.mpf(0)
    for k in range(n):
        c = b - c
        total += c * sizes[k]
        b = b * (k + n) * (k - n) / ((k + mpmath.mpf("0.5")) * (k + 1))
    return total / d


def _oscillating(terms, order):
    """Oscillating terms: partial sums faded out smoothly at three lengths, or the absolute bound of the tail."""
    with mpmath.workprec(_BITS):
        faded = [_faded(terms, length) for length in (_LONG // 2, (_LONG * 5) // 7, _LONG)]
        spread = abs(faded[2] - faded[1]) + abs(faded[1] - faded[0])
        scale = max(abs(faded[2]), mpmath.mpf("1e-3"))
        value, radius = faded[2], 10 * spread + scale * mpmath.mpf("1e-15")
        if radius > mpmath.mpf("1e-6") * scale:
            if order < mpmath.mpf("1.2"):
                raise NoValue("an oscillating series that does not settle")
            value, radius = _middle(terms.sums[-1]), 3 * _LONG * _largest_at(terms, 1) / (order - mpmath.mpf("1.1"))
        flags = 0
        for ball in terms.balls[:8]:
            flags |= ball.flags
        return Ball(value.real._mpf_, value.imag._mpf_ if flags else mpmath.libmp.fzero, radius._mpf_, flags)


def _faded(terms, length):
    with mpmath.workprec(80):
        total = _middle(terms.sums[length // 4])
        for k in range(length // 4, length):
            total += _middle(terms.balls[k]) * mpmath.erfc(mpmath.mpf(17 * k) / length - mpmath.mpf("10.6")) / 2
    return total


def _infinite_product(at, start, env):
    """A product to infinity as the exponential of the sum of the logarithms of its late factors."""
    bits = env.bits
    head, first = ONE, start
    while first < start + 200:
        factor = at(first)
        if factor.a == 0 and not factor.b:
            return ZERO
        gap = upper(sub(factor, ONE, bits))
        late = first > start + 8 and mpmath.mp.make_mpf(gap) < mpmath.mpf("0.5")
        if late:
            break
        head = mul(head, factor, bits)
        first += 1
    else:
        raise NoValue("a product whose factors do not settle near one")
    total = _infinite_sum(lambda k: log(at(k), bits), first, env)
    return mul(head, exp(total, bits), bits)
