"""Projected online gradient descent of many independent runs at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_number, check_shape


class OGDTrace(NamedTuple):
    """What a batch of runs did.

    `last` is θ_{T+1} and `average` the mean of θ₁ … θ_T, (*batch, d). `losses` (T, *batch). `iterates`
    (T + 1, *batch, d) and `grads` (T, *batch, d) if recorded, else None.
    """

    last: Tensor
    average: Tensor
    losses: Tensor
    iterates: Tensor | None
    grads: Tensor | None


@torch.no_grad()
def online_gradient_descent(
    grad_fn: Callable[..., tuple[Tensor, Tensor]],
    theta0: Float[Tensor, "*batch d"],
    lrs: Float[Tensor, " T"],
    *,
    project: Callable[[Tensor], Tensor] | None = None,
    record: bool = False,
    generator: torch.Generator | None = None,
) -> OGDTrace:
    r"""Run :math:`\theta_{t+1}=\Pi(\theta_t-\eta_tg_t)` from the same t for a batch of independent runs.

    Args:
        grad_fn: maps (θ, t), t = 0 … T − 1, to the losses (*batch,) and gradients (*batch, d) of that step.
        theta0: θ₁ of each run, (*batch, d).
        lrs: η_t > 0, (T,), the same for all runs; any order.
        project: Π, maps (*batch, d) to (*batch, d); None: no projection.
        record: keep all points and gradients.
        generator: handed to grad_fn as its third argument, for samples; None: grad_fn has two.

    Returns:
        An :class:`OGDTrace`.

    Raises:
        TypeError: theta0 is not floating.
        ValueError: lrs is not (T,) with T ≥ 1 or not positive; grad_fn returns other shapes at the first step.

    Cost: T calls of grad_fn and project on the whole batch; memory of two points of each run, with record of 2T + 1.
    Source: Zinkevich, ICML 2003.

    >>> trace = online_gradient_descent(lambda x, t: (x[..., 0] ** 2, 2 * x), torch.ones(3, 1), torch.full((2,), 0.25))
    >>> trace.last[:, 0], trace.average[:, 0]
    (tensor([0.2500, 0.2500, 0.2500]), tensor([0.7500, 0.7500, 0.7500]))
    """
    check_dtype("theta0", theta0, "floating")
    if lrs.dim() != 1 or len(lrs) == 0:
        raise ValueError(f"lrs: got shape {tuple(lrs.shape)}, expected (T,) with T ≥ 1")
    check_number("lrs", lrs, above=0, below=math.inf)
    theta, average = theta0.clone(), torch.zeros_like(theta0)
    losses, points, slopes = [], [theta], []
    for t, lr in enumerate(lrs.tolist()):
        loss, g = grad_fn(theta, t) if generator is None else grad_fn(theta, t, generator)
        if t == 0:
            check_shape("grad_fn: gradient", g, tuple(theta0.shape), "as theta0 has")
            check_shape("grad_fn: loss", loss, tuple(theta0.shape[:-1]), "one a run")
        average.lerp_(theta, 1 / (t + 1))
        theta = theta - lr * g
        if project is not None:
            theta = project(theta)
        losses.append(loss)
        if record:
            points.append(theta)
            slopes.append(g)
    kept = (torch.stack(points), torch.stack(slopes)) if record else (None, None)
    return OGDTrace(theta, average, torch.stack(losses), *kept)
