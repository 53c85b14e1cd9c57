"""The operators of squareplus; reference: the textbook formulas at 400 digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mpmath
import numpy as np
import torch
from opinfo import OpInfo, Sample, scores

from kexue_lib.distributions import squareplus


def in_many_digits(formula: Callable[[mpmath.mpf, mpmath.mpf], mpmath.mpf]) -> Callable[..., np.ndarray]:
    """formula(x, √(x² + b)) elementwise, at 400 digits."""

    def reference(x: np.ndarray, b: np.ndarray) -> np.ndarray:
        with mpmath.workdps(400):
            pairs = [(mpmath.mpf(v), mpmath.mpf(w)) for v, w in zip(x.tolist(), np.broadcast_to(b, x.shape).tolist())]
            return np.array([float(formula(v, mpmath.sqrt(v * v + w))) for v, w in pairs])

    return reference


def smoothed(positive: bool = False) -> Callable[[], Iterator[Sample]]:
    """One b for all, and one b for each entry."""

    def samples() -> Iterator[Sample]:
        for seed, spread in enumerate((0.5, 4.0)):
            (x,), (b,) = scores(5, spread, seed), scores(5, 1.0, seed + 10)
            x = x.abs() + 0.2 if positive else x
            yield Sample((x,), {"b": 1.5})
            yield Sample((x, b.abs() + 0.2))

    return samples


def far_out() -> list[Sample]:
    rows = [[-1e18, -4000.0, 0.0, 1e18], [-60000.0, -300.0, 300.0, 60000.0]]
    return [Sample((torch.tensor(rows, dtype=torch.float64),), {"b": 1.5})]


OPS = [
    OpInfo("squareplus", squareplus.squareplus, in_many_digits(lambda x, h: (x + h) / 2), smoothed(), far_out),
    OpInfo(
        "squareplus_grad", squareplus.squareplus_grad, in_many_digits(lambda x, h: (1 + x / h) / 2), smoothed(), far_out
    ),
    OpInfo(
        "squareplus_gate",
        squareplus.squareplus_gate,
        in_many_digits(lambda x, h: x * (1 + x / h) / 2),
        smoothed(),
        far_out,
    ),
    OpInfo(
        "squareplus_inverse",
        squareplus.squareplus_inverse,
        in_many_digits(lambda y, h: y - (h * h - y * y) / (4 * y)),
        smoothed(positive=True),
    ),
]
