"""Distribution function and quantile, against quadrature, mpmath and finite differences."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from distributions.fourier_density.random_densities import RAISED_COSINE, line_density, normal, uniform
from scipy import integrate
from torch.autograd import gradcheck

from kexue_lib.distributions.fourier_density import periodic_cdf, periodic_icdf, periodic_prob


@pytest.mark.parametrize("n", [1, 6, 33])
def test_cdf_is_the_integral(n: int):
    a, x = normal(n + 1), torch.tensor([-0.99, -0.4, 0.0, 0.3, 0.999], dtype=torch.float64)
    p = lambda s: periodic_prob(a, torch.tensor([s], dtype=torch.float64)).item()
    expected = [integrate.quad(p, -1, v, limit=500, epsabs=1e-13)[0] for v in x.tolist()]
    torch.testing.assert_close(periodic_cdf(a, x), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cdf_is_monotone_and_exact_at_the_ends(dtype: torch.dtype):
    a = normal(40, 21).to(dtype.to_complex())
    x = torch.linspace(-1, 1, 4001, dtype=dtype).expand(40, -1)
    out = periodic_cdf(a, x)
    assert (out[:, 0] == 0).all()
    assert (out[:, -1] == 1).all()
    assert (out.diff(dim=-1) >= -8 * torch.finfo(dtype).eps).all()


def test_lower_tail_keeps_its_digits():
    a = normal(8)
    with mpmath.workdps(60):
        exact = [complex(v) for v in a.tolist()]
        c = [sum(mpmath.mpc(exact[k]) * mpmath.conj(exact[k + n]) for k in range(8 - n)) for n in range(8)]
        for power in (3, 8, 15):
            x = -1 + 2.0**-power * 1e-1
            ripple = lambda n, x: c[n] / c[0] * (mpmath.expjpi(n * x) - (-1) ** n) / (1j * mpmath.pi * n)
            exact_mass = (mpmath.mpf(x) + 1) / 2 + sum(mpmath.re(ripple(n, mpmath.mpf(x))) for n in range(1, 8))
            ours = periodic_cdf(a, torch.tensor([x], dtype=torch.float64)).item()
            assert ours == pytest.approx(float(exact_mass), rel=1e-12)


@pytest.mark.parametrize("n", [0, 1, 4, 32, 128])
def test_quantile_inverts_the_cdf(n: int):
    a, u = normal(30, n + 1), uniform(30, 200)
    assert (periodic_cdf(a, periodic_icdf(a, u)) - u).abs().max() < 1e-12
    a, u = a.to(torch.complex64), u.float()
    assert (periodic_cdf(a, periodic_icdf(a, u)) - u).abs().max() < 1e-6 * max(1, n / 32)


def test_quantile_next_to_a_zero_of_the_density():
    a = torch.tensor([1, 1j], dtype=torch.complex128)  # p = 0 at x = −1/2
    level = periodic_cdf(a, torch.tensor([0.5, -0.5], dtype=torch.float64))
    u = (level[:, None] + torch.cat((torch.logspace(-16, -2, 99), -torch.logspace(-16, -2, 99)))).flatten()
    assert (periodic_cdf(a, periodic_icdf(a, u)) - u).abs().max() < 1e-6


def test_quantile_at_and_beyond_the_ends():
    u = torch.tensor([0.0, 1.0, -0.1, 1.1, math.nan], dtype=torch.float64)
    out = periodic_icdf(RAISED_COSINE, u)
    assert out[:2].tolist() == [-1, 1]
    assert out[2:].isnan().all()
    assert line_density().icdf(u)[:2].tolist() == [-torch.inf, torch.inf]


def test_quantile_on_the_line_far_in_the_tails():
    model = line_density()
    u = torch.tensor([1e-300, 1e-100, 1e-30, 1e-12], dtype=torch.float64)
    y = model.icdf(u)
    torch.testing.assert_close(model.cdf(y) / u, torch.ones_like(u), rtol=1e-10, atol=0)


def test_gradient_of_the_quantile_is_that_of_finite_differences():
    a, u = normal(4), uniform(3, seed=5) * 0.9 + 0.05
    assert gradcheck(periodic_icdf, (a.requires_grad_(), u.requires_grad_()))
