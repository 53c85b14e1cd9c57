"""Lion beside its peers: the time of a step, and the memory that a step takes on top.

Run: python -m benchmarks.optimization.bench_lion [--save]
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import lion_pytorch
import lion_pytorch.foreach
import pytorch_optimizer
import torch
from torch import nn

from benchmarks.measure import Report
from kexue_lib.optimization.lion import Lion, Tiger, optimizer_state_bytes


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """A hundred matrices and vectors, seven million numbers, with gradients."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(512, 272)] * 50 + [(512,)] * 50
    made = [nn.Parameter(torch.randn(size, generator=generator).to(dtype)) for size in sizes]
    for p in made:
        p.grad = torch.randn(p.shape, generator=generator).to(dtype)
    return made


def stepper(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], dtype=torch.float32) -> Callable[[], None]:
    return make(parameters(dtype)).step


def peak_extra_bytes(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> float:
    """The most memory that a step holds on top of parameters, gradients and state, by PyTorch's profiler."""
    optimizer = make(parameters())
    optimizer.step()
    with torch.profiler.profile(profile_memory=True) as profile:
        optimizer.step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in events))


def main() -> None:
    torch.manual_seed(0)
    report = Report("Lion", peers=("lion-pytorch", "pytorch-optimizer"))
    decay = {"weight_decay": 0.1}
    torch.set_num_threads(1)
    report.compare(
        "A step, 100 tensors, 7 million float32 parameters",
        {
            "Lion": stepper(lambda p: Lion(p, **decay)),
            "Lion, foreach=False": stepper(lambda p: Lion(p, foreach=False, **decay)),
            "Lion, cautious": stepper(lambda p: Lion(p, cautious=True, **decay)),
            "Tiger": stepper(lambda p: Tiger(p)),
            "Tiger, scale='none', skip_nonfinite=False": stepper(
                lambda p: Tiger(p, scale="none", skip_nonfinite=False)
            ),
            "lion_pytorch": stepper(lambda p: lion_pytorch.Lion(p, **decay)),
            "lion_pytorch, foreach": stepper(lambda p: lion_pytorch.foreach.Lion(p, **decay)),
            "pytorch_optimizer": stepper(lambda p: pytorch_optimizer.Lion(p, **decay)),
            "AdamW, foreach": stepper(lambda p: torch.optim.AdamW(p, foreach=True, **decay)),
            "AdamW, fused": stepper(lambda p: torch.optim.AdamW(p, fused=True, **decay)),
        },
        baseline="lion_pytorch",
        rounds=21,
    )
    report.compare(
        "A step, the same in bfloat16",
        {
            "Lion": stepper(lambda p: Lion(p, **decay), torch.bfloat16),
            "Lion, stochastic": stepper(lambda p: Lion(p, rounding="stochastic", **decay), torch.bfloat16),
            "Lion, kahan": stepper(lambda p: Lion(p, rounding="kahan", **decay), torch.bfloat16),
            "lion_pytorch": stepper(lambda p: lion_pytorch.Lion(p, **decay), torch.bfloat16),
            "AdamW, foreach": stepper(lambda p: torch.optim.AdamW(p, foreach=True, **decay), torch.bfloat16),
        },
        baseline="lion_pytorch",
        rounds=11,
    )
    makers = {
        "Lion": lambda p: Lion(p, **decay),
        "Tiger": Tiger,
        "lion_pytorch": lambda p: lion_pytorch.Lion(p, **decay),
        "pytorch_optimizer": lambda p: pytorch_optimizer.Lion(p, **decay),
        "AdamW, foreach": lambda p: torch.optim.AdamW(p, foreach=True, **decay),
    }
    for name, make in makers.items():
        report.number(f"extra memory of a step, MB: {name}", peak_extra_bytes(make) / 1e6)
        optimizer = make(parameters())
        optimizer.step()
        report.number(f"state, bytes a parameter: {name}", optimizer_state_bytes(optimizer) / 6988800)
    report.finish("optimization/lion")


if __name__ == "__main__":
    main()
