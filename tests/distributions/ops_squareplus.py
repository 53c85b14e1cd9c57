"""The operators of squareplus; reference: the textbook formulas at 400 digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import mpmath
import numpy as np
import torch
from opinfo import OpInfo, Sample, scores, spoiled

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


X = torch.ones(2, 3)
PARAMETER = [
    ({"b": -1}, ValueError, "b: got -1"),
    ({"b": math.nan}, ValueError, "b: got nan"),
    ({"b": math.inf}, ValueError, "b: got inf"),
    ({"b": "1"}, TypeError, "b: got '1'"),
    ({"b": True}, TypeError, "b: got True"),
    ({"b": torch.tensor(1)}, TypeError, "b: got torch.int64"),
]
VALUES = [
    ({"x": X.long()}, TypeError, "x: got torch.int64"),
    ({"x": [1.0]}, TypeError, "x: got list"),
    ({"x": X.cfloat()}, TypeError, "x: got torch.complex64"),
]
REFUSED = {
    "value": spoiled(
        squareplus.squareplus,
        {"x": X},
        *VALUES,
        *PARAMETER,
    ),
    "grad": spoiled(
        squareplus.squareplus_grad,
        {"x": X},
        *VALUES,
        *PARAMETER,
    ),
    "gate": spoiled(
        squareplus.squareplus_gate,
        {"x": X},
        *VALUES,
        *PARAMETER,
    ),
    "inverse": spoiled(
        squareplus.squareplus_inverse,
        {"y": X},
        ({"y": X.int()}, TypeError, "y: got torch.int32"),
        *PARAMETER,
    ),
}

OPS = [
    OpInfo(
        "squareplus",
        squareplus.squareplus,
        in_many_digits(lambda x, h: (x + h) / 2),
        smoothed(),
        far_out,
        errors=REFUSED["value"],
        any_shape=True,
    ),
    OpInfo(
        "squareplus_grad",
        squareplus.squareplus_grad,
        in_many_digits(lambda x, h: (1 + x / h) / 2),
        smoothed(),
        far_out,
        errors=REFUSED["grad"],
        any_shape=True,
    ),
    OpInfo(
        "squareplus_gate",
        squareplus.squareplus_gate,
        in_many_digits(lambda x, h: x * (1 + x / h) / 2),
        smoothed(),
        far_out,
        errors=REFUSED["gate"],
        any_shape=True,
    ),
    OpInfo(
        "squareplus_inverse",
        squareplus.squareplus_inverse,
        in_many_digits(lambda y, h: y - (h * h - y * y) / (4 * y)),
        smoothed(positive=True),
        errors=REFUSED["inverse"],
        any_shape=True,
    ),
]
