"""Projections, the optimizer and batches of runs beside their peers.

Run: python -m benchmarks.optimization.bench_sgd_convergence [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import ot
import torch
from entmax import sparsemax
from torch import Tensor

from benchmarks.measure import Report
from kexue_lib.optimization.sgd_convergence import (
    ProjectedSGD,
    online_gradient_descent,
    project_l1_ball,
    project_l2_ball,
    project_simplex,
)


def row_by_row(x: Tensor) -> Tensor:
    """The textbook algorithm for one row, in a loop."""
    count = torch.arange(1, x.shape[-1] + 1)
    rows = []
    for row in x:
        order = row.sort(descending=True).values
        excess = order.cumsum(0) - 1
        m = int((order * count > excess).sum())
        rows.append((row - excess[m - 1] / m).clamp_min(0))
    return torch.stack(rows)


def bisected(x: Tensor, steps: int = 60) -> Tensor:
    """The threshold of all rows by halving an interval."""
    high = x.amax(-1, keepdim=True)
    low = high - 1
    for _ in range(steps):
        middle = (low + high) / 2
        above = (x - middle).clamp_min(0).sum(-1, keepdim=True) >= 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (x - low).clamp_min(0)


def training(params: list[torch.nn.Parameter], kind: Callable[..., torch.optim.Optimizer], **options: object):
    """A step on parameters whose gradients are in place."""
    return kind(params, lr=1e-6, **options).step


def runs(signs: Tensor) -> Tensor:
    """OGD on losses zₜθ in [−1, 1] for all columns of signs (T, runs)."""
    lrs = torch.full((len(signs),), 0.1)
    start = torch.zeros(signs.shape[1], 1)
    step = lambda theta, t: (signs[t] * theta[:, 0], signs[t, :, None])
    return online_gradient_descent(step, start, lrs, project=project_l2_ball).losses


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("SGD, projections and averages", peers=("entmax", "POT"))
    x = torch.randn(4096, 128)
    double = x.double()
    report.compare(
        "Projection onto the simplex, (4096, 128) float32",
        {
            "project_simplex": lambda: project_simplex(x),
            "row by row": lambda: row_by_row(x),
            "bisection, 60 steps": lambda: bisected(x),
            "POT proj_simplex": lambda: ot.utils.proj_simplex(x.T),
            "entmax sparsemax": lambda: sparsemax(x),
            "torch.sort": lambda: torch.sort(x),
            "project_l1_ball": lambda: project_l1_ball(x),
        },
        baseline="project_simplex",
        rounds=31,
        seconds=45.0,
    )
    params = [torch.nn.Parameter(torch.randn(1000, 500)) for _ in range(20)]
    for p in params:
        p.grad = torch.randn_like(p)
    plain = {"torch.optim.SGD, foreach": training(params, torch.optim.SGD, foreach=True)}
    report.compare(
        "One step on 20 matrices, ten million float32",
        plain | {"ProjectedSGD": training(params, ProjectedSGD)},
        baseline="torch.optim.SGD, foreach",
        rounds=61,
    )
    report.compare(
        "The same with an average, or each row projected",
        plain
        | {
            "ProjectedSGD, average": training(params, ProjectedSGD, average="uniform"),
            "ProjectedSGD, project_l2_ball": training(params, ProjectedSGD, projection=project_l2_ball),
        },
        baseline="torch.optim.SGD, foreach",
        rounds=31,
    )
    signs = torch.randint(0, 2, (100, 1000)).float() * 2 - 1
    report.compare(
        "1000 runs of 100 steps",
        {
            "one batch": lambda: runs(signs),
            "run after run": lambda: [runs(signs[:, [r]]) for r in range(1000)],
        },
        baseline="one batch",
        rounds=5,
        warmup=1,
    )
    exact = project_simplex(double)
    report.number("largest error of project_simplex in float32", (project_simplex(x) - exact).abs().max().item())
    million = 1e6 + torch.randint(0, 64, (64, 128)) / 16
    gap = lambda p: (p.double() - project_simplex(million.double())).abs().max().item()
    report.number("the same at entries of a million", gap(project_simplex(million)))
    report.number("row by row at entries of a million", gap(row_by_row(million)))
    report.finish("optimization/sgd_convergence")


if __name__ == "__main__":
    main()
