"""All numbers of an interval beside the loops that anyone would write.

Run: python -m benchmarks.interludes.bench_abc_decomposition [--save]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.measure import Report
from kexue_lib.interludes.abc_decomposition import (
    abc_min,
    abc_min_range,
    abc_min_sqrt,
    abc_min_tensor,
    abc_min_window,
    brute_force,
)

MOST, LATE = 10**6, 10**6 - 1000


def plain_lanes(n: Tensor) -> Tensor:
    """One p after the other for all numbers at once, finished ones left out; the least sums."""
    total, lanes, number = n.clone(), torch.arange(len(n)), n
    p = (4 * n).double().sqrt().long()  # exact at these sizes
    while len(lanes):
        excess = p * p - 4 * number
        q = excess.clamp(min=0).double().sqrt().ceil().long()
        q += (q ^ p) & 1
        total[lanes] = torch.minimum(total[lanes], p + (q * q - excess) // 4)
        p = p + 1
        left = p < total[lanes]
        lanes, number, p = lanes[left], number[left], p[left]
    return total


def main() -> None:
    torch.set_num_threads(1)
    report = Report("N = ab + c")
    every = torch.arange(MOST)
    a, b, c = abc_min_range(0, MOST)
    assert torch.equal(plain_lanes(every), a + b + c)
    report.compare(
        "All numbers below 10^6",
        {
            "abc_min_range": lambda: abc_min_range(0, MOST),
            "abc_min_tensor": lambda: abc_min_tensor(every),
            "one p at a time, compacted": lambda: plain_lanes(every),
        },
        baseline="abc_min_range",
        rounds=7,
    )
    late = range(LATE, MOST)
    report.compare(
        "The last 1000 numbers below 10^6",
        {
            "abc_min_range": lambda: abc_min_range(LATE, MOST),
            "abc_min, one by one": lambda: [abc_min(n) for n in late],
            "the published scan, one by one": lambda: [abc_min_sqrt(n) for n in late],
            "brute_force, one by one": lambda: [brute_force(n) for n in late],
        },
        baseline="abc_min_range",
        rounds=7,
    )
    large = [10**15 + 977 * i for i in range(200)]
    assert math.isqrt(large[0]) > 3 * 10**7
    report.compare(
        "200 numbers near 10^15",
        {
            "abc_min": lambda: [abc_min(n) for n in large],
            "abc_min_tensor": lambda: abc_min_tensor(torch.tensor(large)),
            "abc_min_window": lambda: [abc_min_window(n) for n in large],
        },
        baseline="abc_min",
        rounds=7,
    )
    far = 10**17
    report.compare(
        "1000 numbers from 10^17 on",
        {
            "abc_min_tensor": lambda: abc_min_tensor(torch.arange(far, far + 1000)),
            "abc_min_range": lambda: abc_min_range(far, far + 1000),
        },
        baseline="abc_min_tensor",
        rounds=7,
    )
    report.finish("interludes/abc_decomposition")


if __name__ == "__main__":
    main()
