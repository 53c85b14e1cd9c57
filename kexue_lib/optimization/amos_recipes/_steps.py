"""What both optimizers of the chapter do around a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer


def with_gradients(optimizer: Optimizer) -> Iterator[tuple[dict, list[Tensor]]]:
    """Yield each group with its parameters that have a gradient; refuse all before any was changed.

    Raises:
        RuntimeError: a gradient that is sparse or complex, or a parameter that is sharded.
    """
    ready = []
    for group in optimizer.param_groups:
        params = [p for p in group["params"] if p.grad is not None]
        name = type(optimizer).__name__
        for p in params:
            if p.grad.is_sparse:
                raise RuntimeError(f"{name}: got a sparse gradient, expected a dense one")
            if p.is_complex():
                raise RuntimeError(f"{name}: got a parameter of {p.dtype}, expected a real one")
            if hasattr(p, "placements"):
                raise RuntimeError(f"{name}: got a sharded parameter (DTensor), expected a whole one")
        ready.append((group, params))
    yield from ready


def in_lists(params: Sequence[Tensor], together: bool) -> list[list[Tensor]]:
    """Return what one call updates: all tensors of a device and type, or one tensor."""
    lists: dict[tuple, list[Tensor]] = {}
    for i, p in enumerate(params):
        lists.setdefault((p.device, p.dtype) if together else (i,), []).append(p)
    return list(lists.values())


def wide(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors in float32 or better."""
    return [x.float() if x.dtype in (torch.bfloat16, torch.float16) else x for x in tensors]


def wide_dtype(p: Tensor) -> torch.dtype:
    """Return the type of the state of a parameter."""
    return torch.float32 if p.dtype in (torch.bfloat16, torch.float16) else p.dtype
