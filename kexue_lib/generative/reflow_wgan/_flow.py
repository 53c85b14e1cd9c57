"""Interpolates of pairs, the regression on them, and the ordinary differential equation that the result drives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of
from kexue_lib.generative.ode import METHODS, ode_step

Velocity = Callable[[Tensor, Tensor], Tensor]
Method = Literal["euler", "heun", "rk4"]


def check_pair(x0: Tensor, x1: Tensor) -> None:
    """Refuse starts and ends that are no pairs."""
    check_dtype("x0", x0, "floating")
    check_dtype("x1", x1, "floating")
    if x1.dtype != x0.dtype:
        raise TypeError(f"x1: got {x1.dtype}, expected {x0.dtype} as x0 has")
    if x1.shape != x0.shape or x0.ndim == 0:
        shapes = f"{tuple(x0.shape)} and {tuple(x1.shape)}"
        raise ValueError(f"x0, x1: got shapes {shapes}, expected the same shape (B, ...)")


def drawn_times(x: Tensor, t: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """The times of a batch, uniform unless given."""
    if t is not None:
        return t
    return torch.rand(x.shape[0], dtype=x.dtype, device=x.device, generator=generator)


def interpolate(
    x0: Float[Tensor, "*shape"], x1: Float[Tensor, "*shape"], t: Float[Tensor, "..."]
) -> Float[Tensor, "*shape"]:
    r"""Points :math:`x_t=(1-t)x_0+tx_1` of the segments between pairs.

    Args:
        x0: starts (B, ...).
        x1: ends, of the same shape and dtype.
        t: times in [0, 1]: one for all (), one for each pair (B,), or with trailing dimensions (B, 1, ...).

    Returns:
        The points, of the shape of x0; exactly x0 at t = 0 and x1 at t = 1.

    Raises:
        TypeError: integers, or different dtypes.
        ValueError: different shapes, a time outside [0, 1] (checked on the CPU), times of another shape.

    >>> interpolate(torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([0.25, 1.0]))
    tensor([[0.2500],
            [1.0000]])
    """
    check_pair(x0, x1)
    check_dtype("t", t, "floating")
    check_number("t", t, least=0, most=1)
    batch = x0.shape[0]
    if t.ndim and (t.shape[0] != batch or t.numel() != batch or t.ndim > x0.ndim):
        raise ValueError(f"t: got shape {tuple(t.shape)}, expected (), ({batch},) or ({batch}, 1, ...)")
    t = t.to(x0.dtype).reshape(t.shape[:1] + (1,) * (x0.ndim - 1)) if t.ndim else t.to(x0.dtype)
    return (1 - t) * x0 + t * x1


def flow_matching_loss(
    velocity: Velocity,
    x0: Float[Tensor, "batch *rest"],
    x1: Float[Tensor, "batch *rest"],
    t: Float[Tensor, "..."] | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " batch"]:
    r"""Loss :math:`\tfrac12\|v(x_t,t)-(x_1-x_0)\|^2` of each pair; its minimiser is :math:`E[x_1-x_0\mid x_t]`.

    Args:
        velocity: v(x, t) with x (B, ...) and t (B,), of the shape of x.
        x0: starts (B, ...).
        x1: ends, of the same shape and dtype.
        t: times (B,) in [0, 1]; None (default) draws them uniformly.
        generator: source of the times.

    Returns:
        Losses (B,): sums over all but the batch dimension.

    Raises:
        TypeError, ValueError: as `interpolate`.

    Cost: one evaluation of the velocity.
    Source: arXiv 2209.03003, eq. 1.

    >>> flow_matching_loss(lambda x, t: 0 * x, torch.zeros(2, 3), torch.ones(2, 3))
    tensor([1.5000, 1.5000])
    """
    check_pair(x0, x1)
    t = drawn_times(x0, t, generator)
    x = interpolate(x0, x1, t)
    gap = velocity(x, t.reshape(-1).expand(x0.shape[0])) - (x1 - x0)
    return gap.square().reshape(gap.shape[0], math.prod(gap.shape[1:])).sum(1) / 2


def ode_solve(
    velocity: Velocity,
    x0: Float[Tensor, "batch *rest"],
    steps: int,
    *,
    method: Method = "euler",
    return_path: bool = False,
) -> Float[Tensor, "..."]:
    r"""Follow :math:`\dot x=v(x,t)` from t = 0 to 1 in equal steps.

    Args:
        velocity: v(x, t) with x (B, ...) and t (B,), of the shape of x.
        x0: starts (B, ...).
        steps: number of steps, at least 1.
        method: "euler" (default, one evaluation a step), "heun" (two) or "rk4", the classical one (four).
        return_path: whether to return all points and not only the last.

    Returns:
        The ends (B, ...), or the path (steps + 1, B, ...) with x0 first. Gradients flow.

    Raises:
        TypeError: integers, or steps that are no integer.
        ValueError: steps < 1, another method.

    Cost: steps times the method's evaluations; memory of the path only where it is returned; no wait for the device.

    >>> ode_solve(lambda x, t: x, torch.ones(1, 1, dtype=torch.float64), 10, method="rk4")
    tensor([[2.7183]], dtype=torch.float64)
    """
    _check_solver(x0, steps, method)
    x, path = x0, [x0]
    for k in range(steps):
        x = _step(velocity, x, k, steps, method)
        if return_path:
            path.append(x)
    return torch.stack(path) if return_path else x


def straightness(
    velocity: Velocity, x0: Float[Tensor, "batch *rest"], steps: int = 50, *, method: Method = "heun"
) -> Float[Tensor, ""]:
    r"""Straightness :math:`S=\int_0^1E\|(X_1-X_0)-\dot X_t\|^2dt` of the paths from x0; 0 where all are straight.

    Each step's secant stands for the velocity inside of it, so that one path serves both terms of
    :math:`S=\int E\|\dot X_t\|^2dt-E\|X_1-X_0\|^2`, and the result is at least 0 up to rounding.

    Args:
        velocity: v(x, t) with x (B, ...) and t (B,), of the shape of x.
        x0: starts (B, ...), at least one.
        steps: number of steps; the error falls like steps⁻² (Heun).
        method: as in `ode_solve`, "heun" by default.

    Returns:
        The mean over the batch, a scalar.

    Raises:
        TypeError: integers, or steps that are no integer.
        ValueError: steps < 1, another method, no points.

    Cost: one path; under `torch.no_grad()` the memory of one step. Else gradients flow, to use S as a penalty, and the
    graph of all steps is kept.
    Source: arXiv 2209.03003, eq. 6.

    >>> straightness(lambda x, t: torch.ones_like(x), torch.zeros(4, 2)) < 1e-6
    tensor(True)
    """
    _check_solver(x0, steps, method)
    if x0.shape[0] == 0:
        raise ValueError("x0: got no points, expected at least one")
    x, squares = x0, torch.zeros((), dtype=x0.dtype, device=x0.device)
    for k in range(steps):
        step = _step(velocity, x, k, steps, method)
        squares = squares + (step - x).square().sum()
        x = step
    return (squares * steps - (x - x0).square().sum()) / x0.shape[0]


def transport_cost(
    x0: Float[Tensor, "batch *rest"], x1: Float[Tensor, "batch *rest"], p: float | int = 2
) -> Float[Tensor, ""]:
    r"""Mean cost :math:`E\|x_1-x_0\|^p` of pairs, with the Euclidean norm.

    Args:
        x0: starts (B, ...), at least one.
        x1: ends, of the same shape and dtype.
        p: power, above 0 (default 2).

    Returns:
        A scalar.

    Raises:
        TypeError: integers, or different dtypes.
        ValueError: different shapes, no pairs, p outside.

    >>> transport_cost(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
    tensor(25.)
    """
    check_pair(x0, x1)
    check_number("p", p, above=0, below=math.inf)
    if x0.shape[0] == 0:
        raise ValueError("x0: got no points, expected at least one")
    squares = (x1 - x0).square().reshape(x0.shape[0], -1).sum(1)
    return squares.mean() if p == 2 else squares.pow(p / 2).mean()


@torch.no_grad()
def make_reflow_pairs(
    velocity: Velocity,
    x0: Float[Tensor, "batch *rest"],
    steps: int,
    method: Method = "heun",
    batch_size: int | None = None,
) -> tuple[Float[Tensor, "batch *rest"], Float[Tensor, "batch *rest"]]:
    """Pairs (x0, end of its path): what the next rectified flow is trained on.

    Args:
        velocity: v(x, t) with x (B, ...) and t (B,), of the shape of x.
        x0: starts (B, ...).
        steps: number of steps, at least 1.
        method: as in `ode_solve`, "heun" by default.
        batch_size: starts followed at once; None (default) takes all.

    Returns:
        x0 as given and the ends, without gradients.

    Raises:
        TypeError: integers, or a number that is no integer.
        ValueError: steps or batch_size < 1, another method.

    >>> make_reflow_pairs(lambda x, t: torch.ones_like(x), torch.zeros(1, 1), 4)[1]
    tensor([[1.]])
    """
    if batch_size is not None:
        check_integer("batch_size", batch_size, 1)
    parts = x0.split(batch_size) if batch_size else (x0,)
    ends = [ode_solve(velocity, part, steps, method=method) for part in parts]
    return x0, torch.cat(ends)


def _check_solver(x0: Tensor, steps: int, method: str) -> None:
    check_dtype("x0", x0, "floating")
    check_integer("steps", steps, 1)
    check_one_of("method", method, METHODS)


def _step(velocity: Velocity, x: Tensor, k: int, steps: int, method: Method) -> Tensor:
    # Rounding may carry t + dt beyond the end.
    at = lambda x, t: velocity(x, x.new_full((1,), min(t, 1.0)).expand(x.shape[0]))
    return ode_step(at, x, k / steps, 1 / steps, method)
