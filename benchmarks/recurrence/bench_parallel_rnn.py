"""parallel_rnn beside the loop over time and PyTorch's own recurrent networks.

Run: python -m benchmarks.recurrence.bench_parallel_rnn [--save]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.measure import Report
from kexue_lib.recurrence.parallel_rnn import GRUCell, LSTMCell, MinGRU, TanhCell, parallel_rnn, sequential_rnn

BY_LENGTH = (64, 256, 1024, 4096, 8192)


def cell_of(kind: str, n: int, seed: int = 0) -> nn.Module:
    """A cell with n numbers of state and four inputs (tanh: n)."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "GRU":
        return GRUCell(4, n, generator=generator)
    if kind == "LSTM":
        return LSTMCell(4, n // 2, generator=generator)
    A = torch.randn(n, n, generator=generator)
    return TanhCell(0.9 * A / torch.linalg.eigvals(A).abs().max())


def inputs(cell: nn.Module, *batch: int, length: int) -> Tensor:
    width = cell.state_size if isinstance(cell, TanhCell) else 4
    return torch.randn(*batch, length, width, generator=torch.Generator().manual_seed(1))


def forward(run: Callable, cell: nn.Module, u: Tensor) -> Callable[[], None]:
    def step() -> None:
        with torch.no_grad():
            run(cell, u)

    return step


def trained(run: Callable, cell: nn.Module, u: Tensor) -> Callable[[], None]:
    """Forward and backward."""
    u = u.clone().requires_grad_()

    def step() -> None:
        out = run(cell, u)
        torch.autograd.grad(out, (u, *cell.parameters()), torch.ones_like(out))

    return step


def candidates(timed: Callable, cell: nn.Module, u: Tensor, *methods: str) -> dict[str, Callable[[], None]]:
    runs = {"loop": timed(sequential_rnn, cell, u)}
    return runs | {m: timed(partial(parallel_rnn, method=m), cell, u) for m in ("newton", *methods)}


def pytorch(kind: type[nn.RNNBase], n: int, u: Tensor, timed: Callable) -> dict[str, Callable[[], None]]:
    """PyTorch's compiled loop with as many inputs and states; its weights are those of another function."""
    model = kind(u.shape[-1], n, batch_first=True)
    return {f"torch.nn.{kind.__name__}": timed(lambda m, v: m(v if v.dim() == 3 else v[None])[0], model, u)}


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    report = Report("Nonlinear recurrences in parallel")
    cell = cell_of("GRU", 4)
    u = inputs(cell, length=8192)
    scans = {"minGRU": forward(lambda m, v: m(v), MinGRU(4, 4), u)}
    every = candidates(forward, cell, u, "quasi", "jacobi") | scans | pytorch(nn.GRU, 4, u, forward)
    report.compare("GRU, 4 states, 8192 steps, forward", every, baseline="newton", rounds=7)
    every = candidates(trained, cell, u, "quasi", "jacobi") | pytorch(nn.GRU, 4, u, trained)
    report.compare("GRU, 4 states, 8192 steps, forward and backward", every, baseline="newton", rounds=7)
    for length in BY_LENGTH[:-1]:
        v = inputs(cell, length=length)
        report.compare(
            f"GRU, 4 states, {length} steps, forward", candidates(forward, cell, v), baseline="loop", rounds=7
        )
    for kind, n in [("GRU", 2), ("GRU", 8), ("GRU", 16), ("GRU", 32), ("LSTM", 8), ("LSTM", 32), ("tanh", 4)]:
        wide = cell_of(kind, n)
        v = inputs(wide, length=8192)
        title = f"{kind}, {n} states, 8192 steps, forward"
        report.compare(title, candidates(forward, wide, v, "quasi", "jacobi"), baseline="loop", rounds=5)
    wide = cell_of("GRU", 24)
    v = inputs(wide, 50, length=64)
    title = "GRU, 24 states, 64 steps, batch 50, forward and backward"
    every = candidates(trained, wide, v, "quasi", "jacobi") | pytorch(nn.GRU, 24, v, trained)
    report.compare(title, every, baseline="loop", rounds=7)
    report.finish("recurrence/parallel_rnn")


if __name__ == "__main__":
    main()
