"""Cutting a distribution over tokens, and drawing from it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def truncate_log_probs(
    log_probs: Float[Tensor, "*batch vocab"],
    *,
    top_p: float | None = None,
    top_k: int | None = None,
    renormalize: bool = False,
) -> Float[Tensor, "*batch vocab"]:
    r"""Keep the most probable tokens and give the others −inf.

    ``top_k`` keeps the k largest; ``top_p`` then keeps the smallest set whose probability is at least p (nucleus
    sampling, Holtzman et al., arXiv 1904.09751), always at least one token. Equal probabilities: lower index first.

    Args:
        log_probs: normalised log-probabilities; −inf is allowed.
        top_p: in (0, 1]; None keeps all.
        top_k: at least 1; None keeps all.
        renormalize: make the kept probabilities sum to one.

    Returns:
        The same shape and dtype.

    Raises:
        ValueError: ``top_p`` outside (0, 1] or ``top_k`` below 1.

    Cost: one sort. Nothing is read back to the host.

    >>> p = torch.tensor([0.5, 0.3, 0.2])
    >>> truncate_log_probs(p.log(), top_p=0.7).exp()
    tensor([0.5000, 0.3000, 0.0000])
    """
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: got {top_p!r}, expected a number in (0, 1]")
    if top_k is not None and (isinstance(top_k, bool) or top_k < 1):
        raise ValueError(f"top_k: got {top_k!r}, expected an integer of at least 1")
    if (top_p is None or top_p == 1) and (top_k is None or top_k >= log_probs.shape[-1]):
        return log_probs.log_softmax(-1) if renormalize else log_probs
    values, order = log_probs.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        values = torch.cat([values[..., :top_k], torch.full_like(values[..., top_k:], -torch.inf)], dim=-1)
    if top_p is not None and top_p < 1:
        probability = values.to(torch.promote_types(values.dtype, torch.float32)).softmax(-1)
        if top_k is None:
            probability = values.to(probability.dtype).exp()
        before = probability.cumsum(-1) - probability  # of all tokens ahead; a token is kept while that is below p
        keep = before < top_p
        keep[..., 0] = True
        values = values.masked_fill(~keep, -torch.inf)
    cut = torch.empty_like(log_probs).scatter_(-1, order, values)
    return cut.log_softmax(-1) if renormalize else cut


def sample(
    logits: Float[Tensor, "*batch vocab"], *, temperature: float = 1.0, generator: torch.Generator | None = None
) -> Int64[Tensor, "*batch"]:
    r"""Draw one token from every distribution, :math:`P(i)\propto e^{\ell_i/T}`, by the Gumbel-max trick.

    .. math:: \arg\max_i\,(\ell_i/T+g_i),\qquad g_i=-\log E_i,\ E_i\sim\text{Exp}(1)

    Args:
        logits: unnormalised log-probabilities; −inf is never drawn while a finite one is there.
        temperature: T ≥ 0; 0 takes the largest logit (the first one of several).
        generator: source of randomness on the device of ``logits``.

    Returns:
        Token ids, the batch shape.

    Raises:
        ValueError: ``temperature`` is negative.

    >>> sample(torch.tensor([[0.0, 2.0, 1.0]]), temperature=0.0)
    tensor([1])
    """
    if not temperature >= 0:
        raise ValueError(f"temperature: got {temperature!r}, expected a number of at least 0")
    if temperature == 0:
        return logits.argmax(-1)
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    noise = torch.empty_like(scaled).exponential_(generator=generator)
    return (scaled - noise.log()).argmax(-1)
