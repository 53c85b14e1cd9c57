"""Sums over all pairs of particles, in blocks of rows: memory grows with the number of particles, not its square."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_number, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib.optimization.gradient_flow._derivatives import check_point

_BLOCK = 1 << 20  # pairs of a block: 4 MB in float32, some of which stay in cache
_DIRECT = 4096  # up to so many particles the median sorts all distances at once
_BINS = 1 << 14
_GATHERED = 1 << 23  # so many candidates for the median are kept


@without_autocast
def svgd_velocity(
    x: Float[Tensor, "*batch n d"],
    score: Float[Tensor, "*batch n d"],
    *,
    bandwidth: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, "*batch n d"]:
    r"""Return Stein's variational direction.

    .. math:: \phi_i=\frac1n\sum_j\Big[k_{ij}s_j+\frac2h(x_i-x_j)k_{ij}\Big],\qquad k_{ij}=e^{-\|x_i-x_j\|^2/h}

    Args:
        x: particles (*batch, n, d), each batch entry a cloud of its own.
        score: :math:`s_j=\nabla\log p(x_j)`, the same shape.
        bandwidth: h > 0, the same for all clouds; None: for each cloud the lower median of
            :math:`\|x_i-x_j\|^2` over i < j, divided by log(n + 1), at least 1e-12.

    Returns:
        (*batch, n, d) of the dtype of x. One particle moves along its score.

    Raises:
        TypeError: x is not floating, bandwidth no number.
        ValueError: score has another shape, x fewer than two dimensions or no particle, bandwidth is not positive.

    Cost: O(n²d) time; O(nd) memory plus blocks of a million pairs, without a graph. The distances come from products
    of the centred particles: they lose digits where h is below 1e-12 (float64) or 1e-4 (float32) times the largest
    squared distance. Beyond 4096 particles the median takes two or three passes over all pairs, and is still exact.
    Source: Liu & Wang, arXiv:1608.04471, equation (8).

    >>> svgd_velocity(torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [3.0]]), bandwidth=1.0)
    tensor([[2.],
            [2.]])
    """
    check_point("x", x, 2)
    check_dtype("score", score, "floating")
    check_shape("score", score, tuple(x.shape), "as x has")
    if x.shape[-2] == 0:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected at least one particle")
    if bandwidth is not None:
        check_number("bandwidth", bandwidth, above=0, below=math.inf)
    if x.numel() == 0:
        return x + score
    clouds = zip(x.flatten(0, -3), score.flatten(0, -3)) if x.dim() > 2 else [(x, score)]
    moves = [_velocity(cloud, its_score, bandwidth) for cloud, its_score in clouds]
    return torch.stack(moves).reshape(x.shape)


@without_autocast
def kde_score(
    x: Float[Tensor, "n d"], bandwidth: float | Float[Tensor, ""], *, query: Float[Tensor, "m d"] | None = None
) -> Float[Tensor, "m d"]:
    r"""Return :math:`\nabla\log\frac1n\sum_j\mathcal N(\cdot;x_j,h^2I)`, the score of a smoothed cloud.

    It is :math:`\frac1{h^2}\big(\sum_jw_jx_j-y\big)` with softmax weights :math:`w_j\propto e^{-\|y-x_j\|^2/(2h^2)}`,
    finite at any distance.

    Args:
        x: particles (n, d).
        bandwidth: h > 0, a standard deviation.
        query: points y (m, d); None: the particles themselves, each counted in its own sum.

    Returns:
        (m, d) of the dtype of x.

    Raises:
        TypeError: x is not floating, bandwidth no number.
        ValueError: x is not (n, d) with n ≥ 1, query does not fit, bandwidth is not positive.

    Cost: O(mnd) time; memory of blocks of a million pairs, without a graph.

    >>> kde_score(torch.zeros(1, 1), 1.0, query=torch.tensor([[3.0]]))
    tensor([[-3.]])
    """
    check_point("x", x, 2)
    if x.dim() != 2 or len(x) == 0:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected (n, d) with n ≥ 1")
    check_number("bandwidth", bandwidth, above=0, below=math.inf)
    query = x if query is None else query
    check_dtype("query", query, "floating")
    check_shape("query", query, ("m", x.shape[1]), "as x has")
    center = x.detach().mean(0)
    x, query = x - center, query - center
    variance = bandwidth * bandwidth
    # the square of y is the same for all j: weights that sum to one do not see it
    right = torch.cat([x, -x.square().sum(-1, keepdim=True) / 2], -1)
    left = torch.cat([query, torch.ones_like(query[:, :1])], -1) / variance
    return _row_blocks(partial(_smoothed_score, left, right, x, query, variance), query, len(x))


def _smoothed_score(left: Tensor, right: Tensor, x: Tensor, query: Tensor, variance: Any, rows: slice) -> Tensor:
    logits = left[rows] @ right.T
    weight = _exp(logits - logits.detach().amax(-1, keepdim=True))
    return (weight @ x / weight.sum(-1, keepdim=True) - query[rows]) / variance


def _velocity(x: Tensor, score: Tensor, bandwidth: float | Tensor | None) -> Tensor:
    """One cloud (n, d): the kernel's block, and its products with [s, x, 1] side by side in one."""
    x = x - x.detach().mean(0)
    h = median_bandwidth(x.detach()) if bandwidth is None else bandwidth
    left, right = _factors(x)
    left = left / -h
    summed = torch.cat([score, x, torch.ones_like(x[:, :1])], -1)
    return _row_blocks(partial(_moves, left, right, x, summed, h), x, len(x))


def _moves(left: Tensor, right: Tensor, x: Tensor, summed: Tensor, h: Any, rows: slice) -> Tensor:
    n, d = x.shape
    pulled, mean, mass = (_exp(left[rows] @ right.T) @ summed).split([d, d, 1], -1)
    return (pulled + 2 / h * (x[rows] * mass - mean)) / n


@torch.no_grad()
def median_bandwidth(x: Tensor) -> Tensor:
    """The lower median of the squared distances over i < j, over log(n + 1), at least 1e-12."""
    n = len(x)
    if n == 1:
        return x.new_ones(())
    middle = F.pdist(x).median().square() if n <= _DIRECT else _median_in_passes(x)
    return (middle / math.log(n + 1)).clamp_min(1e-12)


def _median_in_passes(x: Tensor) -> Tensor:
    """The lower median without all distances in memory: histograms say where it is, until few enough are there.

    A histogram may misplace values at the edges of its bins, so that a bin's neighbours are searched too, and what lies
    below is counted again by comparison.
    """
    rank = (len(x) * (len(x) - 1) // 2 - 1) // 2  # of the lower median, from 0
    low, high, below = 0.0, 4 * x.square().sum(-1).max().item() * (1 + 1e-6) + 1e-300, 0
    while True:
        blocks = (block.histc(_BINS, low, high).double() for block in _upper_distances(x))
        counts = cast("Tensor", sum(blocks)).cumsum(0)  # of one block at least
        place = int((counts + below <= rank).sum().clamp_max(_BINS - 1))
        width = (high - low) / _BINS
        before = counts[place - 2].item() if place > 1 else 0.0
        near = int(counts[min(place + 2, _BINS - 1)].item() - before)
        low, high = max(low + (place - 1) * width, 0.0), low + (place + 2) * width
        if near <= _GATHERED:
            return _ranked_between(x, rank, low, high, near)
        if width <= 1e-6 * low:  # more distances than memory should hold are equal
            return x.new_tensor((low + high) / 2)
        below = sum(int((block < low).count_nonzero()) for block in _upper_distances(x))


def _ranked_between(x: Tensor, rank: int, low: float, high: float, most: int) -> Tensor:
    """The distance of that rank, known to lie in [low, high] with at most so many others."""
    found, filled, below = x.new_empty(most), 0, 0  # filled in place: a list of pieces would fragment the memory
    for block in _upper_distances(x):
        below += int((block < low).count_nonzero())
        piece = block[(block >= low) & (block <= high)]
        found[filled : filled + len(piece)] = piece
        filled += len(piece)
    return found[:filled].kthvalue(rank - below + 1).values


def _upper_distances(x: Tensor) -> Iterator[Tensor]:
    """Squared distances of the pairs i < j, block after block of rows; in the place of other pairs ∞."""
    left, right = _factors(x)
    rows = _rows(len(x))
    for start in range(0, len(x), rows):
        block = (left[start : start + rows] @ right[start:].T).clamp_min_(0.0)
        square = block[:, : len(block)]
        square.masked_fill_(torch.ones_like(square, dtype=torch.bool).tril_(), math.inf)
        yield block


def _factors(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two matrices whose product holds the squared distances of all pairs."""
    square = x.square().sum(-1, keepdim=True)
    one = torch.ones_like(square)
    return torch.cat([-2 * x, square, one], -1), torch.cat([x, one, square], -1)


def _exp(exponent: Tensor) -> Tensor:
    """exp of what is at most 0 but for rounding; at least tiny to the power 0.8, for subnormal numbers are slow."""
    return exponent.clamp(0.8 * math.log(torch.finfo(exponent.dtype).tiny), 0.0).exp()


def _row_blocks(function: Callable[[slice], Tensor], like: Tensor, n: int) -> Tensor:
    """The function of all rows, written block by block into one tensor."""
    rows = _rows(n)
    if rows >= len(like):
        return function(slice(None))
    out = torch.empty_like(like)
    for start in range(0, len(like), rows):
        block = slice(start, start + rows)
        out[block] = function(block)
    return out


def _rows(n: int) -> int:
    return max(1, _BLOCK // n)
