"""SGD that may project after each step and keeps the average that the theory speaks about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from kexue_lib._arguments import check_number, check_one_of


class ProjectedSGD(Optimizer):
    r"""SGD with projection and averaging.

    .. math:: \theta_{t+1}=\Pi(\theta_t-\eta_tg_t),\qquad
              \bar\theta_T=\frac{\sum_{t\le T}w_t\theta_t}{\sum_{t\le T}w_t},\quad w_t=1\text{ or }\eta_t

    The average is of the points *before* each update, where the gradients were taken; the point after the last one is
    not in it. It is kept in ``state[p]["average"]``, in float32 for bfloat16 and float16.

    Args:
        params: parameters or groups; a group may have its own value of every option.
        lr: η > 0, a float.
        projection: Π or None, maps a parameter to a tensor of its shape: ``project_l2_ball`` (each row of a matrix by
            itself), ``lambda p: project_l2_ball(p.flatten()).view_as(p)`` (all entries together).
        average: "none", "uniform" or "lr".
        foreach: False updates one tensor at a time; None and True all of a group together, to the same bits.
        maximize: ascend.

    Raises:
        TypeError: lr is no number, projection not callable.
        ValueError: lr ≤ 0 or not finite, another word for average.
        RuntimeError: a sparse gradient.

    Cost: reads θ and g, writes θ; with an average it reads and writes that too. No host synchronisation.
    Source: article 9902; Zinkevich, ICML 2003.

    >>> theta = torch.nn.Parameter(torch.tensor([0.6, 0.8]))
    >>> optimizer = ProjectedSGD([theta], lr=1.0, projection=lambda p: p.clamp(-1, 1), average="uniform")
    >>> theta.grad = torch.tensor([-1.0, 0.0])
    >>> optimizer.step(); optimizer.step()
    >>> theta.tolist(), optimizer.averaged_parameters()[0].tolist()
    ([1.0, 0.800000011920929], [0.800000011920929, 0.800000011920929])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        projection: Callable[[Tensor], Tensor] | None = None,
        average: Literal["none", "uniform", "lr"] = "none",
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        own = {"lr": lr, "projection": projection, "average": average, "foreach": foreach, "maximize": maximize}
        super().__init__(params, own)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, its options checked first."""
        if isinstance(param_group, dict):
            options = self.defaults | param_group
            if isinstance(options["lr"], Tensor):
                raise TypeError("lr: got Tensor, expected a float")
            check_number("lr", options["lr"], above=0, below=math.inf)
            check_one_of("average", options["average"], ("none", "uniform", "lr"))
            if options["projection"] is not None and not callable(options["projection"]):
                got = type(options["projection"]).__name__
                raise TypeError(f"projection: got {got}, expected a function or None")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do a step; a closure's loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if any(p.grad.is_sparse for p in params):
                raise RuntimeError("ProjectedSGD: got a sparse gradient, expected a dense one")
            if not params:
                continue
            if group["average"] != "none":
                self._add_to_average(params, 1.0 if group["average"] == "uniform" else group["lr"])
            lr = group["lr"] if group["maximize"] else -group["lr"]
            for some in [[p] for p in params] if group["foreach"] is False else [params]:
                torch._foreach_add_(some, [p.grad for p in some], alpha=lr)
            if group["projection"] is not None:
                for p in params:
                    p.copy_(group["projection"](p))
        return loss

    def _add_to_average(self, params: list[Tensor], weight: float) -> None:
        by_share: dict[float, list[Tensor]] = {}
        for p in params:
            state = self.state[p]
            if not state:
                wide = torch.float32 if p.dtype in (torch.bfloat16, torch.float16) else p.dtype
                state["average"], state["weight"] = p.detach().to(wide, copy=True), 0.0
            if weight > 0:
                state["weight"] += weight
                by_share.setdefault(weight / state["weight"], []).append(p)
        for share, some in by_share.items():  # one list, unless a parameter missed gradients
            averages = [self.state[p]["average"] for p in some]
            torch._foreach_lerp_(averages, [p.to(a.dtype) for p, a in zip(some, averages)], share)

    def averaged_parameters(self) -> list[Tensor]:
        """Return the averages in the order of the parameters; a parameter itself where none was formed.

        Raises:
            RuntimeError: no group averages.
        """
        if all(group["average"] == "none" for group in self.param_groups):
            raise RuntimeError(
                "averaged_parameters: got average='none' in all groups, expected 'uniform' or 'lr' in one"
            )
        params = [p for group in self.param_groups for p in group["params"]]
        return [self.state[p].get("average", p.detach()) for p in params]

    @contextmanager
    def swap_averaged(self) -> Iterator[None]:
        """Put the averages in place of the parameters within a with statement.

        Raises:
            RuntimeError: no group averages.
        """
        params = [p for group in self.param_groups for p in group["params"]]
        kept = [p.detach().clone() for p in params]
        with torch.no_grad():
            for p, average in zip(params, self.averaged_parameters()):
                p.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for p, old in zip(params, kept):
                    p.copy_(old)
