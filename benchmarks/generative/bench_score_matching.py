"""Scores of a mixture at many noise levels and scores from samples, beside the textbook forms and torch.distributions.

Run: python -m benchmarks.generative.bench_score_matching [--save]
"""

from __future__ import annotations

import torch
from torch import Tensor, distributions

from benchmarks.measure import Report
from kexue_lib.generative.score_matching import GaussianMixture, VPSchedule, score_from_samples


def dense_mixture(modes: int, dim: int) -> GaussianMixture:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    roots = draw(modes, dim, dim) / dim**0.5
    covariances = roots @ roots.mT + 0.1 * torch.eye(dim, dtype=torch.float64)
    return GaussianMixture(draw(modes).exp(), draw(modes, dim), covariances)


def refactored_score(mixture: GaussianMixture, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """One Cholesky factorisation of each component at each noise level."""
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    roots = torch.linalg.cholesky(alpha**2 * mixture.covariances + sigma**2 * eye)
    centred = (x - alpha * mixture.means[:, None]).mT  # (K, d, B): one factor serves all points
    white = torch.linalg.solve_triangular(roots, centred, upper=False)
    logs = -white.square().sum(1) / 2 - roots.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
    parts = torch.linalg.solve_triangular(roots.mT, white, upper=True)
    return -torch.einsum("kb,kdb->bd", (mixture.weights.log()[:, None] + logs).softmax(0), parts)


def torch_score(mixture: GaussianMixture, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """torch.distributions with autograd."""
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    parts = distributions.MultivariateNormal(
        alpha * mixture.means, alpha**2 * mixture.covariances + sigma**2 * eye, validate_args=False
    )
    law = distributions.MixtureSameFamily(distributions.Categorical(mixture.weights), parts, validate_args=False)
    x = x.clone().requires_grad_()
    return torch.autograd.grad(law.log_prob(x).sum(), x)[0]


def broadcast_score(x: Tensor, y: Tensor, alpha: float, sigma: float) -> Tensor:
    """The ratio of means with all differences written out, (B, n, d)."""
    difference = alpha * y - x[:, None]
    weights = (-difference.square().sum(-1) / (2 * sigma**2)).softmax(1)
    return (weights[..., None] * difference).sum(1) / sigma**2


def main() -> None:
    torch.set_num_threads(1)
    report = Report("Score matching")
    mixture, schedule = dense_mixture(8, 64), VPSchedule()
    levels = [(schedule.alpha(t), schedule.sigma(t)) for t in torch.linspace(1e-3, 1, 100, dtype=torch.float64)]
    for points in (1, 16, 256):
        x = mixture.sample(points, torch.Generator().manual_seed(1))
        report.compare(
            f"Score of a mixture at 100 noise levels, {points} point{'s' if points > 1 else ''}, 8 modes, d = 64",
            {
                "GaussianMixture": lambda x=x: [mixture.diffuse(*level).score(x) for level in levels],
                "Cholesky at each level": lambda x=x: [refactored_score(mixture, x, *level) for level in levels],
                "torch.distributions, autograd": lambda x=x: [torch_score(mixture, x, *level) for level in levels],
            },
            baseline="GaussianMixture",
            rounds=9,
            warmup=1,
        )
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(256, 64, generator=generator), torch.randn(1797, 64, generator=generator)
    report.compare(
        "Score from 1797 samples at 256 points, d = 64, float32",
        {
            "score_from_samples": lambda: score_from_samples(x, y, 0.8, 0.5),
            "score_from_samples, chunks of 256": lambda: score_from_samples(x, y, 0.8, 0.5, chunk_size=256),
            "all differences": lambda: broadcast_score(x, y, 0.8, 0.5),
        },
        baseline="score_from_samples",
        rounds=15,
    )
    near, exact = y[:256] + 1e-3 * x, (y[:256].double() - (y[:256] + 1e-3 * x).double()) / 1e-6
    error = (score_from_samples(near, y, 1.0, 1e-3).double() - exact).abs().max() / exact.abs().max()
    report.number("largest relative error of score_from_samples, float32, σ = 0.001", error.item())
    report.finish("generative/score_matching")


if __name__ == "__main__":
    main()
