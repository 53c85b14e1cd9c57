"""Integrals, limits, sums and derivatives that a computer algebra system was publicly reported to get wrong.

The statement beside each true one is what the wrong answer says.
"""

import sympy as sp
from sympy import (
    Abs,
    Derivative,
    E,
    Eq,
    Integral,
    Limit,
    Ne,
    Piecewise,
    Product,
    Sum,
    beta,
    binomial,
    cos,
    cosh,
    erf,
    exp,
    factorial,
    floor,
    log,
    pi,
    sign,
    sin,
    sinh,
    sqrt,
)
from sympy import Rational as Q

from ._table import Table, X, Y, a, b, c, i, k, m, n, oo, t, u, x

TABLE = Table("reports")
eq, says, equations = TABLE.eq, TABLE.says, TABLE.equations

# --- integrals --------------------------------------------------------------------------------------------------------
# sympy/sympy#7337
eq("root of a shifted argument", Integral(x * sqrt(2 * x + 3), (x, -1, 1)), Q(2, 5), -Q(2, 5))
# sympy/sympy#27050
eq("half circle over a bell", Integral(sqrt(1 - x**2) / (1 + x**2), (x, -1, 1)), (sqrt(2) - 1) * pi, 0)
# sympy/sympy#6278
eq("one over two plus cosine", Integral(1 / (cos(x) + 2), (x, 0, 2 * pi)), 2 * pi / sqrt(3), 0)
# sympy/sympy#2975
eq("field of a wire", Integral((x**2 + a) ** Q(-3, 2), (x, -b, b)), 2 * b / (a * sqrt(a + b**2)), 0)
# sympy/sympy#21665
eq(
    "volume between paraboloids",
    Integral(2 * sqrt(1 - x**2) * (2 - 2 * x**2) - Q(4, 3) * (1 - x**2) ** Q(3, 2), (x, -1, 1)),
    pi,
    -pi / 2,
)
# sympy/sympy#29792
eq("root times root of the reciprocal", Integral(sqrt(2 - x) * sqrt(1 / (2 - x)), (x, 0, 1)), 1, -1)
# sympy/sympy#15810
eq("one over a power plus one", Integral(1 / (2 ** (2 * x / 3) + 1), (x, 0, oo)), Q(3, 2), Q(1, 2))
# sympy/sympy#21549
eq("root of the distance from zero", Integral(x * sqrt(Abs(x)), (x, -1, 0)), -Q(2, 5), Q(2, 5))
# sympy/sympy#21166
eq("odd integrand", Integral(sin(x / sqrt(Abs(x))), (x, -1, 1)), 0, 4 * sin(1) - 4 * cos(1))
# sympy/sympy#29751
euler = beta(Q(4, 3), Q(3, 2))
eq("beta integral", Integral(x ** Q(1, 3) * sqrt(1 - x), (x, 0, 1)), euler, -euler)
# sympy/sympy#27379
eq("arch left of zero", Integral(Abs(cos(x)), (x, -pi / 2, 0)), 1, -1)
# sympy/sympy#29072
eq("product of two waves", Integral(Abs(sin(x) * cos(x)), (x, 0, 2 * pi)), 2, 1)
# sympy/sympy#15457
eq("exponential of a distance", Integral(exp(Abs(x - 2)), (x, 1, 3)), 2 * E - 2, E - exp(-1))
# sympy/sympy#20982
slope = 1 / (x**2 * sqrt(x**2 - 1))
equations(
    "sign of an antiderivative",
    (Derivative(sqrt(x**2 - 1) / x, x), slope),
    (Derivative(sqrt(1 - 1 / x**2), x), slope),
    given=[x**2 > 1],
)
# sympy/sympy#21721
eq("Cauchy density", Integral(1 / (pi * (1 + (x - u) ** 2)), (x, -oo, oo)), 1, 0)
# sympy/sympy#22916
eq("Poisson kernel", Integral(cos(2 * x) / (5 - 4 * cos(x)), (x, 0, 2 * pi)), pi / 6, 19 * pi / 12)
# sympy/sympy#20370
orbit = Integral(1 / (1 + t * cos(x)), (x, 0, 2 * pi))
eq("ellipse in polar form", orbit, 2 * pi / sqrt(1 - t**2), 0, given=[t < 1])
# sympy/sympy#27108
eq(
    "mass at zero in a product",
    Integral((exp(-Abs(x)) - 2 * sp.DiracDelta(x)) * exp(-Abs(x)), (x, -oo, oo)),
    -1,
    1,
)

# --- limits -----------------------------------------------------------------------------------------------------------
# sympy/sympy#17380
eq("ratio of neighbours", Limit(x * (((x + 1) ** 2 + 1) / (x**2 + 1) - 1), x, oo), 2, 0)
# sympy/sympy#18265
eq("neighbours with logarithms", Limit(x * ((x + log(x + 1) + 1) / (x + log(x)) - 1), x, oo), 1, 0)
# sympy/sympy#13416
cubes = ((x - 1) * (x + 1) ** 2 * log(x + 1) ** 3 - x**3 * log(x) ** 3) / (x**2 * log(x) ** 3)
eq("cubes of logarithms", Limit(cubes, x, oo), 1, -1)
# sympy/sympy#25885
eq("power of a power", Limit((1 + 1 / x) ** (x**2) / exp(x), x, oo), exp(-Q(1, 2)), 1)
# sympy/sympy#21724
eq("compound interest, next order", Limit(x * (1 + 1 / x) ** x - E * x, x, oo), -E / 2, 0)
# sympy/sympy#18378
eq("logarithms of exponentials", Limit(log(exp(3 * x) + x) / log(exp(x) + x**100), x, oo), 3, 9)
# sympy/sympy#15055
waves = x**3 * ((x + 2) * sin(1 / (x + 1)) - (x + 1) * sin(1 / x)) / (1 - x)
eq("neighbouring waves", Limit(waves, x, oo), 1, -oo)
# sympy/sympy#9075
eq("ratio of powers of six", Limit((6 ** (n + 1) + n + 1) / (6**n + n), n, oo), 6, 1)
# diofant/diofant#55
eq("exponential that vanishes", Limit((x + exp(x)) / (x - 1), x, -oo), 1, 0)
# sympy/sympy#20365
eq("compound interest near zero", Limit(((x + 1) ** (1 / x) - E) / x, x, 0), -E / 2, 0)
# diofant/diofant#56
eq("base that vanishes", Limit((log(x) - 1) ** (1 - sqrt(x)), x, E), oo, 0)
# sympy/sympy#14355
eq("floor below one", Limit(floor(sin(x) / x), x, 0), 0, 1)
# sympy/sympy#21310
eq("floor of a reciprocal", Limit(x * floor(1 / x), x, 0), 1, oo)
# sympy/sympy#10976
eq("ratio of error functions", Limit(erf(u * x) / erf(x), x, 0), u, 1)
# sympy/sympy#18969
eq("Lambert's function", Limit(sp.LambertW(t), t, a), sp.LambertW(a), a)
# diofant/diofant#74
eq("sign from the left", Limit(sign(log(x)), x, 1, "-"), -1, 0)
# sympy/sympy#26513
eq("modulus of a power", Limit(Abs((-n / (n + 1)) ** n), n, oo), exp(-1), 0)
# sympy/sympy#20106
tail = 1 / sqrt(x**2 + 1) - 1 / x + 1 / (2 * x**3) - 3 / (8 * x**5) + 5 / (16 * x**7)
eq("ninth order at infinity", Limit(x**9 * tail, x, oo), Q(35, 128), Q(3, 128))
# sympy/sympy#10761
eq("fifth order of a quotient", Limit((1 / (x**-2 + x**-3) - x**3 + x**4) / x**5, x, 0), 1, 0)
# sympy/sympy#18008
rational = x * (1 + x * (1 - x)) / ((1 + x * (1 - x)) - (1 - x) ** 2)
rest = rational - x / 2 - Q(1, 4) + 1 / (8 * x) + 3 / (16 * x**2)
eq("third order at infinity", Limit(x**3 * rest, x, oo), -Q(9, 32), -Q(45, 16))
# sympy/sympy#12578
eighth = (1 - ((1 / t - t) / 2) ** -4) ** Q(1, 8)
eq("eighth root", Limit((eighth - 1 + 2 * t**4 + 8 * t**6 + 34 * t**8) / t**10, t, 0), -152, -24)
# diofant/diofant#210
eq("flat cosine", Limit((cos(x**6) - 1) / x**12, x, 0), -Q(1, 2), 0)

# --- sums and products ------------------------------------------------------------------------------------------------
# diofant/diofant#236
eq("three linear factors", Sum(k / ((k + 2) * (k + 4) * (k + 8)), (k, 1, oo)), Q(4, 35), Q(521, 25200))
# diofant/diofant#241
eq("hypergeometric series at one", Sum(135 * (k + 1) / ((k + 3) * (k + 5) * (k + 9)), (k, 0, oo)), Q(108, 7), 0)
# diofant/diofant#203
ending = sp.rf(-7, k) * sp.rf(-5, k) / (sp.rf(-6, k) * factorial(k))
eq("series that ends", Sum(ending, (k, 0, 5)), -Q(1, 6), 0)
# sympy/sympy#13902
eq(
    "row of two",
    Sum(binomial(2, k) * k**2, (k, 0, n)),
    Piecewise((2, Eq(n, 1)), (6, True)),
    -((n + 1) ** 2) * binomial(2, n + 1),
)
# sympy/sympy#8016
alternating = Sum((-1) ** k * binomial(m, k) * binomial(m, 2 * n - k), (k, 0, 2 * n))
eq("alternating products of binomials", alternating, (-1) ** n * binomial(m, n), 0)
# sympy/sympy#15943
eq(
    "arrangements",
    Sum(binomial(n, k) * factorial(n - k), (k, 0, n)),
    factorial(n) * Sum(1 / factorial(k), (k, 0, n)),
    E * factorial(n),
)
# sympy/sympy#19852
quotients = Sum(factorial(4 * k) / factorial(4 * k + 4), (k, 1, oo))
eq("quotients of factorials", quotients, log(2) / 4 - pi / 24 - Q(1, 24), log(2) / 4 - pi / 24)
# jlapeyre/Symata.jl#23
eq("odd reciprocal squares", Sum(1 / (2 * k + 1) ** 2, (k, 0, oo)), pi**2 / 8, pi**2 / 24)
# sympy/sympy#15942
eq("sum over all integers", Sum(1 / (1 - 4 * k**2) ** 2, (k, -oo, oo)), pi**2 / 8, pi**2 / 8 - 1)
# sympy/sympy#27786
shifted = Sum(1 / ((k + 1) ** 4 + 1), (k, -oo, oo))
width = sqrt(2) * pi
eq("positive terms", shifted, width / 2 * (sinh(width) + sin(width)) / (cosh(width) - cos(width)), 0)
# sympy/sympy#24183
powers = Sum(1 / (1 + x**2) ** k, (k, 1, oo))
eq("geometric series of a bell", powers, 1 / x**2, 1 / x**2, given=[Ne(x, 0)], wrong_given=[])
# sympy/sympy#23306
eq("series of the exponential", Sum(sp.Integer(5) ** k / factorial(k), (k, 0, oo)), exp(5), exp(5) + Q(3, 10**12))
# sympy/sympy#20932
eq("more than fifty terms", Sum(binomial(60, k), (k, 0, 60)), 2**60, 2**60 - 1)
# sympy/sympy#13546
eq("product of sums", Product(2 + sp.Integer(2) ** (-k), (k, 0, 1)), Q(15, 2), Q(9, 2))
# sympy/sympy#14036
eq("product of the sine", Product(1 - t**2 / (pi * k) ** 2, (k, 1, oo)), sin(t) / t, 0)

# --- derivatives ------------------------------------------------------------------------------------------------------
factors = Product(X[k], (k, 1, n))
# sympy/sympy#13994
eq("derivative of a product", Derivative(factors, X[i]), factors / X[i], 0, given=[i >= 1, i <= n, Ne(X[i], 0)])
# sympy/sympy#6967
eq("derivative of a pairing", Derivative(Sum(X[k] * Y[k], (k, 1, n)), X[i]), Y[i], 0, given=[i >= 1, i <= n])
# sympy/sympy#14615
one, other = (2 * b * x + a) / (2 * sqrt(c * x**2) * c * x), (b * x + a) ** 2 / (2 * sqrt(c * x**2) * c * x * a)
eq("two antiderivatives", Derivative(one, x), Derivative(other, x), -Derivative(other, x), given=[Ne(x, 0)])
