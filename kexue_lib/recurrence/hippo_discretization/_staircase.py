"""The exact LegS state of samples that are held, at any count, without the states before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Inexact, Int
from torch import Tensor

from kexue_lib._arguments import check_integer
from kexue_lib._autocast import without_autocast
from kexue_lib.recurrence.hippo import coefficient_scale, legendre_basis
from kexue_lib.recurrence.hippo_discretization._scan import Scaling, check_samples

_POINTS = 4096  # edges whose basis stays in cache


@without_autocast
def legs_project_staircase(
    u: Inexact[Tensor, "*b L"],
    N: int,
    at: Sequence[int] | Int[Tensor, "m"] | None = None,
    *,
    scaling: Scaling = "orthonormal",
) -> Inexact[Tensor, "*b m N"]:
    r"""Return the LegS coefficients of held samples after the first K of them, for each K of ``at``.

    .. math:: x_K = \sum_{j<K}u_j\Big[G_n\Big(\tfrac{2(j+1)}K-1\Big)-G_n\Big(\tfrac{2j}K-1\Big)\Big]
              = \sqrt2\,u_{K-1}e_0-\sum_{0<j<K}(u_j-u_{j-1})\,G_n\Big(\tfrac{2j}K-1\Big)

    with :math:`G_n=\int_{-1}g_n`, which vanishes at both ends but for :math:`G_0(1)=\sqrt2`. The recursion
    ``legs_scan(u, N, method="zoh")`` has the same values.

    Args:
        u: samples ``(..., L)``, real or complex; sample j is held on [j, j + 1).
        N: number of coefficients.
        at: read-out counts, each from 1 to L; L alone if None.
        scaling: ``"orthonormal"``, ``"hippo"`` or ``"lmu"``, as in ``coefficient_scale``.

    Returns:
        ``(..., len(at), N)`` in the dtype of u; computed in float64. Differentiable in u.

    Raises:
        TypeError: u neither floating nor complex, N or a read-out no integer.
        ValueError: u without samples, N below 1, a read-out outside of 1 … L, an unknown ``scaling``.

    Cost: O(KN) for each read-out, with O(N) more memory.

    >>> legs_project_staircase(torch.tensor([0.0, 1.0]), 2, scaling="lmu")
    tensor([[0.5000, 0.7500]])
    """
    wide = check_samples(u, N, scaling)
    L = u.shape[-1]
    if L == 0:
        raise ValueError(f"u: got shape {tuple(u.shape)}, expected at least one sample")
    counts = [L] if at is None else at.tolist() if isinstance(at, Tensor) else list(at)
    for K in counts:
        check_integer("at", K, 1, L, most_is="L")
    steps = wide.diff()
    states = [_state(wide[..., K - 1], steps[..., : K - 1], N) for K in counts]
    x = torch.stack(states, -2) if states else wide.new_zeros(*wide.shape[:-1], 0, N)
    return (x / coefficient_scale("legs", N, scaling, device=u.device)).to(u.dtype)


def _state(last: Tensor, steps: Tensor, N: int) -> Tensor:
    """√2·last·e₀ - Σ_j steps_j G_n(edge_j): the moments of g_0 … g_N over the edges, then G_n from two of them."""
    K = steps.shape[-1] + 1
    moments = steps.new_zeros(*steps.shape[:-1], N + 1)
    for start in range(0, K - 1, _POINTS):
        piece = steps[..., start : start + _POINTS]
        edges = torch.arange(start + 1, start + 1 + piece.shape[-1], dtype=torch.float64, device=steps.device)
        moments = moments + piece @ legendre_basis(N + 1, 2 * edges / K - 1).to(piece.dtype)
    odd = 2 * torch.arange(N, dtype=torch.float64, device=steps.device) + 1
    G = moments[..., 1:] / (odd * (odd + 2)).sqrt()
    below = moments[..., : N - 1] / (odd[1:] * (odd[1:] - 2)).sqrt()
    first = math.sqrt(2) * last - moments[..., 0] - G[..., 0]
    return torch.cat([first[..., None], below - G[..., 1:]], -1)
