"""The operators of scan; references: the loop in float64, one step after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled

from kexue_lib.recurrence.scan import linear_scan, matrix_scan


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loop(a: np.ndarray, b: np.ndarray, x0: np.ndarray) -> np.ndarray:
    out, x = [], x0
    for t in range(len(b)):
        x = a[t] * x + b[t]
        out.append(x)
    return np.stack(out)


def backwards(a: np.ndarray, b: np.ndarray, x0: np.ndarray) -> np.ndarray:
    return loop(a[::-1], b[::-1], x0)[::-1]


def loop_of_matrices(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    out, x = [], np.zeros(b.shape[-1])
    for t in range(len(b)):
        x = A[t] @ x + b[t]
        out.append(x)
    return np.stack(out)


def samples(length: int) -> Callable[[], Iterator[Sample]]:
    """Coefficients on both sides of 1 in size, a reset, and a start."""

    def draw() -> Iterator[Sample]:
        for seed in (0, 10):
            a = drawn(2, length, 3, seed=seed) * 0.7
            a[:, length // 2] = 0.0
            yield Sample((a, drawn(2, length, 3, seed=seed + 1), drawn(2, 3, seed=seed + 2)))

    return draw


def matrices() -> Iterator[Sample]:
    for seed in (0, 10):
        yield Sample((drawn(2, 4, 2, 2, seed=seed) / 2, drawn(2, 4, 2, seed=seed + 1)))


def scanned(a: torch.Tensor, b: torch.Tensor, x0: torch.Tensor, **options) -> torch.Tensor:
    return linear_scan(a, b, x0, **options)


STEPS, DECAY = torch.ones(4, 3), torch.ones(3)
REFUSED = {
    "linear": spoiled(
        linear_scan,
        {"a": DECAY, "b": STEPS},
        ({"method": "fast"}, ValueError, "method: got 'fast'"),
        ({"chunk_size": 0}, ValueError, "chunk_size: got 0"),
        ({"b": DECAY}, ValueError, "b: got shape (3,)"),
        ({"a": torch.ones(5, 3)}, ValueError, "a: got shape (5, 3)"),
        ({"a": torch.ones(2)}, ValueError, "a: got shape (1, 2)"),
        (
            {"a": torch.ones(3, 4, 3), "b": torch.ones(2, 4, 3)},
            ValueError,
            "a: got batch dimensions a (3, 4, 3), b (2, 4, 3)",
        ),
        ({"x0": torch.ones(2)}, ValueError, "x0: got shape (2,)"),
        ({"a": DECAY.long()}, TypeError, "a: got torch.int64"),
        ({"b": STEPS > 0}, TypeError, "b: got torch.bool"),
        ({"x0": DECAY.long()}, TypeError, "x0: got torch.int64"),
    ),
    "matrix": spoiled(
        matrix_scan,
        {"A": torch.eye(3), "b": STEPS},
        ({"method": "fast"}, ValueError, "method: got 'fast'"),
        ({"A": torch.ones(2, 3)}, ValueError, "A: got shape (1, 2, 3)"),
        ({"A": torch.ones(5, 3, 3)}, ValueError, "A: got shape (5, 3, 3)"),
        ({"A": torch.eye(3).long()}, TypeError, "A: got torch.int64"),
        ({"b": STEPS.long()}, TypeError, "b: got torch.int64"),
    ),
}

OPS = [
    OpInfo("linear_scan", partial(scanned, method="chunked", chunk_size=2), loop, samples(5), errors=REFUSED["linear"]),
    OpInfo(
        "linear_scan_reverse",
        partial(scanned, reverse=True, method="odd_even"),
        backwards,
        samples(4),
        errors=REFUSED["linear"],
    ),
    OpInfo(
        "matrix_scan",
        lambda A, b: matrix_scan(A, b, method="doubling"),
        loop_of_matrices,
        matrices,
        errors=REFUSED["matrix"],
    ),
]
