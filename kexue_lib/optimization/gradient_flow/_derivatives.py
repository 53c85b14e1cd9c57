"""Derivatives of a function that maps rows to numbers, for every row of a batch at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_shape

Scalar = Callable[[Tensor], Tensor]


def check_point(name: str, x: Tensor, least: int = 1) -> None:
    """Refuse what is no floating tensor (..., d), or with `least` = 2 (..., n, d)."""
    check_dtype(name, x, "floating")
    if x.dim() < least or x.shape[-1] == 0:
        shape = "(..., d)" if least == 1 else "(..., n, d)"
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected {shape} with d ≥ 1")


def check_value(name: str, f: Scalar, x: Tensor) -> None:
    """Refuse an f that does not map (..., d) to (...)."""
    with torch.no_grad():
        check_shape(name, f(x), tuple(x.shape[:-1]), "one number a row")


def gradient(f: Scalar, x: Tensor, graph: bool = False) -> tuple[Tensor, Tensor]:
    """Values (...) and gradients (..., d) of f, rows being independent; with `graph` differentiable in turn."""
    with torch.enable_grad():
        point = x if graph and x.requires_grad else x.detach().requires_grad_()
        value = f(point)
        if not value.requires_grad:  # a constant
            return value, torch.zeros_like(x)
        (slope,) = torch.autograd.grad(value.sum(), point, create_graph=graph)
    return (value, slope) if graph else (value.detach(), slope)


def hessian(f: Scalar, x: Tensor, graph: bool = False) -> tuple[Tensor, Tensor]:
    """Gradients (..., d) and Hessians (..., d, d) of f: one backward pass for each of the d rows."""
    with torch.enable_grad():
        point = x if graph and x.requires_grad else x.detach().requires_grad_()
        _, slope = gradient(f, point, graph=True)
        if not slope.requires_grad:  # a linear f
            return slope, torch.zeros(*x.shape, x.shape[-1], dtype=x.dtype, device=x.device)
        row = lambda i: torch.autograd.grad(slope[..., i].sum(), point, retain_graph=True, create_graph=graph)[0]
        rows = [row(i) for i in range(x.shape[-1])]
    return (slope, torch.stack(rows, -2)) if graph else (slope.detach(), torch.stack(rows, -2))
