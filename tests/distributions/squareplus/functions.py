"""The three functions, and random inputs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kexue_lib.distributions.squareplus import squareplus, squareplus_gate, squareplus_grad

every_function = pytest.mark.parametrize("name", ["squareplus", "squareplus_grad", "squareplus_gate"])
every_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
FUNCTIONS = {"squareplus": squareplus, "squareplus_grad": squareplus_grad, "squareplus_gate": squareplus_gate}


def wide_range(dtype: torch.dtype, largest: float) -> Tensor:
    size = torch.logspace(-6, math.log10(largest), 400, dtype=torch.float64)
    return torch.cat((-size, torch.zeros(1, dtype=torch.float64), size)).to(dtype)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
