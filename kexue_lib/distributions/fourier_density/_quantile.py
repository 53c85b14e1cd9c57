"""Masses of intervals under a periodic Fourier density, and quantiles that are as accurate in the tails as in the bulk.

A point x of [−1, 1] is written as the distance t = (1 − |x|)/2 ∈ [0, ½] from the nearer end and a side, and a
probability by the mass between that end and x: near the ends neither loses digits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kexue_lib.distributions.fourier_density._trigonometric_sum import synthesis

CELLS = 64
"""Cells of the quantile's table for each coefficient."""
STEPS = 3
"""Newton steps, on the cubic of a cell and then on the exact distribution function. They reach machine precision,
except within 1e-6 of a level at which the density has a zero: there the tangent is flat, and 1e-6 is the error too."""


def correlation(a: Tensor) -> Tensor:
    """Σ_k a_k ā_{k+n} for n = 0 … N (*B, N + 1)."""
    count = a.shape[-1]
    if a.numel() == 0:  # which FFT libraries refuse
        return a.clone()
    wave = torch.fft.fft(a, n=1 << (2 * count - 2).bit_length())
    return torch.fft.ifft(wave * wave.conj())[..., :count].conj().resolve_conj()


def mass_coefficients(a: Tensor) -> Tensor:
    """q with ∫_{x−h}^{x+h} p = Re Σ_{n≥0} q_n K_n(x, h): q_0 = 1, q_n = 2c_n/c_0 (*B, N + 1)."""
    c = correlation(a)
    ratio = c / c[..., :1].real
    return torch.cat((torch.ones_like(ratio[..., :1]), 2 * ratio[..., 1:]), dim=-1)


def tail_mass(q: Tensor, t: Tensor, lower: Tensor) -> Tensor:
    """Probability of [−1, −1 + 2t] where lower, else of [1 − 2t, 1] (*B, M)."""
    return synthesis(q, torch.where(lower, t - 1, 1 - t), t).real


def tail_quantile(a: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The t (*B, M) and side at which the distribution function is u; differentiable in both arguments.

    A table of the distribution function (one FFT) brackets the root, a cubic through the table gives a start, and
    Newton steps that never leave the bracket finish.
    """
    q = mass_coefficients(a)
    t, lower, density = _solve(a.detach(), q.detach(), u.detach()) if u.numel() else (0.5 * u, u < 0, u)
    # One more Newton step, of which only the derivatives are kept: ∂t = −∂(mass − v)/(2p).
    level = torch.where(lower, u, 1 - u)
    change = (level - tail_mass(q, t, lower)) / (2 * density).clamp(min=torch.finfo(u.dtype).tiny)
    return t + (change - change.detach()), lower


def _solve(a: Tensor, q: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    size = CELLS * a.shape[-1]
    p, mass = _table(a, q, size)
    cell = torch.searchsorted(mass[..., 1:-1].contiguous(), u.contiguous(), right=True)
    lower = cell < size // 2
    level = torch.where(lower, u, 1 - u)
    # Values and slopes at the near (0) and far (1) end of the cell, seen from the end of the interval.
    near, far = torch.where(lower, cell, cell + 1), torch.where(lower, cell + 1, cell)
    values = [mass.gather(-1, end) for end in (near, far)]
    v0, v1 = (torch.where(lower, v, 1 - v) for v in values)
    d0, d1 = (p.gather(-1, end) * (2 / size) for end in (near, far))
    left = torch.where(lower, cell, size - 1 - cell).to(u.dtype)
    rise = v1 - v0
    s = ((level - v0) / rise.clamp(min=torch.finfo(u.dtype).tiny)).clamp(0, 1)
    low, high = torch.zeros_like(s), torch.ones_like(s)
    for _ in range(STEPS):  # on the cubic, which costs nothing beside the exact function
        value = v0 + s * (d0 + s * (3 * rise - 2 * d0 - d1 + s * (d0 + d1 - 2 * rise)))
        slope = d0 + s * (2 * (3 * rise - 2 * d0 - d1) + s * 3 * (d0 + d1 - 2 * rise))
        s, low, high = _newton(s, value - level, slope, low, high, 1.0)
    low, high = torch.zeros_like(s), torch.ones_like(s)
    for _ in range(STEPS):
        t = (left + s) / size
        slope = (2 / size) * _density(a, t, lower)
        s, low, high = _newton(s, tail_mass(q, t, lower) - level, slope, low, high, 2.0**-6)
    t = (left + s) / size
    outside = ~((u >= 0) & (u <= 1))
    return t.masked_fill(outside, torch.nan), lower, _density(a, t, lower)


def _newton(s: Tensor, gap: Tensor, slope: Tensor, low: Tensor, high: Tensor, reach: float):
    low, high = torch.where(gap < 0, s, low), torch.where(gap > 0, s, high)
    step = s - gap / slope
    step = torch.where((step >= low) & (step <= high), step, 0.5 * (low + high))  # also in place of NaN
    # Where the density vanishes the tangent says nothing: stay near what the table gave.
    return torch.where(gap == 0, s, step.clamp(s - reach, s + reach)), low, high


def _density(a: Tensor, t: Tensor, lower: Tensor) -> Tensor:
    """p at the point (*B, M)."""
    wave = synthesis(a.conj(), torch.where(lower, 2 * t - 1, 1 - 2 * t))
    return (wave.real.square() + wave.imag.square()) / (2 * energy(a))


def energy(a: Tensor) -> Tensor:
    """‖a‖² (*B, 1)."""
    return (a.real.square() + a.imag.square()).sum(-1, keepdim=True)


def _table(a: Tensor, q: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Density and distribution function at x_j = −1 + 2j/size, j = 0 … size (*B, size + 1)."""
    n = torch.arange(a.shape[-1], dtype=a.real.dtype, device=a.device)
    sign = 1 - 2 * (n % 2)
    wave = torch.fft.fft(a * sign, n=size)
    p = (wave.real.square() + wave.imag.square()) / (2 * energy(a))
    part = q[..., 1:] * sign[1:] / (2j * math.pi * n[1:])
    ripple = torch.fft.ifft(torch.nn.functional.pad(part, (1, 0)), n=size, norm="forward").real
    ramp = torch.arange(size, dtype=p.dtype, device=a.device) / size
    mass = (ramp + ripple - ripple[..., :1]).clamp(0, 1).cummax(-1).values
    return torch.cat((p, p[..., :1]), -1), torch.cat((mass, torch.ones_like(mass[..., :1])), -1)
