"""score_identity_distillation, trainer: a loop written out, ideal networks, what may not change, EDM's numbers."""

from __future__ import annotations

import math

import pytest
import torch
from opinfo import as_users_call
from torch import Tensor, nn

from kexue_lib.generative.score_identity_distillation import (
    EDMNoise,
    PreconditionedDenoiser,
    SiDTrainer,
    gaussian_sid_gradients,
)
from kexue_lib.mlp import mlp

NOISE = EDMNoise(sigma_min=0.05, sigma_max=2.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """A network of sample and noise."""

    def __init__(self, seed: int):
        super().__init__()
        self.body = mlp([3, 16, 2], activation=nn.SiLU, generator=seeded(seed)).double()

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.body(torch.cat([x, c_noise[:, None]], 1))


def trainer(**options) -> SiDTrainer:
    teacher, student = (PreconditionedDenoiser(Net(seed), 0.5) for seed in (0, 1))
    generator = mlp([2, 16, 2], activation=nn.SiLU, generator=seeded(2)).double()
    given = {"noise": NOISE, "latent_shape": (2,), "batch_size": 16, "rng": seeded(3), **options}
    return SiDTrainer(teacher, student, generator, **given)


def by_hand(rounds: int, student_steps: int, lam: float) -> nn.Module:
    """Algorithm 1 of the paper, norms and inner products written out."""
    run = trainer()
    teacher, student, generator, rng = run.teacher, run.student, run.generator, seeded(3)
    opt_s = torch.optim.Adam(student.parameters(), lr=1e-3, betas=(0.0, 0.999))
    opt_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.999))

    def noised(make: bool) -> tuple[Tensor, Tensor, Tensor]:
        x0 = generator(2.5 * torch.randn(16, 2, generator=rng, dtype=torch.float64))
        x0 = x0 if make else x0.detach()
        u = torch.rand(16, generator=rng, dtype=torch.float64) * 0.8
        sigma = (2.0 ** (1 / 7) + (1 - u) * (0.05 ** (1 / 7) - 2.0 ** (1 / 7))) ** 7
        return x0, x0 + sigma[:, None] * torch.randn(16, 2, generator=rng, dtype=torch.float64), sigma

    for _ in range(rounds):
        for _ in range(student_steps):
            x0, x_t, sigma = noised(False)
            weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
            opt_s.zero_grad()
            (weight * ((student(x_t, sigma) - x0) ** 2).sum(1)).mean().backward()
            opt_s.step()
        x0, x_t, sigma = noised(True)
        f, g = teacher(x_t, sigma), student(x_t, sigma)
        loss = ((f - g) * (f - x0)).sum(1) - lam * ((f - g) ** 2).sum(1)
        opt_g.zero_grad()
        (loss / (x0 - f).abs().mean(1).detach()).mean().backward()
        opt_g.step()
    return generator


@pytest.mark.parametrize("student_steps", [1, 3])
def test_training_is_the_loop_by_hand(student_steps):
    run = trainer(lam=1.2, student_steps=student_steps)
    run.fit(3)
    for ours, theirs in zip(run.generator.parameters(), by_hand(3, student_steps, 1.2).parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


class Linear(nn.Module):
    """The generator m + sz."""

    def __init__(self):
        super().__init__()
        self.m, self.s = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (0.2, 0.3))

    def forward(self, z: Tensor) -> Tensor:
        return self.m + self.s * z


class Ideal(nn.Module):
    """The best denoiser of N(m, v); of the generator's law if one is given, weights not followed."""

    def __init__(self, generator: Linear | None = None):
        super().__init__()
        self.generator, self.unused = generator, nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        g = self.generator
        mean, var = (1.0, 0.25) if g is None else (g.m.detach(), g.s.detach() ** 2)
        return mean + var / (var + sigma[:, None] ** 2) * (x - mean) + 0 * self.unused


@pytest.mark.parametrize("loss", ["sid", "fgm", "l1", "l3", "vsd"])
def test_unweighted_gradients_are_the_closed_forms(loss):
    """One noise level σ and an ideal student: σ² times the gradients of the ε-forms, σ times that of "vsd"."""
    generator, level = Linear(), 0.4
    options = {"latent_shape": (1,), "sigma_init": 1.0, "loss": loss, "lam": 0.8, "weighting": "none", "rng": seeded(0)}
    noise = EDMNoise(sigma_min=level, sigma_max=level * (1 + 1e-9))
    run = SiDTrainer(Ideal(), Ideal(generator), generator, noise=noise, batch_size=400_000, **options)
    run.generator_step()
    got = torch.stack([generator.m.grad, generator.s.grad])
    closed = {k: torch.stack(v).double() for k, v in gaussian_sid_gradients(0.2, 0.3, 1.0, 0.5, 1.0, level).items()}
    closed["sid"], closed["fgm"] = closed["l2"] - 0.8 * closed["l1"], closed["total"]
    expected = closed[loss] * (level if loss == "vsd" else level**2)
    torch.testing.assert_close(got, expected, rtol=0.01, atol=0.004)  # of 400 000 samples


def test_the_papers_weight_turns_a_gradient_of_one_coordinate_around():
    """It depends on x₀, so on ε given x_t. A generator that is too wide, student exact: unweighted it narrows."""
    slopes = {}
    for weighting in ("none", "sid"):
        generator = Linear()
        generator.m.data.fill_(0.0), generator.s.data.fill_(0.6)
        options = {"latent_shape": (1,), "sigma_init": 1.0, "loss": "fgm", "weighting": weighting, "rng": seeded(0)}
        run = SiDTrainer(Ideal(), Ideal(generator), generator, noise=NOISE, batch_size=400_000, **options)
        run.generator_step()
        slopes[weighting] = generator.s.grad.item()
    assert slopes["none"] > 0.02
    assert slopes["sid"] < -0.5


def test_a_perfect_pair_stays_where_it_is_in_the_mean():
    """Generator = data, student ideal: δ = 0, so every loss but l3 has no gradient at all."""
    for loss in ("sid", "fgm", "l1", "vsd"):
        generator = Linear()
        generator.m.data.fill_(1.0), generator.s.data.fill_(0.5)
        options = {"noise": NOISE, "latent_shape": (1,), "sigma_init": 1.0, "loss": loss, "rng": seeded(0)}
        run = SiDTrainer(Ideal(), Ideal(generator), generator, **options)
        run.generator_step()
        step = max(abs(generator.m.grad.item()), abs(generator.s.grad.item()))
        # The inner product with ε_φ − ε is zero through δ = 0; what is left is the derivative of δ times noise.
        assert step < (0.1 if loss in ("sid", "fgm") else 1e-12)


def test_teacher_never_changes_and_the_student_not_in_the_generators_step():
    run = trainer()
    before = {name: [w.clone() for w in net.parameters()] for name, net in (("t", run.teacher), ("s", run.student))}
    run.generator_step()
    for name, net in (("t", run.teacher), ("s", run.student)):
        for weight, was in zip(net.parameters(), before[name], strict=True):
            assert torch.equal(weight, was)
            assert weight.grad is None
    run.student_step()
    assert all(weight.grad is None for weight in run.teacher.parameters())
    assert all(weight.grad is not None for weight in run.student.parameters())


def test_the_average_and_equal_seeds():
    one, other = trainer(ema=0.5), trainer(ema=0.5)
    start = [w.clone() for w in one.generator.parameters()]
    one.fit(1)
    for average, weight, first in zip(one.ema_generator.parameters(), one.generator.parameters(), start, strict=True):
        torch.testing.assert_close(average, weight)  # the first update copies
        assert not torch.equal(weight, first)
    previous = [w.clone() for w in one.ema_generator.parameters()]
    one.fit(1)
    for average, weight, was in zip(one.ema_generator.parameters(), one.generator.parameters(), previous, strict=True):
        torch.testing.assert_close(average, (was + weight) / 2)
    other.fit(2)
    assert torch.equal(one.sample(3), other.sample(3))
    assert one.sample(0).shape == (0, 2)


def test_edm_levels_and_coefficients():
    """Equation 5 of the paper by its own index i of N, and its table 1 at σ = σ_d: c_skip = ½, c_out = σ_d/√2."""
    N, noise = 18, EDMNoise()
    i = torch.arange(N, dtype=torch.float64)
    published = (80 ** (1 / 7) + i / (N - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(noise.sigma(1 - i / (N - 1)), published)
    seen = {}

    def net(x: Tensor, c: Tensor) -> Tensor:
        seen.update(x=x, c=c)
        return torch.ones_like(x)

    denoiser, x = PreconditionedDenoiser(net, 0.5), torch.randn(4, 3, 2, dtype=torch.float64, generator=seeded(0))
    sigma = torch.full((4,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(denoiser(x, sigma), x / 2 + 0.5 / math.sqrt(2))
    torch.testing.assert_close(seen["x"], x * math.sqrt(2))
    torch.testing.assert_close(seen["c"], torch.full((4,), math.log(0.5) / 4, dtype=torch.float64))
    torch.testing.assert_close(denoiser.eps(x, sigma), x - math.sqrt(2) / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "dmd"}, "loss: got 'dmd'"),
        ({"lam": math.inf}, "lam: got inf"),
        ({"weighting": "p2"}, "weighting: got 'p2'"),
        ({"student_steps": 0}, "student_steps: got 0"),
        ({"sigma_init": 0.0}, "sigma_init: got 0.0"),
        ({"ema": 1.0}, "ema: got 1.0"),
        ({"tmax": 1001.0}, "tmax: got 1001.0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"lr_student": 0.0}, "lr_student: got 0.0"),
        ({"lr_generator": -1.0}, "lr_generator: got -1.0"),
    ],
)
def test_bad_arguments_are_refused_by_name(options, message):
    with as_users_call(), pytest.raises(ValueError, match=message):
        trainer(**options)


def test_bad_modules_and_levels_are_refused():
    with as_users_call():
        with pytest.raises(ValueError, match="generator: got a module without parameters"):
            SiDTrainer(Net(0), Net(1), nn.ReLU(), noise=NOISE, latent_shape=(2,))
        with pytest.raises(ValueError, match=r"sigma_max: got 0\.001"):
            EDMNoise(sigma_max=0.001)
        with pytest.raises(ValueError, match="sigma_data: got 0"):
            PreconditionedDenoiser(Net(0), 0)
        with pytest.raises(ValueError, match=r"sigma: got shape \(3,\), expected \(2,\)"):
            PreconditionedDenoiser(Net(0), 1.0)(torch.zeros(2, 2).double(), torch.ones(3).double())
