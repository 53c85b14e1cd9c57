"""How far a set of samples is from another: energy distance, Fréchet distance, modes found.

Conventions, since libraries differ: the energy distance takes plain means over all pairs, a point with itself included,
and no root; the Fréchet distance is the squared 2-Wasserstein distance of two fitted Gaussians, no root either.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_integer, check_number

__all__ = ["energy_distance", "frechet_distance", "modes_found"]

_PAIRS_AT_ONCE = 1 << 22


def energy_distance(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], *, chunk_size: int | None = None
) -> Float[Tensor, ""]:
    r"""Energy distance :math:`2\,\overline{|x-y|}-\overline{|x-x'|}-\overline{|y-y'|}` of two samples.

    The means run over all pairs, so the value is at least 0, and 0 for equal samples. For two samples of n and m points
    of one law it is not 0 but about :math:`(1/n+1/m)\,E|x-x'|`: the floor that a distance has to be read against.
    SciPy's one-dimensional ``energy_distance`` is the root of this value; geomloss's is half of it.

    Args:
        x: samples (n, d).
        y: samples (m, d).
        chunk_size: rows of distances held at once; None keeps about four million distances.

    Returns:
        The distance, of the dtype of x; sums run in float64. Gradients flow (0 where two points meet).

    Raises:
        TypeError: integers.
        ValueError: different widths, no points.

    Cost: O((n + m)² d) time, O(chunk_size · (n + m)) memory.
    Source: Székely & Rizzo, Journal of Statistical Planning and Inference 2013.

    >>> energy_distance(torch.tensor([[0.0], [0.0]]), torch.tensor([[3.0]]))
    tensor(6.)
    """
    _check_samples(x, y)
    if chunk_size is not None:
        check_integer("chunk_size", chunk_size, 1)
    across, left, right = (_mean_distance(*pair, chunk_size) for pair in ((x, y), (x, x), (y, y)))
    return (2 * across - left - right).to(x.dtype)


def _mean_distance(x: Tensor, y: Tensor, chunk_size: int | None) -> Tensor:
    rows = chunk_size or max(1, _PAIRS_AT_ONCE // y.shape[0])
    # The product form ‖x‖² − 2x·y + ‖y‖² loses all digits of small distances; and half precision has no such kernel.
    x, y = (samples.float() if samples.dtype.itemsize < 4 else samples for samples in (x, y))
    mode = "donot_use_mm_for_euclid_dist"
    sums = (torch.cdist(part, y, compute_mode=mode).sum(dtype=torch.float64) for part in x.split(rows))
    return cast("Tensor", sum(sums)) / (x.shape[0] * y.shape[0])


def frechet_distance(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    r"""Fréchet distance :math:`|m-m'|^2+\mathrm{tr}\big(C+C'-2(CC')^{1/2}\big)` of the Gaussians fitted to two samples.

    Means and unbiased covariances are those of the samples themselves (of features, if the caller passes features).
    The trace of the root is the sum of the singular values of :math:`C^{1/2}C'^{1/2}`, which stays exact where a
    covariance is singular. Finite samples of one law have a positive distance: compare with data against data.

    Args:
        x: samples (n, d), n ≥ 2.
        y: samples (m, d), m ≥ 2.

    Returns:
        The squared distance, of the dtype of x, computed in float64.

    Raises:
        TypeError: integers.
        ValueError: different widths, fewer than two points.

    Cost: O((n + m) d² + d³).
    Source: Dowson & Landau, Journal of Multivariate Analysis 1982; Heusel et al., NeurIPS 2017 (on features).

    >>> x = torch.tensor([[0.0], [2.0]])
    >>> frechet_distance(x, 2 * x + 1)  # means 1 and 3, deviations √2 and 2√2
    tensor(6.)
    """
    _check_samples(x, y, least=2)
    (mean_x, root_x, trace_x), (mean_y, root_y, trace_y) = (_gaussian_fit(samples.double()) for samples in (x, y))
    joint = torch.linalg.svdvals(root_x @ root_y).sum()
    return ((mean_x - mean_y).square().sum() + trace_x + trace_y - 2 * joint).to(x.dtype)


def _gaussian_fit(samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, root of the covariance, and the covariance's trace."""
    mean = samples.mean(0)
    centred = samples - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / (samples.shape[0] - 1))
    values = values.clamp(min=0)
    return mean, vectors * values.sqrt() @ vectors.T, values.sum()


def modes_found(
    x: Float[Tensor, "n d"], centres: Float[Tensor, "modes d"], *, radius: float, min_fraction: float = 0.02
) -> int:
    """Count the centres that hold at least a share of the samples.

    A sample belongs to its nearest centre if it lies within the radius of it, and to none otherwise.

    Args:
        x: samples (n, d).
        centres: centres of the modes (K, d).
        radius: largest distance that counts, above 0; three standard deviations of a mode is usual.
        min_fraction: share of all samples that a found mode holds at least, in (0, 1].

    Returns:
        The number of modes found, 0 to K.

    Raises:
        TypeError: integers.
        ValueError: different widths, no points, radius or min_fraction outside.

    Cost: O(nKd), and a wait for the device.

    >>> modes_found(torch.tensor([[0.1], [0.2], [5.0]]), torch.tensor([[0.0], [3.0]]), radius=1.0)
    1
    """
    _check_samples(x, centres, names=("x", "centres"))
    check_number("radius", radius, above=0)
    check_number("min_fraction", min_fraction, above=0, most=1)
    distance, nearest = torch.cdist(x, centres).min(1)
    counts = torch.bincount(nearest[distance <= radius], minlength=centres.shape[0])
    return int((counts >= min_fraction * x.shape[0]).sum())


def _check_samples(x: Tensor, y: Tensor, least: int = 1, names: tuple[str, str] = ("x", "y")) -> None:
    for name, samples in zip(names, (x, y), strict=True):
        if not samples.dtype.is_floating_point:
            raise TypeError(f"{name}: got {samples.dtype}, expected a floating dtype")
        if samples.ndim != 2 or samples.shape[0] < least:
            raise ValueError(f"{name}: got shape {tuple(samples.shape)}, expected (n, d) with n at least {least}")
    if x.shape[1] != y.shape[1]:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"{names[0]}, {names[1]}: got shapes {shapes}, expected the same width")
