"""Sequence-to-sequence models against one another, and the stored runs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from attention.decoder_only.random_tokens import KINDS, generator, tokens
from opinfo import as_users_call

from kexue_lib import checkpoints
from kexue_lib.attention.core import LMConfig
from kexue_lib.attention.decoder_only import Seq2Seq, Seq2SeqConfig
from kexue_lib.checkpoints.attention import decoder_only as stored

BASE = LMConfig(vocab_size=13, d_model=16, n_layers=2, n_heads=4)
every_kind = pytest.mark.parametrize(("encoder", "shared"), KINDS)


def model(encoder: str, shared: bool = True, seed: int = 0, base: LMConfig = BASE) -> Seq2Seq:
    return Seq2Seq(Seq2SeqConfig(base, encoder, shared), generator=generator(seed)).double().eval()


# -- sequence to sequence ----------------------------------------------------------------------------------------------


def test_gpt_is_the_language_model_and_its_target_loss_is_part_of_the_whole():
    gpt, x, y = model("causal"), tokens(3, 5), tokens(3, 4, seed=4)
    both = torch.cat([x, y], 1)
    torch.testing.assert_close(gpt.loss(x, y, source_loss=True), gpt.decoder.loss(both))
    weights = torch.tensor([0.0] * 4 + [1.0] * 4, dtype=torch.float64).expand(3, 8)
    torch.testing.assert_close(gpt.loss(x, y), gpt.decoder.loss(both[:, :-1], both[:, 1:], weights=weights))


def test_gpt_and_unilm_differ_in_the_mask_only():
    gpt, unilm, x, y = model("causal"), model("bidirectional"), tokens(3, 5), tokens(3, 4, seed=4)
    assert gpt.num_parameters() == unilm.num_parameters() == gpt.decoder.num_parameters()
    for (name, a), (other, b) in zip(gpt.named_parameters(), unilm.named_parameters()):
        assert name == other
        assert torch.equal(a, b)
    assert not torch.isclose(gpt.loss(x, y), unilm.loss(x, y))
    torch.testing.assert_close(gpt.loss(x[:, :1], y), unilm.loss(x[:, :1], y))  # one token sees itself in either way


def test_encoder_decoder_has_about_twice_the_parameters():
    L, d = BASE.n_layers, BASE.d_model
    gpt, t5 = model("causal"), model("bidirectional", shared=False)
    layers = gpt.num_parameters() - 13 * d - d
    assert t5.num_parameters() == 13 * d + 2 * d + 2 * layers + L * (4 * d * d + d)


@every_kind
def test_no_target_token_is_predicted_from_itself_or_what_follows(encoder: str, shared: bool):
    net, x, y = model(encoder, shared), tokens(2, 5), tokens(2, 4, seed=4)
    logits = []
    for z in (y, (y + torch.tensor([0, 0, 1, 1])) % 13):
        inputs = torch.cat([x, z], dim=1)
        if shared:
            logits.append(net.decoder(inputs, mask=net._mask(5, 9, x.device))[:, 4:])
        else:
            logits.append(net.decoder(inputs[:, 4:], memory=net._memory(x)))
    torch.testing.assert_close(logits[0][:, :3], logits[1][:, :3])
    assert not torch.isclose(logits[0][:, 3:], logits[1][:, 3:]).any()


@every_kind
def test_what_the_source_sees(encoder: str, shared: bool):
    net, x = model(encoder, shared), tokens(2, 6)
    states = lambda s: net.decoder(s, return_hidden=True) if shared else net.encoder(s, return_hidden=True)
    last, first = x.clone(), x.clone()
    last[:, -1], first[:, 0] = (last[:, -1] + 1) % 13, (first[:, 0] + 1) % 13
    moved = [(states(z) - states(x)).abs().amax((0, 2)) > 1e-9 for z in (last, first)]
    assert moved[0].tolist() == [encoder != "causal"] * 5 + [True]
    assert moved[1].all()


@every_kind
def test_generation_with_a_cache_follows_the_loss(encoder: str, shared: bool):
    net, x = model(encoder, shared), tokens(2, 6)
    y = net.generate(x, 5)
    assert y.shape == (2, 5)
    for t, shift in itertools.product((0, 4), (1, 5, 9)):  # no other token is better, given those before
        other = y[:, : t + 1].clone()
        other[0, t] = (other[0, t] + shift) % 13
        assert net.loss(x, other) >= net.loss(x, y[:, : t + 1])
    drawn = [net.generate(x, 4, temperature=1.0, top_k=5, generator=generator(7)) for _ in range(2)]
    assert torch.equal(*drawn)


@every_kind
def test_losses_have_gradients_for_all_parameters_and_other_bases_work(encoder: str, shared: bool):
    base = LMConfig(
        vocab_size=13, d_model=16, n_layers=1, n_heads=4, n_kv_heads=2, tie_embedding=False, conv_width=2,
        positions="learned", max_len=12, ffn="gelu", norm="layer", bias=True,
    )  # fmt: skip
    net = model(encoder, shared, base=base)
    net.loss(tokens(2, 5), tokens(2, 3, seed=4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.generate(tokens(2, 5), 3).shape == (2, 3)


def test_sequence_models_refuse():
    x, y = tokens(2, 5), tokens(2, 3, seed=4)
    with as_users_call():
        with pytest.raises(ValueError, match="encoder: got 'sideways'"):
            Seq2SeqConfig(BASE, "sideways")
        for encoder, shared in KINDS[1:]:
            with pytest.raises(ValueError, match="source_loss"):
                model(encoder, shared).loss(x, y, source_loss=True)
        gpt = model("causal")
        for source, target in ((x[:, :0], y), (x, y[:, :0]), (x, y[:1])):
            with pytest.raises(ValueError, match="source, target: got shapes"):
                gpt.loss(source, target)
        with pytest.raises(ValueError, match="source: got shape"):
            gpt.generate(x[:, :0], 2)
        with pytest.raises(ValueError, match="prompt_lengths, use_cache: got one, expected none"):
            gpt.generate(x, 2, use_cache=False, prompt_lengths=torch.tensor([5, 5]))


# -- the stored runs ---------------------------------------------------------------------------------------------------


def test_stored_runs_are_whole():
    content, made_with = checkpoints.load("attention/decoder_only")
    for name, row in content["seq2seq"].items():
        last = [curve[-1] for curve in row["validation"]]
        assert len(last) == len(made_with["seed"])
        assert np.mean(last) == pytest.approx(made_with["validation"][name], rel=1e-4)
        assert np.max(last) < content["bigram"] + 0.1
        config = stored.SEQ2SEQ[name][0]
        assert content["parameters"][name] == model(config.encoder, config.shared, base=config.base).num_parameters()


@pytest.mark.slow
def test_a_stored_run_comes_out_again():
    content = checkpoints.load("attention/decoder_only")[0]["seq2seq"]["UniLM"]
    run = stored.seq2seq_run(stored.SEQ2SEQ["UniLM"][0], 0)
    np.testing.assert_allclose(run["validation"], content["validation"][0], atol=0.02)
