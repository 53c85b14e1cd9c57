"""Does the bound matter to trained models? Tiny byte models trained with bases below it, or read with another base.

Run by ``python -m kexue_lib.checkpoints.positions.rope_base_bound`` with one thread, about twenty minutes."""

from __future__ import annotations

from dataclasses import replace

import torch

from kexue_lib.attention.core import DecoderLM
from kexue_lib.checkpoints import rounded, save
from kexue_lib.checkpoints.positions.tiny_lm import BATCH, RATE, STEPS
from kexue_lib.positions.rope import RotaryEmbedding
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

__all__ = ["BASES", "EXCHANGED", "LENGTHS", "PERIODS", "READ", "copying", "exchanged", "extrapolation", "main", "train"]

WINDOWS = 48
BASES = (1e4, 10.0)  # the part's own models, and one far below the least base for 64 positions, 315
PERIODS = (4, 8, 16, 24, 32, 40, 48)
LENGTHS = (64, 128, 256, 512, 1024)
EXCHANGED = tuple(10**e for e in (3.5, 4.0, 4.25, 4.5, 4.75, 5.0, 5.5, 6.0, 8.0))
READ = (64, 512, 1024)


def train(base: float, seed: int) -> DecoderLM:
    """Return a tiny model trained at 64 bytes as the part's own, but for the base.

    Args:
        base: of the rotary embedding.
        seed: of weights and batches.
    """
    config = replace(tiny_config(), rope_base=base)
    return fit(
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
    ).model.eval()


def copying(model: DecoderLM) -> list[float]:
    """Return, for each of ``PERIODS``, the accuracy on the last 16 of 64 bytes where a block of that period repeats.

    Args:
        model: of bytes.
    """
    text = evaluation_batch("text", TRAIN_LENGTH + 1, 4 * WINDOWS, generator=torch.Generator().manual_seed(2))
    place = torch.arange(TRAIN_LENGTH + 1)
    return [last_bytes_accuracy(model, text[:, place % period], last=16) for period in PERIODS]


def extrapolation(model: DecoderLM) -> dict[str, list[float]]:
    """Return, for each kind of text, the accuracy at each of ``LENGTHS``: the last 128 bytes, at most half a window.

    Args:
        model: of bytes.
    """
    return {kind: [_at_the_end(model, kind, length) for length in LENGTHS] for kind in ("text", "rep96")}


def exchanged(kind: str, length: int) -> list[list[float]]:
    """Return accuracies ``[base][seed]`` of the part's models, trained with base 10⁴, read with each of ``EXCHANGED``.

    Args:
        kind: ``"text"`` or ``"rep96"``.
        length: bytes that a model reads.
    """
    table = []
    for base in EXCHANGED:
        row = []
        for seed in SEEDS:
            model = load_tiny_lm(seed=seed)
            model.position = RotaryEmbedding(model.config.width, base)
            row.append(_at_the_end(model, kind, length))
        table.append(row)
    return table


def _at_the_end(model: DecoderLM, kind: str, length: int) -> float:
    tokens = evaluation_batch(kind, length + 1, WINDOWS, generator=torch.Generator().manual_seed(1))
    return last_bytes_accuracy(model, tokens, last=min(128, length // 2))


def main() -> None:
    """Train, measure and store everything.

    One thread; about twenty minutes.
    """
    torch.set_num_threads(1)
    copied: dict[str, list[list[float]]] = {f"{base:g}": [] for base in BASES}
    curves: dict[str, dict[str, list[list[float]]]] = {k: {b: [] for b in copied} for k in ("text", "rep96")}
    for base in BASES:
        for seed in SEEDS:
            model, key = load_tiny_lm(seed=seed) if base == 1e4 else train(base, seed), f"{base:g}"
            copied[key].append(copying(model))
            for kind, values in extrapolation(model).items():
                curves[kind][key].append(values)
            print(key, seed, copied[key][-1], curves["text"][key][-1], curves["rep96"][key][-1], flush=True)
    content = {
        "copying": {b: [list(v) for v in zip(*runs)] for b, runs in copied.items()},
        "curves": {k: {b: [list(v) for v in zip(*runs)] for b, runs in c.items()} for k, c in curves.items()},
        "exchanged": {k: {str(n): exchanged(k, n) for n in READ} for k in ("text", "rep96")},
        "bases": BASES,
        "exchanged_bases": EXCHANGED,
        "lengths": LENGTHS,
        "periods": PERIODS,
    }
    summary = {"seed": list(SEEDS), "steps": STEPS, "batch": BATCH, "windows": WINDOWS}
    save("positions/rope_base_bound", rounded(content), made_with=summary)


if __name__ == "__main__":
    main()
