"""Attention that also returns the entropy and the effective number of keys of every row, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from kexue_lib._arguments import check_broadcast, check_dtype, check_integer, check_number, check_shape
from kexue_lib._autograd import remember_signature

# Masked scores are a finite number, so that no −inf − (−inf) and no 0 · (−inf) arises; a row whose maximum stays at
# _FLOOR has seen no key. Both fit float32, and _MASKED − _FLOOR is far below the smallest exponent.
_MASKED, _FLOOR = -1e30, -1e29
_TILE = 1 << 18  # scores of one tile: a megabyte of float32 stays in the cache between the passes
_NAT = math.log(
    2
)  # scores are kept in units of log 2: MKL's exp is a hundred times slower where it underflows, exp2 not


class AttentionStats(NamedTuple):
    """What :func:`attention_stats` returns.

    Attributes:
        output: ``(..., L, dv)``, averages of the values.
        lse: ``(..., L)``, log Σ exp of the scores of a row.
        entropy: ``(..., L)``, nats.
        effective: ``(..., L)``, effective number of keys 1/Σp².
    """

    output: Tensor
    lse: Tensor
    entropy: Tensor
    effective: Tensor


def attention_stats(
    query: Float[Tensor, "*batch_q L d"],
    key: Float[Tensor, "*batch_k S d"],
    value: Float[Tensor, "*batch_v S dv"],
    *,
    scale: float | Float[Tensor, "..."] | None = None,
    causal: bool = False,
    mask: Shaped[Tensor, "..."] | None = None,
    block_size: int = 512,
) -> AttentionStats:
    r"""Softmax attention with the statistics of each row, never holding the L × S matrix.

    .. math:: s_{ij}=\lambda_i\,q_i\cdot k_j,\quad p_i=\mathrm{softmax}(s_i),\quad o_i=\sum_jp_{ij}v_j,\quad
              H_i=-\sum_jp_{ij}\log p_{ij},\quad N_i=1/\sum_jp_{ij}^2

    One pass over blocks of keys keeps :math:`m=\max s`, :math:`Z=\sum e^{s-m}`, :math:`A=\sum e^{s-m}(s-m)` and
    :math:`W=\sum e^{2(s-m)}`. When the maximum grows to :math:`m'`, with :math:`c=e^{m-m'}`:
    :math:`A\leftarrow c(A+(m-m')Z)`, :math:`W\leftarrow c^2W`, :math:`Z\leftarrow cZ`. At the end
    :math:`H=\log Z-A/Z`, a sum of two numbers that are not negative, and :math:`N=Z^2/W`.

    Args:
        query: ``(..., L, d)``, finite.
        key: ``(..., S, d)``, finite; batch dimensions broadcast.
        value: ``(..., S, dv)``, finite.
        scale: λ, a number or a tensor broadcastable to ``(..., L)``, one for each query; default 1/√d.
        causal: key j is visible to query i iff j ≤ i + (S − L).
        mask: bool, True = visible, broadcastable to ``(..., L, S)``.
        block_size: keys of one block.

    Returns:
        AttentionStats; output in the dtype of ``query``, the others in float32 or better. A row with no visible key:
        output 0, lse −inf, entropy 0, effective 0.

    Raises:
        TypeError: a ``mask`` that is not bool, dtypes that differ.
        ValueError: ``block_size`` < 1, ``key`` and ``value`` of different length, widths of ``query`` and ``key`` that
            differ, a ``mask`` or ``scale`` that does not broadcast.

    Cost: attention plus about six operations a score; beside the results a tile of scores, at most 2¹⁸ numbers or one
    row of a block. Blocks that causality hides are skipped. The backward pass makes each block again and holds no
    L × S matrix either; a second derivative does. Source: article 9593; running maximum of Milakov and Gimelshein,
    arXiv 1805.02867.

    >>> q = torch.zeros(2, 4)
    >>> attention_stats(q, q, q, causal=True).effective.round()
    tensor([1., 2.])
    """
    batch = _check(query, key, value, mask, block_size)
    work = torch.promote_types(query.dtype, torch.float32)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    check_number("scale", factor)
    if isinstance(factor, Tensor):
        check_broadcast("scale", factor, (*batch, query.shape[-2]), "(..., L)")
        factor = factor.to(work).unsqueeze(-1) if factor.ndim else factor.to(work)
    scaled = (query.to(work) * (factor / _NAT)).expand(*batch, -1, -1)
    inputs = [scaled, *(x.to(work).expand(*batch, -1, -1) for x in (key, value))]
    output, lse, entropy, effective = _BlockwiseAttention.apply(*inputs, mask, causal, block_size)
    return AttentionStats(output.to(query.dtype), lse, entropy, effective)


@remember_signature
class _BlockwiseAttention(torch.autograd.Function):
    """Of queries that carry the scale, all of shape (*batch, length, width) in one dtype."""

    @staticmethod
    def forward(q, k, v, mask, causal, block):
        batch, work = q.shape[:-2], _blocks(q, k, v, mask, causal, block)
        L, dv = q.shape[-2], v.shape[-1]
        output = q.new_zeros(*work.q.shape[:2], dv)
        top = q.new_full(work.q.shape[:2], _FLOOR)
        total, first, second = torch.zeros_like(top), torch.zeros_like(top), torch.zeros_like(top)  # Z, A, W
        scores, weights = _buffers(work, 2)
        for heads, rows in _row_cuts(work):
            m, z, a, w, o = (x[heads, rows] for x in (top, total, first, second, output))
            for keys in _key_cuts(work, rows):
                s = _scores(work, heads, rows, keys, scores)
                new = torch.maximum(m, s.amax(-1))
                s.sub_(new.unsqueeze(-1))
                e = torch.exp2(s, out=_view(weights, s.shape))
                down = m - new
                c = down.exp2()
                a = torch.addcmul(a, down, z).mul_(c).add_(s.mul_(e).sum(-1))
                z = torch.addcmul(e.sum(-1), c, z)
                w = torch.addcmul(torch.linalg.vector_norm(e, dim=-1).square_(), c.square_(), w)
                o.mul_(down.exp2_().unsqueeze(-1)).baddbmm_(e, work.v[heads, keys])
                m = new
            for results, x in zip((top, total, first, second), (m, z, a, w)):
                results[heads, rows] = x
        alive = total > 0
        safe = torch.where(alive, total, 1.0)
        output.div_(safe.unsqueeze(-1))
        entropy = _NAT * (safe.log2() - first / safe)
        effective = total.square() / torch.where(alive, second, 1.0)
        lse = _NAT * (top + total.log2())
        return output.view(*batch, L, dv), *(x.view(*batch, L) for x in (lse, entropy, effective))

    @staticmethod
    def setup_context(ctx, inputs, output):
        q, k, v, mask, causal, block = inputs
        ctx.save_for_backward(q, k, v, mask, *output)
        ctx.options = causal, block
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, *upstream):
        q, k, v, mask, *results = ctx.saved_tensors
        causal, block = ctx.options
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # somebody may differentiate again
            return *_whole_backward(q, k, v, mask, causal, upstream), None, None, None
        gradients = _blockwise_backward(q, k, v, mask, causal, block, results, upstream)
        return *gradients, None, None, None

    @staticmethod
    def vmap(info, in_dims, q, k, v, mask, causal, block):
        """The mapped dimension becomes one more batch dimension."""
        front = lambda x, at: x.expand(info.batch_size, *x.shape) if at is None else x.movedim(at, 0)
        q, k, v = (front(x, at) for x, at in zip((q, k, v), in_dims))
        if mask is not None and in_dims[3] is not None:
            mask = mask.movedim(in_dims[3], 0)
            mask = mask.reshape(len(mask), *(1,) * (q.ndim - mask.ndim), *mask.shape[1:])
        return _BlockwiseAttention.apply(q, k, v, mask, causal, block), (0, 0, 0, 0)


class _Blocks(NamedTuple):
    """How the scores are cut: `heads` of the flattened batch by `rows` queries by `width` keys make a tile."""

    q: Tensor  # (heads of all the batch, L, d)
    k: Tensor
    v: Tensor
    mask: Tensor | None  # (different masks, 1 or L, 1 or S)
    row_of_mask: Tensor | None  # which of them a head of the batch has
    causal: bool
    heads: int
    rows: int
    width: int


def _blocks(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, block: int) -> _Blocks:
    batch = q.shape[:-2]
    count = math.prod(batch)
    q, k, v = (x.reshape(count, *x.shape[-2:]) for x in (q, k, v))
    width = max(1, min(block, k.shape[1]))
    tile = _TILE if q.device.type == "cpu" else 64 * _TILE
    rows = max(1, min(q.shape[1], tile // width))
    if causal:  # a block of rows makes half a square of scores that nobody sees
        rows = min(rows, max(64, q.shape[1] // 8))
    heads = max(1, min(count, tile // (rows * width)))
    index = None
    if mask is not None:  # no copy of a mask for each head that shares it
        mask = mask.reshape((1,) * (2 - mask.ndim) + mask.shape)
        different = math.prod(mask.shape[:-2])
        index = torch.arange(different, device=q.device).view(mask.shape[:-2]).expand(batch).reshape(count)
        mask = mask.reshape(different, *mask.shape[-2:])
    return _Blocks(q, k, v, mask, index, causal, heads, rows, width)


def _cuts(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _row_cuts(work: _Blocks) -> list[tuple[slice, slice]]:
    return [(h, r) for h in _cuts(work.q.shape[0], work.heads) for r in _cuts(work.q.shape[1], work.rows)]


def _key_cuts(work: _Blocks, rows: slice) -> list[slice]:
    """The blocks of keys that one of these rows sees."""
    L, S = work.q.shape[1], work.k.shape[1]
    return _cuts(min(S, rows.stop + S - L) if work.causal else S, work.width)


def _buffers(work: _Blocks, count: int) -> list[Tensor]:
    """Room for tiles; to ask for it anew for each tile would double the time."""
    return [work.q.new_empty(work.heads * work.rows * work.width) for _ in range(count)]


def _scores(work: _Blocks, heads: slice, rows: slice, keys: slice, buffer: Tensor) -> Tensor:
    """The scores of a tile, hidden ones at _MASKED."""
    q, k = work.q[heads, rows], work.k[heads, keys]
    s = torch.bmm(q, k.mT, out=_view(buffer, (*q.shape[:2], k.shape[1])))
    if work.mask is not None and work.row_of_mask is not None:
        part = work.mask[:, rows if work.mask.shape[1] > 1 else slice(None)]
        part = part[..., keys] if work.mask.shape[2] > 1 else part
        s.masked_fill_(~part[work.row_of_mask[heads]], _MASKED)
    offset = work.k.shape[1] - work.q.shape[1]
    if work.causal and keys.stop - 1 > rows.start + offset:
        s.masked_fill_(_after(rows, keys, offset, s.device), _MASKED)
    return s


def _view(buffer: Tensor, shape: tuple[int, ...]) -> Tensor:
    return buffer[: math.prod(shape)].view(shape)


def _after(rows: slice, keys: slice, offset: int, device: torch.device) -> Tensor:
    """Which keys come after the own position of each row."""
    own = torch.arange(rows.start + offset, rows.stop + offset, device=device)
    return torch.arange(keys.start, keys.stop, device=device) > own[:, None]


def _row_terms(
    results: list[Tensor], upstream: tuple[Tensor | None, ...]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Constants a, b, c of a row in ∂/∂s = p (g·v + a + b log₂ p + c p); None where there is no such term."""
    output, lse, entropy, effective = results
    by_output, by_lse, by_entropy, by_effective = upstream
    a, b, c = torch.zeros_like(lse), None, None
    if by_output is not None:
        a = a - (by_output * output).sum(-1)
    if by_lse is not None:
        a = a + by_lse
    if by_entropy is not None:
        a = a - by_entropy * entropy
        b = -_NAT * by_entropy.unsqueeze(-1)
    if by_effective is not None:
        a = a + 2 * by_effective * effective
        c = (-2 * by_effective * effective.square()).unsqueeze(-1)
    return a.unsqueeze(-1), b, c


def _blockwise_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: bool,
    block: int,
    results: list[Tensor],
    upstream: tuple[Tensor | None, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    work = _blocks(q, k, v, mask, causal, block)
    flat = cast("Callable[[Any], Any]", lambda x: x if x is None else x.reshape(*work.q.shape[:2], x.shape[-1]))
    a, b, c = map(flat, _row_terms(results, upstream))
    lse = flat(torch.where(results[1] == -math.inf, 0.0, results[1] / _NAT).unsqueeze(-1))
    by_output = flat(upstream[0])
    by_q, by_k, by_v = torch.zeros_like(work.q), torch.zeros_like(work.k), torch.zeros_like(work.v)
    scores, weights, slopes = _buffers(work, 3)
    for heads, rows in _row_cuts(work):
        for keys in _key_cuts(work, rows):
            log_p = _scores(work, heads, rows, keys, scores).sub_(lse[heads, rows])
            p = torch.exp2(log_p, out=_view(weights, log_p.shape))
            slope = _view(slopes, log_p.shape)
            if by_output is None:
                slope.copy_(a[heads, rows].expand_as(slope))
            else:
                torch.bmm(by_output[heads, rows], work.v[heads, keys].mT, out=slope).add_(a[heads, rows])
                by_v[heads, keys].baddbmm_(p.mT, by_output[heads, rows])
            if b is not None:
                slope.addcmul_(log_p, b[heads, rows])
            if c is not None:
                slope.addcmul_(p, c[heads, rows])
            slope.mul_(p)
            by_q[heads, rows].baddbmm_(slope, work.k[heads, keys])
            by_k[heads, keys].baddbmm_(slope.mT, work.q[heads, rows])
    return (by_q * _NAT).view_as(q), (by_k * _NAT).view_as(k), by_v.view_as(v)


def _whole_backward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, upstream: tuple[Tensor | None, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """The same gradients from the whole matrix of scores, each step differentiable."""
    L, S = q.shape[-2], k.shape[-2]
    visible = torch.ones((), dtype=torch.bool, device=q.device) if mask is None else mask
    if causal:
        visible = visible & ~_after(slice(0, L), slice(0, S), S - L, q.device)
    s = torch.where(visible, q @ k.mT * _NAT, _MASKED)
    lse = s.logsumexp(-1) if S else s.sum(-1)
    log_p = s - lse.unsqueeze(-1)
    p = torch.where(visible, log_p.exp(), 0.0)
    entropy = -(p * log_p).sum(-1)
    squares = p.square().sum(-1)
    effective = torch.where(squares > 0, 1 / torch.where(squares > 0, squares, 1.0), 0.0)
    slope, b, c = _row_terms([p @ v, lse, entropy, effective], upstream)
    by_v = torch.zeros_like(v)
    if upstream[0] is not None:
        slope = slope + upstream[0] @ v.mT
        by_v = p.mT @ upstream[0]
    if b is not None:
        slope = slope + b * (log_p / _NAT)
    if c is not None:
        slope = slope + c * p
    slope = p * slope * _NAT
    return slope @ k, slope.mT @ q, by_v


def _check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, block_size: int) -> torch.Size:
    """The batch dimensions of the result."""
    for name, x in (("query", query), ("key", key), ("value", value)):
        check_dtype(name, x, "floating")
        check_shape(name, x, ("...", "length", "width"))
    if not query.dtype == key.dtype == value.dtype:
        raise TypeError(f"query, key, value: got {query.dtype}, {key.dtype}, {value.dtype}, expected one dtype")
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"key: got width {key.shape[-1]}, expected {query.shape[-1]} as query has")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(f"value: got length {value.shape[-2]}, expected {key.shape[-2]} as key has")
    check_integer("block_size", block_size, 1)
    try:
        batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    except RuntimeError:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(f"query, key, value: got shapes {shapes}, expected batch dimensions that broadcast") from None
    if mask is not None:
        check_dtype("mask", mask, "bool")
        check_broadcast("mask", mask, (*batch, query.shape[-2], key.shape[-2]), "(..., L, S)")
    return batch
