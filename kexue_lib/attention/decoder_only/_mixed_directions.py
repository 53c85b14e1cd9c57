r"""Masks by name, and attention whose heads look in different directions."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_one_of, check_shape
from kexue_lib.attention.core import LayerCache, SelfAttention, attention, causal_mask, prefix_mask

KINDS = ("bidirectional", "causal", "reverse", "prefix", "mixed")


def head_masks(
    kind: Literal["bidirectional", "causal", "reverse", "prefix", "mixed"],
    length: int,
    *,
    n_heads: int = 1,
    prefix: int | Int[Tensor, " batch"] | None = None,
    device: torch.device | str | None = None,
) -> Bool[Tensor, "*batch {n_heads} {length} {length}"]:
    """Return which keys each query of each head sees.

    Args:
        kind: ``"bidirectional"`` all keys; ``"causal"`` j ≤ i; ``"reverse"`` j ≥ i; ``"prefix"`` j ≤ i or
            j < prefix; ``"mixed"`` causal in the first half of the heads and reverse in the others.
        length: tokens L.
        n_heads: heads H, even for ``"mixed"``.
        prefix: tokens of the prefix, 0…L, or one number for each row of a batch; for ``"prefix"`` only.
        device: of the result; default that of ``prefix``.

    Returns:
        ``(H, L, L)`` bool, True where visible; ``(batch, H, L, L)`` for a tensor ``prefix``.

    Raises:
        TypeError: ``n_heads`` is no integer.
        ValueError: unknown ``kind``, ``prefix`` missing, given in vain or outside 0…L, or an odd number of heads for
            ``"mixed"``.

    >>> head_masks("mixed", 2, n_heads=2).int().tolist()
    [[[1, 0], [1, 1]], [[1, 1], [0, 1]]]
    """
    check_one_of("kind", kind, KINDS)
    if (prefix is None) == (kind == "prefix"):
        raise ValueError(
            f"prefix: got {prefix!r} with kind {kind!r}, expected a number with kind 'prefix' and only there"
        )
    if prefix is not None:  # kind is "prefix"
        low, high = (prefix.min(), prefix.max()) if isinstance(prefix, Tensor) and len(prefix) else (prefix, prefix)
        if (not isinstance(prefix, Tensor) or len(prefix)) and (low < 0 or high > length):
            raise ValueError(f"prefix: got {prefix}, expected 0 to the length {length}")
        mask = prefix_mask(length, prefix, device=device)
    elif kind == "mixed":
        check_integer("n_heads", n_heads, 2, even=True)
        causal = causal_mask(length, device=device)
        return torch.stack([causal, causal.mT]).repeat_interleave(n_heads // 2, 0)
    elif kind == "bidirectional":
        mask = torch.ones(length, length, dtype=torch.bool, device=device)
    else:
        causal = causal_mask(length, device=device)
        mask = causal if kind == "causal" else causal.mT
    return mask.expand(*mask.shape[:-3], n_heads, length, length)


def mixed_attention(
    query: Float[Tensor, "*batch_q H L Dk"],
    key: Float[Tensor, "*batch_k Hk L Dk"],
    value: Float[Tensor, "*batch_v Hk L Dv"],
    *,
    scale: float | None = None,
) -> Float[Tensor, "*batch H L Dv"]:
    r"""Softmax attention, causal in the first half of the heads and anti-causal in the others.

    .. math:: o_i=\sum_{j\le i}p_{ij}v_j\ \ (h<H/2),\qquad o_i=\sum_{j\ge i}p_{ij}v_j\ \ (h\ge H/2)

    The second half is causal attention over the reversed sequence, so that both halves skip what they do not see.

    Args:
        query: ``(..., H, L, Dk)``, H even.
        key: ``(..., Hk, L, Dk)``; grouped as in :func:`kexue_lib.attention.core.attention`.
        value: ``(..., Hk, L, Dv)``.
        scale: of the scores, default ``Dk ** -0.5``.

    Returns:
        ``(..., H, L, Dv)``: what attention with ``head_masks("mixed", ...)`` gives.

    Raises:
        TypeError: ``n_heads`` is no integer.
        ValueError: H odd, or keys of another length.

    Cost: half the products of attention with a dense mask. Source: https://kexue.fm/archives/9529, the mixed model.

    >>> x = torch.eye(2).expand(1, 2, 2, 2)
    >>> mixed_attention(x, x, x)[0, :, 0]
    tensor([[1.0000, 0.0000],
            [0.6698, 0.3302]])
    """
    for name, x in (("query", query), ("key", key), ("value", value)):
        check_dtype(name, x, "floating")
        check_shape(name, x, ("...", "H", "L", "D"))
    H, Hk = query.shape[-3], key.shape[-3]
    check_integer("n_heads", H, 2, even=True)
    if query.shape[-2] != key.shape[-2]:
        raise ValueError(f"key: got {key.shape[-2]} tokens, expected {query.shape[-2]} as query has")
    if Hk % 2:  # one group would serve both directions
        key, value = (t.repeat_interleave(H // Hk, -3) for t in (key, value))
    (q1, q2), (k1, k2), (v1, v2) = (t.chunk(2, -3) for t in (query, key, value))
    forwards = attention(q1, k1, v1, causal=True, scale=scale)
    backwards = attention(q2.flip(-2), k2.flip(-2), v2.flip(-2), causal=True, scale=scale)
    return torch.cat([forwards, backwards.flip(-2)], dim=-3)


class MixedSelfAttention(SelfAttention):
    """Self-attention for an encoder, causal in one half of the heads and anti-causal in the other.

    It plugs into :class:`kexue_lib.attention.core.DecoderLM` with ``causal=False``. A mask given by the caller replaces
    its own, and a single token behind a cache sees everything.

    Args:
        config: sizes; an even number of heads, any positions but ALiBi.
        layer: index of the block.

    Raises:
        TypeError: ``n_heads`` is no integer.
        ValueError: an odd number of heads, or positions that need a dense mask.
    """

    def __init__(self, config, layer: int):
        super().__init__(config, layer)
        check_integer("n_heads", config.n_heads, 2, even=True)
        if config.positions == "alibi":
            raise ValueError("positions: got 'alibi', which needs a dense mask; expected another kind with mixed heads")

    def forward(
        self,
        x: Float[Tensor, "batch L d"],
        *,
        positions: Tensor,
        mask: Tensor | None,
        causal: bool,
        cache: LayerCache | None,
        k_positions: Tensor | None = None,
    ) -> Float[Tensor, "batch L d"]:
        """Attend in both directions; arguments as in :class:`SelfAttention`.

        Raises:
            ValueError: several tokens behind a cache that is not empty: those before cannot look ahead any more.
        """
        (B, L, _), c, stored = x.shape, self.config, 0 if cache is None else cache.length
        if mask is not None or causal or (L == 1 and stored):
            return super().forward(
                x, positions=positions, mask=mask, causal=causal, cache=cache, k_positions=k_positions
            )
        if stored:
            raise ValueError(f"cache: got {stored} stored tokens, expected an empty one for a source of {L}")
        q = self.q_norm(self.q(x).view(B, L, c.n_heads, c.width)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(B, L, c.kv_heads, c.width)).transpose(1, 2)
        v = self.v(x).view(B, L, c.kv_heads, c.width).transpose(1, 2)
        q, rotated = self.position.rotate(self._scaled(q, positions), positions), self.position.rotate(k, positions)
        if cache is not None:
            cache.append(k if self.position.cache_raw_keys else rotated, v)
        out = mixed_attention(q, rotated, v)
        return self.out(out.transpose(1, 2).reshape(B, L, -1))
