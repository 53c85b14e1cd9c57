"""The operators of gan_flow; references: NumPy's logaddexp, derivatives by complex steps, SciPy's Gaussians."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from scipy import stats

from kexue_lib.generative import gan_flow as gf

WIDE = (torch.float64, torch.float32)
F_OF_R = {
    "kl": lambda r: r * np.log(r),
    "reverse_kl": lambda r: -np.log(r),
    "js": lambda r: r * np.log(r) - (r + 1) * np.log((r + 1) / 2),
    "pearson": lambda r: (r - 1) ** 2,
    "neyman": lambda r: (r - 1) ** 2 / r,
    "hellinger": lambda r: (np.sqrt(r) - 1) ** 2,
}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def transformed(logit: np.ndarray, name: str) -> np.ndarray:
    """From log σ(D) = −log(e⁰ + e⁻ᴰ), as the losses are written in the papers."""
    if name == "saturating":
        return np.logaddexp(0, logit)
    return -np.logaddexp(0, -logit) if name == "non_saturating" else np.exp(logit)


def output(ratio: np.ndarray, kind: str) -> np.ndarray:
    return F_OF_R[kind](ratio + 1e-30j).imag / 1e-30


def divergence(m0: np.ndarray, root0: np.ndarray, m1: np.ndarray, root1: np.ndarray) -> np.ndarray:
    """Entropies and cross-entropy from SciPy's Gaussian and from its second moments."""
    c0, c1 = root0 @ root0.T + np.eye(2), root1 @ root1.T + np.eye(2)
    ours, theirs = stats.multivariate_normal(m0, c0), stats.multivariate_normal(m1, c1)
    # E₀ log p₁ of a quadratic: the value at m₀ plus half the trace of C₀ with its Hessian.
    cross = theirs.logpdf(m0) - np.trace(c0 @ np.linalg.inv(c1)) / 2
    return np.asarray(-ours.entropy() - cross)


def gaussian_kl(m0: torch.Tensor, root0: torch.Tensor, m1: torch.Tensor, root1: torch.Tensor) -> torch.Tensor:
    eye = torch.eye(2, dtype=m0.dtype, device=m0.device)
    # Not by a matrix product, which autocast would round.
    c0, c1 = ((root[..., :, None, :] * root[..., None, :, :]).sum(-1) + eye for root in (root0, root1))
    return gf.gaussian_kl(m0, c0, m1, c1)


def rows(argument: str, words: list[str], positive: bool = False) -> Iterator[Sample]:
    for seed, word in enumerate(words):
        x = 2 * normal(3, 4, seed=seed)
        yield Sample((x.exp() if positive else x,), {argument: word})


MEAN, COV = torch.zeros(2), torch.eye(2)
REFUSED = {
    "transform": spoiled(
        gf.transform,
        {"name": "exp"},
        ({"name": "wasserstein"}, ValueError, "name: got 'wasserstein'"),
    ),
    "output": spoiled(
        gf.f_divergence_output,
        {"kind": "kl", "ratio": torch.ones(3)},
        ({"kind": "tv"}, ValueError, "kind: got 'tv'"),
        ({"ratio": torch.ones(3).long()}, TypeError, "ratio: got torch.int64"),
        ({"ratio": torch.zeros(3)}, ValueError, "ratio: got 0.0"),
    ),
    "kl": spoiled(
        gf.gaussian_kl,
        {"mean0": MEAN, "cov0": COV, "mean1": MEAN, "cov1": COV},
        ({"mean0": MEAN.long()}, TypeError, "mean0: got torch.int64"),
        ({"cov1": COV.cfloat()}, TypeError, "cov1: got torch.complex64"),
        ({"mean0": MEAN[0]}, ValueError, "mean0: got shape ()"),
        ({"cov0": torch.eye(3)}, ValueError, "cov0: got shape (3, 3)"),
        ({"mean1": torch.zeros(3)}, ValueError, "mean1: got shape (3,)"),
        ({"cov1": -COV}, ValueError, "cov1: got a matrix that is not positive definite"),
    ),
}

OPS = [
    OpInfo(
        "transform",
        lambda logit, name: gf.transform(name)[0](logit),
        transformed,
        lambda: rows("name", ["saturating", "non_saturating", "exp"]),
        lambda: [
            Sample((torch.tensor([[-1e4, 1e4, 0.0]]).double(),), {"name": n}) for n in ("saturating", "non_saturating")
        ],
        errors=REFUSED["transform"],
        any_shape=True,
    ),
    OpInfo(
        "f_divergence_output",
        lambda ratio, kind: gf.f_divergence_output(kind, ratio),
        output,
        lambda: rows("kind", list(F_OF_R), positive=True),
        errors=REFUSED["output"],
        any_shape=True,
        dtypes=WIDE,
    ),
    OpInfo(
        "gaussian_kl",
        gaussian_kl,
        divergence,
        lambda: [Sample((normal(3, 2), normal(3, 2, 2, seed=1), normal(3, 2, seed=2), normal(3, 2, 2, seed=3)))],
        errors=REFUSED["kl"],
        dtypes=WIDE,
        tolerance=512.0,
        compiles=False,
    ),
]
