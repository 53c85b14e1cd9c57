"""Kronecker products, the Hadamard and the Fourier transform as Monarch matrices."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Inexact, Int64, Shaped
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer
from kexue_lib.matrices.monarch._product import check_divides, monarch_matmul


def kron_monarch(
    A: Shaped[Tensor, "I K"], B: Shaped[Tensor, "J l"]
) -> tuple[Shaped[Tensor, "J I K"], Shaped[Tensor, "K J l"]]:
    r"""Return the factors of the Kronecker product: :math:`L_{jik}=A_{ik}`, :math:`R_{kjp}=B_{jp}`.

    Args:
        A: ``(I, K)``.
        B: ``(J, l)``.

    Raises:
        ValueError: an argument that is not 2-D.

    >>> from kexue_lib.matrices.monarch import monarch_dense
    >>> A, B = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])
    >>> monarch_dense(*kron_monarch(A, B)).tolist()
    [[3.0, 6.0], [4.0, 8.0]]
    """
    for name, x in (("A", A), ("B", B)):
        if x.dim() != 2:
            raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected a matrix")
    return A.expand(len(B), *A.shape).contiguous(), B.expand(A.shape[1], *B.shape).contiguous()


def hadamard_monarch(
    n: int, nblocks: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> tuple[Shaped[Tensor, "J K K"], Shaped[Tensor, "K J J"]]:
    r"""Return the factors of the Hadamard matrix :math:`H_n=H_K\otimes H_{n/K}` in Sylvester's order, entries ±1.

    Args:
        n: a power of 2.
        nblocks: K, a divisor of n.
        dtype: default ``torch.get_default_dtype()``.
        device: of the factors.

    Raises:
        TypeError: a size that is no integer.
        ValueError: ``n`` is no power of 2, or ``nblocks`` does not divide it.

    >>> monarch_matmul(torch.tensor([1.0, 0.0, 0.0, 0.0]), *hadamard_monarch(4, 2)).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    check_integer("n", n, 1)
    if n & (n - 1):
        raise ValueError(f"n: got {n}, expected a power of 2")
    check_divides("nblocks", nblocks, "n", n)
    return kron_monarch(_sylvester(nblocks, dtype, device), _sylvester(n // nblocks, dtype, device))


def dft_monarch(
    n: int, nblocks: int, dtype: torch.dtype = torch.complex128, device: torch.device | str | None = None
) -> tuple[Complex[Tensor, "J K K"], Complex[Tensor, "K J J"], Int64[Tensor, " n"]]:
    r"""Return ``(L, R, perm)`` with ``monarch_matmul(x[..., perm], L, R) == torch.fft.fft(x)``.

    .. math:: L_{jik}=\omega^{(iJ+j)k}, \qquad R_{kjp}=\omega^{jKp}, \qquad \omega=e^{-2\pi\mathrm i/n},
              \quad K=\text{nblocks},\ J=n/K

    Args:
        n: length.
        nblocks: K, a divisor of n.
        dtype: ``torch.complex64`` or ``torch.complex128``.
        device: of the result.

    Raises:
        TypeError: a size that is no integer, or a dtype that is not complex.
        ValueError: ``nblocks`` does not divide ``n``, or a size below 1.

    >>> L, R, perm = dft_monarch(6, 2)
    >>> x = torch.arange(6.0, dtype=torch.float64)
    >>> torch.allclose(monarch_matmul(x[perm], L, R), torch.fft.fft(x), atol=1e-12)
    True
    """
    check_integer("n", n, 1)
    check_divides("nblocks", nblocks, "n", n)
    if not dtype.is_complex:
        raise TypeError(f"dtype: got {dtype}, expected a complex dtype")
    K, J = nblocks, n // nblocks
    k, j = torch.arange(K, device=device), torch.arange(J, device=device)
    of_L = (k[:, None] * J + j[:, None, None]) * k % n
    of_R = (j[:, None] * (K * j) % n).expand(K, J, J)
    turn = torch.polar(torch.ones(n, dtype=torch.float64), torch.arange(n).double() * (-2 * math.pi / n)).to(device)
    return turn[of_L].to(dtype), turn[of_R].to(dtype), (k[:, None] + K * j).reshape(n)


def monarch_circular_conv(
    x: Inexact[Tensor, "*b n"], h: Inexact[Tensor, "*c n"], nblocks: int
) -> Inexact[Tensor, "*d n"]:
    r"""Return the circular convolution along the last axis by two Monarch Fourier transforms.

    .. math:: y_s = \sum_t h_{(s-t)\bmod n}\,x_t, \qquad y = F^{-1}\,\mathrm{diag}(Fh)\,F\,x

    Args:
        x: ``(..., n)``.
        h: ``(..., n)``, broadcast against ``x``.
        nblocks: blocks of the transform, a divisor of n.

    Returns:
        The broadcast shape; real when both inputs are.

    Raises:
        TypeError: ``nblocks`` is no integer.
        ValueError: different lengths, or ``nblocks`` does not divide them.

    Cost: three transforms of 2·n^1.5 complex multiply-adds at best; ``torch.fft`` takes O(n log n).

    >>> x, shift = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, 0.0]])
    >>> monarch_circular_conv(x, shift, 2).round().tolist()
    [4.0, 1.0, 2.0, 3.0]
    """
    for name, v in (("x", x), ("h", h)):
        check_dtype(name, v, "floating or complex")
    if x.dim() == 0 or h.dim() == 0 or x.shape[-1] != h.shape[-1]:
        raise ValueError(f"h: got shape {tuple(h.shape)}, expected the last dimension of x, of shape {tuple(x.shape)}")
    n, real = x.shape[-1], not (x.is_complex() or h.is_complex())
    dtype = torch.promote_types(torch.promote_types(x.dtype, h.dtype), torch.complex64)
    L, R, perm = dft_monarch(n, nblocks, dtype, x.device)
    spectra = [monarch_matmul(v.to(dtype)[..., perm], L, R) for v in (x, h)]
    back = monarch_matmul((spectra[0] * spectra[1]).conj()[..., perm], L, R).conj() / n
    return back.real.to(torch.promote_types(x.dtype, h.dtype)) if real else back.resolve_conj()


def _sylvester(n: int, dtype: torch.dtype | None, device: torch.device | str | None) -> Tensor:
    H = torch.ones(1, 1, dtype=dtype, device=device)
    while len(H) < n:
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return H
