"""The density on the line, against quadrature, closed forms and sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from distributions.fourier_density.random_densities import line_density, normal, uniform
from scipy import integrate, stats
from torch import Tensor
from torch.autograd import gradcheck

from kexue_lib.distributions.fourier_density import FourierDensity, autocorrelation


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
    wide = FourierDensity.from_samples(y, 20, scale_factor=2.0)
    torch.testing.assert_close(wide.scale / model.scale, torch.tensor(4 / 3, dtype=torch.float64))
    assert wide.log_prob(y).mean().item() > single + 0.1
    with pytest.raises(ValueError, match="scale_factor"):
        FourierDensity.from_samples(y, 20, scale_factor=0.0)
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
