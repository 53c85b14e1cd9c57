"""Cross-entropy of a linear layer that never holds all logits."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._tracing import is_traced

Reduction = Literal["mean", "sum", "none"]


class _Options(NamedTuple):
    """What does not change from row to row."""

    scale: float
    zeta: float
    smoothing: float
    cap: float | None
    ignore_index: int
    reduction: Reduction
    chunk_size: int


def linear_cross_entropy(
    hidden: Float[Tensor, "*batch d"],
    weight: Float[Tensor, "n d"],
    targets: Int[Tensor, "*batch"],
    *,
    bias: Float[Tensor, " n"] | None = None,
    scale: float | Float[Tensor, ""] = 1.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    soft_cap: float | None = None,
    chunk_size: int = 1024,
) -> Float[Tensor, "*out"]:
    r"""Cross-entropy of ``scale * hidden @ weight.T + bias``, a few rows of logits at a time.

    .. math:: \ell_t=\log Z_t-(1-\epsilon)z_{t,y_t}-\frac\epsilon n\sum_iz_{ti}+\zeta\,(\log Z_t)^2,\qquad
              z_t=s\,W h_t+b,\quad Z_t=\sum_ie^{z_{ti}}

    with :math:`c\tanh(z/c)` in place of z where a cap c is given. The loss is linear in what comes from upstream, so
    that the forward pass makes the gradients too, while the logits of a chunk are there:
    :math:`\partial\ell_t/\partial z_t=(1+2\zeta\log Z_t)\,p_t-(1-\epsilon)e_{y_t}-\epsilon/n`.

    Args:
        hidden: ``(..., d)``.
        weight: ``(n, d)``, one row for each token of the vocabulary.
        targets: ``(...)``, 0 to n − 1, or ``ignore_index``.
        bias: ``(n,)``.
        scale: s, of the product; a tensor without dimensions gets its gradient.
        ignore_index: rows with this target count for nothing.
        reduction: mean over the rows that count, sum, or each row's loss (the backward pass then makes the logits of
            each chunk a second time).
        z_loss: :math:`\zeta\ge0`, keeps :math:`\log Z` small.
        label_smoothing: :math:`\epsilon\in[0,1]`, the share of the target that is spread over all tokens.
        soft_cap: c > 0 keeps the logits in (−c, c), as Gemma has it; None for none.
        chunk_size: rows of logits held at once.

    Returns:
        Scalar, or ``(...)`` for ``"none"``, in float32 or better, also under autocast, which reaches nothing here; 0
        with zero gradients if no row counts. No second derivative, except under ``torch.func`` (grad, vmap, jvp …),
        where all logits are held at once and plain operations differentiate any number of times.

    Raises:
        ValueError: shapes that do not fit, a target outside of the vocabulary (checked on the CPU only),
            ``chunk_size`` < 1, ``z_loss`` < 0, ``label_smoothing`` outside [0, 1], ``soft_cap`` ≤ 0, an unknown
            ``reduction``.
        TypeError: floating ``targets``, or ``weight`` of another dtype than ``hidden`` outside of autocast.

    Cost: 6 rows n d operations with gradient, the same as with all logits, and 2 rows n d without; ``chunk_size`` × n
    numbers at once, beside the gradients (that of ``weight`` in float32, and twice in the backward pass). Source: the
    idea is that of Wijmans et al., *Cut Your Losses*, arXiv 2411.09009.

    >>> hidden, weight = torch.eye(3), torch.eye(3)
    >>> linear_cross_entropy(hidden, weight, torch.tensor([0, 1, -100]))
    tensor(0.5514)
    """
    check_dtype("hidden", hidden, "floating")
    check_dtype("weight", weight, "floating")
    check_shape("hidden", hidden, ("...", "d"))
    if torch.is_autocast_enabled(hidden.device.type):
        wide = torch.promote_types(hidden.dtype, weight.dtype)
        hidden, weight = hidden.to(wide), weight.to(wide)
    _check(hidden, weight, targets, bias, ignore_index, reduction, chunk_size)
    check_number("z_loss", z_loss, least=0, below=math.inf)
    check_number("label_smoothing", label_smoothing, least=0, most=1)
    if soft_cap is not None:
        check_number("soft_cap", soft_cap, above=0, below=math.inf)
    if isinstance(scale, Tensor):
        hidden, scale = hidden * scale.to(hidden.dtype), 1.0
    options = _Options(float(scale), z_loss, label_smoothing, soft_cap, ignore_index, reduction, chunk_size)
    rows, columns = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    with torch.autocast(hidden.device.type, enabled=False):
        if torch._C._are_functorch_transforms_active():
            out = _from_all_logits(rows, weight, bias, columns, options)
        else:
            out = _LinearCrossEntropy.apply(rows, weight, bias, columns, options, torch.is_grad_enabled())
    return out.view(targets.shape) if reduction == "none" else out


def _from_all_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, options: _Options) -> Tensor:
    """The same loss of plain operations, for transforms that differentiate or batch them."""
    work = torch.promote_types(hidden.dtype, torch.float32)
    z = hidden.to(work) @ weight.to(work).T * options.scale
    z = z if bias is None else z + bias
    z = z if options.cap is None else options.cap * (z / options.cap).tanh()
    counts = (targets != options.ignore_index).to(work)
    log_z = z.logsumexp(-1)
    hit = z.gather(1, targets.where(counts > 0, 0)[:, None]).squeeze(1)
    losses = log_z - (1 - options.smoothing) * hit - options.smoothing * z.mean(-1) + options.zeta * log_z.square()
    losses = torch.where(counts > 0, losses, 0.0)
    if options.reduction == "none":
        return losses
    return losses.sum() / (counts.sum().clamp(min=1) if options.reduction == "mean" else 1.0)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, options: _Options, grad: bool
    ) -> Tensor:
        work = torch.promote_types(hidden.dtype, torch.float32)
        counts = (targets != options.ignore_index).to(work)
        share = counts / counts.sum().clamp(min=1) if options.reduction == "mean" else counts
        ctx.options, ctx.count = options, counts
        summed = options.reduction != "none"
        needed = ctx.needs_input_grad if grad else (False, False, False)
        losses, *grads = _run(hidden, weight, bias, targets, options, share if summed else None, needed)
        ctx.save_for_backward(hidden, weight, bias, targets, *(grads if summed else ()))
        return losses @ share if summed else losses * counts

    @staticmethod
    def backward(ctx, upstream: Tensor):
        hidden, weight, bias, targets, *grads = ctx.saved_tensors
        with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
            factor: Tensor | float = upstream
            if not grads:
                share, factor = upstream * ctx.count, 1.0
                grads = _run(hidden, weight, bias, targets, ctx.options, share, ctx.needs_input_grad)[1:]
            *grads, unit = grads
            assert unit is not None  # one of the three wants a gradient
            # Only here is the whole factor known: rounded to a half type before, small gradients would be lost.
            grads = [
                g if g is None else (g.to(unit.dtype) * (unit * factor)).to(like.dtype)
                for g, like in zip(grads, (hidden, weight, bias))
            ]
        if torch.is_grad_enabled():  # somebody may differentiate again: an error then, no missing term
            grads = [g if g is None else _Once.apply(g, hidden, weight, bias) for g in grads]
        return *grads, None, None, None


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad: Tensor, *sources: Tensor | None) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx, _):
        raise RuntimeError("linear_cross_entropy has no second derivative; take F.cross_entropy of all logits for it")


def _run(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    options: _Options,
    share: Tensor | None,
    needed: tuple[bool, ...],
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Losses of all rows, and the gradients of ``losses @ share`` that are needed, divided by the last item.

    Divided by the largest share, they have the size of the rows themselves, which half types can hold.
    """
    work = torch.promote_types(hidden.dtype, torch.float32)
    share = share if any(needed[:3]) else None
    empty = lambda like, want: torch.zeros_like(like, dtype=work) if want and share is not None else None
    by_weight, by_bias = empty(weight, needed[1]), empty(bias, needed[2] and bias is not None)
    by_hidden = torch.empty_like(hidden) if share is not None and needed[0] else None
    unit = None
    if share is not None:
        unit = share.abs().amax().clamp(min=torch.finfo(work).tiny) if len(share) else share.new_ones(())
        share = share / unit
    losses = torch.empty(len(hidden), dtype=work, device=hidden.device)
    logits = hidden.new_empty(min(options.chunk_size, len(hidden)), len(weight))  # one buffer for all chunks
    for start in range(0, len(hidden), options.chunk_size):
        part = slice(start, start + options.chunk_size)
        counted = (targets[part] != options.ignore_index)[:, None]
        rows = hidden[part].masked_fill(~counted, 0)  # what is ignored may be anything, NaN too
        target = targets[part, None].masked_fill(~counted, 0)
        z = torch.mm(rows, weight.T, out=logits[: len(rows)]).to(work)
        losses[part], slope = _loss_and_slope(z, bias, target, options, None if share is None else share[part, None])
        if slope is None:
            continue
        if by_bias is not None:
            by_bias += slope.sum(0)
        slope = slope.to(hidden.dtype)
        if by_hidden is not None:
            by_hidden[part] = (slope @ weight) * options.scale
        if by_weight is not None:
            _add_product(by_weight, slope, rows, options.scale)
    return losses, by_hidden, by_weight, by_bias, unit


def _loss_and_slope(
    z: Tensor, bias: Tensor | None, target: Tensor, options: _Options, factor: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Loss of each row of a product, and its derivative by the product times ``factor``; ``z`` is written over."""
    z = z if options.scale == 1 else z.mul_(options.scale)
    z = z if bias is None else z.add_(bias)
    bend = None
    if options.cap is not None:
        z = z.div_(options.cap).tanh_()
        bend = None if factor is None else 1 - z.square()
        z.mul_(options.cap)
    epsilon = options.smoothing
    top, hit = z.amax(-1, keepdim=True), z.gather(1, target)
    spread = z.mean(-1, keepdim=True) if epsilon else 0.0
    z.sub_(top).exp_()
    total = z.sum(-1, keepdim=True)
    log_z = top + total.log()
    losses = (log_z - (1 - epsilon) * hit - epsilon * spread + options.zeta * log_z.square()).squeeze(1)
    if factor is None:
        return losses, None
    z.mul_(factor * (1 + 2 * options.zeta * log_z) / total)
    z.scatter_add_(1, target, -(1 - epsilon) * factor)
    if epsilon:
        z.sub_(factor * (epsilon / z.shape[1]))
    return losses, z if bend is None else z.mul_(bend)


def _add_product(total: Tensor, slope: Tensor, rows: Tensor, scale: float) -> None:
    if total.dtype == slope.dtype:
        total.addmm_(slope.T, rows, alpha=scale)
        return
    if rows.dtype == torch.float16:  # a column of the product is at most twice the sum of the rows: keep it finite
        room = (rows.abs().amax().float() * (2 * len(rows) / torch.finfo(rows.dtype).max)).clamp(min=1)
        power = room.log2().ceil().exp2()
        total.add_((slope.T @ (rows / power.to(rows.dtype))).float() * power, alpha=scale)
    else:  # the sum over chunks is kept in float32
        total.add_(slope.T @ rows, alpha=scale)


def _check(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    ignore_index: int,
    reduction: str,
    chunk_size: int,
) -> None:
    check_dtype("targets", targets, "integer")
    check_one_of("reduction", reduction, ("mean", "sum", "none"))
    check_shape("weight", weight, ("n", hidden.shape[-1]), "as hidden has")
    if weight.dtype != hidden.dtype:
        raise TypeError(f"weight: got {weight.dtype}, expected {hidden.dtype} as hidden has")
    check_shape("targets", targets, hidden.shape[:-1], "as hidden has")
    check_integer("ignore_index", ignore_index)
    if bias is not None:
        check_dtype("bias", bias, "floating")
        check_shape("bias", bias, weight.shape[:1], "as weight has")
    check_integer("chunk_size", chunk_size, 1)
    if targets.device.type == "cpu" and not is_traced():
        wrong = targets[(targets != ignore_index) & ((targets < 0) | (targets >= len(weight)))]
        if len(wrong):
            raise ValueError(f"targets: got {wrong[0].item()}, expected 0 to {len(weight) - 1} or ignore_index")
