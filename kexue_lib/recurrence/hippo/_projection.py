"""From a signal to the coefficients by quadrature, and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib._tracing import is_traced
from kexue_lib.recurrence.hippo._bases import fourier_basis, gauss_legendre, laguerre_basis, legendre_basis
from kexue_lib.recurrence.hippo._matrices import Scaling, coefficient_scale

Measure = Literal["legt", "legs", "lagt", "fout"]
_MEASURES = ("legt", "legs", "lagt", "fout")
_ENDS = {"legt": (-1.0, 1.0), "legs": (-1.0, 1.0), "lagt": (0.0, 80.0), "fout": (0.0, 1.0)}  # exp(-80/2) < 1e-17
_SLACK = 1e-9  # of the interval, by which times may leave it through rounding


def project(
    u: Callable[[Tensor], Tensor],
    measure: Measure,
    N: int,
    T: float | Float[Tensor, "*b"],
    *,
    window: float = 1.0,
    scaling: Scaling = "orthonormal",
    order: int | None = None,
    pieces: int = 1,
) -> Inexact[Tensor, "*b K"]:
    r"""Return the coefficients of the signal as remembered at the times T, by Gauss-Legendre quadrature.

    .. math:: c_n(T) = \int u(\tau(s;T))\,\overline{g_n(s)}\,\omega(s)\,ds

    Linear and differentiable in what ``u`` returns.

    Args:
        u: real signal; called once with a float64 tensor of times, and returns a real tensor of its shape.
        measure: ``"legt"``, ``"legs"``, ``"lagt"`` or ``"fout"``; see the table of the package.
        N: number of coefficients; for "fout" the highest frequency, of 2N + 1 coefficients.
        T: times, a number or a tensor of any shape.
        window: w, in units of time; "legs" has none and ignores it.
        scaling: as in :func:`hippo_matrices`; Laguerre and Fourier have ``"orthonormal"`` only.
        order: nodes for each piece (default: 8 + (4N + 8) / pieces, rounded up; for "lagt" 264 in place of the
            second 8). A signal that swings faster than the basis needs more, or more pieces.
        pieces: equal parts of the interval of s. With as many as there are samples in it, a staircase is integrated
            to rounding. Laguerre's interval is s ≤ 80, beyond which less than 1e-17 is left of the weight.

    Returns:
        ``(*T.shape, N)`` in float64, for "fout" ``(*T.shape, 2N + 1)`` in complex128.

    Raises:
        TypeError: ``u`` cannot be called or returns no real floating tensor, N, ``order`` or ``pieces`` no integer.
        ValueError: an unknown word; N or ``pieces`` below 1; ``order * pieces`` below N; ``window``, or T for "legs",
            not above 0; a signal of another shape.

    Cost: one call of ``u`` for order·pieces·T.numel() times and a matrix product with as many rows.

    >>> project(lambda t: 1.0 + 0 * t, "legs", 3, 5.0, scaling="lmu").abs().round(decimals=12)
    tensor([1., 0., 0.], dtype=torch.float64)
    """
    scale = _check(measure, N, window, scaling)
    if not callable(u):
        raise TypeError(f"u: got {type(u).__name__}, expected a function of time")
    check_integer("pieces", pieces, 1)
    if order is None:
        order = 8 - (-(4 * N + (264 if measure == "lagt" else 8)) // pieces)
    check_integer("order", order, -(-N // pieces))
    check_number("T", T, **({"above": 0} if measure == "legs" else {}), below=math.inf)
    T = torch.as_tensor(T, dtype=torch.float64)
    s, weighted = (x.to(T.device) for x in _analysis(measure, N, order, pieces))
    times = _times(measure, s, T[..., None], window)
    values = u(times)
    check_dtype("u(t)", values, "floating")
    check_shape("u(t)", values, times.shape, "as the times have")
    c = values.to(weighted.dtype) @ weighted
    return c if scale is None else c / scale.to(c.device)


@without_autocast
def reconstruct(
    c: Inexact[Tensor, "*b K"],
    measure: Measure,
    T: float,
    t: Float[Tensor, "m"],
    *,
    window: float = 1.0,
    scaling: Scaling = "orthonormal",
) -> Float[Tensor, "*b m"]:
    r"""Return the signal as it is remembered, :math:`\sum_n c_n g_n(s)` at :math:`\tau(s;T)=t`.

    Linear and differentiable in c. Between the ends of a window the sum converges with N; at its ends and at jumps it
    overshoots, and for "lagt" it is good where the weight is: at ages up to a few ``window``.

    Args:
        c: coefficients ``(..., N)``, for "fout" complex ``(..., 2N + 1)``, of which the real part of the sum is taken.
        measure: ``"legt"``, ``"legs"``, ``"lagt"`` or ``"fout"``.
        T: the time of c.
        t: times ``(m,)`` inside of what the state remembers.
        window: as for c.
        scaling: as for c.

    Returns:
        ``(..., m)`` in the real dtype of c (the half types are computed in float32).

    Raises:
        TypeError: T or ``window`` no number, ``t`` no floating tensor, c not complex for "fout" or complex elsewhere.
        ValueError: an unknown word; ``t`` outside (read on the CPU only); ``window``, or T for "legs", not above 0;
            an even number of coefficients for "fout".

    Cost: O(m·N) for the basis and one product of matrices.

    >>> reconstruct(torch.tensor([2.0, 1.0]), "legs", 4.0, torch.tensor([0.0, 2.0, 4.0]), scaling="lmu")
    tensor([1., 2., 3.])
    """
    check_one_of("measure", measure, _MEASURES)
    check_dtype("c", c, "floating or complex")
    if c.is_complex() != (measure == "fout"):
        raise TypeError(f"c: got {c.dtype}, expected a {'complex' if measure == 'fout' else 'real floating'} dtype")
    size = c.shape[-1] if c.dim() else 0
    if not size:
        raise ValueError(f"c: got shape {tuple(c.shape)}, expected (..., N) with at least one coefficient")
    if measure == "fout" and size % 2 == 0:
        raise ValueError(f"c: got {size} coefficients, expected an odd number, of n = -N … N")
    N = size // 2 if measure == "fout" else size
    scale = _check(measure, N, window, scaling)
    check_number("T", T, **({"above": 0} if measure == "legs" else {}), below=math.inf)
    check_dtype("t", t, "floating")
    check_shape("t", t, ("m",))
    s = _places(measure, t.double(), float(T), window)
    if measure == "fout":
        return (c.to(torch.complex128) @ fourier_basis(N, s).mT).real.to(c.real.dtype)
    basis = legendre_basis(N, s) if measure != "lagt" else laguerre_basis(N, s) * (s / 2).exp()[:, None]
    wide = c if c.dtype == torch.float64 else c.float()
    if scale is not None:
        basis = basis * scale.to(basis.device)
    return (wide @ basis.to(wide.dtype).mT).to(c.dtype)


def _check(measure: Measure, N: int, window: float, scaling: Scaling) -> Tensor | None:
    """Refuse wrong arguments; the scale of the coefficients, None where it is 1."""
    check_one_of("measure", measure, _MEASURES)
    check_integer("N", N, 1)
    check_number("window", window, above=0, below=math.inf)
    if measure == "fout":
        check_one_of("scaling", scaling, ("orthonormal",))
        return None
    scale = coefficient_scale(measure, N, scaling)
    return None if scaling == "orthonormal" else scale


@lru_cache(maxsize=16)
def _analysis(measure: str, N: int, order: int, pieces: int) -> tuple[Tensor, Tensor]:
    """Nodes s of shape (Q,), and conj(g_n(s)) times weights of shape (Q, N)."""
    low, high = _ENDS[measure]
    x, weight = gauss_legendre(order)
    half = (high - low) / (2 * pieces)
    starts = low + 2 * half * torch.arange(pieces, dtype=torch.float64)
    s = (starts[:, None] + half * (x + 1)).flatten()
    weight = (half * weight).repeat(pieces)
    if measure == "fout":
        return s, weight[:, None] * fourier_basis(N, s).conj()
    if measure == "lagt":
        return s, (weight * (-s / 2).exp())[:, None] * laguerre_basis(N, s)
    return s, weight[:, None] * legendre_basis(N, s)


def _times(measure: str, s: Tensor, T: Tensor, w: float) -> Tensor:
    """The remembered times τ(s; T)."""
    if measure == "legs":
        return (s + 1) * (T / 2)
    if measure == "lagt":
        return T - w * s
    return T - w * (1 - s) / (2 if measure == "legt" else 1)


def _places(measure: str, t: Tensor, T: float, w: float) -> Tensor:
    """The inverse of :func:`_times`, for times that the state remembers."""
    low = {"legs": 0.0, "lagt": -math.inf}.get(measure, T - w)
    slack = _SLACK * (T if measure == "legs" else w)
    if t.device.type == "cpu" and not is_traced():
        outside = (t < low - slack) | (t > T + slack) | t.isnan()
        if bool(outside.any()):
            got: Any = t[outside][0].item()
            raise ValueError(f"t: got {got}, expected times in [{low:g}, {T:g}], which {measure} remembers")
    if measure == "legs":
        return 2 * t / T - 1
    if measure == "lagt":
        return (T - t) / w
    return 1 - (2 if measure == "legt" else 1) * (T - t) / w
