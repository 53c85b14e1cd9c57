"""gradient_flow, densities and particles: closed forms, SciPy, autograd of a log density, moments of known chains."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from opinfo import as_users_call
from ops_gradient_flow import F_OF_R, normal, speed, stein
from scipy import linalg, stats
from torch import Tensor

from kexue_lib.optimization import gradient_flow as gf
from kexue_lib.optimization.gradient_flow import _kernels

X = torch.linspace(-6, 6, 241, dtype=torch.float64)
DX = 0.05
TIMES = torch.tensor([0.0, 0.1, 0.7, 2.0, 40.0], dtype=torch.float64)


def log_normal(x: Tensor) -> Tensor:
    return -x.square().sum(-1) / 2


def gaussian(mean: float, deviation: float) -> Tensor:
    return torch.from_numpy(stats.norm.pdf(X.numpy(), mean, deviation))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_grid_agrees_with_the_matrix_exponential_of_the_jump_rates():
    V = 2 * (X[::8] ** 2 / 9 - 1) ** 2
    dx = 8 * DX
    n = len(V)
    L = np.zeros((n, n))
    for i in range(n):
        for j in (i - 1, i + 1):
            if 0 <= j < n:
                L[j, i] += math.exp(-(V[j] - V[i]) / 2) / dx**2
                L[i, i] -= math.exp(-(V[j] - V[i]) / 2) / dx**2
    q0 = torch.stack([gaussian(-3, 0.8)[::8], gaussian(1, 2.0)[::8]])
    path = gf.fokker_planck_1d(V, q0, dx, TIMES)
    for t, q in zip(TIMES, path):
        np.testing.assert_allclose(q.numpy(), q0.numpy() @ linalg.expm(L * t.item()).T, atol=1e-10)


@pytest.mark.parametrize("method", ["modes", "exponentials"])
def test_mass_positivity_and_falling_free_energy(method):
    V = (8 if method == "modes" else 30) * (X[40:201] ** 2 / 4 - 1) ** 2
    q0 = torch.full_like(V, 1 / 8) if method == "exponentials" else gaussian(-2, 0.1)[40:201]
    times = TIMES if method == "modes" else TIMES[:4]
    path = gf.fokker_planck_1d(V, q0, DX, times)
    torch.testing.assert_close(path.sum(-1) * DX, (q0.sum() * DX).expand(len(times)), rtol=0, atol=1e-9)
    assert path.min() >= -1e-12
    energy = gf.free_energy(path.clamp_min(0), V, DX)
    assert (energy.diff() <= 1e-10).all()
    assert energy[-1] > -torch.log(torch.exp(-V).sum() * DX) - 1e-9


def test_both_ways_through_time_agree():
    V, q0 = (X / 2) ** 4, gaussian(2, 0.5)
    steps = [(V - V.min()).diff()]
    up, down = (torch.exp(sign * steps[0] / 2) / DX**2 for sign in (-1, 1))
    modes = gf.fokker_planck_1d(V, q0, DX, TIMES)
    from kexue_lib.optimization.gradient_flow._densities import _by_exponentials

    torch.testing.assert_close(_by_exponentials(up, down, q0, TIMES), modes, rtol=0, atol=1e-9)


def test_grid_ends_at_the_gibbs_density_of_each_mass():
    V = X**2 / 2 + X.sin()
    q0 = torch.stack([gaussian(2, 0.5), 3 * gaussian(-1, 1.0)])
    gibbs = torch.exp(-V) / (torch.exp(-V).sum() * DX)
    end = gf.fokker_planck_1d(V, q0, DX, TIMES)[-1]
    torch.testing.assert_close(end, gibbs * q0.sum(1, keepdim=True) * DX, rtol=0, atol=1e-8)


def test_grid_converges_to_the_gaussian_flow_with_the_square_of_the_cell():
    errors = []
    for every in (2, 1):
        x, dx = X[::every], every * DX
        q = gf.fokker_planck_1d(x**2 / 2, gaussian(1.5, 0.3)[::every], dx, TIMES[:3])
        mean, cov = gf.gaussian_flow(*(torch.tensor(v).double() for v in ([1.5], [[0.09]], [0.0], [[1.0]])), TIMES[:3])
        exact = stats.norm.pdf(x.numpy(), mean.numpy(), cov[:, 0].sqrt().numpy())
        errors.append(np.abs(q.numpy() - exact)[2].max())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


def test_gaussian_flow_solves_its_equations_for_covariances_that_do_not_commute():
    S = torch.tensor([[2.0, 0.4], [0.4, 0.7]]).double()
    target = torch.tensor([[1.0, -0.5], [-0.5, 1.5]]).double()
    m, aim = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 0.5]).double()
    t = torch.tensor([0.4 - 1e-5, 0.4, 0.4 + 1e-5]).double()
    means, covs = gf.gaussian_flow(m, S, aim, target, t)
    P = torch.linalg.inv(target)
    torch.testing.assert_close((means[2] - means[0]) / (t[2] - t[0]), P @ (aim - means[1]), rtol=1e-6, atol=0)
    slope = 2 * torch.eye(2).double() - P @ covs[1] - covs[1] @ P
    torch.testing.assert_close((covs[2] - covs[0]) / (t[2] - t[0]), slope, rtol=1e-6, atol=1e-9)
    start = gf.gaussian_flow(m, S, aim, target, torch.zeros(1).double())
    torch.testing.assert_close((start[0][0], start[1][0]), (m, S))


def test_free_energy_is_the_divergence_less_the_log_partition():
    V, q = X**2 / 2, gaussian(1.0, 1.0)
    divergence, log_z = 0.5, 0.5 * math.log(2 * math.pi)
    assert gf.free_energy(q, V, DX).item() == pytest.approx(divergence - log_z, abs=1e-5)
    assert gf.free_energy(torch.zeros(2, 3), torch.ones(3), 0.1).tolist() == [0.0, 0.0]


def test_speeds_are_the_second_derivatives_of_their_divergences():
    log_r = torch.linspace(-2, 2, 9).double()
    for kind in F_OF_R:
        np.testing.assert_allclose(gf.fdiv_weight(log_r, kind).numpy(), speed(log_r.numpy(), kind), rtol=1e-8)
    assert gf.fdiv_weight(torch.tensor([-1e4, 1e4]), "js").tolist() == [0.0, 0.5]


@pytest.mark.parametrize("step", [0.05, 0.2, 0.5])
def test_unadjusted_chains_have_the_variance_of_their_recursion_and_adjusted_ones_that_of_the_target(step):
    chains, n_steps = 20_000, int(8 / step)
    x0 = torch.zeros(chains, 1, dtype=torch.float64)
    three_errors = 3 * math.sqrt(2 / chains)
    biased = gf.langevin(log_normal, x0, step=step, n_steps=n_steps, generator=seeded())
    expected = (1 - (1 - step) ** (2 * n_steps)) / (1 - step / 2)
    assert biased.x.var().item() == pytest.approx(expected, rel=three_errors)
    exact = gf.langevin(log_normal, x0, step=step, n_steps=n_steps, method="mala", generator=seeded(1))
    assert exact.x.var().item() == pytest.approx(1.0, rel=three_errors)
    assert stats.kstest(exact.x[:, 0].numpy(), "norm").pvalue > 1e-3
    assert (biased.acceptance == 1).all()
    assert 0.85 < exact.acceptance.mean() < 1


def test_adjusted_chains_sample_a_skewed_density():
    # log-gamma: the exponential of x is Gamma(3); the unadjusted chain misses it at this step
    log_prob = lambda x: (3 * x - x.exp()).sum(-1)
    x0 = torch.zeros(20_000, 1, dtype=torch.float64)
    runs = {
        m: gf.langevin(log_prob, x0, step=0.3, n_steps=80, method=m, generator=seeded(2)).x[:, 0]
        for m in ("ula", "mala")
    }
    assert stats.kstest(runs["mala"].exp().numpy(), "gamma", (3,)).pvalue > 1e-3
    assert stats.kstest(runs["ula"].exp().numpy(), "gamma", (3,)).pvalue < 1e-6


def test_langevin_is_a_loop_of_its_formula_and_stores_every_kth_state():
    x0 = normal(5, 2)
    run = gf.langevin(log_normal, x0, step=0.1, n_steps=7, thin=3, generator=seeded(3))
    generator, x, states = seeded(3), x0, []
    for _ in range(7):
        x = x - 0.1 * x + math.sqrt(0.2) * torch.randn(5, 2, dtype=torch.float64, generator=generator)
        states.append(x)
    torch.testing.assert_close(run.x, states[-1])
    torch.testing.assert_close(run.trace, torch.stack(states[2::3]))
    assert gf.langevin(log_normal, x0, step=0.1, n_steps=7).trace.shape == (0, 5, 2)
    assert not gf.langevin(log_normal, x0.requires_grad_(), step=0.1, n_steps=2).x.requires_grad


@pytest.mark.parametrize("bandwidth", [None, 0.7])
def test_blocks_of_rows_change_nothing(monkeypatch, bandwidth):
    x, score = normal(23, 3), normal(23, 3, seed=1)
    query = normal(9, 3, seed=2)
    monkeypatch.setattr(_kernels, "_BLOCK", 50)
    np.testing.assert_allclose(
        gf.svgd_velocity(x, score, bandwidth=bandwidth).numpy(), stein(x.numpy(), score.numpy(), bandwidth), atol=1e-12
    )
    cloud = x.clone()
    y = query.clone().requires_grad_()
    distances = -((y[:, None] - cloud) ** 2).sum(-1) / (2 * 0.7**2)
    (slope,) = torch.autograd.grad(distances.logsumexp(1).sum(), y)
    torch.testing.assert_close(gf.kde_score(x, 0.7, query=query), slope)


@pytest.mark.parametrize("kind", ["normal", "far outlier", "lattice", "coincident"])
def test_median_in_passes_is_the_median(monkeypatch, kind):
    x = {
        "normal": normal(200, 2),
        "far outlier": torch.cat([normal(199, 2), torch.full((1, 2), 1e6).double()]),
        "lattice": torch.arange(200).double()[:, None] % 7 * torch.ones(2).double(),
        "coincident": torch.ones(200, 2).double(),
    }[kind]
    for gathered in (1 << 23, 300):
        monkeypatch.setattr(_kernels, "_DIRECT", 1)
        monkeypatch.setattr(_kernels, "_GATHERED", gathered)
        centred = x - x.mean(0)
        ours = _kernels.median_bandwidth(centred) * math.log(201)
        pairs = np.array([((x[i] - x[j]) ** 2).sum() for i in range(200) for j in range(i + 1, 200)])
        lower = np.sort(pairs)[(len(pairs) - 1) // 2]
        assert ours.item() == pytest.approx(lower, rel=1e-5, abs=1e-9)


def test_coincident_particles_one_particle_and_far_queries_are_finite():
    one, score = normal(1, 3), normal(1, 3, seed=1)
    assert gf.svgd_velocity(one, score).equal(score)
    same = torch.ones(4, 2)
    torch.testing.assert_close(gf.svgd_velocity(same, same), same)
    far = gf.kde_score(torch.tensor([[0.0], [1.0]]), 0.1, query=torch.tensor([[1e4]]))
    assert far.item() == pytest.approx(-(1e4 - 1) / 0.01, rel=1e-6)


def test_clouds_of_a_batch_move_as_if_alone():
    x, score = normal(3, 2, 6, 2), normal(3, 2, 6, 2, seed=1)
    moves = gf.svgd_velocity(x, score)
    torch.testing.assert_close(moves[2, 1], gf.svgd_velocity(x[2, 1], score[2, 1]))
    run = gf.svgd(log_normal, x, step=0.1, n_steps=5)
    torch.testing.assert_close(run.x[1, 0], gf.svgd(log_normal, x[1, 0], step=0.1, n_steps=5).x)


def test_svgd_is_a_loop_of_its_direction_with_and_without_adagrad():
    x0 = normal(6, 2)
    x, history = x0.numpy().copy(), None
    for _ in range(4):
        move = stein(x, -x, 0.9)
        history = move**2 if history is None else 0.9 * history + 0.1 * move**2
        x += 0.05 * move / (1e-6 + np.sqrt(history))
    ours = gf.svgd(log_normal, x0, step=0.05, n_steps=4, bandwidth=0.9)
    np.testing.assert_allclose(ours.x.numpy(), x, atol=1e-10)
    plain = gf.svgd(log_normal, x0, step=0.05, n_steps=1, bandwidth=0.9, adagrad=False)
    np.testing.assert_allclose(plain.x.numpy(), x0.numpy() + 0.05 * stein(x0.numpy(), -x0.numpy(), 0.9), atol=1e-12)


def test_svgd_of_two_particles_settles_where_attraction_and_repulsion_cancel():
    # symmetric at ±a: attraction a(1 − k) against repulsion 4ak/h, with k = exp(−4a²/h)
    h = 1.5
    run = gf.svgd(
        log_normal, torch.tensor([[0.3], [-0.8]]).double(), step=0.3, n_steps=2000, bandwidth=h, adagrad=False
    )
    a = run.x.abs()
    k = torch.exp(-4 * a**2 / h)
    torch.testing.assert_close(a * (1 - k), 4 * a * k / h, rtol=0, atol=1e-8)


@pytest.mark.parametrize("bandwidth", [0.3, 0.5])
def test_smoothed_cloud_settles_at_the_target_less_its_own_width(bandwidth):
    x0 = torch.from_numpy(stats.norm.ppf((np.arange(400) + 0.5) / 400))[:, None] * 0.5 + 1
    run = gf.particle_flow(log_normal, x0, step=bandwidth**2, n_steps=200, bandwidth=bandwidth)
    assert run.x.mean().abs() < 1e-4
    assert run.x.var().item() == pytest.approx(1 - bandwidth**2, abs=0.01)  # 400 particles


CALLS = {
    "langevin": (lambda **k: gf.langevin(log_normal, **{"x0": normal(3, 2), "step": 0.1, "n_steps": 2, **k})),
    "svgd": (lambda **k: gf.svgd(log_normal, **{"x0": normal(3, 2), "step": 0.1, "n_steps": 2, **k})),
    "flow": (
        lambda **k: gf.particle_flow(
            log_normal, **{"x0": normal(3, 2), "step": 0.1, "n_steps": 2, "bandwidth": 1.0, **k}
        )
    ),
    "grid": (lambda **k: gf.fokker_planck_1d(**{"potential": X, "q0": X.abs(), "dx": DX, "t": TIMES, **k})),
}


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("langevin", {"step": 0.0}, ValueError, "step: got 0.0"),
        ("langevin", {"n_steps": -1}, ValueError, "n_steps: got -1"),
        ("langevin", {"thin": -1}, ValueError, "thin: got -1"),
        ("langevin", {"method": "hmc"}, ValueError, "method: got 'hmc'"),
        ("langevin", {"x0": torch.ones(3, dtype=torch.int)}, TypeError, "x0: got torch.int32"),
        ("svgd", {"x0": torch.ones(3)}, ValueError, "x0: got shape"),
        ("svgd", {"bandwidth": -1.0}, ValueError, "bandwidth: got -1.0"),
        ("flow", {"x0": torch.ones(1, 3, 2)}, ValueError, "x0: got shape"),
        ("flow", {"bandwidth": 0.0}, ValueError, "bandwidth: got 0.0"),
        ("grid", {"potential": X[:-1]}, ValueError, "q0: got shape"),
        ("grid", {"potential": X[None]}, ValueError, "potential: got shape"),
        ("grid", {"potential": 1e5 * X}, ValueError, "potential: got a step so steep"),
        ("grid", {"potential": 600 * X}, ValueError, "potential: got one too steep"),
        ("grid", {"q0": X}, ValueError, "q0: got -6.0"),
        ("grid", {"dx": -1.0}, ValueError, "dx: got -1.0"),
        ("grid", {"t": TIMES.flip(0)}, ValueError, "t: got times"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(name, change, error, message):
    with as_users_call(), pytest.raises(error, match=message):
        CALLS[name](**change)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gf.langevin(lambda x: x, normal(3, 2), step=0.1, n_steps=1), ValueError, "log_prob: value: got shape"),
        (lambda: gf.gaussian_flow(*[normal(2)] * 5), ValueError, "cov: got shape"),
    ],
)
def test_the_rest_refuses_bad_input_too(call, error, message):
    with as_users_call(), pytest.raises(error, match=message):
        call()
    with as_users_call(), pytest.raises(ValueError, match="target_cov: got a matrix"):
        gf.gaussian_flow(normal(1), torch.eye(1).double(), normal(1), -torch.eye(1).double(), TIMES)
