"""Inequalities, and statements under conditions."""

import functools

import sympy as sp
from sympy import Rational as Q
from sympy import cos, exp, log, sin, sqrt, tanh

from ._table import Table, a, a1, a2, a3, b, b1, b2, b3, c, k, m, n, p, q, r, root, sigmoid, soft, t, x, y, z

TABLE = Table("orders")
eq, says = TABLE.eq, TABLE.says

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
box = [sp.Abs(x) <= 1, sp.Abs(y) <= 1]
says("product in a box", x * y <= 1, x * y < 1, given=box)
says("three in a box", x * y + y * z + z * x >= -1, x * y + y * z + z * x > -1, given=[*box, sp.Abs(z) <= 1])
says("one of two events", p + q - p * q < 1, p + q - p * q < 1, given=[p < 1, q < 1], wrong_given=[p <= 1, q < 1])
says("mean of two bounded", sp.Abs(p * x + (1 - p) * y) <= 1, sp.Abs(p * x + (1 - p) * y) < 1, given=[p <= 1, *box])
says("linear programme", 3 * x + 2 * y <= 18, 3 * x + 2 * y < 18, given=[x + y <= 7, 2 * x + y <= 11])
says("shrinking step", (1 - p * q) ** 2 * x**2 <= x**2, (1 - p * q) ** 2 * x**2 < x**2, given=[p * q <= 2])
decayed = sp.Abs((1 - p * q) * x - p * y), (1 - p * q) * sp.Abs(x) + p
says("decayed sign step", decayed[0] <= decayed[1], decayed[0] < decayed[1], given=[p * q <= 1, sp.Abs(y) <= 1])
lens, ball = (x - 1) ** 2 + y**2 <= 1, x**2 + y**2 <= 1
says("tip of a lens", y <= sqrt(3) / 2, y < sqrt(3) / 2, given=[ball, lens])
says("line over a parabola", y <= 4, y < 4, given=[y >= x**2, y <= x + 2])

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
says(
    "equal at roots of thirds", x**2 * y**2 * (1 - x**2 - y**2) <= Q(1, 27), x**2 * y**2 * (1 - x**2 - y**2) < Q(1, 27)
)
says("equal at a logarithm", exp(2 * x) + 4 >= 4 * exp(x), exp(2 * x) + 4 > 4 * exp(x))
says("equal at an exponential", p * log(p) >= -exp(-1), p * log(p) > -exp(-1))
says("equal at a quarter turn", sin(x) + cos(x) <= sqrt(2), sin(x) + cos(x) < sqrt(2))
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
says("small dip", x**2 - 2 * x + 1 + Q(1, 10**6) > 0, (x - Q(217, 100)) ** 2 > Q(1, 10**6))
says("growing sum", sp.Sum(1 / k, (k, 1, n)) >= 1, sp.Sum(1 / k, (k, 1, n)) > 1)

# --- polynomials under a condition, and on the line -------------------------------------------------------------------
circle, disc = sp.Eq(x**2 + y**2, 1), x**2 + y**2 < 1
says("product on a circle", x * y <= Q(1, 2), x * y <= Q(49, 100), given=[circle], wrong_given=[circle])
says("line over a circle", 2 * x + 3 * y <= sqrt(13), 2 * x + 3 * y < sqrt(13), given=[circle], wrong_given=[circle])
says("line over a disc", 2 * x + 3 * y < sqrt(13), 2 * x + 3 * y < Q(36, 10), given=[disc], wrong_given=[disc])
ball = [x**2 + y**2 + z**2 <= 1]
says("plane over a ball", 3 * x + 4 * y + 5 * z <= sqrt(50), 3 * x + 4 * y + 5 * z < 7, given=ball)
says("hyperbola outside a circle", x**2 + y**2 >= 2, x**2 + y**2 > 2, given=[sp.Eq(x * y, 1)])
says("distance between circles", x**2 + y**2 >= 4, x**2 + y**2 > 4, given=[(x - 3) ** 2 + y**2 <= 1])
same = functools.partial(sp.Equivalent, evaluate=False)
says("root of a cube", same(x > 1, x**3 > 1), same(x > 1, x**4 > 1))
says("inside an interval", same(x**2 <= 2, x**4 <= 4), same(x**2 <= 2, x**3 <= sqrt(8)))
says("only real root", sp.Eq(x, 1), sp.Eq(x, 1), given=[sp.Eq(x**3, 1)], wrong_given=[sp.Eq(x**2, 1)])
says("three irrational roots", same((x**3 - 3 * x + 1) ** 2 > 0, sp.Ne(x**3 - 3 * x + 1, 0)), same(x**3 > 3 * x, x > 0))
says("second order of the exponential", exp(r) >= 1 + r + r**2 / 2, exp(x) >= 1 + x + x**2 / 2)
says("third order of the sine", sin(r) >= r - r**3 / 6, sin(r) >= r - r**3 / 7)
says("second order of the cosine", cos(x) >= 1 - x**2 / 2, cos(x) >= 1 - x**2 / 3)
says("whole numbers around a dip", m**2 + 6 >= 5 * m, m**2 + 6 > 5 * m)
says("no whole root", sp.Ne(m**2, 2), sp.Ne(m**2, 61009))
says("narrow dip", x**2 - 4 * x + 4 + Q(1, 10**40) > 0, (x - Q(12345678, 10**7)) ** 2 > Q(1, 10**30))
sextic = sp.expand((x**3 - 3 * x + 1) ** 2)
says("irrational zero", sextic >= 0, sextic > 0)
says("bounded whole number", n**2 <= 16, n**2 <= 15, given=[n < 5])
