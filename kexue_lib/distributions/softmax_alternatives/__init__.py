"""Maps from scores to probabilities besides softmax, and the loss that belongs to each.

Source: Su Jianlin, "The road to probability distributions: a survey of softmax and its substitutes", 2024,
https://kexue.fm/archives/10145.

Entries of −inf get the probability 0 and no gradient. A slice of nothing but −inf, or with +inf or NaN, gives NaN, and
no gradient leaves it; so a mask may hide whole rows whose results are not used.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kexue_lib._arguments import check_integer, check_number, check_one_of, check_shape
from kexue_lib.distributions.softmax_alternatives import _arguments as arguments
from kexue_lib.distributions.softmax_alternatives import _entmax_rows as rows
from kexue_lib.distributions.softmax_alternatives._perturbed_maximum import draw, winning_probabilities

__all__ = [
    "Entmax",
    "entmax",
    "entmax15",
    "entmax_loss",
    "jacobian",
    "margin_cross_entropy",
    "perturb_max",
    "perturb_max_sample",
    "sparse_softmax",
    "sparse_softmax_loss",
    "sparsemax",
    "sparsemax_loss",
    "taylor_softmax",
]

Reduction = Literal["mean", "sum", "none"]
Noise = Literal["gumbel", "normal", "exponential", "logistic"]
_NOISES = get_args(Noise)


def sparsemax(x: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """Euclidean projection of the scores on the simplex: p = relu(x − λ) with Σp = 1. The same as `entmax` with α = 2.

    Args:
        x: scores, any shape.
        dim: the dimension that sums to 1.

    Returns:
        Shape and dtype of x, exactly 0 off the support, where a score lies more than 1 below the largest at the latest.
        Differentiable any number of times away from changes of the support, under vmap and in compiled graphs (there
        once). Half types compute in float32.

    Raises:
        TypeError: x is not floating.
        ValueError: dim is out of range or empty.

    Cost: some five passes over x instead of a sort; saves p only. Source: article 10145; arXiv 1602.02068.

    >>> sparsemax(torch.tensor([1.0, 0.5, -1.0]))
    tensor([0.7500, 0.2500, 0.0000])
    """
    return entmax(x, 2.0, dim)


def entmax15(x: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """Entmax with α = 1.5: p = relu(x/2 − λ)² with Σp = 1.

    Args, returns, raises, cost: as for `sparsemax`; the support reaches down to at most 2 below the largest score.
    Source: article 10145; arXiv 1905.05702.

    >>> entmax15(torch.tensor([2.0, 0.0, 0.0]))
    tensor([1., 0., 0.])
    """
    return entmax(x, 1.5, dim)


def entmax(x: Float[Tensor, "*shape"], alpha: float | Tensor = 1.5, dim: int = -1) -> Float[Tensor, "*shape"]:
    """Entmax-α: p = relu((α − 1)x − λ)^{1/(α−1)} with Σp = 1, softmax for α = 1, sparsemax for 2, argmax in the limit.

    Args:
        x: scores, any shape.
        alpha: a number ≥ 1, or a tensor of values in [1, 2] that broadcasts against x with size 1 in dim (one α for
            each attention head, say); below 1 they count as 1. Gradients flow to it, there too.
        dim: the dimension that sums to 1.

    Returns:
        As `sparsemax`; the support reaches down to at most 1/(α − 1) below the largest score.

    Raises:
        TypeError: x is not floating, alpha is no number and no floating tensor.
        ValueError: alpha is out of range (a tensor: on a CPU, not compiled) or does not broadcast; dim is out of range.

    Cost: some five passes over x for α = 1.5 and 2, up to 2 about three times that, beyond 2 about ten times.
    Source: article 10145; arXiv 1905.05702; gradient to α: arXiv 1909.00015.

    >>> entmax(torch.tensor([1.0, 0.5, -1.0]).expand(2, 3), torch.tensor([[1.0001], [2.0]])).round(decimals=3)
    tensor([[0.5740, 0.3480, 0.0780],
            [0.7500, 0.2500, 0.0000]])
    """
    arguments.check(x, dim)
    beta = arguments.beta_of(alpha, x, dim)
    y = arguments.wide(x).movedim(dim, -1)
    if isinstance(beta, float) and beta == rows.SMALLEST_BETA:
        y, dead = arguments.without_dead(y, -1)
        p = torch.softmax(y, dim=-1).masked_fill(dead, torch.nan)
    elif torch.compiler.is_compiling():
        p = rows.attached(rows.probabilities(y, beta), y, beta)
    else:
        p = rows.Entmax.apply(y, beta)
    return p.movedim(-1, dim).to(x.dtype)


def sparsemax_loss(
    x: Float[Tensor, "*batch n"], target: Tensor, reduction: Reduction = "mean", *, ignore_index: int = -100
) -> Float[Tensor, "*reduced"]:
    """The loss with gradient sparsemax(x) − y: ½(‖x − y‖² − ‖x − p‖²). The same as `entmax_loss` with α = 2.

    >>> sparsemax_loss(torch.tensor([[3.0, 2.0, 0.0]]), torch.tensor([0]))
    tensor(0.)
    """
    return entmax_loss(x, target, 2.0, reduction, ignore_index=ignore_index)


def entmax_loss(
    x: Float[Tensor, "*batch n"],
    target: Tensor,
    alpha: float | Tensor = 1.5,
    reduction: Reduction = "mean",
    *,
    ignore_index: int = -100,
) -> Float[Tensor, "*reduced"]:
    """The Fenchel–Young loss of entmax-α, whose gradient in x is p − y.

    L = H(p) − H(y) + ⟨p − y, x⟩ with p = entmax(x, α) and H(p) = (1 − Σp^α)/(α(α − 1)). For α = 1 it is cross-entropy
    (minus the entropy of y). For a class t it is 0 exactly if x_t leads by at least 1/(α − 1).

    Args:
        x: scores (..., n).
        target: class indices (...) int64 in 0 … n − 1 or ignore_index, or probabilities (..., n), taken as constants.
        alpha: as in `entmax`; a tensor has size 1 in the last dimension.
        reduction: "mean", "sum" or "none".
        ignore_index: rows with this index have the loss 0 and do not count in the mean.

    Returns:
        0-dimensional, or (...) for "none"; +inf where the target has score −inf. The backward pass does not
        differentiate the map.

    Raises:
        TypeError: x is not floating, target neither int64 nor floating.
        ValueError: alpha as in `entmax`, target of a wrong shape or out of range (on a CPU, not in compiled graphs), an
            unknown reduction.

    Cost: `entmax` and two more passes; saves p. Source: article 10145; arXiv 1901.02324; arXiv 1905.05702, eq. 13.

    >>> entmax_loss(torch.tensor([[3.0, 2.0, 0.0]]), torch.tensor([0]), 1.0)
    tensor(0.3490)
    """
    arguments.check_rows(x)
    beta = arguments.beta_of(alpha, x, -1)
    arguments.check_target(target, x, reduction, ignore_index)
    y = arguments.wide(x)
    target = target.detach().to(y.dtype) if target.is_floating_point() else target
    target, counts = arguments.counted(target, ignore_index)
    if isinstance(beta, Tensor):
        loss = rows.loss_of(y, entmax(y, alpha), target, beta)
    elif torch.compiler.is_compiling():
        loss = rows.loss_of(y, rows.probabilities(y, beta), target, beta)
    else:
        loss = rows.Loss.apply(y, target, beta)[0]
    return arguments.reduced(loss.to(x.dtype), reduction, counts)


def sparse_softmax(x: Float[Tensor, "*shape"], k: int, dim: int = -1) -> Float[Tensor, "*shape"]:
    """Softmax of the k largest entries, 0 elsewhere; of equal scores at the k-th place some are dropped.

    Args:
        x: scores, any shape.
        k: how many are kept, 1 ≤ k ≤ the size of dim.
        dim: the dimension that sums to 1.

    Raises:
        TypeError: x is not floating, k is no int.
        ValueError: k or dim is out of range.

    Cost: one `torch.topk`. Source: article 10145; arXiv 2112.12433.

    >>> sparse_softmax(torch.tensor([0.0, 1.0, 0.0]).log(), 2)
    tensor([0., 1., 0.])
    """
    arguments.check(x, dim)
    check_integer("k", k, 1, x.shape[dim], most_is="n")
    y, dead = arguments.without_dead(arguments.wide(x), dim)
    largest, index = y.topk(k, dim=dim, sorted=False)
    p = torch.zeros_like(y).scatter(dim, index, torch.softmax(largest, dim=dim))
    return p.masked_fill(dead, torch.nan).to(x.dtype)


def sparse_softmax_loss(
    x: Float[Tensor, "*batch n"], target: Tensor, k: int, reduction: Reduction = "mean", *, ignore_index: int = -100
) -> Float[Tensor, "*reduced"]:
    """log Σ_{k largest} e^{xᵢ} − x_t, with gradient sparse_softmax(x, k) − e_t, also where t is not one of the k.

    Args:
        x: scores (..., n).
        target: class indices (...) int64 in 0 … n − 1 or ignore_index.
        k: how many entries count, 1 ≤ k ≤ n.
        reduction: "mean", "sum" or "none".
        ignore_index: as in `entmax_loss`.

    Raises:
        TypeError: x is not floating, target is not int64, k is no int.
        ValueError: k is outside 1 … n, target of a wrong shape or out of range, an unknown reduction.

    Cost: one `torch.topk`. Source: article 10145; arXiv 2112.12433.

    >>> sparse_softmax_loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([2]), 1)
    tensor(2.)
    """
    arguments.check_rows(x)
    check_integer("k", k, 1, x.shape[-1], most_is="n")
    arguments.check_target(target, x, reduction, ignore_index, probabilities=False)
    target, counts = arguments.counted(target, ignore_index)
    y = arguments.wide(x)
    y = y - y.amax(-1, keepdim=True).detach()
    loss = y.topk(k, dim=-1, sorted=False).values.logsumexp(-1) - rows.at_target(y, target)
    return arguments.reduced(loss.to(x.dtype), reduction, counts)


def taylor_softmax(x: Float[Tensor, "*shape"], order: int = 2, dim: int = -1) -> Float[Tensor, "*shape"]:
    """pᵢ ∝ f(xᵢ) with the Taylor polynomial f(x) = Σ_{m ≤ order} x^m/m!, positive for even order.

    Neither shift invariant nor, below the root of the derivative (−1 for order 2, −1.596 for order 4), monotone.

    Args:
        x: scores, any shape.
        order: even and positive.
        dim: the dimension that sums to 1.

    Raises:
        TypeError: x is not floating, order is no int.
        ValueError: order is odd or not positive; dim is out of range or empty.

    Cost: Horner's rule, with x scaled by its largest magnitude so that nothing overflows. Source: article 10145.

    >>> taylor_softmax(torch.tensor([1.0, 0.0, -1.0]))
    tensor([0.6250, 0.2500, 0.1250])
    """
    arguments.check(x, dim)
    check_integer("order", order, 2, even=True)
    y = arguments.wide(x)
    excluded = y == -torch.inf
    y = torch.where(excluded, 0, y)
    size = y.detach().abs().amax(dim, keepdim=True).clamp_min(1)
    y, shrink = y / size, 1 / size
    value = torch.full_like(y, 1.0)
    for m in range(order, 0, -1):  # f/size^order = Σ (shrink^{order−m}/m!) y^m, times order!
        value = value * y + shrink.pow(order - m + 1) * _falling(order, m - 1)
    value = torch.where(excluded, 0, value)
    return (value / value.sum(dim, keepdim=True)).to(x.dtype)


def margin_cross_entropy(
    cos: Float[Tensor, "*batch n"],
    target: Tensor,
    margin: float = 0.35,
    tau: float = 1 / 30,
    reduction: Reduction = "mean",
    *,
    ignore_index: int = -100,
) -> Float[Tensor, "*reduced"]:
    """AM-softmax: cross-entropy of cos/τ with the target's cosine lowered by the margin.

    Args:
        cos: cosines (..., n).
        target: class indices (...) int64 in 0 … n − 1 or ignore_index.
        margin: how much the target must lead by.
        tau: temperature > 0.
        reduction: "mean", "sum" or "none".
        ignore_index: as in `entmax_loss`.

    Raises:
        TypeError: cos is not floating, target is not int64.
        ValueError: tau is not positive, target of a wrong shape or out of range, an unknown reduction.

    Cost: cross-entropy. Source: article 10145, margin softmax; Wang et al., arXiv 1801.05599.

    >>> margin_cross_entropy(torch.tensor([[0.35, 0.0]]), torch.tensor([0])).exp()
    tensor(2.)
    """
    arguments.check_rows(cos, "cos")
    check_number("margin", margin, above=-math.inf, below=math.inf)
    check_number("tau", tau, above=0)
    arguments.check_target(target, cos, reduction, ignore_index, probabilities=False, name="cos")
    target, counts = arguments.counted(target, ignore_index)
    y, n = arguments.wide(cos), cos.shape[-1]
    logits = torch.where(torch.arange(n, device=cos.device) == target.unsqueeze(-1), y - margin, y) / tau
    loss = cross_entropy(logits.reshape(-1, n), target.reshape(-1), reduction="none").reshape(target.shape)
    return arguments.reduced(loss.to(cos.dtype), reduction, counts)


def perturb_max(
    x: Float[Tensor, "*shape"], noise: Noise = "normal", num_points: int = 128, dim: int = -1
) -> Float[Tensor, "*shape"]:
    """Perturb-Max: the probability that xᵢ + εᵢ is the largest, for independent noise ε; softmax for "gumbel".

    Args:
        x: scores, any shape.
        noise: distribution of ε, standard.
        num_points: quadrature points ≥ 2; "exponential" needs no more than n/2, "gumbel" none.
        dim: the dimension that sums to 1.

    Returns:
        Shape and dtype of x; differentiable. Probabilities below 1e-9 may be too small ("normal", "logistic").

    Raises:
        TypeError: x is not floating, num_points is no int.
        ValueError: an unknown noise, num_points < 2; dim is out of range or empty.

    Cost: num_points values for each entry. Source: article 10145; exponential noise: arXiv 2010.12603.

    >>> perturb_max(torch.tensor([0.5, 0.5]).double(), "logistic")
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    arguments.check(x, dim)
    check_one_of("noise", noise, _NOISES)
    check_integer("num_points", num_points, 2)
    y, dead = arguments.without_dead(arguments.wide(x).movedim(dim, -1), -1)
    p = torch.softmax(y, dim=-1) if noise == "gumbel" else winning_probabilities(y, noise, num_points)
    return p.masked_fill(dead, torch.nan).movedim(-1, dim).to(x.dtype)


def perturb_max_sample(
    x: Float[Tensor, "*shape"],
    noise: Noise,
    num_samples: int,
    dim: int = -1,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*shape"]:
    """The Monte Carlo estimate of `perturb_max`: how often each entry is the largest.

    Args:
        x: scores, any shape.
        noise: distribution of ε, standard.
        num_samples: number of draws ≥ 1.
        dim: the dimension that sums to 1.
        generator: source of randomness, on the device of x.

    Returns:
        Shape and dtype of x, multiples of 1/num_samples; no gradient.

    Raises:
        TypeError: x is not floating, num_samples is no int.
        ValueError: an unknown noise, num_samples < 1; dim is out of range or empty.

    Cost: num_samples draws for each entry, one at a time in memory. Source: article 10145.

    >>> perturb_max_sample(torch.tensor([0.0, -torch.inf]), "normal", 10)
    tensor([1., 0.])
    """
    arguments.check(x, dim)
    check_one_of("noise", noise, _NOISES)
    check_integer("num_samples", num_samples, 1)
    y = arguments.wide(x.detach()).movedim(dim, -1)
    wins = torch.zeros_like(y)
    for _ in range(num_samples):
        winner = (y + draw(noise, y.shape, y, generator)).argmax(-1, keepdim=True)
        wins.scatter_add_(-1, winner, torch.ones_like(winner, dtype=y.dtype))
    return (wins / num_samples).movedim(-1, dim).to(x.dtype)


def jacobian(p: Float[Tensor, "*batch n"], alpha: float) -> Float[Tensor, "*batch n n"]:
    """The matrix ∂p/∂x of entmax-α, written out: diag(s) − ssᵀ/Σs with s = p^{2−α} on the support, 0 off it.

    Args:
        p: probabilities (..., n).
        alpha: at least 1.

    Raises:
        TypeError: p is not floating.
        ValueError: alpha is below 1.

    Cost: n² numbers, for teaching. Source: article 10145; arXiv 1905.05702, proposition 2.

    >>> jacobian(torch.tensor([0.5, 0.5, 0.0]), 2.0)
    tensor([[ 0.5000, -0.5000,  0.0000],
            [-0.5000,  0.5000,  0.0000],
            [ 0.0000,  0.0000,  0.0000]])
    """
    arguments.check(p, -1, "p")
    s = rows.weights(p, arguments.beta_of(alpha, p, -1))
    return torch.diag_embed(s) - s.unsqueeze(-1) * (s / s.sum(-1, keepdim=True)).unsqueeze(-2)


class Entmax(nn.Module):
    """Entmax as a layer, with a fixed α or one that is learnt for each head.

    Args:
        alpha: at least 1; the initial one when it is learnable, then in (1, 2).
        dim: the dimension that sums to 1.
        learnable: make raw a parameter, with α = 1 + σ(raw).
        num_heads: how many α; with more than one, x is (..., heads, length, n) and dim is −1.

    Raises:
        TypeError: ``num_heads`` is no integer, ``alpha`` is no number.
        ValueError: alpha out of range, num_heads < 1 or used without learnable or with another dim; at the call, an x
            without that many heads.

    Source: article 10145; learnt α: Correia et al., arXiv 1909.00015.

    >>> Entmax(1.5, learnable=True, num_heads=4)(torch.zeros(2, 4, 3, 2)).shape
    torch.Size([2, 4, 3, 2])
    """

    def __init__(self, alpha: float = 1.5, dim: int = -1, learnable: bool = False, num_heads: int = 1):
        super().__init__()
        # A parameter at an end of the interval would have an infinite logit.
        check_number("alpha", alpha, **({"above": 1, "below": 2} if learnable else {"least": 1, "below": math.inf}))
        check_integer("num_heads", num_heads, 1)
        if num_heads > 1 and not (learnable and dim == -1):
            raise ValueError(f"num_heads: got {num_heads}, expected 1 without learnable=True and dim=-1")
        self.dim, self.num_heads, self._alpha = dim, num_heads, float(alpha)
        self.raw = nn.Parameter(torch.full((num_heads,), alpha - 1.0).logit()) if learnable else None

    @property
    def alpha(self) -> float | Tensor:
        """A float, or a tensor (num_heads,) when it is learnable."""
        return self._alpha if self.raw is None else 1 + self.raw.sigmoid()

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        alpha = self.alpha
        if self.num_heads > 1 and isinstance(alpha, Tensor):
            check_shape("x", x, ("...", self.num_heads, "length", "n"))
            alpha = alpha.view(-1, 1, 1)
        return entmax(x, alpha, self.dim)

    def extra_repr(self) -> str:
        return f"alpha={self._alpha:.4g}, dim={self.dim}, learnable={self.raw is not None}, num_heads={self.num_heads}"


def _falling(order: int, m: int) -> int:
    """order!/m!"""
    product = 1
    for factor in range(m + 1, order + 1):
        product *= factor
    return product
