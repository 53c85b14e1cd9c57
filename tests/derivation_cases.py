"""True statements of every kind that chapters make, each beside a near miss that is false."""

from collections.abc import Callable
from typing import Any, NamedTuple

import sympy as sp
from sympy import Rational as Q
from sympy import cos, exp, log, pi, sin, sqrt, tanh

from kexue_lib.derivation import Derivation


class Pair(NamedTuple):
    """A true statement and a false one, each a step for a derivation."""

    name: str
    true: Callable[[Derivation], Any]
    false: Callable[[Derivation], Any]


PAIRS: list[Pair] = []
x, y, z, u, v, w, lam = sp.symbols("x y z u v w lambda", real=True)
x1, x2, x3, x4 = xs = sp.symbols("x1:5", real=True)
a, b, c, s, t = sp.symbols("a b c s t", positive=True)
a1, a2, a3, b1, b2, b3 = sp.symbols("a1:4 b1:4", real=True)
p, q, r = sp.symbols("p q r", positive=True)
k, j = sp.symbols("k j", integer=True)
n, m = sp.symbols("n m", integer=True, positive=True)
n0 = sp.Symbol("n", integer=True, nonnegative=True)
zc, wc = sp.symbols("z w")
oo = sp.oo


def eq(name: str, lhs: Any, rhs: Any, wrong: Any, *, given: Any = (), wrong_given: Any = None) -> None:
    """lhs equals rhs (under `given`), and does not equal `wrong` (under `wrong_given`)."""
    false_given = given if wrong_given is None else wrong_given
    PAIRS.append(
        Pair(
            name, lambda d: d.equal(name, lhs, rhs, given=given), lambda d: d.equal(name, lhs, wrong, given=false_given)
        )
    )


def says(name: str, true: Any, false: Any, *, given: Any = (), wrong_given: Any = None) -> None:
    """`true` holds (under `given`), `false` does not (under `wrong_given`)."""
    false_given = given if wrong_given is None else wrong_given
    PAIRS.append(
        Pair(name, lambda d: d.holds(name, true, given=given), lambda d: d.holds(name, false, given=false_given))
    )


# --- algebra, radicals, logarithms ------------------------------------------------------------------------------------
root = sqrt(x**2 + b)
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
Z = sum(exp(i) for i in xs)
soft = [exp(i) / Z for i in xs]
sigmoid = 1 / (1 + exp(-x))
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

# --- sums, products, binomials ----------------------------------------------------------------------------------------
eq("triangular numbers", sp.Sum(k, (k, 1, n)), n * (n + 1) / 2, n * (n - 1) / 2)
eq("sum of squares", sp.Sum(k**2, (k, 1, n)), n * (n + 1) * (2 * n + 1) / 6, n * (n + 1) * (2 * n - 1) / 6)
eq("sum of cubes from zero", sp.Sum(k**3, (k, 0, n0)), (n0 * (n0 + 1) / 2) ** 2, (n0 * (n0 - 1) / 2) ** 2)
eq(
    "geometric sum",
    sp.Sum(t**k, (k, 0, n - 1)),
    (1 - t**n) / (1 - t),
    (1 - t ** (n + 1)) / (1 - t),
    given=[sp.Ne(t, 1)],
)
eq("telescoping sum", sp.Sum(1 / (k * (k + 1)), (k, 1, n)), n / (n + 1), (n + 1) / (n + 2))
eq("row of binomials", sp.Sum(sp.binomial(n0, k), (k, 0, n0)), 2**n0, 2**n0 - 1)
eq("Pascal", sp.binomial(n + 1, 2), sp.binomial(n, 2) + n, sp.binomial(n, 2) + n + 1)
eq("product of consecutive numbers", sp.Product(k, (k, 1, n)), sp.factorial(n), sp.factorial(n - 1))
eq("product telescopes", sp.Product(1 + 1 / k, (k, 1, n)), n + 1, n)
eq("ratio of factorials", sp.factorial(n + 1) / sp.factorial(n - 1), n * (n + 1), n * (n - 1))
eq("gamma recursion", sp.gamma(t + 1), t * sp.gamma(t), sp.gamma(t) + t)
X = sp.IndexedBase("X", real=True)
eq(
    "linearity of a sum",
    sp.Sum(a * X[k] + 1, (k, 1, n)),
    a * sp.Sum(X[k], (k, 1, n)) + n,
    a * sp.Sum(X[k], (k, 1, n)) + 1,
)
eq("geometric series", sp.Sum(2 ** (-k), (k, 0, oo)), 2, Q(2 * 10**10 + 1, 10**10))
eq(
    "window of distances",
    sp.Sum((n - k) * 1, (k, 0, n - 1)),
    n * (n + 1) / 2,
    n * (n + 1) / 2 - 1,
)

# --- integrals --------------------------------------------------------------------------------------------------------
gauss = exp(-((x - u) ** 2) / (2 * s**2)) / (s * sqrt(2 * pi))
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
f, g = sp.Function("f", real=True), sp.Function("g", real=True)
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


# --- matrices ---------------------------------------------------------------------------------------------------------
def rotation(angle: Any) -> sp.Matrix:
    """The plane rotation."""
    return sp.Matrix([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])


M2 = sp.Matrix(2, 2, sp.symbols("m11 m12 m21 m22", real=True))
M3 = sp.Matrix(3, 3, sp.symbols("g1:10", real=True))
col, row = sp.Matrix([a1, a2, a3]), sp.Matrix([[b1, b2, b3]])
eq("rotations compose", rotation(x).T * rotation(y), rotation(y - x), rotation(x - y))
eq("rotation is orthogonal", rotation(x).T * rotation(x), sp.eye(2), -sp.eye(2))
eq("determinant of a product", (M2 * M2).det(), M2.det() ** 2, -(M2.det() ** 2))
eq("inverse", M2.inv() * M2, sp.eye(2), 2 * sp.eye(2), given=[sp.Ne(M2.det(), 0), sp.Ne(M2[0, 0], 0)])
eq(
    "inverse needs a determinant",
    M3[:2, :2].adjugate() * (M3[:2, :2] / M3[:2, :2].det()),
    sp.eye(2),
    sp.eye(2),
    given=[sp.Ne(M3[:2, :2].det(), 0)],
    wrong_given=[],
)
eq(
    "Cauchy determinant",
    sp.Matrix([[1 / (p + a), 1 / (p + b)], [1 / (q + a), 1 / (q + b)]]).det(),
    (q - p) * (b - a) / ((p + a) * (p + b) * (q + a) * (q + b)),
    (q + p) * (b - a) / ((p + a) * (p + b) * (q + a) * (q + b)),
)
eq(
    "Vandermonde",
    sp.Matrix(3, 3, lambda i, jj: xs[i] ** jj).det(),
    (x2 - x1) * (x3 - x1) * (x3 - x2),
    (x1 - x2) * (x3 - x1) * (x3 - x2),
)
eq("conjugation by a rotation", (rotation(x) * M2 * rotation(-x)).trace(), M2.trace(), -M2.trace())
proj = col * col.T / (col.T * col)[0]
eq("projection", proj * proj, proj, 2 * proj, given=[sp.Ne(a1, 0)])
eq(
    "rank-one determinant",
    (lam * sp.eye(3) + col * row).det(),
    lam**2 * (lam + (row * col)[0]),
    lam**2 * (1 + (row * col)[0]),
)
eq(
    "skew determinant",
    (lam * sp.eye(3) + M3 - M3.T).det(),
    lam**3 + lam * ((M3[0, 1] - M3[1, 0]) ** 2 + (M3[0, 2] - M3[2, 0]) ** 2 + (M3[1, 2] - M3[2, 1]) ** 2),
    lam**3,
)
eq("square of an outer product", (col * row) ** 2, (row * col)[0] * (col * row), (row * col)[0] * (col * row).T)
eq("characteristic polynomial", M2**2 - M2.trace() * M2, -M2.det() * sp.eye(2), M2.det() * sp.eye(2))
A, B = sp.MatrixSymbol("A", n, m), sp.MatrixSymbol("B", m, n)
C, D, E_ = sp.MatrixSymbol("C", n, n), sp.MatrixSymbol("D", n, n), sp.MatrixSymbol("E", n, n)
eq("trace is cyclic", sp.Trace(A * B * C), sp.Trace(C * A * B), sp.Trace(A.T * C * B.T) * 2)
eq("three traces", sp.Trace(C * D * E_), sp.Trace(E_ * C * D), sp.Trace(D * C * E_))
eq("square of a sum", (C + D) ** 2, C**2 + C * D + D * C + D**2, C**2 + 2 * C * D + D**2)
eq(
    "push through an inverse",
    C * (sp.Identity(n) + D * C).I,
    (sp.Identity(n) + C * D).I * C,
    (sp.Identity(n) + D * C).I * C,
)
eq(
    "Woodbury",
    (C + A * B).I,
    C.I - C.I * A * (sp.Identity(m) + B * C.I * A).I * B * C.I,
    C.I + C.I * A * (sp.Identity(m) + B * C.I * A).I * B * C.I,
)
W = sp.MatrixSymbol("W", n, n)
eq(
    "orthogonal change of basis",
    (W * C * W.T) ** 2,
    W * C**2 * W.T,
    W * C**2 * W.T,
    given=[sp.Q.orthogonal(W)],
    wrong_given=[],
)
eq("push through", C * (sp.Identity(n) + D * C), (sp.Identity(n) + C * D) * C, (sp.Identity(n) + D * C) * C)
eq("transposed sum", (C + D.T).T * C, C.T * C + D * C, C.T * C + D.T * C)
F, G = sp.MatrixSymbol("F", 2, 3), sp.MatrixSymbol("G", 3, 2)
eq("explicit trace", sp.Trace(F * G), sp.Trace(G * F), sp.Trace(F * F.T))
eq(
    "LoRA step",
    (A - a * C * A) * (B - a * B * C) - A * B,
    -a * (C * A * B + A * B * C) + a**2 * C * A * B * C,
    -a * (C * A * B + A * B * C) - a**2 * C * A * B * C,
)
S = sp.MatrixSymbol("S", n, n)
eq("symmetric matrix", (S * C).T, C.T * S, C.T * S, given=[sp.Q.symmetric(S)], wrong_given=[])

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

# --- under conditions -------------------------------------------------------------------------------------------------
one = [sp.Eq(p + q + r, 1)]
eq("simplex of three", p**2 + q**2 + r**2, 1 - 2 * (p * q + q * r + p * r), 1 - (p * q + q * r + p * r), given=one)
eq("on the circle", x**4 - y**4, x**2 - y**2, x**2 + y**2, given=[sp.Eq(x**2 + y**2, 1)])
eq("sorted pair", sp.Max(x, y), y, x, given=[x < y])
eq("sigmoid inverted", log(p / (1 - p)), -log(1 / p - 1), log(1 / p - 1), given=[p < 1])
says("monotone product", x * z < y * z, x * z < y * z, given=[x < y, z > 0], wrong_given=[x < y])
says("three in a row", x < z, x > z, given=[x < y, y < z])
says("convex combination", (1 - p) * x + p * y < y, (1 - p) * x + p * y < x, given=[x < y, p < 1])
says("entropy term", -p * log(p) > 0, -p * log(p) > 0, given=[p < 1], wrong_given=[])
says("collision probability", p**2 + q**2 <= 1, p**2 + q**2 <= Q(1, 2), given=[sp.Eq(p + q, 1)])

# --- inequalities -----------------------------------------------------------------------------------------------------
says("two means", (a + b) / 2 >= sqrt(a * b), (a + b) / 2 > sqrt(a * b))
says("three means", (a**3 + b**3 + c**3) / 3 >= a * b * c, (a**3 + b**3 + c**3) / 3 > a * b * c)
says("tangent of the exponential", exp(x) >= 1 + x, exp(x) > 1 + x)
says("logarithm below its tangent", log(1 + t) < t, log(1 + t) < t - t**2 / 2)
says("logarithm from below", log(1 + t) > t / (1 + t), log(1 + t) > t / (1 + t / 3))
says(
    "Cauchy-Schwarz in the plane",
    (a1**2 + a2**2) * (b1**2 + b2**2) >= (a1 * b1 + a2 * b2) ** 2,
    (a1**2 + a2**2) * (b1**2 + b2**2) > (a1 * b1 + a2 * b2) ** 2,
)
says(
    "Cauchy-Schwarz in space",
    (a1**2 + a2**2 + a3**2) * (b1**2 + b2**2 + b3**2) >= (a1 * b1 + a2 * b2 + a3 * b3) ** 2,
    (a1**2 + a2**2 + a3**2) * (b1**2 + b2**2 + b3**2) >= 2 * (a1 * b1 + a2 * b2 + a3 * b3) ** 2,
)
says("softmax lies inside", (sp.S.Zero < soft[0]) & (soft[0] < 1), (sp.S.Zero < soft[0]) & (soft[0] < Q(1, 2)))
says("sigmoid below one", sigmoid < 1, sigmoid < 1 - Q(1, 10**10))
says("sigmoid is steepest at zero", sigmoid * (1 - sigmoid) <= Q(1, 4), sigmoid * (1 - sigmoid) < Q(1, 4))
says("triangle inequality", sp.Abs(x + y) <= sp.Abs(x) + sp.Abs(y), sp.Abs(x + y) < sp.Abs(x) + sp.Abs(y))
says("bounded hyperbolic tangent", tanh(x) ** 2 < 1, tanh(x) ** 2 < Q(99, 100))
says("squareplus above the rectifier", (x + root) / 2 > sp.Max(x, 0), (x + root) / 2 > sp.Max(x, 0) + Q(1, 1000))
says("square of a difference", x**2 + y**2 >= 2 * x * y, x**2 + y**2 > 2 * x * y)
says("positive definite form", x**2 + x * y + y**2 >= 0, x**2 + 3 * x * y + y**2 >= 0)
says(
    "rearrangement",
    a * x + b * y >= a * y + b * x,
    a * x + b * y >= a * y + b * x,
    given=[a >= b, x >= y],
    wrong_given=[a >= b],
)
says("square is monotone", a**2 < b**2, x**2 < y**2, given=[a < b], wrong_given=[x < y])
says("even or odd", sp.Eq(n % 2, 0) | sp.Eq(n % 2, 1), sp.Eq(n % 3, 0) | sp.Eq(n % 3, 1))
says("implication", sp.Implies(x > 1, x**2 > x), sp.Implies(x > 0, x**2 > x))
says("never zero", sp.Ne(x**2 + x + 1, 0), sp.Ne(x**2 + x - 1, -1))
says("same truth", sp.Equivalent(x > 0, x**3 > 0, evaluate=False), sp.Equivalent(x > 0, x**2 > 0, evaluate=False))
says("bounded cosine", cos(x) <= 1, cos(x) < 1)
says("Bernoulli", (1 + t) ** 3 > 1 + 3 * t, (1 + x) ** 3 > 1 + 3 * x)
says("double root off the grid", x**2 - 2 * sqrt(2) * x + 2 >= 0, x**2 - 2 * sqrt(2) * x + 2 > 0)
says("meeting at the cosine's fixed slope", exp(x) * exp(-1) >= x, exp(x) * exp(-Q(101, 100)) >= x)
says("meeting on a curve", exp(x) + y**2 - 2 * y * exp(x / 2) >= 0, exp(x) + y**2 - 2 * y * exp(x / 2) > 0)
says(
    "meeting at one irrational point",
    (x - y) ** 2 + (y - sqrt(3)) ** 2 >= 2 * sqrt(2) * (x - y) - 2,
    (x - y) ** 2 + (y - sqrt(3)) ** 2 > 2 * sqrt(2) * (x - y) - 2,
)
says("far out", sqrt(x**2 + b) > sp.Abs(x), sqrt(x**2 + b) > sp.Abs(x) + Q(1, 10**10))
says("Jensen for the exponential", exp((x + y) / 2) <= (exp(x) + exp(y)) / 2, exp((x + y) / 2) < (exp(x) + exp(y)) / 2)
says("slope of squareplus", (1 + x / root) / 2 < 1, (1 + x / root) / 2 < 1 - Q(1, 10**4))
says("sum by comparison", sp.Sum(1 / k**2, (k, 1, n)) <= 2 - 1 / n, sp.Sum(1 / k**2, (k, 1, n)) < 2 - 1 / n)
says("entropy above collision", -a * log(a) >= a * (1 - a), -a * log(a) > a * (1 - a))
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
P_A = A * (A.T * A).I * A.T
eq("projector onto columns", P_A * P_A, P_A, P_A.T * 2)
says("small dip", x**2 - 2 * x + 1 + Q(1, 10**6) > 0, (x - Q(217, 100)) ** 2 > Q(1, 10**6))
says("growing sum", sp.Sum(1 / k, (k, 1, n)) >= 1, sp.Sum(1 / k, (k, 1, n)) > 1)
