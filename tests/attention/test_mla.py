"""Attention with shared keys and values, against the formulas in float64, transformers' DeepSeek-V3, and counting."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from opinfo import as_users_call
from torch import Tensor

from kexue_lib.attention.core import DecoderLM, LMConfig
from kexue_lib.attention.mla import (
    PRESETS,
    AttentionConfig,
    GroupedAttention,
    KVCache,
    LatentAttention,
    PagedKVCache,
    absorbed_weights,
    build_attention,
    compress_mla,
    decode_cost,
    equivalent_gqa_groups,
    gqa_to_mla,
    kv_cache_bytes,
    kv_cache_elements,
    merge_query,
)
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
every_latent = pytest.mark.parametrize("config", LATENTS, ids=["full", "plain", "nope", "two latents", "four latents"])
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


def lower(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool).tril()


# -- latent attention -------------------------------------------------------------------------------------------------


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


def test_auto_absorbs_single_tokens_and_expands_prompts(monkeypatch):
    config = PRESETS["deepseek-v3"][0]
    module = LatentAttention(replace(config, d_model=64, n_heads=2, q_rank=None))
    taken = []
    for name in ("_absorbed", "_expanded"):
        monkeypatch.setattr(module, name, lambda *a, name=name: (taken.append(name), a[0][..., :128])[1])
    for length, cached in ((1, True), (1, False), (2000, True), (2000, False)):
        cache = KVCache(module.config, batch=1, max_len=2000) if cached else None
        module(torch.zeros(1, length, 64), cache=cache)
    assert taken == ["_absorbed", "_expanded", "_expanded", "_expanded"]


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


# -- grouped attention ------------------------------------------------------------------------------------------------


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


# -- conversion -------------------------------------------------------------------------------------------------------


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
    for rank in (0, 9, 2.0, True):
        with as_users_call(), pytest.raises(ValueError, match="kv_rank"):
            compress_mla(module, rank)
    for config in (LATENT, replace(LATENT, norm_latents=False, latent_heads=2)):
        with pytest.raises(ValueError, match="module"):
            compress_mla(layer(config), 2)


# -- published sizes --------------------------------------------------------------------------------------------------


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


# -- paged cache ------------------------------------------------------------------------------------------------------


def snapshot(pool: PagedKVCache) -> tuple:
    return (
        pool.free_blocks, pool.utilisation(), list(pool._users), dict(pool._lengths),
        {s: list(b) for s, b in pool._blocks.items()}, [p.clone() for p in pool.pools],
    )  # fmt: skip


def equal(a: tuple, b: tuple) -> bool:
    return a[:5] == b[:5] and all(torch.equal(x, y) for x, y in zip(a[5], b[5]))


@pytest.mark.parametrize("config", [LATENT, GROUPED[2]], ids=["mla", "gqa"])
def test_paged_cache_holds_what_lists_hold_through_random_use(config: AttentionConfig):
    chance, draw = torch.Generator().manual_seed(5), generator(6)
    pool, lists = PagedKVCache(config, n_blocks=24, block_size=4, dtype=torch.float64), {}
    shapes = [p.shape[1:-2] for p in pool.pools], [p.shape[-1] for p in pool.pools]
    refused = 0
    for _ in range(400):
        action = int(torch.randint(0, 10, (), generator=chance))
        known = list(lists)
        pick = known[int(torch.randint(0, len(known), (), generator=chance))] if known else None
        if action == 0 or pick is None:
            lists[pool.new_sequence()] = [torch.zeros(*s, 0, w, dtype=torch.float64) for s, w in zip(*shapes)]
        elif action == 1:
            lists[pool.fork(pick)] = list(lists[pick])
        elif action == 2:
            pool.free(pick)
            del lists[pick]
        else:
            count = int(torch.randint(0, 9, (), generator=chance))
            new = [torch.randn(*s, count, w, dtype=torch.float64, generator=draw) for s, w in zip(*shapes)]
            before = snapshot(pool)
            size, length = 4, pool.length(pick)
            shared = length % size > 0 and pool._users[pool._blocks[pick][-1]] > 1 and count > 0
            if -(-(length + count) // size) - -(-length // size) + shared > pool.free_blocks:
                refused += 1
                with pytest.raises(RuntimeError, match=f"the pool has {pool.free_blocks}"):
                    pool.append(pick, *new)
                assert equal(before, snapshot(pool))
            else:
                pool.append(pick, *new)
                lists[pick] = [torch.cat([old, n], -2) for old, n in zip(lists[pick], new)]
        if lists:
            *tensors, lengths = pool.gather(list(lists))
            for row, (seq, parts) in enumerate(lists.items()):
                assert lengths[row] == parts[0].shape[-2] == pool.length(seq)
                for tensor, part in zip(tensors, parts):
                    assert torch.equal(tensor[row][..., : lengths[row], :], part)
                    assert not tensor[row][..., lengths[row] :, :].any()
        used = {b for blocks in pool._blocks.values() for b in blocks}
        assert pool.free_blocks == 24 - len(used)
        assert all(pool._users[b] == sum(bs.count(b) for bs in pool._blocks.values()) for b in range(24))
    assert refused > 5
    for seq in list(lists):
        pool.free(seq)
    assert pool.free_blocks == 24
    assert pool.utilisation() == 1.0


def test_fork_copies_only_the_block_that_it_writes_to():
    pool = PagedKVCache(LATENT, n_blocks=5, block_size=4)
    first = pool.new_sequence()
    pool.append(first, torch.ones(6, 8), torch.ones(6, 4))
    second = pool.fork(first)
    assert pool.free_blocks == 3
    assert pool.utilisation() == 6 / 8
    pool.append(second, torch.zeros(1, 8), torch.zeros(1, 4))
    assert pool.free_blocks == 2
    pool.append(first, torch.full((1, 8), 2.0), torch.full((1, 4), 2.0))  # the only user by now: no copy
    assert pool.free_blocks == 2
    a, _, lengths = pool.gather([first, second])
    assert lengths.tolist() == [7, 7]
    assert (a[0, 6] == 2).all()
    assert (a[1, 6] == 0).all()
    assert (a[:, :6] == 1).all()


def test_paged_decoding_equals_the_plain_cache():
    module, x = layer(LATENT), normal(1, 10, 24)
    plain = KVCache(LATENT, batch=1, max_len=10, dtype=torch.float64)
    module(x, cache=plain)
    pool = PagedKVCache(LATENT, n_blocks=4, block_size=3, dtype=torch.float64)
    seq = pool.new_sequence()
    for i in range(10):
        pool.append(seq, *(b[0, i : i + 1] for b in plain.buffers))
    latents, keys, _ = pool.gather([seq])
    assert torch.equal(latents, plain.buffers[0])
    assert torch.equal(keys, plain.buffers[1])


# -- bad input --------------------------------------------------------------------------------------------------------


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
        ("head_dim", {"head_dim": 2.5}),
    ],
)
def test_config_names_the_field(field: str, changes: dict):
    with as_users_call(), pytest.raises(ValueError, match=f"^{field}"):
        AttentionConfig(**{"d_model": 24, "n_heads": 4, **changes})


def test_layers_refuse_what_does_not_fit():
    module, x = layer(LATENT), normal(2, 3, 24)
    with as_users_call(), pytest.raises(ValueError, match="form"):
        module(x, form="merged")
    with pytest.raises(ValueError, match="form"):
        layer(GROUPED[0])(x, form="absorbed")
    with pytest.raises(ValueError, match="cache: has 1 rows"):
        module(x, cache=KVCache(LATENT, batch=1, max_len=9, dtype=torch.float64))
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


def test_paged_cache_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="block_size"):
        PagedKVCache(LATENT, n_blocks=2, block_size=0)
    pool = PagedKVCache(LATENT, n_blocks=2, block_size=4)
    seq = pool.new_sequence()
    for a, b, message in (
        (torch.zeros(2, 7), torch.zeros(2, 4), "^a: shape"),
        (torch.zeros(2, 8), torch.zeros(1, 2, 4), "^b: shape"),
        (torch.zeros(2, 8), torch.zeros(3, 4), "2 and 3 tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            pool.append(seq, a, b)
    for act in (lambda: pool.free(9), lambda: pool.fork(9), lambda: pool.gather([9]), lambda: pool.length(9)):
        with pytest.raises(ValueError, match="9 is not a sequence"):
            act()
    with pytest.raises(ValueError, match="seqs"):
        pool.gather([])
    with pytest.raises(RuntimeError, match="needs 3 free blocks of 4 tokens, the pool has 2"):
        pool.append(seq, torch.zeros(9, 8), torch.zeros(9, 4))
    assert pool.free_blocks == 2
