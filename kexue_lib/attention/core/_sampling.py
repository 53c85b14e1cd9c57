"""Cutting a distribution over tokens, and drawing from it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from kexue_lib._arguments import check_integer, check_number
from kexue_lib._tracing import is_traced

_BINS, _BINS_PER_NAT = 4096, 64  # of log-probabilities, in which the end of a nucleus is looked for


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
        TypeError: ``top_k`` is no integer, ``top_p`` is no number.
        ValueError: ``top_p`` outside (0, 1] or ``top_k`` below 1.

    Cost: on a CPU O(V); elsewhere one sort, and nothing is read back to the host.

    >>> p = torch.tensor([0.5, 0.3, 0.2])
    >>> truncate_log_probs(p.log(), top_p=0.7).exp()
    tensor([0.5000, 0.3000, 0.0000])
    """
    if top_p is not None:
        check_number("top_p", top_p, above=0, most=1)
    if top_k is not None:
        check_integer("top_k", top_k, 1)
    if (top_p is None or top_p == 1) and (top_k is None or top_k >= log_probs.shape[-1]):
        return log_probs.log_softmax(-1) if renormalize else log_probs
    if log_probs.device.type == "cpu" and not is_traced():
        cut = _cut_below(log_probs, *_last_kept(log_probs.detach(), top_p, top_k))
    else:  # to look at the values would make the host wait
        values, order = log_probs.sort(dim=-1, descending=True, stable=True)
        kept = _kept(values[..., :top_k], top_p, renormalised=top_k is not None)
        values = values.masked_fill(~F.pad(kept, (0, values.shape[-1] - kept.shape[-1])), -torch.inf)
        cut = log_probs.scatter(-1, order, values)
    return cut.log_softmax(-1) if renormalize else cut


def _kept(values: Tensor, top_p: float | None, *, renormalised: bool, ahead: Tensor | float = 0.0) -> Tensor:
    """Which of falling log-probabilities are kept.

    Args:
        values: ``(..., m)``.
        top_p: as above.
        renormalised: count them as shares of those that are there.
        ahead: probability of the tokens before them, ``(..., 1)``.
    """
    if top_p is None or top_p == 1:
        return torch.ones_like(values, dtype=torch.bool)
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    probability = wide.softmax(-1) if renormalised else wide.exp()
    before = ahead + probability.cumsum(-1) - probability  # a token is kept while less than p is ahead of it
    kept = before < top_p
    kept[..., :1] = True
    return kept


def _last_kept(log_probs: Tensor, top_p: float | None, top_k: int | None) -> tuple[Tensor, Tensor]:
    """The least value that is kept, and how many of those equal to it are."""
    if top_k is not None:
        values, ahead = log_probs.topk(min(top_k, log_probs.shape[-1])).values, 0.0
    elif top_p is None or log_probs.shape[-1] <= _BINS:
        values, ahead = log_probs.sort(dim=-1, descending=True).values, 0.0
    else:
        values, ahead = _end_of_nucleus(log_probs, top_p)
    kept = _kept(values, top_p, renormalised=top_k is not None, ahead=ahead)
    last = values.gather(-1, kept.sum(-1, keepdim=True) - 1)
    return last, (kept & (values == last)).sum(-1, keepdim=True)


def _end_of_nucleus(log_probs: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The tokens among which the nucleus ends, most probable first, then −inf; and the probability ahead of them.

    Tokens are thrown into bins of equal width below the largest; only those of one bin have to be sorted.
    """
    below = (log_probs.amax(-1, keepdim=True) - log_probs) * _BINS_PER_NAT
    bins = below.nan_to_num(_BINS).clamp(max=_BINS - 1).to(torch.int64)
    mass = log_probs.new_zeros(*log_probs.shape[:-1], _BINS, dtype=torch.float64)
    mass.scatter_add_(-1, bins, log_probs.double().exp())
    ahead = mass.cumsum(-1) - mass
    end = (ahead < top_p).sum(-1, keepdim=True) - 1
    inside = bins == end
    size = max(1, int(inside.sum(-1).max())) if inside.numel() else log_probs.shape[-1]
    return log_probs.masked_fill(~inside, -torch.inf).topk(size).values, ahead.gather(-1, end)


def _cut_below(log_probs: Tensor, last: Tensor, equal: Tensor) -> Tensor:
    """−inf below `last`, and at `last` from the second, third, … on that `equal` does not allow."""
    hidden = log_probs < last
    ties = log_probs == last
    if bool((ties.sum(-1, keepdim=True) > equal).any()):
        hidden |= ties & (ties.cumsum(-1) > equal)
    return log_probs.masked_fill(hidden, -torch.inf)


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
        TypeError: ``temperature`` is no number.
        ValueError: ``temperature`` is negative.

    >>> sample(torch.tensor([[0.0, 2.0, 1.0]]), temperature=0.0)
    tensor([1])
    """
    check_number("temperature", temperature, least=0)
    if temperature == 0:
        return logits.argmax(-1)
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    noise = torch.empty_like(scaled).exponential_(generator=generator)
    return (scaled - noise.log()).argmax(-1)
