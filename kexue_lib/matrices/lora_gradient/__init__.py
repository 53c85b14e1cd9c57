"""LoRA seen through its gradients: adapters for a model's layers, and the same training as an optimizer.

Source: Su Jianlin, "LoRA from the gradient's point of view: introduction, analysis, guesses and generalisations", 2023,
https://kexue.fm/archives/9590; Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv:2106.09685.
"""

from __future__ import annotations

from kexue_lib.matrices.lora_gradient._adapters import LoRALayer, LoRALinear
from kexue_lib.matrices.lora_gradient._additive import additive_delta, additive_gradients
from kexue_lib.matrices.lora_gradient._gradients import (
    LoRAPair,
    equivalent_gradient,
    lora_gradients,
    lora_linear,
    lora_training_flops,
)
from kexue_lib.matrices.lora_gradient._injection import (
    inject_lora,
    load_lora_state_dict,
    lora_pairs,
    lora_state_dict,
    merge_lora,
    unload_lora,
    unmerge_lora,
)
from kexue_lib.matrices.lora_gradient._lookups import LoRAConv, LoRAEmbedding
from kexue_lib.matrices.lora_gradient._optimizer import LoRAOptimizer, RandomProjectionSGD

__all__ = [
    "LoRAConv",
    "LoRAEmbedding",
    "LoRALayer",
    "LoRALinear",
    "LoRAOptimizer",
    "LoRAPair",
    "RandomProjectionSGD",
    "additive_delta",
    "additive_gradients",
    "equivalent_gradient",
    "inject_lora",
    "load_lora_state_dict",
    "lora_gradients",
    "lora_linear",
    "lora_pairs",
    "lora_state_dict",
    "lora_training_flops",
    "merge_lora",
    "unload_lora",
    "unmerge_lora",
]
