"""Sums Σ_k c_k e^{iπkx} and their integrals over intervals, at many points, in memory that does not grow with both.

The kernel is K_k(x) = e^{iπkx}, or K_k(x, h) = ½∫_{x−h}^{x+h} e^{iπks} ds = e^{iπkx} sin(πkh)/(πk). There are two maps:
synthesis Σ_k c_k K_k(x_m) at each point, analysis Σ_m g_m K_k(x_m) at each frequency. Each is the derivative of the
other, and the derivatives of K are again such kernels: this closes automatic differentiation of every order. Both run
over blocks of points that stay in the cache, one multiplication for each point and frequency (Horner's rule and its
transpose), and form the matrix K for few points only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from kexue_lib._autograd import remember_signature

BLOCK = {"cpu": 2**14}
"""Points of a block: what stays in the second level cache; elsewhere 2²³."""
FEW = 4096
"""Up to so many points the matrix K costs less than the calls of Horner's rule."""


def synthesis(coef: Tensor, x: Tensor, half_width: Tensor | None = None) -> Tensor:
    """Σ_k coef_k K_k(x, half_width) (*B, M), complex, of coef (*B, K) complex and x, half_width (*B, M) real."""
    if torch.compiler.is_compiling() or x.numel() <= FEW:  # plain operations
        return _sum(coef, x, half_width)
    return _Synthesis.apply(coef, x, half_width)


def analysis(weight: Tensor, x: Tensor, half_width: Tensor | None, count: int) -> Tensor:
    """Σ_m weight_m K_k(x_m, half_width_m) for k < count (*B, count), complex, of weight (*B, M) complex."""
    return _Analysis.apply(weight, x, half_width, count)


def _phase(x: Tensor) -> Tensor:
    angle = math.pi * x
    return torch.complex(angle.cos(), angle.sin())


def _waves(x: Tensor, count: int) -> Tensor:
    """The matrix K (..., count, M)."""
    k = torch.arange(count, dtype=x.dtype, device=x.device).unsqueeze(-1)
    return _phase(k * x.unsqueeze(-2))


def _sum(coef: Tensor, x: Tensor, half_width: Tensor | None) -> Tensor:
    """Horner's rule; with a half width, for the divided difference of the integrated polynomial at the two ends.

    (w_b^k − w_a^k)/(2πik) = e^{iπx} sin(πh)/π · (w_b^k − w_a^k)/(w_b − w_a)/k: no cancellation as h → 0.
    """
    if half_width is None and x.numel() <= FEW:
        return (coef.unsqueeze(-2) @ _waves(x, coef.shape[-1])).squeeze(-2)
    constant, *coefs = coef.unsqueeze(-1).unbind(-2)
    if half_width is None:
        z, total = _phase(x), torch.zeros_like(x, dtype=coef.dtype)
        for c in (*reversed(coefs), constant):
            total = torch.addcmul(c, total, z)
        return total
    low, high = _phase(x - half_width), _phase(x + half_width)
    value = quotient = torch.zeros_like(low)
    for k in range(len(coefs), 0, -1):
        quotient = torch.addcmul(value, quotient, low)
        value = torch.addcmul(coefs[k - 1] / k, value, high)
    quotient = torch.addcmul(value, quotient, low)
    return torch.addcmul(constant * half_width, quotient, _phase(x) * ((math.pi * half_width).sin() / math.pi))


def _transposed_sum(weight: Tensor, x: Tensor, half_width: Tensor | None, count: int) -> Tensor:
    """The recurrences of `_sum` run backwards."""
    if half_width is None and x.numel() <= FEW:
        return (_waves(x, count) @ weight.unsqueeze(-1)).squeeze(-1)
    if half_width is None:
        z, rows = _phase(x), []
        for _ in range(count):
            rows.append(weight.sum(-1))
            weight = weight * z
        return torch.stack(rows, dim=-1)
    low, high = _phase(x - half_width), _phase(x + half_width)
    rows = [(weight * half_width).sum(-1)]
    power = weight * _phase(x) * ((math.pi * half_width).sin() / math.pi)
    quotient = torch.zeros_like(power)
    for k in range(1, count):
        quotient = torch.addcmul(power, quotient, high)
        rows.append(quotient.sum(-1) / k)
        power = power * low
    return torch.stack(rows, dim=-1)


def _times_frequency(coef: Tensor) -> Tensor:
    return coef * (1j * math.pi * torch.arange(coef.shape[-1], dtype=coef.real.dtype, device=coef.device))


def _rows(t: Tensor) -> Tensor:
    return t.reshape(t.shape[:-1].numel(), t.shape[-1])


def _blocks(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the blocks of x (B, M)."""
    size, (rows, columns) = BLOCK.get(x.device.type, 2**23), x.shape
    width = max(1, min(columns, size))
    height = max(1, size // width)
    for i in range(0, rows, height):
        for j in range(0, columns, width):
            yield slice(i, i + height), slice(j, j + width)


@remember_signature
class _Synthesis(torch.autograd.Function):
    @staticmethod
    def forward(coef: Tensor, x: Tensor, half_width: Tensor | None) -> Tensor:
        points = _rows(x)
        flat, out = _rows(coef), torch.empty_like(points, dtype=coef.dtype)
        widths = None if half_width is None else half_width.reshape(points.shape)
        for r, c in _blocks(points):
            out[r, c] = _sum(flat[r], points[r, c], None if widths is None else widths[r, c])
        return out.reshape(x.shape)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        coef, x, half_width = ctx.saved_tensors
        if grad is None:
            return None, None, None
        needed = ctx.needs_input_grad
        by_coef = analysis(grad.conj(), x, half_width, coef.shape[-1]).conj() if needed[0] else None
        by_x = (grad.conj() * _by_centre(coef, x, half_width)).real if needed[1] else None
        by_width = (grad.conj() * _by_half_width(coef, x, half_width)).real if needed[2] else None
        return by_coef, by_x, by_width

    @staticmethod
    def jvp(ctx, coef_tangent, x_tangent, width_tangent):
        coef, x, half_width = ctx.saved_tensors
        tangent = torch.zeros_like(x, dtype=coef.dtype)
        if coef_tangent is not None:
            tangent = tangent + synthesis(coef_tangent, x, half_width)
        if x_tangent is not None:
            tangent = tangent + x_tangent * _by_centre(coef, x, half_width)
        if width_tangent is not None:
            tangent = tangent + width_tangent * _by_half_width(coef, x, half_width)
        return tangent

    @staticmethod
    def vmap(info, in_dims, coef, x, half_width):
        coef, x, half_width = (_in_front(t, d, info.batch_size) for t, d in zip((coef, x, half_width), in_dims))
        assert coef is not None  # only the half width may be missing
        assert x is not None
        return synthesis(coef, x, half_width), 0


@remember_signature
class _Analysis(torch.autograd.Function):
    @staticmethod
    def forward(weight: Tensor, x: Tensor, half_width: Tensor | None, count: int) -> Tensor:
        points = _rows(x)
        flat, out = weight.reshape(points.shape), weight.new_zeros(len(points), count)
        widths = None if half_width is None else half_width.reshape(points.shape)
        for r, c in _blocks(points):
            out[r] += _transposed_sum(flat[r, c], points[r, c], None if widths is None else widths[r, c], count)
        return out.reshape(*x.shape[:-1], count)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.count = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx, grad):
        weight, x, half_width = ctx.saved_tensors
        if grad is None:
            return None, None, None, None
        needed, coef = ctx.needs_input_grad, grad.conj()
        by_weight = synthesis(coef, x, half_width).conj() if needed[0] else None
        by_x = (weight * _by_centre(coef, x, half_width)).real if needed[1] else None
        by_width = (weight * _by_half_width(coef, x, half_width)).real if needed[2] else None
        return by_weight, by_x, by_width, None

    @staticmethod
    def jvp(ctx, weight_tangent, x_tangent, width_tangent, _):
        weight, x, half_width = ctx.saved_tensors
        tangent = weight.new_zeros(*x.shape[:-1], ctx.count)
        if weight_tangent is not None:
            tangent = tangent + analysis(weight_tangent, x, half_width, ctx.count)
        if x_tangent is not None:
            tangent = tangent + _times_frequency(analysis(weight * x_tangent, x, half_width, ctx.count))
        if width_tangent is not None:
            for edge in (x + half_width, x - half_width):
                tangent = tangent + 0.5 * analysis(weight * width_tangent, edge, None, ctx.count)
        return tangent

    @staticmethod
    def vmap(info, in_dims, weight, x, half_width, count):
        weight, x, half_width = (_in_front(t, d, info.batch_size) for t, d in zip((weight, x, half_width), in_dims))
        assert weight is not None  # only the half width may be missing
        assert x is not None
        return analysis(weight, x, half_width, count), 0


def _by_centre(coef: Tensor, x: Tensor, half_width: Tensor | None) -> Tensor:
    return synthesis(_times_frequency(coef), x, half_width)


def _by_half_width(coef: Tensor, x: Tensor, half_width: Tensor) -> Tensor:
    """∂/∂h of ½∫_{x−h}^{x+h} is the mean of the two ends."""
    return 0.5 * (synthesis(coef, x + half_width) + synthesis(coef, x - half_width))


def _in_front(t: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    if t is None:
        return None
    return t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
