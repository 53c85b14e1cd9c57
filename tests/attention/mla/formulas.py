"""Latent attention by its formula in float64, and the layers that the tests of the package share."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kexue_lib.attention.mla import AttentionConfig, GroupedAttention, LatentAttention, build_attention
from kexue_lib.positions.rope import inverse_frequencies

LATENT = AttentionConfig(d_model=24, n_heads=4, kind="mla", head_dim=6, v_head_dim=5, kv_rank=8, q_rank=7, rope_dim=4)
LATENTS = [
    LATENT,
    replace(LATENT, q_rank=None, norm_latents=False, bias=True),
    replace(LATENT, rope_dim=0),
    replace(LATENT, latent_heads=2),
    replace(LATENT, latent_heads=4, norm_latents=False, rope_dim=2),
]
GROUPED = [
    AttentionConfig(d_model=24, n_heads=4),
    AttentionConfig(d_model=24, n_heads=4, kind="mqa", v_head_dim=3, rope_dim=4),
    AttentionConfig(d_model=24, n_heads=4, kind="gqa", n_kv_heads=2, rope_dim=0, bias=True),
]
every_config = pytest.mark.parametrize("config", [*LATENTS, *GROUPED])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer(config: AttentionConfig, seed: int = 0) -> GroupedAttention | LatentAttention:
    module = build_attention(config, generator=generator(seed)).double()
    with torch.no_grad():  # biases and norms away from their trivial values
        for name, p in module.named_parameters():
            if p.ndim == 1:
                p.add_(0.1 * torch.randn(p.shape, dtype=p.dtype, generator=generator(len(name))))
    return module


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def rotation(positions: Tensor, config: AttentionConfig) -> Tensor:
    """Explicit matrices (n, r, r) for row vectors, pairs of neighbours."""
    r = config.rope_dim
    out = torch.zeros(len(positions), r, r, dtype=torch.float64)
    angles = positions.double()[:, None] * inverse_frequencies(r, config.rope_base)
    for i in range(r // 2):
        c, s = angles[:, i].cos(), angles[:, i].sin()
        block = torch.stack([torch.stack([c, s], -1), torch.stack([-s, c], -1)], -2)
        out[:, 2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = block
    return out


def softmax_average(scores: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
    return torch.where(visible, weights, 0.0) @ values


def lower(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool).tril()
