"""Systems and determinants, block by block."""

from __future__ import annotations

import math

import torch
from jaxtyping import Inexact, Shaped
from torch import Tensor

from kexue_lib._arguments import check_dtype
from kexue_lib._autocast import without_autocast
from kexue_lib.matrices.monarch._product import Factor, Sizes, sizes


@without_autocast
def monarch_solve(L: Factor, R: Factor, y: Inexact[Tensor, "*b n"]) -> Inexact[Tensor, "*b n"]:
    r"""Return :math:`x = M^{-1}y`.

    .. math:: h_{\cdot j} = L_j^{-1}y_{\cdot j}, \qquad x_{k\cdot} = R_k^{-1}h_{k\cdot}

    Args:
        L: ``(J, K, K)``.
        R: ``(K, J, J)``.
        y: ``(..., K·J)``.

    Returns:
        ``(..., K·J)``; differentiable.

    Raises:
        ValueError: factors without square blocks, or another last dimension of ``y``.
        torch.linalg.LinAlgError: a block is singular.

    Cost: J systems of K unknowns and K of J, for n = m² that is O(n²).

    >>> from kexue_lib.matrices.monarch import hadamard_monarch
    >>> L, R = hadamard_monarch(4, 2)
    >>> monarch_solve(L, R, torch.tensor([4.0, 0.0, 0.0, 0.0])).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    size = _square_sizes(L, R)
    check_dtype("y", y, "floating or complex")
    J, K = size.J, size.K
    if y.dim() == 0 or y.shape[-1] != K * J:
        raise ValueError(f"y: got shape {tuple(y.shape)}, expected (..., {K * J}) for R of shape {tuple(R.shape)}")
    columns = y.reshape(math.prod(y.shape[:-1]), K, J).permute(2, 1, 0)
    h = torch.linalg.solve(L, columns)
    x = torch.linalg.solve(R, h.transpose(0, 1))
    return x.permute(2, 0, 1).reshape(y.shape)


@without_autocast
def monarch_slogdet(L: Factor, R: Factor) -> tuple[Shaped[Tensor, ""], Shaped[Tensor, ""]]:
    r"""Return the sign (or phase) of the determinant and the logarithm of its absolute value.

    .. math:: \det M = \prod_j\det L_j\prod_k\det R_k

    Args:
        L: ``(J, K, K)``.
        R: ``(K, J, J)``.

    Returns:
        Two scalars; a singular M gives (0, −∞), as in ``torch.linalg.slogdet``. Differentiable.

    Raises:
        ValueError: factors without square blocks.

    Cost: as :func:`monarch_solve`.

    >>> from kexue_lib.matrices.monarch import hadamard_monarch
    >>> sign, logabsdet = monarch_slogdet(*hadamard_monarch(4, 2))
    >>> round((sign * logabsdet.exp()).item())
    16
    """
    _square_sizes(L, R)
    (sign_L, log_L), (sign_R, log_R) = torch.linalg.slogdet(L), torch.linalg.slogdet(R)
    return sign_L.prod() * sign_R.prod(), log_L.sum() + log_R.sum()


def _square_sizes(L: Tensor, R: Tensor) -> Sizes:
    size = sizes(L, R)
    if size.q != 1 or size.I != size.K or size.l != size.J:
        shapes = f"L: got shapes {tuple(L.shape)} and R {tuple(R.shape)}"
        raise ValueError(f"{shapes}, expected square blocks, L (J, K, K) and R (K, J, J)")
    return size
