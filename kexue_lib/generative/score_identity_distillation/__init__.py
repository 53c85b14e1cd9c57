"""Distilling a diffusion model into one step by an identity: the losses, their closed forms on Gaussians, a trainer.

Source: Su Jianlin, "Diffusion models (25): distillation from an identity, part one", 2024,
https://kexue.fm/archives/10085.
"""

from __future__ import annotations

from kexue_lib.generative.score_identity_distillation._gaussian import gaussian_eps, gaussian_sid_gradients
from kexue_lib.generative.score_identity_distillation._losses import (
    SiDTerms,
    eps_to_score,
    eps_to_x0,
    fgm_loss,
    score_to_eps,
    sid_loss,
    sid_loss_x0,
    sid_terms,
    sid_weight,
    x0_to_eps,
)
from kexue_lib.generative.score_identity_distillation._networks import EDMNoise, PreconditionedDenoiser
from kexue_lib.generative.score_identity_distillation._trainer import SiDTrainer

__all__ = [
    "EDMNoise",
    "PreconditionedDenoiser",
    "SiDTerms",
    "SiDTrainer",
    "eps_to_score",
    "eps_to_x0",
    "fgm_loss",
    "gaussian_eps",
    "gaussian_sid_gradients",
    "score_to_eps",
    "sid_loss",
    "sid_loss_x0",
    "sid_terms",
    "sid_weight",
    "x0_to_eps",
]
