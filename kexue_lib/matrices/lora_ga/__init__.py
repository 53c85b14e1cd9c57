"""LoRA-GA: factors whose first step is as close to that of full fine-tuning as their rank allows.

Everything is in the article's orientation, Y = XW with W (n, m), n in and m out; ``nn.Linear.weight`` is its transpose.

Source: Su Jianlin, "Align with full fine-tuning! The finest LoRA improvement I have seen (I)", 2024,
https://kexue.fm/archives/10226; Wang, Yu and Li, "LoRA-GA", arXiv 2407.05000.
"""

from __future__ import annotations

from kexue_lib.matrices.lora_ga._alignment import (
    adam_alignment_loss,
    alignment_loss,
    alignment_optimum,
    first_step_direction,
    stable_factor,
)
from kexue_lib.matrices.lora_ga._collect import collect_gradients
from kexue_lib.matrices.lora_ga._factors import lora_ga_adam_factors, lora_ga_factors
from kexue_lib.matrices.lora_ga._initialise import initialise_lora_ga
from kexue_lib.matrices.lora_ga._sketch import GradientSketch
from kexue_lib.matrices.lora_ga._svd import randomized_svd

__all__ = [
    "GradientSketch",
    "adam_alignment_loss",
    "alignment_loss",
    "alignment_optimum",
    "collect_gradients",
    "first_step_direction",
    "initialise_lora_ga",
    "lora_ga_adam_factors",
    "lora_ga_factors",
    "randomized_svd",
    "stable_factor",
]
