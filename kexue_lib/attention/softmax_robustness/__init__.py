"""Softmax averages under noise, the entropy that a softmax can gain or lose, and how to measure it in long attention.

Source: Su Jianlin, "Two interesting findings about attention and softmax: robustness and information", 2023,
https://kexue.fm/archives/9593, and "The scale operation of attention from entropy invariance", 2021,
https://kexue.fm/archives/8823.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from kexue_lib._arguments import check_broadcast, check_dim, check_dtype, check_integer, check_number, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib.attention.softmax_robustness._entropy_range import (
    cosine_entropy_deficit,
    cosine_entropy_min,
    entropy_invariant_scale,
    entropy_keeping_scale,
    gaussian_entropy,
    sphere_entropy_deficit,
)
from kexue_lib.attention.softmax_robustness._noise import noise_cv2, sample_noise
from kexue_lib.attention.softmax_robustness._stats import AttentionStats, attention_stats
from kexue_lib.distributions import sparsity

__all__ = [
    "AttentionStats",
    "attention_average",
    "attention_stats",
    "cosine_entropy_deficit",
    "cosine_entropy_min",
    "effective_number",
    "entropy_invariant_scale",
    "entropy_keeping_scale",
    "gaussian_entropy",
    "noise_cv2",
    "perturbation_moments",
    "perturbed_attention",
    "sample_noise",
    "softmax_entropy",
    "sphere_entropy_deficit",
]


def softmax_entropy(
    logits: Float[Tensor, "..."], dim: int = -1, mask: Shaped[Tensor, "..."] | None = None
) -> Float[Tensor, "..."]:
    r"""Entropy of softmax(logits) in nats.

    .. math:: H=-\sum_ip_i\log p_i=\log Z-\mathbb E_p[s],\qquad \partial H/\partial s_i=-p_i(\log p_i+H)

    Args:
        logits: any shape; −inf is a probability of 0, several +inf share all probability equally.
        dim: dimension of the softmax.
        mask: bool, True = kept, broadcastable to ``logits``.

    Returns:
        The reduced shape, dtype of ``logits``; half types are computed in float32. 0 where nothing is kept.

    Raises:
        TypeError: a ``mask`` that is not bool.
        ValueError: a ``mask`` that does not broadcast to ``logits``.

    Cost: a log-softmax and a sum. Source: article 9593.

    >>> softmax_entropy(torch.tensor([[0.0, 0.0, -float("inf")], [9.0, 9.0, 9.0]])).exp().round()
    tensor([2., 3.])
    """
    _check_logits(logits, dim)
    if mask is not None:
        check_dtype("mask", mask, "bool")
        check_broadcast("mask", mask, logits.shape, "that of logits")
        logits = logits.masked_fill(~mask, -math.inf)
    log_p = _log_probabilities(logits, dim)
    return sparsity.renyi_entropy(log_p, 1.0, dim, log_input=True).to(logits.dtype)


def effective_number(logits: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    r"""Effective number of entries of softmax(logits): :math:`1/\sum_ip_i^2`, from 1 (one-hot) to n (uniform).

    Args:
        logits: any shape; −inf is a probability of 0.
        dim: dimension of the softmax.

    Returns:
        The reduced shape, dtype of ``logits``; half types are computed in float32. 0 where all are −inf.

    Cost: a log-softmax and a log-sum-exp. Source: :func:`kexue_lib.distributions.sparsity.effective_number` of order 2.

    >>> effective_number(torch.tensor([[0.0, 0.0, 0.0, 0.0], [99.0, 0.0, 0.0, 0.0]]))
    tensor([4., 1.])
    """
    _check_logits(logits, dim)
    nothing = (logits == -math.inf).all(dim)
    number = sparsity.effective_number(_log_probabilities(logits, dim), 2.0, dim, log_input=True)
    return torch.where(nothing, 0.0, number).to(logits.dtype)


@without_autocast
def attention_average(scores: Float[Tensor, "*batch n"], values: Float[Tensor, "*batch_v n d"]) -> Float[Tensor, "..."]:
    r"""Softmax average of values: :math:`o=\sum_ip_iv_i`, p = softmax(scores).

    Args:
        scores: ``(..., n)``; −inf is a weight of 0.
        values: ``(..., n, d)``; batch dimensions broadcast.

    Returns:
        ``(..., d)``, the dtype of ``values``; half types are computed in float32. 0 where all scores are −inf.

    Raises:
        ValueError: ``scores`` and ``values`` of different length.

    Cost: 2nd operations. Source: article 9593.

    >>> attention_average(torch.tensor([0.0, 0.0]), torch.tensor([[1.0], [3.0]]))
    tensor([2.])
    """
    _check_lengths(scores, values)
    p = _log_probabilities(scores, -1).exp()
    return (p.unsqueeze(-2) @ values.to(p.dtype)).squeeze(-2).to(values.dtype)


@without_autocast
def perturbed_attention(
    scores: Float[Tensor, "*batch n"],
    values: Float[Tensor, "*batch n d"],
    sigma: float,
    *,
    distribution: str = "gaussian",
    df: float = 3.0,
    num_samples: int = 1,
    chunk_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "samples *batch d"]:
    r"""Softmax averages with independent noise on every score.

    .. math:: \tilde o=\sum_i\mathrm{softmax}(s+\varepsilon)_i\,v_i

    Args:
        scores: ``(..., n)``.
        values: ``(..., n, d)``.
        sigma: standard deviation of the noise ≥ 0 (Student-t: its scale).
        distribution: as in :func:`sample_noise`.
        df: degrees of freedom of Student-t.
        num_samples: independent draws, at least 1.
        chunk_size: draws held at once; default all.
        generator: source of randomness.

    Returns:
        ``(num_samples, ..., d)``, differentiable in ``scores`` and ``values``.

    Raises:
        TypeError: ``num_samples`` or ``chunk_size`` is no integer.
        ValueError: as :func:`sample_noise`; different lengths; ``num_samples`` or ``chunk_size`` < 1.

    Cost: one softmax and one matrix product a chunk; ``chunk_size`` × n numbers at once. Source: article 9593.

    >>> out = perturbed_attention(torch.zeros(5), torch.ones(5, 2), 1.0, num_samples=3)
    >>> out.shape, bool(out.allclose(torch.ones(())))
    (torch.Size([3, 2]), True)
    """
    _check_lengths(scores, values)
    chunk_size = num_samples if chunk_size is None else chunk_size
    for name, count in (("num_samples", num_samples), ("chunk_size", chunk_size)):
        check_integer(name, count, 1)
    noise = {"df": df, "dtype": scores.dtype, "device": scores.device, "generator": generator}
    parts = []
    for start in range(0, num_samples, chunk_size):
        draws = min(chunk_size, num_samples - start)
        noisy = scores + sample_noise((draws, *scores.shape), distribution, sigma, **noise)
        p = _log_probabilities(noisy, -1).exp()
        rows = p.movedim(0, -2) @ values.to(p.dtype)  # (..., draws, d): all draws of a row in one product
        parts.append(rows.movedim(-2, 0).to(values.dtype))
    return torch.cat(parts)


@without_autocast
def perturbation_moments(
    scores: Float[Tensor, "*batch n"], values: Float[Tensor, "*batch n d"], cv2: float | Tensor
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
    r"""Bias and variance that independent noise on the scores gives a softmax average, to leading order.

    .. math:: \mathbb E\tilde o-o\approx-\mathrm{cv}^2\sum_ip_i^2r_i,\qquad
              \mathrm{Var}\,\tilde o\approx\mathrm{cv}^2\sum_ip_i^2r_i^2,\qquad r_i=v_i-o

    Good while cv²/N is small, where N = 1/Σp² is the effective number.

    Args:
        scores: ``(..., n)``.
        values: ``(..., n, d)``.
        cv2: squared coefficient of variation of e^ε, from :func:`noise_cv2`; broadcastable to ``(..., d)``.

    Returns:
        (bias, variance), each ``(..., d)`` in the dtype of ``values``; half types are computed in float32.

    Raises:
        ValueError: ``scores`` and ``values`` of different length.

    Cost: about 6nd operations. Source: the delta method for the ratio of sums in article 9593.

    >>> perturbation_moments(torch.zeros(2), torch.tensor([[0.0], [2.0]]), 0.1)
    (tensor([-0.]), tensor([0.0500]))
    """
    _check_lengths(scores, values)
    check_number("cv2", cv2)
    p = _log_probabilities(scores, -1).exp()
    wide = values.to(p.dtype)
    residual = wide - p.unsqueeze(-2) @ wide  # (..., n, d)
    squares = p.square().unsqueeze(-2)
    cv2 = cv2.to(p.dtype) if isinstance(cv2, Tensor) else cv2
    bias = -cv2 * (squares @ residual).squeeze(-2)
    variance = cv2 * (squares @ residual.square()).squeeze(-2)
    return bias.to(values.dtype), variance.to(values.dtype)


def _log_probabilities(logits: Tensor, dim: int) -> Tensor:
    """log softmax in float32 or better; all −inf where every logit is, equal shares of those that are +inf."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    infinite = wide == math.inf
    wide = torch.where(infinite.any(dim, keepdim=True), torch.where(infinite, 0.0, -math.inf), wide)
    nothing = (wide == -math.inf).all(dim, keepdim=True)
    log_p = torch.where(nothing, 0.0, wide).log_softmax(dim)
    return torch.where(nothing, -math.inf, log_p)


def _check_logits(logits: Tensor, dim: int) -> None:
    check_dtype("logits", logits, "floating")
    if logits.dim() or dim not in (0, -1):  # a single number has the dimension 0 as torch.softmax says
        check_dim(dim, logits, "logits")
    if not all(logits.shape[dim : dim + 1 or None]):
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, expected at least one entry in dim {dim}")


def _check_lengths(scores: Tensor, values: Tensor) -> None:
    check_dtype("scores", scores, "floating")
    check_dtype("values", values, "floating")
    check_shape("scores", scores, ("...", "n"))
    check_shape("values", values, ("...", "n", "d"))
    if scores.shape[-1] != values.shape[-2]:
        raise ValueError(f"values: got length {values.shape[-2]}, expected {scores.shape[-1]} as scores has")
