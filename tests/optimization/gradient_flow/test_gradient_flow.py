"""gradient_flow, points: SciPy's integrators and matrix exponentials, grids of directions, closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from opinfo import as_users_call
from scipy import integrate, linalg, optimize
from torch import Tensor

from kexue_lib.optimization import gradient_flow as gf

A = torch.tensor([[3.0, 1.0], [1.0, 0.5]], dtype=torch.float64)
START = torch.tensor([[1.0, -2.0], [0.3, 0.4], [-1.0, 5.0]], dtype=torch.float64)
TIMES = torch.tensor([0.0, 0.2, 1.0, 3.0], dtype=torch.float64)


def quadratic(x: Tensor) -> Tensor:
    return ((x @ A.to(x.dtype)) * x).sum(-1) / 2


def valley(x: Tensor) -> Tensor:
    """Rosenbrock's, with a gentler slope."""
    return (1 - x[..., 0]) ** 2 / 2 + 2 * (x[..., 1] - x[..., 0] ** 2) ** 2


def valley_hessian(x: Tensor) -> Tensor:
    a, b = x.unbind(-1)
    corner = 1 - 8 * (b - 3 * a**2)
    return torch.stack([corner, -8 * a, -8 * a, torch.full_like(a, 4.0)], -1).unflatten(-1, (2, 2))


def log_cosh(x: Tensor) -> Tensor:
    return torch.nn.functional.softplus(3 * x).sum(-1) + x.square().sum(-1) / 20


def test_flow_of_a_quadratic_is_the_matrix_exponential():
    run = gf.gradient_flow(quadratic, START, TIMES, substeps=200)
    for t, x in zip(TIMES, run.x):
        torch.testing.assert_close(x, START @ torch.from_numpy(linalg.expm(-A.numpy() * t.item())), rtol=0, atol=1e-9)
    torch.testing.assert_close(run.energy, quadratic(run.x))
    assert run.x[0].equal(START)


@pytest.mark.parametrize("metric", [None, valley_hessian])
def test_flow_agrees_with_scipy_in_every_metric(metric):
    start = torch.tensor([-1.0, 0.0], dtype=torch.float64)

    def velocity(_, point):
        x = torch.from_numpy(point)
        slope = np.array([-(1 - x[0]) - 8 * x[0] * (x[1] - x[0] ** 2), 4 * (x[1] - x[0] ** 2)])
        return -slope if metric is None else -np.linalg.solve(valley_hessian(x).numpy(), slope)

    peer = integrate.solve_ivp(velocity, (0, 3), start.numpy(), t_eval=TIMES.numpy(), rtol=1e-11, atol=1e-12)
    ours = gf.gradient_flow(valley, start, TIMES, substeps=400, metric=metric)
    np.testing.assert_allclose(ours.x.numpy(), peer.y.T, atol=1e-7)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("rk4", 4), ("implicit", 1)])
def test_error_falls_with_the_order_of_the_method(method, order):
    exact = START @ torch.from_numpy(linalg.expm(-A.numpy()))
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    errors = [
        (gf.gradient_flow(quadratic, START, times, method=method, substeps=k).x[-1] - exact).norm() for k in (32, 64)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_one_interval_of_euler_is_gradient_descent():
    x = START.clone()
    for _ in range(7):
        x = x - 0.1 * (x @ A)
    run = gf.gradient_flow(quadratic, START, torch.tensor([0.0, 0.7], dtype=torch.float64), method="euler", substeps=7)
    torch.testing.assert_close(run.x[-1], x, rtol=1e-14, atol=0)


def test_implicit_steps_descend_where_euler_diverges():
    times = torch.linspace(0, 60, 13, dtype=torch.float64)
    implicit = gf.gradient_flow(quadratic, START, times, method="implicit")
    euler = gf.gradient_flow(quadratic, START, times, method="euler")
    assert (implicit.energy.diff(dim=0) < 0).all()
    assert (euler.energy[-1] > 1e6 * euler.energy[0]).all()
    inverse = torch.linalg.inv(torch.eye(2) + 5 * A)
    torch.testing.assert_close(implicit.x[1], START @ inverse)


def test_implicit_step_takes_the_metric_of_its_start():
    start = torch.tensor([-1.0, 0.0], dtype=torch.float64)
    run = gf.gradient_flow(valley, start, 0.3 * torch.arange(2).double(), method="implicit", metric=valley_hessian)
    y = run.x[1].requires_grad_()
    (slope,) = torch.autograd.grad(valley(y), y)
    torch.testing.assert_close(valley_hessian(start) @ (y - start) / 0.3, -slope, rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", ["euler", "rk4", "implicit"])
def test_flow_is_differentiable_in_its_start_twice(method):
    start = torch.tensor([0.5, 0.2], dtype=torch.float64, requires_grad=True)
    times = torch.tensor([0.0, 0.1], dtype=torch.float64)
    end = lambda x: gf.gradient_flow(valley, x, times, method=method, substeps=2).x[-1]
    assert torch.autograd.gradcheck(end, start)
    assert torch.autograd.gradgradcheck(end, start)
    assert not gf.gradient_flow(valley, start.detach(), times, method=method).x.requires_grad


def test_points_are_nan_where_the_metric_fails_on_the_way():
    times = torch.linspace(0, 1, 11)
    fading = lambda x: torch.eye(2) * (x[..., :1, None] - 0.2)
    run = gf.gradient_flow(quadratic, START[:2].float(), times, metric=fading)
    assert run.x[-1, 1].isnan().all()
    assert run.x.dtype == torch.float32


@pytest.mark.parametrize("step", [1e-3, 1.0, 1e3])
def test_proximal_step_is_stationary_and_minimal(step):
    y = gf.proximal_step(log_cosh, START, step)
    point = y.clone().requires_grad_()
    (slope,) = torch.autograd.grad(log_cosh(point).sum(), point)
    assert ((y - START) / step + slope).abs().max() <= 1e-7
    for x, ours in zip(START, y):
        value = lambda p, x=x: ((p - x.numpy()) ** 2).sum() / 2 / step + float(log_cosh(torch.from_numpy(p)))
        best = optimize.minimize(value, x.numpy(), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}).x
        np.testing.assert_allclose(ours.numpy(), best, atol=1e-5)


def test_proximal_step_never_raises_a_function_that_curves_downwards():
    waves = lambda x: torch.sin(3 * x).sum(-1)
    for step in (0.1, 1.0, 10.0):
        y = gf.proximal_step(waves, START, step)
        assert (waves(y) + (y - START).square().sum(-1) / (2 * step) <= waves(START) + 1e-12).all()
        assert ((y - START) / step + 3 * torch.cos(3 * y)).abs().max() <= 1e-7


@pytest.mark.parametrize("norm", ["l1", "l2", "linf", "metric"])
def test_no_direction_of_the_unit_ball_is_steeper(norm):
    angle = torch.linspace(0, 2 * math.pi, 100_001, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    of = {
        "l1": circle.abs().sum(-1),
        "l2": torch.ones(len(angle)).double(),
        "linf": circle.abs().amax(-1),
        "metric": ((circle @ A) * circle).sum(-1).sqrt(),
    }[norm]
    ball = circle / of[:, None]
    ours = gf.steepest_direction(START, A if norm == "metric" else norm)
    reached, best = (ours * START).sum(-1), (START @ ball.T).amin(-1)
    assert (reached <= best + 1e-12).all()
    torch.testing.assert_close(reached, best, rtol=1e-8, atol=0)


def test_zero_gradients_and_ties():
    zero = torch.zeros(2, 3)
    for norm in ("l1", "l2", "linf", torch.eye(3)):
        assert gf.steepest_direction(zero, norm).eq(0).all()
    tie = torch.tensor([-2.0, 2.0, 2.0])
    assert gf.steepest_direction(tie, "l1").tolist() == [1.0, 0.0, 0.0]
    batch = gf.steepest_direction(START, A.expand(3, 2, 2))
    torch.testing.assert_close(batch, gf.steepest_direction(START, A))


def test_mirror_step_stays_on_the_simplex_at_huge_gradients():
    x = torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.5, 0.5]])
    y = gf.mirror_step(x, torch.tensor([[1e3, -1e3, 0.0], [-1e3, 1e3, 1e3]]), 1.0, "entropy")
    torch.testing.assert_close(y, torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]))
    assert gf.mirror_step(x, x, 0.5).equal(x - 0.5 * x)


def test_entropy_step_minimises_its_penalised_objective():
    x, g = np.array([0.2, 0.3, 0.5]), np.array([1.0, -0.5, 0.3])
    objective = lambda y: (y * np.log(y.clip(1e-9) / x)).sum() / 0.7 + y @ g
    ours = gf.mirror_step(torch.from_numpy(x), torch.from_numpy(g), 0.7, "entropy").numpy()
    side = {"type": "eq", "fun": lambda y: y.sum() - 1}
    best = optimize.minimize(objective, x, constraints=side, tol=1e-14).x
    np.testing.assert_allclose(ours, best, atol=1e-6)


FLOW = {"f": quadratic, "x0": START, "t": TIMES}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"t": TIMES[:1]}, ValueError, "t: got shape"),
        ({"t": TIMES[None]}, ValueError, "t: got shape"),
        ({"t": TIMES.flip(0)}, ValueError, "t: got times that do not increase"),
        ({"method": "heun"}, ValueError, "method: got 'heun'"),
        ({"substeps": 0}, ValueError, "substeps: got 0"),
        ({"x0": torch.ones(3, dtype=torch.long)}, TypeError, "x0: got torch.int64"),
        ({"x0": torch.tensor(1.0)}, ValueError, "x0: got shape"),
        ({"f": lambda x: x}, ValueError, "f: value: got shape"),
        ({"metric": lambda x: torch.eye(2)}, ValueError, "metric: value: got shape"),
        ({"metric": lambda x: -torch.eye(2).expand(3, 2, 2)}, ValueError, "metric: got a matrix that is not positive"),
    ],
)
def test_flow_refuses_bad_input(change, error, message):
    with as_users_call(), pytest.raises(error, match=message):
        gf.gradient_flow(**{**FLOW, **change})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gf.proximal_step(quadratic, START, 0.0), ValueError, "step: got 0.0"),
        (lambda: gf.proximal_step(quadratic, START, 1.0, tol=-1.0), ValueError, "tol: got -1.0"),
        (lambda: gf.proximal_step(quadratic, START, 1.0, max_iter=0), ValueError, "max_iter: got 0"),
    ],
)
def test_steps_refuse_bad_input(call, error, message):
    with as_users_call(), pytest.raises(error, match=message):
        call()
