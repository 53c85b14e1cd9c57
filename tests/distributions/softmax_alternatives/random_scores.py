"""Random scores, and orders of entmax."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

settings.register_profile("deterministic", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("deterministic")
ALPHAS = (1.0, 1.001, 1.2, 1.5, 1.7, 2.0)
every_alpha = pytest.mark.parametrize("alpha", ALPHAS)
sparse_alpha = pytest.mark.parametrize("alpha", ALPHAS[2:])
Scores = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=9).map(
    lambda x: torch.tensor(x, dtype=torch.float64)
)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)
