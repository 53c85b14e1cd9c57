"""How every recipe of base_beta does on the tiny byte models: recipes, lengths and exponents, three seeds each.

Run by ``python -m kexue_lib.checkpoints.positions.base_beta`` with one thread, about ten minutes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kexue_lib.attention.core import DecoderLM
from kexue_lib.checkpoints import rounded, save
from kexue_lib.positions.base_beta import ScaledRotary, ntk_aware_frequencies, yarn_attention_factor
from kexue_lib.positions.rope import RotaryEmbedding, inverse_frequencies
from kexue_lib.positions.tiny_lm import (
    SEEDS,
    TRAIN_LENGTH,
    Variant,
    evaluation_batch,
    last_bytes_accuracy,
    load_tiny_lm,
)

__all__ = [
    "ALONE",
    "EXPONENTS",
    "FACTOR",
    "KINDS",
    "LENGTHS",
    "PLACES",
    "RECIPES",
    "SCALES",
    "STRETCHES",
    "accuracy",
    "alone_of",
    "bases_of",
    "curves_of",
    "cuts_of",
    "main",
    "position_of",
    "sweep_of",
    "table_of",
]

FACTOR, WINDOWS = 8, 48
LENGTHS = (64, 128, 256, 512, 1024)
EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.625, 0.75, 0.875, 1.0)
RECIPES = ("none", "pi", "ntk-old", "ntk-aware", "ntk-fixed", "ntk-mixed", "ntk-by-parts", "llama3", "yarn")
# What is measured at every length: recipe and how attention is made sharper.
CURVES = {
    "none": ("none", "plain"),
    "pi": ("pi", "plain"),
    "ntk-aware": ("ntk-aware", "plain"),
    "ntk-mixed": ("ntk-mixed", "plain"),
    "yarn": ("yarn", "temperature"),
    "yarn, no temperature": ("yarn", "plain"),
    "llama3, temperature": ("llama3", "temperature"),
}
# How sharp attention is made: as trained, log n afterwards, YaRN's temperature, log n in training too.
SCALES = ("plain", "log n after", "temperature", "log n trained")
Kind = Literal["rep96", "text"]
KINDS: tuple[Kind, ...] = ("rep96", "text")
STRETCHES = (64, 512, 4096)
PLACES: dict[str, tuple[Kind, int]] = {"rep96": ("rep96", FACTOR), "text": ("text", FACTOR), "short": ("text", 1)}
# A single pair and its divisor: pair 5 is the first without a full turn in training.
ALONE = ((5, 8), (4, 8), (6, 8), (5, 4), (5, 16))


def position_of(dim: int, recipe: str, factor: float | int, scale: str, **options: float) -> ScaledRotary:
    """Return the positions of a recipe.

    Args:
        dim: width of a head.
        recipe: method of :class:`ScaledRotary`.
        factor: k.
        scale: one of ``SCALES``.
        options: of the recipe.
    """
    return ScaledRotary(
        dim,
        method=recipe,
        factor=factor,
        original_length=TRAIN_LENGTH,
        log_scale="clip" if scale == "log n after" else None,
        attention_factor=yarn_attention_factor(factor) if scale == "temperature" else 1.0,
        **options,
    )


def accuracy(
    recipe: str, factor: float | int, scale: str, seed: int, kind: Kind, length: int, **options: float
) -> float:
    """Return the share of bytes predicted right at the end of windows: the last 128, at most half a window.

    Args:
        recipe: method of :class:`ScaledRotary`.
        factor: k.
        scale: one of ``SCALES``.
        seed: of the model.
        kind: ``"rep96"`` or ``"text"``.
        length: bytes that the model reads.
        options: of the recipe.
    """
    variant: Variant = "log_n" if scale == "log n trained" else "plain"
    model = load_tiny_lm(variant, seed=seed)
    model.position = position_of(model.config.width, recipe, factor, scale, **options)
    return _at_the_end(model, kind, length)


def _at_the_end(model: DecoderLM, kind: Kind, length: int) -> float:
    tokens = evaluation_batch(kind, length + 1, WINDOWS, generator=torch.Generator().manual_seed(1))
    return last_bytes_accuracy(model, tokens, last=min(128, length // 2))


def table_of(scale: str) -> dict[str, dict[str, list[float]]]:
    """Return, per recipe, the accuracies of all seeds: repetition and text at 8 times the training length, text at it.

    Args:
        scale: one of ``SCALES``.
    """
    return {
        recipe: {
            name: [accuracy(recipe, FACTOR, scale, seed, kind, times * TRAIN_LENGTH) for seed in SEEDS]
            for name, (kind, times) in PLACES.items()
        }
        for recipe in RECIPES
    }


def curves_of(kind: Kind) -> dict[str, list[list[float]]]:
    """Return, per curve, accuracies ``[length][seed]``; the factor is the length over the training length.

    Args:
        kind: ``"rep96"`` or ``"text"``.
    """
    return {
        name: [[accuracy(recipe, n / TRAIN_LENGTH, scale, s, kind, n) for s in SEEDS] for n in LENGTHS]
        for name, (recipe, scale) in CURVES.items()
    }


def sweep_of(kind: Kind) -> list[list[float]]:
    """Return accuracies ``[exponent][seed]`` of NTK-mixed at 8 times the training length.

    Args:
        kind: ``"rep96"`` or ``"text"``.
    """
    n = FACTOR * TRAIN_LENGTH
    return [[accuracy("ntk-mixed", FACTOR, "plain", s, kind, n, exponent=c) for s in SEEDS] for c in EXPONENTS]


def cuts_of(kind: Kind) -> list[list[float]]:
    """Return accuracies ``[first][seed]`` where pairs from ``first`` = 0…16 on are divided by 8 and the others kept.

    Args:
        kind: ``"rep96"`` or ``"text"``.
    """
    return [_slowed(slice(first, None), FACTOR, kind) for first in range(17)]


def alone_of(kind: Kind) -> dict[str, list[float]]:
    """Return accuracies ``[seed]`` where a single pair is divided and the others kept, by ``"pair by divisor"``.

    Args:
        kind: ``"rep96"`` or ``"text"``.
    """
    return {f"{pair} by {by}": _slowed(slice(pair, pair + 1), by, kind) for pair, by in ALONE}


def bases_of(place: str) -> dict[str, list[float]]:
    """Return accuracies ``[seed]`` of NTK-aware with other stretches, and with no pair slowed more than 8 times.

    Args:
        place: one of ``PLACES``.
    """
    theta = {str(stretch): ntk_aware_frequencies(32, stretch) for stretch in STRETCHES}
    theta["512, no s above 8"] = torch.maximum(theta["512"], inverse_frequencies(32) / FACTOR)
    kind, times = PLACES[place]
    return {name: _turned(speeds, kind, times) for name, speeds in theta.items()}


def _slowed(pairs: slice, by: int, kind: Kind) -> list[float]:
    theta = inverse_frequencies(32)
    theta[pairs] /= by
    return _turned(theta, kind, FACTOR)


def _turned(theta: Tensor, kind: Kind, times: int) -> list[float]:
    rotary, row = RotaryEmbedding(32, inv_freq=theta), []
    for seed in SEEDS:
        model = load_tiny_lm(seed=seed)
        model.position = rotary
        row.append(_at_the_end(model, kind, times * TRAIN_LENGTH))
    return row


def store(table: dict, curves: dict, sweep: dict, cuts: dict, alone: dict, bases: dict) -> None:
    """Store what was measured.

    Args:
        table: scale → :func:`table_of`.
        curves: kind → :func:`curves_of`.
        sweep: kind → :func:`sweep_of`.
        cuts: kind → :func:`cuts_of`.
        alone: kind → :func:`alone_of`.
        bases: place → :func:`bases_of`.
    """
    content = {
        "table": table,
        "curves": curves,
        "sweep": sweep,
        "cuts": cuts,
        "alone": alone,
        "bases": bases,
        "lengths": LENGTHS,
        "exponents": EXPONENTS,
    }
    summary = {"seed": list(SEEDS), "steps": 0, "factor": FACTOR, "windows": WINDOWS}
    save("positions/base_beta", rounded(content), made_with=summary)


def main() -> None:
    """Measure everything and store it.

    One thread; about ten minutes.
    """
    torch.set_num_threads(1)
    table = {scale: table_of(scale) for scale in SCALES}
    measures = (curves_of, sweep_of, cuts_of, alone_of)
    store(
        table,
        *({kind: measure(kind) for kind in KINDS} for measure in measures),
        {place: bases_of(place) for place in PLACES},
    )


if __name__ == "__main__":
    main()
