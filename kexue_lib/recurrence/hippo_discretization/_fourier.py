"""The Fourier series of the whole past."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex
from torch import Tensor

from kexue_lib._arguments import check_integer


def fourier_scaled_matrices(
    N: int, *, dtype: torch.dtype = torch.complex128, device: torch.device | str | None = None
) -> tuple[Complex[Tensor, "K K"], Complex[Tensor, "K"]]:
    r"""Return A and B of the Fourier coefficients on [0, T], for n = -N … N in this order.

    .. math:: c_n = \int_0^1 u(sT)e^{-2\pi ins}\,ds, \qquad T\,c' = Ac+Bu, \qquad
              A_{nn} = i\pi n-1, \quad A_{nk} = -\frac n{n-k}, \quad B_n = 1

    Every eigenvalue has the real part -1, A is diagonalisable, and :math:`A+A^*=-I-\mathbf 1\mathbf 1^\top`.
    Frequencies above N, which the exact equation has, are left out.

    Args:
        N: highest frequency, in periods per past; the state has 2N + 1 coefficients.
        dtype: of the result, complex; the entries are formed in float64.
        device: of the result.

    Raises:
        TypeError: N no integer, or ``dtype`` not complex.
        ValueError: N below 1.

    Cost: O(N²).

    >>> A, B = fourier_scaled_matrices(1)
    >>> A.real.tolist()
    [[-1.0, -1.0, -0.5], [0.0, -1.0, 0.0], [-0.5, -1.0, -1.0]]
    """
    check_integer("N", N, 1)
    if not dtype.is_complex:
        raise TypeError(f"dtype: got {dtype}, expected a complex dtype")
    n = torch.arange(-N, N + 1, dtype=torch.float64)
    gap = (n[:, None] - n).fill_diagonal_(1)
    real = torch.where(n[:, None] == n, -torch.ones_like(gap), 0 - n[:, None] / gap)
    A = torch.complex(real, torch.diag(math.pi * n))
    return A.to(dtype=dtype, device=device), torch.ones(2 * N + 1, dtype=dtype, device=device)
