"""The curve that gradient descent follows as its steps shrink, and the steps that never climb."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._tracing import is_traced
from kexue_lib.optimization.gradient_flow._derivatives import Scalar, check_point, check_value, gradient, hessian

Metric = Callable[[Tensor], Tensor]


class FlowResult(NamedTuple):
    """Times `t` (T,), points `x` (T, *batch, d) and the values of f there, `energy` (T, *batch)."""

    t: Tensor
    x: Tensor
    energy: Tensor


def gradient_flow(
    f: Scalar,
    x0: Float[Tensor, "*batch d"],
    t: Float[Tensor, " T"],
    *,
    method: Literal["euler", "rk4", "implicit"] = "rk4",
    substeps: int = 1,
    metric: Metric | None = None,
) -> FlowResult:
    r"""Integrate :math:`\dot x=-G(x)^{-1}\nabla f(x)` from :math:`x(t_0)=x_0`.

    Euler's method with one interval and `substeps` = k is k steps of gradient descent. "implicit" takes the gradient at
    the end of the step, :math:`x'=x-hG(x)^{-1}\nabla f(x')`, as the minimiser of
    :math:`\frac1{2h}(x'-x)^\top G(x)(x'-x)+f(x')`.

    Args:
        f: maps (..., d) to (...), rows independently.
        x0: starting points (*batch, d).
        t: times, strictly increasing, at least two.
        method: "euler" (error of order h), "rk4" (h⁴) or "implicit" (h, and never uphill).
        substeps: equal steps for each interval of t.
        metric: maps x to symmetric positive definite G (*batch, d, d); None: the identity.

    Returns:
        A :class:`FlowResult` of the dtype of x0; differentiable in x0 (twice, too) where x0 requires it. Where the
        metric stops being positive definite on the way, the points are NaN.

    Raises:
        TypeError: x0 is not floating.
        ValueError: t is not 1-D, too short or not increasing; another method; substeps < 1; f or metric returns another
            shape; the metric is not positive definite at x0.

    Cost: one gradient for each Euler step, four for rk4; implicit: a Hessian (d backward passes) for each Newton round,
    and it reads its residual once a round. The others wait for no device.
    Source: the article; Hairer & Wanner, *Solving Ordinary Differential Equations*.

    >>> half = lambda x: x.square().sum(-1) / 2
    >>> gradient_flow(half, torch.ones(1), torch.tensor([0.0, 1.0]), substeps=10).x[-1]
    tensor([0.3679])
    """
    check_point("x0", x0)
    check_times(t, 2)
    check_one_of("method", method, ("euler", "rk4", "implicit"))
    check_integer("substeps", substeps, 1)
    check_value("f: value", f, x0)
    if metric is not None:
        _check_metric(metric, x0)
    graph = x0.requires_grad and torch.is_grad_enabled()
    step = {"euler": _euler, "rk4": _rk4, "implicit": _implicit}[method]
    lengths = (t.detach().diff() / substeps).to(x0.dtype)
    x = x0 if graph else x0.detach()
    points = [x]
    for h in lengths:
        for _ in range(substeps):
            x = step(f, x, h, metric, graph)
        points.append(x)
    path = torch.stack(points)
    with torch.set_grad_enabled(graph):
        return FlowResult(t, path, f(path))


def proximal_step(
    f: Scalar, x: Float[Tensor, "*batch d"], step: float, *, tol: float = 1e-10, max_iter: int = 50
) -> Float[Tensor, "*batch d"]:
    r"""Return :math:`\arg\min_y\frac1{2h}\|y-x\|^2+f(y)`: gradient descent's penalised form, solved exactly.

    Its stationary point is the implicit step :math:`y=x-h\nabla f(y)`. Newton's method, its step halved until the
    objective falls; where the objective curves downwards, with the curvature's absolute value (then a local minimum).

    Args:
        f: maps (..., d) to (...), rows independently, twice differentiable.
        x: points (*batch, d).
        step: h > 0.
        tol: where to stop: largest entry of :math:`(y-x)/h+\nabla f(y)`, relative to that of the gradient at x if that
            exceeds 1.
        max_iter: most Newton rounds.

    Returns:
        (*batch, d), detached.

    Raises:
        TypeError: x is not floating, step or tol no number.
        ValueError: step or tol not positive, max_iter < 1, f returns another shape.

    Cost: a Hessian and an eigendecomposition of d × d for each round; a few rounds for convex f.

    >>> proximal_step(lambda x: x.square().sum(-1) / 2, torch.tensor([2.0, -4.0]), 1.0)
    tensor([ 1., -2.])
    """
    check_point("x", x)
    check_number("step", step, above=0, below=math.inf)
    check_number("tol", tol, above=0, below=math.inf)
    check_integer("max_iter", max_iter, 1)
    check_value("f: value", f, x)
    return _minimise(f, x.detach(), torch.as_tensor(step, dtype=x.dtype, device=x.device), None, tol, max_iter)


def _minimise(f: Scalar, x: Tensor, h: Tensor, G: Tensor | None, tol: float, max_iter: int) -> Tensor:
    """Newton with backtracking on (y − x)ᵀG(y − x)/(2h) + f(y), from y = x."""
    base = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) if G is None else G

    def objective(y: Tensor) -> Tensor:
        d = y - x
        return (d * _times(base, d)).sum(-1) / (2 * h) + f(y)

    y, scale = x, None
    for _ in range(max_iter):
        slope, curvature = hessian(f, y)
        residual = _times(base, y - x) / h + slope
        size = residual.abs().amax(-1)
        scale = size.clamp_min(1.0) if scale is None else scale
        if bool((size <= tol * scale).all()):
            break
        values, vectors = torch.linalg.eigh(base / h + curvature)
        values = values.abs().clamp_min(1e-8 * values.abs().amax(-1, keepdim=True))
        move = -_times(vectors, _times(vectors.mT, residual) / values)
        moved, y = _backtrack(objective, y, move, (residual * move).sum(-1))
        if not moved:  # rounding is all that is left
            break
    return y


@torch.no_grad()
def _backtrack(objective: Scalar, y: Tensor, move: Tensor, descent: Tensor) -> tuple[bool, Tensor]:
    """Halve each row's step until the objective falls by a ten-thousandth of its promise; rows that cannot stay."""
    before = objective(y)
    length = torch.ones_like(before)
    for _ in range(40):
        there = y + length.unsqueeze(-1) * move
        falls = objective(there) <= before + 1e-4 * length * descent
        if bool(falls.all()):
            return True, there
        length = torch.where(falls, length, length / 2)
    # within rounding of the minimum the objective no longer tells: accept the full step where it is tiny
    tiny = move.abs().amax(-1) <= 1e-6 * (1 + y.abs().amax(-1))
    there = torch.where(falls.unsqueeze(-1), there, torch.where(tiny.unsqueeze(-1), y + move, y))
    return bool(falls.any()), there


def _euler(f: Scalar, x: Tensor, h: Tensor, metric: Metric | None, graph: bool) -> Tensor:
    return x + h * _velocity(f, x, metric, graph)


def _rk4(f: Scalar, x: Tensor, h: Tensor, metric: Metric | None, graph: bool) -> Tensor:
    first = _velocity(f, x, metric, graph)
    second = _velocity(f, x + h / 2 * first, metric, graph)
    third = _velocity(f, x + h / 2 * second, metric, graph)
    last = _velocity(f, x + h * third, metric, graph)
    return x + h / 6 * (first + 2 * (second + third) + last)


def _implicit(f: Scalar, x: Tensor, h: Tensor, metric: Metric | None, graph: bool) -> Tensor:
    frozen = None if metric is None else metric(x.detach())
    y = _minimise(f, x.detach(), h, frozen, 1e-10, 50)
    if not graph:
        return y
    # One Newton round on the graph makes the first derivative by x exact, a second one the second and third.
    base = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) if metric is None else metric(x)
    for _ in range(2):
        slope, curvature = hessian(f, y, graph=True)
        residual = _times(base, y - x) / h + slope
        y = y - torch.linalg.solve(base / h + curvature, residual.unsqueeze(-1)).squeeze(-1)
    return y


def _velocity(f: Scalar, x: Tensor, metric: Metric | None, graph: bool) -> Tensor:
    _, slope = gradient(f, x, graph)
    if metric is None:
        return -slope
    with torch.set_grad_enabled(graph):
        factor, failed = torch.linalg.cholesky_ex(metric(x))
        solution = torch.cholesky_solve(slope.unsqueeze(-1), factor).squeeze(-1)
    return torch.where(failed.unsqueeze(-1) == 0, -solution, math.nan)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def check_times(t: Tensor, least: int) -> None:
    """Refuse what is no floating 1-D tensor of at least `least` strictly increasing times."""
    check_dtype("t", t, "floating")
    if t.dim() != 1 or len(t) < least:
        entry = "entry" if least == 1 else "entries"
        raise ValueError(f"t: got shape {tuple(t.shape)}, expected (T,) with at least {least} {entry}")
    if not is_traced() and not bool((t.diff() > 0).all()):
        raise ValueError("t: got times that do not increase, expected strictly increasing ones")


def _check_metric(metric: Metric, x: Tensor) -> None:
    with torch.no_grad():
        G = metric(x)
        check_shape("metric: value", G, (*x.shape, x.shape[-1]), "a matrix for each row of x0")
        if not is_traced() and bool(torch.linalg.cholesky_ex(G)[1].any()):
            raise ValueError("metric: got a matrix that is not positive definite at x0, expected one that is")
