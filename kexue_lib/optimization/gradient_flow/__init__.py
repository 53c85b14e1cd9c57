"""From a gradient step to its flow, and from the flow of a point to the flow of a density.

Source: Su Jianlin, "Gradient flow: exploring the road to the minimum", 2023, https://kexue.fm/archives/9660.
"""

from __future__ import annotations

from kexue_lib.optimization.gradient_flow._densities import (
    fdiv_weight,
    fokker_planck_1d,
    free_energy,
    gaussian_flow,
)
from kexue_lib.optimization.gradient_flow._directions import mirror_step, steepest_direction
from kexue_lib.optimization.gradient_flow._flow import FlowResult, gradient_flow, proximal_step
from kexue_lib.optimization.gradient_flow._kernels import kde_score, svgd_velocity
from kexue_lib.optimization.gradient_flow._samplers import SampleResult, langevin, particle_flow, svgd

__all__ = [
    "FlowResult",
    "SampleResult",
    "fdiv_weight",
    "fokker_planck_1d",
    "free_energy",
    "gaussian_flow",
    "gradient_flow",
    "kde_score",
    "langevin",
    "mirror_step",
    "particle_flow",
    "proximal_step",
    "steepest_direction",
    "svgd",
    "svgd_velocity",
]
