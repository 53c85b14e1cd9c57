"""The operators of gradient_flow; references: double loops, log-sum-exp and closed forms in NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from scipy import optimize, special, stats
from torch import Tensor

from kexue_lib.optimization import gradient_flow as gf

WIDE = (torch.float64, torch.float32)
METRIC = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 3.0]], dtype=torch.float64)
F_OF_R = {
    "reverse_kl": lambda r: -np.log(r),
    "kl": lambda r: r * np.log(r),
    "chi2": lambda r: (r - 1) ** 2,
    "reverse_chi2": lambda r: (r - 1) ** 2 / r,
    "hellinger": lambda r: (np.sqrt(r) - 1) ** 2,
    "js": lambda r: (r * np.log(r) - (r + 1) * np.log((r + 1) / 2)) / 2,
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


CLOUD = normal(6, 2, seed=4)


def stein(x: np.ndarray, score: np.ndarray, bandwidth: float | None) -> np.ndarray:
    """Pair after pair."""
    n = len(x)
    if bandwidth is None:
        pairs = sorted(((x[i] - x[j]) ** 2).sum() for i in range(n) for j in range(i + 1, n))
        bandwidth = pairs[(len(pairs) - 1) // 2] / np.log(n + 1)
    out = np.zeros_like(x)
    for i in range(n):
        for j in range(n):
            kernel = np.exp(-((x[i] - x[j]) ** 2).sum() / bandwidth)
            out[i] += kernel * (score[j] + 2 / bandwidth * (x[i] - x[j])) / n
    return out


def smoothed_score(y: np.ndarray) -> np.ndarray:
    """Derivative of the log density by complex steps."""
    cloud = CLOUD.numpy()

    def log_density(point: np.ndarray) -> complex:
        return np.log(np.exp(-((point - cloud) ** 2).sum(1) / (2 * 0.7**2)).sum())

    return np.array([[log_density(row + 1e-30j * e).imag / 1e-30 for e in np.eye(2)] for row in y])


def speed(log_r: np.ndarray, kind: str) -> np.ndarray:
    """r² f''(r), f'' by central differences of five points in extended precision."""
    r = np.exp(log_r.astype(np.longdouble))
    h, f = np.longdouble(2e-3) * r, F_OF_R[kind]
    second = (-f(r - 2 * h) + 16 * f(r - h) - 30 * f(r) + 16 * f(r + h) - f(r + 2 * h)) / (12 * h**2)
    return (r**2 * second).astype(float)


def steepest(g: np.ndarray, norm: str | Tensor) -> np.ndarray:
    """Over the unit ball: corners of the linear programs, SLSQP for the ellipsoids."""
    d = len(g)
    if norm == "linf":
        corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * d)).reshape(d, -1).T
        return min(corners, key=lambda u: u @ g)
    if norm == "l1":
        return min([s * e for e in np.eye(d) for s in (-1.0, 1.0)], key=lambda u: u @ g)
    M = np.eye(d) if norm == "l2" else norm.numpy()
    root = np.linalg.inv(np.linalg.cholesky(M).T)
    slope = root.T @ g  # u = root v with |v| = 1
    angle = optimize.minimize(lambda v: slope @ v / np.linalg.norm(v), -np.ones(d), tol=1e-15).x
    newton = angle / np.linalg.norm(angle)
    for _ in range(50):  # polished by the fixed point of the Lagrange condition
        newton = newton - slope / np.linalg.norm(slope)
        newton /= np.linalg.norm(newton)
    return root @ newton


def rows(*kwargs: dict) -> Iterator[Sample]:
    for seed, options in enumerate(kwargs):
        yield Sample((normal(4, 3, seed=seed),), options)


def simplex_pairs() -> list[Sample]:
    return [Sample((normal(3, 4).softmax(-1), normal(3, 4, seed=1)), {"step": 0.3, "geometry": "entropy"})]


def exponentiated(x: np.ndarray, g: np.ndarray, step: float, geometry: str) -> np.ndarray:
    log_y = np.log(x) - step * g
    return np.exp(log_y - special.logsumexp(log_y))


def grid_energy(q: np.ndarray) -> np.ndarray:
    potential = np.array([0.0, 1.0, 0.5, 2.0])
    mass = q.sum() * 0.5
    entropy = -stats.entropy(q / q.sum())  # of the normalised weights
    return np.asarray(mass * (entropy + np.log(q.sum())) + (q * potential).sum() * 0.5)


ROWS = torch.ones(3, 2)
POSITIVE = {"x": ROWS, "g": ROWS, "step": 0.3, "geometry": "entropy"}
REFUSED = {
    "steepest": spoiled(
        gf.steepest_direction,
        {"g": ROWS},
        ({"g": ROWS.long()}, TypeError, "g: got torch.int64"),
        ({"g": ROWS[:, :0]}, ValueError, "g: got shape (3, 0)"),
        ({"norm": "l3"}, ValueError, "norm: got 'l3'"),
        ({"norm": torch.eye(3)}, ValueError, "norm: got shape (3, 3)"),
        ({"norm": -torch.eye(2)}, ValueError, "norm: got a matrix that is not positive definite"),
    ),
    "mirror": spoiled(
        gf.mirror_step,
        POSITIVE,
        ({"x": ROWS.long()}, TypeError, "x: got torch.int64"),
        ({"g": ROWS.long()}, TypeError, "g: got torch.int64"),
        ({"g": ROWS[:2]}, ValueError, "g: got shape (2, 2)"),
        ({"x": -ROWS}, ValueError, "x: got -1.0"),
        ({"step": -1.0}, ValueError, "step: got -1.0"),
        ({"geometry": "sphere"}, ValueError, "geometry: got 'sphere'"),
    ),
    "svgd": spoiled(
        gf.svgd_velocity,
        {"x": ROWS, "score": ROWS, "bandwidth": 1.0},
        ({"x": ROWS.long()}, TypeError, "x: got torch.int64"),
        ({"score": ROWS.long()}, TypeError, "score: got torch.int64"),
        ({"score": ROWS[:, :1]}, ValueError, "score: got shape (3, 1)"),
        ({"x": ROWS[:0], "score": ROWS[:0]}, ValueError, "x: got shape (0, 2)"),
        ({"bandwidth": 0.0}, ValueError, "bandwidth: got 0.0"),
    ),
    "kde": spoiled(
        gf.kde_score,
        {"x": ROWS, "bandwidth": 1.0},
        ({"x": ROWS.long()}, TypeError, "x: got torch.int64"),
        ({"query": ROWS.long()}, TypeError, "query: got torch.int64"),
        ({"x": ROWS[None]}, ValueError, "x: got shape (1, 3, 2)"),
        ({"query": ROWS[:, :1]}, ValueError, "query: got shape (3, 1)"),
        ({"bandwidth": -1.0}, ValueError, "bandwidth: got -1.0"),
    ),
    "fdiv": spoiled(
        gf.fdiv_weight,
        {"log_r": ROWS, "kind": "kl"},
        ({"log_r": ROWS.long()}, TypeError, "log_r: got torch.int64"),
        ({"kind": "tv"}, ValueError, "kind: got 'tv'"),
    ),
    "energy": spoiled(
        gf.free_energy,
        {"q": ROWS[:, 0], "potential": ROWS[:, 0], "dx": 0.1},
        ({"q": ROWS[:, 0].long()}, TypeError, "q: got torch.int64"),
        ({"potential": ROWS[:, 0].long()}, TypeError, "potential: got torch.int64"),
        ({"potential": ROWS}, ValueError, "potential: got shape (3, 2)"),
        ({"q": torch.ones(4)}, ValueError, "q: got shape (4,)"),
        ({"dx": 0.0}, ValueError, "dx: got 0.0"),
    ),
}

OPS = [
    OpInfo(
        "steepest_direction",
        lambda g, norm: gf.steepest_direction(g, norm),
        steepest,
        lambda: rows({"norm": "l2"}, {"norm": "l1"}, {"norm": "linf"}),
        lambda: [Sample((torch.tensor([[3e30, -4e30, 0.5], [3e-30, 4e-30, 1e-32]]).double(),), {"norm": "l2"})],
        errors=REFUSED["steepest"],
    ),
    OpInfo(
        "steepest_direction of a metric",
        lambda g: gf.steepest_direction(g, METRIC.to(g.dtype)),
        lambda g: steepest(g, METRIC),
        lambda: rows({}, {}),
        errors=REFUSED["steepest"],
        dtypes=WIDE,
        tolerance=2000.0,
        compiles=False,
    ),
    OpInfo(
        "mirror_step",
        gf.mirror_step,
        exponentiated,
        simplex_pairs,
        errors=REFUSED["mirror"],
        dtypes=WIDE,
    ),
    OpInfo(
        "svgd_velocity",
        gf.svgd_velocity,
        stein,
        lambda: [Sample((normal(2, 5, 3), normal(2, 5, 3, seed=1)), {"bandwidth": h}) for h in (0.8, 2.5)],
        errors=REFUSED["svgd"],
        dtypes=WIDE,
    ),
    OpInfo(
        "kde_score at queries",
        lambda y: gf.kde_score(CLOUD.to(y.dtype), 0.7, query=y.flatten(0, -2)).reshape(y.shape),
        smoothed_score,
        lambda: [Sample((normal(2, 3, 2),))],
        errors=REFUSED["kde"],
        dtypes=WIDE,
    ),
    OpInfo(
        "fdiv_weight",
        gf.fdiv_weight,
        speed,
        lambda: rows(*({"kind": kind} for kind in F_OF_R if kind != "reverse_kl")),
        errors=REFUSED["fdiv"],
        any_shape=True,  # a constant has no gradient
        dtypes=WIDE,
        tolerance=1e7,  # of the differences in the reference: 1e-9
    ),
    OpInfo(
        "free_energy",
        lambda q: gf.free_energy(q, torch.tensor([0.0, 1.0, 0.5, 2.0], dtype=q.dtype), 0.5),
        grid_energy,
        lambda: [Sample((normal(3, 4).exp(),))],
        errors=REFUSED["energy"],
        dtypes=WIDE,
    ),
]
