r"""Constant vectors added to queries and keys before they are rotated: a kernel of the distance, made of cosines.

Query position m, key position n, distance r = m − n, angles per position :math:`\theta_i`, pairs i = 0…d/2 − 1.
Vectors a and b added to queries and keys add

.. math:: a^\top R_{n-m}b=\sum_i\alpha_i\cos r\theta_i+\beta_i\sin r\theta_i

to every score, and two terms more that depend on the content. Scores here are before the division by
:math:`\sqrt d`. Layouts and frequencies are those of :mod:`kexue_lib.positions.rope`.

Source: Su Jianlin, "The magic of bias terms: RoPE + bias = better length extrapolation", 2023,
https://kexue.fm/archives/9577; Hua et al., 2022, arXiv 2202.10447 (the kernel alone); Chi et al., 2022,
arXiv 2212.10356 (Sandwich).
"""

from __future__ import annotations

from kexue_lib.positions.rope_bias._kernel import (
    bias_coefficients,
    biases_from_coefficients,
    fit_biases,
    rotary_kernel,
    sandwich_biases,
)
from kexue_lib.positions.rope_bias._model import KernelRotary, QueryKeyBias
from kexue_lib.positions.rope_bias._scores import ScoreTerms, append_kernel, distance_profile, score_terms

__all__ = [
    "KernelRotary",
    "QueryKeyBias",
    "ScoreTerms",
    "append_kernel",
    "bias_coefficients",
    "biases_from_coefficients",
    "distance_profile",
    "fit_biases",
    "rotary_kernel",
    "sandwich_biases",
    "score_terms",
]
