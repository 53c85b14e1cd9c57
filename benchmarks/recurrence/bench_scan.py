"""Linear scans beside the loop that anyone would write, PyTorch's own scan, and SciPy's filter.

Run: python -m benchmarks.recurrence.bench_scan [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.signal import lfilter
from torch import Tensor

from benchmarks.measure import Report
from kexue_lib.recurrence.scan import linear_scan, matrix_scan

SHAPES = [(1, 4096, 16), (1, 65536, 16), (8, 1024, 256), (8, 4096, 64), (2, 4096, 512), (32, 256, 64)]
METHODS = ("chunked", "sequential", "odd_even", "associative")


def unbound(a: Tensor, b: Tensor) -> Tensor:
    """The plain loop; indexing ``a[:, t]`` instead would be quadratic in the backward pass."""
    x, out = torch.zeros_like(b[..., 0, :]), []
    for a_t, b_t in zip(a.unbind(-2), b.unbind(-2)):
        x = a_t * x + b_t
        out.append(x)
    return torch.stack(out, -2)


def unbound_matrices(a: Tensor, b: Tensor) -> Tensor:
    x, out = torch.zeros_like(b[..., 0, :]), []
    for a_t, b_t in zip(a.unbind(-3), b.unbind(-2)):
        x = (a_t @ x[..., None])[..., 0] + b_t
        out.append(x)
    return torch.stack(out, -2)


def trained(scan: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Callable[[], None]:
    """Forward and backward."""
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()

    def step() -> None:
        torch.autograd.grad(scan(a, b), (a, b), grad_outputs=torch.ones_like(b))

    return step


def forwards(candidates: dict[str, Callable], a: Tensor, b: Tensor) -> dict[str, Callable[[], object]]:
    """All but the plain loop, and one pass over the same memory."""
    out = torch.empty_like(b)
    runs = {name: lambda scan=scan: scan(a, b) for name, scan in candidates.items() if name != "loop"}
    return runs | {"one sum, torch.add": lambda: torch.add(a, b, out=out)}


def with_method(method: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: linear_scan(a, b, method=method)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    report = Report("Linear scans", peers=("scipy",))
    for batch, length, width in SHAPES:
        a, b = torch.rand(batch, length, width), torch.randn(batch, length, width)
        shape = f"batch {batch}, {length} steps, width {width}"
        rounds = 5 if length > 10_000 else 9
        candidates = {"linear_scan": linear_scan, **{f"method {m}": with_method(m) for m in METHODS}, "loop": unbound}
        report.compare(
            f"Forward and backward, {shape}",
            {name: trained(scan, a, b) for name, scan in candidates.items()},
            baseline="linear_scan",
            rounds=rounds,
        )
        report.compare(f"Forward, {shape}", forwards(candidates, a, b), baseline="linear_scan", rounds=rounds)
    for batch, length, n in [(1, 4096, 4), (8, 1024, 8), (8, 1024, 32)]:
        A, b = torch.randn(batch, length, n, n) / n, torch.randn(batch, length, n)
        report.compare(
            f"Matrices, forward and backward, batch {batch}, {length} steps, n = {n}",
            {"matrix_scan": trained(matrix_scan, A, b), "loop": trained(unbound_matrices, A, b)},
            baseline="matrix_scan",
            rounds=5,
        )
    decay, u = torch.rand(64, dtype=torch.float64), torch.randn(65536, 64, dtype=torch.float64)
    report.compare(
        "One coefficient for all times, float64, 65536 steps, 64 channels, forward",
        {
            "linear_scan": lambda: linear_scan(decay, u),
            "scipy lfilter, channel by channel": lambda: [
                lfilter([1.0], [1.0, -decay[c].item()], u[:, c].numpy()) for c in range(64)
            ],
        },
        baseline="linear_scan",
        rounds=9,
    )
    report.finish("recurrence/scan")


if __name__ == "__main__":
    main()
