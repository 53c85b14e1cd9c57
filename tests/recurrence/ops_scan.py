"""The operators of scan; references: the loop in float64, one step after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from opinfo import OpInfo, Sample

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


OPS = [
    OpInfo("linear_scan", partial(scanned, method="chunked", chunk_size=2), loop, samples(5)),
    OpInfo("linear_scan_reverse", partial(scanned, reverse=True, method="odd_even"), backwards, samples(4)),
    OpInfo("matrix_scan", lambda A, b: matrix_scan(A, b, method="doubling"), loop_of_matrices, matrices),
]
