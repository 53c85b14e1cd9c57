"""All methods of the part on the same trained models: accuracy against the length that is read, three seeds each.

Run by ``python -m kexue_lib.checkpoints.positions.comparison`` with one thread, about three minutes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch

from kexue_lib.checkpoints import rounded, save
from kexue_lib.checkpoints.positions.rerope import Windowed
from kexue_lib.positions.base_beta import ScaledRotary, yarn_attention_factor
from kexue_lib.positions.rerope import ReRoPE
from kexue_lib.positions.rope import RotaryEmbedding, inverse_frequencies
from kexue_lib.positions.rope_bias import KernelRotary, sandwich_biases
from kexue_lib.positions.tiny_lm import SEEDS, TRAIN_LENGTH, evaluation_batch, last_bytes_accuracy, load_tiny_lm

__all__ = ["KINDS", "LENGTHS", "METHODS", "accuracy", "main"]

WINDOWS, DIM = 48, 32
LENGTHS = (64, 128, 256, 512, 1024)
KINDS = ("text", "rep96")


def _scaled(recipe: str, length: int, *, sharper: bool = False) -> ScaledRotary:
    factor = length / TRAIN_LENGTH
    sharpness = yarn_attention_factor(factor) if sharper else 1.0
    return ScaledRotary(DIM, method=recipe, factor=factor, original_length=TRAIN_LENGTH, attention_factor=sharpness)


def _rectified(length: int, **options: Any) -> ReRoPE:
    return ReRoPE(inverse_frequencies(DIM), **options)


# What reads further, by the chapter that it is from; each makes a position object for the length that is read.
METHODS: dict[str, Callable[[int], Any]] = {
    "RoPE as trained": lambda length: RotaryEmbedding(DIM),
    "window of 32": lambda length: Windowed(32),
    "position interpolation": partial(_scaled, "pi"),
    "NTK-aware": partial(_scaled, "ntk-aware"),
    "NTK-mixed": partial(_scaled, "ntk-mixed"),
    "YaRN": partial(_scaled, "yarn", sharper=True),
    "Sandwich kernel": lambda length: KernelRotary(*sandwich_biases(DIM, DIM**0.5 / 2)),
    "ReRoPE, w = 32": partial(_rectified, window=32),
    "ReRoPE, w = 32, log n": partial(_rectified, window=32, train_length=TRAIN_LENGTH),
    "Leaky ReRoPE, w = 32, k = 32": partial(_rectified, window=32, factor=32),
}


def accuracy(method: str, seed: int, kind: Literal["text", "rep96"], length: int) -> float:
    """Return the share of bytes predicted right at the end of windows: the last 128, at most half a window.

    Args:
        method: one of ``METHODS``.
        seed: of the model.
        kind: ``"text"``, or ``"rep96"`` for a passage of 96 bytes that repeats.
        length: bytes that the model reads.
    """
    model = load_tiny_lm(seed=seed)
    model.position = METHODS[method](length)
    tokens = evaluation_batch(kind, length + 1, WINDOWS, generator=torch.Generator().manual_seed(1))
    # A few windows at a time, so that scores stay in the cache.
    pieces = tokens.split(4)
    return sum(last_bytes_accuracy(model, part, last=min(128, length // 2)) for part in pieces) / len(pieces)


def main() -> None:
    """Measure everything and store it.

    One thread; about three minutes.
    """
    torch.set_num_threads(1)
    curves = {
        kind: {method: [[accuracy(method, s, kind, n) for s in SEEDS] for n in LENGTHS] for method in METHODS}
        for kind in KINDS
    }
    summary = {"seed": list(SEEDS), "steps": 0, "windows": WINDOWS, "trained_on": TRAIN_LENGTH}
    save("positions/comparison", rounded({"curves": curves, "lengths": LENGTHS}), made_with=summary)


if __name__ == "__main__":
    main()
