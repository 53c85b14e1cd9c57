r"""HiPPO: the linear systems x' = Ax + Bu whose state is the best approximation of the signal u so far.

A memory is a map :math:`s\mapsto\tau(s;T)` to the remembered times, a weight and an orthonormal basis :math:`g_n`; its
state at time T is :math:`c_n=\int u(\tau)\,\overline{g_n(s)}\,\omega(s)\,ds`.

========  ===========================  =====================================  ==========================
measure   remembered times             basis                                  system
========  ===========================  =====================================  ==========================
"legt"    :math:`(s+1)w/2+T-w`         Legendre on [-1, 1]                    x' = Ax + Bu
"legs"    :math:`(s+1)T/2`             Legendre on [-1, 1]                    x' = (Ax + Bu) / T
"lagt"    :math:`T-ws`                 Laguerre on [0, ∞), weight exp(-s)     x' = Ax + Bu
"fout"    :math:`sw+T-w`               :math:`e^{2\pi ins}` on [0, 1]         x' = Ax + Bu
========  ===========================  =====================================  ==========================

Source: Su Jianlin, "Revisiting SSM (1): linear systems and the HiPPO matrices", 2024, https://kexue.fm/archives/10114;
A. Gu et al., "HiPPO: Recurrent Memory with Optimal Polynomial Projections", 2020, arXiv 2008.07669.
"""

from kexue_lib.recurrence.hippo._bases import laguerre_basis, legendre_basis
from kexue_lib.recurrence.hippo._matrices import coefficient_scale, fourier_window_matrices, hippo_matrices
from kexue_lib.recurrence.hippo._projection import project, reconstruct

__all__ = [
    "coefficient_scale",
    "fourier_window_matrices",
    "hippo_matrices",
    "laguerre_basis",
    "legendre_basis",
    "project",
    "reconstruct",
]
