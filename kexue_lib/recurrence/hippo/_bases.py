"""Orthonormal bases by their three-term recurrences, and the nodes that integrate them."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from kexue_lib._arguments import check_dtype, check_integer
from kexue_lib._autocast import without_autocast
from kexue_lib._tracing import is_traced

_LARGE = 2.0**60  # a Laguerre polynomial beyond it is divided by it, before it can overflow


@without_autocast
def legendre_basis(N: int, s: Float[Tensor, "*b"]) -> Float[Tensor, "*b N"]:
    r"""Evaluate the Legendre polynomials that are orthonormal on [-1, 1].

    .. math:: g_n = \sqrt{\tfrac{2n+1}2}\,P_n, \qquad
              g_{n+1} = \frac{\sqrt{(2n+1)(2n+3)}}{n+1}\,s\,g_n - \frac n{n+1}\sqrt{\frac{2n+3}{2n-1}}\,g_{n-1}

    Args:
        N: how many, of the degrees 0 to N - 1.
        s: points, meant for [-1, 1], where the recurrence is stable for every N (to 1e-10 at N = 1000); outside the
            values grow like powers.

    Returns:
        ``(..., N)`` in the dtype of ``s``, computed in float64. Differentiable.

    Raises:
        TypeError: ``s`` is no floating tensor, or N no integer.
        ValueError: N below 1.

    Cost: two passes over ``s`` for each degree.

    >>> legendre_basis(3, torch.tensor([1.0])) ** 2
    tensor([[0.5000, 1.5000, 2.5000]])
    """
    check_integer("N", N, 1)
    check_dtype("s", s, "floating")
    x = s.double()
    rows = [torch.full_like(x, math.sqrt(0.5)), x * math.sqrt(1.5)]
    steps = [
        (math.sqrt((2 * n + 1) * (2 * n + 3)) / (n + 1), n / (n + 1) * math.sqrt((2 * n + 3) / (2 * n - 1)))
        for n in range(1, N - 1)
    ]
    if _is_differentiated(x):
        for up, back in steps:
            rows.append(torch.addcmul(rows[-2] * -back, x, rows[-1], value=up))
        return torch.stack(rows[:N]).movedim(0, -1).to(s.dtype)
    g = x.new_empty(max(N, 2), *x.shape)  # one block, written once: memory is most of the cost
    g[0], g[1] = rows
    for n, (up, back) in enumerate(steps, start=2):
        torch.mul(g[n - 2], -back, out=g[n]).addcmul_(x, g[n - 1], value=up)
    return g[:N].movedim(0, -1).to(s.dtype)


@without_autocast
def laguerre_basis(N: int, s: Float[Tensor, "*b"]) -> Float[Tensor, "*b N"]:
    r"""Evaluate the Laguerre functions, orthonormal on [0, ∞).

    .. math:: \ell_n(s) = e^{-s/2}L_n(s), \qquad (n+1)L_{n+1} = (2n+1-s)L_n - nL_{n-1}, \qquad |\ell_n(s)|\le1

    The polynomials are carried with an exponent of their own, so that neither they overflow nor the exponential
    underflows where the product is of order 1, which is up to s ≈ 4N.

    Args:
        N: how many, of the degrees 0 to N - 1.
        s: points, 0 or above.

    Returns:
        ``(..., N)`` in the dtype of ``s``, computed in float64. Differentiable.

    Raises:
        TypeError: ``s`` is no floating tensor, or N no integer.
        ValueError: N below 1.

    Cost: about ten passes over ``s`` for each degree.

    >>> laguerre_basis(3, torch.tensor([0.0, 2.0]))
    tensor([[ 1.0000,  1.0000,  1.0000],
            [ 0.3679, -0.3679, -0.3679]])
    """
    check_integer("N", N, 1)
    check_dtype("s", s, "floating")
    x = s.double()
    before, value, exponent = torch.zeros_like(x), torch.ones_like(x), -x / 2
    out = [exponent.exp()]
    for n in range(N - 1):
        before, value = value, ((2 * n + 1 - x) * value - n * before) / (n + 1)
        large = value.detach().abs() > _LARGE
        before, value = (torch.where(large, y / _LARGE, y) for y in (before, value))
        exponent = torch.where(large, exponent + math.log(_LARGE), exponent)
        out.append(value * exponent.exp())
    return torch.stack(out, -1).to(s.dtype)


def _is_differentiated(x: Tensor) -> bool:
    """Whether operations on x are recorded or traced, so that nothing may be written in place."""
    recorded = x.requires_grad and torch.is_grad_enabled()
    return recorded or is_traced() or unpack_dual(x).tangent is not None


def fourier_basis(N: int, s: Tensor) -> Tensor:
    """exp(2πins) for n = -N … N, of shape (..., 2N + 1)."""
    n = torch.arange(-N, N + 1, dtype=s.dtype, device=s.device)
    angle = 2 * math.pi * s[..., None] * n
    return torch.complex(angle.cos(), angle.sin())


@lru_cache(maxsize=16)
def gauss_legendre(order: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [-1, 1] in float64, exact for degrees below 2·order: Newton from Tricomi's cosines."""
    i = torch.arange(1, order + 1, dtype=torch.float64)
    x = -torch.cos(math.pi * (i - 0.25) / (order + 0.5))
    for _ in range(6):
        before, value = torch.ones_like(x), x.clone()
        for n in range(1, order):
            before, value = value, ((2 * n + 1) * x * value - n * before) / (n + 1)
        slope = order * (x * value - before) / (x * x - 1)
        x = x - value / slope
    return x, 2 / ((1 - x * x) * slope * slope)
