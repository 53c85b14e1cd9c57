"""Squareplus, its derivative and its gate, with derivatives that do not cancel, in one pass over memory.

The smoothing b is a tensor here, of 0 dimensions or the shape of x.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import types
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kexue_lib._autograd import is_differentiated, remember_signature

FUSED_FROM = 2**16
"""Number of elements from which on the compiled kernel is used."""


# -- formulas: h = √(x² + b); each derivative in a form that does not cancel -------------------------------------------


def _hypotenuse(x: Tensor, b: Tensor) -> Tensor:
    # x² overflows where b no longer matters: there h = |x|.
    size = x.abs()
    limit = 2.0**510 if x.dtype == torch.float64 else 2.0**62
    return torch.maximum(size, (size.clamp(max=limit).square() + b).sqrt())


def _denominator(x: Tensor, b: Tensor) -> Tensor:
    """h, kept away from 0 (x = b = 0) and from infinity."""
    finite = torch.finfo(x.dtype)
    return _hypotenuse(x, b).clamp(finite.tiny, finite.max)


def _half_sum(x: Tensor, h: Tensor) -> Tensor:
    return 0.5 * x.abs() + 0.5 * h  # halves first: the sum itself may overflow


def _value(x: Tensor, b: Tensor) -> Tensor:
    u = _half_sum(x, _hypotenuse(x, b))
    return torch.relu(x) + (0.25 * b) / u.clamp(min=torch.finfo(x.dtype).tiny)


def _value_by_b(x: Tensor, b: Tensor) -> Tensor:
    return 0.25 / _denominator(x, b)


def _slope(x: Tensor, b: Tensor) -> Tensor:
    h = _hypotenuse(x, b)
    tail = (0.25 * b) / (_half_sum(x, h) * h).clamp(min=torch.finfo(x.dtype).tiny)  # s_b'(−|x|) ≤ 1/2
    return torch.where(x > 0, 1 - tail, tail)


def _slope_by_b(x: Tensor, b: Tensor) -> Tensor:
    h = _denominator(x, b)
    return -0.25 * _cosine(x, h) / h / h


def _curvature(x: Tensor, b: Tensor) -> Tensor:
    h = _denominator(x, b)
    return 0.5 * b / h / h / h


def _gate(x: Tensor, b: Tensor) -> Tensor:
    return _value(x, b) * _cosine(x, _denominator(x, b))


def _gate_by_b(x: Tensor, b: Tensor) -> Tensor:
    h = _denominator(x, b)
    return -0.25 * _cosine(x, h).square() / h


def _gate_slope(x: Tensor, b: Tensor) -> Tensor:
    h = _denominator(x, b)
    return _slope(x, b) + _cosine(x, h) * (0.5 * b / h / h)


def _gate_slope_by_b(x: Tensor, b: Tensor) -> Tensor:
    h = _denominator(x, b)
    return 0.25 * _cosine(x, h) / h / h * (1 - 3 * (b / h / h))


def _gate_curvature(x: Tensor, b: Tensor) -> Tensor:
    h = _denominator(x, b)
    return b / h / h / h * (1 - 1.5 * _cosine(x, h).square())


def _cosine(x: Tensor, h: Tensor) -> Tensor:
    """x/h in [−1, 1], also at ±inf."""
    largest = torch.finfo(x.dtype).max
    return x.clamp(-largest, largest) / h


# -- one autograd function for all of them: out = weight · f(x, b) -----------------------------------------------------

_DERIVATIVES: dict[Callable, tuple[Callable, Callable]] = {
    _value: (_slope, _value_by_b),
    _slope: (_curvature, _slope_by_b),
    _gate: (_gate_slope, _gate_by_b),
    _gate_slope: (_gate_curvature, _gate_slope_by_b),
}
"""f → (∂f/∂x, ∂f/∂b) where automatic differentiation would lose digits; the others are differentiated as they stand."""
_FORMULAS = {"value": _value, "slope": _slope, "gate": _gate}


def apply(name: str, x: Tensor, b: float | Tensor) -> Tensor:
    """One of the formulas at x and b, broadcast; the result has the dtype of x."""
    compute = compute_dtype(x)
    if not isinstance(b, Tensor):
        by = torch.full((), b, dtype=compute, device=x.device)
    elif b.numel() == 1 and b.dim() <= x.dim():
        by = b.to(compute).reshape(())
    else:
        x, by = torch.broadcast_tensors(x, b.to(compute))
    return _weighted(None, x, by, _FORMULAS[name])


def _weighted(weight: Tensor | None, x: Tensor, b: Tensor, f: Callable) -> Tensor:
    """weight · f(x, b), or f(x, b) for weight None, in the dtype of x; b is 0-dimensional or has the shape of x."""
    if not is_differentiated(weight, x, b):
        return _evaluate(f, weight, x, b)
    function = _Reverse if torch.compiler.is_compiling() else _Weighted
    return function.apply(weight, x, b, f)


class _Reverse(torch.autograd.Function):
    """What the compiler can trace: no forward mode, no vmap."""

    @staticmethod
    def forward(weight: Tensor | None, x: Tensor, b: Tensor, f: Callable) -> Tensor:
        return _evaluate(f, weight, x, b)

    @staticmethod
    def setup_context(ctx, inputs, output):
        weight, x, b, ctx.f = inputs
        ctx.save_for_backward(weight, x, b)
        ctx.save_for_forward(weight, x, b)

    @staticmethod
    def backward(ctx, grad):
        weight, x, b = ctx.saved_tensors
        by_weight = _weighted(grad, x, b, ctx.f) if ctx.needs_input_grad[0] else None
        weight = grad if weight is None else grad * weight
        by_x, by_b = _DERIVATIVES[ctx.f]
        x_grad = b_grad = None
        if ctx.needs_input_grad[1]:
            fused = by_x in _DERIVATIVES
            x_grad = _weighted(weight, x, b, by_x) if fused else _plain(by_x, weight, x, b).to(x.dtype)
        if ctx.needs_input_grad[2]:
            b_grad = _plain(by_b, weight, x, b)
            b_grad = b_grad if b.dim() else b_grad.sum()
        return by_weight, x_grad, b_grad, None


# Inside of a graph the compiler cannot look through the runtime checks that the tests put on every function.
for _name in ("forward", "setup_context", "backward"):
    setattr(_Reverse, _name, staticmethod(inspect.unwrap(getattr(_Reverse, _name))))
remember_signature(_Reverse)


class _Weighted(_Reverse):
    """All of automatic differentiation."""

    @staticmethod
    def jvp(ctx, weight_tangent, x_tangent, b_tangent, _):
        weight, x, b = ctx.saved_tensors
        by_x, by_b = _DERIVATIVES[ctx.f]
        tangent = x_tangent * _plain(by_x, weight, x, b) + b_tangent * _plain(by_b, weight, x, b)
        if weight_tangent is not None:
            tangent = tangent + weight_tangent * _plain(ctx.f, None, x, b)
        return tangent.to(x.dtype)

    @staticmethod
    def vmap(info, in_dims, weight, x, b, f):
        in_front = lambda t, d: t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0)
        x = in_front(x, in_dims[1])
        weight = None if weight is None else in_front(weight, in_dims[0])
        if in_dims[2] is not None or b.dim():
            b = in_front(b, in_dims[2])
            b = b.reshape(*b.shape, *(1,) * (x.dim() - b.dim())).expand(x.shape)
        return _weighted(weight, x, b, f), 0


def _plain(f: Callable, weight: Tensor | None, x: Tensor, b: Tensor) -> Tensor:
    """weight · f(x, b) in the dtype of the computation."""
    result = f(x.to(b.dtype), b)
    return result if weight is None else weight * result


_UNFUSED: set[str] = set()
"""Kinds of device for which there is no working compiler."""


def _evaluate(f: Callable, weight: Tensor | None, x: Tensor, b: Tensor) -> Tensor:
    if not _is_large_and_simple(weight, x, b):
        return _plain(f, weight, x, b).to(x.dtype)
    flat, weight = x.view(-1), None if weight is None else weight.view(-1)
    if x.device.type not in _UNFUSED:
        try:
            return _compiled(f, x.dtype, weight is not None)(weight, flat, b).view(x.shape)
        except Exception:  # no compiler, or one that fails: what is wrong with the input itself, eager code says again
            _UNFUSED.add(x.device.type)
    out = torch.empty_like(flat)
    size = 2**15 * torch.get_num_threads() if x.device.type == "cpu" else len(flat)  # what stays in the cache
    weights = itertools.repeat(None) if weight is None else weight.split(size)
    for part, w, piece in zip(out.split(size), weights, flat.split(size)):
        part.copy_(_plain(f, w, piece, b))
    return out.view(x.shape)


def _is_large_and_simple(weight: Tensor | None, x: Tensor, b: Tensor) -> bool:
    return (
        x.numel() >= FUSED_FROM
        and b.dim() == 0
        and x.device.type in ("cpu", "cuda")
        and not torch.compiler.is_compiling()
        and all(t is None or (type(t) in (Tensor, nn.Parameter) and t.is_contiguous()) for t in (weight, x))
    )


@functools.cache
def _compiled(f: Callable, dtype: torch.dtype, weighted: bool) -> Callable:
    def kernel(weight: Tensor | None, x: Tensor, b: Tensor) -> Tensor:
        return _plain(f, weight, x, b).to(x.dtype)

    # The compiler counts its kernels for each code object and gives up after a few: each case has its own.
    kernel = inspect.unwrap(kernel)
    code = kernel.__code__.replace(co_name=f"{f.__name__}_{dtype}_{weighted}".replace(".", "_"))
    return torch.compile(types.FunctionType(code, globals(), code.co_name, None, kernel.__closure__), dynamic=True)


def compute_dtype(x: Tensor) -> torch.dtype:
    """At least float32."""
    return torch.promote_types(x.dtype, torch.float32)
