"""Merging the next-token distributions that one model gives with different contexts."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from kexue_lib._arguments import check_broadcast, check_dtype, check_number, check_one_of, check_shape
from kexue_lib._tracing import is_traced
from kexue_lib.attention.core import truncate_log_probs
from kexue_lib.distributions.sparsity import renyi_entropy

Pooling = Literal["mean", "max", "min_entropy", "mixture", "most_changed"]
FLOOR = -100.0  # what the mean counts for a token that truncation cut from one row but not from all


class NBCEOutput(NamedTuple):
    """What :func:`nbce_logits` returns.

    ``logits`` ``(..., V)``, merged and unnormalised; ``index`` ``(...)``, the chosen context, −1 where none is chosen;
    ``entropy`` ``(..., n)`` of the truncated contexts in nats, inf where a context is absent.
    """

    logits: Float[Tensor, "*batch vocab"]
    index: Int64[Tensor, "*batch"]
    entropy: Float[Tensor, "*batch n"]


def entropy_of(log_probs: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    r"""Return :math:`-\sum_i p_i\log p_i` in nats; −inf contributes 0 and nothing is renormalised.

    Args:
        log_probs: ``(..., V)``.

    >>> entropy_of(torch.tensor([0.5, 0.5, 0.0]).log())
    tensor(0.6931)
    """
    check_dtype("log_probs", log_probs, "floating")
    if log_probs.dim() and not log_probs.shape[-1]:
        raise ValueError(f"log_probs: got shape {tuple(log_probs.shape)}, expected at least one token")
    return renyi_entropy(log_probs, 1.0, log_input=True)


def divergence(
    context_logits: Float[Tensor, "*batch n vocab"], prior_logits: Float[Tensor, "*batch vocab"]
) -> Float[Tensor, "*batch n"]:
    r"""How much each context changes the prediction: the Jensen–Shannon divergence from the prior, in nats.

    .. math:: H\Big(\frac{p_k+p_0}2\Big)-\frac{H(p_k)+H(p_0)}2

    Args:
        context_logits: raw logits with each context, ``(..., n, V)``; all tokens count, nothing is truncated.
        prior_logits: raw logits without any context, ``(..., V)``.

    Returns:
        ``(..., n)`` from 0 to log 2, in float32 or better.

    Raises:
        TypeError: integer logits.
        ValueError: no contexts, or different vocabularies.

    Source: J. Lin, Divergence measures based on the Shannon entropy, 1991.

    >>> divergence(torch.tensor([[2.0, 0.0], [0.0, 99.0]]), torch.tensor([2.0, 0.0]))
    tensor([0.0000, 0.5034])
    """
    _check_logits(context_logits, prior_logits)
    dtype = torch.promote_types(context_logits.dtype, torch.float32)
    rows, prior = context_logits.to(dtype).log_softmax(-1), prior_logits.to(dtype).log_softmax(-1)
    other = prior[..., None, :].expand_as(rows)
    nowhere = ~(rows.isfinite() | other.isfinite())  # where logaddexp has no gradient
    middle = torch.logaddexp(rows.masked_fill(nowhere, 0.0), other) - math.log(2)
    own = (entropy_of(rows) + entropy_of(prior)[..., None]) / 2
    return (entropy_of(middle.masked_fill(nowhere, -torch.inf)) - own).clamp(min=0)


def nbce_logits(
    context_logits: Float[Tensor, "*batch n vocab"],
    prior_logits: Float[Tensor, "*batch vocab"] | None = None,
    *,
    beta: float | int | Float[Tensor, "..."] = 0.25,
    pooling: Pooling = "min_entropy",
    top_p: float | None = 0.95,
    top_k: int | None = None,
    renormalize: bool = False,
    eta: float | int = 0.0,
    previous: Int[Tensor, "*batch"] | None = None,
    context_mask: Bool[Tensor, "..."] | None = None,
    weights: Float[Tensor, "..."] | None = None,
) -> NBCEOutput:
    r"""Merge the predictions of n contexts and of no context into one (naive Bayes context extension).

    .. math:: (\beta+1)\,\mathcal P[\log p(T|S_1),\dots,\log p(T|S_n)]-\beta\log p(T)

    Each row, the prior included, is normalised and truncated first. A token that the prior's truncation cut gets
    :math:`\mathcal P` alone. With ``beta = -1`` the result is the prior.

    Args:
        context_logits: raw logits with each context, ``(..., n, V)``.
        prior_logits: raw logits without any context, ``(..., V)``; None needs ``beta = 0``.
        beta: weight of the prior, at least −1; a tensor is broadcast to ``(...)`` and its values are not checked.
        pooling: :math:`\mathcal P`. ``"mean"`` of the log-probabilities (with β = n − 1 naive Bayes; a token cut from
            some rows counts −100 there, one cut from all rows −inf); ``"max"``; ``"min_entropy"``: the row that is
            least uncertain, lowest index first; ``"mixture"``: log of the weighted mean of the probabilities;
            ``"most_changed"``: the row with the largest :func:`divergence`, lowest index first.
        top_p: nucleus of each row; None keeps all tokens.
        top_k: tokens of each row; None keeps all.
        renormalize: make the truncated rows sum to one again, which also changes their entropies.
        eta: nats taken off the entropy of the context that ``previous`` names (``"min_entropy"``), or added to its
            divergence (``"most_changed"``, where 1.0 > log 2 keeps the first choice for good); at least 0.
        previous: index chosen at the step before, −1 for none; default none.
        context_mask: True where a context is present, broadcast to ``(..., n)``; absent ones count nowhere.
        weights: of the mixture, broadcast to ``(..., n)``, not negative; default equal.

    Returns:
        ``NBCEOutput(logits, index, entropy)`` in float32 or better.

    Raises:
        TypeError: integer logits.
        ValueError: no contexts, different vocabularies, unknown ``pooling``, ``beta`` < −1, ``beta`` not 0 or
            ``"most_changed"`` without a prior, ``eta`` < 0, ``top_p`` outside (0, 1], ``top_k`` < 1, ``weights``
            without ``"mixture"``, or a row without a present context (checked where reading the mask needs no waiting:
            on a CPU and outside ``torch.compile``; elsewhere its logits are NaN).

    Cost: O(n V), and with ``top_p`` or ``top_k`` a truncation of n + 1 rows. Nothing is read back from an accelerator.
    Source: articles 9617 (the rule), 9632 (truncation, ``eta``).

    >>> contexts = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.1, 0.0]])
    >>> out = nbce_logits(contexts, torch.zeros(3), top_p=None)
    >>> out.index.item(), out.logits.argmax().item()
    (0, 0)
    """
    _check(context_logits, prior_logits, beta, pooling, eta, weights)
    dtype = torch.promote_types(context_logits.dtype, torch.float32)
    rows, present = context_logits.to(dtype), None
    if context_mask is not None:
        check_dtype("context_mask", context_mask, "bool")
        check_broadcast("context_mask", context_mask, rows.shape[:-1], "(..., n)")
        present = context_mask.expand(rows.shape[:-1])
        if present.device.type == "cpu" and not is_traced() and not present.any(-1).all():
            raise ValueError("context_mask: got a row without a present context, expected at least one")
        rows = rows.masked_fill(~present[..., None], 0.0)  # whatever stands there must not reach a gradient
    rows = truncate_log_probs(rows.log_softmax(-1), top_p=top_p, top_k=top_k, renormalize=renormalize)
    entropy = entropy_of(rows)
    if present is not None:
        entropy = entropy.masked_fill(~present, torch.inf)
    index = torch.full(rows.shape[:-2], -1, dtype=torch.int64, device=rows.device)
    if pooling in ("min_entropy", "most_changed"):
        if pooling == "min_entropy":
            penalty = entropy
        else:
            whole = context_logits if present is None else context_logits.masked_fill(~present[..., None], 0.0)
            assert prior_logits is not None  # _check refuses "most_changed" without
            penalty = -divergence(whole, prior_logits)
            if present is not None:
                penalty = penalty.masked_fill(~present, torch.inf)
        index = _least(penalty, eta, previous)
        pooled = rows.gather(-2, index[..., None, None].expand(*index.shape, 1, rows.shape[-1])).squeeze(-2)
    else:
        pooled = _pooled(rows, present, pooling, weights)
    if present is not None:
        pooled = pooled.masked_fill(~present.any(-1, keepdim=True), torch.nan)
    if prior_logits is None:
        return NBCEOutput(pooled, index, entropy)
    prior = truncate_log_probs(
        prior_logits.to(dtype).log_softmax(-1), top_p=top_p, top_k=top_k, renormalize=renormalize
    )
    return NBCEOutput(_against_prior(pooled, prior, beta), index, entropy)


def _least(penalty: Tensor, eta: float | int, previous: Tensor | None) -> Tensor:
    if eta and previous is not None:
        chosen = torch.arange(penalty.shape[-1], device=penalty.device) == previous[..., None]
        penalty = torch.where(chosen, penalty - eta, penalty)
    return penalty.argmin(-1)


def _pooled(rows: Tensor, present: Tensor | None, pooling: str, weights: Tensor | None) -> Tensor:
    """Mean, maximum or mixture of ``(..., n, V)`` over the present rows."""
    if present is not None:
        rows = rows.masked_fill(~present[..., None], -torch.inf)
    if pooling == "max":
        return rows.amax(-2)
    kept = rows.isfinite()
    nowhere = ~kept.any(-2)
    count = torch.full_like(rows[..., 0], 1.0) if present is None else present.to(rows.dtype)  # (..., n)
    if pooling == "mean":
        filled = torch.where(kept, rows, FLOOR) * count[..., None]
        return (filled.sum(-2) / count.sum(-1, keepdim=True)).masked_fill(nowhere, -torch.inf)
    share = count if weights is None else count * weights.to(rows)
    share = (share / share.sum(-1, keepdim=True)).log()
    # Where all rows are −inf the gradient of logsumexp would be 0/0.
    summed = (rows.masked_fill(nowhere[..., None, :], 0.0) + share[..., None]).logsumexp(-2)
    return summed.masked_fill(nowhere, -torch.inf)


def _against_prior(pooled: Tensor, prior: Tensor, beta: float | int | Tensor) -> Tensor:
    """(β + 1) pooled − β prior, with the conventions for −inf."""
    both = pooled.isfinite() & prior.isfinite()
    excess = torch.where(both, pooled - prior, 0.0)
    if isinstance(beta, Tensor):
        beta = beta.to(pooled)[..., None]
        return torch.where(beta == -1, prior, pooled + beta * excess)
    return prior if beta == -1 else pooled + beta * excess


def _check(
    context_logits: Tensor,
    prior_logits: Tensor | None,
    beta: float | int | Tensor,
    pooling: str,
    eta: float | int,
    weights: Tensor | None,
) -> None:
    _check_logits(context_logits, prior_logits)
    check_one_of("pooling", pooling, get_args(Pooling))
    if not isinstance(beta, Tensor):
        check_number("beta", beta, least=-1)
    if prior_logits is None and (isinstance(beta, Tensor) or beta != 0 or pooling == "most_changed"):
        raise ValueError("prior_logits: got None, expected a tensor unless beta is 0 and pooling not 'most_changed'")
    check_number("eta", eta, least=0)
    if weights is not None and pooling != "mixture":
        raise ValueError(f"weights: got weights with pooling {pooling!r}, expected None: only the mixture has weights")


def _check_logits(context_logits: Tensor, prior_logits: Tensor | None) -> None:
    for name, logits in (("context_logits", context_logits), ("prior_logits", prior_logits)):
        if logits is not None:
            check_dtype(name, logits, "floating")
    if context_logits.ndim < 2 or 0 in context_logits.shape[-2:]:
        raise ValueError(
            f"context_logits: got shape {tuple(context_logits.shape)}, expected (..., n, V) with n, V >= 1"
        )
    if prior_logits is not None:
        expected = (*context_logits.shape[:-2], context_logits.shape[-1])
        check_shape("prior_logits", prior_logits, expected, "as context_logits has")
