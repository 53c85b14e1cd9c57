"""Values, branches, roundings and conditions that a computer algebra system was publicly reported to get wrong.

The statement beside each true one is what the wrong answer says.
"""

import sympy as sp
from sympy import (
    Abs,
    Eq,
    Equivalent,
    I,
    Implies,
    Min,
    Mod,
    Ne,
    Piecewise,
    acos,
    arg,
    asin,
    atan,
    atan2,
    binomial,
    ceiling,
    cos,
    exp,
    floor,
    log,
    pi,
    sin,
    sqrt,
)
from sympy import Q as M
from sympy import Rational as Q

from ._table import Table, a, b, c, i, j, k, n, n0, x, y, zc

TABLE = Table("reports")
eq, says, equations = TABLE.eq, TABLE.says, TABLE.equations

# --- trigonometric functions and their inverses -----------------------------------------------------------------------
# sympy/sympy#20430
waves = cos(2 * x - 2 * y) - cos(2 * x + 2 * y)
eq("five factors", cos(x / 2) * sin(x / 2) * cos(x) * cos(y) ** 2 * sin(y), cos(y) * waves / 16, waves / 16)
# sympy/sympy#23086
small = acos(Q(7823207, 7823209))
says("small angle", sp.Gt(small, Q(7, 10**4), evaluate=False), Eq(small, 0, evaluate=False))
# sympy/sympy#12140
eq("sine undone", asin(sin(x)), x, x, given=[x >= -pi / 2, x <= pi / 2], wrong_given=[])
# asc-community/AngouriMath#884
eq("cosine undone", acos(cos(x)), x, x, given=[x >= 0, x <= pi], wrong_given=[])
# sympy/sympy#16327
eq("angle on the real line", arg(x), Piecewise((0, x > 0), (pi, True)), 0, given=[Ne(x, 0)])
# symengine/symengine#1806
eq("angle of the diagonal", atan2(x, x), pi / 4, pi / 4, given=[x > 0], wrong_given=[Ne(x, 0)])
# sympy/sympy#16385
half = 2 * atan(y / (sqrt(x**2 + y**2) + x))
eq("half of the angle", atan2(y, x), half, half, given=[Ne(y, 0)], wrong_given=[Ne(x, 0)])
# sympy/sympy#15945
eq("phase of a filter", arg(a / (2 * I * pi * b + c)), -atan(2 * pi * b / c), atan(2 * pi * b / c))

# --- roots, powers, logarithms ----------------------------------------------------------------------------------------
# sympy/sympy#19914
eq(
    "root of a negative number",
    sqrt(-8 - 3 * sqrt(7)),
    I * (3 * sqrt(2) + sqrt(14)) / 2,
    I * (3 * sqrt(2) - sqrt(14)) / 2,
)
# sympy/sympy#18041
eq("root of a complex number", -sqrt(-2 + 2 * sqrt(3) * I), -1 - sqrt(3) * I, sqrt(3) - 1)
# sympy/sympy#21355
eq("denominator on one side", 1 / (x + sqrt(x**2)), 1 / (2 * x), 1 / (2 * x), given=[x > 0], wrong_given=[Ne(x, 0)])
# sympy/sympy#21599
surds = lambda sixth: (3 - 2 * sqrt(2) + sqrt(3) + sqrt(5) + sixth * sqrt(6) + sqrt(15) + sqrt(30)) / 2
eq("nested root of seven surds", sqrt(19 + 3 * sqrt(2) + 6 * sqrt(3) - sqrt(10)), surds(-1), surds(1))
# sympy/sympy#1613
eq("imaginary unit under a root", I * sqrt(x), -sqrt(-x), sqrt(-x), given=[x < 0])
# sympy/sympy#29800
eq("cube root of a cube", (x**3) ** Q(1, 3), Abs(x), Abs(x), given=[x >= 0], wrong_given=[])
odd = sp.Symbol("h", odd=True)
# diofant/diofant#143
eq("half odd powers", (-1) ** (odd / 2), I * (-1) ** ((odd - 1) / 2), I)
# sympy/sympy#10195
eq("odd alternation", (-1) ** ((odd - 1) / 2) - (-1) ** ((3 * odd - 1) / 2), 2 * (-1) ** ((odd - 1) / 2), 2)
# sympy/sympy#24676
upper, anywhere = 1 + I * a, zc
equations(
    "logarithm of a reciprocal",
    (log(upper) + log(1 / upper), 0),
    (log(anywhere) + log(1 / anywhere), 0),
    wrong_given=[Ne(zc, 0)],
)
# sympy/sympy#28038
eq("logarithms across the cut", log(I - I * a) - log(I * a - I), I * pi, -I * pi, given=[a < 1])
# symengine/symengine.py#460
eq("eighth of a turn", I * exp(-I * pi / 4), (1 + I) / sqrt(2), I)
# sympy/sympy#10402
eq("hyperbolic sine of a logarithm", sp.sinh(log(1 + sqrt(2))) ** 2, 1, 1 + Q(1, 10**30))
# diofant/diofant#1447
turned = 1 / ((I * (3 * sqrt(33) - 19)) ** Q(1, 3) * (sqrt(3) * I - 1))
eq("real part that vanishes", sp.re(turned), 0, -Q(1, 10**24))
# sympy/sympy#10592
eq("Hurwitz zeta at zero", sp.zeta(0, a, evaluate=False), Q(1, 2) - a, -a - Q(1, 2))

# --- roundings and remainders -----------------------------------------------------------------------------------------
# sympy/sympy#26368: the radicand is one more than a square
radicand, offset = 328927874101460598485041309521831485695487898799641797, 31415926535897932384626433
quotient = floor((sqrt(radicand) + offset) / 864197523, evaluate=False)
eq("floor of a quotient", quotient, 700000000123456789, 700000000123456788)
# sympy/sympy#13098
eq("floor of a logarithm", floor(log(10**12 - 1) / log(10), evaluate=False), 11, 12)
# sympy/sympy#10323
eq("ceiling of a root", ceiling(sqrt(10**24 + 1), evaluate=False), 10**12 + 1, 10**12)
# sympy/sympy#19991: numerator and denominator of a convergent of pi from below
wholes = floor(sp.Integer(37535589513263342053361) / pi, evaluate=False)
eq("floor next to a whole number", wholes, 11947949225808341100192, 11947949225808341100193)
remainder = lambda value, modulus: Mod(value, modulus, evaluate=False)
# sympy/sympy#26410
equations("remainder of the negative", (remainder(-k, 2), Mod(k, 2)), (remainder(-x, 2), Mod(x, 2)))
# sympy/sympy#29757
eq("nested remainders", remainder(128 * Mod(k, 3), 356), 128 * Mod(k, 3), 4 * remainder(32 * Mod(k, 3) ** 2, 89))
# sympy/sympy#28744
eq("remainder of a remainder", remainder(8 * Mod(k, 4), 64), 8 * Mod(k, 4), 8 * remainder(Mod(k, 4) ** 2, 8))
# sympy/sympy#27749
eq("remainder of one", remainder(1, n), Piecewise((0, Eq(n, 1)), (1, True)), 1 - n)
# diofant/diofant#312
eq("remainder by the double", remainder(-x, 2 * x), x, -x, given=[Ne(x, 0)])
# sympy/sympy#14561
eq("negative modulus", remainder(remainder(k, -2), 3), 2 * Mod(k, 2), remainder(k, -2))
# sympy/sympy#27304
both = Mod(a - b, c) + Mod(b - a, c)
eq("two remainders", both, c, c, given=[a < b, b < a + c], wrong_given=[])

# --- pieces -----------------------------------------------------------------------------------------------------------
below = Piecewise((1, a <= 1), (0, True))
# sympy/sympy#24072
eq(
    "sum of pieces",
    below + below / (2 * a) + Piecewise((1, a > 1), (0, True)) / a,
    Piecewise((1 + 1 / (2 * a), a <= 1), (1 / a, True)),
    Piecewise((1, a <= 1), (1 / a, True)),
)
# sympy/sympy#22148
hidden = Piecewise((0, (a > 1) & (a - b >= 1)), (3, a - b >= 1), (0, True))
eq("piece that is never reached", hidden, 0, 3)
# sympy/sympy#25603
between = Piecewise((log(a), (a <= 5) & (a > 3)), (a, True))
eq(
    "condition with two ends",
    between,
    Piecewise((a, (a <= 3) | (a > 5)), (log(a), True)),
    Piecewise((log(a), a <= 5), (a, True)),
)
# sympy/sympy#27627
steps = Piecewise((1, k >= 999), (1000 - k, True))
eq("pieces of a whole number", steps, 1000 - k, 1000 - k, given=[k < 1000], wrong_given=[])
# sympy/sympy#18643
eq("minimum twice", Min(0, y - x) + Min(x, y), 2 * Min(x, y) - x, Min(x, y))
# sympy/sympy#14612
mirrored = lambda top: (binomial(top, k), binomial(top, top - k))
equations("mirrored binomials", mirrored(n0), mirrored(j))

# --- inequalities and their solutions ---------------------------------------------------------------------------------
# sympy/sympy#19407
scaled = sqrt(2) * (y - x) - sqrt(2) * (x - y) <= 0
says("irrational factor", scaled, scaled, given=[x >= y], wrong_given=[x <= y])
# sympy/sympy#9567
pole = Abs(1 / (x - 1)) > 1
says("around a pole", Equivalent(pole, (x > 0) & (x < 2)), Equivalent(pole, (x > 1) & (x < 2)), given=[Ne(x, 1)])
# sympy/sympy#8708
decay = 1 - x - exp(-2 * x)
says("between two roots", decay > 0, decay < 0, given=[x >= Q(1, 2), x <= Q(3, 4)])
# sympy/sympy#11909
above = sqrt(x + 2) > x
says("root above the line", Equivalent(above, x < 2), Equivalent(above, (x < 2) & Ne(x, -1)), given=[x >= -2])
# sympy/sympy#10477
quadratic = (x**2 + 4 * x - 3) / x < 2
says(
    "quadratic over the argument",
    Equivalent(quadratic, (x < -3) | ((x > 0) & (x < 1))),
    Equivalent(quadratic, x < -3),
    given=[Ne(x, 0)],
)
# sympy/sympy#10854
says("square in a denominator", 1 / (x - 2) ** 2 >= 0, 1 / (x - 2) ** 2 >= 0, given=[Ne(x, 2)], wrong_given=[])
# sympy/sympy#20902
rising = sp.Derivative((3 * x + 2) / (3 * x + 3) ** 2, x) > 0
says("rising part", Equivalent(rising, (x > -1) & (x < -Q(1, 3))), sp.Not(rising, evaluate=False), given=[Ne(x, -1)])
# sympy/sympy#13550
roots = Eq(x**2 - 2 * x - 15, 0)
says("root on the left", Implies(roots, Eq(x, -3)), Ne(x**2 - 2 * x - 15, 0), given=[x <= 0])
# sympy/sympy#11878
says("logarithm below zero", Equivalent(log(x + 1) < 0, x < 0), log(x + 1) >= 0, given=[x > -1])
# sympy/sympy#30324
says("nonnegative less negative", x - y > 0, x - y > 0, given=[x >= 0, y < 0], wrong_given=[x >= 0, y <= 0])

# --- matrices ---------------------------------------------------------------------------------------------------------
C = sp.MatrixSymbol("C", n, n)
In, zero = sp.Identity(n), sp.ZeroMatrix(n, n)
# sympy/sympy#13835
slope = sp.ImmutableMatrix(4, 4, lambda row, column: row + a * column)
eq("determinant of rank two", sp.Determinant(slope), 0, -a)
# sympy/sympy#11359
scale = (x * C).T * (x * C)
eq("scaled orthogonal matrix", scale, x**2 * In, In, given=[M.orthogonal(C)])
# sympy/sympy#15695
eq("gradient of a squared trace", sp.Derivative(sp.Trace(C) ** 2, C), 2 * sp.Trace(C) * In, 2 * C)
# sympy/sympy#16234
inside = [i >= 0, j >= 0, i < n, j < n]
eq("mirrored entries", C[i, j], C[j, i], C[j, i], given=[M.symmetric(C), *inside], wrong_given=inside)
