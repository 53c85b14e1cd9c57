"""lora_gradient: the optimizers against modules with torch's optimizers, and against moments of normal numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from opinfo import as_users_call
from torch import Tensor, nn

from kexue_lib.matrices.lora_gradient import (
    LoRALinear,
    LoRAOptimizer,
    RandomProjectionSGD,
    additive_delta,
    additive_gradients,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(dtype: torch.dtype = torch.float64) -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9, bias=False), nn.Tanh(), nn.Linear(9, 4, bias=False)).to(dtype)
    return model, torch.randn(12, 6).to(dtype), torch.randn(12, 4).to(dtype)


INNER = {
    "sgd": ({}, lambda p: torch.optim.SGD(p, lr=0.05)),
    "sgd with momentum": (
        {"momentum": 0.9, "weight_decay": 0.1},
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
    ),
    "adam": ({"weight_decay": 0.1}, lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1)),
    "adamw": (
        {"weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6},
        lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6),
    ),
}


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("init", ["zero_B", "zero_A", "both"])
def test_optimizer_form_follows_the_module_form(inner, init):
    plain, x, target = problem()
    options, make = INNER[inner]
    optimizer = LoRAOptimizer(
        plain.parameters(), 0.05, 3, inner=inner.split()[0], scale=0.7, init=init, generator=generator(), **options
    )
    adapted = copy.deepcopy(plain)
    for index in (0, 2):
        layer = LoRALinear(adapted[index], 3, alpha=2.1)
        state = optimizer.state[plain[index].weight]
        layer.set_factors(state["A"], state["B"])
        adapted[index] = layer
    module_optimizer = make([p for p in adapted.parameters() if p.requires_grad])
    moved = 0.0
    for _ in range(50):
        for model, opt in ((plain, optimizer), (adapted, module_optimizer)):
            opt.zero_grad()
            (model(x) - target).square().mean().backward()
            opt.step()
        for index in (0, 2):
            error = (plain[index].weight - adapted[index].effective_weight()).abs().max()
            assert error <= 1e-12
            moved = max(moved, (adapted[index].delta_weight()).abs().max().item())
    assert moved > 0.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_saved_state_continues_to_the_same_bits(inner, dtype):
    model, x, target = problem(dtype)

    def steps(model, optimizer):
        for _ in range(4):
            optimizer.zero_grad()
            (model(x) - target).square().mean().backward()
            optimizer.step()

    def make(model):
        return LoRAOptimizer(model.parameters(), 0.05, 2, inner=inner, momentum=0.5, generator=generator())

    optimizer = make(model)
    steps(model, optimizer)
    again = copy.deepcopy(model)
    resumed = make(again)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(model, optimizer)
    steps(again, resumed)
    for p, q in zip(model.parameters(), again.parameters()):
        assert torch.equal(p, q)
        assert all(resumed.state[q][k].dtype != torch.bfloat16 for k in "AB")


def test_small_steps_add_up_in_bfloat16():
    weight = nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    optimizer = LoRAOptimizer([weight], 1e-3, 1, init="zero_A", generator=generator())
    exact = LoRAOptimizer([wide := nn.Parameter(torch.ones(4, 4))], 1e-3, 1, init="zero_A", generator=generator())
    for _ in range(50):
        weight.grad, wide.grad = torch.ones_like(weight), torch.ones_like(wide)
        optimizer.step()
        exact.step()
    change = (wide - 1).abs().max().item()
    assert change > 2**-8  # above one unit in the last place, of which a single step is a small part
    assert (weight.float() - wide).abs().max().item() <= 2**-8


def test_rates_are_read_at_each_step_and_groups_have_their_own():
    one, two = (nn.Parameter(torch.zeros(3, 4)) for _ in range(2))
    optimizer = LoRAOptimizer([{"params": [one]}, {"params": [two], "lr": 0.0}], 0.1, 1)
    one.grad, two.grad = torch.ones(3, 4), torch.ones(3, 4)
    optimizer.step()
    assert one.abs().sum() > 0
    assert two.abs().sum() == 0
    before = one.clone()
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert torch.equal(one, before)
    optimizer.add_param_group({"params": [three := nn.Parameter(torch.zeros(2, 2))]})
    three.grad = torch.ones(2, 2)
    optimizer.step()
    assert three.abs().sum() > 0


@pytest.mark.parametrize(("sides", "rank"), [("both", 1), ("left", 3), ("right", 3), ("both", 8)])
def test_random_projection_has_the_gradient_as_mean_and_the_second_moment_of_theory(sides, rank):
    n, m, draws = 5, 4, 8000
    G = torch.randn(m, n, generator=generator(1), dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(m, n, dtype=torch.float64))
    optimizer = RandomProjectionSGD([weight], 1.0, rank, sides=sides, generator=generator())
    samples = torch.empty(draws, m, n, dtype=torch.float64)
    for i in range(draws):
        weight.data.zero_()
        weight.grad = G
        optimizer.step()
        samples[i] = -weight.detach()
    error = samples.std(0) / draws**0.5
    assert ((samples.mean(0) - G).abs() <= 5 * error).all()
    left, right = (n + rank + 1) / rank, (m + rank + 1) / rank  # E tr (UUᵀ)² G Gᵀ = left |G|²
    expected = {"left": left, "right": right, "both": (left + right + 2) / 4}[sides]
    squares = samples.square().sum((1, 2)) / G.square().sum()
    assert abs(squares.mean() - expected) <= 5 * squares.std() / draws**0.5


def test_equal_generators_give_equal_directions_and_copies_keep_theirs():
    weights = [nn.Parameter(torch.zeros(3, 4)) for _ in range(2)]
    optimizers = [RandomProjectionSGD([w], 0.1, generator=generator(7)) for w in weights]
    for w, optimizer in zip(weights, optimizers):
        w.grad = torch.ones_like(w)
        optimizer.step()
    assert torch.equal(*weights)
    assert weights[0].abs().sum() > 0


@pytest.mark.parametrize(("n", "m", "r"), [(4, 6, 2), (3, 3, 1), (6, 2, 2), (3, 3, 3)])
def test_additive_form_is_its_definition_with_its_gradients_and_rank(n, m, r):
    A, B = (torch.randn(2, *s, generator=generator(), dtype=torch.float64) for s in ((n, r), (r, m)))
    A.requires_grad_()
    B.requires_grad_()
    eye = torch.eye(r, dtype=torch.float64)
    definition = A @ torch.cat([eye] * (m // r), 1) + torch.cat([eye] * (n // r)) @ B
    delta = additive_delta(A, B)
    assert torch.equal(delta, definition)
    assert (torch.linalg.matrix_rank(delta) == min(2 * r, n, m)).all()
    (G,) = (torch.randn(2, n, m, generator=generator(1), dtype=torch.float64),)
    for got, expected in zip(additive_gradients(G, r), torch.autograd.grad(definition, (A, B), G)):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def matrix() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(3, 4))]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LoRAOptimizer([nn.Parameter(torch.zeros(3))], 0.1, 1), ValueError, r"params: .* shape \(3,\)"),
        (lambda: RandomProjectionSGD([nn.Parameter(torch.zeros(3, 1, 1))], 0.1), ValueError, r"shape \(3, 1, 1\)"),
        (lambda: LoRAOptimizer(matrix(), 0.1, 4), ValueError, r"rank: got 4, expected at most min\(n, m\) = 3"),
        (lambda: LoRAOptimizer(matrix(), -0.1, 1), ValueError, "lr: got -0.1"),
        (lambda: LoRAOptimizer(matrix(), 0.1, 1, inner="lion"), ValueError, "inner: got 'lion'"),
        (lambda: LoRAOptimizer(matrix(), 0.1, 1, init="none"), ValueError, "init: got 'none'"),
        (lambda: LoRAOptimizer(matrix(), 0.1, 1, betas=(0.9, 1.0)), ValueError, r"betas\[1\]: got 1.0"),
        (lambda: LoRAOptimizer(matrix(), 0.1, 1, scale=0.0), ValueError, "scale: got 0.0"),
        (lambda: RandomProjectionSGD(matrix(), 0.1, 0), ValueError, "rank: got 0"),
        (lambda: RandomProjectionSGD(matrix(), 0.1, sides="top"), ValueError, "sides: got 'top'"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with as_users_call(), pytest.raises(error, match=message):
        call()
