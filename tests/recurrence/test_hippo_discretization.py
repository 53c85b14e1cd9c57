"""hippo_discretization against SciPy, solved differential equations, exact integrals and 60 digits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from opinfo import as_users_call
from ops_hippo_discretization import by_scipy, legs, loop, staircase
from scipy.integrate import quad, solve_ivp
from scipy.linalg import expm
from torch import Tensor

from kexue_lib.recurrence import hippo_discretization as hd
from kexue_lib.recurrence.hippo import legendre_basis, project

METHODS = ("forward", "backward", "bilinear", "bilinear_article", "zoh")
KEEP_CONSTANTS = ("forward", "backward", "bilinear", "zoh")


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- discretize


@pytest.mark.parametrize("method", ["forward", "backward", "bilinear", "gbt", "zoh"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_agrees_with_scipy_whose_alpha_weighs_the_end_of_the_step(method, alpha):
    for seed, dt in ((0, 0.01), (1, 0.7)):
        A, B = noise(5, 5, seed=seed), noise(5, seed=seed + 2)
        Ad, Bd = hd.discretize(A, B, dt, method, alpha=alpha)
        expected = by_scipy(A.numpy(), B.numpy(), dt, method, alpha)
        np.testing.assert_allclose(Ad, expected[:, :-1], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(Bd, expected[:, -1], rtol=1e-10, atol=1e-12)


def test_held_input_is_solved_exactly_also_where_the_matrix_is_singular():
    A = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).double()  # position and velocity under a force
    Ad, Bd = hd.discretize(A, torch.tensor([0.0, 1.0]).double(), 0.3, "zoh")
    np.testing.assert_allclose(Ad, [[1, 0.3], [0, 1]], atol=1e-15)
    np.testing.assert_allclose(Bd, [0.3**2 / 2, 0.3], atol=1e-15)


@pytest.mark.parametrize(("method", "order"), [("forward", 2), ("backward", 2), ("bilinear", 3)])
def test_local_error_has_the_leading_term_of_the_series(method, order):
    A, B = noise(4, 4), noise(4, seed=1)
    factor = {"forward": -1 / 2, "backward": 1 / 2, "bilinear": 1 / 12}[method]
    for dt in (1e-3, 5e-4):
        gap = hd.discretize(A, B, dt, method)[0].numpy() - expm(dt * A.numpy())
        leading = factor * np.linalg.matrix_power(dt * A.numpy(), order)
        assert np.abs(gap - leading).max() < 20 * dt * np.abs(leading).max()


def test_batches_of_systems_and_steps_broadcast():
    A, B, dt = noise(3, 1, 4, 4), noise(2, 4, seed=1), torch.tensor([0.1, 0.4]).double()
    for method in ("forward", "bilinear", "zoh"):
        Ad, Bd = hd.discretize(A, B, dt, method)
        assert (Ad.shape, Bd.shape) == ((3, 2, 4, 4), (3, 2, 4))
        one = hd.discretize(A[2, 0], B[1], 0.4, method)
        torch.testing.assert_close((Ad[2, 1], Bd[2, 1]), one)


def test_complex_diagonal_system():
    rate = torch.tensor([-0.5 + 3j, -1.0 - 2j], dtype=torch.complex64)
    Ad, Bd = hd.discretize(torch.diag(rate), torch.ones(2), 0.2, "zoh")
    expected = np.exp(0.2 * rate.numpy().astype(complex))
    assert Ad.dtype == Bd.dtype == torch.complex64
    np.testing.assert_allclose(torch.diagonal(Ad), expected, rtol=1e-6)
    np.testing.assert_allclose(Bd, (expected - 1) / rate.numpy(), rtol=1e-6)


def test_float32_exponential_keeps_its_digits_at_every_norm():
    for size in (0.3, 0.5, 0.57, 2.9, 5.0):
        A, B = torch.tensor([[-size]]), torch.tensor([size])
        Ad, Bd = hd.discretize(A, B, 1.0, "zoh")
        assert abs(Ad.item() / math.exp(-A[0, 0].abs().item()) - 1) < 3e-7
        assert abs(Bd.item() / -math.expm1(-A[0, 0].abs().item()) - 1) < 3e-7


def test_gradient_with_respect_to_system_and_step():
    args = (noise(2, 3, 3), noise(2, 3, seed=1), torch.tensor([0.2, 0.5]).double())
    for method in ("forward", "backward", "bilinear", "zoh"):
        assert torch.autograd.gradcheck(
            lambda *a, m=method: hd.discretize(*a, m), tuple(x.requires_grad_() for x in args)
        )


# --- the LegS matrix


@pytest.mark.parametrize("N", [1, 2, 33, 256])
def test_product_and_solve_by_sums_agree_with_dense_algebra(N):
    A, _ = legs(N)
    v = noise(4, N)
    lam = torch.tensor([0.0, 1e-4, 0.5, 300.0]).double()
    expected = v.numpy() @ A.T
    np.testing.assert_allclose(hd.legs_matvec(v), expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    for x, rate, z in zip(v.numpy(), lam.numpy(), hd.legs_solve(v, lam).numpy()):
        np.testing.assert_allclose((np.eye(N) - rate * A) @ z, x, atol=1e-11 * (1 + rate * N))


def test_product_and_solve_take_complex_vectors():
    v = torch.complex(noise(5), noise(5, seed=1))
    for function in (hd.legs_matvec, lambda x: hd.legs_solve(x, 0.3)):
        both = torch.complex(function(v.real.clone()), function(v.imag.clone()))
        torch.testing.assert_close(function(v), both)


def test_transition_in_sixty_digits():
    import mpmath

    with mpmath.workdps(60):
        N, r = 24, mpmath.mpf(5) / 4
        root = [mpmath.sqrt(2 * n + 1) for n in range(N)]
        entry = lambda n, k: -root[n] * root[k] if k < n else -mpmath.mpf(n + 1) * (k == n)
        A = mpmath.matrix([[entry(n, k) for k in range(N)] for n in range(N)])
        exact = mpmath.expm(A * mpmath.log(r))
        expected = np.array(exact.tolist(), dtype=float)
    np.testing.assert_allclose(hd.legs_transition(N, 1.25), expected, atol=1e-14)


def test_transition_is_the_integral_and_a_semigroup():
    r, N = 1.7, 5
    R = hd.legs_transition(N, r)
    one = lambda s: legendre_basis(N, torch.tensor([s], dtype=torch.float64))[0].numpy()
    for n in range(N):
        for k in range(N):
            value = quad(lambda s, n=n, k=k: one((s + 1) / r - 1)[n] * one(s)[k] / r, -1, 1)[0]
            assert abs(R[n, k].item() - value) < 1e-12
    torch.testing.assert_close(R @ hd.legs_transition(N, 3.0), hd.legs_transition(N, 5.1))
    torch.testing.assert_close(hd.legs_transition(N, 1.0), torch.eye(N).double())


@pytest.mark.parametrize("N", [1, 16, 128])
def test_norm_of_the_transition_obeys_its_bound(N):
    r = torch.tensor([1.001, 1.5, 10.0, 1e3]).double()
    norms = torch.linalg.matrix_norm(hd.legs_transition(N, r), 2)
    assert (norms <= r**-0.5 * (1 + 1e-12)).all()


# --- streams


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("N", [1, 6, 40])
def test_scan_is_the_loop_with_full_matrices(method, N):
    u = noise(3, 25)
    x = hd.legs_scan(u, N, method=method)
    for row, ours in zip(u.numpy(), x.numpy()):
        expected = staircase(row, N) if method == "zoh" else loop(row, N, method)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12 * max(1, np.abs(expected).max()))
    torch.testing.assert_close(hd.legs_scan(u, N, method=method, return_all=False), x[:, -1])


def test_scan_above_the_dense_sizes_and_its_gradient():
    N, u = 1100, noise(5)
    for method in ("forward", "bilinear"):
        x = hd.legs_scan(u.clone().requires_grad_(), N, method=method)
        expected = loop(u.numpy(), N, method)
        np.testing.assert_allclose(x.detach(), expected, rtol=0, atol=1e-11 * np.abs(expected).max())
        weights = noise(5, N, seed=1)
        w = noise(5, seed=2).requires_grad_()
        (slope,) = torch.autograd.grad((hd.legs_scan(w, N, method=method) * weights).sum(), w)
        value = (hd.legs_scan(u, N, method=method) * weights).sum()
        torch.testing.assert_close(slope @ u, value)  # the map is linear


def test_held_samples_are_solved_exactly():
    u, N = noise(6).numpy(), 7
    A, B = legs(N)
    x = math.sqrt(2) * u[0] * np.eye(N)[0]
    for k in range(1, 6):
        rhs = lambda t, x, k=k: (A @ x + B * u[k]) / t
        x = solve_ivp(rhs, (k, k + 1), x, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    np.testing.assert_allclose(hd.legs_scan(torch.tensor(u), N, method="zoh")[-1], x, atol=1e-10)


def test_staircase_is_the_projection_by_quadrature_at_every_count():
    u, N = noise(2, 40), 12
    at = torch.tensor([1, 2, 17, 40])
    x = hd.legs_project_staircase(u, N, at)
    for K, ours in zip(at.tolist(), x.movedim(-2, 0)):
        held = lambda t, K=K: u[0][t.clamp(max=K - 1e-9).long()]
        torch.testing.assert_close(ours[0], project(held, "legs", N, float(K), pieces=K))
    torch.testing.assert_close(hd.legs_project_staircase(u, N), x[:, -1:])
    torch.testing.assert_close(hd.legs_project_staircase(u, N, [9, 9]), hd.legs_scan(u, N, method="zoh")[:, [8, 8]])


def test_staircase_longer_than_a_block():
    u, N = noise(10_000), 9
    exact = project(lambda t: u[t.clamp(max=1e4 - 1e-9).long()], "legs", N, 1e4, pieces=10_000, order=9)
    # Both add 10 000 terms of size up to 1, in an order that the processor chooses: 1e4 · 2e-16 at most.
    torch.testing.assert_close(hd.legs_project_staircase(u, N)[0], exact, rtol=0, atol=2e-12)


@pytest.mark.parametrize("method", METHODS)
def test_which_schemes_keep_a_constant(method):
    x = hd.legs_scan(torch.full((50,), 3.0).double(), 6, method=method)
    constant = torch.eye(6)[0].double() * 3 * math.sqrt(2)
    gap = (x - constant).abs().max()
    if method in KEEP_CONSTANTS:
        assert gap == 0
    else:
        assert gap > 1e-2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scaling", ["hippo", "lmu"])
def test_scalings_and_complex_samples(method, scaling):
    u = torch.complex(noise(9), noise(9, seed=1))
    x = hd.legs_scan(u, 4, method=method, scaling=scaling)
    scale = torch.tensor([math.sqrt(2) if scaling == "hippo" else math.sqrt(2 / (2 * n + 1)) for n in range(4)])
    for part in ("real", "imag"):
        plain = hd.legs_scan(getattr(u, part).clone(), 4, method=method)
        torch.testing.assert_close(getattr(x, part) * scale, plain, rtol=1e-6, atol=1e-7)
    staircase_state = hd.legs_project_staircase(u, 4, scaling=scaling)[0]
    torch.testing.assert_close(staircase_state, hd.legs_scan(u, 4, method="zoh", scaling=scaling)[-1])


def test_forward_step_grows_by_binomial_coefficients_and_the_others_do_not():
    N, K = 40, 20
    u = torch.zeros(K).double()
    u[1] = 1.0
    top = hd.legs_scan(u, N, method="forward")[-1, -1].abs().item()
    assert top > math.comb(N - 1, K - 1) / N  # the last mode's eigenvalue is -N
    for method in ("backward", "bilinear", "zoh"):
        assert hd.legs_scan(u, N, method=method).abs().max() < 10


def test_trapezoid_enlarges_states_and_backward_and_exact_steps_do_not():
    """Products of the steps 1 … k, column by column: the change of the state by a unit of each coefficient of x_1."""
    N = 64
    A, _ = legs(N)
    eye, norms = np.eye(N), {}
    for method in ("bilinear", "backward"):
        product = eye
        for k in range(1, 41):
            if method == "bilinear":
                product = np.linalg.solve(eye - A / (2 * (k + 1)), product + A @ product / (2 * k))
            else:
                product = np.linalg.solve(eye - A / (k + 1), product)
        u = np.zeros(41)
        u[0] = 1.0  # x_1 = √2 e_0 is the product's first column, the sample after it is 0
        ours = hd.legs_scan(torch.tensor(u), N, method=method, return_all=False)
        np.testing.assert_allclose(ours, math.sqrt(2) * product[:, 0], rtol=0, atol=1e-11)
        norms[method] = np.linalg.norm(product, 2)
    assert 35 < norms["bilinear"] < 41  # the docstring's 39
    assert norms["backward"] < 1


def test_no_samples_and_a_batch_of_none():
    assert hd.legs_scan(torch.zeros(2, 0), 3).shape == (2, 0, 3)
    assert hd.legs_scan(torch.zeros(0, 5), 3).shape == (0, 5, 3)
    assert hd.legs_scan(torch.zeros(0, 5), 3, return_all=False).shape == (0, 3)
    assert hd.legs_project_staircase(torch.zeros(2, 5), 3, []).shape == (2, 0, 3)


def test_float32_stream_keeps_its_digits():
    u = noise(2, 3000, dtype=torch.float32)
    for method in ("bilinear", "zoh"):
        x = hd.legs_scan(u, 32, method=method)
        assert x.dtype == torch.float32
        torch.testing.assert_close(x.double(), hd.legs_scan(u.double(), 32, method=method), rtol=1e-6, atol=1e-7)


# --- Fourier


@pytest.mark.parametrize("N", [1, 5, 64])
def test_fourier_eigenvalues_lie_on_one_line(N):
    A, _ = hd.fourier_scaled_matrices(N)
    values = np.linalg.eigvals(A.numpy())
    assert np.abs(values.real + 1).max() < 1e-11
    assert np.abs(np.sort(values.imag) + np.sort(-values.imag)[::-1]).max() < 1e-9


def test_fourier_system_loses_energy_as_legs_does():
    A = hd.fourier_scaled_matrices(64)[0].numpy()
    np.testing.assert_allclose(A + A.conj().T, -np.eye(129) - 1, atol=1e-13)
    for r in (1.5, 10.0):
        assert abs(np.linalg.norm(expm(A * math.log(r)), 2) * math.sqrt(r) - 1) < 1e-9  # attained, not only obeyed


def test_fourier_matrices_are_those_of_the_derivative_for_signals_of_few_frequencies():
    """T c_n' = u(T) - c_n + 2πin ∫ u s e^{-2πins} ds, for signals whose frequencies are at most N."""
    N = 4
    A, B = (x.numpy() for x in hd.fourier_scaled_matrices(N))
    n = np.arange(-N, N + 1)
    s, weight = np.polynomial.legendre.leggauss(80)
    s, weight = (s + 1) / 2, weight / 2
    waves = np.exp(-2j * np.pi * np.outer(n, s))
    for m in n:
        u = np.exp(2j * np.pi * m * s)
        c = waves @ (weight * u)
        right = 1 - c + 2j * np.pi * n * (waves @ (weight * s * u))
        np.testing.assert_allclose(A @ c + B, right, atol=1e-12)


# --- bad input

SQUARE, VECTOR = torch.eye(3).double(), torch.ones(3).double()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hd.fourier_scaled_matrices(0), ValueError, "N: got 0"),
        (lambda: hd.fourier_scaled_matrices(2, dtype=torch.float64), TypeError, "dtype: got torch.float64"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, message):
    with as_users_call(), pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
