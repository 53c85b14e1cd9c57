"""Sums of powers fitted in log space with Huber's loss: many starts and many resamples as one batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_TOLERANCE, _LEAST_DAMPING = 1e-12, 1e-8


def fit_log_sum(
    terms: Float[Tensor, "t m p"],
    target: Float[Tensor, "m"],
    start: Float[Tensor, "s p"],
    delta: float,
    weights: Float[Tensor, "#s m"],
    steps: int = 1000,
) -> tuple[Float[Tensor, "s p"], Float[Tensor, "s"]]:
    """Minimise Σᵢ wᵢ Huber_δ(log Σₜ exp((terms θ)ₜᵢ) − targetᵢ) from every start.

    A Gauss–Newton step has the matrix Jᵀ diag(wᵢ 1{|rᵢ| ≤ δ}) J, singular while few residuals lie within δ; that of
    reweighted least squares, Jᵀ diag(wᵢ min(1, δ/|rᵢ|)) J, descends slowly. The matrix used is the first plus μ times
    the second, and μ goes down tenfold after a step that descends, and up after one that does not.

    Guards: 1e-12 of the largest diagonal entry is added to the diagonal, no coordinate of θ moves by more than 2 in a
    step, and a problem is given up after steps in vain have raised μ to 1e6.

    Args:
        terms: logarithms of the summands as linear functions of θ.
        target: logarithms of the data.
        start: θ of each problem.
        delta: Huber's δ.
        weights: of the points, one row for all problems or one for each.
        steps: at most; problems that have converged are left out earlier.

    Returns:
        θ and the objective of each problem.

    Cost: a step is O(s t m p + s m p²) for the problems still moving.
    """
    theta, weights = start.clone(), weights.expand(len(start), -1)
    value = torch.empty_like(theta[:, 0])
    index, here, w = torch.arange(len(theta), device=theta.device), theta, weights
    best, residual, jacobian = _objective(terms, target, here, delta, w)
    mu = torch.ones_like(value)
    for _ in range(steps):
        size = residual.abs()
        reweighted = w * (delta / size.clamp(min=delta))
        gradient = ((reweighted * residual)[:, None] @ jacobian)[:, 0]
        curve = w * (size <= delta) + mu[:, None] * reweighted
        matrix = (jacobian * curve[..., None]).mT @ jacobian
        # A summand that has died out leaves a row of zeros, so the floor is relative to the whole and not to that row.
        floor = matrix.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True) * 1e-12 + 1e-30
        matrix.diagonal(dim1=-2, dim2=-1).add_(floor)
        step = torch.linalg.solve_ex(matrix, gradient)[0]
        trial = here - step.clamp(-2, 2).nan_to_num(0.0)
        found, new_residual, new_jacobian = _objective(terms, target, trial, delta, w)
        better = found < best
        settled = better & (best - found <= _TOLERANCE * best) & (mu <= 1e-2)
        keep = ~(settled | (~better & (mu >= 1e6)))
        here, best = torch.where(better[:, None], trial, here), torch.where(better, found, best)
        theta[index], value[index] = here, best
        residual = torch.where(better[:, None], new_residual, residual)
        jacobian = torch.where(better[:, None, None], new_jacobian, jacobian)
        mu = torch.where(better, mu / 10, mu * 10).clamp(_LEAST_DAMPING, 1e12)
        if not keep.all():
            index, here, w, best, residual, jacobian, mu = (
                v[keep] for v in (index, here, w, best, residual, jacobian, mu)
            )
            if not len(index):
                break
    return theta, value


def _objective(
    terms: Tensor, target: Tensor, theta: Tensor, delta: float, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The weighted sum of Huber losses ``(s,)``, the residuals ``(s, m)`` and their derivatives ``(s, m, p)``."""
    logs = (theta @ terms.flatten(0, 1).T).unflatten(-1, terms.shape[:2])
    total = torch.logsumexp(logs, 1)
    residual = total - target
    size = residual.abs()
    huber = torch.where(size <= delta, residual.square() / 2, delta * (size - delta / 2))
    jacobian = ((logs - total[:, None]).exp()[..., None] * terms).sum(1)
    return (weights * huber).sum(-1), residual, jacobian


def bootstrap_weights(n: int, m: int, generator: torch.Generator | None) -> Float[Tensor, "n m"]:
    """Return how often each of m points is drawn in m draws with replacement, for n resamples."""
    drawn = torch.randint(m, (n, m), generator=generator)
    return torch.zeros(n, m, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(n, m, dtype=torch.float64))
