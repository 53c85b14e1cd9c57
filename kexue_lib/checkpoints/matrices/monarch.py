"""Monarch against low rank at equal parameters: random matrices, a trained network converted, networks from scratch.

Run by ``python -m kexue_lib.checkpoints.matrices.monarch`` with one thread, about four minutes."""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW

from kexue_lib.checkpoints import rounded, save
from kexue_lib.data import minibatches
from kexue_lib.matrices.monarch import MonarchLinear, monarch_dense, monarch_project
from kexue_lib.matrices.rotated_digits import pretrained, task
from kexue_lib.mlp import mlp
from kexue_lib.training import fit

__all__ = [
    "DENSITIES",
    "RATES",
    "SCRATCH_RATES",
    "SEEDS",
    "SIZES",
    "converted",
    "errors",
    "from_scratch",
    "main",
    "masked",
    "paired",
]

SIZES = {4: 4000, 9: 8000, 16: 8000, 64: 400, 256: 60, 1024: 12}  # n: draws
DENSITIES = (1.0, 0.5, 0.2, 0.05, 0.01)  # of a Bernoulli mask, n = 256
RATES = (5e-4, 1e-3, 2e-3, 4e-3)  # after a conversion
SCRATCH_RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
SEEDS = range(8)
BATCH, SHORT, LONG = 50, 100, 600  # images of a step; steps after a conversion, and from scratch
NARROW = 132  # width of the dense network with as many parameters as those with a structured layer
KINDS = {  # nblocks and rank of the layer 256 x 256: 8448 parameters with its bias, the last 16640
    "Monarch": (16, 1),
    "low rank 16": (1, 16),
    "Monarch, rank 2": (16, 2),
    "low rank 32": (1, 32),
}


def masked(n: int, density: float, seed: int) -> Tensor:
    """Return a Gaussian matrix (n, n) in float64, some of its entries set to zero.

    Args:
        n: size.
        density: probability that an entry is kept.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(n, n, generator=generator, dtype=torch.float64)
    return A * (torch.rand(n, n, generator=generator, dtype=torch.float64) < density)


def errors(A: Tensor) -> tuple[float, float]:
    """Return the relative squared errors of the nearest Monarch matrix and of the nearest one of rank √n.

    Args:
        A: ``(n, n)``, n a square.
    """
    m = round(len(A) ** 0.5)
    monarch = (A - monarch_dense(*monarch_project(A, m))).square().sum()
    low_rank = torch.linalg.svdvals(A)[m:].square().sum()
    return (monarch / A.square().sum()).item(), (low_rank / A.square().sum()).item()


def paired(draws: list[tuple[float, float]]) -> list[list[float]]:
    """Return mean and standard error over draws of both errors, and of their difference, low rank minus Monarch.

    Args:
        draws: pairs of :func:`errors`.
    """
    monarch, low_rank = torch.tensor(draws, dtype=torch.float64).unbind(1)
    columns = (monarch, low_rank, low_rank - monarch)
    return [[v.mean().item(), (v.std() / len(v) ** 0.5).item()] for v in columns]


def converted(model: nn.Sequential, kind: str, rate: float, seed: int, project: bool = True) -> list[float]:
    """Replace the middle layer, train on the upright digits for 100 steps, and return test figures.

    Args:
        model: the pretrained network; left alone.
        kind: a key of ``KINDS``, or "dense" for the layer as it is.
        rate: of AdamW.
        seed: of the batches and of a fresh layer.
        project: start from the nearest matrix, else afresh.

    Returns:
        Relative squared error of the weight, test accuracy and cross-entropy before, and both after.
    """
    model = deepcopy(model)
    if kind != "dense":
        torch.manual_seed(seed)
        nblocks, rank = KINDS[kind]
        middle = cast("nn.Linear", model[2])
        near = MonarchLinear.from_linear(middle, nblocks, nblocks, rank=rank)
        if not project:
            near.reset_parameters()
        gap = (near.weight_dense() - middle.weight).square().sum() / middle.weight.square().sum()
        model[2] = near
    else:
        gap = torch.zeros(())
    before = _tested(model)
    _train(model, rate, SHORT, seed)
    return [gap.item(), *before, *_tested(model)]


def from_scratch(kind: str, rate: float, seed: int) -> list[float]:
    """Train a network 64-256-256-10 with the named middle layer; return its parameters, test accuracy and loss.

    Args:
        kind: a key of ``KINDS``, "dense", or "dense, narrow" for a dense network of fewer neurons.
        rate: of AdamW.
        seed: of the weights and the batches.
    """
    generator = torch.Generator().manual_seed(seed)
    width = NARROW if kind == "dense, narrow" else 256
    model = mlp([64, width, width, 10], generator=generator)
    if kind in KINDS:
        torch.manual_seed(seed)
        nblocks, rank = KINDS[kind]
        model[2] = MonarchLinear(256, 256, nblocks, nblocks, rank=rank)
    _train(model, rate, LONG, seed)
    return [float(sum(p.numel() for p in model.parameters())), *_tested(model)]


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def _train(model: nn.Module, rate: float, steps: int, seed: int) -> None:
    train, _ = task(rotated=False)
    batches = minibatches(*train, batch_size=BATCH)
    make = lambda p: AdamW(p, lr=rate)
    fit(model, _loss, batches, optimizer=make, steps=steps, log_every=steps, seed=seed, device="cpu", progress=False)


@torch.no_grad()
def _tested(model: nn.Module) -> tuple[float, float]:
    """Accuracy and cross-entropy (nats) on the 797 test images."""
    _, test = task(rotated=False)
    logits = model(test.x)
    return (logits.argmax(-1) == test.y).float().mean().item(), F.cross_entropy(logits, test.y).item()


def main() -> None:
    """Run everything and store it.

    One thread; about four minutes.
    """
    torch.set_num_threads(1)
    content = {
        "sizes": {str(n): paired([errors(masked(n, 1.0, s)) for s in range(draws)]) for n, draws in SIZES.items()},
        "densities": {str(p): paired([errors(masked(256, p, s)) for s in range(40)]) for p in DENSITIES},
    }
    print(content, flush=True)
    model = pretrained()
    runs = {kind: (kind, True) for kind in ("dense", *KINDS)} | {"Monarch, fresh": ("Monarch", False)}
    content["converted"] = {
        name: [[converted(model, kind, rate, s, project) for s in SEEDS] for rate in RATES]
        for name, (kind, project) in runs.items()
    }
    print({k: torch.tensor(v).mean(1).tolist() for k, v in content["converted"].items()}, flush=True)
    kinds = ("dense", "dense, narrow", "Monarch", "low rank 16")
    content["scratch"] = {k: [[from_scratch(k, rate, s) for s in SEEDS] for rate in SCRATCH_RATES] for k in kinds}
    print({k: torch.tensor(v).mean(1).tolist() for k, v in content["scratch"].items()})
    made_with = {"seed": list(SEEDS), "steps": LONG, "lr": list(SCRATCH_RATES)}
    save("matrices/monarch", rounded(content), made_with=made_with)


if __name__ == "__main__":
    main()
