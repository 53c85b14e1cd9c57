"""The laboratory in which every gradient has a closed form: Gaussian data, a linear generator, an ideal student."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_number


def gaussian_eps(
    x_t: Float[Tensor, "*shape"],
    mean: float | Tensor,
    var: float | Tensor,
    a: float | Tensor,
    b: float | Tensor,
) -> Float[Tensor, "*shape"]:
    r"""Best prediction :math:`E[\varepsilon|x_t]=b\,(x_t-am)/(a^2v+b^2)` of the noise for data N(m, v I).

    Args:
        x_t: noised samples :math:`ax_0+b\varepsilon`.
        mean: m, broadcasts with x_t.
        var: v ≥ 0, broadcasts with x_t.
        a: factor of the data, above 0, broadcasts with x_t.
        b: factor of the noise, above 0, broadcasts with x_t.

    Returns:
        The prediction, of the shape of x_t.

    Raises:
        TypeError: integers.
        ValueError: a or b not above 0, var below 0.

    Cost: elementwise.

    >>> gaussian_eps(torch.tensor([3.0]), 1.0, 1.0, 1.0, 1.0)
    tensor([1.])
    """
    check_dtype("x_t", x_t, "floating")
    _check_factors(a, b)
    check_number("mean", mean)
    check_number("var", var, least=0, below=math.inf)
    return b * (x_t - a * mean) / (a * a * var + b * b)


def gaussian_sid_gradients(
    m: float | Tensor,
    s: float | Tensor,
    mu: float | Tensor,
    S: float | Tensor,
    a: float | Tensor,
    b: float | Tensor,
) -> dict[str, tuple[Tensor, Tensor]]:
    r"""Gradients by m and s of the generator m + sz for data N(μ, S²), the student at its optimum and held fixed.

    With :math:`V_0=a^2S^2+b^2`, :math:`V=a^2s^2+b^2`, for example
    :math:`\partial_sL_1=2a^2b^2s(1/V_0-1/V)^2\ge0`: the plain loss shrinks s on both sides of S.

    Args:
        m: the generator's mean.
        s: its standard deviation.
        mu: μ, the data's mean.
        S: the data's standard deviation.
        a: factor of the data, above 0.
        b: factor of the noise, above 0. All broadcast.

    Returns:
        Pairs (∂m, ∂s) under "l1", "l2", "l3", "lm" (the terms of :class:`SiDTerms`, student fixed), "total" (the
        gradient of the value of L₁, the student's dependence included) and "vsd" (the direction of distribution
        matching, :math:`E\langle\delta,\partial x_t\rangle`).

    Raises:
        ValueError: a or b not above 0.

    Cost: elementwise.
    Source: Su Jianlin, https://kexue.fm/archives/10085; the closed forms are this book's.

    >>> gradients = gaussian_sid_gradients(1.0, 0.25, 0.0, 0.5, 1.0, 1.0)
    >>> bool(gradients["l1"][1] > 0), bool(gradients["total"][1] < 0)  # s = S/2: only one of them grows s
    (True, True)
    """
    _check_factors(a, b)
    return _gradients(*torch.broadcast_tensors(*(torch.as_tensor(value) for value in (m, s, mu, S, a, b))))


def _gradients(m: Tensor, s: Tensor, mu: Tensor, S: Tensor, a: Tensor, b: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    data, ours = a.square() * S.square() + b.square(), a.square() * s.square() + b.square()
    scale, shift = a.square() * b.square(), m - mu
    gap = a.square() * (s.square() - S.square()) / (data * ours)  # 1/V₀ − 1/V without the cancellation
    return {
        "l1": (2 * scale * shift * gap / data, 2 * scale * s * gap.square()),
        "l2": (scale * shift / data * (gap + 1 / data), 2 * scale * s * gap / data),
        "l3": (2 * scale * shift / data.square(), 2 * scale * s / data.square()),
        "lm": (2 * scale * shift / data.square(), 2 * scale * s * (1 / data.square() + 1 / ours.square())),
        "total": (2 * scale * shift / data.square(), 2 * scale * s * gap * (1 / data + 1 / ours)),
        "vsd": (a.square() * b * shift / data, a.square() * b * s * gap),
    }


def _check_factors(a: float | Tensor, b: float | Tensor) -> None:
    check_number("a", a, above=0, below=math.inf)
    check_number("b", b, above=0, below=math.inf)
