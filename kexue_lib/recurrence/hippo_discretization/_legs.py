r"""What the LegS matrix A does to a vector: Av and (I - λA)⁻¹v by sums, :math:`r^A` by quadrature."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from kexue_lib._arguments import check_broadcast, check_dtype, check_integer, check_number
from kexue_lib._autocast import without_autocast
from kexue_lib.recurrence.hippo import legendre_basis
from kexue_lib.recurrence.scan import linear_scan


@without_autocast
def legs_matvec(v: Inexact[Tensor, "*b N"]) -> Inexact[Tensor, "*b N"]:
    r"""Return Av for the LegS matrix in its orthonormal form (that of the paper has the same A).

    .. math:: (Av)_n = n v_n - \sqrt{2n+1}\sum_{k\le n}\sqrt{2k+1}\,v_k

    Args:
        v: vectors ``(..., N)``, real or complex.

    Returns:
        ``(..., N)`` in the dtype of v; the half types are computed in float32.

    Raises:
        TypeError: v neither floating nor complex.
        ValueError: v without entries.

    Cost: O(N), one cumulative sum. On a CPU a dense product is faster at N = 64, this one at 256.

    >>> legs_matvec(torch.tensor([1.0, 0.0])) ** 2
    tensor([1., 3.])
    """
    _check_vectors(v)
    return product(v.to(torch.promote_types(v.dtype, torch.float32))).to(v.dtype)


@without_autocast
def legs_solve(v: Inexact[Tensor, "*b N"], lam: float | Float[Tensor, "*c"]) -> Inexact[Tensor, "*b N"]:
    r"""Return :math:`z=(I-\lambda A)^{-1}v` for the LegS matrix, by a scan over a single number.

    .. math:: S_n = \frac{1-\lambda n}{1+\lambda(n+1)}S_{n-1} + \frac{\sqrt{2n+1}}{1+\lambda(n+1)}v_n, \qquad
              z_n = \frac{v_n-\lambda\sqrt{2n+1}\,S_{n-1}}{1+\lambda(n+1)}

    Args:
        v: right sides ``(..., N)``, real or complex.
        lam: :math:`\lambda`, 0 or above: a number, or a tensor that broadcasts to the batch ``(...)``.

    Returns:
        ``(..., N)`` in the dtype of v; the half types are computed in float32. Differentiable in both.

    Raises:
        TypeError: v neither floating nor complex, ``lam`` no number.
        ValueError: v without entries, ``lam`` negative or of another shape.

    Cost: O(N). On a CPU a dense triangular solve is faster up to N ≈ 768.

    >>> legs_solve(torch.tensor([2.0, 0.0]), 1.0)[0]
    tensor(1.)
    """
    _check_vectors(v)
    check_number("lam", lam, least=0, below=math.inf)
    wide = v.to(torch.promote_types(v.dtype, torch.float32))
    lam = torch.as_tensor(lam, dtype=wide.real.dtype, device=v.device)
    check_broadcast("lam", lam, v.shape[:-1], "the batch of v")
    return solution(wide, lam).to(v.dtype)


def legs_transition(N: int, r: float | Float[Tensor, "*b"], *, dtype: torch.dtype = torch.float64) -> Tensor:
    r"""Return :math:`r^A` for the LegS matrix: the coefficients on [0, rT] of what was on [0, T], continued by zero.

    .. math:: (r^A)_{nk} = \frac1r\int_{-1}^1 g_n\Big(\frac{s+1}r-1\Big)g_k(s)\,ds

    Args:
        N: number of coefficients.
        r: ratio of the two times, 1 or above; a number or a tensor.
        dtype: of the result; computed in float64.

    Returns:
        ``(*r.shape, N, N)``, lower triangular. Differentiable in r.

    Raises:
        TypeError: N no integer, r no number.
        ValueError: N below 1, r below 1.

    Cost: O(N³) for each r; N Gauss-Legendre nodes are exact for these polynomials.

    >>> legs_transition(2, 2.0) ** 2
    tensor([[0.2500, 0.0000],
            [0.1875, 0.0625]], dtype=torch.float64)
    """
    check_integer("N", N, 1)
    check_number("r", r, least=1, below=math.inf)
    r = torch.as_tensor(r, dtype=torch.float64)
    values, widened = transition_factors(N, r)
    return (widened.mT @ values).tril().to(dtype)


def transition_factors(N: int, r: Float[Tensor, "*b"]) -> tuple[Float[Tensor, "q N"], Float[Tensor, "*b q N"]]:
    """Values g_k(s_q), and w_q g_n((s_q + 1)/r - 1)/r: r^A is the second's transpose times the first."""
    s, weight, values = (x.to(r.device) for x in _gauss_legendre(N))
    inside = (s + 1) / r[..., None]
    return values, legendre_basis(N, inside - 1) * (weight / r[..., None])[..., None]


@lru_cache(maxsize=16)
def _gauss_legendre(N: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes, weights and g_k(nodes): eigenvalues of multiplication by s in the basis, and Christoffel's weights."""
    n = torch.arange(1, N, dtype=torch.float64)
    beside = torch.diag(n / (4 * n * n - 1).sqrt(), -1)
    s = torch.linalg.eigvalsh(beside + beside.mT)
    values = legendre_basis(N, (s - s.flip(0)) / 2)
    return (s - s.flip(0)) / 2, 1 / values.square().sum(-1), values


def product(v: Tensor, *, transposed: bool = False) -> Tensor:
    """Av or Aᵀv."""
    n, root = _weights(v)
    weighted = root * v
    sums = weighted.flip(-1).cumsum(-1).flip(-1) if transposed else weighted.cumsum(-1)
    return n * v - root * sums


def solution(v: Tensor, lam: Tensor, *, transposed: bool = False) -> Tensor:
    """(I - λA)⁻¹v or (I - λAᵀ)⁻¹v: the sums of the other entries, from the first on or from the last."""
    n, root = _weights(v)
    lam = lam[..., None]
    pivot = 1 + lam * (n + 1)
    S = linear_scan(((1 - lam * n) / pivot)[..., None], (root / pivot * v)[..., None], reverse=transposed)[..., 0]
    none = torch.zeros_like(v[..., :1])
    others = torch.cat([S[..., 1:], none] if transposed else [none, S[..., :-1]], -1)
    return (v - lam * root * others) / pivot


def _weights(v: Tensor) -> tuple[Tensor, Tensor]:
    """n and √(2n + 1)."""
    n = torch.arange(v.shape[-1], dtype=torch.float64, device=v.device)
    return n.to(v.real.dtype), (2 * n + 1).sqrt().to(v.real.dtype)


def _check_vectors(v: Tensor) -> None:
    check_dtype("v", v, "floating or complex")
    if v.dim() == 0 or v.shape[-1] == 0:
        raise ValueError(f"v: got shape {tuple(v.shape)}, expected (..., N) with N of at least 1")
