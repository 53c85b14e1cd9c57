"""Monarch products and projections beside dense products, einsum and HazyResearch's kernel.

Run: python -m benchmarks.matrices.bench_monarch [--save]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Report
from kexue_lib.matrices.monarch import monarch_dense, monarch_matmul, monarch_project, monarch_solve


def dense(x: Tensor, W: Tensor) -> Tensor:
    return x @ W.mT


def einsum(x: Tensor, L: Tensor, R: Tensor) -> Tensor:
    h = torch.einsum("bkl,kjl->bjk", x.unflatten(-1, (R.shape[0], R.shape[2])), R)
    return torch.einsum("bjk,jik->bij", h, L).flatten(-2)


class Kernel(torch.autograd.Function):
    """The steps of ``blockdiag_butterfly_multiply`` of HazyResearch's fly, rank 1, on the CPU.

    Two batched products that write rows of the batch first, and a copy in another order behind each.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, L: Tensor, R: Tensor) -> Tensor:
        B, (K, J, l), I = len(x), R.shape, L.shape[1]
        h = x.new_empty(B, K, J).transpose(0, 1)
        torch.bmm(x.view(B, K, l).transpose(0, 1), R.mT, out=h)
        h = h.permute(1, 2, 0).contiguous().transpose(0, 1)
        y = x.new_empty(B, J, I).transpose(0, 1)
        torch.bmm(h, L.mT, out=y)
        ctx.save_for_backward(x, L, R, h)
        return y.permute(1, 2, 0).reshape(B, I * J)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, ...]:
        x, L, R, h = ctx.saved_tensors
        B, (K, J, l), I = len(x), R.shape, L.shape[1]
        g = g.view(B, I, J).transpose(1, 2).contiguous().transpose(0, 1)
        of_L = torch.bmm(g.mT, h)
        of_h = x.new_empty(B, J, K).transpose(0, 1)
        torch.bmm(g, L, out=of_h)
        of_h = of_h.permute(1, 2, 0).contiguous().transpose(0, 1)
        of_x = x.new_empty(B, K, l)
        torch.bmm(of_h, R, out=of_x.transpose(0, 1))
        of_R = torch.bmm(of_h.mT, x.view(B, K, l).transpose(0, 1))
        return of_x.view(B, K * l), of_L, of_R


def both_ways(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], g: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(function(*inputs), inputs, g)


def compare_products(report: Report, n: int, rows: int) -> None:
    m = round(n**0.5)
    x, g = torch.randn(rows, n, requires_grad=True), torch.randn(rows, n)
    L, R = (torch.randn(m, m, m).div_(m**0.5).requires_grad_() for _ in range(2))
    W = monarch_dense(L, R).detach().requires_grad_()
    for function in (einsum, Kernel.apply, monarch_matmul):
        torch.testing.assert_close(function(x, L, R), dense(x, W), rtol=1e-3, atol=1e-3)
    candidates = {
        "monarch_matmul": (monarch_matmul, (x, L, R)),
        "dense product": (dense, (x, W)),
        "HazyResearch's kernel": (Kernel.apply, (x, L, R)),
        "two einsums": (einsum, (x, L, R)),
    }
    report.compare(
        f"Forward and backward, n = {n}, {rows} rows, float32",
        {name: both_ways(*candidate, g) for name, candidate in candidates.items()},
        baseline="monarch_matmul",
        rounds=61,
        warmup=3,
        seconds=25.0,
    )


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    report = Report("Monarch matrices")
    for n, rows in ((4096, 256), (4096, 16), (1024, 256), (256, 256)):
        compare_products(report, n, rows)
    M = torch.randn(1024, 1024)
    report.compare(
        "Projection, n = 1024, 32 blocks, float32",
        {
            'method="power"': lambda: monarch_project(M, 32, method="power"),
            'method="svd"': lambda: monarch_project(M, 32),
        },
        baseline='method="power"',
        rounds=41,
    )
    squared = lambda pair: (M.double() - monarch_dense(*(f.double() for f in pair))).square().sum().item()
    exact, fast = squared(monarch_project(M.double(), 32)), squared(monarch_project(M, 32, method="power"))
    report.number('Squared error of method="power" over the least one, minus 1', fast / exact - 1)
    L, R, y = torch.randn(32, 32, 32), torch.randn(32, 32, 32), torch.randn(1024)
    W = monarch_dense(L, R)
    report.compare(
        "One linear system, n = 1024, float32",
        {
            "monarch_solve": lambda: monarch_solve(L, R, y),
            "torch.linalg.solve, dense": lambda: torch.linalg.solve(W, y),
        },
        baseline="monarch_solve",
        rounds=41,
    )
    report.finish("matrices/monarch")


if __name__ == "__main__":
    main()
