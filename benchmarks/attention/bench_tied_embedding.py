"""Cross-entropy of a linear layer without all logits: time and peak memory against the plain loss and PyTorch's own.

Run: python -m benchmarks.attention.bench_tied_embedding [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import Report
from kexue_lib.attention.tied_embedding import linear_cross_entropy

CHUNKED = nn.LinearCrossEntropyOptions()  # PyTorch's own chunks, of its own choice


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(hidden @ weight.T, targets)


def pytorch_chunked(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.linear_cross_entropy(hidden, weight, targets, options=CHUNKED)


def with_gradients(loss: Callable[..., Tensor], *arguments: Tensor, **options) -> Callable[[], object]:
    hidden, weight, _ = arguments
    return lambda: torch.autograd.grad(loss(*arguments, **options), (hidden, weight))


def peak_bytes(run: Callable[[], object]) -> int:
    """Largest sum of the tensors that a call makes and holds at once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    level = highest = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            highest = max(highest, level)
    return highest


def problem(rows: int, d: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    hidden, weight = torch.randn(rows, d), d**-0.5 * torch.randn(n, d)
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randint(n, (rows,))


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("Cross-entropy without all logits")
    for rows, d, n in ((4096, 64, 16384), (1024, 512, 32000)):
        arguments = problem(rows, d, n)
        candidates = {
            "linear_cross_entropy": with_gradients(linear_cross_entropy, *arguments),
            "chunks of 128 rows": with_gradients(linear_cross_entropy, *arguments, chunk_size=128),
            "PyTorch's linear_cross_entropy, chunked": with_gradients(pytorch_chunked, *arguments),
            "cross_entropy of all logits": with_gradients(plain, *arguments),
        }
        title = f"({rows} × {d}) → {n}, float32"
        report.compare(
            f"{title}: loss and gradients", candidates, baseline="cross_entropy of all logits", rounds=7, seconds=60
        )
        all_logits = peak_bytes(candidates["cross_entropy of all logits"])
        for name, run in candidates.items():
            report.number(f"peak memory over that of all logits, {title}, {name}", peak_bytes(run) / all_logits)
    report.finish("attention/tied_embedding")


if __name__ == "__main__":
    main()
