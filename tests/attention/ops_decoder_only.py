"""The operators of the decoder-only chapter; references: loops, NumPy's and SciPy's decompositions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from scipy.linalg import solve_triangular
from torch import Tensor

from kexue_lib.attention import decoder_only


def draws(*shape: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * spread


def pairs(spread: float = 1.0) -> Iterator[Sample]:
    for seed, (n, d) in enumerate([(5, 3), (1, 2), (7, 2)]):
        yield Sample((draws(2, n, d, seed=seed, spread=spread), draws(2, n, d, seed=seed + 9, spread=spread)))


def far_apart() -> Iterator[Sample]:
    yield Sample((draws(2, 4, 2, spread=300.0), draws(2, 4, 2, seed=1, spread=100.0)))


def masked_softmax(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    out = np.zeros((len(q), len(k)))
    for i in range(len(q)):
        scores = np.array([q[i] @ k[j] for j in range(i + 1)]) / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max())
        out[i, : i + 1] = weights / weights.sum()
    return out


def causal_softmax(query: Tensor, key: Tensor) -> Tensor:
    return decoder_only.attention_matrix(query, key, mask=decoder_only.head_masks("causal", query.shape[-2])[0])


def linear_weights(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    weights = np.array([[np.exp(a + b).sum() for b in k] for a in q])
    return weights / weights.sum(-1, keepdims=True)


def log_diagonal(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """In the log domain: the weight of the own token underflows where the scores are far apart."""
    scores = q @ k.T / np.sqrt(q.shape[-1])
    return np.asarray(sum(scores[i, i] - np.logaddexp.reduce(scores[i, : i + 1]) for i in range(len(q))))


def triangular(attention: Tensor, output: Tensor) -> Tensor:
    """With what lies above the diagonal removed, so that finite differences may touch it."""
    return decoder_only.causal_recover(attention.tril(), output)


def systems() -> Iterator[Sample]:
    for n in (1, 5):
        matrix = draws(2, n, n, seed=n).softmax(-1).tril() + torch.eye(n, dtype=torch.float64)
        yield Sample((matrix, draws(2, n, 3, seed=n + 1)))


def entropy_of_spectrum(a: np.ndarray) -> np.ndarray:
    sigma = np.linalg.svd(a, compute_uv=False)
    p = sigma / sigma.sum()
    return np.asarray(np.exp(-(p * np.log(p)).sum()))


def heads() -> Iterator[Sample]:
    for seed, (h, n) in enumerate([(2, 5), (4, 3), (2, 1)]):
        yield Sample(tuple(draws(2, h, n, 4, seed=seed + 10 * i) for i in range(3)))


def two_directions(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    half = len(q) // 2
    forwards = [masked_softmax(a, b) @ c for a, b, c in zip(q[:half], k[:half], v[:half])]
    backwards = [(masked_softmax(a[::-1], b[::-1]) @ c[::-1])[::-1] for a, b, c in zip(q[half:], k[half:], v[half:])]
    return np.stack([*forwards, *backwards])


ONES, EYE = torch.ones(3, 2), torch.eye(3)
HEADS = torch.ones(2, 4, 3)
REFUSED = {
    "softmax": spoiled(
        decoder_only.attention_matrix,
        {"query": ONES, "key": ONES},
        ({"query": ONES.long()}, TypeError, "query: got torch.int64"),
        ({"key": ONES.long()}, TypeError, "key: got torch.int64"),
        ({"key": torch.ones(3, 4)}, ValueError, "key: got width 4"),
        ({"query": ONES[0]}, ValueError, "query: got shape (2,)"),
        ({"mask": torch.ones(3, 3)}, TypeError, "mask: got torch.float32"),
        ({"kind": "cosine"}, ValueError, "kind: got 'cosine'"),
        ({"scale": "1"}, TypeError, "scale: got '1'"),
    ),
    "linear": spoiled(
        decoder_only.attention_matrix,
        {"query": ONES, "key": ONES, "kind": "linear"},
        ({"query": ONES.long()}, TypeError, "query: got torch.int64"),
        ({"key": torch.ones(3, 4)}, ValueError, "key: got width 4"),
        ({"key": ONES[0]}, ValueError, "key: got shape (2,)"),
        ({"scale": 1.0}, ValueError, "scale: got 1.0"),
        ({"feature_map": torch.neg}, ValueError, "feature_map: got negative values"),
    ),
    "logdet": spoiled(
        decoder_only.causal_logdet,
        {"query": ONES, "key": ONES},
        ({"query": ONES.long()}, TypeError, "query: got torch.int64"),
        ({"key": ONES.cfloat()}, TypeError, "key: got torch.complex64"),
        ({"key": torch.ones(4, 2)}, ValueError, "key: got shape (4, 2)"),
        ({"query": ONES[0]}, ValueError, "query: got shape (2,)"),
        ({"block_size": 0}, ValueError, "block_size: got 0"),
        ({"scale": "1"}, TypeError, "scale: got '1'"),
    ),
    "recover": spoiled(
        decoder_only.causal_recover,
        {"attention": EYE, "output": ONES},
        ({"attention": EYE.cfloat()}, TypeError, "attention: got torch.complex64"),
        ({"output": ONES.long()}, TypeError, "output: got torch.int64"),
        ({"attention": torch.ones(3, 3)}, ValueError, "attention: got entries above the diagonal"),
        ({"attention": torch.ones(3, 2)}, ValueError, "attention, output: got shapes (3, 2) and (3, 2)"),
        ({"attention": torch.eye(2)}, ValueError, "attention, output: got shapes (2, 2) and (3, 2)"),
        ({"attention": EYE * torch.tensor([1.0, 0, 1])}, ValueError, "attention: got a zero on the diagonal"),
        ({"output": ONES[0]}, ValueError, "output: got shape (2,)"),
    ),
    "residual": spoiled(
        decoder_only.collapse_residual,
        {"x": ONES},
        ({"x": ONES.long()}, TypeError, "x: got torch.int64"),
        ({"x": ONES.cfloat()}, TypeError, "x: got torch.complex64"),
        ({"x": ONES[:0]}, ValueError, "x: got shape (0, 2)"),
        ({"x": ONES[0]}, ValueError, "x: got shape (2,)"),
    ),
    "report": spoiled(
        decoder_only.rank_report,
        {"matrix": EYE},
        ({"matrix": EYE.long()}, TypeError, "matrix: got torch.int64"),
        ({"matrix": torch.ones(0, 3)}, ValueError, "matrix: got shape (0, 3)"),
        ({"matrix": EYE[0]}, ValueError, "matrix: got shape (3,)"),
        ({"matrix": torch.full((2, 2), math.nan)}, ValueError, "matrix: got entries that are not finite"),
        ({"rtol": -1.0}, ValueError, "rtol: got -1.0"),
    ),
    "mixed": spoiled(
        decoder_only.mixed_attention,
        {"query": HEADS, "key": HEADS, "value": HEADS},
        ({"query": HEADS.long()}, TypeError, "query: got torch.int64"),
        ({"value": HEADS.cfloat()}, TypeError, "value: got torch.complex64"),
        ({"query": HEADS[0]}, ValueError, "query: got shape (4, 3)"),
        ({"key": HEADS[:, :3]}, ValueError, "key: got 3 tokens"),
        ({"scale": "1"}, TypeError, "scale: got '1'"),
    ),
}

OPS = [
    OpInfo(
        "attention_matrix_softmax",
        causal_softmax,
        masked_softmax,
        pairs,
        far_apart,
        errors=REFUSED["softmax"],
        half_tolerance=4.0,
    ),
    OpInfo(
        "attention_matrix_linear",
        partial(decoder_only.attention_matrix, kind="linear"),
        linear_weights,
        pairs,
        errors=REFUSED["linear"],
        half_tolerance=4.0,
    ),
    OpInfo(
        "causal_logdet",
        partial(decoder_only.causal_logdet, block_size=3),
        log_diagonal,
        pairs,
        far_apart,
        errors=REFUSED["logdet"],
        half_tolerance=4.0,
        forward_mode=False,
    ),
    OpInfo(
        "causal_recover",
        triangular,
        lambda a, o: solve_triangular(np.tril(a), o, lower=True),
        systems,
        errors=REFUSED["recover"],
        half_tolerance=16.0,
        vmap=False,  # it looks at the values to refuse a zero on the diagonal
    ),
    OpInfo(
        "collapse_residual",
        decoder_only.collapse_residual,
        lambda x: np.asarray(np.linalg.norm(x - x.mean(0)) / np.linalg.norm(x)),
        lambda: [Sample((draws(3, 5, 4),)), Sample((draws(2, 2, 1, seed=1),))],
        lambda: [Sample((torch.tensor([[[6e4, 1.0], [-6e4, 1.0]], [[1e-3, 0.0], [2e-3, 0.0]]], dtype=torch.float64),))],
        errors=REFUSED["residual"],
    ),
    OpInfo(
        "rank_report_effective_rank",
        lambda x: decoder_only.rank_report(x).effective_rank,
        entropy_of_spectrum,
        lambda: [Sample((draws(2, 4, 4),)), Sample((draws(3, 5, 2, seed=1),))],
        errors=REFUSED["report"],
        dtypes=(torch.float64,),
        vmap=False,  # it looks at the values to refuse what is not finite
    ),
    OpInfo(
        "mixed_attention",
        decoder_only.mixed_attention,
        two_directions,
        heads,
        errors=REFUSED["mixed"],
        half_tolerance=8.0,
        second_derivative=False,
        forward_mode=False,
        autocast=True,
    ),
]
