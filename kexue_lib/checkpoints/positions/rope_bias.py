"""Tiny byte models trained with and without biases under rotary positions, read up to 16 times their training length.

Run by ``python -m kexue_lib.checkpoints.positions.rope_bias`` with one thread, about forty minutes. Every run is stored
when it is done, and runs that are stored are not repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kexue_lib.attention.core import DecoderLM, attention
from kexue_lib.checkpoints import load, names, rounded, save
from kexue_lib.positions.rope import RotaryEmbedding, inverse_frequencies
from kexue_lib.positions.rope_bias import KernelRotary, QueryKeyBias, bias_coefficients, fit_biases, sandwich_biases
from kexue_lib.positions.tiny_lm import (
    SEEDS,
    TRAIN_LENGTH,
    evaluation_batch,
    last_bytes_accuracy,
    load_tiny_lm,
    tiny_config,
    training_batches,
)
from kexue_lib.training import FitResult, fit, warmup_linear

__all__ = [
    "KINDS",
    "LENGTHS",
    "METHODS",
    "SHORT",
    "STEPS",
    "falling",
    "main",
    "measure",
    "prepared",
    "runs",
    "store",
    "train",
]

STEPS, SHORT, BATCH, RATE, WINDOWS = 2000, 700, 32, 3e-3, 48
LENGTHS = (64, 128, 256, 512, 1024)
KINDS = ("text", "rep96", "rep48")
METHODS = ("plain", "zero", "sandwich", "kernel", "kernel after", "line after", "bent after", "window")
HEADS, DIM = tiny_config().n_heads, tiny_config().width
STRENGTH = math.sqrt(DIM) / 2  # one half for each pair in scores after the division by √d
NAME = "positions/rope_bias"


def falling(start: int, slope: float) -> tuple[Tensor, Tensor]:
    """Return two biases whose kernel, in scaled scores, is flat up to a distance and falls as a line beyond it.

    Fitted on all distances that are read: 0 to the largest of ``LENGTHS``.

    Args:
        start: distance from which it falls; 0 is ALiBi's line.
        slope: of the fall, for each byte.
    """
    beyond = (torch.arange(LENGTHS[-1] + 1) - start).clamp(min=0)
    return fit_biases(-slope * beyond * math.sqrt(DIM), inverse_frequencies(DIM))


class SlidingWindow(RotaryEmbedding):
    """Rotary positions where a query sees the last ``TRAIN_LENGTH`` keys only, in every layer.

    Args:
        dim: head dimension.
    """

    def attend(self, q, k, v, *, q_positions, k_positions, causal, scale) -> Tensor:
        """Return attention inside the window."""
        q, k = self.rotate(q, q_positions), self.rotate(k, k_positions)
        return attention(q, k, v, causal=causal, scale=scale, window=TRAIN_LENGTH)


def runs() -> list[tuple[str, int, int]]:
    """Return the trainings (method, seed, steps).

    ``STEPS`` is the length of the shared tiny models' own training, ``SHORT`` about a third of it.
    """
    short = [(method, seed, SHORT) for seed in range(4) for method in ("plain", "zero", "sandwich", "kernel")]
    return [*short, *((method, seed, STEPS) for method in ("plain", "zero") for seed in SEEDS)]


def read_as(method: str, seed: int, steps: int) -> dict[str, RotaryEmbedding | None]:
    """Return the position objects that a trained model is read with, by the name of the row; None is its own.

    Args:
        method: that it was trained with. Plain models are also read through a sliding window (``"window"``), the
            shared ones also with kernels that they were not trained with: Sandwich's (``"kernel after"``), a line
            (``"line after"``) and a line that is flat up to ``TRAIN_LENGTH`` (``"bent after"``).
        seed: of the training.
        steps: of the training.
    """
    if method != "plain":
        return {method: None}
    if steps != STEPS or seed not in SEEDS:
        return {"plain": None, "window": SlidingWindow(DIM)}
    kernels_after = {
        "kernel after": sandwich_biases(DIM, STRENGTH),
        "line after": falling(0, 1 / 16),
        "bent after": falling(TRAIN_LENGTH, 1 / 8),
    }
    added = {name: KernelRotary(*biases) for name, biases in kernels_after.items()}
    return {"plain": None, "window": SlidingWindow(DIM), **added}


def prepared(method: str, seed: int) -> DecoderLM:
    """Return an untrained model; for one seed all methods start from the same weights.

    Args:
        method: ``"plain"``; ``"zero"`` and ``"sandwich"``: trainable biases that start at zero or as Sandwich;
            ``"kernel"``: Sandwich's kernel, fixed.
        seed: of the weights.
    """
    model = DecoderLM(tiny_config(), generator=torch.Generator().manual_seed(seed))
    if method == "kernel":
        model.position = KernelRotary(*sandwich_biases(DIM, STRENGTH))
    if method in ("zero", "sandwich"):
        for block in model.blocks:
            biases = QueryKeyBias(HEADS, DIM, init="zero" if method == "zero" else "sandwich", strength=STRENGTH)
            biases.fold(block.attention.q, block.attention.k)
    return model


def train(
    method: str, seed: int, *, steps: int = STEPS, sample: Callable[[torch.Generator | None], Tensor] | None = None
) -> FitResult:
    """Return a trained model with its history; for one seed all methods see the same batches.

    Args:
        method: of :func:`prepared`.
        seed: of weights and batches.
        steps: optimizer steps.
        sample: of training batches; default: those of the tiny models.
    """
    return fit(
        prepared(method, seed),
        lambda network, tokens: network.loss(tokens),
        training_batches(TRAIN_LENGTH, BATCH) if sample is None else sample,
        optimizer=lambda p: torch.optim.AdamW(p, lr=RATE, betas=(0.9, 0.95), weight_decay=0.1),
        schedule=warmup_linear(steps, warmup=min(50, steps)),
        steps=steps,
        clip_norm=1.0,
        log_every=50,
        seed=seed,
        progress=False,
    )


def measure(model: DecoderLM, *, lengths: tuple[int, ...] = LENGTHS) -> dict[str, list[float]]:
    """Return the share of bytes predicted right at the end of windows: the last 128, at most half a window.

    Args:
        model: a tiny model.
        lengths: bytes that it reads.

    Returns:
        kind → one number for each length. ``"rep48"`` repeats 48 bytes, the longest period of the training;
        ``"rep96"`` 96, which no window of the training holds twice.
    """
    rows: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for n in lengths:
        for kind in KINDS:
            known = "rep96" if kind == "rep96" else "text"
            tokens = evaluation_batch(known, n + 1, WINDOWS, generator=torch.Generator().manual_seed(1))
            if kind == "rep48":
                tokens = tokens[:, torch.arange(n + 1) % 48]
            rows[kind].append(last_bytes_accuracy(model, tokens, last=min(128, n // 2)))
    return rows


def kernels(model: DecoderLM) -> list[list[list[float]]] | None:
    """Return the coefficients of the biases' kernels ``[layer][head][d]``, first cosines, then sines; None without.

    Args:
        model: a tiny model.
    """
    if model.blocks[0].attention.q.bias is None:
        return None
    each = []
    for block in model.blocks:
        a, b = (p.bias.detach().view(HEADS, DIM) for p in (block.attention.q, block.attention.k))
        each.append(torch.cat(bias_coefficients(a, b), dim=-1).tolist())
    return each


def store(rows: list[dict[str, object]]) -> None:
    """Store the rows that are there.

    Args:
        rows: ``method``, ``seed``, ``steps``, one accuracy for each length and kind, and the ``kernels``.
    """
    seeds = sorted({row["seed"] for row in rows})
    summary = {"seed": seeds, "steps": [SHORT, STEPS], "batch": BATCH, "rate": RATE, "windows": WINDOWS}
    content = {"rows": rows, "lengths": LENGTHS, "strength": STRENGTH}
    save(NAME, rounded(content, 4), made_with=summary)


def main() -> None:
    """Train and measure what is not stored yet, one row after another.

    One thread; about forty minutes.
    """
    torch.set_num_threads(1)
    rows = load(NAME)[0]["rows"] if NAME in names() else []
    done = {(row["method"], row["seed"], row["steps"]) for row in rows}
    for method, seed, steps in runs():
        missing = {x: p for x, p in read_as(method, seed, steps).items() if (x, seed, steps) not in done}
        if not missing:
            continue
        if (method, steps) == ("plain", STEPS) and seed in SEEDS:
            model = load_tiny_lm(seed=seed)
        else:
            model = train(method, seed, steps=steps).model.half().float().eval()  # as the tiny models are stored
        for name, position in missing.items():
            model.position = model.position if position is None else position
            rows.append({"method": name, "seed": seed, "steps": steps, **measure(model), "kernels": kernels(model)})
        store(rows)
        print(method, seed, steps, rows[-1]["text"], flush=True)


if __name__ == "__main__":
    main()
