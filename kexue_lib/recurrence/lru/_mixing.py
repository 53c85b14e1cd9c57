"""RWKV's mixing of positions: a quotient of two scans, at the scale of its largest term."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_number, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib.recurrence.scan import linear_scan


@without_autocast
def rwkv_mix(
    w: Float[Tensor, " d"],
    bonus: Float[Tensor, " d"],
    k: Float[Tensor, "*batch L d"],
    v: Float[Tensor, "*batch L d"],
) -> Float[Tensor, "*batch L d"]:
    r"""Return a weighted mean of the values so far, with weights that decay by a constant factor per step.

    .. math:: o_t = \frac{\sum_{i<t}\lambda^{t-1-i}e^{k_i}v_i + \beta e^{k_t}v_t}
                         {\sum_{i<t}\lambda^{t-1-i}e^{k_i} + \beta e^{k_t}}, \qquad
              \lambda = e^{-w},\quad \beta = e^{\text{bonus}}

    RWKV multiplies by a gate afterwards. Sums are kept relative to their largest term, so that k may be of any size.

    Args:
        w: decay per step, positive.
        bonus: logarithm of the weight of the present.
        k: logarithms of weights, finite.
        v: what is averaged.

    Returns:
        Means ``(..., L, d)``; half types are accumulated in float32.

    Raises:
        TypeError: no floating dtype.
        ValueError: a w that is not positive, shapes that do not fit.

    Cost: two scans and one running maximum.

    Source: B. Peng et al., "RWKV: Reinventing RNNs for the Transformer Era", 2023, arXiv 2305.13048.

    >>> k, v = torch.tensor([[0.0], [1000.0], [0.0]]), torch.tensor([[1.0], [2.0], [3.0]])
    >>> rwkv_mix(torch.tensor([0.5]), torch.tensor([0.0]), k, v).flatten().tolist()
    [1.0, 2.0, 2.0]
    """
    for name, x in (("w", w), ("bonus", bonus), ("k", k), ("v", v)):
        check_dtype(name, x, "floating")
    check_shape("k", k, ("...", "L", "d"))
    check_shape("v", v, tuple(k.shape), "as k has")
    check_shape("w", w, (k.shape[-1],), "as k has")
    check_shape("bonus", bonus, (k.shape[-1],), "as k has")
    check_number("w", w, above=0)
    dtype = torch.promote_types(k.dtype, v.dtype)
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    w, bonus, k, v = (x.to(wide) for x in (w, bonus, k, v))
    if not k.shape[-2]:
        return (k * v).to(dtype)
    scale = _largest_exponent(w, k)
    before = torch.cat([torch.full_like(scale[..., :1, :], -torch.inf), scale[..., :-1, :]], -2)
    first = torch.zeros_like(scale[..., :1, :])
    decay = torch.cat([first, torch.exp(scale[..., :-1, :] - scale[..., 1:, :] - w)], -2)
    weight = torch.exp(k - scale)
    shifted = lambda x: torch.cat([torch.zeros_like(x[..., :1, :]), x[..., :-1, :]], -2)
    values, weights = shifted(linear_scan(decay, weight * v)), shifted(linear_scan(decay, weight))
    joint = torch.maximum(before, (bonus + k).detach())
    past, present = torch.exp(before - joint), torch.exp(bonus + k - joint)
    return ((past * values + present * v) / (past * weights + present)).to(dtype)


def _largest_exponent(w: Tensor, k: Tensor) -> Tensor:
    r""":math:`\max_{i\le t}(k_i - w(t-i))`: the sums' scale, which cancels and therefore needs no gradient.

    In float64: :math:`wt` grows without bound, and its rounding would change the scale from step to step.
    """
    ramp = w.detach().double() * torch.arange(k.shape[-2], device=k.device, dtype=torch.float64)[:, None]
    return ((k.detach() + ramp).cummax(-2).values - ramp).to(k.dtype)
