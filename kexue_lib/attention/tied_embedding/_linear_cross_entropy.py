"""Cross-entropy of a linear layer that never holds all logits."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_one_of, check_shape
from kexue_lib._tracing import is_traced

Reduction = Literal["mean", "sum", "none"]


def linear_cross_entropy(
    hidden: Float[Tensor, "*batch d"],
    weight: Float[Tensor, "n d"],
    targets: Int[Tensor, "*batch"],
    *,
    bias: Float[Tensor, " n"] | None = None,
    scale: float = 1.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    z_loss: float = 0.0,
    chunk_size: int = 1024,
) -> Float[Tensor, "*out"]:
    r"""Cross-entropy of ``scale * hidden @ weight.T + bias``, a few rows of logits at a time.

    .. math:: \ell_t=\log Z_t-z_{t,y_t}+\zeta\,(\log Z_t)^2,\qquad z_t=s\,W h_t+b,\quad Z_t=\sum_ie^{z_{ti}}

    The loss is linear in what comes from upstream, so that the forward pass makes the gradients too, while the logits
    of a chunk are there: :math:`\partial\ell_t/\partial z_t=(1+2\zeta\log Z_t)\,p_t-e_{y_t}`.

    Args:
        hidden: ``(..., d)``.
        weight: ``(n, d)``, one row for each token of the vocabulary.
        targets: ``(...)``, 0 to n − 1, or ``ignore_index``.
        bias: ``(n,)``.
        scale: s, of the product.
        ignore_index: rows with this target count for nothing.
        reduction: mean over the rows that count, sum, or each row's loss (the backward pass then makes the logits of
            each chunk a second time).
        z_loss: :math:`\zeta\ge0`, keeps :math:`\log Z` small.
        chunk_size: rows of logits held at once.

    Returns:
        Scalar, or ``(...)`` for ``"none"``, in float32 or better; 0 with zero gradients if no row counts. No second
        derivative.

    Raises:
        ValueError: shapes that do not fit, a target outside of the vocabulary (checked on the CPU only),
            ``chunk_size`` < 1, an unknown ``reduction``.
        TypeError: floating ``targets``, or ``weight`` of another dtype than ``hidden``.

    Cost: 6 rows n d operations with gradient, the same as with all logits; ``chunk_size`` × n numbers at once, beside
    the gradients. Source: the idea is that of Wijmans et al., *Cut Your Losses*, arXiv 2411.09009.

    >>> hidden, weight = torch.eye(3), torch.eye(3)
    >>> linear_cross_entropy(hidden, weight, torch.tensor([0, 1, -100]))
    tensor(0.5514)
    """
    _check(hidden, weight, targets, bias, ignore_index, reduction, chunk_size)
    rows = hidden.reshape(-1, hidden.shape[-1])
    options = (float(scale), float(z_loss), ignore_index, reduction, chunk_size)
    out = _LinearCrossEntropy.apply(rows, weight, bias, targets.reshape(-1), options)
    return out.view(targets.shape) if reduction == "none" else out


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, options: tuple) -> Tensor:
        *_, ignore_index, reduction, _ = options
        work = torch.promote_types(hidden.dtype, torch.float32)
        counts = (targets != ignore_index).to(work)
        share = counts / counts.sum().clamp(min=1) if reduction == "mean" else counts
        ctx.options, ctx.count = options, counts
        summed = reduction != "none"
        losses, *grads = _run(hidden, weight, bias, targets, options, share if summed else None, ctx.needs_input_grad)
        ctx.save_for_backward(hidden, weight, bias, targets, *(grads if summed else ()))
        return losses @ share if summed else losses * counts

    @staticmethod
    def backward(ctx, upstream: Tensor):
        hidden, weight, bias, targets, *grads = ctx.saved_tensors
        with torch.no_grad():
            if grads:
                grads = [g if g is None else g * upstream.to(g.dtype) for g in grads]
            else:
                share = upstream * ctx.count
                grads = _run(hidden, weight, bias, targets, ctx.options, share, ctx.needs_input_grad)[1:]
        if torch.is_grad_enabled():  # somebody may differentiate again: an error then, no missing term
            grads = [g if g is None else _Once.apply(g, hidden, weight, bias) for g in grads]
        return *grads, None, None


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
    options: tuple,
    share: Tensor | None,
    needed: tuple[bool, ...],
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Losses of all rows, and the gradients of ``losses @ share`` that are needed."""
    scale, zeta, ignore_index, _, chunk_size = options
    work = torch.promote_types(hidden.dtype, torch.float32)
    empty = lambda like, want: torch.zeros_like(like, dtype=work) if want and share is not None else None
    by_weight, by_bias = empty(weight, needed[1]), empty(bias, needed[2] and bias is not None)
    by_hidden = torch.empty_like(hidden) if share is not None and needed[0] else None
    losses = torch.empty(len(hidden), dtype=work, device=hidden.device)
    logits = hidden.new_empty(min(chunk_size, len(hidden)), len(weight))  # one buffer for all chunks
    for start in range(0, len(hidden), chunk_size):
        part = slice(start, start + chunk_size)
        counted = (targets[part] != ignore_index)[:, None]
        rows = hidden[part].masked_fill(~counted, 0)  # what is ignored may be anything, NaN too
        target = targets[part, None].masked_fill(~counted, 0)
        z = torch.mm(rows, weight.T, out=logits[: len(rows)]).to(work)
        z = z if scale == 1 else z.mul_(scale)
        z = z if bias is None else z.add_(bias)
        top = z.amax(-1, keepdim=True)
        hit = z.gather(1, target)
        z.sub_(top).exp_()
        total = z.sum(-1, keepdim=True)
        log_z = top + total.log()
        losses[part] = (log_z - hit + zeta * log_z.square()).squeeze(1)
        if share is None:
            continue
        factor = share[part, None]
        z.mul_(factor * (1 + 2 * zeta * log_z) / total)
        z.scatter_add_(1, target, -factor)
        slope = z.to(hidden.dtype)
        if by_hidden is not None:
            by_hidden[part] = (slope @ weight) * scale
        if by_weight is not None:
            _add_product(by_weight, slope, rows, scale)
        if by_bias is not None:
            by_bias += z.sum(0)
    cast = lambda grad, like: None if grad is None else grad.to(like.dtype)
    return losses, by_hidden, cast(by_weight, weight), cast(by_bias, bias)


def _add_product(total: Tensor, slope: Tensor, rows: Tensor, scale: float) -> None:
    if total.dtype == slope.dtype:
        total.addmm_(slope.T, rows, alpha=scale)
    else:  # half types: the sum over chunks is kept in float32
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
    if bias is not None:
        check_shape("bias", bias, weight.shape[:1], "as weight has")
    check_integer("chunk_size", chunk_size, 1)
    if targets.device.type == "cpu" and not is_traced():
        wrong = targets[(targets != ignore_index) & ((targets < 0) | (targets >= len(weight)))]
        if len(wrong):
            raise ValueError(f"targets: got {wrong[0].item()}, expected 0 to {len(weight) - 1} or ignore_index")
