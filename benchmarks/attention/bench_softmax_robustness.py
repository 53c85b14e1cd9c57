"""Attention with row statistics against dense softmax-then-entropy, the built-in entropy, and attention without either.

Run: python -m benchmarks.attention.bench_softmax_robustness [--save]
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.measure import Report
from kexue_lib.attention.softmax_robustness import attention_average, attention_stats, perturbed_attention


def dense(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
    """All scores, softmax, entropy."""
    s = q @ k.mT * q.shape[-1] ** -0.5
    if causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    p = s.softmax(-1)
    return p @ v, torch.special.entr(p).sum(-1)


def categorical(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The same with PyTorch's own entropy."""
    law = Categorical(logits=q @ k.mT * q.shape[-1] ** -0.5, validate_args=False)
    return law.probs @ v, law.entropy()


def training(function: Callable[..., tuple[Tensor, ...]], q: Tensor, k: Tensor, v: Tensor) -> Callable[[], object]:
    """Both results and the gradient of their sum."""
    inputs = [x.clone().requires_grad_() for x in (q, k, v)]
    ours = function is attention_stats

    def step() -> object:
        with torch.enable_grad():
            out = function(*inputs)
            return torch.autograd.grad(out[0].sum() + out[2 if ours else 1].sum(), inputs)

    return step


def peak_megabytes(name: str) -> float:
    """Largest resident memory beyond what inputs and libraries take, in a process of its own."""
    code = f"from benchmarks.attention.bench_softmax_robustness import one_run; print(one_run({name!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def one_run(name: str) -> float:
    """One call at L = S = 4096 in this process."""
    torch.set_num_threads(1)
    function = {"attention_stats": attention_stats, "dense": dense, "categorical": categorical}[name.split()[0]]
    q, k, v = (torch.randn(4096, 64) for _ in range(3))
    run = training(function, q, k, v) if "gradient" in name else lambda: function(q, k, v)
    small = training(function, q[:64], k[:64], v[:64])
    small()
    before = high_water()
    run()
    return high_water() - before


def high_water() -> float:
    """Largest resident memory of this process so far; Linux (getrusage would count the parent's, too)."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("Attention with the entropy of every row")
    for heads, length in ((1, 4096), (8, 1024)):
        q, k, v = (torch.randn(1, heads, length, 64) for _ in range(3))
        setting = f"{heads} head{'s' * (heads > 1)}, {length} queries and keys of width 64, float32"
        for causal in (False, True):
            candidates = {
                "attention_stats": lambda q=q, k=k, v=v, c=causal: attention_stats(q, k, v, causal=c),
                "dense softmax, then entropy": lambda q=q, k=k, v=v, c=causal: dense(q, k, v, c),
                "attention without statistics": lambda q=q, k=k, v=v, c=causal: scaled_dot_product_attention(
                    q, k, v, is_causal=c
                ),
            }
            if not causal:
                candidates["torch Categorical.entropy"] = lambda q=q, k=k, v=v: categorical(q, k, v)
            kind = "causal" if causal else "all keys visible"
            report.compare(f"{setting}, {kind}", candidates, baseline="attention_stats", rounds=11)
    q, k, v = (torch.randn(1, 1, 4096, 64) for _ in range(3))
    report.compare(
        "1 head, 4096 queries and keys of width 64, float32: output, entropy and gradients",
        {
            "attention_stats": training(attention_stats, q, k, v),
            "dense softmax, then entropy": training(dense, q, k, v),
        },
        baseline="attention_stats",
        rounds=7,
    )
    scores, values = torch.randn(4096), torch.randn(4096, 16)

    def one_by_one() -> Tensor:
        return torch.stack([attention_average(scores + torch.randn(4096), values) for _ in range(256)])

    report.compare(
        "256 noisy averages of 4096 values of width 16",
        {
            "perturbed_attention": lambda: perturbed_attention(scores, values, 1.0, num_samples=256),
            "one sample after the other": one_by_one,
        },
        baseline="perturbed_attention",
        rounds=11,
    )
    for name in ("attention_stats", "dense", "categorical", "attention_stats with gradient", "dense with gradient"):
        report.number(f"peak extra megabytes at 4096 queries and keys, {name}", peak_megabytes(name))
    out, exact = attention_stats(q, k, v), attention_stats(q.double(), k.double(), v.double())
    report.number("|H − H in float64|, float32", (out.entropy - exact.entropy).abs().max().item())
    report.finish("attention/softmax_robustness")


if __name__ == "__main__":
    main()
