"""What the gap is made of: the integral of its pairs, and the waves that a sum adds to an integral."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_number
from kexue_lib.positions.rope_base_bound._gap import pairs_of

_EULER = 0.57721566490153286
_SPLIT = 8.0  # the series below, the continued fraction above: both reach 1e-13 there
_ELEMENTS = 2**20  # of one chunk of waves


def cosine_integral(x: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""Return the cosine integral.

    .. math:: \mathrm{Ci}(x)=-\int_x^\infty\frac{\cos t}t\,dt=\gamma+\ln x+\sum_{k\ge1}\frac{(-x^2)^k}{2k\,(2k)!}

    Args:
        x: positive, any shape.

    Returns:
        The same shape and dtype; −∞ at 0, NaN below, 0 at ∞. Error below 10⁻¹² in float64.

    Raises:
        TypeError: ``x`` is not floating.

    Cost: about a hundred passes over ``x``. Differentiable.

    >>> cosine_integral(torch.tensor([1.0, 20.0], dtype=torch.float64))
    tensor([0.3374, 0.0444], dtype=torch.float64)
    """
    check_dtype("x", x, "floating")
    wide = x.double()
    small, large = wide.clamp(max=_SPLIT), wide.clamp(_SPLIT, 1e18)
    square, term = -small.square(), torch.ones_like(small)
    series = small.log() + _EULER
    for k in range(2, 62, 2):
        term = term * square / (k * (k - 1))
        series = series + term / k
    z = torch.complex(torch.zeros_like(large), large)
    tail = z + 121
    for k in range(60, 0, -1):  # E₁(z) = e^(−z)/(z + 1 − 1/(z + 3 − 4/(z + 5 − …)))
        tail = z + (2 * k - 1) - k * k / tail
    fraction = -(torch.exp(-z) / tail).real
    return torch.where(wide > _SPLIT, fraction, series).to(x.dtype)


def smooth_gap(
    relative: Shaped[Tensor, "*#shape"],
    base: float | int | Shaped[Tensor, "*#shape"],
    dim: int,
    *,
    correction: bool = True,
) -> Float[Tensor, "*shape"]:
    r"""Return the gap with the sum over pairs replaced by its integral.

    .. math:: \frac d2\cdot\frac{\mathrm{Ci}(m)-\mathrm{Ci}(m/b)}{\ln b}+\frac{\cos m-\cos(m/b)}2

    Args:
        relative: distances m ≥ 0, any shape.
        base: b > 1, a number or a tensor that broadcasts with ``relative``.
        dim: head dimension d, even.
        correction: whether to add the second term, by which the sum's first pair counts whole and a last one not.

    Returns:
        float64, the broadcast shape; d/2 at m = 0.

    Raises:
        TypeError, ValueError: a bad ``dim``; ``base`` not above 1, infinite or NaN.

    Cost: two cosine integrals. Differentiable.

    >>> smooth_gap(torch.tensor([0, 1000]), 10000.0, 128)
    tensor([64.0000, 11.7959], dtype=torch.float64)
    """
    check_dtype("relative", relative, "real")
    pairs_of(dim, None)
    half = dim // 2
    check_number("base", base, above=1, below=math.inf)
    bases = torch.as_tensor(base, dtype=torch.float64, device=relative.device)
    m, bases = torch.broadcast_tensors(relative.double(), bases)
    at_zero = m == 0
    m = m.masked_fill(at_zero, 1.0)
    smooth = half * (cosine_integral(m) - cosine_integral(m / bases)) / bases.log()
    if correction:
        smooth = smooth + (m.cos() - (m / bases).cos()) / 2
    return smooth.masked_fill(at_zero, half)


def aliased_gap(relative: Shaped[Tensor, "*#shape"], base: float | int, dim: int) -> Float[Tensor, "*shape"]:
    r"""Return the waves that the sum over N = d/2 pairs adds to its integral: one for each aliasing order k.

    .. math:: \sum_k N\sqrt{\frac{2\pi}{x_k\ln^2b}}\,\cos\!\Big(x_k+2\pi kNs_k+\frac\pi4\Big),\qquad
        x_k=\frac{2\pi kN}{\ln b},\quad s_k=\frac{\ln(m/x_k)}{\ln b},\quad \frac mb\le x_k\le m

    Args:
        relative: distances m ≥ 0, any shape.
        base: b > 1.
        dim: head dimension d, even.

    Returns:
        float64, the same shape: together with :func:`smooth_gap` the gap to a few hundredths from m = 200 on.

    Raises:
        TypeError, ValueError: a bad ``dim``; ``base`` not above 1, infinite or NaN.

    Cost: max(m)·ln b/(πd) cosines for each element.

    >>> aliased_gap(torch.tensor([1000]), 10000.0, 128)
    tensor([-1.5673], dtype=torch.float64)
    """
    half = dim // 2
    pairs_of(dim, None)
    check_number("base", base, above=1, below=math.inf)
    log_base = math.log(base)
    flat = relative.double().reshape(-1)
    orders = int(flat.max().item() * log_base / (2 * math.pi * half)) if flat.numel() else 0
    k = torch.arange(1, orders + 1, dtype=torch.float64, device=flat.device)
    x = 2 * math.pi * half / log_base * k
    size = half / log_base * (2 * math.pi / x).sqrt()
    waves = []
    for m in flat.split(max(1, _ELEMENTS // max(1, orders))):
        m = m.unsqueeze(1)
        phase = x + 2 * math.pi * half * k * (m / x).log() / log_base + math.pi / 4
        waves.append((size * phase.cos()).masked_fill((x > m) | (x < m / base), 0.0).sum(1))
    return torch.cat(waves).reshape(relative.shape) if waves else flat.reshape(relative.shape)
