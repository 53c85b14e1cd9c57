"""The reader of several contexts: a model of 0.1 million weights, trained on contexts of at most 18 tokens; with
soft default answers, with hard ones, and with answers that may stand in either order.

Run by ``python -m kexue_lib.checkpoints.attention.nbce`` with one thread, about eight minutes."""

from __future__ import annotations

import torch

from kexue_lib.attention.core import DecoderLM
from kexue_lib.attention.nbce.reading_task import BOS, DEFAULT, make_model, sample_batch, sample_trial
from kexue_lib.checkpoints import rounded, save
from kexue_lib.training import fit, warmup_linear

__all__ = ["BATCH", "SEED", "STEPS", "accuracy", "main"]

STEPS, BATCH, SEED = 2000, 64, 0
VARIANTS = {
    "soft": {"default": DEFAULT},
    "hard": {"default": 1.0},
    "either": {"default": DEFAULT, "either_order": True},
}


def accuracy(model: DecoderLM, trials: int = 1000, *, either_order: bool = False) -> float:
    """Return the share of answers, both digits, that the model copies from one context of six triples.

    Args:
        model: the reader.
        trials: questions.
        either_order: count the exchanged digits as right, too.
    """
    generator = torch.Generator().manual_seed(1)
    drawn = [sample_trial(generator, 1) for _ in range(trials)]
    tokens = torch.stack([torch.cat([torch.tensor([BOS]), t.contexts[0], t.question]) for t in drawn])
    for _ in range(2):
        tokens = torch.cat([tokens, model(tokens)[:, -1].argmax(-1, keepdim=True)], 1)
    found, answers = tokens[:, -2:], torch.stack([t.answer for t in drawn])
    right = (found == answers).all(-1)
    if either_order:
        right |= (found == answers.flip(-1)).all(-1)
    return right.double().mean().item()


def main() -> None:
    """Train all and store weights in half precision, with their learning curves.

    One thread; about eight minutes.
    """
    torch.set_num_threads(1)
    content, measured = {}, {}
    for variant, options in VARIANTS.items():
        result = fit(
            make_model(torch.Generator().manual_seed(SEED)),
            lambda network, batch: network.loss(batch[0], weights=batch[1]),
            lambda generator, options=options: sample_batch(generator, BATCH, **options),
            optimizer=lambda p: torch.optim.AdamW(p, lr=3e-3),
            schedule=warmup_linear(STEPS, warmup=50),
            steps=STEPS,
            seed=SEED,
            log_every=50,
        )
        model = result.model.eval().half().float()  # what the file holds
        with torch.no_grad():
            measured[variant] = accuracy(model, either_order=options.get("either_order", False))
        content |= {f"{variant}.{name}": value.half() for name, value in model.state_dict().items()}
        content[f"curve.{variant}"] = result.history["loss"].float()
        content["curve.step"] = result.history["step"].float()
        print(variant, measured[variant], flush=True)
    summary = {"steps": STEPS, "batch": BATCH, "seed": SEED, "variants": VARIANTS, "accuracy": rounded(measured)}
    print(save("attention/nbce", content, made_with=summary).stat().st_size, "bytes")


if __name__ == "__main__":
    main()
