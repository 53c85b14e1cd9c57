"""Statements about the entries of vectors and matrices of any size that are nearly true, and what names are to them."""

import functools
from typing import Any

import pytest
import sympy as sp
from sympy import And, Determinant, Eq, MatrixSymbol, Max, Ne, Product, Q, Rational, Trace

from kexue_lib.derivation import Derivation, DerivationError, ForEvery
from kexue_lib.derivation._points import Domain
from kexue_lib.derivation._structure import Structure
from kexue_lib.derivation._unknowns import Entries

NAMES = ("X", "Y", "W", "N", "Z", "M", "a", "b", "n", "k")
CLOSE = Rational(99, 100)
OTHER_NAMES = [
    ("x", "y", "w", "v", "z", "u", "a", "b", "n", "k"),
    ("N", "M", "k", "n", "b", "a", "Z", "X", "Y", "W"),
    ("A9", "A8", "A7", "A6", "A5", "A4", "A3", "A2", "A1", "A0"),
]


def letters(names: Any, wanted: str) -> tuple[Any, ...]:
    """The unknowns wanted, under the names given, then sums and conditions over the indices 1, …, n."""
    X, Y = (sp.IndexedBase(name, real=True) for name in names[:2])
    W, N = sp.IndexedBase(names[2], positive=True), sp.IndexedBase(names[3], nonnegative=True)
    Z = sp.IndexedBase(names[4], integer=True)
    M, a, b = sp.Symbol(names[5], real=True), *(sp.Symbol(name, positive=True) for name in names[6:8])
    n, k = sp.Symbol(names[8], integer=True, positive=True), sp.Symbol(names[9], integer=True)
    total = lambda term, last=n: sp.Sum(term, (k, 1, last))
    every = lambda condition, last=n: ForEvery(condition, (k, 1, last))
    known = dict(zip(NAMES, (X, Y, W, N, Z, M, a, b, n, k)))
    return *(known[letter] for letter in wanted), total, every


def statements(names: Any) -> dict[str, tuple[Any, list[Any]]]:
    """False statements with their conditions, each close to a true one, written with the names given."""
    return within_bounds(names) | under_totals(names) | in_chains(names) | of_other_kinds(names)


def within_bounds(names: Any) -> dict[str, tuple[Any, list[Any]]]:
    """Bounds on every entry."""
    X, W, M, a, b, n, k, total, every = letters(names, "XWMabnk")
    unit = [every(X[k] >= 0), every(X[k] <= 1)]
    law = Eq(total(W[k]), 1)
    return {
        "sum below": (sp.Sum(X[k], (k, 0, n - 1)) <= (n - 1) * M, [ForEvery(X[k] <= M, (k, 0, n - 1))]),
        "sum below, strictly": (total(X[k]) <= (n - Rational(1, 100)) * M, [every(X[k] < M)]),
        "sum above": (total(X[k]) >= n * M + Rational(1, 100), [every(X[k] >= M)]),
        "interval": (total(X[k]) <= n * b - a / 1000, [every(X[k] <= b), every(X[k] >= -b)]),
        "modulus": (total(X[k] ** 2) <= (n - 1) * b**2, [every(abs(X[k]) <= b)]),
        "square": (total(X[k]) <= n * b * CLOSE, [every(X[k] ** 2 <= b**2)]),
        "both at once": (total(X[k] ** 2) <= n * b**2 * CLOSE, [every(And(-b <= X[k], X[k] <= b))]),
        "Popoviciu": (total(X[k] ** 2) / n - total(X[k]) ** 2 / n**2 <= Rational(1, 5), unit),
        "variance under a law": (
            total(W[k] * X[k] ** 2) - total(W[k] * X[k]) ** 2 <= Rational(24, 100),
            [law, *unit],
        ),
    }


def under_totals(names: Any) -> dict[str, tuple[Any, list[Any]]]:
    """Sums of the entries that are given."""
    X, W, n, k, total, _ = letters(names, "XWnk")
    law = Eq(total(W[k]), 1)
    return {
        "sum in the ball": (total(X[k]) <= 1, [total(X[k] ** 2) <= 1]),
        "sum on the sphere": (total(X[k]) <= 1, [Eq(total(X[k] ** 2), 1)]),
        "norm": (total(X[k]) <= 1, [sp.sqrt(total(X[k] ** 2)) <= 1]),
        "squares without a mean": (total(X[k] ** 2) <= total(X[k] ** 4), [Eq(total(X[k]), 0)]),
        "cubes without a mean": (Eq(total(X[k] ** 3), 0, evaluate=False), [Eq(total(X[k]), 0)]),
        "weighted mean of zero": (total(X[k]) >= 0, [Eq(total(W[k] * X[k]), 0)]),
        "entropy": (-total(W[k] * sp.log(W[k])) <= sp.log(n) * CLOSE, [law]),
        "squares of a law": (total(W[k] ** 2) >= Rational(101, 100) / n, [law]),
        "one of a law": (W[1] <= CLOSE, [law]),
        "Jensen": (sp.exp(total(W[k] * X[k])) * Rational(101, 100) <= total(W[k] * sp.exp(X[k])), [law]),
    }


def in_chains(names: Any) -> dict[str, tuple[Any, list[Any]]]:
    """Entries compared with their neighbours, or with the entries of another vector."""
    X, Y, a, n, k, total, every = letters(names, "XYank")
    rising = every(X[k] <= X[k + 1], n - 1)
    return {
        "a chain": (total(X[k]) <= n * X[1], [rising]),
        "ends of a chain": (X[1] < X[n], [rising, n >= 2]),
        "Chebyshev": (
            n * total(X[k] * Y[k]) >= Rational(101, 100) * total(X[k]) * total(Y[k]),
            [rising, every(Y[k] <= Y[k + 1], n - 1)],
        ),
        "telescope": (X[n] - X[1] <= (n - 2) * a, [every(X[k + 1] - X[k] <= a, n - 1), n >= 3]),
        "steps": (
            abs(X[n] - X[1]) <= (n - Rational(11, 10)) * a,
            [every(abs(X[k + 1] - X[k]) <= a, n - 1), n >= 2],
        ),
        "ratios": (X[n] <= a ** (n - 2) * X[1], [every(X[k + 1] <= a * X[k], n - 1), n >= 2, X[1] > 0]),
        "dominated": (total(X[k]) < total(Y[k]), [every(X[k] <= Y[k])]),
        "dominated squares": (total(X[k] ** 2) <= total(Y[k] ** 2), [every(X[k] <= Y[k])]),
        "equal entries": (total(X[k] * Y[k]) <= CLOSE * total(X[k] ** 2), [every(Eq(X[k], Y[k]))]),
    }


def of_other_kinds(names: Any) -> dict[str, tuple[Any, list[Any]]]:
    """Inequalities without conditions, products, reciprocals, whole numbers."""
    X, Y, W, N, Z, M, a, b, n, k, total, every = letters(names, "XYWNZMabnk")
    unit = [every(X[k] >= 0), every(X[k] <= 1)]
    return {
        "Cauchy-Schwarz": (total(X[k] * Y[k]) ** 2 <= CLOSE * total(X[k] ** 2) * total(Y[k] ** 2), []),
        "Cauchy-Schwarz with ones": (total(X[k]) ** 2 <= (n - Rational(1, 50)) * total(X[k] ** 2), []),
        "zeros": (total(N[k]) > 0, []),
        "cancellation": (abs(total(X[k])) >= total(abs(X[k])) / 100, []),
        "product": (Product(W[k], (k, 1, n)) <= CLOSE, [every(W[k] <= 1)]),
        "Weierstrass": (Product(1 - X[k], (k, 1, n)) >= 1 - total(X[k]) + Rational(1, 1000), unit),
        "means": (Product(W[k], (k, 1, n)) <= CLOSE * (total(W[k]) / n) ** n, []),
        "log-sum-exp": (sp.log(total(sp.exp(X[k]))) <= M + sp.log(n) - Rational(1, 100), [every(X[k] <= M)]),
        "Kantorovich": (
            total(W[k]) * total(1 / W[k]) <= n**2 * Rational(11, 10),
            [every(W[k] >= 1), every(W[k] <= 2)],
        ),
        "whole numbers": (total(Z[k]) >= 3 * n, [every(Z[k] > 1), every(Z[k] < 9)]),
        "not zero": (total(X[k] ** 2) >= n * Rational(1, 10**6), [every(Ne(X[k], 0))]),
        "bound by the index": (total(X[k]) <= n * (n + 1) / 2 - Rational(1, 2), [every(X[k] <= k)]),
        "reciprocals": (total(1 / W[k]) <= n / a - Rational(1, 1000), [every(W[k] >= a)]),
        "two bounds": (total(X[k] ** 2) <= CLOSE * n * Max(M**2, a**2), [every(X[k] >= M), every(X[k] <= a), a >= M]),
        "Hölder": (total(X[k] * Y[k]) <= CLOSE * b * total(abs(Y[k])), [every(abs(X[k]) <= b)]),
    }


def matrix_statements() -> dict[str, tuple[Any, list[Any]]]:
    """False statements about traces and determinants, close to true ones."""
    n = sp.Symbol("n", integer=True, positive=True)
    A, B = MatrixSymbol("A", n, n), MatrixSymbol("B", n, n)
    v, w = MatrixSymbol("v", n, 1), MatrixSymbol("w", n, 1)
    definite = [Q.positive_definite(A), Q.positive_definite(B)]
    real = [Q.real_elements(A), Q.real_elements(B), Q.real_elements(v), Q.real_elements(w)]
    return {
        "trace squared": (Trace(A) ** 2 <= (n - Rational(1, 100)) * Trace(A.T * A), real[:1]),
        "trace of a product": (Trace(A * B) <= Trace(A) * Trace(B) * CLOSE, definite),
        "squares of definite": (Trace(A * A) <= Trace(A) ** 2 * CLOSE, definite[:1]),
        "determinant and trace": (Determinant(A) <= (Trace(A) / n) ** n * CLOSE, definite[:1]),
        "Minkowski": (Determinant(A + B) >= (Determinant(A) + Determinant(B)) * Rational(101, 100), definite),
        "trace of a rotation": (Trace(A) >= -n + Rational(1, 10), [Q.orthogonal(A)]),
        "trace of an inverse": (Trace(A) * Trace(A.I) >= n**2 + Rational(1, 1000), [*definite[:1], Q.invertible(A)]),
        "quadratic form": ((v.T * A * v)[0, 0] >= (v.T * v)[0, 0] / 100, [*definite[:1], real[2]]),
        "inner product": ((v.T * w)[0, 0] ** 2 <= CLOSE * (v.T * v)[0, 0] * (w.T * w)[0, 0], real[2:]),
        "diagonal": (Determinant(A) <= (Trace(A) / n) ** n * CLOSE, [Q.diagonal(A), *definite[:1]]),
        "sign of the size": (Eq(Determinant(-A), -Determinant(A), evaluate=False), []),
    }


FALSE = statements(NAMES) | matrix_statements()


@pytest.mark.parametrize("name", FALSE)
def test_nearly_true_is_refused_with_a_point(name):
    statement, given = FALSE[name]
    with pytest.raises(DerivationError, match="false at"):
        Derivation("demo").holds(name, statement, given=given)


@functools.cache
def found(names: Any) -> dict[str, list[str]]:
    """The points at which each statement is put to the test, the names of the unknowns left out."""
    points = {}
    for name, (statement, given) in (statements(names) | plain_statements(names)).items():
        domain = Domain(statement, given)
        order = sorted([*domain.symbols, *domain.indexed, *domain.matrices], key=domain.structure.key)
        points[name] = []
        for point in domain.points(5):
            values = [point[unknown] for unknown in order]
            points[name].append(str([sorted(v.known.items()) if isinstance(v, Entries) else v for v in values]))
    return points


def plain_statements(names: Any) -> dict[str, tuple[Any, list[Any]]]:
    """Statements about numbers and matrices, true or not."""
    x, y, z = (sp.Symbol(name, real=True) for name in names[:3])
    a, b = (sp.Symbol(name, positive=True) for name in names[6:8])
    A, B = MatrixSymbol(names[4], 2, 3), MatrixSymbol(names[5], 3, 2)
    return {
        "numbers": (sp.sqrt(x**2 + a) * sp.log(b / (y - x)) <= abs(z) + a * b, [x < y, Eq(a + b, 1)]),
        "alike": (x * y + y * z + z * x <= x**2 + y**2 + z**2, []),
        "roots": (Eq(x**3, y, evaluate=False), [Eq(x**2, z), a > 2 * b]),
        "matrices": (Eq(Trace(A * B), x * Trace(B * A), evaluate=False), []),
    }


@pytest.mark.parametrize("names", OTHER_NAMES, ids=range(len(OTHER_NAMES)))
def test_points_do_not_depend_on_names(names):
    assert found(names) == found(NAMES)


@pytest.mark.parametrize("names", [NAMES, *OTHER_NAMES], ids=range(1 + len(OTHER_NAMES)))
def test_evidence_does_not_depend_on_names(names):
    X, W = sp.IndexedBase(names[0], real=True), sp.IndexedBase(names[2], positive=True)
    M, b = sp.Symbol(names[5], real=True), sp.Symbol(names[7], positive=True)
    n, k = sp.Symbol(names[8], integer=True, positive=True), sp.Symbol(names[9], integer=True)
    total = lambda term: sp.Sum(term, (k, 1, n))
    bounded, law = [ForEvery(X[k] <= M, (k, 1, n))], Eq(total(W[k]), 1)
    d = Derivation("demo")
    d.holds("Sum below", total(X[k]) <= n * M, given=bounded)
    d.holds("Sum of squares", total(X[k] ** 2) <= n * b**2, given=[ForEvery(abs(X[k]) <= b, (k, 1, n))])
    d.holds("Cauchy and Schwarz", total(X[k]) ** 2 <= n * total(X[k] ** 2))
    d.holds("Squares of a law", total(W[k] ** 2) <= 1, given=[law])
    d.equal("Weights", total(sp.exp(X[k]) / total(sp.exp(X[k]))), 1)
    d.equal("Constants", total(b * X[k] + M), b * total(X[k]) + n * M)
    assert [claim.evidence for claim in d.claims] == EVIDENCE


EVIDENCE = ["proved", "checked", "proved", "proved", "proved", "proved"]


def test_symmetric_unknowns_are_told_apart_and_the_rest_by_its_place():
    x, y, z = sp.symbols("x y z", real=True)
    one, other = Structure([x + y + z**2]), Structure([z + x + y**2])
    assert len({one.key(s) for s in (x, y, z)}) == 3
    assert sorted([x, y, z], key=one.key).index(z) == sorted([x, y, z], key=other.key).index(y)
    assert Structure([x - y]).key(x) == Structure([z - x]).key(z)
