"""Two tiny byte models of rope_bias with their biases, seed 0, weights in half precision.

Run by ``python -m kexue_lib.checkpoints.positions.rope_bias_trained`` with one thread, about two minutes."""

from __future__ import annotations

import torch

from kexue_lib.attention.core import DecoderLM
from kexue_lib.checkpoints import load, save
from kexue_lib.checkpoints.positions.rope_bias import SHORT, prepared, train

__all__ = ["METHODS", "SEED", "main", "store", "trained"]

METHODS, SEED, NAME = ("zero", "sandwich"), 0, "positions/rope_bias_trained"


def trained(method: str) -> DecoderLM:
    """Return a stored model in evaluation mode.

    Args:
        method: ``"zero"`` or ``"sandwich"``: how the biases started.
    """
    model = prepared(method, SEED)
    prefix = f"{method}."
    weights = {k.removeprefix(prefix): w.float() for k, w in load(NAME)[0].items() if k.startswith(prefix)}
    model.load_state_dict({**weights, "head.weight": weights["embedding.weight"]})
    return model.eval().requires_grad_(False)


def store(models: dict[str, DecoderLM]) -> None:
    """Store models under the names of their methods.

    Args:
        models: method → trained model.
    """
    content = {
        f"{method}.{name}": weight.half()
        for method, model in models.items()
        for name, weight in model.state_dict().items()
        if name != "head.weight"  # tied, stored once
    }
    save(NAME, content, made_with={"seed": SEED, "steps": SHORT})


def main() -> None:
    """Train both models and store them.

    One thread; about two minutes.
    """
    torch.set_num_threads(1)
    store({method: train(method, SEED, steps=SHORT).model for method in METHODS})


if __name__ == "__main__":
    main()
