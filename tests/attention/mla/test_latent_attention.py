"""Latent attention in both forms, against the formula in float64 and transformers' DeepSeek-V3."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from attention.mla.formulas import (
    GROUPED,
    LATENT,
    LATENTS,
    every_config,
    generator,
    layer,
    lower,
    normal,
    rotation,
    softmax_average,
)
from opinfo import as_users_call
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kexue_lib.attention.mla import (
    PRESETS,
    AttentionConfig,
    GroupedAttention,
    KVCache,
    LatentAttention,
    absorbed_weights,
    build_attention,
    decode_cost,
    kv_cache_elements,
    merge_query,
)

every_latent = pytest.mark.parametrize("config", LATENTS, ids=["full", "plain", "nope", "two latents", "four latents"])


def by_the_formula(module: LatentAttention, x: Tensor, visible: Tensor) -> Tensor:
    """The equations of the article, head by head, row by row."""
    c = module.config
    rms = lambda t, norm: t / (t.square().mean(-1, keepdim=True) + c.norm_eps).sqrt() * norm.weight
    turn = rotation(torch.arange(x.shape[1]), c) if c.rope_dim else None
    low = x if c.q_rank is None else module.q_down(x)
    if c.q_rank is not None and c.norm_latents:
        low = rms(low, module.q_norm)
    q = module.q_up(low).unflatten(-1, (c.n_heads, -1))
    down = module.kv_down(x)
    latent, rotary = down[..., : c.kv_rank].unflatten(-1, (c.latent_heads, -1)), down[..., c.kv_rank :]
    latent = rms(latent, module.kv_norm) if c.norm_latents else latent
    weight = module.kv_up.weight.unflatten(0, (c.n_heads, -1))
    heads = []
    for s in range(c.n_heads):
        own = latent[..., s * c.latent_heads // c.n_heads, :]
        k, v = own @ weight[s, : c.head_dim].T, own @ weight[s, c.head_dim :].T
        scores = q[..., s, : c.head_dim] @ k.mT
        if c.rope_dim:
            turned = [torch.einsum("bnr,nrs->bns", t, turn) for t in (q[..., s, c.head_dim :], rotary)]
            scores = scores + turned[0] @ turned[1].mT
        heads.append(softmax_average(scores / math.sqrt(c.head_dim + c.rope_dim), v, visible))
    return module.out(torch.cat(heads, -1))


# -- latent attention --------------------------------------------------------------------------------------------------


@every_latent
@pytest.mark.parametrize("form", ["expanded", "absorbed", "auto"])
def test_both_forms_are_the_formula(config: AttentionConfig, form: str):
    module, x = layer(config), normal(2, 9, 24)
    torch.testing.assert_close(module(x, form=form), by_the_formula(module, x, lower(9)), rtol=1e-12, atol=1e-12)
    everything = torch.ones(9, 9, dtype=torch.bool)
    out = module(x, form=form, causal=False)
    torch.testing.assert_close(out, by_the_formula(module, x, everything), rtol=1e-12, atol=1e-12)


@every_latent
def test_masks_act_alike_in_both_forms(config: AttentionConfig):
    module, x = layer(config), normal(2, 7, 24)
    masks = [
        torch.rand(7, 7, generator=generator(3)) > 0.4,
        torch.rand(2, 1, 7, 7, generator=generator(4)) > 0.4,
        torch.rand(2, 4, 7, 7, generator=generator(5)) > 0.6,  # some queries see nothing
    ]
    for mask, causal in itertools.product(masks, (True, False)):
        expanded, absorbed = (module(x, mask=mask, causal=causal, form=f) for f in ("expanded", "absorbed"))
        torch.testing.assert_close(absorbed, expanded, rtol=1e-11, atol=1e-12)
    dense = by_the_formula(module, x, masks[0])
    torch.testing.assert_close(module(x, mask=masks[0], causal=False, form="absorbed"), dense, rtol=1e-11, atol=1e-12)


@every_config
@pytest.mark.parametrize("steps", [(9,), (4, 1, 1, 3), (1,) * 9])
def test_cached_decoding_gives_the_outputs_of_the_whole_sequence(config: AttentionConfig, steps: tuple[int, ...]):
    module, x = layer(config), normal(2, 9, 24)
    whole = module(x)
    forms = ("auto", "expanded", "absorbed") if config.kind == "mla" else ("auto",)
    for form in forms:
        cache = KVCache(config, batch=2, max_len=11, dtype=torch.float64)
        out = torch.cat([module(part, cache=cache, form=form) for part in x.split(list(steps), 1)], 1)
        torch.testing.assert_close(out, whole, rtol=1e-12, atol=1e-12)
        assert cache.length == 9
        assert cache.nbytes() == 8 * kv_cache_elements(config) * 2 * 11


def flops(module: LatentAttention, L: int, past: int, form: str) -> int:
    """Operations of one call as PyTorch counts them, with attention written out: it does not count the fused kernel."""
    cache = KVCache(module.config, batch=1, max_len=past + L)
    cache.length = past
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, L, module.config.d_model), cache=cache, form=form)
    return counter.get_total_flops()


@pytest.mark.parametrize("past", [0, 1, 7, 200])
@pytest.mark.parametrize("L", [1, 2, 5, 30, 70])
def test_auto_takes_the_form_with_fewer_operations(L: int, past: int):
    config = AttentionConfig(d_model=16, n_heads=2, kind="mla", head_dim=8, v_head_dim=6, kv_rank=24, rope_dim=4)
    module = LatentAttention(config)
    count = {form: flops(module, L, past, form) for form in ("expanded", "absorbed", "auto")}
    assert count["auto"] == min(count["expanded"], count["absorbed"])
    if past == 0:
        assert count["expanded"] < count["absorbed"]  # a fresh prompt


def test_auto_expands_without_a_cache(monkeypatch):
    module = LatentAttention(replace(PRESETS["deepseek-v3"][0], d_model=64, n_heads=2, q_rank=None))
    monkeypatch.setattr(module, "_absorbed", None)
    assert module(torch.zeros(1, 1, 64)).shape == (1, 1, 64)


@every_config
def test_gradients_and_shift_of_positions(config: AttentionConfig):
    module, x = layer(config), normal(1, 4, 24).requires_grad_()
    forms = ("expanded", "absorbed") if config.kind == "mla" else ("auto",)
    grads = [torch.autograd.grad(module(x, form=f).square().sum(), [x, *module.parameters()]) for f in forms]
    for a, b in zip(grads[0], grads[-1]):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    shifted = module(x, positions=torch.arange(4) + 1000)
    torch.testing.assert_close(shifted, module(x), rtol=1e-9, atol=1e-10)
    rows = module(x.expand(2, -1, -1), positions=torch.stack([torch.arange(4), torch.arange(4) + 7]))
    torch.testing.assert_close(rows, module(x).expand(2, -1, -1), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_takes_a_cache_of_either_type(dtype: torch.dtype):
    module, x = build_attention(LATENT, generator=generator()), torch.randn(1, 5, 24, generator=generator(2))
    cache = KVCache(LATENT, batch=1, max_len=5, dtype=dtype)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = torch.cat([module(token, cache=cache) for token in x.split(1, dim=1)], dim=1)
        torch.testing.assert_close(out, module(x), rtol=0.1, atol=0.1)


def test_half_precision_is_as_good_absorbed_as_expanded():
    config = replace(LATENT, d_model=128, n_heads=8, head_dim=32, v_head_dim=32, kv_rank=64, q_rank=None, rope_dim=16)
    module, x = build_attention(config, generator=generator()), torch.randn(2, 40, 128, generator=generator(2))
    exact = module.double()(x.double())
    module.bfloat16()
    errors = [
        ((module(x.bfloat16(), form=f).double() - exact).norm() / exact.norm()).item() for f in ("expanded", "absorbed")
    ]
    assert max(errors) < 0.02
    assert errors[1] < 1.5 * errors[0]


def test_merged_query_gives_the_same_scores():
    module, x = layer(LATENT), normal(3, 24)
    c = module.q_norm(module.q_down(x))
    latent = normal(5, 8, seed=4)
    q = module.q_up(c).unflatten(-1, (4, -1))[..., :6]
    k = torch.einsum("sr,hdr->hsd", latent, absorbed_weights(module)[0])
    expected = torch.einsum("lhd,hsd->hls", q, k)
    torch.testing.assert_close(torch.einsum("lw,hwr,sr->hls", c, merge_query(module), latent), expected)


def deepseek(config: AttentionConfig):
    """Transformers' layer of the same sizes, its rotary table, and our names for its weights."""
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3 import modeling_deepseek_v3 as peer

    their = DeepseekV3Config(
        hidden_size=config.d_model, num_attention_heads=config.n_heads, num_key_value_heads=config.n_heads,
        q_lora_rank=config.q_rank, kv_lora_rank=config.kv_rank, qk_nope_head_dim=config.head_dim,
        qk_rope_head_dim=config.rope_dim, v_head_dim=config.v_head_dim, num_hidden_layers=1,
        max_position_embeddings=256, rope_interleave=True, attn_implementation="eager",
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
    )  # fmt: skip
    names = {
        "q_a_proj": "q_down", "q_a_layernorm": "q_norm", "q_b_proj": "q_up", "q_proj": "q_up", "o_proj": "out",
        "kv_a_proj_with_mqa": "kv_down", "kv_a_layernorm": "kv_norm", "kv_b_proj": "kv_up",
    }  # fmt: skip
    return peer.DeepseekV3Attention(their, 0).eval(), peer.DeepseekV3RotaryEmbedding(their), names


@pytest.mark.parametrize("q_rank", [7, None])
def test_deepseek_v3_weights_give_deepseek_v3_outputs(q_rank: int | None):
    pytest.importorskip("transformers")
    config = replace(LATENT, q_rank=q_rank)
    torch.manual_seed(0)
    theirs, table, names = deepseek(config)
    ours = LatentAttention(config)
    state = {}
    for key, value in theirs.state_dict().items():
        module, _, kind = key.rpartition(".")
        state[f"{names[module]}.{kind}"] = value
    ours.load_state_dict(state)
    x = torch.randn(2, 30, 24)
    mask = torch.where(lower(30), 0.0, -math.inf)[None, None]
    expected = theirs(x, table(x, torch.arange(30)[None]), mask)[0]
    for form in ("expanded", "absorbed"):
        torch.testing.assert_close(ours(x, form=form), expected, rtol=0, atol=5e-6)  # their angles are float32


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_layers_refuse_what_does_not_fit():
    module, x = layer(LATENT), normal(2, 3, 24)
    with as_users_call(), pytest.raises(ValueError, match="form"):
        module(x, form="merged")
    with pytest.raises(ValueError, match="form"):
        layer(GROUPED[0])(x, form="absorbed")
    with pytest.raises(ValueError, match="cache: got 1 rows"):
        module(x, cache=KVCache(LATENT, batch=1, max_len=9, dtype=torch.float64))
    for config in (LATENT, GROUPED[0]):
        half = KVCache(config, batch=2, max_len=9, dtype=torch.bfloat16)
        with as_users_call(), pytest.raises(ValueError, match=r"cache: got torch\.bfloat16, expected torch\.float64"):
            layer(config)(x, cache=half)
        assert half.length == 0
    cache = KVCache(LATENT, batch=2, max_len=4, dtype=torch.float64)
    module(x, cache=cache)
    with pytest.raises(ValueError, match="max_len 4"):
        module(x, cache=cache)
    assert cache.length == 3
    with pytest.raises(ValueError, match="config"):
        GroupedAttention(LATENT)
    with pytest.raises(ValueError, match="config"):
        LatentAttention(GROUPED[0])
    with pytest.raises(ValueError, match="form"):
        decode_cost(GROUPED[0], 4, form="absorbed")
    with pytest.raises(ValueError, match="context"):
        decode_cost(GROUPED[0], -1)
