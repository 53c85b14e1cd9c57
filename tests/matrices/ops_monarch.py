"""The operators of monarch; references: dense matrices in NumPy, entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample, scores, spoiled
from torch import Tensor

from kexue_lib.matrices import monarch

COMPILED_ELSEWHERE = False  # under these tests' type checker, whose wrappers Dynamo cannot trace: see test_monarch


def over_batch(function: Callable[..., Tensor], dims: int) -> Callable[..., Tensor]:
    """The function, whose first input has ``dims`` dimensions, row by row of a batch of all its inputs."""

    def batched(*inputs: Tensor) -> Tensor:
        if inputs[0].dim() == dims:
            return function(*inputs)
        if len(inputs[0]) == 0:
            one = batched(*(x.new_ones(x.shape[1:]) for x in inputs))
            return one.expand(0, *one.shape) + sum(x.sum() for x in inputs)
        return torch.stack([batched(*row) for row in zip(*inputs)])

    return batched


def dense(L: np.ndarray, R: np.ndarray) -> np.ndarray:
    (J, I, Kq), (K, _, l) = L.shape, R.shape
    q = Kq // K
    M = np.zeros((I * J, K * l))
    for i, j, k, t, p in np.ndindex(I, J, K, q, l):
        M[i * J + j, k * l + p] += L[j, i, k * q + t] * R[k, j * q + t, p]
    return M


def tensors(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    made = []
    for i, shape in enumerate(shapes):
        size = int(np.prod(shape))
        made.append(scores(size, 1.0, 5 * i + size, rows=2)[0].view(2, *shape))
    return tuple(made)


def products() -> Iterator[Sample]:
    yield Sample(tensors((3, 6), (2, 3, 3), (3, 2, 2)))
    yield Sample(tensors((2, 6), (2, 2, 4), (2, 4, 3)))


def pairs() -> Iterator[Sample]:
    yield Sample(tensors((2, 3, 3), (3, 2, 2)))


def definite(x: Tensor) -> Tensor:
    return x @ x.mT + torch.eye(x.shape[-1], dtype=x.dtype)


def systems() -> Iterator[Sample]:
    yield Sample(tensors((2, 3, 3), (3, 2, 2), (2, 6)))


def solved(L: np.ndarray, R: np.ndarray, y: np.ndarray) -> np.ndarray:
    L, R = (x @ np.swapaxes(x, 1, 2) + np.eye(x.shape[-1]) for x in (L, R))
    return np.linalg.solve(dense(L, R), y.T).T


def logdet(L: np.ndarray, R: np.ndarray) -> np.ndarray:
    L, R = (x @ np.swapaxes(x, 1, 2) + np.eye(x.shape[-1]) for x in (L, R))
    return np.array(np.linalg.slogdet(dense(L, R))[1])


def signals() -> Iterator[Sample]:
    yield Sample(tensors((6,), (6,)))


def convolution(x: np.ndarray, h: np.ndarray) -> np.ndarray:
    return np.array([sum(h[(s - t) % len(x)] * x[t] for t in range(len(x))) for s in range(len(x))])


SOLVED = (torch.float64, torch.float32)  # LAPACK has no half types

LEFT, RIGHT = torch.eye(3).repeat(2, 1, 1), torch.eye(2).repeat(3, 1, 1)
PAIR = {"L": LEFT, "R": RIGHT}
REFUSED = {
    "matmul": spoiled(
        monarch.monarch_matmul,
        {**PAIR, "x": torch.ones(6)},
        ({"x": torch.ones(6).long()}, TypeError, "x: got torch.int64"),
        ({"L": LEFT.long()}, TypeError, "L: got torch.int64"),
        ({"x": torch.ones(3, 5)}, ValueError, "x: got shape (3, 5)"),
        ({"R": RIGHT[0]}, ValueError, "L: got shapes (2, 3, 3) and R (2, 2)"),
    ),
    "dense": spoiled(
        monarch.monarch_dense,
        PAIR,
        ({"R": RIGHT.long()}, TypeError, "R: got torch.int64"),
        ({"L": torch.ones(2, 2)}, ValueError, "L: got shapes (2, 2) and R (3, 2, 2)"),
        ({"L": torch.ones(2, 2, 2)}, ValueError, "L: got shapes (2, 2, 2) and R (3, 2, 2)"),
    ),
    "solve": spoiled(
        monarch.monarch_solve,
        {**PAIR, "y": torch.ones(6)},
        ({"L": LEFT.long()}, TypeError, "L: got torch.int64"),
        ({"y": torch.ones(6).long()}, TypeError, "y: got torch.int64"),
        ({"L": LEFT[:, :2]}, ValueError, "L: got shapes (2, 2, 3) and R (3, 2, 2)"),
        ({"y": torch.ones(8)}, ValueError, "y: got shape (8,)"),
    ),
    "slogdet": spoiled(
        monarch.monarch_slogdet,
        PAIR,
        ({"R": RIGHT.long()}, TypeError, "R: got torch.int64"),
        ({"L": LEFT[:, :2]}, ValueError, "L: got shapes (2, 2, 3) and R (3, 2, 2)"),
    ),
    "conv": spoiled(
        monarch.monarch_circular_conv,
        {"x": torch.ones(6), "h": torch.ones(6), "nblocks": 2},
        ({"x": torch.ones(6).long()}, TypeError, "x: got torch.int64"),
        ({"h": torch.ones(6) > 0}, TypeError, "h: got torch.bool"),
        ({"h": torch.ones(4)}, ValueError, "h: got shape (4,)"),
        ({"nblocks": 4}, ValueError, "nblocks: got 4"),
        ({"nblocks": 2.0}, TypeError, "nblocks: got 2.0"),
    ),
}

OPS = [
    OpInfo(
        "monarch_matmul",
        over_batch(monarch.monarch_matmul, 2),
        lambda x, L, R: x @ dense(L, R).T,
        products,
        errors=REFUSED["matmul"],
        autocast=True,
        half_tolerance=8.0,
        compiles=COMPILED_ELSEWHERE,
    ),
    OpInfo(
        "monarch_dense",
        over_batch(monarch.monarch_dense, 3),
        dense,
        pairs,
        errors=REFUSED["dense"],
        autocast=True,
        compiles=COMPILED_ELSEWHERE,
    ),
    OpInfo(
        "monarch_solve",
        over_batch(lambda L, R, y: monarch.monarch_solve(definite(L), definite(R), y), 3),
        solved,
        systems,
        errors=REFUSED["solve"],
        dtypes=SOLVED,
        autocast=True,
        compiles=COMPILED_ELSEWHERE,
    ),
    OpInfo(
        "monarch_slogdet",
        over_batch(lambda L, R: monarch.monarch_slogdet(definite(L), definite(R))[1], 3),
        logdet,
        pairs,
        errors=REFUSED["slogdet"],
        dtypes=SOLVED,
        autocast=True,
        compiles=COMPILED_ELSEWHERE,
    ),
    OpInfo(
        "monarch_circular_conv",
        lambda x, h: monarch.monarch_circular_conv(x, h, 2),
        convolution,
        signals,
        errors=REFUSED["conv"],
        dtypes=SOLVED,
        compiles=COMPILED_ELSEWHERE,
    ),
]
