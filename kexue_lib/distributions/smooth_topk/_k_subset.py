"""The random k-subset S of n entries with P(S) ∝ e^{Σ_{i∈S} xᵢ}: normaliser, marginals, odds and samples.

S is the set of successes of independent Bᵢ ~ Bernoulli(σ(xᵢ − c)), given that there are k of them, for any c. With c
such that Σσ(xᵢ − c) ≈ k, the condition has a probability near 1/√(2π Σσ(1 − σ)) and never a tiny one: that makes
products of probabilities in linear space safe in float32 at any spread of x. Orders above n/2 are computed through the
complement of S. Scores come in float32 or float64; `kexue_lib.distributions.smooth_topk` has the public functions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kexue_lib._autograd import remember_signature
from kexue_lib.distributions.smooth_topk._elementary_symmetric import (
    bernoulli_count,
    bernoulli_marginals,
    sample_given_count,
)
from kexue_lib.distributions.smooth_topk._threshold import TILT_STEPS, balance, kth_largest, scaled, tilt


def marginals(x: Tensor, k: int, tau: float | Tensor = 1.0) -> Tensor:
    """P(i ∈ S) (..., n) for the scores x/τ; 1 ≤ k < n."""
    n, u = x.shape[-1], tilt(x, k, tau)
    # p and 1 − p are both sums of positive terms: taking the complement cancels nothing.
    return bernoulli_marginals(u, k)[0] if 2 * k <= n else bernoulli_marginals(-u, n - k)[1]


def log_normaliser(x: Tensor, k: int) -> Tensor:
    """log e_k(e^x) (...), whose gradient is `marginals` to full relative accuracy; −inf where it is log 0."""
    if k == x.shape[-1]:
        return x.sum(-1)
    if torch.compiler.is_compiling():  # graphs have first derivatives only
        fixed = x.detach()
        change = (x - fixed).masked_fill(fixed == -torch.inf, 0)
        return _log_normaliser(fixed, k) + (marginals(fixed, k) * change).sum(-1)
    return _LogNormaliser.apply(x, k)


def log_inverse_odds(others: Tensor, x: Tensor, k: int, tau: float | Tensor = 1.0) -> Tensor:
    """log P(t ∉ S)/P(t ∈ S) = log e_k(others) − log e_{k−1}(others) − x_t/τ (...), where t is not among the others.

    Args:
        others: scores (..., n) of the other entries.
        x: score (..., 1) of t.
        k: 1 ≤ k ≤ n.
        tau: temperature of both.
    """
    n = others.shape[-1]
    if 2 * k > n + 1:  # e_k(w) / e_{k−1}(w) = e_{n−k}(1/w) / e_{n−k+1}(1/w)
        return -log_inverse_odds(-others, -x, n - k + 1, tau)
    anchor, _ = kth_largest(others, k)
    y = scaled(others, anchor, tau)
    # At a mean of k − ½ both k − 1 and k successes are likely, whatever the spread: 2k − 1 of all entries doubled.
    doubled = y.detach().repeat_interleave(2, dim=-1)
    level = balance(doubled, kth_largest(doubled, 2 * k - 1)[1], "sigmoid", TILT_STEPS)
    count = bernoulli_count(y - level, k)
    target = (x - anchor) / tau
    return (level - target).squeeze(-1) + count[..., k].log() - count[..., k - 1].log()


def sample(x: Tensor, k: int, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
    """Independent samples of S as indicators (num_samples, ..., n)."""
    n = x.shape[-1]
    if k == n:
        return torch.ones(num_samples, *x.shape, dtype=torch.bool, device=x.device)
    u = tilt(x, k, 1.0)
    if 2 * k <= n:
        return sample_given_count(u, k, num_samples, generator)
    return ~sample_given_count(-u, n - k, num_samples, generator)


def _log_normaliser(x: Tensor, k: int) -> Tensor:
    n, u = x.shape[-1], tilt(x, k, 1.0)
    likely = bernoulli_count(u, k)[..., -1] if 2 * k <= n else bernoulli_count(-u, n - k)[..., -1]
    # log Π(1 + e^u) + kc, put together as x = u + c for the k largest and log(1 + e^·) of what is negative as a rule.
    largest, index = x.topk(k, dim=-1, sorted=False)
    remainder = -logsigmoid(u.neg().scatter(-1, index, u.gather(-1, index))).sum(-1)
    value = largest.sum(-1) + remainder + likely.log()
    return torch.where((x > -torch.inf).sum(-1) < k, -torch.inf, value)


@remember_signature
class _LogNormaliser(torch.autograd.Function):
    """Its derivative is a function of x that is differentiable in turn."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, k: int) -> Tensor:
        return _log_normaliser(x, k)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.k = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad.unsqueeze(-1) * marginals(x, ctx.k), None

    @staticmethod
    def jvp(ctx, tangent, _):
        (x,) = ctx.saved_tensors
        return (tangent * marginals(x, ctx.k)).sum(-1)
