"""From a pair of bias vectors to their kernel of the distance, and back."""

from __future__ import annotations

import math
from typing import get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib.positions.rope import Layout, cos_sin


def bias_coefficients(
    a: Float[Tensor, "*#batch d"], b: Float[Tensor, "*#batch d"], *, layout: Layout = "half"
) -> tuple[Float[Tensor, "*batch pairs"], Float[Tensor, "*batch pairs"]]:
    r"""Return how much of every cosine and sine the kernel of two biases has.

    .. math:: \alpha_i=a_{i0}b_{i0}+a_{i1}b_{i1},\qquad\beta_i=a_{i0}b_{i1}-a_{i1}b_{i0}

    Args:
        a: ``(..., d)`` added to queries, d even.
        b: ``(..., d)`` added to keys.
        layout: which components form a pair.

    Returns:
        ``alpha, beta``, each ``(..., d/2)``, in the dtype that the inputs promote to.

    Raises:
        ValueError: d odd or not the same, or an unknown ``layout``.

    Cost: O(d). Source: https://kexue.fm/archives/9577.

    >>> bias_coefficients(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0]))
    (tensor([13.]), tensor([-1.]))
    """
    check_biases(a, b, layout)
    (a0, a1), (b0, b1) = pairs_of(a, layout), pairs_of(b, layout)
    return a0 * b0 + a1 * b1, a0 * b1 - a1 * b0


def biases_from_coefficients(
    cos_coeff: Float[Tensor, "*batch pairs"], sin_coeff: Float[Tensor, "*batch pairs"], *, layout: Layout = "half"
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
    r"""Return two biases with a given kernel, of equal length in every pair and the phase in the second.

    .. math:: a_i=\big(\sqrt{A_i},0\big),\quad b_i=\big(\alpha_i,\beta_i\big)/\sqrt{A_i},
              \qquad A_i=\sqrt{\alpha_i^2+\beta_i^2}

    Args:
        cos_coeff: α ``(..., d/2)``.
        sin_coeff: β, the same shape.
        layout: which components form a pair.

    Returns:
        ``a, b``, each ``(..., d)``; a pair of amplitude zero gives zeros, with zero gradient.

    Raises:
        ValueError: different shapes, or an unknown ``layout``.

    Cost: O(d).

    >>> a, b = biases_from_coefficients(torch.tensor([3.0, 0.0]), torch.tensor([4.0, 0.0]))
    >>> [x.round(decimals=3).tolist() for x in bias_coefficients(a, b)]
    [[3.0, 0.0], [4.0, 0.0]]
    """
    check_one_of("layout", layout, get_args(Layout))
    check_dtype("cos_coeff", cos_coeff, "floating")
    check_dtype("sin_coeff", sin_coeff, "floating")
    check_shape("cos_coeff", cos_coeff, ("...", "pairs"))
    check_shape("sin_coeff", sin_coeff, tuple(cos_coeff.shape), "as cos_coeff has")
    zero = (cos_coeff == 0) & (sin_coeff == 0)
    # The square root has no derivative at 0: pairs without amplitude go past it.
    length = torch.hypot(torch.where(zero, 1.0, cos_coeff), sin_coeff).sqrt()
    of_a, b0, b1 = (torch.where(zero, 0.0, x) for x in (length, cos_coeff / length, sin_coeff / length))
    return joined(of_a, torch.zeros_like(of_a), layout), joined(b0, b1, layout)


@without_autocast
def rotary_kernel(
    a: Float[Tensor, "*#batch d"],
    b: Float[Tensor, "*#batch d"],
    relative: Shaped[Tensor, " distances"],
    inv_freq: Float[Tensor, " pairs"],
    *,
    layout: Layout = "half",
) -> Float[Tensor, "*batch distances"]:
    r"""Return what two biases add to a score at every distance.

    .. math:: K(r)=a^\top R_{-r}b=\sum_i\alpha_i\cos r\theta_i+\beta_i\sin r\theta_i

    Args:
        a: ``(..., d)`` added to queries.
        b: ``(..., d)`` added to keys.
        relative: ``(distances,)`` r = query minus key, integer or floating, in tokens.
        inv_freq: ``(d/2,)`` radians per token.
        layout: which components form a pair.

    Returns:
        ``(..., distances)`` in the dtype of the biases; half types are summed in float32.

    Raises:
        ValueError: d odd or not the same, ``inv_freq`` of another length, or an unknown ``layout``.

    Cost: one product (batch, d) by (d, distances).

    >>> a = b = torch.tensor([1.0, 0.0])
    >>> rotary_kernel(a, b, torch.tensor([0, 1]), torch.tensor([torch.pi / 2])).round()
    tensor([1., -0.])
    """
    check_biases(a, b, layout)
    check_frequencies(inv_freq, a.shape[-1])
    check_dtype("relative", relative, "real")
    check_shape("relative", relative, ("distances",))
    dtype = torch.promote_types(a.dtype, b.dtype)
    work = torch.promote_types(dtype, torch.float32)
    coefficients = torch.cat(bias_coefficients(a.to(work), b.to(work), layout=layout), dim=-1)
    waves = torch.cat(cos_sin(relative.to(a.device), inv_freq, dtype=work), dim=-1)
    return (coefficients @ waves.T).to(dtype)


def sandwich_biases(
    dim: int, strength: float = 1.0, *, layout: Layout = "half", dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    r"""Return the two biases whose kernel is Sandwich, the product of two sinusoidal position vectors.

    .. math:: a=b=\sqrt\lambda\,(1,0,1,0,\dots)\quad\Rightarrow\quad K(r)=\lambda\sum_i\cos r\theta_i

    Args:
        dim: d, even.
        strength: λ ≥ 0 per pair, before the division of scores by √d; √d/2 is what the chapter trains with.
        layout: which components form a pair.
        dtype: of the result.

    Returns:
        ``a, b``, each ``(dim,)``.

    Raises:
        TypeError: ``dim`` is no integer, ``strength`` no number.
        ValueError: ``dim`` odd or not positive, ``strength`` negative or infinite, or an unknown ``layout``.

    Source: arXiv 2212.10356.

    >>> sandwich_biases(4, 9.0)
    (tensor([3., 3., 0., 0.]), tensor([3., 3., 0., 0.]))
    """
    check_integer("dim", dim, 2, even=True)
    check_number("strength", strength, least=0, below=math.inf)
    check_one_of("layout", layout, get_args(Layout))
    first = torch.full((dim // 2,), math.sqrt(strength), dtype=dtype)
    bias = joined(first, torch.zeros_like(first), layout)
    return bias, bias.clone()


def fit_biases(
    target: Float[Tensor, "*batch n"],
    inv_freq: Float[Tensor, " pairs"],
    *,
    ridge: float = 1e-2,
    layout: Layout = "half",
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
    r"""Return the two biases whose kernel comes closest to a target on the distances 0…n − 1.

    .. math:: \min_{\alpha,\beta}\ \sum_{r<n}\big(K(r)-t_r\big)^2+\rho\sum_i\big(\alpha_i^2+\beta_i^2\big)

    Args:
        target: t ``(..., n)``, in units of unscaled scores.
        inv_freq: ``(d/2,)`` radians per token.
        ridge: ρ ≥ 0; 0 gives the least squares solution of smallest norm.
        layout: which components form a pair.

    Returns:
        ``a, b``, each ``(..., d)``, in the dtype of ``target``; solved in float64.

    Raises:
        TypeError: ``ridge`` is no number, ``inv_freq`` not floating.
        ValueError: ``ridge`` negative or infinite, or an unknown ``layout``.

    Cost: one singular value decomposition of an n × d matrix. The slow waves are nearly collinear (condition number
    beyond 10¹²), which forming the normal equations would square.

    >>> a, b = fit_biases(torch.cos(torch.arange(9) * 0.5), torch.tensor([0.5]), ridge=0.0)
    >>> [round(x.item(), 4) for x in bias_coefficients(a, b)]
    [1.0, 0.0]
    """
    check_dtype("target", target, "floating")
    check_shape("target", target, ("...", "n"))
    check_dtype("inv_freq", inv_freq, "floating")
    check_shape("inv_freq", inv_freq, ("pairs",))
    check_number("ridge", ridge, least=0, below=math.inf)
    check_one_of("layout", layout, get_args(Layout))
    n, pairs = target.shape[-1], len(inv_freq)
    waves = torch.cat(cos_sin(torch.arange(n, device=target.device), inv_freq, dtype=torch.float64), dim=-1)
    left, sizes, right = torch.linalg.svd(waves, full_matrices=False)
    least = torch.finfo(torch.float64).eps * max(waves.shape) * sizes.max() if sizes.numel() else 0.0
    shrunk = torch.where(sizes > least, sizes / (sizes.square() + ridge).clamp(min=torch.finfo(sizes.dtype).tiny), 0.0)
    coefficients = (target.to(torch.float64) @ left * shrunk) @ right
    a, b = biases_from_coefficients(coefficients[..., :pairs], coefficients[..., pairs:], layout=layout)
    return a.to(target.dtype), b.to(target.dtype)


def pairs_of(x: Tensor, layout: str) -> tuple[Tensor, Tensor]:
    """First and second components of all pairs."""
    first, second = x.chunk(2, dim=-1) if layout == "half" else (x[..., 0::2], x[..., 1::2])
    return first, second


def joined(first: Tensor, second: Tensor, layout: str) -> Tensor:
    """The inverse of :func:`pairs_of`."""
    return torch.cat([first, second], -1) if layout == "half" else torch.stack([first, second], -1).flatten(-2)


def check_biases(a: Tensor, b: Tensor, layout: str) -> None:
    """Refuse biases of different or odd width, and an unknown layout."""
    check_one_of("layout", layout, get_args(Layout))
    for name, x in (("a", a), ("b", b)):
        check_dtype(name, x, "floating")
        check_shape(name, x, ("...", "d"))
    if a.shape[-1] != b.shape[-1] or a.shape[-1] % 2 or a.shape[-1] == 0:
        widths = f"{a.shape[-1]} and {b.shape[-1]}"
        raise ValueError(f"a, b: got widths {widths}, expected the same even positive number of components")


def check_frequencies(inv_freq: Tensor, dim: int) -> None:
    """Refuse frequencies that are not one for each pair."""
    check_dtype("inv_freq", inv_freq, "floating")
    check_shape("inv_freq", inv_freq, (dim // 2,), "as half the width of the vectors")
