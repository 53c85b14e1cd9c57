"""What the least sum cannot be below or above, and where it is on average."""

from __future__ import annotations

import math

from kexue_lib._arguments import check_integer, check_number


def lower_bound(n: int) -> int:
    r"""Return :math:`\min(n,\lceil2\sqrt n\rceil)`, which no sum a + b + c is below.

    Args:
        n: at least 0.

    Raises:
        TypeError: no integer.
        ValueError: ``n`` below 0.

    >>> lower_bound(130), lower_bound(2)
    (23, 2)
    """
    check_integer("n", n, 0)
    return min(n, ceil_isqrt(4 * n))


def upper_bound(n: int) -> int:
    r"""Return :math:`\lfloor2\sqrt n+2+\sqrt{1+4\sqrt n}\rfloor`, which the least sum is not above; n up to 3.

    Args:
        n: at least 0.

    Raises:
        TypeError: no integer.
        ValueError: ``n`` below 0.

    Computed in integers: with :math:`x=2\sqrt n` it is the largest m with :math:`m-2-x\le\sqrt{1+2x}`.

    >>> upper_bound(130), upper_bound(10**24)
    (31, 2000002000002)
    """
    check_integer("n", n, 0)
    if n <= 3:
        return n
    m = math.isqrt(4 * n) + 2 + math.isqrt(1 + 2 * math.isqrt(4 * n))
    while _not_above(m + 1, n):
        m += 1
    return m


def _not_above(m: int, n: int) -> bool:
    """Whether y = m - 2 is at most x + √(1 + 2x) with x = 2√n: y - x <= √(1 + 2x), in integers."""
    y = m - 2
    if y * y <= 4 * n:
        return True
    # (y - x)² <= 1 + 2x  ⇔  y² + 4n - 1 <= 2x(1 + y)  ⇔  its square.
    left = y * y + 4 * n - 1
    return left <= 0 or left * left <= 16 * n * (1 + y) ** 2


def expected_excess(n: float) -> float:
    r"""Return :math:`(\tfrac32)^{2/3}\,\Gamma(\tfrac53)\,n^{1/6}`, the mean of the least sum less :math:`2\sqrt n`.

    Args:
        n: above 0; the mean is over numbers near it, and a limit law.

    Raises:
        TypeError: no number.
        ValueError: ``n`` not above 0.

    >>> round(expected_excess(1e15), 1)
    374.1
    """
    check_number("n", n, above=0, below=math.inf)
    return 1.5 ** (2 / 3) * math.gamma(5 / 3) * n ** (1 / 6)


def ceil_isqrt(n: int) -> int:
    """Return the least r with r² ≥ n."""
    return math.isqrt(n - 1) + 1 if n > 0 else 0
