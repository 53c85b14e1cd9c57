"""Sums and products over the entries of vectors of any length, their gradients and their inequalities."""

from typing import Any

from sympy import Abs, Derivative, Eq, KroneckerDelta, Ne, Product, Sum, exp, log, sqrt

from ._table import P, R, Table, X, Y, i, j, k, m, n, t, u

TABLE = Table("vectors")
eq, says = TABLE.eq, TABLE.says


def total(term: Any, first: Any = 1, last: Any = n) -> Sum:
    """The sum over k from `first` to `last`."""
    return Sum(term, (k, first, last))


inside, one = [i >= 1, i <= n], [Eq(total(P[k]), 1)]
both_inside = [*inside, j >= 1, j <= n]
partition = total(exp(X[k]))
mean = total(X[k]) / n

# --- sums -------------------------------------------------------------------------------------------------------------
eq("product of two sums", Sum(X[k] * Y[j], (k, 1, n), (j, 1, n)), total(X[k]) * total(Y[k]), n * total(X[k] * Y[k]))
lagrange = total(X[k] ** 2) * total(Y[k] ** 2) - total(X[k] * Y[k]) ** 2
crossed = Sum((X[j] * Y[k] - X[k] * Y[j]) ** 2, (j, 1, n), (k, 1, n))
eq("Lagrange", lagrange, crossed / 2, crossed)
eq(
    "deviations from the mean",
    total((X[k] - Sum(X[j], (j, 1, n)) / n) ** 2),
    total(X[k] ** 2) - total(X[k]) ** 2 / n,
    total(X[k] ** 2) - total(X[k]) ** 2 / n**2,
)
eq(
    "differences of all pairs",
    Sum((X[j] - X[k]) ** 2, (j, 1, n), (k, 1, n)),
    2 * n * total(X[k] ** 2) - 2 * total(X[k]) ** 2,
    2 * n * total(X[k] ** 2) - total(X[k]) ** 2,
)
eq("telescoping entries", total(X[k + 1] - X[k]), X[n + 1] - X[1], X[n] - X[1])
eq(
    "summation by parts",
    total(X[k] * (Y[k + 1] - Y[k])),
    X[n + 1] * Y[n + 1] - X[1] * Y[1] - total(Y[k + 1] * (X[k + 1] - X[k])),
    X[n + 1] * Y[n + 1] - X[1] * Y[1] - total(Y[k] * (X[k + 1] - X[k])),
)
eq(
    "order of summation in a triangle",
    total(Sum(X[j] * Y[k], (j, 1, k))),
    Sum(X[j] * Y[k], (k, j, n), (j, 1, n)),
    Sum(X[j] * Y[k], (k, 1, j), (j, 1, n)),
)
eq("reversed order", total(X[n + 1 - k]), total(X[k]), total(X[k], 0, n - 1))
eq("shifted index", total(X[k + 2]), total(X[k], 3, n + 2), total(X[k], 2, n + 1))
eq("two stretches", total(X[k]) + total(X[k], n + 1, n + m), total(X[k], 1, n + m), total(X[k], 1, n + m + 1))
eq("even and odd places", total(X[k], 1, 2 * n), total(X[2 * k]) + total(X[2 * k - 1]), total(X[2 * k] + X[2 * k + 1]))
eq("convolution", total(X[k] * Y[n - k], 0), total(Y[k] * X[n - k], 0), total(Y[k] * X[n - k], 1))
eq(
    "square of an inner product",
    total(X[k] * Y[k]) ** 2,
    Sum(X[j] * X[k] * Y[j] * Y[k], (j, 1, n), (k, 1, n)),
    total(X[k] ** 2 * Y[k] ** 2),
)
eq(
    "polarisation",
    total((X[k] + Y[k]) ** 2) - total((X[k] - Y[k]) ** 2),
    4 * total(X[k] * Y[k]),
    2 * total(X[k] * Y[k]),
)
eq("centred entries", total(X[k] - Sum(X[j], (j, 1, n)) / n), 0, X[n] - X[1])
eq(
    "normalised by the root mean square",
    total((X[k] / sqrt(Sum(X[j] ** 2, (j, 1, n)) / n)) ** 2),
    n,
    1,
    given=[Ne(total(X[k] ** 2), 0)],
)
eq("delta picks an entry", total(KroneckerDelta(k, i) * X[k]), X[i], X[i], given=inside, wrong_given=[i >= 1])
eq(
    "sum of a constant along one index",
    Sum(X[k] ** 2, (k, 1, n), (j, 1, m)),
    m * total(X[k] ** 2),
    n * total(X[k] ** 2),
)

# --- products ---------------------------------------------------------------------------------------------------------
eq("logarithm of a product", log(Product(P[k], (k, 1, n))), total(log(P[k])), total(log(P[k]), 1, n - 1))
eq("power of a product", Product(P[k] ** t, (k, 1, n)), Product(P[k], (k, 1, n)) ** t, t * Product(P[k], (k, 1, n)))
eq("exponential of a sum", exp(total(X[k])), Product(exp(X[k]), (k, 1, n)), total(exp(X[k])))
eq(
    "one factor more",
    Product(1 + t * X[k], (k, 1, n + 1)),
    (1 + t * X[n + 1]) * Product(1 + t * X[k], (k, 1, n)),
    (1 + t * X[n]) * Product(1 + t * X[k], (k, 1, n)),
)

# --- softmax and gradients --------------------------------------------------------------------------------------------
weight = lambda index: exp(X[index]) / partition
eq("softmax of any length sums to one", total(exp(X[k]) / Sum(exp(X[j]), (j, 1, n))), 1, total(weight(k), 1, n - 1))
eq("softmax of shifted entries", exp(X[i] + u) / total(exp(X[k] + u)), weight(i), exp(u) * weight(i))
eq("gradient of log-sum-exp, any length", Derivative(log(partition), X[i]), weight(i), 2 * weight(i), given=inside)
eq("gradient outside of the sum", Derivative(log(partition), X[n + 1]), 0, weight(n))
eq(
    "Jacobian of softmax",
    Derivative(weight(i), X[j]),
    weight(i) * (KroneckerDelta(i, j) - weight(j)),
    weight(i) * (KroneckerDelta(i, j) + weight(j)),
    given=both_inside,
)
attended = total(exp(X[k]) * Y[k]) / partition
eq(
    "gradient of attention by a score",
    Derivative(attended, X[i]),
    weight(i) * (Y[i] - attended),
    weight(i) * (Y[i] + attended),
    given=inside,
)
squares = Derivative(total(X[k] ** 2), X[i])
eq("gradient of the squared norm", squares, 2 * X[i], 2 * X[i], given=inside, wrong_given=[i >= 1])
eq(
    "gradient of the norm",
    Derivative(sqrt(total(X[k] ** 2)), X[i]),
    X[i] / sqrt(total(X[k] ** 2)),
    X[i] / total(X[k] ** 2),
    given=[*inside, Ne(total(X[k] ** 2), 0)],
)

# --- inequalities -----------------------------------------------------------------------------------------------------
says("Cauchy-Schwarz for any length", lagrange >= 0, lagrange > 0)
says("largest entry below log-sum-exp", log(partition) >= X[i], log(partition) >= X[i], given=inside, wrong_given=[])
divergence = total(P[k] * log(P[k] / R[k]))
says("Gibbs", divergence >= 0, divergence >= 0, given=[*one, Eq(total(R[k]), 1)], wrong_given=one)
entropy = -total(P[k] * log(P[k]))
says("entropy at most log n", entropy <= log(n), entropy < log(n), given=one)
says("squares of a law", total(P[k] ** 2) <= 1, total(P[k] ** 2) < 1, given=one)
says("squares of a law from below", total(P[k] ** 2) >= 1 / n, total(P[k] ** 2) > 1 / n, given=one)
geometric = Product(P[k], (k, 1, n)) ** (1 / n)
says("arithmetic and geometric mean", total(P[k]) / n >= geometric, total(P[k]) / n > geometric)
says("harmonic mean", n / total(1 / P[k]) <= total(P[k]) / n, n / total(1 / P[k]) < total(P[k]) / n)
says("triangle inequality of a sum", Abs(total(X[k])) <= total(Abs(X[k])), Abs(total(X[k])) < total(Abs(X[k])))
jensen = exp(total(P[k] * X[k])) <= total(P[k] * exp(X[k]))
says("Jensen for any weights", jensen, jensen, given=one, wrong_given=[])
says("mean square above the squared mean", total(X[k] ** 2) / n >= mean**2, total(X[k] ** 2) / n > mean**2)
says("weights of softmax below one", weight(i) < 1, weight(i) < 1, given=[*inside, n >= 2], wrong_given=inside)
