r"""Is there a reason for causal masks on the input? Ranks, determinants and collapse of attention; GPT, UniLM and T5.

Source: Su Jianlin, "Why are current LLMs all decoder-only?", 2023, https://kexue.fm/archives/9529, and its FAQ,
https://kexue.fm/archives/9547.

Notation: L queries, S keys, d head width, H heads, :math:`A` the row-stochastic attention matrix, :math:`\sigma` its
singular values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib._autograd import remember_signature
from kexue_lib._tracing import is_traced
from kexue_lib.attention.decoder_only._mixed_directions import MixedSelfAttention, head_masks, mixed_attention
from kexue_lib.attention.decoder_only._rank_collapse import collapse_curve, collapse_residual
from kexue_lib.attention.decoder_only._seq2seq import Seq2Seq, Seq2SeqConfig
from kexue_lib.distributions.sparsity import effective_number

__all__ = [
    "MixedSelfAttention",
    "RankReport",
    "Seq2Seq",
    "Seq2SeqConfig",
    "attention_matrix",
    "causal_logdet",
    "causal_recover",
    "collapse_curve",
    "collapse_residual",
    "head_masks",
    "mixed_attention",
    "rank_report",
]


@without_autocast
def attention_matrix(
    query: Float[Tensor, "*batch_q L d"],
    key: Float[Tensor, "*batch_k S d"],
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    kind: Literal["softmax", "linear"] = "softmax",
    feature_map: Callable[[Tensor], Tensor] = torch.exp,
) -> Float[Tensor, "*batch L S"]:
    r"""Return the attention weights themselves, for study: fast attention never writes them out.

    .. math:: \text{softmax: } A_{ij}=\frac{e^{s\,q_i\cdot k_j}}{\sum_{k\,\text{visible}}e^{s\,q_i\cdot k_k}},\qquad
              \text{linear: } A_{ij}=\frac{\phi(q_i)\cdot\phi(k_j)}{\sum_{k\,\text{visible}}\phi(q_i)\cdot\phi(k_k)}

    Args:
        query: ``(..., L, d)``.
        key: ``(..., S, d)``.
        mask: bool, broadcastable to ``(..., L, S)``, True where visible.
        scale: s, default ``d ** -0.5``; of the softmax kind only.
        kind: which of the two.
        feature_map: :math:`\phi\ge0`, acts on the last dimension; of the linear kind only.

    Returns:
        ``(..., L, S)``, the dtype of ``query``; rows sum to 1. A row that sees no key (or only keys of weight 0) is 0.

    Raises:
        ValueError: unknown ``kind``, widths that differ, a ``scale`` for the linear kind, or a feature map with
            negative values.
        TypeError: a mask that is not boolean.

    Cost: O(L S d). Source: https://kexue.fm/archives/9529.

    >>> attention_matrix(torch.zeros(2, 4), torch.zeros(2, 4), mask=torch.ones(2, 2).tril().bool())
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000]])
    """
    check_one_of("kind", kind, ("softmax", "linear"))
    _check_tokens(query=query, key=key)
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"key: got width {key.shape[-1]}, expected {query.shape[-1]} as query has")
    if mask is not None:
        check_dtype("mask", mask, "bool")
    if scale is not None:
        check_number("scale", scale)
    dtype = torch.promote_types(query.dtype, torch.float32)
    q, k = query.to(dtype), key.to(dtype)
    if kind == "softmax":
        scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        if mask is None:
            return scores.softmax(-1).to(query.dtype)
        mask = mask.expand(scores.shape)
        seen = mask.any(-1, keepdim=True)  # softmax over nothing would be NaN, in its gradient too
        weights = scores.masked_fill(~mask & seen, -torch.inf).softmax(-1)
        return torch.where(seen, weights, 0.0).to(query.dtype)
    if scale is not None:
        raise ValueError(f"scale: got {scale}, expected None with kind 'linear', which has none")
    if feature_map is torch.exp:  # constant factors cancel, and keep the exponentials in range
        q, k = q - q.amax(-1, keepdim=True), k - k.amax((-2, -1), keepdim=True)
    q, k = feature_map(q), feature_map(k)
    if feature_map is not torch.exp and not is_traced() and ((q < 0).any() or (k < 0).any()):
        raise ValueError("feature_map: got negative values, expected values of at least 0")
    weights = q @ k.mT
    weights = weights if mask is None else weights.masked_fill(~mask, 0.0)
    total = weights.sum(-1, keepdim=True)
    return (weights / torch.where(total > 0, total, 1.0)).to(query.dtype)


class RankReport(NamedTuple):
    """What :func:`rank_report` says about a matrix ``(..., m, n)``.

    ``singular_values (..., min(m, n))`` in falling order; ``rank`` int64, the number of those above ``rtol`` times the
    largest; ``effective_rank`` :math:`e^{H(\\sigma/\\sum\\sigma)}` in 1…min(m, n) (Roy and Vetterli, 2007);
    ``stable_rank`` :math:`\\sum\\sigma^2/\\sigma_\\max^2`; ``condition`` :math:`\\sigma_\\max/\\sigma_\\min`;
    ``logabsdet``, NaN unless m = n. All ``(...)`` in float64. A matrix of zeros has rank, effective rank and stable
    rank 0 and condition inf.
    """

    singular_values: Float[Tensor, "*batch k"]
    rank: Int[Tensor, "*batch"]
    effective_rank: Float[Tensor, "*batch"]
    stable_rank: Float[Tensor, "*batch"]
    condition: Float[Tensor, "*batch"]
    logabsdet: Float[Tensor, "*batch"]


@without_autocast
def rank_report(matrix: Float[Tensor, "*batch m n"], *, rtol: float = 1e-6) -> RankReport:
    r"""Return singular values and the notions of rank made from them.

    .. math:: \mathrm{rank}=\#\{\sigma_i>\mathrm{rtol}\,\sigma_1\},\quad
              \mathrm{erank}=\exp\Big(-\sum_ip_i\log p_i\Big),\ p_i=\frac{\sigma_i}{\sum_j\sigma_j},\quad
              \kappa=\frac{\sigma_1}{\sigma_{\min}}

    Args:
        matrix: ``(..., m, n)``; computed in float64, as float32 hides small singular values.
        rtol: threshold of the rank, at least 0.

    Returns:
        A :class:`RankReport`. Below about 1e-16 times the largest a singular value is rounding noise, and so is the
        condition number above 1e16; ``logabsdet`` comes from a triangular factorisation and has no such floor.

    Raises:
        TypeError: ``rtol`` is no number.
        ValueError: an empty matrix, entries that are not finite, or a negative ``rtol``.

    Cost: one singular value decomposition without vectors, O(m n min(m, n)), and one LU factorisation. Source:
    Roy and Vetterli, *The effective rank*, EUSIPCO 2007.

    >>> report = rank_report(torch.diag(torch.tensor([1.0, 1.0, 1e-9])))
    >>> report.rank.item(), round(report.effective_rank.item(), 3)
    (2, 2.0)
    """
    check_number("rtol", rtol, least=0)
    _check_tokens(matrix=matrix)
    m, n = matrix.shape[-2:]
    if not m or not n:
        raise ValueError(f"matrix: got shape {tuple(matrix.shape)}, expected at least one row and one column")
    wide = matrix.double()
    if not is_traced() and not wide.isfinite().all():
        raise ValueError("matrix: got entries that are not finite, expected finite ones")
    sigma = torch.linalg.svdvals(wide)
    largest, smallest = sigma[..., 0], sigma[..., -1]
    nonzero = largest > 0
    unit = sigma / torch.where(nonzero, largest, 1.0)[..., None]
    share = unit / torch.where(nonzero, unit.sum(-1), 1.0)[..., None]
    positive = torch.where(smallest > 0, smallest, 1.0)
    return RankReport(
        singular_values=sigma,
        rank=((sigma > rtol * largest[..., None]) & nonzero[..., None]).sum(-1),
        effective_rank=torch.where(nonzero, effective_number(share, 1.0), 0.0),
        stable_rank=unit.square().sum(-1),
        condition=torch.where(smallest > 0, largest / positive, torch.inf),
        logabsdet=torch.linalg.slogdet(wide).logabsdet if m == n else torch.full_like(largest, torch.nan),
    )


@without_autocast
def causal_logdet(
    query: Float[Tensor, "*batch L d"],
    key: Float[Tensor, "*batch L d"],
    *,
    scale: float | None = None,
    block_size: int = 512,
) -> Float[Tensor, "*batch"]:
    r"""Return the logarithm of the determinant of causal softmax attention: the sum of its log-diagonal.

    .. math:: \log\det A=\sum_i\Big(s_{ii}-\log\sum_{k\le i}e^{s_{ik}}\Big),\qquad s_{ij}=s\,q_i\cdot k_j

    Args:
        query: ``(..., L, d)``.
        key: ``(..., L, d)``.
        scale: s, default ``d ** -0.5``.
        block_size: queries handled at once.

    Returns:
        ``(...)``, at most 0; 0 for L = 0. Half types are summed in float32 and rounded at the end.

    Raises:
        TypeError: ``block_size`` is no integer.
        ValueError: different shapes, or ``block_size`` < 1.

    Cost: O(L² d) time and O(L ``block_size``) memory, backward included; no factorisation. Gradients of any order.
    Source: https://kexue.fm/archives/9529.

    >>> causal_logdet(torch.zeros(4, 2), torch.zeros(4, 2)).exp() * 24  # A is 1/i, its determinant 1/4!
    tensor(1.0000)
    """
    _check_tokens(query=query, key=key)
    check_shape("key", key, query.shape, "as query has")
    check_integer("block_size", block_size, 1)
    if scale is not None:
        check_number("scale", scale)
    dtype = torch.promote_types(query.dtype, torch.float32)
    factor: float = query.shape[-1] ** -0.5 if scale is None else scale
    function = _log_determinant if torch.compiler.is_compiling() else _CausalLogDet.apply
    return function(query.to(dtype), key.to(dtype), factor, block_size).to(query.dtype)


@without_autocast
def causal_recover(
    attention: Float[Tensor, "*batch_a L L"], output: Float[Tensor, "*batch_o L d"]
) -> Float[Tensor, "*batch L d"]:
    """Return the values V that causal attention A mapped to the output O = A V, by substitution from the first row on.

    Args:
        attention: ``(..., L, L)``, lower triangular.
        output: ``(..., L, d)``.

    Returns:
        ``(..., L, d)``. It is exact in exact arithmetic; the error of a real run grows with the condition number of A.

    Raises:
        ValueError: a matrix that is not square or not lower triangular, an output of another length, or a zero on the
            diagonal.

    Cost: O(L² d). Source: https://kexue.fm/archives/9529, "the causal matrix always has full rank".

    >>> A = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    >>> causal_recover(A, A @ torch.tensor([[3.0], [5.0]])).flatten()
    tensor([3., 5.])
    """
    _check_tokens(attention=attention, output=output)
    rows, columns = attention.shape[-2:]
    if rows != columns or output.shape[-2] != rows:
        shapes = f"{tuple(attention.shape)} and {tuple(output.shape)}"
        raise ValueError(f"attention, output: got shapes {shapes}, expected (..., L, L) and (..., L, d)")
    if not is_traced():
        if (attention.triu(1) != 0).any():
            raise ValueError("attention: got entries above the diagonal, expected a lower triangular (causal) matrix")
        if (attention.diagonal(dim1=-2, dim2=-1) == 0).any():
            raise ValueError("attention: got a zero on the diagonal, expected positive weights on the own token")
    dtype = torch.promote_types(output.dtype, torch.float32)
    return torch.linalg.solve_triangular(attention.to(dtype), output.to(dtype), upper=False).to(output.dtype)


@remember_signature
class _CausalLogDet(torch.autograd.Function):
    """Blocks of queries against all keys before them; the backward pass computes the blocks again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(query: Tensor, key: Tensor, scale: float, block_size: int) -> Tensor:
        return _log_determinant(query, key, scale, block_size)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        query, key, ctx.scale, ctx.block_size = inputs
        ctx.save_for_backward(query, key)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        # d log det / ds = I − A, row by row.
        query, key = ctx.saved_tensors
        pulled, pushed = [], torch.zeros_like(key)
        for start in range(0, query.shape[-2], ctx.block_size):
            weights = _scores(query, key, ctx.scale, start, ctx.block_size).softmax(-1)
            end = weights.shape[-1]
            pulled.append(weights @ key[..., :end, :])
            received = weights.mT @ query[..., start:end, :]
            pushed = pushed + torch.nn.functional.pad(received, (0, 0, 0, key.shape[-2] - end))
        factor = ctx.scale * grad[..., None, None]
        averages = torch.cat(pulled, dim=-2) if pulled else torch.zeros_like(key)
        return factor * (key - averages), factor * (query - pushed), None, None


def _log_determinant(query: Tensor, key: Tensor, scale: float, block_size: int) -> Tensor:
    total = query.new_zeros(query.shape[:-2])
    for start in range(0, query.shape[-2], block_size):
        scores = _scores(query, key, scale, start, block_size)
        own = scores.diagonal(start, dim1=-2, dim2=-1)
        total = total + (own - scores.logsumexp(-1)).sum(-1)
    return total


def _scores(query: Tensor, key: Tensor, scale: float, start: int, block_size: int) -> Tensor:
    """Masked scores ``(..., b, end)`` of the rows start…end − 1 with the keys before ``end``."""
    end = min(start + block_size, query.shape[-2])
    scores = (query[..., start:end, :] * scale) @ key[..., :end, :].mT
    hidden = torch.ones(end - start, end - start, dtype=torch.bool, device=query.device).triu(1)
    scores[..., start:].masked_fill_(hidden, -torch.inf)  # in place: the block is the largest thing in memory
    return scores


def _check_tokens(**tensors: Tensor) -> None:
    """Refuse what is no floating tensor of two dimensions or more."""
    for name, x in tensors.items():
        check_dtype(name, x, "floating")
        check_shape(name, x, ("...", "rows", "columns"))
