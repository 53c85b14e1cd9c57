"""Sparsity measures against the formulas as they stand, one operation after the other, and against sorting.

Run: python -m benchmarks.distributions.bench_sparsity [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import Report
from kexue_lib.distributions.sparsity import gini, norm_ratio, renyi_entropy


def eager_ratio(x: Tensor, q: float = 1.0, p: float = 2.0) -> Tensor:
    """The formula on x divided by its maximum, so that no power overflows; one pass for each operation."""
    u = x.abs()
    u = u / u.amax(-1, keepdim=True)
    return u.pow(q).mean(-1).pow(1 / q) / u.pow(p).mean(-1).pow(1 / p)


def unscaled_ratio(x: Tensor) -> Tensor:
    """The formula as it stands: squares of entries above 1.8e19 overflow."""
    return x.abs().mean(-1) / x.square().mean(-1).sqrt()


def two_norms(x: Tensor) -> Tensor:
    """What PyTorch offers: two reductions of their own, no care for overflow."""
    return torch.linalg.vector_norm(x, 1, dim=-1) / torch.linalg.vector_norm(x, dim=-1) / x.shape[-1] ** 0.5


def all_pairs_gini(x: Tensor) -> Tensor:
    x = x.abs()
    return (x[..., :, None] - x[..., None, :]).abs().sum((-1, -2)) / (2 * x.shape[-1] * x.sum(-1))


def textbook_entropy(p: Tensor, alpha: float) -> Tensor:
    return p.pow(alpha).sum(-1).log() / (1 - alpha)


def with_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    x = x.clone().requires_grad_()
    return lambda: torch.autograd.grad(function(x).sum(), x)[0]


def main() -> None:
    torch.manual_seed(0)
    report = Report("Sparsity")
    x = torch.randn(4096, 4096)
    compiled, compiled_formula = torch.compile(norm_ratio), torch.compile(unscaled_ratio)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        report.compare(
            "Norm ratio, (4096, 4096) float32: value",
            {
                "norm_ratio, compiled": lambda: compiled(x),
                "norm_ratio": lambda: norm_ratio(x),
                "scaled formula, eager": lambda: eager_ratio(x),
                "formula without scaling, compiled": lambda: compiled_formula(x),
                "formula without scaling, eager": lambda: unscaled_ratio(x),
                "two vector norms": lambda: two_norms(x),
            },
            baseline="formula without scaling, compiled",
            rounds=21,
        )
        report.compare(
            "Norm ratio, (4096, 4096) float32: value and gradient",
            {
                "norm_ratio, compiled": with_gradient(compiled, x),
                "norm_ratio": with_gradient(norm_ratio, x),
                "scaled formula, eager": with_gradient(eager_ratio, x),
                "formula without scaling, compiled": with_gradient(compiled_formula, x),
                "formula without scaling, eager": with_gradient(unscaled_ratio, x),
                "two vector norms": with_gradient(two_norms, x),
            },
            baseline="formula without scaling, compiled",
            rounds=9,
        )
        report.compare(
            "Norm ratio, other powers, (1024, 4096) float32: value",
            {
                "q = 1/2, p = 2, compiled": lambda: compiled(x[:1024], 0.5, 2.0),
                "q = 1/2, p = 2": lambda: norm_ratio(x[:1024], 0.5, 2.0),
                "scaled formula, eager": lambda: eager_ratio(x[:1024], 0.5, 2.0),
            },
            baseline="scaled formula, eager",
            rounds=9,
        )
    torch.set_num_threads(1)
    for shape in ((1024, 4096), (1, 1_000_000)):
        y = torch.randn(shape)
        report.compare(
            f"Gini, {shape} float32: value",
            {"torch.sort": lambda y=y: torch.sort(y), "gini": lambda y=y: gini(y)},
            baseline="torch.sort",
            rounds=11,
        )
    y = torch.randn(16, 1024)
    report.compare(
        "Gini, (16, 1024) float32: value and gradient",
        {"gini": with_gradient(gini, y), "all pairs": with_gradient(all_pairs_gini, y)},
        baseline="gini",
        rounds=11,
    )
    p = torch.randn(1024, 4096).softmax(-1)
    report.compare(
        "Entropy, (1024, 4096) float32: value",
        {
            "renyi_entropy, α = 1": lambda: renyi_entropy(p),
            "renyi_entropy, α = 2": lambda: renyi_entropy(p, 2.0),
            "torch.special.entr": lambda: torch.special.entr(p).sum(-1),
            "textbook, α = 2": lambda: textbook_entropy(p, 2.0),
        },
        baseline="torch.special.entr",
        rounds=11,
    )
    huge = x[:16] * 1e25
    exact = norm_ratio(huge.double())
    report.number("relative error of norm_ratio, float32, entries of 1e25", relative(norm_ratio(huge), exact))
    report.number("the same of the formula without scaling", relative(unscaled_ratio(huge), exact))
    many = torch.rand(10_000_000)
    exact = norm_ratio(many.double())
    report.number("relative error of norm_ratio, ten million entries", relative(norm_ratio(many), exact))
    report.number("the same compiled", relative(compiled(many), exact))
    lost = torch.linalg.vector_norm(many), torch.linalg.vector_norm(many.double())
    report.number("relative error of torch.linalg.vector_norm, ten million entries", relative(*lost))
    report.finish("distributions/sparsity")


def relative(value: Tensor, exact: Tensor) -> float:
    return ((value.double() - exact) / exact).abs().max().item()


if __name__ == "__main__":
    main()
