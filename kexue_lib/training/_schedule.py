"""Schedules of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from kexue_lib._arguments import check_integer

Schedule = Callable[[int], float] | Callable[[Optimizer], LRScheduler]


def warmup_linear(steps: int, *, warmup: int = 0, floor: float = 0.0) -> Callable[[int], float]:
    r"""Return a schedule: linear rise over ``warmup`` steps, then linear fall to ``floor`` at ``steps``.

    .. math:: s(t)=\min\Big(\frac{t+1}{w},\ \phi+(1-\phi)\frac{T-t}{T-w}\Big)

    Args:
        steps: T, steps of the run.
        warmup: w, 0…T.
        floor: φ, final factor.

    Returns:
        Function of the step t = 0, 1, … giving the factor of the learning rate.

    Raises:
        TypeError: ``warmup`` is no integer.
        ValueError: ``warmup`` outside 0…``steps``.

    >>> [round(warmup_linear(4, warmup=2)(t), 3) for t in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    check_integer("warmup", warmup, 0, steps, most_is="steps")

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        left = (steps - step) / max(1, steps - warmup)
        return floor + (1 - floor) * max(0.0, left)

    return factor


def warmup_cosine(steps: int, *, warmup: int = 0, floor: float = 0.0) -> Callable[[int], float]:
    r"""Return a schedule: linear rise over ``warmup`` steps, then half a cosine down to ``floor`` at ``steps``.

    .. math:: s(t)=\phi+\frac{1-\phi}{2}\Big(1+\cos\frac{\pi(t-w)}{T-w}\Big),\quad t\ge w

    Args:
        steps: T, steps of the run.
        warmup: w, 0…T.
        floor: φ, final factor.

    Returns:
        Function of the step t = 0, 1, … giving the factor of the learning rate.

    Raises:
        TypeError: ``warmup`` is no integer.
        ValueError: ``warmup`` outside 0…``steps``.

    >>> [round(warmup_cosine(4)(t), 3) for t in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    check_integer("warmup", warmup, 0, steps, most_is="steps")

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2

    return factor


def make_scheduler(schedule: Schedule | None, optimizer: Optimizer) -> LRScheduler | None:
    """Return the scheduler that a schedule stands for.

    Args:
        schedule: factor of the learning rate at a step, or a function making a scheduler from the optimizer, or None.
        optimizer: whose learning rates it sets.

    Returns:
        A scheduler, or None.

    Raises:
        TypeError: the schedule returns neither a number nor a scheduler.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    >>> make_scheduler(lambda step: 0.5, optimizer).get_last_lr()
    [1.0]
    """
    if schedule is None:
        return None
    of_step = cast("Callable[[int], float]", schedule)
    of_optimizer = cast("Callable[[Optimizer], LRScheduler]", schedule)
    try:
        factor = of_step(0)
    except Exception:  # a function of an optimizer, given a number
        factor = None
    if isinstance(factor, (int, float)):
        return LambdaLR(optimizer, of_step)
    scheduler = of_optimizer(optimizer)
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(f"schedule: got {type(scheduler).__name__} from it, expected a number or an LRScheduler")
    return scheduler
