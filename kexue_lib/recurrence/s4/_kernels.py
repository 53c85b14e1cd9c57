"""Kernels of discrete linear systems, and the causal convolution that applies them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Complex, Float, Inexact
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib._tracing import is_traced
from kexue_lib.recurrence.s4._dplr import check_vectors, legs_dplr

# Entries of one table of the Cauchy sums: a few such tables live at once, and all of them stay in a core's cache.
_TABLE = 1 << 17


def ssm_kernel_naive(
    Ab: Inexact[Tensor, "*#batch N N"], Bb: Inexact[Tensor, "*#batch N"], C: Inexact[Tensor, "*#batch N"], L: int
) -> Inexact[Tensor, "*batch L"]:
    r"""Return :math:`K_k=C\bar A^k\bar B`, k = 0..L-1, by one product after another: the definition, as a reference.

    Args:
        Ab: discrete state matrix, (..., N, N).
        Bb: discrete input, (..., N).
        C: readout, (..., N).
        L: length.

    Raises:
        TypeError: ``L`` is no integer.
        ValueError: ``L`` below 1.

    Cost: L N² multiply-adds, one after another.

    >>> ssm_kernel_naive(torch.tensor([[0.5]]), torch.tensor([3.0]), torch.tensor([2.0]), 3)
    tensor([6.0000, 3.0000, 1.5000])
    """
    check_integer("L", L, 1)
    x, terms = Bb, []
    for _ in range(L):
        terms.append((C * x).sum(-1))
        x = (Ab @ x[..., None]).squeeze(-1)
    return torch.stack(terms, -1)


@without_autocast
def dplr_kernel(
    Lam: Complex[Tensor, "*#batch N"],
    P: Complex[Tensor, "*#batch N"],
    Q: Complex[Tensor, "*#batch N"],
    B: Complex[Tensor, "*#batch N"],
    Ct: Complex[Tensor, "*#batch N"],
    dt: float | Float[Tensor, "*#batch"],
    L: int,
) -> Complex[Tensor, "*batch L"]:
    r"""Return the kernel of the bilinear step of A = Λ - PQᵀ without powers: four Cauchy sums and an inverse FFT.

    At the roots of unity :math:`z=e^{-2i\varphi}`, :math:`\varphi=\pi l/L`, the generating function is

    .. math::
        \sum_{k<L}K_kz^k=\epsilon e^{i\varphi}\Big[g(\tilde C,B)-\frac{\epsilon\cos\varphi\;g(\tilde C,P)\,g(Q,B)}
        {1+\epsilon\cos\varphi\;g(Q,P)}\Big],\qquad
        g(x,y)=\sum_n\frac{x_ny_n}{2i\sin\varphi-\epsilon\cos\varphi\,\Lambda_n}

    which has no pole at z = -1.

    Args:
        Lam: poles, (..., N).
        P: column of the rank-one part.
        Q: its row, ``P.conj()`` for HiPPO.
        B: input.
        Ct: truncated readout, :func:`truncate_readout` at the same L.
        dt: step, a number or (...), above 0.
        L: length.

    Raises:
        TypeError: ``L`` is no integer.
        ValueError: ``L`` below 1, ``dt`` not above 0.

    Cost: L N divisions and 4 L N multiply-adds, complex, and an FFT; the (L, N) table is made in pieces, and again in
    the backward pass. Real systems: :func:`s4_kernel`, which has half the roots and half the poles.

    >>> from kexue_lib.recurrence.s4 import discretize_dplr, truncate_readout
    >>> Lam, P, B, _ = legs_dplr(4)
    >>> Ab, Bb = discretize_dplr(Lam, P, P.conj(), B, 0.1)
    >>> kernel = dplr_kernel(Lam, P, P.conj(), B, truncate_readout(B, Ab, 16), 0.1, 16)
    >>> torch.allclose(kernel, ssm_kernel_naive(Ab, Bb, B, 16))
    True
    """
    check_integer("L", L, 1)
    check_number("dt", dt, above=0)
    dt = torch.as_tensor(dt, dtype=Lam.real.dtype, device=Lam.device)
    weights = torch.stack(torch.broadcast_tensors(Ct * B, Ct * P, Q * B, Q * P), -2)
    parts = torch.broadcast_shapes(Lam.shape[:-1], dt.shape, weights.shape[:-2])

    phase, values = _at_roots(_sums, (Lam, weights, dt), L, L, parts, Lam.shape[-1], Lam.real.dtype)
    values = dt[..., None] * phase * values
    return torch.fft.ifft(values) if values.numel() else values


def s4_kernel(
    Lam: Complex[Tensor, "*#batch n"],
    P: Complex[Tensor, "*#batch n"],
    B: Complex[Tensor, "*#batch n"],
    Ct: Complex[Tensor, "*#batch n"],
    dt: float | Float[Tensor, "*#batch"],
    L: int,
) -> Float[Tensor, "*batch L"]:
    r"""Return the real kernel of A = Λ - PP* from one pole of each conjugate pair.

    A real kernel has conjugate values at conjugate roots, which leaves ⌊L/2⌋ + 1 of them, and a pair of poles has

    .. math::
        \frac w{2i s-\epsilon c\lambda}+\frac{\bar w}{2is-\epsilon c\bar\lambda}
        =\frac{4is\,\Re w-2\epsilon c\,\Re(w\bar\lambda)}{\epsilon^2c^2|\lambda|^2-4s^2-4is\epsilon c\,\Re\lambda},
        \qquad s=\sin\varphi,\ c=\cos\varphi

    so that the whole table is real arithmetic, and the sums over the poles are products of real matrices.

    Args:
        Lam: one pole of each pair, (..., n), for a state of size 2n.
        P: the rank-one part, of the same poles.
        B: input.
        Ct: truncated readout, :func:`truncate_readout` at the same L.
        dt: step, a number or (...), above 0.
        L: length.

    Raises:
        TypeError: ``L`` is no integer.
        ValueError: ``L`` below 1, ``dt`` not above 0.

    Cost: L n / 2 real divisions and 8 L n real multiply-adds, and an FFT; memory as in :func:`dplr_kernel`.

    >>> Lam, P, B, _ = legs_dplr(8)
    >>> full = dplr_kernel(Lam, P, P.conj(), B, B, 0.1, 32).real
    >>> torch.allclose(s4_kernel(Lam[4:], P[4:], B[4:], B[4:], 0.1, 32), full)
    True
    """
    check_integer("L", L, 1)
    check_number("dt", dt, above=0)
    check_dtype("Lam", Lam, "complex")
    check_vectors(Lam=Lam, P=P, B=B, Ct=Ct)
    return pair_kernel(Lam, P, B, Ct, torch.as_tensor(dt, dtype=Lam.real.dtype, device=Lam.device), L)


@without_autocast
def pair_kernel(Lam: Tensor, P: Tensor, B: Tensor, Ct: Tensor, dt: Tensor, L: int) -> Tensor:
    """Return :func:`s4_kernel` of arguments that were checked, or learned."""
    Q = P.conj()
    products = torch.stack(torch.broadcast_tensors(Ct * B, Ct * P, Q * B, Q * P), -2)
    rotated = products * Lam.conj()[..., None, :]
    weights = torch.cat([products.real, rotated.real], -2)
    parts = torch.broadcast_shapes(Lam.shape[:-1], dt.shape, weights.shape[:-2])
    decay, size = Lam.real, Lam.real.square() + Lam.imag.square()

    operands = (decay, size, weights, dt)
    phase, values = _at_roots(_pair_sums, operands, L, L // 2 + 1, parts, Lam.shape[-1], Lam.real.dtype)
    values = dt[..., None] * phase * values
    return torch.fft.irfft(values, n=L) if values.numel() else values[..., :1].real.expand(*values.shape[:-1], L)


def _sums(sin: Tensor, cos: Tensor, Lam: Tensor, weights: Tensor, dt: Tensor) -> Tensor:
    step = dt[..., None] * cos
    table = 1 / (2j * sin - step[..., None, :] * Lam[..., None])
    return _resolvent(weights @ table, step)


def _pair_sums(sin: Tensor, cos: Tensor, decay: Tensor, size: Tensor, weights: Tensor, dt: Tensor) -> Tensor:
    step = dt[..., None] * cos
    real = step.square()[..., None, :] * size[..., None] - 4 * sin.square()
    imag = (4 * sin * step)[..., None, :] * decay[..., None]  # of the conjugate of the denominator
    scale = 1 / (real.square() + imag.square())
    u, v = weights @ (real * scale), weights @ (imag * scale)
    a, b = 4 * sin, 2 * step[..., None, :]
    g = torch.complex(-a * v[..., :4, :] - b * u[..., 4:, :], a * u[..., :4, :] - b * v[..., 4:, :])
    return _resolvent(g, step)


def _resolvent(g: Tensor, step: Tensor) -> Tensor:
    return g[..., 0, :] - step * g[..., 1, :] * g[..., 2, :] / (1 + step * g[..., 3, :])


def _at_roots(
    sums: Callable[..., Tensor],
    operands: tuple[Tensor, ...],
    L: int,
    count: int,
    parts: torch.Size,
    poles: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Return exp(iφ) and the sums at the first roots, piece by piece; a backward pass makes each piece again."""
    half_angle = torch.arange(count, dtype=torch.float64, device=operands[0].device) * (math.pi / L)
    sin, cos = half_angle.sin().to(dtype), half_angle.cos().to(dtype)
    piece = max(1, _TABLE // max(1, math.prod(parts) * poles))
    again = torch.is_grad_enabled() and piece < count and not is_traced()
    values = []
    for start in range(0, count, piece):
        at = (sin[start : start + piece], cos[start : start + piece], *operands)
        if again:
            values.append(checkpoint(sums, *at, use_reentrant=False, preserve_rng_state=False))
        else:
            values.append(sums(*at))
    return torch.complex(cos, sin), torch.cat(values, -1)


def causal_conv(u: Float[Tensor, "*#batch L"], k: Float[Tensor, "*#batch L"]) -> Float[Tensor, "*batch L"]:
    r"""Return the first L terms of the convolution, :math:`y_m=\sum_{j\le m}k_j\,u_{m-j}`.

    Args:
        u: signal, (..., L); batch dimensions broadcast.
        k: kernel, (..., L).

    Returns:
        (..., L) in the dtype that ``u`` and ``k`` promote to; half precision is computed in float32.

    Raises:
        TypeError: not floating.

    Cost: three real FFTs of the next length 2^a, 3·2^a or 5·2^a from 2L - 1.

    >>> causal_conv(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 10.0, 100.0])).round()
    tensor([  1.,  12., 123.])
    """
    check_dtype("u", u, "floating")
    check_dtype("k", k, "floating")
    check_shape("u", u, ("...", "L"))
    check_shape("k", k, ("...", u.shape[-1]), "as u has")
    L, dtype = u.shape[-1], torch.promote_types(u.dtype, k.dtype)
    if not (u.numel() and k.numel()):
        return u * k
    work = torch.promote_types(dtype, torch.float32)
    n = min(m << max(0, math.ceil(math.log2((2 * L - 1) / m))) for m in (1, 3, 5))
    product = torch.fft.rfft(u.to(work), n=n) * torch.fft.rfft(k.to(work), n=n)
    return torch.fft.irfft(product, n=n)[..., :L].to(dtype)


def s4d_init(n: int, kind: Literal["lin", "inv", "legs"] = "lin") -> Complex[Tensor, " n"]:
    r"""Return n starting poles, one of each conjugate pair, with positive imaginary parts.

    .. math::
        -\tfrac12+i\pi j\;(\text{lin}),\qquad
        -\tfrac12+i\,\tfrac{2n}\pi\Big(\tfrac{2n}{2j+1}-1\Big)\;(\text{inv}),\qquad
        \text{the upper half of } \Lambda \text{ of LegS at } N=2n\;(\text{legs})

    Args:
        n: number of pairs.
        kind: one of the three.

    Returns:
        complex128.

    Raises:
        TypeError: ``n`` is no integer.
        ValueError: ``n`` below 1, an unknown ``kind``.

    >>> s4d_init(2).imag / math.pi
    tensor([0., 1.], dtype=torch.float64)
    """
    check_integer("n", n, 1)
    check_one_of("kind", kind, ("lin", "inv", "legs"))
    if kind == "legs":
        return legs_dplr(2 * n)[0][n:]
    j = torch.arange(n, dtype=torch.float64)
    omega = math.pi * j if kind == "lin" else 2 * n / math.pi * (2 * n / (2 * j + 1) - 1)
    return torch.complex(torch.full_like(omega, -0.5), omega)


def s4d_kernel(
    Lam: Complex[Tensor, "*#batch n"],
    B: Complex[Tensor, "*#batch n"],
    C: Complex[Tensor, "*#batch n"],
    dt: float | Float[Tensor, "*#batch"],
    L: int,
    *,
    method: Literal["zoh", "bilinear"] = "zoh",
) -> Float[Tensor, "*batch L"]:
    r"""Return the real kernel of a diagonal system from one pole of each conjugate pair.

    .. math::
        K_k=2\Re\sum_nC_n\bar B_n\bar\lambda_n^{\,k},\qquad
        \bar\lambda=e^{\epsilon\lambda},\ \bar B=\frac{\bar\lambda-1}\lambda B\;(\text{zoh}),\qquad
        \bar\lambda=\frac{1+\epsilon\lambda/2}{1-\epsilon\lambda/2},\ \bar B=\frac{\epsilon B}{1-\epsilon\lambda/2}

    With k = qc + r, c ≈ √L, the powers are products of two small tables, and the sum one real matrix product.

    Args:
        Lam: one pole of each pair, (..., n), real parts below 0.
        B: input.
        C: readout.
        dt: step, a number or (...), above 0.
        L: length.
        method: "zoh", exact for a held input, or "bilinear".

    Raises:
        TypeError: ``L`` is no integer.
        ValueError: ``L`` below 1, ``dt`` not above 0, an unknown ``method``.

    Cost: 2 √L n exponentials, in double precision since their phases are as large as L, and 2 L n multiply-adds.

    >>> half = torch.full((1,), 0.5, dtype=torch.complex128)
    >>> s4d_kernel(-half, half, half, math.log(4.0), 3)  # ā = 1/2, b̄ = 1/2
    tensor([0.5000, 0.2500, 0.1250], dtype=torch.float64)
    """
    check_integer("L", L, 1)
    check_number("dt", dt, above=0)
    check_one_of("method", method, ("zoh", "bilinear"))
    check_vectors(Lam=Lam, B=B, C=C)
    return diagonal_kernel(Lam, B, C, torch.as_tensor(dt, dtype=Lam.real.dtype, device=Lam.device), L, method)


@without_autocast
def diagonal_kernel(Lam: Tensor, B: Tensor, C: Tensor, dt: Tensor, L: int, method: str) -> Tensor:
    """Return :func:`s4d_kernel` of arguments that were checked, or learned."""
    exponent, Bb = discretize_diagonal(Lam.to(torch.complex128), B, dt, method)
    w = C * Bb
    c = max(1, math.isqrt(L))
    times = lambda count, pace: pace * torch.arange(count, dtype=torch.float64, device=Lam.device)
    coarse = (exponent[..., None, :] * times(-(-L // c), c)[:, None]).exp()
    fine = (exponent[..., None] * times(c, 1)).exp()
    coarse = 2 * w[..., None, :] * coarse.to(w.dtype)
    fine = fine.to(w.dtype)
    left = torch.cat([coarse.real, -coarse.imag], -1)
    right = torch.cat([fine.real, fine.imag], -2)
    return (left @ right).flatten(-2)[..., :L]


def discretize_diagonal(Lam: Tensor, B: Tensor, dt: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Return the logarithms of the discrete poles in the dtype of Lam, and the discrete input in that of B."""
    z = Lam * dt[..., None]
    if method == "bilinear":
        # log of a quotient whose parts are near each other: 2 artanh(z/2) keeps the digits of a small z.
        return 2 * torch.atanh(z / 2), (dt[..., None] / (1 - z / 2)).to(B.dtype) * B
    a, b = z.real, z.imag
    growth = torch.complex(torch.expm1(a) * b.cos() - 2 * (b / 2).sin().square(), a.exp() * b.sin())
    still = Lam == 0
    gain = torch.where(still, dt[..., None].to(z.dtype), growth / torch.where(still, 1, Lam))
    return z, gain.to(B.dtype) * B
