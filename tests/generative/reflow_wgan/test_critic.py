"""reflow_wgan: the critic against finite differences, quadrature, Wasserstein distances and hand-written steps."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from opinfo import as_users_call
from scipy import integrate, stats
from torch import nn

from kexue_lib.generative import reflow_wgan as rw
from kexue_lib.mlp import mlp


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 0, dim: int = 2) -> nn.Module:
    return mlp([dim, 16, 16, 1], activation=nn.Tanh, generator=seeded(seed)).double()


def batch(n: int = 5, dim: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x0 = torch.randn(n, dim, dtype=torch.float64, generator=seeded(1))
    return x0, 2 + torch.randn(n, dim, dtype=torch.float64, generator=seeded(2))


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_the_slope_along_the_path_averages_to_the_difference(dim: int) -> None:
    """Gauss–Legendre over t of ⟨∇D, x1 − x0⟩, by forward differences of D, is D(x1) − D(x0)."""
    critic, (x0, x1) = network(dim=dim), batch(dim=dim)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    mean = 0
    for node, weight in zip((nodes + 1) / 2, weights / 2):
        t = torch.full((5,), node, dtype=torch.float64)
        matching = rw.potential_matching_loss(critic, x0, x1, t)
        mean = mean + weight * (rw.gradient_penalty(critic, x0, x1, t) - matching)
    torch.testing.assert_close(mean, (critic(x1) - critic(x0))[:, 0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("center", "weight"), [(0.0, 0.5), (1.0, 10.0)])
def test_penalty_by_finite_differences(center: float, weight: float) -> None:
    critic, (x0, x1) = network(), batch()
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    x, h = rw.interpolate(x0, x1, t), 1e-5
    slopes = [(critic(x + h * e) - critic(x - h * e))[:, 0] / (2 * h) for e in torch.eye(2).double()]
    expected = weight * (torch.stack(slopes).norm(dim=0) - center) ** 2
    penalty = rw.gradient_penalty(critic, x0, x1, t, center=center, weight=weight)
    torch.testing.assert_close(penalty, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", [rw.gradient_penalty, rw.potential_matching_loss])
def test_second_derivatives_in_the_pairs_and_the_parameters(loss) -> None:
    x0, x1 = batch(2)
    t = torch.tensor([0.25, 0.5], dtype=torch.float64)
    weights = torch.randn(2, 3, dtype=torch.float64, generator=seeded(6))

    def of(x0: torch.Tensor, x1: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return loss(lambda x: torch.tanh(x @ weights).sum(1), x0, x1, t)

    inputs = tuple(a.clone().requires_grad_() for a in (x0, x1, weights))
    assert torch.autograd.gradcheck(of, inputs)
    assert torch.autograd.gradgradcheck(of, inputs)


@pytest.mark.parametrize("center", [0.0, 1.0])
def test_no_nan_where_the_gradient_vanishes(center: float) -> None:
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    penalty = rw.gradient_penalty(lambda x: scale * x.sum(1), *batch(), center=center).sum()
    (gradient,) = torch.autograd.grad(penalty, scale, create_graph=True)
    assert gradient == 0
    (second,) = torch.autograd.grad(gradient, scale, allow_unused=True, materialize_grads=True)
    assert second.isfinite()


def test_weight_only_rescales_the_critic() -> None:
    """L_λ(D / 2λ) = L_½(D) / 2λ, for the loss of a batch."""
    critic, pair, t = network(), batch(), torch.linspace(0, 1, 5, dtype=torch.float64)
    half = rw.critic_loss(critic, *pair, t)
    for weight in (0.1, 10.0):
        scaled = rw.critic_loss(lambda x, weight=weight: critic(x) / (2 * weight), *pair, t, weight=weight)
        torch.testing.assert_close(scaled, half / (2 * weight))


@pytest.mark.parametrize("line", [(0.0, 1.0, 1.5, 0.5), (0.0, 1.0, 0.0, 2.0), (-1.0, 0.3, 2.0, 0.4)])
def test_best_critic_solves_its_equation_and_is_bounded(line: tuple[float, float, float, float]) -> None:
    """ρ̄D' = F0 − F1 by SciPy, and W1² ≤ −2L ≤ E|v*|² ≤ E|x1 − x0|² with W1 from the quantiles."""
    m0, s0, m1, s1 = line
    x = torch.linspace(m0 - 5 * s0, m1 + 5 * s1, 201, dtype=torch.float64)
    difference = stats.norm(m0, s0).cdf(x) - stats.norm(m1, s1).cdf(x)
    flux = rw.rho_bar_gaussian(x, *line, 200) * rw.optimal_critic_gradient_gaussian(x, *line, 200)
    np.testing.assert_allclose(flux, difference, rtol=1e-6, atol=1e-10)
    grid = torch.linspace(-15, 15, 6001, dtype=torch.float64)
    slope, density = (f(grid, *line, 200) for f in (rw.optimal_critic_gradient_gaussian, rw.rho_bar_gaussian))
    double = torch.trapezoid(slope**2 * density, grid).item()
    quantile = lambda p: abs(stats.norm(m1, s1).ppf(p) - stats.norm(m0, s0).ppf(p))
    distance = integrate.quad(quantile, 0, 1, limit=200)[0]
    kinetic = s0**2 + s1**2 - math.pi / 2 * s0 * s1 + (m1 - m0) ** 2
    assert distance**2 <= double <= kinetic <= s0**2 + s1**2 + (m1 - m0) ** 2
    assert kinetic < s0**2 + s1**2 + (m1 - m0) ** 2


def test_best_critic_stays_finite_in_the_tails() -> None:
    x = torch.tensor([-1e6, -60.0, 60.0, 1e6], dtype=torch.float64)
    assert rw.optimal_critic_gradient_gaussian(x, 0.0, 1.0, 1.0, 2.0).isfinite().all()


def test_trained_critic_meets_the_best_gradient() -> None:
    """A cubic critic by least squares on samples: D = Σ cₖxᵏ, A c = b, against the weighted projection of D'."""
    line, n, powers = (0.0, 1.0, 1.0, 0.5), 100_000, torch.arange(1, 4)
    x0 = torch.randn(n, 1, dtype=torch.float64, generator=seeded(3))
    x1 = 1 + 0.5 * torch.randn(n, 1, dtype=torch.float64, generator=seeded(4))
    coefficients = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    critic = lambda x: (x**powers) @ coefficients
    loss = rw.critic_loss(critic, x0, x1, generator=seeded(5))
    (first,) = torch.autograd.grad(loss, coefficients, create_graph=True)
    hessian = torch.stack([torch.autograd.grad(g, coefficients, retain_graph=True)[0] for g in first])
    best = torch.linalg.solve(hessian, -first).detach()
    grid = torch.linspace(-6, 6, 2001, dtype=torch.float64)
    density = rw.rho_bar_gaussian(grid, *line)
    slopes = powers[:, None] * grid ** (powers[:, None] - 1)
    target = rw.optimal_critic_gradient_gaussian(grid, *line)
    projected = torch.linalg.solve((density * slopes) @ slopes.T, (density * slopes) @ target)
    torch.testing.assert_close(best, projected, rtol=0.05, atol=0.02)


def test_trainer_takes_the_steps_of_a_hand_written_loop() -> None:
    g, critic = (mlp(sizes, generator=seeded(s)) for s, sizes in enumerate([[3, 8, 2], [2, 8, 1]]))
    their_g, their_critic = copy.deepcopy(g), copy.deepcopy(critic)
    data = torch.randn(16, 2, generator=seeded(7))
    trainer = rw.WGANTrainer(
        g,
        critic,
        lambda n: data[:n],
        latent_dim=3,
        critic_steps=2,
        batch_size=16,
        weight=2.0,
        center=1.0,
        rng=seeded(9),
    )
    trainer.fit(3)
    rng = seeded(9)
    adam = lambda net, lr: torch.optim.Adam(net.parameters(), lr=lr, betas=(0.0, 0.99))
    by_g, by_d = adam(their_g, 1e-3), adam(their_critic, 2e-3)
    for _ in range(3):
        for _ in range(2):
            fake = their_g(torch.randn(16, 3, generator=rng)).detach()
            t = torch.rand(16, generator=rng)[:, None]
            x = ((1 - t) * fake + t * data).requires_grad_()
            slope = torch.autograd.grad(their_critic(x).sum(), x, create_graph=True)[0]
            loss = their_critic(fake).mean() - their_critic(data).mean() + 2 * ((slope.norm(dim=1) - 1) ** 2).mean()
            by_d.zero_grad()
            loss.backward()
            by_d.step()
        by_g.zero_grad()
        (-their_critic(their_g(torch.randn(16, 3, generator=rng))).mean()).backward()
        by_g.step()
    for ours, theirs in ((g, their_g), (critic, their_critic)):
        for p, q in zip(ours.parameters(), theirs.parameters()):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
            assert p.requires_grad


def test_zero_centred_trainer_moves_a_point_to_the_data() -> None:
    g = nn.Linear(1, 1)
    nn.init.zeros_(g.weight)
    g.weight.requires_grad_(False)
    trainer = rw.WGANTrainer(
        g, mlp([1, 16, 1], activation=nn.Tanh, generator=seeded(0)), lambda n: torch.full((n, 1), 1.0),
        latent_dim=1, lr_g=2e-2, lr_d=1e-2, batch_size=32, rng=seeded(1),
    )  # fmt: skip
    before = abs(g.bias.item() - 1)
    trainer.fit(150)
    assert abs(g.bias.item() - 1) < min(before / 3, 0.2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: rw.gradient_penalty(lambda x: x.sum(1), x, x, weight=0.0), ValueError, "weight: got 0"),
        (lambda x: rw.gradient_penalty(lambda x: x.sum(1), x, x, center=math.nan), ValueError, "center: got nan"),
        (lambda x: rw.gradient_penalty(lambda x: x, x, x), ValueError, r"critic: got output of shape \(3, 2\)"),
        (lambda x: rw.critic_loss(lambda x: x.sum(), x, x), ValueError, r"critic: got output of shape \(\)"),
        (lambda x: rw.critic_loss(lambda x: x.sum(1), x[:0], x[:0]), ValueError, "x0: got no pairs"),
        (lambda x: rw.potential_matching_loss(lambda x: x.sum(1), x, x[:, :1]), ValueError, "x0, x1: got shapes"),
        (lambda x: rw.WGANTrainer(None, None, None, latent_dim=0), ValueError, "latent_dim: got 0"),
        (lambda x: rw.WGANTrainer(None, None, None, latent_dim=1, weight=-1.0), ValueError, "weight: got -1"),
        (lambda x: rw.WGANTrainer(None, None, None, latent_dim=1, critic_steps=0), ValueError, "critic_steps: got 0"),
    ],
)
def test_bad_input(call, error: type, message: str) -> None:
    with as_users_call(), pytest.raises(error, match=message):
        call(torch.zeros(3, 2))
