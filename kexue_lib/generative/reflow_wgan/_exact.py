"""Velocities and critics in closed form: Gaussians, mixtures, and the best critic between two Gaussians of a line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_broadcast, check_dtype, check_integer, check_number, check_shape
from kexue_lib._autocast import without_autocast

if TYPE_CHECKING:
    from kexue_lib.generative.score_matching import GaussianMixture


@without_autocast
def gaussian_velocity(
    x: Float[Tensor, "*batch d"],
    t: float | Tensor,
    mean0: Float[Tensor, " d"],
    cov0: Float[Tensor, "d d"],
    mean1: Float[Tensor, " d"],
    cov1: Float[Tensor, "d d"],
) -> Float[Tensor, "*batch d"]:
    r"""Velocity of the rectified flow between two independent Gaussians.

    .. math:: v^*(x,t)=(m_1-m_0)+\big(tC_1-(1-t)C_0\big)C_t^{-1}(x-m_t),\qquad C_t=(1-t)^2C_0+t^2C_1

    Args:
        x: points (..., d).
        t: times in [0, 1], a number or one for each point (...).
        mean0: mean (d,) at t = 0.
        cov0: covariance (d, d) at t = 0, symmetric and positive definite.
        mean1: mean (d,) at t = 1.
        cov1: covariance (d, d) at t = 1, symmetric and positive definite.

    Returns:
        Velocities (..., d); at the ends m₁ − x and x − m₀.

    Raises:
        TypeError: integers.
        ValueError: shapes that do not fit, a time outside [0, 1] (checked on the CPU).

    Cost: one solve of a d × d system, O(d³), for one time; for a time of each point one for each point.

    >>> zero, one = torch.zeros(1), torch.eye(1)
    >>> gaussian_velocity(torch.tensor([[3.0]]), 0.0, zero, one, zero + 1, 4 * one)
    tensor([[-2.]])
    """
    t = _times(x, t)
    d = x.shape[-1]
    for name, value, shape in (("mean0", mean0, (d,)), ("cov0", cov0, (d, d)), ("mean1", mean1, (d,))):
        check_dtype(name, value, "floating")
        check_shape(name, value, shape, "as x has width d")
    check_dtype("cov1", cov1, "floating")
    check_shape("cov1", cov1, (d, d), "as x has width d")
    s, t, wide = 1 - t[..., None], t[..., None], t[..., None, None]
    covariance = (1 - wide).square() * cov0 + wide.square() * cov1
    # Symmetric factors: (C⁻¹B)ᵀ = BC⁻¹; and the system does not grow with the number of points.
    gain = torch.linalg.solve(covariance, wide * cov1 - (1 - wide) * cov0).mT
    return mean1 - mean0 + (gain @ (x - s * mean0 - t * mean1)[..., None])[..., 0]


@without_autocast
def mixture_velocity(
    x: Float[Tensor, "*batch d"], t: float | Tensor, mixture: GaussianMixture
) -> Float[Tensor, "*batch d"]:
    r"""Velocity of the rectified flow from N(0, I) to an independent mixture.

    With the responsibilities :math:`r_k` of the components of :math:`x_t`,

    .. math:: v^*(x,t)=\sum_kr_k\Big(\mu_k+\big(tC_k-(1-t)I\big)\big((1-t)^2I+t^2C_k\big)^{-1}(x-t\mu_k)\Big)

    It equals :math:`(E[x_1\mid x_t]-x)/(1-t)` where t < 1, without that quotient's 0/0 at the end.

    Args:
        x: points (..., d).
        t: times in [0, 1], a number or one for each point (...).
        mixture: the law at t = 1, a `GaussianMixture` of K components.

    Returns:
        Velocities (..., d): the mixture's mean minus x at t = 0, and x at t = 1.

    Raises:
        TypeError: integers.
        ValueError: shapes that do not fit, a time outside [0, 1] (checked on the CPU).

    Cost: O(Kd³) and O(Kd²) for each point. Gradients flow to the points.

    >>> from kexue_lib.generative.score_matching import GaussianMixture
    >>> ring = GaussianMixture.ring()
    >>> mixture_velocity(torch.tensor([[3.0, 0.0]]), 1.0, ring)
    tensor([[3., 0.]])
    """
    t = _times(x, t)
    check_shape("mixture.means", mixture.means, ("K", x.shape[-1]), "as x has width d")
    values, vectors = torch.linalg.eigh(mixture.covariances.to(x.dtype))
    means, t = mixture.means.to(x.dtype), t[..., None, None]
    along = torch.einsum("...kd,kde->...ke", x[..., None, :] - t * means, vectors)
    variances = (1 - t).square() + t.square() * values
    log_parts = mixture.weights.to(x.dtype).log() - (along.square() / variances + variances.log()).sum(-1) / 2
    parts = means + torch.einsum("...ke,kde->...kd", (t * values - (1 - t)) / variances * along, vectors)
    return (log_parts.softmax(-1)[..., None] * parts).sum(-2)


def rho_bar_gaussian(
    x: Float[Tensor, "*shape"], m0: float, s0: float, m1: float, s1: float, nodes: int = 64
) -> Float[Tensor, "*shape"]:
    r"""Density :math:`\bar\rho=\int_0^1p_{x_t}\,dt` of the interpolates of two independent Gaussians of a line.

    Args:
        x: points, any shape.
        m0: mean at t = 0.
        s0: standard deviation at t = 0, above 0.
        m1: mean at t = 1.
        s1: standard deviation at t = 1, above 0.
        nodes: Gauss–Legendre nodes in t, at least 1 (default 64).

    Returns:
        The density at x.

    Raises:
        TypeError: integers as x.
        ValueError: a deviation or a number of nodes outside.

    Cost: O(nodes) for each point. Not for torch.compile: the nodes come from NumPy.

    >>> rho_bar_gaussian(torch.zeros(1, dtype=torch.float64), 0.0, 1.0, 0.0, 1.0)
    tensor([0.4973], dtype=torch.float64)
    """
    log_parts, *_ = _log_parts(x, m0, s0, m1, s1, nodes)
    return log_parts.logsumexp(-1).exp()


def optimal_critic_gradient_gaussian(
    x: Float[Tensor, "*shape"], m0: float, s0: float, m1: float, s1: float, nodes: int = 64
) -> Float[Tensor, "*shape"]:
    r"""Gradient :math:`D'=(F_0-F_1)/\bar\rho` of the best critic between two independent Gaussians of a line.

    On a line this is :math:`E[x_1-x_0\mid x_t=x]` with t random too, the mean of :math:`v^*(x,t)` with weights
    :math:`p_{x_t}(x)`. So it is computed: the quotient would be 0/0 in the tails.

    Args:
        x: points, any shape.
        m0: mean at t = 0.
        s0: standard deviation at t = 0, above 0.
        m1: mean at t = 1.
        s1: standard deviation at t = 1, above 0.
        nodes: Gauss–Legendre nodes in t, at least 1 (default 64).

    Returns:
        The gradient at x, for the penalty's weight 1/2; for another weight divide by twice the weight.

    Raises:
        TypeError: integers as x.
        ValueError: a deviation or a number of nodes outside.

    Cost: O(nodes) for each point. Not for torch.compile: the nodes come from NumPy.

    >>> x = torch.tensor([0.5, 60.0], dtype=torch.float64)
    >>> [round(v, 3) for v in optimal_critic_gradient_gaussian(x, 0.0, 1.0, 1.0, 1.0).tolist()]
    [0.808, 60.0]
    """
    log_parts, t, centred, variance = _log_parts(x, m0, s0, m1, s1, nodes)
    velocity = m1 - m0 + (t * s1**2 - (1 - t) * s0**2) / variance * centred
    return (log_parts.softmax(-1) * velocity).sum(-1)


def _log_parts(
    x: Tensor, m0: float, s0: float, m1: float, s1: float, nodes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each node: log of its weight times the density at x, its time, x − m_t and the variance."""
    check_dtype("x", x, "floating")
    for name, value in (("m0", m0), ("m1", m1)):
        check_number(name, value, above=-math.inf, below=math.inf)
    for name, value in (("s0", s0), ("s1", s1)):
        check_number(name, value, above=0, below=math.inf)
    check_integer("nodes", nodes, 1)
    points, weights = np.polynomial.legendre.leggauss(nodes)
    t = torch.as_tensor((points + 1) / 2, dtype=x.dtype, device=x.device)
    weights = torch.as_tensor(weights / 2, dtype=x.dtype, device=x.device)
    centred = x[..., None] - ((1 - t) * m0 + t * m1)
    variance = ((1 - t) * s0).square() + (t * s1).square()
    log_density = -(centred.square() / variance + (2 * math.pi * variance).log()) / 2
    return weights.log() + log_density, t, centred, variance


def _times(x: Tensor, t: float | Tensor) -> Tensor:
    check_dtype("x", x, "floating")
    check_shape("x", x, ("...", "d"))
    check_number("t", t, least=0, most=1)
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    check_broadcast("t", t, x.shape[:-1], "x.shape[:-1]")
    return t
