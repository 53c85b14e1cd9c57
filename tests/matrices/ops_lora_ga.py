"""The operators of lora_ga; references: the formulas entry by entry with NumPy's einsum and its decomposition."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from opinfo import OpInfo, Sample

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


OPS = [
    OpInfo("first_step_direction", lora_ga.first_step_direction, step, partial(triples, 0)),
    OpInfo("alignment_loss", lora_ga.alignment_loss, loss, partial(triples, 1)),
    OpInfo("adam_alignment_loss", lora_ga.adam_alignment_loss, adam_loss, partial(triples, 2)),
    OpInfo("alignment_optimum", lora_ga.alignment_optimum, optimum, partial(matrices, 3)),
]
