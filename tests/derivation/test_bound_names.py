"""Bound names, and parameters at which a general value is wrong: false statements that a route once let through."""

import pytest
import sympy as sp
from sympy import Eq, Integral, Limit, Max, Min, Ne, Or, Pow, Rational, Sum, binomial, oo

from kexue_lib.derivation import Derivation, DerivationError

x, y, u, v = sp.symbols("x y u v", real=True)
p, q = sp.symbols("p q", positive=True)
n = sp.Symbol("n", integer=True, positive=True)
i, j, k, l = sp.symbols("i j k l", integer=True)
N = sp.Symbol("N", integer=True, nonnegative=True)
X = sp.IndexedBase("X", real=True)
g = sp.Function("g", real=True)
A = sp.MatrixSymbol("A", n, n)
at = Rational(17, 13)
w = (u - at) ** 2
# Each hides a wrong step from the numbers: 1 at one point and 0 elsewhere; false on a curve only.
hidden = Pow(0, w, evaluate=False)
elsewhere = Ne(x**5 + y**5 + x * y - 3 * x * y**2, Rational(7, 3))


def same(lhs, rhs):
    return Eq(lhs, rhs, evaluate=False)


def evidence(statement, given=()):
    """What the engine makes of it: proved, checked or refused."""
    d = Derivation("demo", time_limit=10)
    try:
        d.holds("it", statement, given=given)
    except DerivationError:
        return "refused"
    return d.claims[-1].evidence


LIMITS = [
    same(Limit(w * x / (1 + w * x), x, oo), 1),
    same(Limit(w / (w + x**2), x, 0), 1),
    same(Limit((w * x**2 + x) / (w * x**2 + 2 * x), x, oo), 1),
    same(Limit(sp.sin(w * x) / (w * x + x**2), x, 0), 1),
    same(Limit((p * x - at * q * x) ** 2 / (1 + (p * x - at * q * x) ** 2), x, oo), 1),
    same(Limit(sp.tanh(w * x), x, oo), 1),
    same(Limit((1 + w) ** (-x), x, oo), 0),
    Limit(w * x / (1 + w * x), x, oo) > 0,
]


@pytest.mark.parametrize("statement", LIMITS, ids=str)
def test_a_limit_fails_where_a_coefficient_vanishes(statement):
    assert evidence(statement) == "refused"


def test_limits_of_parameters_that_cannot_vanish_are_proved():
    assert evidence(same(Limit(p * x / (1 + p * x), x, oo), 1)) == "proved"
    assert evidence(same(Limit(sp.exp(-p * x), x, oo), 0)) == "proved"
    assert evidence(same(Limit(w * x / (1 + w * x), x, oo), 1), [Ne(u, at)]) == "proved"


def test_a_claim_is_not_used_at_a_value_that_its_sum_would_bind():
    d = Derivation("demo")
    d.equal("out of the sum", Sum(X[k] * u, (k, 1, n)), u * Sum(X[k], (k, 1, n)))
    captured = Or(elsewhere, Eq(Sum(k * X[k], (k, 1, n)), k * Sum(X[k], (k, 1, n))))
    with pytest.raises(ValueError, match="uses: got u = k, but C1 binds k"):
        d.holds("index", captured, uses=((d["C1"], {u: k}),))
    d.equal("other letter", Sum(X[k] * v, (k, 1, n)), v * Sum(X[k], (k, 1, n)), uses=((d["C1"], {u: v}),))


CAPTURED = {
    "given": (Or(elsewhere, Integral(x * u, (x, 0, 1)) < Rational(1, 2)), [Eq(u, x)]),
    "given, unknown function": (
        Or(elsewhere, Integral(g(x) * u, (x, 0, 1)) - Integral(g(x) * x, (x, 0, 1)) + 1 > 0),
        [Eq(u, x)],
    ),
    "ends": (same(hidden * Integral(1, (x, 0, y), (y, 0, 1)), hidden * Integral(1, (x, 0, y), (v, 0, 1))), []),
    "ends, alternative": (
        Or(elsewhere, same(Integral(1, (x, 0, y), (y, 0, 1)), Integral(1, (x, 0, y), (v, 0, 1)))),
        [],
    ),
    "entries": (same(hidden * (n * Sum(A[i, i] ** 2, (i, 0, n - 1)) - Sum(A[i, i], (i, 0, n - 1)) ** 2), 0), []),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_a_bound_name_is_never_taken_for_a_free_one(name):
    assert evidence(*CAPTURED[name]) != "proved"


def test_integrals_over_one_triangle_under_other_names_are_equal():
    triangle = lambda a, b: Integral(g(a) * g(b), (a, 0, b), (b, 0, 1))
    assert evidence(same(triangle(x, y), triangle(u, v))) == "proved"


@pytest.mark.parametrize("given", [[], [j >= 0]], ids=["any", "from 0 on"])
def test_binomials_are_no_quotients_of_gammas_at_negative_integers(given):
    upper = (k - 3 * l - 100) ** 2 - 1
    assert evidence(same(binomial(upper, j), binomial(upper, upper - j)), given) != "proved"
    assert evidence(same(binomial(N, j), binomial(N, N - j)), given) == "proved"


PLACES = {
    "two kinks": (same(Max(u, v, at), Max(u, v)), [u + v >= Rational(5, 2)]),
    "four kinks": (same(Min(Max(u, at), Max(v, at)), at), [u + v <= Rational(27, 10), u >= 0, v >= 0]),
    "alternatives": (Or(Ne(x, y**3 + 1), u > 0), []),
    "zero to a power": (same(hidden, 0), []),
    "Dirichlet": (same(Integral(sp.sin(w * x) / x, (x, 0, oo)), sp.pi / 2), []),
    "geometric series": (same(Sum(w / (1 + w) ** k, (k, 0, oo)), 1 + w), []),
}


@pytest.mark.parametrize("name", PLACES)
def test_places_that_the_parts_of_a_statement_single_out_are_tried(name):
    assert evidence(*PLACES[name]) == "refused"
