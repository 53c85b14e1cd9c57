"""Runs of the chapter on LoRA's gradients: ranks, the additive form, and what random projections forget.

Run by ``python -m kexue_lib.checkpoints.matrices.lora_gradient`` with one thread, about five minutes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import SGD, Adam, Optimizer

from kexue_lib.checkpoints import rounded, save
from kexue_lib.data import minibatches
from kexue_lib.matrices.lora_gradient import LoRAOptimizer, RandomProjectionSGD, additive_delta, inject_lora
from kexue_lib.matrices.rotated_digits import fine_tune, pretrained, task

__all__ = ["FORGETTING", "RATES", "SEEDS", "TARGET", "main", "until"]

SEEDS = range(6)
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # of Adam, 100 steps
FORGETTING = {  # of SGD on the rotated digits until the accuracy TARGET, at most MOST steps
    "SGD": (0, (3e-3, 1e-2, 3e-2, 5e-2, 1e-1, 3e-1)),
    "projection, rank 1": (1, (1e-3, 3e-3, 1e-2)),
    "projection, rank 8": (8, (3e-3, 1e-2, 3e-2, 1e-1)),
    "projection, rank 64": (64, (1e-2, 3e-2, 1e-1, 3e-1)),
    "LoRA, rank 4": (4, (1e-2, 3e-2, 1e-1)),
}
TARGET, MOST, EVERY = 0.8, 3000, 10


class _Additive(nn.Module):
    """A weight ``(m, n)`` plus the additive form of two factors, which begin at zero."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        m, n = weight.shape
        self.A, self.B = nn.Parameter(torch.zeros(n, rank)), nn.Parameter(torch.zeros(rank, m))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + additive_delta(self.A, self.B).mT


@cache
def _start() -> nn.Sequential:
    return pretrained()


def _weights(model: nn.Module) -> list[nn.Parameter]:
    """The matrices of the network; its biases stay as they are."""
    return [cast("nn.Parameter", layer.weight) for layer in model.children() if isinstance(layer, nn.Linear)]


def _full(model: nn.Module) -> list[nn.Parameter]:
    """Make the matrices trainable."""
    return _weights(model)


def _lora(model: nn.Module, rank: int, seed: int) -> list[nn.Parameter]:
    """Make the factors trainable."""
    inject_lora(model, rank, generator=torch.Generator().manual_seed(seed))
    return [p for p in model.parameters() if p.requires_grad]


def _additive(model: nn.Module, rank: int) -> list[nn.Parameter]:
    """Make the factors of the additive form trainable."""
    model.requires_grad_(False)
    added = [layer for layer in model.children() if isinstance(layer, nn.Linear)]
    for layer in added:
        parametrize.register_parametrization(layer, "weight", _Additive(layer.weight, rank))
    return [p for layer in added for p in cast("Any", layer).parametrizations.weight[0].parameters()]


def _adapted(name: str, rate: float, seed: int) -> tuple[list[float], float, float]:
    """Losses of the steps, training loss and test accuracy after 100 steps of Adam on the rotated digits."""
    model = copy.deepcopy(_start())
    kind, _, rank = name.partition(" ")
    if kind == "full":
        parameters = _full(model)
    elif kind == "LoRA":
        parameters = _lora(model, int(rank), seed)
    else:
        parameters = _additive(model, int(rank))
    try:
        run = fine_tune(model, Adam(parameters, lr=rate), generator=torch.Generator().manual_seed(seed))
    except FloatingPointError:
        return [], 1e9, 0.0
    return run.losses.tolist(), run.train_loss, run.test_accuracy


def until(make: Callable[[Iterable[nn.Parameter]], Optimizer], seed: int) -> tuple[float, int]:
    """Accuracy left on the upright digits when that on the rotated ones first reaches ``TARGET``, and the steps.

    Both are measured every ``EVERY`` steps and interpolated between; NaN and ``MOST`` where it is not reached.
    """
    model, generator = copy.deepcopy(_start()), torch.Generator().manual_seed(seed)
    (train, test), (_, upright) = task(), task(rotated=False)
    optimizer, sample = make(_weights(model)), minibatches(*train, batch_size=50)
    before = (0.0, 0.0)
    for step in range(MOST + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                new, old = ((model(s.x).argmax(-1) == s.y).float().mean().item() for s in (test, upright))
            if new >= TARGET:
                share = (TARGET - before[0]) / (new - before[0])
                return before[1] + share * (old - before[1]), step
            before = (new, old)
        x, y = sample(generator)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        if not math.isfinite(loss.item()):
            break
        loss.backward()
        optimizer.step()
    return math.nan, MOST


def _forgetting(names: Iterable[str] = tuple(FORGETTING)) -> dict[str, dict[str, list[list[float]]]]:
    """For each method and rate the old accuracies at the target and the steps to it, one of each a seed."""
    table: dict[str, dict[str, list[list[float]]]] = {}
    for name in names:
        rank, rates = FORGETTING[name]
        table[name] = {}
        for rate in rates:
            runs = []
            for seed in SEEDS:
                directions = torch.Generator().manual_seed(1000 + seed)
                kind = LoRAOptimizer if name.startswith("LoRA") else RandomProjectionSGD
                make = partial(kind, rank=rank, generator=directions) if rank else SGD
                runs.append(until(partial(make, lr=rate), seed))
                if math.isnan(runs[-1][0]):
                    break  # a rate that fails once is not compared
            table[name][f"{rate:g}"] = [[old if old == old else -1.0 for old, _ in runs], [s for _, s in runs]]
            print(name, rate, table[name][f"{rate:g}"], flush=True)
    return table


def main() -> None:
    """Train, and store losses and accuracies.

    One thread; about three minutes.
    """
    torch.set_num_threads(1)
    table: dict[str, dict[str, list[list[float]]]] = {}
    curves: dict[str, list[float]] = {}
    for name in ("full", "LoRA 1", "LoRA 4", "LoRA 10", "additive 1", "LoRA 2", "additive 2"):
        table[name] = {}
        best = math.inf
        for rate in RATES:
            runs = [_adapted(name, rate, seed) for seed in SEEDS]
            table[name][f"{rate:g}"] = [[loss for _, loss, _ in runs], [accuracy for _, _, accuracy in runs]]
            mean = sum(loss for _, loss, _ in runs) / len(runs)
            if mean < best:
                best = mean
                curves[name] = torch.tensor([losses for losses, _, _ in runs]).mean(0).tolist()
            print(name, rate, mean, sum(a for _, _, a in runs) / len(runs), flush=True)
    content = {"table": table, "curves": curves, "forgetting": _forgetting()}
    save("matrices/lora_gradient", rounded(content), made_with={"seed": [0, 5], "steps": 100, "target": TARGET})


if __name__ == "__main__":
    main()
