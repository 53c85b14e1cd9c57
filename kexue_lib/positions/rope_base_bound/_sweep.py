"""A certified walk along u = ln b: every base passed is excluded by a distance whose gap is proved negative there.

One distance m has the gap f(u) = Σ cos(φᵢ) + constant with φᵢ = m·exp(−u·sᵢ), and |f″(u)| ≤ Σ sᵢ²(φᵢ + φᵢ²) = K(u),
which falls as u grows. Between u and u + h a function stays within K(u)·h²/8 of its chord, so two values at the ends
decide a short enough cell: below zero they exclude every base in it, above zero they allow it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from kexue_lib.positions.rope_base_bound._gap import Pairs, block, block_cosines, blocks

FLOOR = 2e-12  # cells of ln b shorter than this are rounding
_ROUNDING = 1e-15  # of a gap, for each unit of distance
_CELLS = 16  # of one step at most
_NEWCOMERS, _POOL = 24, 96  # distances that a scan proposes, and those kept
_DEEP = 0.5  # a gap this far below zero ends a scan: larger distances would only allow shorter cells


class Step(NamedTuple):
    """The gap at ``distance`` is negative from ``low`` to ``low + cells * width``, all in ln b."""

    distance: int
    low: float
    width: float
    cells: int


def tolerances(distances: Tensor, tol: float) -> Tensor:
    """How far below zero a gap counts as zero: ``tol`` and the rounding error at that distance, eight times."""
    return tol + 8 * _ROUNDING * distances


def curvature(distances: Tensor, u: float, pairs: Pairs) -> Tensor:
    """K(u) of each distance."""
    s = pairs.exponents
    speeds = torch.exp(s * -u)
    return distances * (s.square() * speeds).sum() + distances.square() * (s * speeds).square().sum()


class Sweep:
    """Walks to the right from u, keeping the distances that excluded bases lately."""

    def __init__(self, u: float, pairs: Pairs, tol: float) -> None:
        self.u, self.pairs, self.tol = u, pairs, tol
        self.steps: list[Step] = []
        self.binding: int | None = None  # the distance that excluded the last base before u
        self.cosines = self.scans = 0
        self._pool = pairs.exponents.new_empty(0)

    def run(self, length: int, stop: float = math.inf) -> bool:
        """Walk to the first u at which no distance below ``length`` has a negative gap; False where ``stop`` is first.

        Where the pool ends, the place just behind is scanned: what is negative there mostly is so here too. Only
        where that fails are the cells made shorter, down to rounding, and the root is the answer unless another
        distance is negative behind it.
        """
        shrink, looked = 1.0, -1.0
        while self.u < stop:
            step, width = self._walk(shrink)
            if step is not None:
                self.steps.append(step)
                self.u, self.binding = step.low + step.width * step.cells, step.distance
                shrink = min(1.0, 2 * shrink)
            elif width > FLOOR and looked == self.u:
                shrink /= 4
            elif width > FLOOR:
                looked = self.u
                self._scan(self.u + width, length)
            else:
                self.u, shrink = self.u + (FLOOR if self.steps else 0.0), 1.0
                if not self._scan(self.u, length):
                    return True
        self.u = stop
        return False

    def _walk(self, shrink: float) -> tuple[Step | None, float]:
        """The longest step that a distance of the pool allows; else none, and the width of the cell that failed."""
        gaps = self._gaps(self._pool, self._pool.new_tensor([self.u]))[:, 0]
        alive = gaps < -tolerances(self._pool, self.tol)
        if not alive.any():
            return None, 0.0
        distances, depth = self._pool[alive], -gaps[alive]
        width = shrink * (4 * depth / curvature(distances, self.u, self.pairs)).sqrt()  # K·h²/8 is half the depth
        ahead = self.u + width.unsqueeze(1) * torch.arange(1, _CELLS + 1, dtype=torch.float64, device=width.device)
        needed = 0.5 * depth + _ROUNDING * distances
        cells = (self._gaps(distances, ahead) < -needed.unsqueeze(1)).cumprod(1).sum(1)
        best = int((cells * width).argmax())
        if not cells[best]:
            return None, float(width.max())
        return Step(int(distances[best]), self.u, float(width[best]), int(cells[best])), 0.0

    def _scan(self, u: float, length: int) -> bool:
        """Put distances with a negative gap at u into the pool; whether there are any."""
        self.scans += 1
        found = []
        for start, gaps in blocks(u, length, self.pairs):
            self.cosines += block_cosines(len(gaps), self.pairs)
            distances = torch.arange(start, start + len(gaps), dtype=torch.float64, device=gaps.device)
            negative = gaps < -tolerances(distances, self.tol)
            if negative.any():
                found.append(torch.stack([distances[negative], (-gaps[negative]).sqrt() / distances[negative]]))
                if gaps.min() < -_DEEP:
                    break
        if not found:
            return False
        distances, reach = torch.cat(found, 1)
        chosen = distances[reach.topk(min(_NEWCOMERS, len(reach))).indices]
        self._pool = torch.cat([chosen, self._pool[~torch.isin(self._pool, chosen)]])[:_POOL]
        return True

    def _gaps(self, distances: Tensor, u: Tensor) -> Tensor:
        """The gaps of each distance (w) at its places u (w or 1, points), or at places (points) of all: (w, points)."""
        speeds = torch.exp(u.unsqueeze(-1) * -self.pairs.exponents)
        angles = distances.view(-1, 1, 1) * speeds
        self.cosines += angles.numel()
        return angles.cos_().sum(-1) + self.pairs.still


def climb(u: float, length: int, pairs: Pairs, tol: float, stop: float) -> float:
    """The end of the interval of feasible ln b that begins at u, or ``stop`` where that comes first."""
    distances = torch.arange(length, dtype=torch.float64, device=pairs.exponents.device)
    allowed = -tolerances(distances, tol)
    gaps, width = block(u, 0, length, pairs), 1e-6
    while u < stop:
        ahead = min(u + width, stop)
        beyond = block(ahead, 0, length, pairs)
        sag = curvature(distances, u, pairs) * ((ahead - u) ** 2 / 8)
        if bool((torch.minimum(gaps, beyond) - sag >= allowed).all()):
            u, gaps, width = ahead, beyond, 2 * width
        elif width < FLOOR:
            return u
        else:
            width /= 4
    return stop
