"""amos_recipes: schedules against their equations, both optimizers against scalar loops in plain Python."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opinfo import as_users_call
from scipy.integrate import solve_ivp
from torch import nn
from torch.optim import SGD, AdamW

from kexue_lib import mlp, training
from kexue_lib.optimization import amos_recipes as ar

MODES = ("inverse_time", "inverse_square")
SHAPES = ((3, 4), (5,), (2, 3, 2), ())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tensors(dtype=torch.float64, seed=0, shapes=SHAPES):
    g = seeded(seed)
    return [torch.randn(s, dtype=torch.float64, generator=g).to(dtype).requires_grad_() for s in shapes]


def set_gradients(params, seed, scale=1.0):
    g = seeded(seed)
    for p in params:
        p.grad = (scale * torch.randn(p.shape, dtype=torch.float64, generator=g)).to(p.dtype)


# --- the decay --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_closed_form_solves_the_differential_equation(mode):
    # S' = a p exp(-S) for a constant p, S' = a p exp(-2S) for p falling with the distance; SciPy integrates.
    a, p, m, times = 0.01, 0.3, 1 if mode == "inverse_time" else 0, [1.0, 40.0, 300.0]
    slope = lambda t, s: a * p * np.exp(-(m + 1) * s)
    solution = solve_ivp(slope, (0, 300), [0.0], method="DOP853", t_eval=times, rtol=1e-13, atol=1e-16).y[0]
    kappa = 2 * a * p if mode == "inverse_time" else a * p
    for t, s in zip(times, solution, strict=True):
        assert ar.decay_factor(t, kappa, mode).item() == pytest.approx(math.exp(-2 * s), rel=1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("half_life", [1.0, 414.2, 1e6])
def test_half_after_the_half_life(mode, half_life):
    kappa = ar.kappa_from_half_life(half_life, mode)
    assert ar.decay_factor(half_life, kappa, mode).item() == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_recursion_is_the_sum_that_it_stands_for(mode):
    a, p, total = 0.02, 0.4, 0.0
    expected = [1.0]
    for _ in range(200):
        progress = p * math.exp(-total) if mode == "inverse_time" else p
        total += a * progress * math.exp(-total)
        expected.append(math.exp(-2 * total))
    assert ar.decay_recursion(200, a, p, mode).tolist() == pytest.approx(expected, rel=1e-11)


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-6, 0.05), st.sampled_from(MODES))
def test_recursion_stays_within_its_bound_of_the_closed_form(kappa, mode):
    p = kappa if mode == "inverse_square" else kappa / 2
    exact = ar.decay_recursion(2000, 1.0, p, mode)
    closed = ar.decay_factor(torch.arange(2001), kappa, mode)
    power = 2 if mode == "inverse_square" else 1
    deviation = (exact / closed - 1).abs().max().item()
    assert (exact <= closed * (1 + 1e-12)).all()
    assert deviation <= power * kappa / 2 * math.exp(kappa) * (kappa + 1 / math.e) + 1e-10


# --- the scheduler ----------------------------------------------------------------------------------------------------


def optimizer_of(rates=(0.1, 0.5), decays=(0.01, 0.2), kind=AdamW):
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": r, "weight_decay": w} for r, w in zip(rates, decays)]
    return kind(groups)


@pytest.mark.parametrize("mode", MODES)
def test_scheduler_is_warm_up_and_then_the_factor(mode):
    optimizer = optimizer_of()
    schedule = ar.AmosLR(optimizer, half_life=10.0, mode=mode, warmup_steps=3, scale_weight_decay=True)
    for t in range(30):
        kappa = ar.kappa_from_half_life(10.0, mode)
        factor = (t + 1) / 4 if t < 3 else ar.decay_factor(float(t - 3), kappa, mode).item()
        for group, rate, decay in zip(optimizer.param_groups, (0.1, 0.5), (0.01, 0.2)):
            assert group["lr"] == pytest.approx(rate * factor, rel=1e-12)
            assert group["weight_decay"] == pytest.approx(decay * factor, rel=1e-12)
        optimizer.step()
        schedule.step()


def test_weight_decay_stays_unless_asked_for():
    optimizer = optimizer_of()
    schedule = ar.AmosLR(optimizer, half_life=1.0)
    optimizer.step()
    schedule.step()
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.01, 0.2]


@pytest.mark.parametrize("tensor_rate", [False, True])
def test_scheduler_goes_on_from_its_state(tensor_rate):
    rate = (torch.tensor(0.1), torch.tensor(0.5)) if tensor_rate else (0.1, 0.5)
    first = optimizer_of(rate)
    schedule = ar.AmosLR(first, half_life=5.0, scale_weight_decay=True)
    for _ in range(7):
        first.step()
        schedule.step()
    second = optimizer_of(
        tuple(copy.deepcopy(r) for r in ((torch.tensor(0.1), torch.tensor(0.5)) if tensor_rate else (0.1, 0.5)))
    )
    other = ar.AmosLR(second, half_life=5.0, scale_weight_decay=True)
    other.load_state_dict(copy.deepcopy(schedule.state_dict()))
    for _ in range(3):
        for name in ("lr", "weight_decay"):
            assert [float(g[name]) for g in first.param_groups] == [float(g[name]) for g in second.param_groups]
        for o, s in ((first, schedule), (second, other)):
            o.step()
            s.step()


def test_resuming_by_last_epoch_goes_on():
    optimizer = optimizer_of()
    schedule = ar.AmosLR(optimizer, half_life=5.0, scale_weight_decay=True)
    for _ in range(4):
        optimizer.step()
        schedule.step()
    fresh = optimizer_of()
    fresh.load_state_dict(optimizer.state_dict())
    ar.AmosLR(fresh, half_life=5.0, scale_weight_decay=True, last_epoch=schedule.last_epoch - 1)
    assert [g["lr"] for g in fresh.param_groups] == [g["lr"] for g in optimizer.param_groups]
    assert [g["weight_decay"] for g in fresh.param_groups] == [g["weight_decay"] for g in optimizer.param_groups]


def test_group_without_decay_is_refused_and_nothing_changed():
    optimizer = ar.Amos([nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match="scale_weight_decay"):
        ar.AmosLR(optimizer, half_life=3.0, scale_weight_decay=True)
    assert "initial_lr" not in optimizer.param_groups[0]


# --- what every optimizer owes ----------------------------------------------------------------------------------------

MAKERS = {
    "amos": lambda p: ar.Amos(p, 0.01),
    "amos momentum": lambda p: ar.Amos(p, 0.01, momentum=0.9, reduce="fan_in"),
    "relative": lambda p: ar.RelativeUpdate(p, 0.01, kappa=1e-3),
    "relative sign": lambda p: ar.RelativeUpdate(p, 0.01, base="sign", mode="inverse_square", kappa=1e-3),
}
every_optimizer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@every_optimizer
def test_state_goes_on_to_the_same_bits(make):
    params = tensors(torch.float32)
    optimizer = make(params)
    for t in range(4):
        set_gradients(params, t)
        optimizer.step()
    others = [p.detach().clone().requires_grad_() for p in params]
    other = make(others)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for t in range(4, 7):
        for these, o in ((params, optimizer), (others, other)):
            set_gradients(these, t)
            o.step()
    assert all(torch.equal(p, q) for p, q in zip(params, others))


@every_optimizer
def test_closure_runs_with_gradients_and_its_loss_comes_back(make):
    p = nn.Parameter(torch.ones(2, 2))
    optimizer = make([p])

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert p.square().sum() < 4


@every_optimizer
def test_parameters_without_gradient_get_no_state(make):
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = make([used, unused])
    used.grad = torch.ones(2)
    optimizer.step()
    assert unused not in optimizer.state
    assert torch.equal(unused, torch.ones(2))


@every_optimizer
def test_sparse_and_complex_are_refused_before_anything_moves(make):
    dense, sparse = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = make([dense, sparse])
    dense.grad, sparse.grad = torch.ones(3), torch.ones(3).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert torch.equal(dense, torch.ones(3))
    p = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    p.grad = torch.ones_like(p)
    with pytest.raises(RuntimeError, match="complex"):
        make([p]).step()


@every_optimizer
def test_descends_a_quadratic(make):
    p = nn.Parameter(torch.full((4, 4), 3.0))
    optimizer = make([p])
    for _ in range(800):
        optimizer.zero_grad()
        (p - 1).square().sum().backward()
        optimizer.step()
    assert (p - 1).abs().max() < 1.5


def test_groups_have_their_own_options():
    first, second = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    first.grad, second.grad = torch.ones(2, 2), torch.ones(2, 2)
    ar.RelativeUpdate([{"params": [first]}, {"params": [second], "alpha0": 0.2, "sigma": 1.0}], 0.1).step()
    assert first[0, 0].item() == pytest.approx(1 - 0.05 - 0.005)
    assert second[0, 0].item() == pytest.approx(1 - 0.2 - 0.02)


@every_optimizer
def test_fit_resumes_to_the_same_bits(make, tmp_path):
    def run(steps, folder):
        model = mlp.mlp([6, 8, 3], generator=seeded(1))
        sample = lambda g: torch.randn(16, 6, generator=g)
        loss = lambda m, x: nn.functional.cross_entropy(m(x), (x[:, :3]).argmax(-1))
        schedule = lambda o: ar.AmosLR(o, half_life=5.0)
        options = {"optimizer": make, "schedule": schedule, "checkpoint": folder, "progress": False}
        training.fit(model, loss, sample, steps=steps, **options)
        return model

    whole = run(12, tmp_path / "whole")
    run(5, tmp_path / "parts")
    parts = run(12, tmp_path / "parts")
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), parts.parameters()))


def one():
    return [nn.Parameter(torch.ones(2))]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: ar.decay_factor(-1, 0.1), "t"),
        (lambda: ar.decay_factor(1, -0.1), "kappa"),
        (lambda: ar.decay_factor(1, 0.1, "linear"), "mode"),
        (lambda: ar.kappa_from_half_life(0), "half_life"),
        (lambda: ar.decay_recursion(-1, 0.1, 0.1), "n"),
        (lambda: ar.decay_recursion(3, 0.0, 0.1), "alpha0"),
        (lambda: ar.decay_recursion(3, 0.1, -0.1), "p"),
        (lambda: ar.AmosLR(SGD(one(), lr=1.0), half_life=-3), "half_life"),
        (lambda: ar.AmosLR(SGD(one(), lr=1.0), half_life=3.0, warmup_steps=-1), "warmup_steps"),
        (lambda: ar.AmosLR(SGD(one(), lr=1.0), half_life=3.0, mode="x"), "mode"),
        (lambda: ar.Amos(one(), lr=-1.0), "lr"),
        (lambda: ar.Amos(one(), lr=torch.ones(2)), "lr"),
        (lambda: ar.Amos(one(), beta=1.0), "beta"),
        (lambda: ar.Amos(one(), momentum=1.0), "momentum"),
        (lambda: ar.Amos(one(), extra_l2=-0.1), "extra_l2"),
        (lambda: ar.Amos(one(), reduce="rows"), "reduce"),
        (lambda: ar.Amos(one(), eps=0.0), "eps"),
        (lambda: ar.Amos(one(), clip_value=0.0), "clip_value"),
        (lambda: ar.Amos(one(), eta=-1.0), "eta"),
        (lambda: ar.Amos([{"params": one(), "beta": 2.0}]), "beta"),
        (lambda: ar.RelativeUpdate(one(), 0.0), "alpha0"),
        (lambda: ar.RelativeUpdate(one(), sigma=0.0), "sigma"),
        (lambda: ar.RelativeUpdate(one(), q=0.0), "q"),
        (lambda: ar.RelativeUpdate(one(), kappa=-1.0), "kappa"),
        (lambda: ar.RelativeUpdate(one(), mode="x"), "mode"),
        (lambda: ar.RelativeUpdate(one(), base="lion"), "base"),
        (lambda: ar.RelativeUpdate(one(), betas=(0.9, 1.0)), r"betas\[1\]"),
        (lambda: ar.RelativeUpdate(one(), eps=0.0), "eps"),
        (lambda: ar.default_eta(torch.ones(2, 0)), "p"),
    ],
)
def test_bad_input_is_named(call, name):
    with as_users_call(), pytest.raises(ValueError, match=rf"^{name}: got .*expected"):
        call()
