"""Matrices, explicit and of any shape."""

from typing import Any

import sympy as sp
from sympy import cos, sin

from ._table import Table, a, a1, a2, a3, b, b1, b2, b3, lam, p, q, x, x1, x2, x3, xs, y

TABLE = Table("matrices")
eq, says = TABLE.eq, TABLE.says


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
F, G = sp.MatrixSymbol("F", 2, 3), sp.MatrixSymbol("G", 3, 2)
eq("explicit trace", sp.Trace(F * G), sp.Trace(G * F), sp.Trace(F * F.T))
