"""What the functions of the chapter check and convert before they compute."""

from __future__ import annotations

import torch
from torch import Tensor

from kexue_lib._tracing import is_traced
from kexue_lib.distributions.softmax_alternatives import _entmax_rows as rows


def wide(x: Tensor) -> Tensor:
    """x in the dtype that the computation uses."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def beta_of(alpha: float | Tensor, x: Tensor, dim: int) -> float | Tensor:
    """α − 1, as a tensor with the dimensions of x and dim last."""
    if not isinstance(alpha, Tensor):
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
            raise TypeError(f"alpha must be a number or a floating tensor, got {type(alpha).__name__}")
        if not 1 <= alpha <= 2:
            raise ValueError(f"alpha must lie in [1, 2], got {alpha}")
        return max(float(alpha) - 1, rows.SMALLEST_BETA)
    if not alpha.is_floating_point():
        raise TypeError(f"alpha must be a number or a floating tensor, got {alpha.dtype}")
    shape = (1,) * (x.dim() - alpha.dim()) + tuple(alpha.shape)
    if len(shape) > x.dim() or shape[dim] != 1 or any(a not in (1, s) for a, s in zip(shape, x.shape)):
        raise ValueError(
            f"alpha must broadcast against x {tuple(x.shape)} with size 1 in dim {dim}, got {tuple(alpha.shape)}"
        )
    beta = alpha.reshape(shape).movedim(dim, -1).to(wide(x).dtype) - 1
    return beta.clamp_min(rows.SMALLEST_BETA)


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """Mean or sum of the losses, or all of them."""
    return loss if reduction == "none" else getattr(loss, reduction)()


def check(x: Tensor, dim: int, name: str = "x") -> None:
    """Scores are floating, and dim is one of their dimensions."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"{name} must be a tensor of floating dtype, got {getattr(x, 'dtype', type(x))}")
    if not -x.dim() <= dim < x.dim() or x.shape[dim] == 0:
        raise ValueError(f"dim must be a dimension of {name} that is not empty, got {dim} for shape {tuple(x.shape)}")


def check_target(target: Tensor, x: Tensor, reduction: str, probabilities: bool = True, name: str = "x") -> None:
    """Indices in range, or a distribution for each row where the loss takes them."""
    kinds = "int64 indices" + (" or probabilities" if probabilities else "")
    distribution = isinstance(target, Tensor) and target.is_floating_point() and probabilities
    if not distribution and (not isinstance(target, Tensor) or target.dtype != torch.int64):
        raise TypeError(f"target must be a tensor of {kinds}, got {getattr(target, 'dtype', type(target))}")
    wanted = x.shape if distribution else x.shape[:-1]
    if target.shape != wanted:
        raise ValueError(f"target must have shape {tuple(wanted)} to fit {name}, got {tuple(target.shape)}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if not distribution and target.device.type == "cpu" and target.numel() and not is_traced():
        low, high = target.aminmax()
        if low < 0 or high >= x.shape[-1]:
            raise ValueError(f"target must lie in 0 … {x.shape[-1] - 1}, got values from {low} to {high}")


def check_k(k: int, n: int) -> None:
    """1 ≤ k ≤ n."""
    check_count("k", k, 1)
    if k > n:
        raise ValueError(f"k must be at most n = {n}, got {k}")


def check_count(name: str, value: int, least: int) -> None:
    """An int that is large enough."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_noise(noise: str) -> None:
    """One of the four."""
    if noise not in ("gumbel", "normal", "exponential", "logistic"):
        raise ValueError(f"noise must be 'gumbel', 'normal', 'exponential' or 'logistic', got {noise!r}")
