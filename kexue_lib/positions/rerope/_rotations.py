"""The two rotary embeddings of rectified distances: one for near keys, one for far ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kexue_lib.positions.rope import Layout, apply_rotary, cos_sin


def score_dtype(x: Tensor) -> torch.dtype:
    """The dtype that scores are taken in: float32 for the half types."""
    return torch.promote_types(x.dtype, torch.float32)


def rotated(x: Tensor, positions: Tensor, inv_freq: Tensor, layout: Layout) -> Tensor:
    """``x`` turned to its positions, in the dtype that scores are taken in."""
    cos, sin = cos_sin(positions.to(x.device), inv_freq, dtype=score_dtype(x))
    if positions.ndim > 1:  # (batch, n, pairs) -> (batch, 1, n, pairs): the heads share the table
        cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)
    return apply_rotary(x.to(score_dtype(x)), cos, sin, layout=layout)


def far_queries(
    q: Tensor, positions: Tensor, inv_freq: Tensor, window: float | int, factor: float | int, layout: Layout
) -> Tensor:
    """Queries as far keys meet them, at w + (i − w) / k; for infinite k that is w for all of them."""
    if math.isinf(factor):
        places = torch.full((1,), float(window), dtype=torch.float64)
    else:
        places = (positions.to(torch.float64) - window) / factor + window
    return rotated(q, places, inv_freq, layout)


def far_keys(k: Tensor, positions: Tensor, inv_freq: Tensor, factor: float | int, layout: Layout) -> Tensor:
    """Keys as far queries meet them, at j / k; for infinite k they are not rotated at all."""
    if math.isinf(factor):
        return k.to(score_dtype(k))
    return rotated(k, positions.to(torch.float64) / factor, inv_freq, layout)
