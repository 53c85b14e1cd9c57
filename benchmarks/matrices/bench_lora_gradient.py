"""lora_gradient beside peft and the two naive forms: forward and backward of one layer, with the gradient by the input.

Run: OMP_NUM_THREADS=1 python -m benchmarks.matrices.bench_lora_gradient [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from benchmarks.measure import Report
from kexue_lib.matrices.lora_gradient import LoRALinear, lora_training_flops

RANK = 8


def step(layer: nn.Module, rows: int, n: int) -> Callable[[], None]:
    """Forward and backward; the gradients are dropped, so that nothing is added up."""
    x = torch.randn(rows, n, requires_grad=True)
    upstream = torch.randn(rows, n)
    parameters = [p for p in layer.parameters() if p.requires_grad]

    def run() -> None:
        torch.autograd.grad(layer(x), [x, *parameters], upstream)

    return run


class Naive(nn.Module):
    """The product form X(W₀ + AB), or the factored one from three plain operations."""

    def __init__(self, base: nn.Linear, form: str) -> None:
        super().__init__()
        n = base.in_features
        self.base, self.form = base.requires_grad_(False), form
        self.A, self.B = nn.Parameter(torch.randn(n, RANK)), nn.Parameter(torch.randn(RANK, n))

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "product":
            return nn.functional.linear(x, self.base.weight + (self.A @ self.B).mT, self.base.bias)
        return self.base(x) + x @ self.A @ self.B


def candidates(rows: int, n: int) -> dict[str, Callable[[], None]]:
    """Layers of n inputs and n outputs."""
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["0"])
    layers = {
        "peft": get_peft_model(nn.Sequential(nn.Linear(n, n)), config).base_model.model[0],
        "LoRALinear": LoRALinear(nn.Linear(n, n), RANK),
        "factored, three plain operations": Naive(nn.Linear(n, n), "factored"),
        "product form": Naive(nn.Linear(n, n), "product"),
        "full fine-tuning": nn.Linear(n, n),
    }
    return {name: step(layer, rows, n) for name, layer in layers.items()}


def main() -> None:
    torch.set_num_threads(1)
    report = Report("A LoRA layer, forward and backward, one thread", peers=("peft",))
    for rows, n in ((16, 256), (16, 1024), (512, 1024)):
        title = f"{rows} rows, {n} by {n}, rank {RANK}, float32"
        rounds = 301 if rows == 16 else 61
        report.compare(title, candidates(rows, n), baseline="peft", rounds=rounds, warmup=10, seconds=30.0)
        times = {t.name: t.milliseconds for t in report.comparisons[-1].timings}
        for form, name in (("factored", "LoRALinear"), ("product", "product form")):
            flops = lora_training_flops(rows, n, n, RANK, form) / lora_training_flops(rows, n, n, RANK, "full")
            report.number(f"{rows} rows of {n}, {form} over full: time", times[name] / times["full fine-tuning"])
            report.number(f"{rows} rows of {n}, {form} over full: flops", flops)
    report.finish("matrices/lora_gradient")


if __name__ == "__main__":
    main()
