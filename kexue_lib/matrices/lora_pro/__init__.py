"""LoRA-Pro: move the two factors so that each step is as close as possible to the step of full fine-tuning.

Source: Su Jianlin, "Align with full fine-tuning! The finest LoRA improvement I have seen (II)", 2024,
https://kexue.fm/archives/10266; Wang et al., "LoRA-Pro: Are Low-Rank Adapters Properly Optimized?", 2024,
arXiv:2407.18242.
"""

from __future__ import annotations

from kexue_lib.matrices.lora_pro._directions import lora_pro_gradients
from kexue_lib.matrices.lora_pro._optimizers import LoRAProAdamW, LoRAProSGD
from kexue_lib.matrices.lora_pro._projection import alignment_residual, tangent_projection
from kexue_lib.matrices.lora_pro._sylvester import solve_sylvester_spd

__all__ = [
    "LoRAProAdamW",
    "LoRAProSGD",
    "alignment_residual",
    "lora_pro_gradients",
    "solve_sylvester_spd",
    "tangent_projection",
]
