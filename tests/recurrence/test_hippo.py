"""hippo: bases, matrices and projections against quadrature, exact rationals, SciPy's solver and published tables."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from opinfo import as_users_call
from scipy.integrate import quad, solve_ivp
from scipy.linalg import expm
from scipy.special import eval_laguerre, eval_legendre

from kexue_lib.recurrence import hippo

FORMS = ("orthonormal", "hippo", "lmu")


def signal(t):
    module = torch if isinstance(t, torch.Tensor) else np
    return module.sin(3 * t) + 0.4 * module.cos(11 * t + 1)


def lmu_tables(measure, N):
    """The form without roots, entry by entry, in integers."""
    below = lambda n, k: 2 * n + 1
    if measure == "legs":
        A = [[-(below(n, k) if k < n else n + 1 if k == n else 0) for k in range(N)] for n in range(N)]
    else:
        A = [[-(2 * n + 1) * (1 if k < n else (-1) ** (n - k)) for k in range(N)] for n in range(N)]
    return A, [2 * n + 1 for n in range(N)]


def monomials(N):
    """Coefficients of P_0 … P_{N-1} in powers of s, exact."""
    rows = [[Fraction(1)], [Fraction(0), Fraction(1)]]
    for n in range(1, N):
        up = [Fraction(0), *rows[n]]
        rows.append([(Fraction(2 * n + 1) * a - n * b) / (n + 1) for a, b in zip(up, [*rows[n - 1], 0, 0])])
    return rows[:N]


def integral(p, q):
    """∫pq over [-1, 1] of two polynomials in powers of s."""
    return sum(2 * a * b / (i + j + 1) for i, a in enumerate(p) for j, b in enumerate(q) if (i + j) % 2 == 0)


def derivative(p):
    return [i * a for i, a in enumerate(p)][1:] or [Fraction(0)]


@pytest.mark.parametrize("measure", ["legt", "legs"])
def test_entries_are_inner_products_of_exact_polynomials(measure):
    N, P = 9, monomials(9)
    A, B = (x.numpy() for x in hippo.hippo_matrices(measure, N, scaling="lmu"))
    for n in range(N):
        assert B[n] == (2 * n + 1) * sum(P[n])  # (2n+1) P_n(1)
        for k in range(N):
            slope = derivative(P[n])
            if measure == "legs":  # -(δ + coefficient of P_k in (s + 1) P_n'), carried to c̃ = (2n+1)/2 ∫uP_n
                moved = [a + b for a, b in zip([*slope, 0], [0, *slope])]
                entry = -(n == k) - integral(moved, P[k]) * Fraction(2 * n + 1, 2)
            else:  # what is inside of the window, and what leaves it, u(T - w) = Σ c̃_k (-1)^k
                entry = -(2 * n + 1) * (integral(slope, P[k]) + (-1) ** (n + k))
            assert A[n, k] == entry


@pytest.mark.parametrize("measure", ["legt", "legs"])
@pytest.mark.parametrize("N", [1, 2, 7])
def test_forms_differ_by_the_scale_of_the_coefficients(measure, N):
    tables = [torch.tensor(x, dtype=torch.float64) for x in lmu_tables(measure, N)]
    for form in FORMS:
        A, B = hippo.hippo_matrices(measure, N, scaling=form)
        scale = hippo.coefficient_scale(measure, N, form) / hippo.coefficient_scale(measure, N, "lmu")
        torch.testing.assert_close(A * scale[:, None] / scale, tables[0], rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(B * scale, tables[1], rtol=1e-14, atol=0)


def test_legendre_memory_unit_is_legt_with_time_reversed():
    N, theta = 8, 2.5
    printed = [[(2 * i + 1) / theta * (-1 if i < j else (-1) ** (i - j + 1)) for j in range(N)] for i in range(N)]
    sign = (-1.0) ** torch.arange(N)
    A, B = hippo.hippo_matrices("legt", N, window=theta, scaling="lmu")
    torch.testing.assert_close(sign[:, None] * A * sign, torch.tensor(printed, dtype=torch.float64))
    torch.testing.assert_close(sign * B, torch.tensor([(2 * i + 1) * (-1) ** i / theta for i in range(N)]).double())


def test_window_transfer_is_the_pade_approximant_of_a_delay():
    """With N coefficients Σ(-1)^k c̃_k follows u(T - w) through the [N-1/N] Padé approximant of exp(-sw)."""
    from scipy.interpolate import pade

    N = 5
    A, B = (x.numpy() for x in hippo.hippo_matrices("legt", N, scaling="lmu"))
    p, q = pade([(-1.0) ** k / math.factorial(k) for k in range(2 * N)], N, N - 1)
    for z in (0.3, 1.0 + 2.0j, -0.5 + 7.0j):
        response = ((-1.0) ** np.arange(N)) @ np.linalg.solve(z * np.eye(N) - A, B)
        assert abs(response - p(z) / q(z)) < 1e-9


@pytest.mark.parametrize("N", [64, 256])
def test_legendre_basis_agrees_with_scipy(N):
    s = torch.linspace(-1, 1, 401, dtype=torch.float64)
    expected = np.stack([math.sqrt(n + 0.5) * eval_legendre(n, s.numpy()) for n in range(N)], -1)
    assert np.abs(hippo.legendre_basis(N, s).numpy() - expected).max() < 1e-11
    single = hippo.legendre_basis(N, s.float())
    expected = np.stack([math.sqrt(n + 0.5) * eval_legendre(n, s.float().double().numpy()) for n in range(N)], -1)
    assert single.dtype == torch.float32
    assert np.abs(single.numpy() - expected).max() < 2**-23 * math.sqrt(N)


def test_laguerre_functions_survive_where_polynomial_and_weight_do_not():
    from mpmath import exp, laguerre, mp

    mp.dps = 60
    s, degrees = [0.5, 300.0, 1500.0, 3900.0], (0, 1, 500, 999)
    expected = [[float(laguerre(n, 0, x) * exp(-x / 2)) for n in degrees] for x in s]
    ours = hippo.laguerre_basis(1000, torch.tensor(s, dtype=torch.float64))[:, degrees].numpy()
    assert np.abs(np.array(expected)[3, -1]) > 1e-3  # exp(-3900/2) alone is 0 in float64
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("measure", ["legt", "legs", "lagt", "fout"])
def test_projection_agrees_with_adaptive_quadrature(measure):
    T, w, N = 2.0, 0.7, 6
    c = hippo.project(signal, measure, N, T, window=w).numpy()
    for n in range(N):
        if measure == "lagt":
            kernel = lambda s, n=n: signal(T - w * s) * eval_laguerre(n, s) * math.exp(-s)
            expected = quad(kernel, 0, 60, limit=400, epsabs=1e-11)[0]
        elif measure == "fout":
            turn = lambda f, s, n=n: signal(T - w + w * s) * f(2 * math.pi * n * s)
            real, imaginary = (
                quad(lambda s, f=f, turn=turn: turn(f, s), 0, 1, epsabs=1e-12)[0] for f in (math.cos, math.sin)
            )
            assert abs(c[N + n] - (real - 1j * imaginary)) < 1e-10
            continue
        else:
            tau = (lambda s: (s + 1) * T / 2) if measure == "legs" else (lambda s: T - w + w * (s + 1) / 2)
            g = lambda s, n=n: math.sqrt(n + 0.5) * eval_legendre(n, s)
            expected = quad(lambda s, g=g, tau=tau: signal(tau(s)) * g(s), -1, 1, epsabs=1e-12)[0]
        assert abs(c[n] - expected) < 1e-9


def slope(measure, N, T, h=1e-3, **options):
    """dc/dT by the difference quotient of order four."""
    c = lambda shift: hippo.project(signal, measure, N, T + shift * h, order=600, **options)
    return (8 * (c(1) - c(-1)) - (c(2) - c(-2))) / (12 * h)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("N", [1, 5, 12])
def test_legs_holds_for_every_signal_without_a_closure(N, form):
    T = 2.0
    A, B = hippo.hippo_matrices("legs", N, scaling=form)
    c = hippo.project(signal, "legs", N, T, scaling=form)
    rate = (A @ c + B * signal(np.float64(T))) / T
    torch.testing.assert_close(slope("legs", N, T, scaling=form), rate, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("N", [1, 5, 12])
def test_lagt_holds_for_every_signal_without_a_closure(N):
    T, w = 2.0, 0.7
    A, B = hippo.hippo_matrices("lagt", N, window=w)
    c = hippo.project(signal, "lagt", N, T, window=w, order=600)
    torch.testing.assert_close(slope("lagt", N, T, window=w), A @ c + B * signal(np.float64(T)), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_legt_is_exact_for_polynomials_below_degree_n_and_not_at_it(form):
    N, T, w = 6, 2.0, 0.7
    A, B = hippo.hippo_matrices("legt", N, window=w, scaling=form)

    def gap(degree):
        u = lambda t: (t - 1.5) ** degree
        c = lambda T: hippo.project(u, "legt", N, T, window=w, scaling=form)
        h = 1e-2
        rate = (8 * (c(T + h) - c(T - h)) - (c(T + 2 * h) - c(T - 2 * h))) / (12 * h)
        return (rate - A @ c(T) - B * u(T)).abs().max().item()

    assert max(gap(degree) for degree in range(1, N)) < 1e-7
    assert gap(N) > 1e-4


def test_fourier_coefficients_and_the_two_closures():
    N, T, w = 6, 2.0, 0.7
    c = hippo.project(signal, "fout", N, T, window=w)
    gone, here = signal(np.float64(T - w)), signal(np.float64(T))
    n = torch.arange(-N, N + 1, dtype=torch.float64)
    exact = (here - gone) / w + 2j * math.pi * n / w * c
    torch.testing.assert_close(slope("fout", N, T, 2e-4, window=w), exact, rtol=1e-8, atol=1e-8)
    for boundary, value in (("series", c.sum()), ("jump", 2 * c.sum() - here)):
        A, B = hippo.fourier_window_matrices(N, window=w, boundary=boundary)
        torch.testing.assert_close(A @ c + B * here, exact + (gone - value) / w)


@pytest.mark.parametrize("boundary", ["jump", "series"])
def test_shares_of_successive_windows(boundary):
    """The jump closure keeps one window, the series closure a third of each window before."""
    N = 128
    A, B = (x.numpy() for x in hippo.fourier_window_matrices(N, boundary=boundary))
    window, x, shares = expm(A), None, []
    whole = np.linalg.solve(A, (window - np.eye(2 * N + 1)) @ B)[N].real  # ∫ of c_0's kernel over the last window
    x = np.linalg.solve(A, (window - np.eye(2 * N + 1)) @ B)
    for _ in range(4):
        shares.append(x[N].real)
        x = window @ x
    expected = [1, 0, 0, 0] if boundary == "jump" else [2 / 3 * 3.0**-j for j in range(4)]
    assert whole == shares[0]
    np.testing.assert_allclose(shares, expected, atol=2e-3)


def test_solved_system_is_the_projection():
    N, w, end = 24, 1.0, 3.0
    A, B = (x.numpy() for x in hippo.hippo_matrices("legt", N, window=w))
    u = lambda t: np.sin(3 * t) ** 3 * (t > 0)
    x = solve_ivp(lambda t, x: A @ x + B * u(t), (0, end), np.zeros(N), method="Radau", rtol=1e-10, atol=1e-12).y[:, -1]
    c = hippo.project(lambda t: torch.sin(3 * t) ** 3, "legt", N, end, window=w)
    assert np.abs(x - c.numpy()).max() < 1e-8


def test_legs_kernels_are_warped_legendre_polynomials():
    A, B = (x.numpy() for x in hippo.hippo_matrices("legs", 12, scaling="hippo"))
    for t in (0.1, 0.7, 2.0):
        ours = expm(t * A) @ B
        theirs = [math.sqrt(2 * n + 1) * eval_legendre(n, 2 * math.exp(-t) - 1) * math.exp(-t) for n in range(12)]
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("measure", ["legt", "legs", "lagt", "fout"])
@pytest.mark.parametrize("scaling", FORMS)
def test_reconstruction_returns_what_the_basis_can_hold(measure, scaling):
    if scaling != "orthonormal" and measure in ("lagt", "fout"):
        pytest.skip("one scaling only")
    T, w = 3.0, 0.8
    u = (lambda t: 1 + torch.cos(4 * math.pi * t / w)) if measure == "fout" else (lambda t: t**3 - 2 * t + 1)
    c = hippo.project(u, measure, 5, torch.tensor([2.0, T], dtype=torch.float64), window=w, scaling=scaling)
    t = torch.linspace(2.3, 3.0, 7, dtype=torch.float64)
    assert c.shape == (2, 11 if measure == "fout" else 5)
    back = hippo.reconstruct(c, measure, T, t, window=w, scaling=scaling)[1]
    torch.testing.assert_close(back, u(t), rtol=1e-9, atol=1e-9)


def test_residual_is_orthogonal_to_the_basis_and_no_other_state_is_nearer():
    N, T = 7, 2.0
    c = hippo.project(signal, "legs", N, T)
    generator = torch.Generator().manual_seed(0)

    s, weight = np.polynomial.legendre.leggauss(120)
    times = torch.tensor((s + 1) * T / 2)

    def square_error(c):
        return (weight * (signal(times) - hippo.reconstruct(c, "legs", T, times)).numpy() ** 2).sum()

    least = square_error(c)
    for _ in range(3):
        step = 0.1 * torch.randn(N, generator=generator, dtype=torch.float64)
        assert abs(square_error(c + step) - least - step.square().sum().item()) < 1e-9


def test_staircase_is_integrated_exactly_with_a_piece_for_each_sample():
    samples = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = lambda t: samples[(t.clamp(0, 49.999)).long()]
    N = 12
    c = hippo.project(u, "legs", N, 50.0, pieces=50).numpy()
    edges = np.linspace(-1, 1, 51)
    for n in range(N):  # ∫P_n = (P_{n+1} - P_{n-1}) / (2n+1)
        before = eval_legendre(n - 1, edges) if n else -np.ones_like(edges)
        primitive = (eval_legendre(n + 1, edges) - before) / (2 * n + 1)
        assert abs(c[n] - math.sqrt(n + 0.5) * (samples.numpy() * np.diff(primitive)).sum()) < 1e-12


def test_float32_state_of_256_coefficients_keeps_seven_digits():
    N, T = 256, 4.0
    c = hippo.project(signal, "legs", N, T)
    t = torch.linspace(0, T, 1001, dtype=torch.float64)
    single = hippo.reconstruct(c.float(), "legs", T, t)
    assert single.dtype == torch.float32
    assert (single.double() - signal(t)).abs().max() < 3e-6
    A, B = hippo.hippo_matrices("legt", N, dtype=torch.float32)
    wide = hippo.hippo_matrices("legt", N)[0]
    assert ((A.double() - wide).abs() <= 2**-24 * wide.abs()).all()
    assert B.dtype == torch.float32


def test_projection_is_differentiable_in_the_signal():
    knots = torch.randn(4, dtype=torch.float64, requires_grad=True)

    def coefficients(a):
        return hippo.project(lambda t: a[0] + a[1] * t + a[2] * t.sin() + a[3] * t**2, "legs", 5, 2.0)

    assert torch.autograd.gradcheck(coefficients, (knots,))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hippo.hippo_matrices("chebt", 4), ValueError, "measure: got 'chebt', expected 'legt', 'legs' or"),
        (lambda: hippo.hippo_matrices("legs", 0), ValueError, "N: got 0"),
        (lambda: hippo.hippo_matrices("legs", 4.0), TypeError, "N: got 4.0"),
        (lambda: hippo.hippo_matrices("legt", 4, window=0.0), ValueError, "window: got 0.0"),
        (lambda: hippo.hippo_matrices("legt", 4, scaling="unit"), ValueError, "scaling: got 'unit'"),
        (lambda: hippo.hippo_matrices("lagt", 4, scaling="lmu"), ValueError, "scaling: got 'lmu'"),
        (lambda: hippo.coefficient_scale("fout", 4, "lmu"), ValueError, "measure: got 'fout'"),
        (lambda: hippo.fourier_window_matrices(4, boundary="mean"), ValueError, "boundary: got 'mean'"),
        (lambda: hippo.fourier_window_matrices(4, dtype=torch.float64), TypeError, "dtype: got torch.float64"),
        (lambda: hippo.project(signal, "legs", 4, 0.0), ValueError, "T: got 0.0"),
        (lambda: hippo.project(signal, "legs", 4, 1.0, order=3), ValueError, "order: got 3, expected at least 4"),
        (lambda: hippo.project(signal, "legs", 4, 1.0, pieces=0), ValueError, "pieces: got 0"),
        (lambda: hippo.project(3.0, "legs", 4, 1.0), TypeError, "u: got float"),
        (lambda: hippo.project(lambda t: t * 1j, "legs", 4, 1.0), TypeError, "u(t): got torch.complex128"),
        (lambda: hippo.project(lambda t: t[:3], "legs", 4, 1.0), ValueError, "u(t): got shape (3,)"),
        (lambda: hippo.project(signal, "fout", 4, 1.0, scaling="lmu"), ValueError, "scaling: got 'lmu'"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, message):
    with as_users_call(), pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
