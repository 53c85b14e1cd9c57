"""The operators of hippo; references: SciPy's polynomials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from scipy.special import eval_laguerre, eval_legendre
from torch import Tensor

from kexue_lib.recurrence import hippo


def legendre(s: np.ndarray, N: int) -> np.ndarray:
    return np.stack([np.sqrt(n + 0.5) * eval_legendre(n, s) for n in range(N)], -1)


def laguerre(s: np.ndarray, N: int) -> np.ndarray:
    return np.stack([np.exp(-s / 2) * eval_laguerre(n, s) for n in range(N)], -1)


def on_points(function: Callable[[int, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda s, N: function(N, s)


def points(low: float, high: float, sizes: tuple[int, ...]) -> Iterator[Sample]:
    for N in sizes:
        generator = torch.Generator().manual_seed(N)
        s = torch.rand(3, 4, generator=generator, dtype=torch.float64)
        yield Sample((low + (high - low) * s,), {"N": N})


def ends(*values: float) -> Iterator[Sample]:
    yield Sample((torch.tensor([values, values[::-1]], dtype=torch.float64),), {"N": 40})


TIMES = torch.tensor([3.0, 3.25, 3.5, 4.0])


def remembered(c: Tensor, measure: str) -> Tensor:
    return hippo.reconstruct(c, measure, 4.0, TIMES)


def series(c: np.ndarray, measure: str) -> np.ndarray:
    t = TIMES.double().numpy()
    if measure == "lagt":
        return sum(c[n] * eval_laguerre(n, 4.0 - t) for n in range(len(c)))
    return legendre(t / 2 - 1 if measure == "legs" else 2 * (t - 3) - 1, len(c)) @ c


def coefficients() -> Iterator[Sample]:
    for seed, measure in enumerate(("legt", "legs", "lagt")):
        generator = torch.Generator().manual_seed(seed)
        yield Sample((torch.randn(2, 5, generator=generator, dtype=torch.float64),), {"measure": measure})


POINTS = torch.zeros(3)
STATE = {"c": torch.ones(3), "measure": "legt", "T": 2.0, "t": torch.ones(2)}
BASIS = [
    ({"s": POINTS.long()}, TypeError, "s: got torch.int64"),
    ({"N": 0}, ValueError, "N: got 0"),
    ({"N": 3.0}, TypeError, "N: got 3.0"),
]
REFUSED = {
    "legendre": spoiled(
        hippo.legendre_basis,
        {"N": 3, "s": POINTS},
        *BASIS,
    ),
    "laguerre": spoiled(
        hippo.laguerre_basis,
        {"N": 3, "s": POINTS},
        *BASIS,
    ),
    "reconstruct": spoiled(
        hippo.reconstruct,
        STATE,
        ({"c": torch.ones(3).long()}, TypeError, "c: got torch.int64"),
        ({"measure": "fout"}, TypeError, "c: got torch.float32"),
        ({"c": torch.ones(4) + 0j, "measure": "fout"}, ValueError, "c: got 4 coefficients"),
        ({"c": torch.ones(0)}, ValueError, "c: got shape (0,)"),
        ({"t": torch.ones(2).long()}, TypeError, "t: got torch.int64"),
        ({"t": torch.tensor(1.5)}, ValueError, "t: got shape ()"),
        ({"t": torch.tensor([0.5])}, ValueError, "t: got 0.5"),
        ({"measure": "chebt"}, ValueError, "measure: got 'chebt'"),
        ({"T": float("nan")}, ValueError, "T: got nan"),
        ({"window": 0.0}, ValueError, "window: got 0.0"),
        ({"scaling": "unit"}, ValueError, "scaling: got 'unit'"),
    ),
}

OPS = [
    OpInfo(
        "legendre_basis",
        on_points(hippo.legendre_basis),
        legendre,
        partial(points, -1.0, 1.0, (2, 7)),
        partial(ends, -1.0, 0.0, 1.0),
        errors=REFUSED["legendre"],
        any_shape=True,
    ),
    OpInfo(
        "laguerre_basis",
        on_points(hippo.laguerre_basis),
        laguerre,
        partial(points, 0.0, 20.0, (1, 2, 7)),
        partial(ends, 0.0, 150.0, 1400.0),
        errors=REFUSED["laguerre"],
        any_shape=True,
    ),
    OpInfo("reconstruct", remembered, series, coefficients, errors=REFUSED["reconstruct"]),
]
