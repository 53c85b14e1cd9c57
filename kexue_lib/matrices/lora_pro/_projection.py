"""The best that two factors of low rank can do for a gradient, and what stays out of their reach."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_shape
from kexue_lib.matrices.lora_pro._directions import precision


def tangent_projection(
    G: Float[Tensor, "*batch n m"], A: Float[Tensor, "*batch n r"], B: Float[Tensor, "*batch r m"]
) -> Float[Tensor, "*batch n m"]:
    r"""Return the matrix nearest to G among all :math:`H_AB+AH_B`.

    .. math:: \Pi(G)=P_AG+GP_B-P_AGP_B,\qquad P_A=AA^+,\quad P_B=B^+B

    The projection on the tangent space at AB of the matrices of rank r, if A and B have that rank.

    Args:
        G: (..., n, m), such as ∂L/∂W.
        A: (..., n, r); singular values below r·eps times the largest count as zero, eps that of its dtype, or of
            float32 for the half types.
        B: (..., r, m), likewise.

    Returns:
        Π(G), (..., n, m), of rank 2r at most.

    Raises:
        TypeError: no tensors of floating dtype.
        ValueError: sizes that do not chain.

    Cost: O(nmr), and the singular values of both factors; no n × n matrix. Arithmetic in float64.

    Source: Vandereycken, "Low-rank matrix completion by Riemannian optimization", 2013, section 2.1.

    >>> A, B = torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 0.0]])
    >>> tangent_projection(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), A, B).round(decimals=3).tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """
    wide, left, right = _parts(G, A, B)
    return (wide - _outside(wide, left, right)).to(G.dtype)


def alignment_residual(
    G: Float[Tensor, "*batch n m"], A: Float[Tensor, "*batch n r"], B: Float[Tensor, "*batch r m"]
) -> Float[Tensor, "*batch n m"]:
    r"""Return what no step of the factors reaches: :math:`G-\Pi(G)=(I-P_A)\,G\,(I-P_B)`.

    Its squared norm is the least value of :math:`\|H_AB+AH_B-G\|_F^2`.

    Args:
        G: (..., n, m).
        A: (..., n, r); rank as in :func:`tangent_projection`.
        B: (..., r, m).

    Returns:
        The residual, (..., n, m).

    Raises:
        TypeError: no tensors of floating dtype.
        ValueError: sizes that do not chain.

    Cost: as :func:`tangent_projection`.

    >>> A, B = torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 0.0]])
    >>> alignment_residual(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), A, B).round(decimals=3).tolist()
    [[0.0, 0.0], [0.0, 4.0]]
    """
    return _outside(*_parts(G, A, B)).to(G.dtype)


def _parts(G: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """G, and the factors of both projections (A, A⁺) and (B⁺, B), in float64."""
    for name, x in (("G", G), ("A", A), ("B", B)):
        check_dtype(name, x, "floating")
    check_shape("G", G, ("...", "n", "m"))
    check_shape("A", A, (*G.shape[:-1], "r"), "as G has")
    check_shape("B", B, (*G.shape[:-2], A.shape[-1], G.shape[-1]), "as A and G have")
    rtol = A.shape[-1] * precision(A.dtype)
    wide_A, wide_B = A.double(), B.double()
    left = torch.linalg.pinv(wide_A, rtol=rtol)
    right = torch.linalg.pinv(wide_B, rtol=rtol)
    return G.double(), (wide_A, left), (right, wide_B)


def _outside(G: Tensor, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> Tensor:
    """(I − P_A) G (I − P_B), a thin product at a time."""
    rest = G - left[0] @ (left[1] @ G)
    return rest - (rest @ right[0]) @ right[1]
