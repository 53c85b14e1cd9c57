"""How far members of the squareplus family are from what they stand in for, and the solvers that find the best.

Errors are functions of x ≥ 0; each is even or odd in x.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def _beyond(x: Tensor, b: float) -> tuple[Tensor, Tensor]:
    """h and 1 − s_b'(x) = b/(2h(h + x)) for x ≥ 0."""
    h = (x.square() + b).sqrt()
    return h, b / (2 * h * (h + x))


ERRORS: dict[str, tuple[Callable, Callable | None]] = {
    "softplus": (
        lambda x, b: b / (2 * (x + (x.square() + b).sqrt())) - torch.log1p(torch.exp(-x)),
        lambda x, b: 0.25 / (x.square() + b).sqrt(),
    ),
    "sigmoid": (
        lambda x, b: torch.sigmoid(-x) - _beyond(x, b)[1],
        lambda x, b: -0.25 * x / _beyond(x, b)[0] ** 3,
    ),
    "gelu": (lambda x, b: x * (0.5 * torch.erfc(x / math.sqrt(2)) - _beyond(x, b)[1]), None),
    "silu": (lambda x, b: x * (torch.sigmoid(-x) - _beyond(x, b)[1]), None),
}


def extremes(error: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """Largest and smallest error on [0, 60], where all of them are past their last extremum."""
    found = []
    for sign in (1, -1):
        low, high = 0.0, 60.0
        for _ in range(4):
            x = torch.linspace(low, high, 1001, dtype=torch.float64)
            values = sign * error(x)
            best, step = x[values.argmax()].item(), (high - low) / 1000
            low, high = max(best - step, 0.0), best + step
        found.append(sign * values.max().item())
    return found[0], found[1]


def half_line() -> tuple[Tensor, Tensor]:
    """Nodes and weights of ∫₀^∞ for integrands with algebraic tails: x = e^{π/2 sinh u}, trapezoids in u."""
    u = torch.linspace(-4.0, 4.0, 801, dtype=torch.float64)
    x = torch.exp(0.5 * math.pi * torch.sinh(u))
    return x, x * 0.5 * math.pi * torch.cosh(u) * 0.01


def root(f: Callable[[float], float], low: float, high: float) -> float:
    """Bisection to the last bit; f changes sign once."""
    rising = f(high) > 0
    while (middle := 0.5 * (low + high)) not in (low, high):
        low, high = (low, middle) if (f(middle) > 0) == rising else (middle, high)
    return middle
