"""gan_flow, losses: PyTorch's own, optima found by search, convexity, the divergences by quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from opinfo import as_users_call
from scipy import integrate, optimize

from kexue_lib.generative import gan_flow as gf
from kexue_lib.optimization.gradient_flow import fdiv_weight

WORDS = ("linear", "exp", "saturating", "non_saturating")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_logistic_losses_are_torchs():
    real, fake = torch.randn(7, generator=seeded(0)) * 3, torch.randn(5, generator=seeded(1)) * 3
    bce = F.binary_cross_entropy_with_logits
    expected = bce(real, torch.ones(7)) + bce(fake, torch.zeros(5))
    torch.testing.assert_close(gf.discriminator_loss(real, fake), expected)
    torch.testing.assert_close(gf.generator_loss(fake), bce(fake, torch.ones(5)))
    torch.testing.assert_close(gf.generator_loss(fake, "saturating"), -bce(fake, torch.zeros(5)))


@pytest.mark.parametrize(
    ("kind", "best"), [("logistic", math.log(0.7 / 0.2)), ("least_squares", 0.7 / 0.9), ("hinge", 1.0)]
)
def test_where_a_discriminator_is_best(kind, best):
    """Seven samples of data and two generated ones in one place: the best common logit, by search."""

    def loss(logit):
        logit = torch.tensor(logit, dtype=torch.float64)
        return (gf.discriminator_loss(logit.expand(7), torch.tensor(0.0).double().expand(1), kind) * 7).item() + (
            gf.discriminator_loss(torch.tensor(0.0).double().expand(1), logit.expand(2), kind) * 2
        ).item()

    assert optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("kind", ["logistic", "hinge", "least_squares"])
def test_losses_have_derivatives(kind):
    real, fake = (torch.randn(4, dtype=torch.float64, generator=seeded(s)).requires_grad_() for s in (0, 1))
    assert torch.autograd.gradcheck(lambda r, f: gf.discriminator_loss(r, f, kind), (real, fake))


@pytest.mark.parametrize("word", WORDS)
def test_the_slope_is_the_derivative_and_positive(word):
    h, slope = gf.transform(word)
    x = torch.linspace(-5, 5, 41, dtype=torch.float64).requires_grad_()
    (derivative,) = torch.autograd.grad(h(x).sum(), x)
    torch.testing.assert_close(slope(x.detach()), derivative)
    assert (derivative > 0).all()
    assert torch.autograd.gradcheck(lambda x: gf.generator_loss(x, word), x)


@pytest.mark.parametrize("word", ["linear", "saturating", "non_saturating"])
def test_huge_logits_in_bfloat16_stay_finite(word):
    x = torch.tensor([-1e4, 0.0, 1e4], dtype=torch.bfloat16, requires_grad=True)
    loss = gf.generator_loss(x, word)
    loss.backward()
    assert loss.dtype == torch.bfloat16
    assert loss.isfinite()
    assert x.grad.isfinite().all()


DIVERGENCES = {
    "linear": lambda u: u * np.log(u),
    "exp": lambda u: -np.log(u),
    "saturating": lambda u: u * np.log(u) - (u + 1) * np.log(u + 1),
    "non_saturating": lambda u: (1 + u) * np.log(1 + u),
}


@pytest.mark.parametrize("word", WORDS)
def test_the_flow_descends_its_divergence_by_its_dissipation(word):
    """d/dt ∫ p f(q/p) = −E_q |h'(log r) (log r)'|²: both sides by quadrature, the left one by moving the Gaussian."""
    p = lambda x: np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    m, s = 0.8, 0.9
    h_slope = lambda d: gf.transform(word)[1](torch.tensor(d, dtype=torch.float64)).item()
    log_r = lambda x: -(x**2) / 2 + (x - m) ** 2 / (2 * s * s) + math.log(s)
    velocity = lambda x: h_slope(log_r(x)) * (-x + (x - m) / s**2)

    def q(x):
        return np.exp(-((x - m) ** 2) / (2 * s * s)) / (s * math.sqrt(2 * math.pi))

    def slope(function, x, e=1e-4):
        return (function(x - 2 * e) - 8 * function(x - e) + 8 * function(x + e) - function(x + 2 * e)) / (12 * e)

    rate = lambda x: -slope(lambda y: q(y) * velocity(y), x)
    f_slope = lambda u: slope(DIVERGENCES[word], u, 1e-4 * u)
    change = integrate.quad(lambda x: f_slope(q(x) / p(x)) * rate(x), -7, 8, limit=200)[0]
    dissipation = integrate.quad(lambda x: q(x) * velocity(x) ** 2, -7, 8, limit=200)[0]
    assert change == pytest.approx(-dissipation, rel=1e-5)


@pytest.mark.parametrize("word", WORDS)
def test_second_derivative_of_the_divergence(word):
    u = np.geomspace(0.1, 10, 9).astype(np.longdouble)
    e, f = 1e-3 * u, DIVERGENCES[word]
    second = (-f(u - 2 * e) + 16 * f(u - e) - 30 * f(u) + 16 * f(u + e) - f(u + 2 * e)) / (12 * e * e)
    got = gf.f_from_h(gf.transform(word)[1], torch.from_numpy(u.astype(float)))
    np.testing.assert_allclose(got.numpy(), second.astype(float), rtol=1e-8)


def test_the_other_chapters_weights_are_the_same_up_to_a_factor():
    """There f belongs to ∫ q f(p/q), so KL(q‖p) is "reverse_kl" there and "linear" here."""
    log_r = torch.linspace(-3, 3, 7, dtype=torch.float64)
    for word, kind, factor in (("linear", "reverse_kl", 1), ("exp", "kl", 1), ("saturating", "js", 2)):
        torch.testing.assert_close(gf.transform(word)[1](log_r), factor * fdiv_weight(log_r, kind))


def test_bad_input_is_refused_by_name():
    x = torch.zeros(3)
    with as_users_call():
        with pytest.raises(ValueError, match="kind: got 'hinge'"):
            gf.generator_loss(x, "hinge")
        with pytest.raises(ValueError, match="kind: got 'bce', expected 'logistic'"):
            gf.discriminator_loss(x, x, "bce")
        with pytest.raises(TypeError, match=r"fake_logits: got torch.int64"):
            gf.generator_loss(torch.zeros(3, dtype=torch.int64))
        with pytest.raises(ValueError, match="u: got 0"):
            gf.f_from_h(torch.ones_like, x)
