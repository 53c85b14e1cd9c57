"""Amos beside its peer and AdamW: one step of 100 matrices, 7 million parameters.

Run: python -m benchmarks.optimization.bench_amos_recipes [--save]
"""

from __future__ import annotations

import pytorch_optimizer
import torch

from benchmarks.measure import Report
from kexue_lib.optimization.amos_recipes import Amos, RelativeUpdate


def parameters() -> list[torch.Tensor]:
    """100 matrices 265 × 265 with gradients."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(265, 265, generator=generator).requires_grad_() for _ in range(100)]
    for p in params:
        p.grad = torch.randn(265, 265, generator=generator)
    return params


def main() -> None:
    torch.set_num_threads(1)
    report = Report("Amos and the relative update", peers=("pytorch-optimizer",))
    makers = {
        "Amos": lambda p: Amos(p),
        "Amos, reduce fan_in": lambda p: Amos(p, reduce="fan_in"),
        "Amos, reduce none": lambda p: Amos(p, reduce="none"),
        "pytorch_optimizer.Amos": lambda p: pytorch_optimizer.Amos(p),
        "torch AdamW (foreach)": lambda p: torch.optim.AdamW(p, foreach=True),
        "RelativeUpdate, sign": lambda p: RelativeUpdate(p, base="sign"),
        "RelativeUpdate, adam": lambda p: RelativeUpdate(p),
    }
    report.compare(
        "one step, 100 matrices 265 × 265, float32",
        {name: make(parameters()).step for name, make in makers.items()},
        baseline="Amos",
        rounds=41,
    )
    for name, make in makers.items():
        params = [torch.zeros(1000, 10_000).requires_grad_()]
        params[0].grad = torch.ones_like(params[0])
        optimizer = make(params)
        optimizer.step()
        stored = sum(x.nbytes for x in optimizer.state[params[0]].values() if isinstance(x, torch.Tensor))
        report.number(f"bytes of state for 10 million parameters, {name}", stored)
    report.finish("optimization/amos_recipes")


if __name__ == "__main__":
    main()
