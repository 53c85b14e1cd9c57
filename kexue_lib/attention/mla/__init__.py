r"""One family of attention layers from multi-head attention to multi-head latent attention, with their caches.

Source: Su Jianlin, "The extreme tug-of-war between cache and quality: from MHA, MQA, GQA to MLA", 2024,
https://kexue.fm/archives/10091; DeepSeek-AI, *DeepSeek-V2*, arXiv 2405.04434.

Notation: d input width, h heads, :math:`d_k,d_v` head widths, g groups of GQA, :math:`d_c` width of the latent,
:math:`d_r` rotary channels of MLA, B rows, L new tokens, S all tokens. The submodules and the layout of their weights
are those of DeepSeek-V3, so that its attention layers load by renaming.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_integer
from kexue_lib.attention.mla._caches import KVCache, PagedKVCache
from kexue_lib.attention.mla._config import (
    PRESETS,
    AttentionConfig,
    DecodeCost,
    decode_cost,
    equivalent_gqa_groups,
    kv_cache_bytes,
    kv_cache_elements,
)
from kexue_lib.attention.mla._layers import GroupedAttention, LatentAttention, absorbed_weights

__all__ = [
    "PRESETS",
    "AttentionConfig",
    "DecodeCost",
    "GroupedAttention",
    "KVCache",
    "LatentAttention",
    "PagedKVCache",
    "absorbed_weights",
    "build_attention",
    "compress_mla",
    "decode_cost",
    "equivalent_gqa_groups",
    "gqa_to_mla",
    "kv_cache_bytes",
    "kv_cache_elements",
    "merge_query",
]


def build_attention(
    config: AttentionConfig, *, generator: torch.Generator | None = None
) -> GroupedAttention | LatentAttention:
    """Return the layer of a configuration.

    Args:
        config: sizes and kind.
        generator: source of the initial weights.

    >>> type(build_attention(AttentionConfig(d_model=8, n_heads=2))).__name__
    'GroupedAttention'
    """
    make = LatentAttention if config.kind == "mla" else GroupedAttention
    return make(config, generator=generator)


def merge_query(module: LatentAttention) -> Float[Tensor, "h width rank"]:
    r"""Return :math:`W_{qc}^{(s)}W_k^{(s)\top}` as one matrix for each head: what one should *not* do.

    It needs more memory and more operations than the two factors, and its rounding to a half type is one more error.

    Args:
        module: the layer.

    Returns:
        ``(h, w, d_c / m)`` where w is the width that ``q_up`` reads.

    Source: https://kexue.fm/archives/10091, the remark on precision.
    """
    c = module.config
    query = module.q_up.weight.unflatten(0, (c.n_heads, -1))[:, : c.head_dim]  # (h, d_k, w)
    return query.transpose(1, 2) @ absorbed_weights(module)[0]


@torch.no_grad()
def gqa_to_mla(module: GroupedAttention) -> LatentAttention:
    """Return latent attention that computes the same function with the same cache.

    The latent is the concatenation of all keys and values, d_c = g (d_k + d_v); the up-projection selects. Rotated keys
    are no part of a latent that is cached unrotated: they would all be the rotary key beside it, with the same cache
    and nothing left to cut but the values, which is not done here.

    Args:
        module: without rotation, ``rope_dim == 0``.

    Raises:
        ValueError: a module with rotation.

    Source: https://kexue.fm/archives/10091; TransMLA, arXiv 2502.07864.

    >>> config = AttentionConfig(d_model=8, n_heads=4, kind="gqa", n_kv_heads=2, rope_dim=0)
    >>> gqa_to_mla(GroupedAttention(config)).config.kv_rank
    8
    """
    c = module.config
    if c.rope_dim:
        raise ValueError(
            f"module: got rope_dim {c.rope_dim}, expected 0: W_q R W_k^T depends on the distance, so that rotated keys "
            "cannot be absorbed into a latent; they would have to stay whole beside it"
        )
    g, size = c._kv_groups(), c.head_dim + c.v_head_dim
    rank = g * size
    config = AttentionConfig(
        d_model=c.d_model, n_heads=c.n_heads, kind="mla", head_dim=c.head_dim, v_head_dim=c.v_head_dim,
        kv_rank=rank, rope_dim=0, norm_latents=False, bias=c.bias,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):  # all weights are written over: draw nothing from the caller's generator
        out = LatentAttention(config).to(module.q.weight)
    out.q_up.load_state_dict(module.q.state_dict())
    out.out.load_state_dict(module.out.state_dict())
    out.kv_down.weight.copy_(torch.cat([module.k.weight, module.v.weight]))
    if c.bias:
        out.kv_down.bias.copy_(torch.cat([module.k.bias, module.v.bias]))
    out.kv_up.weight.zero_()
    up = out.kv_up.weight.view(c.n_heads, size, rank)
    for head in range(c.n_heads):
        group = head * g // c.n_heads
        keys = torch.arange(c.head_dim) + group * c.head_dim
        values = torch.arange(c.v_head_dim) + g * c.head_dim + group * c.v_head_dim
        up[head, torch.arange(size), torch.cat([keys, values])] = 1
    return out


@torch.no_grad()
def compress_mla(
    module: LatentAttention, kv_rank: int, *, data: Float[Tensor, "*batch d"] | None = None
) -> LatentAttention:
    r"""Return latent attention with a smaller latent: the best cut of the up-projection's rank.

    With latents c and up-projection W the new layer has :math:`U_rU_r^\top W` in its place, where :math:`U_r` are the
    leading left singular vectors of :math:`W\,\mathbb E[cc^\top]^{1/2}` (of W itself without data): by Eckart and
    Young no matrix of that rank gives a smaller mean square error of the keys and values.

    Args:
        module: without norm of the latents (they are not linear in the input otherwise) and with one latent head.
        kv_rank: new width of the latent, 1 to d_c.
        data: inputs ``(..., d)`` of the layer that weight the error.

    Raises:
        TypeError: ``kv_rank`` is no integer.
        ValueError: ``kv_rank`` outside 1…d_c, a module with ``norm_latents`` or several latent heads, or no ``data``
            where singular values are equal at the cut (as after :func:`gqa_to_mla`: all of them).

    Cost: one singular value decomposition of ``(h (d_k + d_v), d_c)``. Source: arXiv 2502.07864.
    """
    c = module.config
    if c.norm_latents or c.latent_heads > 1:
        raise ValueError(
            f"module: got norm_latents={c.norm_latents} and latent_heads={c.latent_heads}, expected False and 1"
        )
    check_integer("kv_rank", kv_rank, 1, c.kv_rank)
    up, down = module.kv_up.weight.double(), module.kv_down.weight.double()
    bias = module.kv_down.bias
    weighted = up
    if data is not None:
        latents = data.double().flatten(0, -2) @ down[: c.kv_rank].T
        latents = latents if bias is None else latents + bias[: c.kv_rank].double()
        weighted = up @ torch.linalg.qr(latents, mode="r").R.T / len(latents) ** 0.5
    left, sizes, _ = torch.linalg.svd(weighted, full_matrices=False)
    if data is None and kv_rank < len(sizes) and sizes[kv_rank - 1] - sizes[kv_rank] < 1e-6 * sizes[0]:
        # gqa_to_mla's have no other: which directions stay would be left to the rounding.
        raise ValueError(
            f"data: got None, expected inputs of the layer: the singular values {kv_rank} and {kv_rank + 1} of the "
            "up-projection are equal, so that it does not say itself what to keep"
        )
    left = left[:, :kv_rank]
    left = torch.nn.functional.pad(left, (0, kv_rank - left.shape[1]))  # fewer samples than the rank: nothing is lost
    merged = left.T @ up
    config = AttentionConfig(**{**c.__dict__, "kv_rank": kv_rank})
    with torch.random.fork_rng(devices=[]):  # as above
        out = LatentAttention(config).to(module.kv_up.weight)
    state = module.state_dict()
    state["kv_up.weight"] = left
    state["kv_down.weight"] = torch.cat([merged @ down[: c.kv_rank], down[c.kv_rank :]])
    if bias is not None:
        state["kv_down.bias"] = torch.cat([merged @ bias[: c.kv_rank].double(), bias[c.kv_rank :].double()])
    out.load_state_dict(state)
    return out
