"""Noise on logits: how much exponentials of it scatter, and how to draw it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_number, check_one_of

DISTRIBUTIONS = ("gaussian", "uniform", "laplace", "gumbel", "student_t")


def noise_cv2(distribution: str, sigma: float | Tensor) -> Float[Tensor, "..."]:
    r"""Squared coefficient of variation of the exponential of noise of standard deviation σ.

    .. math:: \mathrm{cv}^2=\frac{\mathbb Ee^{2\varepsilon}}{(\mathbb Ee^{\varepsilon})^2}-1

    Gaussian: e^{σ²} − 1; uniform on [−a, a], a = √3 σ: a coth a − 1; Laplace, b² = σ²/2: b²(2 + b²)/(1 − 4b²) below
    b = ½; Gumbel of scale β = √6 σ/π: Γ(1 − 2β)/Γ(1 − β)² − 1 below β = ½; Student-t: infinite.

    Args:
        distribution: "gaussian", "uniform", "laplace", "gumbel" or "student_t".
        sigma: σ ≥ 0, a number or a tensor of any shape.

    Returns:
        float64, the shape of ``sigma``; inf where the second exponential moment diverges. Relative error about 1e-13,
        also for tiny σ.

    Raises:
        ValueError: an unknown ``distribution``, ``sigma`` < 0.

    Cost: some tens of elementwise operations. Source: article 9593, where noise is averaged out; the law of the error
    is this chapter's.

    >>> noise_cv2("uniform", 0.5), noise_cv2("gumbel", 1.0)
    (tensor(0.2383, dtype=torch.float64), tensor(inf, dtype=torch.float64))
    """
    check_one_of("distribution", distribution, DISTRIBUTIONS)
    sigma = checked_number("sigma", sigma, least=0)
    if distribution == "gaussian":
        return torch.expm1(sigma.square())
    if distribution == "uniform":
        return coth_remainder(math.sqrt(3) * sigma)
    if distribution == "laplace":
        b2 = sigma.square() / 2
        inside = b2 < 0.25
        safe = torch.where(inside, b2, 0.0)
        return torch.where(inside, safe * (2 + safe) / (1 - 4 * safe), math.inf)
    if distribution == "gumbel":
        return _gumbel_cv2(math.sqrt(6) / math.pi * sigma)
    return torch.where(sigma > 0, math.inf, 0.0)


def _gumbel_cv2(beta: Tensor) -> Tensor:
    """exp(log Γ(1 − 2β) − 2 log Γ(1 − β)) − 1; for small β by Σ_{k ≥ 2} ζ(k) (2ᵏ − 2) βᵏ/k, which does not cancel."""
    k = torch.arange(2, 40, dtype=beta.dtype, device=beta.device)
    coefficients = torch.special.zeta(k, torch.ones_like(k)) * (2**k - 2) / k
    small, inside = beta < 0.125, beta < 0.5
    series = (torch.where(small, beta, 0.0).unsqueeze(-1) ** k * coefficients).sum(-1)
    safe = torch.where(inside & ~small, beta, 0.25)
    log_ratio = torch.where(small, series, torch.lgamma(1 - 2 * safe) - 2 * torch.lgamma(1 - safe))
    return torch.where(inside, torch.expm1(log_ratio), math.inf)


def coth_remainder(a: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """a coth a − 1 for a ≥ 0, float64: Lambert's continued fraction a²/(3 + a²/(5 + …)) where the difference cancels.

    >>> coth_remainder(torch.tensor([1e-6, 1.0], dtype=torch.float64))
    tensor([3.3333e-13, 3.1304e-01], dtype=torch.float64)
    """
    near = a < 3
    square = torch.where(near, a, 1.0).square()
    fraction = torch.full_like(square, 33.0)
    for odd in range(31, 1, -2):
        fraction = odd + square / fraction
    far = torch.where(near, 3.0, a)
    return torch.where(near, square / fraction, far / torch.tanh(far) - 1)


def sample_noise(
    shape: Sequence[int],
    distribution: str,
    sigma: float,
    *,
    df: float = 3.0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "..."]:
    """Draw independent noise of mean 0 and standard deviation σ; Student-t of scale σ.

    Args:
        shape: of the result.
        distribution: "gaussian", "uniform", "laplace", "gumbel" or "student_t".
        sigma: σ ≥ 0, in units of the logits.
        df: degrees of freedom of Student-t, > 0.
        dtype: floating; default PyTorch's. Half types are drawn in float32.
        device: of the result; default that of ``generator``, or PyTorch's.
        generator: source of randomness.

    Returns:
        A tensor of that shape.

    Raises:
        TypeError: ``sigma`` or ``df`` is no number.
        ValueError: an unknown ``distribution``, ``sigma`` < 0, ``df`` ≤ 0.

    Cost: one or two draws a number. Source: inverse distribution functions; Student-t: R. Bailey, Math. Comp. 62, 1994.

    >>> sample_noise((2, 3), "laplace", 0.5, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    check_one_of("distribution", distribution, DISTRIBUTIONS)
    check_number("sigma", sigma, least=0)
    check_number("df", df, above=0)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if device is None and generator is not None:
        device = generator.device
    empty = torch.empty(tuple(shape), dtype=torch.promote_types(dtype, torch.float32), device=device)
    exponential = lambda: torch.empty_like(empty).exponential_(generator=generator)
    if distribution == "gaussian":
        out = empty.normal_(generator=generator)
    elif distribution == "uniform":
        out = empty.uniform_(-math.sqrt(3), math.sqrt(3), generator=generator)
    elif distribution == "laplace":
        out = (exponential() - exponential()) / math.sqrt(2)
    elif distribution == "gumbel":
        out = (-exponential().log() - _EULER) * (math.sqrt(6) / math.pi)
    else:  # Bailey's polar form: radius from one uniform number, angle from another
        radius = (torch.expm1(exponential() * (2 / df)) * df).sqrt()
        out = radius * empty.uniform_(0, 2 * math.pi, generator=generator).cos()
    return (out * sigma).to(dtype)


_EULER = 0.5772156649015329


def checked_number(name: str, value: float | Tensor, **ends: float | int) -> Tensor:
    """The value in float64, after ``check_number``."""
    check_number(name, value, **ends)
    return torch.as_tensor(value, dtype=torch.float64)
