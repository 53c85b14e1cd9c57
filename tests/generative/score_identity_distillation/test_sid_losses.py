"""score_identity_distillation, losses: equal values by quadrature, gradients by autograd on the Gaussian laboratory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from opinfo import as_users_call

from kexue_lib.generative import score_identity_distillation as sid
from kexue_lib.generative.score_matching import GaussianMixture


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def quadrature(nodes: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points (z, ε) and weights under which polynomials of two normals integrate exactly."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    x, w = torch.from_numpy(x), torch.from_numpy(w / w.sum())
    z, eps = torch.meshgrid(x, x, indexing="ij")
    return z.flatten(), eps.flatten(), torch.outer(w, w).flatten()


@pytest.mark.parametrize("name", ["l1", "l2", "l3", "lm", "total", "vsd"])
@pytest.mark.parametrize(("m", "s"), [(0.3, 0.25), (-1.0, 1.4), (1.0, 0.5)])
def test_closed_gradients_are_those_of_autograd_under_the_expectation(name, m, s):
    mu, S, a, b = 1.0, 0.5, 0.8, 0.6
    z, eps, w = quadrature()
    leaves = torch.tensor([m, s], dtype=torch.float64, requires_grad=True)
    x_t = a * (leaves[0] + leaves[1] * z) + b * eps
    fixed = leaves if name == "total" else leaves.detach()
    teacher = sid.gaussian_eps(x_t, mu, S**2, a, b)
    student = sid.gaussian_eps(x_t, fixed[0], fixed[1] ** 2, a, b)
    if name == "vsd":
        value = (teacher - student).detach() * x_t
    else:
        value = getattr(sid.sid_terms(teacher, student, eps), "l1" if name == "total" else name)
    (expected,) = torch.autograd.grad((w * value).sum(), leaves)
    got = torch.stack(sid.gaussian_sid_gradients(m, s, mu, S, a, b)[name])
    torch.testing.assert_close(got.double(), expected, rtol=2e-6, atol=1e-8)


def test_for_mixtures_three_forms_have_one_value_and_the_fourth_too():
    """Teacher and generator are mixtures in one dimension, the student is ideal: by a grid in x_t, no sampling."""
    a, b = 0.9, 0.4
    data, ours = (
        GaussianMixture(
            *(torch.tensor(v, dtype=torch.float64) for v in (w, [[u] for u in means], [[[v]] for v in var]))
        )
        for w, means, var in (
            ([0.3, 0.7], [-1.0, 0.8], [0.1, 0.3]),
            ([0.5, 0.2, 0.3], [-0.6, 0.1, 1.4], [0.2, 0.05, 0.1]),
        )
    )
    noised = ours.diffuse(a, b)
    x = torch.linspace(-8, 8, 40001, dtype=torch.float64)[:, None]
    weight = noised.log_prob(x).exp() * (x[1, 0] - x[0, 0])
    teacher = sid.score_to_eps(data.diffuse(a, b).score(x), b)
    student = sid.score_to_eps(noised.score(x), b)
    # E[ε | x_t] = (x_t − a E[x₀ | x_t])/b from the posterior, not from the score; the ε-forms are linear in ε but lm.
    mean = (x - a * ours.posterior_mean(x, a, b)) / b
    second = ((x - a * ours.posterior_mean(x, a, b)) ** 2 + a * a * ours.posterior_covariance(x, a, b)[:, 0]) / b**2
    terms = sid.sid_terms(teacher, student, mean)
    corrected = terms.lm + (second - mean**2)[:, 0]  # E‖ε_φ − ε‖² has the variance of ε given x_t on top
    values = [(weight * v).sum().item() for v in (terms.l1, terms.l2, terms.l3, corrected)]
    assert values == pytest.approx([values[0]] * 4, abs=1e-8)
    assert values[0] > 0.05


def test_forms_of_the_loss_agree():
    teacher, student, x0, x_t = (normal(5, 3, seed=k) for k in range(4))
    a, b = 0.7, torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(9)) + 0.1
    eps = [sid.x0_to_eps(v, x_t, a, b) for v in (teacher, student, x0)]
    for lam in (0.0, 1.2):
        expected = (b / a) ** 2 * sid.sid_loss(*eps, lam=lam)
        torch.testing.assert_close(sid.sid_loss_x0(teacher, student, x0, lam=lam), expected)
    terms = sid.sid_terms(*eps)
    torch.testing.assert_close(sid.sid_loss(*eps, lam=0.3), terms.l2 - 0.3 * terms.l1)
    torch.testing.assert_close(sid.fgm_loss(*eps), 2 * terms.l2 - terms.l1)


def test_conversions_are_inverse_and_take_one_number_or_one_a_sample():
    x0, eps = normal(4, 2, 3), normal(4, 2, 3, seed=1)
    a, b = torch.tensor([0.9, 0.5, 0.2, 0.1]).double(), torch.tensor([0.1, 0.4, 0.8, 1.2]).double()
    x_t = a[:, None, None] * x0 + b[:, None, None] * eps
    torch.testing.assert_close(sid.eps_to_x0(eps, x_t, a, b), x0)
    torch.testing.assert_close(sid.x0_to_eps(x0, x_t, a, b), eps)
    torch.testing.assert_close(sid.score_to_eps(sid.eps_to_score(eps, b), b), eps)
    torch.testing.assert_close(sid.eps_to_score(eps[:1], 2.0), -eps[:1] / 2)
    torch.testing.assert_close(sid.sid_weight(x0, x0), torch.full((4, 1, 1), 1e5).double())
    expected = torch.tensor([1 / (u - v).abs().mean() for u, v in zip(x0, eps, strict=True)]).double()
    torch.testing.assert_close(sid.sid_weight(x0, eps).flatten(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "loss", [sid.sid_loss, sid.fgm_loss, sid.sid_loss_x0, *(lambda *e, k=k: sid.sid_terms(*e)[k] for k in range(4))]
)
def test_losses_have_derivatives(loss):
    eps = tuple(normal(3, 2, seed=k).requires_grad_() for k in range(3))
    assert torch.autograd.gradcheck(loss, eps)


def test_bad_input_is_refused_by_name():
    x = torch.zeros(2, 3)
    with as_users_call():
        with pytest.raises(ValueError, match=r"eps_teacher, eps_student, eps: got shapes \(2, 3\), \(2, 3\), \(2, 2\)"):
            sid.sid_terms(x, x, x[:, :2])
        with pytest.raises(ValueError, match="a: got 0"):
            sid.eps_to_x0(x, x, 0, 1.0)
        with pytest.raises(ValueError, match="b: got -1"):
            sid.eps_to_score(x, -1.0)
        with pytest.raises(ValueError, match=r"b: got shape \(3,\), expected a number or \(2,\)"):
            sid.score_to_eps(x, torch.ones(3))
        with pytest.raises(ValueError, match="a: got 0"):
            sid.gaussian_sid_gradients(0.0, 1.0, 0.0, 1.0, 0.0, 1.0)
