"""Learning rates and weight decay from one inequality: how far an update goes, how both fall, and the optimizer Amos.

Source: Su Jianlin, "Training recipes derived from the idea of the Amos optimizer", 2022,
https://kexue.fm/archives/9344; Tian & Parikh, https://arxiv.org/abs/2210.11693.
"""

from __future__ import annotations

from kexue_lib.optimization.amos_recipes._amos import Amos, default_eta
from kexue_lib.optimization.amos_recipes._decay import decay_factor, decay_recursion, kappa_from_half_life
from kexue_lib.optimization.amos_recipes._relative import RelativeUpdate
from kexue_lib.optimization.amos_recipes._schedule import AmosLR

__all__ = [
    "Amos",
    "AmosLR",
    "RelativeUpdate",
    "decay_factor",
    "decay_recursion",
    "default_eta",
    "kappa_from_half_life",
]
