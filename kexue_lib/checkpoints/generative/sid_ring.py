"""Score identity distillation on the ring of eight Gaussians: which loss, which λ, from which start.

Run by ``python -m kexue_lib.checkpoints.generative.sid_ring`` with one thread, about fifteen minutes.
"""

from __future__ import annotations

import copy
import math
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from kexue_lib.checkpoints import rounded, save
from kexue_lib.generative.sample_quality import energy_distance, modes_found
from kexue_lib.generative.score_identity_distillation import EDMNoise, PreconditionedDenoiser, SiDTrainer
from kexue_lib.generative.score_matching import GaussianMixture
from kexue_lib.mlp import mlp

__all__ = [
    "LOSSES",
    "NOISE",
    "RING",
    "ROUNDS",
    "SEEDS",
    "UNWEIGHTED",
    "Start",
    "distilled",
    "main",
    "multi_step",
    "teacher",
]

RING = GaussianMixture.ring()
NOISE = EDMNoise(sigma_min=0.05, sigma_max=5.0)
SPREAD = math.sqrt(RING.covariance().trace().item() / 2)  # σ_d of EDM
SEEDS, ROUNDS, SAMPLES, WIDTH = range(4), 1500, 2000, 128
TEACHER_STEPS = 8000
LOSSES = {
    "L1": ("l1", 1.0),
    "L3": ("l3", 1.0),
    "distribution matching": ("vsd", 1.0),
    **{f"SiD, λ = {lam:g}": ("sid", lam) for lam in (0.0, 0.5, 1.0, 1.2, 1.5)},
}
UNWEIGHTED = ("SiD, λ = 0.5", "SiD, λ = 1", "SiD, λ = 1.2", "SiD, λ = 1.5")


class Net(nn.Module):
    """Network of a sample in the plane and a noise level; EDM's preconditioning is around it.

    Args:
        seed: of the initial weights.
        width: of the three hidden layers.
    """

    def __init__(self, seed: int, width: int = WIDTH):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.body = mlp([3, width, width, width, 2], activation=nn.SiLU, generator=generator)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """Map (B, 2) and (B,) to (B, 2)."""
        return self.body(torch.cat([x, c_noise[:, None]], 1))


class Start(nn.Module):
    """One-step generator: a denoiser at one noise level, which is how the paper starts.

    Args:
        denoiser: copied.
        level: σ at which it is asked, the deviation of the latents.
    """

    def __init__(self, denoiser: nn.Module, level: float = 2.5):
        super().__init__()
        self.denoiser, self.level = copy.deepcopy(denoiser), level

    def forward(self, z: Tensor) -> Tensor:
        """Map latents (B, 2) of deviation `level` to samples (B, 2)."""
        return self.denoiser(z, z.new_full(z.shape[:1], self.level))


@cache
@torch.enable_grad()
def teacher() -> PreconditionedDenoiser:
    """Train the teacher by denoising regression on samples of the ring.

    Adam with a cosine schedule, 8000 steps of batch 512; one thread, half a minute. The same network at each call.
    """
    denoiser = PreconditionedDenoiser(Net(0), SPREAD)
    adam = torch.optim.Adam(denoiser.parameters(), 2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, TEACHER_STEPS)
    draws = torch.Generator().manual_seed(0)
    for _ in range(TEACHER_STEPS):
        x0 = RING.sample(512, generator=draws)
        sigma = NOISE.sigma(torch.rand(512, generator=draws))
        x = x0 + sigma[:, None] * torch.randn(512, 2, generator=draws)
        weight = sigma**-2 + SPREAD**-2
        adam.zero_grad()
        (weight * (denoiser(x, sigma) - x0).square().sum(1)).mean().backward()
        adam.step()
        schedule.step()
    return denoiser


def distilled(seed: int, loss: str, start: str, rounds: int = ROUNDS, *, weighting: str = "sid") -> SiDTrainer:
    """Distil the teacher.

    Args:
        seed: of latents, noise and, for the random start, of the generator.
        loss: a key of LOSSES.
        start: "teacher" (generator and student are copies) or "random" (both are new networks).
        rounds: rounds of two student steps and one generator step.
        weighting: of the generator's loss, as :class:`SiDTrainer` has it.

    Returns:
        The trainer.
    """
    name, lam = LOSSES[loss]
    first = teacher() if start == "teacher" else PreconditionedDenoiser(Net(100 + seed), SPREAD)
    trainer = SiDTrainer(
        teacher(),
        copy.deepcopy(first),
        Start(first),
        noise=NOISE,
        latent_shape=(2,),
        lam=lam,
        loss=name,
        student_steps=2,
        weighting=weighting,
        rng=torch.Generator().manual_seed(seed),
    )
    trainer.fit(rounds)
    return trainer


def quality(x: Tensor) -> tuple[float, int, float]:
    """Return energy distance to fresh data, modes found, share within three deviations of a mode.

    Args:
        x: samples (n, 2).

    Returns:
        Distance, modes, share; 1e9 and zeros where samples are not finite.
    """
    if not x.isfinite().all():
        return 1e9, 0, 0.0
    fresh = RING.sample(SAMPLES, generator=torch.Generator().manual_seed(10**6))
    near = torch.cdist(x, RING.means).amin(1) < 0.45
    return energy_distance(x, fresh).item(), modes_found(x, RING.means, radius=0.45), near.float().mean().item()


def multi_step(steps: int, seed: int = 0) -> Tensor:
    """Sample the teacher along its probability-flow ODE by Euler steps in σ (DDIM).

    Args:
        steps: evaluations of the teacher.
        seed: of the noise.

    Returns:
        Samples (2000, 2).
    """
    levels = NOISE.sigma(torch.linspace(1, 0, steps)) if steps > 1 else torch.tensor([NOISE.sigma_max])
    levels = torch.cat([levels, torch.zeros(1)])
    x = levels[0] * torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for level, following in pairwise(levels):
            denoised = teacher()(x, level.expand(SAMPLES))
            x = denoised + following / level * (x - denoised)
    return x


def references() -> dict[str, object]:
    """Return what the losses are compared with: the teacher's sampler, the start, data, and two pictures of samples.

    The pictures are 600 samples of the generator before distillation and after it with λ = 1; about two minutes.
    """
    draws = torch.Generator().manual_seed(1)
    latents = 2.5 * torch.randn(len(SEEDS), SAMPLES, 2, generator=draws)
    with torch.no_grad():
        start = [Start(teacher())(z) for z in latents]
    after = distilled(0, "SiD, λ = 1", "teacher").sample(600)
    return {
        "teacher": {str(n): [quality(multi_step(n, s)) for s in SEEDS] for n in (1, 2, 4, 8, 16, 50)},
        "start": [quality(x) for x in start],
        "floor": [quality(RING.sample(SAMPLES, generator=torch.Generator().manual_seed(s))) for s in SEEDS],
        "pictures": rounded({"before": start[0][:600], "after": after}, 4),
    }


def main() -> None:
    """Run every loss from both starts and the teacher's sampler, and store what they reach.

    One thread; about fifteen minutes.
    """
    torch.set_num_threads(1)
    rows = {}
    for start in ("teacher", "random"):
        for loss in LOSSES:
            rows[f"{start}; {loss}"] = [quality(distilled(s, loss, start).sample(SAMPLES)) for s in SEEDS]
            print(start, loss, rows[f"{start}; {loss}"], flush=True)
        for loss in UNWEIGHTED:
            runs = [distilled(s, loss, start, weighting="none").sample(SAMPLES) for s in SEEDS]
            rows[f"{start}; {loss}, no weight"] = [quality(x) for x in runs]
    save("generative/sid_ring", rounded({"rows": rows, **references()}), made_with={"seed": [0, 3], "steps": ROUNDS})


if __name__ == "__main__":
    main()
