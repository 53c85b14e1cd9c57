r"""Noise schedules :math:`x_t=\alpha_tx_0+\sigma_t\varepsilon` and the linear SDEs they belong to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_number


@dataclass(frozen=True)
class VPSchedule:
    r"""Variance-preserving schedule with linear rate :math:`\beta(t)=\beta_{min}+t(\beta_{max}-\beta_{min})`.

    With :math:`B(t)=\int_0^t\beta`, :math:`\alpha=e^{-B/2}`, :math:`\sigma^2=1-\alpha^2`, drift :math:`f=-\beta/2` and
    :math:`g^2=\beta`: data of covariance I keep it.

    Args:
        beta_min: rate at t = 0, above 0 (default 0.1).
        beta_max: rate at t = 1, at least beta_min (default 20).

    Raises:
        TypeError: no number.
        ValueError: a rate outside.

    Cost: elementwise. Samplers run from `t_max` = 1 to `t_min` = 1e-3.
    Source: Song et al., arXiv 2011.13456, appendix C.

    >>> import torch
    >>> schedule = VPSchedule()
    >>> t = torch.tensor(0.3)
    >>> bool((schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2 - 1).abs() < 1e-6)
    True
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_number("beta_min", self.beta_min, above=0)
        check_number("beta_max", self.beta_max, least=self.beta_min, below=math.inf)

    def _integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + (self.beta_max - self.beta_min) / 2 * t.square()

    def alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Factor α(t) > 0 of the data."""
        return (-self._integral(t) / 2).exp()

    def sigma(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Standard deviation σ(t) of the noise, exact for small t."""
        return (-(-self._integral(t)).expm1()).sqrt()

    def drift(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Drift f(t) = α'/α of dx = f x dt + g dw."""
        return -self.diffusion_squared(t) / 2

    def diffusion_squared(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Diffusion g²(t) = (σ²)' − 2fσ²."""
        return self.beta_min + (self.beta_max - self.beta_min) * t


@dataclass(frozen=True)
class VESchedule:
    r"""Variance-exploding schedule :math:`\alpha=1`, :math:`\sigma(t)=\sigma_{min}(\sigma_{max}/\sigma_{min})^t`.

    Args:
        sigma_min: noise at t = 0, above 0 (default 0.01).
        sigma_max: noise at t = 1, above sigma_min (default 50).

    Raises:
        TypeError: no number.
        ValueError: a deviation outside.

    Cost: elementwise. Samplers run from `t_max` = 1 to `t_min` = 1e-3.
    Source: Song et al., arXiv 2011.13456, appendix C.

    >>> import torch
    >>> VESchedule(sigma_min=0.1, sigma_max=10.0).sigma(torch.tensor(0.5))
    tensor(1.)
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_number("sigma_min", self.sigma_min, above=0)
        check_number("sigma_max", self.sigma_max, above=self.sigma_min, below=math.inf)

    def alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Factor α(t) = 1 of the data."""
        return t.new_ones(t.shape)

    def sigma(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Standard deviation σ(t) of the noise."""
        return self.sigma_min * (t * math.log(self.sigma_max / self.sigma_min)).exp()

    def drift(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Drift f(t) = 0."""
        return t.new_zeros(t.shape)

    def diffusion_squared(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Diffusion g²(t) = (σ²)'."""
        return 2 * math.log(self.sigma_max / self.sigma_min) * self.sigma(t).square()
