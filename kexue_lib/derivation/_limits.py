"""Derivatives and limits of balls, from values nearby.

A derivative is Cauchy's integral over a circle, as a finite sum whose error is
proven by a bound of the function on a larger disc; neither SymPy's rules nor the form of the expression matter. Where
no disc is free of kinks the differences of the two sides are compared. A limit is read off values ever closer to the
target, at places of no arithmetic structure and several to each scale, and is undecided where those do not settle; its
radius is ten times what the last scale moved.
"""

import itertools
from fractions import Fraction
from math import factorial

import mpmath
import sympy as sp
from mpmath.libmp import fzero, mpf_shift

from kexue_lib.derivation._balls import (
    COMPLEX,
    DISC,
    Ball,
    add,
    disc,
    holds_zero,
    mul,
    neg,
    raw,
    real_sign,
    scaled,
    sub,
    upper,
    with_radius,
)
from kexue_lib.derivation._compile import ON_DISC, POINT, compiled, integer, rule
from kexue_lib.derivation._radii import NoValue, Undefined, up_add
from kexue_lib.derivation._series import extrapolated

# --- derivatives ---


@rule(sp.Derivative)
def _(expression):
    closure = compiled(expression.expr)
    for variable, count in expression.variable_count:
        if not count.is_Integer:
            raise NoValue("a derivative of symbolic order")
        closure = _derivative(closure, variable, int(count))
    return closure


@rule(sp.Subs)
def _(expression):
    body, variables = compiled(expression.expr), expression.variables
    points = [compiled(point) for point in expression.point]

    def value(env):
        bound = [env.bind(name, ball) for name, ball in zip(variables, [point(env) for point in points])]
        try:
            return body(env)
        finally:
            for one in reversed(bound):
                env.release(one)

    return value


class _Variable:
    """A symbol or an entry that is moved."""

    def __init__(self, variable, env):
        self.env, self.entry = env, None
        if isinstance(variable, sp.Indexed):
            self.entry = variable.base, tuple(integer(compiled(index)(env)) for index in variable.indices)
        elif not isinstance(variable, sp.Symbol):
            raise NoValue(f"a derivative by {variable}")
        self.name = variable

    def centre(self):
        """Where the variable stands."""
        return compiled(self.name)(self.env)

    def at(self, closure, ball, env, mode=POINT):
        """The closure's value with the variable moved."""
        before = env.mode
        env.mode = max(mode, before)
        if self.entry is None:
            bound = env.bind(self.name, ball)
        else:
            overrides, env.overrides = env.overrides, {**env.overrides, self.entry: ball}
        try:
            return closure(env)
        finally:
            env.mode = before
            if self.entry is None:
                env.release(bound)
            else:
                env.overrides = overrides


def _derivative(closure, name, order):
    def value(env):
        variable = _Variable(name, env)
        centre = variable.centre()
        if centre.inf:
            raise NoValue("a derivative at infinity")
        rad = raw(centre, env.bits)[2] if centre.a is None else fzero
        if env.mode != POINT and rad[1]:
            return _derivative_bound(closure, variable, centre, order, env)
        found = _disc_without_kinks(closure, variable, centre, env)
        if found is None:
            return _from_differences(closure, variable, centre, order, env)
        ball = None
        for points, shrink in ((2 * order + 2, None), (44 + order, 3)):
            ball = _by_cauchy(closure, variable, centre, order, env, found, points, shrink)
            size = max(abs(mpmath.mp.make_mpf(ball.re)), mpmath.mpf("1e-6"))
            if mpmath.mp.make_mpf(ball.rad) < size * mpmath.mpf("1e-20"):
                break
        return ball

    return value


def _radii(centre):
    size = max(1, mpmath.mp.make_mpf(upper(centre)))
    top = int(mpmath.ceil(mpmath.log(size, 2)))
    return [top - 2 - 3 * j for j in range(8)] + [top - 32 - 12 * j for j in range(12)]


def _disc_without_kinks(closure, variable, centre, env):
    """The exponent of a radius and a bound of the function on the disc, the first that is analytic."""
    coarse = env.at(max(env.bits, 100), exact_tests=False)
    for exponent in _radii(centre):
        radius = mpmath.ldexp(1, exponent)._mpf_
        try:
            reach = upper(variable.at(closure, disc(centre, radius, DISC | centre.flags), coarse, ON_DISC))
        except (NoValue, Undefined):
            continue
        return exponent, mpmath.mp.make_mpf(reach)
    return None


def _derivative_bound(closure, variable, centre, order, env):
    found = _disc_without_kinks(closure, variable, centre, env)
    if found is None:
        raise NoValue("no bound of a derivative")
    exponent, reach = found
    bound = factorial(order) * reach * mpmath.mpf(2) ** (-order * exponent)
    return Ball(fzero, fzero, (bound * 2)._mpf_, COMPLEX | centre.flags)


def _by_cauchy(closure, variable, centre, order, env, found, points, shrink):
    """n!/(m r**n) sum of f(c + r w**j) w**(-jn) over the m-th roots of unity w, f bounded on a disc of radius R.

    The terms of the power series whose index is n modulo m alias: with |a_k| <= M/R**k they add up to no more than
    n! M/R**n q**m/(1 - q**m), q = r/R.
    """
    exponent, reach = found
    shrink = shrink or (env.bits + 20) // points + 1
    fine = env.at(env.bits + order * shrink + 40)
    bits = fine.bits
    total = None
    with mpmath.workprec(bits + 10):
        radius = mpmath.ldexp(1, exponent - shrink)
        roots = [mpmath.expjpi(mpmath.mpf(2 * j) / points) for j in range(points)]
        steps = [_dyadic(radius * root, DISC) for root in roots]
        weights = [_weight(root ** (-order), bits) for root in roots]
    middle = compiled(variable.name)(fine)
    for step, weight in zip(steps, weights):
        here = add(middle, step, bits)
        part = mul(variable.at(closure, here, fine), weight, bits)
        total = part if total is None else add(total, part, bits)
    with mpmath.workprec(60):
        factor = Ball.exact(Fraction(factorial(order), points))
        q = mpmath.ldexp(1, -shrink * points)
        alias = factorial(order) * reach * mpmath.ldexp(1, -order * exponent) * 2 * q
    total = scaled(mul(total, factor, bits), -order * (exponent - shrink))
    total = with_radius(total, alias._mpf_, bits)
    env.needs(fine.need - order * shrink)
    if variable.at(closure, middle, fine).flags & DISC:  # an outer variable runs through a disc
        return total
    return Ball(total.re, total.im if total.flags & COMPLEX else fzero, total.rad, total.flags & ~DISC)


def _dyadic(value, flags):
    return Ball(*value._mpc_, fzero, flags)


def _weight(root, bits):
    return Ball(*root._mpc_, mpmath.ldexp(1, -bits)._mpf_, DISC)


def _from_differences(closure, variable, centre, order, env):
    """The derivative at a place that no disc shows to be smooth, where both sides agree."""
    if centre.flags or env.mode != POINT:
        raise NoValue("no derivative found")
    slopes = []
    for shift in (env.bits // 2, env.bits // 2 + 10):
        fine = env.at(env.bits + (order + 1) * shift + 40)
        centre = compiled(variable.name)(fine)
        middle = variable.at(closure, centre, fine)
        slopes.append([_difference(closure, variable, centre, order, fine, shift, side, middle) for side in (1, -1)])
    (early, late), bits = slopes, env.bits
    gap = upper(sub(*late, bits))
    size = max(mpmath.mp.make_mpf(upper(one)) for one in late)
    before = max(mpmath.mp.make_mpf(upper(one)) for one in early)
    if size > 8 * before + 1:
        raise Undefined("no derivative")
    gap_before = mpmath.mp.make_mpf(upper(sub(*early, bits)))
    gap = mpmath.mp.make_mpf(gap)
    if gap > gap_before / 8 and gap > size * mpmath.mpf("1e-12"):
        if holds_zero(sub(*late, bits)):
            raise NoValue("no derivative found")
        raise Undefined("a kink")
    middle = scaled(add(*late, bits), -1)
    drift = upper(sub(middle, scaled(add(*early, bits), -1), bits))
    return with_radius(middle, up_add(mpf_shift(drift, 3), (4 * gap)._mpf_), bits)


def _difference(closure, variable, centre, order, env, shift, side, middle):
    """The one-sided difference quotient of the given order."""
    bits = env.bits
    total = middle if order % 2 == 0 else neg(middle)
    for j in range(1, order + 1):
        step = Ball.exact(side * j)
        here = add(centre, scaled(step, -shift), bits)
        weight = factorial(order) // (factorial(j) * factorial(order - j)) * (-1) ** (order - j)
        total = add(total, mul(Ball.exact(weight), variable.at(closure, here, env), bits), bits)
    total = scaled(total, shift * order)
    return neg(total) if side < 0 and order % 2 else total


# --- limits ---

_SCALES = tuple(2**j for j in range(17))  # values at distances of 10**scale
_FINE = mpmath.mpf("1e-50")


@rule(sp.Limit)
def _(expression):
    body, variable, target, side = expression.args
    closure, goal, side = compiled(body), compiled(target), str(side)
    whole = bool(variable.is_integer)

    def value(env):
        if env.mode != POINT:
            raise NoValue("a limit inside an integral")
        need, point = env.need, goal(env)
        try:
            return _Approach(closure, variable, goal, point, side, whole, env).limit()
        finally:
            env.need = need

    return value


class _Approach:
    """Values of an expression ever closer to a target."""

    def __init__(self, closure, variable, goal, target, side, whole, env):
        self.closure, self.variable, self.goal, self.target, self.env = closure, variable, goal, target, env
        self.whole = whole and target.inf
        self.sides = (target.inf,) if target.inf else {"+": (1,), "-": (-1,)}.get(side, (1, -1))

    def limit(self):
        """The limit, as a ball; NoValue where the values do not settle."""
        values, moves, spreads = [], [], []
        for scale in _SCALES:
            try:
                group = self._group(scale)
            except NoValue:
                break
            if group[0].inf:
                return self._infinite_values(group)
            numbers = [_number(ball) for ball in group]
            radius = max(mpmath.mp.make_mpf(raw(ball, 60)[2]) for ball in group)
            with mpmath.workprec(300):
                spreads.append(max(abs(number - numbers[0]) for number in numbers))
                if values:
                    moves.append(abs(numbers[0] - values[-1]))
                values.append(numbers[0])
                if _explodes(values, numbers):
                    return self._infinite_sign(group)
                move = (moves[-1] if moves else mpmath.mpf(1)) + spreads[-1]
                if moves and scale >= 4 and move <= _FINE * max(1, abs(values[-1])):
                    return _ball(values[-1], 10 * move + 2 * radius, group)
            last = group
        if len(values) < 4:
            return self._near()
        with mpmath.workprec(300):
            return self._slow(values, moves, spreads, last)

    def _slow(self, values, moves, spreads, group):
        """A limit that the last scales approach like a power of their size, or that is infinite."""
        size = max(abs(values[-1]), mpmath.mpf("1e-3"))
        steps = [b - a for a, b in itertools.pairwise(values)]
        if len(steps) >= 4 and _grows(steps[-4:]) and abs(values[-1]) > 8 and not group[0].flags & COMPLEX:
            signs = {real_sign(ball) for ball in group}
            if len(signs) == 1 and spreads[-1] <= abs(values[-1]) / 2 + 2 * moves[-1]:
                return Ball.infinite(signs.pop())
        if moves[-1] > mpmath.mpf("0.9") * moves[-2] or spreads[-1] > mpmath.mpf("0.5") * spreads[-2] + _FINE * size:
            if moves[-1] + spreads[-1] > mpmath.mpf("1e-30") * size:
                return self._near()
            return _ball(values[-1], 10 * (moves[-1] + spreads[-1]), group)
        tries = [(values[-1], moves[-1] + spreads[-1])]
        if moves[-1] > mpmath.mpf("0.3") * moves[-2]:
            tries.append(extrapolated(values[-8:], 1))
        value, spread = min(tries, key=lambda pair: pair[1])
        if spread > mpmath.mpf("1e-2") * size:
            raise NoValue("a limit whose values do not settle")
        return _ball(value, 10 * spread + spreads[-1], group)

    def _near(self):
        """A limit over a sum or another thing of a size that cannot be huge: values at doubling sizes."""
        values, group = [], None
        bits = max(self.env.bits, 260)
        places = [24 * 2**j for j in range(9)]
        for place in places:
            ball = mpmath.mpf(place + 0.25 * (not self.whole))
            ball = self._value_at(1 / ball if not self.target.inf else ball, self.sides[0], bits)
            if ball.inf:
                raise NoValue("a limit that is not followed far enough")
            values.append(_number(ball))
            group = [ball]
        with mpmath.workprec(260):
            value, spread = min((extrapolated(values, s) for s in (1, mpmath.mpf("0.5"))), key=lambda pair: pair[1])
            if spread > mpmath.mpf("1e-6") * max(abs(value), mpmath.mpf("1e-3")):
                raise NoValue("a limit whose values do not settle")
            between = mpmath.mpf(2777 if self.whole else "2777.31")  # a place of another kind, against coincidences
            check = self._value_at(between if self.target.inf else 1 / between, self.sides[-1], bits)
            if abs(_number(check) - value) > 40 * abs(values[6] - value) + spread:
                raise NoValue("a limit whose values do not settle")
            return _ball(value, 20 * spread, group)

    def _infinite_sign(self, group):
        signs = {real_sign(ball) for ball in group if not ball.flags & COMPLEX}
        if len(signs) == 1 and signs <= {1, -1} and not any(ball.flags & COMPLEX for ball in group):
            return Ball.infinite(signs.pop())
        raise NoValue("a limit whose values do not settle")

    def _infinite_values(self, group):
        signs = {ball.inf for ball in group}
        if len(signs) == 1 and 0 not in signs:
            return Ball.infinite(signs.pop())
        raise NoValue("a limit whose values do not settle")

    def _group(self, scale):
        """Values at several distances of one scale, from every side."""
        bits = max(self.env.bits, 240)
        if not self.target.inf and not (self.target.a == 0 and not self.target.b):
            bits += int(3.4 * scale)
        # As many digits as the distance has before the point and more: sin(pi x) is not seen at whole numbers only.
        with mpmath.workprec(80 + int(3.4 * scale) * bool(self.target.inf)):
            power = mpmath.mpf(10) ** scale
            jitter = (2 / mpmath.sqrt(mpmath.pi), mpmath.sqrt(mpmath.pi), mpmath.e / 2)
            distances = [power * factor for factor in jitter]
            if not self.target.inf:
                distances = [1 / distance for distance in distances]
        if self.whole:
            first = int(distances[0])
            distances = [first, first + 1, first + 5, int(distances[1])]
        return [self._value_at(distance, side, bits) for side in self.sides for distance in distances]

    def _value_at(self, distance, side, bits):
        """The value at a distance, precise enough to be of use."""
        most = 4 * bits + 1200
        while True:
            env = self.env.at(bits)
            step = Ball.exact(int(distance)) if self.whole else Ball(distance._mpf_, fzero, fzero, 0)
            step = step if side > 0 else neg(step)
            here = step if self.target.inf else add(self.goal(env), step, bits)
            bound = env.bind(self.variable, here)
            error = None
            try:
                ball = self.closure(env)
                if ball.inf or ball.a is not None or _is_narrow(ball):
                    return ball
            except NoValue as problem:
                error = problem
                if str(problem) in ("too many terms", "the exponential of a huge number"):
                    raise
            finally:
                env.release(bound)
            bits *= 2
            if bits > most:
                raise error or NoValue("a value that stays imprecise")


def _explodes(values, numbers):
    """Whether the last three scales grow beyond all bounds, at all places of the last one."""
    if len(values) < 3:
        return False
    sizes = [abs(value) for value in values[-3:]]
    return (
        sizes[2] > mpmath.mpf("1e30") * (1 + sizes[1])
        and sizes[1] > 1e3 * (1 + sizes[0])
        and min(abs(number) for number in numbers) > mpmath.mpf("1e20")
    )


def _is_narrow(ball):
    re, im, rad = raw(ball, 60)
    size = abs(mpmath.mp.make_mpc((re, im)))
    return mpmath.mp.make_mpf(rad) <= mpmath.mpf("1e-52") * max(size, mpmath.mpf("1e-2"))


def _grows(steps):
    if any(isinstance(step, mpmath.mpc) and step.imag for step in steps):
        return False
    steps = [mpmath.re(step) for step in steps]
    return all(b / a >= mpmath.mpf("0.95") for a, b in itertools.pairwise(steps) if a) and all(steps)


def _number(ball):
    re, im, _ = raw(ball, 400)
    return mpmath.mp.make_mpc((re, im))


def _ball(value, radius, group):
    flags = 0
    for ball in group:
        flags |= ball.flags & COMPLEX
    return Ball(value.real._mpf_, value.imag._mpf_ if flags else fzero, mpmath.mpf(radius)._mpf_, flags)
