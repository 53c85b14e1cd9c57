"""Lion and Tiger: steps of equal size along the sign of a momentum, with half the state of AdamW.

Source: Su Jianlin, "Lion, the optimizer that Google found by search: efficient and effective", 2023,
https://kexue.fm/archives/9473, and "Tiger, an optimizer stingy to the extreme", 2023, https://kexue.fm/archives/9512;
Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, arXiv:2302.06675.
"""

from __future__ import annotations

from kexue_lib.optimization.lion._lion import Lion, lion_step
from kexue_lib.optimization.lion._rates import adam_update_rms, adamw_to_lion, optimizer_state_bytes, scale_to_lion
from kexue_lib.optimization.lion._rounding import stochastic_round_
from kexue_lib.optimization.lion._tiger import Tiger

__all__ = [
    "Lion",
    "Tiger",
    "adam_update_rms",
    "adamw_to_lion",
    "lion_step",
    "optimizer_state_bytes",
    "scale_to_lion",
    "stochastic_round_",
]
