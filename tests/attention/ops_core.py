"""Attention; reference: the dense formula with an explicit mask."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from scipy.special import softmax

from kexue_lib.attention.core import attention


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


ONES = torch.ones(1, 2, 3, 4)
REFUSED = {
    "attention": spoiled(
        attention,
        {"query": ONES, "key": ONES, "value": ONES},
        ({"query": ONES.long()}, TypeError, "query: got torch.int64"),
        ({"value": ONES.cfloat()}, TypeError, "value: got torch.complex64"),
        ({"key": [1.0]}, TypeError, "key: got list"),
        ({"query": ONES[:, :1].expand(1, 3, 3, 4)}, ValueError, "query: got 3 heads"),
        ({"key": ONES[..., :3]}, ValueError, "key: got head dimension 3"),
        ({"value": ONES[..., :2, :]}, ValueError, "value: got length 2"),
        ({"value": ONES[:, :1]}, ValueError, "value: got number of heads 1"),
        ({"query": ONES[0, 0, 0]}, ValueError, "query: got shape (4,)"),
        ({"mask": torch.ones(3, 3, dtype=torch.long)}, TypeError, "mask: got torch.int64"),
        ({"window": 0}, ValueError, "window: got 0"),
        ({"window": -1}, ValueError, "window: got -1"),
        ({"scale": "1"}, TypeError, "scale: got '1'"),
        ({"dropout": 1.5}, ValueError, "dropout: got 1.5"),
    ),
}

OPS = [
    OpInfo(
        "attention",
        attention,
        dense_attention,
        queries_keys_values,
        errors=REFUSED["attention"],
        # PyTorch's fused kernels round the weights to the half type, and have neither second nor forward derivatives.
        half_tolerance=8.0,
        second_derivative=False,
        forward_mode=False,
        autocast=True,
    ),
]
