"""LoRA-GA on the turned digits: three answers to Adam's first step, and the scale of the factors against the rate.

Run by ``python -m kexue_lib.checkpoints.matrices.lora_ga`` with one thread, about seven minutes."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam

from kexue_lib.checkpoints import rounded, save
from kexue_lib.matrices.lora_ga import collect_gradients, initialise_lora_ga, lora_ga_adam_factors
from kexue_lib.matrices.lora_gradient import inject_lora, lora_pairs
from kexue_lib.matrices.rotated_digits import fine_tune, pretrained, task

__all__ = ["GAMMAS", "RANK", "STARTS", "calibration", "cross_entropy", "main"]

RANK = 4
CHOOSING, COMPARING, SCANNING = range(3), range(3, 35), range(8)  # seeds
RATES = (3e-3, 5e-3, 1e-2, 1.7e-2, 3e-2, 5e-2, 1e-1)
GAMMAS = (1.0, 4.0, 16.0, 64.0)
GAMMA_RATES = {"Adam": RATES, "SGD": (1e-3, 1.7e-3, 3e-3, 5e-3, 1e-2, 1.7e-2, 3e-2, 5e-2, 1e-1, 1.7e-1, 3e-1)}
Pair = tuple[Tensor, Tensor]


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean cross-entropy in nats, in the convention of ``training.fit``.

    Args:
        model: maps images to logits.
        batch: images and labels.
    """
    return F.cross_entropy(model(batch[0]), batch[1])


def calibration(seed: int, size: int = 50) -> tuple[Tensor, Tensor]:
    """Return images and labels of turned training digits, drawn without replacement.

    Args:
        seed: of the draw.
        size: images.
    """
    train, _ = task()
    chosen = torch.randperm(len(train.y), generator=torch.Generator().manual_seed(seed))[:size]
    return train.x[chosen], train.y[chosen]


def _orthonormal(A: Tensor, B: Tensor) -> Pair:
    """Orthonormal factors whose spans hold those given; what these lack of rank r is filled arbitrarily."""
    return torch.linalg.qr(A)[0], torch.linalg.qr(B.mT)[0].mT


def _random(G: Tensor, generator: torch.Generator) -> Pair:
    n, m = G.shape
    return _orthonormal(torch.randn(n, RANK, generator=generator), torch.randn(RANK, m, generator=generator))


def _equal_norms(A: Tensor, B: Tensor) -> Pair:
    """The norms of orthonormal factors, √r: what a method's shapes do without its sizes."""
    size = math.sqrt(RANK)
    return A * (size / A.norm()), B * (size / B.norm())


def _one_sided(G: Tensor, generator: torch.Generator) -> Pair:
    """Plain LoRA's zero B beside the best A: the gradient is used, no offset is needed."""
    A, B = lora_ga_adam_factors(G, RANK, generator=generator)
    return A, torch.zeros_like(B)


def _direct(G: Tensor, generator: torch.Generator) -> Pair:
    return lora_ga_adam_factors(G, RANK, method="direct", generator=generator)


STARTS: dict[str, Callable[[Tensor, torch.Generator], Pair]] = {
    "SVD of G": lambda G, generator: lora_ga_adam_factors(G, RANK, generator=generator),
    "SVD of sign(G)": lambda G, generator: lora_ga_adam_factors(G, RANK, method="sign", generator=generator),
    "direct": _direct,
    "direct, norms √r": lambda G, generator: _equal_norms(*_direct(G, generator)),
    "direct, orthonormal": lambda G, generator: _orthonormal(*_direct(G, generator)),
    "SVD of G, B = 0": _one_sided,
    "random orthonormal": _random,
}


def _loss(start: str, base: nn.Module, rate: float, seed: int) -> float | None:
    """Train loss after 100 steps of Adam from unscaled factors; None where it diverges."""
    model = deepcopy(base)
    gradients = collect_gradients(model, cross_entropy, [calibration(seed)])
    names = inject_lora(model, RANK)
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        model.get_submodule(name).set_factors(*STARTS[start](gradients[name], generator))
    return _trained(model, lambda p: Adam(p, lr=rate), seed)


def _scaled_loss(gamma: float, optimizer: str, base: nn.Module, rate: float, seed: int) -> float | None:
    model = deepcopy(base)
    generator = torch.Generator().manual_seed(seed)
    initialise_lora_ga(model, cross_entropy, [calibration(seed)], RANK, gamma=gamma, generator=generator)
    return _trained(model, lambda p: {"Adam": Adam, "SGD": SGD}[optimizer](p, lr=rate), seed)


def _trained(model: nn.Module, make: Callable, seed: int) -> float | None:
    factors = [p for pair in lora_pairs(model) for p in (pair.A, pair.B)]
    try:
        loss = fine_tune(model, make(factors), generator=torch.Generator().manual_seed(seed)).train_loss
    except FloatingPointError:
        return None
    return loss if math.isfinite(loss) else None


def _mean(losses: list[float | None]) -> float:
    """The mean, infinite where a run diverged."""
    return math.inf if None in losses else sum(x for x in losses if x is not None) / len(losses)


def main() -> None:
    """Choose rates, compare, and scan γ; store the losses.

    One thread; about seven minutes.
    """
    torch.set_num_threads(1)
    base = pretrained()
    sweep, chosen, compared = {}, {}, {}
    for start in STARTS:
        sweep[start] = [[_loss(start, base, rate, seed) for seed in CHOOSING] for rate in RATES]
        chosen[start] = min(zip(RATES, sweep[start]), key=lambda pair: _mean(pair[1]))[0]
        compared[start] = [_loss(start, base, chosen[start], seed) for seed in COMPARING]
        print(start, chosen[start], [round(_mean(x), 3) for x in sweep[start]], _mean(compared[start]), flush=True)
    gamma: dict[str, dict[str, list]] = {}
    for optimizer, rates in GAMMA_RATES.items():
        gamma[optimizer] = {}
        for g in GAMMAS:
            losses = [[_scaled_loss(g, optimizer, base, rate, seed) for seed in SCANNING] for rate in rates]
            gamma[optimizer][f"{g:g}"] = losses
            print(optimizer, g, [round(_mean(x), 3) for x in losses], flush=True)
    content = {
        "rates": list(RATES),
        "gamma_rates": {name: list(rates) for name, rates in GAMMA_RATES.items()},
        "sweep": sweep,
        "chosen": chosen,
        "compared": compared,
        "gamma": gamma,
    }
    save("matrices/lora_ga", rounded(content), made_with={"seed": [0, 34], "steps": 100, "rank": RANK})


if __name__ == "__main__":
    main()
