"""The chain of inequalities, computed on a run: from its regret to the bound that depends on the schedule only."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_number, check_shape
from kexue_lib._tracing import is_traced
from kexue_lib.optimization.sgd_convergence._rates import check_constants

Rates = Float[Tensor, " T"]


def regret_bound(lrs: Rates, D: float, G: float) -> Float[Tensor, ""]:
    r"""Return what bounds the average regret of SGD on convex losses.

    .. math:: \frac{D^2}{2T\eta_T}+\frac{G^2}{2T}\sum_{t=1}^T\eta_t

    Args:
        lrs: η₁ ≥ η₂ ≥ … ≥ η_T > 0, (T,).
        D: bound on the distances of θ₁ … θ_T from the comparator, > 0.
        G: bound on the norms of the gradients, > 0.

    Returns:
        0-d, float64.

    Raises:
        TypeError: D or G is no number.
        ValueError: lrs is empty, not one-dimensional, not positive or increases somewhere; D or G is not positive.

    Cost: one pass. Source: article 9902, its main inequality; Zinkevich, ICML 2003.

    >>> regret_bound(torch.full((100,), 0.2), 2.0, 1.0).item()
    0.2
    """
    check_rates(lrs)
    check_constants(D, G)
    lrs = lrs.double()
    return (D**2 / lrs[-1] + G**2 * lrs.sum()) / (2 * len(lrs))


def regret_certificate(
    iterates: Float[Tensor, "T_plus_1 d"],
    grads: Float[Tensor, "T d"],
    lrs: Rates,
    comparator: Float[Tensor, " d"],
    losses: Float[Tensor, " T"] | None = None,
    comparator_losses: Float[Tensor, " T"] | None = None,
    *,
    D: float | None = None,
    G: float | None = None,
) -> dict[str, Tensor]:
    r"""Return every link of the proof for a run, each divided by T.

    With :math:`\delta_t=\|\theta_t-\theta^*\|^2`:

    .. math::
        \text{regret}&=\tfrac1T\sum_t\big[L(x_t,\theta_t)-L(x_t,\theta^*)\big]\\
        \text{linear regret}&=\tfrac1T\sum_t(\theta_t-\theta^*)\cdot g_t\\
        \text{telescoped}&=\tfrac1T\sum_t\Big[\frac{\delta_t-\delta_{t+1}}{2\eta_t}+\frac{\eta_t}2\|g_t\|^2\Big]\\
        \text{distance bound}&=\tfrac1T\Big[\frac{D^2}{2\eta_T}+\tfrac12\sum_t\eta_t\|g_t\|^2\Big]\\
        \text{bound}&=\tfrac1T\Big[\frac{D^2}{2\eta_T}+\frac{G^2}2\sum_t\eta_t\Big]

    For convex losses they ascend; the second equals the third if nothing was projected.

    Args:
        iterates: θ₁ … θ_{T+1}, (T + 1, d).
        grads: g₁ … g_T, (T, d).
        lrs: η₁ ≥ … ≥ η_T > 0, (T,).
        comparator: θ*, (d,), any point of the set that is projected onto.
        losses: L(x_t, θ_t), (T,); without them there is no "regret".
        comparator_losses: L(x_t, θ*), (T,); goes with losses.
        D: bound on the distances, > 0; the largest of θ₁ … θ_T if None.
        G: bound on the norms, > 0; the largest of the run if None.

    Returns:
        "regret" (with losses only), "linear_regret", "telescoped", "distance_bound", "bound", "D", "G": 0-d, float64.

    Raises:
        TypeError: D or G is no number.
        ValueError: shapes that do not fit, rates as in :func:`regret_bound`, losses without comparator_losses or the
            reverse, D or G not positive.

    Cost: three passes over iterates and grads, in float64.
    Source: article 9902, the links of its proof.

    >>> run = torch.tensor([[1.0], [0.5], [0.25]])
    >>> links = regret_certificate(run, torch.tensor([[1.0], [0.5]]), torch.full((2,), 0.5), torch.zeros(1))
    >>> [round(links[k].item(), 4) for k in ("linear_regret", "telescoped", "distance_bound", "bound")]
    [0.625, 0.625, 0.6562, 0.75]
    """
    check_rates(lrs)
    steps, d = len(lrs), comparator.shape[-1]
    check_shape("comparator", comparator, ("d",))
    check_shape("iterates", iterates, (steps + 1, d), "as lrs and comparator have")
    check_shape("grads", grads, (steps, d), "as lrs and comparator have")
    if (losses is None) != (comparator_losses is None):
        missing = "losses" if losses is None else "comparator_losses"
        raise ValueError(f"{missing}: got None, expected ({steps},) as the other losses have")
    away, g, eta = iterates.double() - comparator.double(), grads.double(), lrs.double()
    delta, gamma = away.square().sum(-1), g.square().sum(-1)
    for name, constant in (("D", D), ("G", G)):
        if constant is not None:
            check_number(name, constant, above=0, below=math.inf)
    far = delta[:-1].max().sqrt() if D is None else torch.as_tensor(D, dtype=torch.float64)
    steep = gamma.max().sqrt() if G is None else torch.as_tensor(G, dtype=torch.float64)
    links = {}
    if losses is not None and comparator_losses is not None:
        for name, value in (("losses", losses), ("comparator_losses", comparator_losses)):
            check_shape(name, value, (steps,), "as lrs has")
        links["regret"] = (losses.double() - comparator_losses.double()).mean()
    squares = eta * gamma / 2
    first = far**2 / (2 * eta[-1])
    links["linear_regret"] = (away[:-1] * g).sum() / steps
    links["telescoped"] = ((delta[:-1] - delta[1:]) / (2 * eta) + squares).mean()
    links["distance_bound"] = first / steps + squares.mean()
    links["bound"] = first / steps + steep**2 * eta.mean() / 2
    return links | {"D": far, "G": steep}


def check_rates(lrs: Tensor) -> None:
    """Refuse what is no schedule of the theorem."""
    if lrs.dim() != 1 or len(lrs) == 0:
        raise ValueError(f"lrs: got shape {tuple(lrs.shape)}, expected (T,) with T ≥ 1")
    check_number("lrs", lrs, above=0, below=math.inf)
    if not is_traced() and bool((lrs.diff() > 0).any()):
        step = int((lrs.diff() > 0).nonzero()[0]) + 1
        rise = f"{lrs[step - 1].item():.6g} at step {step}, then {lrs[step].item():.6g}"
        raise ValueError(f"lrs: got {rise}, expected non-increasing rates")
