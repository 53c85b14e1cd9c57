"""Does the bound matter to trained models? Tiny byte models trained with bases above and below it.

Run by ``python -m kexue_lib.checkpoints.positions.rope_base_bound`` with one thread, about a quarter of an hour."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch

from kexue_lib.attention.core import DecoderLM
from kexue_lib.checkpoints import rounded, save
from kexue_lib.checkpoints.positions.tiny_lm import BATCH, RATE, STEPS
from kexue_lib.positions.tiny_lm import (
    SEEDS,
    TRAIN_LENGTH,
    evaluation_batch,
    last_bytes_accuracy,
    load_tiny_lm,
    tiny_config,
    training_batches,
)
from kexue_lib.training import fit, warmup_linear

__all__ = ["BASES", "PERIODS", "copying", "main", "measure", "train"]

WINDOWS = 192
BASES = (1e4, 100.0, 10.0)  # the part's own models, and two below the least base for 64 positions, 315
PERIODS = (20, 24, 28, 32, 36, 40, 44, 48)


def train(base: float, seed: int) -> DecoderLM:
    """Return a tiny model trained at 64 bytes as the part's own, but for the base.

    Args:
        base: of the rotary embedding.
        seed: of weights and batches.
    """
    config = replace(tiny_config(), rope_base=base)
    result = fit(
        DecoderLM(config, generator=torch.Generator().manual_seed(seed)),
        lambda network, tokens: network.loss(tokens),
        training_batches(TRAIN_LENGTH, BATCH),
        optimizer=lambda p: torch.optim.AdamW(p, lr=RATE, betas=(0.9, 0.95), weight_decay=0.1),
        schedule=warmup_linear(STEPS, warmup=50),
        steps=STEPS,
        clip_norm=1.0,
        log_every=50,
        seed=seed,
        progress=False,
    )
    return cast("DecoderLM", result.model).eval()


def copying(model: DecoderLM, *, repeated: bool = True) -> list[float]:
    """Return, for each of ``PERIODS``, the accuracy on the last 16 of 64 bytes where a block of that period repeats.

    Args:
        model: of bytes.
        repeated: whether earlier copies of the block are there; else all but its last one is taken from another row.
    """
    text = evaluation_batch("text", TRAIN_LENGTH + 1, WINDOWS, generator=torch.Generator().manual_seed(2))
    place, accuracies = torch.arange(TRAIN_LENGTH + 1), []
    for period in PERIODS:
        tokens = text[:, place % period]
        if not repeated:
            tokens = torch.where(place > TRAIN_LENGTH - period, tokens, tokens.roll(1, 0))
        accuracies.append(last_bytes_accuracy(model, tokens, last=16))
    return accuracies


def measure(model: DecoderLM) -> dict[str, list[float]]:
    """Return the accuracies of copying and its control for each of ``PERIODS``, and on the last 32 of 64 bytes of text.

    Args:
        model: of bytes.
    """
    text = evaluation_batch("text", TRAIN_LENGTH + 1, WINDOWS, generator=torch.Generator().manual_seed(1))
    return {
        "copying": copying(model),
        "control": copying(model, repeated=False),
        "text": [last_bytes_accuracy(model, text, last=32)],
    }


def main() -> None:
    """Train, measure and store everything.

    One thread; about a quarter of an hour.
    """
    torch.set_num_threads(1)
    tables: dict[str, dict[str, list[list[float]]]] = {}
    for base in BASES:
        for seed in SEEDS:
            model = load_tiny_lm(seed=seed) if base == 1e4 else train(base, seed)
            for kind, values in measure(model).items():
                tables.setdefault(kind, {}).setdefault(f"{base:g}", []).append(values)
                print(f"{base:g}", seed, kind, values, flush=True)
    content = {k: {b: [list(v) for v in zip(*runs)] for b, runs in t.items()} for k, t in tables.items()}
    settings = {"bases": BASES, "periods": PERIODS}
    summary = {"seed": list(SEEDS), "steps": STEPS, "batch": BATCH, "windows": WINDOWS}
    save("positions/rope_base_bound", {**rounded(content), **settings}, made_with=summary)


if __name__ == "__main__":
    main()
