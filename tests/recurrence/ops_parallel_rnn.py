"""The operator of parallel_rnn; reference: the loop over time in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample

from kexue_lib.recurrence.parallel_rnn import GRUCell, parallel_rnn

FULL = (torch.float64, torch.float32)


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gru(dtype: torch.dtype, device: torch.device) -> GRUCell:
    return GRUCell(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device, dtype)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gru_loop(u: np.ndarray, h: np.ndarray) -> np.ndarray:
    cell = gru(torch.float64, torch.device("cpu"))
    W, U, b = (w.detach().numpy().reshape(3, 3, -1) for w in (cell.W, cell.U, cell.b))
    out = []
    for x in u:
        z, r = (sigmoid(W[k] @ x + U[k] @ h + b[k, :, 0]) for k in range(2))
        h = (1 - z) * h + z * np.tanh(W[2] @ x + b[2, :, 0] + U[2] @ (r * h))
        out.append(h)
    return np.stack(out)


def samples() -> Iterator[Sample]:
    for seed in (0, 10):
        yield Sample((drawn(2, 4, 2, seed=seed), drawn(2, 3, seed=seed + 1)))


OPS = [
    OpInfo(
        "parallel_rnn",
        lambda u, h: parallel_rnn(gru(u.dtype, u.device), u, h, max_iters=4),
        gru_loop,
        samples,
        dtypes=FULL,
        forward_mode=False,
        vmap=False,
        compiles=False,
    ),
]
