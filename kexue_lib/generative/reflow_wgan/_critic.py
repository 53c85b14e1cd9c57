"""The critic of WGAN-GP, whose gradient is the velocity of a flow, and its training against a generator."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kexue_lib._arguments import check_integer, check_number
from kexue_lib.generative.reflow_wgan._flow import check_pair, drawn_times, interpolate

Critic = Callable[[Tensor], Tensor]


def gradient_penalty(
    critic: Critic,
    x0: Float[Tensor, "batch *rest"],
    x1: Float[Tensor, "batch *rest"],
    t: Float[Tensor, "..."] | None = None,
    *,
    center: float | int = 0.0,
    weight: float | int = 0.5,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " batch"]:
    r"""Penalty :math:`\lambda(\|\nabla D(x_t)\|-c)^2` on the segments between pairs.

    Args:
        critic: D(x), of shape (B,) or (B, 1) for x (B, ...); rows must not depend on one another.
        x0: generated samples (B, ...).
        x1: data, of the same shape and dtype.
        t: times (B,) in [0, 1]; None (default) draws them uniformly.
        center: c; 0 (default) is flow matching, 1 the original WGAN-GP.
        weight: λ, above 0 (default 1/2; the original has 10).
        generator: source of the times.

    Returns:
        Penalties (B,), with derivatives of the critic's parameters. Where ∇D = 0 the gradient is 0, not NaN.

    Raises:
        TypeError: integers, or different dtypes.
        ValueError: different shapes, a weight or time outside, a critic of another shape.

    Cost: one evaluation of the critic and its gradient, with the graph for another derivative.
    Source: arXiv 1704.00028, eq. 3.

    >>> x0, x1 = torch.zeros(2, 3), torch.ones(2, 3)
    >>> gradient_penalty(lambda x: x.sum(1), x0, x1, weight=0.5).tolist()
    [1.5, 1.5]
    """
    check_number("weight", weight, above=0, below=math.inf)
    check_number("center", center, above=-math.inf, below=math.inf)
    gradient = _gradient(critic, x0, x1, t, generator)
    squares = gradient.square().reshape(gradient.shape[0], math.prod(gradient.shape[1:])).sum(1)
    if center == 0:
        return weight * squares
    still = squares == 0  # the root has no derivative there; 0 is one of its subgradients
    norms = squares.masked_fill(still, 1).sqrt().masked_fill(still, 0)
    return weight * (norms - center).square()


def potential_matching_loss(
    critic: Critic,
    x0: Float[Tensor, "batch *rest"],
    x1: Float[Tensor, "batch *rest"],
    t: Float[Tensor, "..."] | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " batch"]:
    r"""Flow matching with a potential, :math:`\tfrac12\|\nabla D(x_t)\|^2-\langle\nabla D(x_t),x_1-x_0\rangle`.

    Up to :math:`\tfrac12\|x_1-x_0\|^2`, which no critic changes, it is `flow_matching_loss` of the velocity ∇D. For
    uniform times its mean is that of `critic_loss`.

    Args:
        critic: D(x), of shape (B,) or (B, 1) for x (B, ...); rows must not depend on one another.
        x0: starts (B, ...).
        x1: ends, of the same shape and dtype.
        t: times (B,) in [0, 1]; None (default) draws them uniformly.
        generator: source of the times.

    Returns:
        Losses (B,).

    Raises:
        TypeError, ValueError: as `gradient_penalty`.

    >>> x0, x1 = torch.zeros(2, 3), torch.ones(2, 3)
    >>> potential_matching_loss(lambda x: x.sum(1), x0, x1).tolist()
    [-1.5, -1.5]
    """
    gradient = _gradient(critic, x0, x1, t, generator)
    terms = gradient.square() / 2 - gradient * (x1 - x0)
    return terms.reshape(terms.shape[0], math.prod(terms.shape[1:])).sum(1)


def critic_loss(
    critic: Critic,
    x0: Float[Tensor, "batch *rest"],
    x1: Float[Tensor, "batch *rest"],
    t: Float[Tensor, "..."] | None = None,
    *,
    weight: float | int = 0.5,
    center: float | int = 0.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    r"""Critic's loss :math:`E[\lambda(\|\nabla D(x_t)\|-c)^2-D(x_1)+D(x_0)]` of WGAN-GP, to be minimised.

    Args:
        critic: D(x), of shape (B,) or (B, 1) for x (B, ...); rows must not depend on one another.
        x0: generated samples (B, ...), detached.
        x1: data, of the same shape and dtype.
        t: times (B,) in [0, 1]; None (default) draws them uniformly.
        weight: λ, above 0 (default 1/2).
        center: c (default 0).
        generator: source of the times.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: as `gradient_penalty`; or no pairs.

    Cost: the critic on 3B points, and one gradient with its graph.
    Source: arXiv 1704.00028, eq. 3; article 9668.

    >>> round(critic_loss(lambda x: x.sum(1), torch.zeros(2, 3), torch.ones(2, 3)).item(), 4)
    -1.5
    """
    check_pair(x0, x1)
    batch = x0.shape[0]
    if batch == 0:
        raise ValueError("x0: got no pairs, expected at least one")
    values = _values(critic, torch.cat([x0, x1]))
    penalty = gradient_penalty(critic, x0, x1, t, center=center, weight=weight, generator=generator)
    return (penalty + values[:batch] - values[batch:]).mean()


class WGANTrainer:
    r"""Alternate the critic's loss with the generator's step on :math:`-E\,D(g(z))`, both with Adam.

    Args:
        generator: g, from latent codes (B, latent_dim) to samples (B, ...).
        critic: D, from samples to (B,) or (B, 1).
        sample_data: n ↦ n data points (n, ...).
        latent_dim: width of the normal latent codes.
        weight: λ of the penalty, above 0 (default 1/2).
        center: c of the penalty (default 0).
        critic_steps: critic's steps for each of the generator's (default 3).
        lr_g: generator's learning rate (default 1e-3).
        lr_d: critic's (default 2e-3).
        batch_size: (default 256).
        rng: source of latent codes and times.

    Raises:
        TypeError, ValueError: a number outside.

    >>> seeded = torch.Generator().manual_seed(0)
    >>> trainer = WGANTrainer(nn.Linear(2, 1), nn.Linear(1, 1), lambda n: torch.ones(n, 1), latent_dim=2, rng=seeded)
    >>> sorted(trainer.step())
    ['critic_loss', 'generator_loss', 'penalty']
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        sample_data: Callable[[int], Tensor],
        *,
        latent_dim: int,
        weight: float | int = 0.5,
        center: float | int = 0.0,
        critic_steps: int = 3,
        lr_g: float = 1e-3,
        lr_d: float = 2e-3,
        batch_size: int = 256,
        rng: torch.Generator | None = None,
    ):
        for name, number in (("weight", weight), ("lr_g", lr_g), ("lr_d", lr_d)):
            check_number(name, number, above=0, below=math.inf)
        check_number("center", center, above=-math.inf, below=math.inf)
        sizes = (("latent_dim", latent_dim), ("critic_steps", critic_steps), ("batch_size", batch_size))
        for name, integer in sizes:
            check_integer(name, integer, 1)
        self.generator, self.critic, self.sample_data = generator, critic, sample_data
        self.latent_dim, self.weight, self.center = latent_dim, weight, center
        self.critic_steps, self.batch_size, self.rng = critic_steps, batch_size, rng
        self.optimizer_g = torch.optim.Adam(generator.parameters(), lr=lr_g, betas=(0.0, 0.99))
        self.optimizer_d = torch.optim.Adam(critic.parameters(), lr=lr_d, betas=(0.0, 0.99))

    def sample(self, n: int) -> Tensor:
        """Draw n generated samples; gradients flow to the generator."""
        parameter = next(self.generator.parameters())
        options = {"dtype": parameter.dtype, "device": parameter.device}
        return self.generator(torch.randn(n, self.latent_dim, generator=self.rng, **options))

    def step(self) -> dict[str, Tensor]:
        """Take the critic's steps and one of the generator; return detached scalars without waiting for the device."""
        for _ in range(self.critic_steps):
            with torch.no_grad():
                fake = self.sample(self.batch_size)
            real = self.sample_data(self.batch_size)
            values = _values(self.critic, torch.cat([fake, real]))
            options = {"center": self.center, "weight": self.weight, "generator": self.rng}
            penalty = gradient_penalty(self.critic, fake, real, **options).mean()
            loss = penalty + values[: self.batch_size].mean() - values[self.batch_size :].mean()
            self.optimizer_d.zero_grad()
            loss.backward()
            self.optimizer_d.step()
        parameters = [p for p in self.critic.parameters() if p.requires_grad]
        for parameter in parameters:  # the generator's step needs no gradient of theirs
            parameter.requires_grad_(False)
        generator_loss = -_values(self.critic, self.sample(self.batch_size)).mean()
        self.optimizer_g.zero_grad()
        generator_loss.backward()
        self.optimizer_g.step()
        for parameter in parameters:
            parameter.requires_grad_(True)
        named = {"critic_loss": loss, "penalty": penalty, "generator_loss": generator_loss}
        return {name: value.detach() for name, value in named.items()}

    def fit(self, n: int) -> dict[str, Tensor]:
        """Take n steps; return the scalars of each, (n,)."""
        check_integer("n", n, 1)
        rows = [self.step() for _ in range(n)]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _values(critic: Critic, x: Tensor) -> Tensor:
    """The critic's values (B,)."""
    values = critic(x)
    if values.shape not in ((x.shape[0],), (x.shape[0], 1)):
        batch = x.shape[0]
        raise ValueError(f"critic: got output of shape {tuple(values.shape)}, expected ({batch},) or ({batch}, 1)")
    return values.reshape(x.shape[0])


def _gradient(critic: Critic, x0: Tensor, x1: Tensor, t: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """∇D at the interpolates, with its graph; rows are independent, so that one sum serves the whole batch."""
    check_pair(x0, x1)
    x = interpolate(x0, x1, drawn_times(x0, t, generator))
    with torch.enable_grad():
        x = x if x.requires_grad else x.requires_grad_()
        return torch.autograd.grad(_values(critic, x).sum(), x, create_graph=True)[0]
