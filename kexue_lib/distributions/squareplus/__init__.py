"""Squareplus, the smoothing of ReLU that needs only a square root, computed without cancellation or overflow.

Source: Su Jianlin, "SquarePlus: possibly the smooth approximation of ReLU with the simplest arithmetic", 2021,
https://kexue.fm/archives/8833; Jonathan T. Barron, "Squareplus: A Softplus-Like Algebraic Rectifier", arXiv 2112.11687.

From 65 536 elements on, contiguous inputs with a single b go through a kernel made by `torch.compile`: one pass
over memory. It is compiled at the first such call (some seconds); without a working compiler, or under
`torch.compiler.set_stance("force_eager")`, the same formulas run as plain PyTorch.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of
from kexue_lib.distributions.squareplus._fit import ERRORS, extremes, half_line, root
from kexue_lib.distributions.squareplus._kernels import apply, compute_dtype

__all__ = [
    "B_CURVATURE",
    "B_LEAST_SQUARES",
    "B_MINIMAX",
    "B_UPPER",
    "Squareplus",
    "optimal_b",
    "squareplus",
    "squareplus_gate",
    "squareplus_grad",
    "squareplus_inverse",
]

B_UPPER = 4 * math.log(2) ** 2
"""Smallest b with squareplus ≥ softplus everywhere: both are log 2 at 0."""
B_MINIMAX = 1.5238210325187507
"""The b that minimises sup|squareplus − softplus|; the error is 0.0759."""
B_LEAST_SQUARES = 1.2420157225982004
"""The b that minimises ∫(squareplus − softplus)² over the real line."""
B_CURVATURE = 4.0
"""The b at which squareplus has the second derivative of softplus at 0, and the value 1."""


def squareplus(x: Float[Tensor, "..."], b: float | Float[Tensor, "..."] = B_UPPER) -> Float[Tensor, "..."]:
    """Squareplus, elementwise: a smooth, convex, increasing function above ReLU.

    s_b(x) = (x + √(x² + b))/2, computed as relu(x) + (b/4)/((|x| + √(x² + b))/2), which never subtracts.

    Args:
        x: any shape.
        b: ≥ 0, in units of x²; s_b(0) = √b/2. A tensor is broadcast against x, may require gradients and is not
            checked. 0 gives ReLU (gradient 0 at 0).

    Returns:
        The broadcast shape, dtype of x, within a few units in the last place for every finite x (b from 1e−30 to 1e30
        in float32); +inf → inf, −inf → 0. Half types are computed in float32 and rounded once. Differentiable any
        number of times, under vmap and without graph breaks.

    Raises:
        TypeError: x is not floating, b is no number.
        ValueError: b is negative, NaN or infinite.

    Cost: fused, one read and one write; the backward pass saves x and b only.
    Source: article 8833, equation of SquarePlus; arXiv 2112.11687, equation 1.

    >>> squareplus(torch.tensor([-1e30, 0.0, 1.5]), 4.0)
    tensor([1.0000e-30, 1.0000e+00, 2.0000e+00])
    """
    _check(x, b)
    if not isinstance(b, Tensor) and b == 0:
        return torch.relu(x)
    return apply("value", x, b)


def squareplus_inverse(y: Float[Tensor, "..."], b: float | Float[Tensor, "..."] = B_UPPER) -> Float[Tensor, "..."]:
    """The x with squareplus(x, b) = y.

    x = y − b/(4y).

    Args:
        y: any shape, > 0.
        b: as in `squareplus`.

    Returns:
        The broadcast shape, dtype of y; NaN where y ≤ 0 (no host synchronisation to refuse it).

    Raises:
        TypeError: y is not floating, b is no number.
        ValueError: b is negative, NaN or infinite.

    Cost: a few elementwise passes. Source: article 8833 (solve y² − xy − b/4 = 0 for x).

    >>> squareplus_inverse(torch.tensor([1.0, 2.0, -1.0]), 4.0)
    tensor([0.0000, 1.5000,    nan])
    """
    _check(y, b, "y")
    compute = compute_dtype(y)
    wide = y.to(compute)
    x = wide - 0.25 * (b.to(compute) if isinstance(b, Tensor) else b) / wide
    return torch.where(wide > 0, x, torch.nan).to(y.dtype)


def squareplus_grad(x: Float[Tensor, "..."], b: float | Float[Tensor, "..."] = B_UPPER) -> Float[Tensor, "..."]:
    """Derivative of squareplus in x: the algebraic stand-in for the sigmoid.

    s_b'(x) = (1 + x/√(x² + b))/2 = s_b(x)/√(x² + b), computed as the latter at −|x|, or 1 minus that for x > 0.
    It is the distribution function of √(b/2) times a Student t variable with two degrees of freedom.

    Args:
        x: any shape.
        b: as in `squareplus`.

    Returns:
        Values in [0, 1] of the broadcast shape, dtype of x, accurate in the tail ≈ b/(4x²) too, which is 0 once x²
        overflows; differentiable any number of times.

    Raises:
        TypeError: x is not floating, b is no number.
        ValueError: b is negative, NaN or infinite.

    Cost: as `squareplus`. Source: article 8833; arXiv 2112.11687, equation 2.

    >>> squareplus_grad(torch.tensor([-1e15, 0.0, 1.5]), 4.0)
    tensor([1.0000e-30, 5.0000e-01, 8.0000e-01])
    """
    _check(x, b)
    return apply("slope", x, b)


def squareplus_gate(x: Float[Tensor, "..."], b: float | Float[Tensor, "..."] = 0.67030) -> Float[Tensor, "..."]:
    """Gated form, an algebraic stand-in for GELU (default b) and SiLU (b = 2.04300).

    g_b(x) = x s_b'(x) = (x/2)(1 + x/√(x² + b)), computed as s_b(x) · x/√(x² + b).

    Args:
        x: any shape.
        b: as in `squareplus`; for the best fits see `optimal_b`.

    Returns:
        The broadcast shape, dtype of x, accurate in the tail ≈ b/(4x) too; −inf → 0. Differentiable any number of
        times.

    Raises:
        TypeError: x is not floating, b is no number.
        ValueError: b is negative, NaN or infinite.

    Cost: as `squareplus`. Source: article 8833, the remark on GELU and Swish.

    >>> squareplus_gate(torch.tensor([-1e15, 0.0, 1.5]), 4.0)
    tensor([-1.0000e-15,  0.0000e+00,  1.2000e+00])
    """
    _check(x, b)
    return apply("gate", x, b)


class Squareplus(nn.Module):
    """Squareplus as a layer, with a fixed or learnable b.

    Args:
        b: > 0; the initial value when it is learnable.
        learnable: make log b a parameter, so that b stays positive.
        num_parameters: 1, or the number of channels: one b for each entry of dimension 1 of the input, as `nn.PReLU`.
        device: of the parameter.
        dtype: of the parameter.

    Raises:
        TypeError: ``num_parameters`` is no integer, ``b`` is no number.
        ValueError: b is not positive and finite, num_parameters < 1; at the call, an input whose dimension 1 is not
            num_parameters.

    Source: article 8833; arXiv 2112.11687.

    >>> Squareplus(4.0)(torch.tensor([0.0, 1.5]))
    tensor([1., 2.])
    >>> Squareplus(learnable=True, num_parameters=3)
    Squareplus(b=1.922, learnable=True, num_parameters=3)
    """

    def __init__(
        self,
        b: float = B_UPPER,
        learnable: bool = False,
        num_parameters: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        check_number("b", b, above=0, below=math.inf)  # nn.ReLU is the limit b = 0
        check_integer("num_parameters", num_parameters, 1)
        self.num_parameters, self.learnable = num_parameters, learnable
        if learnable:
            self.log_b = nn.Parameter(torch.full((num_parameters,), math.log(b), device=device, dtype=dtype))
        else:
            self._b = float(b)

    @property
    def b(self) -> float | Tensor:
        """The smoothing: a float, or a tensor (num_parameters,) when it is learnable."""
        return self.log_b.exp() if self.learnable else self._b

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        b = self.b
        if self.num_parameters > 1:
            if x.dim() < 2 or x.shape[1] != self.num_parameters:
                raise ValueError(f"x: got shape {tuple(x.shape)}, expected {self.num_parameters} channels in dim 1")
            b = b.view(-1, *(1,) * (x.dim() - 2)) if isinstance(b, Tensor) else b
        elif isinstance(b, Tensor):
            b = b.view(())
        return squareplus(x, b)

    def extra_repr(self) -> str:
        mean = self.log_b.detach().float().mean().exp().item() if self.learnable else self._b
        return f"b={mean:.4g}, learnable={self.learnable}, num_parameters={self.num_parameters}"


def optimal_b(
    target: Literal["softplus", "sigmoid", "gelu", "silu"], norm: Literal["sup", "l2"] = "sup"
) -> tuple[float, float]:
    """The b that brings the squareplus family closest to a target, and the error that remains.

    "softplus" is fitted by s_b, "sigmoid" by its derivative s_b', "gelu" and "silu" by the gate x s_b'. Each error is
    even or odd in x and monotone in b, so that the best uniform fit has a largest and a smallest error of equal size;
    the best L2 fit solves ∫ e ∂e/∂b dx = 0.

    Args:
        target: what is approximated.
        norm: "sup" for the largest absolute error, "l2" for the square root of the integral of its square over the
            real line ("softplus" and "sigmoid" only).

    Returns:
        (b, error), to about 12 digits.

    Raises:
        ValueError: an unknown target or norm, or "l2" for "gelu" or "silu".

    Cost: some ten milliseconds: bisection in float64, each step a grid search with zoom, or a quadrature.
    Source: article 8833, the question of the best b, and its two exercises.

    >>> b, error = optimal_b("softplus")
    >>> round(b, 10), round(error, 10)
    (1.5238210325, 0.0759314499)
    """
    check_one_of("target", target, sorted(ERRORS))
    check_one_of("norm", norm, ("sup", "l2"))
    error, by_b = ERRORS[target]
    if norm == "sup":
        balance = lambda b: sum(extremes(lambda x: error(x, b)))
        b = root(balance, 0.05, 8.0)
        high, low = extremes(lambda x: error(x, b))
        return b, max(high, -low)
    if target not in ("softplus", "sigmoid") or by_b is None:
        raise ValueError(f"norm: got 'l2', expected 'sup' for target={target!r}")
    x, weight = half_line()
    b = root(lambda b: float((weight * error(x, b) * by_b(x, b)).sum()), 0.05, 8.0)
    return b, math.sqrt(2 * float((weight * error(x, b).square()).sum()))


def _check(x: Tensor, b: float | Tensor, name: str = "x") -> None:
    check_dtype(name, x, "floating")
    if isinstance(b, Tensor):
        check_dtype("b", b, "floating")
    else:
        check_number("b", b, least=0, below=math.inf)
