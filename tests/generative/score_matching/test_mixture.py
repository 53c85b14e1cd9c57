"""The mixture against torch.distributions with autograd, and against quadrature of the posterior."""

from __future__ import annotations

import opinfo
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, distributions

from kexue_lib.generative.score_matching import GaussianMixture


def mixture(modes: int = 3, dim: int = 2, seed: int = 0) -> GaussianMixture:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    roots = draw(modes, dim, dim)
    covariances = roots @ roots.mT + 0.1 * torch.eye(dim, dtype=torch.float64)
    return GaussianMixture(draw(modes).exp(), 2 * draw(modes, dim), covariances)


def peer(m: GaussianMixture, alpha: float = 1.0, sigma: float = 0.0) -> distributions.MixtureSameFamily:
    covariances = alpha**2 * m.covariances + sigma**2 * torch.eye(m.means.shape[1], dtype=torch.float64)
    parts = distributions.MultivariateNormal(alpha * m.means, covariances)
    return distributions.MixtureSameFamily(distributions.Categorical(m.weights), parts)


def autograd_score(m: distributions.MixtureSameFamily, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(m.log_prob(x).sum(), x)[0]


POINTS = 3 * torch.randn(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_density_and_score_are_those_of_torch():
    torch.testing.assert_close(mixture().log_prob(POINTS), peer(mixture()).log_prob(POINTS))
    torch.testing.assert_close(mixture().score(POINTS), autograd_score(peer(mixture()), POINTS))


@pytest.mark.parametrize(("alpha", "sigma"), [(0.8, 0.5), (1.0, 10.0), (0.01, 1.0)])
def test_noised_mixture_is_the_mixture_with_wider_covariances(alpha, sigma):
    noised = mixture().diffuse(alpha, sigma)
    torch.testing.assert_close(noised.score(POINTS), autograd_score(peer(mixture(), alpha, sigma), POINTS))
    torch.testing.assert_close(
        noised.covariances, peer(mixture(), alpha, sigma).component_distribution.covariance_matrix
    )


def test_noise_adds_up():
    twice = mixture().diffuse(0.8, 0.5).diffuse(0.6, 0.3)
    once = mixture().diffuse(0.48, (0.36 * 0.25 + 0.09) ** 0.5)
    torch.testing.assert_close(twice.log_prob(POINTS), once.log_prob(POINTS))


def test_moments_are_those_of_torch_and_of_samples():
    torch.testing.assert_close(mixture().mean(), peer(mixture()).mean)
    torch.testing.assert_close(mixture().covariance().diagonal(), peer(mixture()).variance)
    x = mixture().sample(200_000, torch.Generator().manual_seed(2))
    error = (mixture().covariance().diagonal() / len(x)).sqrt()
    assert ((x.mean(0) - mixture().mean()).abs() < 5 * error).all()
    torch.testing.assert_close(torch.cov(x.T), mixture().covariance(), rtol=0.03, atol=0.03)


def test_samples_follow_the_density():
    m = mixture(dim=1)
    x = m.sample(4000, torch.Generator().manual_seed(3))[:, 0].numpy()
    parts = list(zip(m.weights.tolist(), m.means[:, 0].tolist(), m.covariances[:, 0, 0].sqrt().tolist()))
    marginal = lambda v: sum(w * stats.norm.cdf(v, mean, root) for w, mean, root in parts)
    assert stats.kstest(x, marginal).pvalue > 1e-3


@pytest.mark.parametrize("x_t", [-2.0, 0.3, 4.0])
def test_posterior_is_that_of_quadrature(x_t):
    m, alpha, sigma = mixture(dim=1), 0.7, 0.6
    density = lambda y: float(m.log_prob(torch.tensor([y], dtype=torch.float64)).exp())
    joint = lambda y, power: y**power * density(y) * stats.norm.pdf(x_t, alpha * y, sigma)
    mass, first, second = (
        integrate.quad(joint, -30, 30, (power,), limit=400, points=[x_t / alpha])[0] for power in range(3)
    )
    point = torch.tensor([x_t], dtype=torch.float64)
    mean, variance = m.posterior_mean(point, alpha, sigma), m.posterior_covariance(point, alpha, sigma)
    torch.testing.assert_close(mean.item(), first / mass, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(variance.item(), second / mass - (first / mass) ** 2, rtol=1e-6, atol=1e-8)


def test_tweedie_of_both_orders():
    m, alpha, sigma = mixture(), 0.7, 0.6
    noised = peer(m, alpha, sigma)
    mean = (POINTS + sigma**2 * autograd_score(noised, POINTS)) / alpha
    torch.testing.assert_close(m.posterior_mean(POINTS, alpha, sigma), mean)
    hessian = torch.func.vmap(torch.func.hessian(noised.log_prob))(POINTS)
    eye = torch.eye(2, dtype=torch.float64)
    covariance = sigma**4 / alpha**2 * (eye / sigma**2 + hessian)
    torch.testing.assert_close(m.posterior_covariance(POINTS, alpha, sigma), covariance)


def test_noise_levels_by_point():
    alphas = torch.linspace(0.1, 1, 50, dtype=torch.float64)
    sigmas = (1 - alphas**2).sqrt()
    together = mixture().posterior_mean(POINTS, alphas, sigmas)
    apart = [mixture().posterior_mean(x, a, s) for x, a, s in zip(POINTS, alphas, sigmas)]
    torch.testing.assert_close(together, torch.stack(apart))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_tails_are_finite_and_point_home(dtype):
    ring = GaussianMixture.ring(dtype=dtype)
    x = torch.tensor([[1e4, 0.0], [0.0, -1e4]], dtype=dtype)
    score = ring.score(x)
    assert score.isfinite().all()
    assert ring.log_prob(x).isfinite().all()
    torch.testing.assert_close(score, -(x - x / 1e4 * 2) / 0.15**2, rtol=1e-4, atol=1.0)


def test_ring_has_its_modes_on_the_circle():
    ring = GaussianMixture.ring(5, 3.0, 0.2, torch.float64)
    torch.testing.assert_close(ring.means.norm(dim=1), torch.full((5,), 3.0, dtype=torch.float64))
    torch.testing.assert_close(ring.means[0], torch.tensor([3.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(ring.weights, torch.full((5,), 0.2, dtype=torch.float64))
    assert ring.to(dtype=torch.float32).score(POINTS.float()).dtype == torch.float32


ONES, TWO, EYES = torch.ones(2), torch.zeros(2, 3), torch.eye(3).repeat(2, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ((torch.ones(3), TWO, EYES), ValueError, "weights: got shape"),
        ((ONES, torch.zeros(2), EYES), ValueError, "means: got shape"),
        ((ONES, TWO, torch.eye(2).repeat(2, 1, 1)), ValueError, "covariances: got shape"),
        ((ONES, TWO, -EYES), ValueError, "covariances: got least eigenvalue"),
        ((ONES, TWO, EYES + torch.ones(3, 3).tril(-1)), ValueError, "covariances: got an asymmetric"),
        ((-ONES, TWO, EYES), ValueError, "weights"),
        ((0 * ONES, TWO, EYES), ValueError, "weights"),
        ((ONES, TWO.long(), EYES), TypeError, "means"),
    ],
)
def test_what_is_no_mixture_is_refused(arguments, error, name):
    with opinfo.as_users_call(), pytest.raises(error, match=name):
        GaussianMixture(*arguments)


@pytest.mark.parametrize("method", ["diffuse", "posterior_mean", "posterior_covariance"])
def test_negative_noise_is_refused(method):
    points = () if method == "diffuse" else (POINTS,)
    with opinfo.as_users_call(), pytest.raises(ValueError, match=r"sigma: got -0\.1"):
        getattr(mixture(), method)(*points, 0.5, -0.1)
