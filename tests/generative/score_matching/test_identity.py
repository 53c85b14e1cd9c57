"""The identity of the chapter and its constant, by quadrature, closed forms and Monte Carlo."""

from __future__ import annotations

import math

import opinfo
import pytest
import torch
from scipy import integrate, stats

from kexue_lib.generative import score_matching as sm

ALPHA, SIGMA = 0.8, 0.5
DOUBLE = torch.float64


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_points() -> tuple[sm.GaussianMixture, float]:
    """A pair of narrow modes and the gap of their noised law, by quadrature."""
    means = torch.tensor([[-1.0], [1.0]], dtype=DOUBLE)
    mixture = sm.GaussianMixture(torch.ones(2, dtype=DOUBLE), means, torch.full((2, 1, 1), 0.04, dtype=DOUBLE))
    root = math.sqrt(ALPHA**2 * 0.04 + SIGMA**2)

    def information(x: float) -> float:
        k = [stats.norm.pdf(x, c * ALPHA, root) for c in (-1, 1)]
        slope = sum(-(x - c * ALPHA) / root**2 * v for c, v in zip((-1, 1), k)) / 2
        return slope**2 / (sum(k) / 2)

    return mixture, 1 / SIGMA**2 - integrate.quad(information, -8, 8, limit=200)[0]


def test_gap_is_that_of_the_fisher_information():
    mixture, expected = two_points()
    estimate, error = sm.conditional_score_gap(mixture, ALPHA, SIGMA, 400_000, seeded(0))
    assert abs(estimate - expected) < 4 * error
    assert error < 0.01 * expected


def test_gap_of_a_gaussian_in_closed_form():
    variances = torch.tensor([0.1, 1.0, 4.0], dtype=DOUBLE)
    mixture = sm.GaussianMixture(
        torch.ones(1, dtype=DOUBLE), torch.zeros(1, 3, dtype=DOUBLE), torch.diag(variances)[None]
    )
    estimate, error = sm.conditional_score_gap(mixture, ALPHA, SIGMA, 10, seeded(0))
    inner = ALPHA**2 * variances
    torch.testing.assert_close(estimate, (inner / (SIGMA**2 * (inner + SIGMA**2))).sum())
    assert error < 1e-10


@pytest.mark.parametrize("factor", [0.0, 0.7, 1.0, 1.5])
def test_conditional_loss_exceeds_the_plain_one_by_the_gap(factor):
    """For every model: here multiples of the score, at the time where σ = 1/2."""
    mixture, _ = two_points()
    t = torch.tensor(0.5, dtype=DOUBLE)
    schedule = sm.VESchedule(sigma_min=0.25, sigma_max=1.0)
    noised = mixture.diffuse(1.0, 0.5)
    model = lambda x, t: factor * noised.score(x)
    x0 = mixture.sample(200_000, seeded(1))
    noise = torch.randn(x0.shape, generator=seeded(2), dtype=DOUBLE)
    loss = sm.denoising_score_matching_loss(model, x0, t.expand(len(x0)), schedule, noise=noise, weighting="none")
    plain = (1 - factor) ** 2 * noised.score(x0 + 0.5 * noise).square().sum(1)
    estimate, gap_error = sm.conditional_score_gap(mixture, 1.0, 0.5, 200_000, seeded(3))
    difference = loss - plain
    error = difference.std() / len(x0) ** 0.5
    assert abs(difference.mean() - estimate) < 4 * (error**2 + gap_error**2).sqrt()
    assert abs(estimate) > 20 * error


def test_implicit_loss_differs_by_the_fisher_information():
    mixture = sm.GaussianMixture.ring(4, 1.0, 0.5, DOUBLE)
    matrix = torch.randn(2, 2, generator=seeded(4), dtype=DOUBLE)
    model = lambda x: (x @ matrix).sin()
    x = mixture.sample(100_000, seeded(5))
    score = mixture.score(x)
    implicit = sm.implicit_score_matching_loss(model, x)
    difference = (score - model(x)).square().sum(1) - implicit - score.square().sum(1)
    assert abs(difference.mean()) < 4 * difference.std() / len(x) ** 0.5


def test_hutchinson_is_unbiased():
    x = torch.randn(3, 4, generator=seeded(6), dtype=DOUBLE)
    matrix = torch.randn(4, 4, generator=seeded(7), dtype=DOUBLE)
    model = lambda x: (x @ matrix).tanh()
    exact = sm.implicit_score_matching_loss(model, x)
    values = torch.stack([
        sm.implicit_score_matching_loss(model, x, probes=1, generator=seeded(100 + k)) for k in range(2000)
    ])  # fmt: skip
    assert ((values.mean(0) - exact).abs() < 4.5 * values.std(0) / len(values) ** 0.5).all()
    many = sm.implicit_score_matching_loss(model, x, probes=2000, generator=seeded(8))
    torch.testing.assert_close(many, exact, rtol=0.1, atol=0.3)


def test_ratio_estimator_is_exact_for_its_own_points_and_biased_for_their_law():
    mixture = sm.GaussianMixture(
        torch.ones(1, dtype=DOUBLE), torch.zeros(1, 1, dtype=DOUBLE), torch.ones(1, 1, 1, dtype=DOUBLE)
    )
    x = torch.tensor([[0.9]], dtype=DOUBLE)
    few = torch.randn(100_000, 1, generator=seeded(9), dtype=DOUBLE)
    single = torch.func.vmap(lambda y: sm.score_from_samples(x, y[None], ALPHA, SIGMA)[0, 0])(few)
    assert abs(single.mean() + 0.9 / SIGMA**2) < 4 * single.std() / len(few) ** 0.5
    exact = mixture.diffuse(ALPHA, SIGMA).score(x)
    torch.testing.assert_close(exact.item(), -0.9 / 0.89)
    torch.testing.assert_close(sm.score_from_samples(x, few, ALPHA, SIGMA), exact, rtol=0.02, atol=0.0)


def test_ratio_estimator_survives_tiny_noise_in_float32():
    data = torch.rand(50, 64, generator=seeded(10))
    x = data[:5] + 1e-3 * torch.randn(5, 64, generator=seeded(11))
    score = sm.score_from_samples(x, data, 1.0, 1e-3)
    torch.testing.assert_close(score, sm.conditional_score(x, data[:5], 1.0, 1e-3), rtol=1e-4, atol=1e-2)
    far = sm.score_from_samples(x + 1e4, data, 1.0, 1e-3, chunk_size=7)
    assert far.isfinite().all()


def test_a_gap_of_too_few_draws_is_refused():
    with opinfo.as_users_call(), pytest.raises(ValueError, match="n: got 1"):
        sm.conditional_score_gap(sm.GaussianMixture.ring(), 1.0, 1.0, 1)
