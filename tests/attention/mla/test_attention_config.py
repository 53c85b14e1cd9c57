"""Sizes and costs of published models, by counting, and sizes that do not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from attention.mla.formulas import GROUPED, LATENTS
from opinfo import as_users_call

from kexue_lib.attention.mla import (
    PRESETS,
    AttentionConfig,
    build_attention,
    decode_cost,
    equivalent_gqa_groups,
    kv_cache_bytes,
    kv_cache_elements,
)

# -- published sizes ---------------------------------------------------------------------------------------------------


def test_published_cache_sizes():
    numbers = {name: kv_cache_elements(c) * n for name, (c, n) in PRESETS.items()}
    assert numbers["deepseek-v2"] == 34560
    assert numbers["deepseek-v2-lite"] == 15552
    assert numbers["deepseek-67b"] == 194560
    kilobytes = {name: kv_cache_bytes(c, layers=n) / 1000 for name, (c, n) in PRESETS.items()}
    assert kilobytes["deepseek-v3"] == 70.272
    assert kilobytes["qwen2.5-72b"] == 327.680
    assert kilobytes["llama3.1-405b"] == 516.096
    assert equivalent_gqa_groups(PRESETS["deepseek-v2"][0]) == 2.25
    assert 1 - numbers["deepseek-v2"] * 6 / (numbers["deepseek-67b"] * 16) == pytest.approx(0.9334, abs=5e-5)


def test_costs_count_what_the_layers_hold():
    for config in [*LATENTS, *GROUPED]:
        module = build_attention(replace(config, bias=False))
        weights = sum(p.numel() for name, p in module.named_parameters() if "norm" not in name)
        cost = decode_cost(config, 0, bytes_per_element=1.0)
        assert cost.weight_bytes == weights
        assert cost.flops == 2 * weights
        assert cost.cache_bytes == cost.intensity == 0
        assert decode_cost(config, 7, bytes_per_element=4.0).cache_bytes == 28 * kv_cache_elements(config)


def test_absorbed_form_trades_operations_for_bytes():
    config = PRESETS["deepseek-v2"][0]
    absorbed, expanded = (decode_cost(config, 10**6, form=f) for f in ("absorbed", "expanded"))
    assert absorbed.intensity == pytest.approx(128 * (2 * 512 + 64) / (512 + 64))
    assert expanded.cache_bytes == absorbed.cache_bytes
    per_token = 2 * 512 * 128 * 256 + 2 * 128 * (128 + 64 + 128)
    assert expanded.flops / 1e6 == pytest.approx(per_token, rel=1e-2)
    mha, gqa = (decode_cost(PRESETS[n][0], 100).intensity for n in ("llama2-7b", "llama2-70b"))
    assert (mha, gqa) == (1, 8)


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("kind", {"kind": "latent"}),
        ("n_heads", {"n_heads": 5}),
        ("n_heads", {"n_heads": 0}),
        ("n_kv_heads", {"kind": "gqa"}),
        ("n_kv_heads", {"kind": "gqa", "n_kv_heads": 3}),
        ("n_kv_heads", {"kind": "mha", "n_kv_heads": 2}),
        ("n_kv_heads", {"kind": "mqa", "n_kv_heads": 4}),
        ("n_kv_heads", {"kind": "mla", "kv_rank": 4, "n_kv_heads": 2}),
        ("kv_rank", {"kind": "mla"}),
        ("kv_rank", {"kv_rank": 4}),
        ("q_rank", {"kind": "gqa", "n_kv_heads": 2, "q_rank": 4}),
        ("rope_dim", {"rope_dim": 3}),
        ("rope_dim", {"rope_dim": -2}),
        ("rope_dim", {"rope_dim": 8}),
        ("rope_dim", {"kind": "mla", "kv_rank": 4, "rope_dim": 5}),
        ("latent_heads", {"latent_heads": 2}),
        ("latent_heads", {"kind": "mla", "kv_rank": 5, "latent_heads": 2}),
    ],
)
def test_config_names_the_field(field: str, changes: dict):
    with as_users_call(), pytest.raises(ValueError, match=f"^{field}"):
        AttentionConfig(**{"d_model": 24, "n_heads": 4, **changes})


def test_half_a_width_is_refused():
    with as_users_call(), pytest.raises(TypeError, match=r"^head_dim: got 2\.5"):
        AttentionConfig(d_model=24, n_heads=4, head_dim=2.5)
