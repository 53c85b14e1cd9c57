"""ThreTopK with the response clip: the projection on the capped simplex, solved to rounding."""

from __future__ import annotations

import itertools

import pytest
import torch
from opinfo import as_users_call
from torch import Tensor

from kexue_lib.distributions.smooth_topk import thre_topk, threshold
from kexue_lib.distributions.smooth_topk._threshold import _bracketed_clip


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_clip_is_the_projection_on_the_capped_simplex():
    """The variational inequality of a projection: (x − p)·(s − p) ≤ 0 for every vertex s."""
    for k in (1, 3, 5):
        x = normal(7, seed=k) * 1.5
        p = thre_topk(x, k, "clip")
        for subset in itertools.combinations(range(7), k):
            vertex = torch.zeros(7, dtype=torch.float64)
            vertex[list(subset)] = 1
            assert (x - p) @ (vertex - p) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stop_when_done", [True, False])
@pytest.mark.parametrize("k", [1, 7, 32, 63])
def test_solution_is_exact_among_breakpoints_at_many_scales(dtype: torch.dtype, stop_when_done: bool, k: int):
    """Rows whose breakpoints crowd geometrically towards a point, where secants are slow and slopes are large."""
    n = 64
    crowd = torch.logspace(0, -7, n // 2, dtype=torch.float64)
    rows = torch.stack((torch.cat((crowd, -crowd)), torch.cat((crowd, 1 - crowd)), normal(n), 1e-6 * normal(n)))
    y = (rows - rows.topk(k, dim=-1).values[:, -1:]).to(dtype)
    level = _bracketed_clip(y, k, stop_when_done)
    total = (y.double() - level.double()).clamp(0, 1).sum(-1)
    assert ((total - k).abs() <= 8 * n * torch.finfo(dtype).eps).all()


def test_upper_end_is_returned_where_an_interval_solves_the_equation():
    x = torch.tensor([5.0, 4.0, 1.0, 0.5], dtype=torch.float64)
    assert threshold(x, 2, "clip").item() == 3.0
    assert torch.equal(thre_topk(x, 2, "clip"), torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("compiled", [False, True])
def test_marks_stand_still_where_an_interval_solves_the_equation(compiled: bool):
    """Three equal scores far above the rest stay chosen under small changes: the derivative is 0, ties or not."""
    function = torch.compile(thre_topk, fullgraph=True, backend="aot_eager") if compiled else thre_topk
    x = torch.tensor([7.0, 7.0, 7.0, -7.0, -7.0], dtype=torch.float64, requires_grad=True)
    with as_users_call():
        p = function(x, 3, "clip")
        (grad,) = torch.autograd.grad((p * torch.arange(5.0, dtype=torch.float64)).sum(), x)
    assert torch.equal(p, torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    assert torch.equal(grad, torch.zeros(5, dtype=torch.float64))
