r"""Which bases of RoPE serve a context length: the gap between similar and random keys, and the least base, certified.

Source: Su Jianlin, "Transformer upgrade road 18: the principle for choosing RoPE's base", 2024,
https://kexue.fm/archives/10122; Men et al., *Base of RoPE Bounds Context Length*, 2024, arXiv 2405.14591.

With d = 2N components and base b, a key like the query outscores a random one at distance m, on average, by
2σ² times the gap :math:`f_b(m)=\sum_{i<N}\cos(m\,b^{-i/N})`. A base serves a length L if no gap below L is negative.
"""

from __future__ import annotations

from kexue_lib.positions.rope_base_bound._bases import (
    Exclusion,
    MinBase,
    certified_min_bases,
    feasible_intervals,
    min_base,
    min_bases,
)
from kexue_lib.positions.rope_base_bound._gap import max_context_length, similarity_gap, similarity_gap_range
from kexue_lib.positions.rope_base_bound._smooth import aliased_gap, cosine_integral, smooth_gap

__all__ = [
    "Exclusion",
    "MinBase",
    "aliased_gap",
    "certified_min_bases",
    "cosine_integral",
    "feasible_intervals",
    "max_context_length",
    "min_base",
    "min_bases",
    "similarity_gap",
    "similarity_gap_range",
    "smooth_gap",
]
