"""Samplers against the closed map of a Gaussian, an adaptive solver, and the moments that they must reach."""

from __future__ import annotations

import numpy as np
import opinfo
import pytest
import torch
from scipy import integrate
from torch import Tensor

from kexue_lib.generative import score_matching as sm
from kexue_lib.generative.sample_quality import energy_distance

DOUBLE, SCHEDULE = torch.float64, sm.VPSchedule()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact(mixture: sm.GaussianMixture, schedule: sm.VPSchedule | sm.VESchedule = SCHEDULE):
    return lambda x, t: mixture.diffuse(schedule.alpha(t[0]), schedule.sigma(t[0])).score(x)


def gaussian(variance: float = 0.25, mean: float = 1.0) -> sm.GaussianMixture:
    return sm.GaussianMixture(
        torch.ones(1, dtype=DOUBLE), torch.tensor([[mean]], dtype=DOUBLE), torch.tensor([[[variance]]], dtype=DOUBLE)
    )


def times(steps: int) -> Tensor:
    return torch.linspace(1.0, 1e-3, steps + 1, dtype=DOUBLE)


def closed_map(x: Tensor, t: Tensor, u: Tensor, schedule: sm.VPSchedule | sm.VESchedule) -> Tensor:
    """Of N(1, 1/4): standardised coordinates stay as they are along the probability flow."""
    mean, root = (lambda v: schedule.alpha(v)), (lambda v: (schedule.alpha(v) ** 2 / 4 + schedule.sigma(v) ** 2).sqrt())
    return mean(u) + (x - mean(t)) / root(t) * root(u)


@pytest.mark.parametrize("schedule", [SCHEDULE, sm.VESchedule(sigma_min=0.1, sigma_max=5.0)])
@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("ddim", 1), ("heun", 2)])
def test_order_of_convergence_to_the_closed_map(method, order, schedule):
    x, ts = torch.linspace(-2, 2, 9, dtype=DOUBLE)[:, None], (times(400), times(800))
    error = [
        (sm.probability_flow_sample(exact(gaussian(), schedule), x, schedule, t, method)
         - closed_map(x, t[0], t[-1], schedule)).abs().max()
        for t in ts
    ]  # fmt: skip
    assert error[1] < 0.02
    assert (error[0] / error[1]).log2().item() == pytest.approx(order, abs=0.25)


def test_flow_of_a_mixture_is_that_of_an_adaptive_solver():
    score = exact(sm.GaussianMixture.ring(3, 1.0, 0.4, DOUBLE))
    x = torch.randn(20, 2, generator=seeded(0), dtype=DOUBLE)

    def velocity(t: float, flat: np.ndarray) -> np.ndarray:
        at, x = torch.tensor(t, dtype=DOUBLE), torch.from_numpy(flat).reshape(20, 2)
        return (SCHEDULE.drift(at) * x - SCHEDULE.diffusion_squared(at) / 2 * score(x, at[None])).numpy().ravel()

    solved = integrate.solve_ivp(velocity, (1.0, 1e-3), x.numpy().ravel(), rtol=1e-9, atol=1e-9, method="DOP853")
    expected = torch.from_numpy(solved.y[:, -1]).reshape(20, 2)
    torch.testing.assert_close(
        sm.probability_flow_sample(score, x, SCHEDULE, times(1500)), expected, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("t", [1.0, 0.5, 0.01])
def test_one_ddim_step_reaches_a_point_mass_from_anywhere(t):
    point = torch.tensor([0.3, -0.7], dtype=DOUBLE)
    score = lambda x, t: sm.conditional_score(x, point.expand_as(x), SCHEDULE.alpha(t[0]), SCHEDULE.sigma(t[0]))
    ts = torch.tensor([t, 1e-9], dtype=DOUBLE)
    x = 3 * torch.randn(6, 2, generator=seeded(1), dtype=DOUBLE)
    reached = sm.probability_flow_sample(score, x, SCHEDULE, ts, "ddim")
    torch.testing.assert_close(reached, point.expand_as(x), rtol=0, atol=1e-2)
    euler = sm.probability_flow_sample(score, x, SCHEDULE, ts, "euler")
    assert (euler - point).abs().max() > 0.1


def test_reverse_sde_reaches_the_moments():
    x = torch.randn(20_000, 1, generator=seeded(2), dtype=DOUBLE)
    reached = sm.reverse_sde_sample(exact(gaussian()), x, SCHEDULE, times(500), seeded(3))
    assert reached.mean().item() == pytest.approx(1.0, abs=0.02)
    assert reached.std().item() == pytest.approx(0.5, abs=0.02)


def test_last_step_of_the_sde_adds_no_noise():
    x, ts = torch.ones(4, 1, dtype=DOUBLE), torch.tensor([0.2, 0.1], dtype=DOUBLE)
    one, other = (sm.reverse_sde_sample(exact(gaussian()), x, SCHEDULE, ts, seeded(k)) for k in (4, 5))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["euler", "heun", "ddim"])
def test_compiles_and_differentiates(method):
    score, ts = lambda x, t: -x.sinh() * (1 + t[:, None]), times(3)
    draw = lambda x: sm.probability_flow_sample(score, x, SCHEDULE, ts, method)
    x = 0.1 * torch.randn(3, 2, generator=seeded(6), dtype=DOUBLE).requires_grad_()
    with opinfo.as_users_call():
        torch.testing.assert_close(torch.compile(draw, fullgraph=True, backend="aot_eager")(x), draw(x))
    assert torch.autograd.gradcheck(draw, x)


@pytest.mark.parametrize(
    ("ts", "method", "error", "message"),
    [
        ([1.0, 1.0], "heun", ValueError, "ts: got"),
        ([0.1, 0.2], "heun", ValueError, "ts: got"),
        ([], "heun", ValueError, "ts: got no times"),
        ([[1.0, 0.5]], "heun", ValueError, "ts: got shape"),
        ([1.0, 0.5], "rk4", ValueError, "method: got 'rk4'"),
        ([2, 1], "heun", TypeError, "ts: got torch.int64"),
    ],
)
def test_bad_times_and_methods_are_named(ts, method, error, message):
    ts = torch.tensor(ts, dtype=None if ts else DOUBLE)
    with opinfo.as_users_call(), pytest.raises(error, match=message):
        sm.probability_flow_sample(exact(gaussian()), torch.zeros(1, 1), SCHEDULE, ts, method)
    if method == "heun":
        with opinfo.as_users_call(), pytest.raises(error, match=message):
            sm.reverse_sde_sample(exact(gaussian()), torch.zeros(1, 1), SCHEDULE, ts)


def test_trained_network_samples_the_mixture():
    mixture = sm.GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), torch.full((2, 1, 1), 0.04))
    torch.manual_seed(0)
    model = sm.ScoreMLP(1, width=64, depth=2)
    model = sm.train_score_model(
        model, lambda g: mixture.sample(256, g), SCHEDULE, 600, lr=3e-3, ema=0.95, generator=seeded(7)
    )
    x = torch.randn(2000, 1, generator=seeded(8))
    with torch.no_grad():
        reached = sm.probability_flow_sample(model, x, SCHEDULE, times(30).float())
    data = mixture.sample(2000, seeded(9))
    assert energy_distance(reached, data) < 0.02
    assert energy_distance(mixture.mean() + mixture.covariance().sqrt() * x, data) > 0.05
