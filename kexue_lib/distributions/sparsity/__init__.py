"""How sparse is a vector: norm ratios, Gini index, Hoyer measure, Rényi entropies, and the axioms that tell them apart.

Source: Su Jianlin, "How to measure the sparsity of data?", 2023, https://kexue.fm/archives/9595; Hurley and Rickard,
"Comparing Measures of Sparsity", arXiv 0811.4706.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_number
from kexue_lib._autocast import without_autocast
from kexue_lib.distributions.sparsity._axioms import AxiomReport, check_axioms
from kexue_lib.distributions.sparsity._meter import SparsityMeter
from kexue_lib.distributions.sparsity._power_sums import (
    count,
    in_double,
    magnitude,
    power_sums,
    reduced_dims,
    scale,
    sums_in_double,
)

__all__ = [
    "AxiomReport",
    "SparsityMeter",
    "check_axioms",
    "effective_number",
    "gini",
    "hoyer",
    "norm_ratio",
    "power_mean",
    "renyi_entropy",
    "sparsity_penalty",
    "theil",
]

Dim = int | tuple[int, ...] | None


def power_mean(x: Float[Tensor, "..."], p: float | int, dim: Dim = -1, keepdim: bool = False) -> Float[Tensor, "..."]:
    """Power mean of the magnitudes.

    M_p(x) = (1/n Σ|xᵢ|ᵖ)^{1/p}; p = inf: max, p = −inf: min, p = 0: geometric mean. Increases with p.

    Args:
        x: any shape.
        p: any real number or ±inf.
        dim: dimensions to reduce; None for all.
        keepdim: keep them as size 1.

    Returns:
        The reduced shape, dtype of x. 0 for p ≤ 0 where an entry is 0; inf for p > 0 where an entry is infinite.
        Gradients at zeros, and of such results, are 0.

    Raises:
        TypeError: x is not floating, p is no number.
        ValueError: p is NaN; dim is out of range or empty.

    Cost: two passes over x: the scale, then the sum; powers of |x|/max cannot overflow. Backward: one more.
    Source: article 9595, the powers behind l_p.

    >>> power_mean(torch.tensor([1.0, -4.0]), 0.0), power_mean(torch.tensor([3e30, -4e30, 0.0, 0.0]), 2.0)
    (tensor(2.), tensor(2.5000e+30))
    """
    check_dtype("x", x, "floating")
    check_number("p", p)
    dims = reduced_dims(x, dim)
    wide, n = x.to(_compute_dtype(x)), count(x, dims)
    size = magnitude(wide)
    if math.isinf(p):
        extreme = wide.abs()
        out = extreme.amax(dims, keepdim=True) if p > 0 else extreme.amin(dims, keepdim=True)
        return _finish(out, dims, keepdim, x)
    zero = size == 0
    if p == 0:
        out = torch.where(zero, 1.0, size).log().mean(dims, keepdim=True).exp()
    else:
        unit = scale(wide, dims, smallest=p < 0)
        (total,) = power_sums(wide, unit, (p,), dims)
        out = unit * (torch.where(total == 0, n, total) / n).log().div(p).exp()
    empty = zero.any(dims, keepdim=True) if p <= 0 else zero.all(dims, keepdim=True)
    infinite = wide.detach().isinf()
    infinite = infinite.any(dims, keepdim=True) if p >= 0 else infinite.all(dims, keepdim=True)
    return _finish(torch.where(empty, 0.0, torch.where(infinite, math.inf, out)), dims, keepdim, x)


def norm_ratio(
    x: Float[Tensor, "..."], q: float | int = 1.0, p: float | int = 2.0, dim: Dim = -1, keepdim: bool = False
) -> Float[Tensor, "..."]:
    """Ratio of two power means: 1 for a constant vector, smaller = sparser.

    S*_{q,p}(x) = M_q(x)/M_p(x) = n^{1/p − 1/q} ‖x‖_q/‖x‖_p, between n^{1/p − 1/q} (one nonzero entry) and 1.
    All six axioms of `check_axioms` hold for q ≤ 1 ≤ p, except for (1, inf); for other powers D1 fails.

    Args:
        x: any shape.
        q: power of the numerator, > 0.
        p: power of the denominator, q < p ≤ inf.
        dim: dimensions to reduce; None for all.
        keepdim: keep them as size 1.

    Returns:
        The reduced shape, dtype of x; half types are computed in float32. 1 for a zero vector. Infinite entries count
        as equal and beyond all others. The gradient is S (|x|^{q−1}/Σ|x|^q − |x|^{p−1}/Σ|x|^p) sign(x); entries that
        are 0 have gradient 0.

    Raises:
        TypeError: x is not floating, q or p is no number.
        ValueError: not 0 < q < p ≤ inf; dim is out of range or empty.

    Cost: a maximum and both sums; with rows that fit the cache, compiled code reads x once. Compiled on a CPU for
    float32, (q, p) = (1, 2) is summed in float64 and needs no maximum. The backward pass saves x and one number for
    each sum.
    Source: article 9595, S*_{q,p}; arXiv 0811.4706, the pq-mean.

    >>> norm_ratio(torch.tensor([[1.0, 1.0, 1.0, 1.0], [1e30, 0.0, 0.0, 0.0]]))
    tensor([1.0000, 0.5000])
    """
    check_dtype("x", x, "floating")
    check_number("q", q)
    check_number("p", p)
    if not 0 < q < p:
        raise ValueError(f"q, p: got {q} and {p}, expected 0 < q < p <= inf")
    dims = reduced_dims(x, dim)
    wide, n = x.to(_compute_dtype(x)), count(x, dims)
    if in_double(wide, (q, p)):
        below, above = sums_in_double(wide, (q, p), dims)
        log_above = _log_or_zero(above / n) / p
    elif math.isinf(p):
        unit = scale(wide, dims)
        (below,) = power_sums(wide, unit, (q,), dims)
        log_above = _log_or_zero(magnitude(wide).amax(dims, keepdim=True) / unit)
    else:
        below, above = power_sums(wide, scale(wide, dims), (q, p), dims)
        log_above = _log_or_zero(above / n) / p
    out = (_log_or_zero(below / n) / q - log_above).exp()
    return _finish(out, dims, keepdim, x)


def sparsity_penalty(
    x: Float[Tensor, "..."], q: float | int = 1.0, p: float | int = 2.0, dim: Dim = -1
) -> Float[Tensor, ""]:
    """Mean of `norm_ratio`: a regulariser that makes vectors sparse without shrinking them.

    Its gradient is orthogonal to each vector, because the ratio does not change when the vector is scaled.

    Args:
        x: any shape.
        q: power of the numerator.
        p: power of the denominator.
        dim: dimensions of one vector; the mean is over all others.

    Returns:
        A scalar of the dtype of x; NaN if there is no vector.

    Raises:
        TypeError, ValueError: as `norm_ratio`.

    Cost: as `norm_ratio`. Source: article 9595, the remark on regularisation.

    >>> sparsity_penalty(torch.eye(4))
    tensor(0.5000)
    """
    return norm_ratio(x, q, p, dim).mean()


@without_autocast
def gini(x: Float[Tensor, "..."], dim: Dim = -1, keepdim: bool = False) -> Float[Tensor, "..."]:
    """Gini index of the magnitudes: twice the area between the Lorenz curve and the diagonal; larger = sparser.

    G(x) = Σ_k w_k |x|_(k)/Σ|x|, w_k = (2k − n − 1)/n, ascending; equal to Σ_{ij} ||xᵢ| − |xⱼ||/(2n Σ|x|).
    Between 0 (constant) and 1 − 1/n (one nonzero entry).

    Args:
        x: any shape.
        dim: dimensions to reduce; None for all.
        keepdim: keep them as size 1.

    Returns:
        The reduced shape, dtype of x; half types are computed in float32. 0 for a zero vector. Infinite entries count
        as equal and beyond all others. Among equal entries the gradient is one of the subgradients.

    Raises:
        TypeError: x is not floating.
        ValueError: dim is out of range or empty.

    Cost: one sort, O(n log n) time, O(n) memory also for the gradient. Source: article 9595; arXiv 0811.4706.

    >>> gini(torch.tensor([0.0, 3.0, 0.0, -1.0]))
    tensor(0.6250)
    """
    check_dtype("x", x, "floating")
    dims = reduced_dims(x, dim)
    wide, n = x.to(_compute_dtype(x)), count(x, dims)
    size = magnitude(wide) / scale(wide, dims)
    kept = tuple(i for i in range(x.dim()) if i not in dims)
    rows = size.permute((*kept, *dims)).reshape(*(x.shape[i] for i in kept), n)
    ascending = rows.sort(dim=-1).values
    weights = torch.arange(1 - n, n, 2, dtype=wide.dtype, device=x.device) / n
    total = ascending.sum(-1)
    out = (ascending @ weights) / torch.where(total == 0, 1.0, total)
    if keepdim:
        out = out.reshape([1 if i in dims else s for i, s in enumerate(x.shape)])
    return out.to(x.dtype)


def hoyer(x: Float[Tensor, "..."], dim: Dim = -1, keepdim: bool = False) -> Float[Tensor, "..."]:
    """Hoyer's sparseness: 0 for a constant vector, 1 for one nonzero entry; larger = sparser.

    (√n − ‖x‖₁/‖x‖₂)/(√n − 1) = √n (1 − S*_{1,2}(x))/(√n − 1); 0 for n = 1.

    Args:
        x: any shape.
        dim: dimensions to reduce; None for all.
        keepdim: keep them as size 1.

    Returns:
        The reduced shape, dtype of x; 0 for a zero vector.

    Raises:
        TypeError, ValueError: as `norm_ratio`.

    Cost: as `norm_ratio`. Source: Hoyer, JMLR 5, 2004, section 2.

    >>> hoyer(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, -2.0, 0.0, 0.0]]))
    tensor([0., 1.])
    """
    check_dtype("x", x, "floating")
    root = math.sqrt(count(x, reduced_dims(x, dim)))
    wide = x.to(_compute_dtype(x))
    gap = 1 - norm_ratio(wide, 1.0, 2.0, dim, keepdim)
    return (gap * (root / (root - 1) if root > 1 else 0.0)).to(x.dtype)


def theil(x: Float[Tensor, "..."], dim: Dim = -1, keepdim: bool = False) -> Float[Tensor, "..."]:
    """Theil index: the Kullback–Leibler divergence of the shares |x|/Σ|x| from equal shares; larger = sparser.

    T(x) = log n − H₁(|x|/‖x‖₁) = 1/n Σ rᵢ log rᵢ, rᵢ = |xᵢ|/M₁(x). Between 0 (constant) and log n.

    Args:
        x: any shape.
        dim: dimensions to reduce; None for all.
        keepdim: keep them as size 1.

    Returns:
        The reduced shape, dtype of x, in nats; 0 for a zero vector. Entries that are 0 have gradient 0.

    Raises:
        TypeError: x is not floating.
        ValueError: dim is out of range or empty.

    Cost: three passes over x. Source: article 9595, the entropy that it ends on; Theil, 1967.

    >>> theil(torch.tensor([2.0, 0.0, 0.0, 0.0])).exp()
    tensor(4.)
    """
    check_dtype("x", x, "floating")
    dims = reduced_dims(x, dim)
    wide = x.to(_compute_dtype(x))
    unit = scale(wide, dims)
    (total,) = power_sums(wide, unit, (1.0,), dims)
    share = magnitude(wide) / unit / torch.where(total == 0, 1.0, total)
    relative = torch.where(share == 0, 1.0, share * count(x, dims))
    return _finish((share * relative.log()).sum(dims, keepdim=True), dims, keepdim, x)


def renyi_entropy(
    p: Float[Tensor, "..."],
    alpha: float | int = 1.0,
    dim: Dim = -1,
    keepdim: bool = False,
    log_input: bool = False,
) -> Float[Tensor, "..."]:
    """Rényi entropy of order α, in nats.

    H_α(p) = log(Σ pᵢ^α)/(1 − α); α = 1: Shannon, −Σ pᵢ log pᵢ; α = 0: log of the number of pᵢ > 0; α = inf: −log max.
    Decreases with α; between 0 and log n.

    Args:
        p: probabilities of any shape, not renormalised; of negative numbers the magnitude counts.
        alpha: order, ≥ 0 or inf.
        dim: dimensions to reduce; None for all.
        keepdim: keep them as size 1.
        log_input: p holds log-probabilities; −inf is a probability of 0.

    Returns:
        The reduced shape, dtype of p; half types are computed in float32. If all probabilities are 0: the formula's
        limit, 0 for α = 1, −inf for α < 1, +inf for α > 1. Probabilities that are 0 have gradient 0 (for α ≤ 1 the true
        one is infinite). Near α = 1 an error of eps in Σp becomes eps/|1 − α|.

    Raises:
        TypeError: p is not floating, alpha is no number.
        ValueError: alpha is negative or NaN; dim is out of range or empty.

    Cost: α ∉ {0, 1, inf}: a maximum and a sum of powers (with `log_input`, of exponentials); one logarithm a vector.
    Source: article 9595, the section on entropy; Rényi, 1961.

    >>> renyi_entropy(torch.tensor([0.5, 0.5, 0.0]), 2.0).exp()
    tensor(2.)
    >>> renyi_entropy(torch.tensor([-1000.0, -1000.0, -float("inf")]).log_softmax(-1), log_input=True).exp().round()
    tensor(2.)
    """
    check_dtype("p", p, "floating")
    check_number("alpha", alpha, least=0)
    dims = reduced_dims(p, dim, "p")
    wide = p.to(_compute_dtype(p))
    entropy = _entropy_of_logarithms if log_input else _entropy_of_probabilities
    return _finish(entropy(wide, float(alpha), dims), dims, keepdim, p)


def effective_number(
    p: Float[Tensor, "..."],
    alpha: float | int = 2.0,
    dim: Dim = -1,
    keepdim: bool = False,
    log_input: bool = False,
) -> Float[Tensor, "..."]:
    """Effective number of outcomes: how many equally likely ones have the same Rényi entropy.

    e^{H_α(p)}: 1 for a certain outcome, n for a uniform distribution. α = 2: 1/Σp², the inverse participation ratio;
    α = 1: the perplexity; α = 0: the size of the support; α = inf: 1/max p.

    Args:
        p: probabilities, as in `renyi_entropy`.
        alpha: order, ≥ 0 or inf.
        dim: dimensions to reduce; None for all.
        keepdim: keep them as size 1.
        log_input: p holds log-probabilities.

    Returns:
        The reduced shape, dtype of p.

    Raises:
        TypeError, ValueError: as `renyi_entropy`.

    Cost: as `renyi_entropy`. Source: article 9595; Hill, Ecology 54, 1973.

    >>> effective_number(torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])).round()
    tensor([4., 1.])
    """
    check_dtype("p", p, "floating")
    entropy = renyi_entropy(p.to(_compute_dtype(p)), alpha, dim, keepdim, log_input)
    return entropy.exp().to(p.dtype)


# -- entropies along dims, kept as size 1 ------------------------------------------------------------------------------


def _entropy_of_probabilities(p: Tensor, alpha: float, dims: tuple[int, ...]) -> Tensor:
    if alpha == 1:
        safe = torch.where(p == 0, 1.0, p.abs())  # 1 log 1 = 0, and no gradient
        return -(safe * safe.log()).sum(dims, keepdim=True)
    if math.isinf(alpha):
        return -_log_or_minus_inf(p.abs().amax(dims, keepdim=True))
    unit = scale(p, dims)
    (total,) = power_sums(p, unit, (alpha,), dims)
    return (alpha * unit.log() + _log_or_minus_inf(total)) / (1 - alpha)


def _entropy_of_logarithms(log_p: Tensor, alpha: float, dims: tuple[int, ...]) -> Tensor:
    impossible = log_p == -math.inf
    if alpha == 1:
        safe = torch.where(impossible, 0.0, log_p)
        return -(safe.exp() * safe).sum(dims, keepdim=True)  # e⁰ · 0 = 0, and no gradient
    if math.isinf(alpha):
        return -log_p.amax(dims, keepdim=True)
    largest = log_p.detach().amax(dims, keepdim=True)
    largest = torch.where(largest == -math.inf, 0.0, largest)
    below = torch.where(impossible, 0.0, log_p) - largest
    total = torch.where(impossible, 0.0, (alpha * below).exp()).sum(dims, keepdim=True)
    return (alpha * largest + _log_or_minus_inf(total)) / (1 - alpha)


def _log_or_zero(total: Tensor) -> Tensor:
    """log, and 0 without gradient where the total is 0 (a zero vector)."""
    return torch.where(total == 0, 1.0, total).log()


def _log_or_minus_inf(total: Tensor) -> Tensor:
    """log, and −inf without gradient where the total is 0."""
    return torch.where(total == 0, -math.inf, _log_or_zero(total))


# -- edges -------------------------------------------------------------------------------------------------------------


def _finish(out: Tensor, dims: tuple[int, ...], keepdim: bool, x: Tensor) -> Tensor:
    """Drop the reduced dimensions unless they are kept; back to the dtype of x."""
    if not keepdim:
        out = out.reshape([s for i, s in enumerate(x.shape) if i not in dims])
    return out.to(x.dtype)


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
