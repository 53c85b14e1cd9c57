"""Identities between matrices of symbolic shape: proved for every size, and their near misses not.

What is proved without structure is held against explicit matrices of sizes 1 to 4, and so are the near misses.
"""

import operator
import random
from functools import reduce
from typing import Any

import pytest
import sympy as sp
from sympy import Adjoint, BlockMatrix, Derivative, Determinant, Eq, Identity, Inverse, MatrixSymbol, Q, Sum, Trace

from kexue_lib.derivation._invertibility import undefined_inverses
from kexue_lib.derivation._letters import is_matrix
from kexue_lib.derivation._matrices import (
    MatrixSum,
    matrices_equal,
    matrix_derivative,
    matrix_vanishes,
    scalar_vanishes,
    scalars_in_atoms,
)

n, m, k = sp.symbols("n m k", integer=True, positive=True)
i, j, l, free = sp.symbols("i j l free", integer=True, nonnegative=True)
c, lam = sp.symbols("c lambda", positive=True)
A, B, C, D, P = (MatrixSymbol(name, n, n) for name in "ABCDP")
U, V, X, S = MatrixSymbol("U", n, m), MatrixSymbol("V", m, n), MatrixSymbol("X", n, m), MatrixSymbol("S", m, m)
u, v, x = (MatrixSymbol(name, n, 1) for name in "uvx")
In, Im = Identity(n), Identity(m)
s = (v.T * A.I * u)[0, 0]
H = X * (X.T * X).I * X.T
schur = S - V * A.I * U
ones = sp.OneMatrix(n, 1)
LETTERS = "ABCDPUVXSuvx"


def entries(body: Any, rows: Any = n, cols: Any = n) -> Any:
    return Sum(body, (i, 0, rows - 1), (j, 0, cols - 1))


def is_zero(lhs: Any, rhs: Any, given: Any = ()) -> bool:
    if is_matrix(lhs):
        return matrices_equal(lhs, rhs, list(given))
    return scalar_vanishes(lhs - rhs, list(given))


# lhs, rhs, a wrong rhs, given
IDENTITIES = {
    "transposed product": ((A * B).T, B.T * A.T, A.T * B.T, []),
    "inverse of a product": (Inverse(A * B), B.I * A.I, A.I * B.I, [Q.invertible(A), Q.invertible(B)]),
    "push-through": ((In + U * V).I * U, U * (Im + V * U).I, U * (Im - V * U).I, []),
    "push-through, ridge": ((X.T * X + lam * Im).I * X.T, X.T * (X * X.T + lam * In).I, X.T * (X * X.T + In).I, []),
    "Woodbury": (
        (A + U * S * V).I,
        A.I - A.I * U * (S.I + V * A.I * U).I * V * A.I,
        A.I - A.I * U * (S + V * A.I * U).I * V * A.I,
        [],
    ),
    "Sherman-Morrison": (
        (A + u * v.T).I,
        A.I - A.I * u * v.T * A.I / (1 + s),
        A.I - A.I * u * v.T * A.I / (1 - s),
        [],
    ),
    "matrix determinant lemma": (
        Determinant(A + u * v.T),
        (1 + s) * Determinant(A),
        (1 - s) * Determinant(A),
        [Q.invertible(A)],
    ),
    "Sylvester": (Determinant(In + U * V), Determinant(Im + V * U), Determinant(Im - V * U), []),
    "determinant of a product": (Determinant(A * B), Determinant(A) * Determinant(B), Determinant(A), []),
    "determinant of the transposed": (Determinant(A.T), Determinant(A), -Determinant(A), []),
    "determinant of the inverse": (Determinant(A.I), 1 / Determinant(A), Determinant(A), [Q.invertible(A)]),
    "determinant of a multiple": (Determinant(c * A), c**n * Determinant(A), c**m * Determinant(A), []),
    "determinant of a sum": (
        Determinant(A + B),
        Determinant(B) * Determinant(In + A * B.I),
        Determinant(A) * Determinant(In + A * B.I),
        [Q.invertible(B)],
    ),
    "1 + X and 1 + 1/X": (
        Determinant(In + A),
        Determinant(A) * Determinant(In + A.I),
        Determinant(A) * Determinant(In - A.I),
        [Q.invertible(A)],
    ),
    "similar matrices, determinant": (Determinant(A * B * A.I), Determinant(B), Determinant(A), [Q.invertible(A)]),
    "similar matrices, trace": (Trace(A * B * A.I), Trace(B), Trace(A), [Q.invertible(A)]),
    "cyclic trace": (Trace(A * B * C), Trace(B * C * A), Trace(B * A * C), []),
    "trace of the transposed": (Trace(A * B * C), Trace(C.T * B.T * A.T), Trace(A.T * B.T * C.T), []),
    "trace of A'B by entries": (Trace(A.T * B), entries(A[i, j] * B[i, j]), entries(A[i, j] * B[j, i]), []),
    "Frobenius norm": (Trace(X.T * X), entries(X[i, j] ** 2, n, m), entries(X[i, j], n, m), []),
    "outer and inner product": (Trace(u * v.T), (v.T * u)[0, 0], (v.T * v)[0, 0], []),
    "quadratic form by entries": (
        c * (x.T * A * x)[0, 0],
        entries(c * A[i, j] * x[i, 0] * x[j, 0]),
        entries(A[i, j] * x[i, 0] * x[j, 0]),
        [],
    ),
    "distance of two matrices": (
        Trace((A - B).T * (A - B)),
        Trace(A.T * A) - 2 * Trace(A.T * B) + Trace(B.T * B),
        Trace(A.T * A) - 2 * Trace(A * B) + Trace(B.T * B),
        [],
    ),
    "entry of a product": ((A * B)[i, free], Sum(A[i, j] * B[j, free], (j, 0, n - 1)), (B * A)[i, free], []),
    "diagonal, three times": (
        Sum(A[i, i] ** 2 * B[i, i], (i, 0, n - 1)),
        Sum(B[j, j] * A[j, j] ** 2, (j, 0, n - 1)),
        Trace(A * A * B),
        [],
    ),
    "sum of all entries": ((ones.T * A * ones)[0, 0], entries(A[i, j]), Trace(A), []),
    "vector of ones": (Trace(sp.OneMatrix(n, n)), n, n**2, []),
    "projector twice": (H * H, H, X * X.T, []),
    "projector transposed": (H.T, H, 2 * H, []),
    "resolvent identity": (
        (A - c * In).I - (A - lam * In).I,
        (c - lam) * (A - c * In).I * (A - lam * In).I,
        (lam - c) * (A - c * In).I * (A - lam * In).I,
        [],
    ),
    "difference of inverses": (A.I - B.I, A.I * (B - A) * B.I, A.I * (A - B) * B.I, []),
    "Schur determinant": (
        Determinant(BlockMatrix([[A, U], [V, S]])),
        Determinant(A) * Determinant(schur),
        Determinant(A) * Determinant(S + V * A.I * U),
        [Q.invertible(A)],
    ),
    "block inverse": (
        BlockMatrix([[A, U], [V, S]]).I,
        BlockMatrix(
            [[A.I + A.I * U * schur.I * V * A.I, -A.I * U * schur.I], [-schur.I * V * A.I, schur.I]],
        ),
        BlockMatrix([[A.I, -A.I * U * schur.I], [-schur.I * V * A.I, schur.I]]),
        [Q.invertible(A)],
    ),
    "a row of blocks times a column": (
        BlockMatrix([[A, U]]) * BlockMatrix([[B], [V]]),
        A * B + U * V,
        A * B - U * V,
        [],
    ),
    "a row of blocks times its transpose": (
        BlockMatrix([[A, U]]) * BlockMatrix([[A, U]]).T,
        A * A.T + U * U.T,
        A * A.T,
        [],
    ),
    "low rank update": ((A + U * V) * x, A * x + U * (V * x), A * x, []),
    "Householder": ((In - 2 * u * u.T / (u.T * u)[0, 0]) ** 2, In, -In, []),
    "Hadamard products, transposed": (sp.HadamardProduct(A, B).T, sp.HadamardProduct(B.T, A.T), A.T * B.T, []),
    "Hadamard products, distributive": (
        sp.HadamardProduct(A, B + C),
        sp.HadamardProduct(A, B) + sp.HadamardProduct(A, C),
        sp.HadamardProduct(A, B),
        [],
    ),
    "Hadamard products, trace": (
        Trace(sp.HadamardProduct(A, B) * C.T),
        entries(A[i, j] * B[i, j] * C[i, j]),
        entries(A[i, j] * B[i, j] * C[j, i]),
        [],
    ),
}

# with structure, for which no explicit matrices are drawn: lhs, rhs, given, weaker given
STRUCTURED = {
    "orthogonal change of basis": (Trace(P.T * A * P), Trace(A), [Q.orthogonal(P)], []),
    "orthogonal, determinant": (Determinant(P) ** 2, sp.Integer(1), [Q.orthogonal(P)], [Q.invertible(P)]),
    "unitary, determinant": (
        Determinant(Adjoint(P)) * Determinant(P),
        sp.Integer(1),
        [Q.unitary(P)],
        [Q.orthogonal(P), Q.symmetric(A)],
    ),
    "symmetric and orthogonal": (P * P, In, [Q.orthogonal(P), Q.symmetric(P)], [Q.orthogonal(P)]),
    "symmetric product, transposed": ((A * B).T, B * A, [Q.symmetric(A), Q.symmetric(B)], [Q.symmetric(A)]),
    "diagonal matrices commute": (A * B, B * A, [Q.diagonal(A), Q.diagonal(B)], [Q.diagonal(A)]),
    "projector": ((In - 2 * P) ** 2, In, [Eq(P * P, P)], [Eq(P * P * P, P)]),
    "projector, transposed": (P.T**3, P.T, [Eq(P * P, P)], [Eq(P * P, P.T)]),
    "one-sided inverse of a square matrix": (B * A, In, [Eq(A * B, In)], [Eq(A * B, B)]),
    "commuting": ((A * B) ** 2, A**2 * B**2, [Eq(A * B, B * A)], []),
    "cancelled": (A, B, [Eq(A * C, B * C), Q.invertible(C)], [Eq(A * C, B * C)]),
    "Cayley": (
        ((In - A) * (In + A).I).T * ((In - A) * (In + A).I),
        In,
        [Eq(A.T, -A)],
        [Eq(A.T, A)],
    ),
    "singular": (Determinant(A * B), sp.Integer(0), [Q.singular(A)], []),
    "unit vector": ((In - 2 * u * u.T) ** 2, In, [Eq((u.T * u)[0, 0], 1)], [Eq((u.T * u)[0, 0], 2)]),
    "logarithm of determinants": (
        sp.log(Determinant(A * B)),
        sp.log(Determinant(A)) + sp.log(Determinant(B)),
        [Q.positive_definite(A), Q.positive_definite(B)],
        [Q.invertible(A), Q.invertible(B)],
    ),
    "real: adjoint": (Adjoint(A), A.T, [Q.real_elements(A)], []),
    "index in range": (
        Sum(sp.KroneckerDelta(i, k) * A[k, j], (k, 0, n - 1)),
        A[i, j],
        [i <= n - 1],
        [],
    ),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identity_is_proved_and_its_near_miss_is_not(name):
    lhs, rhs, wrong, given = IDENTITIES[name]
    assert is_zero(lhs, rhs, given)
    assert not is_zero(lhs, wrong, given)


@pytest.mark.parametrize("name", STRUCTURED)
def test_structure_is_used_and_needed(name):
    lhs, rhs, given, weaker = STRUCTURED[name]
    assert is_zero(lhs, rhs, given)
    assert not is_zero(lhs, rhs, weaker)


def explicit(e: Any, sizes: dict[Any, int], values: dict[Any, Any]) -> Any:
    """The value with explicit matrices of those sizes, by the definitions of the operations."""
    at = lambda part: explicit(part, sizes, values)
    if isinstance(e, MatrixSymbol):
        rows, cols = (int(sp.sympify(side).subs(sizes)) for side in e.shape)
        return values[e.name][:rows, :cols]
    if isinstance(e, (sp.MatAdd, sp.MatMul)):
        parts = [at(part) for part in e.args]
        return reduce(operator.add if isinstance(e, sp.MatAdd) else operator.mul, parts)
    if isinstance(e, sp.HadamardProduct):
        return reduce(lambda one, other: one.multiply_elementwise(other), [at(part) for part in e.args])
    if isinstance(e, sp.BlockMatrix):
        rows = [sp.Matrix.hstack(*(at(part) for part in e.blocks.row(r))) for r in range(e.blocks.rows)]
        return sp.Matrix.vstack(*rows)
    if isinstance(e, sp.MatPow):
        return at(e.base) ** at(e.exp)
    if isinstance(e, (sp.Identity, sp.OneMatrix)):
        rows, cols = (int(sp.sympify(side).subs(sizes)) for side in e.shape)
        return sp.eye(rows) if isinstance(e, sp.Identity) else sp.ones(rows, cols)
    if isinstance(e, sp.Sum):
        index, low, high = e.limits[-1]
        inner = sp.Sum(e.function, *e.limits[:-1]) if len(e.limits) > 1 else e.function
        terms = range(int(at(low)), int(at(high)) + 1)
        return sp.Add(*(explicit(inner, {**sizes, index: number}, values) for number in terms))
    named = {sp.Transpose: lambda a: a.T, Trace: lambda a: a.trace(), Determinant: lambda a: a.det()}
    if type(e) in named:
        return named[type(e)](at(e.arg))
    if isinstance(e, sp.matrices.expressions.matexpr.MatrixElement):
        return at(e.parent)[int(at(e.i)), int(at(e.j))]
    return e.func(*(at(part) for part in e.args)) if e.args else sp.sympify(sizes.get(e, e))


@pytest.mark.parametrize("name", IDENTITIES)
def test_explicit_matrices_agree_with_the_identity_and_not_with_its_near_miss(name):
    lhs, rhs, wrong, _ = IDENTITIES[name]
    missed = False
    for rows, cols in ((1, 1), (2, 1), (3, 2), (4, 3)):
        draw = random.Random(10 * rows + cols)
        numbers = [sp.Rational(draw.randint(-9, 9), draw.randint(1, 3)) for _ in range(16 * len(LETTERS))]
        values = {letter: sp.Matrix(4, 4, numbers[16 * at : 16 * at + 16]) for at, letter in enumerate(LETTERS)}
        sizes = {n: rows, m: cols, c: sp.Rational(3, 2), lam: sp.Rational(1, 3), i: 0, free: rows - 1}
        left, right, other = (explicit(side, sizes, values) for side in (lhs, rhs, wrong))
        assert sp.simplify(left - right) == 0 * left
        missed = missed or other != left
    assert missed


@pytest.mark.parametrize(
    ("lhs", "rhs", "given"),
    [
        (MatrixSum(A[k, 0] * B, (k, 0, n - 1)), n * A[free, 0] * B, []),
        (Sum(Trace(A**k), (k, 1, m)), m * Trace(A**free), []),
        (Derivative(Trace((In + Trace(A) * B).I), A), sp.ZeroMatrix(n, n), []),
        (A * B, B * A, [Q.symmetric(A), Q.symmetric(B)]),
        (Trace(A * B * C), Trace(A * C * B), [Q.symmetric(A), Q.symmetric(B)]),
        (Determinant(A + B), Determinant(A) + Determinant(B), []),
        (Sum(A[i, j] * B[j, free], (j, 1, n - 1)), (A * B)[i, free], []),
        (Sum(A[i, i] ** 2, (i, 0, n - 1)), Trace(A) ** 2, []),
        (Trace(sp.HadamardProduct(A, B)), Trace(A * B), []),
        (U * V, In, [Eq(V * U, Im)]),
        (P.T * P, In, [Eq(P * P.T * P, P)]),
        (Derivative(Trace(A * A), A), 2 * A.T, [Q.symmetric(A)]),
        (Derivative(Determinant(A), A), Determinant(A) * A.I.T, [Q.singular(A)]),
        (Trace(In), m, []),
    ],
)
def test_false_statements_are_not_proved(lhs, rhs, given):
    assert not is_zero(lhs, rhs, given)


def test_powers_of_symbolic_exponent():
    assert matrix_vanishes(A ** (k + 1) - A * A**k)
    assert matrix_vanishes(A ** (k - 1) * A - A**k)
    assert matrix_vanishes((A**k).T - A.T**k)
    assert not matrix_vanishes(A**k * A.T**k - A.T**k * A**k)


def test_sums_of_matrices_are_linear():
    weight = sp.IndexedBase("w")
    total = MatrixSum(weight[k] * A * B, (k, 1, m))
    assert matrices_equal(total * C, Sum(weight[k], (k, 1, m)) * A * B * C)
    assert matrices_equal(MatrixSum(A * B**k * C, (k, 0, m)), A * MatrixSum(B**k, (k, 0, m)) * C)
    assert not matrices_equal(total, weight[m] * A * B)
    assert matrices_equal(MatrixSum(A, (k, 1, m)), m * A)
    assert not matrices_equal(MatrixSum(A, (k, 0, m)), m * A)


def test_orders_between_scalars_rest_on_the_signs_of_atoms():
    squares, definite = scalars_in_atoms(
        [Trace(A.T * A), Determinant(B * B)], [Q.real_elements(A), Q.positive_definite(B)]
    )
    assert squares.is_nonnegative
    assert definite.is_positive
    (free_trace,) = scalars_in_atoms([Trace(A.T * A)])
    assert free_trace.is_nonnegative is None
    (quadratic,) = scalars_in_atoms([(x.T * B * x)[0, 0]], [Q.real_elements(x), Q.positive_definite(B)])
    assert quadratic.is_nonnegative


# --- derivatives ------------------------------------------------------------------------------------------------------
GRADIENTS = {
    "linear": (Trace(A * D), D, A.T, []),
    "quadratic": (Trace(D.T * A * D), D, (A + A.T) * D, []),
    "quadratic, symmetric": (Trace(D.T * A * D), D, 2 * A * D, [Q.symmetric(A)]),
    "least squares": (Trace((A * D - B).T * (A * D - B)), D, 2 * A.T * (A * D - B), []),
    "of a vector": ((x.T * A * x)[0, 0], x, (A + A.T) * x, []),
    "inverse": (Trace(D.I * B), D, -((D.I * B * D.I).T), []),
    "log-determinant": (sp.log(Determinant(D)), D, D.I.T, [Q.invertible(D)]),
    "inverse of a sum": (Trace((In + A * D).I), D, -(((In + A * D).I * (In + A * D).I * A).T), []),
    "chain rule": (sp.exp(Trace(A * D)) * Trace(D), D, sp.exp(Trace(A * D)) * (In + Trace(D) * A.T), []),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_is_proved_and_its_double_is_not(name):
    function, by, expected, given = GRADIENTS[name]
    assert matrices_equal(Derivative(function, by), expected, given)
    assert not matrices_equal(Derivative(function, by), 3 * expected, given)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(set(GRADIENTS) - {"quadratic, symmetric"}))
def test_gradient_agrees_with_derivatives_by_explicit_entries(name, size):
    function, by, _, given = GRADIENTS[name]
    draw = random.Random(size)
    values = {letter: sp.Matrix(4, 4, lambda *_: sp.Integer(draw.randint(-3, 3))) for letter in "ABC"}
    point = sp.Matrix(4, 4, lambda a, b: draw.randint(1, 3) + 7 * (a == b))
    unknown = sp.Matrix(4, 4, lambda a, b: sp.Symbol(f"d{a}{b}"))
    at = {unknown[a, b]: point[a, b] for a in range(4) for b in range(4)}
    scalar = explicit(function, {n: size}, {**values, by.name: unknown})
    gradient = explicit(matrix_derivative(function, by, given), {n: size}, {**values, by.name: point})
    for a in range(size):
        for b in range(1 if by.shape[1] == 1 else size):
            assert sp.simplify(scalar.diff(unknown[a, b]).subs(at) - gradient[a, b]) == 0


def test_derivatives_by_an_entry():
    assert scalar_vanishes(Derivative((A * X * S)[i, free], X[k, m - 1]) - A[i, k] * S[m - 1, free])
    assert not scalar_vanishes(Derivative((A * X * S)[i, free], X[k, m - 1]) - A[k, i] * S[m - 1, free])
    gradient = Sum((A[i, j] + A[j, i]) * x[j, 0], (j, 0, n - 1))
    assert scalar_vanishes(Derivative((x.T * A * x)[0, 0], x[i, 0]) - gradient)
    assert scalar_vanishes(Derivative((x.T * A * x)[0, 0], x[i, 0], x[free, 0]) - A[i, free] - A[free, i])


def test_gradient_by_a_bound_matrix_is_refused():
    for given in ([Q.symmetric(D)], [Eq(D * D, D)], [Q.orthogonal(D)]):
        with pytest.raises(NotImplementedError):
            matrix_derivative(Trace(A * D), D, given)


# --- inverses ---------------------------------------------------------------------------------------------------------
DEFINED = [
    (A.I, [Q.invertible(A)]),
    (A.I, [Q.orthogonal(A)]),
    (A.I, [Q.positive_definite(A)]),
    (A.I, [sp.Ne(Determinant(A), 0)]),
    ((c * A).I, [Q.invertible(A)]),
    (Inverse(A * B.T), [Q.invertible(A), Q.invertible(B)]),
    ((In + A * A.T).I, [Q.real_elements(A)]),
    ((In + A * Adjoint(A)).I, []),
    ((lam * Im + X.T * X).I, [Q.real_elements(X)]),
    ((X.T * X).I, [Q.invertible(X.T * X)]),
    ((A + B).I, [Q.positive_definite(A), Q.positive_definite(B)]),
    ((In + U * V).I, [Q.invertible(Im + V * U)]),
    ((A + U * S * V).I, [Q.invertible(A), Q.invertible(S), Q.invertible(S.I + V * A.I * U)]),
    ((A + u * v.T).I, [Q.invertible(A), sp.Ne(1 + s, 0)]),
    (BlockMatrix([[A, U], [V, S]]).I, [Q.invertible(A), Q.invertible(schur)]),
    ((B.T * A * B).I, [Q.positive_definite(A), Q.real_elements(B), Q.invertible(B)]),
    (A**k, []),
]
UNDEFINED = [
    (A.I, []),
    (Inverse(A * B), [Q.invertible(A)]),
    ((In + A * A.T).I, []),
    ((X.T * X).I, [Q.real_elements(X)]),
    ((A - B).I, [Q.positive_definite(A), Q.positive_definite(B)]),
    ((In + U * V).I, [Q.invertible(Im - V * U)]),
    ((A + U * S * V).I, [Q.invertible(A)]),
    ((A + u * v.T).I, [Q.invertible(A), sp.Ne(1 - s, 0)]),
    (BlockMatrix([[A, U], [V, S]]).I, [Q.invertible(A)]),
    ((U.T * A * U).I, [Q.positive_definite(A), Q.real_elements(U)]),
    ((A + B.I).I, [Q.invertible(A)]),
    ((A - c * In).I, [Q.invertible(A)]),
    (A**-2, []),
    (A ** (k - 2), []),
]


@pytest.mark.parametrize(("expression", "given"), DEFINED)
def test_inverse_follows_from_the_conditions(expression, given):
    assert undefined_inverses(expression, given) == []


@pytest.mark.parametrize(("expression", "given"), UNDEFINED)
def test_inverse_does_not_follow(expression, given):
    assert undefined_inverses(expression, given)
