"""Squareplus against softplus and other activations, the textbook form, and a plain copy.

Run: python -m benchmarks.distributions.bench_squareplus [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measure import Report
from kexue_lib.distributions.squareplus import B_UPPER, squareplus, squareplus_gate
from kexue_lib.distributions.squareplus import _kernels as squareplus_kernels


def textbook(x: Tensor, b: float = B_UPPER) -> Tensor:
    """The formula as snippets have it: cancels for x < 0."""
    return (x + torch.sqrt(x * x + b)) / 2


def branch_free(x: Tensor, b: float = B_UPPER) -> Tensor:
    """The form without cancellation, one operation of PyTorch after the other."""
    return torch.relu(x) + (b / 2) / (x.abs() + torch.sqrt(x * x + b))


def huber(x: Tensor, width: float = B_UPPER**0.5) -> Tensor:
    """ReLU with a parabola on |x| ≤ width: the largest curvature of squareplus at b = width²."""
    return torch.where(x.abs() < width, (x + width).square() / (4 * width), torch.relu(x))


def without_compiler(x: Tensor) -> Tensor:
    """The library on a machine without a compiler."""
    squareplus_kernels._UNFUSED.add("cpu")
    try:
        return squareplus(x)
    finally:
        squareplus_kernels._UNFUSED.discard("cpu")


def with_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    """Forward and a vector-Jacobian product."""
    x, v = x.clone().requires_grad_(), torch.randn_like(x)
    return lambda: torch.autograd.grad(function(x), x, v)[0]


CONTENDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "squareplus": squareplus,
    "squareplus, no compiler": without_compiler,
    "squareplus_gate": squareplus_gate,
    "textbook form": textbook,
    "branch-free form, eager": branch_free,
    "Huber, eager": huber,
    "torch softplus": functional.softplus,
    "torch silu": functional.silu,
    "torch gelu": functional.gelu,
    "torch relu": torch.relu,
    "copy": torch.clone,
}


def largest_relative_error(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Against 60 digits, with the b that float32 holds."""
    mpmath.mp.dps = 60
    b, worst = mpmath.mpf(torch.tensor(B_UPPER).item()), 0.0
    for point, value in zip(x.double().tolist(), function(x).double().tolist()):
        exact = (point + mpmath.sqrt(mpmath.mpf(point) ** 2 + b)) / 2
        worst = max(worst, float(abs(value - exact) / exact))
    return worst


def main() -> None:
    torch.manual_seed(0)
    report = Report("Squareplus")
    x = torch.randn(2**22)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        report.compare(
            "2²² float32: value",
            {name: lambda f=f: f(x) for name, f in CONTENDERS.items()},
            baseline="torch softplus",
            rounds=15,
        )
        report.compare(
            "2²² float32: value and gradient",
            {name: with_gradient(f, x) for name, f in CONTENDERS.items()},
            baseline="torch softplus",
            rounds=9,
        )
    torch.set_num_threads(1)
    for dtype, size in ((torch.float32, 2**10), (torch.float32, 2**20), (torch.bfloat16, 2**22)):
        y, out = torch.randn(size).to(dtype), torch.empty(size, dtype=dtype)
        report.compare(
            f"{size:,} {str(dtype).removeprefix('torch.')}: value",
            {
                "squareplus": lambda y=y: squareplus(y),
                "torch softplus": lambda y=y: functional.softplus(y),
                "copy into place": lambda y=y, out=out: out.copy_(y),
            },
            baseline="torch softplus",
        )
    line = torch.cat((-torch.logspace(-1, 5, 300), torch.logspace(-1, 5, 300)))
    report.number(
        "relative error of squareplus, float32, |x| from 0.1 to 1e5", largest_relative_error(squareplus, line)
    )
    report.number("relative error of the textbook form, float32, same points", largest_relative_error(textbook, line))
    report.finish("distributions/squareplus")


if __name__ == "__main__":
    main()
