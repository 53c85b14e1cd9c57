"""Algebra, radicals, logarithms; softmax, the sigmoid and log-sum-exp; the functions of pieces."""

import sympy as sp
from sympy import Rational as Q
from sympy import cos, exp, log, pi, sin, sqrt, tanh

from ._table import Table, Z, a, b, n, root, s, sigmoid, soft, t, u, wc, x, x1, x2, y, zc

TABLE = Table("algebra")
eq, says = TABLE.eq, TABLE.says

# --- algebra, radicals, logarithms ------------------------------------------------------------------------------------
eq("difference of cubes", x**3 - y**3, (x - y) * (x**2 + x * y + y**2), (x - y) * (x**2 - x * y + y**2))
eq("squareplus solves its quadratic", ((x + root) / 2) ** 2 - x * (x + root) / 2, b / 4, b / 2)
eq("squareplus without cancellation", (x + root) / 2, (b / 2) / (root - x), (b / 2) / (root + x))
eq("root of a square", sqrt(x**2 - 2 * x + 1), sp.Abs(x - 1), x - 1)
eq("root of a quotient", sqrt(a) / sqrt(a + b), 1 / sqrt(1 + b / a), sqrt(1 + b / a))
eq("nested root", sqrt(3 + 2 * sqrt(2)), 1 + sqrt(2), 1 + sqrt(3) - Q(1, 3))
eq("ten digits are not enough", pi, 16 * sp.atan(Q(1, 5)) - 4 * sp.atan(Q(1, 239)), Q(31415926536, 10**10))
eq("thirty digits are not enough", sp.cosh(x), (exp(x) + exp(-x)) / 2, sp.cosh(x) * (1 + Q(1, 10**30)))
eq("logarithm of a power", log(t**3 / s), 3 * log(t) - log(s), 3 * log(t) + log(s))
eq("inverse hyperbolic sine", sp.asinh(x), log(x + sqrt(x**2 + 1)), log(x + sqrt(x**2 - 1)))
eq("partial fractions", 1 / (t * (t + 1)), 1 / t - 1 / (t + 1), 1 / t + 1 / (t + 1))
eq("cancelled denominator", (x**2 - 1) / (x - 1), x + 1, x + 1, given=[sp.Ne(x, 1)], wrong_given=[])
eq("powers by exponentials", t**x, exp(x * log(t)), exp(t * log(t)))
eq("only for positive x", log(t**2), 2 * log(t), log(2 * t))
eq("logarithm of a square, real x", log(x**2), 2 * log(sp.Abs(x)), 2 * log(x), given=[sp.Ne(x, 0)])

# --- softmax, sigmoid, log-sum-exp ------------------------------------------------------------------------------------
eq("softmax sums to one", sum(soft), 1, 1 + Q(1, 10**12))
eq("softmax of two is a sigmoid", exp(x) / (exp(x) + exp(y)), 1 / (1 + exp(y - x)), 1 / (1 + exp(x - y)))
eq("shift of log-sum-exp", log(exp(x + u) + exp(y + u)), u + log(exp(x) + exp(y)), u * log(exp(x) + exp(y)))
eq("gradient of log-sum-exp", sp.Derivative(log(Z), x1), soft[0], soft[1])
eq("derivative of the sigmoid", sp.Derivative(sigmoid, x), sigmoid * (1 - sigmoid), sigmoid * (1 + sigmoid))
eq("sigmoid is a hyperbolic tangent", sigmoid, (1 + tanh(x / 2)) / 2, (1 + tanh(x)) / 2)
eq("softplus minus half", log(1 + exp(x)) - x / 2, log(2 * sp.cosh(x / 2)), log(sp.cosh(x / 2)))
eq(
    "Hessian of log-sum-exp",
    sp.hessian(log(exp(x1) + exp(x2)), (x1, x2)),
    sp.Matrix([[1, -1], [-1, 1]]) * exp(x1 + x2) / (exp(x1) + exp(x2)) ** 2,
    sp.Matrix([[1, 1], [1, 1]]) * exp(x1 + x2) / (exp(x1) + exp(x2)) ** 2,
)
eq("hyperbolic addition", tanh(x + y), (tanh(x) + tanh(y)) / (1 + tanh(x) * tanh(y)), tanh(x) + tanh(y))

# --- pieces, complex numbers, integers --------------------------------------------------------------------------------
eq("rectifier", sp.Max(x, 0), (x + sp.Abs(x)) / 2, (x - sp.Abs(x)) / 2)
relu = sp.Piecewise((x, x > 0), (0, True))
eq("rectifier by pieces", relu, sp.Max(x, 0), sp.Max(-x, 0))
eq("difference of rectifiers", sp.Max(x, 0) - sp.Max(-x, 0), x, sp.Abs(x))
eq("maximum and minimum", sp.Max(x, y) + sp.Min(x, y), x + y, x - y)
eq("squared absolute value", (x + sp.I * y) * (x - sp.I * y), x**2 + y**2, x**2 - y**2)
eq("modulus of a product", sp.Abs(zc * wc), sp.Abs(zc) * sp.Abs(wc), zc * wc)
eq("Euler", exp(sp.I * x), cos(x) + sp.I * sin(x), cos(x) - sp.I * sin(x))
eq("complex root needs care", (sqrt(zc**2) - wc) * (sqrt(zc**2) + wc), zc**2 - wc**2, (zc - wc) * (sqrt(zc**2) + wc))
eq("real part", (zc + sp.conjugate(zc)) / 2, sp.re(zc), zc)
eq("alternating sign", (-1) ** (n + 1), -((-1) ** n), (-1) ** n)
eq("sine at multiples of pi", sin(pi * n / 2) ** 2, (1 - (-1) ** n) / 2, (1 + (-1) ** n) / 2)
eq("floor of halves", sp.floor(n / 2) + sp.ceiling(n / 2), n, n + 1)
eq("trigonometric product", cos(x) * cos(y), (cos(x - y) + cos(x + y)) / 2, (cos(x - y) - cos(x + y)) / 2)
eq("powers of cosine", cos(x) ** 4, (3 + 4 * cos(2 * x) + cos(4 * x)) / 8, (3 + 4 * cos(2 * x) - cos(4 * x)) / 8)
