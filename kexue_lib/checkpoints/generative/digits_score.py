"""A score model of the 8×8 digits for score_matching: a residual MLP with 454 464 weights, averaged along training.

Run by ``python -m kexue_lib.checkpoints.generative.digits_score`` with one thread, about six minutes. It sees the 1400
training images of ``kexue_lib.data.digits`` in [−1, 1] and none of the 397 held-out ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kexue_lib.checkpoints import load, save
from kexue_lib.data import digits, minibatches
from kexue_lib.generative.score_matching import (
    ScoreMLP,
    VPSchedule,
    denoising_score_matching_loss,
    train_score_model,
)

__all__ = ["BATCH", "EMA", "LR", "NAME", "SEED", "STEPS", "main", "noise_loss", "train", "trained"]

NAME, SEED = "generative/digits_score", 0
STEPS, BATCH, EMA, LR = 20_000, 256, 0.999, 1e-3
SIZE = {"width": 256, "depth": 3}


def train(sample: Callable[[torch.Generator], Tensor]) -> ScoreMLP:
    """Return the averaged model after all steps.

    Args:
        sample: draws a batch of images (BATCH, 64) from a generator.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = ScoreMLP(64, **SIZE)
    generator = torch.Generator().manual_seed(SEED)
    return train_score_model(model, sample, VPSchedule(), STEPS, lr=LR, ema=EMA, generator=generator)


def trained() -> ScoreMLP:
    """Return the stored model in evaluation mode.

    Raises:
        ValueError: the file is missing.
    """
    model = ScoreMLP(64, **SIZE)
    model.load_state_dict(load(NAME)[0])
    return model.eval().requires_grad_(False)


@torch.no_grad()
def noise_loss(model: ScoreMLP, x0: Tensor, draws: int = 20) -> float:
    """Return the loss in ε per pixel at uniform times, the same times and noise for every model.

    Args:
        model: a score model.
        x0: images (n, 64).
        draws: times and noises for each image.
    """
    generator, schedule = torch.Generator().manual_seed(1), VPSchedule()
    x0 = x0.repeat(draws, 1)
    t = schedule.t_min + (schedule.t_max - schedule.t_min) * torch.rand(len(x0), generator=generator)
    return denoising_score_matching_loss(model, x0, t, schedule, generator=generator).mean().item() / x0.shape[1]


def main() -> None:
    """Train and store the model.

    One thread; about six minutes.
    """
    torch.set_num_threads(1)
    data = digits(scale="symmetric")
    batches = minibatches(data.x_train, batch_size=BATCH)
    model = train(lambda generator: batches(generator)[0])
    measured = {"loss_seen": noise_loss(model, data.x_train), "loss_unseen": noise_loss(model, data.x_test)}
    print(measured, flush=True)
    settings = {"seed": SEED, "steps": STEPS, "batch": BATCH, "ema": EMA, "lr": LR, **SIZE}
    split = "the 1400 training images of kexue_lib.data.digits"
    save(NAME, model.state_dict(), made_with={**settings, "saw": split, **measured})


if __name__ == "__main__":
    main()
