"""Squareplus and its layer, against 50-digit arithmetic, Student's t distribution and quadrature."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from distributions.squareplus.functions import FUNCTIONS, every_dtype, every_function, normal, wide_range
from opinfo import as_users_call
from scipy import integrate, stats
from torch import Tensor

from kexue_lib.distributions.squareplus import (
    Squareplus,
    optimal_b,
    squareplus,
    squareplus_gate,
    squareplus_grad,
    squareplus_inverse,
)


def exact(name: str, x: Tensor, b: float) -> list[mpmath.mpf]:
    """The textbook formulas at 400 digits, where their cancellation does no harm."""
    with mpmath.workdps(400):
        values = []
        for v in x.double().flatten().tolist():
            v = mpmath.mpf(v)
            h = mpmath.sqrt(v * v + mpmath.mpf(b))
            textbook = {
                "squareplus": (v + h) / 2,
                "squareplus_grad": (1 + v / h) / 2,
                "squareplus_gate": v * (1 + v / h) / 2,
            }
            values.append(textbook[name])
        return values


def units_in_the_last_place(actual: Tensor, expected: list[mpmath.mpf]) -> float:
    """Largest error in ulp of the dtype, counting the spacing of subnormal numbers below the smallest normal one."""
    finite = torch.finfo(actual.dtype)
    worst = 0.0
    for a, e in zip(actual.double().flatten().tolist(), expected):
        spacing = max(2.0 ** (mpmath.frexp(e)[1] - 1) * finite.eps, finite.tiny * finite.eps)
        worst = max(worst, float(abs(a - e) / spacing))
    return worst


# -- values ------------------------------------------------------------------------------------------------------------


@every_function
@every_dtype
@pytest.mark.parametrize("b", [1e-3, 1.5, 4.0, 1e4])
def test_values_are_within_a_few_units_in_the_last_place_everywhere(name: str, dtype: torch.dtype, b: float):
    largest = {torch.float64: 1e150, torch.float32: 1e18, torch.bfloat16: 1e18, torch.float16: 6e4}[dtype]
    x = wide_range(dtype, largest)
    out = FUNCTIONS[name](x, b)
    assert out.dtype == dtype
    given = torch.tensor(b, dtype=torch.promote_types(dtype, torch.float32)).item()  # b itself is rounded
    assert units_in_the_last_place(out, exact(name, x, given)) <= (0.51 if dtype.itemsize == 2 else 4)


def test_textbook_form_loses_everything_where_the_library_does_not():
    x = torch.tensor([-1e4])
    assert (x + (x * x + 4).sqrt()) / 2 == 0
    torch.testing.assert_close(squareplus(x, 4.0), torch.tensor([1e-4]))


@pytest.mark.parametrize("b", [0.5, 4.0])
def test_finite_inputs_never_overflow(b: float):
    x = torch.tensor([-3e38, -1e30, 3e38, math.inf, -math.inf, math.nan])
    tail = b / 4 / 1e30
    expected = torch.tensor([b / 4 / 3e38, tail, 3e38, math.inf, 0, math.nan])
    torch.testing.assert_close(squareplus(x, b), expected, rtol=1e-6, atol=1e-44, equal_nan=True)
    slopes = torch.tensor([0, 0, 1, 1, 0, math.nan])
    torch.testing.assert_close(squareplus_grad(x, b), slopes, equal_nan=True)
    gates = torch.tensor([-expected[0], -tail, 3e38, math.inf, 0, math.nan])
    torch.testing.assert_close(squareplus_gate(x, b), gates, rtol=1e-6, atol=1e-44, equal_nan=True)


def test_half_precision_survives_squares_that_overflow_it():
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.tensor([-60000.0, -300.0, 300.0, 60000.0], dtype=dtype)
        assert torch.equal(squareplus(x), squareplus(x.float()).to(dtype))


@every_function
def test_zero_smoothing_is_relu(name: str):
    x = torch.tensor([-2.0, -1e-30, 0.0, 1e-30, 3.0], requires_grad=True)
    out = FUNCTIONS[name](x, 0.0)
    expected = (x > 0).float() if name == "squareplus_grad" else torch.relu(x)
    torch.testing.assert_close(out, expected)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(grad, torch.zeros(5) if name == "squareplus_grad" else (x > 0).float())


def test_lies_above_relu_and_satisfies_the_quadratic_equation():
    x, b = 10 * normal(500), 2.5
    y = squareplus(x, b)
    assert (y > torch.relu(x)).all()
    torch.testing.assert_close(y * y - x * y, torch.full_like(x, b / 4), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(y - squareplus(-x, b), x)


def test_derivative_is_the_distribution_function_of_student_t_with_two_degrees_of_freedom():
    x = torch.linspace(-1e4, 1e4, 101, dtype=torch.float64)
    torch.testing.assert_close(
        squareplus_grad(x, 2.0), torch.from_numpy(stats.t(df=2).cdf(x.numpy())), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("x", [-3.0, 0.0, 0.7, 10.0])
def test_is_the_mean_of_relu_under_student_noise(x: float):
    scale = math.sqrt(3.0 / 2)
    mean, _ = integrate.quad(lambda t: (x + scale * t) * stats.t(df=2).pdf(t), -x / scale, np.inf)
    assert squareplus(torch.tensor(x, dtype=torch.float64), 3.0).item() == pytest.approx(mean, rel=1e-6)


@every_dtype
def test_inverse_undoes_squareplus(dtype: torch.dtype):
    x = torch.linspace(-4, 4, 41).to(dtype)
    torch.testing.assert_close(squareplus_inverse(squareplus(x, 3.0), 3.0), x, rtol=0, atol=80 * torch.finfo(dtype).eps)


def test_inverse_outside_of_the_range_is_nan():
    y = torch.tensor([-1.0, 0.0, math.nan, math.inf])
    torch.testing.assert_close(squareplus_inverse(y), torch.tensor([math.nan] * 3 + [math.inf]), equal_nan=True)


def test_is_the_proximal_map_of_the_logarithmic_barrier():
    x, b = normal(20), 0.8
    y = squareplus(x, b)
    objective = lambda v: (v - x) ** 2 / 2 - b / 4 * v.log()
    for step in (1e-3, -1e-3):
        assert (objective(y * (1 + step)) > objective(y)).all()


# -- shapes and dtypes -------------------------------------------------------------------------------------------------


@every_function
def test_tensor_b_broadcasts_and_keeps_the_dtype_of_x(name: str):
    x, b = normal(3, 1, 5).float(), torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    out = FUNCTIONS[name](x, b)
    assert out.shape == (3, 2, 5)
    assert out.dtype == torch.float32
    for i, value in enumerate((0.5, 2.0)):
        torch.testing.assert_close(out[:, i], FUNCTIONS[name](x[:, 0], value))
    assert FUNCTIONS[name](x[:0], b).shape == (0, 2, 5)
    assert FUNCTIONS[name](torch.tensor(1.0), torch.ones(4)).shape == (4,)
    assert FUNCTIONS[name](torch.zeros(0)).shape == (0,)


def test_float_b_does_not_promote_half_precision():
    assert squareplus(torch.zeros(2, dtype=torch.bfloat16), 1.0).dtype == torch.bfloat16
    assert squareplus(torch.zeros(2, dtype=torch.float16), torch.tensor(1.0)).dtype == torch.float16


# -- the layer ---------------------------------------------------------------------------------------------------------


def test_layer_is_the_function():
    x = normal(2, 3, 4).float()
    assert torch.equal(Squareplus(1.5)(x), squareplus(x, 1.5))
    assert list(Squareplus().parameters()) == []
    torch.testing.assert_close(Squareplus(1.5, learnable=True)(x), squareplus(x, 1.5))
    assert Squareplus(4.0, learnable=True, dtype=torch.float64).log_b.dtype == torch.float64


def test_each_channel_has_its_own_b():
    layer = Squareplus(1.0, learnable=True, num_parameters=3)
    with torch.no_grad():
        layer.log_b.copy_(torch.tensor([0.5, 1.0, 4.0]).log())
    x = normal(2, 3, 4, 5).float()
    for i, b in enumerate((0.5, 1.0, 4.0)):
        torch.testing.assert_close(layer(x)[:, i], squareplus(x[:, i], b))
    restored = Squareplus(learnable=True, num_parameters=3)
    restored.load_state_dict(layer.state_dict())
    torch.testing.assert_close(restored.b, layer.b)


def test_learning_recovers_the_b_that_made_the_data():
    x = normal(200).float()
    y = squareplus(x, 3.0)
    layer = Squareplus(0.2, learnable=True)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (layer(x) - y).square().mean().backward()
        optimizer.step()
    assert layer.b.item() == pytest.approx(3.0, rel=1e-2)


# -- bad input ---------------------------------------------------------------------------------------------------------


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Squareplus(0.0), ValueError, "b: got 0.0, expected a finite number above 0"),
        (lambda: Squareplus(-1.0), ValueError, "b: got -1.0, expected a finite number above 0"),
        (lambda: Squareplus(num_parameters=0), ValueError, "num_parameters: got 0, expected at least 1"),
        (
            lambda: Squareplus(learnable=True, num_parameters=4)(X),
            ValueError,
            "x: got shape \\(2, 3\\), expected 4 channels",
        ),
        (lambda: Squareplus(learnable=True, num_parameters=2)(X[0]), ValueError, "x: got .* expected 2 channels"),
        (lambda: optimal_b("relu"), ValueError, "target: got 'relu', expected .*gelu.*silu.*softplus"),
        (lambda: optimal_b("gelu", "l2"), ValueError, "norm: got 'l2', expected 'sup' for target='gelu'"),
        (lambda: optimal_b("softplus", "l1"), ValueError, "norm: got 'l1', expected 'sup' or 'l2'"),
    ],
)
def test_bad_input(call, error, message: str):
    with as_users_call(), pytest.raises(error, match=message):
        call()
