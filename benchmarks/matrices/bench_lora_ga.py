"""lora_ga beside its peers: the leading triplets of a matrix.

Run: python -m benchmarks.matrices.bench_lora_ga [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.utils.extmath import randomized_svd as sklearn_svd
from torch import Tensor

from benchmarks.measure import Report
from kexue_lib.matrices.lora_ga import alignment_loss, alignment_optimum, randomized_svd

RANK = 8


def spectrum(n: int, power: float) -> Tensor:
    """A matrix with singular values i^(−power)."""
    left, right = (torch.linalg.qr(torch.randn(n, n))[0] for _ in range(2))
    return left * torch.arange(1, n + 1) ** -power @ right


def gradient(n: int) -> Tensor:
    """A gradient of rank 512: of a random regression on 512 rows, inputs and targets with decaying scales."""
    scales = torch.arange(1, n + 1) ** -0.5
    X, T = torch.randn(512, n) * scales, torch.randn(512, n) * scales
    return X.mT @ (X @ torch.randn(n, n) / n**0.5 - T)


def decompositions(G: Tensor, k: int) -> dict[str, Callable[[], object]]:
    array = G.numpy()
    return {
        "randomized_svd": lambda: randomized_svd(G, k),
        "randomized_svd, n_iter=1": lambda: randomized_svd(G, k, n_iter=1),
        "torch.svd_lowrank, q=2k, niter=4 (as in peft)": lambda: torch.svd_lowrank(G, q=2 * k, niter=4),
        "scikit-learn, the same settings": lambda: sklearn_svd(
            array, k, n_oversamples=8, n_iter=2, power_iteration_normalizer="QR"
        ),
        "torch.linalg.svd": lambda: torch.linalg.svd(G, full_matrices=False),
    }


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("LoRA-GA", peers=("scikit-learn",))
    k = 2 * RANK
    for name, G in (("spectrum 1/i", spectrum(1024, 1.0)), ("gradient of a regression", gradient(1024))):
        report.compare(
            f"16 triplets of 1024 × 1024, {name}", decompositions(G, k), baseline="randomized_svd", rounds=15
        )
        best = alignment_optimum(G.double(), RANK).item()
        for n_iter in (1, 2):
            U, _, Vh = randomized_svd(G, k, n_iter=n_iter, generator=torch.Generator().manual_seed(0))
            loss = alignment_loss(G.double(), U[:, :RANK].double(), Vh[RANK:].double()).item()
            report.number(f"alignment loss over the optimum, {name}, n_iter={n_iter}", loss / best)
        U, _, V = torch.svd_lowrank(G, q=2 * k, niter=4)
        loss = alignment_loss(G.double(), U[:, :RANK].double(), V[:, RANK:k].mT.double()).item()
        report.number(f"alignment loss over the optimum, {name}, svd_lowrank", loss / best)
    report.finish("matrices/lora_ga")


if __name__ == "__main__":
    main()
