"""The matrices, entry by entry."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from kexue_lib._arguments import check_integer, check_number, check_one_of

Scaling = Literal["orthonormal", "hippo", "lmu"]
_SCALINGS = ("orthonormal", "hippo", "lmu")


def coefficient_scale(
    measure: Literal["legt", "legs", "lagt"],
    N: int,
    scaling: Scaling,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Float[Tensor, "N"]:
    r"""Return :math:`\lambda_n` of a scaling: the orthonormal coefficients are :math:`c_n=\lambda_n\tilde c_n`.

    .. math:: 1 \;(\text{orthonormal}), \qquad \sqrt2 \;(\text{hippo}), \qquad \sqrt{2/(2n+1)} \;(\text{lmu})

    With "hippo" the input vector has the entries :math:`\sqrt{2n+1}` of the paper, with "lmu" all entries are free of
    roots and :math:`u\approx\sum\tilde c_nP_n`.

    Args:
        measure: ``"legt"``, ``"legs"`` or ``"lagt"``; Laguerre has the orthonormal scaling only.
        N: how many.
        scaling: one of the three.
        dtype: of the result.
        device: of the result.

    Raises:
        ValueError: an unknown word, N below 1, or a scaling that Laguerre does not have.

    >>> coefficient_scale("legs", 2, "hippo", torch.float32)
    tensor([1.4142, 1.4142])
    """
    _check(measure, N, scaling)
    odd = 2 * torch.arange(N, dtype=torch.float64) + 1
    scale = {"orthonormal": torch.ones_like(odd), "hippo": torch.full_like(odd, math.sqrt(2)), "lmu": (2 / odd).sqrt()}
    return scale[scaling].to(dtype=dtype, device=device)


def hippo_matrices(
    measure: Literal["legt", "legs", "lagt"],
    N: int,
    *,
    window: float = 1.0,
    scaling: Scaling = "orthonormal",
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> tuple[Float[Tensor, "N N"], Float[Tensor, "N"]]:
    r"""Return A and B of a memory.

    .. math:: \text{legt:}\quad A_{nk} = -\tfrac1w\sqrt{(2n+1)(2k+1)}\,\{1\;(k<n),\;(-1)^{n-k}\;(k\ge n)\}, \quad
              B_n = \tfrac1w\sqrt{2(2n+1)}

    .. math:: \text{legs:}\quad A_{nk} = -\{\sqrt{(2n+1)(2k+1)}\;(k<n),\;n+1\;(k=n),\;0\;(k>n)\}, \quad
              B_n = \sqrt{2(2n+1)}, \quad x' = (Ax+Bu)/T

    .. math:: \text{lagt:}\quad A_{nk} = -\tfrac1w\{1\;(k\le n),\;0\;(k>n)\}, \quad B_n = \tfrac1w

    Another scaling gives :math:`A_{nk}\lambda_k/\lambda_n` and :math:`B_n/\lambda_n` (see :func:`coefficient_scale`).

    Args:
        measure: ``"legt"`` (a window), ``"legs"`` (the whole past) or ``"lagt"`` (exponential forgetting).
        N: number of coefficients.
        window: w, in units of time: the window's length, or Laguerre's time constant; "legs" has none and ignores it.
        scaling: ``"orthonormal"``, ``"hippo"`` or ``"lmu"``; the last is exact in integers at w = 1.
        dtype: of the result; the entries are formed in float64.
        device: of the result.

    Raises:
        TypeError: N no integer, or ``window`` no number.
        ValueError: an unknown word, N below 1, ``window`` not above 0, or a scaling that Laguerre does not have.

    Cost: O(N²).

    >>> A, B = hippo_matrices("legs", 3, scaling="lmu")
    >>> A.int().tolist(), B.int().tolist()
    ([[-1, 0, 0], [-3, -2, 0], [-5, -5, -3]], [1, 3, 5])
    """
    _check(measure, N, scaling)
    check_number("window", window, above=0, below=math.inf)
    n = torch.arange(N, dtype=torch.float64)
    if measure == "lagt":
        A, B = -torch.ones(N, N, dtype=torch.float64).tril(), torch.ones_like(n)
    else:
        odd = 2 * n + 1
        row, column = (odd, torch.ones_like(odd)) if scaling == "lmu" else (odd.sqrt(), odd.sqrt())
        B = {"orthonormal": (2 * odd).sqrt(), "hippo": odd.sqrt(), "lmu": odd}[scaling]
        A = -row[:, None] * column
        if measure == "legs":
            A = A.tril(-1) - torch.diag(n + 1)
        else:
            sign = 1 - 2 * (n % 2)
            A = torch.where(n < n[:, None], A, A * (sign[:, None] * sign))
    if measure != "legs":
        A, B = A / window, B / window
    return A.to(dtype=dtype, device=device), B.to(dtype=dtype, device=device)


def fourier_window_matrices(
    N: int,
    *,
    window: float = 1.0,
    boundary: Literal["jump", "series"] = "jump",
    dtype: torch.dtype = torch.complex128,
    device: torch.device | str | None = None,
) -> tuple[Complex[Tensor, "K K"], Complex[Tensor, "K"]]:
    r"""Return A and B of the Fourier window, for n = -N … N in this order.

    .. math:: A_{nk} = \tfrac1w(2\pi i\,n\,\delta_{nk} - \gamma), \qquad B_n = \tfrac\gamma w, \qquad
              \gamma = 2\;(\text{jump}), \; 1\;(\text{series})

    The value that leaves the window is not in the state. "jump" takes the series at the edge for the mean of both
    ends, which it converges to; "series" takes it for the value itself, and the memory then keeps
    every window before, each with a third of the weight of the next.

    Args:
        N: highest frequency, in periods per window; the state has 2N + 1 coefficients.
        window: w, in units of time.
        boundary: ``"jump"`` (the published FouT) or ``"series"`` (the article's).
        dtype: of the result, complex.
        device: of the result.

    Raises:
        TypeError: N no integer, ``window`` no number, or ``dtype`` not complex.
        ValueError: an unknown ``boundary``, N below 1, or ``window`` not above 0.

    Cost: O(N²).

    >>> A, B = fourier_window_matrices(1)
    >>> A.real.int().tolist(), B.real.int().tolist()
    ([[-2, -2, -2], [-2, -2, -2], [-2, -2, -2]], [2, 2, 2])
    """
    check_integer("N", N, 1)
    check_number("window", window, above=0, below=math.inf)
    check_one_of("boundary", boundary, ("jump", "series"))
    if not dtype.is_complex:
        raise TypeError(f"dtype: got {dtype}, expected a complex dtype")
    gamma = 2.0 if boundary == "jump" else 1.0
    n = torch.arange(-N, N + 1, dtype=torch.float64)
    A = torch.diag(2j * math.pi * n) - gamma
    B = torch.full((2 * N + 1,), gamma, dtype=torch.complex128)
    return (A / window).to(dtype=dtype, device=device), (B / window).to(dtype=dtype, device=device)


def _check(measure: str, N: int, scaling: str) -> None:
    check_one_of("measure", measure, ("legt", "legs", "lagt"))
    check_integer("N", N, 1)
    check_one_of("scaling", scaling, _SCALINGS if measure != "lagt" else _SCALINGS[:1])
