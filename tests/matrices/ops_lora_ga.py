"""The operators of lora_ga; references: the formulas entry by entry with NumPy's einsum and its decomposition."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled

from kexue_lib.matrices import lora_ga


def step(G: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    return np.einsum("ik,jk,jl->il", A, A, G) + np.einsum("ij,kj,kl->il", G, B, B)


def loss(G: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    return np.asarray(((step(G, A, B) - G) ** 2).sum())


def adam_loss(G: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    left, right = np.sign(np.einsum("jk,jl->kl", A, G)), np.sign(np.einsum("ij,kj->ik", G, B))
    moved = np.einsum("ik,kl->il", A, left) + np.einsum("ik,kl->il", right, B)
    return np.asarray(((moved - np.sign(G)) ** 2).sum())


def optimum(G: np.ndarray, rank: int) -> np.ndarray:
    return np.asarray((np.linalg.svd(G, compute_uv=False)[2 * rank :] ** 2).sum())


def triples(seed: int, sizes: tuple[tuple[int, int, int], ...] = ((5, 4, 2), (3, 6, 1))) -> Iterator[Sample]:
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    for n, m, r in sizes:
        yield Sample((draw(2, n, m), draw(2, n, r) / 2, draw(2, r, m) / 2))


def matrices(seed: int) -> Iterator[Sample]:
    for sample in triples(seed):
        yield Sample(sample.inputs[:1], {"rank": 1})


GOOD = {"G": torch.ones(4, 3), "A": torch.ones(4, 2), "B": torch.ones(2, 3)}
CHAIN = [
    ({"G": GOOD["G"].long()}, TypeError, "G: got torch.int64"),
    ({"A": GOOD["A"].cfloat()}, TypeError, "A: got torch.complex64"),
    ({"G": torch.ones(3)}, ValueError, "G: got shape (3,)"),
    ({"A": torch.ones(2, 2)}, ValueError, "A: got shape (2, 2)"),
    ({"B": torch.ones(3, 3)}, ValueError, "B: got shape (3, 3)"),
]
REFUSED = {
    "step": spoiled(
        lora_ga.first_step_direction,
        GOOD,
        *CHAIN,
    ),
    "loss": spoiled(
        lora_ga.alignment_loss,
        GOOD,
        *CHAIN,
    ),
    "adam": spoiled(
        lora_ga.adam_alignment_loss,
        GOOD,
        *CHAIN,
    ),
    "optimum": spoiled(
        lora_ga.alignment_optimum,
        {"G": GOOD["G"], "rank": 1},
        ({"G": torch.ones(4, 3).long()}, TypeError, "G: got torch.int64"),
        ({"G": torch.ones(3)}, ValueError, "G: got shape (3,)"),
        ({"rank": 0}, ValueError, "rank: got 0"),
        ({"rank": 1.0}, TypeError, "rank: got 1.0"),
    ),
}

OPS = [
    OpInfo("first_step_direction", lora_ga.first_step_direction, step, partial(triples, 0), errors=REFUSED["step"]),
    OpInfo("alignment_loss", lora_ga.alignment_loss, loss, partial(triples, 1), errors=REFUSED["loss"]),
    OpInfo("adam_alignment_loss", lora_ga.adam_alignment_loss, adam_loss, partial(triples, 2), errors=REFUSED["adam"]),
    OpInfo("alignment_optimum", lora_ga.alignment_optimum, optimum, partial(matrices, 3), errors=REFUSED["optimum"]),
]
