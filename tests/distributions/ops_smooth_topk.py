"""The operators of smooth top-k; references: enumeration of all subsets, and Brent's method."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from opinfo import OpInfo, Sample, scores, spoiled
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

from kexue_lib.distributions import smooth_topk


def subset_sums(x: np.ndarray, k: int) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """All k-subsets with the sums of their scores."""
    subsets = list(itertools.combinations(range(len(x)), k))
    with np.errstate(invalid="ignore"):
        return subsets, np.array([math.fsum(x[list(s)]) if np.isfinite(x[list(s)]).all() else -np.inf for s in subsets])


def enumerated_log_partition(x: np.ndarray, k: int) -> np.ndarray:
    return np.asarray(logsumexp(subset_sums(x, k)[1]))


def enumerated_marginals(x: np.ndarray, k: int, tau: float = 1.0) -> np.ndarray:
    subsets, sums = subset_sums(x, k)
    probability = softmax((sums - sums.max()) / tau)
    return np.array([math.fsum(p for s, p in zip(subsets, probability) if i in s) for i in range(len(x))])


def enumerated_loss(x: np.ndarray, target: int, k: int, tau: float = 1.0, reduction: str = "none") -> np.ndarray:
    subsets, sums = subset_sums(x, k)
    best = sums.max()
    hits = np.array([target in s for s in subsets])
    scaled = (sums - best) / tau
    with_target, without = logsumexp(scaled[hits]), logsumexp(scaled[~hits]) if (~hits).any() else -np.inf
    return np.asarray(np.logaddexp(0.0, without - with_target))


RESPONSE = {
    "sigmoid": lambda u: math.exp(-np.logaddexp(0.0, -u)),
    "laplace": lambda u: 0.5 * math.exp(u) if u < 0 else 1 - 0.5 * math.exp(-u),
    "minexp": lambda u: math.exp(min(u, 0.0)),
    "clip": lambda u: min(max(u, 0.0), 1.0),
}


def bracketed_threshold(x: np.ndarray, k: int, f: str = "sigmoid") -> np.ndarray:
    """The root by Brent's method, between thresholds at which the sum is surely too large and too small."""
    finite = x[np.isfinite(x)]
    low, high = finite.min() - 50, finite.max() + 50
    return np.array([brentq(lambda t: math.fsum(RESPONSE[f](v - t) for v in x) - k, low, high, xtol=1e-14, rtol=1e-15)])


def bracketed_topk(x: np.ndarray, k: int, f: str = "sigmoid", tau: float = 1.0) -> np.ndarray:
    if k == len(x):
        return np.ones_like(x)
    level = bracketed_threshold(x / tau, k, f)[0]
    return np.array([RESPONSE[f](v / tau - level) for v in x])


def looped_iteration(x: np.ndarray, k: int, variant: str = "shift") -> np.ndarray:
    p = np.zeros_like(x)
    for _ in range(k):
        if variant == "shift":
            p += softmax((1 - p) * (x - x.min()))
        else:
            p += (1 - p) * np.exp(x - x.max()) / math.fsum((1 - p) * np.exp(x - x.max()))
    return p


def choosing(**kwargs: Any) -> Callable[[], Iterator[Sample]]:
    """Scores to choose k of n from: few and many, one entry, all entries, a wide spread."""

    def samples() -> Iterator[Sample]:
        for seed, (n, k, spread) in enumerate([(5, 2, 1.0), (7, 5, 3.0), (1, 1, 1.0), (4, 4, 1.0), (6, 1, 0.1)]):
            if n > k or kwargs.get("f") is None:
                yield Sample(scores(n, spread, seed), {"k": k, **kwargs})

    return samples


def choosing_at_the_edge(**kwargs: Any) -> Callable[[], Iterator[Sample]]:
    """Equal scores, excluded entries, spreads at which every exponential overflows."""
    rows = [
        [1.0, 1.0, 1.0, 1.0, 1.0],
        [2.0, -math.inf, 1.0, -math.inf, 0.0],
        [1000.0, -1000.0, 3.0, 2.0, -50000.0],
        [7.0, 7.0, 7.0, -7.0, -7.0],
        [30.0, -30.0, 60000.0, -60000.0, 0.5],
    ]
    return lambda: [Sample((torch.tensor(rows, dtype=torch.float64),), {"k": k, **kwargs}) for k in (1, 2, 3)]


def with_targets(samples: Callable[[], Iterable[Sample]]) -> Callable[[], Iterator[Sample]]:
    def added() -> Iterator[Sample]:
        for sample in samples():
            target = torch.arange(len(sample.inputs[0])) % sample.inputs[0].shape[-1]
            yield Sample(sample.inputs, sample.kwargs, {"target": target})

    return added


def distant_targets() -> Iterator[Sample]:
    x = torch.tensor([[1e3, -1e3, 3.0, 2.0], [6e4, -6e4, 1.0, 1.0]], dtype=torch.float64)
    for k in (1, 2, 3):
        yield Sample((x,), {"k": k}, {"target": torch.tensor([1, 2])})


X = torch.zeros(2, 4)
GOOD = {"x": X, "k": 2}
SCORES_OR_K = [
    ({"x": X.long()}, TypeError, "x: got torch.int64"),
    ({"x": [1.0, 2.0], "k": 1}, TypeError, "x: got list"),
    ({"x": X[:, :0], "k": 1}, ValueError, "x: got shape (2, 0)"),
    ({"x": X[0, 0], "k": 1}, ValueError, "x: got shape ()"),
    ({"k": 2.0}, TypeError, "k: got 2.0"),
    ({"k": True}, TypeError, "k: got True"),
    ({"k": 0}, ValueError, "k: got 0"),
    ({"k": 5}, ValueError, "k: got 5"),
]
REFUSED = {
    "grad_topk": spoiled(
        smooth_topk.grad_topk,
        GOOD,
        *SCORES_OR_K,
        ({"tau": 0.0}, ValueError, "tau: got 0.0"),
        ({"tau": math.nan}, ValueError, "tau: got nan"),
    ),
    "log_partition": spoiled(
        smooth_topk.log_partition,
        GOOD,
        *SCORES_OR_K,
    ),
    "elementary": spoiled(
        smooth_topk.log_elementary_symmetric,
        GOOD,
        *SCORES_OR_K,
    ),
    "loss": spoiled(
        smooth_topk.topk_cross_entropy,
        {**GOOD, "target": torch.tensor([0, 1])},
        *SCORES_OR_K,
        ({"tau": math.inf}, ValueError, "tau: got inf"),
        ({"target": torch.zeros(2)}, TypeError, "target: got torch.float32"),
        ({"target": 1}, TypeError, "target: got int"),
        ({"target": torch.tensor([0])}, ValueError, "target: got shape (1,)"),
        ({"reduction": "max"}, ValueError, "reduction: got 'max'"),
    ),
    "threshold": spoiled(
        smooth_topk.threshold,
        GOOD,
        *SCORES_OR_K,
        ({"f": "tanh"}, ValueError, "f: got 'tanh'"),
        ({"k": 4}, ValueError, "k: got 4"),
        ({"k": 4, "f": "laplace"}, ValueError, "k: got 4"),
    ),
    "thre_topk": spoiled(
        smooth_topk.thre_topk,
        GOOD,
        *SCORES_OR_K,
        ({"tau": -1.0}, ValueError, "tau: got -1.0"),
        ({"f": "tanh"}, ValueError, "f: got 'tanh'"),
    ),
    "iterative": spoiled(
        smooth_topk.iterative_topk,
        GOOD,
        *SCORES_OR_K,
        ({"variant": "other"}, ValueError, "variant: got 'other'"),
    ),
}

OPS = [
    OpInfo(
        "grad_topk",
        smooth_topk.grad_topk,
        enumerated_marginals,
        choosing(tau=0.7),
        choosing_at_the_edge(),
        errors=REFUSED["grad_topk"],
    ),
    OpInfo(
        "log_partition",
        smooth_topk.log_partition,
        enumerated_log_partition,
        choosing(),
        choosing_at_the_edge(),
        errors=REFUSED["log_partition"],
    ),
    OpInfo(
        "log_elementary_symmetric",
        smooth_topk.log_elementary_symmetric,
        lambda x, k: np.stack([enumerated_log_partition(x, j) for j in range(k + 1)]),
        choosing(),
        choosing_at_the_edge(),
        errors=REFUSED["elementary"],
    ),
    OpInfo(
        "topk_cross_entropy",
        partial(smooth_topk.topk_cross_entropy, reduction="none"),
        enumerated_loss,
        with_targets(choosing(tau=0.7)),
        distant_targets,
        errors=REFUSED["loss"],
    ),
    OpInfo(
        "threshold",
        smooth_topk.threshold,
        bracketed_threshold,
        choosing(f="sigmoid"),
        errors=REFUSED["threshold"],
    ),
    *(
        OpInfo(
            f"thre_topk_{f}",
            partial(smooth_topk.thre_topk, f=f),
            partial(bracketed_topk, f=f),
            choosing(tau=0.7),
            choosing_at_the_edge(),
            errors=REFUSED["thre_topk"],
            second_derivative=f == "sigmoid",
        )
        for f in RESPONSE
    ),
    *(
        OpInfo(
            f"iterative_topk_{variant}",
            partial(smooth_topk.iterative_topk, variant=variant),
            partial(looped_iteration, variant=variant),
            choosing(),
            errors=REFUSED["iterative"],
        )
        for variant in ("shift", "weighted")
    ),
]
