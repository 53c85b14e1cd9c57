"""As a torch.distributions.Distribution, against the module and quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from distributions.fourier_density.random_densities import line_density
from scipy import integrate

from kexue_lib.distributions.fourier_density import FourierDistribution


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
    with pytest.raises(ValueError, match="scale: got None with loc="):
        FourierDistribution(torch.ones(2), loc=0.0)
    with pytest.raises(ValueError, match="scale"):
        FourierDistribution(torch.ones(2), 0.0, -1.0, validate_args=True)
    with pytest.raises(ValueError, match="support"):
        FourierDistribution(torch.ones(2), validate_args=True).log_prob(torch.tensor(2.0))
