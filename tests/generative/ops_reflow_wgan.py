"""The operators of reflow_wgan; references: NumPy one row at a time, posterior means by Bayes' rule, SciPy's CDFs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
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


POINTS, ONE, EYE = torch.zeros(3, 2), torch.zeros(2), torch.eye(2)
WALK = {"x": POINTS, "m0": 0.0, "s0": 1.0, "m1": 1.0, "s1": 1.0}
LINES = [
    ({"x": POINTS.long()}, TypeError, "x: got torch.int64"),
    ({"s0": 0.0}, ValueError, "s0: got 0.0"),
    ({"s1": -1.0}, ValueError, "s1: got -1.0"),
    ({"m0": "1"}, TypeError, "m0: got '1'"),
    ({"m1": float("nan")}, ValueError, "m1: got nan"),
    ({"nodes": 0}, ValueError, "nodes: got 0"),
]
REFUSED = {
    "interpolate": spoiled(
        rw.interpolate,
        {"x0": POINTS, "x1": POINTS, "t": POINTS[:, 0]},
        ({"x0": POINTS.long()}, TypeError, "x0: got torch.int64"),
        ({"x1": POINTS[:1]}, ValueError, "x0, x1: got shapes (3, 2) and (1, 2)"),
        ({"x1": POINTS.double()}, TypeError, "x1: got torch.float64"),
        ({"t": torch.tensor(1.5)}, ValueError, "t: got 1.5"),
        ({"t": torch.tensor(1)}, TypeError, "t: got torch.int64"),
        ({"t": torch.zeros(2)}, ValueError, "t: got shape (2,)"),
    ),
    "gaussian": spoiled(
        rw.gaussian_velocity,
        {"x": POINTS, "t": 0.5, "mean0": ONE, "cov0": EYE, "mean1": ONE, "cov1": EYE},
        ({"x": POINTS.long()}, TypeError, "x: got torch.int64"),
        ({"x": torch.tensor(1.0)}, ValueError, "x: got shape ()"),
        ({"cov0": POINTS}, ValueError, "cov0: got shape (3, 2)"),
        ({"mean1": ONE.long()}, TypeError, "mean1: got torch.int64"),
        ({"cov1": EYE.long()}, TypeError, "cov1: got torch.int64"),
        ({"t": torch.zeros(2)}, ValueError, "t: got shape (2,)"),
        ({"t": 1.5}, ValueError, "t: got 1.5"),
    ),
    "mixture": spoiled(
        rw.mixture_velocity,
        {"x": POINTS, "t": 0.5, "mixture": GaussianMixture.ring()},
        ({"x": POINTS.long()}, TypeError, "x: got torch.int64"),
        ({"x": POINTS[:, :1]}, ValueError, "mixture.means: got shape (8, 2)"),
        ({"x": torch.tensor(1.0)}, ValueError, "x: got shape ()"),
        ({"t": 2.0}, ValueError, "t: got 2.0"),
    ),
    "rho": spoiled(
        rw.rho_bar_gaussian,
        WALK,
        *LINES,
    ),
    "critic": spoiled(
        rw.optimal_critic_gradient_gaussian,
        WALK,
        *LINES,
    ),
}

OPS = [
    OpInfo(
        "interpolate_at_one_time",
        lambda x0, x1: rw.interpolate(x0, x1, torch.tensor(0.375)),
        lambda x0, x1: 0.625 * x0 + 0.375 * x1,
        pairs,
        errors=REFUSED["interpolate"],
    ),
    OpInfo(
        "gaussian_velocity_at_one_time",
        lambda x: rw.gaussian_velocity(x, 0.3, *(a.to(x.dtype) for a in (MEAN0, COV0, MEAN1, COV1))),
        lambda x: gaussian(x, 0.3),
        plane,
        errors=REFUSED["gaussian"],
        dtypes=WIDE,
    ),
    OpInfo(
        "mixture_velocity_at_one_time",
        lambda x: rw.mixture_velocity(x, 0.3, MIXTURE),
        lambda x: mixture(x, 0.3),
        plane,
        errors=REFUSED["mixture"],
        dtypes=WIDE,
        compiles=False,
    ),
    OpInfo(
        "rho_bar_gaussian",
        lambda x: rw.rho_bar_gaussian(x, *LINE),
        rho_bar,
        plane,
        errors=REFUSED["rho"],
        any_shape=True,
        dtypes=WIDE,
        compiles=False,
    ),
    OpInfo(
        "optimal_critic_gradient_gaussian",
        lambda x: rw.optimal_critic_gradient_gaussian(x, *LINE),
        best_gradient,
        plane,
        errors=REFUSED["critic"],
        any_shape=True,
        dtypes=WIDE,
        compiles=False,
    ),
]
