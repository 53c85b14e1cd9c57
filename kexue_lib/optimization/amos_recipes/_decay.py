"""How fast the rates fall: the closed forms and the recursion that they approximate."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_integer, check_number, check_one_of

Mode = Literal["inverse_time", "inverse_square"]

# The factor is z ** -POWER where z grows like 1 + kappa t.
POWER = {"inverse_time": 1, "inverse_square": 2}


def decay_factor(t: Tensor | float, kappa: float, mode: Mode = "inverse_time") -> Float[Tensor, "..."]:
    r"""Return the factor by which learning rate and decay have fallen after t steps.

    .. math:: f(t)=\frac1{1+\kappa t}\ \text{(inverse time)},\qquad f(t)=\frac1{(1+\kappa t)^2}\ \text{(inverse square)}

    Args:
        t: steps, ≥ 0, any shape.
        kappa: κ ≥ 0 per step: 2α₀p₀ for a progress that falls like the distance, α₀p for a constant one.
        mode: which of the two.

    Returns:
        float64 tensor of t's shape.

    Raises:
        ValueError: a negative ``t`` or ``kappa``, unknown ``mode``.
        TypeError: another type.

    Cost: O(entries of t).
    Source: Su Jianlin, https://kexue.fm/archives/9344.

    >>> decay_factor(torch.tensor([0, 100, 300]), 0.01).tolist()
    [1.0, 0.5, 0.25]
    """
    check_one_of("mode", mode, POWER)
    check_number("kappa", kappa, least=0, below=math.inf)
    check_number("t", t, least=0)
    t = torch.as_tensor(t, dtype=torch.float64)
    return (1 + kappa * t) ** -POWER[mode]


def kappa_from_half_life(half_life: float, mode: Mode = "inverse_time") -> float:
    r"""Return the κ with which :func:`decay_factor` is ½ after ``half_life`` steps.

    .. math:: \kappa=\frac1T\ \text{(inverse time)},\qquad \kappa=\frac{\sqrt2-1}T\ \text{(inverse square)}

    Args:
        half_life: T > 0 in steps.
        mode: as in :func:`decay_factor`.

    Raises:
        ValueError: ``half_life`` not positive or not finite, unknown ``mode``.
        TypeError: another type.

    >>> kappa_from_half_life(500.0)
    0.002
    """
    check_one_of("mode", mode, POWER)
    check_number("half_life", half_life, above=0, below=math.inf)
    return (2 ** (1 / POWER[mode]) - 1) / half_life


def decay_recursion(n: int, alpha0: float, p: float, mode: Mode = "inverse_time") -> Float[Tensor, " n_plus_1"]:
    r"""Return the factors :math:`e^{-2S_t}`, t = 0…n, of the recursion itself, of which the closed forms are limits.

    .. math:: S_0=0,\quad S_{t+1}=S_t+\alpha_0\,p\,e^{-S_t}\ \text{(inverse square)},\quad
              S_{t+1}=S_t+\alpha_0\,p\,e^{-2S_t}\ \text{(inverse time)}

    Both are :math:`z_{t+1}=z_te^{\kappa/z_t}`, with :math:`z=e^S,\ \kappa=\alpha_0p` and :math:`z=e^{2S},\
    \kappa=2\alpha_0p`.

    Args:
        n: steps, ≥ 0.
        alpha0: α₀ > 0, relative change of a parameter in the first step.
        p: p > 0: cosine between update and error, constant (inverse square) or at the start (inverse time).
        mode: which of the two.

    Returns:
        float64 tensor ``(n + 1,)``.

    Raises:
        ValueError: ``n`` < 0, ``alpha0`` or ``p`` not positive, unknown ``mode``.
        TypeError: another type.

    Cost: O(n), one step after the other.

    >>> [round(x, 4) for x in decay_recursion(2, 0.5, 1.0, "inverse_square").tolist()]     # exp(-1) after a step
    [1.0, 0.3679, 0.2006]
    """
    check_one_of("mode", mode, POWER)
    check_integer("n", n, 0)
    check_number("alpha0", alpha0, above=0, below=math.inf)
    check_number("p", p, above=0, below=math.inf)
    power = POWER[mode]
    kappa = 2 * alpha0 * p / power
    z = [1.0]
    for _ in range(n):
        z.append(z[-1] * math.exp(kappa / z[-1]))
    return torch.tensor(z, dtype=torch.float64) ** -power
