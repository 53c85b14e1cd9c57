"""The operators of scaling_law; references: SciPy's Poisson law and zeta function, formulas in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from scipy import special, stats
from torch import Tensor

from kexue_lib.optimization import scaling_law

WIDE = (torch.float64, torch.float32)
FREQUENCIES = torch.tensor([0.4, 0.25, 0.2, 0.1, 0.05], dtype=torch.float64)


def draws(low: float, high: float, *shape: int, seed: int = 0) -> Tensor:
    uniform = torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return low + (high - low) * uniform


def poisson_loss(D: np.ndarray, tau: int) -> np.ndarray:
    p = FREQUENCIES.numpy()
    return (p * stats.poisson.cdf(tau - 1, D[..., None] * p)).sum(-1)


def asymptotic(n: np.ndarray, gamma: float, midpoint: bool = False) -> np.ndarray:
    return (n + midpoint / 2) ** -gamma / gamma / special.zeta(gamma + 1)


def of_two(function, N: Tensor, D: Tensor) -> Tensor:
    return function(N, D).to(N.dtype)


def resources(unit: float) -> Iterator[Sample]:
    yield Sample((draws(1, 9, 2, 4) * unit, draws(1, 9, 2, 4, seed=1) * unit))


ONES = torch.ones(4)
REFUSED = {
    "expected": spoiled(
        scaling_law.expected_loss,
        {"D": ONES, "frequencies": ONES / 4, "tau": 1},
        ({"frequencies": ONES.long()}, TypeError, "frequencies: got torch.int64"),
        ({"frequencies": torch.ones(2, 2)}, ValueError, "frequencies: got shape (2, 2)"),
        ({"D": ONES.cfloat()}, TypeError, "D: got torch.complex64"),
        ({"D": -ONES}, ValueError, "D: got -1.0"),
        ({"tau": 0}, ValueError, "tau: got 0"),
    ),
    "quantized": spoiled(
        scaling_law.quantized_loss_asymptotic,
        {"n": ONES, "gamma": 0.4},
        ({"n": ONES > 0}, TypeError, "n: got torch.bool"),
        ({"n": 0 * ONES}, ValueError, "n: got 0.0"),
        ({"gamma": 0.0}, ValueError, "gamma: got 0.0"),
    ),
    "chinchilla": spoiled(
        scaling_law.chinchilla_loss,
        {"N": ONES, "D": ONES},
        ({"N": ONES > 0}, TypeError, "N: got torch.bool"),
        ({"N": -ONES}, ValueError, "N: got -1.0"),
        ({"D": torch.ones(3)}, ValueError, "D: got shape (3,)"),
        ({"D": 0.0}, ValueError, "D: got 0.0"),
        ({"A": "1"}, TypeError, "A: got '1'"),
    ),
    "kaplan": spoiled(
        scaling_law.kaplan_loss,
        {"N": ONES, "D": ONES},
        ({"N": ONES > 0}, TypeError, "N: got torch.bool"),
        ({"D": -ONES}, ValueError, "D: got -1.0"),
        ({"D": torch.ones(3)}, ValueError, "D: got shape (3,)"),
        ({"N_c": 0.0}, ValueError, "N_c: got 0.0"),
        ({"alpha_D": 0.0}, ValueError, "alpha_D: got 0.0"),
    ),
}

OPS = [
    OpInfo(
        "expected_loss",
        lambda D, tau: scaling_law.expected_loss(D, FREQUENCIES, tau).to(D.dtype),
        poisson_loss,
        lambda: [Sample((draws(1, 60, 2, 3),), {"tau": tau}) for tau in (1, 4)],
        errors=REFUSED["expected"],
        dtypes=WIDE,
        forward_mode=False,  # PyTorch has none of gammaincc
        second_derivative=False,
    ),
    OpInfo(
        "quantized_loss_asymptotic",
        lambda n, gamma, midpoint: scaling_law.quantized_loss_asymptotic(n, gamma, midpoint=midpoint).to(n.dtype),
        asymptotic,
        lambda: [Sample((draws(1, 50, 2, 4),), {"gamma": g, "midpoint": m}) for g in (0.4, 1.5) for m in (False, True)],
        errors=REFUSED["quantized"],
        any_shape=True,
        dtypes=WIDE,
    ),
    OpInfo(
        "chinchilla_loss",
        partial(of_two, partial(scaling_law.chinchilla_loss, A=3.0, B=5.0)),
        lambda N, D: 1.69 + 3.0 * N**-0.34 + 5.0 * D**-0.28,
        lambda: resources(1.0),
        errors=REFUSED["chinchilla"],
        dtypes=WIDE,
    ),
    OpInfo(
        "kaplan_loss",
        partial(of_two, partial(scaling_law.kaplan_loss, N_c=88.0, D_c=54.0)),
        lambda N, D: ((88.0 / N) ** 0.8 + 54.0 / D) ** 0.095,
        lambda: resources(1.0),
        errors=REFUSED["kaplan"],
        dtypes=WIDE,
    ),
]
