"""The operators of naive Bayes context extension; the reference works token by token on probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled

from kexue_lib.attention import nbce


def nucleus(row: np.ndarray, top_p: float | None, top_k: int | None) -> np.ndarray:
    """Logits to log-probabilities, −inf outside the kept tokens."""
    finite = row[np.isfinite(row)].max()
    log_p = row - finite - math.log(math.fsum(np.exp(row - finite)))
    order = sorted(range(len(row)), key=lambda i: (-log_p[i], i))
    cut = np.full(len(row), -np.inf)
    mass = 0.0
    for rank, i in enumerate(order):
        if rank and ((top_k is not None and rank >= top_k) or (top_p is not None and mass >= top_p)):
            break
        cut[i] = log_p[i]
        mass += math.exp(log_p[i])
    return cut


def shannon(log_p: np.ndarray) -> float:
    return -math.fsum(math.exp(v) * v for v in log_p if v > -np.inf)


def jensen_shannon(contexts: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Half the relative entropies of each row and of the prior to their middle."""
    p0 = np.exp(nucleus(prior, None, None))
    halves = []
    for row in contexts:
        p = np.exp(nucleus(row, None, None))
        pairs = [(a, (x + y) / 2) for x, y in zip(p, p0) for a in (x, y)]
        halves.append(math.fsum(a * math.log(a / m) for a, m in pairs if a > 0) / 2)
    return np.asarray(halves)


def merged_token_by_token(
    contexts: np.ndarray,
    prior: np.ndarray | None = None,
    *,
    beta: float = 0.25,
    pooling: str = "min_entropy",
    top_p: float | None = 0.95,
    top_k: int | None = None,
    context_mask: np.ndarray | None = None,
    **_: object,
) -> np.ndarray:
    """The rule as its definition says it, one token after the other."""
    rows = [nucleus(row, top_p, top_k) for row in contexts]
    if context_mask is not None:
        rows = [row for row, there in zip(rows, context_mask) if there]
    chosen = min(rows, key=shannon)
    if pooling == "most_changed":
        present = contexts if context_mask is None else contexts[context_mask]
        chosen = rows[int(np.argmax(jensen_shannon(present, prior)))]
    out = np.empty(contexts.shape[-1])
    for t in range(len(out)):
        values = [row[t] for row in rows]
        if max(values) == -np.inf:
            out[t] = -np.inf
        elif pooling == "mean":
            out[t] = math.fsum(v if v > -np.inf else -100.0 for v in values) / len(values)
        elif pooling == "max":
            out[t] = max(values)
        elif pooling == "mixture":
            out[t] = math.log(math.fsum(math.exp(v) for v in values) / len(values))
        else:
            out[t] = chosen[t]
    if prior is None:
        return out
    prior = nucleus(prior, top_p, top_k)
    if beta == -1:
        return prior
    both = np.isfinite(prior) & np.isfinite(out)
    return np.where(both, (beta + 1) * np.where(both, out, 0) - beta * np.where(both, prior, 0), out)


def with_finite_cuts(contexts: torch.Tensor, prior: torch.Tensor, **options: object) -> torch.Tensor:
    """−1000 for the tokens that are cut: finite differences know no −inf."""
    logits = nbce.nbce_logits(contexts, prior, **options).logits
    return logits.masked_fill(logits == -torch.inf, -1000.0)


def reference(contexts: np.ndarray, prior: np.ndarray, **options: object) -> np.ndarray:
    return np.maximum(merged_token_by_token(contexts, prior, **options), -1000.0)


def draws(seed: int, n: int = 3, vocab: int = 6, **options: object) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, n + 1, vocab, dtype=torch.float64, generator=generator)
    return Sample((logits[:, 1:].clone(), logits[:, 0].clone()), options)


def samples(pooling: str) -> Iterator[Sample]:
    yield draws(0, pooling=pooling, top_p=None, beta=2.0)
    yield draws(1, pooling=pooling, top_p=0.9)
    yield draws(2, n=1, pooling=pooling, top_k=3, top_p=None, beta=-0.5)


def extreme(pooling: str) -> Iterator[Sample]:
    yield draws(3, pooling=pooling, top_p=None, beta=-1.0)
    sample = draws(4, pooling=pooling, top_p=0.7, beta=0.5)
    sample.inputs[0][:, :, 0] = -torch.inf  # impossible in every context
    sample.inputs[0][:, 1, 3] = -torch.inf
    sample.inputs[1][:, 2] = -torch.inf
    yield sample
    if pooling != "most_changed":  # there several divergences are log 2 in float32, and the choice is another
        wide = draws(5, pooling=pooling, top_p=0.999, beta=0.5)
        yield Sample((wide.inputs[0] * 30, wide.inputs[1] * 30), wide.kwargs)
    yield draws(6, vocab=1, pooling=pooling)


def changes() -> Iterator[Sample]:
    yield Sample(draws(7).inputs)
    yield Sample(draws(8, n=1).inputs)


def impossible() -> Iterator[Sample]:
    sample = draws(9)
    sample.inputs[0][:, :, 0] = sample.inputs[1][:, 0] = -torch.inf
    sample.inputs[0][:, 1, 3] = -torch.inf
    yield Sample(sample.inputs)


def entropies() -> Iterator[Sample]:
    generator = torch.Generator().manual_seed(0)
    yield Sample((torch.randn(2, 6, dtype=torch.float64, generator=generator).log_softmax(-1),))


ROWS, PRIOR = torch.ones(3, 5), torch.ones(5)
REFUSED = {
    "merge": spoiled(
        nbce.nbce_logits,
        {"context_logits": ROWS, "prior_logits": PRIOR},
        ({"context_logits": ROWS.long()}, TypeError, "context_logits: got torch.int64"),
        ({"prior_logits": PRIOR.long()}, TypeError, "prior_logits: got torch.int64"),
        ({"context_logits": ROWS[:0]}, ValueError, "context_logits: got shape (0, 5)"),
        ({"prior_logits": torch.zeros(6)}, ValueError, "prior_logits: got shape (6,)"),
        ({"prior_logits": None}, ValueError, "prior_logits: got None"),
        ({"prior_logits": None, "pooling": "most_changed", "beta": 0}, ValueError, "prior_logits: got None"),
        ({"pooling": "median"}, ValueError, "pooling: got 'median'"),
        ({"beta": -1.5}, ValueError, "beta: got -1.5"),
        ({"beta": math.nan}, ValueError, "beta: got nan"),
        ({"top_p": 0.0}, ValueError, "top_p: got 0.0"),
        ({"top_p": 1.5}, ValueError, "top_p: got 1.5"),
        ({"top_k": 0}, ValueError, "top_k: got 0"),
        ({"eta": -0.1}, ValueError, "eta: got -0.1"),
        (
            {"context_mask": torch.zeros(3, dtype=torch.bool)},
            ValueError,
            "context_mask: got a row without a present context",
        ),
        ({"context_mask": torch.ones(3)}, TypeError, "context_mask: got torch.float32"),
        ({"context_mask": torch.ones(4, dtype=torch.bool)}, ValueError, "context_mask: got shape (4,)"),
        ({"weights": PRIOR[:3]}, ValueError, "weights: got weights with pooling 'min_entropy'"),
    ),
    "entropy": spoiled(
        nbce.entropy_of,
        {"log_probs": ROWS.log_softmax(-1)},
        ({"log_probs": ROWS.long()}, TypeError, "log_probs: got torch.int64"),
        ({"log_probs": ROWS[:, :0]}, ValueError, "log_probs: got shape (3, 0)"),
    ),
    "divergence": spoiled(
        nbce.divergence,
        {"context_logits": ROWS, "prior_logits": PRIOR},
        ({"context_logits": ROWS.long()}, TypeError, "context_logits: got torch.int64"),
        ({"prior_logits": PRIOR.long()}, TypeError, "prior_logits: got torch.int64"),
        ({"prior_logits": torch.zeros(6)}, ValueError, "prior_logits: got shape (6,)"),
        ({"context_logits": ROWS[:0]}, ValueError, "context_logits: got shape (0, 5)"),
    ),
}

OPS = [
    OpInfo(
        f"nbce_{pooling}",
        with_finite_cuts,
        reference,
        partial(samples, pooling),
        partial(extreme, pooling),
        errors=REFUSED["merge"],
        dtypes=(torch.float64, torch.float32),  # half types give float32: see test_nbce.py
        tolerance=256.0,
    )
    for pooling in ("mean", "max", "min_entropy", "mixture", "most_changed")
] + [
    OpInfo("nbce_entropy", nbce.entropy_of, lambda row: np.asarray(shannon(row)), entropies, errors=REFUSED["entropy"]),
    OpInfo(
        "nbce_divergence",
        nbce.divergence,
        jensen_shannon,
        changes,
        impossible,
        errors=REFUSED["divergence"],
        dtypes=(torch.float64, torch.float32),
        tolerance=256.0,
    ),
]
