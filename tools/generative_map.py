"""One ring of eight Gaussians, and the ways of the part to carry samples to it; drawn by ``draw_part_maps.py``."""

from __future__ import annotations

from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from map_layout import BLUE, ORANGE
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from kexue_lib.generative.gan_flow import discriminator_loss, flow_velocity, particle_flow
from kexue_lib.generative.reflow_wgan import mixture_velocity, ode_solve
from kexue_lib.generative.score_matching import GaussianMixture, VPSchedule, probability_flow_sample
from kexue_lib.mlp import mlp

COUNT = 48
RING = GaussianMixture.ring(std=0.2)


def generative() -> Figure:
    """Return the four ways: along the score, along a discriminator, along a velocity, and straight."""
    figure, axes = plt.subplots(2, 2, figsize=(7.0, 7.6), sharex=True, sharey=True, layout="constrained")
    flow = along_velocity()
    ways = {
        "Score matching\nnoise is denoised along the scores": along_scores(),
        "GAN flow\na discriminator pulls": along_discriminator(),
        "Rectified flow\nmean of the lines to the data": flow,
        "Reflow\nthe same ends, joined straight": flow[[0, -1]],
    }
    data = RING.sample(600, generator=torch.Generator().manual_seed(1))
    for ax, (title, path) in zip(axes.flat, ways.items(), strict=True):
        draw(ax, title, path, data)
    return figure


def draw(ax: Axes, title: str, path: Tensor, data: Tensor) -> None:
    """Data in grey, the path of each sample, its end."""
    ax.scatter(*data.T, s=4, color="0.82", zorder=0)
    for one in path.unbind(1):
        ax.plot(*one.T, color=BLUE, ls="-", lw=0.7, alpha=0.8)
    ax.scatter(*path[-1].T, s=12, color=ORANGE, zorder=3)
    ax.set_title(title, fontsize=12, loc="left")
    ax.set(xticks=[], yticks=[], aspect="equal", xlim=(-3.1, 3.1), ylim=(-3.1, 3.1))
    ax.grid(visible=False)


def noise(scale: float = 1.0) -> Tensor:
    """The same normal draws for every way."""
    return scale * torch.randn(COUNT, 2, generator=torch.Generator().manual_seed(0))


def along_scores() -> Tensor:
    """The probability-flow ODE of the exact mixture, from t = 1 to data."""
    schedule = VPSchedule()
    times = torch.linspace(1, 1e-3, 120)

    def score(x: Tensor, t: Tensor) -> Tensor:
        return RING.diffuse(schedule.alpha(t[0]), schedule.sigma(t[0])).score(x)

    path = [noise()]
    for pair in pairwise(times):
        path.append(probability_flow_sample(score, path[-1], schedule, torch.stack(pair)))
    return torch.stack(path)


def along_discriminator() -> Tensor:
    """Particles pulled by a discriminator that learns beside them; the first of many are shown."""
    net = mlp([2, 64, 64, 1], activation=nn.SiLU, generator=torch.Generator().manual_seed(0))
    adam = torch.optim.Adam(net.parameters(), 2e-3, (0.5, 0.99))
    draws = torch.Generator().manual_seed(2)

    def blurred(x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn(x.shape, generator=draws)

    def velocity(x: Tensor, step: int) -> Tensor:
        for _ in range(5 if step else 50):
            with torch.enable_grad():
                loss = discriminator_loss(net(blurred(RING.sample(512, generator=draws))), net(blurred(x)))
            adam.zero_grad()
            loss.backward()
            adam.step()
        return flow_velocity(net, x, "non_saturating")

    start = torch.cat([noise(0.5), 0.5 * torch.randn(464, 2, generator=draws)])
    return particle_flow(start, velocity, 0.05, 200, record_every=2)[1][:, :COUNT]


def along_velocity() -> Tensor:
    """The rectified flow of independent pairs, exact."""
    return ode_solve(lambda x, t: mixture_velocity(x, t, RING), noise(), 200, return_path=True)
