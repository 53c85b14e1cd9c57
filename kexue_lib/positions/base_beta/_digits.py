"""Whole numbers in one base or in mixed radices, vectorised over the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from kexue_lib._arguments import check_integer
from kexue_lib._tracing import is_traced


def digits(n: Tensor | int, radices: Sequence[int]) -> Shaped[Tensor, "*shape places"]:
    r"""Return the digits of whole numbers, least significant first.

    .. math:: \operatorname{digit}_m(n)=\Big\lfloor\frac n{\beta_1\cdots\beta_{m-1}}\Big\rfloor\bmod\beta_m

    Args:
        n: numbers of any shape, at least 0, of an integer dtype, or one integer (then int64).
        radices: :math:`\beta_1,\beta_2,\dots`, each at least 2; ``[10] * 4`` is decimal, ``[60, 60, 24]`` a clock.

    Returns:
        ``(*shape, len(radices))``, dtype of ``n``. What exceeds the product of the radices is dropped.

    Raises:
        TypeError: ``n`` is not of an integer dtype.
        ValueError: a negative ``n``, no ``radices``, one below 2, or one that the dtype of ``n`` cannot hold.

    Cost: one division and one product per digit. Source: https://kexue.fm/archives/9675, eq. 1, and 9706.

    >>> digits(1749, [16] * 3)
    tensor([ 5, 13,  6])
    >>> digits(torch.tensor([3661]), [60, 60, 24])  # an hour, a minute and a second
    tensor([[1, 1, 1]])
    """
    n = _whole("n", n)
    _check_radices(radices, n.dtype)
    if not is_traced() and n.numel() and n.min() < 0:
        raise ValueError(f"n: got {n.min().item()}, expected numbers of at least 0")
    places = []
    for radix in radices:
        rest = n // radix
        places.append(n - rest * radix)  # as n % radix, without a second division
        n = rest
    return torch.stack(places, dim=-1)


def from_digits(d: Tensor, radices: Sequence[int]) -> Shaped[Tensor, "*shape"]:
    r"""Return the numbers that digits stand for, :math:`\sum_m\operatorname{digit}_m\,\beta_1\cdots\beta_{m-1}`.

    Args:
        d: ``(*shape, len(radices))`` of an integer dtype, least significant first.
        radices: as in :func:`digits`.

    Returns:
        ``(*shape)``, dtype of ``d``.

    Raises:
        TypeError: ``d`` is not of an integer dtype.
        ValueError: the last dimension of ``d`` is not the number of ``radices``; bad ``radices``.

    >>> from_digits(torch.tensor([5, 13, 6]), [16] * 3)
    tensor(1749)
    """
    d = _whole("d", d)
    _check_radices(radices, d.dtype)
    if d.ndim == 0 or d.shape[-1] != len(radices):
        raise ValueError(f"d: got shape {tuple(d.shape)}, expected a last dimension of {len(radices)}, one per radix")
    n = torch.zeros_like(d[..., 0])
    for place in reversed(range(len(radices))):
        n = n * radices[place] + d[..., place]
    return n


def _whole(name: str, values: Tensor | int) -> Tensor:
    if isinstance(values, bool) or not isinstance(values, (int, Tensor)):
        raise TypeError(f"{name}: got {type(values).__name__}, expected an integer or a tensor of integers")
    values = torch.as_tensor(values)
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"{name}: got dtype {values.dtype}, expected an integer dtype")
    return values


def _check_radices(radices: Sequence[int], dtype: torch.dtype) -> None:
    if not radices:
        raise ValueError("radices: got none, expected at least one")
    for radix in radices:
        check_integer("radices", radix, 2, torch.iinfo(dtype).max, most_is=f"what {dtype} holds")


def smallest_base(count: int, places: int) -> int:
    r"""Return the smallest base in which ``places`` digits tell ``count`` numbers apart.

    .. math:: \min\{\beta:\beta^p\ge n\}=\lceil n^{1/p}\rceil

    Args:
        count: n, numbers 0…n − 1.
        places: p, digits.

    Raises:
        ValueError: ``count`` or ``places`` below 1.

    >>> smallest_base(2000, 3)
    13
    """
    check_integer("count", count, 1)
    check_integer("places", places, 1)
    base = max(2, math.floor(count ** (1 / places)) - 1)  # one below: the root is rounded
    while base**places < count:
        base += 1
    return base
