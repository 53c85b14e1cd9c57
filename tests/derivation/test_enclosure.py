"""Statements at a point: known closed forms, and the faults of sampling, quadrature and limits that were found."""

import pytest
import sympy as sp
from sympy import (
    Abs,
    And,
    Contains,
    Derivative,
    EulerGamma,
    Ge,
    Heaviside,
    I,
    Implies,
    Integral,
    Interval,
    KroneckerDelta,
    Lambda,
    Limit,
    Max,
    Mod,
    Piecewise,
    Product,
    Q,
    Rational,
    S,
    Si,
    Subs,
    Sum,
    arg,
    atan,
    binomial,
    conjugate,
    cos,
    digamma,
    erf,
    exp,
    factorial,
    floor,
    frac,
    gamma,
    harmonic,
    im,
    log,
    oo,
    pi,
    polygamma,
    re,
    sign,
    sin,
    sqrt,
    tan,
    tanh,
    zeta,
)

from kexue_lib.derivation._truth import truth, value_text

x, y = sp.symbols("x y", real=True)
a = sp.Symbol("a", positive=True)
z, t = sp.symbols("z t")
k, j = sp.symbols("k j", integer=True)
n = sp.Symbol("n", integer=True, positive=True)
X = sp.IndexedBase("X")
f = sp.Function("f")
g = sp.Symbol("g")


def Eq(lhs, rhs):
    return sp.Eq(lhs, rhs, evaluate=False)  # SymPy would evaluate the very integrals that are to be tested


def lt(lhs, rhs):
    return sp.Lt(lhs, rhs, evaluate=False)


def le(lhs, rhs):
    return sp.Le(lhs, rhs, evaluate=False)


class E:
    """Entries, counted from one."""

    def __init__(self, entries):
        self.entries = entries

    def at(self, i):
        return self.entries[i - 1]

    def __repr__(self):
        return f"entries {self.entries}"


STATEMENTS = [
    (Eq(floor(sqrt(2) / (541131238821888000 - 382637568482834149 * sqrt(2)), evaluate=False), 1402), {}, False),
    (Eq(floor(sqrt(2) / (541131238821888000 - 382637568482834149 * sqrt(2)), evaluate=False), 1401), {}, True),
    (Eq(Limit(gamma(a + exp(-a)) - 1, a, oo), 0), {}, False),
    (Eq(Limit(atan(frac(sqrt(a) + a)), a, oo), pi / 2), {}, None),
    (Eq(Sum(exp(-k), (k, 0, oo)), 2), {}, False),
    (lt(Sum(cos(k), (k, 1, oo)), 0), {}, False),
    (lt(Integral(Abs(sin(x)), (x, 0, 2 * pi)), 4), {}, None),
    (Eq(Integral(Abs(sin(x)), (x, 0, 2 * pi)), 4), {}, True),
    (Eq(Integral(1 + exp(-(10**40) * (x - pi / 10) ** 2), (x, 0, 1)), 1), {}, False),
    (le(Sum(Abs(k), (k, -n, n)), 20 * pi * n), {n: 100}, False),
    (le(Integral(Abs(x), (x, -a, a)), 4 * pi * a), {a: 20}, False),
    (Eq(Derivative(Abs(x), x), sign(x)), {x: 0}, False),
    (Eq(Derivative(Abs(x), x), sign(x)), {x: -2}, True),
    (Eq(sin(3 * 10**6 * pi * x), 0), {x: sqrt(2)}, False),
    (Eq(sin(3 * 10**6 * pi * x), 0), {x: Rational(1, 3)}, True),
    (Eq(log(1 / (z - I)), -log(z - I)), {z: -2 + I}, False),
    (Eq(log(1 / (z - I)), -log(z - I)), {z: -sqrt(2) + I}, False),
    (
        Eq(n**2 * Sum(X[k] ** 2, (k, 1, n), (j, 1, n)), Sum(X[k], (k, 1, n), (j, 1, n)) ** 2),
        {n: 3, X: E([1, 2, Rational(1, 3)])},
        False,
    ),
    (Eq(Sum(x**k, (k, 0, oo)), 1 / (1 - x)), {x: 2}, False),
    (Eq(Sum(x**k, (k, 0, oo)), 1 / (1 - x)), {x: -1}, False),
    (Eq(Sum(x**k, (k, 0, oo)), 1 / (1 - x)), {x: Rational(1, 2)}, True),
    (Eq(Sum(x**k, (k, 0, oo)), 1 / (1 - x)), {x: Rational(-9, 10)}, True),
    (Eq(Integral(sin(x), (x, 0, oo)), 1), {}, False),
    (Eq(Limit(sin(pi * x), x, oo), 0), {}, None),
    (Eq(Limit((-1) ** n, n, oo), 1), {}, None),
    (Eq(tanh(x), 1), {x: 101}, False),
    (Eq(tanh(200 * x), 1), {x: 2}, False),
    (tanh(100 * x) < 1, {x: 3}, True),
    (1 / (1 + exp(-(x**3))) < 1, {x: 10}, True),
    (Eq(factorial(n) + 1, factorial(n)), {n: 60}, False),
    (Eq(Sum(exp(-a * k), (k, 0, oo)), 1 / (1 - exp(-a))), {a: Rational(3, 2)}, True),
    (Eq(Sum(exp(-a * k), (k, 0, oo)), 1 / (1 - exp(-a))), {a: Rational(1, 50)}, True),
    (Eq(Sum(cos(k) / k**2, (k, 1, oo)), pi**2 / 6 - pi / 2 + Rational(1, 4)), {}, True),
    (Eq(Integral(sin(x) ** 2 / x**2, (x, -oo, oo)), pi), {}, True),
    (Eq(Integral(sin(x) / x, (x, 0, oo)), pi / 2), {}, True),
    (Eq(Sum(1 / k, (k, 1, oo)), oo), {}, True),
    (Eq(Sum(1 / k**2, (k, 1, oo)), pi**2 / 6), {}, True),
    (Eq(Sum((-1) ** k / k, (k, 1, oo)), -log(2)), {}, True),
    (Eq(Integral(exp(-(x**2)), (x, -oo, oo)), sqrt(pi)), {}, True),
    (Eq(Integral(1 / sqrt(x), (x, 0, 1)), 2), {}, True),
    (Eq(Integral(log(x), (x, 0, 1)), -1), {}, True),
    (Eq(Integral(1 / x, (x, -1, 1)), 0), {}, False),
    (Eq(Integral(1 / x, (x, 1, oo)), oo), {}, True),
    (Eq(Integral(1 / (1 + x**2), (x, -oo, oo)), pi), {}, True),
    (Eq(Integral(x * t, (x, 0, t), (t, 0, 1)), Rational(1, 8)), {}, True),
    (Eq(Limit((1 + 1 / x) ** x, x, oo), sp.E), {}, True),
    (Eq(Limit(sin(x) / x, x, 0), 1), {}, True),
    (Eq(Limit(1 / log(x), x, oo), 0), {}, True),
    (Eq(Limit(Sum(1 / k, (k, 1, n)) - log(n), n, oo), EulerGamma), {}, True),
    (Eq(tan(x) * cos(x), sin(x)), {x: pi / 2}, False),
    (Eq((x**2 - 49) / (x - 7), x + 7), {x: 7}, False),
    (Implies(x > 0, log(x) < x), {x: -1}, True),
    (Implies(x > 0, Eq(sqrt(x**2), x)), {x: 0}, True),
    (Q.positive(exp(x) - x), {x: 0}, True),
    (Ge(x**2, 0), {x: I}, True),
    (x > 0, {x: 1 + I}, False),
    (Eq(Derivative(x**3 * exp(x), (x, 2)), (6 * x + 6 * x**2 + x**3) * exp(x)), {x: Rational(1, 3)}, True),
    (
        Eq(Derivative(log(Sum(exp(X[k]), (k, 1, n))), X[j]), exp(X[j]) / Sum(exp(X[k]), (k, 1, n))),
        {n: 3, j: 2, X: E([1, 2, Rational(1, 3)])},
        True,
    ),
    (Eq(sqrt(3 + 2 * sqrt(2)), 1 + sqrt(2)), {}, True),
    (le(sqrt(3 + 2 * sqrt(2)), 1 + sqrt(2)), {}, True),
    (lt(sqrt(3 + 2 * sqrt(2)), 1 + sqrt(2)), {}, False),
    (Eq(Integral(log(x), (x, 0, 1)), -1), {}, True),
    (Eq(Integral(x**2 * exp(-x), (x, 0, oo)), 2), {}, True),
    (Eq(Integral(exp(-x) * cos(5 * x), (x, 0, oo)), Rational(1, 26)), {}, True),
    (Eq(Integral(cos(x) / (1 + x**2), (x, -oo, oo)), pi / sp.E), {}, True),
    (Eq(Integral(exp(I * x) / (1 + x**2), (x, -oo, oo)), pi / sp.E), {}, True),
    (Eq(Integral(1 / (x * log(x) ** 2), (x, 2, oo)), 1 / log(2)), {}, None),
    (Eq(Integral(floor(x), (x, 0, Rational(7, 2))), Rational(9, 2)), {}, True),
    (Eq(Integral(Max(x, 1 - x), (x, 0, 1)), Rational(3, 4)), {}, True),
    (
        Eq(Integral(Piecewise((x, x < Rational(1, 3)), (1, True)), (x, 0, 1)), Rational(1, 18) + Rational(2, 3)),
        {},
        True,
    ),
    (Eq(Integral(Abs(exp(I * x) + 1) ** 2, (x, 0, 2 * pi)), 4 * pi), {}, True),
    (Eq(Integral(1 / sqrt(1 - x**2), (x, -1, 1)), pi), {}, True),
    (
        Eq(Integral(1 / sqrt(Abs(x - Rational(1, 3))), (x, 0, 1)), 2 * sqrt(Rational(1, 3)) + 2 * sqrt(Rational(2, 3))),
        {},
        True,
    ),
    (Eq(Integral(1 / (x - Rational(1, 3)), (x, 0, 1)), log(2)), {}, False),
    (Eq(Integral(tan(x), (x, 0, pi)), 0), {}, False),
    (Eq(Integral(sin(x) / x, (x, 0, 1)), Si(1)), {}, True),
    (Eq(Integral(exp(-((x - 1000) ** 2) / 2) / sqrt(2 * pi), (x, -oo, oo)), 1), {}, True),
    (Eq(Integral(erf(x), (x, 0, 1)), erf(1) - (1 - exp(-1)) / sqrt(pi)), {}, True),
    (Eq(Derivative(gamma(x), x), gamma(x) * digamma(x)), {x: Rational(7, 3)}, True),
    (Eq(Derivative(gamma(x), (x, 2)), gamma(x) * (digamma(x) ** 2 + polygamma(1, x))), {x: Rational(7, 3)}, True),
    (Eq(Derivative(Max(x, 0), x), 0), {x: 0}, False),
    (Eq(Derivative(x * Abs(x), x), 2 * Abs(x)), {x: 0}, True),
    (Eq(Derivative(Integral(exp(-(t**2)), (t, 0, x)), x), exp(-(x**2))), {x: Rational(1, 3)}, True),
    (Eq(Derivative(Derivative(sin(x * y), x), y), cos(x * y) - x * y * sin(x * y)), {x: Rational(1, 3), y: 2}, True),
    (Eq(Derivative(f(x), x), 2 * x), {x: 5, f: Lambda(t, t**2)}, True),
    (Eq(Subs(Derivative(f(x), x), x, 2), 4), {f: Lambda(t, t**2)}, True),
    (Eq(Limit((cos(x) - 1) / x**2, x, 0), -Rational(1, 2)), {}, True),
    (Eq(Limit(Abs(x) / x, x, 0), 1), {}, True),
    (Eq(Limit(Abs(x) / x, x, 0, "+-"), 1), {}, None),
    (Eq(Limit(x * log(x), x, 0), 0), {}, True),
    (Eq(Limit(log(x), x, oo), oo), {}, True),
    (Eq(Limit(exp(-x), x, oo), 0), {}, True),
    (Eq(Limit(x**a, x, oo), oo), {a: Rational(1, 3)}, True),
    (Eq(Limit((exp(x) - 1) / x, x, 0), 1), {}, True),
    (Eq(Limit(n ** (1 / n), n, oo), 1), {}, True),
    (Eq(Limit(sqrt(x + 1) - sqrt(x), x, oo), 0), {}, True),
    (Eq(Limit(tan(x), x, pi / 2, "-"), oo), {}, True),
    (Eq(Limit(factorial(n) ** (1 / n) / n, n, oo), exp(-1)), {}, True),
    (Eq(Sum(1 / k ** Rational(3, 2), (k, 1, oo)), zeta(Rational(3, 2))), {}, True),
    (Eq(Sum(1 / (k * (k + 1)), (k, 1, oo)), 1), {}, True),
    (Eq(Sum(1 / sqrt(k), (k, 1, oo)), oo), {}, True),
    (Eq(Sum((-1) ** k * x ** (2 * k) / factorial(2 * k), (k, 0, oo)), cos(x)), {x: 3}, True),
    (Eq(Sum(k * x**k, (k, 0, oo)), x / (1 - x) ** 2), {x: Rational(9, 10)}, True),
    (Eq(Sum(exp(I * k) / 2**k, (k, 0, oo)), 1 / (1 - sp.E**I / 2)), {}, True),
    (Eq(Sum(sin(k) / k, (k, 1, oo)), (pi - 1) / 2), {}, True),
    (Eq(Sum(KroneckerDelta(k, 3) * k**2, (k, 0, oo)), 9), {}, True),
    (Eq(Product(1 - 1 / k**2, (k, 2, oo)), Rational(1, 2)), {}, True),
    (Eq(Product(1 + 1 / k, (k, 1, n)), n + 1), {n: 50}, True),
    (Eq(Sum(1 / (k * log(k)), (k, 2, oo)), oo), {}, None),
    (Eq(Sum(1 / (k * log(k) ** 2), (k, 2, oo)), 2), {}, None),
    (Eq(Sum(exp(-(k**2)), (k, -oo, oo)), sqrt(pi) * (1 + 2 * Sum(exp(-(pi**2) * j**2), (j, 1, oo)))), {}, True),
    (Eq(Sum(k, (k, 1, n)), n * (n + 1) / 2), {n: 15000}, True),
    (Eq(Sum(1 / k, (k, 1, n)), harmonic(n)), {n: 5000}, True),
    (Eq(Sum(binomial(n, k) * x**k * (1 - x) ** (n - k), (k, 0, n)), 1), {n: 200, x: Rational(1, 3)}, True),
    (Eq(Sum(binomial(n, k) * x**k * (1 - x) ** (n - k), (k, 0, n)), 1), {n: 200, x: pi / 7}, True),
    (Eq(floor(log(8) / log(2)), 3), {}, True),
    (Eq(cos(pi * (2 * n + 1) / 2) ** 2, 0), {n: 7}, True),
    (Eq(Heaviside(x - sqrt(2)), Rational(1, 2)), {x: sqrt(2)}, True),
    (Eq(sqrt(x**2 - 2 * x + 1), x - 1), {x: Rational(1, 2)}, False),
    (Eq(exp(x + 1000) - exp(x + 999) * sp.E, 0), {x: pi}, True),
    (Eq(exp(exp(x)), exp(exp(x)) + 1), {x: 7}, False),
    (Eq(x + Rational(1, 10**400), x), {x: pi}, False),
    (Eq(cos(x), 1), {x: Rational(1, 10**80)}, False),
    (Eq(zeta(x), 1), {x: 1000}, False),
    (Eq(erf(x), 1), {x: 30}, False),
    (Eq(atan(x), pi / 2), {x: 10**100}, False),
    (Eq(log(exp(x) + 1), x + log(1 + exp(-x))), {x: 1000}, True),
    (Eq(arg(z), pi), {z: -1}, True),
    (Eq(log(z), log(2) + I * pi), {z: -2}, True),
    (Eq(sqrt(z * y), sqrt(z) * sqrt(y)), {z: -1, y: -1}, False),
    (Eq(Mod(-7, 3, evaluate=False), 2), {}, True),
    (Eq(re(z) ** 2 + im(z) ** 2, Abs(z) ** 2), {z: 3 + sqrt(2) * I}, True),
    (sp.Ge(z * conjugate(z), 0, evaluate=False), {z: sqrt(3) + sqrt(2) * I}, True),
    (And(x > 0, sp.Or(Eq(x, 1), 1 / (x - 1) > 0)), {x: 1}, True),
    (Eq(1 / (x - 1), 1 / (x - 1)), {x: 1}, False),
    (Contains(x, Interval.open(0, 1)), {x: pi / 4}, True),
    (Contains(x, S.Integers), {x: pi / 4}, False),
]


@pytest.mark.parametrize(("statement", "point", "expected"), STATEMENTS, ids=lambda value: str(value)[:60])
def test_statement_at_a_point(statement, point, expected):
    assert truth(statement, point).value is expected


@pytest.mark.parametrize(
    ("statement", "point"),
    [
        (Eq(sp.tan(x) * sp.cos(x), sp.sin(x)), {x: sp.pi / 2}),
        (Eq((x**2 - 49) / (x - 7), x + 7), {x: 7}),
        (Eq(sp.Integral(sp.sin(x), (x, 0, sp.oo)), 1), {}),
        (lt(sp.Sum(sp.cos(k), (k, 1, sp.oo)), 0), {}),
        (Eq(sp.Derivative(sp.Abs(x), x), sp.sign(x)), {x: 0}),
    ],
    ids=str,
)
def test_a_side_without_a_value_makes_the_statement_false_and_says_why(statement, point):
    result = truth(statement, point)
    assert result.value is False
    assert result.undefined


def test_matrices():
    size = sp.Symbol("n", integer=True, positive=True)
    A = sp.MatrixSymbol("A", size, size)
    point = {size: 2, A: sp.ImmutableMatrix([[1, 2], [3, sp.sqrt(2)]])}
    singular = {size: 2, A: sp.ImmutableMatrix([[1, 2], [2, 4]])}
    assert truth(Eq(A * A.I, sp.Identity(size)), point).value is True
    assert truth(Eq(A * A.T, A.T * A), point).value is False
    assert truth(Eq(sp.Determinant(A), sp.sqrt(2) - 6), point).value is True
    assert truth(Eq(sp.Determinant(A), 0), singular).value is True
    assert truth(Eq(sp.MatMul(A.I, A, evaluate=False), sp.Identity(size)), singular).undefined
    assert truth(Eq(sp.Trace(A), 1 + sp.sqrt(2)), point).value is True
    assert truth(sp.Ne(A, A.T, evaluate=False), point).value is True


def test_value_text_shows_as_many_digits_as_tell_the_sides_apart():
    assert value_text(x / 3, {x: 1}) == "1/3"
    assert value_text(1 / x, {x: 0}).startswith("undefined")
    assert value_text(sp.Sum(1 / k, (k, 1, sp.oo))) == "oo"
    assert "digits" in value_text(sp.tanh(x), {x: 100}, sp.Integer(1))
    assert value_text(sp.exp(x), {x: 1}, sp.Rational(2718, 1000)).startswith("2.7182")
