"""From x' = Ax + Bu to the recurrence of its samples."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_number, check_one_of, check_shape
from kexue_lib._autocast import without_autocast

Method = Literal["forward", "backward", "bilinear", "gbt", "zoh"]
_ALPHA = {"forward": 1.0, "bilinear": 0.5, "backward": 0.0}


@without_autocast
def discretize(
    A: Inexact[Tensor, "*a N N"],
    B: Inexact[Tensor, "*b N"],
    dt: float | Float[Tensor, "*c"],
    method: Method = "zoh",
    *,
    alpha: float = 0.5,
) -> tuple[Inexact[Tensor, "*d N N"], Inexact[Tensor, "*d N"]]:
    r"""Return the matrices of the recurrence for an input that is held over each step.

    .. math:: x_{k+1} = \bar Ax_k + \bar Bu_k, \qquad \bar A = M^{-1}(I+\alpha\,dt\,A), \quad \bar B = dt\,M^{-1}B,
              \quad M = I-(1-\alpha)\,dt\,A

    with :math:`\alpha` = 1 ("forward"), 0 ("backward"), 1/2 ("bilinear") or the argument ("gbt"), the weight of the
    state at the start of the step: SciPy's ``cont2discrete`` has :math:`1-\alpha`. "zoh" is exact for a held input:

    .. math:: \bar A = e^{dt\,A}, \qquad \bar B = \int_0^{dt}e^{\sigma A}B\,d\sigma

    Args:
        A: system matrix ``(..., N, N)``, real or complex, singular ones included.
        B: input vector ``(..., N)``.
        dt: length of the step, above 0: a number, or a tensor of the shape ``(...)`` of the batch.
        method: ``"forward"``, ``"backward"``, ``"bilinear"``, ``"gbt"`` or ``"zoh"``.
        alpha: weight for "gbt", in [0, 1]; other methods ignore it.

    Returns:
        ``(..., N, N)`` and ``(..., N)``; the batches of A, B and dt broadcast. Differentiable in all three. The dtype
        is A's and B's common one; the half types are computed in float32.

    Raises:
        TypeError: A, B or ``dt`` of another kind.
        ValueError: an unknown ``method``, ``alpha`` outside [0, 1], ``dt`` not above 0, A not square, B of another N.

    Cost: O(N³) for each member of the batch, forward O(N²).

    >>> A, B = torch.tensor([[-1.0]]), torch.tensor([1.0])
    >>> [round(discretize(A, B, 0.5, m)[0].item(), 4) for m in ("forward", "backward", "bilinear", "zoh")]
    [0.5, 0.6667, 0.6, 0.6065]
    """
    check_one_of("method", method, (*_ALPHA, "gbt", "zoh"))
    check_number("alpha", alpha, least=0, most=1)
    check_number("dt", dt, above=0, below=math.inf)
    _check_system(A, B)
    out = torch.promote_types(A.dtype, B.dtype)
    wide = torch.promote_types(out, torch.float32)
    A, B = A.to(wide), B.to(wide)
    h = torch.as_tensor(dt, dtype=A.real.dtype, device=A.device)
    hA, hB = h[..., None, None] * A, h[..., None] * B
    weight = alpha if method == "gbt" else _ALPHA.get(method)
    step = _held(hA, hB) if weight is None else _weighted(hA, hB, weight)
    return step[..., :-1].to(out), step[..., -1].to(out)


def _weighted(hA: Tensor, hB: Tensor, alpha: float) -> Tensor:
    """[Ā, B̄] of the rule with weights α and 1 - α."""
    eye = torch.eye(hA.shape[-1], dtype=hA.dtype, device=hA.device)
    right = _beside(eye + alpha * hA, hB)
    if alpha == 1:
        return right
    return torch.linalg.inv(eye - (1 - alpha) * hA) @ right  # derivatives of solve and lu_solve are wrong under vmap


def _held(hA: Tensor, hB: Tensor) -> Tensor:
    """[Ā, B̄] for an input that is constant over the step: exp of the system with the input as a further state.

    In float64: in float32 torch's matrix_exp keeps only four digits where the norm is just below 0.58.
    """
    rows = _beside(hA, hB).to(torch.promote_types(hA.dtype, torch.float64))
    return torch.linalg.matrix_exp(torch.cat([rows, torch.zeros_like(rows[..., :1, :])], -2))[..., :-1, :]


def _beside(matrix: Tensor, vector: Tensor) -> Tensor:
    """The vector as a further column, over the common batch."""
    batch = torch.broadcast_shapes(matrix.shape[:-2], vector.shape[:-1])
    column = vector[..., None].expand(*batch, -1, 1)
    return torch.cat([matrix.expand(*batch, -1, -1), column], -1)


def _check_system(A: Tensor, B: Tensor) -> None:
    for name, x in (("A", A), ("B", B)):
        check_dtype(name, x, "floating or complex")
    N = A.shape[-1] if A.dim() else 0
    check_shape("A", A, ("...", N, N), "as a square matrix")
    check_shape("B", B, ("...", N), "as A has")
    if N < 1:
        raise ValueError("A: got 0 rows, expected at least 1")
