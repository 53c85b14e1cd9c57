"""A round of distillation beside its network passes.

Run: python -m benchmarks.generative.bench_score_identity_distillation [--save]
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from benchmarks.measure import Report
from kexue_lib.generative.score_identity_distillation import EDMNoise, PreconditionedDenoiser, SiDTrainer
from kexue_lib.mlp import mlp

BATCH, DIM, WIDTH = 256, 64, 512


class Net(nn.Module):
    """A network of the size of the digits' teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp([DIM + 1, WIDTH, WIDTH, WIDTH, DIM], activation=nn.SiLU)

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
        return self.body(torch.cat([x, c_noise[:, None]], 1))


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("A round of score identity distillation")
    teacher = PreconditionedDenoiser(Net(), 0.5)
    generator = mlp([DIM, WIDTH, WIDTH, WIDTH, DIM], activation=nn.SiLU)
    trainer = SiDTrainer(
        teacher, copy.deepcopy(teacher), generator, noise=EDMNoise(), latent_shape=(DIM,), batch_size=BATCH
    )
    x, sigma = torch.randn(BATCH, DIM), torch.ones(BATCH)
    student, weights = trainer.student, list(generator.parameters())

    def passes() -> None:
        """What no trainer can do without: the student's step, then all three networks forward and back."""
        with torch.no_grad():
            generator(x)
        torch.autograd.grad(student(x, sigma).sum(), list(student.parameters()))
        made = generator(x)
        torch.autograd.grad((teacher(made, sigma) + student(made, sigma)).sum(), weights)

    def updates() -> None:
        passes()
        trainer.optimizer_student.step()
        trainer.optimizer_generator.step()

    title = f"A round, one student step, networks of width {WIDTH} on {DIM} numbers, batch {BATCH}, float32"
    trainer.step()
    ways = {"SiDTrainer": trainer.step, "the network passes alone": passes, "passes and Adam": updates}
    report.compare(title, ways, baseline="SiDTrainer", rounds=41)
    report.finish("generative/score_identity_distillation")


if __name__ == "__main__":
    main()
