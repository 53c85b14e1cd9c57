"""Noise levels and preconditioning of EDM, in which teacher and student are trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from kexue_lib._arguments import check_dtype, check_number


@dataclass(frozen=True)
class EDMNoise:
    r"""Noise levels :math:`\sigma(u)=\big(\sigma_{max}^{1/\rho}+(1-u)(\sigma_{min}^{1/\rho}-\sigma_{max}^{1/\rho})
    \big)^\rho`, from σ_min at u = 0 to σ_max at u = 1.

    Args:
        sigma_min: least noise, above 0 (default 0.002).
        sigma_max: greatest noise, above sigma_min (default 80).
        rho: ρ > 0; larger values spend more levels on small noise (default 7).

    Raises:
        TypeError: no number.
        ValueError: a number outside.

    Cost: elementwise.
    Source: Karras et al., arXiv 2206.00364, equation 5.

    >>> import torch
    >>> EDMNoise(sigma_min=0.01, sigma_max=1.0, rho=1.0).sigma(torch.tensor([0.0, 0.5, 1.0]))
    tensor([0.0100, 0.5050, 1.0000])
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_number("sigma_min", self.sigma_min, above=0, below=math.inf)
        check_number("sigma_max", self.sigma_max, above=self.sigma_min, below=math.inf)
        check_number("rho", self.rho, above=0, below=math.inf)

    def sigma(self, u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Noise levels at u in [0, 1]."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (high + (1 - u) * (low - high)) ** self.rho


class PreconditionedDenoiser(nn.Module):
    r"""Denoiser :math:`D(x,\sigma)=c_{skip}\,x+c_{out}\,F(c_{in}\,x,\ c_{noise})` around a network F.

    :math:`c_{skip}=\frac{\sigma_d^2}{\sigma^2+\sigma_d^2}`, :math:`c_{out}=\frac{\sigma\sigma_d}{\sqrt{\sigma^2+
    \sigma_d^2}}`, :math:`c_{in}=\frac1{\sqrt{\sigma^2+\sigma_d^2}}`, :math:`c_{noise}=\frac14\log\sigma`: F sees inputs
    and targets of unit variance at every noise, and its errors are not amplified.

    Args:
        net: F, maps (B, …) and c_noise (B,) to (B, …).
        sigma_data: σ_d > 0, the data's standard deviation.

    Raises:
        TypeError: no number.
        ValueError: σ_d not above 0.

    Cost: that of F.
    Source: Karras et al., arXiv 2206.00364, table 1.

    >>> import torch
    >>> denoiser = PreconditionedDenoiser(lambda x, c: 0 * x, 1.0)
    >>> denoiser(torch.ones(1, 2), torch.ones(1))
    tensor([[0.5000, 0.5000]])
    """

    def __init__(self, net: Callable[[Tensor, Tensor], Tensor], sigma_data: float):
        super().__init__()
        check_number("sigma_data", sigma_data, above=0, below=math.inf)
        self.net, self.sigma_data = net, sigma_data

    def forward(self, x: Float[Tensor, "B *shape"], sigma: Float[Tensor, " B"]) -> Float[Tensor, "B *shape"]:
        """Denoised samples x₀ (B, …) of noised ones at noise levels σ (B,)."""
        check_dtype("x", x, "floating")
        if tuple(sigma.shape) != tuple(x.shape[:1]):
            raise ValueError(f"sigma: got shape {tuple(sigma.shape)}, expected ({x.shape[0]},)")
        spread, width = sigma.reshape(-1, *(1,) * (x.ndim - 1)), self.sigma_data
        norm = (spread.square() + width**2).sqrt()
        inner = self.net(x / norm, sigma.log() / 4)
        return (width / norm) ** 2 * x + spread * width / norm * inner

    def eps(self, x: Float[Tensor, "B *shape"], sigma: Float[Tensor, " B"]) -> Float[Tensor, "B *shape"]:
        """Predicted noise (x − D(x, σ))/σ."""
        return (x - self(x, sigma)) / sigma.reshape(-1, *(1,) * (x.ndim - 1))
