"""The decay as a scheduler of any optimizer."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kexue_lib._arguments import check_integer
from kexue_lib.optimization.amos_recipes._decay import POWER, Mode, kappa_from_half_life


class AmosLR(LRScheduler):
    r"""Let the learning rate fall by half in ``half_life`` steps, for ever on and without a horizon.

    .. math:: \eta_t=\eta_0\cdot\begin{cases}(t+1)/(W+1)&t<W\\ f(t-W)&t\ge W\end{cases}

    with f of :func:`decay_factor`. Optimizers that multiply their decay by the learning rate (AdamW, Lion) need
    nothing more: their ρ = ηλ falls with η, as the recipe wants.

    Args:
        optimizer: its groups' ``lr`` are scaled, float or tensor.
        half_life: T½ > 0, steps after the warm-up until the factor is ½.
        mode: ``"inverse_time"`` or ``"inverse_square"``.
        warmup_steps: W ≥ 0.
        scale_weight_decay: multiply ``weight_decay`` of every group by the factor too: for optimizers that do not
            multiply their decay by the learning rate. With AdamW it gives ρ ∝ f².
        last_epoch: as in PyTorch; -1 starts.

    ``load_state_dict`` sets the rates of the optimizer, so that a new optimizer goes on with those of the old one.

    Raises:
        ValueError: ``half_life`` not positive, ``warmup_steps`` < 0, unknown ``mode``; ``scale_weight_decay`` with a
            group that has no ``weight_decay``.
        TypeError: another type.

    Cost: O(groups) a step.
    Source: Su Jianlin, https://kexue.fm/archives/9344.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> schedule, rates = AmosLR(optimizer, half_life=2.0, warmup_steps=1), []
    >>> for _ in range(4):
    ...     rates.append(round(schedule.get_last_lr()[0], 3))
    ...     optimizer.step(); schedule.step()
    >>> rates
    [0.5, 1.0, 0.667, 0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        half_life: float,
        mode: Mode = "inverse_time",
        warmup_steps: int = 0,
        scale_weight_decay: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self.kappa = kappa_from_half_life(half_life, mode)
        check_integer("warmup_steps", warmup_steps, 0)
        self.mode, self.warmup_steps = mode, warmup_steps
        self.base_weight_decays: list[float] = []
        if scale_weight_decay:
            for i, group in enumerate(optimizer.param_groups):
                if "weight_decay" not in group:
                    raise ValueError(f"scale_weight_decay: got True, expected a weight_decay in parameter group {i}")
                group.setdefault("initial_weight_decay", group["weight_decay"])
            self.base_weight_decays = [group["initial_weight_decay"] for group in optimizer.param_groups]
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        """Return the factor of the step that comes next."""
        t, warmup = self.last_epoch, self.warmup_steps
        if t < warmup:
            return (t + 1) / (warmup + 1)
        return (1 + self.kappa * (t - warmup)) ** -POWER[self.mode]

    def get_lr(self) -> list[Any]:
        """Return the groups' learning rates (PyTorch calls it)."""
        return [base * self.factor() for base in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Go on by one step; call it after the optimizer's."""
        super().step(epoch)
        self._scale_weight_decay()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the state was saved; the optimizer's rates are set to those of that step."""
        super().load_state_dict(state_dict)
        for group, rate in zip(self.optimizer.param_groups, self.get_last_lr(), strict=True):
            if hasattr(group["lr"], "fill_"):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._scale_weight_decay()

    def _scale_weight_decay(self) -> None:
        if self.base_weight_decays:
            for group, base in zip(self.optimizer.param_groups, self.base_weight_decays, strict=True):
                group["weight_decay"] = base * self.factor()
