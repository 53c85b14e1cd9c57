"""Elementary symmetric polynomials of many weights: products of linear polynomials on a balanced tree.

The k-th elementary symmetric polynomial of the weights wᵢ is the coefficient of tᵏ in ∏ᵢ(1 + wᵢt). For independent
Bernoulli variables with success probability qᵢ = σ(uᵢ) the polynomial ∏ᵢ(1 − qᵢ + qᵢt) has as k-th coefficient the
probability of k successes, and differs from the former by the factor ∏ᵢ(1 + e^{uᵢ}) only. Every operation here adds
and multiplies numbers that are not negative, so nothing cancels.

Inside the tree a polynomial lies along dimension 0, nodes along dimension 1 and rows of the batch along dimension 2:
a coefficient of all nodes and rows is one contiguous block. A node of 2ʲ leaves holds min(2ʲ, k) + 1 coefficients, so
that a tree over n leaves costs O(nk) operations and O(n log k) memory.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kexue_lib.distributions.smooth_topk._polynomial_product import correlation, product, toeplitz


def bernoulli_marginals(u: Float[Tensor, "*batch n"], k: int) -> tuple[Tensor, Tensor]:
    """Probabilities that a Bernoulli variable succeeds, and that it fails, given k successes in all.

    pᵢ = P(Bᵢ = 1 | ΣB = k) for independent Bᵢ ~ Bernoulli(σ(uᵢ)). Adding a constant to u changes nothing but the
    rounding: Σσ(uᵢ) should be near k, so that P(ΣB = k) is not tiny. Both results carry full relative accuracy down to
    the underflow of the dtype: every term of pᵢ that is representable is a product of factors that are.

    Args:
        u: log-odds (..., n), finite.
        k: number of successes, 1 ≤ k ≤ n/2.

    Returns:
        p and 1 − p, each (..., n), differentiable any number of times.

    Cost: O(nk) operations in O(log n) levels, O(n log k) memory.
    """
    leaves, shape = _leaves(u)
    levels = _products(leaves, k, stop_at=2)
    left, right = levels[-1].chunk(2, dim=1)
    # ∂/∂(coefficient i of one half) of coefficient k of the product is coefficient k − i of the other half.
    outside = torch.cat((right.flip(0), left.flip(0)), dim=1)
    for level in reversed(levels[:-1]):
        partners = torch.stack(_halves(level)[::-1], dim=1)
        outside = outside.unsqueeze(1).expand(-1, 2, -1, -1)
        outside = correlation(outside, partners, level.shape[0]).flatten(1, 2)[:, : level.shape[1]]
    failure, success = leaves * outside
    total = failure + success
    p, rest = ((part / total).t().reshape(shape) for part in (success, failure))
    return p, rest


def bernoulli_count(u: Float[Tensor, "*batch n"], k: int) -> Float[Tensor, "*batch degrees"]:
    """Probabilities of 0, …, min(k, n) successes among independent Bernoulli variables of log-odds u.

    The Poisson-binomial distribution: coefficient j of ∏ᵢ(1 − qᵢ + qᵢt), qᵢ = σ(uᵢ). Cost: O(nk).

    Args:
        u: log-odds (..., n), finite.
        k: largest count wanted, k ≥ 1.

    Returns:
        P(ΣB = j), (..., min(k, n) + 1), differentiable any number of times.

    >>> bernoulli_count(torch.zeros(3), 3)
    tensor([0.1250, 0.3750, 0.3750, 0.1250])
    """
    leaves, shape = _leaves(u)
    root = _products(leaves, k)[-1][: shape[-1] + 1, 0]  # padding to a whole tree adds degrees of probability 0
    return root.t().reshape(*shape[:-1], len(root))


def log_polynomial(x: Float[Tensor, "*batch n"], k: int) -> Float[Tensor, "*batch degrees"]:
    """Logarithms of the coefficients 0, …, k of ∏ᵢ(1 + e^{xᵢ}t), by the tree in log space.

    Each degree keeps its own relative accuracy at any spread of x, which no common scale could give.
    Cost: O(nk) exponentials in O(log n) levels.

    Args:
        x: logarithms of the weights (..., n); −inf is the weight 0.
        k: largest degree, 1 ≤ k ≤ n.

    Returns:
        log e₀ … log e_k, (..., k + 1); −inf where the coefficient is 0.
    """
    rows = x.reshape(-1, x.shape[-1]).t()
    level = torch.stack((torch.zeros_like(rows), rows))
    while level.shape[1] > 1:
        left, right = _halves(level, one=0.0, zero=-torch.inf)
        degree = min(2 * (level.shape[0] - 1), k)
        right = torch.cat((right, torch.full_like(right[:1], -torch.inf)))
        level = _logsumexp(left + right[toeplitz(degree + 1, left.shape[0], right.shape[0] - 1, x.device)])
    return level[: k + 1, 0].t().reshape(*x.shape[:-1], k + 1)


def sample_given_count(
    u: Float[Tensor, "*batch n"], k: int, num_samples: int, generator: torch.Generator | None = None
) -> Bool[Tensor, "samples *batch n"]:
    """Exact samples of independent Bernoulli variables of log-odds u, given k successes in all.

    From the root down, the count d of a node is split between its halves: i on the left with probability
    proportional to aᵢ·b_{d−i}. Cost: O(nk) for the tree, O(n·k) per sample in O(log n) levels.

    Args:
        u: log-odds (..., n), finite, Σσ(u) near k.
        k: number of successes, 1 ≤ k ≤ n.
        num_samples: number of independent samples.
        generator: source of randomness.

    Returns:
        Indicators (num_samples, ..., n) with exactly k ones each.
    """
    leaves, shape = _leaves(u)
    levels = _products(leaves, k)
    count = torch.full((num_samples, 1, leaves.shape[2]), k, device=u.device)
    for level in reversed(levels[:-1]):
        left, right = _halves(level)
        size = level.shape[0]
        other = count[:, None] - torch.arange(size, device=u.device)[:, None, None]  # count of the right half
        possible = (other >= 0) & (other < size)
        right = right.expand(num_samples, *right.shape).gather(1, other.clamp(0, size - 1))
        cumulative = torch.where(possible, left * right, 0).cumsum(1)
        draw = torch.rand(count.shape, dtype=u.dtype, device=u.device, generator=generator)
        chosen = (cumulative <= draw[:, None] * cumulative[:, -1:]).sum(1)  # never an index of weight 0, as draw < 1
        count = torch.cat((chosen, count - chosen), dim=1)[:, : level.shape[1]]
    return count.transpose(1, 2).reshape(num_samples, *shape).bool()


def _leaves(u: Tensor) -> tuple[Tensor, torch.Size]:
    rows = u.reshape(-1, u.shape[-1]).t()
    return torch.stack((torch.sigmoid(-rows), torch.sigmoid(rows))), u.shape


def _products(leaves: Tensor, k: int, stop_at: int = 1) -> list[Tensor]:
    """Levels of the tree from the leaves to the level of `stop_at` nodes, truncated at degree k."""
    levels = [leaves]
    while (level := levels[-1]).shape[1] > stop_at:
        left, right = _halves(level)
        levels.append(product(left, right, min(2 * (level.shape[0] - 1), k)))
    return levels


def _halves(level: Tensor, one: float = 1.0, zero: float = 0.0) -> tuple[Tensor, Tensor]:
    """Partners of the next level: node i with node i + half, so that both halves are contiguous."""
    if level.shape[1] % 2:
        unit = torch.full_like(level[:, :1], zero)
        unit[0] = one
        level = torch.cat((level, unit), dim=1)
    left, right = level.chunk(2, dim=1)
    return left, right


def _logsumexp(terms: Tensor) -> Tensor:
    """Logsumexp over dimension 1 whose derivatives of every order are 0, not NaN, where all terms are −inf."""
    largest = terms.detach().amax(1, keepdim=True)
    largest = largest.masked_fill(largest == -torch.inf, 0)
    total = (terms - largest).exp().sum(1)
    empty = total == 0
    return (total.masked_fill(empty, 1).log() + largest.squeeze(1)).masked_fill(empty, -torch.inf)
