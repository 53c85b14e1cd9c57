"""Random logits, and the noises whose exponential has moments."""

from __future__ import annotations

import torch
from torch import Tensor

LIGHT = ("gaussian", "uniform", "laplace", "gumbel")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed)).to(dtype)
