"""Random coefficients, points and densities."""

from __future__ import annotations

import torch
from torch import Tensor

from kexue_lib.distributions.fourier_density import FourierDensity

RAISED_COSINE = torch.tensor([1.0, 1.0], dtype=torch.float64)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def line_density(n: int = 6, seed: int = 0, **options) -> FourierDensity:
    model = FourierDensity(n, dtype=torch.float64, **{"loc": 0.7, "scale": 1.3, **options})
    with torch.no_grad():
        model.coef.copy_(torch.view_as_real(normal(*model.batch_shape, n + 1, seed=seed)))
    return model
