"""How much entropy a softmax has left when its logits are bounded, normal, or products with keys on a sphere."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_integer, check_number, check_one_of
from kexue_lib.attention.softmax_robustness._noise import checked_number, coth_remainder
from kexue_lib.positions.rope import log_length_scale


def cosine_entropy_deficit(tau: float | Tensor) -> Float[Tensor, "..."]:
    r"""Largest entropy that logits within ±1/τ can lose, however many there are: log n − H ≤ D(τ).

    .. math:: D(\tau)=M-1-\log M,\quad M=\frac{h\log h}{h-1},\ h=e^{2/\tau};\qquad
              D=y\coth y-1+\log\frac{\sinh y}{y},\ y=1/\tau

    The second form is a sum of two positive terms and is what is computed.

    Args:
        tau: temperature > 0 of cosine similarities; a number or a tensor of any shape.

    Returns:
        float64 in nats, the shape of ``tau``; 1/(2τ²) for large τ, 2/τ − log(2/τ) − 1 for small τ.

    Raises:
        ValueError: ``tau`` ≤ 0.

    Cost: about fifty elementwise operations. Source: the constant 0.4745 of article 9593; log of Specht's ratio, 1960.

    >>> cosine_entropy_deficit(1.0)
    tensor(0.4745, dtype=torch.float64)
    """
    y = 1 / checked_number("tau", tau, above=0)
    return coth_remainder(y) + _log_sinh_ratio(y)


def _log_sinh_ratio(y: Tensor) -> Tensor:
    """log(sinh y/y), for small y by the series y²/6 (1 + y²/20 (1 + y²/42 (…)))."""
    near = y < 1
    square = torch.where(near, y, 1.0).square()
    series = torch.ones_like(square)
    for k in range(10, 1, -1):
        series = 1 + series * square / (2 * k * (2 * k + 1))
    far = torch.where(near, 1.0, y)
    log_sinh = far + torch.log1p(-torch.exp(-2 * far)) - math.log(2)
    return torch.where(near, torch.log1p(square / 6 * series), log_sinh - far.log())


def cosine_entropy_min(n: int, tau: float) -> tuple[float, int]:
    r"""Least entropy of softmax(c/τ) over all c in [−1, 1]ⁿ, and how many entries are +1 there.

    .. math:: H_k=\log\big(k+(n-k)e^{-2/\tau}\big)+\frac2\tau\,\frac{(n-k)e^{-2/\tau}}{k+(n-k)e^{-2/\tau}}

    The minimum is at a vertex of the box, and H_k falls and then rises with k: only the integers beside its stationary
    point are looked at.

    Args:
        n: number of entries, at least 2.
        tau: temperature > 0.

    Returns:
        (entropy in nats, k).

    Raises:
        TypeError: ``n`` is no integer.
        ValueError: ``n`` < 2, ``tau`` ≤ 0.

    Cost: constant. Source: article 9593, section on the temperature, made exact.

    >>> cosine_entropy_min(1024, 1.0)[1]
    210
    """
    check_integer("n", n, 2)
    y = 1 / float(checked_number("tau", tau, above=0))
    low = math.exp(-2 * y)
    grown = float(coth_remainder(torch.tensor(y, dtype=torch.float64))) + y  # M − 1 at the stationary point
    stationary = n * grown * low / -math.expm1(-2 * y)

    def entropy(k: int) -> float:
        rest = (n - k) * low
        return math.log(k) + math.log1p(rest / k) + 2 * y * rest / (k + rest)

    beside = range(math.floor(stationary) - 1, math.floor(stationary) + 3)
    return min((entropy(k), k) for k in {min(max(k, 1), n - 1) for k in beside})


def gaussian_entropy(n: int | Tensor, sigma: float | Tensor) -> Float[Tensor, "..."]:
    r"""Entropy of the softmax of n independent normal logits, annealed: max(log n − σ²/2, 0).

    Args:
        n: number of logits, at least 1; a number or a tensor.
        sigma: standard deviation ≥ 0; a number or a tensor that broadcasts with ``n``.

    Returns:
        float64 in nats. Right for large n while σ is well below √(2 log n); beyond it the true entropy is of order 1.

    Raises:
        ValueError: ``n`` < 1, ``sigma`` < 0.

    Cost: elementwise. Source: article 9593; the limit is Derrida's random-energy model, Phys. Rev. B 24, 1981.

    >>> gaussian_entropy(65536, 2.0)
    tensor(9.0904, dtype=torch.float64)
    """
    check_number("n", n, least=1)
    log_n = (torch.as_tensor(n, dtype=torch.float64) - 1).log1p()
    return (log_n - checked_number("sigma", sigma, least=0).square() / 2).clamp(min=0.0)


def sphere_entropy_deficit(
    lam: float | Tensor, d: int, *, method: Literal["exact", "laplace"] = "exact"
) -> Float[Tensor, "..."]:
    r"""Entropy lost by attention of one query to very many keys that are uniform on the sphere: log n − H.

    Queries and keys have length √d, scores are λ q·k, and x = λd:

    .. math:: \text{exact: } x\frac{I_{d/2}(x)}{I_{d/2-1}(x)}-\log\Big[\Gamma(\tfrac d2)\big(\tfrac2x\big)^{d/2-1}
              I_{d/2-1}(x)\Big],\qquad \text{laplace: } \tfrac d2\log\frac{1+\sqrt{1+4\lambda^2}}2

    Args:
        lam: λ ≥ 0, a number or a tensor of any shape.
        d: dimension, at least 2.
        method: "exact", an integral over the cosine; "laplace", its leading term for large d.

    Returns:
        float64 in nats, the shape of ``lam``. Exact: relative error below 1e-8 up to d = 10⁵ and λ = 100.

    Raises:
        TypeError: ``d`` is no integer.
        ValueError: ``lam`` < 0, ``d`` < 2, an unknown ``method``.

    Cost: exact: two sums of 1025 terms for each λ. Source: article 8823, whose 0.24 λd is the Laplace form near λ = 1.

    >>> sphere_entropy_deficit(1.0, 64, method="laplace") / 64
    tensor(0.2406, dtype=torch.float64)
    """
    check_integer("d", d, 2)
    check_one_of("method", method, ("exact", "laplace"))
    lam = checked_number("lam", lam, least=0)
    root = (1 + 4 * lam.square()).sqrt()
    if method == "laplace":
        return d / 2 * torch.log1p(2 * lam.square() / (1 + root))
    small = lam < 3e-3  # there a power series: the two terms of the integral would cancel
    square = d * lam.square()
    series = square / 2 * (1 - 3 * square / (2 * (d + 2)) * (1 - 20 * square / (9 * (d + 4))))
    return torch.where(small, series, _sphere_integral(torch.where(small, 1.0, lam), d))


def _sphere_integral(lam: Tensor, d: int) -> Tensor:
    """E[x c] − log(∫ e^{xc}/∫ 1) over the density (1 − c²)^{(d−3)/2}, with c = tanh u by the trapezoidal rule."""
    x = (lam * d).unsqueeze(-1)
    mean_x_c, log_integral = _tilted(x, d)
    _, log_base = _tilted(torch.zeros_like(x[..., :1]), d)
    return mean_x_c - (log_integral - log_base)


def _tilted(x: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Mean of x tanh u, and the log of the integral, of exp(x tanh u) / cosh(u)^{d−1}."""
    with torch.no_grad():  # the nodes: around the peak, wide enough for both tails
        c = 2 * x / ((d - 1) + ((d - 1) ** 2 + 4 * x.square()).sqrt())
        peak = torch.atanh(c)
        width = ((1 - c.square()) * (2 * x * c + d - 1)).rsqrt()
        reach = 40 / (d - 1) + 10 * width
        u = peak + reach * torch.linspace(-1, 1, 1025, dtype=x.dtype, device=x.device)
    size = u.abs()
    log_cosh = size + torch.log1p(torch.exp(-2 * size)) - math.log(2)
    tanh = u.tanh()
    exponent = x * tanh - (d - 1) * log_cosh
    top = exponent.detach().amax(-1, keepdim=True)
    weight = torch.exp(exponent - top)
    total = weight.sum(-1)
    mean = (weight * tanh).sum(-1) / total * x.squeeze(-1)
    return mean, (total * (reach.squeeze(-1) / 512)).log() + top.squeeze(-1)


def entropy_invariant_scale(n: int | Tensor, d: int, *, train_length: int = 512) -> Float[Tensor, "..."]:
    r"""Scale of attention logits that grows with the logarithm of the number of keys: log n/(log L √d).

    It is meant to keep the entropy when n changes. With random keys it takes back only a part of the growth;
    :func:`entropy_keeping_scale` keeps it there.

    Args:
        n: number of keys a query sees, at least 1; a number or a tensor of any shape.
        d: head dimension.
        train_length: L, where the scale is the usual 1/√d.

    Returns:
        float64, the shape of ``n``.

    Raises:
        TypeError: ``d`` is no integer.
        ValueError: ``n`` or ``d`` < 1, ``train_length`` < 2.

    Cost: elementwise. Source: article 8823; Chiang and Cholak, arXiv 2202.12172, without the division by log L.

    >>> entropy_invariant_scale(torch.tensor([512, 262144]), 64)
    tensor([0.1250, 0.2500], dtype=torch.float64)
    """
    check_integer("d", d, 1)
    check_number("n", n, least=1)
    before = torch.as_tensor(n, dtype=torch.float64) - 1
    return log_length_scale(before, train_length, clip=False) / math.sqrt(d)


def entropy_keeping_scale(n: int | Tensor, d: int, *, train_length: int = 512) -> Float[Tensor, "..."]:
    r"""Scale of attention logits at which n random keys leave the entropy that L of them leave at the scale 1/√d.

    .. math:: \log n-\Delta_d(\lambda)=\log L-\Delta_d(1/\sqrt d)

    with :func:`sphere_entropy_deficit` as Δ.

    Args:
        n: number of keys a query sees, at least 1; a number or a tensor of any shape.
        d: head dimension, at least 2.
        train_length: L, where the scale is the usual 1/√d.

    Returns:
        λ, float64, the shape of ``n``; 0 where even equal weights have less entropy than that. Queries and keys have
        length √d, and n is large: where the deficit takes half of log n, the entropy is 0.2 to 0.3 nats too high.

    Raises:
        TypeError: ``d`` is no integer.
        ValueError: ``n`` < 1, ``d`` < 2, ``train_length`` < 2.

    Cost: twenty evaluations of :func:`sphere_entropy_deficit`; relative error below 1e-6. Source: the aim of article
    8823, solved for.

    >>> entropy_keeping_scale(torch.tensor([512, 4096]), 64)
    tensor([0.1250, 0.3005], dtype=torch.float64)
    """
    check_integer("d", d, 2)
    check_integer("train_length", train_length, 2)
    check_number("n", n, least=1)
    log_n = (torch.as_tensor(n, dtype=torch.float64) - 1).log1p()
    wanted = log_n - math.log(train_length) + sphere_entropy_deficit(d**-0.5, d).to(log_n.device)
    inside = wanted > 0
    wanted = torch.where(inside, wanted, 1.0)
    aim = wanted  # asked of the Laplace form, which can be solved for λ; its ratio to the exact one hardly varies
    for _ in range(20):
        lam = ((2 * aim / d).exp() * torch.expm1(2 * aim / d)).sqrt()
        aim = aim * wanted / sphere_entropy_deficit(lam, d)
    return torch.where(inside, lam, 0.0)
