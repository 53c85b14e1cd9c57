"""The operators of the Fourier density; references: plain sums, quadrature, and Brent's method."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from scipy import integrate, optimize
from torch import Tensor

from kexue_lib.distributions import fourier_density

WIDE = (torch.float64, torch.float32)


def complex_coefficients(real: Tensor, imaginary: Tensor) -> Tensor:
    """The battery's tensors have one floating dtype; half types have no complex counterpart."""
    wide = torch.promote_types(real.dtype, torch.float32)
    return torch.complex(real.to(wide), imaginary.to(wide))


def pairs(c: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.stack((c.real, c.imag), dim=-1).to(dtype)


def on_points(function):
    return lambda real, imaginary, x: function(complex_coefficients(real, imaginary), x)


def summed_autocorrelation(real: np.ndarray, imaginary: np.ndarray) -> np.ndarray:
    a = real + 1j * imaginary
    c = [sum(a[k] * a[k + n].conjugate() for k in range(len(a) - n)) for n in range(len(a))]
    return np.stack((np.real(c), np.imag(c)), -1)


def density(a: np.ndarray, x: float) -> float:
    wave = sum(coef * cmath.exp(-1j * math.pi * k * x) for k, coef in enumerate(a))
    return abs(wave) ** 2 / (2 * float(np.sum(np.abs(a) ** 2)))


def mass_below(a: np.ndarray, x: float) -> float:
    return integrate.quad(lambda s: density(a, s), -1, x, limit=200, epsabs=1e-14, epsrel=1e-13)[0]


def pointwise(function):
    return lambda real, imaginary, x: np.array([function(real + 1j * imaginary, v) for v in x])


def quantile(a: np.ndarray, u: float) -> float:
    if u in (0.0, 1.0):
        return 2 * u - 1
    return optimize.brentq(lambda x: mass_below(a, x) - u, -1, 1, xtol=1e-15, rtol=1e-14)


def coefficients(n: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.randn(2, 2, n + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 0.3
    draw[0, :, 0] += 1  # away from zeros of the density
    return draw[0], draw[1]


def at_points(low: float, high: float) -> callable:
    def samples() -> Iterator[Sample]:
        for seed, (n, m) in enumerate([(3, 4), (1, 3), (0, 2), (4, 1)]):
            generator = torch.Generator().manual_seed(100 + seed)
            x = low + (high - low) * torch.rand(2, m, dtype=torch.float64, generator=generator)
            yield Sample((*coefficients(n, seed), x))

    return samples


def at_the_ends(*ends: float) -> callable:
    def samples() -> Iterator[Sample]:
        for scale in (1.0, 1e-15, 1e15):  # the density does not depend on it
            real, imaginary = coefficients(3, 7)
            yield Sample((scale * real, scale * imaginary, torch.tensor([ends, ends], dtype=torch.float64)))

    return samples


def factors() -> Iterator[Sample]:
    for n, m in ((1, 33), (2, 32), (0, 48)):
        x = torch.arange(m, dtype=torch.float64) * (2 / m) - 1
        log_density = torch.stack([sum(w**j * torch.cos(math.pi * j * x + j) for j in (1, 2)) for w in (0.4, -0.3)])
        yield Sample((log_density.exp(),), {"num_frequencies": n})


def expanded_factor(samples: np.ndarray, num_frequencies: int) -> np.ndarray:
    """exp of a power series by its recurrence, from the cosine sums of the logarithm."""
    m, logs = len(samples), np.log(samples)
    x = -1 + 2 * np.arange(m) / m
    top = (m - 1) // 2
    # log A = ½ l_0 + Σ l_{−n} w^n with w = e^{−iπx}
    terms = [sum(logs * np.exp(1j * math.pi * n * x)) / m for n in range(top + 1)]
    series = [cmath.exp(terms[0] / 2)]
    for n in range(1, num_frequencies + 1):
        series.append(sum(k * terms[k] * series[n - k] for k in range(1, n + 1)) / n)
    return np.stack((np.real(series), np.imag(series)), -1)


COEFFICIENTS, HALVES = torch.ones(3), torch.ones(4) / 2
REFUSED = {
    "autocorrelation": spoiled(
        fourier_density.autocorrelation,
        {"a": COEFFICIENTS},
        ({"a": COEFFICIENTS.long()}, TypeError, "a: got torch.int64"),
        ({"a": COEFFICIENTS[:0]}, ValueError, "a: got shape (0,)"),
    ),
    "log_prob": spoiled(
        fourier_density.periodic_log_prob,
        {"a": COEFFICIENTS, "x": HALVES},
        ({"a": COEFFICIENTS.long()}, TypeError, "a: got torch.int64"),
        ({"a": COEFFICIENTS[:0]}, ValueError, "a: got shape (0,)"),
        ({"a": [1.0]}, TypeError, "a: got list"),
        ({"x": HALVES.long()}, TypeError, "x: got torch.int64"),
        ({"a": torch.ones(2, 2)}, ValueError, "x: got shape (4,)"),
        ({"x": torch.tensor(0.5)}, ValueError, "x: got shape ()"),
    ),
    "prob": spoiled(
        fourier_density.periodic_prob,
        {"a": COEFFICIENTS, "x": HALVES},
        ({"a": COEFFICIENTS.long()}, TypeError, "a: got torch.int64"),
        ({"a": COEFFICIENTS[:0]}, ValueError, "a: got shape (0,)"),
        ({"a": [1.0]}, TypeError, "a: got list"),
        ({"x": HALVES.long()}, TypeError, "x: got torch.int64"),
        ({"a": torch.ones(2, 2)}, ValueError, "x: got shape (4,)"),
        ({"x": torch.tensor(0.5)}, ValueError, "x: got shape ()"),
    ),
    "cdf": spoiled(
        fourier_density.periodic_cdf,
        {"a": COEFFICIENTS, "x": HALVES},
        ({"a": COEFFICIENTS.long()}, TypeError, "a: got torch.int64"),
        ({"a": COEFFICIENTS[:0]}, ValueError, "a: got shape (0,)"),
        ({"a": [1.0]}, TypeError, "a: got list"),
        ({"x": HALVES.long()}, TypeError, "x: got torch.int64"),
        ({"a": torch.ones(2, 2)}, ValueError, "x: got shape (4,)"),
        ({"x": torch.tensor(0.5)}, ValueError, "x: got shape ()"),
    ),
    "icdf": spoiled(
        fourier_density.periodic_icdf,
        {"a": COEFFICIENTS, "u": HALVES},
        ({"a": COEFFICIENTS.long()}, TypeError, "a: got torch.int64"),
        ({"a": COEFFICIENTS[:0]}, ValueError, "a: got shape (0,)"),
        ({"a": [1.0]}, TypeError, "a: got list"),
        ({"u": HALVES.long()}, TypeError, "u: got torch.int64"),
        ({"a": torch.ones(2, 2)}, ValueError, "u: got shape (4,)"),
        ({"u": torch.tensor(0.5)}, ValueError, "u: got shape ()"),
    ),
    "factor": spoiled(
        fourier_density.spectral_factor,
        {"density": torch.ones(9), "num_frequencies": 2},
        ({"density": torch.ones(9, dtype=torch.int64)}, TypeError, "density: got torch.int64"),
        ({"density": torch.tensor(1.0)}, ValueError, "density: got shape ()"),
        ({"density": torch.ones(4)}, ValueError, "density: got 4 samples"),
        ({"density": torch.zeros(9)}, ValueError, "density: got a smallest value of 0.0"),
        ({"num_frequencies": 1.5}, TypeError, "num_frequencies: got 1.5"),
        ({"num_frequencies": -1}, ValueError, "num_frequencies: got -1"),
    ),
}

OPS = [
    OpInfo(
        "autocorrelation",
        lambda re, im: pairs(fourier_density.autocorrelation(complex_coefficients(re, im)), re.dtype),
        summed_autocorrelation,
        lambda: [Sample(coefficients(n, n)) for n in (0, 1, 2, 5)],
        errors=REFUSED["autocorrelation"],
    ),
    OpInfo(
        "periodic_log_prob",
        on_points(fourier_density.periodic_log_prob),
        pointwise(lambda a, x: math.log(density(a, x))),
        at_points(-1, 1),
        at_the_ends(-1.0, 0.0, 1.0),
        errors=REFUSED["log_prob"],
    ),
    OpInfo(
        "periodic_prob",
        on_points(fourier_density.periodic_prob),
        pointwise(density),
        at_points(-1, 1),
        at_the_ends(-1.0, 0.0, 1.0),
        errors=REFUSED["prob"],
    ),
    OpInfo(
        "periodic_cdf",
        on_points(fourier_density.periodic_cdf),
        pointwise(mass_below),
        at_points(-1, 1),
        at_the_ends(-1.0, 0.0, 1.0),
        errors=REFUSED["cdf"],
    ),
    OpInfo(
        "periodic_icdf",
        on_points(fourier_density.periodic_icdf),
        pointwise(quantile),
        at_points(0.02, 0.98),
        at_the_ends(0.0, 0.5, 1.0),
        errors=REFUSED["icdf"],
        second_derivative=False,
    ),
    OpInfo(
        "spectral_factor",
        lambda p, num_frequencies: pairs(fourier_density.spectral_factor(p, num_frequencies), p.dtype),
        expanded_factor,
        factors,
        errors=REFUSED["factor"],
        dtypes=WIDE,
        tolerance=512.0,
        vmap=False,
    ),
]
