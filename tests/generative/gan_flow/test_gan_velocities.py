"""gan_flow, flows: finite differences, SciPy's integrator, Gaussian laws by matrix exponentials, equal gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import torch
from opinfo import as_users_call
from torch import nn

from kexue_lib.generative import gan_flow as gf
from kexue_lib.mlp import mlp

WORDS = ("linear", "exp", "saturating", "non_saturating")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def smooth_net(seed: int = 0, inputs: int = 2, outputs: int = 1) -> nn.Module:
    return mlp([inputs, 8, outputs], activation=nn.Tanh, generator=seeded(seed)).double()


@pytest.mark.parametrize("word", WORDS)
def test_velocity_is_the_slope_of_the_transformed_logit(word):
    net, x, e = smooth_net(), normal(5, 2), 1e-5
    got = gf.flow_velocity(net, x, word)
    h, _ = gf.transform(word)
    with torch.no_grad():
        for i in range(2):
            step = e * torch.eye(2, dtype=torch.float64)[i]
            expected = (h(net(x + step)) - h(net(x - step)))[:, 0] / (2 * e)
            torch.testing.assert_close(got[:, i], expected, rtol=1e-6, atol=1e-9)
    assert not got.requires_grad
    assert all(weight.grad is None for weight in net.parameters())


def test_velocity_works_without_a_graph_around_and_keeps_one_on_demand():
    net, x = smooth_net(), normal(3, 2).requires_grad_()
    with torch.no_grad():
        torch.testing.assert_close(gf.flow_velocity(net, x), gf.flow_velocity(net, x))
    assert torch.autograd.gradcheck(lambda x: gf.flow_velocity(net, x, "saturating", create_graph=True), x)
    assert gf.flow_velocity(lambda x: x.flatten(1).sum(1), torch.ones(2, 3, 4)).shape == (2, 3, 4)
    assert gf.flow_velocity(net, x[:0].detach()).shape == (0, 2)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_particles_follow_scipys_solution_at_their_order(method, order):
    A = torch.tensor([[-0.5, 1.0], [-1.0, -0.2]], dtype=torch.float64)
    x = normal(4, 2)
    exact = x @ torch.from_numpy(scipy.linalg.expm(A.numpy())).T
    errors = [
        (gf.particle_flow(x, lambda x, step: x @ A.T, 1 / n, n, method=method)[0] - exact).abs().max() for n in (20, 40)
    ]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)


def test_steps_are_counted_and_states_kept():
    seen = []
    x, kept = gf.particle_flow(torch.zeros(2, 1), lambda x, k: seen.append(k) or x + k, 1.0, 5, record_every=2)
    assert seen == [0, 1, 2, 3, 4]
    assert kept.shape == (3, 2, 1)
    assert torch.equal(kept[0], torch.zeros(2, 1))
    assert kept[1, 0, 0] == 1  # 0, then 0, then 0·2 + 1
    assert gf.particle_flow(x, lambda x, k: x, 1.0, 3)[1] is None
    assert gf.particle_flow(x[:0], lambda x, k: x, 1.0, 3)[0].shape == (0, 1)


def test_gaussian_flow_is_what_the_moment_equations_give():
    """dm = −P(m − μ), dC = −PC − CP + 2I for covariances that do not commute, by SciPy's adaptive integrator."""
    root = normal(3, 3)
    cov, cov0 = root @ root.T + torch.eye(3).double(), torch.diag(torch.tensor([0.1, 1.0, 4.0]).double())
    mean, mean0, P = normal(3, seed=1), normal(3, seed=2), torch.linalg.inv(root @ root.T + torch.eye(3).double())

    def rates(_, y):
        m, C = torch.from_numpy(y[:3]), torch.from_numpy(y[3:].reshape(3, 3))
        return torch.cat([-P @ (m - mean), (-P @ C - C @ P + 2 * torch.eye(3).double()).flatten()]).numpy()

    start = torch.cat([mean0, cov0.flatten()]).numpy()
    end = scipy.integrate.solve_ivp(rates, (0, 0.7), start, rtol=1e-11, atol=1e-12).y[:, -1]
    m, C = gf.gaussian_kl_flow(mean0, cov0, mean, cov, 0.7)
    np.testing.assert_allclose(torch.cat([m, C.flatten()]).numpy(), end, rtol=1e-8, atol=1e-9)
    many = gf.gaussian_kl_flow(mean0, cov0, mean, cov, torch.tensor([0.0, 0.7]).double())
    torch.testing.assert_close(many[0], torch.stack([mean0, m]))
    torch.testing.assert_close(many[1][1], C)


def test_gaussian_kl_of_shared_and_batched_arguments():
    eye = torch.eye(2).double()
    means = normal(5, 2)
    got = gf.gaussian_kl(means, eye.expand(5, 2, 2), torch.zeros(5, 2).double(), 4 * eye.expand(5, 2, 2))
    torch.testing.assert_close(got, (0.5 + means.square().sum(1) / 4 - 2) / 2 + math.log(4))


@pytest.mark.parametrize("word", WORDS)
def test_at_its_own_parameters_regression_has_the_adversarial_gradient_times_two_epsilon(word):
    generator, net, latents, epsilon = smooth_net(1, 3, 2), smooth_net(2), normal(6, 3), 0.07
    x = generator(latents)
    loss = gf.flow_regression_loss(x, gf.flow_target(x, net, epsilon, word))
    regression = torch.autograd.grad(loss, list(generator.parameters()))
    adversarial = torch.autograd.grad(gf.generator_loss(net(generator(latents)), word), list(generator.parameters()))
    for ours, theirs in zip(regression, adversarial, strict=True):
        torch.testing.assert_close(ours, 2 * epsilon * theirs)
    target = gf.flow_target(x, net, epsilon)
    y = x.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: gf.flow_regression_loss(y, target), y)


def test_bad_input_is_refused_by_name():
    x, field = torch.zeros(3, 2), lambda x, step: x
    with as_users_call():
        with pytest.raises(ValueError, match=r"potential: got output of shape \(3, 2\), expected \(3,\) or \(3, 1\)"):
            gf.flow_velocity(lambda x: x, x)
        with pytest.raises(TypeError, match=r"x: got torch\.int64"):
            gf.flow_velocity(lambda x: x.sum(-1), x.long())
        with pytest.raises(ValueError, match="without dimensions"):
            gf.flow_velocity(lambda x: x, torch.tensor(1.0))
        with pytest.raises(ValueError, match="step_size: got 0"):
            gf.particle_flow(x, field, 0, 3)
        with pytest.raises(ValueError, match="steps: got -1"):
            gf.particle_flow(x, field, 0.1, -1)
        with pytest.raises(ValueError, match="method: got 'rk4'"):
            gf.particle_flow(x, field, 0.1, 1, method="rk4")
        with pytest.raises(ValueError, match="record_every"):
            gf.particle_flow(x, field, 0.1, 1, record_every=-1)
        with pytest.raises(TypeError, match=r"x: got torch\.int64"):
            gf.particle_flow(x.long(), field, 0.1, 1)
        with pytest.raises(ValueError, match=r"step_size: got -0\.1"):
            gf.flow_target(x, lambda x: x.sum(-1), -0.1)
        with pytest.raises(ValueError, match=r"target: got shape \(2, 2\)"):
            gf.flow_regression_loss(x, x[:2])
