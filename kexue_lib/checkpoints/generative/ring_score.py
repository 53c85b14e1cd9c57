"""A score model of eight Gaussians in a ring for score_matching: a residual MLP of width 128, averaged along training.

Run by ``python -m kexue_lib.checkpoints.generative.ring_score`` with one thread, about two minutes."""

from __future__ import annotations

import torch

from kexue_lib.checkpoints import load, save
from kexue_lib.generative.score_matching import GaussianMixture, ScoreMLP, VPSchedule, train_score_model

__all__ = ["BATCH", "EMA", "LR", "NAME", "SEED", "STEPS", "main", "train", "trained"]

NAME, SEED = "generative/ring_score", 0
STEPS, BATCH, EMA, LR = 15_000, 512, 0.995, 2e-3
SIZE = {"width": 128, "depth": 2}


def train(steps: int) -> ScoreMLP:
    """Return the averaged model.

    Args:
        steps: of the optimizer.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = ScoreMLP(2, **SIZE)
    ring, generator = GaussianMixture.ring(), torch.Generator().manual_seed(SEED)
    sample = lambda rng: ring.sample(BATCH, rng)
    return train_score_model(model, sample, VPSchedule(), steps, lr=LR, ema=EMA, generator=generator)


def trained() -> ScoreMLP:
    """Return the stored model in evaluation mode.

    Raises:
        ValueError: the file is missing.
    """
    model = ScoreMLP(2, **SIZE)
    model.load_state_dict(load(NAME)[0])
    return model.eval().requires_grad_(False)


def main() -> None:
    """Train and store the model.

    One thread; about two minutes.
    """
    torch.set_num_threads(1)
    settings = {"seed": SEED, "steps": STEPS, "batch": BATCH, "ema": EMA, "lr": LR, **SIZE}
    save(NAME, train(STEPS).state_dict(), made_with=settings)


if __name__ == "__main__":
    main()
