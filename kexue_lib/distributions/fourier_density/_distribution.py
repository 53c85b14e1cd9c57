"""The Fourier density as a `torch.distributions.Distribution`."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from kexue_lib.distributions.fourier_density import _line as fourier_line


class FourierDistribution(Distribution):
    """p(x) = |Σ_k a_k e^{−iπkx}|²/(2‖a‖²) on [−1, 1], or with x = tanh((y − loc)/scale) on the real line.

    Args:
        a: coefficients (*batch_shape, N + 1), complex or real, not all zero.
        loc: (*batch_shape) or a number; None for the density on [−1, 1].
        scale: the same, positive.
        validate_args: check the arguments of every call, as in all of torch.distributions.

    Raises:
        ValueError: only one of loc and scale; with validation, arguments outside of their constraints.

    Cost: O(N) for each value. Source: article 10007.

    >>> d = FourierDistribution(torch.ones(2))  # (1 + cos πx)/2
    >>> d.mean, d.cdf(torch.tensor(0.5)), d.sample((3, 4)).shape
    (tensor(0.), tensor(0.9092), torch.Size([3, 4]))
    """

    has_rsample = True

    def __init__(
        self,
        a: Tensor,
        loc: Tensor | float | None = None,
        scale: Tensor | float | None = None,
        validate_args: bool | None = None,
    ):
        if (loc is None) != (scale is None):
            raise ValueError(f"scale: got {scale!r} with loc={loc!r}, expected both or neither")
        batch_shape = a.shape[:-1]
        self.loc: Tensor | None = None
        self.scale: Tensor | None = None
        if loc is not None:
            real = a.real.dtype if a.is_complex() else a.dtype
            place, spread = (torch.as_tensor(v, dtype=real, device=a.device) for v in (loc, scale))
            batch_shape = torch.broadcast_shapes(batch_shape, place.shape, spread.shape)
            self.loc, self.scale = place.expand(batch_shape), spread.expand(batch_shape)
        self.a = a.expand(*batch_shape, a.shape[-1])
        super().__init__(batch_shape, validate_args=validate_args)

    @property
    def arg_constraints(self):
        line = {} if self.loc is None else {"loc": constraints.real, "scale": constraints.positive}
        return {"a": constraints.real_vector, **line}

    @property
    def support(self):
        return constraints.interval(-1.0, 1.0) if self.loc is None else constraints.real

    @property
    def mean(self) -> Tensor:
        return self._moments()[0]

    @property
    def variance(self) -> Tensor:
        return self._moments()[1]

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self._by_batch(fourier_line.log_prob, value)

    def cdf(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self._by_batch(fourier_line.cdf, value)

    def icdf(self, value: Tensor) -> Tensor:
        return self._by_batch(fourier_line.icdf, value.double()).to(value.dtype)

    def rsample(self, sample_shape=()) -> Tensor:
        like = self.a.real if self.a.is_complex() else self.a
        u = torch.rand(self._extended_shape(sample_shape), dtype=torch.float64, device=self.a.device)
        return self._by_batch(fourier_line.icdf, u.clamp(min=2.0**-54)).to(like.dtype)

    def expand(self, batch_shape, _instance=None):
        new: Any = self._get_checked_instance(FourierDistribution, _instance)
        batch_shape = torch.Size(batch_shape)
        new.a = self.a.expand(*batch_shape, self.a.shape[-1])
        new.loc, new.scale = (None if v is None else v.expand(batch_shape) for v in (self.loc, self.scale))
        Distribution.__init__(new, batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _place(self) -> tuple[Tensor, ...]:
        return () if self.loc is None or self.scale is None else (self.loc, self.scale)

    def _moments(self) -> tuple[Tensor, Tensor]:
        a, *place = fourier_line.common_precision(self.a, *self._place())
        return fourier_line.moments(a, cast("fourier_line.Place", tuple(place) or None))

    def _by_batch(self, function, value: Tensor) -> Tensor:
        """function at value (*sample_shape, *batch_shape), whose points are the last dimension of the core."""
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        batch = shape[len(shape) - len(self.batch_shape) :]
        points = value.expand(shape).reshape(-1, *batch).movedim(0, -1)
        a, points, *place = fourier_line.common_precision(self.a, points, *self._place())
        place = tuple(v.expand(batch) for v in place) or None
        result = function(a.expand(*batch, a.shape[-1]), points, place=place)
        return result.movedim(-1, 0).reshape(shape).to(value.dtype)
