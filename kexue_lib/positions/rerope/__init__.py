r"""ReRoPE: rotary positions whose distances are exact below a window and clipped or compressed beyond it.

Source: Su Jianlin, "Transformer upgrade road 12: ReRoPE with unlimited extrapolation?", 2023,
https://kexue.fm/archives/9708, and part 13, https://kexue.fm/archives/9728.

With r = i − j, query minus key, the score of a query at i and a key at j is :math:`q^\top R_{-\rho(r)}k` with

.. math:: \rho(r)=\begin{cases}r&r<w\\w+(r-w)/k&r\ge w\end{cases}

(Leaky ReRoPE), and :math:`\rho(r)=\min(r,w)` for k = ∞ (ReRoPE). Near and far keys are disjoint sets, each with its
own rotary embedding, so that every score is computed once and no n × n matrix is held.
"""

from __future__ import annotations

from kexue_lib.positions.rerope._attention import merge_attention, rerope_attention, rerope_attention_reference
from kexue_lib.positions.rerope._cache import ReRoPECache
from kexue_lib.positions.rerope._distances import (
    dual_chunk_distance,
    rectified_distance,
    required_factor,
    self_extend_distance,
    supported_length,
)
from kexue_lib.positions.rerope._position import DistanceRotary, ReRoPE, distance_attention

__all__ = [
    "DistanceRotary",
    "ReRoPE",
    "ReRoPECache",
    "distance_attention",
    "dual_chunk_distance",
    "merge_attention",
    "rectified_distance",
    "required_factor",
    "rerope_attention",
    "rerope_attention_reference",
    "self_extend_distance",
    "supported_length",
]
