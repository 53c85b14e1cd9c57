"""A GAN as the flow of its samples: transforms of the logit, losses, particle flows, a trainer in two modes.

Source: Su Jianlin, "Diffusion models (19): GAN as a diffusion ODE", 2023, https://kexue.fm/archives/9662.
"""

from __future__ import annotations

from kexue_lib.generative.gan_flow._flow import (
    flow_regression_loss,
    flow_target,
    flow_velocity,
    gaussian_kl,
    gaussian_kl_flow,
    particle_flow,
)
from kexue_lib.generative.gan_flow._losses import (
    discriminator_loss,
    f_divergence_output,
    f_from_h,
    generator_loss,
    transform,
)
from kexue_lib.generative.gan_flow._trainer import GANFlowTrainer

__all__ = [
    "GANFlowTrainer",
    "discriminator_loss",
    "f_divergence_output",
    "f_from_h",
    "flow_regression_loss",
    "flow_target",
    "flow_velocity",
    "gaussian_kl",
    "gaussian_kl_flow",
    "generator_loss",
    "particle_flow",
    "transform",
]
