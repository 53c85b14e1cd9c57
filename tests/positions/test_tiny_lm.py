"""The tiny byte model: what its data are, and that the stored weights still do what their files say."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kexue_lib.checkpoints import load
from kexue_lib.checkpoints.positions import base_beta, tiny_lm
from kexue_lib.data import python_source
from kexue_lib.positions import tiny_lm as lm
from kexue_lib.positions.rope import RotaryEmbedding, inverse_frequencies


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_training_rows_are_text_and_short_periods():
    tokens = lm.training_batches(200, 40)(seeded(0))
    assert tokens.shape == (40, 201)
    source = bytes(python_source().train.tolist())
    assert all(bytes(row.tolist()) in source for row in tokens[:3])
    for row in tokens[20:]:
        periods = [p for p in range(1, 60) if torch.equal(row[p:], row[:-p])]
        assert periods
        assert periods[0] <= 48


def test_evaluation_windows_were_never_trained_on_and_repeat_every_96_bytes():
    text = lm.evaluation_batch("text", 150, 3, generator=seeded(0))
    repeated = lm.evaluation_batch("rep96", 150, 3, generator=seeded(0))
    held_out = bytes(python_source().validation.tolist())
    assert all(bytes(row.tolist()) in held_out for row in text)
    assert torch.equal(repeated[:, :96], text[:, :96])
    assert torch.equal(repeated[:, 96:], text[:, :54])


def test_accuracy_and_losses_are_those_of_the_plain_forward_pass():
    model, tokens = lm.load_tiny_lm(), lm.evaluation_batch("text", 65, 4, generator=seeded(0))
    logits = model(tokens)[:, :-1].double()
    each = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(4, 64)
    torch.testing.assert_close(lm.position_losses(model, tokens), each.mean(0), rtol=0, atol=1e-5)
    assert lm.last_bytes_loss(model, tokens, last=10) == pytest.approx(each[:, -10:].mean().item(), abs=1e-5)
    right = logits.argmax(-1)[:, -10:] == tokens[:, -10:]
    assert lm.last_bytes_accuracy(model, tokens, last=10) == pytest.approx(right.double().mean().item())


@pytest.mark.parametrize("variant", ["plain", "log_n"])
def test_the_stored_weights_give_the_stored_results(variant):
    stored = load("positions/tiny_lm" if variant == "plain" else "positions/tiny_lm_log_n")[1]
    assert stored["variant"] == variant
    for seed in lm.SEEDS:
        found, expected = tiny_lm.measure(lm.load_tiny_lm(variant, seed=seed)), stored["measured"][f"seed{seed}"]
        # Another Python version has other validation bytes, another processor other roundings.
        assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=0.02)
        assert found["loss"] == pytest.approx(expected["loss"], abs=0.08)


def test_seeds_are_different_models():
    first, second = (lm.load_tiny_lm(seed=s).embedding.weight for s in (0, 1))
    assert (first - second).abs().max() > 0.01


@pytest.mark.parametrize(
    ("recipe", "scale"), [("none", "plain"), ("yarn", "temperature"), ("ntk-mixed", "log n trained")]
)
def test_a_sample_of_the_result_table_comes_out_again(recipe, scale):
    content, _ = load("positions/base_beta")
    found = base_beta.accuracy(recipe, 8, scale, 1, "rep96", 512)
    assert found == pytest.approx(content["table"][scale][recipe]["rep96"][1], abs=0.03)


def test_a_cut_of_the_result_table_comes_out_again():
    theta = inverse_frequencies(32)
    theta[5:] /= 8
    model = lm.load_tiny_lm(seed=0)
    model.position = RotaryEmbedding(32, inv_freq=theta)
    tokens = lm.evaluation_batch("rep96", 513, base_beta.WINDOWS, generator=seeded(1))
    expected = load("positions/base_beta")[0]["cuts"]["rep96"][5][0]
    assert lm.last_bytes_accuracy(model, tokens) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("variant", lambda: lm.tiny_config("loud")),
        ("variant", lambda: lm.load_tiny_lm("loud")),
        ("seed", lambda: lm.load_tiny_lm(seed=3)),
        ("kind", lambda: lm.evaluation_batch("rep97", 10, 2)),
        ("length", lambda: lm.evaluation_batch("text", 0, 2)),
        ("length", lambda: lm.training_batches(0)),
        ("batch_size", lambda: lm.training_batches(8, 0)),
        ("last", lambda: lm.last_bytes_accuracy(lm.load_tiny_lm(), torch.zeros(1, 9, dtype=torch.long), last=9)),
        ("last", lambda: lm.last_bytes_loss(lm.load_tiny_lm(), torch.zeros(1, 9, dtype=torch.long), last=0)),
    ],
)
def test_bad_values_are_named(name, call, without_runtime_types):
    with pytest.raises(ValueError, match=name):
        call()
