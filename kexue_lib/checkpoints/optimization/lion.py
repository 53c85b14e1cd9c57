"""AdamW, Lion, Signum and Tiger on digits with noisy labels: rates chosen on some seeds, compared on others.

Run by ``python -m kexue_lib.checkpoints.optimization.lion`` with one thread, about half an hour."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import AdamW, Optimizer

from kexue_lib.checkpoints import rounded, save
from kexue_lib.data import digits, flip_labels, minibatches
from kexue_lib.mlp import mlp
from kexue_lib.optimization.lion import Lion, Tiger, adam_update_rms, adamw_to_lion
from kexue_lib.training import fit, warmup_cosine

__all__ = [
    "BATCHES",
    "CHOOSING",
    "COMPARING",
    "DECAYS",
    "FACTORS",
    "METHODS",
    "ROUNDINGS",
    "TUNED",
    "converted",
    "main",
    "trained",
    "tuned",
]

BATCHES = {8: 2000, 256: 400}  # steps for each batch size
CHOOSING, COMPARING = range(4), range(4, 12)  # seeds
NOISE, DECAY = 0.3, 0.1
FACTOR = 1 / adam_update_rms(0.9)
DRIFT = math.sqrt(2 / math.pi / (0.1**2 + 0.9**2 * 0.01 / 1.99))  # Lion's drift in noise over AdamW's
FACTORS = (3.0, FACTOR, DRIFT, 10.0)  # between AdamW's rate and Lion's
GRID = (1e-4, 3e-4, 6e-4, 1e-3, 1.5e-3, 2e-3, 3e-3)
METHODS: dict[str, tuple[Callable, tuple[float, ...]]] = {
    "AdamW": (lambda p, lr: AdamW(p, lr, weight_decay=DECAY), (3e-4, 1e-3, 3e-3, 4.5e-3, 6e-3, 1e-2, 2e-2)),
    "Lion": (lambda p, lr: Lion(p, lr, weight_decay=DECAY * FACTOR), GRID),
    "Lion, AdamW's decay": (lambda p, lr: Lion(p, lr, weight_decay=DECAY), GRID),
    "Signum": (lambda p, lr: Lion(p, lr, betas=(0.9, 0.9), weight_decay=DECAY * FACTOR), GRID),
    "Tiger": (lambda p, lr: Tiger(p, lr), (1e-3, 2e-3, 3e-3, 4.5e-3, 6e-3, 1e-2, 1.4e-2, 2e-2)),
}
DECAYS = {8: (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0), 256: (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)}
TUNED: dict[str, tuple[Callable, dict[int, tuple[float, ...]]]] = {
    "AdamW": (AdamW, {8: (3e-3, 4.5e-3, 6e-3, 1e-2), 256: (3e-3, 4.5e-3, 6e-3, 1e-2)}),
    "Lion": (Lion, {8: (3e-4, 6e-4, 1e-3, 1.5e-3), 256: (1e-3, 1.5e-3, 2e-3, 3e-3, 4.5e-3)}),
    "Tiger": (Tiger, {8: (3e-3, 4.5e-3, 6e-3), 256: (1e-2, 1.4e-2, 2e-2, 2.8e-2)}),
}
ROUNDINGS: dict[str, tuple[torch.dtype, dict]] = {
    "float32": (torch.float32, {}),
    "nearest": (torch.bfloat16, {}),
    "nearest, float32 momentum": (torch.bfloat16, {"momentum_dtype": torch.float32}),
    "stochastic": (torch.bfloat16, {"rounding": "stochastic"}),
    "kahan": (torch.bfloat16, {"rounding": "kahan"}),
}


def trained(
    make: Callable[[list[nn.Parameter]], Optimizer], batch: int, seed: int, dtype: torch.dtype = torch.float32
) -> float:
    """Return the test loss on clean labels after training on noisy ones.

    Args:
        make: makes the optimizer from the parameters.
        batch: images of a step; a key of ``BATCHES``.
        seed: of weights, noise and batches.
        dtype: of parameters and activations.
    """
    data, generator = digits(dtype=dtype), torch.Generator().manual_seed(seed)
    noisy = flip_labels(data.y_train, NOISE, 10, generator=generator)
    model = mlp([64, 128, 128, 10], generator=generator).to(dtype)
    steps = BATCHES[batch]
    fit(
        model,
        lambda network, xy: F.cross_entropy(network(xy[0]).float(), xy[1]),
        minibatches(data.x_train, noisy, batch_size=batch),
        optimizer=make,
        schedule=warmup_cosine(steps, warmup=steps // 20),
        steps=steps,
        log_every=steps,
        seed=seed,
        progress=False,
    )
    with torch.no_grad():
        return F.cross_entropy(model(data.x_test).float(), data.y_test).item()


def tuned(batch: int, name: str) -> dict:
    """Return the mean losses of all rates and decays on some seeds, and the losses of the best pair on the others.

    Args:
        batch: images of a step; a key of ``BATCHES``.
        name: a key of ``TUNED``.
    """
    make, rates = TUNED[name]
    options = [{"weight_decay": decay, "lr": lr} for decay in DECAYS[batch] for lr in rates[batch]]
    losses = [[trained(partial(make, **option), batch, seed) for seed in CHOOSING] for option in options]
    means = [round(sum(each) / len(each), 4) for each in losses]
    best = options[means.index(min(means))]
    again = [trained(partial(make, **best), batch, seed) for seed in COMPARING]
    return {"options": options, "means": means, "chosen": best, "compared": again}


def converted(batch: int, weight_decay: float, lr: float) -> dict[str, list[float]]:
    """Return the losses of Lion, on the seeds for comparing, at AdamW's settings converted by each factor.

    Args:
        batch: images of a step; a key of ``BATCHES``.
        weight_decay: AdamW's.
        lr: AdamW's.
    """
    losses = {}
    for factor in FACTORS:
        rate, decay = adamw_to_lion(lr, weight_decay, factor=factor)
        make = partial(Lion, lr=rate, weight_decay=decay)
        losses[f"{factor:.3g}"] = [trained(make, batch, seed) for seed in COMPARING]
    return losses


def main() -> None:
    """Choose rates, compare, tune the decays, round, and store the losses.

    One thread; about half an hour.
    """
    torch.set_num_threads(1)
    chosen: dict[str, dict[str, float]] = {}
    sweep: dict[str, dict[str, list[list[float]]]] = {}
    compared: dict[str, dict[str, list[float]]] = {}
    for batch in BATCHES:
        chosen[str(batch)], sweep[str(batch)], compared[str(batch)] = {}, {}, {}
        for name, (make, rates) in METHODS.items():
            losses = [[trained(partial(make, lr=lr), batch, seed) for seed in CHOOSING] for lr in rates]
            best = min(zip(rates, losses), key=lambda pair: sum(pair[1]))[0]
            again = [trained(partial(make, lr=best), batch, seed) for seed in COMPARING]
            chosen[str(batch)][name], sweep[str(batch)][name], compared[str(batch)][name] = best, losses, again
            print(batch, name, best, [round(sum(v) / len(v), 4) for v in losses], sum(again) / len(again), flush=True)
    rate = chosen["256"]["Lion"]
    in_bf16: dict[str, dict[str, list[float]]] = {}
    for lr in (rate, rate / 10):
        in_bf16[f"{lr:g}"] = {}
        for name, (dtype, options) in ROUNDINGS.items():
            make = partial(Lion, lr=lr, weight_decay=DECAY * FACTOR, **options)
            in_bf16[f"{lr:g}"][name] = [trained(make, 256, seed, dtype) for seed in COMPARING]
        print(lr, {k: sum(v) / len(v) for k, v in in_bf16[f"{lr:g}"].items()}, flush=True)
    of_both = {str(batch): {name: tuned(batch, name) for name in TUNED} for batch in BATCHES}
    content = {
        "rates": {name: list(rates) for name, (_, rates) in METHODS.items()},
        "chosen": chosen,
        "sweep": sweep,
        "compared": compared,
        "tuned": of_both,
        "converted": {str(batch): converted(batch, **of_both[str(batch)]["AdamW"]["chosen"]) for batch in BATCHES},
        "in_bf16": in_bf16,
    }
    save("optimization/lion", rounded(content), made_with={"seed": [0, 11], "steps": list(BATCHES.values())})


if __name__ == "__main__":
    main()
