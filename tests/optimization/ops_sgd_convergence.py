"""The operators of sgd_convergence; references: root finding and search over supports in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from opinfo import OpInfo, Sample, scores, spoiled
from scipy.optimize import brentq

from kexue_lib.optimization import sgd_convergence as sgd


def on_simplex(x: np.ndarray, total: float = 1.0) -> np.ndarray:
    """The threshold as a root of the decreasing sum of max(x − λ, 0)."""
    x = x - x.max()
    root = brentq(lambda level: np.maximum(x - level, 0).sum() - total, -total - 1, 0, xtol=1e-300, rtol=1e-15)
    return np.maximum(x - root, 0)


def in_l1_ball(x: np.ndarray, radius: float = 1.0) -> np.ndarray:
    return x if np.abs(x).sum() <= radius else np.sign(x) * on_simplex(np.abs(x), radius)


def in_l2_ball(x: np.ndarray, radius: float = 1.0) -> np.ndarray:
    size = math.hypot(*x)
    return x if size <= radius else x / np.abs(x).max() * (radius / math.hypot(*(x / np.abs(x).max())))


def samples(**kwargs: Any) -> Callable[[], Iterator[Sample]]:
    """Rows inside and outside, of several lengths."""

    def draw() -> Iterator[Sample]:
        for seed, (d, spread) in enumerate([(5, 2.0), (7, 0.6), (2, 0.1), (1, 3.0)]):
            (x,) = scores(d, spread, seed, rows=3)
            yield Sample((x,), kwargs)

    return draw


def extreme(**kwargs: Any) -> Callable[[], list[Sample]]:
    """Zeros, ties, entries whose squares overflow or vanish."""
    rows = [[0.0, 0.0, 0.0], [2.0, 2.0, -2.0], [1e6, 1e6 + 0.5, -1e6], [3e30, -1e30, 2e30], [3e-30, -1e-30, 0.0]]
    return lambda: [Sample((torch.tensor(rows, dtype=torch.float64),), kwargs)]


POINTS = torch.ones(2, 4)
GOOD = {"x": POINTS}
ROWS = [
    ({"x": POINTS.long()}, TypeError, "x: got torch.int64"),
    ({"x": torch.tensor(1.0)}, ValueError, "x: got shape ()"),
]
FILLED = [
    ({"x": torch.zeros(2, 0)}, ValueError, "x: got shape (2, 0)"),
]
REFUSED = {
    "l2": spoiled(
        sgd.project_l2_ball,
        GOOD,
        *ROWS,
        ({"radius": 0.0}, ValueError, "radius: got 0.0"),
        ({"center": torch.zeros(3)}, ValueError, "center: got shape (3,)"),
    ),
    "simplex": spoiled(
        sgd.project_simplex,
        GOOD,
        *FILLED,
        ({"x": POINTS.long()}, TypeError, "x: got torch.int64"),
        ({"total": 0.0}, ValueError, "total: got 0.0"),
    ),
    "l1": spoiled(
        sgd.project_l1_ball,
        GOOD,
        *FILLED,
        ({"x": POINTS.long()}, TypeError, "x: got torch.int64"),
        ({"radius": -1.0}, ValueError, "radius: got -1.0"),
    ),
    "box": spoiled(
        sgd.project_box,
        {**GOOD, "lo": 0.0, "hi": 1.0},
        *ROWS,
        ({"lo": 1.0, "hi": torch.tensor([2.0, 2.0, 2.0, 0.0])}, ValueError, "lo: got 1.0"),
        ({"hi": torch.zeros(3)}, ValueError, "hi: got shape (3,)"),
        ({"lo": "0"}, TypeError, "lo: got '0'"),
    ),
}

OPS = [
    OpInfo(
        "project_l2_ball",
        sgd.project_l2_ball,
        in_l2_ball,
        samples(radius=1.5),
        extreme(radius=1.5),
        errors=REFUSED["l2"],
    ),
    OpInfo(
        "project_simplex",
        sgd.project_simplex,
        on_simplex,
        samples(total=2.0),
        extreme(total=2.0),
        errors=REFUSED["simplex"],
    ),
    OpInfo(
        "project_l1_ball",
        sgd.project_l1_ball,
        in_l1_ball,
        samples(radius=1.5),
        extreme(radius=1.5),
        errors=REFUSED["l1"],
    ),
    OpInfo(
        "project_box",
        sgd.project_box,
        lambda x, lo, hi: np.clip(x, lo, hi),
        samples(lo=-0.55, hi=0.7),
        extreme(lo=-0.55, hi=0.7),
        errors=REFUSED["box"],
    ),
]
