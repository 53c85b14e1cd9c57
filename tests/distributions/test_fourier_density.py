"""What the Fourier density is, checked against quadrature, closed forms, mpmath, SciPy and NumPy."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from opinfo import as_users_call
from scipy import integrate, stats
from torch import Tensor
from torch.autograd import gradcheck

from kexue_lib.distributions.fourier_density import (
    FourierDensity,
    FourierDistribution,
    autocorrelation,
    periodic_cdf,
    periodic_icdf,
    periodic_log_prob,
    periodic_prob,
    spectral_factor,
)
from kexue_lib.distributions.fourier_density import _line as fourier_line
from kexue_lib.distributions.fourier_density import _trigonometric_sum as trigonometric_sum

RAISED_COSINE = torch.tensor([1.0, 1.0], dtype=torch.float64)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def line_density(n: int = 6, seed: int = 0, **options) -> FourierDensity:
    model = FourierDensity(n, dtype=torch.float64, **{"loc": 0.7, "scale": 1.3, **options})
    with torch.no_grad():
        model.coef.copy_(torch.view_as_real(normal(*model.batch_shape, n + 1, seed=seed)))
    return model


# -- the density on [−1, 1] -------------------------------------------------------------------------------------------


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


# -- distribution function and quantile -------------------------------------------------------------------------------


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


# -- spectral factorisation -------------------------------------------------------------------------------------------


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


# -- the line ---------------------------------------------------------------------------------------------------------


def test_no_frequencies_on_the_line_is_logistic():
    model = FourierDensity(0, loc=0.4, scale=1.7, dtype=torch.float64)
    y = torch.linspace(-30, 30, 61, dtype=torch.float64)
    peer = stats.logistic(0.4, 0.85)
    torch.testing.assert_close(model.log_prob(y).detach(), torch.from_numpy(peer.logpdf(y.numpy())))
    torch.testing.assert_close(model.cdf(y).detach(), torch.from_numpy(peer.cdf(y.numpy())))
    u = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    torch.testing.assert_close(model.icdf(u).detach(), torch.from_numpy(peer.ppf(u.numpy())))
    expected = peer.logcdf(y.numpy() + 0.5) + np.log(
        -np.expm1(peer.logcdf(y.numpy() - 0.5) - peer.logcdf(y.numpy() + 0.5))
    )
    torch.testing.assert_close(model.bin_log_prob(y).detach()[:31], torch.from_numpy(expected)[:31])


def test_density_on_the_line_has_integral_one_and_its_cdf():
    model = line_density()
    q = lambda y: model.prob(torch.tensor([y], dtype=torch.float64)).item()
    for end in (-1.0, 0.7, 3.0):
        mass = integrate.quad(q, -25, end, limit=500, epsabs=1e-12)[0]
        assert model.cdf(torch.tensor([end], dtype=torch.float64)).item() == pytest.approx(mass, abs=1e-10)
    assert integrate.quad(q, -25, 25, limit=500)[0] == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_log_prob_is_finite_far_out(dtype: torch.dtype):
    model = line_density(scale=1.0, loc=0.0).to(dtype)
    y = torch.tensor([-1e4, -100, -9.5, 9.5, 100, 1e4], dtype=dtype)
    for out in (model.log_prob(y), model.bin_log_prob(y), model.bin_log_prob(y, 1e-3)):
        assert out.isfinite().all()
        grads = torch.autograd.grad(out.sum(), list(model.parameters()), retain_graph=True)
        assert all(g.isfinite().all() for g in grads)
    slope = (model.log_prob(y)[1] - model.log_prob(y)[0]).item() / 9900
    assert slope == pytest.approx(2, rel=1e-4)  # the tail e^{−2|u|}


@pytest.mark.parametrize("support", ["real", "periodic"])
@pytest.mark.parametrize("width", [1.0, 0.1, 1e-6])
def test_bins_are_integrals_of_the_density(support: str, width: float):
    model = line_density(support=support)
    centre = torch.tensor([-0.45, 0.0, 0.3, 0.49], dtype=torch.float64)
    q = lambda y: model.prob(torch.tensor([y], dtype=torch.float64)).item()
    mass = [integrate.quad(q, c - width / 2, c + width / 2, epsabs=0, epsrel=1e-12)[0] for c in centre.tolist()]
    expected = torch.tensor(mass, dtype=torch.float64).log()
    torch.testing.assert_close(model.bin_log_prob(centre, width).detach(), expected, rtol=1e-9, atol=1e-9)


def test_bins_in_the_tail_keep_their_digits_where_differences_have_none():
    model = line_density(scale=1.0, loc=0.0).float()
    y = torch.tensor([8.0, 12.0, 40.0])
    reference = line_density(scale=1.0, loc=0.0).bin_log_prob(y.double())
    torch.testing.assert_close(model.bin_log_prob(y).double(), reference, rtol=1e-4, atol=1e-4)
    assert (model.cdf(y + 0.5) - model.cdf(y - 0.5))[1] == 0  # what the subtraction would give


def test_bins_of_a_row_add_up_to_one():
    model = line_density(scale=4.0)
    assert model.bin_log_prob(torch.arange(-80.0, 81.0, dtype=torch.float64)).exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize("method", ["log_prob", "cdf", "bin_log_prob", "icdf"])
@pytest.mark.parametrize("support", ["real", "periodic"])
def test_gradients_of_all_parameters_and_points(method: str, support: str):
    model = line_density(3, support=support, batch_shape=(2,))
    points = (uniform(2, 3) * 0.8 + 0.1).requires_grad_()
    options = {"width": 0.3} if method == "bin_log_prob" else {}
    names, values = zip(*model.named_parameters())

    def call(y: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(
            Caller(model, method, options), {f"model.{n}": p for n, p in zip(names, parameters)}, (y,)
        )

    assert gradcheck(call, (points, *(v.detach().clone().requires_grad_() for v in values)))


class Caller(torch.nn.Module):
    def __init__(self, model: FourierDensity, method: str, options: dict):
        super().__init__()
        self.model, self.method, self.options = model, method, options

    def forward(self, y: Tensor) -> Tensor:
        return getattr(self.model, self.method)(y, **self.options)


def test_samples_follow_the_density():
    model = line_density(batch_shape=(2,), scale=1.3)
    y = model.sample((100, 200), generator=torch.Generator().manual_seed(0))
    assert y.shape == (2, 100, 200)
    assert not y.requires_grad
    for row in range(2):
        u = model.cdf(y.reshape(2, -1))[row].detach().numpy()
        assert stats.kstest(u, "uniform").pvalue > 1e-3
    again = model.sample((100, 200), generator=torch.Generator().manual_seed(0))
    assert torch.equal(y, again)


def test_reparameterised_gradient_of_a_mean():
    model = line_density(2, scale=1.0)
    y = model.rsample((4000,), generator=torch.Generator().manual_seed(0))
    (estimate,) = torch.autograd.grad(torch.tanh(y).mean(), model.coef)
    grid = torch.linspace(-25, 25, 40_001, dtype=torch.float64)
    (exact,) = torch.autograd.grad((model.prob(grid) * torch.tanh(grid)).sum() * (50 / 40_000), model.coef)
    torch.testing.assert_close(estimate, exact, rtol=0, atol=0.03)


def test_penalty_is_the_integral_of_the_squared_slope():
    model = line_density(5, support="periodic")
    x = (torch.arange(256, dtype=torch.float64) / 128 - 1).requires_grad_()
    (slope,) = torch.autograd.grad(model.prob(x).sum(), x)
    energy = slope.square().sum() / 128
    torch.testing.assert_close(model.smoothness_penalty().detach(), energy)
    c0 = autocorrelation(model.a)[0].real
    torch.testing.assert_close(model.smoothness_penalty(normalised=False), 4 * c0**2 * energy)


def test_start_from_samples_is_close_without_training():
    y = torch.cat((normal(3000, dtype=torch.float64) * 0.5 - 2, normal(3000, dtype=torch.float64, seed=1) + 2))
    model = FourierDensity.from_samples(y, 20)
    assert model.coef.dtype == torch.float64
    assert model.loc.item() == pytest.approx(y.mean().item())
    single = stats.norm.logpdf(y.numpy(), y.mean().item(), y.std().item()).mean()
    assert model.log_prob(y).mean().item() > single + 0.15
    batch = FourierDensity.from_samples(y.reshape(2, -1), 8)
    assert batch.batch_shape == (2,)
    assert batch.log_prob(y.reshape(2, -1)).isfinite().all()
    circle = FourierDensity.from_samples(uniform(500) - 1, 6, support="periodic")
    assert circle.cdf(torch.zeros(1, dtype=torch.float64)).item() > 0.85


def test_maximum_likelihood_descends():
    y = normal(500, dtype=torch.float64) * 0.3 + 1
    model = FourierDensity(6, loc=1.0, scale=0.5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss = -model.log_prob(y).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < -stats.norm.logpdf(y.numpy(), y.mean().item(), y.std().item()).mean() + 0.02


# -- as a torch.distributions.Distribution ----------------------------------------------------------------------------


@pytest.mark.parametrize("support", ["real", "periodic"])
def test_distribution_agrees_with_the_module(support: str):
    model = line_density(4, support=support, batch_shape=(3, 2))
    peer = model.distribution(validate_args=True)
    assert peer.batch_shape == (3, 2)
    assert peer.event_shape == ()
    y = peer.sample((50,))
    assert y.shape == (50, 3, 2)
    assert peer.support.check(y).all()
    torch.testing.assert_close(peer.log_prob(y).movedim(0, -1), model.log_prob(y.movedim(0, -1)))
    torch.testing.assert_close(peer.cdf(y).movedim(0, -1), model.cdf(y.movedim(0, -1)))
    torch.testing.assert_close(peer.icdf(peer.cdf(y)), y)
    assert peer.rsample((2,)).requires_grad
    assert peer.log_prob(torch.tensor(0.1, dtype=torch.float64)).shape == (3, 2)
    wide = peer.expand((5, 3, 2))
    assert wide.sample().shape == (5, 3, 2)
    assert wide.log_prob(y[0]).shape == (5, 3, 2)


@pytest.mark.parametrize("support", ["real", "periodic"])
def test_moments_are_integrals(support: str):
    model = line_density(5, support=support)
    peer = model.distribution()
    q = lambda y: model.prob(torch.tensor([y], dtype=torch.float64)).item()
    reach = 25 if support == "real" else 1
    mean = integrate.quad(lambda y: y * q(y), -reach, reach, limit=500, epsabs=1e-12)[0]
    square = integrate.quad(lambda y: (y - mean) ** 2 * q(y), -reach, reach, limit=500, epsabs=1e-12)[0]
    assert peer.mean.item() == pytest.approx(mean, abs=1e-9)
    assert peer.variance.item() == pytest.approx(square, rel=1e-9)
    assert peer.stddev.item() == pytest.approx(math.sqrt(square), rel=1e-9)


def test_distribution_refuses_what_is_outside():
    with pytest.raises(ValueError, match="scale must be given"):
        FourierDistribution(torch.ones(2), loc=0.0)
    with pytest.raises(ValueError, match="scale"):
        FourierDistribution(torch.ones(2), 0.0, -1.0, validate_args=True)
    with pytest.raises(ValueError, match="support"):
        FourierDistribution(torch.ones(2), validate_args=True).log_prob(torch.tensor(2.0))


# -- numerics, memory, compilation ------------------------------------------------------------------------------------


def test_blocks_do_not_change_the_result(monkeypatch):
    a, x = normal(3, 6), uniform(3, 50) * 2 - 1
    weight, h = normal(3, 50), uniform(3, 50)
    whole = [
        trigonometric_sum.synthesis(a, x),
        trigonometric_sum.synthesis(a, x, h),
        trigonometric_sum.analysis(weight, x, h, 6),
    ]
    for size in (7, 120):
        monkeypatch.setitem(trigonometric_sum.BLOCK, "cpu", size)
        parts = [
            trigonometric_sum.synthesis(a, x),
            trigonometric_sum.synthesis(a, x, h),
            trigonometric_sum.analysis(weight, x, h, 6),
        ]
        torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("half_width", [None, 0.3])
def test_sums_agree_with_the_matrix(half_width: float | None):
    a, x = normal(9), uniform(20) * 2 - 1
    h = None if half_width is None else torch.full_like(x, half_width)
    k = torch.arange(9, dtype=torch.float64)
    matrix = torch.exp(1j * math.pi * k * x[:, None])
    if h is not None:
        matrix = matrix * half_width * torch.sinc(k * half_width)
    torch.testing.assert_close(trigonometric_sum.synthesis(a, x, h), matrix @ a)
    weight = normal(20)
    torch.testing.assert_close(trigonometric_sum.analysis(weight, x, h, 9), weight @ matrix)


def test_memory_does_not_grow_with_frequencies_times_points():
    a = normal(65).to(torch.complex64).requires_grad_()
    x = torch.rand(2**17)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        periodic_log_prob(a, x).sum().backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 8 * len(x)  # one complex number for each point


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_compute_in_float32(dtype: torch.dtype):
    model = line_density().float()
    y = torch.linspace(-3, 3, 13).to(dtype)
    for method in (model.log_prob, model.cdf, model.bin_log_prob):
        out = method(y)
        assert out.dtype == dtype
        torch.testing.assert_close(out, method(y.float()).to(dtype))


def test_module_compiles_without_graph_breaks():
    model = line_density().float()
    y = torch.linspace(-3, 3, 13)
    torch._dynamo.reset()
    with as_users_call():
        loss = torch.compile(lambda v: model.log_prob(v).mean(), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(loss(y), model.log_prob(y).mean())


def test_empty_points_and_missing_values():
    model = line_density(batch_shape=(2,))
    for method in (model.log_prob, model.cdf, model.icdf, model.bin_log_prob):
        assert method(torch.empty(2, 0, dtype=torch.float64)).shape == (2, 0)
        assert method(torch.full((2, 1), math.nan, dtype=torch.float64)).isnan().all()
    assert model.sample((0,)).shape == (2, 0)


def test_core_takes_several_densities_and_precisions():
    a, x = normal(2, 4).to(torch.complex64), uniform(2, 3)
    wide, points = fourier_line.common_precision(a, x)
    assert wide.dtype == torch.complex128
    assert points.dtype == torch.float64


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "num_frequencies", lambda: FourierDensity(2.0)),
        (TypeError, "num_frequencies", lambda: FourierDensity(True)),
        (ValueError, "num_frequencies", lambda: FourierDensity(-1)),
        (ValueError, "scale", lambda: FourierDensity(1, scale=0.0)),
        (ValueError, "support", lambda: FourierDensity(1, support="circle")),
        (TypeError, "y must", lambda: FourierDensity(1).log_prob(torch.arange(3))),
        (ValueError, "y must", lambda: FourierDensity(1, (2,)).log_prob(torch.rand(3, 4))),
        (ValueError, "y must", lambda: FourierDensity(1).log_prob(torch.tensor(1.0))),
        (ValueError, "width", lambda: FourierDensity(1).bin_log_prob(torch.rand(3), 0.0)),
        (ValueError, "density", lambda: spectral_factor(torch.ones(4), 2)),
        (ValueError, "density", lambda: spectral_factor(torch.tensor([1.0, 0.0, 1.0]), 1)),
        (TypeError, "density", lambda: spectral_factor(torch.ones(4, dtype=torch.int64), 1)),
        (TypeError, "num_frequencies", lambda: spectral_factor(torch.ones(9), 1.5)),
        (ValueError, "a must", lambda: periodic_prob(torch.ones(0), torch.rand(1))),
        (TypeError, "a must", lambda: periodic_prob(torch.ones(2, dtype=torch.int64), torch.rand(1))),
        (TypeError, "x must", lambda: periodic_cdf(torch.ones(2), torch.ones(1, dtype=torch.int64))),
        (ValueError, "x must", lambda: periodic_prob(torch.ones(2, 2), torch.rand(3, 1))),
        (TypeError, "u must", lambda: periodic_icdf(torch.ones(2), torch.ones(1, dtype=torch.int64))),
    ],
)  # fmt: skip
def test_bad_input_is_named(error: type[Exception], match: str, call):
    with as_users_call(), pytest.raises(error, match=match):
        call()
