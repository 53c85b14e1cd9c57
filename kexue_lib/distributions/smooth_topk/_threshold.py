"""The number λ at which Σᵢ f(xᵢ − λ) = k, for four increasing f: ℝ → [0, 1], and its derivatives.

All solvers work on y = x − x₍ₖ₎, the scores seen from the k-th largest: near the threshold the difference is exact, and
a common offset of the scores costs no digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import hardshrink

from kexue_lib._autograd import remember_signature

_FAR = 1e4  # scores this many temperatures from the k-th largest are as good as infinitely far: e^{−5000} = 0
_STEPS = 5  # four reach rounding on everything that the tests try, one is in reserve
TILT_STEPS = 2  # a tilt only keeps P(ΣB = k) away from 0


def log_odds(x: Tensor, k: int, tau: float | Tensor, f: str) -> Tensor:
    """u = x/τ − λ with Σf(u) = k, differentiable through λ as well; clamped at ±1e4.

    Args:
        x: scores (..., n) in float32 or float64.
        k: 1 ≤ k ≤ n; k < n for sigmoid and laplace.
        tau: temperature > 0.
        f: a key of `RESPONSES`.
    """
    if _mirrored(x, k, f):
        return -log_odds(-x, x.shape[-1] - k, tau, f)
    anchor, index = kth_largest(x, k)
    y = scaled(x, anchor, tau)
    return y - _differentiable(y, index, f)


def marks(x: Tensor, k: int, tau: float | Tensor, f: str) -> Tensor:
    """p = f(x/τ − λ) with Σp = k, differentiable through λ as well; arguments as those of `log_odds`."""
    if f != "clip":
        return RESPONSES[f].value(log_odds(x, k, tau, f))
    y = scaled(x, kth_largest(x, k)[0], tau)
    fixed = y.detach()
    level = clip_threshold(fixed, k)
    if torch.compiler.is_compiling():  # graphs have first derivatives only
        p = (fixed - level).clamp(0, 1)
        return p + _within_the_kinks(p, y - fixed)
    return _ClipMarks.apply(y, level)


def tilt(x: Tensor, k: int, tau: float | Tensor) -> Tensor:
    """u = x/τ − c with Σσ(u) near k, where c is a constant for differentiation; 1 ≤ k < n.

    For what does not depend on c: the right derivatives of every order at the lowest cost.
    """
    if _mirrored(x, k, "sigmoid"):
        return -tilt(-x, x.shape[-1] - k, tau)
    anchor, index = kth_largest(x, k)
    y = scaled(x, anchor, tau)
    return y - balance(y.detach(), index, "sigmoid", TILT_STEPS)


def solution(x: Tensor, k: int, f: str) -> Tensor:
    """The differentiable λ (..., 1) with Σf(x − λ) = k, of scores in float32 or float64 without clamping."""
    if _mirrored(x, k, f):
        return -solution(-x, x.shape[-1] - k, f)
    (anchor, index), limit = kth_largest(x, k), torch.finfo(x.dtype).max / 8
    return anchor + _differentiable((x - anchor).clamp(-limit, limit), index, f)


def kth_largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """x₍ₖ₎ (..., 1) as a constant, finite unless NaN, and the indices (..., k) of the k largest in any order."""
    largest, index = x.detach().topk(k, dim=-1, sorted=False)
    limit = torch.finfo(x.dtype).max
    return largest.amin(-1, keepdim=True).clamp(-limit, limit), index


def scaled(x: Tensor, anchor: Tensor, tau: float | Tensor) -> Tensor:
    """(x − anchor)/τ, clamped before the division so that no temperature makes it infinite."""
    tiny = torch.finfo(x.dtype).tiny
    tau = tau.to(x.dtype).clamp(min=tiny) if isinstance(tau, Tensor) else max(tau, tiny)
    reach: Any = _FAR * (tau.detach() if isinstance(tau, Tensor) else tau)
    return (x - anchor).clamp(-reach, reach) / tau


def _mirrored(x: Tensor, k: int, f: str) -> bool:
    """Whether 1 − f(u) = f(−u) makes it cheaper to choose the n − k smallest."""
    return f in _CURVES and 2 * k > x.shape[-1]


def _differentiable(y: Tensor, index: Tensor, f: str) -> Tensor:
    fixed = y.detach()
    if f == "minexp":
        level = minexp_threshold(fixed, index)
    elif f == "clip":
        level = clip_threshold(fixed, index.shape[-1])
    else:
        level = balance(fixed, index, f, _STEPS)
    if torch.compiler.is_compiling():  # graphs have first derivatives only: the article's stop-gradient form
        return level + (RESPONSES[f].weights(fixed - level) * (y - fixed)).sum(-1, keepdim=True)
    return ImplicitThreshold.apply(y, level, f)


def balance(
    y: Float[Tensor, "*batch n"], index: Int[Tensor, "*batch k"], f: str, steps: int
) -> Float[Tensor, "*batch 1"]:
    """Solve Σᵢ f(yᵢ − λ) = k for a symmetric f, 1 − f(u) = f(−u), by safeguarded Newton steps without sorting.

    Written as an equation between what the k largest lack of 1 and what the others exceed 0,
    M(λ) = Σ_{i ≤ k} f(λ − yᵢ) and E(λ) = Σ_{i > k} f(yᵢ − λ), it is G = log E − log M = 0, and nothing cancels at any
    gap g = y₍ₖ₎ − y₍ₖ₊₁₎. With the midpoint μ of the gap, λ lies in [μ − log k, μ + log(n − k)]; the slope of G in λ
    lies between −2 and −½ (sigmoid) or −1 (laplace), so Newton's method starts close and stays tame. No step evaluates
    an exponential of (..., n): with v = e^{−distance from the own side of the gap}, f is a rational function of v·a.

    Args:
        y: scores (..., n), finite.
        index: places of the k largest in any order, 1 ≤ k < n.
        f: "sigmoid" or "laplace".
        steps: number of Newton steps, the same for all rows: nothing is read back from the device.

    Returns:
        λ (..., 1), not differentiable.

    Cost: O(n) per step.
    """
    n, k, curve = y.shape[-1], index.shape[-1], _CURVES[f]
    top = y.gather(-1, index)
    rest = y.scatter(-1, index, -torch.inf)
    lowest, highest = top.amin(-1, keepdim=True), rest.amax(-1, keepdim=True)
    gap = lowest - highest
    top, rest = _exp(lowest - top), _exp(rest - highest)
    # λ = y₍ₖ₎ − α = y₍ₖ₊₁₎ + (g − α). The first guess is exact for f(u) = ½e^u below 0: a wide gap.
    alpha = 0.5 * (gap + top.sum(-1, keepdim=True).log() - rest.sum(-1, keepdim=True).log())
    # Equal scores put λ at an end of its interval: the margin keeps rounding from hiding it.
    low, high = 0.5 * gap - math.log(n - k) - 1, 0.5 * gap + math.log(k) + 1
    for _ in range(steps):
        missing, missing_slope = curve(top, _exp(-alpha))
        excess, excess_slope = curve(rest, _exp(alpha - gap))
        imbalance = 2 * alpha - gap + (excess / missing).log()
        low, high = torch.where(imbalance < 0, alpha, low), torch.where(imbalance < 0, high, alpha)
        step = alpha - imbalance / (missing_slope / missing + excess_slope / excess)
        alpha = torch.where((step >= low) & (step <= high), step, 0.5 * (low + high))
    return lowest - alpha


def _exp(t: Tensor) -> Tensor:
    """e^t, not below eps^2.5, which is lost in any sum with 1 anyway: a CPU is slow on subnormal numbers."""
    return t.clamp(min=2.5 * math.log(torch.finfo(t.dtype).eps)).exp()


def _sigmoid_curve(v: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Σf/a and Σf'/a at f = va/(1 + va) = σ(log va)."""
    inverse = (1 + v * a).reciprocal()
    term = v * inverse
    return term.sum(-1, keepdim=True), (term * inverse).sum(-1, keepdim=True)


def _laplace_curve(v: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Σf/a and Σf'/a at f = va/2 for va ≤ 1, 1 − 1/(2va) above."""
    inverse = (v * a).clamp(min=1).reciprocal()
    slope = 0.5 * v * inverse.square()
    return (v * inverse - slope).sum(-1, keepdim=True), slope.sum(-1, keepdim=True)


_CURVES: dict[str, Callable] = {"sigmoid": _sigmoid_curve, "laplace": _laplace_curve}


def minexp_threshold(y: Float[Tensor, "*batch n"], index: Int[Tensor, "*batch k"]) -> Float[Tensor, "*batch 1"]:
    """Solve Σᵢ min(1, e^{yᵢ − λ}) = k exactly.

    With y descending and m saturated entries, λ = log Σ_{i>m} e^{yᵢ} − log(k − m), where m is the number of j < k with
    (k − j) e^{y_{j+1}} > Σ_{i>j} e^{yᵢ}: the test is monotone in j, so a count finds m and ties do no harm.

    Args:
        y: scores (..., n), finite, with the k-th largest equal to 0.
        index: places of the k largest in any order.

    Returns:
        λ (..., 1), not differentiable.

    Cost: a sort of k entries and one sum of exponentials.
    """
    k, top = index.shape[-1], y.gather(-1, index).sort(dim=-1, descending=True).values
    tail = _exp(y.scatter(-1, index, -torch.inf)).sum(-1, keepdim=True).log()  # of numbers ≤ 0: no overflow
    tails = torch.cat((top, tail), dim=-1).flip(-1).logcumsumexp(-1).flip(-1)[..., :k]
    remaining = torch.arange(k, 0, -1, device=y.device, dtype=y.dtype).log()
    saturated = (remaining + top > tails).sum(-1, keepdim=True).clamp(max=k - 1)
    level = (tails - remaining).gather(-1, saturated)
    return torch.maximum(level, top.gather(-1, saturated))  # the largest unsaturated entry stays so despite rounding


def clip_threshold(y: Float[Tensor, "*batch n"], k: int) -> Float[Tensor, "*batch 1"]:
    """Solve Σᵢ clip(yᵢ − λ, 0, 1) = k to rounding, without sorting.

    With the k-th largest score at 0, λ lies in [−1, 0]: at −1 the k largest are saturated, at 0 at most k − 1 entries
    exceed 0. The sum is piecewise linear in λ, and a secant inside of one piece hits the solution: the Illinois method,
    with halvings of the interval in reserve. Where every λ of an interval solves the equation, its upper end, −1, is
    returned.

    Args:
        y: scores (..., n), finite, with the k-th largest equal to 0.
        k: 1 ≤ k ≤ n.

    Returns:
        λ (..., 1), not differentiable.

    Cost: O(n) a pass; about ten passes for scores of a spread near 1, at most 48 (float32) or 106 (float64). A GPU
    and a compiled graph, which would have to wait to see that all rows are done, take all of them.
    """
    if y.is_cuda or torch.compiler.is_compiling():
        return _bracketed_clip(y, k, stop_when_done=False)
    return _ClipThreshold.apply(y, k)


def _bracketed_clip(y: Tensor, k: int, stop_when_done: bool) -> Tensor:
    bits = round(1 - math.log2(torch.finfo(y.dtype).eps))
    low, high = torch.full_like(y[..., :1], -1.0), torch.zeros_like(y[..., :1])
    surplus, deficit = _clip_surplus(y, low, k), -_clip_surplus(y, high, k)
    value, level, above = surplus, low, torch.zeros_like(low, dtype=torch.bool)
    for step in range(2 * bits):
        if stop_when_done and not bool(value.any()):
            break
        share = surplus / (surplus + deficit) if step < bits else 0.5 * (value != 0).to(y.dtype)
        level = torch.lerp(low, high, share)
        value = _clip_surplus(y, level, k)
        before, above = above, value >= 0
        # An end that stays for the second time counts half, or the secants would creep up from one side.
        kept = torch.where(above, deficit, surplus)
        kept = torch.where(above == before, 0.5 * kept, kept)
        surplus, deficit = torch.where(above, value, kept), torch.where(above, kept, -value)
        low, high = torch.where(above, level, low), torch.where(above, high, level)
    return level


def _clip_surplus(y: Tensor, level: Tensor, k: int) -> Tensor:
    """Σclip(y − λ) − k, and 0 where rounding is all that is left: then a secant, and with it the row, stays put."""
    return hardshrink((y - level).clamp_(0, 1).sum(-1, keepdim=True) - k, 2 * torch.finfo(y.dtype).eps * k)


@remember_signature
class _ClipThreshold(torch.autograd.Function):
    """The loop that ends when all rows are done: vmap must hand it plain tensors."""

    @staticmethod
    def forward(y: Tensor, k: int) -> Tensor:
        return _bracketed_clip(y, k, stop_when_done=True)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info, in_dims, y, k):
        return _ClipThreshold.apply(y.movedim(in_dims[0], 0), k), 0


@remember_signature
class _ClipMarks(torch.autograd.Function):
    """p = clip(y − λ, 0, 1) at the λ of y, and its derivative in one step."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, level: Tensor) -> Tensor:
        return (y - level).clamp(0, 1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx, grad):
        (marks,) = ctx.saved_tensors
        return _within_the_kinks(marks, grad), None

    @staticmethod
    def jvp(ctx, tangent, _):
        (marks,) = ctx.saved_tensors
        return _within_the_kinks(marks, tangent)


def _within_the_kinks(p: Tensor, v: Tensor) -> Tensor:
    """Jv with J = diag(s) − ssᵀ/Σs, where s = 1 for 0 < p < 1, else 0: at p = 0 and p = 1 no mark moves."""
    s = ((p > 0) & (p < 1)).to(p.dtype)
    moved = v * s
    return moved - s * (moved.sum(-1, keepdim=True) / s.sum(-1, keepdim=True).clamp(min=1))


@remember_signature
class ImplicitThreshold(torch.autograd.Function):
    """Attach to a solution λ of Σᵢ f(yᵢ − λ) = k its derivatives ∂λ/∂yⱼ = f'(yⱼ − λ) / Σᵢ f'(yᵢ − λ).

    The weights are functions of y and of λ itself, which is saved as an output: so every order of derivative follows.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, solution: Tensor, f: str) -> Tensor:
        return solution.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.f = inputs[2]
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx, grad):
        y, level = ctx.saved_tensors
        return grad * RESPONSES[ctx.f].weights(y - level), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        y, level = ctx.saved_tensors
        return (tangent * RESPONSES[ctx.f].weights(y - level)).sum(-1, keepdim=True)


class Response(NamedTuple):
    """An increasing f: ℝ → [0, 1], and the normalised slopes f'(uᵢ) / Σⱼ f'(uⱼ), finite even where all f' underflow."""

    value: Callable[[Tensor], Tensor]
    weights: Callable[[Tensor], Tensor]


def _laplace(u: Tensor) -> Tensor:
    # Each branch is clamped to its side, so that neither overflows; clamp passes the gradient at 0, where both meet.
    return torch.where(u < 0, 0.5 * u.clamp(max=0).exp(), 1 - 0.5 * (-u.clamp(min=0)).exp())


def _sigmoid_weights(u: Tensor) -> Tensor:
    return torch.softmax(torch.nn.functional.logsigmoid(u) + torch.nn.functional.logsigmoid(-u), dim=-1)


def _minexp_weights(u: Tensor) -> Tensor:
    return torch.softmax(u.masked_fill(u > 0, -torch.inf), dim=-1)


def _clip_weights(u: Tensor) -> Tensor:
    inside = ((u >= 0) & (u <= 1)).to(u.dtype)
    return inside / inside.sum(-1, keepdim=True).clamp(min=1)


RESPONSES = {
    "sigmoid": Response(torch.sigmoid, _sigmoid_weights),
    "laplace": Response(_laplace, lambda u: torch.softmax(-u.abs(), dim=-1)),
    "minexp": Response(lambda u: u.clamp(max=0).exp(), _minexp_weights),
    "clip": Response(lambda u: u.clamp(0, 1), _clip_weights),
}
