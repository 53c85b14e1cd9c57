"""The Sylvester equation with two symmetric coefficients, through their eigenvectors."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_shape
from kexue_lib._autograd import remember_signature


def solve_sylvester_spd(
    P: Float[Tensor, "*batch p p"], Q: Float[Tensor, "*batch q q"], R: Float[Tensor, "*batch p q"]
) -> Float[Tensor, "*batch p q"]:
    r"""Solve :math:`PX+XQ=R` for symmetric positive semi-definite P and Q.

    .. math:: P=U\operatorname{diag}(a)U^\top,\ Q=V\operatorname{diag}(b)V^\top:\qquad
              X=U\Big[\frac{(U^\top RV)_{ij}}{a_i+b_j}\Big]V^\top

    Entries with :math:`a_i+b_j` zero to rounding are 0: the solution of least norm, where there is one.
    The arithmetic is that of float64, so that a(i) + b(j) keeps its digits when P and Q are squares of matrices.

    Args:
        P: (..., p, p); only its symmetric part counts.
        Q: (..., q, q); only its symmetric part counts.
        R: (..., p, q).

    Returns:
        X (..., p, q), in the dtype of R. Twice differentiable, also where eigenvalues coincide.

    Raises:
        TypeError: no tensors of floating dtype.
        ValueError: sizes that do not fit.

    Cost: O(p³ + q³) where the system of all p·q unknowns takes O(p³q³); the backward pass solves one such equation.

    >>> solve_sylvester_spd(torch.eye(2), 3 * torch.eye(1), torch.tensor([[8.0], [4.0]])).tolist()
    [[2.0], [1.0]]
    """
    for name, x in (("P", P), ("Q", Q), ("R", R)):
        check_dtype(name, x, "floating")
    check_shape("R", R, ("...", "p", "q"))
    check_shape("P", P, (*R.shape[:-2], R.shape[-2], R.shape[-2]), "as R has")
    check_shape("Q", Q, (*R.shape[:-2], R.shape[-1], R.shape[-1]), "as R has")
    P, Q = ((x.double() + x.double().mT) / 2 for x in (P, Q))
    return _Sylvester.apply(P, Q, R.double()).to(R.dtype)


@remember_signature
class _Sylvester(torch.autograd.Function):
    """X of PX + XQ = R; a change of the three moves it by the solution for dR − dP X − X dQ.

    Derivatives through the eigenvectors would divide by differences of eigenvalues; this way none is needed.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(P: Tensor, Q: Tensor, R: Tensor) -> Tensor:
        return _solution(P, Q, R)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        P, Q, X = ctx.saved_tensors
        Y = _Sylvester.apply(P, Q, grad)
        return -Y @ X.mT, -X.mT @ Y, Y


def _solution(P: Tensor, Q: Tensor, R: Tensor) -> Tensor:
    (a, U), (b, V) = torch.linalg.eigh(P), torch.linalg.eigh(Q)
    total = a[..., :, None] + b[..., None, :]
    rounding = max(total.shape[-2:]) * torch.finfo(total.dtype).eps
    kept = total > rounding * (a[..., -1:, None] + b[..., -1:, None])
    return U @ torch.where(kept, (U.mT @ R @ V) / total.where(kept, 1.0), 0.0) @ V.mT
