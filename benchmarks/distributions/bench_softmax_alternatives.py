"""Sparse maps and their losses beside the entmax package, which sorts or bisects.

Run: python -m benchmarks.distributions.bench_softmax_alternatives [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import entmax as peer
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.measure import Report
from kexue_lib.distributions.softmax_alternatives import entmax, entmax15, entmax_loss, sparsemax, sparsemax_loss


def with_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    """Forward and a vector-Jacobian product."""
    x = x.clone().requires_grad_()
    v = torch.randn_like(x)
    return lambda: torch.autograd.grad(function(x), x, v)[0]


def main() -> None:
    torch.manual_seed(0)
    report = Report("Softmax alternatives", peers=("entmax",))
    maps = {
        "sparsemax": (sparsemax, lambda x: peer.sparsemax(x, -1)),
        "entmax15": (entmax15, lambda x: peer.entmax15(x, -1)),
        "entmax, α = 1.3": (lambda x: entmax(x, 1.3), lambda x: peer.entmax_bisect(x, 1.3)),
    }
    torch.set_num_threads(1)
    for shape in ((4096, 1024), (64, 32000), (4096, 128)):
        x = torch.randn(shape)
        for name, (ours, theirs) in maps.items():
            report.compare(
                f"{name}, {shape}: p and a vector-Jacobian product",
                {
                    "this library": with_gradient(ours, x),
                    "entmax package": with_gradient(theirs, x),
                    "torch.softmax": with_gradient(lambda x: x.softmax(-1), x),
                },
                baseline="this library",
                rounds=9,
                warmup=1,
                seconds=5.0,
            )
    for shape in ((4096, 1024), (64, 32000)):
        x, target = torch.randn(shape), torch.randint(shape[1], shape[:1])
        losses = {
            "sparsemax": (sparsemax_loss, lambda x, y: peer.sparsemax_loss(x, y).mean()),
            "entmax15": (entmax_loss, lambda x, y: peer.entmax15_loss(x, y).mean()),
            "entmax, α = 1.3": (
                lambda x, y: entmax_loss(x, y, 1.3),
                lambda x, y: peer.entmax_bisect_loss(x, y, 1.3).mean(),
            ),
        }
        for name, (ours, theirs) in losses.items():
            calls = {"this library": ours, "entmax package": theirs, "torch cross_entropy": cross_entropy}
            leaf = x.clone().requires_grad_()
            report.compare(
                f"{name} loss, {shape}: value and gradient",
                {
                    label: lambda call=call, target=target, leaf=leaf: torch.autograd.grad(call(leaf, target), leaf)
                    for label, call in calls.items()
                },
                baseline="this library",
                rounds=9,
                warmup=1,
                seconds=5.0,
            )
    x = torch.randn(256, 1024)
    for spread in (1.0, 30.0):
        for name, (ours, theirs) in maps.items():
            alpha = {"sparsemax": 2.0, "entmax15": 1.5}.get(name) or float(name.split("= ")[1])
            exact = entmax((x * spread).double(), alpha)
            for label, call in (("this library", ours), ("entmax package", theirs)):
                error = (call(x * spread).double() - exact).abs().max().item()
                report.number(f"|p − p in float64|, {name}, spread {spread:g}, {label}, float32", error)
    report.finish("distributions/softmax_alternatives")


if __name__ == "__main__":
    main()
