"""The tiny byte model of the part on positions, three seeds, weights in half precision.

Run by ``python -m kexue_lib.checkpoints.positions.tiny_lm`` with one thread, about ten minutes."""

from __future__ import annotations

from typing import cast

import torch

from kexue_lib.attention.core import DecoderLM
from kexue_lib.checkpoints import rounded, save
from kexue_lib.positions.tiny_lm import (
    SEEDS,
    TRAIN_LENGTH,
    Variant,
    evaluation_batch,
    last_bytes_accuracy,
    last_bytes_loss,
    tiny_config,
    training_batches,
)
from kexue_lib.training import fit, warmup_linear

__all__ = ["BATCH", "STEPS", "main", "measure", "train"]

STEPS, BATCH, RATE = 2000, 32, 3e-3


def train(variant: Variant, seed: int, *, steps: int = STEPS) -> tuple[DecoderLM, dict[str, torch.Tensor]]:
    """Return one trained model and the history of its training.

    Args:
        variant: ``"plain"`` or ``"log_n"``.
        seed: of weights and batches.
        steps: optimizer steps.
    """
    result = fit(
        DecoderLM(tiny_config(variant), generator=torch.Generator().manual_seed(seed)),
        lambda network, tokens: network.loss(tokens),
        training_batches(TRAIN_LENGTH, BATCH),
        optimizer=lambda p: torch.optim.AdamW(p, lr=RATE, betas=(0.9, 0.95), weight_decay=0.1),
        schedule=warmup_linear(steps, warmup=50),
        steps=steps,
        clip_norm=1.0,
        log_every=50,
        seed=seed,
        progress=False,
    )
    return cast("DecoderLM", result.model).eval(), result.history


def measure(model: DecoderLM) -> dict[str, float]:
    """Return accuracy and loss (nats per byte) at the training length, on the last 32 bytes of 256 windows.

    Args:
        model: a tiny model.
    """
    tokens = evaluation_batch("text", TRAIN_LENGTH + 1, 256, generator=torch.Generator().manual_seed(1))
    return {
        "accuracy": last_bytes_accuracy(model, tokens, last=32),
        "loss": last_bytes_loss(model, tokens, last=32),
    }


def main(variant: Variant = "plain", name: str = "positions/tiny_lm") -> None:
    """Train all seeds and store their weights, with their learning curves.

    Args:
        variant: ``"plain"`` or ``"log_n"``.
        name: of the checkpoint.
    """
    torch.set_num_threads(1)
    content, measured = {}, {}
    for seed in SEEDS:
        model, history = train(variant, seed)
        model.half().float()  # what the file holds
        measured[f"seed{seed}"] = measure(model)
        print(variant, seed, measured[f"seed{seed}"], flush=True)
        weights = {k: v.half() for k, v in model.state_dict().items() if k != "head.weight"}
        content |= {f"seed{seed}.{k}": v for k, v in weights.items()}
        content |= {f"curve.seed{seed}": history["loss"].float(), "curve.step": history["step"].float()}
        summary = {"variant": variant, "steps": STEPS, "batch": BATCH, "length": TRAIN_LENGTH, "seed": list(SEEDS)}
        save(name, content, made_with={**summary, "measured": rounded(measured)})


if __name__ == "__main__":
    main()
