"""What the functions of the chapter check and convert before they compute."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kexue_lib._arguments import check_dim, check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._tracing import is_traced
from kexue_lib.distributions.softmax_alternatives import _entmax_rows as rows


def wide(x: Tensor) -> Tensor:
    """x in the dtype that the computation uses."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def without_dead(y: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The scores with rows of nothing but -inf, or with +inf or NaN, set to zero, and where these rows are.

    So no gradient leaves them.

    Args:
        y: scores, any shape.
        dim: the dimension that sums to 1.
    """
    dead = ~y.detach().amax(dim, keepdim=True).isfinite()
    return y.masked_fill(dead, 0), dead


def beta_of(alpha: float | Tensor, x: Tensor, dim: int) -> float | Tensor:
    """α − 1, as a tensor with the dimensions of x and dim last."""
    if not isinstance(alpha, Tensor):
        check_number("alpha", alpha, least=1, below=math.inf)
        return max(float(alpha) - 1, rows.SMALLEST_BETA)
    check_dtype("alpha", alpha, "floating")
    shape = (1,) * (x.dim() - alpha.dim()) + tuple(alpha.shape)
    if len(shape) > x.dim() or shape[dim] != 1 or any(a not in (1, s) for a, s in zip(shape, x.shape)):
        raise ValueError(
            f"alpha: got shape {tuple(alpha.shape)}, expected one that broadcasts to x {tuple(x.shape)}, 1 in dim {dim}"
        )
    if alpha.device.type == "cpu" and alpha.numel() and not is_traced() and not bool((alpha <= 2).all()):
        raise ValueError(f"alpha: got a tensor with {alpha.amax().item()}, expected numbers up to 2")
    beta = alpha.reshape(shape).movedim(dim, -1).to(wide(x).dtype) - 1
    # The gradient passes the clamp: an optimizer that stepped below 1 is led back.
    return beta.detach().clamp_min(rows.SMALLEST_BETA) + (beta - beta.detach())


def counted(target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor | None]:
    """The target with 0 for ignored indices, and which rows count; None where the target is a distribution."""
    if target.is_floating_point():
        return target, None
    counts = target != ignore_index
    return target.where(counts, 0), counts


def reduced(loss: Tensor, reduction: str, counts: Tensor | None = None) -> Tensor:
    """Mean or sum of the losses of the rows that count, or all of them with 0 for those that do not."""
    if counts is not None:
        loss = torch.where(counts, loss, 0)
    if reduction == "mean" and counts is not None:
        return loss.sum() / counts.sum().clamp(min=1).to(loss.dtype)
    return loss if reduction == "none" else getattr(loss, reduction)()


def check(x: Tensor, dim: int, name: str = "x") -> None:
    """Scores are floating, and dim is one of their dimensions that are not empty."""
    check_dtype(name, x, "floating")
    check_dim(dim, x, name)
    if x.shape[dim] == 0:
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected at least one entry in dim {dim}")


def check_rows(x: Tensor, name: str = "x") -> None:
    """Scores are floating, with at least one entry in each row."""
    check_dtype(name, x, "floating")
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected (..., n) with n of at least 1")


def check_target(
    target: Tensor, x: Tensor, reduction: str, ignore_index: int, probabilities: bool = True, name: str = "x"
) -> None:
    """Indices in range, or a distribution for each row where the loss takes them."""
    kinds = "int64 indices" + (" or probabilities" if probabilities else "")
    distribution = isinstance(target, Tensor) and target.is_floating_point() and probabilities
    if not distribution and (not isinstance(target, Tensor) or target.dtype != torch.int64):
        got = getattr(target, "dtype", type(target).__name__)
        raise TypeError(f"target: got {got}, expected a tensor of {kinds}")
    check_shape("target", target, x.shape if distribution else x.shape[:-1], f"as {name} has")
    check_one_of("reduction", reduction, ("mean", "sum", "none"))
    check_integer("ignore_index", ignore_index)
    if not distribution and target.device.type == "cpu" and target.numel() and not is_traced():
        low, high = torch.where(target == ignore_index, 0, target).aminmax()
        if low < 0 or high >= x.shape[-1]:
            raise ValueError(
                f"target: got values from {low} to {high}, expected 0 to {x.shape[-1] - 1} or ignore_index"
            )
