"""hippo_discretization beside its peers: SciPy's discretisation, stored step matrices, dense algebra.

Run: python -m benchmarks.recurrence.bench_hippo_discretization [--save]
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.linalg import solve_triangular
from scipy.signal import cont2discrete
from torch import Tensor

from benchmarks.measure import Report
from kexue_lib.recurrence.hippo import hippo_matrices
from kexue_lib.recurrence.hippo_discretization import (
    discretize,
    legs_matvec,
    legs_project_staircase,
    legs_scan,
    legs_solve,
    legs_transition,
)


def stored_steps(N: int, L: int) -> tuple[Tensor, Tensor]:
    """All step matrices of the bilinear rule in float32, as the published HiPPO code keeps them."""
    A, B = (x.numpy() for x in hippo_matrices("legs", N))
    eye = np.eye(N)
    moved, entered = np.empty((L, N, N), np.float32), np.empty((L, N), np.float32)
    for t in range(1, L + 1):
        moved[t - 1] = solve_triangular(eye - A / t / 2, eye + A / t / 2, lower=True)
        entered[t - 1] = solve_triangular(eye - A / t / 2, B / t, lower=True)
    return torch.from_numpy(moved), torch.from_numpy(entered)


def by_stored_steps(u: Tensor, steps: tuple[Tensor, Tensor]) -> Tensor:
    x, out = u.new_zeros(len(u), steps[1].shape[1]), []
    for k, (moved, entered) in enumerate(zip(*steps)):
        x = x @ moved.T + u[:, k, None] * entered
        out.append(x)
    return torch.stack(out, 1)


def streams(report: Report) -> None:
    u, N = torch.randn(16, 10_000, generator=torch.Generator().manual_seed(0)), 64
    steps = stored_steps(N, u.shape[1])
    report.compare(
        "16 streams of 10000 samples, N = 64, all states, float32",
        {
            "stored matrices": lambda: by_stored_steps(u, steps),
            "stored matrices, and building them": lambda: by_stored_steps(u, stored_steps(N, u.shape[1])),
            "legs_scan bilinear": lambda: legs_scan(u, N),
            "legs_scan zoh": lambda: legs_scan(u, N, method="zoh"),
        },
        baseline="stored matrices",
        rounds=25,
        seconds=150,
    )
    long = torch.randn(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    report.compare(
        "One stream of 100000 samples, N = 64, last state",
        {
            "legs_scan zoh": lambda: legs_scan(long, N, method="zoh", return_all=False),
            "legs_project_staircase": lambda: legs_project_staircase(long, N),
        },
        baseline="legs_project_staircase",
        rounds=7,
    )


def algebra(report: Report) -> None:
    for N in (64, 256, 1024):
        A, _ = hippo_matrices("legs", N)
        v = torch.randn(64, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        matrix, columns = torch.eye(N, dtype=torch.float64) - 0.01 * A, v.T.contiguous()
        report.compare(
            f"Solve (I - λA)z = v, 64 right sides, N = {N}",
            {
                "solve_triangular": lambda m=matrix, c=columns: torch.linalg.solve_triangular(m, c, upper=False),
                "legs_solve": lambda v=v: legs_solve(v, 0.01),
            },
            baseline="solve_triangular",
            rounds=201,
        )
        report.compare(
            f"Product Av, 64 vectors, N = {N}",
            {"matrix product": lambda A=A, v=v: v @ A.T, "legs_matvec": lambda v=v: legs_matvec(v)},
            baseline="matrix product",
            rounds=201,
        )


def matrices(report: Report) -> None:
    A, B = hippo_matrices("legt", 64)
    system = (A.numpy(), B.numpy()[:, None], np.eye(64), np.zeros((64, 1)))
    for method in ("bilinear", "zoh"):
        report.compare(
            f"discretize, legt, N = 64, {method}",
            {
                "SciPy cont2discrete": lambda m=method: cont2discrete(system, 0.01, m),
                "discretize": lambda m=method: discretize(A, B, 0.01, m),
            },
            baseline="SciPy cont2discrete",
            rounds=301,
        )
    scaled = hippo_matrices("legs", 64)[0]
    report.compare(
        "r^A, N = 64",
        {
            "torch matrix_exp": lambda: torch.linalg.matrix_exp(scaled * math.log(1.1)),
            "legs_transition": lambda: legs_transition(64, 1.1),
        },
        baseline="torch matrix_exp",
        rounds=301,
    )


def main() -> None:
    torch.set_num_threads(1)
    report = Report("HiPPO, discretised", peers=("numpy", "scipy"))
    streams(report)
    algebra(report)
    matrices(report)
    report.finish("recurrence/hippo_discretization")


if __name__ == "__main__":
    main()
