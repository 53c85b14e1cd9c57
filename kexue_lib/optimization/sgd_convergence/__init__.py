"""SGD on convex losses: rates, projections, averages, and the certificate of a run.

Source: Su Jianlin, "Making training more scientific (1): average-loss convergence of SGD", 2023,
https://kexue.fm/archives/9902.
"""

from __future__ import annotations

from kexue_lib.optimization.sgd_convergence._certificate import regret_bound, regret_certificate
from kexue_lib.optimization.sgd_convergence._descent import OGDTrace, online_gradient_descent
from kexue_lib.optimization.sgd_convergence._optimizer import ProjectedSGD
from kexue_lib.optimization.sgd_convergence._projections import (
    project_box,
    project_l1_ball,
    project_l2_ball,
    project_simplex,
)
from kexue_lib.optimization.sgd_convergence._rates import (
    InverseSqrtLR,
    doubling_lrs,
    linear_decay_lr,
    optimal_constant_lr,
    optimal_sqrt_scale,
)

__all__ = [
    "InverseSqrtLR",
    "OGDTrace",
    "ProjectedSGD",
    "doubling_lrs",
    "linear_decay_lr",
    "online_gradient_descent",
    "optimal_constant_lr",
    "optimal_sqrt_scale",
    "project_box",
    "project_l1_ball",
    "project_l2_ball",
    "project_simplex",
    "regret_bound",
    "regret_certificate",
]
