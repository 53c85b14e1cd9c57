"""Sums of powers Σ|xᵢ|ᵉ that cannot overflow: of entries divided by a scale, several exponents in one pass."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._autograd import remember_signature


def reduced_dims(x: Float[Tensor, "..."], dim: int | tuple[int, ...] | None, name: str = "x") -> tuple[int, ...]:
    """The dimensions to reduce, as sorted indices from 0; None and () mean all, as in `torch.sum`.

    Args:
        x: any shape.
        dim: as the caller gave it.
        name: what the caller calls x.

    Raises:
        TypeError: dim is no int, tuple of int or None.
        ValueError: dim is out of range or named twice, or a reduced dimension is empty.
    """
    given = () if dim is None else (dim,) if isinstance(dim, int) else dim
    if isinstance(dim, bool) or not isinstance(given, tuple) or not all(isinstance(i, int) for i in given):
        raise TypeError(f"dim: got {dim!r}, expected an integer, a tuple of integers or None")
    rank = max(x.dim(), 1)
    if any(not -rank <= i < rank for i in given) or len({i % rank for i in given}) < len(given):
        raise ValueError(f"dim: got {dim!r}, expected different dimensions of {x.dim()}")
    dims = tuple(sorted(i % rank for i in given) if given else range(x.dim()))[: x.dim()]
    if any(x.shape[i] == 0 for i in dims):
        shape = tuple(x.shape)
        raise ValueError(f"{name}: got shape {shape}, which is empty in dim {dim!r}, expected something to measure")
    return dims


def count(x: Float[Tensor, "..."], dims: tuple[int, ...]) -> int:
    """Number of entries in each reduced group.

    Args:
        x: any shape.
        dims: from `reduced_dims`.
    """
    return math.prod([x.shape[i] for i in dims])


def magnitude(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """|x|, infinities replaced by the largest finite number, so that ratios of entries stay numbers.

    Args:
        x: any shape; NaN stays NaN.
    """
    return x.abs().clamp(max=torch.finfo(x.dtype).max)


def scale(x: Float[Tensor, "..."], dims: tuple[int, ...], *, smallest: bool = False) -> Float[Tensor, "..."]:
    """Largest (or smallest nonzero) magnitude along dims, without gradient; 1 if all entries are 0.

    Args:
        x: any shape.
        dims: reduced to size 1.
        smallest: the scale for negative powers.
    """
    x = x.detach()
    if smallest:
        size = magnitude(x)
        extreme = torch.where(size == 0, math.inf, size).amin(dims, keepdim=True)
        return torch.where(extreme == math.inf, 1.0, extreme)
    extreme = torch.maximum(x.amax(dims, keepdim=True), -x.amin(dims, keepdim=True))  # no copy of |x|
    return torch.where(extreme == 0, 1.0, magnitude(extreme))


def in_double(x: Float[Tensor, "..."], exponents: tuple[float, ...]) -> bool:
    """Whether to sum in float64 without a scale: compiled on a CPU, where it saves the pass for the maximum.

    Args:
        x: any shape.
        exponents: 1 and 2 only, so that powers of float32 numbers stay far from the ends of float64.
    """
    narrow = x.dtype == torch.float32 and x.device.type == "cpu"
    return narrow and torch.compiler.is_compiling() and set(exponents) <= {1, 2}


def power(u: Float[Tensor, "..."], exponent: float) -> Float[Tensor, "..."]:
    """uᵉ, but 0 with derivative 0 where u = 0.

    Args:
        u: any shape, ≥ 0.
        exponent: any real number.
    """
    if exponent == 1:
        return u
    if exponent == 2:
        return u * u
    zero = u == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, u).pow(exponent))


def power_sums(
    x: Float[Tensor, "..."], unit: Float[Tensor, "..."], exponents: tuple[float, ...], dims: tuple[int, ...]
) -> tuple[Float[Tensor, "..."], ...]:
    """Σ(|x|/unit)ᵉ over dims (kept as size 1) for each exponent e, zeros left out; exact zeros have gradient 0.

    Args:
        x: any shape.
        unit: the `scale` of x: the largest magnitude for positive exponents, the smallest for negative ones.
        exponents: one or more.
        dims: reduced to size 1.

    Saves x and `unit` for the backward pass, which is the closed form e(|x|/unit)ᵉ⁻¹ sign(x)/unit, itself
    differentiable. Inside of a compiled graph the same formulas are left to the compiler, which fuses them.
    """
    function = _sums if torch.compiler.is_compiling() else _PowerSums.apply
    return function(x, unit, tuple([float(e) for e in exponents]), dims)


def sums_in_double(
    x: Float[Tensor, "..."], exponents: tuple[float, ...], dims: tuple[int, ...]
) -> tuple[Float[Tensor, "..."], ...]:
    """Σ|x|ᵉ over dims (kept as size 1) in float64, without a scale; exact zeros have gradient 0.

    Args:
        x: float32, any shape, of which `in_double` is true.
        exponents: 1 or 2.
        dims: reduced to size 1.
    """
    u = magnitude(x).double()
    return tuple([power(u, e).sum(dims, keepdim=True) for e in exponents])


def _sums(x: Tensor, unit: Tensor, exponents: tuple[float, ...], dims: tuple[int, ...]) -> tuple[Tensor, ...]:
    u = magnitude(x) / unit
    return tuple([power(u, e).sum(dims, keepdim=True) for e in exponents])


@remember_signature
class _PowerSums(torch.autograd.Function):
    """All sums at once; forward mode, vmap and higher derivatives included."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, unit, exponents, dims):
        # One new tensor. Nothing is differentiated here, so that positive powers need no care at 0; the clamp is for
        # infinities: with a negative exponent, u is at least 1 and its size is clamped before.
        u = x.div(unit).abs_().clamp_max_(1) if min(exponents) > 0 else magnitude(x).div_(unit)
        last, totals = len(exponents) - 1, []
        for i, e in enumerate(exponents):
            in_place = e == 2 and i == last
            each = u.mul_(u) if in_place else u.pow(e) if e > 0 and e not in (1, 2) else power(u, e)
            totals.append(each.sum(dims, keepdim=True))
        return tuple(totals)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, unit, ctx.exponents, ctx.dims = inputs
        ctx.save_for_backward(x, unit)
        ctx.save_for_forward(x, unit)

    @staticmethod
    def backward(ctx, *grads):
        x, unit = ctx.saved_tensors
        return sum(_slope(x, unit, e, g) for g, e in zip(grads, ctx.exponents)), None, None, None

    @staticmethod
    def jvp(ctx, x_tangent, *_):
        x, unit = ctx.saved_tensors
        one = torch.ones_like(unit)
        return tuple((x_tangent * _slope(x, unit, e, one)).sum(ctx.dims, keepdim=True) for e in ctx.exponents)


def _slope(x: Tensor, unit: Tensor, exponent: float, weight: Tensor) -> Tensor:
    """weight · ∂/∂x of (|x|/unit)ᵉ; weight and unit have size 1 along the reduced dimensions."""
    weight = exponent * weight / unit
    if exponent == 1:
        return weight * x.sign()
    if exponent == 2:
        return weight * (x / unit).clamp(-1, 1)
    return weight * (power(magnitude(x) / unit, exponent - 1) * x.sign())
