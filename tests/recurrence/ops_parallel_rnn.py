"""The operator of parallel_rnn; reference: the loop over time in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled

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


CELL, STEPS = GRUCell(2, 3), torch.ones(4, 2)
GOOD = {"cell": CELL, "u": STEPS}
REFUSED = {
    "rnn": spoiled(
        parallel_rnn,
        GOOD,
        ({"u": STEPS.long()}, TypeError, "u: got torch.int64"),
        ({"u": STEPS.half()}, TypeError, "u: got torch.float16"),
        ({"x0": torch.zeros(3, dtype=torch.int64)}, TypeError, "x0: got torch.int64"),
        ({"u": STEPS[0]}, ValueError, "u: got shape (2,)"),
        ({"u": STEPS[:0]}, ValueError, "u: got shape (0, 2)"),
        ({"x0": torch.zeros(2)}, ValueError, "x0: got shape (2,)"),
        ({"init": torch.zeros(3, 3)}, ValueError, "init: got shape (3, 3)"),
        ({"cell": torch.nn.Linear(2, 3)}, TypeError, "cell: got Linear"),
        ({"method": "picard"}, ValueError, "method: got 'picard'"),
        ({"method": "constant"}, ValueError, "transition: got None"),
        ({"transition": torch.eye(3)}, ValueError, "transition: got a tensor"),
        ({"method": "constant", "transition": torch.ones(2)}, ValueError, "transition: got shape (2,)"),
        ({"max_iters": 0}, ValueError, "max_iters: got 0"),
        ({"tol": -1.0}, ValueError, "tol: got -1.0"),
        ({"damping": 2.0}, ValueError, "damping: got 2.0"),
    ),
}

OPS = [
    OpInfo(
        "parallel_rnn",
        lambda u, h: parallel_rnn(gru(u.dtype, u.device), u, h, max_iters=4),
        gru_loop,
        samples,
        errors=REFUSED["rnn"],
        dtypes=FULL,
        forward_mode=False,
        vmap=False,
        compiles=False,
    ),
]
