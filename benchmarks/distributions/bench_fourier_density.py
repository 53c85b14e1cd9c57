"""The Fourier density against the matrix of exponentials, bisection, Gaussian mixtures and kernel estimates.

Run: python -m benchmarks.distributions.bench_fourier_density [--save]
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from benchmarks.measure import Report
from kexue_lib.distributions.fourier_density import (
    FourierDensity,
    autocorrelation,
    periodic_cdf,
    periodic_icdf,
    periodic_log_prob,
)


def exponential_matrix(a: Tensor, x: Tensor) -> Tensor:
    """log p with all e^{−iπkx} written out."""
    k = torch.arange(len(a), dtype=x.dtype)
    wave = torch.exp(-1j * math.pi * x.unsqueeze(-1) * k) @ a
    return 2 * wave.abs().log() - (2 * a.abs().square().sum()).log()


def cosine_sum(a: Tensor, x: Tensor) -> Tensor:
    """log p from the autocorrelation, clipped at 1e-20, as implementations of the paper do."""
    c, k = autocorrelation(a), torch.arange(1, len(a), dtype=x.dtype)
    angle = math.pi * x.unsqueeze(-1) * k
    f = c[0].real + 2 * (angle.cos() @ c[1:].real - angle.sin() @ c[1:].imag)
    return f.clamp(min=1e-20).log() - (2 * c[0].real).log()


def bisected_icdf(a: Tensor, u: Tensor) -> Tensor:
    """60 halvings of [−1, 1]."""
    low, high = -torch.ones_like(u), torch.ones_like(u)
    for _ in range(60):
        middle = (low + high) / 2
        below = periodic_cdf(a, middle) < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def training_step(log_prob: Callable[[], Tensor], parameters: list[Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.Adam(parameters, lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        (-log_prob().mean()).backward()
        optimizer.step()

    return step


def with_gradient(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, x: Tensor) -> Callable[[], Tensor]:
    a, weight = a.clone().requires_grad_(), torch.randn_like(x)
    return lambda: torch.autograd.grad(function(a, x), a, weight)[0]


def largest_allocation(call: Callable[[], object]) -> float:
    """Bytes of memory that the call takes at its worst moment."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    held = worst = 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        worst = max(worst, held)
    return worst


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("Fourier density", peers=("scikit-learn",))
    a, x = torch.randn(33, dtype=torch.complex64), 2 * torch.rand(10**6) - 1
    contenders = {
        "kexue_lib": periodic_log_prob,
        "matrix of exponentials": exponential_matrix,
        "sum of cosines, clipped": cosine_sum,
    }
    report.compare(
        "log p at 10⁶ points, N = 32, float32",
        {name: lambda f=f: f(a, x) for name, f in contenders.items()},
        baseline="kexue_lib",
        rounds=7,
    )
    report.compare(
        "log p and its gradient in a, 10⁶ points, N = 32, float32",
        {name: with_gradient(f, a, x) for name, f in contenders.items()},
        baseline="kexue_lib",
        rounds=5,
    )
    wide, u = a.to(torch.complex128), torch.rand(10**5, dtype=torch.float64)
    report.compare(
        "Quantiles of 10⁵ probabilities, N = 32, float64",
        {
            "kexue_lib": lambda: periodic_icdf(wide, u),
            "60 bisections": lambda: bisected_icdf(wide, u),
            "one distribution function": lambda: periodic_cdf(wide, u),
        },
        baseline="kexue_lib",
        rounds=5,
    )
    y = torch.randn(1000)
    for n in (20, 40):
        k = 2 * n // 3
        model = FourierDensity(n)
        logits, loc, scale = (torch.randn(k, requires_grad=True) for _ in range(3))
        report.compare(
            f"Training step, batch 1000, N = {n} against {k} Gaussians",
            {
                "kexue_lib": training_step(lambda model=model: model.log_prob(y), list(model.parameters())),
                "torch.distributions mixture": training_step(
                    lambda p=(logits, loc, scale): MixtureSameFamily(
                        Categorical(logits=p[0]), Normal(p[1], p[2].exp())
                    ).log_prob(y),
                    [logits, loc, scale],
                ),
            },
            baseline="torch.distributions mixture",
            rounds=101,
        )
    data, queries = torch.randn(2000, 1).numpy(), torch.randn(10_000, 1)
    model = FourierDensity(20)
    mixture, kernels = GaussianMixture(14).fit(data), KernelDensity(bandwidth=0.1).fit(data)
    report.compare(
        "log-likelihood of 10⁴ points after 2000 samples",
        {
            "kexue_lib, N = 20": lambda: model.log_prob(queries[:, 0]),
            "scikit-learn mixture, 14": lambda: mixture.score_samples(queries.numpy()),
            "scikit-learn kernels, 2000": lambda: kernels.score_samples(queries.numpy()),
        },
        baseline="kexue_lib, N = 20",
        rounds=5,
    )
    memory = {name: largest_allocation(with_gradient(f, a, x)) for name, f in contenders.items()}
    for name, size in memory.items():
        report.number(f"peak memory of log p with gradient, 10⁶ points, MB: {name}", size / 1e6)
    error = (periodic_cdf(wide, periodic_icdf(wide, u)) - u).abs().max().item()
    report.number("|Φ(x) − u| of the quantiles", error)
    report.finish("distributions/fourier_density")


if __name__ == "__main__":
    main()
