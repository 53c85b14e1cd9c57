"""The gap f_b(m) between similar and random keys: at given distances, over a whole range, and its first negative."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number

# Rows of a scan's first block; each further block is as long as everything before it.
_FIRST_BLOCK = 4096
# Of an angle relative to its distance: the speed and the product are rounded.
_ROUNDING = torch.finfo(torch.float64).eps


class Pairs(NamedTuple):
    """The pairs of a head: exponents s of the speeds b^(−s), and how many pairs stand still."""

    exponents: Tensor
    still: float


def pairs_of(dim: int, rotary_dim: int | None, device: torch.device | str | None = None) -> Pairs:
    """Check ``dim`` and ``rotary_dim`` and return the pairs that they stand for."""
    check_integer("dim", dim, 2, even=True)
    if rotary_dim is not None:
        check_integer("rotary_dim", rotary_dim, 2, dim, most_is="dim", even=True)
    turning = dim if rotary_dim is None else rotary_dim
    exponents = torch.arange(0, turning, 2, dtype=torch.float64, device=device) / turning
    return Pairs(exponents, (dim - turning) / 2)


def similarity_gap(
    relative: Shaped[Tensor, "*#shape"],
    base: float | int | Shaped[Tensor, "*#shape"],
    dim: int,
    *,
    rotary_dim: int | None = None,
) -> Float[Tensor, "*shape"]:
    r"""Return by how much a similar key outscores a random one, in units of 2σ².

    .. math:: f_b(m)=\sum_{i=0}^{\rho/2-1}\cos(m\,b^{-2i/\rho})+\frac{d-\rho}2

    Args:
        relative: distances m in tokens, integer or not, any shape.
        base: b ≥ 1, a number or a tensor that broadcasts with ``relative``.
        dim: head dimension d, even.
        rotary_dim: ρ, how many components turn, even and at most d; default: all.

    Returns:
        float64, the broadcast shape; at most d/2, reached at m = 0.

    Raises:
        TypeError, ValueError: a bad ``dim`` or ``rotary_dim``; ``base`` below 1, infinite or NaN.

    Cost: ρ/2 cosines for each element. Error: about m·10⁻¹⁵. Differentiable in both tensors.

    Source: https://kexue.fm/archives/10122.

    >>> similarity_gap(torch.tensor([0, 1, 3]), 100.0, 4)
    tensor([ 2.0000,  1.5353, -0.0347], dtype=torch.float64)
    """
    check_dtype("relative", relative, "real")
    pairs = pairs_of(dim, rotary_dim, relative.device)
    check_number("base", base, least=1, below=math.inf)
    base = torch.as_tensor(base, dtype=torch.float64, device=relative.device)
    speeds = torch.exp(-base.log().unsqueeze(-1) * pairs.exponents)
    return (relative.double().unsqueeze(-1) * speeds).cos().sum(-1) + pairs.still


def similarity_gap_range(
    base: float | int, dim: int, length: int, *, rotary_dim: int | None = None, device: torch.device | str | None = None
) -> Float[Tensor, " length"]:
    r"""Return the gap at every distance below a length, by one matrix product.

    With m = Jp + q the addition theorem splits the cosine,

    .. math:: \cos(m\theta)=\cos(Jp\,\theta)\cos(q\theta)-\sin(Jp\,\theta)\sin(q\theta),

    so that the sum over pairs is the product of an (L/J, 2N) by a (2N, J) matrix: about 4√L sines and cosines for
    each pair in place of L cosines.

    Args:
        base: b ≥ 1.
        dim: head dimension d, even.
        length: L, at least 1; the distances are m = 0, …, L − 1.
        rotary_dim: how many components turn; default: all.
        device: of the result.

    Returns:
        ``(length,)`` float64. Error: below 10⁻⁹ for m up to 2²⁰.

    Raises:
        TypeError, ValueError: a bad argument, named in the message.

    Cost: O(L·d) multiplications, O(√L·d) cosines.

    >>> similarity_gap_range(100.0, 4, 4)
    tensor([ 2.0000,  1.5353,  0.5639, -0.0347], dtype=torch.float64)
    """
    pairs = pairs_of(dim, rotary_dim, device)
    check_number("base", base, least=1, below=math.inf)
    check_integer("length", length, 1)
    return block(math.log(base), 0, length, pairs)


def max_context_length(
    base: float | int, dim: int, *, rotary_dim: int | None = None, limit: int = 2**22, tol: float = 1e-9
) -> int | None:
    r"""Return the context length of a base: the first distance at which a similar key scores below a random one.

    .. math:: M(b)=\min\{m\ge1:f_b(m)<0\}

    All distances m < M(b) are safe, so b serves every length L ≤ M(b). M does not grow steadily with b.

    Args:
        base: b ≥ 1.
        dim: head dimension d, even.
        rotary_dim: how many components turn; default: all.
        limit: distances below it are searched.
        tol: a gap above −tol counts as zero; to it the rounding error at each distance is added, m·d·10⁻¹⁶, so that
            the least base of a length serves that length.

    Returns:
        M(b), or None where no gap below ``limit`` is negative.

    Raises:
        TypeError, ValueError: a bad argument, named in the message.

    Cost: as :func:`similarity_gap_range` up to twice M(b).

    >>> max_context_length(10000.0, 128)
    1707
    """
    pairs = pairs_of(dim, rotary_dim)
    check_number("base", base, least=1, below=math.inf)
    check_integer("limit", limit, 1)
    check_number("tol", tol, least=0, below=math.inf)
    for start, gaps in blocks(math.log(base), limit, pairs):
        distances = torch.arange(start, start + len(gaps), dtype=gaps.dtype, device=gaps.device)
        below = (gaps < -tol - distances * len(pairs.exponents) * _ROUNDING).nonzero()
        if below.numel():
            return start + int(below[0])
    return None


def block(u: float, start: int, stop: int, pairs: Pairs) -> Tensor:
    """The gaps at ln b = u for start ≤ m < stop."""
    width, rows = _tiling(stop - start)
    speeds = torch.exp(-u * pairs.exponents)
    ticks = torch.arange(max(width, rows), dtype=torch.float64, device=speeds.device)
    across = ticks[:width] * speeds.unsqueeze(1)
    down = (start + width * ticks[:rows]).unsqueeze(1) * speeds
    left, right = torch.cat([down.cos(), down.sin()], 1), torch.cat([across.cos(), across.sin().neg_()])
    return torch.addmm(left.new_full((1, 1), pairs.still), left, right).view(-1)[: stop - start]


def block_cosines(length: int, pairs: Pairs) -> int:
    """How many cosines and sines a block takes."""
    return 2 * sum(_tiling(length)) * len(pairs.exponents)


def blocks(u: float, length: int, pairs: Pairs) -> Iterator[tuple[int, Tensor]]:
    """The gaps below a length in blocks that double, each with its first distance."""
    start = 0
    while start < length:
        stop = min(length, max(_FIRST_BLOCK, 2 * start))
        yield start, block(u, start, stop, pairs)
        start = stop


def _tiling(length: int) -> tuple[int, int]:
    """Width J, a power of two near the square root, and the number of rows."""
    width = 1 << round(math.log2(length) / 2)
    return width, -(-length // width)
