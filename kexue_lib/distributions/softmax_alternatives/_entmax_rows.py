"""Entmax of rows without sorting: Newton steps from one side, on tiles that stay in the cache, and all its derivatives.

With β = α − 1 and y = x − max x ≤ 0, the answer is p = relu(βy + m)^{1/β}, where the height m ∈ (0, 1] of the largest
entry makes the sum one. For β ≤ 1 the norm ‖relu(βy + m)‖_{1/β} is convex and increasing in m: Newton steps from m = 1
decrease, never pass the solution, and need at most log₄(n^{2β}/eps) steps, usually five to seven, each O(n). For β > 1
it is no norm, and Newton steps are taken inside a bracket that shrinks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor

from kexue_lib._autograd import remember_signature
from kexue_lib._tracing import is_traced

SMALLEST_BETA = 1e-20
"""Stands for β = 0, softmax: no formula here divides by β what is not of its size."""
TILE_BYTES = 2**21
"""Of one temporary on a CPU for each thread: a few of them stay in the last cache, and calls cost less than work."""
_BLOCKS = 16  # a row's first guess comes from the maxima over this many blocks
_GUESSES = 4  # steps on them: each ends on the right side of the solution, so there is no need to test for the end
_LONG = 2**14  # entries from which on the sum of a row is accumulated in float64
_ROUNDING = 4  # a sum that exceeds 1 by less than this many eps is 1

Beta = float | Tensor
Buffer = Tensor | None
Buffers = tuple[Buffer, ...]
Steps = Iterable[Callable[[Tensor], bool]]


@remember_signature
class Entmax(torch.autograd.Function):
    """p (..., n) of x (..., n); β is a float, or a tensor broadcastable to (..., 1).

    p is saved as an output, so that every order of derivative follows; s = p^{1−β} on the support and 0 elsewhere.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, beta: Beta) -> Tensor:
        return probabilities(x, beta)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.beta = inputs[1]
        saved = (output, ctx.beta) if isinstance(ctx.beta, Tensor) else (output,)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def backward(ctx, grad):
        p, *beta = ctx.saved_tensors
        (beta,) = beta or (ctx.beta,)
        x_grad = beta_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = jacobian_product(grad, p, beta)
        if ctx.needs_input_grad[1]:
            beta_grad = (grad * slope_in_beta(p, beta)).sum(-1, keepdim=True).sum_to_size(beta.shape)
        return x_grad, beta_grad

    @staticmethod
    def jvp(ctx, x_tangent, beta_tangent):
        p, *beta = ctx.saved_tensors
        (beta,) = beta or (ctx.beta,)
        tangent = torch.zeros_like(p) if x_tangent is None else jacobian_product(x_tangent, p, beta)
        return tangent if beta_tangent is None else tangent + slope_in_beta(p, beta) * beta_tangent


@remember_signature
class Loss(torch.autograd.Function):
    """The Fenchel–Young loss Ω*(x) − ⟨x, y⟩ + Ω(y) of each row, with gradient p − y in x; y is a constant.

    y is an index (...) or a distribution (..., n), β a float.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, target: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        if is_traced():
            p = probabilities(x, beta)
            return loss_of(x, p, target, beta), p
        loss = x.new_empty(*x.shape[:-1], 1)
        y = target if target.is_floating_point() else target.unsqueeze(-1)
        p = over_tiles(_tile_losses, 2, x.detach(), y, loss, beta)
        return loss.squeeze(-1), p

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, target, ctx.beta = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # p, which is returned only to be saved, needs no gradient of zeros
        ctx.save_for_backward(x, target, output[1])
        ctx.save_for_forward(x, target, output[1])

    @staticmethod
    def backward(ctx, grad, _):
        if grad is None:
            return None, None, None
        x, target, p = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            p = Entmax.apply(x, ctx.beta)
        grad, dead = grad.unsqueeze(-1), p[..., :1].isnan()  # all of a row is NaN, or nothing
        if target.is_floating_point():
            return _without(dead, (p - target) * grad), None, None
        slope = (p * grad).scatter_add_(-1, target.unsqueeze(-1), -grad)
        return _without(dead, slope), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        x, target, p = ctx.saved_tensors
        p = Entmax.apply(x, ctx.beta)
        return (p * tangent).sum(-1) - at_target(tangent, target), None


# -- values ------------------------------------------------------------------------------------------------------------


def probabilities(x: Tensor, beta: Beta) -> Tensor:
    """p (..., n) in the dtype of x, which is float32 or float64; not differentiable."""
    x, beta = x.detach(), beta.detach() if isinstance(beta, Tensor) else beta
    return over_tiles(_tile_probabilities, 2, x, beta)


def _tile_probabilities(x: Tensor, beta: Beta, *, scratch: Buffers, out: Buffer) -> Tensor:
    return _tile_solution(x, beta, scratch, out)[0]


def _tile_solution(x: Tensor, beta: Beta, scratch: Buffers, out: Buffer) -> tuple[Tensor, Tensor, Tensor]:
    """p, its height m (for the general β log m/β), and the largest score of each row."""
    peaks = _block_maxima(x)
    peak = peaks.amax(-1, keepdim=True)
    if isinstance(beta, float) and beta > 1:
        p, log_p = _steep(x - peak, beta)
        return p if out is None else out.copy_(p), log_p, peak
    solvers: dict[float, Callable[..., tuple[Tensor, Tensor]]] = {1.0: _linear, 0.5: _quadratic}
    solve = solvers.get(beta, _general) if isinstance(beta, float) else _general
    guess = torch.zeros_like(peak) if solve is _general else torch.ones_like(peak)
    # A subset of the entries needs a higher m: its solution is a start from the same side.
    if 1 < peaks.shape[-1] < x.shape[-1]:
        steps = itertools.repeat(lambda residual: False, _GUESSES)
        guess = solve(peaks - peak, beta, guess, steps, scratch=(None, None), out=None)[1]
    y = torch.sub(x, peak, out=out if solve is _general else scratch[0])
    return *solve(y, beta, guess, _steps(y, beta), scratch=scratch, out=out), peak


def _tile_losses(x: Tensor, y: Tensor, loss: Tensor, beta: Beta, *, scratch: Buffers, out: Buffer) -> Tensor:
    p, m, peak = _tile_solution(x, beta, scratch, out)
    target = y if y.is_floating_point() else y.squeeze(-1)
    if beta in (0.5, 1.0) and not y.is_floating_point():
        loss.copy_(_loss_at_height(x, p, target, cast("float", beta), m, peak, scratch).unsqueeze(-1))
    else:
        loss.copy_(loss_of(x, p, target, beta, peak, scratch).unsqueeze(-1))
    return p


def _loss_at_height(
    x: Tensor, p: Tensor, target: Tensor, beta: float, m: Tensor, peak: Tensor, scratch: Buffers
) -> Tensor:
    """The loss of `loss_of` for an index: on the support x − max x = (p^β − m)/β, which leaves one sum, that of p^α."""
    power = p if beta == 1 else weights(p, beta, scratch[0])
    total = torch.mul(p, power, out=scratch[1]).sum(-1)
    behind = peak.squeeze(-1) - at_target(x, target)
    return ((total + 1 / beta) / (1 + beta) - m.squeeze(-1) / beta + behind).clamp_min(0)


def _block_maxima(x: Tensor) -> Tensor:
    """The row maximum and most of the other large entries: the largest of each of n/16 residue classes."""
    width = x.shape[-1] // _BLOCKS
    if width < _BLOCKS:
        return x.amax(-1, keepdim=True)
    whole = width * _BLOCKS
    maxima = x[..., :whole].unflatten(-1, (_BLOCKS, width)).amax(-2)
    return maxima if whole == x.shape[-1] else torch.cat((maxima, x[..., whole:]), dim=-1)


def _linear(y: Tensor, beta: float, m: Tensor, steps: Steps, *, scratch: Buffers, out: Buffer) -> tuple[Tensor, Tensor]:
    """β = 1: p and m, where S = Σu and the slope counts the support."""
    v = torch.add(y, m, out=scratch[0])
    for is_last in steps:
        u = torch.clamp_min(v, 0, out=out)
        residual = _sum(u) - 1
        if is_last(residual):
            break
        excess = residual / torch.sign(u, out=scratch[1]).sum(-1, keepdim=True)
        # v, whose rounding is finer than that of m, goes along.
        m, v = m - excess, torch.sub(v, excess, out=scratch[0])
    return u, m


def _quadratic(
    y: Tensor, beta: float, m: Tensor, steps: Steps, *, scratch: Buffers, out: Buffer
) -> tuple[Tensor, Tensor]:
    """β = ½: p and m, with the norm √Σu², whose slope is Σu/√Σu²."""
    v = torch.add(m, y, alpha=0.5, out=scratch[0])
    for is_last in steps:
        u = torch.clamp_min(v, 0, out=out)
        norm = _norm(u)
        if is_last(norm - 1):
            break
        excess = (norm - 1) * norm / u.sum(-1, keepdim=True)
        m, v = m - excess, torch.sub(v, excess, out=scratch[0])
    return torch.mul(u, u, out=out), m


def _general(
    y: Tensor, beta: Beta, log_p: Tensor, steps: Steps, *, scratch: Buffers, out: Buffer
) -> tuple[Tensor, Tensor]:
    """Any β > 0: p, and log p of the largest entry, log m/β.

    In this unknown log p = log p_max + log1p(βy/m)/β keeps its digits down to β = 0, where a step is exact.
    """
    inverse = 1 / beta
    for is_last in steps:
        ratio = torch.mul(y, beta * (-beta * log_p).exp(), out=scratch[0])  # u/m − 1
        ratio = torch.clamp_min(ratio, -1, out=scratch[0])
        # A CPU's exp takes a hundred times as long where it underflows; its exp2 does not.
        log = torch.mul(torch.log1p(ratio, out=scratch[1]), inverse * math.log2(math.e), out=scratch[1])
        p = torch.exp2(log, out=scratch[1])  # over that of the largest entry
        total = _sum(p)
        log_total = total.log() + log_p
        if is_last(log_total):
            break
        ratio = torch.clamp_min(torch.add(ratio, 1, out=scratch[0]), torch.finfo(y.dtype).tiny, out=scratch[0])
        slope = torch.div(p, ratio, out=scratch[0]).sum(-1, keepdim=True)
        excess = -(total * (-beta * log_total).expm1() / slope).log1p() * inverse
        log_p = log_p - excess
    return torch.div(p, total, out=out), log_p


def _steep(y: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """β > 1: p, and log p of the largest entry, which lies in [−log n, 0]: Newton steps, or halves of the bracket.

    The slope is infinite where an entry leaves the support, so that Newton's steps alone may crawl; every third step
    halves.
    """
    low = torch.full_like(y[..., :1], -math.log(y.shape[-1]))
    high, log_p = torch.zeros_like(low), torch.zeros_like(low)
    bits = 2 - math.log2(torch.finfo(y.dtype).eps)
    p, total = y, high  # until the first step
    for step in range(3 * math.ceil(bits)):
        ratio = (y * (beta * (-beta * log_p).exp())).clamp_min(-1)
        p = (ratio.log1p() / beta).exp()
        total = _sum(p)
        excess = total.log() + log_p
        if y.device.type == "cpu" and not is_traced() and bool((high - low <= torch.finfo(y.dtype).eps).all()):
            break
        low, high = torch.where(excess < 0, log_p, low), torch.where(excess < 0, high, log_p)
        slope = (p / (ratio + 1).clamp_min(torch.finfo(y.dtype).tiny)).sum(-1, keepdim=True) / total
        newton, middle = log_p - excess / slope, (low + high) / 2
        log_p = torch.where((newton > low) & (newton < high), newton, middle) if step % 3 < 2 else middle
    return p / total, log_p


def _sum(u: Tensor) -> Tensor:
    """Sum of each row; in float32 PyTorch's own is off by 1e-6 for a million entries."""
    wide = torch.float64 if u.shape[-1] >= _LONG and u.device.type != "mps" else u.dtype
    return u.sum(-1, keepdim=True, dtype=wide).to(u.dtype)


def _norm(u: Tensor) -> Tensor:
    """Euclidean norm of each row; in float32 PyTorch's own is off by 1e-3 for a million entries."""
    wide = torch.float64 if u.shape[-1] >= _LONG and u.device.type != "mps" else u.dtype
    return torch.linalg.vector_norm(u, dim=-1, keepdim=True, dtype=wide).to(u.dtype)


def _steps(y: Tensor, beta: Beta):
    """For each step a test of its residual for the end; where the host must not wait, only the last one ends."""
    eps = torch.finfo(y.dtype).eps
    power = 2 * beta if isinstance(beta, float) else 2.0
    bound = math.ceil(0.5 * (power * math.log2(max(y.shape[-1], 1)) - math.log2(eps))) + 2
    wait = y.device.type == "cpu" and not is_traced()
    for step in range(bound):
        yield lambda residual, step=step: step == bound - 1 or (wait and not bool((residual > _ROUNDING * eps).any()))


def over_tiles(function: Callable, buffers: int, x: Tensor, *others: Beta) -> Tensor:
    """function(x, *others, scratch=, out=) for (..., n), on a CPU over tiles of rows, whose temporaries it reuses."""
    n = x.shape[-1]
    rows = x.shape[:-1].numel()
    if x.device.type != "cpu" or is_traced() or torch.is_grad_enabled() or rows * n < TILE_BYTES // 64:
        return function(x, *others, scratch=(None,) * buffers, out=None)
    size = max(1, TILE_BYTES * torch.get_num_threads() // (n * x.element_size()))

    def tiles(t: Beta):
        if not isinstance(t, Tensor):
            return itertools.repeat(t)
        if t.shape[:-1] != x.shape[:-1]:
            t = t.expand(*x.shape[:-1], 1)
        return t.reshape(rows, t.shape[-1]).split(size)

    result = torch.empty_like(x, memory_format=torch.contiguous_format)
    scratch = x.new_empty(buffers, min(size, rows), n)
    for out, *tile in zip(result.view(rows, n).split(size), *map(tiles, (x, *others))):
        function(*tile, scratch=tuple(scratch[:, : len(out)]), out=out)
    return result


# -- derivatives -------------------------------------------------------------------------------------------------------


def jacobian_product(t: Tensor, p: Tensor, beta: Beta) -> Tensor:
    """(diag(s) − ssᵀ/Σs) t, the derivative of p in the direction t and, being symmetric, in reverse."""
    return over_tiles(_jacobian_product, 2, t, p, beta)


def _jacobian_product(t: Tensor, p: Tensor, beta: Beta, *, scratch: Buffers, out: Buffer) -> Tensor:
    s = weights(p, beta, scratch[0])
    weighted = torch.mul(s, t, out=scratch[1])
    total = s.sum(-1, keepdim=True)
    product = torch.addcmul(weighted, s, weighted.sum(-1, keepdim=True) / total, value=-1, out=out)
    return _without(~(total > 0), product)


def _without(dead: Tensor, gradient: Tensor) -> Tensor:
    """0 in dead rows (..., 1): a row of nothing but −inf has no p, and no gradient leaves it."""
    if gradient.device.type == "cpu" and not is_traced() and not torch.is_grad_enabled():
        return gradient.masked_fill_(dead, 0) if bool(dead.any()) else gradient
    return gradient.masked_fill(dead, 0)


def weights(p: Tensor, beta: Beta, out: Buffer = None) -> Tensor:
    """s = p^{1−β} where p > 0, else 0 with derivative 0."""
    if isinstance(beta, float) and beta == 1:
        return torch.sign(p, out=out)
    if out is not None and not (isinstance(beta, Tensor) or beta > 1):
        # s = p · p^{−β}: the roots and logarithms of a CPU are slow at 0.
        safe = torch.clamp_min(p, torch.finfo(p.dtype).tiny, out=out)
        if isinstance(beta, float) and beta == 0.5:
            return torch.mul(torch.rsqrt(safe, out=out), p, out=out)
        power = torch.exp2(torch.mul(torch.log2(safe, out=out), -beta, out=out), out=out)
        return torch.mul(power, p, out=out)
    inside = p != 0  # true of NaN
    return torch.where(inside, (torch.where(inside, p, 1).log() * (1 - beta)).exp(), 0)


def slope_in_beta(p: Tensor, beta: Tensor) -> Tensor:
    """∂p/∂β at fixed x.

    The formula p(p̃ …)/β² of Correia et al. (arXiv 1909.00015) loses its digits for small β. With l = log p, t = −βl,
    rᵢ = (e^t − 1 − t)/β², R = Σpr, H = −Σpl it is pᵢ (R − rᵢ − β(lᵢR + Hrᵢ)) / Σp^{1−β}, of the size of its result.
    """
    inside = p != 0
    log = torch.where(inside, p, 1).log()
    t = -beta * log
    series = torch.ones_like(t) / math.factorial(_TERMS + 1)
    for k in range(_TERMS, 1, -1):
        series = series * torch.where(t < 1, t, 0) + 1 / math.factorial(k)
    far = torch.where(t < 1, 1, t)
    r = log.square() * torch.where(t < 1, series, (far.expm1() - far) / far.square())
    mean, entropy = (p * r).sum(-1, keepdim=True), -(p * log).sum(-1, keepdim=True)
    slope = p * (mean - r - beta * (log * mean + entropy * r)) / weights(p, beta).sum(-1, keepdim=True)
    return torch.where(inside, slope, 0)


_TERMS = 18  # of (e^t − 1 − t)/t² for t < 1: the next is below eps of float64


def attached(p: Tensor, x: Tensor, beta: Beta) -> Tensor:
    """p with its first derivatives by stop-gradients, which is what a compiled graph can hold."""
    with torch.no_grad():
        s = weights(p, beta)
    moved = torch.where(p != 0, x - x.detach(), 0)
    weighted = s * moved
    p = p + weighted - s * (weighted.sum(-1, keepdim=True) / s.sum(-1, keepdim=True))
    if isinstance(beta, Tensor) and beta.requires_grad:
        p = p + slope_in_beta(p.detach(), beta.detach()) * (beta - beta.detach())
    return p


# -- losses ------------------------------------------------------------------------------------------------------------


def loss_of(
    x: Tensor, p: Tensor, target: Tensor, beta: Beta, peak: Buffer = None, scratch: Buffers = (None, None)
) -> Tensor:
    """H(p) − H(y) + ⟨p − y, x⟩ of each row (...), with the Tsallis entropy H(p) = (1 − Σp^α)/(αβ)."""
    peak = x.amax(-1, keepdim=True).detach() if peak is None else peak
    y = torch.sub(x, peak, out=scratch[0])
    loss = tsallis(p, beta, scratch[1]) - at_target(y, target)
    if target.is_floating_point():
        loss = loss - tsallis(target, beta)
    finite = torch.clamp_min(y, -torch.finfo(y.dtype).max, out=scratch[0])  # −inf has p = 0
    return (loss + torch.mul(p, finite, out=scratch[0]).sum(-1)).clamp_min(0)


def at_target(x: Tensor, target: Tensor) -> Tensor:
    """⟨x, y⟩ for the distribution y, or for the one that is certain of an index."""
    if target.is_floating_point():
        return torch.where(target != 0, target * x, 0).sum(-1)
    return x.gather(-1, target.unsqueeze(-1)).squeeze(-1)


def tsallis(p: Tensor, beta: Beta, scratch: Buffer = None) -> Tensor:
    """(1 − Σp^α)/(αβ) = −Σ p (p^β − 1)/(αβ) of each row, to full precision for small β."""
    if isinstance(beta, float) and beta in (0.5, 1.0):
        power = p if beta == 1 else weights(p, beta, scratch)
        return (1 - torch.mul(p, power, out=scratch).sum(-1)) / (beta * (1 + beta))
    inside = p != 0
    safe = torch.where(inside, p, 1)
    terms = torch.where(inside, p * (safe.log() * beta).expm1(), 0).sum(-1, keepdim=True)
    return -(terms / (beta * (1 + beta))).squeeze(-1)
