"""Smooth Top-k: the type of the result is that of the scores, whatever PyTorch's default dtype is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kexue_lib.distributions.smooth_topk import (
    SmoothTopK,
    grad_topk,
    hard_topk,
    iterative_topk,
    log_elementary_symmetric,
    log_partition,
    sample_k_subset,
    thre_topk,
    threshold,
    topk_cross_entropy,
)

RESPONSES = ("sigmoid", "laplace", "minexp", "clip")
FUNCTIONS = {
    "grad_topk": lambda x: grad_topk(x, 2),
    **{f"thre_topk, {f}": lambda x, f=f: thre_topk(x, 2, f) for f in RESPONSES},
    **{f"threshold, {f}": lambda x, f=f: threshold(x, 2, f) for f in RESPONSES},
    "hard_topk": lambda x: hard_topk(x, 2),
    **{f"iterative_topk, {v}": lambda x, v=v: iterative_topk(x, 2, v) for v in ("shift", "weighted")},
    "log_partition": lambda x: log_partition(x, 2),
    "log_elementary_symmetric": lambda x: log_elementary_symmetric(x, 2),
    "topk_cross_entropy": lambda x: topk_cross_entropy(x, torch.arange(32) % 8, 2, reduction="none"),
    "sample_k_subset": lambda x: sample_k_subset(x, 2, 3, torch.Generator().manual_seed(0)),
    **{f"SmoothTopK, {m}": lambda x, m=m: SmoothTopK(2, m, 0.5, learnable_tau=True)(x) for m in ("grad", *RESPONSES)},
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_default_dtype_changes_nothing(name: str, dtype: torch.dtype):
    """Values, their type and gradients under the default float64 are those under float32."""
    x = 3 * torch.randn(32, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    usual = torch.get_default_dtype()
    found = []
    try:
        for default in (torch.float32, torch.float64):
            torch.set_default_dtype(default)
            found.append(_value_and_gradient(name, x.to(dtype)))
    finally:
        torch.set_default_dtype(usual)
    assert found[1][0].dtype == (torch.bool if name == "sample_k_subset" else dtype)
    torch.testing.assert_close(found[1], found[0])


def _value_and_gradient(name: str, x: Tensor) -> tuple[Tensor, ...]:
    leaf = x.clone().requires_grad_()
    value = FUNCTIONS[name](leaf)
    if not value.requires_grad:
        return (value,)
    return value, *torch.autograd.grad(value.square().sum(), leaf)
