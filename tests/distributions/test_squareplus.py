"""What squareplus is, checked against 50-digit arithmetic, Student's t distribution, quadrature and plain autograd."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import torch
from opinfo import as_users_call
from scipy import integrate, stats
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from kexue_lib.distributions.squareplus import (
    B_CURVATURE,
    B_LEAST_SQUARES,
    B_MINIMAX,
    B_UPPER,
    Squareplus,
    optimal_b,
    squareplus,
    squareplus_gate,
    squareplus_grad,
    squareplus_inverse,
)
from kexue_lib.distributions.squareplus import _kernels as kernels

every_function = pytest.mark.parametrize("name", ["squareplus", "squareplus_grad", "squareplus_gate"])
every_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
FUNCTIONS = {"squareplus": squareplus, "squareplus_grad": squareplus_grad, "squareplus_gate": squareplus_gate}


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


def wide_range(dtype: torch.dtype, largest: float) -> Tensor:
    size = torch.logspace(-6, math.log10(largest), 400, dtype=torch.float64)
    return torch.cat((-size, torch.zeros(1, dtype=torch.float64), size)).to(dtype)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# -- values -----------------------------------------------------------------------------------------------------------


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


# -- shapes and dtypes ------------------------------------------------------------------------------------------------


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


# -- derivatives ------------------------------------------------------------------------------------------------------

SHAPES_OF_B = [(), (1,), (4,), (3, 1), (2, 3, 4)]


@every_function
@pytest.mark.parametrize("shape", SHAPES_OF_B)
def test_first_and_second_derivatives(name: str, shape: tuple[int, ...]):
    x = (2 * normal(3, 4)).requires_grad_()
    b = (0.3 + normal(1, *shape, seed=1)[0].abs()).requires_grad_()
    assert gradcheck(FUNCTIONS[name], (x, b), check_forward_ad=True)
    assert gradgradcheck(FUNCTIONS[name], (x, b))
    assert gradcheck(lambda x: FUNCTIONS[name](x, 0.7), (x,), check_forward_ad=True)
    assert gradgradcheck(lambda x: FUNCTIONS[name](x, 0.7), (x,))


def test_derivatives_at_zero_and_in_the_tail():
    x = torch.tensor([0.0, -1e3, -1e12], requires_grad=True)
    (first,) = torch.autograd.grad(squareplus(x, 4.0).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(first.detach(), torch.tensor([0.5, 1e-6, 1e-24]), rtol=1e-5, atol=0)
    torch.testing.assert_close(second, torch.tensor([0.25, 2e-9, 2e-36]), rtol=1e-5, atol=0)


@every_function
@every_dtype
def test_gradients_in_every_dtype_agree_with_float64(name: str, dtype: torch.dtype):
    x = (3 * normal(50)).to(dtype)
    grads = []
    for cast in (dtype, torch.float64):
        leaf, b = x.to(cast).requires_grad_(), torch.tensor(1.5, dtype=cast, requires_grad=True)
        grads.append(torch.autograd.grad(FUNCTIONS[name](leaf, b).sum(), (leaf, b)))
    for actual, expected in zip(*grads):
        assert actual.dtype == dtype
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(actual.double(), expected, rtol=8 * eps, atol=8 * eps)


@every_function
def test_infinite_inputs_have_gradients_without_nan(name: str):
    x = torch.tensor([-math.inf, -3e38, 3e38, math.inf], requires_grad=True)
    b = torch.tensor(2.0, requires_grad=True)
    x_grad, b_grad = torch.autograd.grad(FUNCTIONS[name](x, b).sum(), (x, b))
    assert torch.equal(x_grad, torch.zeros(4) if name == "squareplus_grad" else torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert b_grad.abs() < 1e-30


@every_function
def test_vmap_over_both_arguments_and_of_derivatives(name: str):
    f, x, b = FUNCTIONS[name], normal(5, 3), 0.5 + normal(5, seed=1).abs()
    expected = torch.stack([f(r, v) for r, v in zip(x, b)])
    torch.testing.assert_close(torch.func.vmap(f)(x, b), expected)
    torch.testing.assert_close(torch.func.vmap(f, in_dims=(1, None))(x, b[0]), f(x, b[0]).T)
    torch.testing.assert_close(torch.func.vmap(lambda v: f(x, v))(b)[2], f(x, b[2]))
    hessian = torch.func.vmap(torch.func.hessian(lambda r: f(r, 1.3).sum()))(x)
    reverse = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(lambda r: f(r, 1.3).sum())))(x)
    torch.testing.assert_close(hessian, reverse)


# -- the fused kernel -------------------------------------------------------------------------------------------------


@pytest.fixture
def fused_at_any_size(monkeypatch, without_runtime_types):
    monkeypatch.setattr(kernels, "FUSED_FROM", 2)
    monkeypatch.setattr(kernels, "_UNFUSED", set())
    torch._dynamo.reset()
    kernels._compiled.cache_clear()
    yield kernels
    kernels._compiled.cache_clear()


def value_and_gradients(x: Tensor, b: Tensor | float) -> tuple[Tensor, ...]:
    leaves = [t.clone().requires_grad_() for t in (x, b) if isinstance(t, Tensor)]
    out = squareplus(*leaves, *(() if isinstance(b, Tensor) else (b,)))
    first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
    return (out, *first, *torch.autograd.grad(first[0].sum(), leaves))


def test_fused_kernel_agrees_with_plain_formulas(fused_at_any_size, monkeypatch):
    x = torch.cat((wide_range(torch.float32, 1e30), torch.tensor([math.inf]))).view(-1, 2)
    fused = squareplus(x), *value_and_gradients(x.clamp(-50, 50), torch.tensor(2.0))
    assert not fused_at_any_size._UNFUSED, "this machine has a compiler, and it failed"
    monkeypatch.setattr(kernels, "FUSED_FROM", 10**9)
    plain = squareplus(x), *value_and_gradients(x.clamp(-50, 50), torch.tensor(2.0))
    for actual, expected in zip(fused, plain):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)


def test_without_a_compiler_the_plain_formulas_run(fused_at_any_size, monkeypatch):
    def broken(*key):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(kernels, "_compiled", broken)
    broken.cache_clear = lambda: None
    x = normal(3, 2**15).float()  # several pieces
    actual = value_and_gradients(x, 2.0)
    assert "cpu" in fused_at_any_size._UNFUSED
    monkeypatch.setattr(kernels, "FUSED_FROM", 10**9)
    for result, expected in zip(actual, value_and_gradients(x, 2.0)):
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-7)


def test_import_needs_torch_and_jaxtyping_only_and_compiles_nothing():
    code = (
        "import sys, kexue_lib.distributions.squareplus as s, torch; s.squareplus(torch.zeros(9));"
        "assert not {'sympy', 'scipy', 'numpy.testing', 'matplotlib', 'torch._inductor.compile_fx'} & set(sys.modules)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@every_function
def test_compiles_without_graph_breaks(name: str, without_runtime_types):
    torch._dynamo.reset()
    f = FUNCTIONS[name]
    compiled = torch.compile(lambda x, b: f(x, b) + f(x, 1.5), fullgraph=True, backend="aot_eager")
    x, b = normal(4, 3).requires_grad_(), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    actual = torch.autograd.grad(compiled(x, b).square().sum(), (x, b))
    expected = torch.autograd.grad((f(x, b) + f(x, 1.5)).square().sum(), (x, b))
    torch.testing.assert_close(actual, expected)


# -- the best b -------------------------------------------------------------------------------------------------------


def test_minimax_b_solves_the_two_equations():
    """Equal and opposite errors at 0 and at the place where the error is largest."""
    with mpmath.workdps(30):
        error = lambda b, x: mpmath.sqrt(x * x + b) / 2 - mpmath.log(2 * mpmath.cosh(x / 2))
        stationary = lambda b, x: x / mpmath.sqrt(x * x + b) - mpmath.tanh(x / 2)
        b, x = mpmath.findroot(lambda b, x: (error(b, 0) + error(b, x), stationary(b, x)), (1.52, 3.5))
        assert pytest.approx(float(b), rel=1e-15) == B_MINIMAX
        found, worst = optimal_b("softplus")
        assert found == pytest.approx(float(b), rel=1e-12)
        assert worst == pytest.approx(float(error(b, x)), rel=1e-12)


def test_least_squares_b_minimises_the_integral():
    with mpmath.workdps(25):
        tail = lambda b, x: b / 2 / (x + mpmath.sqrt(x * x + b)) - mpmath.log1p(mpmath.exp(-x))
        pieces = [0, 1, 2, 4, 8, 20, 60, mpmath.inf]
        b = mpmath.findroot(lambda b: mpmath.quad(lambda x: tail(b, x) / mpmath.sqrt(x * x + b), pieces), (1.24, 1.25))
        norm = mpmath.sqrt(2 * mpmath.quad(lambda x: tail(b, x) ** 2, pieces))
    assert pytest.approx(float(b), rel=1e-14) == B_LEAST_SQUARES
    assert optimal_b("softplus", "l2") == pytest.approx((float(b), float(norm)), rel=1e-12)


TARGETS = {
    "softplus": (squareplus, functional.softplus),
    "sigmoid": (squareplus_grad, torch.sigmoid),
    "gelu": (squareplus_gate, functional.gelu),
    "silu": (squareplus_gate, functional.silu),
}


@pytest.mark.parametrize("target", TARGETS)
def test_no_other_b_has_a_smaller_largest_error(target: str):
    ours, theirs = TARGETS[target]
    x = torch.linspace(-60, 60, 60_001, dtype=torch.float64)
    largest = lambda b: (ours(x, b) - theirs(x)).abs().max().item()
    b, error = optimal_b(target)
    assert largest(b) == pytest.approx(error, rel=1e-6)
    for other in (0.3, 0.99 * b, 1.01 * b, 1.2 * b, 8.0):
        assert largest(other) > error


def test_least_squares_fit_of_the_sigmoid():
    gap = lambda x, b: (squareplus_grad(torch.tensor(x, dtype=torch.float64), b).item() - 1 / (1 + math.exp(-x))) ** 2
    norm = lambda b: math.sqrt(2 * (integrate.quad(gap, 0, 30, (b,), limit=200)[0] + b * b / 16 / (3 * 30**3)))
    b, error = optimal_b("sigmoid", "l2")
    assert norm(b) == pytest.approx(error, rel=1e-5)
    assert min(norm(0.97 * b), norm(1.03 * b)) > error


def test_upper_bound_and_curvature_constants():
    x = torch.linspace(-100, 100, 100_001, dtype=torch.float64)
    above = lambda b: (squareplus(x, b) - functional.softplus(x, threshold=800)).min().item()
    assert above(B_UPPER) > -1e-15
    assert above(B_UPPER * (1 - 1e-9)) < 0
    leaf = torch.zeros((), dtype=torch.float64, requires_grad=True)
    second = lambda f: torch.autograd.functional.hessian(f, leaf)
    torch.testing.assert_close(second(lambda v: squareplus(v, B_CURVATURE)), second(functional.softplus))


# -- the layer --------------------------------------------------------------------------------------------------------


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


# -- bad input --------------------------------------------------------------------------------------------------------

X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        *[(lambda f=f: f(X.long()), TypeError, "x must be .* got torch.int64") for f in FUNCTIONS.values()],
        *[(lambda f=f: f([1.0]), TypeError, "x must be .* got <class 'list'>") for f in FUNCTIONS.values()],
        *[(lambda f=f: f(X, -1), ValueError, "b must be finite and at least 0, got -1") for f in FUNCTIONS.values()],
        (lambda: squareplus(X.to(torch.complex64)), TypeError, "x must be .* got torch.complex64"),
        (lambda: squareplus_inverse(X.int()), TypeError, "y must be .* got torch.int32"),
        (lambda: squareplus(X, math.nan), ValueError, "b must be finite and at least 0, got nan"),
        (lambda: squareplus(X, math.inf), ValueError, "b must be finite and at least 0, got inf"),
        (lambda: squareplus(X, "1"), TypeError, "b must be a number .* got '1'"),
        (lambda: squareplus(X, True), TypeError, "b must be a number .* got True"),
        (lambda: squareplus(X, torch.tensor(1)), TypeError, "b must be a number .* got torch.int64"),
        (lambda: squareplus_inverse(X, -0.5), ValueError, "b must be finite and at least 0, got -0.5"),
        (lambda: Squareplus(0.0), ValueError, "b must be positive for a layer, got 0.0"),
        (lambda: Squareplus(-1.0), ValueError, "b must be finite and at least 0, got -1.0"),
        (lambda: Squareplus(num_parameters=0), ValueError, "num_parameters must be a positive int, got 0"),
        (lambda: Squareplus(learnable=True, num_parameters=4)(X), ValueError, "x must have 4 channels .* \\(2, 3\\)"),
        (lambda: Squareplus(learnable=True, num_parameters=2)(X[0]), ValueError, "x must have 2 channels"),
        (lambda: optimal_b("relu"), ValueError, "target must be one of .*gelu.*silu.*softplus.* got 'relu'"),
        (lambda: optimal_b("gelu", "l2"), ValueError, "norm must be 'sup' for target='gelu', got 'l2'"),
        (lambda: optimal_b("softplus", "l1"), ValueError, "norm must be 'sup' or 'l2', got 'l1'"),
    ],
)
def test_bad_input(call, error, message: str):
    with as_users_call(), pytest.raises(error, match=message):
        call()
