"""The registry of the operator battery: each public differentiable function of the library, described once.

An entry of `OPS` names the function, an independent reference in float64, and samples from the inside of its domain;
`test_ops.py` runs the same tests over all entries. Adding an operator is adding an entry.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jaxtyping
import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax
from torch import Tensor

from kexue_lib.attention.core import attention
from kexue_lib.distributions import smooth_topk
from kexue_lib.positions import rope

ALL_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Sample:
    """One call: tensors with the batch dimension first, all of one floating dtype, and the other arguments.

    `per_row` holds arguments that are tensors with a batch dimension but no floating dtype (targets, masks).
    """

    inputs: tuple[Tensor, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    per_row: Mapping[str, Tensor] = field(default_factory=dict)

    def call(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """The function at this sample, with other tensors in place of the inputs when they are given."""
        return function(*(inputs or self.inputs), **self.kwargs, **self.per_row)

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Sample:
        moved = {name: value.to(device) for name, value in self.per_row.items()}
        return Sample(tuple(x.to(device, dtype) for x in self.inputs), self.kwargs, moved)

    def rows(self, index: int | slice) -> Sample:
        chosen = {name: value[index] for name, value in self.per_row.items()}
        return Sample(tuple(x[index] for x in self.inputs), self.kwargs, chosen)


@dataclass(frozen=True)
class OpInfo:
    """One operator.

    Attributes:
        name: how the tests call it.
        op: the function; the same for every row of the batch.
        reference: the same function of one row, float64 arrays in and out, by another method.
        samples: a few samples in float64 whose inputs have shape (rows, ...) with at least two rows, away from kinks.
        extreme: samples at the edge of the domain (±inf, ties, huge values), where reference and op must still agree
            and no gradient may be NaN.
        dtypes: supported floating dtypes.
        tolerance: absolute and relative error allowed, in units of the dtype's eps.
        half_tolerance: the same for the half types, where a kernel may round what lies between.
        second_derivative, forward_mode, vmap, compiles: whether the operator claims these.
    """

    name: str
    op: Callable[..., Tensor]
    reference: Callable[..., np.ndarray]
    samples: Callable[[], Iterable[Sample]]
    extreme: Callable[[], Iterable[Sample]] = tuple
    dtypes: tuple[torch.dtype, ...] = ALL_DTYPES
    tolerance: float = 64.0
    half_tolerance: float = 2.0
    second_derivative: bool = True
    forward_mode: bool = True
    vmap: bool = True
    compiles: bool = True

    def expected(self, sample: Sample) -> Tensor:
        """The reference at each row of a sample, in float64."""
        rows = []
        for i in range(len(sample.inputs[0])):
            row = sample.rows(i)
            arrays = [x.double().numpy() for x in row.inputs]
            rows.append(self.reference(*arrays, **row.kwargs, **{k: v.numpy() for k, v in row.per_row.items()}))
        return torch.from_numpy(np.stack(rows))


@contextmanager
def as_users_call() -> Iterator[None]:
    """Without the runtime type checker of the tests: errors are the library's own, and torch.compile can trace."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


# -- smooth_topk ------------------------------------------------------------------------------------------------------


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


def scores(n: int, spread: float, seed: int, rows: int = 2) -> tuple[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, n, dtype=torch.float64, generator=generator) * spread,)


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


SMOOTH_TOPK = [
    OpInfo(
        "grad_topk",
        smooth_topk.grad_topk,
        enumerated_marginals,
        choosing(tau=0.7),
        choosing_at_the_edge(),
    ),
    OpInfo(
        "log_partition",
        smooth_topk.log_partition,
        enumerated_log_partition,
        choosing(),
        choosing_at_the_edge(),
    ),
    OpInfo(
        "log_elementary_symmetric",
        smooth_topk.log_elementary_symmetric,
        lambda x, k: np.stack([enumerated_log_partition(x, j) for j in range(k + 1)]),
        choosing(),
        choosing_at_the_edge(),
    ),
    OpInfo(
        "topk_cross_entropy",
        partial(smooth_topk.topk_cross_entropy, reduction="none"),
        enumerated_loss,
        with_targets(choosing(tau=0.7)),
        distant_targets,
    ),
    OpInfo(
        "threshold",
        smooth_topk.threshold,
        bracketed_threshold,
        choosing(f="sigmoid"),
    ),
    *(
        OpInfo(
            f"thre_topk_{f}",
            partial(smooth_topk.thre_topk, f=f),
            partial(bracketed_topk, f=f),
            choosing(tau=0.7),
            choosing_at_the_edge(),
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
        )
        for variant in ("shift", "weighted")
    ),
]


# -- rotary embedding and attention -----------------------------------------------------------------------------------


def rotated(x: Tensor, layout: str, inverse: bool) -> Tensor:
    """Rotate by positions 0, 1, … with six of eight components turning."""
    positions = torch.arange(x.shape[-2], device=x.device)
    cos, sin = rope.cos_sin(positions, rope.inverse_frequencies(6, 50.0), dtype=torch.float64)
    return rope.apply_rotary(
        x, *(t.to(torch.promote_types(x.dtype, torch.float32)) for t in (cos, sin)), layout=layout, inverse=inverse
    )


def rotation_matrices(x: np.ndarray, layout: str, inverse: bool) -> np.ndarray:
    out = np.empty_like(x)
    for m in range(x.shape[-2]):
        matrix = np.eye(x.shape[-1])
        for i in range(3):
            a, b = (i, i + 3) if layout == "half" else (2 * i, 2 * i + 1)
            angle = (-m if inverse else m) * 50.0 ** (-i / 3)
            matrix[[a, a, b, b], [a, b, a, b]] = [math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)]
        out[..., m, :] = x[..., m, :] @ matrix.T
    return out


def dense_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool, window: int | None) -> np.ndarray:
    heads, length, total = q.shape[-3], q.shape[-2], k.shape[-2]
    k, v = (np.repeat(t, heads // t.shape[-3], axis=-3) for t in (k, v))
    scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
    distance = np.arange(length)[:, None] + total - length - np.arange(total)
    hidden = np.zeros((length, total), bool)
    if causal:
        hidden = (distance < 0) | (distance >= (window or total + length))
    elif window:
        hidden = abs(distance) >= window
    scores = np.where(hidden, -np.inf, scores)
    return softmax(scores, axis=-1) @ v


def queries_keys_values() -> Iterator[Sample]:
    shapes = [(2, 3, 3, True, None), (1, 4, 6, True, 3), (1, 1, 5, True, None), (2, 3, 4, False, 2)]
    for seed, (kv_heads, length, total, causal, window) in enumerate(shapes):
        generator = torch.Generator().manual_seed(seed)
        sizes = [(2, 2, length, 4), (2, kv_heads, total, 4), (2, kv_heads, total, 3)]
        inputs = tuple(torch.randn(size, dtype=torch.float64, generator=generator) for size in sizes)
        yield Sample(inputs, {"causal": causal, "window": window})


SEQUENCES = [
    *(
        OpInfo(
            f"apply_rotary_{layout}{'_inverse' if inverse else ''}",
            partial(rotated, layout=layout, inverse=inverse),
            partial(rotation_matrices, layout=layout, inverse=inverse),
            lambda: [
                Sample((torch.randn(2, 3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),))
            ],
            lambda: [Sample((torch.tensor([0.0, -0.0, 1e30, -1e-30], dtype=torch.float64).repeat(2, 1, 2),))],
        )
        for layout, inverse in itertools.product(("half", "interleaved"), (False, True))
    ),
    OpInfo(
        "attention",
        attention,
        dense_attention,
        queries_keys_values,
        # PyTorch's fused kernels round the weights to the half type, and have neither second nor forward derivatives.
        half_tolerance=8.0,
        second_derivative=False,
        forward_mode=False,
    ),
]

OPS: list[OpInfo] = [*SMOOTH_TOPK, *SEQUENCES]
