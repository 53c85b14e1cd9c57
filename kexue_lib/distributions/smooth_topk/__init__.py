"""Smooth approximations of Top-k: from scores to k-hot vectors with values in [0, 1] that sum to k.

Source: Su Jianlin, "Sequel to softmax: in search of a smooth approximation of Top-K", 2024,
https://kexue.fm/archives/10373.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib.distributions.smooth_topk._elementary_symmetric import log_polynomial
from kexue_lib.distributions.smooth_topk._k_subset import log_inverse_odds, log_normaliser, marginals, sample
from kexue_lib.distributions.smooth_topk._threshold import RESPONSES, marks, solution

__all__ = [
    "SmoothTopK",
    "grad_topk",
    "hard_topk",
    "iterative_topk",
    "log_elementary_symmetric",
    "log_partition",
    "sample_k_subset",
    "thre_topk",
    "threshold",
    "topk_cross_entropy",
]

Threshold = Literal["sigmoid", "laplace", "minexp", "clip"]


def hard_topk(x: Float[Tensor, "*batch n"], k: int) -> Float[Tensor, "*batch n"]:
    """Mark the k largest entries: 1 there, 0 elsewhere. Of equal entries the first ones are taken.

    Args:
        x: scores (..., n).
        k: how many, 1 ≤ k ≤ n.

    Returns:
        (..., n) of the dtype of x with k ones, without gradient; NaN in rows with fewer than k entries above −inf.

    Raises:
        TypeError: x is not floating, k is no int.
        ValueError: k is outside 1 … n.

    Cost: one stable sort. Source: article 10373, the definition of 𝒯ₖ.

    >>> hard_topk(torch.tensor([3.0, 2.0, 1.0, 4.0]), 2)
    tensor([1., 0., 0., 1.])
    """
    _check(x, k)
    x = x.detach()
    index = x.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return _nan_where_too_few(torch.zeros_like(x).scatter(-1, index, 1.0), x, k)


def iterative_topk(
    x: Float[Tensor, "*batch n"], k: int, variant: Literal["shift", "weighted"] = "shift"
) -> Float[Tensor, "*batch n"]:
    """Two iterations that look like a smooth Top-k and are none; kept to show how they fail.

    "shift": x ← x − min x, then k times p ← p + softmax((1 − p)x): exceeds 1 (n = k = 2, x = (a, 0), a > 0).
    "weighted": k times p ← p + softmax of x with weights 1 − p: tends to (1.5, 0.5, 0, …) instead of (1, 1, 0, …).

    Args:
        x: scores (..., n), finite.
        k: how many, 1 ≤ k ≤ n.
        variant: which iteration.

    Returns:
        (..., n), summing to k; values may exceed 1.

    Raises:
        TypeError: x is not floating, k is no int.
        ValueError: k is outside 1 … n, or an unknown variant.

    Cost: k softmaxes. Source: article 10373, the two iterative constructions.

    >>> iterative_topk(torch.tensor([3.0, 0.0, 0.0]), 2)
    tensor([1.3056, 0.3472, 0.3472])
    """
    _check(x, k)
    check_one_of("variant", variant, ("shift", "weighted"))
    scores = _wide(x)
    scores = scores - scores.amin(-1, keepdim=True) if variant == "shift" else scores
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    p = torch.zeros_like(scores)
    for _ in range(k):
        if variant == "shift":
            p = p + torch.softmax((1 - p) * scores, dim=-1)
        else:
            share = (1 - p) * weights
            p = p + share / share.sum(-1, keepdim=True)
    return p.to(x.dtype)


def log_elementary_symmetric(x: Float[Tensor, "*batch n"], k: int) -> Float[Tensor, "*batch degrees"]:
    """Logarithms of the elementary symmetric polynomials e₀ … e_k of the weights e^{xᵢ}.

    e_j = Σ_{i₁<…<i_j} e^{x_{i₁}+…+x_{i_j}}, by a balanced tree of products in log space: only additions of positive
    numbers, so that each degree keeps its relative accuracy at any spread of x.

    Args:
        x: logarithms of the weights (..., n); −inf is the weight 0.
        k: largest degree, 1 ≤ k ≤ n.

    Returns:
        (..., k + 1): log e₀ = 0, log e₁ = logsumexp x, …; differentiable twice; −inf where e_j = 0.

    Raises:
        TypeError: x is not floating, k is no int.
        ValueError: k is outside 1 … n.

    Cost: O(nk) exponentials in O(log n) steps. For one order alone `log_partition` is faster.
    Source: article 10373; Berrada et al., arXiv 1802.07595, section 4 (divide and conquer).

    >>> log_elementary_symmetric(torch.zeros(4), 2).exp()
    tensor([1., 4., 6.])
    """
    _check(x, k)
    return log_polynomial(_wide(x), k).to(x.dtype)


def log_partition(x: Float[Tensor, "*batch n"], k: int) -> Float[Tensor, "*batch"]:
    """Smooth maximum over k-subsets of the sum of their scores, whose gradient is `grad_topk`.

    log Z_k = log Σ_{|S|=k} e^{Σ_{i∈S} xᵢ} = log e_k(e^x).

    Args:
        x: scores (..., n).
        k: size of the subsets, 1 ≤ k ≤ n.

    Returns:
        (...), differentiable any number of times; −inf in rows with fewer than k entries above −inf.

    Raises:
        TypeError: x is not floating, k is no int.
        ValueError: k is outside 1 … n.

    Cost: O(nk) multiplications in O(log n) steps. Source: article 10373, the definition of Z_k.

    >>> log_partition(torch.zeros(4), 2).exp()
    tensor(6.)
    """
    _check(x, k)
    return log_normaliser(_wide(x), k).to(x.dtype)


def grad_topk(x: Float[Tensor, "*batch n"], k: int, tau: float | Tensor = 1.0) -> Float[Tensor, "*batch n"]:
    """GradTopK: the probability that entry i belongs to a random k-subset S with P(S) ∝ e^{Σ_{i∈S} xᵢ/τ}.

    p = ∇ log Z_k(x/τ), pᵢ = e^{xᵢ/τ} e_{k−1}(the other weights) / e_k(all weights).
    It sums to k, lies in [0, 1], keeps the order of x, ignores a common shift, is softmax for k = 1 and tends to the
    hard Top-k as τ → 0. Computed as P(Bᵢ = 1 | ΣB = k) for independent Bᵢ ~ Bernoulli(σ(xᵢ/τ − λ)), with λ such that
    Σσ = k: products of probabilities in linear space, accurate to relative rounding at any spread of x.

    Args:
        x: scores (..., n); −inf excludes an entry (p = 0).
        k: how many, 1 ≤ k ≤ n.
        tau: temperature > 0, in units of x; a 0-dimensional tensor may require gradients and is not checked.

    Returns:
        p (..., n), differentiable any number of times, under vmap and without graph breaks; NaN in rows with fewer
        than k entries above −inf. Half types are computed in float32.

    Raises:
        TypeError: x is not floating, k is no int.
        ValueError: k is outside 1 … n, tau is not positive and finite.

    Cost: O(nk) multiplications in O(log n) steps, O(n log k) saved; orders above n/2 cost as n − k.
    Source: article 10373, GradTopK; the tree: Berrada et al., arXiv 1802.07595.

    Weights 1, 2, 3 have the pairs 1·2, 1·3, 2·3 of sum 11, and the marginals 5/11, 8/11, 9/11:

    >>> grad_topk(torch.tensor([1.0, 2.0, 3.0]).log(), 2)
    tensor([0.4545, 0.7273, 0.8182])
    """
    _check(x, k, tau)
    if k == x.shape[-1]:
        return _all_ones(x)
    return _nan_where_too_few(marginals(_wide(x), k, tau), x, k).to(x.dtype)


def threshold(x: Float[Tensor, "*batch n"], k: int, f: Threshold = "sigmoid") -> Float[Tensor, "*batch 1"]:
    """The λ at which Σᵢ f(xᵢ − λ) = k.

    f is one of σ(u) ("sigmoid"), the Laplace distribution function ½e^u | 1 − ½e^{−u} ("laplace"), min(1, e^u)
    ("minexp"), clip(u, 0, 1) ("clip"). ∂λ/∂xⱼ = f'(xⱼ − λ) / Σᵢ f'(xᵢ − λ).

    Args:
        x: scores (..., n), not divided by any temperature; −inf excludes an entry.
        k: how many, 1 ≤ k ≤ n.
        f: the response.

    Returns:
        λ (..., 1), differentiable (twice for sigmoid); NaN in rows with fewer than k entries above −inf, −inf for
        sigmoid and laplace where exactly k are. "clip": the largest λ where many solve the equation.

    Raises:
        TypeError: x is not floating, k is no int.
        ValueError: k is outside 1 … n, an unknown f, or k = n for sigmoid and laplace, where λ = −∞.

    Cost: `torch.topk` and O(n) for a fixed number of steps: about a sort.
    Source: article 10373, ThreTopK.

    >>> threshold(torch.tensor([1.0, 3.0]), 1)
    tensor([2.])
    """
    _check(x, k, f=f)
    symmetric = f in ("sigmoid", "laplace")
    if k == x.shape[-1] and symmetric:
        raise ValueError(f"k: got {k}, expected less than n = {k} for f = {f!r}: the threshold of all entries is −∞")
    level = solution(_wide(x), k, f)
    if symmetric:
        level = level.masked_fill((x > -torch.inf).sum(-1, keepdim=True) == k, -torch.inf)
    return _nan_where_too_few(level, x, k).to(x.dtype)


def thre_topk(
    x: Float[Tensor, "*batch n"], k: int, f: Threshold = "sigmoid", tau: float | Tensor = 1.0
) -> Float[Tensor, "*batch n"]:
    """ThreTopK: pᵢ = f(xᵢ/τ − λ) with the λ of `threshold`, at which Σp = k.

    For sigmoid this is GradTopK without conditioning on the count; the gap between them shrinks like 1/n. minexp is
    softmax for k = 1; clip is the Euclidean projection of x/τ on {p ∈ [0, 1]ⁿ, Σp = k}.
    The Jacobian is diag(s) − ssᵀ/Σs with s = f'(x/τ − λ), divided by τ.

    Args:
        x: scores (..., n); −inf excludes an entry (p = 0).
        k: how many, 1 ≤ k ≤ n.
        f: "sigmoid", "laplace", "minexp" or "clip".
        tau: temperature > 0, in units of x; a 0-dimensional tensor may require gradients and is not checked.

    Returns:
        p (..., n), differentiable (minexp and clip away from their kinks; any number of times for sigmoid), under vmap
        and without graph breaks; NaN in rows with fewer than k entries above −inf. Half types compute in float32.

    Raises:
        TypeError: x is not floating, k is no int.
        ValueError: k is outside 1 … n, tau is not positive and finite, an unknown f.

    Cost: `torch.topk` and O(n) for a fixed number of steps: about a sort.
    Source: article 10373, ThreTopK; clip: Blondel et al., arXiv 2002.08871 (the L2 analogue).

    >>> thre_topk(torch.tensor([3.0, 2.0, 1.0, 4.0]), 2, "minexp")
    tensor([0.6652, 0.2447, 0.0900, 1.0000])
    """
    _check(x, k, tau, f)
    if k == x.shape[-1]:
        return _all_ones(x)
    return _nan_where_too_few(marks(_wide(x), k, tau, f), x, k).to(x.dtype)


def sample_k_subset(
    x: Float[Tensor, "*batch n"], k: int, num_samples: int, generator: torch.Generator | None = None
) -> Bool[Tensor, "samples *batch n"]:
    """Exact independent samples of k-subsets S with P(S) ∝ e^{Σ_{i∈S} xᵢ}; their marginals are `grad_topk`.

    Args:
        x: scores (..., n); −inf excludes an entry.
        k: size of the subsets, 1 ≤ k ≤ n.
        num_samples: number of samples ≥ 0.
        generator: source of randomness, on the device of x.

    Returns:
        Indicators (num_samples, ..., n) with k ones each. Probabilities are computed in float64.

    Raises:
        TypeError: x is not floating, k is no int.
        ValueError: k is outside 1 … n, num_samples is negative, or a row of x has NaN or fewer than k entries above
            −inf (checking this waits for the device).

    Cost: O(nk) once and O(nk) per sample, in O(log n) steps. Source: Ahmed et al., arXiv 2210.01941, section 4.

    >>> sample_k_subset(torch.tensor([0.0, -torch.inf, 0.0]), 2, 1)
    tensor([[ True, False,  True]])
    """
    _check(x, k)
    check_integer("num_samples", num_samples, 0)
    scores = x.detach().double()
    if bool(((scores > -torch.inf).sum(-1) < k).any() | scores.isnan().any()):
        raise ValueError(f"x: got NaN or a row of too many −inf, expected at least k = {k} entries above −inf per row")
    return sample(scores, k, num_samples, generator)


def topk_cross_entropy(
    x: Float[Tensor, "*batch n"],
    target: Int[Tensor, "*batch"],
    k: int,
    tau: float | Tensor = 1.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Float[Tensor, "*reduced"]:
    """−log p_t with p of `grad_topk`: the loss of a target that should be among the k largest.

    With the other n − 1 weights, 1/p_t − 1 = e_k(others) / (e^{x_t/τ} e_{k−1}(others)), so the loss is the softplus of
    a difference: finite for any spread of x, and without cancellation where p_t is near 1.

    Args:
        x: scores (..., n).
        target: index of the target (...), in 0 … n − 1.
        k: how many, 1 ≤ k ≤ n.
        tau: temperature > 0, in units of x.
        reduction: "mean", "sum" or "none".

    Returns:
        0-dimensional, or (...) for "none"; 0 for k = n, +inf where the target has score −inf.

    Raises:
        TypeError: x is not floating, k is no int, target is no integer tensor.
        ValueError: k is outside 1 … n, tau is not positive and finite, an unknown reduction, target of another shape.

    Cost: O(nk) multiplications in O(log n) steps.
    Source: article 10373 (GradTopK); Berrada et al., arXiv 1802.07595 (top-k loss).

    >>> topk_cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3]), 2).exp()
    tensor(2.)
    """
    _check(x, k, tau)
    check_dtype("target", target, "integer")
    check_shape("target", target, x.shape[:-1], "as x has without n")
    check_one_of("reduction", reduction, ("mean", "sum", "none"))
    n, scores, target = x.shape[-1], _wide(x), target.unsqueeze(-1).long()
    if k == n:
        loss = _all_ones(scores).gather(-1, target).squeeze(-1) - 1
    else:
        other = torch.arange(n - 1, device=x.device)
        others = scores.gather(-1, other + (other >= target))
        # torch's softplus is the identity above 20, wrong by e^−20.
        loss = -logsigmoid(-log_inverse_odds(others, scores.gather(-1, target), k, tau))
    loss = loss.to(x.dtype)
    return loss if reduction == "none" else getattr(loss, reduction)()


class SmoothTopK(nn.Module):
    """A smooth Top-k layer with a fixed or learnable temperature.

    Args:
        k: how many.
        method: "grad" for `grad_topk`, or the f of `thre_topk`.
        tau: temperature > 0, in units of the scores; the initial one when it is learnable.
        learnable_tau: make log τ a parameter, so that τ stays positive.

    Raises:
        TypeError: k is no int.
        ValueError: k < 1, an unknown method, tau not positive and finite; at the call, k > n.

    Source: article 10373.

    >>> SmoothTopK(2, "minexp", tau=0.5)(torch.tensor([3.0, 2.0, 1.0, 4.0]))
    tensor([0.8668, 0.1173, 0.0159, 1.0000])
    """

    def __init__(
        self,
        k: int,
        method: Literal["grad", "sigmoid", "laplace", "minexp", "clip"] = "grad",
        tau: float = 1.0,
        learnable_tau: bool = False,
    ):
        super().__init__()
        check_integer("k", k, 1)
        check_number("tau", tau, above=0.0, below=math.inf)
        check_one_of("method", method, ("grad", *RESPONSES))
        self.k = k
        self.method: Literal["grad", "sigmoid", "laplace", "minexp", "clip"] = method
        log_tau = torch.tensor(math.log(tau))
        if learnable_tau:
            self.log_tau = nn.Parameter(log_tau)
        else:
            self.register_buffer("log_tau", log_tau)

    @property
    def tau(self) -> Tensor:
        """The temperature, 0-dimensional."""
        return self.log_tau.exp()

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        if self.method == "grad":
            return grad_topk(x, self.k, self.tau)
        return thre_topk(x, self.k, self.method, self.tau)

    def extra_repr(self) -> str:
        learnable = isinstance(self.log_tau, nn.Parameter)
        return f"k={self.k}, method={self.method!r}, tau={self.tau.item():.4g}, learnable_tau={learnable}"


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _all_ones(x: Tensor) -> Tensor:
    """1 with gradient 0 for every entry, NaN in rows with an entry that is −inf or NaN."""
    return _nan_where_too_few(torch.where(x.isnan(), x, torch.ones_like(x)), x, x.shape[-1])


def _nan_where_too_few(result: Tensor, x: Tensor, k: int) -> Tensor:
    return result.masked_fill((x > -torch.inf).sum(-1, keepdim=True) < k, torch.nan)


def _check(x: Tensor, k: int, tau: float | Tensor = 1.0, f: str = "sigmoid") -> None:
    check_dtype("x", x, "floating")
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected at least one entry in the last dimension")
    check_integer("k", k, 1, x.shape[-1], most_is="n")
    if not isinstance(tau, Tensor):
        check_number("tau", tau, above=0.0, below=math.inf)
    check_one_of("f", f, RESPONSES)
