"""Grouped attention as latent attention, and the best cut of a latent."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from attention.mla.formulas import GROUPED, LATENT, layer, normal
from opinfo import as_users_call
from torch import Tensor

from kexue_lib.attention.core import LMConfig, SelfAttention
from kexue_lib.attention.mla import AttentionConfig, LatentAttention, compress_mla, gqa_to_mla, kv_cache_elements
from kexue_lib.positions.rope import RotaryEmbedding


@pytest.mark.parametrize(("kind", "groups"), [("mha", None), ("gqa", 2), ("mqa", None)])
@pytest.mark.parametrize("bias", [False, True])
def test_grouped_attention_without_rotation_is_latent_attention(kind: str, groups: int | None, bias: bool):
    config = AttentionConfig(d_model=24, n_heads=4, kind=kind, n_kv_heads=groups, v_head_dim=5, rope_dim=0, bias=bias)
    module, x = layer(config), normal(2, 6, 24)
    latent = gqa_to_mla(module)
    assert kv_cache_elements(latent.config) == kv_cache_elements(config)
    for form in ("expanded", "absorbed"):
        torch.testing.assert_close(latent(x, form=form), module(x), rtol=1e-12, atol=1e-12)


def test_rotated_keys_are_not_converted():
    with pytest.raises(ValueError, match="rope_dim"):
        gqa_to_mla(layer(GROUPED[0]))


def error_of_cut(module: LatentAttention, cut: LatentAttention, x: Tensor) -> float:
    """Mean square error of all keys and values."""
    make = lambda m: m.kv_down(x)[..., : m.config.kv_rank] @ m.kv_up.weight.T
    return (make(module) - make(cut)).square().sum(-1).mean().item()


@pytest.mark.parametrize("bias", [False, True])
def test_cut_reaches_the_bound_of_eckart_and_young(bias: bool):
    config = replace(LATENT, norm_latents=False, q_rank=None, bias=bias)
    module = layer(config)
    x = normal(300, 24) @ torch.diag(torch.logspace(0, -1.5, 24, dtype=torch.float64))
    latents = module.kv_down(x)[:, :8]
    singular = torch.linalg.svdvals(latents @ module.kv_up.weight.T / math.sqrt(300))
    plain = torch.linalg.svdvals(module.kv_up.weight)
    for rank in (1, 3, 5, 8):
        cut = compress_mla(module, rank, data=x)
        assert error_of_cut(module, cut, x) == pytest.approx(singular[rank:].square().sum().item(), rel=1e-9, abs=1e-20)
        unweighted = compress_mla(module, rank)
        merged = [m.kv_up.weight @ m.kv_down.weight[: m.config.kv_rank] for m in (module, unweighted)]
        factor = torch.linalg.svdvals(module.kv_up.weight)[rank:].square().sum()
        assert error_of_cut(module, unweighted, x) >= error_of_cut(module, cut, x) - 1e-20
        # what is cut off the up-projection itself
        lost = torch.linalg.lstsq(module.kv_down.weight[:8].T, (merged[0] - merged[1]).T).solution
        assert lost.square().sum().item() == pytest.approx(factor.item(), rel=1e-8, abs=1e-20)
    assert plain.shape == (8,)
    same = compress_mla(module, 8, data=x)
    torch.testing.assert_close(same(x[None, :20]), module(x[None, :20]), rtol=1e-9, atol=1e-10)


def test_cut_from_fewer_samples_than_its_rank():
    module = layer(replace(LATENT, norm_latents=False, q_rank=None))
    x = normal(3, 24)
    assert error_of_cut(module, compress_mla(module, 6, data=x), x) < 1e-20


def test_cut_refuses_what_it_cannot_do():
    module = layer(replace(LATENT, norm_latents=False))
    for error, rank in ((ValueError, 0), (ValueError, 9), (TypeError, 2.0), (TypeError, True)):
        with as_users_call(), pytest.raises(error, match="kv_rank"):
            compress_mla(module, rank)
    for config in (LATENT, replace(LATENT, norm_latents=False, latent_heads=2)):
        with pytest.raises(ValueError, match="module"):
            compress_mla(layer(config), 2)


def test_a_cut_among_equal_singular_values_asks_for_data():
    """The converted layer's are all equal: any cut of half of them could keep all keys and no value."""
    grouped = layer(AttentionConfig(d_model=24, n_heads=4, kind="gqa", n_kv_heads=2, rope_dim=0))
    module, x = gqa_to_mla(grouped), normal(200, 24)
    with pytest.raises(ValueError, match="data: got None"):
        compress_mla(module, 12)
    cut = compress_mla(module, 12, data=x)
    assert error_of_cut(module, cut, x) < 0.6 * (module.kv_down(x) @ module.kv_up.weight.T).square().sum(-1).mean()
    assert compress_mla(module, module.config.kv_rank).config.kv_rank == module.config.kv_rank


def test_conversion_draws_nothing_from_the_global_generator():
    grouped = layer(AttentionConfig(d_model=24, n_heads=4, kind="gqa", n_kv_heads=2, rope_dim=0))
    before = torch.get_rng_state()
    compress_mla(gqa_to_mla(grouped), 12, data=normal(200, 24))
    assert torch.equal(torch.get_rng_state(), before)


def test_layouts_are_not_mixed_up():
    """The decoder's attention has the same names and shapes, and pairs halves by default."""
    decoder = SelfAttention(LMConfig(vocab_size=5, d_model=24, n_heads=4, n_kv_heads=2), 0).double()
    decoder.position = RotaryEmbedding(6)
    config = AttentionConfig(d_model=24, n_heads=4, kind="gqa", n_kv_heads=2)
    with pytest.raises(RuntimeError, match="rope_layout 'half', expected 'interleaved'"):
        layer(config).load_state_dict(decoder.state_dict())
    same, x = layer(replace(config, rope_layout="half")), normal(2, 5, 24)
    same.load_state_dict(decoder.state_dict())
    expected = decoder(x, positions=torch.arange(5), mask=None, causal=True, cache=None)
    torch.testing.assert_close(same(x), expected)
