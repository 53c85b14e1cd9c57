"""Statements for every n that are proved by induction."""

import sympy as sp
from sympy import Eq, Identity, Lambda, MatrixSymbol, Product, Sum, cos, factorial
from sympy import Q as M

from kexue_lib.derivation import Recurrence

from ._table import Table, X, a, b, i, j, k, m, n0, t, x

TABLE = Table("inductions")
induction = TABLE.induction

h = sp.Symbol("h", integer=True, nonnegative=True)
F, S = sp.Function("F"), sp.Function("S")
A, D, T = (MatrixSymbol(name, m, m) for name in "ADT")
fibonacci = [Recurrence(Eq(F(h + 2), F(h + 1) + F(h)), h), Eq(F(0), 0), Eq(F(1), 1)]

induction(
    "sum of odd numbers",
    lambda n: Eq(Sum(2 * k - 1, (k, 1, n)), n**2),
    lambda n: Eq(Sum(2 * k - 1, (k, 1, n)), n**2 + n - 1),
    n0,
)
induction(
    "numbers times powers of two",
    lambda n: Eq(Sum(k * 2**k, (k, 1, n)), (n - 1) * 2 ** (n + 1) + 2),
    lambda n: Eq(Sum(k * 2**k, (k, 1, n)), n * 2 ** (n + 1) - 2),
    n0,
)
induction(
    "numbers times their factorials",
    lambda n: Eq(Sum(k * factorial(k), (k, 1, n)), factorial(n + 1) - 1),
    lambda n: Eq(Sum(k * factorial(k), (k, 1, n)), factorial(n + 1) - n),
    n0,
)
induction(
    "telescoping product",
    lambda n: Eq(Product(1 - 1 / (k + 1), (k, 1, n)), 1 / (n + 1)),
    lambda n: Eq(Product(1 - 1 / (k + 1), (k, 1, n)), 1 / (2 * n)),
    n0,
)
induction("powers of two", lambda n: 2**n > n, lambda n: 2**n > 2 * n, n0, base=0)
induction("factorials grow", lambda n: factorial(n) >= 2 ** (n - 1), lambda n: factorial(n) >= 2**n, n0)
induction(
    "Bernoulli, by induction",
    lambda n: (1 + x) ** n >= 1 + n * x,
    lambda n: (1 + x) ** n >= 1 + (n + 1) * x,
    n0,
    base=0,
    given=[x >= -1],
)
induction(
    "sum of Fibonacci numbers",
    lambda n: Eq(Sum(F(k), (k, 1, n)), F(n + 2) - 1),
    lambda n: Eq(Sum(F(k), (k, 1, n)), F(n + 1)),
    n0,
    given=fibonacci,
)
induction(
    "Cassini",
    lambda n: Eq(F(n + 1) * F(n - 1) - F(n) ** 2, (-1) ** n),
    lambda n: Eq(F(n + 1) * F(n - 1) - F(n) ** 2, -((-1) ** n)),
    n0,
    given=fibonacci,
)
induction(
    "affine recursion",
    lambda n: Eq(F(n), a**n * F(0) + b * Sum(a**k, (k, 0, n - 1))),
    lambda n: Eq(F(n), a**n * F(0) + b * Sum(a**k, (k, 0, n))),
    n0,
    base=0,
    given=[Recurrence(Eq(F(h + 1), a * F(h) + b), h)],
)
induction(
    "decaying state",
    lambda n: Eq(S(n), Sum(t ** (n - 1 - k) * X[k], (k, 0, n - 1))),
    lambda n: Eq(S(n), Sum(t ** (n - k) * X[k], (k, 0, n - 1))),
    n0,
    given=[Recurrence(Eq(S(h + 1), t * S(h) + X[h]), h), Eq(S(0), 0)],
)
induction(
    "cosines of multiples",
    lambda n: Eq(F(n), cos(n * x)),
    lambda n: Eq(F(n), cos(x) ** n),
    n0,
    base=(0, 1),
    given=[Recurrence(Eq(F(h + 2), 2 * cos(x) * F(h + 1) - F(h)), h), Eq(F(0), 1), Eq(F(1), cos(x))],
)
second = 2 * sp.KroneckerDelta(i, j) - sp.KroneckerDelta(i, j + 1) - sp.KroneckerDelta(i + 1, j)
differences = lambda size: sp.Determinant(sp.FunctionMatrix(size, size, Lambda((i, j), second)))
induction(
    "determinant of second differences",
    lambda n: Eq(differences(n), n + 1),
    lambda n: Eq(differences(n), n + 2),
    n0,
    base=(1, 2),
)
induction(
    "powers of similar matrices",
    lambda n: Eq((T * D * T.I) ** n, T * D**n * T.I),
    lambda n: Eq((T * D * T.I) ** n, T.I * D**n * T),
    n0,
    given=[M.invertible(T)],
)
induction(
    "powers of a projector",
    lambda n: Eq(A**n, A),
    lambda n: Eq(A**n, Identity(m)),
    n0,
    given=[Eq(A**2, A)],
)
