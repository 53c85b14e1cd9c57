"""A small velocity network, its training on pairs, and rounds of reflow."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kexue_lib._arguments import check_integer, check_number
from kexue_lib.generative.reflow_wgan._flow import flow_matching_loss, make_reflow_pairs
from kexue_lib.mlp import mlp


class VelocityMLP(nn.Module):
    """Velocity v(x, t) as a perceptron with SiLU of x and t side by side.

    Args:
        dim: width d of the points.
        width: of the hidden layers (default 64).
        depth: number of hidden layers, at least 1 (default 3).
        generator: source of the initial weights.

    Raises:
        TypeError, ValueError: a size that is no integer of at least 1.

    >>> VelocityMLP(2)(torch.zeros(5, 2), torch.zeros(5)).shape
    torch.Size([5, 2])
    """

    def __init__(self, dim: int, width: int = 64, depth: int = 3, *, generator: torch.Generator | None = None):
        super().__init__()
        for name, size in (("dim", dim), ("width", width), ("depth", depth)):
            check_integer(name, size, 1)
        self.net = mlp([dim + 1, *[width] * depth, dim], activation=nn.SiLU, generator=generator)

    def forward(self, x: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Velocities (B, d) at points (B, d) and times (B,)."""
        return self.net(torch.cat([x, t[:, None]], 1))


def train_rectified_flow(
    model: nn.Module,
    sample_pairs: Callable[[torch.Generator], tuple[Tensor, Tensor]],
    steps: int,
    *,
    lr: float = 2e-3,
    seed: int = 0,
) -> nn.Module:
    """Train a velocity by flow matching, with Adam and a rate that falls to 0 along a cosine.

    Args:
        model: v(x, t), trained in place.
        sample_pairs: generator ↦ (x0, x1), each (B, ...): independent draws for a first flow, pairs for a reflow.
        steps: optimizer steps, at least 1.
        lr: learning rate at the start (default 2e-3).
        seed: of pairs and times.

    Returns:
        The model.

    Raises:
        TypeError, ValueError: a number outside.

    The loop is `kexue_lib.training.fit`: it needs Accelerate, and runs on many processes under `torchrun`.

    >>> ones = lambda generator: (torch.randn(64, 1, generator=generator), torch.ones(64, 1))
    >>> model = VelocityMLP(1, 16, 1, generator=torch.Generator().manual_seed(0))
    >>> train_rectified_flow(model, ones, 5) is model
    True
    """
    check_integer("steps", steps, 1)
    check_number("lr", lr, above=0)
    from kexue_lib.training import fit, warmup_cosine  # only here: Accelerate is no dependency of the rest

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        x0, x1 = sample_pairs(generator)
        return x0, x1, torch.rand(x0.shape[0], dtype=x0.dtype, generator=generator)

    def loss(model: nn.Module, parts: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return flow_matching_loss(model, *parts).mean()

    def adam(parameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=lr)

    schedule = warmup_cosine(steps)
    options = {"schedule": schedule, "steps": steps, "seed": seed, "log_every": min(50, steps), "progress": False}
    return fit(model, loss, batch, optimizer=adam, **options).model


def reflow(
    model: nn.Module,
    sample_x0: Callable[[int, torch.Generator], Tensor],
    rounds: int,
    *,
    pairs: int = 20_000,
    ode_steps: int = 50,
    steps: int = 1000,
    batch_size: int = 512,
    lr: float = 2e-3,
    seed: int = 0,
) -> list[nn.Module]:
    """Straighten a flow: each round trains a copy of the last flow on pairs that the last flow made.

    Args:
        model: trained velocity v(x, t); stays as it is.
        sample_x0: n, generator ↦ n starts (n, ...).
        rounds: number of rounds, at least 1.
        pairs: pairs made in each round, at least batch_size (default 20 000).
        ode_steps: Heun steps along which they are made (default 50).
        steps: optimizer steps of a round (default 1000).
        batch_size: (default 512).
        lr: learning rate at the start of a round (default 2e-3).
        seed: of everything.

    Returns:
        The flows of all rounds, the 2-rectified one first.

    Raises:
        TypeError, ValueError: a number outside.

    Source: arXiv 2209.03003, algorithm 1.

    >>> flows = reflow(VelocityMLP(1, 8, 1), lambda n, g: torch.randn(n, 1, generator=g), 2, pairs=64, batch_size=8,
    ...                ode_steps=2, steps=2)
    >>> len(flows)
    2
    """
    sizes = (("rounds", rounds, 1), ("batch_size", batch_size, 1), ("pairs", pairs, batch_size))
    for name, value, least in sizes:
        check_integer(name, value, least)
    flows = []
    for number in range(rounds):
        start = sample_x0(pairs, torch.Generator().manual_seed(seed * rounds + number))
        x0, x1 = make_reflow_pairs(model, start, ode_steps)

        def draw(generator: torch.Generator, x0: Tensor = x0, x1: Tensor = x1) -> tuple[Tensor, Tensor]:
            chosen = torch.randint(pairs, (batch_size,), generator=generator)
            return x0[chosen], x1[chosen]

        model = train_rectified_flow(copy.deepcopy(model), draw, steps, lr=lr, seed=seed * rounds + number)
        flows.append(model)
    return flows
