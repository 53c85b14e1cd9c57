"""Sums, products and binomials with an explicit term."""

import sympy as sp
from sympy import Rational as Q

from ._table import Table, X, a, k, n, n0, oo, t

TABLE = Table("sums")
eq, says = TABLE.eq, TABLE.says

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
