r"""How fast stacked attention makes all tokens equal."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_shape
from kexue_lib.attention.core import attention


def collapse_residual(x: Float[Tensor, "*batch L d"]) -> Float[Tensor, "*batch"]:
    r"""Return how far the tokens are from being all equal, relative to their size.

    .. math:: \frac{\Vert X-\mathbf 1\bar x^\top\Vert_F}{\Vert X\Vert_F},\qquad \bar x=\tfrac1L\sum_i x_i

    The mean is the nearest constant in the Frobenius norm, :math:`\min_y\Vert X-\mathbf 1y^\top\Vert_F`.

    Args:
        x: ``(..., L, d)``, a token in each row.

    Returns:
        ``(...)`` in [0, 1], the dtype of ``x``: 0 for equal tokens, 1 for tokens with mean zero; 0 for ``x = 0``.

    Raises:
        ValueError: no tokens.

    Source: Dong, Cordonnier and Loukas, arXiv 2103.03404, with another norm.

    >>> collapse_residual(torch.tensor([[[1.0], [1.0]], [[1.0], [-1.0]]]))
    tensor([0., 1.])
    """
    check_dtype("x", x, "floating")
    check_shape("x", x, ("...", "L", "d"))
    if not x.shape[-2] or not x.shape[-1]:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected at least one token of at least one channel")
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    largest = wide.detach().abs().amax((-2, -1), keepdim=True)  # squares of huge or tiny entries leave the range
    wide = wide / torch.where(largest > 0, largest, 1.0)
    centred = wide - wide.mean(-2, keepdim=True)
    size = torch.linalg.vector_norm(wide, dim=(-2, -1))
    ratio = torch.linalg.vector_norm(centred, dim=(-2, -1)) / torch.where(size > 0, size, 1.0)
    return ratio.to(x.dtype)


def collapse_curve(
    x: Float[Tensor, "*batch L d"],
    depth: int,
    *,
    masks: Bool[Tensor, "*heads L L"],
    skip: bool = False,
    mlp: bool = False,
    normalize: bool = True,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "layers *batch"]:
    r"""Send tokens through random attention layers and return :func:`collapse_residual` after each.

    .. math:: Y=\frac1H\sum_h\operatorname{softmax}_{\text{mask}_h}\!\Big(\frac{XW_q^h(XW_k^h)^\top}{\sqrt d}\Big)X,
              \qquad W_q^h,W_k^h\sim\mathcal N(0,1/d)

    There is no value matrix: it could only mix channels. Weights are fresh in each layer and head, and shared by the
    batch.

    Args:
        x: ``(..., L, d)``.
        depth: layers.
        masks: ``(H, L, L)`` from ``head_masks``, True where visible.
        skip: add the input of the attention, and that of the feed-forward part, to its output.
        mlp: follow the attention by a two-layer ReLU network of inner width 4 d.
        normalize: bring every token to root mean square 1 at the end of each layer.
        generator: source of the weights.

    Returns:
        ``(depth + 1, ...)``; entry 0 belongs to ``x`` itself.

    Raises:
        ValueError: ``depth`` < 0, or masks of another length.
        TypeError: masks that are not boolean.

    Cost: O(depth H (L d² + L² d)). Source: arXiv 2103.03404 and 2405.18781.

    >>> causal = torch.ones(1, 8, 8, dtype=torch.bool).tril()
    >>> collapse_curve(torch.randn(5, 8, 4), 3, masks=causal).shape
    torch.Size([4, 5])
    """
    check_integer("depth", depth, 0)
    check_dtype("masks", masks, "bool")
    (L, d), H = x.shape[-2:], masks.shape[-3] if masks.ndim > 2 else 1
    if masks.shape[-2:] != (L, L):
        raise ValueError(f"masks: got shape {tuple(masks.shape)}, expected (heads, {L}, {L})")

    def normal(*shape: int, std: float) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(x) * std

    residuals = [collapse_residual(x)]
    for _ in range(depth):
        q, k = (x[..., None, :, :] @ normal(H, d, d, std=d**-0.5) for _ in range(2))  # (..., H, L, d)
        y = attention(q, k, x[..., None, :, :].expand_as(q), mask=masks).mean(-3)
        y = y + x if skip else y
        if mlp:
            inner = (y @ normal(d, 4 * d, std=(2 / d) ** 0.5)).relu()
            changed = inner @ normal(4 * d, d, std=(4 * d) ** -0.5)
            y = y + changed if skip else changed
        if normalize:
            size = y.square().mean(-1, keepdim=True).sqrt()
            y = y / torch.where(size > 0, size, 1.0)
        x = y
        residuals.append(collapse_residual(x))
    return torch.stack(residuals)
