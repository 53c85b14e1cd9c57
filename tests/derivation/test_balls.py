"""Balls hold what they claim to hold: against mpmath at four times the precision, and against exact rationals."""

from fractions import Fraction

import mpmath
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from kexue_lib.derivation._balls import Ball, add, inverse, mul, power_int, raw
from kexue_lib.derivation._enclosure import NoValue, Undefined, enclose

x = sp.Symbol("x", real=True)
_FUNCTIONS = {
    sp.exp: mpmath.exp, sp.log: mpmath.log, sp.sqrt: mpmath.sqrt, sp.sin: mpmath.sin, sp.cos: mpmath.cos,
    sp.tan: mpmath.tan, sp.sinh: mpmath.sinh, sp.cosh: mpmath.cosh, sp.tanh: mpmath.tanh, sp.asin: mpmath.asin,
    sp.acos: mpmath.acos, sp.atan: mpmath.atan, sp.asinh: mpmath.asinh, sp.acosh: mpmath.acosh,
    sp.atanh: mpmath.atanh, sp.erf: mpmath.erf, sp.erfc: mpmath.erfc, sp.gamma: mpmath.gamma,
    sp.loggamma: mpmath.loggamma, sp.zeta: mpmath.zeta, sp.digamma: mpmath.digamma, sp.LambertW: mpmath.lambertw,
}  # fmt: skip


def holds(ball, value):
    re, im, rad = raw(ball, 2000)
    with mpmath.workprec(3000):
        gap = abs(mpmath.mp.make_mpc((re, im)) - value)
        return gap <= mpmath.mp.make_mpf(rad) + mpmath.ldexp(abs(value) + 1, -1900)


@pytest.mark.parametrize("function", _FUNCTIONS, ids=lambda function: getattr(function, "__name__", "lambda"))
@pytest.mark.parametrize("place", [Fraction(1, 3), Fraction(7, 3), Fraction(-5, 7), Fraction(1, 10**20), Fraction(29)])
def test_elementary_and_special_values_lie_in_their_balls(function, place):
    point = sp.Rational(place.numerator, place.denominator)
    with mpmath.workdps(700):
        try:
            value = _FUNCTIONS[function](mpmath.mpf(place.numerator) / place.denominator)
        except (ValueError, ZeroDivisionError):
            pytest.skip("not defined there")
    ball = enclose(function(x, evaluate=False) if function is not sp.sqrt else sp.sqrt(x), {x: point})
    assert holds(ball, value)
    assert mpmath.mp.make_mpf(raw(ball, 1000)[2]) <= mpmath.mpf("1e-50") * (abs(value) + mpmath.mpf("1e-25"))


_LEAVES = st.sampled_from([sp.Rational(2, 3), sp.Integer(-2), sp.Rational(17, 5), sp.pi, sp.sqrt(2), sp.I, x])


def _grown(children):
    unary = st.sampled_from([sp.exp, sp.sin, sp.cos, sp.atan, sp.sinh, sp.tanh, sp.asinh, sp.Abs, sp.sqrt, sp.log])
    return st.one_of(
        st.tuples(unary, children).map(lambda pair: pair[0](pair[1], evaluate=False) if pair[0] is not sp.sqrt
                                       else sp.Pow(pair[1], sp.S.Half, evaluate=False)),
        st.tuples(children, children).map(lambda pair: sp.Add(*pair, evaluate=False)),
        st.tuples(children, children).map(lambda pair: sp.Mul(*pair, evaluate=False)),
        children.map(lambda child: sp.Pow(child, -1, evaluate=False)),
    )  # fmt: skip


@given(st.recursive(_LEAVES, _grown, max_leaves=8))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_the_ball_of_a_random_tree_holds_its_value_at_four_times_the_precision(tree):
    point = {x: sp.Rational(5, 7)}
    try:
        coarse, fine = enclose(tree, point, 40), enclose(tree, point, 160)
    except (NoValue, Undefined):
        return
    with mpmath.workprec(3000):
        gap = abs(mpmath.mp.make_mpc(raw(coarse, 2000)[:2]) - mpmath.mp.make_mpc(raw(fine, 2000)[:2]))
        reach = sum(mpmath.mp.make_mpf(raw(ball, 2000)[2]) for ball in (coarse, fine))
        assert gap <= reach


@given(st.fractions(max_denominator=50), st.fractions(max_denominator=50), st.integers(-4, 6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_rationals_stay_exact(p, q, n):
    a, b = Ball.exact(p), Ball.exact(q)
    assert add(a, b, 100).a == p + q
    assert mul(a, b, 100).a == p * q
    if p:
        assert inverse(a, 100).a == 1 / p
        assert power_int(a, n, 100).a == p**n


def test_wide_balls_hold_all_their_values():
    wide = Ball(mpmath.mpf(1)._mpf_, mpmath.mpf(0)._mpf_, mpmath.mpf("0.5")._mpf_, 1)
    from kexue_lib.derivation import _circular, _elementary

    for ours, theirs in ((_elementary.exp, mpmath.exp), (_elementary.log, mpmath.log), (_elementary.sqrt, mpmath.sqrt),
                         (_circular.sin, mpmath.sin), (_circular.cos, mpmath.cos), (_circular.atan, mpmath.atan),
                         (inverse, lambda z: 1 / z),
                         (lambda z, bits: power_int(z, 5, bits), lambda z: z**5)):  # fmt: skip
        ball = ours(wide, 100)
        assert all(
            holds(ball, theirs(1 + mpmath.expjpi(mpmath.mpf(k) / 8) * r / 2)) for k in range(16) for r in (1, 0.5)
        )


def test_values_on_a_branch_cut_are_the_principal_ones():
    z = sp.Symbol("z")
    with mpmath.workdps(300):
        assert holds(enclose(sp.log(z), {z: -2}), mpmath.mpc(mpmath.log(2), mpmath.pi))
        assert holds(enclose(sp.arg(z), {z: -1}), mpmath.mpf(mpmath.pi))
        assert holds(enclose(sp.sqrt(z), {z: -2}), mpmath.mpc(0, mpmath.sqrt(2)))


@pytest.mark.parametrize(
    "expression",
    [1 / x, sp.log(x), sp.Pow(x, -sp.pi), sp.gamma(x), sp.loggamma(x - 3), sp.cot(x), sp.polygamma(1, x), 0 / x],
    ids=str,
)
def test_poles_are_undefined(expression):
    if expression == 0:
        expression = sp.Mul(0, sp.Pow(x, -1), evaluate=False)
    with pytest.raises(Undefined):
        enclose(expression, {x: 0})


def test_a_pole_at_an_irrational_point_is_recognised():
    with pytest.raises(Undefined):
        enclose(sp.tan(x), {x: sp.pi / 2})
    with pytest.raises(Undefined):
        enclose(1 / (x**2 - 2 * x - 1), {x: 1 + sp.sqrt(2)})


tiny, m = sp.Rational(457, 5 * 10**16), mpmath.mpf
_SLOPES = {
    sp.Ci(x): (tiny, lambda t: mpmath.cos(t) / t),
    sp.Chi(x): (tiny, lambda t: mpmath.cosh(t) / t),
    sp.Ei(x): (tiny, lambda t: mpmath.exp(t) / t),
    sp.Ei(-x): (sp.Integer(3), lambda t: mpmath.exp(-t) / t),  # on the cut
    sp.li(1 + x): (tiny, lambda t: 1 / mpmath.log1p(t)),
    sp.expint(2, x): (tiny, lambda t: -mpmath.expint(1, t)),
    sp.lowergamma(sp.Rational(53, 62500), x): (tiny, lambda t: t ** (m(53) / 62500 - 1) * mpmath.exp(-t)),
    sp.uppergamma(sp.Rational(1, 3), x): (tiny, lambda t: -(t ** (m(1) / 3 - 1)) * mpmath.exp(-t)),
    sp.besselk(0, x): (tiny, lambda t: -mpmath.besselk(1, t)),
    sp.besselj(sp.Rational(1, 2), x): (tiny, lambda t: mpmath.besselj(m(1) / 2, t, derivative=1)),
    sp.digamma(x - 3): (tiny, lambda t: mpmath.polygamma(1, t - 3)),
    sp.zeta(1 + x): (tiny, lambda t: mpmath.zeta(1 + t, derivative=1)),
    sp.polylog(2, 1 - x): (tiny, lambda t: mpmath.log(t) / (1 - t)),
    sp.elliptic_k(1 - x): (tiny, lambda t: -(mpmath.ellipe(1 - t) - t * mpmath.ellipk(1 - t)) / (2 * (1 - t) * t)),
    sp.LambertW(x - sp.exp(-1)): (tiny, lambda t: _lambert_slope(t - mpmath.exp(-1))),
    sp.airyai(x): (sp.Integer(10) ** 6, lambda t: mpmath.airyai(t, derivative=1)),
    sp.fresnels(x): (sp.Integer(10) ** 9 + sp.Rational(1, 3), lambda t: mpmath.sin(mpmath.pi * t**2 / 2)),
}


def _lambert_slope(t):
    return mpmath.lambertw(t) / (t * (1 + mpmath.lambertw(t)))


@pytest.mark.parametrize("function", _SLOPES, ids=str)
def test_slopes_beside_a_singularity_hold_their_value_or_are_refused(function):
    place, slope = _SLOPES[function]
    try:
        ball = enclose(sp.Derivative(function, x), {x: place})
    except NoValue:
        return
    with mpmath.workdps(200):
        assert holds(ball, slope(m(place.p) / place.q))


def test_no_disc_around_a_singularity_or_across_a_cut_passes_for_analytic():
    from kexue_lib.derivation import _functions  # noqa: F401 — registers the functions
    from kexue_lib.derivation._balls import DISC
    from kexue_lib.derivation._compile import ON_DISC, Environment, compiled

    z = sp.Symbol("z")
    near = {
        sp.Ci(z): 0, sp.Ei(z): -2, sp.Chi(z): 0, sp.li(z): 1, sp.expint(3, z): -1,
        sp.uppergamma(sp.Rational(1, 3), z): 0,
        sp.gamma(z): -3, sp.loggamma(z): sp.Rational(-5, 2), sp.digamma(z): 0, sp.polygamma(2, z): -1, sp.zeta(z): 1,
        sp.polylog(3, z): 2, sp.LambertW(z): -1, sp.bessely(0, z): 0, sp.besselj(sp.Rational(1, 3), z): -1,
        sp.elliptic_k(z): 1, sp.hyper((1, 1), (2,), z): 1,
    }  # fmt: skip
    for function, place in near.items():
        middle = mpmath.mpf(sp.Rational(place).p) / sp.Rational(place).q + mpmath.mpf("1e-12")
        ball = Ball(middle._mpf_, mpmath.mpf(0)._mpf_, mpmath.mpf("1e-9")._mpf_, DISC)
        env = Environment({}, 200)
        env.mode = ON_DISC
        env.bind(z, ball)
        with pytest.raises((NoValue, Undefined)):
            compiled(function)(env)
