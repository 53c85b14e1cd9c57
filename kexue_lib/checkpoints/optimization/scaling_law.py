"""Parity networks that learn tasks by frequency: along the steps, from finite data, and at several widths.

Run by ``python -m kexue_lib.checkpoints.optimization.scaling_law`` with one thread, about ten minutes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kexue_lib.checkpoints import save
from kexue_lib.optimization.scaling_law import MultitaskSparseParity, ParityEnsemble, ParityMLP, train_parity

__all__ = ["SAMPLES", "SEEDS", "WIDTHS", "along_steps", "from_samples", "main", "of_widths"]

SEEDS = (0, 1, 2)
LAWS = {"0.4": 0.4, "0.8": 0.8, "uniform": None}
SAMPLES = (1_000, 3_000, 10_000, 30_000, 100_000)
WIDTHS = (4, 8, 16, 32, 64, 128)


def along_steps(gamma: float | None, seed: int) -> tuple[Tensor, Tensor]:
    """Return steps and losses ``(S, 64)`` of 64 tasks, each from 3 of 16 bits, fresh samples at every step.

    Args:
        gamma: exponent of the frequencies; None makes all tasks equally frequent.
        seed: of tasks, weights and batches.
    """
    generator = torch.Generator().manual_seed(seed)
    dataset = MultitaskSparseParity(64, 16, 3, gamma or 1.0, generator=generator)
    if gamma is None:
        dataset.frequencies = torch.full((64,), 1 / 64, dtype=torch.float64)
    model = ParityMLP(64, 16, 128, generator=generator)
    trace = train_parity(dataset, model, steps=10_000, batch_size=1024, log_every=50, generator=generator)
    return trace.steps, trace.task_loss


def from_samples(D: int, seed: int) -> Tensor:
    """Return losses ``(S, 32)`` of 32 tasks, each from 2 of 12 bits, trained on D fixed samples for 4000 steps.

    Args:
        D: number of samples.
        seed: of tasks, weights and batches.
    """
    generator = torch.Generator().manual_seed(seed)
    dataset = MultitaskSparseParity(32, 12, 2, 0.4, generator=generator)
    model = ParityMLP(32, 12, 128, generator=generator)
    return train_parity(dataset, model, steps=4_000, batch_size=1024, D=D, log_every=50, generator=generator).task_loss


def of_widths(seed: int) -> Tensor:
    """Return losses ``(S, widths, 32)`` of the same 32 tasks at each width, fresh samples for 20 000 steps.

    Args:
        seed: of tasks, weights and batches; all widths see the same batches.
    """
    generator = torch.Generator().manual_seed(seed)
    dataset = MultitaskSparseParity(32, 12, 2, 0.4, generator=generator)
    model = ParityEnsemble(32, 12, WIDTHS, generator=generator)
    return train_parity(dataset, model, steps=20_000, batch_size=1024, log_every=500, generator=generator).task_loss


def main() -> None:
    """Train, test and store everything.

    One thread; about ten minutes.
    """
    torch.set_num_threads(1)
    content: dict[str, Tensor] = {}
    for name, gamma in LAWS.items():
        runs = [along_steps(gamma, seed) for seed in SEEDS]
        content["steps"], content[f"steps/{name}"] = runs[0][0].float(), torch.stack([r[1] for r in runs]).half()
        print(name, (content[f"steps/{name}"][:, -1] < 0.3).sum(-1).tolist(), flush=True)
    for D in SAMPLES:
        content[f"samples/{D}"] = torch.stack([from_samples(D, seed) for seed in SEEDS]).half()
        print(D, content[f"samples/{D}"].float().mean(-1).amin(1).tolist(), flush=True)
    content["widths"] = torch.stack([of_widths(seed) for seed in SEEDS]).half()
    print((content["widths"][:, -1] < 0.3).sum(-1).tolist(), flush=True)
    steps = {"steps": 10_000, "samples": 4_000, "widths": 20_000}
    sizes = {"samples": list(SAMPLES), "widths": list(WIDTHS), "batch": 1024}
    save("optimization/scaling_law", content, made_with={"seed": list(SEEDS), "steps": steps, "rate": 1e-2, **sizes})


if __name__ == "__main__":
    main()
