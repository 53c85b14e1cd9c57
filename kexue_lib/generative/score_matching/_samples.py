"""Scores made of samples: of one, of all of them, and the constant between the two objectives."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib.generative.score_matching._mixture import GaussianMixture


def conditional_score(
    x_t: Float[Tensor, "*batch d"], x0: Float[Tensor, "*batch d"], alpha: float | Tensor, sigma: float | Tensor
) -> Float[Tensor, "*batch d"]:
    r"""Return the score of the noised point given where it came from: the target of denoising score matching.

    .. math:: \nabla_{x_t}\log N(x_t;\alpha x_0,\sigma^2I)=(\alpha x_0-x_t)/\sigma^2

    Args:
        x_t: noised points ``(..., d)``.
        x0: the data they came from, of the same shape.
        alpha: factor of the data, a finite number or a tensor that broadcasts.
        sigma: noise, above 0, likewise.

    Returns:
        ``(..., d)``.

    Raises:
        TypeError: ``x_t`` or ``x0`` is not floating.
        ValueError: ``sigma`` is not positive, ``alpha`` not finite, shapes differ.

    Cost: elementwise. Source: article 9509.

    >>> conditional_score(torch.tensor([1.0]), torch.tensor([1.0]), alpha=0.6, sigma=0.8)
    tensor([-0.6250])
    """
    _check_points(x_t, x0, alpha, sigma)
    check_shape("x0", x0, tuple(x_t.shape), "as x_t has")
    return (alpha * x0 - x_t) / sigma**2


@without_autocast
def score_from_samples(
    x_t: Float[Tensor, "B d"],
    x0: Float[Tensor, "n d"],
    alpha: float | Tensor,
    sigma: float | Tensor,
    *,
    chunk_size: int | None = None,
) -> Float[Tensor, "B d"]:
    r"""Return the score of n noised data points: the ratio of two sample means.

    .. math:: \hat s(x)=\frac{\sum_j\nabla k(x|y_j)}{\sum_jk(x|y_j)}=\frac{\alpha\sum_jw_jy_j-x}{\sigma^2},\qquad
              w=\operatorname{softmax}_j\Big(\frac{\alpha\,x\cdot y_j-\alpha^2\|y_j\|^2/2}{\sigma^2}\Big)

    with the kernel k(x|y) = N(x; αy, σ²I). Exact for the empirical distribution of ``x0``; as an estimate for the law
    that ``x0`` was drawn from it is biased by O(1/n).

    Args:
        x_t: points ``(B, d)``.
        x0: data y ``(n, d)``, n ≥ 1.
        alpha: factor of the data, a finite number or a tensor without dimensions.
        sigma: noise, above 0, likewise.
        chunk_size: data points at once; None: all of them.

    Returns:
        ``(B, d)``, dtype of ``x_t``.

    Raises:
        TypeError: ``x_t`` or ``x0`` is not floating, ``chunk_size`` no integer.
        ValueError: ``sigma`` is not positive, ``alpha`` not finite, no data, other shapes, ``chunk_size`` < 1.

    Cost: O(Bnd) in two matrix products in float64 (where σ is small the weights hang on the last digits of x·y),
    O(B · chunk_size) memory. Source: article 9509, equation for ∇log p_t as a ratio of expectations.

    >>> score_from_samples(torch.tensor([[0.5]]), torch.tensor([[-1.0], [1.0]]), alpha=1.0, sigma=0.1)
    tensor([[50.]])
    """
    _check_points(x_t, x0, alpha, sigma)
    check_shape("x_t", x_t, ("B", "d"))
    check_shape("x0", x0, ("n", x_t.shape[1]), "as x_t has columns")
    if len(x0) == 0:
        raise ValueError("x0: got no points, expected at least one")
    if chunk_size is not None:
        check_integer("chunk_size", chunk_size, 1)
    x, data = x_t.double(), x0.double()
    top = x.new_full((len(x), 1), -math.inf)  # running maximum, sum of weights, weighted sum of data
    mass, total = torch.zeros_like(top), torch.zeros_like(x)
    for y in data.split(chunk_size or len(data)):
        logits = (alpha * (x @ y.T) - alpha**2 * y.square().sum(1) / 2) / sigma**2
        higher = torch.maximum(top, logits.detach().amax(1, keepdim=True))
        weights, kept = (logits - higher).exp(), (top - higher).exp()
        mass, total, top = mass * kept + weights.sum(1, keepdim=True), total * kept + weights @ y, higher
    return ((alpha * total / mass - x) / sigma**2).to(x_t.dtype)


def conditional_score_gap(
    mixture: GaussianMixture,
    alpha: float | Tensor,
    sigma: float | Tensor,
    n: int = 100_000,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Estimate the constant by which conditional score matching exceeds score matching.

    .. math:: \Delta=E\,\mathrm{tr}\,\mathrm{Cov}(\nabla\log k\mid x_t)
              =\frac{\alpha^2}{\sigma^4}\,E\,\mathrm{tr}\,\mathrm{Cov}(x_0\mid x_t)=\frac d{\sigma^2}-J(p_t)

    The mean runs over the posterior variance, exact at each point, so that nothing cancels and every summand is at
    least 0.

    Args:
        mixture: law of x₀.
        alpha: factor of the data, a finite number.
        sigma: noise, above 0.
        n: points x_t, at least 2.
        generator: source of the points; default: the global one.

    Returns:
        The estimate and its standard error, both without dimensions.

    Raises:
        TypeError: ``n`` is no integer.
        ValueError: ``sigma`` is not positive, ``n`` < 2.

    Cost: O(nKd²).

    >>> point = GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.ones(1, 1, 1))
    >>> [round(v.item(), 4) for v in conditional_score_gap(point, 0.6, 0.8, n=10)]  # α²/σ² · 1/(α² + σ²)
    [0.5625, 0.0]
    """
    check_integer("n", n, 2)
    x_t = mixture.diffuse(alpha, sigma).sample(n, generator)
    covariance = mixture.posterior_covariance(x_t, alpha, sigma)
    variances = covariance.diagonal(dim1=-2, dim2=-1).sum(-1) * (alpha**2 / sigma**4)
    return variances.mean(), variances.std() / math.sqrt(n)


def _check_points(x_t: Tensor, x0: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> None:
    check_dtype("x_t", x_t, "floating")
    check_dtype("x0", x0, "floating")
    check_number("alpha", alpha, above=-math.inf, below=math.inf)
    check_number("sigma", sigma, above=0, below=math.inf)
