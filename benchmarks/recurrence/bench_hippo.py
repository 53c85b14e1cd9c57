"""hippo beside its peers: the Legendre basis beside NumPy's, projections beside a loop over times.

Run: python -m benchmarks.recurrence.bench_hippo [--save]
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import roots_legendre

from benchmarks.measure import Report
from kexue_lib.recurrence.hippo import laguerre_basis, legendre_basis, project


def by_loop(T: np.ndarray, N: int) -> np.ndarray:
    """Gauss-Legendre quadrature time by time, the basis made once."""
    s, weight = roots_legendre(4 * N + 16)
    basis = np.polynomial.legendre.legvander(s, N - 1) * np.sqrt(np.arange(N) + 0.5) * weight[:, None]
    return np.stack([np.sin(7 * (s + 1) * t / 2) @ basis for t in T])


def main() -> None:
    torch.set_num_threads(1)
    report = Report("HiPPO", peers=("numpy", "scipy"))
    s = torch.linspace(-1, 1, 10_000, dtype=torch.float64)
    report.compare(
        "Basis, N = 256, 10000 points, float64",
        {
            "NumPy legvander": lambda: np.polynomial.legendre.legvander(s.numpy(), 255),
            "legendre_basis": lambda: legendre_basis(256, s),
            "laguerre_basis": lambda: laguerre_basis(256, s + 1),
        },
        baseline="NumPy legvander",
        rounds=41,
    )
    T = torch.linspace(0.1, 4, 1000, dtype=torch.float64)
    report.compare(
        "Projection at 1000 times, legs, N = 64",
        {
            "NumPy, one time after the other": lambda: by_loop(T.numpy(), 64),
            "project": lambda: project(lambda t: torch.sin(7 * t), "legs", 64, T),
        },
        baseline="NumPy, one time after the other",
        rounds=31,
    )
    report.finish("recurrence/hippo")


if __name__ == "__main__":
    main()
