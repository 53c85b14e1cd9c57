"""Entropy, effective number and averages under noise, against enumeration and sampling."""

from __future__ import annotations

import math

import pytest
import torch
from attention.softmax_robustness.random_logits import LIGHT, normal, seeded
from opinfo import as_users_call
from scipy import stats

from kexue_lib.attention.softmax_robustness import (
    attention_average,
    cosine_entropy_min,
    effective_number,
    entropy_invariant_scale,
    entropy_keeping_scale,
    noise_cv2,
    perturbation_moments,
    perturbed_attention,
    sample_noise,
    softmax_entropy,
)

# -- entropy and effective number --------------------------------------------------------------------------------------


def test_entropy_is_zero_without_nan_where_nothing_or_one_is_kept():
    x = normal(4, 5).requires_grad_()
    mask = torch.tensor([[False] * 5, [True] + [False] * 4, [True] * 5, [True, True, False, False, False]])
    h = softmax_entropy(x, mask=mask)
    assert h[:2].tolist() == [0.0, 0.0]
    for row in (2, 3):
        kept = x[row][mask[row]].detach().softmax(-1)
        torch.testing.assert_close(h[row].detach(), torch.tensor(stats.entropy(kept), dtype=torch.float64))
    (grad,) = torch.autograd.grad(h.sum(), x)
    assert grad.isfinite().all()
    assert (grad[~mask] == 0).all()


def test_entropy_reduces_any_dim_and_ignores_shifts():
    x = normal(3, 4, 5)
    torch.testing.assert_close(softmax_entropy(x, dim=1), softmax_entropy(x.mT))
    torch.testing.assert_close(softmax_entropy(x + 1e6), softmax_entropy(x), rtol=1e-8, atol=1e-8)
    assert effective_number(x, dim=0).shape == (4, 5)


def test_infinite_logits_share_everything():
    x = torch.tensor([math.inf, 1.0, math.inf, -math.inf])
    assert softmax_entropy(x).exp().item() == pytest.approx(2)
    assert effective_number(x).item() == pytest.approx(2)


def test_effective_number_lies_between_one_and_the_perplexity():
    x = 3 * normal(200, 7)
    number = effective_number(x)
    assert (number >= 1 - 1e-12).all()
    assert (number <= softmax_entropy(x).exp() + 1e-9).all()


# -- averages under noise ----------------------------------------------------------------------------------------------


def test_average_is_the_built_in_one_and_zero_where_all_is_hidden():
    s, v = normal(2, 3, 6), normal(2, 3, 6, 4, seed=1)
    torch.testing.assert_close(attention_average(s, v), (s.softmax(-1)[..., None] * v).sum(-2))
    assert (attention_average(torch.full((6,), -math.inf), v) == 0).all()


def test_no_noise_leaves_the_average_alone():
    s, v = normal(2, 6), normal(2, 6, 4, seed=1)
    out = perturbed_attention(s, v, 0.0, num_samples=3, chunk_size=2)
    torch.testing.assert_close(out, attention_average(s, v).expand(3, 2, 4))


def test_perturbed_attention_is_the_average_of_noisy_scores():
    s, v = normal(2, 6), normal(2, 6, 4, seed=1)
    out = perturbed_attention(s, v, 0.8, distribution="laplace", num_samples=5, generator=seeded(3))
    noise = sample_noise((5, 2, 6), "laplace", 0.8, dtype=torch.float64, generator=seeded(3))
    torch.testing.assert_close(out, torch.stack([attention_average(s + e, v) for e in noise]))


@pytest.mark.parametrize("name", LIGHT)
def test_measured_bias_and_variance_agree_with_the_first_order(name: str):
    s, v = normal(400), normal(400, 2, seed=1)
    sigma = 0.25
    out = perturbed_attention(s, v, sigma, distribution=name, num_samples=20_000, chunk_size=5000, generator=seeded(2))
    bias, variance = perturbation_moments(s, v, noise_cv2(name, sigma))
    torch.testing.assert_close(out.var(0), variance, rtol=0.05, atol=0)
    error_of_mean = (variance / 20_000).sqrt()
    assert ((out.mean(0) - attention_average(s, v) - bias).abs() < 5 * error_of_mean).all()


def test_moments_are_the_second_order_expansion_in_the_weights():
    s, v = normal(5), normal(5, 3, seed=1)
    p = s.softmax(-1)
    average = lambda w: ((p * w)[:, None] * v).sum(0) / (p * w).sum()
    one = torch.ones(5, dtype=torch.float64)
    first = torch.autograd.functional.jacobian(average, one)
    second = torch.stack(
        [torch.autograd.functional.hessian(lambda w, c=c: average(w)[c], one).diag() for c in range(3)]
    )
    bias, variance = perturbation_moments(s, v, 0.01)
    torch.testing.assert_close(bias, 0.005 * second.sum(-1))
    torch.testing.assert_close(variance, 0.01 * first.square().sum(-1))


def test_gumbel_noise_of_scale_one_turns_attention_into_sampling():
    s = normal(6)
    noisy = s + sample_noise((40_000, 6), "gumbel", math.pi / math.sqrt(6), dtype=torch.float64, generator=seeded(4))
    counts = torch.bincount(noisy.argmax(-1), minlength=6)
    assert stats.chisquare(counts.numpy(), (s.softmax(-1) * 40_000).numpy()).pvalue > 1e-3


# -- bad input ---------------------------------------------------------------------------------------------------------


Q = torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sample_noise((2,), "normal", 1.0), "distribution: got 'normal'"),
        (lambda: sample_noise((2,), "gaussian", -1.0), "sigma: got -1.0"),
        (lambda: sample_noise((2,), "student_t", 1.0, df=0.0), "df: got 0.0"),
        (lambda: cosine_entropy_min(5, -1.0), "tau: got -1.0"),
        (lambda: cosine_entropy_min(1, 1.0), "n: got 1"),
        (lambda: entropy_invariant_scale(4, 8, train_length=1), "train_length: got 1"),
        (lambda: entropy_invariant_scale(4, 0), "d: got 0"),
        (lambda: entropy_keeping_scale(0, 8), "n: got 0"),
        (lambda: entropy_keeping_scale(4, 1), "d: got 1"),
        (lambda: entropy_keeping_scale(4, 8, train_length=1), "train_length: got 1"),
        (lambda: perturbed_attention(torch.zeros(2), Q, 0.1, num_samples=0), "num_samples: got 0"),
        (lambda: perturbed_attention(torch.zeros(2), Q, 0.1, chunk_size=0), "chunk_size: got 0"),
    ],
)
def test_wrong_values_are_named(call, words: str):
    with as_users_call(), pytest.raises(ValueError, match=r".") as error:
        call()
    assert words in str(error.value)
