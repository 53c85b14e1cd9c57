"""scaling_law, parity tasks: labels recomputed bit by bit, frequencies counted, dense inputs, separate networks."""

from __future__ import annotations

import math

import pytest
import torch
from opinfo import as_users_call
from scipy import stats

from kexue_lib.checkpoints import load
from kexue_lib.checkpoints.optimization.scaling_law import SAMPLES, SEEDS, WIDTHS
from kexue_lib.optimization import scaling_law as sl


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("n_tasks", "n_bits", "k"), [(6, 4, 2), (20, 6, 3), (1, 3, 3), (500, 100, 3)])
def test_subsets_are_different_and_of_size_k(n_tasks, n_bits, k):
    data = sl.MultitaskSparseParity(n_tasks, n_bits, k, 0.4, generator=seeded(1))
    sets = {frozenset(row) for row in data.subsets.tolist()}
    assert len(sets) == n_tasks
    assert all(len(s) == k and min(s) >= 0 and max(s) < n_bits for s in sets)
    assert data.subsets.equal(sl.MultitaskSparseParity(n_tasks, n_bits, k, 0.4, generator=seeded(1)).subsets)


def test_label_is_the_parity_of_the_bits_of_the_task():
    data = sl.MultitaskSparseParity(10, 8, 3, 0.4)
    for task, bits, label in zip(*(part.tolist() for part in data.sample(200, generator=seeded(0)))):
        assert label == sum(bits[i] for i in data.subsets[task].tolist()) % 2
    assert (data.sample(9, task=4)[0] == 4).all()


def test_tasks_and_bits_come_with_their_frequencies():
    data = sl.MultitaskSparseParity(12, 6, 2, 0.4)
    task, bits, label = data.sample(60_000, generator=seeded(3))
    expected = (data.frequencies * 60_000).numpy()
    assert stats.chisquare(task.bincount(minlength=12).numpy(), expected).pvalue > 1e-3
    assert stats.binomtest(int(bits.sum(dtype=torch.long)), bits.numel()).pvalue > 1e-3
    assert stats.binomtest(int(label.sum(dtype=torch.long)), len(label)).pvalue > 1e-3


def test_looked_up_bias_equals_the_dense_network_on_the_paper_s_input():
    data, model = sl.MultitaskSparseParity(5, 6, 2, 0.4), sl.ParityMLP(5, 6, 7, generator=seeded(2)).double()
    task, bits, _ = data.sample(30, generator=seeded(4))
    x = data.encode(task, bits, torch.float64)
    assert x.shape == (30, 11)
    assert (x[:, :5].sum(1) == 1).all()
    weight = torch.cat([model.task_bias - model.bit_weight.sum(0), 2 * model.bit_weight])
    dense = (x @ weight).relu() @ model.read_out + model.offset
    torch.testing.assert_close(model(task, bits), dense)


def test_networks_of_an_ensemble_train_as_if_alone():
    data = sl.MultitaskSparseParity(4, 6, 2, 0.4)
    both = sl.ParityEnsemble(4, 6, [3, 5], generator=seeded(0)).double()
    alone = sl.ParityMLP(4, 6, 5).double()
    with torch.no_grad():
        for name, value in alone.named_parameters():
            source = getattr(both, name)
            value.copy_(source[..., 3:] if name != "offset" else source[1:])
    options = {"steps": 30, "batch_size": 64, "log_every": 10}
    together = sl.train_parity(data, both, **options, generator=seeded(5))
    single = sl.train_parity(data, alone, **options, generator=seeded(5))
    assert together.task_loss.shape == (3, 2, 4)
    assert together.mean_loss.shape == (3, 2)
    torch.testing.assert_close(together.task_loss[:, 1], single.task_loss, rtol=1e-6, atol=1e-9)


def test_a_network_learns_the_most_frequent_task_first():
    data = sl.MultitaskSparseParity(4, 8, 2, 1.0, generator=seeded(0))
    model = sl.ParityMLP(4, 8, 64, generator=seeded(1))
    trace = sl.train_parity(data, model, steps=400, batch_size=256, generator=seeded(2))
    learned = sl.steps_to_learn(trace)
    assert learned[0] == learned.nan_to_num(math.inf).min()
    assert learned[0] <= 300
    assert trace.steps.tolist() == [40.0 * i for i in range(1, 11)]
    torch.testing.assert_close(trace.mean_loss, (trace.task_loss * data.frequencies).sum(1))


def test_few_fixed_samples_are_memorised_and_not_learned():
    data = sl.MultitaskSparseParity(4, 10, 3, 0.4)
    model = sl.ParityMLP(4, 10, 64)
    trace = sl.train_parity(data, model, steps=400, batch_size=64, D=40, generator=seeded(1))
    assert trace.mean_loss[-1] > 1


def test_stored_runs_are_those_of_the_script():
    content, made_with = load("optimization/scaling_law")
    assert (made_with["samples"], made_with["widths"]) == (list(SAMPLES), list(WIDTHS))
    assert content["widths"].shape[0] == len(SEEDS)
    assert content["widths"].shape[2] == len(WIDTHS)
    assert set(content) == {
        *("steps", "steps/0.4", "steps/0.8", "steps/uniform", "widths"),
        *(f"samples/{D}" for D in SAMPLES),
    }


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sl.MultitaskSparseParity(7, 4, 2, 0.4), ValueError, "n_tasks: got 7"),
        (lambda: sl.MultitaskSparseParity(2, 4, 5, 0.4), ValueError, "k: got 5"),
        (lambda: sl.MultitaskSparseParity(2, 4, 2, 0.0), ValueError, "gamma: got 0.0"),
        (lambda: sl.MultitaskSparseParity(2, 4, 2, 0.4).sample(3, task=2), ValueError, "task: got 2"),
        (lambda: sl.ParityEnsemble(2, 4, []), ValueError, "widths: got none"),
        (lambda: sl.ParityMLP(2, 4, 0), ValueError, "widths: got 0"),
        (lambda: sl.ParityMLP(2, 4, 2.5), TypeError, "widths: got 2.5"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, error, message):
    with as_users_call(), pytest.raises(error, match=message):
        call()


def test_training_refuses_what_is_no_positive_number():
    data, model = sl.MultitaskSparseParity(2, 4, 2, 0.4), sl.ParityMLP(2, 4, 3)
    good = {"steps": 1, "batch_size": 1, "lr": 0.1, "D": 5, "log_every": 1}
    for name in good:
        with as_users_call(), pytest.raises(ValueError, match=f"{name}: got 0"):
            sl.train_parity(data, model, **{**good, name: 0})
