"""The density and its coefficients, against quadrature, closed forms and NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from distributions.fourier_density.random_densities import RAISED_COSINE, normal, uniform
from opinfo import as_users_call
from scipy import integrate, stats

from kexue_lib.distributions.fourier_density import (
    FourierDensity,
    autocorrelation,
    periodic_cdf,
    periodic_icdf,
    periodic_log_prob,
    periodic_prob,
    spectral_factor,
)

# -- the density on [−1, 1] --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5, 40])
def test_any_coefficients_give_a_density(n: int):
    a = normal(n + 1)
    p = lambda x: periodic_prob(a, torch.tensor([x], dtype=torch.float64)).item()
    assert integrate.quad(p, -1, 1, limit=500, epsabs=1e-12)[0] == pytest.approx(1, abs=1e-11)
    assert (periodic_prob(a, torch.linspace(-1, 1, 5001, dtype=torch.float64)) >= 0).all()


@pytest.mark.parametrize("n", [0, 1, 7, 40, 127])
def test_autocorrelation_is_that_of_numpy(n: int):
    a = normal(n + 1)
    expected = np.correlate(a.numpy(), a.numpy(), "full")[: n + 1][::-1].copy()
    torch.testing.assert_close(autocorrelation(a), torch.from_numpy(expected))


def test_toeplitz_matrix_of_the_autocorrelation_is_positive_semi_definite():
    c = autocorrelation(normal(9))
    index = torch.arange(9)
    gap = index[:, None] - index
    toeplitz = torch.where(gap >= 0, c[gap.abs()], c[gap.abs()].conj())
    assert torch.linalg.eigvalsh(toeplitz).min() > -1e-12


def test_characteristic_function_is_the_autocorrelation():
    a, n = normal(6), 4
    c = autocorrelation(a)
    x = torch.arange(64, dtype=torch.float64) / 32 - 1
    mean = (periodic_prob(a, x) * torch.exp(-1j * math.pi * n * x)).sum() / 32  # exact for polynomials
    torch.testing.assert_close(mean, c[n] / c[0])


def test_raised_cosine_in_closed_form():
    x = torch.linspace(-1, 1, 201, dtype=torch.float64)
    expected = torch.from_numpy(stats.cosine.pdf(math.pi * x.numpy()) * math.pi)
    torch.testing.assert_close(periodic_prob(RAISED_COSINE, x), expected)
    expected = torch.from_numpy(stats.cosine.cdf(math.pi * x.numpy()))
    torch.testing.assert_close(periodic_cdf(RAISED_COSINE, x), expected, rtol=0, atol=1e-14)


def test_no_frequencies_is_uniform():
    a, x = normal(1), torch.linspace(-1, 1, 9, dtype=torch.float64)
    torch.testing.assert_close(periodic_prob(a, x), torch.full_like(x, 0.5))
    torch.testing.assert_close(periodic_cdf(a, x), (x + 1) / 2)
    torch.testing.assert_close(periodic_icdf(a, (x + 1) / 2), x)


@pytest.mark.parametrize("n", [3, 30])
def test_peak_of_the_fejer_kernel_is_the_largest_possible(n: int):
    a = torch.exp(1j * math.pi * torch.arange(n + 1) * 0.3).to(torch.complex128)
    assert periodic_prob(a, torch.tensor([0.3], dtype=torch.float64)).item() == pytest.approx((n + 1) / 2, rel=1e-6)
    assert periodic_prob(normal(50, n + 1), uniform(50, 100)).max() < (n + 1) / 2


def test_log_prob_does_not_depend_on_the_scale_or_phase_of_the_coefficients():
    a, x = normal(5), uniform(7)
    for factor in (1e-170, 1e150, 3j):
        torch.testing.assert_close(periodic_log_prob(factor * a, x), periodic_log_prob(a, x))
    small = (1e-25 * a).to(torch.complex64)
    torch.testing.assert_close(
        periodic_log_prob(small, x.float()), periodic_log_prob(a, x).float(), rtol=1e-4, atol=1e-5
    )


def test_log_prob_is_minus_infinity_exactly_at_zeros():
    a = torch.tensor([1.0, -1.0], dtype=torch.float64, requires_grad=True)
    out = periodic_log_prob(a, torch.tensor([0.0, 1e-8], dtype=torch.float64))
    assert out[0] == -torch.inf
    assert out[1].isfinite()
    assert torch.autograd.grad(out[1], a)[0].isfinite().all()


# -- spectral factorisation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 5, 20])
def test_spectral_factor_recovers_positive_polynomials(n: int):
    m = 64 * n
    x = torch.arange(m, dtype=torch.float64) * (2 / m) - 1
    p = periodic_prob(normal(3, n + 1, seed=n), x.expand(3, m)) + 0.05
    a = spectral_factor(p, n)
    ratio = periodic_prob(a, x.expand(3, m)) * p.sum(-1, keepdim=True) * (2 / m)
    torch.testing.assert_close(ratio, p, rtol=1e-8, atol=1e-8)


def test_spectral_factor_of_one_cosine_in_closed_form():
    m, c0, c1 = 256, 2.0, 0.7
    x = torch.arange(m, dtype=torch.float64) * (2 / m) - 1
    a = spectral_factor(c0 + 2 * c1 * torch.cos(math.pi * x), 1).real
    root, other = math.sqrt(c0 + 2 * c1) / 2, math.sqrt(c0 - 2 * c1) / 2
    torch.testing.assert_close(a, torch.tensor([root + other, root - other], dtype=torch.float64))


def test_zeros_of_the_spectral_factor_lie_on_one_side():
    x = torch.arange(512, dtype=torch.float64) / 256 - 1
    a = spectral_factor(periodic_prob(normal(7), x) + 0.1, 6)
    zeros = np.roots(a.flip(0).numpy())  # as a polynomial in w = e^{−iπx}
    assert (np.abs(zeros) > 1).all()


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "num_frequencies", lambda: FourierDensity(2.0)),
        (TypeError, "num_frequencies", lambda: FourierDensity(True)),
        (ValueError, "num_frequencies", lambda: FourierDensity(-1)),
        (ValueError, "scale", lambda: FourierDensity(1, scale=0.0)),
        (ValueError, "support", lambda: FourierDensity(1, support="circle")),
        (TypeError, "^y: got", lambda: FourierDensity(1).log_prob(torch.arange(3))),
        (ValueError, "^y: got", lambda: FourierDensity(1, (2,)).log_prob(torch.rand(3, 4))),
        (ValueError, "^y: got", lambda: FourierDensity(1).log_prob(torch.tensor(1.0))),
        (ValueError, "width", lambda: FourierDensity(1).bin_log_prob(torch.rand(3), 0.0)),
    ],
)  # fmt: skip
def test_bad_input_is_named(error: type[Exception], match: str, call):
    with as_users_call(), pytest.raises(error, match=match):
        call()
