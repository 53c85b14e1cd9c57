"""Score matching and its conditional form: mixtures whose score is known, losses, samplers, a network.

Source: Su Jianlin, "Diffusion models (18): score matching = conditional score matching", 2023,
https://kexue.fm/archives/9509.
"""

from __future__ import annotations

from kexue_lib.generative.score_matching._losses import denoising_score_matching_loss, implicit_score_matching_loss
from kexue_lib.generative.score_matching._mixture import GaussianMixture
from kexue_lib.generative.score_matching._network import ScoreMLP, train_score_model
from kexue_lib.generative.score_matching._samplers import probability_flow_sample, reverse_sde_sample
from kexue_lib.generative.score_matching._samples import conditional_score, conditional_score_gap, score_from_samples
from kexue_lib.generative.score_matching._schedules import VESchedule, VPSchedule

__all__ = [
    "GaussianMixture",
    "ScoreMLP",
    "VESchedule",
    "VPSchedule",
    "conditional_score",
    "conditional_score_gap",
    "denoising_score_matching_loss",
    "implicit_score_matching_loss",
    "probability_flow_sample",
    "reverse_sde_sample",
    "score_from_samples",
    "train_score_model",
]
