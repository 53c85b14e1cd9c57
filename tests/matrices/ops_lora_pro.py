"""The operators of lora_pro; references: the Kronecker system, and least squares over all pairs of factors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample, scores, spoiled
from torch import Tensor

from kexue_lib.matrices import lora_pro


def solve(root_P: Tensor, root_Q: Tensor, R: Tensor) -> Tensor:
    """With coefficients that are symmetric and definite whatever the roots are."""
    P, Q = (x @ x.mT + torch.eye(x.shape[-1], dtype=x.dtype) for x in (root_P, root_Q))
    return lora_pro.solve_sylvester_spd(P, Q, R)


def kronecker(root_P: np.ndarray, root_Q: np.ndarray, R: np.ndarray) -> np.ndarray:
    P, Q = (x @ x.T + np.eye(len(x)) for x in (root_P, root_Q))
    system = np.kron(P, np.eye(len(Q))) + np.kron(np.eye(len(P)), Q.T)
    return np.linalg.solve(system, R.reshape(-1)).reshape(R.shape)


def nearest(G: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """The least-squares fit of H_A B + A H_B, all entries of H_A and H_B being unknowns."""
    n, m = G.shape
    system = np.hstack([np.kron(np.eye(n), B.T), np.kron(A, np.eye(m))])
    return (system @ np.linalg.lstsq(system, G.reshape(-1), rcond=None)[0]).reshape(n, m)


def matrices(*shapes: tuple[int, int]) -> tuple[Tensor, ...]:
    return tuple(scores(p * q, 1.0, 7 * i + p + q, rows=3)[0].view(3, p, q) for i, (p, q) in enumerate(shapes))


def equations() -> Iterator[Sample]:
    yield Sample(matrices((2, 2), (3, 3), (2, 3)))
    yield Sample(matrices((1, 1), (1, 1), (1, 1)))


def gradients() -> Iterator[Sample]:
    yield Sample(matrices((4, 3), (4, 2), (2, 3)))
    yield Sample(matrices((5, 4), (5, 1), (1, 4)))


def with_zero_factor() -> Iterator[Sample]:
    G, A, B = matrices((4, 3), (4, 2), (2, 3))
    yield Sample((G, A, 0 * B))


GOOD = {"G": torch.ones(4, 3), "A": torch.ones(4, 2), "B": torch.ones(2, 3)}
SYSTEM = {"P": torch.eye(4), "Q": torch.eye(3), "R": torch.ones(4, 3)}
FACTORS = [
    ({"G": GOOD["G"].long()}, TypeError, "G: got torch.int64"),
    ({"A": GOOD["A"].cfloat()}, TypeError, "A: got torch.complex64"),
    ({"G": torch.ones(3)}, ValueError, "G: got shape (3,)"),
    ({"A": torch.ones(2, 2)}, ValueError, "A: got shape (2, 2)"),
    ({"B": torch.ones(3, 3)}, ValueError, "B: got shape (3, 3)"),
]
REFUSED = {
    "sylvester": spoiled(
        lora_pro.solve_sylvester_spd,
        SYSTEM,
        ({"P": "P"}, TypeError, "P: got str"),
        ({"R": torch.ones(4, 3).long()}, TypeError, "R: got torch.int64"),
        ({"R": torch.ones(3)}, ValueError, "R: got shape (3,)"),
        ({"Q": torch.eye(4)}, ValueError, "Q: got shape (4, 4)"),
        ({"P": torch.eye(3)}, ValueError, "P: got shape (3, 3)"),
    ),
    "projection": spoiled(
        lora_pro.tangent_projection,
        GOOD,
        *FACTORS,
    ),
    "residual": spoiled(
        lora_pro.alignment_residual,
        GOOD,
        *FACTORS,
    ),
}

OPS = [
    OpInfo(
        "solve_sylvester_spd",
        solve,
        kronecker,
        equations,
        errors=REFUSED["sylvester"],
        autocast=True,
        half_tolerance=8.0,
        forward_mode=False,
        compiles=False,  # only under these tests' type checker, whose wrappers Dynamo cannot trace: see test_lora_pro
    ),
    OpInfo(
        "tangent_projection",
        lora_pro.tangent_projection,
        nearest,
        gradients,
        with_zero_factor,
        errors=REFUSED["projection"],
    ),
    OpInfo(
        "alignment_residual",
        lora_pro.alignment_residual,
        lambda G, A, B: G - nearest(G, A, B),
        gradients,
        with_zero_factor,
        errors=REFUSED["residual"],
    ),
]
