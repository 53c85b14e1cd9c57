"""Bytes hit in each of 144 windows by the recipes that the verdicts of base_beta compare, three seeds each.

Run by ``python -m kexue_lib.checkpoints.positions.base_beta_windows`` with one thread, about two minutes."""

from __future__ import annotations

import torch
from torch import Tensor

from kexue_lib.checkpoints import save
from kexue_lib.checkpoints.positions.base_beta import FACTOR, KINDS, Kind, position_of
from kexue_lib.positions.tiny_lm import (
    SEEDS,
    TRAIN_LENGTH,
    Variant,
    evaluation_batch,
    last_bytes_accuracy,
    load_tiny_lm,
)

__all__ = ["LAST", "RUNS", "WINDOWS", "hits", "main"]

WINDOWS, LAST = 144, 128
# Recipe, how attention is made sharper, options of the recipe.
RUNS: dict[str, tuple[str, str, dict[str, float]]] = {
    "none": ("none", "plain", {}),
    "pi": ("pi", "plain", {}),
    "ntk-old": ("ntk-old", "plain", {}),
    "ntk-fixed": ("ntk-fixed", "plain", {}),
    "ntk-mixed": ("ntk-mixed", "plain", {}),
    "ntk-mixed, c = 0.75": ("ntk-mixed", "plain", {"exponent": 0.75}),
    "ntk-fixed, log n after": ("ntk-fixed", "log n after", {}),
    "ntk-mixed, log n after": ("ntk-mixed", "log n after", {}),
    "ntk-mixed, log n trained": ("ntk-mixed", "log n trained", {}),
}


def hits(name: str, kind: Kind) -> Tensor:
    """Return how many of the last 128 of 512 bytes are predicted right, ``(seeds, windows)`` uint8.

    Args:
        name: one of ``RUNS``.
        kind: ``"rep96"`` or ``"text"``.
    """
    recipe, scale, options = RUNS[name]
    variant: Variant = "log_n" if scale == "log n trained" else "plain"
    tokens = evaluation_batch(kind, FACTOR * TRAIN_LENGTH + 1, WINDOWS, generator=torch.Generator().manual_seed(1))
    found = []
    for seed in SEEDS:
        model = load_tiny_lm(variant, seed=seed)
        model.position = position_of(model.config.width, recipe, FACTOR, scale, **options)
        shares = [last_bytes_accuracy(model, window[None], last=LAST) for window in tokens]
        found.append((LAST * torch.tensor(shares)).round().to(torch.uint8))
    return torch.stack(found)


def main() -> None:
    """Measure everything and store it.

    One thread; about two minutes.
    """
    torch.set_num_threads(1)
    content = {f"{kind}: {name}": hits(name, kind) for name in RUNS for kind in KINDS}
    made_with = {"seed": list(SEEDS), "steps": 0, "factor": FACTOR, "windows": WINDOWS, "last": LAST}
    save("positions/base_beta_windows", content, made_with=made_with)


if __name__ == "__main__":
    main()
