"""The operators of lora_plus; references: the changed loss and the changed output themselves, in NumPy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled

from kexue_lib.matrices import lora_plus as plus

N, M, R = 5, 3, 2


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def contributions_by_hand(G: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Inner products of the gradients with the sign steps, entry by entry."""
    total = 0.0
    for i in range(N):
        for k in range(R):
            g = sum(G[i, j] * B[k, j] for j in range(M))
            total += 0.5 * g * -np.sign(g) * 0.1
    for k in range(R):
        for j in range(M):
            g = sum(A[i, k] * G[i, j] for i in range(N))
            total += 0.5 * g * -np.sign(g) * 0.3
    return np.array(total)


def contribution_samples() -> Iterator[Sample]:
    for seed in (0, 10):
        yield Sample((normal(3, N, M, seed=seed), normal(3, N, R, seed=seed + 1), normal(3, R, M, seed=seed + 2)))


A, B, DA, DB = (normal(*shape, seed=k) for shape, k in (((N, R), 3), ((R, M), 4), ((N, R), 5), ((R, M), 6)))


def sum_of_terms(x: torch.Tensor) -> torch.Tensor:
    return sum(plus.feature_update_terms(x, *(f.to(x.device, x.dtype) for f in (A, B, DA, DB)), scale=0.5))


def change(x: np.ndarray) -> np.ndarray:
    """New output minus old output, not its parts."""
    old, moved = A.numpy() @ B.numpy(), (A + DA).numpy() @ (B + DB).numpy()
    return 0.5 * (x @ moved - x @ old)


def row_samples() -> Iterator[Sample]:
    for seed in (0, 1):
        yield Sample((normal(4, N, seed=seed),))


GOOD = {"G": torch.ones(N, M), "A": torch.ones(N, R), "B": torch.ones(R, M)}
UPDATE = {"x": torch.ones(2, N), "A": GOOD["A"], "B": GOOD["B"], "dA": GOOD["A"], "dB": GOOD["B"]}
REFUSED = {
    "contributions": spoiled(
        plus.sign_step_contributions,
        GOOD,
        ({"G": torch.ones(N, M).long()}, TypeError, "G: got torch.int64"),
        ({"A": torch.ones(4, R)}, ValueError, "A: got shape (4, 2)"),
        ({"lr_A": "1"}, TypeError, "lr_A: got '1'"),
        ({"lr_B": float("nan")}, ValueError, "lr_B: got nan"),
        ({"scale": "1"}, TypeError, "scale: got '1'"),
    ),
    "terms": spoiled(
        plus.feature_update_terms,
        UPDATE,
        ({"x": torch.ones(2, N).long()}, TypeError, "x: got torch.int64"),
        ({"dA": torch.ones(N, R).cfloat()}, TypeError, "dA: got torch.complex64"),
        ({"A": torch.ones(N)}, ValueError, "A: got shape (5,)"),
        ({"B": torch.ones(3, M)}, ValueError, "B: got shape (3, 3)"),
        ({"x": torch.ones(2, 4)}, ValueError, "x: got shape (2, 4)"),
        ({"dB": torch.ones(2, 4)}, ValueError, "dB: got shape (2, 4)"),
        ({"scale": "1"}, TypeError, "scale: got '1'"),
    ),
}

OPS = [
    OpInfo(
        "sign_step_contributions",
        lambda G, A, B: sum(plus.sign_step_contributions(G, A, B, lr_A=0.1, lr_B=0.3, scale=0.5)),
        contributions_by_hand,
        contribution_samples,
        errors=REFUSED["contributions"],
    ),
    OpInfo("feature_update_terms", sum_of_terms, change, row_samples, errors=REFUSED["terms"], half_tolerance=64),
]
