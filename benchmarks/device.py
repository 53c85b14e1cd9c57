"""Every fast path on an accelerator: agreement with the CPU, then its time beside a peer's and beside its bound.

Run: make device (a few minutes on one GPU; without one it says so and leaves the stored table alone).

A bound is the least time that the card could take: the bytes that have to be moved over the rate of a copy, or the
products' operations over the rate of a large product, whichever is more, both rates measured in the same run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import RESULTS, Report, compare
from kexue_lib.attention.softmax_robustness import attention_stats
from kexue_lib.attention.tied_embedding import linear_cross_entropy
from kexue_lib.distributions.smooth_topk import thre_topk
from kexue_lib.distributions.softmax_alternatives import entmax15, sparsemax
from kexue_lib.distributions.squareplus import squareplus
from kexue_lib.matrices.monarch import monarch_matmul
from kexue_lib.optimization.lion import Lion
from kexue_lib.positions.rerope import rerope_attention, rerope_attention_reference
from kexue_lib.positions.rope import inverse_frequencies
from kexue_lib.recurrence.scan import linear_scan

ROOT = Path(__file__).parent.parent
SECONDS = 8.0  # for each row


@dataclass(frozen=True)
class Case:
    """A task: ours and the peer's way, and what has to be moved and multiplied at least."""

    title: str
    ours: Callable[[], object]
    peer: Callable[[], object]
    peer_name: str
    moved: float
    operations: float = 0.0


class Bench:
    """The tasks at the sizes of one device; `small` divides lengths, to try the script where there is no card."""

    def __init__(self, device: str, small: int = 1) -> None:
        self.device, self.small = device, small
        self.generator = torch.Generator(device).manual_seed(0)
        self.half = torch.bfloat16

    def draw(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, device=self.device, generator=self.generator).to(dtype)

    def rates(self) -> tuple[float, float]:
        """Bytes a second of a copy (read and written), operations a second of a 16-bit product."""
        x = self.draw(2**28 // self.small**2)
        n = 8192 // self.small
        a, b = (self.draw(n, n, dtype=self.half) for _ in range(2))
        y = torch.empty_like(x)
        pair = compare(
            "rates", {"copy": lambda: y.copy_(x), "product": lambda: a @ b}, baseline="copy", seconds=SECONDS
        )
        copy, product = (timing.milliseconds / 1e3 for timing in pair.timings)
        return 2 * x.nbytes / copy, 2 * n**3 / product

    def cases(self) -> Iterator[Case]:
        """One after another, so that only one task's tensors are held."""
        yield from self._rows()
        yield self._squareplus()
        yield self._cross_entropy()
        yield self._statistics()
        yield self._rerope()
        yield self._scan()
        yield self._monarch()
        yield self._lion()

    def _rows(self) -> Iterator[Case]:
        x = self.draw(8192 // self.small, 4096)
        fast = {"sparsemax": sparsemax, "entmax15": entmax15, "thre_topk, k = 32": lambda x: thre_topk(x, 32)}
        for name, function in fast.items():
            ours = lambda function=function: function(x)
            yield Case(f"{name}, {tuple(x.shape)}", ours, lambda: x.softmax(-1), "softmax", 2 * x.nbytes)

    def _squareplus(self) -> Case:
        x = self.draw(2**26 // self.small)
        return Case(f"squareplus, {x.numel()}", lambda: squareplus(x), lambda: F.softplus(x), "softplus", 2 * x.nbytes)

    def _cross_entropy(self) -> Case:
        rows, d, n = 8192 // self.small, 1024, 32_000 // self.small
        h, w = self.draw(rows, d, dtype=self.half), self.draw(n, d, dtype=self.half) / d**0.5
        h, w = h.requires_grad_(), w.requires_grad_()
        t = torch.randint(n, (rows,), device=self.device, generator=self.generator)
        ours = lambda: torch.autograd.grad(linear_cross_entropy(h, w, t), (h, w))
        peer = lambda: torch.autograd.grad(F.cross_entropy((h @ w.mT).float(), t), (h, w))
        title = f"linear_cross_entropy, forward and backward, {rows} rows, {d} to {n}, bf16"
        return Case(title, ours, peer, "logits, then loss", 2 * (h.nbytes + w.nbytes), 6 * rows * d * n)

    def _attention(self, length: int) -> list[Tensor]:
        return [self.draw(2, 16, length, 64, dtype=self.half) for _ in range(3)]

    def _statistics(self) -> Case:
        n = 4096 // self.small
        q, k, v = self._attention(n)

        def dense() -> tuple[Tensor, Tensor]:
            p = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
            return p @ v, torch.special.entr(p).sum(-1)

        title = f"attention_stats, forward, 2 × 16 heads, n = {n}, bf16"
        return Case(title, lambda: attention_stats(q, k, v)[::2], dense, "dense", 4 * q.nbytes, 4 * 32 * n**2 * 64)

    def _rerope(self) -> Case:
        n = 4096 // self.small
        q, k, v = self._attention(n)
        theta = inverse_frequencies(64, device=self.device)
        run = lambda function: lambda: function(q, k, v, theta, window=512 // self.small)
        title = f"rerope_attention, forward, 2 × 16 heads, n = {n}, bf16"
        least = 2 * 32 * n**2 * 64  # causal: half of the pairs
        return Case(title, run(rerope_attention), run(rerope_attention_reference), "two matrices", 4 * q.nbytes, least)

    def _scan(self) -> Case:
        a, b = self.draw(8, 8192 // self.small, 256).sigmoid(), self.draw(8, 8192 // self.small, 256)

        def loop() -> Tensor:
            x, states = torch.zeros_like(b[:, 0]), []
            for t in range(b.shape[1]):
                x = a[:, t] * x + b[:, t]
                states.append(x)
            return torch.stack(states, 1)

        title = f"linear_scan, forward, {tuple(b.shape)}"
        return Case(title, lambda: linear_scan(a, b), loop, "loop", 3 * b.nbytes)

    def _monarch(self) -> Case:
        n, blocks = 4096 // self.small, 64 // self.small
        size = n // blocks
        x, w = self.draw(8192 // self.small, n, dtype=self.half), self.draw(n, n, dtype=self.half)
        first = self.draw(blocks, size, size, dtype=self.half)
        last = self.draw(size, blocks, blocks, dtype=self.half)
        ours = lambda: monarch_matmul(x, last, first)
        title = f"monarch_matmul, {tuple(x.shape)}, {blocks} blocks, bf16"
        return Case(title, ours, lambda: x @ w, "dense", 2 * x.nbytes, 2 * x.numel() * (size + blocks))

    def _lion(self) -> Case:
        def optimizer(kind: type, **options: object) -> Callable[[], object]:
            parameters = [torch.nn.Parameter(self.draw(2**20 // self.small)) for _ in range(100)]
            for p in parameters:
                p.grad = torch.ones_like(p)
            return kind(parameters, lr=1e-6, **options).step

        size = 100 * 4 * 2**20 // self.small
        ours, peer = optimizer(Lion, foreach=True), optimizer(torch.optim.AdamW, foreach=True)
        return Case(f"Lion, 100 tensors, {size // 4} numbers", ours, peer, "AdamW, foreach", 5 * size)


def agreement(device: str) -> str:
    """The part of the operator battery that runs on the device, in words."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_ops.py", "-k", device]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[-1]


def main() -> int:
    """Measure, print, and on a GPU store the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--try-on-cpu", action="store_true", help="small sizes on the CPU; stores nothing")
    tried = parser.parse_args().try_on_cpu
    if not (tried or torch.cuda.is_available()):
        print("no CUDA device: nothing measured, benchmarks/results/device.md left as it is")
        return 0
    bench = Bench("cpu", 16) if tried else Bench("cuda")
    if not tried:
        print("operator battery on the device:", agreement("cuda"), flush=True)
    moved, multiplied = bench.rates()
    report = Report("Fast paths on a GPU")
    report.number("copy, GB a second", moved / 1e9)
    report.number("16-bit product, TFLOP a second", multiplied / 1e12)
    for case in bench.cases():
        report.compare(case.title, {"ours": case.ours, case.peer_name: case.peer}, baseline=case.peer_name, rounds=15,
                       seconds=SECONDS)  # fmt: skip
        bound = 1e3 * max(case.moved / moved, case.operations / multiplied)
        ours = report.comparisons[-1].timings[0].milliseconds
        report.number(f"{case.title}: times its bound of {bound:.3g} ms", ours / bound)
    if not tried:
        (RESULTS / "device.md").write_text(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
