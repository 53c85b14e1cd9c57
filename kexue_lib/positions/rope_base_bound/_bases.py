"""The least feasible base for a context length, with the exclusion of all below it, and all feasible bases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from kexue_lib._arguments import check_integer, check_number
from kexue_lib.positions.rope_base_bound._gap import block, pairs_of
from kexue_lib.positions.rope_base_bound._sweep import FLOOR, Sweep, climb, tolerances

# Shorter lengths are walked first: their distances exclude most bases, with longer cells and cheaper scans.
_FIRST_LENGTH = 1024


class MinBase(NamedTuple):
    """The least base b* for a context length.

    ``binding`` is the distance whose gap is zero at ``base``; None where nothing excludes ``lower``, or every base.
    """

    base: float
    length: int
    dim: int
    binding: int | None


class Exclusion(NamedTuple):
    """Why no smaller base is feasible: for each step one distance whose gap is negative on an interval of ln b.

    Step n says: the gap at ``distance[n]`` is negative from ``low[n]`` to ``low[n] + cells[n] * width[n]``, since it
    is below −K·width²/8 at the ends of all cells, K being a bound of its second derivative in ln b:
    ``K = Σ sᵢ²(φᵢ + φᵢ²)`` with ``φᵢ = distance·exp(−low·sᵢ)`` and ``sᵢ = 2i/d``. Each step begins where the one
    before it ends, or at most 10⁻¹⁰ behind it.
    """

    distance: Int64[Tensor, " steps"]
    low: Float64[Tensor, " steps"]
    width: Float64[Tensor, " steps"]
    cells: Int64[Tensor, " steps"]
    cosines: int


def min_base(
    length: int, dim: int = 128, *, rotary_dim: int | None = None, lower: float | int = 1.0, tol: float = 1e-12
) -> MinBase:
    r"""Return the least base with which a similar key scores no less than a random one at every distance.

    .. math:: b^*(L)=\min\{b\ge\text{lower}:f_b(m)\ge0\ \text{for}\ m=0,\dots,L-1\}

    Args:
        length: L, number of positions, at least 1.
        dim: head dimension d, even.
        rotary_dim: how many components turn; default: all.
        lower: least base considered, at least 1.
        tol: a gap above −tol − 8·10⁻¹⁵m counts as zero (the second term is rounding).

    Returns:
        :class:`MinBase`. Every base below its own, to a relative 10⁻¹⁰, is excluded by a certificate, not by
        sampling (:func:`certified_min_bases` returns it). The base is infinite where no base serves (two components
        turn, none stand still, L ≥ 3).

    Raises:
        TypeError, ValueError: a bad argument, named in the message.

    Cost: grows a little faster than L: on one core 0.05 s for L = 1024, 5 s for 2¹⁷, a minute for 2²⁰ (d = 128).

    Source: the condition is https://kexue.fm/archives/10122 and arXiv 2405.14591; the search is this book's.

    >>> min_base(1024)
    MinBase(base=4293.43..., length=1024, dim=128, binding=1009)
    """
    check_integer("length", length, 1)
    return certified_min_bases([length], dim, rotary_dim=rotary_dim, lower=lower, tol=tol)[0][0]


def min_bases(
    lengths: Sequence[int],
    dim: int = 128,
    *,
    rotary_dim: int | None = None,
    lower: float | int = 1.0,
    tol: float = 1e-12,
) -> list[MinBase]:
    """Return :func:`min_base` of many lengths in one walk, in the order given.

    Args:
        lengths: each at least 1, in any order.
        dim: head dimension d, even.
        rotary_dim: how many components turn; default: all.
        lower: least base considered, at least 1.
        tol: as in :func:`min_base`.

    Raises:
        TypeError, ValueError: a bad argument, named in the message.

    Cost: that of the longest.

    >>> [round(each.base) for each in min_bases([2048, 1024])]
    [11587, 4293]
    """
    return certified_min_bases(lengths, dim, rotary_dim=rotary_dim, lower=lower, tol=tol)[0]


def certified_min_bases(
    lengths: Sequence[int],
    dim: int = 128,
    *,
    rotary_dim: int | None = None,
    lower: float | int = 1.0,
    tol: float = 1e-12,
) -> tuple[list[MinBase], Exclusion]:
    """Return :func:`min_bases` and the certificate that no smaller base is feasible.

    The steps of :class:`Exclusion` cover ln b from ``lower`` to the largest result. Those up to the base of one length
    use distances below that length only.

    Args:
        lengths: each at least 1, in any order.
        dim: head dimension d, even.
        rotary_dim: how many components turn; default: all.
        lower: least base considered, at least 1.
        tol: as in :func:`min_base`.

    Raises:
        TypeError, ValueError: a bad argument, named in the message.

    Cost: as :func:`min_bases`; about 10 steps for L = 1024 in each unit of ln b, 1000 for 2²⁰.

    >>> bases, exclusion = certified_min_bases([64], 32)
    >>> bases[0].base, exclusion.low[0].item()
    (314.70..., 0.0)
    """
    pairs = pairs_of(dim, rotary_dim)
    for length in lengths:
        check_integer("lengths", length, 1)
    check_number("lower", lower, least=1, below=math.inf)
    check_number("tol", tol, least=0, below=math.inf)
    sweep, found = Sweep(math.log(lower), pairs, tol), {}
    for length in sorted(set(lengths)):
        _run(sweep, length)
        base = math.exp(sweep.u) if sweep.steps or sweep.u == math.inf else float(lower)
        found[length] = MinBase(base, length, dim, sweep.binding)
    columns = list(zip(*sweep.steps)) or [()] * 4
    kinds = (torch.int64, torch.float64, torch.float64, torch.int64)
    distance, low, width, cells = (torch.tensor(c, dtype=k) for c, k in zip(columns, kinds))
    exclusion = Exclusion(distance, low, width, cells, sweep.cosines)
    return [found[length] for length in lengths], exclusion


def feasible_intervals(
    length: int, dim: int, low: float | int, high: float | int, *, rotary_dim: int | None = None, tol: float = 1e-12
) -> list[tuple[float, float]]:
    """Return all bases in [low, high] that serve a length, as closed intervals.

    Args:
        length: L, at least 1.
        dim: head dimension d, even.
        low: least base, at least 1.
        high: largest base.
        rotary_dim: how many components turn; default: all.
        tol: as in :func:`min_base`.

    Returns:
        Maximal intervals in ascending order, ends to a relative 10⁻⁸ (``low`` and ``high`` where they cut one); inside
        each the condition is certified as the exclusion between them is.

    Raises:
        TypeError, ValueError: a bad argument, or ``low`` not below ``high``.

    Cost: the exclusion as in :func:`min_base`; inside the intervals all distances are computed in cells of a width
    of about 10/L in ln b.

    >>> [(round(a), round(b)) for a, b in feasible_intervals(64, 32, 50, 1000)]
    [(315, 1000)]
    """
    pairs = pairs_of(dim, rotary_dim)
    check_integer("length", length, 1)
    check_number("low", low, least=1, below=math.inf)
    check_number("high", high, above=low, below=math.inf)
    check_number("tol", tol, least=0, below=math.inf)
    u, stop, intervals = math.log(low), math.log(high), []
    while u < stop:
        sweep = Sweep(u, pairs, tol)
        if not sweep.run(length, stop):
            break
        end = climb(sweep.u, length, pairs, tol, stop)
        intervals.append(
            (math.exp(sweep.u) if sweep.steps else float(low), float(high) if end == stop else math.exp(end))
        )
        u = end + FLOOR
    return intervals


def _run(sweep: Sweep, length: int) -> None:
    """Walk to the least base for a length, or to infinity where no base serves."""
    if not sweep.pairs.exponents.any():  # one pair, of speed 1 whatever the base
        distances = torch.arange(length, dtype=torch.float64)
        if bool((block(0.0, 0, length, sweep.pairs) < -tolerances(distances, sweep.tol)).any()):
            sweep.u, sweep.binding = math.inf, None
        return
    shorter = _FIRST_LENGTH
    while shorter < length:
        sweep.run(shorter)
        shorter *= 2
    sweep.run(length)
