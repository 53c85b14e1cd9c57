"""Rounds of a small GAN on the ring of eight Gaussians: which loss, how many steps of the generator, which rate.

Run by ``python -m kexue_lib.checkpoints.generative.gan_flow`` with one thread, about fifteen minutes. Every rate is
chosen on three seeds, and what it reaches is measured on eight others.
"""

from __future__ import annotations

from statistics import mean

import torch
from torch import nn

from kexue_lib.checkpoints import rounded, save
from kexue_lib.generative.gan_flow import GANFlowTrainer
from kexue_lib.generative.sample_quality import energy_distance, modes_found
from kexue_lib.generative.score_matching import GaussianMixture
from kexue_lib.mlp import mlp

__all__ = ["CHOOSING", "COMMON_RATE", "COMPARING", "RATES", "ROUNDS", "SAMPLES", "main", "reached", "trained"]

CHOOSING, COMPARING = range(3), range(3, 11)  # seeds
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # of the generator; the discriminator keeps 1e-3
COMMON_RATE = 1e-3
ROUNDS, D_STEPS, G_STEPS = 300, 3, 20
SAMPLES = 2000
STEP_SIZES = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
# Loss, steps of the generator a round, rounds, whether each step draws its own latents.
METHODS = {
    "adversarial, 1 step": ("adversarial", 1, ROUNDS, False),
    "regression, 1 step": ("regression", 1, ROUNDS, False),
    "adversarial, 20 steps": ("adversarial", G_STEPS, ROUNDS, False),
    "adversarial, 20 steps, own latents": ("adversarial", G_STEPS, ROUNDS, True),
    "regression, 20 steps": ("regression", G_STEPS, ROUNDS, False),
    "adversarial, 1 step, 5 × the rounds": ("adversarial", 1, 5 * ROUNDS, False),
}


def trained(seed: int, method: str, rate: float, step_size: float = 0.05) -> GANFlowTrainer:
    """Train one pair of networks on the ring.

    Args:
        seed: of networks, data and latents.
        method: a key of METHODS.
        rate: Adam's rate for the generator.
        step_size: ε of the regression.

    Returns:
        The trainer after its rounds.
    """
    mode, g_steps, rounds, own = METHODS[method]
    ring = GaussianMixture.ring(std=0.2)
    seeds = [torch.Generator().manual_seed(4 * seed + k) for k in range(4)]
    trainer = GANFlowTrainer(
        mlp([2, 64, 64, 2], activation=nn.SiLU, generator=seeds[0]),
        mlp([2, 64, 64, 1], activation=nn.SiLU, generator=seeds[1]),
        lambda n: ring.sample(n, generator=seeds[2]),
        latent_dim=2,
        mode=mode,
        step_size=step_size,
        d_steps=D_STEPS,
        g_steps=1 if own else g_steps,
        instance_noise=0.1,
        lr_g=rate,
        rng=seeds[3],
    )
    for _ in range(rounds):
        trainer.step()
        for _ in range(g_steps - 1 if own else 0):
            trainer.generator_step()
    return trainer


def reached(seed: int, method: str, rate: float, step_size: float = 0.05) -> tuple[float, int]:
    """Train, and return energy distance to fresh data and modes found.

    Args:
        seed: of networks, data and latents; the fresh data are the same for all.
        method: a key of METHODS.
        rate: Adam's rate for the generator.
        step_size: ε of the regression.
    """
    ring = GaussianMixture.ring(std=0.2)
    x = trained(seed, method, rate, step_size).sample(SAMPLES)
    fresh = ring.sample(SAMPLES, generator=torch.Generator().manual_seed(10**6))
    return energy_distance(x, fresh).item(), modes_found(x, ring.means, radius=0.6)


def main() -> None:
    """Choose the rates, compare the methods, vary the step of the regression, and store distances and modes.

    One thread; about fifteen minutes.
    """
    torch.set_num_threads(1)
    methods: dict[str, dict[str, object]] = {}
    for method in METHODS:
        sweep = [[reached(seed, method, rate)[0] for seed in CHOOSING] for rate in RATES]
        best = RATES[min(range(len(RATES)), key=lambda i: mean(sweep[i]))]
        runs = {f"{rate:g}": [reached(seed, method, rate) for seed in COMPARING] for rate in {best, COMMON_RATE}}
        methods[method] = {"rate": best, "sweep": rounded(sweep), "runs": rounded(runs)}
        print(method, best, methods[method], flush=True)
    name = "regression, 20 steps"
    rate = methods[name]["rate"]
    sweep = [[reached(seed, name, rate, step)[0] for seed in CHOOSING] for step in STEP_SIZES]
    best = STEP_SIZES[min(range(len(STEP_SIZES)), key=lambda i: mean(sweep[i]))]
    runs = [reached(seed, name, rate, best) for seed in COMPARING]
    rates = [[reached(seed, name, rate, best)[0] for seed in CHOOSING] for rate in RATES]
    steps = {"sizes": list(STEP_SIZES), "sweep": sweep, "best": best, "runs": runs, "sweep at best": rates}
    ring = GaussianMixture.ring(std=0.2)
    draws = [ring.sample(SAMPLES, generator=torch.Generator().manual_seed(10**6 + k)) for k in range(9)]
    floor = [energy_distance(draw, draws[0]).item() for draw in draws[1:]]
    made_with = {"seed": [CHOOSING[0], COMPARING[-1]], "steps": ROUNDS}
    content = {"methods": methods, "rates": list(RATES), "steps": rounded(steps), "floor": rounded(floor)}
    save("generative/gan_flow", content, made_with=made_with)


if __name__ == "__main__":
    main()
