"""Near and far keys by two calls of FlexAttention, each with a mask that is sparse in blocks."""

from __future__ import annotations

import math
from functools import cache, lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from kexue_lib.positions.rerope._rotations import far_keys, far_queries, rotated
from kexue_lib.positions.rope import Layout


def flex_parts(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inv_freq: Tensor,
    window: float | int,
    factor: float | int,
    scale: float,
    layout: Layout,
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and log-sum-exps of the near and of the far keys, for queries at the last of the keys' positions."""
    n, total = q.shape[-2], k.shape[-2]
    k_positions = torch.arange(total, device=q.device)
    q_positions = k_positions[total - n :]
    pairs = (
        (rotated(q, q_positions, inv_freq, layout), rotated(k, k_positions, inv_freq, layout)),
        (
            far_queries(q, q_positions, inv_freq, window, factor, layout),
            far_keys(k, k_positions, inv_freq, factor, layout),
        ),
    )
    masks = _block_masks(n, total, math.ceil(window), str(q.device))
    outputs, lses = [], []
    for (queries, keys), mask in zip(pairs, masks):
        out, lse = _flex(queries.to(q.dtype), keys.to(q.dtype), v, mask, scale)
        outputs.append(out)
        lses.append(lse)
    return outputs, lses


def _flex(q: Tensor, k: Tensor, v: Tensor, mask: Any, scale: float) -> tuple[Tensor, Tensor]:
    from torch.nn.attention.flex_attention import AuxRequest

    inputs = [t.reshape(-1, *t.shape[-3:]) for t in (q, k, v)]
    out, aux = _kernel(q.is_cuda)(
        *inputs,
        block_mask=mask,
        scale=scale,
        enable_gqa=q.shape[-3] != k.shape[-3],
        return_aux=AuxRequest(lse=True),
    )
    return out.reshape(*q.shape[:-1], v.shape[-1]), aux.lse.reshape(q.shape[:-1])


@cache
def _kernel(compiled: bool) -> Any:
    """FlexAttention, compiled where a GPU runs it; uncompiled it is a slow form for checks."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if compiled else flex_attention


@lru_cache(maxsize=16)
def _block_masks(n: int, total: int, window: int, device: str) -> tuple[Any, Any]:
    """The masks 0 ≤ r < w and r ≥ w; together they are the causal mask."""
    from torch.nn.attention.flex_attention import create_block_mask

    make = partial(create_block_mask, B=None, H=None, Q_LEN=n, KV_LEN=total, device=device)
    offset = total - n
    return (
        make(lambda _batch, _head, i, j: (i + offset >= j) & (i + offset - j < window)),
        make(lambda _batch, _head, i, j: i + offset - j >= window),
    )
