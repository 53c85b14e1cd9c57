"""Attention with rectified distances: by blocks, by FlexAttention, and with two full matrices as in the article."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, overload

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib._tracing import is_traced
from kexue_lib.positions.rerope import _blocks as blocks
from kexue_lib.positions.rerope._distances import check_rectifier
from kexue_lib.positions.rerope._flex import flex_parts
from kexue_lib.positions.rerope._rotations import far_keys, far_queries, rotated, score_dtype
from kexue_lib.positions.rope import Layout


@overload
def rerope_attention(
    q: Float[Tensor, "*batch H n d"],
    k: Float[Tensor, "*batch G N d2"],
    v: Float[Tensor, "*batch G2 N2 dv"],
    inv_freq: Float[Tensor, " pairs"],
    *,
    window: float | int,
    factor: float | int = math.inf,
    q_positions: Tensor | None = None,
    k_positions: Tensor | None = None,
    scale: float | None = None,
    layout: Layout = "half",
    block_size: int = 128,
    backend: Literal["blocks", "flex"] = "blocks",
    return_lse: Literal[False] = False,
) -> Float[Tensor, "*batch H n dv"]: ...


@overload
def rerope_attention(
    q: Float[Tensor, "*batch H n d"],
    k: Float[Tensor, "*batch G N d2"],
    v: Float[Tensor, "*batch G2 N2 dv"],
    inv_freq: Float[Tensor, " pairs"],
    *,
    window: float | int,
    factor: float | int = math.inf,
    q_positions: Tensor | None = None,
    k_positions: Tensor | None = None,
    scale: float | None = None,
    layout: Layout = "half",
    block_size: int = 128,
    backend: Literal["blocks", "flex"] = "blocks",
    return_lse: Literal[True],
) -> tuple[Float[Tensor, "*batch H n dv"], Float[Tensor, "*batch H n"]]: ...


@overload
def rerope_attention(
    q: Float[Tensor, "*batch H n d"],
    k: Float[Tensor, "*batch G N d2"],
    v: Float[Tensor, "*batch G2 N2 dv"],
    inv_freq: Float[Tensor, " pairs"],
    *,
    window: float | int,
    factor: float | int = math.inf,
    q_positions: Tensor | None = None,
    k_positions: Tensor | None = None,
    scale: float | None = None,
    layout: Layout = "half",
    block_size: int = 128,
    backend: Literal["blocks", "flex"] = "blocks",
    return_lse: bool = False,
) -> Float[Tensor, "*batch H n dv"] | tuple[Float[Tensor, "*batch H n dv"], Float[Tensor, "*batch H n"]]: ...


@without_autocast
def rerope_attention(
    q: Float[Tensor, "*batch H n d"],
    k: Float[Tensor, "*batch G N d2"],
    v: Float[Tensor, "*batch G2 N2 dv"],
    inv_freq: Float[Tensor, " pairs"],
    *,
    window: float | int,
    factor: float | int = math.inf,
    q_positions: Tensor | None = None,
    k_positions: Tensor | None = None,
    scale: float | None = None,
    layout: Layout = "half",
    block_size: int = 128,
    backend: Literal["blocks", "flex"] = "blocks",
    return_lse: bool = False,
) -> Float[Tensor, "*batch H n dv"] | tuple[Float[Tensor, "*batch H n dv"], Float[Tensor, "*batch H n"]]:
    r"""Causal attention in which a key at distance r counts as if it stood at the rectified distance.

    .. math:: o_i=\sum_{j\le i}\operatorname{softmax}_j\big(s\,q_i^\top R_{-\rho(i-j)}k_j\big)\,v_j

    Args:
        q: ``(..., H, n, d)``, not rotated.
        k: ``(..., G, N, d)``, not rotated; G divides H and query head h uses key head h // (H // G).
        v: ``(..., G, N, dv)``.
        inv_freq: ``(pairs,)`` radians per position; with fewer than d / 2 pairs the other components do not turn.
        window: w ≥ 0 tokens.
        factor: k > 0; infinite for ReRoPE, finite for Leaky ReRoPE.
        q_positions: ``(n,)`` or ``(*batch, n)``, in any order; default: the last n of the keys'.
        k_positions: ``(N,)`` or ``(*batch, N)``; default 0…N − 1. A key is visible iff its position is not above the
            query's.
        scale: s; default ``d ** -0.5``.
        layout: of the rotary pairs.
        block_size: queries whose scores are held at a time.
        backend: ``"blocks"`` runs anywhere; ``"flex"`` merges two calls of FlexAttention, for default positions (made
            for GPUs: elsewhere it is slow and holds all scores).
        return_lse: also return the logarithm of the sum of the exponentials of every row's scores.

    Returns:
        ``(..., H, n, dv)`` in the dtype of ``q``, and ``lse`` ``(..., H, n)`` in the dtype of the scores, float32 at
        least. A query that sees no key gets 0 and −∞.

    Raises:
        TypeError: ``inv_freq`` is not floating, ``block_size`` no integer.
        ValueError: ``k`` (dim, heads), ``v`` (heads, length), ``window``, ``factor``, ``block_size``, ``layout``,
            ``backend``, or positions of another length.

    Cost: each score once, twice where a block straddles r = w; memory O(``block_size`` · N) for each head, also under
    autograd, where blocks are computed again in the backward pass. Only keys that are near to some query are rotated,
    for infinite k. Under torch.compile with given positions, twice the scores. Source: arXiv 2104.09864 for the
    rotation; https://kexue.fm/archives/9708.

    >>> q = k = v = torch.ones(1, 4, 2)
    >>> rerope_attention(q, k, v, torch.ones(1), window=2).shape
    torch.Size([1, 4, 2])
    """
    check_integer("block_size", block_size, 1)
    check_one_of("backend", backend, ("blocks", "flex"))
    given = q_positions is not None or k_positions is not None
    q_positions, k_positions = _accepted(q, k, v, inv_freq, window, factor, q_positions, k_positions)
    weight: float = q.shape[-1] ** -0.5 if scale is None else scale
    check_number("scale", weight)
    if backend == "flex":
        if given or q.shape[-2] > k.shape[-2]:
            kind = "positions" if given else "more queries than keys"
            raise ValueError(f"backend: got 'flex' with {kind}, expected 'blocks'")
        out, lse = merge_attention(*flex_parts(q, k, v, inv_freq, window, factor, weight, layout))
        return (out.to(q.dtype), lse) if return_lse else out.to(q.dtype)
    unsort, spans = None, blocks.default_spans(q.shape[-2], k.shape[-2], window, block_size)
    if given:
        q, k, v, q_positions, k_positions, unsort = _sorted(q, k, v, q_positions, k_positions)
        spans = blocks.spans_of(q_positions, k_positions, window, block_size)
    first = spans[0].near_start if spans else 0
    near = (
        rotated(q, q_positions, inv_freq, layout) * weight,
        rotated(k[..., first:, :], k_positions[..., first:], inv_freq, layout),
    )
    far = (
        far_queries(q, q_positions, inv_freq, window, factor, layout) * weight,
        far_keys(k, k_positions, inv_freq, factor, layout),
    )
    positions, values = (q_positions, k_positions), v.to(score_dtype(q))
    out, lse = blocks.attend(near, far, values, positions, spans, first, window, return_lse)
    if unsort is not None:
        out = _taken(out, unsort)
        lse = None if lse is None else _taken(lse.unsqueeze(-1), unsort).squeeze(-1)
    return (out.to(q.dtype), lse) if return_lse and lse is not None else out.to(q.dtype)


@without_autocast
@without_autocast
def rerope_attention_reference(
    q: Float[Tensor, "*batch H n d"],
    k: Float[Tensor, "*batch G N d2"],
    v: Float[Tensor, "*batch G2 N2 dv"],
    inv_freq: Float[Tensor, " pairs"],
    *,
    window: float | int,
    factor: float | int = math.inf,
    q_positions: Tensor | None = None,
    k_positions: Tensor | None = None,
    scale: float | None = None,
    layout: Layout = "half",
    return_lse: bool = False,
) -> Float[Tensor, "*batch H n dv"] | tuple[Float[Tensor, "*batch H n dv"], Float[Tensor, "*batch H n"]]:
    """The same as the article has it: two full matrices of scores, and a choice between them for each pair.

    Args:
        q: as in :func:`rerope_attention`.
        k: as there.
        v: as there.
        inv_freq: as there.
        window: as there.
        factor: as there.
        q_positions: as there.
        k_positions: as there.
        scale: as there.
        layout: as there.
        return_lse: as there.

    Returns:
        As :func:`rerope_attention`.

    Raises:
        TypeError, ValueError: as :func:`rerope_attention`.

    Cost: twice the scores of attention without a causal mask, and memory O(n · N) for each head. Source:
    https://kexue.fm/archives/9708 and github.com/bojone/rerope.

    >>> q = k = v = torch.ones(1, 4, 2)
    >>> rerope_attention_reference(q, k, v, torch.ones(1), window=2).shape
    torch.Size([1, 4, 2])
    """
    q_positions, k_positions = _accepted(q, k, v, inv_freq, window, factor, q_positions, k_positions)
    weight: float = q.shape[-1] ** -0.5 if scale is None else scale
    check_number("scale", weight)
    group = q.shape[-3] // k.shape[-3]
    dtype = q.dtype
    k, v = k.repeat_interleave(group, -3), v.repeat_interleave(group, -3).to(score_dtype(v))
    near = rotated(q, q_positions, inv_freq, layout) @ rotated(k, k_positions, inv_freq, layout).mT
    q_far = far_queries(q, q_positions, inv_freq, window, factor, layout)
    far = q_far @ far_keys(k, k_positions, inv_freq, factor, layout).mT
    relative = q_positions.unsqueeze(-1) - k_positions.unsqueeze(-2)
    relative = relative.unsqueeze(-3) if relative.ndim > 2 else relative
    scores = torch.where(relative < window, near, far) * weight
    out = average_of_visible(scores, relative >= 0, v).to(dtype)
    return (out, scores.masked_fill(relative < 0, -math.inf).logsumexp(-1)) if return_lse else out


def average_of_visible(scores: Tensor, visible: Tensor, v: Tensor) -> Tensor:
    """Softmax attention over visible keys; zeros for a row without any."""
    weights = scores.masked_fill(~visible, torch.finfo(scores.dtype).min).softmax(-1)
    return torch.where(visible.any(-1, keepdim=True), weights @ v, 0.0)


def merge_attention(
    outputs: Sequence[Float[Tensor, "*shape dv"]], lses: Sequence[Float[Tensor, "*shape"]]
) -> tuple[Float[Tensor, "*shape dv"], Float[Tensor, "*shape"]]:
    r"""Return attention over a union of disjoint sets of keys from attention over each of them.

    .. math:: o=\frac{\sum_se^{\ell_s}o_s}{\sum_se^{\ell_s}},\qquad\ell=\log\sum_se^{\ell_s}

    Args:
        outputs: :math:`o_s`, each ``(..., dv)``.
        lses: :math:`\ell_s`, each ``(...)``, natural logarithms; −∞ for an empty set, whose output does not count.

    Returns:
        Output and log-sum-exp of the union, in the dtype of the log-sum-exps; 0 and −∞ where all sets are empty.

    Raises:
        ValueError: no set, or not as many log-sum-exps as outputs.

    Cost: O(dv) for each row and set. Source: Dao et al., *FlashAttention*, arXiv 2205.14135, section 3.1.

    >>> out, lse = merge_attention([torch.tensor([1.0]), torch.tensor([4.0])], [torch.tensor(0.0), torch.tensor(0.0)])
    >>> out, lse
    (tensor([2.5000]), tensor(0.6931))
    """
    if not outputs or len(outputs) != len(lses):
        raise ValueError(f"lses: got {len(lses)} for {len(outputs)} outputs, expected as many, at least one")
    for name, tensors in (("outputs", outputs), ("lses", lses)):
        for x in tensors:
            check_dtype(name, x, "floating")
            check_shape(name, x, outputs[0].shape if name == "outputs" else outputs[0].shape[:-1], "as outputs[0] has")
    stacked = torch.stack(list(lses))
    top = stacked.amax(0)
    # Where every set is empty −∞ − (−∞) would be NaN, and so would the gradient of a value that is not used.
    top = torch.where(top == -math.inf, 0.0, top).detach()
    weights = (stacked - top).exp()
    total = weights.sum(0)
    some = total > 0
    shares = (weights / torch.where(some, total, 1.0)).unsqueeze(-1)
    parts = torch.stack([out.to(stacked.dtype) for out in outputs])
    out = torch.where(shares > 0, shares * parts, 0.0).sum(0)
    return out, torch.where(some, top + torch.where(some, total, 1.0).log(), -math.inf)


def check_frequencies(inv_freq: Tensor, width: int) -> None:
    """Refuse what are no speeds of at least one pair, and of no more than the width has."""
    check_dtype("inv_freq", inv_freq, "floating")
    if inv_freq.dim() != 1 or not 1 <= len(inv_freq) <= width // 2:
        raise ValueError(f"inv_freq: got shape {tuple(inv_freq.shape)}, expected (pairs,) with 1 to {width // 2} pairs")


def check_heads(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Refuse tensors that are no queries, keys and values of one attention."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_dtype(name, x, "floating")
        check_shape(name, x, ("...", "heads", "length", "d"))
    for name, what, got, expected, other in (
        ("k", "dim", k.shape[-1], q.shape[-1], "q"),
        ("v", "length", v.shape[-2], k.shape[-2], "k"),
        ("v", "heads", v.shape[-3], k.shape[-3], "k"),
    ):
        if got != expected:
            raise ValueError(f"{name}: got {what} {got}, expected {expected} as {other} has")
    if q.shape[-3] % k.shape[-3]:
        raise ValueError(f"q: got {q.shape[-3]} heads, expected a multiple of the {k.shape[-3]} of k")


def _accepted(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inv_freq: Tensor,
    window: float | int,
    factor: float | int,
    q_positions: Tensor | None,
    k_positions: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Positions of queries and keys, after everything that both forms of attention refuse."""
    check_rectifier(window, factor)
    check_heads(q, k, v)
    check_frequencies(inv_freq, q.shape[-1])
    n, total = q.shape[-2], k.shape[-2]
    if k_positions is None:
        k_positions = torch.arange(total, device=q.device)
    if q_positions is None:
        # Before the first key where there are more queries than keys.
        q_positions = k_positions[..., total - n :] if n <= total else torch.arange(total - n, total, device=q.device)
    for name, positions, expected in (("q_positions", q_positions, n), ("k_positions", k_positions, total)):
        if positions.ndim == 0 or positions.shape[-1] != expected:
            raise ValueError(f"{name}: got shape {tuple(positions.shape)}, expected (..., {expected})")
    return q_positions.to(q.device), k_positions.to(q.device)


def _sorted(
    q: Tensor, k: Tensor, v: Tensor, q_positions: Tensor, k_positions: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Everything in the order of positions, and what brings the rows of the result back; None if all were in order."""
    if q_positions.ndim != k_positions.ndim:
        rank = max(q_positions.ndim, k_positions.ndim)
        batch = q.shape[:-3]
        q_positions, k_positions = (p if p.ndim == rank else p.expand(*batch, -1) for p in (q_positions, k_positions))
    if not is_traced() and all(bool((p.diff(dim=-1) >= 0).all()) for p in (q_positions, k_positions)):
        return q, k, v, q_positions, k_positions, None
    q_positions, q_order = q_positions.sort(dim=-1)
    k_positions, k_order = k_positions.sort(dim=-1)
    q, k, v = _taken(q, q_order), _taken(k, k_order), _taken(v, k_order)
    return q, k, v, q_positions, k_positions, q_order.argsort(-1)


def _taken(x: Tensor, order: Tensor) -> Tensor:
    """The tokens of ``x`` ``(..., heads, n, d)`` in another order, which a batch may have for each row."""
    if order.ndim == 1:
        return x.index_select(-2, order)
    return x.take_along_dim(order[..., None, :, None], -2)
