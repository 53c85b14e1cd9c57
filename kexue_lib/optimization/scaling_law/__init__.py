"""Scaling laws from quanta of knowledge: exact losses, fits with intervals, compute-optimal splits, parity tasks.

Source: Su Jianlin, "Deriving scaling laws from a quantisation hypothesis", 2023, https://kexue.fm/archives/9607;
Michaud et al., "The Quantization Model of Neural Scaling", arXiv 2303.13506; Hoffmann et al., "Training
Compute-Optimal Large Language Models", arXiv 2203.15556.
"""

from __future__ import annotations

from kexue_lib.optimization.scaling_law._fits import (
    ChinchillaFit,
    PowerLawFit,
    chinchilla_loss,
    compute_optimal,
    fit_chinchilla,
    fit_power_law,
    kaplan_loss,
)
from kexue_lib.optimization.scaling_law._parity import (
    MultitaskSparseParity,
    ParityEnsemble,
    ParityMLP,
    ParityTrace,
    steps_to_learn,
    train_parity,
)
from kexue_lib.optimization.scaling_law._quanta import (
    expected_loss,
    learned_quanta,
    predicted_exponents,
    quantized_loss,
    quantized_loss_asymptotic,
    zipf_frequencies,
    zipf_tail,
)

__all__ = [
    "ChinchillaFit",
    "MultitaskSparseParity",
    "ParityEnsemble",
    "ParityMLP",
    "ParityTrace",
    "PowerLawFit",
    "chinchilla_loss",
    "compute_optimal",
    "expected_loss",
    "fit_chinchilla",
    "fit_power_law",
    "kaplan_loss",
    "learned_quanta",
    "predicted_exponents",
    "quantized_loss",
    "quantized_loss_asymptotic",
    "steps_to_learn",
    "train_parity",
    "zipf_frequencies",
    "zipf_tail",
]
