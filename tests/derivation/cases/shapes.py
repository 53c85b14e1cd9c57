"""Matrices of any shape: products, inverses, determinants, traces, gradients."""

import sympy as sp
from sympy import BlockMatrix, Derivative, Determinant, Eq, Inverse, Ne, Sum, Trace, ZeroMatrix
from sympy import Q as M

from ._table import Table, a, b, i, j, m, n

TABLE = Table("shapes")
eq, says = TABLE.eq, TABLE.says

A, B = sp.MatrixSymbol("A", n, m), sp.MatrixSymbol("B", m, n)
C, D, E, S, W = (sp.MatrixSymbol(name, n, n) for name in "CDESW")
uu, vv = sp.MatrixSymbol("u", n, 1), sp.MatrixSymbol("v", n, 1)
In, Im, ones = sp.Identity(n), sp.Identity(m), sp.OneMatrix(n, 1)
eq("trace is cyclic", sp.Trace(A * B * C), sp.Trace(C * A * B), sp.Trace(A.T * C * B.T) * 2)
eq("three traces", sp.Trace(C * D * E), sp.Trace(E * C * D), sp.Trace(D * C * E))
eq("square of a sum", (C + D) ** 2, C**2 + C * D + D * C + D**2, C**2 + 2 * C * D + D**2)
eq(
    "push through an inverse",
    C * (In + D * C).I,
    (In + C * D).I * C,
    (In + D * C).I * C,
    given=[M.invertible(In + C * D)],
)
eq(
    "Woodbury",
    (C + A * B).I,
    C.I - C.I * A * (Im + B * C.I * A).I * B * C.I,
    C.I + C.I * A * (Im + B * C.I * A).I * B * C.I,
    given=[M.invertible(C), M.invertible(C + A * B)],
)
eq(
    "orthogonal change of basis",
    (W * C * W.T) ** 2,
    W * C**2 * W.T,
    W * C**2 * W.T,
    given=[M.orthogonal(W)],
    wrong_given=[],
)
eq("push through", C * (In + D * C), (In + C * D) * C, (In + D * C) * C)
eq("transposed sum", (C + D.T).T * C, C.T * C + D * C, C.T * C + D.T * C)
eq(
    "LoRA step",
    (A - a * C * A) * (B - a * B * C) - A * B,
    -a * (C * A * B + A * B * C) + a**2 * C * A * B * C,
    -a * (C * A * B + A * B * C) - a**2 * C * A * B * C,
)
eq("symmetric matrix", (S * C).T, C.T * S, C.T * S, given=[M.symmetric(S)], wrong_given=[])
P_A = A * (A.T * A).I * A.T
eq("projector onto columns", P_A * P_A, P_A, P_A.T * 2, given=[M.invertible(A.T * A)])

# --- inverses ---------------------------------------------------------------------------------------------------------
both = [M.invertible(C), M.invertible(D)]
eq("inverse of a product", Inverse(C * D), D.I * C.I, C.I * D.I, given=both)
eq("difference of inverses", C.I - D.I, C.I * (D - C) * D.I, C.I * (C - D) * D.I, given=both)
eq(
    "resolvents",
    (C - a * In).I - (C - b * In).I,
    (a - b) * (C - a * In).I * (C - b * In).I,
    (b - a) * (C - a * In).I * (C - b * In).I,
    given=[M.invertible(C - a * In), M.invertible(C - b * In)],
)
eq(
    "ridge regression from both sides",
    (A.T * A + a * Im).I * A.T,
    A.T * (A * A.T + a * In).I,
    A.T * (A * A.T + b * In).I,
    given=[M.invertible(A.T * A + a * Im), M.invertible(A * A.T + a * In), M.invertible(A * A.T + b * In)],
)
gain = (vv.T * C.I * uu)[0, 0]
eq(
    "Sherman-Morrison",
    (C + uu * vv.T).I,
    C.I - C.I * uu * vv.T * C.I / (1 + gain),
    C.I - C.I * uu * vv.T * C.I / (1 - gain),
    given=[M.invertible(C), M.invertible(C + uu * vv.T), Ne(1 + gain, 0)],
)
eq("one-sided inverse", D * C, In, In, given=[Eq(C * D, In)], wrong_given=[Eq(C * D, D)])
eq("cancelled on the right", C, D, D, given=[Eq(C * E, D * E), M.invertible(E)], wrong_given=[Eq(C * E, D * E)])
cayley = (In - C) * (In + C).I
eq(
    "Cayley",
    cayley.T * cayley,
    In,
    In,
    given=[Eq(C.T, -C), M.invertible(In + C)],
    wrong_given=[M.invertible(In + C)],
)
eq(
    "inverse of a shear of blocks",
    BlockMatrix([[In, A], [ZeroMatrix(m, n), Im]]).I,
    BlockMatrix([[In, -A], [ZeroMatrix(m, n), Im]]),
    BlockMatrix([[In, A], [ZeroMatrix(m, n), Im]]),
)

# --- determinants and traces ------------------------------------------------------------------------------------------
eq("determinant of a product of any size", Determinant(C * D), Determinant(C) * Determinant(D), Determinant(C + D))
eq("determinant of the transposed", Determinant(C.T), Determinant(C), -Determinant(C))
eq("determinant of a multiple", Determinant(a * C), a**n * Determinant(C), a * Determinant(C))
eq("Sylvester", Determinant(In + A * B), Determinant(Im + B * A), Determinant(Im - B * A))
eq(
    "determinant of a rank-one update",
    Determinant(C + uu * vv.T),
    (1 + gain) * Determinant(C),
    (1 - gain) * Determinant(C),
    given=[M.invertible(C)],
)
eq("determinant of the inverse", Determinant(C.I), 1 / Determinant(C), Determinant(C), given=[M.invertible(C)])
eq("orthogonal, determinant", Determinant(W) ** 2, 1, 1, given=[M.orthogonal(W)], wrong_given=[M.invertible(W)])
eq(
    "Schur complement",
    Determinant(BlockMatrix([[C, A], [B, sp.MatrixSymbol("F", m, m)]])),
    Determinant(C) * Determinant(sp.MatrixSymbol("F", m, m) - B * C.I * A),
    Determinant(C) * Determinant(sp.MatrixSymbol("F", m, m) + B * C.I * A),
    given=[M.invertible(C)],
)
eq("similar matrices", Trace(C * D * C.I), Trace(D), Trace(C), given=[M.invertible(C)])
eq("commutator", Trace(C * D - D * C), 0, n)
eq("rotated Gram matrix", Trace(W.T * C * W), Trace(C), Trace(C), given=[M.orthogonal(W)], wrong_given=[])
entries = lambda body, rows=n, cols=n: Sum(body, (i, 0, rows - 1), (j, 0, cols - 1))
eq("Frobenius norm", Trace(A.T * A), entries(A[i, j] ** 2, n, m), entries(A[i, j], n, m))
eq("trace of a product by entries", Trace(C.T * D), entries(C[i, j] * D[i, j]), entries(C[i, j] * D[j, i]))
eq("sum of all entries", (ones.T * C * ones)[0, 0], entries(C[i, j]), Trace(C))
eq("outer and inner product", Trace(uu * vv.T), (vv.T * uu)[0, 0], (vv.T * vv)[0, 0])
eq("quadratic form", (uu.T * C * uu)[0, 0], entries(C[i, j] * uu[i, 0] * uu[j, 0]), Trace(C) * (uu.T * uu)[0, 0])
eq(
    "distance of two matrices",
    Trace((C - D).T * (C - D)),
    Trace(C.T * C) - 2 * Trace(C.T * D) + Trace(D.T * D),
    Trace(C.T * C) - 2 * Trace(C * D) + Trace(D.T * D),
)

# --- structure --------------------------------------------------------------------------------------------------------
eq("reflection at a projector", (In - 2 * C) ** 2, In, In, given=[Eq(C**2, C)], wrong_given=[Eq(C**3, C)])
eq("diagonal matrices commute", C * D, D * C, D * C, given=[M.diagonal(C), M.diagonal(D)], wrong_given=[M.diagonal(C)])
householder = In - 2 * uu * uu.T / (uu.T * uu)[0, 0]
eq("Householder", householder**2, In, 2 * In, given=[Ne((uu.T * uu)[0, 0], 0)])
eq("powers of a product", (C * D) ** 2, C**2 * D**2, C**2 * D**2, given=[Eq(C * D, D * C)], wrong_given=[])
eq("associative update", (C + A * B) * uu, C * uu + A * (B * uu), C * uu + A * (A.T * uu))

# --- gradients --------------------------------------------------------------------------------------------------------
eq("gradient of a linear form", Derivative(Trace(C * D), D), C.T, C)
eq("gradient of a quadratic form", Derivative(Trace(D.T * C * D), D), (C + C.T) * D, 2 * C * D)
eq(
    "gradient of least squares",
    Derivative(Trace((C * D - E).T * (C * D - E)), D),
    2 * C.T * (C * D - E),
    2 * C * (C * D - E),
)
