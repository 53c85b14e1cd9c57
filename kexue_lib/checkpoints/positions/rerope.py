"""How rectified distances do on the tiny byte models: windows, factors and lengths, three seeds each.

Run by ``python -m kexue_lib.checkpoints.positions.rerope`` with one thread, about twenty-five minutes."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kexue_lib.attention.core import DecoderLM, attention
from kexue_lib.checkpoints import rounded, save
from kexue_lib.positions.rerope import DistanceRotary, ReRoPE, dual_chunk_distance, self_extend_distance
from kexue_lib.positions.rope import RotaryEmbedding, inverse_frequencies, log_length_scale
from kexue_lib.positions.tiny_lm import (
    SEEDS,
    TRAIN_LENGTH,
    Variant,
    evaluation_batch,
    last_bytes_accuracy,
    load_tiny_lm,
)

__all__ = [
    "CURVES",
    "FACTOR",
    "FRESH",
    "LEAKY",
    "LENGTHS",
    "METHODS",
    "SCALES",
    "SHARPENED",
    "SWEPT",
    "WIDTHS",
    "Windowed",
    "accuracy",
    "curves_of",
    "fresh_text",
    "main",
    "position_of",
    "sweep_of",
    "table_of",
]

FACTOR, WINDOWS, DIM = 8, 48, 32
LENGTHS = (64, 128, 256, 512, 1024)
WIDTHS = (0, 8, 16, 24, 32, 40, 48, 56, 60, 63, 64)
LEAKY = ((16, 4), (16, 8), (16, 12), (16, 16), (16, 32), (32, 4), (32, 8), (32, 16), (32, 32), (32, 64))
# As trained; log n afterwards; log n in training too.
SCALES = ("plain", "log n after", "log n trained")
KINDS = ("rep96", "text")
METHODS = (
    "none",
    "window 32",
    "window 48",
    *(f"rerope {w}" for w in WIDTHS),
    *(f"leaky {w} {k}" for w, k in LEAKY),
    "self-extend 32 16",
    "dual-chunk 48",
)
# With log n: the windows that decide, and the controls.
SHARPENED = ("none", "window 32", *(f"rerope {w}" for w in (16, 32, 48, 60, 63, 64)), "leaky 32 8", "leaky 32 16")
CURVES = {
    "plain": ("none", "window 32", "window 48", "rerope 32", "leaky 32 32"),
    "log n after": ("none", "window 32", "window 48", "rerope 32", "leaky 32 32"),
    "log n trained": ("none", "rerope 32", "leaky 32 32"),
}
SWEPT = tuple(range(12, 65))
FRESH = {
    "plain": ("none", "window 32", "window 48", "rerope 16", "rerope 32", "leaky 32 32"),
    "log n after": ("rerope 16", "rerope 32", "leaky 32 32"),
}


class Windowed(RotaryEmbedding):
    """Position object of the control: plain rotary embedding, and nothing farther than the window is seen.

    Args:
        window: keys that a query sees, itself included.
    """

    cache_raw_keys = True

    def __init__(self, window: int):
        super().__init__(DIM)
        self.window = window

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, q_positions: Tensor, k_positions: Tensor, causal: bool, scale: None
    ) -> Tensor:
        """Return attention over the window.

        Args:
            q: ``(..., heads, n_q, d)``.
            k: ``(..., heads, n_k, d)``.
            v: ``(..., heads, n_k, d)``.
            q_positions: ``(n_q,)``.
            k_positions: ``(n_k,)``.
            causal: whether keys behind a query are hidden.
            scale: of the scores.
        """
        q, k = self.rotate(q, q_positions), self.rotate(k, k_positions)
        return attention(q, k, v, causal=causal, window=self.window, scale=scale)


def position_of(method: str, *, train_length: int | None = None) -> Any:
    """Return the position object of a method.

    Args:
        method: one of ``METHODS``: a name and its numbers.
        train_length: with it, queries grow like log n beyond.
    """
    name, *numbers = method.split()
    values, theta, options = [int(n) for n in numbers], inverse_frequencies(DIM), {"train_length": train_length}
    if name == "rerope":
        return ReRoPE(theta, window=values[0], **options)
    if name == "leaky":
        return ReRoPE(theta, window=values[0], factor=values[1], **options)
    if name == "self-extend":
        return DistanceRotary(theta, partial(self_extend_distance, window=values[0], group=values[1]), **options)
    if name == "dual-chunk":
        distance = partial(dual_chunk_distance, chunk=values[0], train_length=TRAIN_LENGTH)
        return DistanceRotary(theta, distance, **options)
    position = Windowed(values[0]) if name == "window" else RotaryEmbedding(DIM)
    if train_length is not None:
        position.query_scale = partial(log_length_scale, train_length=train_length)
    return position


def model_with(method: str, scale: str, seed: int) -> DecoderLM:
    """Return a trained model that reads with a method.

    Args:
        method: one of ``METHODS``.
        scale: one of ``SCALES``.
        seed: of the model.
    """
    variant: Variant = "log_n" if scale == "log n trained" else "plain"
    model = load_tiny_lm(variant, seed=seed)
    model.position = position_of(method, train_length=TRAIN_LENGTH if scale == "log n after" else None)
    return model


def windows(kind: Literal["rep96", "text"], length: int) -> Tensor:
    """Return the windows on which every method of the part is judged.

    Args:
        kind: ``"rep96"`` or ``"text"``.
        length: bytes that the model reads.
    """
    return evaluation_batch(kind, length + 1, WINDOWS, generator=torch.Generator().manual_seed(1))


def accuracy(method: str, scale: str, seed: int, kind: Literal["rep96", "text"], length: int) -> float:
    """Return the share of bytes predicted right at the end of windows: the last 128, at most half a window.

    Args:
        method: one of ``METHODS``.
        scale: one of ``SCALES``.
        seed: of the model.
        kind: ``"rep96"`` or ``"text"``.
        length: bytes that the model reads.
    """
    model, last = model_with(method, scale, seed), min(128, length // 2)
    # A few windows at a time: full matrices of distances are slow where they leave the cache.
    pieces = windows(kind, length).split(4)
    return sum(last_bytes_accuracy(model, tokens, last=last) for tokens in pieces) / len(pieces)


def table_of(scale: str) -> dict[str, dict[str, list[float]]]:
    """Return, per method, the accuracies of all seeds: repetition and text at 8 times the training length, text at it.

    Args:
        scale: one of ``SCALES``.
    """
    places = {"rep96": ("rep96", FACTOR), "text": ("text", FACTOR), "short": ("text", 1)}
    return {
        method: {
            name: [accuracy(method, scale, seed, kind, times * TRAIN_LENGTH) for seed in SEEDS]
            for name, (kind, times) in places.items()
        }
        for method in (METHODS if scale == "plain" else SHARPENED)
    }


def curves_of(scale: str, kind: Literal["rep96", "text"]) -> dict[str, list[list[float]]]:
    """Return, per method, accuracies ``[length][seed]``.

    Args:
        scale: one of ``SCALES``.
        kind: ``"rep96"`` or ``"text"``.
    """
    return {m: [[accuracy(m, scale, s, kind, n) for s in SEEDS] for n in LENGTHS] for m in CURVES[scale]}


@torch.no_grad()
def fresh_text(method: str, scale: str) -> dict[str, list[list[list[float]]]]:
    """Return loss (nats) and accuracy of the last 32 bytes of other windows of text, ``[length][seed][group]``.

    Windows of all lengths end at the same bytes: only what stands before them differs.

    Args:
        method: one of ``METHODS``.
        scale: one of ``SCALES``.
    """
    groups = evaluation_batch("text", LENGTHS[-1] + 1, 240, generator=torch.Generator().manual_seed(2)).split(15)
    models = [model_with(method, scale, seed) for seed in SEEDS]
    loss = torch.zeros(len(LENGTHS), len(models), len(groups), dtype=torch.float64)
    hits = torch.zeros_like(loss)
    # Two layers of a window look back less than 128 bytes from the last 32: longer context changes nothing.
    lengths = [min(n, 128) if method.startswith("window") else n for n in LENGTHS]
    for (x, n), (y, model), (z, group) in product(enumerate(lengths), enumerate(models), enumerate(groups)):
        logits = model.head(model(group[:, -n - 1 : -1], return_hidden=True)[:, -32:]).double()
        loss[x, y, z] = F.cross_entropy(logits.flatten(0, 1), group[:, -32:].flatten())
        hits[x, y, z] = (logits.argmax(-1) == group[:, -32:]).double().mean()
    return {"loss": loss.tolist(), "accuracy": hits.tolist()}


def sweep_of(scale: str) -> list[list[float]]:
    """Return accuracies ``[window][seed]`` of ReRoPE on the repetition at 8 times the training length, for ``SWEPT``.

    Args:
        scale: one of ``SCALES``.
    """
    return [[accuracy(f"rerope {w}", scale, s, "rep96", FACTOR * TRAIN_LENGTH) for s in SEEDS] for w in SWEPT]


def main() -> None:
    """Measure everything and store it.

    One thread.
    """
    torch.set_num_threads(1)
    content = {
        "lengths": LENGTHS,
        "widths": WIDTHS,
        "leaky": LEAKY,
        "swept": SWEPT,
        "table": {scale: table_of(scale) for scale in SCALES},
        "sweep": {scale: sweep_of(scale) for scale in SCALES[:2]},
        "curves": {scale: {kind: curves_of(scale, kind) for kind in KINDS} for scale in SCALES},
        "fresh text": {scale: {m: fresh_text(m, scale) for m in FRESH[scale]} for scale in FRESH},
    }
    summary = {"seed": list(SEEDS), "steps": 0, "factor": FACTOR, "windows": WINDOWS}
    save("positions/rerope", rounded(content), made_with=summary)


if __name__ == "__main__":
    main()
