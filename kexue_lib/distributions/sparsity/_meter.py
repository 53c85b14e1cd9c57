"""Sparsity of a stream: norm ratios of more data than fits into memory, in one pass."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_shape
from kexue_lib.distributions.sparsity._power_sums import magnitude, power


class SparsityMeter:
    """`norm_ratio` of everything that was ever passed to `update`, as if it were one vector.

    Keeps the largest magnitude and the two power sums relative to it, in float64 on the device of the data; meters of
    several processes or shards are merged.

    Args:
        q: power of the numerator, > 0.
        p: power of the denominator, q < p ≤ inf.
        per_feature: one number for each index of the last dimension instead of one for all.

    Raises:
        TypeError: at `update`, x is not floating.
        ValueError: not 0 < q < p ≤ inf; at `update` or `merge`, another number of features; at `merge`, other powers.
        RuntimeError: `compute` without data.

    Cost: `update` reads x as `norm_ratio` does and never waits for the device. Source: article 9595, S*_{q,p}.

    >>> meter = SparsityMeter()
    >>> for chunk in (torch.zeros(2, 3), torch.tensor([5.0]), torch.zeros(2)):
    ...     meter.update(chunk)
    >>> meter.compute()  # one of nine entries is not 0
    tensor(0.3333, dtype=torch.float64)
    """

    def __init__(self, q: float | int = 1.0, p: float | int = 2.0, per_feature: bool = False):
        if not 0 < q < p:
            raise ValueError(f"q, p: got {q} and {p}, expected 0 < q < p <= inf")
        self.q, self.p, self.per_feature = float(q), float(p), per_feature
        self.count = 0
        self._largest: Tensor | None = None
        self._sums: tuple[Tensor, ...] = ()  # Σ(|x|/largest)ᵉ for each finite power

    @property
    def _powers(self) -> tuple[float, ...]:
        return (self.q,) if math.isinf(self.p) else (self.q, self.p)

    @torch.no_grad()
    def update(self, x: Float[Tensor, "..."]) -> None:
        """Add data of any shape; with `per_feature` of shape (..., features). Empty data change nothing."""
        check_dtype("x", x, "floating")
        if self.per_feature:
            check_shape("x", x, ("...", "features"))
        if x.numel() == 0:
            return
        rows = x.reshape(-1, x.shape[-1]) if self.per_feature else x.reshape(-1)
        rows = magnitude(rows.to(torch.promote_types(x.dtype, torch.float32)))
        largest = rows.amax(0)
        relative = rows / _unless_zero(largest)
        sums = tuple(power(relative, e).sum(0, dtype=torch.float64) for e in self._powers)
        self._add(len(rows), largest.double(), sums)

    @torch.no_grad()
    def merge(self, other: SparsityMeter) -> None:
        """Add everything that another meter has seen."""
        if not isinstance(other, SparsityMeter):
            raise TypeError(f"other: got {type(other).__name__}, expected a SparsityMeter")
        ours, theirs = (self.q, self.p, self.per_feature), (other.q, other.p, other.per_feature)
        if ours != theirs:
            raise ValueError(f"other: got (q, p, per_feature) = {theirs}, expected the same {ours}")
        if other._largest is not None:
            self._add(other.count, other._largest, other._sums)

    def compute(self) -> Float[Tensor, "..."]:
        """S*_{q,p} of all data: a float64 number, or (features,); 1 where all data are 0."""
        if self._largest is None:
            raise RuntimeError("SparsityMeter has seen no data: call update first")
        means = [torch.where(self._largest == 0, 1.0, s / self.count) for s in self._sums]
        logs = [mean.log() / e for mean, e in zip(means, self._powers)]
        return (logs[0] - logs[1]).exp() if len(logs) > 1 else logs[0].exp()

    def _add(self, count: int, largest: Tensor, sums: tuple[Tensor, ...]) -> None:
        if self._largest is None:
            self.count, self._largest, self._sums = count, largest, sums
            return
        if largest.shape != self._largest.shape:
            raise ValueError(f"x: got {len(largest)} features, expected {len(self._largest)} as before")
        top = torch.maximum(self._largest, largest)
        old, new = self._largest / _unless_zero(top), largest / _unless_zero(top)
        self._sums = tuple(s * old**e + t * new**e for s, t, e in zip(self._sums, sums, self._powers))
        self._largest = top
        self.count += count


def _unless_zero(largest: Tensor) -> Tensor:
    return torch.where(largest == 0, 1.0, largest)
