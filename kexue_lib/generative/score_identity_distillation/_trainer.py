"""Alternating distillation: the student learns to denoise what the generator makes, the generator follows a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kexue_lib._arguments import check_integer, check_number, check_one_of
from kexue_lib.generative.score_identity_distillation._losses import sid_loss_x0, sid_terms, sid_weight, x0_to_eps
from kexue_lib.generative.score_identity_distillation._networks import EDMNoise

LOSSES = ("sid", "fgm", "l1", "l3", "vsd")


class SiDTrainer:
    r"""Distil a teacher into a one-step generator without data and without the teacher's sampler.

    EDM's convention: :math:`x_t=x_0+\sigma\varepsilon`. A round takes `student_steps` steps of denoising regression of
    the student on fresh samples of the generator, weighted by :math:`1/\sigma^2+1/\sigma_d^2`, then one step of the
    generator on a loss in units of x₀. Gradients flow *through* teacher and student to
    the generator; their weights get none.

    Args:
        teacher: maps (x_t, σ) with σ (B,) to denoised samples, a network or a function; fixed.
        student: of the same kind, trained; usually begins as a copy of the teacher.
        generator: maps latents `sigma_init * z` (B, *latent_shape) to samples.
        noise: distribution of the noise levels.
        latent_shape: shape of one latent.
        lam: λ of the loss "sid" (default 1).
        student_steps: steps of the student a round, at least 1 (default 1).
        sigma_init: factor of the latents, above 0 (default 2.5).
        lr_student: Adam's rate of the student, above 0.
        lr_generator: Adam's rate of the generator, above 0.
        betas: Adam's, for both.
        ema: decay of the averaged generator, in [0, 1) (default 0.99).
        loss: "sid" (default), "fgm" (λ = ½, doubled), "l1" (the plain squared difference), "l3" (the third form of
            :class:`SiDTerms`) or "vsd" (the direction of distribution matching).
        weighting: "sid" (default, the paper's) divides by :func:`sid_weight`'s distance; "none" does not. The distance
            depends on the sample itself, not on x_t alone, so the identity behind the losses does not cover it: with
            few coordinates gradients can have the wrong sign, with many it is nearly constant.
        batch_size: samples a step, at least 1.
        tmax: u is drawn from [0, tmax/1000], 0 < tmax ≤ 1000 (default 800, as in the paper).
        rng: source of latents, noise and levels.

    Raises:
        TypeError: a number is none.
        ValueError: a number or a word outside, a generator without parameters.

    Cost: a round is student_steps forward and backward passes of the student and forward passes of the generator, then
    one forward and backward pass of teacher, student and generator.
    Source: Zhou et al., arXiv 2404.04057, algorithm 1.

    >>> identity = torch.nn.Linear(2, 2)
    >>> class Denoiser(torch.nn.Linear):
    ...     def forward(self, x, sigma):
    ...         return super().forward(x)
    >>> trainer = SiDTrainer(Denoiser(2, 2), Denoiser(2, 2), identity, noise=EDMNoise(), latent_shape=(2,))
    >>> sorted(trainer.step())
    ['generator_loss', 'student_loss']
    """

    def __init__(
        self,
        teacher: Callable[[Tensor, Tensor], Tensor],
        student: nn.Module,
        generator: nn.Module,
        *,
        noise: EDMNoise,
        latent_shape: Sequence[int],
        lam: float = 1.0,
        student_steps: int = 1,
        sigma_init: float = 2.5,
        lr_student: float = 1e-3,
        lr_generator: float = 1e-3,
        betas: tuple[float, float] = (0.0, 0.999),
        ema: float = 0.99,
        loss: Literal["sid", "fgm", "l1", "l3", "vsd"] = "sid",
        weighting: Literal["sid", "none"] = "sid",
        batch_size: int = 256,
        tmax: float = 800,
        rng: torch.Generator | None = None,
    ):
        check_one_of("loss", loss, LOSSES)
        check_one_of("weighting", weighting, ("sid", "none"))
        check_number("lam", lam, above=-math.inf, below=math.inf)
        check_integer("student_steps", student_steps, 1)
        check_integer("batch_size", batch_size, 1)
        for name, value in (("sigma_init", sigma_init), ("lr_student", lr_student), ("lr_generator", lr_generator)):
            check_number(name, value, above=0, below=math.inf)
        check_number("ema", ema, least=0, below=1)
        check_number("tmax", tmax, above=0, most=1000)
        self._weights = list(generator.parameters())
        if not self._weights:
            raise ValueError("generator: got a module without parameters, expected something to train")
        self.teacher, self.student, self.generator, self.noise = teacher, student, generator, noise
        self.latent_shape, self.lam, self.loss, self.weighting = tuple(latent_shape), lam, loss, weighting
        self.student_steps, self.sigma_init = student_steps, sigma_init
        self.batch_size, self.tmax, self.rng = batch_size, tmax, rng
        self.ema_generator = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(ema))
        first = self._weights[0]
        self._options = {"dtype": first.dtype, "device": first.device}
        fused = {"betas": betas, "fused": first.device.type in ("cpu", "cuda")}
        self.optimizer_generator = torch.optim.Adam(self._weights, lr=lr_generator, **fused)
        self.optimizer_student = torch.optim.Adam(student.parameters(), lr=lr_student, **fused)

    def sample(self, n: int, *, averaged: bool = True) -> Tensor:
        """Draw n samples of the averaged generator, or of the present one, without a graph."""
        check_integer("n", n, 0)
        with torch.no_grad():
            return (self.ema_generator if averaged else self.generator)(self._latents(n))

    def _latents(self, n: int) -> Tensor:
        return self.sigma_init * torch.randn(n, *self.latent_shape, generator=self.rng, **self._options)

    def _noised(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Samples at noise levels drawn for each."""
        u = torch.rand(x0.shape[0], generator=self.rng, **self._options) * (self.tmax / 1000)
        sigma = self.noise.sigma(u)
        eps = torch.randn(x0.shape, generator=self.rng, **self._options)
        return x0 + sigma.reshape(-1, *(1,) * (x0.ndim - 1)) * eps, sigma

    def student_step(self) -> Tensor:
        """One step of the student on fresh samples; its loss, detached."""
        with torch.no_grad():
            x0 = self.generator(self._latents(self.batch_size))
            x_t, sigma = self._noised(x0)
        weight = sigma**-2 + getattr(self.student, "sigma_data", math.inf) ** -2
        loss = (weight * (self.student(x_t, sigma) - x0).flatten(1).square().sum(1)).mean()
        self.optimizer_student.zero_grad()
        loss.backward()
        self.optimizer_student.step()
        return loss.detach()

    def generator_step(self) -> Tensor:
        """One step of the generator and of its average; the loss, detached."""
        x0 = self.generator(self._latents(self.batch_size))
        x_t, sigma = self._noised(x0)
        denoised = self.teacher(x_t, sigma), self.student(x_t, sigma)
        losses = self._loss(*denoised, x0, x_t, sigma)
        if self.weighting == "sid":
            losses = losses * sid_weight(x0, denoised[0]).flatten()
        loss = losses.mean()
        self.optimizer_generator.zero_grad()
        loss.backward(inputs=self._weights)  # the weights of teacher and student need no gradient here
        self.optimizer_generator.step()
        self.ema_generator.update_parameters(self.generator)
        return loss.detach()

    def _loss(self, teacher: Tensor, student: Tensor, x0: Tensor, x_t: Tensor, sigma: Tensor) -> Tensor:
        """Losses (B,) in units of x₀: the ε-forms times σ²."""
        if self.loss == "sid":
            return sid_loss_x0(teacher, student, x0, lam=self.lam)
        if self.loss == "fgm":
            return 2 * sid_loss_x0(teacher, student, x0, lam=0.5)
        if self.loss == "vsd":
            return ((student - teacher).detach() * x_t).flatten(1).sum(1)
        eps = (x0_to_eps(value, x_t, 1.0, sigma) for value in (teacher, student, x0))
        terms = sid_terms(*eps)
        return sigma.square() * (terms.l1 if self.loss == "l1" else terms.l3)

    def step(self) -> dict[str, Tensor]:
        """One round; the losses of its last student step and its generator step, detached."""
        for _ in range(self.student_steps):
            loss = self.student_step()
        return {"student_loss": loss, "generator_loss": self.generator_step()}

    def fit(self, n: int) -> list[dict[str, Tensor]]:
        """Run n rounds; what :meth:`step` returns of each."""
        check_integer("n", n, 0)
        return [self.step() for _ in range(n)]
