"""The operators of lora_gradient; references: sums over the entries in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from opinfo import OpInfo, Sample

from kexue_lib.matrices import lora_gradient as lora


def samples(shapes: str, **kwargs: Any) -> Callable[[], Iterator[Sample]]:
    """Matrices whose shapes are named by letters, of several sizes."""

    def draw() -> Iterator[Sample]:
        for seed, (n, m, r) in enumerate([(4, 6, 2), (3, 2, 1), (2, 2, 2), (1, 1, 1)]):
            generator = torch.Generator().manual_seed(seed)
            size = {"n": n, "m": m, "r": r}
            yield Sample(
                tuple(
                    torch.randn(3, *(size[letter] for letter in shape), dtype=torch.float64, generator=generator)
                    for shape in shapes.split()
                ),
                kwargs,
            )

    return draw


def gradient_by_A(G: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    return 0.5 * np.einsum("ij,kj->ik", G, B)


def gradient_by_B(G: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    return 0.5 * np.einsum("ik,ij->kj", A, G)


def along(H_A: np.ndarray, H_B: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    return 0.5 * (np.einsum("ik,kj->ij", H_A, B) + np.einsum("ik,kj->ij", A, H_B))


def added(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    (n, r), m = A.shape, B.shape[1]
    return np.array([[A[i, j % r] + B[i % r, j] for j in range(m)] for i in range(n)])


def column_sums(G: np.ndarray) -> np.ndarray:
    return G.sum(1, keepdims=True)


def row_sums(G: np.ndarray) -> np.ndarray:
    return G.sum(0, keepdims=True)


OPS = [
    OpInfo(
        "lora_gradients, A",
        lambda *x: lora.lora_gradients(*x, 0.5)[0],
        gradient_by_A,
        samples("nm nr rm"),
        autocast=True,
    ),
    OpInfo(
        "lora_gradients, B",
        lambda *x: lora.lora_gradients(*x, 0.5)[1],
        gradient_by_B,
        samples("nm nr rm"),
        autocast=True,
    ),
    OpInfo(
        "equivalent_gradient",
        lambda *x: lora.equivalent_gradient(*x, 0.5),
        along,
        samples("nr rm nr rm"),
        autocast=True,
    ),
    OpInfo("additive_delta", lora.additive_delta, added, samples("nr rm")),
    OpInfo("additive_gradients, A", lambda G: lora.additive_gradients(G, 1)[0], column_sums, samples("nm")),
    OpInfo("additive_gradients, B", lambda G: lora.additive_gradients(G, 1)[1], row_sums, samples("nm")),
]
