"""reflow_wgan: flows against closed forms, matrix exponentials, torchdiffeq and POT."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from opinfo import as_users_call
from scipy import linalg

from kexue_lib.generative import reflow_wgan as rw
from kexue_lib.generative.score_matching import GaussianMixture


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def covariance(d: int, seed: int) -> torch.Tensor:
    root = normal(d, d, seed=seed)
    return root @ root.T / d + 0.1 * torch.eye(d, dtype=torch.float64)


def test_interpolate_is_exact_at_the_ends_and_takes_three_forms_of_time() -> None:
    x0, x1 = normal(3, 2, 5), normal(3, 2, 5, seed=1)
    assert torch.equal(rw.interpolate(x0, x1, torch.zeros(())), x0)
    assert torch.equal(rw.interpolate(x0, x1, torch.ones(3)), x1)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(rw.interpolate(x0, x1, t), rw.interpolate(x0, x1, t[:, None, None]))


def test_the_conditional_mean_has_the_least_loss() -> None:
    """For Gaussians in three dimensions the loss at v* is half the conditional variance, and any other has more."""
    d, n = 3, 40_000
    c0, c1 = covariance(d, 1), covariance(d, 2)
    zero = torch.zeros(d, dtype=torch.float64)
    x0, x1 = normal(n, d, seed=3) @ torch.linalg.cholesky(c0).T, normal(n, d, seed=4) @ torch.linalg.cholesky(c1).T
    t = torch.full((n,), 0.3, dtype=torch.float64)
    best = rw.flow_matching_loss(lambda x, t: rw.gaussian_velocity(x, t, zero, c0, zero, c1), x0, x1, t)
    joint = torch.block_diag(c0, c1)
    change = torch.cat([-torch.eye(d), torch.eye(d)], 1).double()
    point = torch.cat([0.7 * torch.eye(d), 0.3 * torch.eye(d)], 1).double()
    schur = change @ joint @ change.T - change @ joint @ point.T @ torch.linalg.solve(
        point @ joint @ point.T, point @ joint @ change.T
    )
    assert abs(best.mean() - schur.trace() / 2) < 4 * best.std() / math.sqrt(n)
    for other in (0.9, 1.1):
        scaled = lambda x, t, other=other: other * rw.gaussian_velocity(x, t, zero, c0, zero, c1)
        worse = rw.flow_matching_loss(scaled, x0, x1, t)
        gap = worse - best
        assert gap.mean() > 4 * gap.std() / math.sqrt(n)


def test_gaussian_velocity_in_one_dimension_follows_the_known_path() -> None:
    m0, s0, m1, s1 = (torch.tensor([v], dtype=torch.float64) for v in (0.5, 2.0, -1.0, 0.7))
    x0 = normal(20, 1) * s0 + m0
    velocity = lambda x, t: rw.gaussian_velocity(x, t, m0, s0[None] ** 2, m1, s1[None] ** 2)
    path = rw.ode_solve(velocity, x0, 200, method="rk4", return_path=True)
    t = torch.linspace(0, 1, 201, dtype=torch.float64)[:, None, None]
    spread = ((1 - t) ** 2 * s0**2 + t**2 * s1**2).sqrt()
    exact = (1 - t) * m0 + t * m1 + spread / s0 * (x0 - m0)
    torch.testing.assert_close(path, exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("d", [2, 5])
def test_gaussian_flow_ends_in_the_second_law_but_not_along_the_optimal_map(d: int) -> None:
    c0, c1 = covariance(d, 5), covariance(d, 6)
    zero = torch.zeros(d, dtype=torch.float64)
    eye = torch.eye(d, dtype=torch.float64)
    rows = rw.ode_solve(lambda x, t: rw.gaussian_velocity(x, t, zero, c0, zero, c1), eye, 400, method="rk4")
    ends = rows.T  # rows are images of unit vectors
    torch.testing.assert_close(ends @ c0 @ ends.T, c1, rtol=1e-7, atol=1e-7)
    root = linalg.sqrtm(c0.numpy())
    optimal = np.linalg.inv(root) @ linalg.sqrtm(root @ c1.numpy() @ root) @ np.linalg.inv(root)
    cost = lambda m: np.trace((m - np.eye(d)) @ c0.numpy() @ (m - np.eye(d)).T)
    assert cost(ends.numpy()) > cost(optimal) * 1.0005
    assert np.abs(optimal - optimal.T).max() < 1e-8 < np.abs((ends - ends.T).numpy()).max()


def test_optimal_cost_agrees_with_pot() -> None:
    ot = pytest.importorskip("ot")
    c0, c1 = covariance(2, 5).numpy(), covariance(2, 6).numpy()
    matrix, _ = ot.gaussian.bures_wasserstein_mapping(np.zeros(2), np.zeros(2), c0, c1)
    root = linalg.sqrtm(c0)
    optimal = np.linalg.inv(root) @ linalg.sqrtm(root @ c1 @ root) @ np.linalg.inv(root)
    np.testing.assert_allclose(matrix, optimal, rtol=1e-8)


def test_mixture_velocity_is_finite_at_both_ends_and_far_away() -> None:
    ring = GaussianMixture.ring(dtype=torch.float64)
    x = normal(30, 2) * 3
    torch.testing.assert_close(rw.mixture_velocity(x, 0.0, ring), ring.mean() - x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rw.mixture_velocity(x, 1.0, ring), x, rtol=1e-12, atol=1e-12)
    t = torch.linspace(0, 1, 30, dtype=torch.float64)
    for far in (1e4, 1e-8):
        assert rw.mixture_velocity(far * x, t, ring).isfinite().all()
    inner = t[1:-1]
    mean = ring.posterior_mean(x[1:-1], inner, 1 - inner)
    expected = (mean - x[1:-1]) / (1 - inner[:, None])
    torch.testing.assert_close(rw.mixture_velocity(x, t, ring)[1:-1], expected, rtol=1e-9, atol=1e-9)


def test_one_component_is_the_gaussian_velocity() -> None:
    mean, cov = normal(3, seed=7), covariance(3, 8)
    one = GaussianMixture(torch.ones(1).double(), mean[None], cov[None])
    x, t = normal(6, 3), torch.tensor([0.0, 0.1, 0.5, 0.8, 0.99, 1.0], dtype=torch.float64)
    zero, eye = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    expected = rw.gaussian_velocity(x, t, zero, eye, mean, cov)
    torch.testing.assert_close(rw.mixture_velocity(x, t, one), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(expected[0], mean - x[0])
    torch.testing.assert_close(expected[-1], x[-1])


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_solvers_have_their_order(method: str, order: int) -> None:
    matrix = normal(3, 3)
    x0, exact = normal(5, 3, seed=1), normal(5, 3, seed=1) @ torch.linalg.matrix_exp(matrix)
    errors = [(rw.ode_solve(lambda x, t: x @ matrix, x0, n, method=method) - exact).abs().max() for n in (64, 128)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_torchdiffeq_calls_another_rule_rk4() -> None:
    peer = pytest.importorskip("torchdiffeq")
    x0 = normal(5, 3)
    field = lambda t, x: torch.sin(3 * x) + t
    grid = torch.linspace(0, 1, 5, dtype=torch.float64)
    ours = rw.ode_solve(lambda x, t: field(t[:, None], x), x0, 4, method="rk4")
    gaps = {m: (peer.odeint(field, x0, grid, method=m)[-1] - ours).abs().max() for m in ("rk4", "midpoint")}
    assert 1e-7 < gaps["rk4"] < gaps["midpoint"]
    by_hand, h = x0, 0.25
    for k in range(4):
        t = k * h
        k1 = field(t, by_hand)
        k2 = field(t + h / 3, by_hand + h / 3 * k1)
        k3 = field(t + 2 * h / 3, by_hand + h * (k2 - k1 / 3))
        k4 = field(t + h, by_hand + h * (k1 - k2 + k3))
        by_hand = by_hand + h / 8 * (k1 + 3 * k2 + 3 * k3 + k4)
    torch.testing.assert_close(peer.odeint(field, x0, grid, method="rk4")[-1], by_hand, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("s0", "s1"), [(1.0, 1.0), (1.0, 3.0), (2.0, 0.5)])
def test_straightness_of_gaussians(s0: float, s1: float) -> None:
    zero, eye = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    velocity = lambda x, t: rw.gaussian_velocity(x, t, zero, s0**2 * eye, zero + 1, s1**2 * eye)
    x0 = s0 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)  # covariance s0²
    expected = 2 * (2 - math.pi / 2) * s0 * s1
    assert rw.straightness(velocity, x0, 400).item() == pytest.approx(expected, rel=2e-4)


def test_reflow_of_a_line_is_straight_and_keeps_the_ends() -> None:
    """A quarter of the first straightness at most, by a network trained on pairs of the exact flow."""
    one = torch.ones(1)
    exact = lambda x, t: rw.gaussian_velocity(x, t, 0 * one, one[None], 0 * one, one[None])
    x0 = torch.linspace(-2, 2, 101)[:, None]
    pairs = rw.make_reflow_pairs(exact, x0, 100, batch_size=30)
    torch.testing.assert_close(pairs[1], x0, rtol=1e-3, atol=1e-3)
    model = rw.VelocityMLP(1, 32, 2, generator=seeded(0))
    rw.train_rectified_flow(model, lambda g: pairs, 300, lr=5e-3)
    assert rw.straightness(model, x0) < rw.straightness(exact, x0) / 4


def test_reflow_gives_one_flow_for_each_round_and_keeps_the_first() -> None:
    first = rw.VelocityMLP(2, 8, 1, generator=seeded(0))
    before = [p.clone() for p in first.parameters()]
    draw = lambda n, g: torch.randn(n, 2, generator=g)
    flows = rw.reflow(first, draw, 2, pairs=64, batch_size=16, ode_steps=3, steps=4)
    again = rw.reflow(first, draw, 2, pairs=64, batch_size=16, ode_steps=3, steps=4)
    assert len(flows) == 2
    assert all(torch.equal(p, q) for p, q in zip(before, first.parameters()))
    assert all(torch.equal(p, q) for f, g in zip(flows, again) for p, q in zip(f.parameters(), g.parameters()))
    assert any(not torch.equal(p, q) for p, q in zip(flows[0].parameters(), flows[1].parameters()))


def test_pairs_do_not_depend_on_the_batch_size_and_carry_no_gradient() -> None:
    model, x0 = rw.VelocityMLP(2, 8, 1, generator=seeded(0)), torch.randn(7, 2, generator=seeded(1))
    whole, parts = (rw.make_reflow_pairs(model, x0, 5, batch_size=b)[1] for b in (None, 3))
    torch.testing.assert_close(whole, parts)
    assert not whole.requires_grad


def test_transport_cost_of_known_pairs() -> None:
    x0, x1 = torch.zeros(2, 2, 1), torch.tensor([[[3.0], [4.0]], [[0.0], [1.0]]])
    assert rw.transport_cost(x0, x1).item() == 13
    assert rw.transport_cost(x0, x1, 1).item() == 3


def test_gradients_of_a_path_and_compilation() -> None:
    matrix = normal(2, 2).requires_grad_()
    x0 = normal(3, 2, seed=1)
    assert torch.autograd.gradcheck(lambda m: rw.ode_solve(lambda x, t: x @ m, x0, 3, return_path=True), matrix)
    velocity = lambda x, t: torch.sin(x) * t[:, None]
    with as_users_call():
        compiled = torch.compile(lambda x: rw.ode_solve(velocity, x, 3), fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x0), rw.ode_solve(velocity, x0, 3))


def test_an_empty_batch_has_an_empty_loss() -> None:
    empty = torch.zeros(0, 2)
    assert rw.flow_matching_loss(lambda x, t: x, empty, empty).shape == (0,)
    assert rw.gradient_penalty(lambda x: x.sum(1), empty, empty).shape == (0,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: rw.ode_solve(lambda x, t: x, x, 0), ValueError, "steps: got 0"),
        (lambda x: rw.ode_solve(lambda x, t: x, x, 2, method="dopri5"), ValueError, "method: got 'dopri5'"),
        (lambda x: rw.ode_solve(lambda x, t: x, x.long(), 2), TypeError, "x0: got torch.int64"),
        (lambda x: rw.straightness(lambda x, t: x, x[:0]), ValueError, "x0: got no points"),
        (lambda x: rw.transport_cost(x[:0], x[:0]), ValueError, "x0: got no points"),
        (lambda x: rw.transport_cost(x, x, 0), ValueError, "p: got 0"),
        (lambda x: rw.make_reflow_pairs(lambda x, t: x, x, 1, batch_size=0), ValueError, "batch_size: got 0"),
        (lambda x: rw.reflow(rw.VelocityMLP(2), None, 1, pairs=10), ValueError, "pairs: got 10"),
        (lambda x: rw.VelocityMLP(2, depth=0), ValueError, "depth: got 0"),
        (lambda x: rw.train_rectified_flow(None, None, 0), ValueError, "steps: got 0"),
    ],
)
def test_bad_input(call, error: type, message: str) -> None:
    with as_users_call(), pytest.raises(error, match=message):
        call(torch.zeros(3, 2))
