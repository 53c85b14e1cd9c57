"""Pair sums beside (n, n, d) broadcasting, chains beside a loop by hand, the grid beside explicit Euler.

Run: python -m benchmarks.optimization.bench_gradient_flow [--save]
"""

from __future__ import annotations

import math
import resource

import torch
from torch import Tensor

from benchmarks.measure import Report
from kexue_lib.optimization.gradient_flow import fokker_planck_1d, kde_score, langevin, svgd_velocity

MANY = 50_000
CELLS, END, EULER_STEPS = 241, 1.0, 10_000


def log_normal(x: Tensor) -> Tensor:
    return -x.square().sum(-1) / 2


def broadcast(x: Tensor, score: Tensor, bandwidth: float | None) -> Tensor:
    """The formula on all differences at once."""
    difference = x[:, None] - x
    square = difference.square().sum(-1)
    if bandwidth is None:
        i, j = torch.triu_indices(len(x), len(x), 1)
        bandwidth = square[i, j].median() / math.log(len(x) + 1)
    kernel = torch.exp(-square / bandwidth)
    return (kernel @ score + 2 / bandwidth * (difference * kernel[..., None]).sum(1)) / len(x)


def chain_by_hand(x: Tensor, step: float, n_steps: int) -> Tensor:
    scale = math.sqrt(2 * step)
    for _ in range(n_steps):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(log_normal(x).sum(), x)
        x = x.detach() + step * slope + scale * torch.randn_like(x)
    return x


def explicit_euler(potential: Tensor, q: Tensor, dx: float) -> Tensor:
    """The same jump rates, forward in time."""
    up, down = (torch.exp(sign * potential.diff() / 2) / dx**2 for sign in (-1, 1))
    h = END / EULER_STEPS
    q = q.clone()
    for _ in range(EULER_STEPS):
        current = h * (up * q[:-1] - down * q[1:])
        q[:-1] -= current
        q[1:] += current
    return q


def measure_memory(report: Report) -> None:
    """First of all, while the peak of the process is still low; then the same calls for their times."""
    x = torch.randn(MANY, 2)
    calls = {
        "kde_score": lambda: kde_score(x, 0.2),
        "svgd_velocity, median bandwidth": lambda: svgd_velocity(x, -x),
    }
    for name, call in calls.items():
        call()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        report.number(f"MB of the whole process at its peak, {MANY} particles, after {name}", peak)
    report.compare(
        f"All pairs of {MANY} particles, d = 2, float32; the whole process stays below {math.ceil(peak)} MB",
        calls,
        baseline="kde_score",
        rounds=3,
        warmup=0,
    )


def compare_pairs(report: Report) -> None:
    x = torch.randn(4000, 16)
    for words, bandwidth in (("bandwidth given", 32.0), ("median bandwidth", None)):
        report.compare(
            f"Stein's direction of 4000 particles, d = 16, float32, {words}",
            {
                "svgd_velocity": lambda h=bandwidth: svgd_velocity(x, -x, bandwidth=h),
                "broadcasting (n, n, d)": lambda h=bandwidth: broadcast(x, -x, h),
            },
            baseline="svgd_velocity",
            rounds=9,
            warmup=1,
        )
        gap = svgd_velocity(x, -x, bandwidth=bandwidth) - broadcast(x, -x, bandwidth)
        report.number(f"largest difference of the two, {words}", gap.abs().max().item())


def compare_chains(report: Report) -> None:
    for chains, dim in ((1, 10), (4000, 16)):
        x = torch.zeros(chains, dim)
        report.compare(
            f"200 Langevin steps of {chains} chain{'s' * (chains > 1)}, d = {dim}",
            {
                "langevin": lambda x=x: langevin(log_normal, x, step=0.1, n_steps=200),
                "loop by hand": lambda x=x: chain_by_hand(x, 0.1, 200),
            },
            baseline="langevin",
            rounds=31,
        )


def compare_grids(report: Report) -> None:
    x = torch.linspace(-2.5, 2.5, CELLS, dtype=torch.float64)
    dx = 5 / (CELLS - 1)
    potential = (x**2 - 1) ** 2
    q0 = torch.exp(-((x + 1) ** 2) / 0.02)
    q0 /= q0.sum() * dx
    times = torch.linspace(0, END, 101, dtype=torch.float64)
    report.compare(
        f"Fokker-Planck on {CELLS} cells, double well, to t = {END:g}",
        {
            "fokker_planck_1d, 101 times": lambda: fokker_planck_1d(potential, q0, dx, times),
            f"explicit Euler, {EULER_STEPS} steps": lambda: explicit_euler(potential, q0, dx),
        },
        baseline="fokker_planck_1d, 101 times",
        rounds=9,
    )
    exact = fokker_planck_1d(potential, q0, dx, times)[-1]
    report.number(
        "largest difference of the two densities", (exact - explicit_euler(potential, q0, dx)).abs().max().item()
    )
    report.number("Euler's step over dx²/2", END / EULER_STEPS / (dx**2 / 2))


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("Gradient flow")
    measure_memory(report)
    compare_chains(report)
    compare_grids(report)
    compare_pairs(report)
    report.finish("optimization/gradient_flow")


if __name__ == "__main__":
    main()
