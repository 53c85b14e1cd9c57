"""What two rates cost: a step of AdamW with the groups of LoRA+ beside the same step with one rate.

Run: python -m benchmarks.matrices.bench_lora_plus [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import peft
import torch
from peft.optimizers import create_loraplus_optimizer
from torch import nn

from benchmarks.measure import Report
from kexue_lib.matrices.lora_gradient import inject_lora, lora_pairs
from kexue_lib.matrices.lora_plus import lora_plus_param_groups

SHAPES = [(512, 512)] * 16 + [(512, 2048), (2048, 512)] * 4  # 24 layers


def network() -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(n, m, bias=False) for n, m in SHAPES))


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer, whole: bool) -> Callable[[], None]:
    """The optimizer's step alone, or forward and backward of 128 rows before it."""
    x = torch.randn(128, SHAPES[0][0], generator=torch.Generator().manual_seed(0))

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    step()
    return step if whole else optimizer.step


def ours(groups: Callable[[nn.Module], list], whole: bool, **options) -> Callable[[], None]:
    model = network()
    inject_lora(model, 8)
    return step_of(model, torch.optim.AdamW(groups(model), lr=1e-4, **options), whole)


def theirs(whole: bool, **options) -> Callable[[], None]:
    names = [str(k) for k in range(len(SHAPES))]
    model = peft.get_peft_model(network(), peft.LoraConfig(r=8, target_modules=names))
    optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-4, loraplus_lr_ratio=16.0, **options)
    return step_of(model, optimizer, whole)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("LoRA+", peers=("peft",))
    one_rate = lambda model: [f for pair in lora_pairs(model) for f in pair[:2]]
    for title, whole, kind in (
        ("A training step", True, "fused"),
        ("The optimizer's part of it", False, "fused"),
        ("The optimizer's part of it", False, "foreach"),
    ):
        options = {"whole": whole, kind: True}
        report.compare(
            f"{title}, 24 layers, rank 8, AdamW ({kind})",
            {
                "one rate": ours(one_rate, **options),
                "LoRA+, one ratio": ours(lambda model: lora_plus_param_groups(model, 1e-4), **options),
                "LoRA+, ratio by layer": ours(
                    lambda model: lora_plus_param_groups(model, 1e-4, ratio="corrected"), **options
                ),
                "peft": theirs(**options),
            },
            baseline="one rate",
            rounds=21 if whole else 101,
        )
    report.finish("matrices/lora_plus")


if __name__ == "__main__":
    main()
