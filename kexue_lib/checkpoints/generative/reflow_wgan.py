"""Rectified flows to the ring of eight Gaussians, straightened twice, and WGAN-GP on it with four penalties.

Run by ``python -m kexue_lib.checkpoints.generative.reflow_wgan`` with one thread, about twelve minutes. Within a seed
all flows share their starts and the data they are judged by, so that differences are paired. Two controls go with them:
the second flow trained on with the pairs it has, as long as a third round, and first flows with four times the steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from kexue_lib.checkpoints import rounded, save
from kexue_lib.generative import reflow_wgan as rw
from kexue_lib.generative.sample_quality import energy_distance, modes_found
from kexue_lib.generative.score_matching import GaussianMixture
from kexue_lib.mlp import mlp

__all__ = ["EULER_STEPS", "LONG_STEPS", "PENALTIES", "RATES", "SEEDS", "STD", "main"]

SEEDS = range(5)
LONG_STEPS = 6000
EULER_STEPS = (1, 2, 4, 100)
STD = 0.15
PENALTIES = ((0.0, 0.5), (0.0, 10.0), (1.0, 0.5), (1.0, 10.0))  # centre and weight
RATES = (1e-3, 3e-4)  # of the generator; the critic has twice as much
POINTS, BATCH, STEPS, ROUNDS = 4000, 512, 1500, 600
PAIRS, PAIR_STEPS, REFLOW_STEPS = 20_000, 50, 1000


def _seeded(seed: int) -> torch.Generator:
    """A generator with a seed."""
    return torch.Generator().manual_seed(seed)


def _optimally_paired(x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """Reorder the ends so that the sum of squared distances is least: a permutation, by SciPy's assignment."""
    _, order = linear_sum_assignment(torch.cdist(x0, x1).square().numpy())
    return x0, x1[torch.from_numpy(order)]


def _first_flow(seed: int, *, paired: bool = False, steps: int = STEPS) -> nn.Module:
    """Train a rectified flow from N(0, I) to the ring.

    Args:
        seed: of weights, pairs and times.
        paired: whether each batch is paired optimally instead of independently.
        steps: optimizer steps.
    """
    ring = GaussianMixture.ring(std=STD)

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        size = 256 if paired else BATCH
        pair = torch.randn(size, 2, generator=generator), ring.sample(size, generator)
        return _optimally_paired(*pair) if paired else pair

    return rw.train_rectified_flow(rw.VelocityMLP(2, generator=_seeded(seed)), draw, steps, seed=seed)


@torch.no_grad()
def _judged(velocity: Callable[[Tensor, Tensor], Tensor], start: Tensor, data: Tensor) -> dict[str, object]:
    """Energy distance after each number of Euler steps, straightness, and squared transport cost."""
    ends = {steps: rw.ode_solve(velocity, start, steps) for steps in EULER_STEPS}
    return {
        "energy": [energy_distance(end, data).item() for end in ends.values()],
        "straightness": rw.straightness(velocity, start).item(),
        "cost": rw.transport_cost(start, ends[EULER_STEPS[-1]]).item(),
    }


def _normal(n: int, generator: torch.Generator) -> Tensor:
    """Noise in the plane."""
    return torch.randn(n, 2, generator=generator)


def _straightened(first: nn.Module, rounds: int, seed: int) -> list[nn.Module]:
    """Rounds of reflow."""
    options = {"pairs": PAIRS, "ode_steps": PAIR_STEPS, "steps": REFLOW_STEPS, "batch_size": BATCH, "seed": seed}
    return rw.reflow(first, _normal, rounds, **options)


def _trained_on(first: nn.Module, second: nn.Module, seed: int) -> nn.Module:
    """Control for the third round: as many steps from the second flow, on the pairs that the second round had.

    The seeds are those of `kexue_lib.generative.reflow_wgan.reflow` with two rounds: pairs of the first, batches and
    times of the second.
    """
    x0, x1 = rw.make_reflow_pairs(first, _normal(PAIRS, _seeded(2 * seed)), PAIR_STEPS)

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(PAIRS, (BATCH,), generator=generator)
        return x0[chosen], x1[chosen]

    return rw.train_rectified_flow(copy.deepcopy(second), draw, REFLOW_STEPS, seed=2 * seed + 1)


def _judges(seed: int) -> tuple[Tensor, Tensor]:
    """Starts and data that all flows of a seed share."""
    return _normal(POINTS, _seeded(1000 + seed)), GaussianMixture.ring(std=STD).sample(POINTS, _seeded(2000 + seed))


def _long_flows(seed: int) -> dict[str, object]:
    """A first flow with LONG_STEPS steps, and the second one that is made from it."""
    first = _first_flow(seed, steps=LONG_STEPS)
    models = [first, *_straightened(first, 1, seed)]
    return {f"{k}-rectified": _judged(model, *_judges(seed)) for k, model in enumerate(models, 1)}


def _flows(seed: int) -> dict[str, object]:
    """All flows of a seed, and the floor: fresh data against the same data."""
    ring = GaussianMixture.ring(std=STD)
    start, data = _judges(seed)
    fresh = ring.sample(POINTS, _seeded(3000 + seed))
    first = _first_flow(seed)
    models = [first, *_straightened(first, 2, seed)]
    velocities = {f"{k}-rectified": model for k, model in enumerate(models, 1)}
    velocities |= {"2-rectified + 1000 steps": _trained_on(first, models[1], seed)}
    velocities |= {"optimal batches": _first_flow(seed, paired=True)}
    velocities |= {"exact": lambda x, t: rw.mixture_velocity(x, t, ring)}
    rows: dict[str, object] = {name: _judged(velocity, start, data) for name, velocity in velocities.items()}
    return rows | {"floor": energy_distance(fresh, data).item()}


def _critics(center: float, weight: float, rate: float, seed: int) -> dict[str, float]:
    """Energy distance, modes found and share within three deviations, of a generator after its training."""
    ring, rng = GaussianMixture.ring(std=STD), _seeded(300 + seed)
    generator = mlp([8, 64, 64, 2], activation=nn.SiLU, generator=_seeded(100 + seed))
    critic = mlp([2, 64, 64, 1], activation=nn.SiLU, generator=_seeded(200 + seed))
    options = {"center": center, "weight": weight, "lr_g": rate, "lr_d": 2 * rate, "rng": rng}
    trainer = rw.WGANTrainer(generator, critic, lambda n: ring.sample(n, rng), latent_dim=8, **options)
    trainer.fit(ROUNDS)
    with torch.no_grad():
        fake = trainer.sample(POINTS)
    data = ring.sample(POINTS, _seeded(2000 + seed))
    near = torch.cdist(fake, ring.means).amin(1) <= 3 * STD
    return {
        "energy": energy_distance(fake, data).item(),
        "modes": modes_found(fake, ring.means, radius=3 * STD),
        "near": near.float().mean().item(),
    }


def main() -> None:
    """Train everything and store the distances.

    One thread; about twelve minutes.
    """
    torch.set_num_threads(1)
    table: dict[str, list] = {"flows": [], "long": [_long_flows(seed) for seed in SEEDS], "critics": []}
    for seed in SEEDS:
        table["flows"].append(_flows(seed))
        print(seed, table["flows"][-1], flush=True)
    for rate in RATES:
        for center, weight in PENALTIES:
            runs = [_critics(center, weight, rate, seed) for seed in SEEDS]
            table["critics"].append({"center": center, "weight": weight, "rate": rate, "runs": runs})
            print(table["critics"][-1], flush=True)
    lengths = {"steps": STEPS, "long_steps": LONG_STEPS, "reflow_steps": REFLOW_STEPS, "rounds": ROUNDS}
    made_with = {"seed": [0, len(SEEDS) - 1], **lengths, "points": POINTS, "batch": BATCH}
    save("generative/reflow_wgan", rounded(table), made_with=made_with)


if __name__ == "__main__":
    main()
