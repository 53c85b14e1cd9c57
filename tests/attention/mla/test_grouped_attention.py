"""Grouped attention against the formula in float64, and every kind inside the decoder."""

from __future__ import annotations

import math

import pytest
import torch
from attention.mla.formulas import GROUPED, every_config, generator, layer, lower, normal, rotation, softmax_average

from kexue_lib.attention.core import DecoderLM, LMConfig
from kexue_lib.attention.mla import AttentionConfig, build_attention


@pytest.mark.parametrize("config", GROUPED)
def test_grouped_attention_is_the_formula(config: AttentionConfig):
    module, x = layer(config), normal(2, 8, 24)
    c, g = config, config.n_kv_heads
    q, k, v = (p(x).unflatten(-1, (n, -1)) for p, n in ((module.q, 4), (module.k, g), (module.v, g)))
    if c.rope_dim:
        turn = rotation(torch.arange(8), c)
        q, k = (
            torch.cat([torch.einsum("bnhr,nrs->bnhs", t[..., : c.rope_dim], turn), t[..., c.rope_dim :]], -1)
            for t in (q, k)
        )
    heads = [
        softmax_average(q[:, :, s] @ k[:, :, s * g // 4].mT / math.sqrt(c.head_dim), v[:, :, s * g // 4], lower(8))
        for s in range(4)
    ]
    torch.testing.assert_close(module(x), module.out(torch.cat(heads, -1)), rtol=1e-12, atol=1e-12)


@every_config
def test_every_kind_is_an_attention_of_the_decoder(config: AttentionConfig):
    model = DecoderLM(
        LMConfig(vocab_size=11, d_model=24, n_layers=2, n_heads=4, positions="none"),
        attention=lambda _, index: build_attention(config),
        generator=generator(),
    ).double()
    prompt = torch.randint(0, 11, (2, 5), generator=generator(1))
    cached, plain = (model.generate(prompt, 6, use_cache=use) for use in (True, False))
    assert torch.equal(cached, plain)
    cache = model.new_cache(2, 12)
    whole = model(prompt)
    torch.testing.assert_close(torch.cat([model(prompt[:, i : i + 1], cache=cache) for i in range(5)], 1), whole)
