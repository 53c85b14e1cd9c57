"""Scaling-law fits beside a loop over SciPy, and parity batches beside the loop over tasks of the authors' script.

Run: python -m benchmarks.optimization.bench_scaling_law [--save]
"""

from __future__ import annotations

import resource
from collections.abc import Callable

import numpy as np
import torch
from scipy import optimize, stats
from torch import Tensor, nn

from benchmarks.measure import Report
from kexue_lib.optimization.scaling_law import (
    MultitaskSparseParity,
    ParityMLP,
    chinchilla_loss,
    expected_loss,
    fit_chinchilla,
    zipf_frequencies,
)
from kexue_lib.optimization.scaling_law._fits import _EXPONENTS, _FRACTIONS

RUNS, RESAMPLES, DELTA = 60, 500, 1e-3
TASKS, BITS, BATCH = 500, 100, 20_000


def noisy_runs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    N, D = (10 ** (low + 3 * torch.rand(RUNS, dtype=torch.float64, generator=generator)) for low in (7.0, 8.5))
    noise = 0.01 * torch.randn(RUNS, dtype=torch.float64, generator=generator)
    return N, D, chinchilla_loss(N, D, E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658) * noise.exp()


def objective(theta: np.ndarray, N: np.ndarray, D: np.ndarray, L: np.ndarray) -> tuple[float, np.ndarray]:
    """Sum of Huber losses over δ, and its gradient, for θ = (log A, log B, log E, α, β) and logarithms N, D, L."""
    a, b, e, alpha, beta = theta
    terms = np.stack([a - alpha * N, b - beta * D, np.full_like(N, e)])
    top = terms.max(0)
    weight = np.exp(terms - top)
    total = weight.sum(0)
    residual = top + np.log(total) - L
    weight /= total
    slope = np.clip(residual, -DELTA, DELTA) / DELTA
    size = np.abs(residual)
    value = np.where(size <= DELTA, residual**2 / (2 * DELTA), size - DELTA / 2).sum()
    columns = weight[0], weight[1], weight[2], -weight[0] * N, -weight[1] * D
    return value, np.array([(slope * column).sum() for column in columns])


def loop_of_scipy(starts: np.ndarray, resamples: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """L-BFGS-B from every start, then on every resample from the best of them: the values reached on the resamples."""
    options = {"maxiter": 2000, "maxfun": 100_000, "ftol": 1e-12, "gtol": 1e-9}

    def search(start: np.ndarray, rows: np.ndarray) -> optimize.OptimizeResult:
        return optimize.minimize(objective, start, tuple(logs[:, rows]), jac=True, method="L-BFGS-B", options=options)

    first = min((search(start, np.arange(RUNS)) for start in starts), key=lambda found: found.fun)
    return np.array([search(first.x, rows).fun for rows in resamples])


def loop_over_tasks(data: MultitaskSparseParity) -> tuple[Tensor, Tensor]:
    """A batch as the authors' script builds it: the samples of each task in turn, with dense one-hot control bits."""
    counts = torch.multinomial(data.frequencies, BATCH, replacement=True).bincount(minlength=TASKS)
    x, y = torch.zeros(BATCH, TASKS + BITS), torch.zeros(BATCH, dtype=torch.long)
    begin = 0
    for task, count in enumerate(counts.tolist()):
        rows = slice(begin, begin + count)
        bits = torch.randint(2, (count, BITS))
        x[rows, task] = 1
        x[rows, TASKS:] = bits.float()
        y[rows] = bits[:, data.subsets[task]].sum(1) % 2
        begin += count
    return x, y


def forward_and_backward(model: nn.Module, *inputs: Tensor) -> Callable[[], None]:
    def run() -> None:
        model.zero_grad()
        model(*inputs).sum().backward()

    return run


def compare_fits(report: Report) -> None:
    N, D, L = noisy_runs()
    logs = np.stack([v.log().numpy() for v in (N, D, L)])
    drawn = torch.randint(RUNS, (RESAMPLES, RUNS), generator=torch.Generator().manual_seed(1)).numpy()
    fit = lambda: fit_chinchilla(N, D, L, n_bootstrap=RESAMPLES, generator=torch.Generator().manual_seed(1))
    report.compare(
        f"144 starts and {RESAMPLES} bootstrap fits of 5 constants to {RUNS} runs",
        {
            "fit_chinchilla": fit,
            "loop over SciPy's L-BFGS-B, analytic gradient": lambda: loop_of_scipy(starts_of(logs), drawn, logs),
        },
        baseline="fit_chinchilla",
        rounds=5,
        warmup=1,
    )
    E, A, B, alpha, beta = fit().samples.numpy().T
    ours = np.stack([np.log(A), np.log(B), np.log(E), alpha, beta], 1)
    reached = np.array([objective(t, *logs[:, rows])[0] for t, rows in zip(ours, drawn)])
    excess = loop_of_scipy(starts_of(logs), drawn, logs) / reached - 1
    report.number("largest relative excess of our objective over SciPy's, 500 resamples", -excess.min())
    report.number("largest relative excess of SciPy's objective over ours", excess.max())


def starts_of(logs: np.ndarray) -> np.ndarray:
    """The grid of starts that fit_chinchilla uses."""
    N, D, L = logs
    mean, rows = np.exp(L).mean(), []
    for alpha in _EXPONENTS:
        for beta in _EXPONENTS:
            for share in _FRACTIONS:
                e = np.log(share) + L.min()
                level = np.log((mean - np.exp(e)) / 2)
                rows.append((level + alpha * N.mean(), level + beta * D.mean(), e, alpha, beta))
    return np.array(rows)


def compare_parity(report: Report) -> None:
    data = MultitaskSparseParity(TASKS, BITS, 3, 0.4)
    report.compare(
        f"A batch of {BATCH} parity samples, {TASKS} tasks, {BITS} bits",
        {"sample": lambda: data.sample(BATCH), "loop over tasks, dense one-hot": lambda: loop_over_tasks(data)},
        baseline="sample",
        rounds=11,
    )
    task, bits, _ = data.sample(BATCH)
    dense = nn.Sequential(nn.Linear(TASKS + BITS, 128), nn.ReLU(), nn.Linear(128, 1))
    report.compare(
        f"Forward and backward at width 128, batch {BATCH}",
        {
            "ParityMLP": forward_and_backward(ParityMLP(TASKS, BITS, 128), task, bits),
            "dense network on one-hot input": forward_and_backward(dense, data.encode(task, bits)),
        },
        baseline="ParityMLP",
        rounds=11,
    )


def compare_expectations(report: Report) -> None:
    p = zipf_frequencies(3_000_000, 0.5)
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    before = peak()
    expected_loss(1e5, p, 10)
    report.number("MB of memory that expected_loss adds, 3e6 quanta", peak() - before)
    report.compare(
        "Expected loss of 3·10⁶ quanta, τ = 10",
        {
            "expected_loss": lambda: expected_loss(1e5, p, 10),
            "scipy.stats.poisson.cdf": lambda: (p.numpy() * stats.poisson.cdf(9, 1e5 * p.numpy())).sum(),
        },
        baseline="expected_loss",
        rounds=7,
    )


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("Scaling laws", peers=("scipy",))
    compare_expectations(report)
    compare_parity(report)
    compare_fits(report)
    report.finish("optimization/scaling_law")


if __name__ == "__main__":
    main()
