"""Rectified flow beside torchdiffeq and bare forwards; the critic's step beside one written by hand.

Run: python -m benchmarks.generative.bench_reflow_wgan [--save]
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torchdiffeq
from torch import Tensor, nn

from benchmarks.measure import Report
from kexue_lib.generative import reflow_wgan as rw
from kexue_lib.mlp import mlp

STEPS, POINTS, BATCH = 50, 2048, 256


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def forwards(model: nn.Module, x: Tensor, count: int) -> Callable[[], None]:
    t = torch.full((x.shape[0],), 0.5)

    @torch.no_grad()
    def run() -> None:
        for _ in range(count):
            model(x, t)

    return run


def solvers(model: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    grid = torch.linspace(0, 1, STEPS + 1)
    field = lambda t, x: model(x, t.expand(x.shape[0]))
    options = {"perturb": False}

    def peer(method: str) -> Callable[[], object]:
        return torch.no_grad()(lambda: torchdiffeq.odeint(field, x, grid, method=method, options=options)[-1])

    ours = torch.no_grad()(lambda: rw.ode_solve(model, x, STEPS, method="rk4"))
    return {"ours, classical": ours, "torchdiffeq, 3/8 rule": peer("rk4")}


def straightness_from_two_paths(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """The ends from one path, the velocities from another."""

    @torch.no_grad()
    def run() -> Tensor:
        change = rw.ode_solve(model, x, STEPS, method="heun") - x
        path = rw.ode_solve(model, x, STEPS, method="heun", return_path=True)
        times = torch.linspace(0, 1, STEPS + 1)
        gaps = [(change - model(p, t.expand(len(p)))).square().sum(1).mean() for p, t in zip(path, times)]
        return torch.trapezoid(torch.stack(gaps), times)

    return run


def our_step(critic: nn.Module, fake: Tensor, real: Tensor) -> Callable[[], None]:
    optimizer, rng = torch.optim.Adam(critic.parameters(), 2e-3), seeded(3)

    def step() -> None:
        loss = rw.critic_loss(critic, fake, real, generator=rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def hand_written_step(critic: nn.Module, fake: Tensor, real: Tensor) -> Callable[[], None]:
    """As WGAN-GP's code is usually written: three forwards, a norm, ones as gradient of the output."""
    optimizer, rng = torch.optim.Adam(critic.parameters(), 2e-3), seeded(3)

    def step() -> None:
        t = torch.rand(len(fake), 1, generator=rng)
        x = ((1 - t) * fake + t * real).requires_grad_()
        values = critic(x)
        slope = torch.autograd.grad(values, x, torch.ones_like(values), create_graph=True, retain_graph=True)[0]
        penalty = 0.5 * (slope.norm(2, dim=1) ** 2).mean()
        loss = critic(fake).mean() - critic(real).mean() + penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    torch.set_num_threads(1)
    report = Report("Rectified flow and its critic", peers=("torchdiffeq",))
    model, x = rw.VelocityMLP(2, generator=seeded(0)), torch.randn(POINTS, 2, generator=seeded(1))
    title = f"{STEPS} steps, {POINTS} points, 64 × 3 network"
    for count in (16, POINTS):
        small = f"Runge–Kutta, {STEPS} steps, {count} points, 64 × 3 network"
        report.compare(small, solvers(model, x[:count]), baseline="torchdiffeq, 3/8 rule", rounds=31)
    report.compare(
        f"Pairs for a reflow by Euler, {title}",
        {
            "bare evaluations": forwards(model, x, STEPS),
            "make_reflow_pairs": lambda: rw.make_reflow_pairs(model, x, STEPS, "euler"),
        },
        baseline="bare evaluations",
        rounds=51,
    )
    report.compare(
        f"Straightness by Heun, {title}",
        {
            "two paths": straightness_from_two_paths(model, x),
            "one path": torch.no_grad()(lambda: rw.straightness(model, x, STEPS)),
        },
        baseline="two paths",
        rounds=31,
    )
    critic = mlp([2, 64, 64, 1], activation=nn.SiLU, generator=seeded(2))
    pair = torch.randn(BATCH, 2, generator=seeded(4)), torch.randn(BATCH, 2, generator=seeded(5))
    report.compare(
        f"A critic's step, {BATCH} pairs, 64 × 2 network",
        {"by hand": hand_written_step(copy.deepcopy(critic), *pair), "critic_loss": our_step(critic, *pair)},
        baseline="by hand",
        rounds=201,
    )
    report.finish("generative/reflow_wgan")


if __name__ == "__main__":
    main()
