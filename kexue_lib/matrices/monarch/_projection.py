"""The nearest Monarch matrix: one low-rank problem for each pair of blocks."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Inexact
from torch import Tensor

from kexue_lib._arguments import check_integer, check_one_of, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib.matrices.monarch._product import check_divides

_DOUBLE_SQUARINGS, _REPEATS = 3, 3  # the Gram matrix to the power 64·4: with less, close singular values cost digits


@without_autocast
@torch.no_grad()
def monarch_project(
    M: Inexact[Tensor, "IJ Kl"],
    nblocks_in: int,
    nblocks_out: int | None = None,
    *,
    rank: int = 1,
    method: Literal["svd", "power"] = "svd",
) -> tuple[Inexact[Tensor, "J I Kq"], Inexact[Tensor, "K Jq l"]]:
    r"""Return the factors of the Monarch matrix nearest to M in the Frobenius norm.

    .. math:: \min\|M-\mathrm{Mon}(L,R)\|_F^2 = \sum_{jk}\sum_{s>q}\sigma_s^2(M_{\cdot j,\,k\cdot})

    Args:
        M: ``(I·J, K·l)``, real or complex; half types are worked on in float32.
        nblocks_in: K, a divisor of the columns.
        nblocks_out: J, a divisor of the rows; default K.
        rank: q, from 1 to min(I, l), where every matrix is one.
        method: ``"svd"``, exact to rounding; or ``"power"``, repeated squaring of the Gram matrices, for rank 1 and
            real M: several times faster, with a squared error larger by less than 1e-5 of itself on random matrices.

    Returns:
        ``L (J, I, K·q)``, ``R (K, J·q, l)`` in M's dtype, balanced: each has √σ of a pair. Slices that are zero give
        zero factors. Of several nearest matrices (equal singular values) one is returned. No gradient.

    Raises:
        TypeError: a count that is no integer.
        ValueError: M is not 2-D or not finite under ``"svd"``; a count that does not divide; ``rank`` outside its
            range, or not 1 with ``"power"``; complex M with ``"power"``; an unknown method.

    Cost: J·K decompositions of I × l, for n = m² that is O(n^2.5).

    >>> from kexue_lib.matrices.monarch import monarch_dense
    >>> L, R = monarch_project(torch.eye(4), 2)
    >>> (L.shape, R.shape, torch.allclose(monarch_dense(L, R), torch.eye(4)))
    (torch.Size([2, 2, 2]), torch.Size([2, 2, 2]), True)
    """
    nblocks_out = nblocks_in if nblocks_out is None else nblocks_out
    check_shape("M", M, ("I·J", "K·l"))
    check_divides("nblocks_in", nblocks_in, "the columns of M", M.shape[1])
    check_divides("nblocks_out", nblocks_out, "the rows of M", M.shape[0])
    J, K, I, l = nblocks_out, nblocks_in, M.shape[0] // nblocks_out, M.shape[1] // nblocks_in
    check_integer("rank", rank, 1, min(I, l), most_is="min(I, l)")
    check_one_of("method", method, ("svd", "power"))
    wide = M.float() if M.dtype.itemsize == 2 and M.is_floating_point() else M
    slices = wide.reshape(I, J, K, l).permute(1, 2, 0, 3)
    if method == "power":
        if rank != 1 or M.is_complex():
            raise ValueError(f"method: got 'power' with rank {rank} and {M.dtype}, expected rank 1 and a real dtype")
        left, right = _leading_pair(slices)
    else:
        U, s, Vh = torch.linalg.svd(slices, full_matrices=False)
        root = s[..., :rank].sqrt()
        left, right = U[..., :rank] * root.unsqueeze(-2), Vh[..., :rank, :] * root.unsqueeze(-1)
    L = left.permute(0, 2, 1, 3).reshape(J, I, K * rank)
    R = right.transpose(0, 1).reshape(K, J * rank, l)
    return L.to(M.dtype), R.to(M.dtype)


def _leading_pair(slices: Tensor) -> tuple[Tensor, Tensor]:
    """√σ u and √σ v' of every slice (..., I, l), the vector on the shorter side from a high power of the Gram matrix.

    Each squaring doubles the exponent. Divided by the trace, the m × m matrix has a largest eigenvalue between 1/m
    and 1, and two squarings leave it far from underflow. The column with the largest diagonal entry is the one in
    which the leading vector is largest; the power acts on it a few times more.
    """
    if slices.shape[-2] < slices.shape[-1]:
        right, left = _leading_pair(slices.mT)
        return left.mT, right.mT
    shape, tiny = slices.shape, torch.finfo(slices.dtype).tiny
    S = slices.reshape(-1, *shape[-2:])
    largest = torch.linalg.vector_norm(S, torch.inf, (-2, -1), keepdim=True).clamp_min(tiny)
    S = S / largest
    gram = S.mT @ S
    square = torch.empty_like(gram)  # two buffers in turn: fresh memory costs as much as a product
    for _ in range(_DOUBLE_SQUARINGS):
        gram /= gram.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None].clamp_min(tiny)
        torch.bmm(torch.bmm(gram, gram, out=square), square, out=gram)
    column = gram.diagonal(dim1=-2, dim2=-1).argmax(-1)
    v = gram[torch.arange(len(gram), device=gram.device), :, column]
    v = (v / v.abs().amax(-1, keepdim=True).clamp_min(tiny))[..., None]
    for _ in range(_REPEATS):
        v = gram @ v
        v = v / torch.linalg.vector_norm(v, dim=-2, keepdim=True).clamp_min(tiny)
    u = S @ v
    root = torch.linalg.vector_norm(u, dim=-2, keepdim=True).sqrt()
    scale = largest.sqrt()
    left, right = u / root.clamp_min(tiny) * scale, v.mT * root * scale
    return left.view(*shape[:-1], 1), right.view(*shape[:-2], 1, shape[-1])
