"""Fits of loss curves: one power with an offset, and Chinchilla's two powers, with bootstrap intervals.

Source: Hoffmann et al., arXiv 2203.15556, appendix D.3 (Huber's loss in log space); Besiroglu et al., arXiv 2404.10102.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_shape
from kexue_lib.optimization.scaling_law._quanta import wide
from kexue_lib.optimization.scaling_law._robust import bootstrap_weights, fit_log_sum

_EXPONENTS, _FRACTIONS = (0.05, 0.15, 0.35, 0.7, 1.2, 2.0), (0.1, 0.5, 0.9, 0.99)  # starts: offset over the least loss


class PowerLawFit(NamedTuple):
    """y = offset + coef · x^{−exponent}; ``stderr`` and ``ci`` in the order coef, exponent, offset."""

    coef: float
    exponent: float
    offset: float
    stderr: Float[Tensor, "3"]
    ci: Float[Tensor, "3 2"]


class ChinchillaFit(NamedTuple):
    """L = E + A N^{−alpha} + B D^{−beta}, the objective ``loss``, and ``samples`` (n_bootstrap, 5) in this order."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    loss: float
    samples: Float[Tensor, "n 5"]


def fit_power_law(
    x: Float[Tensor, "m"],
    y: Float[Tensor, "m"],
    *,
    offset: bool = True,
    delta: float | int = 1e-3,
    n_bootstrap: int = 0,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> PowerLawFit:
    """Fit y = offset + coef · x^{−exponent} by Σᵢ Huber_δ(log ŷᵢ − log yᵢ) with coef > 0 and offset ≥ 0.

    Args:
        x: resource, > 0.
        y: loss, > 0.
        offset: False fixes it at 0.
        delta: Huber's δ; 1e-3 is close to least absolute deviations, 1 to least squares.
        n_bootstrap: resamples of the points, fitted in one batch from the best fit; 0 leaves NaN in stderr and ci.
        level: of the percentile interval. With few points and a small δ it is too wide: 12 points with 1 % noise,
            δ = 1e-3 and level 0.95 held the true exponent in 100 of 100 trials (with δ = 1 in 97).
        generator: of the resamples.

    Returns:
        ``PowerLawFit``; a rising curve has a negative exponent.

    Raises:
        TypeError: x or y is not floating, another argument of another type.
        ValueError: different shapes, values not above 0 or not finite, less than 4 points (3 without offset) with
            different x, level outside (0, 1).

    Warns:
        UserWarning: the exponent is smaller than twice its standard error by the information matrix, so that the
            points (too few, too close, too noisy) do not tell exponent and offset apart.

    Cost: 24 starts (one without offset) and n_bootstrap fits, some tens of iterations of O(m) each.

    >>> x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    >>> fit = fit_power_law(x, 0.5 + 3 * x**-0.7)
    >>> round(fit.coef, 4), round(fit.exponent, 4), round(fit.offset, 4)
    (3.0, 0.7, 0.5)
    """
    needed = 4 if offset else 3
    _check_points({"x": x, "y": y}, needed)
    _check_options(delta, n_bootstrap)
    check_number("level", level, above=0, below=1)
    log_x, log_y = x.double().log(), y.double().log()
    if len(log_x.unique()) < needed:
        raise ValueError(f"x: got {len(log_x.unique())} different values, expected at least {needed}")
    centre = log_x.mean()
    terms, starts = _powers([log_x - centre], constant=offset), _starts([log_x - centre], log_y, offset)
    theta, _, drawn = _fit(terms, log_y, starts, delta, n_bootstrap, generator)
    _warn_if_vague(terms, log_y, theta, {"exponent": 1}, offset)
    table = torch.cat([theta[None], drawn])
    end = table[:, 2].exp() if offset else torch.zeros_like(table[:, 0])
    coef, exponent = (table[:, 0] + table[:, 1] * centre).exp(), table[:, 1]
    table = torch.stack([coef, exponent, end], 1)
    stderr, ci = torch.full((3,), math.nan, dtype=torch.float64), torch.full((3, 2), math.nan, dtype=torch.float64)
    if n_bootstrap:
        stderr = table[1:].std(0, correction=0)
        ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        ci = table[1:].quantile(ends.to(table.device), dim=0).T
    own_coef, own_exponent, own_end = table[0].tolist()
    return PowerLawFit(own_coef, own_exponent, own_end, stderr, ci)


def fit_chinchilla(
    N: Float[Tensor, "m"],
    D: Float[Tensor, "m"],
    L: Float[Tensor, "m"],
    *,
    delta: float | int = 1e-3,
    n_bootstrap: int = 0,
    generator: torch.Generator | None = None,
) -> ChinchillaFit:
    """Fit L = E + A N^{−α} + B D^{−β} by Σᵢ Huber_δ(log L̂ᵢ − log Lᵢ).

    log L̂ = LSE(log A − α log N, log B − β log D, log E). The loss is the sum over the runs, and the starts are one
    batch of sixty steps at most, of which the best eight are followed until a step gains nothing.

    The runs must vary N and D separately. On D = c N^k, such as a fixed number of tokens per parameter (k = 1) or one
    compute budget (k = −1), the two terms are powers of the same N and can be exchanged; then not even noise-free
    runs determine the constants.

    Args:
        N: parameters of each run, > 0.
        D: training tokens.
        L: final loss.
        delta: Huber's δ.
        n_bootstrap: resamples of the runs, each fitted from the best fit.
        generator: of the resamples.

    Returns:
        ``ChinchillaFit``; `samples` is (0, 5) without bootstrap. Quantities derived from the fit, such as an
        exponent β/(α + β), get their interval from `samples`, because the five are strongly correlated.

    Raises:
        TypeError: N, D or L is not floating, another argument of another type.
        ValueError: different shapes, values not above 0 or not finite, less than 6 runs; N or D the same in all runs,
            or D = c N^k.

    Warns:
        UserWarning: an exponent is smaller than twice its standard error by the information matrix.

    Cost: 144 starts and n_bootstrap fits, some tens of iterations of O(m) each.
    Source: arXiv 2203.15556, equation 3; arXiv 2404.10102 for sum and convergence.

    >>> N, D = torch.logspace(7, 10, 8), torch.logspace(9, 11, 8)[torch.tensor([3, 0, 6, 1, 7, 4, 2, 5])]
    >>> fit = fit_chinchilla(N, D, chinchilla_loss(N, D))
    >>> round(fit.E, 2), round(fit.alpha, 3), round(fit.beta, 3)
    (1.69, 0.34, 0.28)
    """
    _check_points({"N": N, "D": D, "L": L}, 6)
    _check_options(delta, n_bootstrap)
    logs = [N.double().log(), D.double().log()]
    centred = [z - z.mean() for z in logs]
    _check_design(*centred)
    log_L, terms = L.double().log(), _powers(centred, constant=True)
    theta, value, drawn = _fit(terms, log_L, _starts(centred, log_L, True), delta, n_bootstrap, generator)
    _warn_if_vague(terms, log_L, theta, {"alpha": 2, "beta": 3}, True)
    table = torch.cat([theta[None], drawn])
    A, B = ((table[:, i] + table[:, 2 + i] * logs[i].mean()).exp() for i in range(2))
    table = torch.stack([table[:, 4].exp(), A, B, table[:, 2], table[:, 3]], 1)
    E, own_A, own_B, alpha, beta = table[0].tolist()
    return ChinchillaFit(E, own_A, own_B, alpha, beta, value, table[1:])


def chinchilla_loss(
    N: float | int | Tensor,
    D: float | int | Tensor,
    *,
    E: float | Tensor = 1.69,
    A: float | Tensor = 406.4,
    B: float | Tensor = 410.7,
    alpha: float | Tensor = 0.34,
    beta: float | Tensor = 0.28,
) -> Float[Tensor, "..."]:
    """Return E + A N^{−α} + B D^{−β} in float64; the defaults are the paper's rounded constants.

    Args:
        N: parameters, > 0.
        D: tokens, > 0; broadcasts with N.
        E: irreducible loss.
        A: coefficient of the parameters.
        B: coefficient of the tokens.
        alpha: exponent of the parameters.
        beta: exponent of the tokens.

    Raises:
        TypeError, ValueError: N or D is not real or not above 0.

    Source: arXiv 2203.15556, equation 10. Refit by arXiv 2404.10102: 1.8172, 482.01, 2085.43, 0.3478, 0.3658.

    >>> chinchilla_loss(70e9, 1.4e12)
    tensor(1.9366, dtype=torch.float64)
    """
    _check_resources(N, D)
    for name, value in (("E", E), ("A", A), ("B", B), ("alpha", alpha), ("beta", beta)):
        check_number(name, value)
    return E + A * wide(N) ** -alpha + B * wide(D) ** -beta


def kaplan_loss(
    N: float | int | Tensor,
    D: float | int | Tensor,
    *,
    N_c: float | Tensor = 8.8e13,
    D_c: float | Tensor = 5.4e13,
    alpha_N: float | Tensor = 0.076,
    alpha_D: float | Tensor = 0.095,
) -> Float[Tensor, "..."]:
    """Return [(N_c/N)^{α_N/α_D} + D_c/D]^{α_D} in float64: no irreducible loss.

    Args:
        N: parameters without embeddings, > 0; may be inf.
        D: tokens, > 0; may be inf.
        N_c: scale of the parameters.
        D_c: scale of the tokens.
        alpha_N: exponent of the parameters.
        alpha_D: exponent of the tokens.

    Raises:
        TypeError, ValueError: N or D is not real or not above 0.

    Source: Kaplan et al., arXiv 2001.08361, equation 1.5.

    >>> kaplan_loss(1e9, 2e10)
    tensor(2.4354, dtype=torch.float64)
    """
    _check_resources(N, D)
    for name, value in (("N_c", N_c), ("D_c", D_c), ("alpha_N", alpha_N), ("alpha_D", alpha_D)):
        check_number(name, value, above=0)
    return ((N_c / wide(N)) ** (alpha_N / alpha_D) + D_c / wide(D)) ** alpha_D


def compute_optimal(
    C: float | int | Tensor,
    *,
    A: float | Tensor,
    B: float | Tensor,
    alpha: float | Tensor,
    beta: float | Tensor,
    E: float | Tensor = 0.0,
    flops_per: float | int = 6.0,
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Return the N, D with flops_per · N D = C at which E + A N^{−α} + B D^{−β} is least, and that loss.

    N = G (C/flops_per)^{β/(α+β)}, D = (C/flops_per)/N, G = (αA/(βB))^{1/(α+β)}. Column slices of
    ``ChinchillaFit.samples`` as constants give the interval of the split.

    Args:
        C: compute, > 0; broadcasts with the constants.
        A: coefficient of N, > 0.
        B: coefficient of D, > 0.
        alpha: exponent of N, > 0.
        beta: exponent of D, > 0.
        E: irreducible loss.
        flops_per: FLOPs per parameter and token.

    Returns:
        N, D and L in float64.

    Raises:
        TypeError, ValueError: C, flops_per or a constant is no number above 0. Where a fit has an exponent ≤ 0, a
            larger N or D costs nothing and no split is best; such a fit has not identified its constants.

    Source: arXiv 2203.15556, equation 4.

    >>> N, D, _ = compute_optimal(5.76e23, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)
    >>> round((D / N).item(), 1)
    18.4
    """
    for name, value in {"C": C, "A": A, "B": B, "flops_per": flops_per}.items():
        check_number(name, value, above=0, below=math.inf)
    for name, value in {"alpha": alpha, "beta": beta}.items():
        check_number(name, value, below=math.inf)
        lowest = torch.as_tensor(value).min()
        if lowest <= 0:
            raise ValueError(
                f"{name}: got {lowest.item():.4g}, expected above 0 everywhere: no split is best at such an exponent, "
                "and runs whose fit or resamples have one do not identify it"
            )
    C, A, B, alpha, beta = (torch.as_tensor(v, dtype=torch.float64) for v in (C, A, B, alpha, beta))
    product = C / flops_per
    N = (((alpha * A).log() - (beta * B).log() + beta * product.log()) / (alpha + beta)).exp()
    D = product / N
    return N, D, E + A * N**-alpha + B * D**-beta


def _powers(logs: list[Tensor], *, constant: bool) -> Tensor:
    """The terms c_j − s_j z_j and the constant as linear functions of (c_1 …, s_1 …, constant)."""
    n = len(logs)
    terms = torch.zeros(n + constant, len(logs[0]), 2 * n + constant, dtype=logs[0].dtype, device=logs[0].device)
    for j, z in enumerate(logs):
        terms[j, :, j], terms[j, :, n + j] = 1, -z
    if constant:
        terms[n, :, 2 * n] = 1
    return terms


def _starts(logs: list[Tensor], target: Tensor, constant: bool) -> Tensor:
    """Every combination of exponents and share of the constant; the other terms share what is left of the mean."""
    n, least, mean = len(logs), target.amin(), target.exp().mean()
    exponents = torch.tensor(_EXPONENTS, dtype=target.dtype, device=target.device)
    shares = torch.tensor(_FRACTIONS if constant else (0.0,), dtype=target.dtype, device=target.device)
    rows = torch.cartesian_prod(*[exponents] * n, shares).reshape(-1, n + 1)
    offset = rows[:, n:] * least.exp()
    parts = [((mean - offset) / n).log().expand(-1, n), rows[:, :n]]
    return torch.cat([*parts, offset.log()] if constant else parts, 1)


def _fit(
    terms: Tensor, target: Tensor, starts: Tensor, delta: float, n_bootstrap: int, generator: torch.Generator | None
) -> tuple[Tensor, float, Tensor]:
    """The best of all starts, its objective, and the fits of the resamples."""
    everything = torch.ones(1, len(target), dtype=target.dtype, device=target.device)
    # Some starts run off to infinity without end; after sixty steps the others are at most polished.
    theta, value = fit_log_sum(terms, target, starts, float(delta), everything, steps=60)
    theta, value = fit_log_sum(terms, target, theta[value.argsort()[:8]], float(delta), everything)
    best = theta[value.argmin()]
    drawn = theta[:0]
    if n_bootstrap:
        weights = bootstrap_weights(n_bootstrap, len(target), generator).to(target.device)
        drawn, _ = fit_log_sum(terms, target, best.repeat(n_bootstrap, 1), float(delta), weights)
    return best, value.min().item(), drawn


def _check_design(log_N: Tensor, log_D: Tensor) -> None:
    """Refuse runs on one line of the logarithms (centred) on which the two powers cannot be told apart."""
    for name, z in (("N", log_N), ("D", log_D)):
        if z.abs().amax() <= 1e-9:
            raise ValueError(f"{name}: got the same value in all runs, expected different ones")
    slope = (log_N @ log_D) / (log_N @ log_N)
    if (log_D - slope * log_N).abs().amax() <= 1e-6:
        raise ValueError(
            f"D: got a constant times N^{slope:.4g} in all runs, expected N and D varied separately: A N^-alpha and "
            "B D^-beta can be exchanged on it; fit_power_law describes the loss along that line"
        )


def _warn_if_vague(terms: Tensor, target: Tensor, theta: Tensor, exponents: dict[str, int], constant: bool) -> None:
    """Warn of exponents below two standard errors, from the residuals and the Gauss–Newton information matrix."""
    logs = terms @ theta
    total = logs.logsumexp(0)
    jacobian = torch.einsum("tm,tmp->mp", (logs - total).exp(), terms)
    if constant:  # by the constant itself and not its logarithm, which has no influence where the constant is near 0
        jacobian[:, -1] = (target.mean() - total).exp()
    points, constants = jacobian.shape
    variance = (total - target).square().sum().clamp(min=1e-24) / max(points - constants, 1)
    values, vectors = torch.linalg.eigh(jacobian.T @ jacobian)
    covariance = (vectors.square() / values.clamp(min=values[-1] * 1e-15)).sum(1) * variance
    for name, at in exponents.items():
        value, error = theta[at].item(), covariance[at].sqrt().item()
        if abs(value) < 2 * error:
            text = f"{name}: the points do not identify it ({value:.3g} with a standard error of {error:.2g})"
            warnings.warn(text + ": vary the resources more widely and separately", UserWarning, stacklevel=3)


def _check_points(columns: dict[str, Tensor], least: int) -> None:
    first, reference = next(iter(columns.items()))
    for name, values in columns.items():
        check_dtype(name, values, "floating")
        check_shape(name, values, ("m",) if values is reference else reference.shape)
        check_number(name, values, above=0, below=math.inf)
    if len(reference) < least:
        raise ValueError(f"{first}: got {len(reference)} points, expected at least {least}")


def _check_options(delta: float, n_bootstrap: int) -> None:
    check_number("delta", delta, above=0, below=math.inf)
    check_integer("n_bootstrap", n_bootstrap, 0)


def _check_resources(N: Any, D: Any) -> None:
    """Refuse what is not above zero, and tensors that do not broadcast."""
    for name, value in (("N", N), ("D", D)):
        check_number(name, value, above=0)
    sizes = zip(N.shape[::-1], D.shape[::-1]) if isinstance(N, Tensor) and isinstance(D, Tensor) else ()
    if any(n != d and 1 not in (n, d) for n, d in sizes):
        raise ValueError(f"D: got shape {tuple(D.shape)}, expected one that broadcasts with N {tuple(N.shape)}")
