"""The operators of reflow_wgan; references: NumPy one row at a time, posterior means by Bayes' rule, SciPy's CDFs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample
from scipy import integrate, stats

from kexue_lib.generative import reflow_wgan as rw
from kexue_lib.generative.score_matching import GaussianMixture

WIDE = (torch.float64, torch.float32)
MEAN0, MEAN1 = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([2.0, 0.3], dtype=torch.float64)
COV0 = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)
COV1 = torch.tensor([[0.4, -0.2], [-0.2, 2.0]], dtype=torch.float64)
MIXTURE = GaussianMixture(torch.tensor([0.3, 0.7]).double(), torch.stack([MEAN0, MEAN1]), torch.stack([COV0, COV1]))
LINE = (0.3, 1.0, 1.5, 0.6)  # m0, s0, m1, s1


def drawn(*shapes: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)


def pairs() -> Iterator[Sample]:
    for seed, width in enumerate([3, 1]):
        yield Sample(drawn((4, width), (4, width), seed=seed))


def plane() -> list[Sample]:
    return [Sample(drawn((4, 2), seed=2))]


def gaussian(x: np.ndarray, t: float) -> np.ndarray:
    """Regression of x1 − x0 on x_t, through the joint covariance of (x0, x1)."""
    m0, m1, c0, c1 = (a.numpy() for a in (MEAN0, MEAN1, COV0, COV1))
    joint = np.block([[c0, np.zeros((2, 2))], [np.zeros((2, 2)), c1]])
    change, point = np.hstack([-np.eye(2), np.eye(2)]), np.hstack([(1 - t) * np.eye(2), t * np.eye(2)])
    gain = change @ joint @ point.T @ np.linalg.inv(point @ joint @ point.T)
    return m1 - m0 + gain @ (x - point @ np.concatenate([m0, m1]))


def mixture(x: np.ndarray, t: float) -> np.ndarray:
    """Bayes' rule over the components with SciPy's densities."""
    shares, parts = [], []
    for weight, mean, cov in zip(*(a.numpy() for a in (MIXTURE.weights, MIXTURE.means, MIXTURE.covariances))):
        noisy = (1 - t) ** 2 * np.eye(2) + t**2 * cov
        shares.append(weight * stats.multivariate_normal(t * mean, noisy).pdf(x))
        gain = t * cov @ np.linalg.inv(noisy)
        end = mean + gain @ (x - t * mean)
        parts.append((end - x) / (1 - t))
    return np.average(parts, axis=0, weights=shares)


def rho_bar(x: np.ndarray) -> np.ndarray:
    m0, s0, m1, s1 = LINE
    density = lambda t: stats.norm((1 - t) * m0 + t * m1, np.hypot((1 - t) * s0, t * s1)).pdf(x)
    return integrate.quad_vec(density, 0, 1, epsabs=1e-14)[0]


def best_gradient(x: np.ndarray) -> np.ndarray:
    m0, s0, m1, s1 = LINE
    return (stats.norm(m0, s0).cdf(x) - stats.norm(m1, s1).cdf(x)) / rho_bar(x)


OPS = [
    OpInfo(
        "interpolate_at_one_time",
        lambda x0, x1: rw.interpolate(x0, x1, torch.tensor(0.375)),
        lambda x0, x1: 0.625 * x0 + 0.375 * x1,
        pairs,
    ),
    OpInfo(
        "gaussian_velocity_at_one_time",
        lambda x: rw.gaussian_velocity(x, 0.3, *(a.to(x.dtype) for a in (MEAN0, COV0, MEAN1, COV1))),
        lambda x: gaussian(x, 0.3),
        plane,
        dtypes=WIDE,
    ),
    OpInfo(
        "mixture_velocity_at_one_time",
        lambda x: rw.mixture_velocity(x, 0.3, MIXTURE),
        lambda x: mixture(x, 0.3),
        plane,
        dtypes=WIDE,
        compiles=False,
    ),
    OpInfo("rho_bar_gaussian", lambda x: rw.rho_bar_gaussian(x, *LINE), rho_bar, plane, dtypes=WIDE, compiles=False),
    OpInfo(
        "optimal_critic_gradient_gaussian",
        lambda x: rw.optimal_critic_gradient_gaussian(x, *LINE),
        best_gradient,
        plane,
        dtypes=WIDE,
        compiles=False,
    ),
]
