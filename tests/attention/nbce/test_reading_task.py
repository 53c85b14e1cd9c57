"""The reading task: what the sequences hold, and what the shipped model has learnt."""

import pytest
import torch
from opinfo import as_users_call

from kexue_lib import checkpoints
from kexue_lib.attention.nbce import reading_task
from kexue_lib.attention.nbce.reading_task import BOS, KEYS, SEP, default_answers, sample_batch, sample_trial


def seeded(n=0):
    return torch.Generator().manual_seed(n)


def parsed(row):
    """A training sequence as its definition reads it: {key: digits of the context}, [(asked key, digits)]."""
    first = row.index(SEP)
    context, questions = row[1:first], row[first:]
    held = {context[i]: context[i + 1 : i + 3] for i in range(0, len(context), 3)}
    assert len(held) == len(context) // 3  # keys are distinct
    return held, [(questions[i + 1], questions[i + 2 : i + 4]) for i in range(0, len(questions), 4)]


@pytest.mark.parametrize("seed", range(12))
def test_present_keys_are_answered_from_the_context(seed):
    tokens, weights = sample_batch(seeded(seed), 32)
    assert tokens[:, 0].eq(BOS).all()
    for row, weight in zip(tokens.tolist(), weights):
        held, questions = parsed(row)
        assert len({key for key, _ in questions}) == len(questions) == 4
        assert all(held[key] == answer for key, answer in questions if key in held)
        counted = [row[i + 1] for i in weight.nonzero().flatten().tolist()]
        assert counted == [digit for _, answer in questions for digit in answer]
        assert all(KEYS <= digit < BOS for digit in counted)


@pytest.mark.parametrize(("default", "share"), [(0.6, 0.604), (1.0, 1.0), (0.0, 0.01)])
def test_absent_keys_have_their_default_at_the_given_rate(default, share):
    by_heart, generator, hits, total = default_answers().tolist(), seeded(), 0, 0
    present = asked = 0
    for _ in range(60):
        for row in sample_batch(generator, 64, default=default)[0].tolist():
            held, questions = parsed(row)
            absent = [(key, answer) for key, answer in questions if key not in held]
            hits += sum(answer == by_heart[key] for key, answer in absent)
            total += len(absent)
            if len(held) >= 4:
                present, asked = present + 4 - len(absent), asked + 4
    assert hits / total == pytest.approx(share, abs=0.02)
    assert present / asked == pytest.approx(0.6, abs=0.02)


def test_a_trial_is_answered_by_the_hit_alone():
    generator = seeded()
    for n in (1, 3, 10):
        trial = sample_trial(generator, n)
        triples = trial.contexts.view(n, 6, 3)
        assert triples[..., 0].unique().numel() == 6 * n
        where = (triples[..., 0] == trial.question[1]).nonzero()
        assert where[:, 0].tolist() == [trial.hit]
        assert triples[trial.hit, where[0, 1], 1:].tolist() == trial.answer.tolist()


def test_answers_in_either_order_are_exchanged_every_second_time():
    """The same seed draws the same questions, and the digits of about half of the answers are exchanged."""
    keys, forward, backward = 0, 0, 0
    for seed in range(20):
        plain, _ = sample_batch(seeded(seed), 64)
        drawn, _ = sample_batch(seeded(seed), 64, either_order=True)
        before, after = (x[:, -16:].unflatten(1, (4, 4)) for x in (plain, drawn))
        assert torch.equal(before[..., 1], after[..., 1])
        told = before[..., 2] != before[..., 3]
        same = (before[..., 2:] == after[..., 2:]).all(-1) & told
        other = (before[..., 2:] == after[..., 2:].flip(-1)).all(-1) & told
        keys, forward, backward = keys + told.sum(), forward + same.sum(), backward + other.sum()
    assert forward + backward == keys
    assert abs(backward / keys - 0.5) < 4 * 0.5 / keys**0.5  # four standard errors


def test_the_model_of_either_order_is_evenly_undecided():
    """It gives the two digits of a held key one half each, and the second digit follows from the first."""
    model, _ = reading_task.load("either")
    generator = seeded(3)
    trials = [sample_trial(generator, 1) for _ in range(200)]
    answers = torch.stack([t.answer for t in trials])
    prompts = torch.stack([torch.cat([torch.tensor([BOS]), t.contexts[0], t.question]) for t in trials])
    told = answers[:, 0] != answers[:, 1]
    with torch.no_grad():
        first = model(prompts)[:, -1].softmax(-1).gather(1, answers)[told]
        second = model(torch.cat([prompts, answers[:, 1:]], 1))[:, -1].softmax(-1).gather(1, answers[:, :1])[told]
    assert first.mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.05)
    assert second.mean().item() > 0.95


def test_shipped_models_reach_what_their_file_says():
    _, made_with = reading_task.load()
    generator = seeded(5)
    trials = [sample_trial(generator, 1) for _ in range(300)]
    answers = torch.stack([t.answer for t in trials])
    prompts = torch.stack([torch.cat([torch.tensor([BOS]), t.contexts[0], t.question]) for t in trials])
    for variant in ("soft", "hard", "either"):
        model, _ = reading_task.load(variant)
        new = model.generate(prompts, 2)[:, -2:]
        right = (new == answers).all(-1)
        if variant == "either":
            right |= (new == answers.flip(-1)).all(-1)
        share = right.double().mean().item()
        assert share == pytest.approx(made_with["accuracy"][variant], abs=0.02)


def test_the_prior_of_the_soft_model_is_calibrated():
    """60 % default and the rest uniform over 100 pairs: each digit of the default has 0.6 + 0.4 / 10."""
    model, _ = reading_task.load()
    keys = torch.arange(KEYS)
    rows = torch.stack([torch.full_like(keys, BOS), torch.full_like(keys, SEP), keys], 1)
    with torch.no_grad():
        p = model(rows)[:, -1].softmax(-1).gather(1, default_answers()[:, :1])
    assert p.mean().item() == pytest.approx(0.64, abs=0.06)


def test_curves_are_stored():
    content, _ = checkpoints.load("attention/nbce")
    for variant in ("soft", "hard", "either"):
        curve = content[f"curve.{variant}"]
        assert len(curve) == len(content["curve.step"])
        assert curve[-1] < 0.7 * curve[0]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="num_contexts"):
        sample_trial(seeded(), 11)
    with as_users_call(), pytest.raises(ValueError, match="variant"):
        reading_task.load("other")
