"""The least base for RoPE beside the article's grid search, and its time from 1024 to 1048576 positions.

Run: python -m benchmarks.positions.bench_rope_base_bound [--save]

The grid is the article's: five passes of 10, …, 100000 bases on (0, B], B = 1000·L at first and then the least base of
the pass before that serves. It is in PyTorch here, as it is in JAX there. A fairer rival leaves each base at its first
negative gap, which `max_context_length` finds; of either a hundredth of the grid is timed at L = 4096, spread over the
range of the last pass, which holds nine bases in ten.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from benchmarks.measure import Report
from kexue_lib.positions.rope_base_bound import (
    certified_min_bases,
    max_context_length,
    min_base,
    similarity_gap_range,
)

DIM = 128
GRID = sum(10**k for k in range(1, 6))
EXPONENTS = torch.arange(0, DIM, 2, dtype=torch.float64) / DIM


def direct_gaps(base: float, length: int) -> Tensor:
    positions = torch.arange(length, dtype=torch.float64)
    return (positions.unsqueeze(1) * base**-EXPONENTS).cos().sum(1)


def grid_search(length: int) -> float:
    best = 1000.0 * length
    for k in range(1, 6):
        bases = (torch.linspace(0, 1, 10**k + 1, dtype=torch.float64)[1:] * best).tolist()
        worst = [direct_gaps(base, length).min().item() for base in bases]
        best = next((base for base, gap in zip(bases, worst) if gap >= 0), best)
    return best


LAST_PASS = torch.linspace(1, 27_000, GRID // 100, dtype=torch.float64).tolist()


def part_of_grid(length: int) -> list[float]:
    return [direct_gaps(base, length).min().item() for base in LAST_PASS]


def part_of_grid_with_exit(length: int) -> list[int | None]:
    return [max_context_length(base, DIM, limit=length) for base in LAST_PASS]


def against_the_grid(report: Report) -> None:
    names = {
        "all": "the article's grid, all 111110 bases",
        "part": "the article's grid, 1111 of 111110 bases",
        "exit": "the same bases, each left at its first negative gap",
    }
    report.compare(
        "least base, L = 128, d = 128",
        {"min_base": lambda: min_base(128), names["all"]: lambda: grid_search(128)},
        baseline="min_base",
        rounds=5,
        warmup=0,
    )
    report.compare(
        "least base, L = 4096, d = 128",
        {
            "min_base": lambda: min_base(4096),
            names["part"]: lambda: part_of_grid(4096),
            names["exit"]: lambda: part_of_grid_with_exit(4096),
        },
        baseline="min_base",
        rounds=9,
        warmup=1,
    )
    for timing in report.comparisons[-1].timings[1:]:
        report.number(f"L = 4096: 100 times {timing.name}, over min_base's time", 100 * timing.ratio)
    report.number("L = 128: relative excess of the grid's base", grid_search(128) / min_base(128).base - 1)
    for length in (4096, 2**17):
        _, exclusion = certified_min_bases([length])
        report.number(f"L = {length}: cosines of min_base", exclusion.cosines)
        report.number(f"L = {length}: the grid's cosines over min_base's", GRID * DIM / 2 * length / exclusion.cosines)
    report.compare(
        "all gaps below 2^18, d = 128",
        {
            "similarity_gap_range": lambda: similarity_gap_range(1e6, DIM, 2**18),
            "cosines of all distances": lambda: direct_gaps(1e6, 2**18),
        },
        baseline="similarity_gap_range",
        rounds=15,
    )


def main() -> None:
    torch.set_num_threads(1)
    report = Report("The least base for RoPE")
    against_the_grid(report)
    seconds = {}
    for k in range(10, 21):
        start = time.process_time()
        min_base(2**k)
        seconds[k] = time.process_time() - start
        report.number(f"CPU seconds of min_base, L = 2^{k}", seconds[k])
    report.number("CPU seconds, 2^10 to 2^14 together", sum(seconds[k] for k in range(10, 15)))
    report.number("growth of the time, exponent of L from 2^14 to 2^20", math.log2(seconds[20] / seconds[14]) / 6)
    report.finish("positions/rope_base_bound")


if __name__ == "__main__":
    main()
