"""The training loop: one step is what it says, resuming gives the same bits, several processes are one large batch."""

import itertools
import math
import os
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from kexue_lib.mlp import mlp
from kexue_lib.training import _Run, fit, process_generator, warmup_cosine, warmup_linear
from kexue_lib.training._checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def network(seed=0, width=8, dropout=0.0):
    body = mlp([3, width, 1], generator=torch.Generator().manual_seed(seed))
    return nn.Sequential(nn.Dropout(dropout), body) if dropout else body


def squared(model, batch):
    x, y = batch
    return (model(x) - y).square().mean()


def draw(generator, size=16):
    x = torch.randn(size, 3, generator=generator)
    return x, x.sum(-1, keepdim=True).sin()


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=0.01)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# --- one step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 3])
def test_steps_are_those_of_a_loop_written_out(accumulate):
    ours = fit(
        network(), squared, draw, optimizer=adam, steps=7, accumulate=accumulate, clip_norm=0.5, ema=0.9,
        schedule=warmup_linear(7, warmup=2), seed=5,
    )  # fmt: skip
    model, g = network(), process_generator(5)
    optimizer, factor = adam(model.parameters()), warmup_linear(7, warmup=2)
    average = weights(model)
    for step in range(7):
        optimizer.param_groups[0]["lr"] = 0.01 * factor(step)
        losses = []
        for _ in range(accumulate):
            losses.append(squared(model, draw(g)))
            (losses[-1] / accumulate).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        # AveragedModel copies at its first update and averages from the second on.
        average = weights(model) if step == 0 else 0.9 * average + 0.1 * weights(model)
        row = {k: v[step].item() for k, v in ours.history.items()}
        assert row["step"] == step + 1
        assert row["loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)
        assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
        assert row["lr"] == pytest.approx(0.01 * factor(step))
    torch.testing.assert_close(weights(ours.model), weights(model))
    torch.testing.assert_close(weights(ours.ema), average)
    assert ours.steps == 7


def test_accumulating_is_one_large_batch():
    batches = [draw(process_generator(0), 16) for _ in range(1)]
    x, y = batches[0]
    parts = iter([(x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8, 12)])
    sgd = lambda p: torch.optim.SGD(p, lr=0.1)
    small = fit(network(), squared, lambda g: next(parts), optimizer=sgd, steps=1, accumulate=4)
    large = fit(network(), squared, lambda g: (x, y), optimizer=sgd, steps=1)
    torch.testing.assert_close(weights(small.model), weights(large.model))
    assert small.history["loss"][0].item() == pytest.approx(large.history["loss"][0].item(), rel=1e-6)


def test_schedules_given_as_scheduler_or_as_function_agree():
    def factory(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(5))

    a = fit(network(), squared, draw, optimizer=adam, steps=5, schedule=factory)
    b = fit(network(), squared, draw, optimizer=adam, steps=5, schedule=warmup_cosine(5))
    assert torch.equal(weights(a.model), weights(b.model))
    assert a.history["lr"].tolist() == pytest.approx([0.01 * warmup_cosine(5)(t) for t in range(5)])


@pytest.mark.parametrize("schedule", [warmup_linear, warmup_cosine])
def test_schedules_rise_then_fall_to_the_floor(schedule):
    factor = schedule(100, warmup=10, floor=0.1)
    values = [factor(t) for t in range(101)]
    assert values[:10] == pytest.approx([(t + 1) / 10 for t in range(10)])
    assert values[10] == 1
    assert all(a >= b for a, b in pairwise(values[10:]))
    assert values[100] == pytest.approx(0.1)
    assert factor(200) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="warmup"):
        schedule(5, warmup=6)


def test_rows_average_the_losses_since_the_row_before_and_evaluation_fills_its_own():
    every = fit(network(), squared, draw, optimizer=adam, steps=7)
    sparse = fit(
        network(), squared, draw, optimizer=adam, steps=7, log_every=3,
        evaluate=lambda m: {"probe": weights(m).sum().item(), "training": m.training}, evaluate_every=2,
    )  # fmt: skip
    assert torch.equal(weights(every.model), weights(sparse.model))
    assert sparse.history["step"].tolist() == [2, 3, 4, 6, 7]
    means = [every.history["loss"][a:b].mean().item() for a, b in ((0, 2), (2, 3), (3, 4), (4, 6), (6, 7))]
    assert sparse.history["loss"].tolist() == pytest.approx(means, rel=1e-6)
    assert sparse.history["probe"].isnan().tolist() == [False, True, False, False, False]
    assert sparse.history["probe"][-1].item() == pytest.approx(weights(sparse.model).sum().item())
    assert sparse.history["training"][0] == 0


def test_losses_in_a_dict_are_all_logged():
    def loss(model, batch):
        value = squared(model, batch)
        return {"loss": 2 * value, "half": value}

    history = fit(network(), loss, draw, optimizer=adam, steps=3).history
    torch.testing.assert_close(history["loss"], 2 * history["half"])
    with pytest.raises(ValueError, match="loss"):
        fit(network(), lambda m, b: {"total": squared(m, b)}, draw, optimizer=adam, steps=1)


def test_equal_seeds_give_equal_bits_and_leave_the_global_generator_alone():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    runs = [fit(network(dropout=0.3), squared, draw, optimizer=adam, steps=5, seed=s).model for s in (1, 1, 2)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert not torch.equal(weights(runs[0]), weights(runs[2]))


def test_loss_may_call_any_method_of_the_model():
    class Model(nn.Linear):
        def energy(self, batch):
            return squared(self, batch)

    result = fit(Model(3, 1), lambda m, b: m.energy(b), draw, optimizer=adam, steps=300)
    assert result.history["loss"][-50:].mean() < 0.8 * result.history["loss"][:20].mean()


def test_bf16_trains_in_mixed_precision():
    seen = []

    def loss(model, batch):
        seen.append(model[0](batch[0]).dtype)
        return squared(model, batch)

    result = fit(network(), loss, draw, optimizer=adam, steps=3, precision="bf16")
    assert set(seen) == {torch.bfloat16}
    assert weights(result.model).dtype == torch.float32


def test_an_optimizer_may_be_given_as_it_is():
    model = network()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.0}]
    last = model[2].weight.detach().clone()
    fit(model, squared, draw, optimizer=torch.optim.SGD(groups), steps=3)
    assert torch.equal(model[2].weight, last)


def test_the_settings_of_the_callers_accelerator_stay():
    accelerator = Accelerator(mixed_precision="bf16", gradient_accumulation_steps=4, cpu=True)
    fit(network(), squared, draw, optimizer=adam, steps=2)
    assert accelerator.mixed_precision == "bf16"
    assert accelerator.gradient_accumulation_steps == 4


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="device: got 'cuda:99'"):
        fit(network(), squared, draw, optimizer=adam, steps=2, device="cuda:99")


def test_steps_may_log_different_numbers():
    count = itertools.count()

    def loss(model, batch):
        value = squared(model, batch)
        return {"loss": value, "odd": value.detach() * 0 + 7} if next(count) % 2 else {"loss": value}

    history = fit(network(), loss, draw, optimizer=adam, steps=4).history["odd"]
    assert history.isnan().tolist() == [True, False, True, False]
    both = fit(network(), loss, draw, optimizer=adam, steps=4, log_every=2).history["odd"]
    assert both.tolist() == [7.0, 7.0]


def test_a_skipped_step_moves_neither_schedule_nor_average():
    run = _Run(network(), squared, adam, warmup_cosine(4), "no", 0.5, 0, None)
    before = run.scheduler.last_epoch, weights(run.ema).clone()
    run.optimizer.step_was_skipped = True
    run.update()
    assert (run.scheduler.last_epoch, weights(run.ema).tolist()) == (before[0], before[1].tolist())
    run.optimizer.step_was_skipped = False
    run.update()
    assert run.scheduler.last_epoch == before[0] + 1


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_no_steps_leave_the_model_alone():
    model, before = network(), weights(network())
    result = fit(model, squared, draw, optimizer=adam, steps=0)
    assert torch.equal(weights(result.model), before)
    assert result.steps == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", -1), ("accumulate", 0), ("clip_norm", 0.0), ("clip_norm", -1.0), ("ema", 1.0), ("ema", -0.1),
     ("precision", "fp8"), ("evaluate_every", 3), ("log_every", 0), ("precision", "fp16")],
)  # fmt: skip
def test_bad_arguments_are_named(name, value):
    if (name, value) == ("precision", "fp16") and torch.cuda.is_available():
        pytest.skip("fp16 works on this machine's GPU")
    arguments = {"steps": 1, name: value}
    with pytest.raises(Exception, match=name):
        fit(network(), squared, draw, optimizer=adam, **arguments)


def test_a_loss_that_is_not_finite_is_named_with_its_step():
    count = iter(range(100))

    def loss(model, batch):
        return squared(model, batch) * (math.nan if next(count) == 4 else 1)

    with pytest.raises(FloatingPointError, match="step 5"):
        fit(network(), loss, draw, optimizer=adam, steps=20, log_every=10)


# --- several processes ------------------------------------------------------------------------------------------------

PROCESSES = textwrap.dedent(
    """
    import sys, torch, torch.distributed as dist
    sys.path.insert(0, {tests!r})
    from training.test_training import adam, draw, network, squared, weights
    from kexue_lib.training import fit, warmup_linear
    def probe(model):
        return {{"probe": squared(model, draw(torch.Generator().manual_seed(0)))}}
    def run(steps, **more):
        return fit(network(), squared, draw, optimizer=adam, steps=steps, accumulate=2, clip_norm=0.3, seed=7, ema=0.9,
                   schedule=warmup_linear(8), evaluate=probe, evaluate_every=4, device="cpu", **more)
    whole = run(8, checkpoint=sys.argv[1] + "/whole")
    run(3, checkpoint=sys.argv[1] + "/cut")
    resumed = run(8, checkpoint=sys.argv[1] + "/cut")
    if dist.get_rank() == 0:
        torch.save([whole.history, resumed.history], sys.argv[1] + "/histories.pt")
    dist.destroy_process_group()
    """
)


def two_processes_in_one():
    """One process that draws what two would: the batches of both generators, joined."""
    generators = [process_generator(7, r) for r in (0, 1)]

    def sample(_):
        parts = [draw(g) for g in generators]
        return tuple(torch.cat(p) for p in zip(*parts))

    probe = lambda m: {"probe": squared(m, draw(torch.Generator().manual_seed(0)))}
    return fit(
        network(), squared, sample, optimizer=adam, steps=8, accumulate=2, clip_norm=0.3, seed=7, ema=0.9,
        schedule=warmup_linear(8), evaluate=probe, evaluate_every=4,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without torch.distributed")
@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_are_one_with_twice_the_batch(tmp_path, sharded):
    script = tmp_path / "run.py"
    script.write_text(PROCESSES.format(tests=str(ROOT / "tests")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_FSDP": str(sharded).lower()}
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    whole, resumed = torch.load(tmp_path / "histories.pt")
    one = two_processes_in_one()
    for name, values in one.history.items():
        torch.testing.assert_close(whole[name], values, rtol=2e-5, atol=1e-7, equal_nan=True)
        if name != "probe":  # the interrupted run was evaluated where it stopped, too
            assert torch.equal(whole[name], resumed[name])
    saved = read_checkpoint(tmp_path / "whole")
    torch.testing.assert_close(
        torch.cat([v.flatten() for v in saved["model"].values()]), weights(one.model), rtol=1e-4, atol=1e-6
    )
    average = torch.cat([v.flatten() for k, v in saved["ema"].items() if k.startswith("module")])
    torch.testing.assert_close(average, weights(one.ema), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="processes"):
        fit(
            network(),
            squared,
            draw,
            optimizer=adam,
            steps=9,
            accumulate=2,
            ema=0.9,
            seed=7,
            checkpoint=tmp_path / "whole",
        )
