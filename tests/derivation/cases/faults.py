"""Statements at which a prover slips: poles, jumps, saturation, far points, divergence, structured matrices."""

from typing import Any

import sympy as sp
from sympy import (
    Abs,
    Determinant,
    Eq,
    Integral,
    Limit,
    Max,
    Min,
    Ne,
    Piecewise,
    Sum,
    cos,
    exp,
    floor,
    gamma,
    log,
    pi,
    sign,
    sin,
    sqrt,
    tan,
    tanh,
)
from sympy import Q as M
from sympy import Rational as Q

from ._table import Pair, Table, X, a, b, g, j, k, n, oo, p, q, t, x, y, zc

TABLE = Table("faults")
eq, says, equations = TABLE.eq, TABLE.says, TABLE.equations

C, D, E, W = (sp.MatrixSymbol(name, n, n) for name in "CDEW")
odd = sp.Symbol("h", odd=True)

# --- poles, jumps, branches -------------------------------------------------------------------------------------------
eq("pole on the line", (x**2 - 81) / (x - 9), x + 9, x + 9, given=[Ne(x, 9)], wrong_given=[])
eq("poles of the tangent", tan(x) * cos(x), sin(x), sin(x), given=[Ne(cos(x), 0)], wrong_given=[])
eq("poles of gamma", (x - 11) * gamma(x - 11), gamma(x - 10), gamma(x - 10), given=[x > 11], wrong_given=[])
eq(
    "ratio one in a geometric sum",
    Sum((t / 5) ** k, (k, 0, n - 1)),
    (1 - (t / 5) ** n) / (1 - t / 5),
    (1 - (t / 5) ** n) / (1 - t / 5),
    given=[Ne(t, 5)],
    wrong_given=[],
)
eq("logarithm on both sides", log((x - 17) ** 2), 2 * log(Abs(x - 17)), 2 * log(17 - x), given=[Ne(x, 17)])
eq(
    "period of the tangent",
    sp.atan(tan(x / 12)),
    x / 12,
    x / 12,
    given=[x > -6 * pi, x < 6 * pi],
    wrong_given=[Ne(cos(x / 12), 0)],
)
says("jump of the arc cotangent", sp.acot(a) < pi / 2, sp.acot(a - 3000) > 0)
far = Piecewise((x, x < exp(9)), (exp(9), True))
eq("far branch", far, Min(x, exp(9)), x)
folded = Sum(Piecewise((k, k < 90), (n - k, True)), (k, 0, n))
eq("far branch of a sum", folded, n * (n + 1) / 2, n * (n + 1) / 2, given=[n < 90], wrong_given=[])
# 2850877693509864481² = 2 · 2015874949414289041² - 1, so that the difference below is 1 / (sum of the two)
near = 1 / (2015874949414289041 * sqrt(2) - 2850877693509864481)
eq("floor after cancellation", floor(near, evaluate=False), 5701755387019728962, 5701755387019728963)
eq("kink", sp.Derivative(Abs(x), x), sign(x), sign(x), given=[Ne(x, 0)], wrong_given=[])
eq("kink of the rectifier", sp.Derivative(Max(x, 0), x), (1 + sign(x)) / 2, 1, given=[Ne(x, 0)])
equations("branch cut", (log(1 / (a + sp.I)), -log(a + sp.I)), (log(1 / (zc - sp.I)), -log(zc - sp.I)))

# --- limits, series and integrals without a value ---------------------------------------------------------------------
equations("limit of slow waves", (Limit(sin(sqrt(a)) / a, a, oo), 0), (Limit(sin(sqrt(a)), a, oo), 0))
equations("limit along the period", (Limit(cos(2 * pi * x) / x, x, oo), 0), (Limit(cos(2 * pi * x), x, oo), 1))
equations("limit of alternating signs", (Limit((-1) ** n / n, n, oo), 0), (Limit((-1) ** n, n, oo), 1))
eq("shifted gamma", Limit(gamma(a + exp(-a)) / gamma(a), a, oo), 1, 0)
eq("exponential series", Sum(exp(-2 * k), (k, 0, oo)), 1 / (1 - exp(-2)), Q(7, 6))
eq(
    "series of waves",
    Sum(cos(k) / 2**k, (k, 0, oo)),
    (1 - cos(1) / 2) / (Q(5, 4) - cos(1)),
    1,
)
dying, lasting = Sum(exp(-k) * cos(k), (k, 1, oo)), Sum(cos(2 * k), (k, 1, oo))
says("waves that do not die out", sp.Lt(dying, 1, evaluate=False), sp.Lt(lasting, 1, evaluate=False))
ratio = [x > -1, x < 1]
eq("radius of convergence", Sum(x**k, (k, 0, oo)), 1 / (1 - x), 1 / (1 - x), given=ratio, wrong_given=[Ne(x, 1)])
damped = Integral(exp(-x) * cos(x), (x, 0, oo))
equations("integral without a limit", (damped, Q(1, 2)), (Integral(cos(x), (x, 0, oo)), 0))
eq("infinite sum", Sum(1 / sqrt(k), (k, 1, oo)), oo, sp.zeta(Q(1, 2)))
eq("rate of an exponential series", Sum(exp(-a * k), (k, 1, oo)), 1 / (exp(a) - 1), 1 / (1 - exp(-a)))
eq("Fourier series", Sum(cos(2 * k) / k**2, (k, 1, oo)), pi**2 / 6 - pi + 1, pi**2 / 6 - pi)
eq("Euler's constant", Limit(Sum(1 / k, (k, 1, n)) - log(n), n, oo), sp.EulerGamma, Q(577, 1000))
eq("arches of the cosine", Integral(Abs(cos(x)), (x, 0, 2 * pi)), 4, 4 - Q(1, 10**12))
eq("squared sinc", Integral(sin(x) ** 2 / x**2, (x, 0, oo)), pi / 2, pi)
spike = Integral(1 + exp(-(10**30) * (x - pi / 7) ** 2), (x, 0, 1))
says("a spike counts", sp.Gt(spike, 1, evaluate=False), sp.Le(spike, 1, evaluate=False))
eq("mass at a point", Integral(sp.DiracDelta(x - 1) * cos(x), (x, -oo, oo)), cos(1), 1)

# --- cases on a bound variable ----------------------------------------------------------------------------------------
distances = Sum(Abs(k), (k, -n, n))
says("distances on both sides", distances <= 2 * n**2, distances <= 30 * n)
eq("area on both sides", Integral(Abs(x), (x, -a, a)), a**2, 4 * pi * a)
eq("squares along one index", Sum(X[k] ** 2, (k, 1, n), (j, 1, n)), n * Sum(X[k] ** 2, (k, 1, n)), Sum(X[k], (k, 1, n)))

# --- unknown functions and entries ------------------------------------------------------------------------------------
says("any function", g(x) ** 2 >= 2 * g(x) - 1, g(x) ** 2 > 2 * g(x) - 1)
positive = [g(x) > 0, g(y) > 0]
product = log(g(x) * g(y))
eq(
    "logarithm of functions",
    product,
    log(g(x)) + log(g(y)),
    log(g(x)) + log(g(y)),
    given=positive,
    wrong_given=[Ne(g(x), 0), Ne(g(y), 0)],
)
says("any entry", X[1] ** 2 + X[2] ** 2 >= 2 * X[1] * X[2], X[1] < 53)

# --- far points, late digits, saturation ------------------------------------------------------------------------------
says("logarithm grows", log(a) < a, log(a) < 9)
harmonic = Sum(1 / k, (k, 1, n))
says("harmonic sum grows", harmonic <= n, harmonic <= 6)
eq("far kink", Abs(x + 3000), x + 3000, x + 3000, given=[x >= -3000], wrong_given=[])
eq("zero at all rational points", sin(2 * 10**6 * pi * x) ** 2, (1 - cos(4 * 10**6 * pi * x)) / 2, 0)
says("saturated far out", tanh(x) < 1, Eq(tanh(x), 1), given=[x > 200])
eq("one among factorials", sp.factorial(n + 60) * (n + 61), sp.factorial(n + 61), sp.factorial(n + 61) + 1)
equations("roots of a condition", (cos(x) ** 2 * y, y), (y * x * (x**2 - pi**2), 0), given=[Eq(sin(x), 0)])
says("steep hyperbolic tangent", tanh(300 * x) < 1, tanh(300 * x) < 1 - Q(1, 10**40))
says("steep sigmoid", 1 / (1 + exp(-(x**5))) < 1, 1 / (1 + exp(-(x**5))) < 1 - Q(1, 10**50))
equations("odd and whole", (cos(pi * (odd + 1) / 2) ** 2, 1), (cos(pi * (k + 1) / 2) ** 2, 1))


def measured(observed: Any, expected: Any) -> Any:
    """The step that compares the two exactly."""
    return lambda d, title: d.measured(title, observed, expected, rtol=0)


WHOLE = 2**61 + 1
TABLE.append(Pair("faults", "large whole numbers", measured(WHOLE, sp.Integer(WHOLE)), measured(WHOLE, 2**61)))

# --- matrices with structure ------------------------------------------------------------------------------------------
definite = [M.positive_definite(C), M.real_elements(C)]
says("determinant of a definite matrix", Determinant(C) > 0, Determinant(C) >= 1, given=definite)
equations("orthogonal up to a sign", (Determinant(W) ** 2, 1), (Determinant(W), 1), given=[M.orthogonal(W)])
hall = (C * D - D * C) ** 2
equations("true up to two rows", (sp.Trace(hall * E), sp.Trace(E * hall)), (hall * E, E * hall))
eq("singular", Determinant(C * D), 0, 0, given=[M.singular(C)], wrong_given=[M.invertible(C)])
eq(
    "symmetric and orthogonal",
    C * C,
    sp.Identity(n),
    sp.Identity(n),
    given=[M.symmetric(C), M.orthogonal(C)],
    wrong_given=[M.orthogonal(C)],
)
block = sp.BlockMatrix([[C, D], [sp.ZeroMatrix(n, n), C]])
eq(
    "square of blocks",
    block * block,
    sp.BlockMatrix([[C**2, C * D + D * C], [sp.ZeroMatrix(n, n), C**2]]),
    sp.BlockMatrix([[C**2, 2 * C * D], [sp.ZeroMatrix(n, n), C**2]]),
)
U, V = sp.symbols("U V", commutative=False)
eq("letters that do not commute", (U + V) ** 2, U**2 + U * V + V * U + V**2, U**2 + 2 * U * V + V**2)

# --- conditions -------------------------------------------------------------------------------------------------------
says(
    "strict where the arguments differ",
    a**2 + b**2 > 2 * a * b,
    a**2 + b**2 > 2 * a * b,
    given=[Ne(a, b)],
    wrong_given=[],
)
says("strict off the tangent point", exp(x) > 1 + x, exp(x) > 1 + x, given=[Ne(x, 0)], wrong_given=[])
divergence = p * log(p / q) + (1 - p) * log((1 - p) / (1 - q)) > 0
says("divergence of two coins", divergence, divergence, given=[p < 1, q < 1, Ne(p, q)], wrong_given=[p < 1, q < 1])
eq("sign from a predicate", Abs(x), -x, -x, given=[M.negative(x)], wrong_given=[M.nonzero(x)])
says("a predicate is stated", M.positive(exp(x) - x), M.positive(exp(x) - 2 * x - 1))
