"""The probability that an entry is the largest after independent noise, by quadrature over the value of the maximum.

With density f and distribution function F of the noise, pᵢ = ∫ f(w − xᵢ) ∏_{j≠i} F(w − xⱼ) dw. One grid of w serves all
entries: ∏_{j≠i} F is the product over all j divided by F(w − xᵢ).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

_FAR = 200.0  # entries this far below the largest win with probability below e^{−200}


def _log_normal_density(v: Tensor) -> Tensor:
    return -0.5 * v.square() - 0.5 * math.log(2 * math.pi)


def _log_logistic_density(v: Tensor) -> Tensor:
    return logsigmoid(v) + logsigmoid(-v)


NOISES: dict[str, tuple[Callable, Callable, float, float]] = {
    "normal": (_log_normal_density, torch.special.log_ndtr, -8.0, 9.5),
    "logistic": (_log_logistic_density, logsigmoid, -25.0, 30.0),
}
"""log f, log F, and where the maximum lies with all but about 1e−11 of the probability, seen from the largest x."""


def winning_probabilities(x: Tensor, noise: str, num_points: int) -> Tensor:
    """p (..., n) of scores in float32 or float64, differentiable; rows are normalised at the end.

    The trapezoidal rule converges exponentially here: the integrand is analytic near the real axis and vanishes at both
    ends. Exponential noise has polynomials for integrands, which Gauss–Legendre nodes integrate exactly.
    """
    gap = x - x.amax(-1, keepdim=True)
    y = torch.where(gap < -_FAR, -_FAR, gap).unsqueeze(-2)  # (..., 1, n)
    if noise == "exponential":
        p = _exponential(y, num_points)
    else:
        log_density, log_distribution, low, high = NOISES[noise]
        w = torch.linspace(low, high, num_points, dtype=x.dtype, device=x.device).unsqueeze(-1)  # (points, 1)
        below = log_distribution(w - y)
        log_terms = log_density(w - y) - below + below.sum(-1, keepdim=True)  # (..., points, n)
        p = log_terms.exp().sum(-2) * ((high - low) / max(num_points - 1, 1))
    p = torch.where(gap == -torch.inf, 0, p)
    return p / p.sum(-1, keepdim=True)


def _exponential(y: Tensor, num_points: int) -> Tensor:
    """pᵢ = a ∫₀¹ ∏_{j≠i} (1 − t aⱼ) dt with a = e^{y}: polynomials of degree n − 1."""
    t, weight = _gauss_legendre(min(num_points, -(-y.shape[-1] // 2)), y)
    factors = (-t * y.exp()).log1p()
    return ((y + factors.sum(-1, keepdim=True) - factors).exp() * weight).sum(-2)


def _gauss_legendre(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights (count, 1) on [0, 1], from the eigenvalues of the Jacobi matrix (Golub and Welsch, 1969)."""
    k = torch.arange(1, count, dtype=torch.float64, device=like.device)
    side = k / (4 * k.square() - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(side, 1) + torch.diag(side, -1))
    return (0.5 * (1 + nodes)).to(like.dtype).unsqueeze(-1), vectors[0].square().to(like.dtype).unsqueeze(-1)


def draw(noise: str, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Independent noise."""
    if noise == "normal":
        return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)
    uniform = torch.rand(shape, dtype=like.dtype, device=like.device, generator=generator)
    uniform = uniform.clamp(torch.finfo(like.dtype).tiny, 1 - torch.finfo(like.dtype).eps / 2)
    if noise == "logistic":
        return uniform.logit()
    exponential = -uniform.log()
    return exponential if noise == "exponential" else -exponential.log()
