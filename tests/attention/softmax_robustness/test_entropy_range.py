"""Entropy ranges against 50-digit arithmetic, enumeration and sampling."""

from __future__ import annotations

import itertools
import math

import mpmath
import pytest
import torch
from attention.ops_softmax_robustness import bessel_deficit, specht
from attention.softmax_robustness.random_logits import normal, seeded

from kexue_lib.attention.softmax_robustness import (
    cosine_entropy_deficit,
    cosine_entropy_min,
    entropy_invariant_scale,
    entropy_keeping_scale,
    gaussian_entropy,
    softmax_entropy,
    sphere_entropy_deficit,
)


def test_cosine_deficit_to_fourteen_digits_over_nine_decades():
    for tau in (1e-3, 0.05, 0.1, 0.5, 0.999, 1.0, 1.001, 3.0, 1e3, 1e6):
        with mpmath.workdps(50):
            expected = float(specht(mpmath.mpf(tau)))
        assert cosine_entropy_deficit(tau).item() == pytest.approx(expected, rel=1e-14)
    assert cosine_entropy_deficit(1.0).item() == pytest.approx(0.474474647, abs=1e-9)
    assert cosine_entropy_deficit(0.194944).item() == pytest.approx(math.log(1024), abs=1e-4)


@pytest.mark.parametrize("tau", [0.05, 0.4, 1.0, 7.0])
def test_least_entropy_is_that_of_the_best_vertex_and_of_no_inner_point(tau: float):
    for n in (2, 3, 6, 10):
        vertices = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=n)), dtype=torch.float64)
        entropy = softmax_entropy(vertices / tau)
        least, k = cosine_entropy_min(n, tau)
        assert least == pytest.approx(entropy.min().item(), rel=1e-11, abs=1e-14)
        assert k in (vertices[entropy <= entropy.min() + 1e-12] > 0).sum(-1).tolist()
        inner = 2 * torch.rand(2000, n, dtype=torch.float64, generator=seeded(n)) - 1
        assert softmax_entropy(inner / tau).min() >= least
        assert least >= math.log(n) - cosine_entropy_deficit(tau).item() - 1e-12


def test_least_entropy_looks_at_no_wrong_k():
    for n, tau in itertools.product((17, 1024, 100_003), (0.08, 0.3, 1.0, 50.0)):
        k = torch.arange(1, n, dtype=torch.float64)
        rest = (n - k) * math.exp(-2 / tau)
        every = (k + rest).log() + 2 / tau * rest / (k + rest)
        assert cosine_entropy_min(n, tau)[0] == pytest.approx(every.min().item(), rel=1e-12)
    assert cosine_entropy_min(10_000_000, 0.002)[1] == 1
    assert cosine_entropy_min(1024, 0.001)[0] == 0.0


def test_entropy_of_normal_logits_below_and_above_freezing():
    n = 65536
    s = normal(4, n)
    for sigma in (0.5, 1.0, 2.0):
        measured = softmax_entropy(sigma * s).mean()
        torch.testing.assert_close(measured, gaussian_entropy(n, sigma), rtol=0, atol=0.02)
    assert gaussian_entropy(n, torch.tensor([5.0, 50.0])).tolist() == [0.0, 0.0]
    assert softmax_entropy(10 * s).mean() > 0.1


@pytest.mark.parametrize("d", [2, 3, 5, 16, 64, 500])
def test_sphere_deficit_agrees_with_bessel_functions(d: int):
    for lam in (1e-5, 2.9e-3, 3.1e-3, 0.05, d**-0.5, 1.0, 8.0, 100.0):
        with mpmath.workdps(60):
            expected = float(bessel_deficit(mpmath.mpf(lam), d))
        assert sphere_entropy_deficit(lam, d).item() == pytest.approx(expected, rel=1e-10)


def test_sphere_deficit_in_high_dimension_tends_to_its_laplace_form():
    for d in (10_000, 100_000):
        for lam in (0.1, 1.0, 3.0):
            exact, leading = (sphere_entropy_deficit(lam, d, method=m).item() for m in ("exact", "laplace"))
            assert exact == pytest.approx(leading, rel=3 / d)
    golden = (1 + math.sqrt(5)) / 2
    assert sphere_entropy_deficit(1.0, 64, method="laplace").item() == pytest.approx(32 * math.log(golden))


def test_sphere_deficit_is_what_keys_on_a_sphere_lose():
    d, n = 8, 200_000
    keys = normal(n, d)
    keys = keys / keys.norm(dim=-1, keepdim=True) * d**0.5
    for lam in (0.2, 0.35, 0.7):
        lost = math.log(n) - softmax_entropy(lam * d**0.5 * keys[:, 0]).item()
        assert lost == pytest.approx(sphere_entropy_deficit(lam, d).item(), rel=0.02)


def test_invariant_scale_is_the_usual_one_at_the_training_length():
    assert entropy_invariant_scale(512, 64).item() == pytest.approx(0.125)
    scales = entropy_invariant_scale(torch.tensor([1, 512, 512**2]), 16)
    torch.testing.assert_close(scales, torch.tensor([0.0, 0.25, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("d", [2, 16, 64])
def test_keeping_scale_leaves_the_deficit_that_bessel_functions_ask_for(d: int):
    scales = entropy_keeping_scale(torch.tensor([[100, 512], [3000, 60_000]]), d)
    assert scales[0, 0] == 0.0
    for count, scale in ((512, scales[0, 1]), (3000, scales[1, 0]), (60_000, scales[1, 1])):
        with mpmath.workdps(60):
            expected = bessel_deficit(1 / mpmath.sqrt(d), d) + mpmath.log(count) - mpmath.log(512)
            assert float(bessel_deficit(mpmath.mpf(scale.item()), d)) == pytest.approx(float(expected), rel=1e-6)


def test_keeping_scale_keeps_the_entropy_of_random_keys_and_the_logarithmic_one_does_not():
    d, seen = 32, {}
    for count in (512, 8192):
        directions = normal(16, count, d)
        keys = directions / directions.norm(dim=-1, keepdim=True) * d**0.5
        for scale in (entropy_keeping_scale, entropy_invariant_scale):
            seen[scale, count] = softmax_entropy(scale(count, d) * d**0.5 * keys[..., 0]).mean().item()
    assert seen[entropy_keeping_scale, 8192] == pytest.approx(seen[entropy_keeping_scale, 512], abs=0.2)
    assert seen[entropy_invariant_scale, 8192] > seen[entropy_invariant_scale, 512] + 2
