"""The operators of sparsity; references: textbook formulas in NumPy, all pairs for the Gini index, SciPy's entropy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from opinfo import OpInfo, Sample, scores, spoiled
from scipy import stats

from kexue_lib.distributions import sparsity


def finite(x: np.ndarray) -> np.ndarray:
    """Infinite entries count as equal and beyond all others."""
    x = np.abs(x)
    return np.where(np.isinf(x), 1.0, 0.0) if np.isinf(x).any() else x


def power_mean(x: np.ndarray, p: float) -> np.ndarray:
    x = np.abs(x)
    if math.isinf(p):
        return np.asarray(x.max() if p > 0 else x.min())
    if (p <= 0 and (x == 0).any()) or not x.any():
        return np.asarray(0.0)
    if p >= 0 and np.isinf(x).any():
        return np.asarray(math.inf)
    if p == 0:
        return np.asarray(stats.gmean(x))
    unit = x.max() if p > 0 else x.min()
    return unit * np.mean((x / unit) ** p) ** (1 / p)


def norm_ratio(x: np.ndarray, q: float = 1.0, p: float = 2.0) -> np.ndarray:
    x = finite(x)
    return power_mean(x, q) / power_mean(x, p) if x.any() else np.asarray(1.0)


def gini(x: np.ndarray) -> np.ndarray:
    x = finite(x)
    x = x / (x.max() or 1.0)
    return np.abs(x[:, None] - x).sum() / (2 * len(x) * (x.sum() or 1.0))


def hoyer(x: np.ndarray) -> np.ndarray:
    root = math.sqrt(len(x))
    return (root - root * norm_ratio(x)) / (root - 1) if len(x) > 1 else np.asarray(0.0)


def theil(x: np.ndarray) -> np.ndarray:
    x = finite(x)
    return math.log(len(x)) - stats.entropy(x / x.max()) if x.any() else np.asarray(0.0)


def entropy(p: np.ndarray, alpha: float = 1.0, log_input: bool = False) -> np.ndarray:
    p = np.exp(p) if log_input else p
    if not p.any():
        return np.asarray(0.0 if alpha == 1 else math.copysign(math.inf, alpha - 1))
    p = p[p > 0]
    if alpha == 1:
        return -np.sum(p * np.log(p))
    if math.isinf(alpha):
        return -np.log(p.max())
    return np.log(np.sum(p**alpha)) / (1 - alpha)


def vectors(**kwargs: Any) -> Callable[[], Iterator[Sample]]:
    """Vectors away from zeros and ties, of several lengths and spreads."""

    def samples() -> Iterator[Sample]:
        for seed, (n, spread) in enumerate([(5, 1.0), (7, 3.0), (2, 0.3)]):
            (x,) = scores(n, spread, seed)
            yield Sample((x + 0.1 * x.sign(),), kwargs)

    return samples


def edges(**kwargs: Any) -> Callable[[], list[Sample]]:
    """Zeros, a zero vector, ties, infinities, entries whose squares overflow or vanish."""
    rows = [
        [0.0, 0.0, 0.0, 0.0],
        [0.0, -3.0, 0.0, 1.0],
        [2.0, 2.0, -2.0, 2.0],
        [3e30, -1e30, 2e30, 1e25],
        [3e-30, -1e-30, 0.0, 2e-30],
        [math.inf, 1.0, -math.inf, 0.0],
        [-0.0, 0.0, 5.0, 0.0],
    ]
    return lambda: [Sample((torch.tensor(rows, dtype=torch.float64),), kwargs)]


def distributions(**kwargs: Any) -> Callable[[], Iterator[Sample]]:
    def samples() -> Iterator[Sample]:
        for seed, (n, spread) in enumerate([(5, 1.0), (8, 2.0), (1, 1.0)]):
            log_p = scores(n, spread, seed)[0].log_softmax(-1)
            yield Sample((log_p if kwargs.get("log_input") else log_p.exp(),), kwargs)

    return samples


def certain(**kwargs: Any) -> Callable[[], list[Sample]]:
    """Probabilities of exactly 0 and 1, equal ones, and a row without any."""
    rows = torch.tensor(
        [[1.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.25, 0.25], [0.25] * 4, [0.0] * 4, [1e-30, 0.5, 0.5, 1e-37]],
        dtype=torch.float64,
    )
    return lambda: [Sample((rows.log() if kwargs.get("log_input") else rows,), kwargs)]


POWERS = (2.0, 1.0, 0.5, 0.0, -1.0, -2.5, math.inf, -math.inf)
RATIOS = ((1.0, 2.0), (0.5, 2.0), (2.0, 4.0), (0.25, 0.75), (1.0, math.inf))
ORDERS = (0.0, 0.5, 1.0, 2.0, 3.5, math.inf)

X, nan, inf = torch.ones(2, 3), math.nan, math.inf
GOOD = {"x": X}
VECTORS = [
    ({"x": X.long()}, TypeError, "x: got torch.int64"),
    ({"x": X.cfloat()}, TypeError, "x: got torch.complex64"),
    ({"x": [1.0]}, TypeError, "x: got list"),
    ({"x": X[:, :0]}, ValueError, "x: got shape (2, 0), which is empty in dim -1"),
    ({"x": X[0, :0]}, ValueError, "x: got shape (0,), which is empty in dim -1"),
    ({"dim": 2}, ValueError, "dim: got 2"),
    ({"dim": (0, -2)}, ValueError, "dim: got (0, -2)"),
    ({"dim": 1.0}, TypeError, "dim: got 1.0"),
]
ALPHA = [
    ({"p": X.int()}, TypeError, "p: got torch.int32"),
    ({"p": [1.0]}, TypeError, "p: got list"),
    ({"p": X[:, :0]}, ValueError, "p: got shape (2, 0), which is empty in dim -1"),
    ({"p": X[:0], "dim": None}, ValueError, "p: got shape (0, 3), which is empty in dim None"),
    ({"alpha": -0.1}, ValueError, "alpha: got -0.1"),
    ({"alpha": nan}, ValueError, "alpha: got nan"),
    ({"dim": 2}, ValueError, "dim: got 2"),
]
REFUSED = {
    "power_mean": spoiled(
        sparsity.power_mean,
        {**GOOD, "p": 2.0},
        *VECTORS,
        ({"p": "2"}, TypeError, "p: got '2'"),
        ({"p": nan}, ValueError, "p: got nan"),
    ),
    "norm_ratio": spoiled(
        sparsity.norm_ratio,
        GOOD,
        *VECTORS,
        ({"q": 2.0}, ValueError, "q, p: got 2.0 and 2.0"),
        ({"q": 3.0}, ValueError, "q, p: got 3.0 and 2.0"),
        ({"q": 0.0}, ValueError, "q, p: got 0.0 and 2.0"),
        ({"q": -1.0}, ValueError, "q, p: got -1.0 and 2.0"),
        ({"p": nan}, ValueError, "p: got nan"),
        ({"q": True}, TypeError, "q: got True"),
        ({"q": inf, "p": inf}, ValueError, "q, p: got inf and inf"),
    ),
    "gini": spoiled(
        sparsity.gini,
        GOOD,
        *VECTORS,
    ),
    "hoyer": spoiled(
        sparsity.hoyer,
        GOOD,
        *VECTORS,
    ),
    "theil": spoiled(
        sparsity.theil,
        GOOD,
        *VECTORS,
    ),
    "renyi": spoiled(
        sparsity.renyi_entropy,
        {"p": X / 3},
        *ALPHA,
    ),
    "number": spoiled(
        sparsity.effective_number,
        {"p": X / 3},
        *ALPHA,
    ),
}

OPS = [
    *(
        OpInfo(
            f"power_mean_{p}", sparsity.power_mean, power_mean, vectors(p=p), edges(p=p), errors=REFUSED["power_mean"]
        )
        for p in POWERS
    ),
    *(
        OpInfo(
            f"norm_ratio_{q}_{p}",
            sparsity.norm_ratio,
            norm_ratio,
            vectors(q=q, p=p),
            edges(q=q, p=p),
            errors=REFUSED["norm_ratio"],
        )
        for q, p in RATIOS
    ),
    OpInfo("gini", sparsity.gini, gini, vectors(), edges(), errors=REFUSED["gini"]),
    OpInfo("hoyer", sparsity.hoyer, hoyer, vectors(), edges(), errors=REFUSED["hoyer"]),
    OpInfo("theil", sparsity.theil, theil, vectors(), edges(), errors=REFUSED["theil"]),
    *(
        OpInfo(
            f"renyi_entropy_{alpha}" + ("_log" if log else ""),
            partial(sparsity.renyi_entropy, log_input=log),
            partial(entropy, log_input=log),
            lambda a=alpha, g=log: (Sample(s.inputs, {"alpha": a}) for s in distributions(log_input=g)()),
            lambda a=alpha, g=log: [Sample(s.inputs, {"alpha": a}) for s in certain(log_input=g)()],
            errors=REFUSED["renyi"],
        )
        for alpha in ORDERS
        for log in (False, True)
    ),
    OpInfo(
        "effective_number",
        sparsity.effective_number,
        lambda p, alpha: np.exp(entropy(p, alpha)),
        distributions(alpha=2.0),
        certain(alpha=2.0),
        errors=REFUSED["number"],
    ),
]
