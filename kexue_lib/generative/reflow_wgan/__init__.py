"""Rectified flow, its straightening by reflow, and the critic of WGAN-GP as the potential of such a flow.

Source: Su Jianlin, "Diffusion models (20): from ReFlow to WGAN-GP", 2023, https://kexue.fm/archives/9668; Liu, Gong and
Liu, "Flow Straight and Fast", 2022, arXiv 2209.03003; Gulrajani et al., "Improved Training of Wasserstein GANs", 2017,
arXiv 1704.00028.
"""

from __future__ import annotations

from kexue_lib.generative.reflow_wgan._critic import (
    WGANTrainer,
    critic_loss,
    gradient_penalty,
    potential_matching_loss,
)
from kexue_lib.generative.reflow_wgan._exact import (
    gaussian_velocity,
    mixture_velocity,
    optimal_critic_gradient_gaussian,
    rho_bar_gaussian,
)
from kexue_lib.generative.reflow_wgan._flow import (
    flow_matching_loss,
    interpolate,
    make_reflow_pairs,
    ode_solve,
    straightness,
    transport_cost,
)
from kexue_lib.generative.reflow_wgan._training import VelocityMLP, reflow, train_rectified_flow

__all__ = [
    "VelocityMLP",
    "WGANTrainer",
    "critic_loss",
    "flow_matching_loss",
    "gaussian_velocity",
    "gradient_penalty",
    "interpolate",
    "make_reflow_pairs",
    "mixture_velocity",
    "ode_solve",
    "optimal_critic_gradient_gaussian",
    "potential_matching_loss",
    "reflow",
    "rho_bar_gaussian",
    "straightness",
    "train_rectified_flow",
    "transport_cost",
]
