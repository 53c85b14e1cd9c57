"""Alternating training, the generator by the adversarial loss or by regression on one step of the flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from kexue_lib._arguments import check_integer, check_number, check_one_of
from kexue_lib.generative.gan_flow._flow import Word, flow_regression_loss, flow_target
from kexue_lib.generative.gan_flow._losses import TRANSFORMS, discriminator_loss, generator_loss


class GANFlowTrainer:
    r"""Train a generator and a logistic discriminator in turns (Adam, β = (0.5, 0.99)).

    A round takes `d_steps` steps of the discriminator, then `g_steps` of the generator on one batch of latents.
    "adversarial" minimises :math:`-E\,h(D(g_\theta(z)))`; "regression" fixes the targets
    :math:`g_\theta(z)+\varepsilon\nabla h(D)` once and regresses on them. With one step of the generator the two have
    the same gradient up to the factor 2ε; with more, regression stops at its targets, the adversarial loss goes on to
    where D is largest.

    Args:
        generator: maps latents (B, latent_dim) to samples (B, …).
        discriminator: maps samples to logits (B,) or (B, 1).
        sample_data: n to n samples of the data.
        latent_dim: width of the latents, standard normal.
        mode: "adversarial" (default) or "regression".
        transform: h, one of the words of :func:`kexue_lib.generative.gan_flow.transform`.
        step_size: ε > 0 of the regression (default 0.05).
        d_steps: steps of the discriminator a round, at least 1.
        g_steps: steps of the generator a round, at least 1.
        instance_noise: deviation of Gaussian noise on everything that the discriminator sees, at least 0 (default 0).
        lr_g: Adam's rate for the generator, above 0.
        lr_d: Adam's rate for the discriminator, above 0.
        batch_size: samples a step, at least 1.
        rng: source of latents and noise.

    Raises:
        TypeError: a number is none.
        ValueError: a number or a word outside, a generator without parameters.

    Cost: a round is d_steps forward and backward passes of D on 2B samples, and for the generator g_steps passes of g
    and, in regression, one of D in all instead of one a step.
    Source: Goodfellow et al., arXiv 1406.2661; Su Jianlin, https://kexue.fm/archives/9662.

    >>> net = lambda: torch.nn.Linear(1, 1)
    >>> trainer = GANFlowTrainer(net(), net(), lambda n: torch.zeros(n, 1), latent_dim=1, mode="regression")
    >>> sorted(trainer.step())
    ['discriminator_loss', 'generator_loss']
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        sample_data: Callable[[int], Tensor],
        *,
        latent_dim: int,
        mode: Literal["adversarial", "regression"] = "adversarial",
        transform: Literal["linear", "exp", "saturating", "non_saturating"] = "non_saturating",
        step_size: float = 0.05,
        d_steps: int = 1,
        g_steps: int = 1,
        instance_noise: float = 0.0,
        lr_g: float = 1e-3,
        lr_d: float = 1e-3,
        batch_size: int = 256,
        rng: torch.Generator | None = None,
    ):
        counts = {"latent_dim": latent_dim, "d_steps": d_steps, "g_steps": g_steps, "batch_size": batch_size}
        for name, value in counts.items():
            check_integer(name, value, 1)
        for name, value in (("step_size", step_size), ("lr_g", lr_g), ("lr_d", lr_d)):
            check_number(name, value, above=0, below=math.inf)
        check_number("instance_noise", instance_noise, least=0, below=math.inf)
        check_one_of("mode", mode, ("adversarial", "regression"))
        check_one_of("transform", transform, tuple(TRANSFORMS))
        self.generator, self.discriminator, self.sample_data = generator, discriminator, sample_data
        self.latent_dim, self.mode, self.step_size = latent_dim, mode, step_size
        self.transform: Word = transform
        self.d_steps, self.g_steps, self.instance_noise = d_steps, g_steps, instance_noise
        self.batch_size, self.rng = batch_size, rng
        self._weights = list(generator.parameters())
        if not self._weights:
            raise ValueError("generator: got a module without parameters, expected something to train")
        first = self._weights[0]
        self._options = {"dtype": first.dtype, "device": first.device}
        fused = {"betas": (0.5, 0.99), "fused": first.device.type in ("cpu", "cuda")}
        self.optimizer_g = torch.optim.Adam(self._weights, lr=lr_g, **fused)
        self.optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=lr_d, **fused)

    def sample(self, n: int) -> Tensor:
        """Draw n samples of the generator, without a graph."""
        check_integer("n", n, 0)
        with torch.no_grad():
            return self.generator(self._latents(n))

    def _latents(self, n: int) -> Tensor:
        return torch.randn(n, self.latent_dim, generator=self.rng, **self._options)

    def _noise_like(self, x: Tensor) -> Tensor | float:
        if not self.instance_noise:
            return 0.0
        options = {"dtype": x.dtype, "device": x.device}
        return self.instance_noise * torch.randn(x.shape, generator=self.rng, **options)

    def discriminator_step(self) -> Tensor:
        """One step of the discriminator on fresh data and samples; its loss, detached."""
        real, fake = self.sample_data(self.batch_size), self.sample(self.batch_size)
        real, fake = real + self._noise_like(real), fake + self._noise_like(fake)
        # One pass over both halves costs less than two; networks that mix samples are excluded anyway.
        logits = self.discriminator(torch.cat([real, fake])).reshape(-1)
        loss = discriminator_loss(*logits.split([len(real), len(fake)]))
        self.optimizer_d.zero_grad()
        loss.backward()
        self.optimizer_d.step()
        return loss.detach()

    def generator_step(self) -> Tensor:
        """The generator's `g_steps` steps on one batch of latents; the loss of the first, detached."""
        latents, first, target = self._latents(self.batch_size), None, None
        for _ in range(self.g_steps):
            x = self.generator(latents)
            if first is None:
                noise = self._noise_like(x.detach())
            if self.mode == "adversarial":
                loss = generator_loss(self.discriminator(x + noise).reshape(-1), self.transform)
            else:
                if target is None:
                    target = flow_target(x + noise, self.discriminator, self.step_size, self.transform) - noise
                loss = flow_regression_loss(x, target)
            self.optimizer_g.zero_grad()
            loss.backward(inputs=self._weights)  # the discriminator's weights need no gradient here
            self.optimizer_g.step()
            first = loss.detach() if first is None else first
        assert first is not None  # g_steps is 1 at least
        return first

    def step(self) -> dict[str, Tensor]:
        """One round; the losses of its last discriminator step and its first generator step, detached."""
        for _ in range(self.d_steps):
            loss = self.discriminator_step()
        return {"discriminator_loss": loss, "generator_loss": self.generator_step()}

    def fit(self, n: int) -> list[dict[str, Tensor]]:
        """Run n rounds; what :meth:`step` returns of each."""
        check_integer("n", n, 0)
        return [self.step() for _ in range(n)]
