r"""RoPE as a number written in base β, and every recipe that changes the numeral system of a trained model.

Source: Su Jianlin, "Transformer upgrade road 11: taking base-β positions to the end", 2023,
https://kexue.fm/archives/9706, and part 10, https://kexue.fm/archives/9675.

With d = 2N and :math:`\beta=b^{1/N}`, position n turns pair i by :math:`n\theta_i=n/\beta^i`: where digit i + 1 of n
takes this modulo β, cosine and sine take it modulo 2π. Each recipe for a context k times longer divides
:math:`\theta_i` by a factor :math:`s_i\in[1,k]`; they differ only in these factors.
"""

from __future__ import annotations

from kexue_lib.positions.base_beta._digits import digits, from_digits, smallest_base
from kexue_lib.positions.base_beta._frequencies import (
    critical_index,
    dynamic_ntk_frequencies,
    effective_radices,
    interpolation_factors,
    llama3_frequencies,
    ntk_aware_frequencies,
    ntk_by_parts_frequencies,
    ntk_fixed_frequencies,
    ntk_mixed_frequencies,
    ntk_old_frequencies,
    pi_frequencies,
    yarn_attention_factor,
    yarn_frequencies,
)
from kexue_lib.positions.base_beta._rotary import METHODS, DynamicRotary, ScaledRotary, scale_transformers_rotary
from kexue_lib.positions.rope import log_length_scale

__all__ = [
    "METHODS",
    "DynamicRotary",
    "ScaledRotary",
    "critical_index",
    "digits",
    "dynamic_ntk_frequencies",
    "effective_radices",
    "from_digits",
    "interpolation_factors",
    "llama3_frequencies",
    "log_length_scale",
    "ntk_aware_frequencies",
    "ntk_by_parts_frequencies",
    "ntk_fixed_frequencies",
    "ntk_mixed_frequencies",
    "ntk_old_frequencies",
    "pi_frequencies",
    "scale_transformers_rotary",
    "smallest_base",
    "yarn_attention_factor",
    "yarn_frequencies",
]
