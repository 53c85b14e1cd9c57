"""LoRA with factors of many sizes on the rotated digits: which size, which side at zero, which ratio of the rates.

Run by ``python -m kexue_lib.checkpoints.matrices.lora_plus`` with one thread, about ten minutes. Every rate is chosen
on four seeds, and what it reaches is measured on sixteen others."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import nn
from torch.optim import Adam, Optimizer

from kexue_lib.checkpoints import rounded, save
from kexue_lib.matrices.lora_gradient import inject_lora, lora_pairs
from kexue_lib.matrices.lora_plus import contribution_ratio, lora_plus_param_groups
from kexue_lib.matrices.rotated_digits import fine_tune, pretrained

__all__ = ["CHOOSING", "COMPARING", "RANK", "RATES", "SIZES", "WIDTHS", "adapted", "chosen_and_compared", "main"]

RANK = 4
CHOOSING, COMPARING = range(4), range(4, 20)  # seeds
RATES = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1, 2e-1)  # common to both factors
SIZES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # c: the factor that is not zero has deviation c/√n
WIDTHS = (64, 256, 1024)
RULES = ("corrected", "article", 4.0, 16.0, 64.0)

_start = cache(pretrained)


def adapted(seed: int, *, size: float | str = 1.0, zero: str = "B", width: int = 256) -> nn.Module:
    """Return the pretrained network with adapters: one factor zero, the other normal of deviation size/√n.

    Args:
        seed: of the factors.
        size: c; 1 is the usual start; or a rule of ``contribution_ratio`` whose root is c, by layer;
            or ``"usual"`` for variances 1/n of A and 1/r of B.
        zero: the letter of the factor that begins at zero.
        width: of the network.
    """
    model, generator = copy.deepcopy(_start(width)), torch.Generator().manual_seed(seed)
    inject_lora(model, RANK, generator=generator)
    with torch.no_grad():
        for A, B, _ in lora_pairs(model):
            (n, r), m = A.shape, B.shape[1]
            if size == "usual":
                c = (n / r) ** 0.5 if zero == "A" else 1.0
            else:
                c = contribution_ratio(n, m, r, size) ** 0.5 if isinstance(size, str) else size
            A.normal_(generator=generator).mul_(c / math.sqrt(n))
            if zero == "A":
                B.normal_(generator=generator).mul_(c / math.sqrt(n))
                A.zero_()
    return model


def chosen_and_compared(run: Callable[[float, int], float], rates: Iterable[float] = RATES) -> dict[str, object]:
    """Choose the rate of least mean loss on some seeds and measure it on the others.

    Args:
        run: the final loss for a rate and a seed.
        rates: to choose from.

    Returns:
        ``rate``, ``sweep`` (mean loss of each rate, None where a run diverged) and ``losses`` of the other seeds.
    """
    means: dict[float, float | None] = {}
    for rate in rates:
        losses = [run(rate, seed) for seed in CHOOSING]
        means[rate] = sum(losses) / len(losses) if all(map(math.isfinite, losses)) else None
    best = min((rate for rate, mean in means.items() if mean is not None), key=lambda rate: means[rate])
    return {"rate": best, "sweep": list(means.values()), "losses": [run(best, seed) for seed in COMPARING]}


def final_loss(model: nn.Module, optimizer: Optimizer, seed: int) -> float:
    """Return the training loss after 100 steps, infinite if it diverges.

    Args:
        model: trained in place.
        optimizer: holds what is trained.
        seed: of the batches.
    """
    try:
        return fine_tune(model, optimizer, generator=torch.Generator().manual_seed(seed)).train_loss
    except FloatingPointError:
        return math.inf


def main() -> None:
    """Run the sizes, the sides, the widths and the rules, and store the losses.

    One thread; about ten minutes.
    """
    torch.set_num_threads(1)

    def by_size(size: float | str, zero: str, width: int) -> dict[str, object]:
        def run(rate: float, seed: int) -> float:
            model = adapted(seed, size=size, zero=zero, width=width)
            return final_loss(model, Adam([p for p in model.parameters() if p.requires_grad], rate), seed)

        return chosen_and_compared(run)

    def by_rule(ratio: float | str, start: float | str = 1.0, zero: str = "B") -> dict[str, object]:
        def run(rate: float, seed: int) -> float:
            model = adapted(seed, size=start, zero=zero)
            return final_loss(model, Adam(lora_plus_param_groups(model, rate, ratio=ratio)), seed)

        # The rate that both factors would have in common after the change of scale that makes their rates equal.
        middle = 4.0 if isinstance(ratio, str) else ratio**0.5
        return chosen_and_compared(run, [rate / middle for rate in RATES])

    sizes: dict[str, dict[str, dict]] = {}
    for zero, width in (("B", 256), ("A", 256), ("B", 64), ("B", 1024)):
        row = sizes[f"{zero} {width}"] = {}
        for size in SIZES:
            row[f"{size:g}"] = by_size(size, zero, width)
            print(zero, width, size, row[f"{size:g}"]["rate"], row[f"{size:g}"]["losses"], flush=True)
    rules = {str(rule): by_rule(rule) for rule in RULES}
    rules |= {f"start {rule}": by_size(rule, "B", 256) for rule in ("corrected", "article")}
    print({k: (v["rate"], sum(v["losses"]) / len(v["losses"])) for k, v in rules.items()}, flush=True)
    other = {f"{ratio:g}": by_rule(ratio, "usual", "A") for ratio in (0.25, 1.0, 4.0, 16.0, 64.0)}
    print({k: (v["rate"], sum(v["losses"]) / len(v["losses"])) for k, v in other.items()}, flush=True)
    content = {"rates": list(RATES), "sizes": sizes, "rules": rules, "zero A": other}
    save("matrices/lora_plus", rounded(content), made_with={"seed": [0, 19], "rank": RANK, "steps": 100})


if __name__ == "__main__":
    main()
