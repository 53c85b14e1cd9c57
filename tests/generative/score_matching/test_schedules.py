"""The schedules against derivatives by autograd, quadrature, and mpmath where t is small."""

from __future__ import annotations

import mpmath
import opinfo
import pytest
import torch
from scipy import integrate

from kexue_lib.generative.score_matching import VESchedule, VPSchedule

SCHEDULES = [VPSchedule(), VPSchedule(0.5, 3.0), VESchedule(), VESchedule(0.1, 2.0)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_drift_and_diffusion_belong_to_alpha_and_sigma(schedule):
    t = torch.linspace(1e-3, 1, 40, dtype=torch.float64, requires_grad=True)
    slope = lambda f: torch.autograd.grad(f(t).sum(), t, allow_unused=True)[0]
    log_alpha_slope = slope(lambda t: schedule.alpha(t).log() + 0 * t)
    drift = schedule.drift(t)
    torch.testing.assert_close(drift, log_alpha_slope)
    variance_slope = slope(lambda t: schedule.sigma(t).square())
    torch.testing.assert_close(
        schedule.diffusion_squared(t).detach(), (variance_slope - 2 * drift * schedule.sigma(t).square()).detach()
    )


def test_variance_preserving_rate_is_linear_and_integrates_to_alpha():
    schedule, t = VPSchedule(0.5, 3.0), 0.7
    rate = lambda s: 0.5 + s * 2.5
    expected = torch.tensor(-integrate.quad(rate, 0, t)[0] / 2, dtype=torch.float64).exp()
    point = torch.tensor(t, dtype=torch.float64)
    torch.testing.assert_close(schedule.alpha(point), expected)
    torch.testing.assert_close(schedule.diffusion_squared(point).item(), rate(t))


def test_small_noise_keeps_its_digits_in_float32():
    t = torch.tensor(1e-6)
    with mpmath.workdps(40):
        integral = mpmath.mpf("0.1") * mpmath.mpf(t.item()) + mpmath.mpf("9.95") * mpmath.mpf(t.item()) ** 2
        exact = float(mpmath.sqrt(1 - mpmath.exp(-integral)))
    assert abs(VPSchedule().sigma(t).item() / exact - 1) < 1e-6
    naive = (1 - VPSchedule().alpha(t).square()).sqrt().item()
    assert abs(naive / exact - 1) > 1e-3  # what expm1 is for


def test_variance_exploding_noise_is_geometric():
    sigma = VESchedule(0.1, 10.0).sigma(torch.linspace(0, 1, 5, dtype=torch.float64))
    torch.testing.assert_close(sigma, torch.logspace(-1, 1, 5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: VPSchedule(beta_min=0.0), "beta_min"),
        (lambda: VPSchedule(beta_min=2.0, beta_max=1.0), "beta_max"),
        (lambda: VESchedule(sigma_min=-1.0), "sigma_min"),
        (lambda: VESchedule(sigma_min=1.0, sigma_max=1.0), "sigma_max"),
    ],
)
def test_rates_outside_are_refused(make, name):
    with opinfo.as_users_call(), pytest.raises(ValueError, match=name):
        make()
