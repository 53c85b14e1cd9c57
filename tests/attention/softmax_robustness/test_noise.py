"""Noise against 50-digit arithmetic and the laws of SciPy."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from attention.ops_softmax_robustness import exponential_cv2
from attention.softmax_robustness.random_logits import LIGHT, seeded
from scipy import stats

from kexue_lib.attention.softmax_robustness import noise_cv2, sample_noise


@pytest.mark.parametrize("name", LIGHT)
def test_cv2_to_twelve_digits_for_every_size_of_noise(name: str):
    for sigma in (1e-8, 1e-4, 0.01, 0.09, 0.11, 0.2, 0.38, 0.6, 1.7, 1.8):
        with mpmath.workdps(50):
            s = mpmath.mpf(sigma)
            finite = {"laplace": s / mpmath.sqrt(2), "gumbel": mpmath.sqrt(6) / mpmath.pi * s}.get(name, 0) < 0.5
            expected = float(exponential_cv2(name)(s)) if finite else math.inf
        assert noise_cv2(name, sigma).item() == pytest.approx(expected, rel=1e-12)


def test_cv2_of_heavy_tails_is_infinite_and_of_no_noise_zero():
    for name in (*LIGHT, "student_t"):
        assert noise_cv2(name, 0.0).item() == 0
    assert noise_cv2("student_t", 1e-9).item() == math.inf
    assert noise_cv2("laplace", math.sqrt(0.5)).item() == math.inf
    assert noise_cv2("gumbel", math.pi / math.sqrt(24) + 1e-12).item() == math.inf
    assert noise_cv2("uniform", torch.tensor([[0.1], [1000.0]])).shape == (2, 1)


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("gaussian", stats.norm(0, 0.7)),
        ("uniform", stats.uniform(-0.7 * math.sqrt(3), 1.4 * math.sqrt(3))),
        ("laplace", stats.laplace(0, 0.7 / math.sqrt(2))),
        ("gumbel", stats.gumbel_r(-0.5772156649 * 0.7 * math.sqrt(6) / math.pi, 0.7 * math.sqrt(6) / math.pi)),
        ("student_t", stats.t(3.0, 0, 0.7)),
    ],
)
def test_samples_follow_the_distribution(name: str, law):
    x = sample_noise((4000,), name, 0.7, dtype=torch.float64, generator=seeded(1))
    assert stats.kstest(x.numpy(), law.cdf).pvalue > 1e-3
    if name != "student_t":
        assert law.mean() == pytest.approx(0, abs=1e-9)
        assert law.std() == pytest.approx(0.7)


def test_samples_have_the_dtype_asked_for_and_repeat_with_the_generator():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        draws = [sample_noise((3, 2), "gumbel", 1.0, dtype=dtype, generator=seeded(5)) for _ in range(2)]
        assert draws[0].dtype == dtype
        assert torch.equal(*draws)
    assert sample_noise((0, 3), "student_t", 1.0).shape == (0, 3)
