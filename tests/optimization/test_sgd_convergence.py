"""sgd_convergence: rates, projections, averages and the chain of the proof, by independent methods."""

from __future__ import annotations

import copy
import math

import mpmath
import numpy as np
import ot
import pytest
import torch
from entmax import sparsemax
from hypothesis import given, settings
from hypothesis import strategies as st
from opinfo import as_users_call
from scipy.optimize import minimize
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from kexue_lib.optimization import sgd_convergence as sgd

SETS = {
    "l2_ball": lambda x: sgd.project_l2_ball(x, 1.3),
    "shifted_ball": lambda x: sgd.project_l2_ball(x, 0.7, torch.ones(x.shape[-1], dtype=x.dtype)),
    "box": lambda x: sgd.project_box(x, -0.4, 0.9),
    "simplex": lambda x: sgd.project_simplex(x, 1.5),
    "l1_ball": lambda x: sgd.project_l1_ball(x, 1.2),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# --- rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("D", "G", "T"), [(2.0, 1.0, 100), (0.3, 7.0, 17)])
def test_rates_minimise_their_bounds(D, G, T):
    constant = lambda log_eta: D**2 / (2 * T * np.exp(log_eta[0])) + G**2 * np.exp(log_eta[0]) / 2
    eta = math.exp(minimize(constant, [0.0]).x[0])
    assert sgd.optimal_constant_lr(D, G, T) == pytest.approx(eta, rel=1e-3)
    decaying = lambda log_a: D**2 / (2 * np.exp(log_a[0])) + G**2 * np.exp(log_a[0])
    assert sgd.optimal_sqrt_scale(D, G) == pytest.approx(math.exp(minimize(decaying, [0.0]).x[0]), rel=1e-3)


def test_bound_is_the_formula_in_50_digits():
    mpmath.mp.dps = 50
    D, G, T = mpmath.mpf("2.5"), mpmath.mpf("0.75"), 5000
    rates = [3 / mpmath.sqrt(t) for t in range(1, T + 1)]
    exact = (D**2 / rates[-1] + G**2 * mpmath.fsum(rates)) / (2 * T)
    lrs = 3 / torch.arange(1, T + 1, dtype=torch.float64).sqrt()
    assert sgd.regret_bound(lrs, 2.5, 0.75).item() == pytest.approx(float(exact), rel=1e-14)


def test_bound_of_the_best_rates():
    D, G, T = 3.0, 0.5, 400
    best = sgd.regret_bound(torch.full((T,), sgd.optimal_constant_lr(D, G, T), dtype=torch.float64), D, G)
    assert best.item() == pytest.approx(D * G / math.sqrt(T), rel=1e-14)
    lrs = sgd.optimal_sqrt_scale(D, G) / torch.arange(1, T + 1, dtype=torch.float64).sqrt()
    ratio = sgd.regret_bound(lrs, D, G) / best
    expected = math.sqrt(2) * (1 + (float(mpmath.zeta(0.5)) + 0.5 / math.sqrt(T)) / (4 * math.sqrt(T)))
    assert ratio.item() == pytest.approx(expected, rel=1e-6)


def test_doubling_rates_follow_the_epochs():
    expected = [3.0 / (0.5 * math.sqrt(2 ** (t.bit_length() - 1))) for t in range(1, 70)]
    assert sgd.doubling_lrs(3.0, 0.5, 69).tolist() == pytest.approx(expected, rel=1e-14)


def test_linear_decay_falls_to_zero_one_step_after_the_end():
    lrs = sgd.linear_decay_lr(2.0, 0.5, 9)
    assert lrs.dtype == torch.float64
    assert lrs.diff().tolist() == pytest.approx([-lrs[-1].item()] * 8)
    assert lrs[0].item() == pytest.approx(2.0 * 9 / (0.5 * 10**1.5))


def test_inverse_sqrt_schedule_and_its_resumption():
    theta = nn.Parameter(torch.zeros(2))
    optimizer = sgd.ProjectedSGD([{"params": [theta], "lr": 0.6}], lr=1.0)
    schedule = sgd.InverseSqrtLR(optimizer)
    seen = []
    for _ in range(5):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert seen == pytest.approx([0.6 / math.sqrt(t) for t in range(1, 6)])
    saved = schedule.state_dict()
    other = sgd.InverseSqrtLR(sgd.ProjectedSGD([nn.Parameter(torch.zeros(2))], lr=0.6))
    other.load_state_dict(saved)
    other.step()
    assert other.get_last_lr() == pytest.approx([0.6 / math.sqrt(7)])


# --- projections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_projection_solves_the_quadratic_programme(name):
    d = 4
    constraints = {
        "l2_ball": [{"type": "ineq", "fun": lambda z: 1.3**2 - z @ z}],
        "shifted_ball": [{"type": "ineq", "fun": lambda z: 0.7**2 - (z - 1) @ (z - 1)}],
        "box": [{"type": "ineq", "fun": lambda z: np.concatenate((z + 0.4, 0.9 - z))}],
        "simplex": [{"type": "eq", "fun": lambda z: z.sum() - 1.5}, {"type": "ineq", "fun": lambda z: z}],
        "l1_ball": [{"type": "ineq", "fun": lambda z, s=s: 1.2 - s @ z} for s in _signs(d)],
    }[name]
    for x in 1.5 * normal(6, d, seed=1):
        target = x.numpy()
        options = {"ftol": 1e-14, "maxiter": 500}
        best = minimize(lambda z, y=target: ((z - y) ** 2).sum(), np.full(d, 0.375), constraints=constraints,
                        method="SLSQP", options=options)  # fmt: skip
        torch.testing.assert_close(SETS[name](x), torch.from_numpy(best.x), rtol=0, atol=2e-5)


def _signs(d):
    return np.array(np.meshgrid(*[[-1.0, 1.0]] * d)).reshape(d, -1).T


@pytest.mark.parametrize("total", [1.0, 0.01, 50.0])
def test_simplex_agrees_with_sparsemax_and_optimal_transport(total):
    x = normal(64, 33, seed=2)
    ours = sgd.project_simplex(x, total)
    torch.testing.assert_close(ours, total * sparsemax(x / total), rtol=1e-9, atol=1e-12)
    peer = ot.utils.proj_simplex(x.numpy().T, total).T
    torch.testing.assert_close(ours, torch.from_numpy(peer), rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(sorted(SETS)), st.sampled_from([1e-3, 1.0, 1e6]))
def test_projection_is_idempotent_non_expansive_and_obtuse(seed, name, scale):
    project = SETS[name]
    x, y = scale * normal(2, 8, 6, seed=seed)
    p, q = project(x), project(y)
    slack = 1e-12 * scale
    torch.testing.assert_close(project(p), p, rtol=1e-14, atol=1e-14)
    assert ((p - q).norm(dim=-1) <= (x - y).norm(dim=-1) + slack).all()
    assert (((p - q) * (x - p)).sum(-1) >= -slack * 10).all()  # q is a point of the set


@pytest.mark.parametrize("name", ["l2_ball", "shifted_ball", "box", "l1_ball"])
def test_points_inside_are_returned_unchanged(name):
    x = SETS[name](normal(9, 5)) if name == "shifted_ball" else 0.1 * normal(9, 5)
    inside = 1 + 0.5 * (x - 1) if name == "shifted_ball" else x
    assert torch.equal(SETS[name](inside), inside)


def test_simplex_keeps_its_digits_at_entries_of_a_million():
    x = torch.tensor([1e6 + 0.75, 1e6 + 0.5, 0.0])  # exact in float32
    assert sgd.project_simplex(x).tolist() == [0.625, 0.375, 0.0]


def test_rows_on_which_newton_is_slow_fall_back_to_the_sort():
    # of geometric gaps each round of Newton drops few entries
    x = -torch.tensor([2.0**-k for k in range(60, -1, -1)], dtype=torch.float64).cumsum(0) * torch.arange(1, 62)
    for total in (1e-12, 1e-3, 1.0):
        torch.testing.assert_close(sgd.project_simplex(x, total), total * sparsemax(x / total), rtol=1e-9, atol=1e-15)


def test_long_rows_sum_to_the_total_in_float32():
    p = sgd.project_simplex(torch.rand(3, 100_000, generator=seeded()) * 1e-6)
    torch.testing.assert_close(p.double().sum(-1), torch.ones(3, dtype=torch.float64), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", SETS)
def test_empty_batches_and_rows_with_nan(name):
    assert SETS[name](torch.zeros(0, 3, dtype=torch.float64)).shape == (0, 3)
    rows = SETS[name](torch.tensor([[math.nan, 1.0, 2.0], [0.1, 0.2, 0.3]], dtype=torch.float64))
    assert rows[0].isnan().any()
    assert rows[1].isfinite().all()


# --- the optimizer ----------------------------------------------------------------------------------------------------


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()


def _train(model, optimizer, steps, schedule=None, before=None):
    x, y = normal(16, 4, seed=3), normal(16, 2, seed=4)
    for _ in range(steps):
        if before:
            before()
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        if schedule:
            schedule.step()
    return [p.detach().clone() for p in model.parameters()]


def test_without_projection_it_is_torch_sgd():
    ours, peer = _model(), _model()
    a = _train(ours, sgd.ProjectedSGD(ours.parameters(), lr=0.2), 10)
    b = _train(peer, torch.optim.SGD(peer.parameters(), lr=0.2), 10)
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_maximize_ascends():
    theta = nn.Parameter(torch.zeros(2))
    theta.grad = torch.ones(2)
    sgd.ProjectedSGD([theta], lr=0.5, maximize=True).step()
    assert theta.tolist() == [0.5, 0.5]


def test_uniform_average_is_that_of_the_points_before_each_step():
    model = _model()
    optimizer = sgd.ProjectedSGD(model.parameters(), lr=0.2, average="uniform")
    peer = AveragedModel(model)
    _train(model, optimizer, 12, before=lambda: peer.update_parameters(model))
    torch.testing.assert_close(optimizer.averaged_parameters(), [p.detach() for p in peer.module.parameters()])


def test_average_weighted_by_the_rate_with_a_schedule_that_ends_at_zero():
    theta = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = sgd.ProjectedSGD([theta], lr=0.5, average="lr")
    schedule = LambdaLR(optimizer, lambda step: max(0.0, 1 - step / 4))
    points, weights = [], []
    for step in range(6):
        points.append(theta.item())
        weights.append(0.5 * max(0.0, 1 - step / 4))
        theta.grad = 2 * theta.detach()
        optimizer.step()
        schedule.step()
    assert optimizer.averaged_parameters()[0].item() == pytest.approx(np.average(points, weights=weights), rel=1e-14)


def test_projection_and_average_are_options_of_a_group():
    a, b = nn.Parameter(torch.tensor([0.9, 0.0])), nn.Parameter(torch.tensor([0.9, 0.0]))
    groups = [{"params": [a], "projection": sgd.project_l2_ball, "average": "uniform"}, {"params": [b]}]
    optimizer = sgd.ProjectedSGD(groups, lr=1.0)
    for p in (a, b):
        p.grad = torch.tensor([-2.0, 0.0])
    optimizer.step()
    assert a.tolist() == [1.0, 0.0]
    assert b[0].item() == pytest.approx(2.9)
    first, second = optimizer.averaged_parameters()
    assert first[0].item() == pytest.approx(0.9)
    assert second.tolist() == b.tolist()


def test_low_precision_averages_in_float32():
    theta = nn.Parameter(torch.tensor([1.0], dtype=torch.bfloat16))
    optimizer = sgd.ProjectedSGD([theta], lr=2.0**-7, average="uniform")
    points = []
    for _ in range(40):
        points.append(theta.item())
        theta.grad = torch.ones_like(theta)
        optimizer.step()
    average = optimizer.averaged_parameters()[0]
    assert average.dtype == torch.float32
    assert average.item() == pytest.approx(np.mean(points), rel=1e-6)


def test_swap_restores_also_after_an_error():
    model = _model()
    optimizer = sgd.ProjectedSGD(model.parameters(), lr=0.2, average="uniform")
    last = _train(model, optimizer, 4)
    with optimizer.swap_averaged():
        torch.testing.assert_close(list(model.parameters()), optimizer.averaged_parameters(), rtol=0, atol=0)
        assert not torch.equal(model[0].weight, last[0])
    with pytest.raises(KeyError), optimizer.swap_averaged():
        raise KeyError
    torch.testing.assert_close([p.detach() for p in model.parameters()], last, rtol=0, atol=0)


def test_state_survives_a_round_trip():
    model = _model()
    optimizer = sgd.ProjectedSGD(model.parameters(), lr=0.2, average="lr")
    schedule = sgd.InverseSqrtLR(optimizer)
    _train(model, optimizer, 5, schedule)
    twin = copy.deepcopy(model)
    resumed = sgd.ProjectedSGD(twin.parameters(), lr=0.2, average="lr")
    resumed_schedule = sgd.InverseSqrtLR(resumed)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed_schedule.load_state_dict(schedule.state_dict())
    torch.testing.assert_close(_train(model, optimizer, 5, schedule), _train(twin, resumed, 5, resumed_schedule))
    torch.testing.assert_close(optimizer.averaged_parameters(), resumed.averaged_parameters(), rtol=0, atol=0)


def test_closure_is_evaluated_with_gradients():
    theta = nn.Parameter(torch.tensor([2.0]))
    optimizer = sgd.ProjectedSGD([theta], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = theta.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert theta.item() == 1.0


# --- runs and certificates --------------------------------------------------------------------------------------------


def _absolute_run(project=None, T=300, d=4, batch=()):
    a = nn.functional.normalize(normal(T, d, seed=5), dim=-1)
    b = a @ torch.full((d,), 0.3, dtype=torch.float64) + 0.3 * normal(T, seed=6)

    def grad_fn(theta, t):
        gap = (theta * a[t]).sum(-1) - b[t]
        return gap.abs(), gap.sign()[..., None] * a[t]

    lrs = 0.7 / torch.arange(1, T + 1, dtype=torch.float64).sqrt()
    trace = sgd.online_gradient_descent(
        grad_fn, torch.zeros(*batch, d, dtype=torch.float64), lrs, project=project, record=True
    )
    return trace, lrs, a, b


@pytest.mark.parametrize("project", [None, lambda x: sgd.project_l2_ball(x, 0.5)])
def test_certificate_is_the_chain_computed_by_loops(project):
    trace, lrs, a, b = _absolute_run(project)
    star = torch.full((4,), 0.2, dtype=torch.float64)
    theirs = (a @ star - b).abs()
    links = sgd.regret_certificate(trace.iterates, trace.grads, lrs, star, trace.losses, theirs)
    T, loops = len(lrs), dict.fromkeys(("regret", "linear_regret", "telescoped", "distance_bound", "bound"), 0.0)
    D = max(math.dist(p.tolist(), star.tolist()) for p in trace.iterates[:-1])
    G = max(math.hypot(*g.tolist()) for g in trace.grads)
    for t in range(T):
        near, far = (math.dist(trace.iterates[s].tolist(), star.tolist()) ** 2 for s in (t, t + 1))
        eta, g2 = lrs[t].item(), sum(v * v for v in trace.grads[t].tolist())
        loops["regret"] += trace.losses[t].item() - theirs[t].item()
        loops["linear_regret"] += float((trace.iterates[t] - star) @ trace.grads[t])
        loops["telescoped"] += (near - far) / (2 * eta) + eta * g2 / 2
        loops["distance_bound"] += eta * g2 / 2
        loops["bound"] += eta * G**2 / 2
    for name in ("distance_bound", "bound"):
        loops[name] += D**2 / (2 * lrs[-1].item())
    for name, value in loops.items():
        assert links[name].item() == pytest.approx(value / T, rel=1e-11)
    ordered = [links[name].item() for name in loops]
    assert ordered[0] < ordered[1]
    assert ordered[2] < ordered[3] <= ordered[4] * (1 + 1e-12)
    if project is None:
        assert ordered[1] == pytest.approx(ordered[2], rel=1e-12)
    else:
        assert ordered[1] < ordered[2]


def test_given_constants_replace_the_measured_ones():
    trace, lrs, *_ = _absolute_run()
    links = sgd.regret_certificate(trace.iterates, trace.grads, lrs, torch.zeros(4, dtype=torch.float64), D=9.0, G=3.0)
    assert "regret" not in links
    assert links["bound"].item() == pytest.approx(sgd.regret_bound(lrs, 9.0, 3.0).item(), rel=1e-13)


def test_a_batch_of_runs_is_the_runs_one_by_one():
    a = normal(50, 7, 3, seed=8)  # (step, run, d)
    grad = lambda select: lambda theta, t: ((theta * a[t, select]).sum(-1), a[t, select])
    lrs = torch.linspace(0.5, 0.1, 50, dtype=torch.float64)
    start, ball = torch.zeros(7, 3, dtype=torch.float64), sgd.project_l2_ball
    many = sgd.online_gradient_descent(grad(slice(None)), start, lrs, project=ball)
    assert many.iterates is None
    for run in range(7):
        one = sgd.online_gradient_descent(grad(run), start[run], lrs, project=ball, record=True)
        torch.testing.assert_close(many.last[run], one.last, rtol=0, atol=1e-14)
        torch.testing.assert_close(many.average[run], one.iterates[:-1].mean(0), rtol=0, atol=1e-14)


@pytest.mark.parametrize("pieces", [1, 4])
def test_linear_decay_keeps_its_promise_at_the_last_point(pieces):
    # f(θ) = maxᵢ aᵢ·θ with the aᵢ of unit length summing to zero: least value 0 at the origin
    angles = 2 * math.pi * torch.arange(pieces + 1, dtype=torch.float64) / (pieces + 1)
    a = torch.stack((angles.cos(), angles.sin()), -1)

    def grad_fn(theta, t):
        values, index = (theta @ a.T).max(-1)
        return values, a[index]

    start = nn.functional.normalize(normal(200, 2, seed=9), dim=-1) * 3.0
    for T in (1, 10, 1000):
        trace = sgd.online_gradient_descent(grad_fn, start, sgd.linear_decay_lr(3.0, 1.0, T))
        assert (grad_fn(trace.last, T)[0] <= 3.0 / math.sqrt(T + 1) + 1e-12).all()


# --- refusals ---------------------------------------------------------------------------------------------------------


def _parameter():
    return [nn.Parameter(torch.zeros(2))]


RATES, POINTS = torch.ones(2), torch.zeros(3, 2)
REFUSED = {
    "no rates": (lambda: sgd.regret_bound(torch.ones(0), 1.0, 1.0), ValueError, r"lrs: got shape \(0,\)"),
    "rate zero": (lambda: sgd.regret_bound(torch.zeros(2), 1.0, 1.0), ValueError, "lrs: got 0.0"),
    "rising": (lambda: sgd.regret_bound(torch.tensor([1.0, 2.0]), 1.0, 1.0), ValueError, "non-increasing"),
    "D": (lambda: sgd.regret_bound(RATES, 0.0, 1.0), ValueError, "D: got 0.0"),
    "G": (lambda: sgd.optimal_constant_lr(1.0, -1.0, 3), ValueError, "G: got -1.0"),
    "T": (lambda: sgd.linear_decay_lr(1.0, 1.0, 0), ValueError, "T: got 0"),
    "T kind": (lambda: sgd.doubling_lrs(1.0, 1.0, 2.0), TypeError, "T: got 2.0"),
    "lr": (lambda: sgd.ProjectedSGD(_parameter(), lr=0.0), ValueError, "lr: got 0.0"),
    "lr tensor": (lambda: sgd.ProjectedSGD(_parameter(), lr=torch.tensor(0.1)), TypeError, "lr: got Tensor"),
    "average": (lambda: sgd.ProjectedSGD(_parameter(), lr=0.1, average="mean"), ValueError, "average: got 'mean'"),
    "projection": (lambda: sgd.ProjectedSGD(_parameter(), lr=0.1, projection=1.0), TypeError, "projection: got float"),
    "no average": (
        lambda: sgd.ProjectedSGD(_parameter(), lr=0.1).averaged_parameters(), RuntimeError, "averaged_parameters",
    ),
    "iterates": (lambda: sgd.regret_certificate(POINTS[:2], POINTS[:2], RATES, POINTS[0]), ValueError, "iterates: got"),
    "grads": (lambda: sgd.regret_certificate(POINTS, POINTS, RATES, POINTS[0]), ValueError, "grads: got shape"),
    "one of two losses": (
        lambda: sgd.regret_certificate(POINTS, POINTS[:2], RATES, POINTS[0], RATES), ValueError, "comparator_losses",
    ),
    "shape of gradients": (
        lambda: sgd.online_gradient_descent(lambda x, t: (x.sum(-1), x.sum(-1)), POINTS, RATES), ValueError, "gradient",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused(name):
    call, kind, message = REFUSED[name]
    with as_users_call(), pytest.raises(kind, match=message):
        call()


def test_sparse_gradient_is_refused():
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        sgd.ProjectedSGD(table.parameters(), lr=0.1).step()
