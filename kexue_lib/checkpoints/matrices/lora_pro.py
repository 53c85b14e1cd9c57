"""LoRA-Pro on the turned digits: how far each method's step of W is from the gradient, along its own run.

Run by ``python -m kexue_lib.checkpoints.matrices.lora_pro`` with one thread, about half a minute."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from kexue_lib.checkpoints import rounded, save
from kexue_lib.data import minibatches
from kexue_lib.matrices.lora_ga import lora_ga_factors
from kexue_lib.matrices.lora_gradient import LoRALinear, LoRAPair, equivalent_gradient, inject_lora, lora_pairs
from kexue_lib.matrices.lora_pro import LoRAProSGD, lora_pro_gradients, tangent_projection
from kexue_lib.matrices.rotated_digits import pretrained, task

__all__ = ["METHODS", "RANK", "SEEDS", "STEPS", "main", "run"]

RANK, STEPS, BATCH = 4, 100, 50
SEEDS = range(6)
RATE = 0.03  # of all methods, for the steps of W: what is compared is their direction
METHODS: dict[str, tuple[str, Callable[[list[LoRAPair]], Optimizer]]] = {
    "LoRA, B = 0": ("zero", lambda pairs: SGD([p for pair in pairs for p in pair[:2]], RATE)),
    "LoRA, random start": ("random", lambda pairs: SGD([p for pair in pairs for p in pair[:2]], RATE)),
    "LoRA, LoRA-GA start": ("ga", lambda pairs: SGD([p for pair in pairs for p in pair[:2]], RATE)),
    "LoRA-Pro, random start": ("random", lambda pairs: LoRAProSGD(pairs, RATE)),
    "LoRA-Pro, LoRA-GA start": ("ga", lambda pairs: LoRAProSGD(pairs, RATE)),
}


def run(model: nn.Module, method: str, seed: int) -> dict[str, list[float]]:
    """Return for every step the cosines between G and the step of W, and between G and its projection Π(G).

    Args:
        model: the pretrained network; left alone.
        method: a key of ``METHODS``.
        seed: of the factors and the batches.
    """
    start, make = METHODS[method]
    generator = torch.Generator().manual_seed(seed)
    train, _ = task()
    batches = minibatches(*train, batch_size=BATCH)
    model = deepcopy(model)
    inject_lora(model, RANK, generator=generator)
    layers = [layer for layer in model.children() if isinstance(layer, LoRALinear)]
    _start(model, layers, start, generator, batches(generator))
    pairs = lora_pairs(model)
    optimizer = make(pairs)
    curves: dict[str, list[float]] = {"loss": [], "cosine": [], "best": []}
    for _ in range(STEPS):
        batch = batches(generator)
        gradients = _full_gradients(model, layers, batch)
        steps, nearest = [], []
        for G, (A, B, scale) in zip(gradients, pairs):
            H = (A.grad, B.grad)
            if isinstance(optimizer, LoRAProSGD):
                H = lora_pro_gradients(A.grad, B.grad, A.detach(), B.detach(), scale=scale)
            steps.append(equivalent_gradient(*H, A.detach(), B.detach(), scale))
            nearest.append(tangent_projection(G, A.detach(), B.detach()))
        curves["loss"].append(F.cross_entropy(model(batch[0]), batch[1]).item())
        curves["cosine"].append(_cosine(gradients, steps))
        curves["best"].append(_cosine(gradients, nearest))
        optimizer.step()
    return curves


def _start(
    model: nn.Module, layers: list[LoRALinear], start: str, generator: torch.Generator, batch: tuple[Tensor, Tensor]
) -> None:
    """Set the factors, W staying what it is; LoRA-GA's come from the gradient of one batch."""
    if start == "zero":
        return
    for layer, G in zip(layers, _full_gradients(model, layers, batch)):
        (n, m), r = G.shape, RANK
        if start == "ga":
            A, B = lora_ga_factors(G, r)
        else:
            A = torch.linalg.qr(torch.randn(n, r, generator=generator))[0]
            B = torch.linalg.qr(torch.randn(m, r, generator=generator))[0].mT
        layer.set_factors(A, B)


def _full_gradients(model: nn.Module, layers: list[LoRALinear], batch: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Return G (n, m) of each layer's W; the factors get their gradients on the way."""
    model.zero_grad()
    for layer in layers:
        cast("Tensor", layer.base.weight).requires_grad_(True)
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    gradients = [cast("Tensor", cast("Tensor", layer.base.weight).grad).mT for layer in layers]
    for layer in layers:
        layer.base.weight.grad = None
        layer.base.weight.requires_grad_(False)
    return gradients


def _cosine(ones: list[Tensor], others: list[Tensor]) -> float:
    """Of all layers together, as one vector."""
    a, b = (torch.cat([x.flatten() for x in xs]).double() for xs in (ones, others))
    return (a @ b / (a.norm() * b.norm())).item()


def main() -> None:
    """Run all methods with all seeds and store every third point of the curves.

    One thread; about half a minute.
    """
    torch.set_num_threads(1)
    model = pretrained()
    content = {}
    for method in METHODS:
        runs = [run(model, method, seed) for seed in SEEDS]
        curves = {name: torch.tensor([r[name] for r in runs], dtype=torch.float64) for name in runs[0]}
        content[method] = {name: values[:, ::3].tolist() for name, values in curves.items()}
        print(method, {k: [round(v[:, t].mean().item(), 3) for t in (0, 10, 50, 99)] for k, v in curves.items()})
    save("matrices/lora_pro", rounded(content), made_with={"seed": list(SEEDS), "steps": STEPS, "lr": RATE})


if __name__ == "__main__":
    main()
