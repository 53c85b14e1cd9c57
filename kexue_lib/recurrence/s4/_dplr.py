"""The LegS matrix as diagonal minus rank one, its bilinear step, and the readout of a truncated kernel."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float, Inexact
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_shape
from kexue_lib.recurrence.hippo import hippo_matrices
from kexue_lib.recurrence.hippo_discretization import discretize


def legs_nplr(
    N: int, *, dtype: torch.dtype = torch.float64
) -> tuple[Float[Tensor, "N N"], Float[Tensor, " N"], Float[Tensor, " N"]]:
    r"""Return LegS's A and B in the scaling "hippo", and the v that makes A normal: plus :math:`\frac12vv^\top`.

    .. math:: A+\tfrac12vv^\top+\tfrac12I\ \text{is skew-symmetric},\qquad v_n=B_n=\sqrt{2n+1}

    Args:
        N: size of the state.
        dtype: of the results.

    Raises:
        TypeError: ``N`` is no integer.
        ValueError: ``N`` below 1.

    >>> A, B, v = legs_nplr(3)
    >>> S = A + torch.outer(v, v) / 2 + torch.eye(3) / 2
    >>> torch.allclose(S, -S.T)
    True
    """
    A, B = hippo_matrices("legs", N, scaling="hippo", dtype=dtype)
    return A, B, B.clone()


def legs_dplr(
    N: int, *, dtype: torch.dtype = torch.complex128
) -> tuple[Complex[Tensor, " N"], Complex[Tensor, " N"], Complex[Tensor, " N"], Complex[Tensor, "N N"]]:
    r"""Return :math:`\Lambda, P, V^*B, V` with :math:`A=V(\operatorname{diag}\Lambda-PP^*)V^*` and V unitary.

    The free phase of each eigenvector is chosen so that :math:`V^*B` is real and positive; then so is
    :math:`P=V^*B/\sqrt2`, and the eigenvectors of conjugate poles are conjugate.

    Args:
        N: size of the state.
        dtype: of the results, complex; they are computed in float64.

    Returns:
        Poles with real part -1/2, in ascending order of their imaginary parts; P; the input; the eigenvectors in the
        columns of V.

    Raises:
        TypeError: ``N`` is no integer.
        ValueError: ``N`` below 1.

    Cost: an eigendecomposition of a Hermitian (N, N), O(N³).

    >>> Lam, P, B, V = legs_dplr(4)
    >>> A = V @ (torch.diag(Lam) - torch.outer(P, P.conj())) @ V.mH
    >>> torch.allclose(A.real, legs_nplr(4)[0]) and A.imag.abs().max().item() < 1e-12
    True
    """
    A, _, v = legs_nplr(N)
    skew = A + torch.outer(v, v) / 2 + torch.eye(N, dtype=torch.float64) / 2
    omega, V = torch.linalg.eigh(-1j * skew)
    product = V.mH @ v.to(V.dtype)
    V = V * (product / product.abs())
    B = product.abs()
    # The spectrum is symmetric about 0: averaging the halves makes pairs conjugate to the last digit.
    omega, B = (omega - omega.flip(0)) / 2, (B + B.flip(0)) / 2
    V = (V + V.flip(1).conj()) / 2
    Lam = torch.complex(torch.full_like(omega, -0.5), omega)
    return Lam.to(dtype), (B / math.sqrt(2)).to(dtype), B.to(dtype), V.to(dtype)


def discretize_dplr(
    Lam: Inexact[Tensor, "*#batch N"],
    P: Inexact[Tensor, "*#batch N"],
    Q: Inexact[Tensor, "*#batch N"],
    B: Inexact[Tensor, "*#batch N"],
    dt: float | Float[Tensor, "*#batch"],
) -> tuple[Inexact[Tensor, "*batch N N"], Inexact[Tensor, "*batch N"]]:
    r"""Return the bilinear :math:`\bar A=(I-\frac\epsilon2A)^{-1}(I+\frac\epsilon2A)`, :math:`\bar B`, for A = Λ - PQᵀ.

    Args:
        Lam: poles, (..., N).
        P: column of the rank-one part.
        Q: its row, without conjugation: ``P.conj()`` for HiPPO.
        B: input.
        dt: step, a number or (...), above 0.

    Raises:
        ValueError: ``dt`` not above 0.

    Cost: O(N³); :func:`dplr_step` applies both in O(N).

    >>> one = torch.ones(1, dtype=torch.complex128)
    >>> discretize_dplr(-one, 0 * one, 0 * one, one, 2.0)  # (1 - 1) / (1 + 1) and 2 / (1 + 1)
    (tensor([[0.+0.j]], dtype=torch.complex128), tensor([1.+0.j], dtype=torch.complex128))
    """
    A = torch.diag_embed(Lam) - P[..., :, None] * Q[..., None, :]
    return discretize(A, B.broadcast_to(A.shape[:-1]), dt, "bilinear")


def dplr_step(
    x: Inexact[Tensor, "*#batch N"],
    u: Inexact[Tensor, "*#batch"],
    Lam: Inexact[Tensor, "*#batch N"],
    P: Inexact[Tensor, "*#batch N"],
    Q: Inexact[Tensor, "*#batch N"],
    B: Inexact[Tensor, "*#batch N"],
    dt: float | Float[Tensor, "*#batch"],
) -> Inexact[Tensor, "*batch N"]:
    r"""Return :math:`\bar Ax+\bar Bu`, one bilinear step of A = Λ - PQᵀ.

    .. math::
        \bar Ax+\bar Bu=D\big[(\tfrac2\epsilon+\Lambda)x+2Bu\big]
        -\frac{2DP\,Q^\top D\big[\tfrac2\epsilon x+Bu\big]}{1+Q^\top DP},\quad D=\big(\tfrac2\epsilon-\Lambda\big)^{-1}

    Args:
        x: state, (..., N).
        u: input at this step, (...).
        Lam: poles; ``P``, ``Q``, ``B`` and ``dt`` as in :func:`discretize_dplr`.
        P: column of the rank-one part.
        Q: its row.
        B: input vector.
        dt: step, above 0.

    Raises:
        ValueError: ``dt`` not above 0.

    Cost: O(N).

    >>> one = torch.ones(1, dtype=torch.complex128)
    >>> dplr_step(3 * one, torch.tensor(5.0), -one, 0 * one, 0 * one, one, 2.0)  # 0 · 3 + 1 · 5
    tensor([5.+0.j], dtype=torch.complex128)
    """
    check_number("dt", dt, above=0)
    check_dtype("u", u, "floating or complex")
    check_vectors(x=x, Lam=Lam, P=P, Q=Q, B=B)
    rate = 2 / (dt[..., None] if isinstance(dt, Tensor) else dt)
    D, source = 1 / (rate - Lam), B * u[..., None]
    row = Q * D
    low_rank = 2 * (row * (rate * x + source)).sum(-1, keepdim=True) / (1 + (row * P).sum(-1, keepdim=True))
    return D * ((rate + Lam) * x + 2 * source - P * low_rank)


def truncate_readout(
    C: Inexact[Tensor, "*#batch N"], Ab: Inexact[Tensor, "*#batch N N"], L: int
) -> Inexact[Tensor, "*batch N"]:
    r"""Return :math:`\tilde C=C(I-\bar A^L)`, the readout whose infinite kernel sum at z^L = 1 stops at L terms.

    .. math:: \sum_{k<L}C\bar A^k\bar Bz^k=C\,(I-z^L\bar A^L)(I-z\bar A)^{-1}\bar B

    Args:
        C: readout, (..., N).
        Ab: discrete state matrix, (..., N, N).
        L: length of the kernel.

    Raises:
        TypeError: ``L`` is no integer.
        ValueError: ``L`` below 1.

    Cost: log₂ L products of (N, N).

    >>> truncate_readout(torch.tensor([8.0]), torch.tensor([[0.5]]), 3)
    tensor([7.])
    """
    check_integer("L", L, 1)
    return C - (C[..., None, :] @ torch.linalg.matrix_power(Ab, L)).squeeze(-2)


def recover_readout(
    Ct: Inexact[Tensor, "*#batch N"], Ab: Inexact[Tensor, "*#batch N N"], L: int
) -> Inexact[Tensor, "*batch N"]:
    r"""Return :math:`C=\tilde C(I-\bar A^L)^{-1}`, what a recurrence needs: the inverse of :func:`truncate_readout`.

    Args:
        Ct: truncated readout, (..., N).
        Ab: discrete state matrix, (..., N, N).
        L: length of the kernel.

    Raises:
        TypeError: ``L`` is no integer.
        ValueError: ``L`` below 1.

    Cost: log₂ L products and one solution with (N, N).

    >>> recover_readout(torch.tensor([7.0]), torch.tensor([[0.5]]), 3)
    tensor([8.])
    """
    check_integer("L", L, 1)
    power = torch.linalg.matrix_power(Ab, L)
    eye = torch.eye(Ab.shape[-1], dtype=Ab.dtype, device=Ab.device)
    return torch.linalg.solve((eye - power).mT, Ct[..., None]).squeeze(-1)


def check_vectors(**vectors: Tensor) -> None:
    """Refuse what is no floating or complex vector (..., n) of the length that the first has."""
    first = next(iter(vectors))
    for name, x in vectors.items():
        check_dtype(name, x, "floating or complex")
        check_shape(name, x, ("...", "n") if name == first else ("...", vectors[first].shape[-1]), f"as {first} has")
