"""Many numbers at once: lanes that step together, and a sieve for all numbers of an interval."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Int64
from torch import Tensor

from kexue_lib._arguments import check_integer
from kexue_lib._tracing import is_traced
from kexue_lib.interludes.abc_decomposition._bounds import ceil_isqrt, upper_bound
from kexue_lib.interludes.abc_decomposition._search import abc_min

_LIMIT = 1 << 60  # p² stays below 2^63
_ROOT = math.isqrt((1 << 63) - 1)
_LANES, _PAIRS, _SEGMENT = 1 << 15, 1 << 20, 1 << 18  # so many numbers live at once
_MULTIPLES = 16  # in a segment, from which on a slice of them is written at once


def isqrt_int64(n: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    r"""Return :math:`\lfloor\sqrt n\rfloor`, exact for every int64 from 0.

    Args:
        n: 0 to 2^63 - 1.

    Raises:
        TypeError: another dtype than int64.
        ValueError: a negative number.

    The square root in float64 is off by one near squares above 2^52, first at (2^26+1)² - 1.

    >>> isqrt_int64(torch.tensor([(2**26 + 1) ** 2 - 1, 2**63 - 1])).tolist()
    [67108864, 3037000499]
    """
    _check(n, (1 << 63) - 1)
    return _isqrt(n)


def abc_min_tensor(
    n: Int64[Tensor, "*shape"],
) -> tuple[Int64[Tensor, "*shape"], Int64[Tensor, "*shape"], Int64[Tensor, "*shape"]]:
    """Return the best a, b, c of every entry.

    Args:
        n: 0 to 2^60 - 1, any shape.

    Raises:
        TypeError: another dtype than int64.
        ValueError: an entry outside.

    Among equal sums the smallest a + b, as :func:`abc_min`. Cost: that of :func:`abc_min` for each entry, a few p at a
    time for all that are not done; waits for the device after each of these rounds.

    >>> [x.tolist() for x in abc_min_tensor(torch.tensor([130, 5]))]
    [[10, 0], [13, 0], [0, 5]]
    """
    _check(n, _LIMIT - 1)
    parts = [_lanes(part) for part in n.flatten().split(_LANES)]
    p, q, c = (torch.cat(column).reshape(n.shape) for column in zip(*parts)) if n.numel() else (n, n, n)
    return (p - q) // 2, (p + q) // 2, c


def abc_min_range(
    start: int, stop: int, device: torch.device | str | None = None
) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    r"""Return the best a, b, c of every n from ``start`` to ``stop`` - 1, by a sieve.

    .. math:: \min(a+b+c)=n-\max_{m\le n}\Big(m-\min_{ab=m}(a+b)\Big)

    The inner minimum is over divisors near the root, which a sieve finds for all m at once; the outer one is a running
    maximum.

    Args:
        start: at least 0.
        stop: from ``start`` to 2^60.
        device: of the results.

    Raises:
        TypeError: no integers.
        ValueError: ``start`` below 0 or above ``stop``, ``stop`` above 2^60.

    Among equal sums the smallest a + b. Cost: W log n additions for W numbers from 0; far from 0 the divisors within
    :math:`O(n^{3/8})` of the root, at most one multiple each where they exceed W.

    >>> a, b, c = abc_min_range(0, 131)
    >>> a[-1].item(), b[-1].item(), c[-1].item()
    (10, 13, 0)
    """
    check_integer("start", start, 0)
    check_integer("stop", stop, start, _LIMIT, most_is="2**60")
    a, b, c = (torch.empty(stop - start, dtype=torch.int64, device=device) for _ in range(3))
    for low in range(start, stop, _SEGMENT):
        high = min(low + _SEGMENT, stop)
        for column, found in zip((a, b, c), _sieve(low, high, device)):
            column[low - start : high - start] = found
    return a, b, c


def _check(n: Tensor, most: int) -> None:
    if not isinstance(n, Tensor) or n.dtype != torch.int64:
        raise TypeError(f"n: got {getattr(n, 'dtype', type(n).__name__)}, expected a tensor of torch.int64")
    if is_traced() or not n.numel():
        return
    least, largest = (int(x) for x in n.aminmax())
    if least < 0 or largest > most:
        wanted = "2**60" if most < _LIMIT else "2**63"
        raise ValueError(f"n: got {least if least < 0 else largest}, expected at least 0 and below {wanted}")


def _isqrt(n: Tensor) -> Tensor:
    r = n.double().sqrt().long().clamp(max=_ROOT)
    r -= (r * r > n).long()
    r += (n - r * r >= 2 * r + 1).long()  # not (r + 1)² <= n, which overflows
    return r


def _lanes(n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best p, q, c: blocks of p for all lanes that are not done, twice as long as fewer are left."""
    p, q, c = torch.zeros_like(n), torch.zeros_like(n), n.clone()
    lanes, total, number = torch.arange(len(n), device=n.device), n.clone(), n
    following, width = _isqrt(4 * n), 4
    while len(lanes):
        step = torch.arange(width, device=n.device)
        tried = following[:, None] + step
        excess = tried * tried - 4 * number[:, None]
        # Within the window excess is below 2^49, and a root in double precision on the right side of every integer.
        root = excess.clamp(min=0).double().sqrt().ceil().long()
        root += (root ^ tried) & 1
        rest = (root * root - excess) >> 2
        best = ((tried + rest) * width + step).amin(1)  # the first p among equal sums
        place = best % width
        better = best // width < total
        chosen = lambda x, place=place, better=better: x.gather(1, place[:, None])[better, 0]
        at = lanes[better]
        p[at], q[at], c[at] = chosen(tried), chosen(root), chosen(rest)
        total = torch.where(better, best // width, total)
        following = following + width
        left = following < total
        lanes, total, number, following = (x[left] for x in (lanes, total, number, following))
        width = min(2 * width, max(4, _PAIRS // max(1, len(lanes))), 256)
    return p, q, c


def _sieve(low: int, high: int, device: torch.device | str | None) -> tuple[Tensor, Tensor, Tensor]:
    """Of every number from ``low`` to ``high`` - 1."""
    numbers = torch.arange(low, high, device=device)
    sums = torch.full_like(numbers, 4 * high)
    first, last = max(1, _least_factor(low)), math.isqrt(high - 1)
    # A larger factor, up to the root, has a smaller sum: factors with many multiples here overwrite those before them.
    split = min(last, (high - low) // _MULTIPLES)
    for a in range(first, split + 1):
        b = max(a, -(-low // a))
        at = sums[a * b - low :: a]
        torch.add(numbers[: len(at)], a + b - low, out=at)
    for a, b in _pairs(max(first, split + 1), last, low, high, device):
        sums.scatter_reduce_(0, a * b - low, a + b, "amin")
    if low == 0:
        sums[0] = 0
    # A record is a number whose m - min(a + b) exceeds all before; the first of equal ones has the smallest a + b.
    start = abc_min(low)
    gain = numbers - sums
    gain[0] = low - start.total
    peak = gain.cummax(0).values
    record = torch.cat([torch.ones_like(peak[:1], dtype=torch.bool), gain[1:] > peak[:-1]])
    place = torch.where(record, numbers - low, 0).cummax(0).values
    p, m = sums[place], numbers[place]
    p = torch.where(place == 0, start.a + start.b, p)
    m = torch.where(place == 0, start.a * start.b, m)
    q = _isqrt(p * p - 4 * m)
    return (p - q) // 2, (p + q) // 2, numbers - m


def _least_factor(n: int) -> int:
    """A bound from below on the smaller factor in every best decomposition of n or more.

    p is at most U = upper_bound, c = (sum) - p at most U - p, so m = ab is at least n - U + p, and
    q² = p² - 4m is at most p² - 4p + 4U - 4n, which increases with p: q² <= U² - 4n.
    """
    most = upper_bound(n)
    if n < 1000:
        return 1
    least = ceil_isqrt(4 * (n - most))
    return (least - ceil_isqrt(most * most - 4 * n)) // 2 - 1


def _pairs(
    first: int, last: int, low: int, high: int, device: torch.device | str | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """All a from ``first`` to ``last`` with b >= a and low <= ab < high, about a million pairs at a time."""
    while first <= last:
        width = min(last - first + 1, max(1, _PAIRS // ((high - low) // first + 1)), _PAIRS)
        a = torch.arange(first, first + width, device=device)
        least = torch.maximum((low + a - 1) // a, a)
        count = ((high - 1) // a - least + 1).clamp(min=0)
        ends = count.cumsum(0)
        every = torch.arange(int(ends[-1]), device=device)
        of = torch.repeat_interleave(torch.arange(width, device=device), count)
        yield a[of], least[of] + every - (ends - count)[of]
        first += width
