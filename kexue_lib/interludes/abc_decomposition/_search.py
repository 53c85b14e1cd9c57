"""One number, of any size: every candidate, the published scan, and the search by p = a + b."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from kexue_lib._arguments import check_integer
from kexue_lib.interludes.abc_decomposition._bounds import upper_bound


class Decomposition(NamedTuple):
    """n = ab + c with 0 ≤ a ≤ b and c ≥ 0."""

    a: int
    b: int
    c: int

    @property
    def total(self) -> int:
        """Return a + b + c."""
        return self.a + self.b + self.c


class SearchTrace(NamedTuple):
    """What the search looked at: for each p = a + b, ascending, its best q = b - a, the remainder and the sum."""

    p: list[int]
    q: list[int]
    c: list[int]
    total: list[int]


def brute_force(n: int) -> Decomposition:
    r"""Return the best decomposition after a look at every a up to :math:`\sqrt n`, as a reference.

    Args:
        n: at least 0.

    Raises:
        TypeError: no integer.
        ValueError: ``n`` below 0.

    Among equal sums the one with the smallest a + b. Cost: :math:`\sqrt n` divisions.

    >>> brute_force(130), brute_force(130).total
    (Decomposition(a=10, b=13, c=0), 23)
    """
    check_integer("n", n, 0)
    pairs = ((a, n // a) for a in range(1, math.isqrt(n) + 1))
    found = (Decomposition(a, b, n - a * b) for a, b in pairs)
    return min((Decomposition(0, 0, n), *found), key=lambda d: (d.total, d.a + d.b))


def abc_min_sqrt(n: int) -> Decomposition:
    r"""Return the best of :math:`a\in(\sqrt{n/2},\sqrt n]`: the published scan, which is wrong for 31 numbers.

    Args:
        n: at least 1.

    Raises:
        TypeError: no integer.
        ValueError: ``n`` below 1, or 2, 3, 8, where the interval holds no integer.

    Cost: :math:`0.3\sqrt n` divisions.

    >>> abc_min_sqrt(130).total, abc_min_sqrt(98).total, brute_force(98).total  # 98 is one of the 31
    (23, 22, 21)
    """
    check_integer("n", n, 1)
    first, last = math.isqrt(n // 2) + 1, math.isqrt(n)
    if first > last:
        raise ValueError(f"n: got {n}, expected one with an integer in (√(n/2), √n]")
    pairs = ((a, n // a) for a in range(first, last + 1))
    found = (Decomposition(a, b, n - a * b) for a, b in pairs)
    return min(found, key=lambda d: (d.total, d.a + d.b))


def abc_min_window(n: int) -> Decomposition:
    r"""Return the best decomposition from all p = a + b that the proved bound leaves.

    Args:
        n: at least 0.

    Raises:
        TypeError: no integer.
        ValueError: ``n`` below 0.

    Among equal sums the one with the smallest a + b. Cost: :math:`2n^{1/4}` square roots.

    >>> abc_min_window(10**12 + 39)
    Decomposition(a=1000000, b=1000000, c=39)
    """
    check_integer("n", n, 0)
    last = upper_bound(n)
    best = Decomposition(0, 0, n)
    for p, q, c in _visits(n):
        if p > last:
            break
        if p + c < best.total:
            best = _decomposition(p, q, c)
    return best


def abc_min(n: int) -> Decomposition:
    r"""Return the best decomposition; the search stops as soon as p = a + b reaches the best sum.

    .. math:: q=\min\{q\ge0:\ q\equiv p\ (2),\ q^2\ge p^2-4n\},\qquad c=\tfrac14(4n-p^2+q^2)

    Args:
        n: at least 0, of any size.

    Raises:
        TypeError: no integer.
        ValueError: ``n`` below 0.

    Exact: integers only. Among equal sums the one with the smallest a + b. Cost: about :math:`1.2\,n^{1/6}` square
    roots on average, :math:`2n^{1/4}` at most.

    >>> abc_min(130), abc_min(10**12 + 39).total
    (Decomposition(a=10, b=13, c=0), 2000039)
    """
    check_integer("n", n, 0)
    best, total = (0, 0, n), n
    for p, q, c in _visits(n):
        if p >= total:
            break
        if p + c < total:
            best, total = (p, q, c), p + c
    return _decomposition(*best)


def search_trace(n: int) -> SearchTrace:
    """Return what :func:`abc_min` looks at.

    Args:
        n: at least 0.

    Raises:
        TypeError: no integer.
        ValueError: ``n`` below 0.

    The least of ``total`` is the answer, but for n < 6, where (0, 0, n) may beat it.

    >>> search_trace(130)
    SearchTrace(p=[22, 23], q=[0, 3], c=[9, 0], total=[31, 23])
    """
    check_integer("n", n, 0)
    trace, best = SearchTrace([], [], [], []), n
    for p, q, c in _visits(n):
        if p >= best:
            break
        best = min(best, p + c)
        for column, value in zip(trace, (p, q, c, p + c)):
            column.append(value)
    return trace


def _visits(n: int) -> Iterator[tuple[int, int, int]]:
    """The best (p, q, c) of each p from ⌊2√n⌋ on; a smaller p has a larger sum than the first."""
    p = math.isqrt(4 * n)
    excess = p * p - 4 * n
    isqrt = math.isqrt
    while True:
        q = isqrt(excess - 1) + 1 if excess > 0 else 0
        q += (q ^ p) & 1
        yield p, q, (q * q - excess) >> 2
        excess += 2 * p + 1
        p += 1


def _decomposition(p: int, q: int, c: int) -> Decomposition:
    return Decomposition((p - q) // 2, (p + q) // 2, c)
