"""gan_flow, trainer: against a loop written out, the fixed point of the regression, seeds, what may not change."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from opinfo import as_users_call
from torch import nn

from kexue_lib.generative.gan_flow import GANFlowTrainer
from kexue_lib.mlp import mlp


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def players(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    generator = mlp([2, 16, 2], activation=nn.SiLU, generator=seeded(seed)).double()
    return generator, mlp([2, 16, 1], activation=nn.SiLU, generator=seeded(seed + 1)).double()


def trainer(**options) -> GANFlowTrainer:
    generator, net = players()
    data = seeded(7)
    sample = lambda n: 1 + 0.1 * torch.randn(n, 2, generator=data).double()
    return GANFlowTrainer(generator, net, sample, latent_dim=2, batch_size=32, rng=seeded(3), **options)


def by_hand(rounds: int, d_steps: int, noise: float) -> nn.Module:
    """Goodfellow's loop with PyTorch's own losses."""
    generator, net = players()
    data, rng, B = seeded(7), seeded(3), 32
    opt_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.99))
    opt_d = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.99))
    draw = lambda: torch.randn(B, 2, generator=rng, dtype=torch.float64)
    bce = F.binary_cross_entropy_with_logits
    for _ in range(rounds):
        for _ in range(d_steps):
            real, fake = 1 + 0.1 * torch.randn(B, 2, generator=data).double(), generator(draw()).detach()
            real, fake = real + noise * draw(), fake + noise * draw()
            loss = bce(net(real), torch.ones(B, 1).double()) + bce(net(fake), torch.zeros(B, 1).double())
            opt_d.zero_grad()
            loss.backward()
            opt_d.step()
        fake = generator(draw())
        loss = bce(net(fake + noise * draw()), torch.ones(B, 1).double())
        opt_g.zero_grad()
        loss.backward()
        opt_g.step()
    return generator


@pytest.mark.parametrize("d_steps", [1, 3])
def test_adversarial_mode_is_the_loop_by_hand(d_steps):
    run = trainer(d_steps=d_steps, instance_noise=0.2)
    run.fit(4)
    for ours, theirs in zip(run.generator.parameters(), by_hand(4, d_steps, 0.2).parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_with_one_step_the_modes_differ_only_by_adams_epsilon():
    runs = [trainer(mode=mode) for mode in ("adversarial", "regression")]
    for run in runs:
        run.fit(3)
    for one, other in zip(*(run.generator.parameters() for run in runs), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)  # a tenth of one of the three steps


def test_many_steps_reach_the_targets_in_regression_and_pass_them_otherwise():
    """Against a linear discriminator D = x₁ the flow moves by ε h'; the adversarial loss has no point to stop at."""

    class Along(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0, 0.0]]).double())

        def forward(self, x):
            return x @ self.weight.T

    moved = {}
    for mode in ("adversarial", "regression"):
        generator = nn.Linear(2, 2).double()
        nn.init.eye_(generator.weight), nn.init.zeros_(generator.bias)
        options = {"latent_dim": 2, "mode": mode, "transform": "linear", "step_size": 0.2, "g_steps": 2000}
        run = GANFlowTrainer(generator, Along(), lambda n: torch.zeros(n, 2), lr_g=1e-3, rng=seeded(0), **options)
        run.generator_step()
        moved[mode] = generator.bias[0].item()
    assert moved["regression"] == pytest.approx(0.2, abs=1e-3)
    assert moved["adversarial"] == pytest.approx(2.0, abs=0.02)  # 2000 Adam steps of 1e-3


def test_the_generators_step_leaves_the_discriminator_alone():
    for mode in ("adversarial", "regression"):
        run = trainer(mode=mode, g_steps=3)
        before = [weight.clone() for weight in run.discriminator.parameters()]
        run.generator_step()
        for weight, was in zip(run.discriminator.parameters(), before, strict=True):
            assert torch.equal(weight, was)
            assert weight.grad is None


def test_equal_seeds_give_equal_bits_and_results_are_detached():
    one, other = trainer(mode="regression", g_steps=2), trainer(mode="regression", g_steps=2)
    history = one.fit(3)
    other.fit(3)
    assert torch.equal(one.sample(5), other.sample(5))
    assert len(history) == 3
    assert not any(value.requires_grad for entry in history for value in entry.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "both"}, "mode: got 'both'"),
        ({"transform": "hinge"}, "transform: got 'hinge'"),
        ({"step_size": 0.0}, "step_size: got 0.0"),
        ({"d_steps": 0}, "d_steps: got 0"),
        ({"g_steps": 0}, "g_steps: got 0"),
        ({"instance_noise": -1.0}, "instance_noise: got -1.0"),
        ({"lr_g": 0.0}, "lr_g: got 0.0"),
        ({"lr_d": -1.0}, "lr_d: got -1.0"),
    ],
)
def test_bad_arguments_are_refused_by_name(options, message):
    with as_users_call(), pytest.raises(ValueError, match=message):
        trainer(**options)
    with as_users_call(), pytest.raises(ValueError, match="generator: got a module without parameters"):
        GANFlowTrainer(nn.ReLU(), nn.Linear(2, 1), torch.zeros, latent_dim=2)
