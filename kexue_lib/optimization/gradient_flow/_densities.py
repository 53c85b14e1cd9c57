"""Flows of densities that need no particles: on a grid, and of Gaussians in closed form."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_number, check_one_of, check_shape
from kexue_lib._tracing import is_traced
from kexue_lib.optimization.gradient_flow._flow import check_times

_AMPLIFICATION = 1e5  # above it, rounding of the eigenvectors would show in the ninth digit of the mass

_MOST_JUMPS = 1e10  # of a particle between two times: squaring a matrix exponential loses as many units of rounding


def fokker_planck_1d(
    potential: Float[Tensor, " n"], q0: Float[Tensor, "*batch n"], dx: float, t: Float[Tensor, " T"]
) -> Float[Tensor, "T *batch n"]:
    r"""Solve :math:`\partial_tq=(qV')'+q''` on n cells of width dx with closed ends, exactly in time.

    Mass jumps from cell i to i ± 1 at the rate :math:`e^{-(V_{i\pm1}-V_i)/2}/dx^2`, so that the equilibrium of the grid
    is exactly :math:`\propto e^{-V_i}`. With :math:`\Pi=\mathrm{diag}(e^{-V})` the generator is similar to a symmetric
    tridiagonal matrix :math:`\Pi^{-1/2}L\Pi^{1/2}`, whose eigenvectors give every time at once.

    Args:
        potential: V at the cells (n,).
        q0: densities at t[0], (*batch, n), not negative.
        dx: width of a cell, > 0.
        t: strictly increasing times, at least one.

    Returns:
        Densities (T, *batch, n) of the dtype of q0, computed in float64: mass is kept to 1e-9, entries are not negative
        up to rounding, :func:`free_energy` does not rise. The grid's error is of order dx².

    Raises:
        TypeError: q0, potential or t is not floating.
        ValueError: potential is not (n,) with n ≥ 2, or so steep that rates overflow or exceed what a matrix
            exponential resolves; q0 does not fit or is negative; dx ≤ 0; t does not increase.

    Cost: one eigendecomposition, O(n³), then O(n²) for each time. Where V at the density's place exceeds its minimum by
    so much that rounding would show, matrix exponentials instead, O(n³) for each time.
    Source: Scharfetter & Gummel, 1969; the symmetric rates: Mielke, Calc. Var. 2013.

    >>> x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    >>> q = fokker_planck_1d(x**2 / 2, torch.where(x > 4, 1.0, 0.0).double(), 0.1, torch.tensor([0.0, 30.0]))
    >>> round((q[1] / q[1].max()).log()[30].item(), 6)  # -V(-2) + V(0)
    -2.0
    """
    check_dtype("potential", potential, "floating")
    check_dtype("q0", q0, "floating")
    if potential.dim() != 1 or len(potential) < 2:
        raise ValueError(f"potential: got shape {tuple(potential.shape)}, expected (n,) with n ≥ 2")
    check_shape("q0", q0, ("...", len(potential)), "as potential has")
    check_number("q0", q0, least=0, below=math.inf)
    check_number("dx", dx, above=0, below=math.inf)
    check_times(t, 1)
    V = potential.double() - potential.double().min()
    up, down = (torch.exp(sign * V.diff() / 2) / dx**2 for sign in (-1, 1))
    if not is_traced() and not bool((up + down).isfinite().all()):
        raise ValueError("potential: got a step so steep that its rate overflows, expected finer cells")
    start, times = q0.double(), t.double() - t[0].double()
    lifted = start * torch.exp(V / 2)
    largest = _AMPLIFICATION * start.sum(-1, keepdim=True)
    modes = bool((lifted <= largest).all())
    path = _by_modes(V, up, down, start, times) if modes else _by_exponentials(up, down, start, times)
    return path.to(q0.dtype)


def free_energy(q: Float[Tensor, "*batch n"], potential: Float[Tensor, " n"], dx: float) -> Float[Tensor, "*batch"]:
    r"""Return :math:`\int q\log q+qV`, with 0 log 0 = 0.

    It is :math:`\mathrm{KL}(q\|p)-\log Z` for :math:`p=e^{-V}/Z` and a q of mass 1.

    Args:
        q: densities (*batch, n).
        potential: V (n,).
        dx: width of a cell, > 0.

    Returns:
        (*batch).

    Raises:
        TypeError: q is not floating.
        ValueError: potential does not fit, dx ≤ 0.

    Cost: one pass.

    >>> free_energy(torch.full((4,), 0.25), torch.zeros(4), 1.0)
    tensor(-1.3863)
    """
    check_dtype("q", q, "floating")
    check_dtype("potential", potential, "floating")
    check_shape("potential", potential, ("n",))
    check_shape("q", q, ("...", *potential.shape), "as potential has")
    check_number("dx", dx, above=0, below=math.inf)
    return (torch.special.xlogy(q, q) + q * potential).sum(-1) * dx


def gaussian_flow(
    mean: Float[Tensor, " d"],
    cov: Float[Tensor, "d d"],
    target_mean: Float[Tensor, " d"],
    target_cov: Float[Tensor, "d d"],
    t: Float[Tensor, " T"],
) -> tuple[Float[Tensor, "T d"], Float[Tensor, "T d d"]]:
    r"""Return mean and covariance of a Gaussian that follows Langevin's equation towards another.

    With :math:`P=\Sigma_*^{-1}`: :math:`m_t=m_*+e^{-Pt}(m-m_*)`,
    :math:`\Sigma_t=\Sigma_*+e^{-Pt}(\Sigma-\Sigma_*)e^{-Pt}`; the covariances need not commute.

    Args:
        mean: m (d,) at t = 0.
        cov: Σ (d, d), symmetric.
        target_mean: m* (d,).
        target_cov: Σ* (d, d), symmetric positive definite.
        t: times (T,), in any order.

    Returns:
        Means (T, d) and covariances (T, d, d) of the dtype of mean.

    Raises:
        TypeError: mean is not floating.
        ValueError: shapes do not fit, target_cov is not positive definite.

    Cost: one eigendecomposition, then O(d³) for each time.

    >>> one, two = torch.ones(1), torch.full((1, 1), 2.0)
    >>> gaussian_flow(one, two, 0 * one, two, torch.tensor([2.0]))
    (tensor([[0.3679]]), tensor([[[2.]]]))
    """
    check_dtype("mean", mean, "floating")
    check_shape("mean", mean, ("d",))
    d = len(mean)
    for name, value, shape in (
        ("cov", cov, (d, d)),
        ("target_mean", target_mean, (d,)),
        ("target_cov", target_cov, (d, d)),
    ):
        check_shape(name, value, shape, "as mean has d")
    check_shape("t", t, ("T",))
    variances, axes = torch.linalg.eigh(target_cov)
    if not is_traced() and not bool((variances > 0).all()):
        raise ValueError("target_cov: got a matrix that is not positive definite, expected one that is")
    shrink = (axes * torch.exp(-t.to(mean.dtype).view(-1, 1, 1) / variances)) @ axes.T
    means = target_mean + (shrink @ (mean - target_mean).unsqueeze(-1)).squeeze(-1)
    return means, target_cov + shrink @ (cov - target_cov) @ shrink


def fdiv_weight(
    log_r: Float[Tensor, "..."],
    kind: Literal["reverse_kl", "kl", "chi2", "reverse_chi2", "hellinger", "js"],
) -> Float[Tensor, "..."]:
    r"""Return the speed :math:`w(r)=r^2f''(r)` of :math:`\dot x=w(r)\nabla\log r`, r = p/q.

    It is the flow of :math:`\int q\,f(p/q)`. reverse_kl, :math:`f=-\log r`: 1; kl, :math:`r\log r`: r; chi2,
    :math:`(r-1)^2`: 2r²; reverse_chi2, :math:`(r-1)^2/r`: 2/r; hellinger, :math:`(\sqrt r-1)^2`: :math:`\sqrt r/2`;
    js, :math:`\frac12\big[r\log r-(r+1)\log\frac{r+1}2\big]`: :math:`\frac r{2(1+r)}`.

    Args:
        log_r: log(p/q), any shape.
        kind: the divergence.

    Returns:
        w, the same shape and dtype.

    Raises:
        TypeError: log_r is not floating.
        ValueError: another kind.

    Cost: one pass.
    Source: Yi, Zhu & Liu, *MonoFlow*, arXiv:2302.01075.

    >>> fdiv_weight(torch.zeros(1), "js")
    tensor([0.2500])
    """
    check_dtype("log_r", log_r, "floating")
    kinds = ("reverse_kl", "kl", "chi2", "reverse_chi2", "hellinger", "js")
    check_one_of("kind", kind, kinds)
    if kind == "js":
        return torch.sigmoid(log_r) / 2
    power, factor = {
        "reverse_kl": (0.0, 1.0),
        "kl": (1.0, 1.0),
        "chi2": (2.0, 2.0),
        "reverse_chi2": (-1.0, 2.0),
        "hellinger": (0.5, 0.5),
    }[kind]
    return factor * torch.exp(power * log_r) if power else torch.ones_like(log_r)


def _by_modes(V: Tensor, up: Tensor, down: Tensor, start: Tensor, times: Tensor) -> Tensor:
    """All times from the eigenvectors of the symmetrised generator."""
    beside = (up * down).sqrt()
    symmetric = torch.diag(-_loss(up, down)) + torch.diag(beside, 1) + torch.diag(beside, -1)
    values, vectors = torch.linalg.eigh(symmetric)
    # the largest eigenvalue is zero: not so by rounding, which long times would show
    values = torch.cat([values[:-1].clamp_max(0.0), values.new_zeros(1)])
    decay = torch.exp(times.unsqueeze(-1) * values).view(len(times), *[1] * (start.dim() - 1), -1)
    modes = (start * torch.exp(V / 2)) @ vectors
    return (modes * decay) @ vectors.T * torch.exp(-V / 2)


def _by_exponentials(up: Tensor, down: Tensor, start: Tensor, times: Tensor) -> Tensor:
    """Time after time by the matrix exponential of the generator itself, whose entries no exp(V/2) enlarges."""
    generator = torch.diag(-_loss(up, down)) + torch.diag(up, -1) + torch.diag(down, 1)
    jumps = 2 * generator.abs().max() * times.diff().amax() if len(times) > 1 else times
    if bool((jumps > _MOST_JUMPS).any()):
        raise ValueError("potential: got one too steep where q0 lives, expected fewer cells or shorter times")
    path = [start]
    for step in torch.matrix_exp(generator * times.diff().view(-1, 1, 1)):
        path.append(path[-1] @ (step / step.sum(0)).T)  # columns sum to one but for rounding
    return torch.stack(path)


def _loss(up: Tensor, down: Tensor) -> Tensor:
    """The rate at which mass leaves each cell."""
    zero = up.new_zeros(1)
    return torch.cat([up, zero]) + torch.cat([zero, down])
