"""The operators of lora_gradient; references: sums over the entries in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled

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


GOOD = {"G": torch.ones(4, 3), "A": torch.ones(4, 2), "B": torch.ones(2, 3)}
STEPS = {"H_A": GOOD["A"], "H_B": GOOD["B"], "A": GOOD["A"], "B": GOOD["B"]}
REFUSED = {
    "gradients": spoiled(
        lora.lora_gradients,
        GOOD,
        ({"G": GOOD["G"].long()}, TypeError, "G: got torch.int64"),
        ({"A": GOOD["A"].cfloat()}, TypeError, "A: got torch.complex64"),
        ({"G": torch.ones(3)}, ValueError, "G: got fewer than two dimensions"),
        ({"A": torch.ones(5, 2)}, ValueError, "A: got shape (5, 2)"),
        ({"B": torch.ones(1, 3)}, ValueError, "B: got shape (1, 3)"),
        ({"scale": "1"}, TypeError, "scale: got '1'"),
    ),
    "equivalent": spoiled(
        lora.equivalent_gradient,
        STEPS,
        ({"H_A": torch.ones(4, 2).long()}, TypeError, "H_A: got torch.int64"),
        ({"H_A": torch.ones(4, 1)}, ValueError, "H_A: got shape (4, 1)"),
        ({"H_B": torch.ones(1, 3), "B": torch.ones(1, 3)}, ValueError, "B: got shape (1, 3)"),
        ({"scale": "1"}, TypeError, "scale: got '1'"),
    ),
    "delta": spoiled(
        lora.additive_delta,
        {"A": torch.ones(4, 2), "B": torch.ones(2, 4)},
        ({"A": torch.ones(4, 2).long()}, TypeError, "A: got torch.int64"),
        ({"A": torch.ones(2)}, ValueError, "A: got shape (2,)"),
        ({"B": torch.ones(2, 5)}, ValueError, "A: got rank 2"),
        ({"B": torch.ones(1, 4)}, ValueError, "B: got shape (1, 4)"),
    ),
    "additive": spoiled(
        lora.additive_gradients,
        {"G": torch.ones(4, 6), "rank": 2},
        ({"G": torch.ones(4, 6).long()}, TypeError, "G: got torch.int64"),
        ({"G": torch.ones(6)}, ValueError, "G: got shape (6,)"),
        ({"rank": 3}, ValueError, "rank: got 3"),
        ({"rank": 0}, ValueError, "rank: got 0"),
    ),
}

OPS = [
    OpInfo(
        "lora_gradients, A",
        lambda *x: lora.lora_gradients(*x, 0.5)[0],
        gradient_by_A,
        samples("nm nr rm"),
        errors=REFUSED["gradients"],
        autocast=True,
    ),
    OpInfo(
        "lora_gradients, B",
        lambda *x: lora.lora_gradients(*x, 0.5)[1],
        gradient_by_B,
        samples("nm nr rm"),
        errors=REFUSED["gradients"],
        autocast=True,
    ),
    OpInfo(
        "equivalent_gradient",
        lambda *x: lora.equivalent_gradient(*x, 0.5),
        along,
        samples("nr rm nr rm"),
        errors=REFUSED["equivalent"],
        autocast=True,
    ),
    OpInfo("additive_delta", lora.additive_delta, added, samples("nr rm"), errors=REFUSED["delta"]),
    OpInfo(
        "additive_gradients, A",
        lambda G: lora.additive_gradients(G, 1)[0],
        column_sums,
        samples("nm"),
        errors=REFUSED["additive"],
    ),
    OpInfo(
        "additive_gradients, B",
        lambda G: lora.additive_gradients(G, 1)[1],
        row_sums,
        samples("nm"),
        errors=REFUSED["additive"],
    ),
]
