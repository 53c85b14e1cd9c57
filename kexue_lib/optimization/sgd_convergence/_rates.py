"""Learning rates from the three constants: D bounds distances, G gradients, T counts steps."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kexue_lib._arguments import check_integer, check_number


def optimal_constant_lr(D: float, G: float, T: int) -> float:
    r"""Return the constant rate with the lowest bound :math:`DG/\sqrt T`, namely :math:`\eta=D/(G\sqrt T)`.

    Args:
        D: bound on the distance of the iterates from the comparator, > 0.
        G: bound on the norm of the gradients, > 0.
        T: number of steps, ≥ 1.

    Raises:
        TypeError: an argument is no number, T no integer.
        ValueError: an argument outside its range.

    Source: article 9902, below its main inequality.

    >>> optimal_constant_lr(2.0, 1.0, 100)
    0.2
    """
    check_constants(D, G, T)
    return D / (G * math.sqrt(T))


def optimal_sqrt_scale(D: float, G: float) -> float:
    r"""Return :math:`\alpha=D/(\sqrt2\,G)`, the best scale of :math:`\eta_t=\alpha/\sqrt t`: bound √2·DG/√T at every T.

    Args:
        D: bound on the distance of the iterates from the comparator, > 0.
        G: bound on the norm of the gradients, > 0.

    Raises:
        TypeError: an argument is no number.
        ValueError: an argument is not positive.

    Source: article 9902 leaves α free; this one minimises its bound.

    >>> round(optimal_sqrt_scale(2.0, 1.0), 4)
    1.4142
    """
    check_constants(D, G)
    return D / (math.sqrt(2) * G)


def linear_decay_lr(D: float, G: float, T: int) -> Float64[Tensor, " T"]:
    r"""Return the rates after which the last point, number T + 1, is within DG/√(T+1) of the best loss.

    .. math:: \eta_t=\frac{D\,(T+1-t)}{G\,(T+1)^{3/2}},\qquad t=1,\dots,T

    Args:
        D: bound on the distance of the *first* point from the minimiser, > 0.
        G: bound on the norm of the gradients, > 0.
        T: number of steps, ≥ 1.

    Returns:
        (T,) in float64.

    Raises:
        TypeError: an argument is no number, T no integer.
        ValueError: an argument outside its range.

    Source: Zamani & Glineur, https://arxiv.org/abs/2307.11134; Defazio et al., https://arxiv.org/abs/2310.07831.

    >>> linear_decay_lr(2.0, 1.0, 3)
    tensor([0.7500, 0.5000, 0.2500], dtype=torch.float64)
    """
    check_constants(D, G, T)
    return torch.arange(T, 0, -1, dtype=torch.float64) * (D / (G * (T + 1) ** 1.5))


def doubling_lrs(D: float, G: float, T: int) -> Float64[Tensor, " T"]:
    r"""Return the best constant rate of epochs of length 1, 2, 4, …: no horizon is needed.

    .. math:: \eta_t=\frac D{G\sqrt{2^m}},\qquad 2^m\le t<2^{m+1}

    Args:
        D: bound on the distance of the iterates from the comparator, > 0.
        G: bound on the norm of the gradients, > 0.
        T: number of steps, ≥ 1.

    Returns:
        (T,) in float64.

    Raises:
        TypeError: an argument is no number, T no integer.
        ValueError: an argument outside its range.

    Source: the doubling trick of online learning.

    >>> doubling_lrs(2.0, 1.0, 4)
    tensor([2.0000, 1.4142, 1.4142, 1.0000], dtype=torch.float64)
    """
    check_constants(D, G, T)
    _, exponent = torch.frexp(
        torch.arange(1, T + 1, dtype=torch.float64)
    )  # t = mantissa · 2^(m + 1), mantissa in [½, 1)
    return D / G * torch.exp2(-(exponent.double() - 1) / 2)


class InverseSqrtLR(LRScheduler):
    r"""Rates :math:`\eta_t=\alpha/\sqrt t` for t = 1, 2, …, where α is the optimizer's initial rate.

    Call ``step`` after each step of the optimizer. Every group is scaled alike. Without warm-up the factor never
    increases, as the proof asks; with it the theorem speaks about the steps after the warm-up only.

    Args:
        optimizer: whose rates to set.
        warmup_steps: W ≥ 0 steps before, with the factors 1/(W + 1) … W/(W + 1).
        last_epoch: number of steps done before, −1 for none.

    Raises:
        TypeError: warmup_steps is no integer.
        ValueError: warmup_steps < 0.

    Source: article 9902, second example.

    >>> theta = torch.nn.Parameter(torch.zeros(1))
    >>> schedule = InverseSqrtLR(torch.optim.SGD([theta], lr=2.0))
    >>> schedule.optimizer.step(); schedule.step(); schedule.get_last_lr()
    [1.414213562373095]
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int = 0, last_epoch: int = -1) -> None:
        check_integer("warmup_steps", warmup_steps, 0)
        self.warmup_steps = warmup_steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of each group."""
        t, warmup = self.last_epoch + 1, self.warmup_steps
        factor = t / (warmup + 1) if t <= warmup else 1 / math.sqrt(t - warmup)
        return [base * factor for base in self.base_lrs]


def check_constants(D: float, G: float, T: int | None = None) -> None:
    """Refuse constants that bound nothing."""
    check_number("D", D, above=0, below=math.inf)
    check_number("G", G, above=0, below=math.inf)
    if T is not None:
        check_integer("T", T, 1)
