"""The decoder against Hugging Face's Llama and against itself."""

import copy
import math
import pickle
from dataclasses import replace

import pytest
import torch
from attention.core.small_decoder import OPTIONS, seeded, tiny, tokens
from torch import nn

from kexue_lib.attention.core import DecoderLM, LMConfig, attention, llama_weights, prefix_mask
from kexue_lib.positions.rope import RotaryEmbedding

# -- the decoder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("chunks", [[1] * 9, [4, 5], [2, 1, 6]], ids=str)
def test_cache_gives_what_one_pass_gives(options, chunks):
    model, ids = tiny(**options), tokens(3, 9)
    cache = model.new_cache(3, 9)
    parts = [model(part, cache=cache) for part in ids.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(ids), rtol=1e-11, atol=1e-12)
    assert cache.length == 9


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_later_tokens_change_nothing_before_them(options):
    model, ids = tiny(**options), tokens(1, 8)
    other = ids.clone()
    other[:, 5:] = (other[:, 5:] + 1) % 13
    torch.testing.assert_close(model(ids)[:, :5], model(other)[:, :5], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(model(ids)[:, 5:], model(other)[:, 5:])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_generation_is_the_same_with_and_without_cache(options, temperature):
    model, prompt = tiny(**options), tokens(4, 3)
    runs = [
        model.generate(prompt, 8, temperature=temperature, top_p=0.9, use_cache=c, generator=seeded(5))
        for c in (True, False)
    ]
    assert torch.equal(*runs)
    assert torch.equal(runs[0][:, :3], prompt)
    if temperature == 0:
        greedy = prompt
        for _ in range(8):
            greedy = torch.cat([greedy, model(greedy)[:, -1].argmax(-1, keepdim=True)], 1)
        assert torch.equal(runs[0], greedy)


@pytest.mark.parametrize("options", [o for o in OPTIONS if not o.get("conv_width")], ids=str)
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("padding", ["right", "left"])
def test_padded_prompts_generate_what_they_would_alone(options, use_cache, padding):
    model, prompt, lengths = tiny(**options), tokens(3, 6), torch.tensor([6, 2, 4])
    together = model.generate(prompt, 7, prompt_lengths=lengths, padding=padding, use_cache=use_cache)
    for row, length in enumerate(lengths.tolist()):
        real = slice(0, length) if padding == "right" else slice(6 - length, 6)
        alone = model.generate(prompt[row : row + 1, real], 7)
        assert torch.equal(together[row, 6:], alone[0, length:])


def test_finished_rows_are_filled_with_eos():
    model, prompt = tiny(), tokens(6, 2)
    plain = model.generate(prompt, 12, temperature=1.0, generator=seeded(3))
    eos = plain[0, 5].item()
    out = model.generate(prompt, 12, temperature=1.0, eos=eos, generator=seeded(3))
    assert out.shape == (6, 14)
    for row in out[:, 2:].tolist():
        if eos in row:
            assert set(row[row.index(eos) :]) == {eos}


def test_logits_processor_sees_tokens_and_temperature_scaled_logits():
    model, prompt, seen = tiny(), tokens(2, 3), []

    def forbid(ids, logits):
        seen.append((ids.shape[1], logits))
        return logits.index_fill(-1, torch.tensor([0, 1, 2]), -torch.inf)

    out = model.generate(prompt, 4, temperature=2.0, logits_processor=forbid, generator=seeded())
    assert (out[:, 3:] > 2).all()
    assert [n for n, _ in seen] == [3, 4, 5, 6]
    torch.testing.assert_close(seen[0][1], model(prompt)[:, -1] / 2)


def test_rotary_scores_do_not_change_when_all_positions_shift():
    model, ids = tiny(), tokens(2, 7)
    torch.testing.assert_close(model(ids, positions=torch.arange(7) + 1000), model(ids), rtol=1e-9, atol=1e-9)
    moved = tiny(positions="learned", max_len=64)
    assert not torch.allclose(moved(ids, positions=torch.arange(7) + 20), moved(ids))


def test_position_object_is_shared_replaceable_and_not_saved():
    model, ids = tiny(), tokens(1, 6)
    before, state = model(ids), set(model.state_dict())

    class Stretched(RotaryEmbedding):
        def rotate(self, x, positions):
            return super().rotate(x, positions / 2)

    model.position = Stretched(6)
    assert not torch.allclose(model(ids), before)
    assert set(model.state_dict()) == state
    assert all(b.attention.position is model.position for b in model.blocks)
    model.position = RotaryEmbedding(6)
    torch.testing.assert_close(model(ids), before)


@pytest.mark.parametrize("raw", [True, False])
def test_position_objects_that_attend_or_keep_raw_keys(raw):
    class Attending:
        cache_raw_keys = True

        def __init__(self):
            self.rope = RotaryEmbedding(6)

        def rotate(self, x, positions):
            return self.rope.rotate(x, positions)

        if not raw:

            def attend(self, q, k, v, *, q_positions, k_positions, causal, scale):
                q, k = self.rotate(q, q_positions), self.rotate(k, k_positions)
                return attention(q, k, v, causal=causal, scale=scale)

    model, ids = tiny(), tokens(2, 8)
    expected = model(ids)
    model.position = Attending()
    torch.testing.assert_close(model(ids), expected)
    cache = model.new_cache(2, 8)
    parts = [model(part, cache=cache) for part in ids.split([3, 1, 4], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_mask_hides_more_and_shows_nothing_that_causality_hides(use_cache):
    model, ids = tiny(positions="none"), tokens(2, 6)
    cache = {"cache": model.new_cache(2, 6)} if use_cache else {}
    visible = torch.ones(2, 1, 1, 6, dtype=torch.bool)  # a padding mask without padding
    torch.testing.assert_close(model(ids, mask=visible, **cache), model(ids))
    torch.testing.assert_close(model.loss(ids, mask=visible[..., 1:]), model.loss(ids))


def test_prefix_mask_beside_causal_false():
    model, ids = tiny(positions="none"), tokens(2, 6)
    full = model(ids, mask=torch.ones(6, 6, dtype=torch.bool), causal=False)
    encoder = DecoderLM(LMConfig(vocab_size=13, d_model=24, n_layers=2, n_heads=4, causal=False, positions="none"))
    encoder.double().load_state_dict(model.state_dict())
    torch.testing.assert_close(full, encoder(ids))
    torch.testing.assert_close(model(ids, mask=prefix_mask(6, 0), causal=False), model(ids))


def test_last_only_and_hidden_states():
    model, ids = tiny(), tokens(2, 6)
    torch.testing.assert_close(model(ids, last_only=True), model(ids)[:, -1:])
    torch.testing.assert_close(model.head(model(ids, return_hidden=True)), model(ids))
    applied = []
    model.head.register_forward_hook(lambda m, i, o: applied.append(i[0].shape[1]))
    model(ids, last_only=True)
    assert applied == [1]


def test_positions_go_on_from_the_last_one_of_each_row():
    model, ids = tiny(), tokens(2, 7)
    hidden = torch.tensor([[True] * 5, [False] * 2 + [True] * 3])[:, None, None]
    positions = torch.tensor([[3, 4, 5, 6, 7], [0, 0, 0, 1, 2]])
    cache = model.new_cache(2, 8)
    model(ids[:, :5], positions=positions, mask=hidden, cache=cache)
    out = model(ids[:, 5:], mask=torch.nn.functional.pad(hidden, (0, 2), value=True), cache=cache.clone())
    torch.testing.assert_close(out[:1], model(ids[:1])[:, 5:])  # rotary scores see distances only
    torch.testing.assert_close(out[1:], model(ids[1:, 2:])[:, 3:])


def test_gradient_through_a_cached_prefix_is_that_of_one_pass():
    model, ids = tiny(conv_width=3, n_kv_heads=2), tokens(2, 6)
    cache = model.new_cache(2, 8)
    parts = [model(part, cache=cache).square().sum() for part in ids.split([2, 3, 1], dim=1)]
    found = torch.autograd.grad(sum(parts), list(model.parameters()))
    torch.testing.assert_close(found, torch.autograd.grad(model(ids).square().sum(), list(model.parameters())))


def test_ignored_targets_weigh_nothing():
    model, ids = tiny(), tokens(2, 5)
    targets = ids.clone()
    targets[0, 1:3] = -100
    weights = torch.rand(2, 5, generator=seeded(4), dtype=torch.float64)
    each = torch.nn.functional.cross_entropy(model(ids).mT, targets, reduction="none")
    expected = (each * weights).sum() / (weights * (targets != -100)).sum()
    torch.testing.assert_close(model.loss(ids, targets, weights=weights), expected)


def test_loss_is_the_mean_cross_entropy():
    model, ids = tiny(), tokens(2, 6)
    log_p = model(ids[:, :-1]).log_softmax(-1)
    each = -log_p.gather(-1, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(model.loss(ids), each.mean())
    w = torch.rand(2, 5, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(model.loss(ids, weights=w), (each * w).sum() / w.sum())
    torch.testing.assert_close(model.loss(ids[:, :-1], ids[:, 1:]), each.mean())
    assert model.bfloat16().loss(ids).dtype == torch.float32
    with pytest.raises(ValueError, match="weights"):
        model.loss(ids, weights=torch.zeros(2, 5, dtype=torch.bfloat16))


def test_initial_weights_follow_the_rules_and_the_generator():
    config = LMConfig(vocab_size=500, d_model=256, n_layers=3, n_heads=4, tie_embedding=False, conv_width=3, bias=True)
    a, b = (DecoderLM(config, generator=seeded(7)) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    expected = {
        "q": 1 / 16,
        "gate": 1 / 16,
        "out": 1 / 16 / math.sqrt(6),
        "down": config.inner_width**-0.5 / math.sqrt(6),
    }
    for name, std in expected.items():
        for block in a.blocks:
            weight = getattr(block.attention, name, None) or getattr(block.ffn, name)
            assert weight.weight.std().item() == pytest.approx(std, rel=0.02)
            assert not weight.bias.any()
    assert a.embedding.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert a.head.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert a.blocks[0].conv.kernel.std().item() == pytest.approx(0.1, rel=0.1)
    identity = tiny(zero_init_residual=True, positions="learned", max_len=9)
    x = identity.embedding(tokens(1, 5)) + identity.position_embedding(torch.arange(5))
    torch.testing.assert_close(identity(tokens(1, 5)), identity.head(identity.norm(x)))


def test_parameters_are_counted_once():
    model = tiny()
    manual = 13 * 24 + 2 * (4 * 24 * 24 + 3 * 24 * model.config.inner_width + 2 * 24) + 24
    assert model.num_parameters() == manual
    assert model.num_parameters(embedding=False) == manual - 13 * 24
    assert model.head.weight is model.embedding.weight


def test_other_attention_modules_plug_in():
    class Averaging(nn.Module):
        def __init__(self, config, layer):
            super().__init__()
            self.out = nn.Linear(config.d_model, config.d_model)

        def cache_shapes(self, batch, max_len):
            return [(batch, max_len, self.out.in_features)]

        def forward(self, x, *, positions, mask, causal, cache):
            past = x if cache is None else cache.append(x)[0]
            means = past.cumsum(1) / torch.arange(1, past.shape[1] + 1)[:, None]
            return self.out(means[:, -x.shape[1] :])

    config = LMConfig(vocab_size=13, d_model=24, n_layers=2, n_heads=4)
    model, ids = DecoderLM(config, attention=Averaging, generator=seeded()).double(), tokens(2, 6)
    cache = model.new_cache(2, 6)
    parts = [model(part, cache=cache) for part in ids.split([4, 2], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(ids))


def test_same_weights_as_hugging_face_llama_give_the_same_logits():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=97, hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=8,
            num_key_value_heads=2, rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
            tie_word_embeddings=False, max_position_embeddings=256,
        )
    ).eval()  # fmt: skip
    config = LMConfig(
        vocab_size=97, d_model=64, d_ff=112, n_layers=3, n_heads=8, n_kv_heads=2, rope_base=5000.0, tie_embedding=False
    )
    ours = DecoderLM(config).eval()
    ours.load_state_dict(llama_weights(theirs.state_dict(), head_dim=8))
    ids = tokens(2, 50, vocab=97)
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(ours(ids), expected, rtol=1e-5, atol=1e-5)
        out = theirs.generate(ids[:, :9], max_new_tokens=12, do_sample=False, pad_token_id=0)
        assert torch.equal(ours.generate(ids[:, :9], out.shape[1] - 9), out)
        turned = DecoderLM(replace(config, rope_layout="interleaved")).eval()
        turned.load_state_dict(llama_weights(theirs.state_dict(), head_dim=8, layout="interleaved"))
        torch.testing.assert_close(turned(ids), expected, rtol=1e-5, atol=1e-5)


def test_weights_of_the_other_rotary_layout_are_refused():
    half, interleaved = tiny(), tiny(rope_layout="interleaved")
    for copied in (copy.deepcopy(half), pickle.loads(pickle.dumps(half))):
        with pytest.raises(RuntimeError, match=r"blocks\.0\.attention.*'half'.*'interleaved'.*layout_permutation"):
            interleaved.load_state_dict(copied.state_dict())
    half.load_state_dict(tiny().state_dict())
    interleaved.load_state_dict(dict(half.state_dict()))  # no metadata: the caller vouches for it


@pytest.mark.parametrize("way", ["assign", "meta", "meta and assign", "inside another module"])
def test_the_tie_survives_loading(way):
    model, ids = tiny(), tokens(2, 5)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if way == "assign":
        loaded = tiny()
        loaded.load_state_dict(state, assign=True)
    elif way == "inside another module":
        loaded = nn.ModuleDict({"a": tiny()})
        loaded.load_state_dict({f"a.{name}": value for name, value in state.items()}, assign=True)
        loaded = loaded["a"]
    else:
        with torch.device("meta"):
            loaded = DecoderLM(model.config).eval()
        loaded = loaded if "assign" in way else loaded.double().to_empty(device="cpu")
        loaded.load_state_dict(state, assign="assign" in way)
    assert loaded.head.weight is loaded.embedding.weight
    assert loaded.num_parameters() == model.num_parameters()
    torch.testing.assert_close(loaded(ids), model(ids))


def test_model_compiles_without_graph_breaks(without_runtime_types):
    model, ids = tiny(n_kv_heads=2, conv_width=3).float(), tokens(2, 9)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(ids), model(ids))


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("n_heads", {"n_heads": 5}),
        ("n_kv_heads", {"n_kv_heads": 3}),
        ("rope_dim", {"rope_dim": 3}),
        ("rope_dim", {"rope_dim": 8}),
        ("max_len", {"positions": "learned"}),
        ("conv_width", {"conv_width": -1}),
    ],
)
def test_sizes_that_do_not_fit_name_their_field(field, options):
    with pytest.raises(ValueError, match=field):
        tiny(**options)


def test_generation_refuses_what_it_cannot_do():
    model = tiny(positions="learned", max_len=10)
    with pytest.raises(ValueError, match="max_len"):
        model.generate(tokens(1, 6), 5)
    with pytest.raises(ValueError, match="max_new_tokens"):
        model.generate(tokens(1, 6), -1)
    for lengths in ([0], [7]):
        with pytest.raises(ValueError, match="prompt_lengths"):
            model.generate(tokens(1, 6), 1, prompt_lengths=torch.tensor(lengths))
    with pytest.raises(ValueError, match=r"prompt_lengths.*convolution"):
        tiny(conv_width=2).generate(tokens(1, 6), 1, prompt_lengths=torch.tensor([3]))


@pytest.mark.parametrize(
    ("argument", "kind", "call"),
    [
        ("tokens", ValueError, lambda m: m(torch.arange(3))),
        ("tokens", TypeError, lambda m: m(torch.ones(2, 3))),
        ("tokens.*13.*12", ValueError, lambda m: m(torch.tensor([[1, 13]]))),
        ("tokens.*-1", ValueError, lambda m: m(torch.tensor([[1, -1]]))),
        ("mask.*None, None", ValueError, lambda m: m(tokens(2, 3), mask=torch.ones(2, 3, dtype=torch.bool))),
        ("mask", ValueError, lambda m: m(tokens(2, 3), mask=torch.ones(2, 1, 3, 4, dtype=torch.bool))),
        ("mask", TypeError, lambda m: m(tokens(2, 3), mask=torch.ones(3, 3))),
        ("positions", ValueError, lambda m: m(tokens(2, 3), positions=torch.arange(4))),
        ("temperature", ValueError, lambda m: m.generate(tokens(1, 3), 1, temperature=-1.0)),
        ("temperature", ValueError, lambda m: m.generate(tokens(1, 3), 1, temperature=math.nan)),
        ("prompt", ValueError, lambda m: m.generate(tokens(1, 0), 1)),
        ("prompt", TypeError, lambda m: m.generate(torch.ones(1, 3), 1)),
        ("eos", TypeError, lambda m: m.generate(tokens(1, 3), 1, eos=[2])),
        ("eos", ValueError, lambda m: m.generate(tokens(1, 3), 1, eos=13)),
        ("top_k", ValueError, lambda m: m.generate(tokens(1, 3), 1, top_k=0)),
        ("padding", ValueError, lambda m: m.generate(tokens(1, 3), 1, padding="both")),
        ("prompt_lengths", ValueError, lambda m: m.generate(tokens(1, 3), 1, prompt_lengths=torch.tensor([1, 2]))),
    ],
)
def test_wrong_input_is_named(without_runtime_types, argument, kind, call):
    with pytest.raises(kind, match=rf"^{argument}"):
        call(tiny())


def test_prompts_of_bytes_generate():
    model = tiny()
    assert torch.equal(model.generate(tokens(2, 3).to(torch.uint8), 4), model.generate(tokens(2, 3), 4))
    assert torch.equal(model(tokens(2, 3).to(torch.uint8)), model(tokens(2, 3)))
