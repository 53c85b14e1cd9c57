"""One step of an ordinary differential equation: what the samplers and flows of this part share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_one_of

__all__ = ["METHODS", "ode_step"]

METHODS = ("euler", "heun", "rk4")


def ode_step(
    velocity: Callable[[Tensor, Any], Tensor],
    x: Float[Tensor, "*shape"],
    t: float | Tensor,
    dt: float | Tensor,
    method: Literal["euler", "heun", "rk4"] = "euler",
) -> Float[Tensor, "*shape"]:
    r"""Go from x(t) to x(t + dt) along :math:`\dot x=v(x,t)`.

    "euler" has error :math:`O(dt^2)` a step; "heun", the trapezoidal rule with an Euler predictor, :math:`O(dt^3)`;
    "rk4" is the classical method of Runge and Kutta with weights 1/6, 1/3, 1/3, 1/6 and error :math:`O(dt^5)`
    (not the 3/8 rule, which some libraries also call rk4).

    Args:
        velocity: v(x, t), of the shape of x; it gets t as it is given here, and spreads it over a batch itself.
        x: state, any shape.
        t: time, a number or a tensor without dimensions.
        dt: step, of either sign.
        method: "euler" (default), "heun" or "rk4".

    Returns:
        The next state. Gradients flow through every evaluation.

    Raises:
        ValueError: another method.

    Cost: 1, 2 or 4 evaluations of the velocity; no wait for the device.
    Source: Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, 1993, II.1.

    >>> import torch
    >>> x = torch.ones(1, dtype=torch.float64)
    >>> [round(ode_step(lambda x, t: x, x, 0.0, 0.5, method).item(), 4) for method in ("euler", "heun", "rk4")]
    [1.5, 1.625, 1.6484]
    """
    check_one_of("method", method, METHODS)
    first = velocity(x, t)
    if method == "euler":
        return x + dt * first
    if method == "heun":
        return x + dt / 2 * (first + velocity(x + dt * first, t + dt))
    second = velocity(x + dt / 2 * first, t + dt / 2)
    third = velocity(x + dt / 2 * second, t + dt / 2)
    fourth = velocity(x + dt * third, t + dt)
    return x + dt / 6 * (first + 2 * (second + third) + fourth)
