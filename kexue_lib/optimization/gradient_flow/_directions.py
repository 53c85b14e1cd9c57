"""Which way is down: the steepest direction of a norm, and a step in the geometry of the simplex."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_number, check_one_of, check_shape
from kexue_lib._tracing import is_traced
from kexue_lib.optimization.gradient_flow._derivatives import check_point

Points = Float[Tensor, "*batch d"]


def steepest_direction(
    g: Points, norm: Literal["l1", "l2", "linf"] | Float[Tensor, "*metric d d"] = "l2"
) -> Float[Tensor, "*batch d"]:
    r"""Return :math:`\arg\min_{\|u\|=1}\langle g,u\rangle`, along the last dimension.

    l2: :math:`-g/\|g\|_2`; linf: :math:`-\mathrm{sign}(g)`; l1: :math:`-\mathrm{sign}(g_i)e_i` at the largest
    :math:`|g_i|`; a matrix M, for :math:`\|u\|^2=u^\top Mu`: :math:`-M^{-1}g/\sqrt{g^\top M^{-1}g}`.

    Args:
        g: gradients (*batch, d).
        norm: "l1", "l2" (default), "linf", or symmetric positive definite M (d, d) or (*batch, d, d).

    Returns:
        (*batch, d) of the dtype of g, of unit norm; zeros where g is zero (with linf in those entries). Of equal
        entries l1 takes the first.

    Raises:
        TypeError: g is not floating.
        ValueError: another norm; M does not fit g or is not positive definite.

    Cost: one or two passes; for M a Cholesky factorisation.

    >>> steepest_direction(torch.tensor([3.0, -4.0]))
    tensor([-0.6000,  0.8000])
    """
    check_point("g", g)
    if isinstance(norm, Tensor):
        return _in_metric(g, norm)
    check_one_of("norm", norm, ("l1", "l2", "linf"))
    if norm == "linf":
        return -g.sign()
    if norm == "l1":
        first = g.abs().argmax(-1, keepdim=True)
        return torch.zeros_like(g).scatter(-1, first, -g.gather(-1, first).sign())
    return _over_length(-_scaled(g), None)


def mirror_step(
    x: Points,
    g: Points,
    step: float,
    geometry: Literal["euclidean", "entropy"] = "euclidean",
) -> Points:
    r"""Return :math:`\arg\min_y\frac1hB(y,x)+\langle g,y\rangle`.

    euclidean: :math:`B=\frac12\|y-x\|^2`, the gradient step :math:`x-hg`. entropy: :math:`B=\sum_iy_i\log(y_i/x_i)`
    on the simplex, :math:`y_i\propto x_ie^{-hg_i}`, computed from logarithms.

    Args:
        x: points (*batch, d); for entropy not negative (a zero stays zero), normalised by the step.
        g: gradients of the same shape.
        step: h > 0.
        geometry: "euclidean" (default) or "entropy".

    Returns:
        (*batch, d) of the dtype of x.

    Raises:
        TypeError: x is not floating, step no number.
        ValueError: g has another shape, step is not positive, another geometry, a negative x with entropy.

    Cost: one pass, for entropy a softmax.
    Source: Nemirovski & Yudin, 1983; Beck & Teboulle, Oper. Res. Lett. 2003.

    >>> mirror_step(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1000.0]), 1.0, "entropy")
    tensor([1., 0.])
    """
    check_point("x", x)
    check_dtype("g", g, "floating")
    check_shape("g", g, tuple(x.shape), "as x has")
    check_number("step", step, above=0, below=math.inf)
    check_one_of("geometry", geometry, ("euclidean", "entropy"))
    if geometry == "euclidean":
        return x - step * g
    if not is_traced():
        check_number("x", x, least=0)
    return torch.softmax(x.log() - step * g, -1)


def _in_metric(g: Tensor, M: Tensor) -> Tensor:
    n = g.shape[-1]
    if M.shape not in ((n, n), (*g.shape, n)):
        raise ValueError(f"norm: got shape {tuple(M.shape)}, expected ({n}, {n}) or {(*g.shape, n)}")
    factor, failed = torch.linalg.cholesky_ex(M)
    if not is_traced() and bool(failed.any()):
        raise ValueError("norm: got a matrix that is not positive definite, expected one that is")
    unit = _scaled(g).unsqueeze(-1)
    half = torch.linalg.solve_triangular(factor, unit, upper=False)
    solution = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    return _over_length(-solution.squeeze(-1), half.squeeze(-1))


def _scaled(g: Tensor) -> Tensor:
    """g over its largest entry, so that squares neither overflow nor vanish; the direction stays."""
    largest = g.detach().abs().amax(-1, keepdim=True)
    return g / torch.where(largest > 0, largest, 1.0)


def _over_length(v: Tensor, of: Tensor | None) -> Tensor:
    """v over the Euclidean length of `of` (v itself if None), zeros where that is zero."""
    square = (v if of is None else of).square().sum(-1, keepdim=True)
    return torch.where(square > 0, v / torch.where(square > 0, square, 1.0).sqrt(), 0.0)
