"""One step of LegS and its transpose, for states that are columns (N, b)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from kexue_lib.recurrence.hippo import hippo_matrices
from kexue_lib.recurrence.hippo_discretization._legs import product, solution, transition_factors

METHODS = ("forward", "backward", "bilinear", "bilinear_article", "zoh")
_DENSE_PRODUCT, _DENSE_SOLVE = 128, 768  # sizes up to which dense matrices beat sums, on a CPU
_BLOCK = 1 << 20  # numbers of the exact transitions that are made at once


class Step(Protocol):
    """R, and what a sample adds beside it."""

    def apply(self, y: Tensor, u: Tensor) -> Tensor:
        """Ry, and the sample's addition."""
        ...

    def transposed(self, y: Tensor) -> tuple[Tensor, Tensor | float]:
        """Rᵀy, and the weight of the sample in its addition."""
        ...


def steps(N: int, method: str, counts: Sequence[int], device: torch.device) -> Iterator[tuple[int, Step]]:
    """The steps from k to k + 1 samples, for each k of ``counts``."""
    if method == "zoh":
        yield from _exact_steps(N, counts, device)
        return
    A, B = hippo_matrices("legs", N, device=device)
    eye = torch.eye(N, dtype=A.dtype, device=device)
    for k in counts:
        if method == "forward":
            yield k, _Forward(A, 1 / k)
        elif method == "backward":
            yield k, _Rational(A, eye, 1 / (k + 1), 0.0, None)
        else:  # (I + A/2k) = (1 + ρ)I - ρ(I - λA), with λ = 1/2(k + 1) and ρ = (k + 1)/k
            excess = B / (2 * (k + 1) * (2 * k + 1)) if method == "bilinear_article" else None
            yield k, _Rational(A, eye, 0.5 / (k + 1), (k + 1) / k, excess)


class _Rational:
    """R = (1 + ρ)(I - λA)⁻¹ - ρI; a vector b adds (1 + ρ)(I - λA)⁻¹bu."""

    def __init__(self, A: Tensor, eye: Tensor, lam: float, ratio: float, b: Tensor | None) -> None:
        self.lam, self.ratio, self.b = lam, ratio, b
        self.matrix = torch.sub(eye, A, alpha=lam) if len(A) <= _DENSE_SOLVE else None

    def apply(self, y: Tensor, u: Tensor) -> Tensor:
        z = self._solve(y if self.b is None else torch.addr(y, self.b, u), False)
        return z.mul_(1 + self.ratio).sub_(y, alpha=self.ratio) if self.ratio else z

    def transposed(self, y: Tensor) -> tuple[Tensor, Tensor | float]:
        z = self._solve(y, True).mul_(1 + self.ratio)
        direct = 0.0 if self.b is None else self.b @ z
        return z.sub_(y, alpha=self.ratio), direct

    def _solve(self, right: Tensor, transposed: bool) -> Tensor:
        if self.matrix is None:
            return solution(right.T, right.new_tensor(self.lam), transposed=transposed).T.contiguous()
        matrix = self.matrix.mT if transposed else self.matrix
        return torch.linalg.solve_triangular(matrix, right, upper=transposed)


class _Forward:
    """R = I + A/k."""

    def __init__(self, A: Tensor, rate: float) -> None:
        self.A, self.rate = A, rate

    def apply(self, y: Tensor, u: Tensor) -> Tensor:
        return self._moved(y, False)

    def transposed(self, y: Tensor) -> tuple[Tensor, float]:
        return self._moved(y, True), 0.0

    def _moved(self, y: Tensor, transposed: bool) -> Tensor:
        if len(self.A) <= _DENSE_PRODUCT:
            return torch.addmm(y, self.A.mT if transposed else self.A, y, alpha=self.rate)
        return y + self.rate * product(y.T, transposed=transposed).T


class _Exact:
    """R = r^A as two products: values at the nodes, and back with the basis of the longer past."""

    def __init__(self, values: Tensor, widened: Tensor) -> None:
        self.values, self.widened = values, widened

    def apply(self, y: Tensor, u: Tensor) -> Tensor:
        return self.widened.mT @ (self.values @ y)

    def transposed(self, y: Tensor) -> tuple[Tensor, float]:
        return self.values.mT @ (self.widened @ y), 0.0


def _exact_steps(N: int, counts: Sequence[int], device: torch.device) -> Iterator[tuple[int, Step]]:
    size = max(1, _BLOCK // (N * N))
    for start in range(0, len(counts), size):
        block = counts[start : start + size]
        k = torch.tensor(list(block), dtype=torch.float64, device=device)
        values, widened = transition_factors(N, (k + 1) / k)
        for i, count in enumerate(block):
            yield count, _Exact(values, widened[i])
