"""The table of functions: which function of balls computes which function of SymPy's.

The modulus, parts and conjugate of a complex integrand continue analytically by
way of its mirror image, conj f(conj z).
"""

import sympy as sp

from kexue_lib.derivation import _circular as circular
from kexue_lib.derivation import _elementary as elementary
from kexue_lib.derivation import _rounding as rounding
from kexue_lib.derivation import _special as special
from kexue_lib.derivation._balls import (
    COMPLEX,
    DISC,
    ZERO,
    Ball,
    I,
    add,
    imaginary_part,
    mul,
    neg,
    real_part,
    scaled,
    sub,
)
from kexue_lib.derivation._compile import compiled, function_rule, rule
from kexue_lib.derivation._radii import NoValue, Straddle, Undefined


def _extremum(direction):
    def ball(*rest, wide=False):
        for one in rest[:-1]:
            if one.flags & COMPLEX:
                raise Undefined("not real")
        return rounding.extremum(rest[:-1], direction, rest[-1], wide)

    return ball


_PLAIN = {
    sp.exp: elementary.exp, sp.sin: circular.sin, sp.cos: circular.cos, sp.sinc: circular.sinc,
    sp.sinh: circular.sinh, sp.cosh: circular.cosh, sp.asin: circular.asin, sp.acos: circular.acos,
    sp.atan: circular.atan, sp.acot: circular.acot, sp.atan2: circular.atan2, sp.asinh: circular.asinh,
    sp.acosh: circular.acosh, sp.atanh: circular.atanh, sp.asec: circular.of_inverse(circular.acos),
    sp.acsc: circular.of_inverse(circular.asin), sp.acoth: circular.of_inverse(circular.atanh),
    sp.asech: circular.of_inverse(circular.acosh), sp.acsch: circular.of_inverse(circular.asinh),
    sp.arg: elementary.argument, sp.Mod: special.modulus, sp.frac: special.fractional,
    sp.gamma: special.gamma, sp.loggamma: special.loggamma, sp.factorial: special.factorial_,
    sp.factorial2: special.factorial2, sp.binomial: special.binomial, sp.RisingFactorial: special.rising,
    sp.FallingFactorial: special.falling, sp.beta: special.beta, sp.digamma: special.digamma,
    sp.polygamma: special.polygamma, sp.harmonic: special.harmonic, sp.zeta: special.zeta,
    sp.erfc: special.erfc, sp.erfi: special.erfi, sp.KroneckerDelta: special.kronecker, sp.polylog: special.polylog,
    sp.legendre: special.legendre, sp.chebyshevt: special.chebyshev_t, sp.chebyshevu: special.chebyshev_u,
    sp.hermite: special.hermite, sp.hermite_prob: special.hermite_prob, sp.laguerre: special.laguerre,
    sp.lowergamma: special.lower_gamma, sp.uppergamma: special.from_mpmath("gammainc"),
    sp.LambertW: special.from_mpmath("lambertw"),
    sp.dirichlet_eta: special.from_mpmath("altzeta"),
    sp.besselj: special.from_mpmath("besselj"), sp.bessely: special.from_mpmath("bessely"),
    sp.besseli: special.from_mpmath("besseli"), sp.besselk: special.from_mpmath("besselk"),
    sp.airyai: special.from_mpmath("airyai"), sp.airybi: special.from_mpmath("airybi"),
    sp.airyaiprime: special.airy_slope("airyai"), sp.airybiprime: special.airy_slope("airybi"),
    sp.Ei: special.from_mpmath("ei"), sp.li: special.from_mpmath("li"), sp.Si: special.from_mpmath("si"),
    sp.Ci: special.from_mpmath("ci"), sp.Shi: special.from_mpmath("shi"), sp.Chi: special.from_mpmath("chi"),
    sp.expint: special.from_mpmath("expint"), sp.fresnels: special.from_mpmath("fresnels"),
    sp.fresnelc: special.from_mpmath("fresnelc"), sp.elliptic_k: special.from_mpmath("ellipk"),
    sp.gegenbauer: special.from_mpmath("gegenbauer"), sp.jacobi: special.from_mpmath("jacobi"),
    sp.assoc_legendre: special.from_mpmath("legenp"), sp.assoc_laguerre: special.from_mpmath("laguerre"),
}  # fmt: skip
_NOT_ANALYTIC = {
    sp.sign: rounding.sign, sp.floor: rounding.floor, sp.ceiling: rounding.ceiling, sp.Heaviside: special.heaviside,
    sp.Max: _extremum(1), sp.Min: _extremum(-1),
}  # fmt: skip
# How many bits it takes to tell the function from its limit, for an argument of about 2**size.
_SATURATED = {
    sp.tanh: (circular.tanh, lambda size: 6 << max(size, 0)),
    sp.coth: (circular.coth, lambda size: 6 << max(size, 0)),
    sp.erf: (special.erf, lambda size: 3 << 2 * max(size, 0)),
    sp.zeta: (special.zeta, lambda size: 2 << max(size, 0)),
    sp.atan: (circular.atan, lambda size: 4 * size),
    sp.acot: (circular.acot, lambda size: 4 * size),
}
_POLES = {
    sp.tan: (circular.tan, sp.cos), sp.sec: (circular.sec, sp.cos), sp.cot: (circular.cot, sp.sin),
    sp.csc: (circular.csc, sp.sin), sp.sech: (circular.sech, sp.cosh), sp.csch: (circular.csch, sp.sinh),
}  # fmt: skip


@rule(*_PLAIN)
def _(expression):
    return function_rule(_PLAIN[expression.func], expression)


@rule(*_NOT_ANALYTIC)
def _(expression):
    return function_rule(_NOT_ANALYTIC[expression.func], expression, wide=True)


@rule(*_SATURATED)
def _(expression):
    function, saturation = _SATURATED[expression.func]
    return function_rule(function, expression, saturation=saturation)


@rule(sp.log)
def _(expression):
    if len(expression.args) == 2:
        return compiled(sp.log(expression.args[0]) / sp.log(expression.args[1]))
    return function_rule(elementary.log, expression)


@rule(sp.hyper)
def _(expression):
    above, below, argument = expression.args
    balls = [compiled(one) for one in (*above, *below, argument)]

    def value(env):
        def function(*numbers):
            return special.mpmath.hyper(numbers[: len(above)], numbers[len(above) : -1], numbers[-1])

        return special.narrow("hyper", tuple(ball(env) for ball in balls), env.bits, function)

    return value


@rule(sp.exp_polar, sp.polar_lift, sp.principal_branch)
def _(expression):
    raise NoValue("a number on the surface of the logarithm")


@rule(*_POLES)
def _(expression):
    function, denominator = _POLES[expression.func]
    argument = compiled(expression.args[0])

    def value(env):
        ball = argument(env)
        try:
            return function(ball, env.bits)
        except Straddle:
            if env.is_zero(denominator(expression.args[0])):
                raise Undefined(f"{expression.func.__name__} at a pole") from None
            raise

    return value


# --- parts of complex numbers ---


def mirrored(expression):
    """An expression whose value is the complex conjugate, analytic where the expression is; None if there is none."""
    if expression.is_Number or isinstance(expression, sp.NumberSymbol):
        return expression
    if expression is sp.I:
        return -sp.I
    if isinstance(expression, sp.Symbol):
        return sp.conjugate(expression, evaluate=False)
    whole_power = isinstance(expression, sp.Pow) and expression.exp.is_Integer
    entire = isinstance(expression, (sp.Add, sp.Mul, sp.exp, sp.sin, sp.cos, sp.sinh, sp.cosh))
    if not (whole_power or entire):
        return None
    arguments = [mirrored(argument) for argument in expression.args]
    return None if None in arguments else expression.func(*arguments)


def _of_both(expression, pointwise, from_both):
    argument = compiled(expression.args[0])
    other = None if isinstance(expression.args[0], sp.Symbol) else mirrored(expression.args[0])
    mirror = None if other is None else compiled(other)

    def value(env):
        ball = argument(env)
        if mirror is not None and ball.flags == COMPLEX | DISC:
            return from_both(ball, mirror(env), env.bits)
        return pointwise(ball, env)

    return value


def _as_real(ball):
    return ball if ball.a is not None else Ball(ball.re, ball.im, ball.rad, ball.flags & DISC)


@rule(sp.Abs)
def _(expression):
    def from_both(ball, mirror, bits):
        return elementary.sqrt(_as_real(mul(ball, mirror, bits)), bits)

    return _of_both(expression, lambda ball, env: rounding.absolute(ball, env.bits), from_both)


@rule(sp.conjugate)
def _(expression):
    return _of_both(expression, lambda ball, env: rounding.conjugate(ball, env.bits), lambda ball, mirror, bits: mirror)


def _only_on_points(part):
    def pointwise(ball, env):
        if ball.flags == COMPLEX | DISC:
            raise NoValue("not analytic")
        return part(ball)

    return pointwise


@rule(sp.re)
def _(expression):
    def from_both(ball, mirror, bits):
        return _as_real(scaled(add(ball, mirror, bits), -1))

    pointwise = _only_on_points(lambda ball: ball if not ball.flags & COMPLEX else real_part(ball))
    return _of_both(expression, pointwise, from_both)


@rule(sp.im)
def _(expression):
    def from_both(ball, mirror, bits):
        return _as_real(mul(neg(I), scaled(sub(ball, mirror, bits), -1), bits))

    pointwise = _only_on_points(lambda ball: ZERO if not ball.flags & COMPLEX else imaginary_part(ball))
    return _of_both(expression, pointwise, from_both)
