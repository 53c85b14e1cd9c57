"""Truncated products of polynomials and their transposes, along dimension 0, elementwise in all other dimensions.

Loops of fused multiply-adds over one factor's coefficients on the CPU; one gathered product where launching kernels or
the nodes of a graph are what costs: on a GPU and under `torch.compile`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import hardshrink, pad

from kexue_lib._autograd import remember_signature

_GATHER_LIMIT = 1 << 26  # elements that one gathered product may take
_SMALL = 1 << 13  # results of so few elements cost more in Python than in arithmetic
_SHORT = 8  # sums of so few products are faster done than guarded against subnormal numbers


def product(a: Tensor, b: Tensor, degree: int) -> Tensor:
    """c_d = Σᵢ aᵢ b_{d−i} for d = 0, …, degree.

    >>> product(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]), 2)
    tensor([1., 5., 6.])
    """
    if torch.compiler.is_compiling():  # the graph is differentiated as it stands
        return _gathered_convolve(a, b, degree + 1)
    return _Product.apply(a, b, degree)


def correlation(g: Tensor, b: Tensor, size: int) -> Tensor:
    """cᵢ = Σⱼ g_{i+j} bⱼ for i = 0, …, size − 1: the gradient of ⟨g, product(c, b)⟩ with respect to c.

    >>> correlation(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0]), 2)
    tensor([ 7., 14.])
    """
    if torch.compiler.is_compiling():
        return _gathered_correlate(g, b, size)
    return _Correlation.apply(g, b, size)


def toeplitz(rows: int, columns: int, length: int, device: torch.device) -> Tensor:
    """Index d − i at (d, i), and `length`, the place of the padding, where d − i is no index."""
    index = torch.arange(rows, device=device)[:, None] - torch.arange(columns, device=device)
    return torch.where((index >= 0) & (index < length), index, length)


@remember_signature
class _Product(torch.autograd.Function):
    """c_d = Σᵢ aᵢ b_{d−i} for d = 0, …, degree; its derivatives are correlations."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, degree: int) -> Tensor:
        return _convolve(a, b, degree + 1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        a, b, ctx.size = inputs
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)

    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.saved_tensors
        if a.shape != b.shape:
            return _Correlation.apply(grad, b, a.shape[0]), _Correlation.apply(grad, a, b.shape[0]), None
        both = grad.unsqueeze(1).expand(grad.shape[0], 2, *grad.shape[1:])
        return *_Correlation.apply(both, torch.stack((b, a), dim=1), a.shape[0]).unbind(1), None

    @staticmethod
    def jvp(ctx, a_tangent, b_tangent, _):
        a, b = ctx.saved_tensors
        return _Product.apply(a_tangent, b, ctx.size) + _Product.apply(a, b_tangent, ctx.size)

    @staticmethod
    def vmap(info, in_dims, a, b, degree):
        a, b = _batch_last(info, in_dims, a, b)
        return _Product.apply(a, b, degree), a.dim() - 1


@remember_signature
class _Correlation(torch.autograd.Function):
    """cᵢ = Σⱼ g_{i+j} bⱼ for i = 0, …, size − 1; its derivatives are a product and a correlation."""

    @staticmethod
    def forward(g: Tensor, b: Tensor, size: int) -> Tensor:
        return _correlate(g, b, size)

    @staticmethod
    def setup_context(ctx, inputs, output):
        a, b, ctx.size = inputs
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)

    @staticmethod
    def backward(ctx, grad):
        g, b = ctx.saved_tensors
        return _Product.apply(grad, b, g.shape[0] - 1), _Correlation.apply(g, grad, b.shape[0]), None

    @staticmethod
    def jvp(ctx, g_tangent, b_tangent, _):
        g, b = ctx.saved_tensors
        return _Correlation.apply(g_tangent, b, ctx.size) + _Correlation.apply(g, b_tangent, ctx.size)

    @staticmethod
    def vmap(info, in_dims, g, b, size):
        g, b = _batch_last(info, in_dims, g, b)
        return _Correlation.apply(g, b, size), g.dim() - 1


def _batch_last(info, in_dims, *tensors: Tensor) -> list[Tensor]:
    """All dimensions but the first are elementwise, so a vmapped one may be put last."""
    return [
        t.unsqueeze(-1).expand(*t.shape, info.batch_size) if d is None else t.movedim(d, -1)
        for t, d in zip(tensors, in_dims)
    ]


def _convolve(a: Tensor, b: Tensor, size: int) -> Tensor:
    if _gathers(a, size):
        return _gathered_convolve(a, b, size)
    up, down = _scale(a.dtype) if min(len(a), len(b)) > _SHORT else (1.0, 1.0)
    b = b * up
    factors = a[:size].unbind()
    out = _padded(factors[0] * b[:size], size)  # the first term, so that under vmap the sum has all its batches
    for i, factor in enumerate(factors[1:], 1):
        part = out[i : i + len(b)]
        part.addcmul_(factor, b[: len(part)])
    return out if up == 1 else hardshrink(out, up * torch.finfo(a.dtype).tiny).mul_(down)


def _correlate(g: Tensor, b: Tensor, size: int) -> Tensor:
    if _gathers(b, size):
        return _gathered_correlate(g, b, size)
    up, down = _scale(g.dtype) if min(len(g), len(b)) > _SHORT else (1.0, 1.0)
    factors = (b[: len(g)] * up).unbind()
    out = _padded(factors[0] * g[:size], size)
    for j, factor in enumerate(factors[1:], 1):
        part = g[j : j + size]
        out[: len(part)].addcmul_(factor, part)
    return out if up == 1 else hardshrink(out, up * torch.finfo(g.dtype).tiny).mul_(down)


def _gathers(factor: Tensor, size: int) -> bool:
    work = size * factor.numel()
    return work <= _GATHER_LIMIT and (factor.is_cuda or work <= _SMALL * len(factor))


def _gathered_convolve(a: Tensor, b: Tensor, size: int) -> Tensor:
    return (a * _padded(b, len(b) + 1)[toeplitz(size, len(a), len(b), a.device)]).sum(1)


def _gathered_correlate(g: Tensor, b: Tensor, size: int) -> Tensor:
    index = torch.arange(size, device=g.device)[:, None] + torch.arange(len(b), device=g.device)
    return (b * _padded(g, len(g) + 1)[index.clamp(max=len(g))]).sum(1)


def _padded(a: Tensor, size: int) -> Tensor:
    return pad(a, (0, 0) * (a.dim() - 1) + (0, size - len(a)))


def _scale(dtype: torch.dtype) -> tuple[float, float]:
    """Factors before and after a sum of products, which is set to 0 in between where it would be subnormal.

    Probabilities of unlikely counts fall below the normal range, where a CPU computes ten times slower. Lifted by
    the root of the range, products of normal numbers stay normal except far below what a result can hold.
    """
    up = 2.0 ** round(-0.5 * math.log2(torch.finfo(dtype).tiny))
    return up, 1 / up
