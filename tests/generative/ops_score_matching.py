"""The operators of score_matching; references: kernels summed one by one, losses written out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from torch import Tensor

from kexue_lib.generative import score_matching as sm

_DRAWS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SCHEDULE = sm.VPSchedule()
_MIX = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def model(x: Tensor, t: Tensor | None = None) -> Tensor:
    """A smooth score, of t too."""
    out = (x @ _MIX.to(x.dtype)).tanh() - x
    return out if t is None else out * (1 + t[:, None])


def by_row(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of (B, 3) as one of (..., 3)."""

    def op(*inputs: Tensor, **kwargs: Any) -> Tensor:
        shape = inputs[0].shape[:-1]
        out = function(*(x.reshape(shape.numel(), 3) for x in inputs), **kwargs)
        return out.reshape((*shape, *out.shape[1:]))

    return op


def rows(count: int = 1, **kwargs: Any) -> Callable[[], Iterator[Sample]]:
    def samples() -> Iterator[Sample]:
        generator = torch.Generator().manual_seed(2)
        yield Sample(tuple(torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(count)), kwargs)

    return samples


def denoising(x0: Tensor, noise: Tensor, weighting: str) -> Tensor:
    t = torch.full((len(x0),), 0.4, dtype=x0.dtype)
    return sm.denoising_score_matching_loss(model, x0, t, SCHEDULE, noise=noise, weighting=weighting)


def denoising_reference(x0: np.ndarray, noise: np.ndarray, weighting: str) -> np.ndarray:
    integral = 0.1 * 0.4 + 19.9 / 2 * 0.4**2
    alpha, sigma = np.exp(-integral / 2), np.sqrt(1 - np.exp(-integral))
    x_t = alpha * x0 + sigma * noise
    score = (np.tanh(x_t @ _MIX.numpy()) - x_t) * 1.4
    target = (alpha * x0 - x_t) / sigma**2
    factor = {"sigma2": sigma**2, "none": 1.0, "likelihood": 0.1 + 19.9 * 0.4}[weighting]
    return factor * np.sum((score - target) ** 2)


def implicit_reference(x: np.ndarray) -> np.ndarray:
    matrix = _MIX.numpy()
    score = np.tanh(x @ matrix) - x
    divergence = np.sum((1 - np.tanh(x @ matrix) ** 2) * np.diag(matrix)) - len(x)
    return np.sum(score**2) + 2 * divergence


def from_samples(x: Tensor, alpha: float, sigma: float, chunk_size: int | None) -> Tensor:
    return sm.score_from_samples(x, _DRAWS.to(x.dtype), alpha, sigma, chunk_size=chunk_size)


def from_samples_reference(x: np.ndarray, alpha: float, sigma: float, chunk_size: int | None) -> np.ndarray:
    exponents = [-np.sum((x - alpha * y) ** 2) / (2 * sigma**2) for y in _DRAWS.numpy()]
    kernels = np.exp(np.array(exponents) - max(exponents))
    slopes = np.stack([(alpha * y - x) / sigma**2 for y in _DRAWS.numpy()])
    return kernels @ slopes / kernels.sum()


FULL = (torch.float64, torch.float32)  # the data and the model's matrix rounded to half types are another law

ROWS = torch.ones(2, 3)
NOISY = {"model": lambda x, t: -x, "x0": ROWS, "t": ROWS[:, 0] / 2, "schedule": SCHEDULE, "noise": ROWS}
REFUSED = {
    "denoising": spoiled(
        sm.denoising_score_matching_loss,
        NOISY,
        ({"x0": ROWS.long()}, TypeError, "x0: got torch.int64"),
        ({"x0": torch.tensor(1.0)}, ValueError, "x0: got shape ()"),
        ({"t": ROWS[:, 0].long()}, TypeError, "t: got torch.int64"),
        ({"t": torch.zeros(3)}, ValueError, "t: got shape (3,)"),
        ({"noise": ROWS.long()}, TypeError, "noise: got torch.int64"),
        ({"noise": ROWS[:, :1]}, ValueError, "noise: got shape (2, 1)"),
        ({"weighting": "snr"}, ValueError, "weighting: got 'snr'"),
    ),
    "implicit": spoiled(
        sm.implicit_score_matching_loss,
        {"model": lambda x: -x, "x": ROWS},
        ({"x": ROWS.long()}, TypeError, "x: got torch.int64"),
        ({"x": ROWS[0]}, ValueError, "x: got shape (3,)"),
        ({"probes": 0}, ValueError, "probes: got 0"),
    ),
    "conditional": spoiled(
        sm.conditional_score,
        {"x_t": ROWS, "x0": ROWS, "alpha": 0.8, "sigma": 0.5},
        ({"x_t": ROWS.long()}, TypeError, "x_t: got torch.int64"),
        ({"x0": ROWS.long()}, TypeError, "x0: got torch.int64"),
        ({"x0": ROWS[:, :2]}, ValueError, "x0: got shape (2, 2)"),
        ({"sigma": 0.0}, ValueError, "sigma: got 0.0"),
    ),
    "samples": spoiled(
        sm.score_from_samples,
        {"x_t": ROWS, "x0": ROWS, "alpha": 0.8, "sigma": 0.5},
        ({"x_t": ROWS.long()}, TypeError, "x_t: got torch.int64"),
        ({"x_t": ROWS[0]}, ValueError, "x_t: got shape (3,)"),
        ({"x0": ROWS[:, :2]}, ValueError, "x0: got shape (2, 2)"),
        ({"x0": ROWS[:0]}, ValueError, "x0: got no points"),
        ({"sigma": 0.0}, ValueError, "sigma: got 0.0"),
        ({"chunk_size": 0}, ValueError, "chunk_size: got 0"),
    ),
}

OPS = [
    *(
        OpInfo(
            f"denoising_score_matching_loss_{weighting}",
            by_row(denoising),
            denoising_reference,
            rows(2, weighting=weighting),
            errors=REFUSED["denoising"],
            dtypes=FULL,
            tolerance=256,
            autocast=True,
        )
        for weighting in ("sigma2", "none", "likelihood")
    ),
    OpInfo(
        "implicit_score_matching_loss",
        by_row(lambda x: sm.implicit_score_matching_loss(model, x)),
        implicit_reference,
        rows(),
        errors=REFUSED["implicit"],
        dtypes=FULL,
        tolerance=256,
        forward_mode=False,  # PyTorch does not nest it, and the divergence is one already
        autocast=True,
    ),
    OpInfo(
        "conditional_score",
        lambda x_t, x0: sm.conditional_score(x_t, x0, 0.8, 0.5),
        lambda x_t, x0: (0.8 * x0 - x_t) / 0.25,
        rows(2),
        errors=REFUSED["conditional"],
        half_tolerance=16,
    ),
    *(
        OpInfo(
            f"score_from_samples_{sigma:g}_{chunk_size}",
            by_row(from_samples),
            from_samples_reference,
            rows(alpha=0.8, sigma=sigma, chunk_size=chunk_size),
            errors=REFUSED["samples"],
            dtypes=FULL,
            tolerance=4096,
        )
        for sigma, chunk_size in ((0.5, None), (0.5, 2), (3.0, None))
    ),
]
