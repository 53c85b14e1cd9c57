"""The leading singular triplets by random projection."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from kexue_lib._arguments import check_dtype, check_integer
from kexue_lib._tracing import is_traced


def randomized_svd(
    G: Float[Tensor, "*batch n m"], k: int, *, oversample: int = 8, n_iter: int = 2, generator: Generator | None = None
) -> tuple[Float[Tensor, "*batch n k"], Float[Tensor, "*batch k"], Float[Tensor, "*batch k m"]]:
    """Return the ``k`` leading singular triplets, nearly: G ≈ U diag(S) Vh.

    Q spans (GGᵀ)^q GΩ for a Gaussian Ω (m, k + oversample), orthonormalised after every product; then the small matrix
    QᵀG is decomposed. ``k + oversample ≥ min(n, m)`` takes the exact decomposition.

    Args:
        G: matrices.
        k: triplets, 1 ≤ k ≤ min(n, m).
        oversample: further columns of Ω.
        n_iter: q, the power iterations; each sharpens the spectrum's decay and costs two products with G.
        generator: of Ω.

    Returns:
        (U, S, Vh), S descending, float32 for 16-bit input, else the dtype of G. U's columns and Vh's rows are
        orthonormal also where S is 0, for G = 0 as well.

    Raises:
        TypeError: G is not floating, k, oversample or n_iter no integer.
        ValueError: G has fewer than two dimensions or an entry that is not finite; k outside, oversample or
            n_iter < 0.

    Cost: 2 + 2q products of G with k + oversample columns; no matrix of the size of G besides G itself (and its
    float32 copy for 16-bit input).
    Source: Halko, Martinsson and Tropp, arXiv 0909.4061, algorithms 4.4 and 5.1.

    >>> G = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5]))
    >>> randomized_svd(G, 2)[1]
    tensor([3., 2.])
    """
    G = checked_gradient(G)
    n, m = G.shape[-2:]
    check_integer("k", k, 1, min(n, m), most_is="min(n, m)")
    check_integer("oversample", oversample, 0)
    check_integer("n_iter", n_iter, 0)
    columns = k + oversample
    if columns >= min(n, m):
        U, S, Vh = torch.linalg.svd(G, full_matrices=False)
        return U[..., :k], S[..., :k], Vh[..., :k, :]
    omega = torch.randn(m, columns, generator=generator, dtype=G.dtype, device=_device(generator, G)).to(G.device)
    Q = _orthonormal(G @ omega)
    for _ in range(n_iter):
        Q = _orthonormal(G @ _orthonormal(G.mT @ Q))
    # QR of the tall transpose first: the decomposition itself is then of a k × k matrix.
    right, triangle = torch.linalg.qr(G.mT @ Q)
    small_U, S, small_Vh = torch.linalg.svd(triangle.mT)
    return Q @ small_U[..., :k], S[..., :k], small_Vh[..., :k, :] @ right.mT


def checked_gradient(G: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Refuse what is no stack of finite matrices; bring 16-bit entries to float32.

    Raises:
        TypeError: G is not floating.
        ValueError: fewer than two dimensions, or an entry that is not finite (not looked at while tracing).
    """
    check_dtype("G", G, "floating")
    if G.dim() < 2:
        raise ValueError(f"G: got shape {tuple(G.shape)}, expected (..., n, m)")
    # The extremes, for isfinite(G) makes a copy of G on its way.
    if not is_traced() and G.numel() and not all(bool(x.isfinite()) for x in torch.aminmax(G.detach())):
        raise ValueError("G: got an entry that is not finite, expected a finite gradient")
    return G.float() if G.dtype in (torch.float16, torch.bfloat16) else G


def _orthonormal(Y: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch n k"]:
    """Orthonormal columns whose span holds that of Y, also where Y has dependent columns."""
    return torch.linalg.qr(Y)[0]


def _device(generator: Generator | None, G: Float[Tensor, "..."]) -> torch.device:
    """Where to draw: a generator draws on its own device only."""
    return G.device if generator is None else generator.device
