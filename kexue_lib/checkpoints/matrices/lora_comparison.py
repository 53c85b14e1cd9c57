"""Full fine-tuning and all LoRA methods of the part on the rotated digits, each at its own best rate.

Run by ``python -m kexue_lib.checkpoints.matrices.lora_comparison`` with one thread, about eight minutes. The rate is
the one of least mean loss on four seeds among those that diverge on no seed; the comparison is on sixteen others. A
seed fixes calibration, factors and batches for all methods."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache, partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from kexue_lib.checkpoints import rounded, save
from kexue_lib.matrices.lora_ga import initialise_lora_ga, stable_factor
from kexue_lib.matrices.lora_gradient import LoRALinear, inject_lora, lora_pairs
from kexue_lib.matrices.lora_plus import lora_plus_param_groups
from kexue_lib.matrices.lora_pro import LoRAProAdamW, LoRAProSGD
from kexue_lib.matrices.rotated_digits import FineTuned, fine_tune, pretrained, task

__all__ = ["CHOOSING", "COMPARING", "METHODS", "RANKS", "RATES", "fine_tuned", "main"]

CHOOSING, COMPARING = range(4), range(4, 20)  # seeds
RANKS = (1, 4)
RATES = {
    "Adam": (5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1),
    "SGD": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 2e-1, 5e-1, 1.0, 2.0),
}
CALIBRATION = 200  # images of the one batch whose gradient LoRA-GA sees

_start = cache(pretrained)


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def _weights(model: nn.Module, rank: int, seed: int) -> None:
    """All three weight matrices, no biases."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("weight"))


def _plain(model: nn.Module, rank: int, seed: int) -> None:
    """Zero B, normal A."""
    inject_lora(model, rank, generator=torch.Generator().manual_seed(seed))


def _orthonormal(model: nn.Module, rank: int, seed: int) -> None:
    """Random orthonormal factors of LoRA-GA's size, the weight moved to keep the output."""
    generator = torch.Generator().manual_seed(seed)
    inject_lora(model, rank, rslora=True, generator=generator)
    for layer in model.children():
        if isinstance(layer, LoRALinear):
            (n, r), m = layer.lora_A.shape, layer.lora_B.shape[1]
            A = torch.linalg.qr(torch.randn(n, r, generator=generator)).Q
            B = torch.linalg.qr(torch.randn(m, r, generator=generator)).Q.mT
            layer.set_factors(stable_factor(m) * A, stable_factor(m) * B)


def _aligned(model: nn.Module, rank: int, seed: int) -> None:
    """LoRA-GA from one batch."""
    generator = torch.Generator().manual_seed(seed)
    train, _ = task()
    index = torch.randperm(len(train.y), generator=generator)[:CALIBRATION]
    initialise_lora_ga(model, _loss, [(train.x[index], train.y[index])], rank, generator=generator)


def _trainable(make: Callable[..., Optimizer], model: nn.Module, rate: float) -> Optimizer:
    return make([p for p in model.parameters() if p.requires_grad], lr=rate)


def _plus(make: Callable[..., Optimizer], model: nn.Module, rate: float, ratio: float | str = 16.0) -> Optimizer:
    return make(lora_plus_param_groups(model, rate, ratio=ratio), lr=rate)


def _pro(make: Callable[..., Optimizer], model: nn.Module, rate: float) -> Optimizer:
    return make(lora_pairs(model), lr=rate)


FACTOR, FULL = (partial(LoRAProAdamW, moments=moments) for moments in ("factor", "full"))
Prepare = Callable[[nn.Module, int, int], None]
METHODS: dict[str, dict[str, tuple[Prepare, Callable[[nn.Module, float], Optimizer]]]] = {
    "Adam": {
        "full fine-tuning": (_weights, partial(_trainable, Adam)),
        "LoRA": (_plain, partial(_trainable, Adam)),
        "LoRA+, ratio 16": (_plain, partial(_plus, Adam)),
        "LoRA+, ratio by layer": (_plain, partial(_plus, Adam, ratio="corrected")),
        "orthonormal start": (_orthonormal, partial(_trainable, Adam)),
        "LoRA-GA": (_aligned, partial(_trainable, Adam)),
        "orthonormal + LoRA-Pro, factor moments": (
            _orthonormal,
            partial(_pro, partial(LoRAProAdamW, moments="factor")),
        ),
        "LoRA-GA + LoRA-Pro, factor moments": (_aligned, partial(_pro, partial(LoRAProAdamW, moments="factor"))),
        "LoRA-GA + LoRA-Pro, full moments": (_aligned, partial(_pro, partial(LoRAProAdamW, moments="full"))),
    },
    "SGD": {
        "full fine-tuning": (_weights, partial(_trainable, SGD)),
        "LoRA": (_plain, partial(_trainable, SGD)),
        "LoRA+, ratio 16": (_plain, partial(_plus, SGD)),
        "orthonormal start": (_orthonormal, partial(_trainable, SGD)),
        "LoRA-GA": (_aligned, partial(_trainable, SGD)),
        "orthonormal + LoRA-Pro": (_orthonormal, partial(_pro, LoRAProSGD)),
        "LoRA-GA + LoRA-Pro": (_aligned, partial(_pro, LoRAProSGD)),
    },
}


def fine_tuned(optimizer: str, method: str, rank: int, rate: float, seed: int) -> FineTuned | None:
    """Return what 100 steps of one method reach, None if the loss diverges.

    Args:
        optimizer: ``"Adam"`` or ``"SGD"``.
        method: a key of ``METHODS[optimizer]``.
        rank: of the factors; without meaning for full fine-tuning.
        rate: of learning.
        seed: of calibration, factors and batches.
    """
    prepare, make = METHODS[optimizer][method]
    model = copy.deepcopy(_start())
    prepare(model, rank, seed)
    try:
        result = fine_tune(model, make(model, rate), generator=torch.Generator().manual_seed(seed))
    except FloatingPointError:
        return None
    return result if math.isfinite(result.train_loss) else None


def main() -> None:
    """Choose the rates, compare, and store losses and accuracies.

    One thread; about ten minutes.
    """
    torch.set_num_threads(1)
    content: dict[str, dict] = {}
    for optimizer, methods in METHODS.items():
        for rank in RANKS:
            table = content[f"{optimizer} {rank}"] = {}
            for method in methods:
                if method == "full fine-tuning" and rank != RANKS[0]:
                    table[method] = content[f"{optimizer} {RANKS[0]}"][method]
                    continue
                sweep: list[float | None] = []
                for rate in RATES[optimizer]:
                    results = [fine_tuned(optimizer, method, rank, rate, seed) for seed in CHOOSING]
                    ended = cast("list[FineTuned]", results)  # where all have
                    sweep.append(sum(r.train_loss for r in ended) / len(ended) if all(results) else None)
                good = sorted((v, k) for k, v in zip(RATES[optimizer], sweep) if v is not None)
                for _, rate in good:
                    results = [fine_tuned(optimizer, method, rank, rate, seed) for seed in COMPARING]
                    if all(results):
                        break
                ended = cast("list[FineTuned]", results)
                losses, accuracy = [r.train_loss for r in ended], [r.test_accuracy for r in ended]
                table[method] = {"rate": rate, "sweep": sweep, "train_loss": losses, "test_accuracy": accuracy}
                print(optimizer, rank, method, rate, sum(losses) / len(losses), sum(accuracy) / len(losses), flush=True)
    made_with = {"seed": [0, 19], "steps": 100, "calibration": CALIBRATION}
    save("matrices/lora_comparison", rounded({"rates": RATES, "runs": content}), made_with=made_with)


if __name__ == "__main__":
    main()
