"""Integrals, limits, derivatives, unknown functions."""

import sympy as sp
from sympy import Rational as Q
from sympy import cos, exp, log, pi, sin, sqrt

from ._table import Table, a, b, f, g, lam, m, n, oo, root, s, t, u, x

TABLE = Table("calculus")
eq, says = TABLE.eq, TABLE.says

# --- integrals --------------------------------------------------------------------------------------------------------
eq("Gaussian integral", sp.Integral(exp(-a * x**2), (x, -oo, oo)), sqrt(pi / a), sqrt(pi) / a)
eq("Gaussian second moment", sp.Integral(x**2 * exp(-(x**2) / 2), (x, -oo, oo)), sqrt(2 * pi), sqrt(pi))
eq("exponential moment", sp.Integral(x * exp(-a * x), (x, 0, oo)), 1 / a**2, 1 / a)
eq("rational integral", sp.Integral(1 / (1 + x**2), (x, 0, t)), sp.atan(t), sp.atan(t) + Q(1, 10**11))
eq("definite integral with a parameter", sp.Integral(x**2, (x, 0, t)), t**3 / 3, t**2 / 3)
eq("cosine over a period", sp.Integral(cos(pi * x) ** 2, (x, -1, 1)), 1, 2)
eq("Fourier orthogonality", sp.Integral(exp(sp.I * pi * x) * exp(-2 * sp.I * pi * x), (x, -1, 1)), 0, 1)
eq("student density", sp.Integral(b / (2 * (x**2 + b) ** Q(3, 2)), (x, -oo, oo)), 1, 2)
eq(
    "moment generating function",
    sp.Integral(exp(lam * x) * exp(-(x**2) / 2) / sqrt(2 * pi), (x, -oo, oo)),
    exp(lam**2 / 2),
    exp(lam**2),
)
eq("integral of an absolute value", sp.Integral(sp.Abs(x - Q(1, 3)), (x, 0, 1)), Q(5, 18), Q(5, 17))
eq(
    "no closed form",
    sp.Integral(exp(-(x**2)) * cos(sin(x)), (x, 0, 1)),
    sp.Integral(exp(-((1 - x) ** 2)) * cos(sin(1 - x)), (x, 0, 1)),
    sp.Integral(exp(-(x**2)) * cos(sin(1 - x)), (x, 0, 1)),
)

# --- limits, derivatives, unknown functions ---------------------------------------------------------------------------
eq("limit of powers", sp.Limit((1 + x / t) ** t, t, oo), exp(x), exp(-x))
eq("softmax at zero temperature", sp.Limit(1 / (1 + exp(-a / t)), t, 0), 1, Q(1, 2))
eq("tail of squareplus", sp.Limit(x * ((x + sqrt(x**2 + b)) / 2 - x), x, oo), b / 4, b / 2)
eq("entropy at zero", sp.Limit(t * log(t), t, 0), 0, Q(1, 10**9))
eq("derivative of a root", sp.Derivative(sqrt(x**2 + b), x), x / sqrt(x**2 + b), x / (2 * sqrt(x**2 + b)))
eq("second derivative", sp.Derivative(root, x, 2), b / root**3, b / root**2)
eq(
    "product rule",
    sp.Derivative(f(x) * g(x), x),
    f(x).diff(x) * g(x) + f(x) * g(x).diff(x),
    f(x).diff(x) * g(x) - f(x) * g(x).diff(x),
)
eq(
    "heat kernel",
    sp.Derivative(exp(-(x**2) / (4 * t)) / sqrt(t), t),
    sp.Derivative(exp(-(x**2) / (4 * t)) / sqrt(t), x, 2),
    2 * sp.Derivative(exp(-(x**2) / (4 * t)) / sqrt(t), x, 2),
)
eq("derivative of an integral", sp.Derivative(sp.Integral(f(u), (u, 0, x)), x), f(x), f(x) - f(0))
eq(
    "tilted Gaussian mean",
    sp.Integral(x * exp(x) * exp(-(x**2) / (2 * s**2)) / (s * sqrt(2 * pi)), (x, -oo, oo)),
    s**2 * exp(s**2 / 2),
    s * exp(s**2 / 2),
)
eq(
    "Fourier orthogonality for all frequencies",
    sp.Integral(exp(sp.I * pi * n * x) * exp(-sp.I * pi * m * x), (x, -1, 1)),
    0,
    0,
    given=[sp.Ne(n, m)],
    wrong_given=[],
)
eq("slope of the cosine integral", sp.Derivative(sp.Ci(a), a), cos(a) / a, cos(a) / a + Q(1, 10**12))
eq("slope of an incomplete gamma", sp.Derivative(sp.lowergamma(b, a), a), a ** (b - 1) * exp(-a), a**b * exp(-a))
eq("slope of Bessel's second function", sp.Derivative(sp.bessely(0, a), a), -sp.bessely(1, a), sp.bessely(1, a))
eq("slope on a branch cut", sp.Derivative(sp.Ei(-a), a), exp(-a) / a, exp(-a) / (1 + a))
