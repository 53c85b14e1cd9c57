"""ode_step: orders and stability polynomials on linear equations, exact values by hand, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from opinfo import as_users_call

from kexue_lib.generative.ode import ode_step


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_one_step_is_the_exponential_series_up_to_the_order(method, order):
    """Of x' = ax a step of order p makes Σ_{j ≤ p} (a dt)^j / j!, exactly."""
    rates = torch.linspace(-2, 2, 9, dtype=torch.float64)
    x = torch.full((9,), 3.0, dtype=torch.float64)
    got = ode_step(lambda x, t: rates * x, x, 0.0, 0.3, method)
    series = sum((0.3 * rates) ** j / math.factorial(j) for j in range(order + 1))
    torch.testing.assert_close(got, 3 * series, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("method", "degree"), [("euler", 0), ("heun", 1), ("rk4", 3)])
def test_time_alone_is_integrated_exactly_up_to_a_degree(method, degree):
    """Rectangle, trapezoid and Simpson: x' = tᵏ is exact for k up to 0, 1, 3, and not beyond."""
    x = torch.zeros((), dtype=torch.float64)
    start, step = 0.4, 0.7
    for power in range(degree + 2):
        got = ode_step(lambda x, t, power=power: x * 0 + t**power, x, start, step, method)
        exact = ((start + step) ** (power + 1) - start ** (power + 1)) / (power + 1)
        assert (abs(got.item() - exact) < 1e-15) == (power <= degree)


def test_rk4_is_the_classical_rule_and_not_the_three_eighths_rule():
    """On x' = t⁴ from 0 to 1 Simpson's rule gives 5/24, the 3/8 rule 11/54."""
    got = ode_step(lambda x, t: x * 0 + t**4, torch.zeros((), dtype=torch.float64), 0.0, 1.0, "rk4")
    assert got.item() == pytest.approx(5 / 24, abs=1e-15)


@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
def test_a_step_back_runs_backwards_and_gradients_flow(method):
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    t = torch.tensor(1.0, dtype=torch.float64)
    back = ode_step(lambda x, t: -t * x, x, t, -1e-3, method)
    assert (back.abs() > x.abs()).all()
    assert torch.autograd.gradcheck(lambda x: ode_step(lambda x, t: torch.sin(x) * t, x, t, 0.3, method), x)


def test_another_method_is_refused():
    with as_users_call(), pytest.raises(ValueError, match="method: got 'midpoint', expected 'euler', 'heun' or 'rk4'"):
        ode_step(lambda x, t: x, torch.ones(1), 0.0, 0.1, "midpoint")
