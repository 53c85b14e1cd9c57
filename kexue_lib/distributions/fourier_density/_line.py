"""The density p(x) = |A(x)|²/(2‖a‖²) on [−1, 1], and on the line through x = tanh u, u = (y − loc)/scale.

Arguments: a (*B, N + 1) complex, points (*B, M) real, loc and scale (*B) or None for the density on [−1, 1]; all of one
precision, float32 or float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kexue_lib.distributions.fourier_density._quantile import energy, mass_coefficients, tail_mass, tail_quantile
from kexue_lib.distributions.fourier_density._trigonometric_sum import synthesis

Place = tuple[Tensor, Tensor] | None
"""(loc, scale), or None on [−1, 1]."""


def common_precision(a: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """All in the widest precision among them, at least float32; a complex and with its largest entry of modulus 1."""
    compute = torch.float32
    for t in (a, *others):
        compute = torch.promote_types(compute, t.real.dtype)
    a = a.to(torch.promote_types(compute, torch.complex64))
    # The density does not depend on the scale of a, but |a|² could overflow.
    return a / a.abs().amax(-1, keepdim=True).detach(), *(t.to(compute) for t in others)


def prob(a: Tensor, x: Tensor) -> Tensor:
    """p (*B, M) on [−1, 1]."""
    return _squared_modulus(a, x) / (2 * energy(a))


def log_prob(a: Tensor, y: Tensor, place: Place = None) -> Tensor:
    """Log density (*B, M); −inf where A is zero."""
    if place is None:
        power = _squared_modulus(a, y)
        zero = power == 0
        return power.masked_fill(zero, 1).log().masked_fill(zero, -torch.inf) - (2 * energy(a)).log()
    u, scale = _standardised(y, place)
    # log sech² u = log 4 + log σ(2u) + log σ(−2u)
    return log_prob(a, u.tanh()) + math.log(4) + logsigmoid(2 * u) + logsigmoid(-2 * u) - scale.log()


def cdf(a: Tensor, y: Tensor, place: Place = None) -> Tensor:
    """Distribution function (*B, M), summed from the nearer end."""
    if place is None:
        lower, t = y < 0, (1 - y.abs()) / 2
    else:
        u = _standardised(y, place)[0]
        lower, t = u < 0, (-2 * u.abs()).sigmoid()
    tail = tail_mass(mass_coefficients(a), t, lower)
    return torch.where(lower, tail, 1 - tail)


def icdf(a: Tensor, u: Tensor, place: Place = None) -> Tensor:
    """Quantile (*B, M)."""
    t, lower = tail_quantile(a, u)
    if place is None:
        return torch.where(lower, 2 * t - 1, 1 - 2 * t)
    loc, scale = (v.unsqueeze(-1) for v in place)
    size = 0.5 * (t.log() - (-t).log1p())  # artanh(2t − 1)
    return loc + scale * torch.where(lower, size, -size)


def bin_log_prob(a: Tensor, centre: Tensor, width: float, place: Place = None) -> Tensor:
    """log ∫ over [centre − width/2, centre + width/2], as log of the half width in x plus log of mass/half width."""
    if place is None:
        middle, half_width = centre, torch.full_like(centre, width / 2)
        log_half_width = half_width.log()
    else:
        u, scale = _standardised(centre, place)
        step = width / scale
        left, right = u - step / 2, u + step / 2
        middle = 0.5 * (left.tanh() + right.tanh())
        # tanh r − tanh l = sinh(r − l)/(cosh l cosh r): the difference of two numbers near 1 has lost its digits.
        log_sinh = step + (-torch.expm1(-2 * step)).log() - math.log(2)
        log_half_width = log_sinh - _log_cosh(left) - _log_cosh(right) - math.log(2)
        half_width = log_half_width.exp().clamp(min=1e-30)
    height = synthesis(mass_coefficients(a), middle, half_width).real / half_width
    return log_half_width + height.clamp(min=torch.finfo(height.dtype).eps).log()


def moments(a: Tensor, place: Place = None) -> tuple[Tensor, Tensor]:
    """Mean and variance (*B): closed forms on [−1, 1], the (exponentially convergent) trapezoidal rule on the line."""
    if place is None:
        n = torch.arange(1, a.shape[-1], dtype=a.real.dtype, device=a.device)
        q = mass_coefficients(a)[..., 1:] * (1 - 2 * (n % 2)) / (math.pi * n)
        mean = q.imag.sum(-1)
        square = 1 / 3 + 2 * (q.real / (math.pi * n)).sum(-1)
        return mean, square - mean.square()
    reach, count = 22.0, 512 + 80 * a.shape[-1]
    u = torch.linspace(-reach, reach, count, dtype=a.real.dtype, device=a.device).expand(*a.shape[:-1], count)
    unit = torch.ones_like(place[0])
    weight = log_prob(a, u, (0 * unit, unit)).exp() * (2 * reach / (count - 1))
    mean = (weight * u).sum(-1)
    variance = (weight * (u - mean.unsqueeze(-1)).square()).sum(-1)
    return place[0] + place[1] * mean, place[1].square() * variance


def _squared_modulus(a: Tensor, x: Tensor) -> Tensor:
    wave = synthesis(a.conj(), x)  # conj A(x)
    return wave.real.square() + wave.imag.square()


def _standardised(y: Tensor, place: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    loc, scale = (v.unsqueeze(-1) for v in place)
    return (y - loc) / scale, scale


def _log_cosh(u: Tensor) -> Tensor:
    return -0.5 * (math.log(4) + logsigmoid(2 * u) + logsigmoid(-2 * u))
