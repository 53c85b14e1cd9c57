"""The nearest point of a convex set, for every row of a batch at once: balls, boxes, the simplex."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_broadcast, check_dtype, check_number
from kexue_lib._tracing import is_traced

Points = Float[Tensor, "*batch d"]


def project_l2_ball(x: Points, radius: float = 1.0, center: Float[Tensor, "..."] | None = None) -> Points:
    r"""Return the nearest point of the ball: :math:`c+(x-c)\min(1,r/\|x-c\|)`.

    Args:
        x: points (..., d).
        radius: r > 0.
        center: c, broadcasts to x; the origin if None.

    Returns:
        (..., d) of the dtype of x; points inside are returned unchanged, a row with NaN or ±∞ is NaN.

    Raises:
        TypeError: x is not floating, radius no number.
        ValueError: x has no dimension, radius is not positive, center does not fit.

    Cost: three passes. Squares neither overflow nor vanish.

    >>> project_l2_ball(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    _check(x)
    check_number("radius", radius, above=0, below=math.inf)
    if center is not None:
        check_broadcast("center", center, x.shape, "x")
    wide = _wide(x)
    v = wide if center is None else wide - center
    unit = v.detach().abs().amax(-1, keepdim=True) if x.shape[-1] else v.detach().sum(-1, keepdim=True)
    unit = torch.where(unit > 0, unit, 1.0)
    inside = torch.linalg.vector_norm(v.detach() / unit, dim=-1, keepdim=True) * unit <= radius
    u = torch.where(inside, 1.0, v / unit)  # no norm of zero, whose derivative is undefined
    on_sphere = u * (radius / torch.linalg.vector_norm(u, dim=-1, keepdim=True))
    if center is not None:
        on_sphere = on_sphere + center
    return torch.where(inside, wide, on_sphere).to(x.dtype)


def project_box(x: Points, lo: float | Float[Tensor, "..."], hi: float | Float[Tensor, "..."]) -> Points:
    r"""Return the nearest point of the box: :math:`\min(\max(x,\text{lo}),\text{hi})`, entry by entry.

    Args:
        x: points (..., d).
        lo: lower end, a number or a tensor that broadcasts to x.
        hi: upper end, the same.

    Returns:
        (..., d) of the dtype of x.

    Raises:
        TypeError: x is not floating, an end is no number.
        ValueError: x has no dimension, an end does not fit, lo > hi somewhere.

    Cost: one pass.

    >>> project_box(torch.tensor([-3.0, 0.5, 4.0]), -1.0, 2.0)
    tensor([-1.0000,  0.5000,  2.0000])
    """
    _check(x)
    ends = []
    for name, end in (("lo", lo), ("hi", hi)):
        check_number(name, end)
        end = torch.as_tensor(end, dtype=x.dtype, device=x.device)
        check_broadcast(name, end, x.shape, "x")
        ends.append(end)
    if not is_traced() and bool((ends[0] > ends[1]).any()):
        first = (ends[0] - ends[1]).argmax()
        low, high = (e.expand_as(ends[0] + ends[1]).flatten()[first].item() for e in ends)
        raise ValueError(f"lo: got {low}, expected at most hi = {high}")
    return torch.minimum(torch.maximum(x, ends[0]), ends[1])


def project_simplex(x: Points, total: float = 1.0) -> Points:
    r"""Return the nearest point with nonnegative entries that sum to s: :math:`\max(x-\lambda,0)`.

    :math:`\lambda=\frac1m\big(\sum_{i\le m}x_{(i)}-s\big)`, over the m largest entries, m the largest number for which
    :math:`x_{(m)}>\lambda`. The row's maximum is subtracted first, so that entries of any size keep their digits.

    Args:
        x: points (..., d) with d ≥ 1.
        total: s > 0.

    Returns:
        (..., d) of the dtype of x, sums s up to rounding; a row with NaN or ±∞ is NaN.

    Raises:
        TypeError: x is not floating, total no number.
        ValueError: x has no entry along the last dimension, total is not positive.

    Cost: one sort of each row, O(d log d), and no host synchronisation; on the CPU Newton's method on λ instead, a few
    passes, at most 16 before it gives way to the sort. The backward pass does neither.
    Source: Held, Wolfe & Crowder, Math. Programming 1974; Michelot, JOTA 1986; Duchi et al., ICML 2008.

    >>> project_simplex(torch.tensor([0.75, 0.5, -1.0]))
    tensor([0.6250, 0.3750, 0.0000])
    """
    _check(x, least=1)
    check_number("total", total, above=0, below=math.inf)
    wide = _wide(x)
    shifted = wide - wide.detach().amax(-1, keepdim=True)
    return _on_simplex(shifted, total).to(x.dtype)


def project_l1_ball(x: Points, radius: float = 1.0) -> Points:
    r"""Return the nearest point with :math:`\sum_i|x_i|\le r`: signs kept, magnitudes on the simplex of sum r.

    Args:
        x: points (..., d).
        radius: r > 0.

    Returns:
        (..., d) of the dtype of x; points inside are returned unchanged, a row with NaN or ±∞ is NaN.

    Raises:
        TypeError: x is not floating, radius no number.
        ValueError: x has no entry along the last dimension, radius is not positive.

    Cost: as :func:`project_simplex`.
    Source: Duchi et al., ICML 2008.

    >>> project_l1_ball(torch.tensor([0.75, -0.5, 0.1]))
    tensor([ 0.6250, -0.3750,  0.0000])
    """
    _check(x, least=1)
    check_number("radius", radius, above=0, below=math.inf)
    wide = _wide(x)
    size = wide.abs()
    largest = size.detach().amax(-1, keepdim=True)
    outside = wide.sign() * _on_simplex(size - largest, radius)
    return torch.where(size.detach().sum(-1, keepdim=True) <= radius, wide, outside).to(x.dtype)


def _on_simplex(v: Points, total: float) -> Points:
    """max(v − λ, 0) for rows whose maximum is 0."""
    with torch.no_grad():
        support = _support_by_newton(v.detach(), total) if v.device.type == "cpu" and not is_traced() else None
        if support is None:
            order = v.detach().sort(dim=-1, descending=True).values
            count = torch.arange(1, v.shape[-1] + 1, dtype=v.dtype, device=v.device)
            # a prefix, never empty: its first entry is 0
            last = (order * count > order.cumsum(-1) - total).sum(-1, keepdim=True) - 1
            support = (v >= order.gather(-1, last.clamp_min(0))).to(v.dtype)
        m = support.sum(-1, keepdim=True).clamp_min(1)
    # summed over the support itself: pairwise, and with λ's derivative, which that of a sort is not
    shift = ((v * support).sum(-1, keepdim=True) - total) / m
    return (v - shift).clamp_min(0.0)


def _support_by_newton(v: Points, total: float, most: int = 16) -> Points | None:
    """1 where v > λ, else 0; None where the rows have not all arrived after `most` rounds.

    The sum of max(v − λ, 0) is convex and piecewise linear in λ: Newton's steps from the left never pass the root, and
    end at it after finitely many (Michelot 1986). Where reading a tensor is free, that is faster than a sort.
    """
    level, before = torch.full_like(v[..., :1], -total), None
    for _ in range(most):
        above = (v - level).clamp_min_(0.0)
        excess = above.sum(-1, keepdim=True) - total
        support = above.sign_()  # counts as numbers: several times faster than a sum of truth values
        count = support.sum(-1, keepdim=True)
        if before is not None and torch.equal(count, before):
            return support
        level, before = level + excess.clamp_min_(0.0) / count.clamp_min(1), count
    return None


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _check(x: Tensor, least: int = 0) -> None:
    check_dtype("x", x, "floating")
    if x.dim() == 0 or x.shape[-1] < least:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected (..., d){f' with d ≥ {least}' if least else ''}")
