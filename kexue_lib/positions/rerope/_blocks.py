"""Scores of a block of queries at a time: which keys can be near or far, and their one softmax."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kexue_lib._tracing import is_traced


class Span(NamedTuple):
    """Queries ``start:stop``, whose far keys are among ``:far_stop`` and near ones among ``near_start:key_stop``.

    Only the keys ``near_start:far_stop`` can be either.
    """

    start: int
    stop: int
    near_start: int
    far_stop: int
    key_stop: int


def default_spans(n: int, total: int, window: float | int, block_size: int) -> list[Span]:
    """Spans of the last ``n`` of ``total`` consecutive positions."""
    spans = []
    for start in range(0, n, block_size):
        stop = min(start + block_size, n)
        first, last = total - n + start, total - n + stop - 1
        # Keys at positions up to x are the first floor(x) + 1.
        counts = [min(max(math.floor(x) + 1, 0), total) for x in (first - window, last - window, last)]
        spans.append(Span(start, stop, *counts))
    return spans


def spans_of(q_positions: Tensor, k_positions: Tensor, window: float | int, block_size: int) -> list[Span]:
    """Spans of given positions, sorted along their last dimension; for a batch of them, wide enough for all rows."""
    n, total = q_positions.shape[-1], k_positions.shape[-1]
    starts = list(range(0, n, block_size))
    stops = [min(start + block_size, n) for start in starts]
    if is_traced():  # positions cannot be read: every key may be near or far
        return [Span(start, stop, 0, total, total) for start, stop in zip(starts, stops)]
    first = q_positions[..., starts].to(torch.float64)
    last = q_positions[..., [stop - 1 for stop in stops]].to(torch.float64)
    keys = k_positions.to(torch.float64).contiguous()
    bounds = []
    for limit, widest in ((first - window, torch.amin), (last - window, torch.amax), (last, torch.amax)):
        count = torch.searchsorted(keys, limit.contiguous(), right=True)
        bounds.append(widest(count.reshape(-1, len(starts)), 0))
    return [Span(start, stop, *counts) for start, stop, counts in zip(starts, stops, torch.stack(bounds, 1).tolist())]


def attend(
    near: tuple[Tensor, Tensor],
    far: tuple[Tensor, Tensor],
    v: Tensor,
    positions: tuple[Tensor, Tensor],
    spans: list[Span],
    first: int,
    window: float | int,
    with_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """Output and log-sum-exp of all queries.

    Args:
        near: queries ``(..., H, n, d)``, times the scale, and keys ``(..., G, N - first, d)`` rotated for near pairs.
        far: the same for far pairs, with all N keys.
        v: ``(..., G, N, dv)``.
        positions: of queries and keys, each sorted.
        spans: of the queries.
        first: key with which the near keys begin.
        window: w.
        with_lse: whether the second result is wanted.
    """
    (q_near, k_near), (q_far, k_far), (q_positions, k_positions) = near, far, positions
    groups, heads = v.shape[-3], q_near.shape[-3]
    q_near, q_far = (q.unflatten(-3, (groups, heads // groups)) for q in (q_near, q_far))
    tensors = (q_near, k_near, q_far, k_far, v)
    # Under autograd a block's scores are computed again in the backward pass; kept, they would be half a matrix.
    again = torch.is_grad_enabled() and not is_traced() and any(t.requires_grad for t in tensors)
    outputs, lses = [], []
    for start, stop, near_start, far_stop, key_stop in reversed(spans):  # the room of a longer row serves a shorter one
        relative = q_positions[..., start:stop, None] - k_positions[..., None, near_start:key_stop]
        arguments = (
            q_near[..., start:stop, :],
            k_near[..., near_start - first : key_stop - first, :],
            q_far[..., start:stop, :],
            k_far[..., :far_stop, :],
            v[..., :key_stop, :],
            relative[..., None, None, :, :] if relative.ndim > 2 else relative,
            far_stop - near_start,
            window,
            with_lse,
        )
        if again:
            out, lse = checkpoint(_one_block, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            out, lse = _one_block(*arguments)
        outputs.append(out)
        lses.append(lse)
    if not spans:
        return v.new_zeros((*near[0].shape[:-1], v.shape[-1])), near[0].new_zeros(near[0].shape[:-1])
    out = torch.cat(outputs[::-1], dim=-2).flatten(-4, -3)
    lse = torch.cat(lses[::-1], dim=-1).flatten(-3, -2) if with_lse else None
    return _without_blind(out, lse, q_positions, k_positions)


def _one_block(
    q_near: Tensor,
    k_near: Tensor,
    q_far: Tensor,
    k_far: Tensor,
    v: Tensor,
    relative: Tensor,
    straddle: int,
    window: float | int,
    with_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """One softmax over far keys, keys that are near to some queries and far to others, and near keys."""
    # A finite value, and not −∞, so that a row without any key has no NaN in its gradient.
    hidden = torch.finfo(q_near.dtype).min
    near, far = _scores(q_near, k_near), _scores(q_far, k_far)
    near = near.masked_fill(relative < 0, hidden)
    only_far = far.shape[-1] - straddle
    middle = torch.where(relative[..., :straddle] < window, near[..., :straddle], far[..., only_far:])
    scores = torch.cat([far[..., :only_far], middle, near[..., straddle:]], dim=-1)
    weights = scores.softmax(-1)
    out = weights.flatten(-3, -2) @ v  # the heads of a group are rows of one product: keys are not repeated
    out = out.unflatten(-2, weights.shape[-3:-1])
    if not with_lse:
        return out, None
    return out, scores.logsumexp(-1) if scores.shape[-1] else scores.new_zeros(scores.shape[:-1])


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return (q.flatten(-3, -2) @ k.mT).unflatten(-2, q.shape[-3:-1])


def _without_blind(
    out: Tensor, lse: Tensor | None, q_positions: Tensor, k_positions: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Zeros and −∞ for queries before the first key."""
    if k_positions.shape[-1]:
        sees = q_positions >= k_positions[..., :1]
        sees = sees.unsqueeze(-2) if sees.ndim > 1 else sees
    else:
        sees = torch.zeros(q_positions.shape[-1], dtype=torch.bool, device=out.device)
    out = torch.where(sees.unsqueeze(-1), out, 0.0)
    return out, None if lse is None else torch.where(sees, lse, -math.inf)
