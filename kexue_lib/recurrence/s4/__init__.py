r"""S4: the LegS system in constant time, trained as a convolution and run as a recurrence.

A channel is the system :math:`x'=Ax+Bu,\ y=\Re\,Cx` at step :math:`\epsilon` (``dt``), discretised by the bilinear
rule, so that :math:`y_m=\sum_{k\le m}K_k\,u_{m-k}` with the kernel :math:`K_k=C\bar A^k\bar B`. What makes the
kernel cheap is that A is, in a unitary basis, **d**\ iagonal **p**\ lus **l**\ ow **r**\ ank (DPLR):

.. math:: A = V\big(\operatorname{diag}\Lambda - PP^*\big)V^*,\qquad \Re\Lambda=-\tfrac12

S4D drops P and keeps the diagonal. There is no conjugation in the readout C.

Source: Su Jianlin, "Revisiting SSM (3): computing HiPPO efficiently (S4)", 2024, https://kexue.fm/archives/10162;
A. Gu, K. Goel, C. Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2021, arXiv 2111.00396;
A. Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", 2022, arXiv 2206.11893.
"""

from kexue_lib.recurrence.s4._dplr import (
    discretize_dplr,
    dplr_step,
    legs_dplr,
    legs_nplr,
    recover_readout,
    truncate_readout,
)
from kexue_lib.recurrence.s4._kernels import (
    causal_conv,
    dplr_kernel,
    s4_kernel,
    s4d_init,
    s4d_kernel,
    ssm_kernel_naive,
)
from kexue_lib.recurrence.s4._layers import S4, S4D

__all__ = [
    "S4",
    "S4D",
    "causal_conv",
    "discretize_dplr",
    "dplr_kernel",
    "dplr_step",
    "legs_dplr",
    "legs_nplr",
    "recover_readout",
    "s4_kernel",
    "s4d_init",
    "s4d_kernel",
    "ssm_kernel_naive",
    "truncate_readout",
]
