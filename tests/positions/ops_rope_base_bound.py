"""The operators of the bound on RoPE's base; references: 30-digit arithmetic and SciPy."""

from __future__ import annotations

import mpmath
import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from scipy.special import sici

from kexue_lib.positions import rope_base_bound as bound

DIM, BASE = 8, 500.0


def gap_reference(m: np.ndarray) -> np.ndarray:
    with mpmath.workdps(30):
        speeds = [mpmath.mpf(BASE) ** (-mpmath.mpf(2 * i) / DIM) for i in range(DIM // 2)]
        return np.array([float(sum(mpmath.cos(x * s) for s in speeds)) for x in m.ravel()]).reshape(m.shape)


def smooth_reference(m: np.ndarray) -> np.ndarray:
    integral = DIM / 2 * (sici(m)[1] - sici(m / BASE)[1]) / np.log(BASE)
    return integral + (np.cos(m) - np.cos(m / BASE)) / 2


def distances(low: float, high: float) -> list[Sample]:
    m = torch.rand(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return [Sample((low + (high - low) * m,))]


ONE, NAN = torch.ones(3), float("nan")
GOOD = {"relative": ONE, "base": 10.0, "dim": 4}
SIZES = [
    ({"relative": ONE.cfloat()}, TypeError, "relative: got torch.complex64"),
    ({"relative": ONE > 0}, TypeError, "relative: got torch.bool"),
    ({"dim": 3}, ValueError, "dim: got 3"),
    ({"dim": 0}, ValueError, "dim: got 0"),
    ({"base": 0.5}, ValueError, "base: got 0.5"),
    ({"base": NAN}, ValueError, "base: got nan"),
]
REFUSED = {
    "integral": spoiled(
        bound.cosine_integral,
        {"x": ONE},
        ({"x": ONE.long()}, TypeError, "x: got torch.int64"),
    ),
    "gap": spoiled(
        bound.similarity_gap,
        GOOD,
        *SIZES,
        ({"rotary_dim": 6}, ValueError, "rotary_dim: got 6"),
    ),
    "smooth": spoiled(
        bound.smooth_gap,
        GOOD,
        ({"relative": ONE.cfloat()}, TypeError, "relative: got torch.complex64"),
        ({"dim": 3}, ValueError, "dim: got 3"),
        ({"dim": "4"}, TypeError, "dim: got '4'"),
        ({"base": 1.0}, ValueError, "base: got 1.0"),
    ),
}

OPS = [
    OpInfo(
        "cosine_integral",
        bound.cosine_integral,
        lambda x: sici(x)[1],
        lambda: [*distances(0.1, 7.0), *distances(8.5, 60.0)],
        lambda: [Sample((torch.tensor([1e-30, 8.0, 1e4, torch.inf], dtype=torch.float64).repeat(2, 1),))],
        errors=REFUSED["integral"],
        any_shape=True,
    ),
    OpInfo(
        "similarity_gap",
        lambda m: bound.similarity_gap(m, BASE, DIM),
        gap_reference,
        lambda: distances(0.0, 40.0),
        errors=REFUSED["gap"],
        any_shape=True,
        dtypes=(torch.float64,),
    ),
    OpInfo(
        "smooth_gap",
        lambda m: bound.smooth_gap(m, BASE, DIM),
        smooth_reference,
        lambda: distances(0.5, 40.0),
        errors=REFUSED["smooth"],
        any_shape=True,
        dtypes=(torch.float64,),
    ),
]
