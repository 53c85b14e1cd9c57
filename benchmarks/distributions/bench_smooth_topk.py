"""Smooth Top-k against the naive tree, the sequential recurrence, sorting, and peers.

Run: python -m benchmarks.distributions.bench_smooth_topk [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import ot
import torch
from entmax import budget_bisect
from torch import Tensor

from benchmarks.measure import Report
from kexue_lib.distributions.smooth_topk import (
    grad_topk,
    log_elementary_symmetric,
    log_partition,
    sample_k_subset,
    thre_topk,
    topk_cross_entropy,
)


def naive_tree(x: Tensor, k: int) -> Tensor:
    """log e_k by a tree in log space: for each degree a logsumexp over the sums that make it up."""
    level = torch.stack((torch.zeros_like(x), x), dim=-1)
    while level.shape[-2] > 1:
        a, b = level[..., 0::2, :], level[..., 1::2, :]
        top = level.shape[-1] - 1
        level = torch.stack(
            [
                (a[..., max(0, d - top) : min(d, top) + 1] + b[..., max(0, d - top) : min(d, top) + 1].flip(-1))
                .logsumexp(-1)
                for d in range(min(2 * top, k) + 1)
            ],
            dim=-1,
        )  # fmt: skip
    return level[..., 0, k]


def sequential(x: Tensor, k: int) -> Tensor:
    """log e_k by adding one entry after the other: e_d ← e_d + wᵢ e_{d−1} in log space."""
    e = torch.full((*x.shape[:-1], k + 1), -1e30)
    e[..., 0] = 0
    for value in x.unbind(-1):
        e = torch.cat((e[..., :1], torch.logaddexp(e[..., 1:], e[..., :-1] + value.unsqueeze(-1))), dim=-1)
    return e[..., k]


def marginals(log_e: Callable[[Tensor, int], Tensor], x: Tensor, k: int, create_graph: bool = False) -> Tensor:
    x = x if x.requires_grad else x.clone().requires_grad_()
    return torch.autograd.grad(log_e(x, k).sum(), x, create_graph=create_graph)[0]


def with_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    """Forward and a vector-Jacobian product."""
    x, v = x.clone().requires_grad_(), torch.randn_like(x)
    return lambda: torch.autograd.grad(function(x), x, v)[0]


def sinkhorn_topk(x: Tensor, k: int) -> Tensor:
    """Entropic optimal transport of the entries to the two places "out" and "in" (Xie et al., 2020), row by row."""
    n = x.shape[-1]
    source, target = x.new_full((n,), 1 / n), x.new_tensor([(n - k) / n, k / n])
    scaled = (x - x.amin(-1, keepdim=True)) / (x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True))
    cost = torch.stack((scaled.square(), (scaled - 1).square()), dim=-1)
    return torch.stack([n * ot.sinkhorn(source, target, c, reg=0.05, numItermax=200, warn=False)[:, 1] for c in cost])


def main() -> None:
    torch.manual_seed(0)
    report = Report("Smooth Top-k", peers=("entmax", "POT"))
    torch.set_num_threads(1)
    x, k = torch.randn(64, 1024), 32
    responses = ("sigmoid", "laplace", "minexp", "clip")
    report.compare(
        "GradTopK, (64, 1024), k = 32: p",
        {
            "grad_topk": lambda: grad_topk(x, k),
            "naive logsumexp tree": lambda: marginals(naive_tree, x, k),
            "sequential recurrence": lambda: marginals(sequential, x, k),
            "torch.topk": lambda: torch.topk(x, k),
        },
        baseline="grad_topk",
        rounds=15,
    )
    for order in (k, 512):
        report.compare(
            f"ThreTopK, (64, 1024), k = {order}: p",
            {
                "entmax budget_bisect": lambda order=order: budget_bisect(x, budget=order, dim=-1),
                "torch.sort": lambda: torch.sort(x),
                "torch.topk": lambda order=order: torch.topk(x, order),
                **{f: lambda f=f, order=order: thre_topk(x, order, f) for f in responses},
            },
            baseline="entmax budget_bisect",
            rounds=101,
        )
    thresholds = {f"thre_topk, {f}": lambda x, order, f=f: thre_topk(x, order, f) for f in responses}
    thresholds["entmax budget_bisect"] = lambda x, order: budget_bisect(x, budget=order, dim=-1)
    thresholds["torch.sort"] = lambda x, order: torch.sort(x).values
    report.compare(
        "Every method, (64, 1024), k = 32: p and a vector-Jacobian product",
        {
            "grad_topk": with_gradient(lambda x: grad_topk(x, k), x),
            "sequential recurrence": with_gradient(lambda x: marginals(sequential, x, k, True), x),
            "naive tree": with_gradient(lambda x: marginals(naive_tree, x, k, True), x),
            **{name: with_gradient(lambda x, f=f: f(x, k), x) for name, f in thresholds.items()},
        },
        baseline="grad_topk",
        rounds=31,
        seconds=60,
    )
    for order in (k, 512):
        report.compare(
            f"Every response, (64, 1024), k = {order}: p and a vector-Jacobian product",
            {name: with_gradient(lambda x, f=f, order=order: f(x, order), x) for name, f in thresholds.items()},
            baseline="entmax budget_bisect",
            rounds=201,
        )
    report.compare(
        "One row of 1024, k = 32: p",
        {
            "grad_topk": lambda: grad_topk(x[:1], k),
            "thre_topk": lambda: thre_topk(x[:1], k),
            "POT Sinkhorn": lambda: sinkhorn_topk(x[:1], k),
        },
        baseline="grad_topk",
    )
    target = torch.randint(1024, (64,))
    report.compare(
        "The others, (64, 1024), k = 32",
        {
            "grad_topk": lambda: grad_topk(x, k),
            "log_partition": lambda: log_partition(x, k),
            "log_elementary_symmetric": lambda: log_elementary_symmetric(x, k),
            "topk_cross_entropy": lambda: topk_cross_entropy(x, target, k),
            "sample_k_subset, 1 sample": lambda: sample_k_subset(x, k, 1),
        },
        baseline="grad_topk",
        rounds=9,
    )
    for shape, order in (((256, 64), 2), ((64, 1024), 512), ((4, 10_000), 100)):
        y = torch.randn(shape)
        report.compare(
            f"GradTopK, {shape}, k = {order}: p",
            {"torch.sort": lambda y=y: torch.sort(y), "grad_topk": lambda y=y, order=order: grad_topk(y, order)},
            baseline="torch.sort",
            rounds=9,
        )
    p = sinkhorn_topk(x[:1], k)
    report.number("largest value of POT Sinkhorn's p (reg 0.05, 200 iterations)", p.max().item())
    report.number("|Σp − k| of grad_topk, float32, (64, 1024)", (grad_topk(x, k).sum(-1) - k).abs().max().item())
    exact = grad_topk(x.double(), k)
    report.number("|p − p in float64| of grad_topk, float32", (grad_topk(x, k) - exact).abs().max().item())
    naive = marginals(naive_tree, x, k)
    report.number("|p − p in float64| of the naive tree, float32", (naive - exact).abs().max().item())
    report.finish("distributions/smooth_topk")


if __name__ == "__main__":
    main()
