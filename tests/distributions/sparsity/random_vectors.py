"""Random vectors, a constant one, and the two numbers that are not finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor

inf, nan = math.inf, math.nan


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tensor(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


X = torch.ones(2, 3)
