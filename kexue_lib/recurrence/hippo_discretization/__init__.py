r"""From the HiPPO differential equations to recurrences on samples.

:func:`discretize` is for x' = Ax + Bu (LegT, S4); the functions named legs are for LegS, t x' = Ax + Bu, whose steps
depend on the number of samples and on no step size.

Source: Su Jianlin, "Revisiting SSM (2): questions left open by HiPPO", 2024, https://kexue.fm/archives/10137;
A. Gu et al., "Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space Layers", 2021,
arXiv 2110.13985.
"""

from kexue_lib.recurrence.hippo_discretization._fourier import fourier_scaled_matrices
from kexue_lib.recurrence.hippo_discretization._legs import legs_matvec, legs_solve, legs_transition
from kexue_lib.recurrence.hippo_discretization._scan import legs_scan
from kexue_lib.recurrence.hippo_discretization._schemes import discretize
from kexue_lib.recurrence.hippo_discretization._staircase import legs_project_staircase

__all__ = [
    "discretize",
    "fourier_scaled_matrices",
    "legs_matvec",
    "legs_project_staircase",
    "legs_scan",
    "legs_solve",
    "legs_transition",
]
