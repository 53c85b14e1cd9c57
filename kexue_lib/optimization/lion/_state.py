"""What Lion and Tiger have in common with each other and with every optimizer of torch: groups, state, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from kexue_lib._arguments import check_number, check_one_of
from kexue_lib._tracing import is_traced
from kexue_lib.optimization.lion._pieces import local
from kexue_lib.optimization.lion._rounding import ROUNDINGS, shared_noise

Noise = Callable[[torch.device], torch.Generator | None]


class SignOptimizer(Optimizer):
    """An optimizer whose state is one momentum, and a remainder for compensated rounding."""

    _update: Callable[..., None]  # of a kind: steps the parameters of a group that have a gradient

    def __init__(self, params: Any, defaults: dict[str, Any], generator: torch.Generator | None):
        self.generator = generator
        super().__init__(params, defaults)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "generator": self.generator}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, its options checked as the constructor's are."""
        dtype = {**self.defaults, **param_group}["momentum_dtype"]
        check_group({**self.defaults, **param_group})
        # By name: a checkpoint of a sharded model holds numbers, words and tensors only.
        super().add_param_group({**param_group, "momentum_dtype": dtype and str(dtype).removeprefix("torch.")})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step, and return what the closure returns.

        Args:
            closure: evaluates the loss with its gradients; called under ``enable_grad``.

        Raises:
            RuntimeError: a gradient is sparse, or a CUDA graph is captured without ``capturable=True``.
        """
        if _is_captured() and not all(group["capturable"] for group in self.param_groups):
            raise RuntimeError(f"{type(self).__name__}: a CUDA graph is captured, expected capturable=True")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for index, group in enumerate(self.param_groups):
            params = [p for p in group["params"] if p.grad is not None]
            if any(p.grad.is_sparse for p in params):
                raise RuntimeError(f"{type(self).__name__}: got a sparse gradient, expected dense ones")
            self._update(group, params, self._noise(index, group))
        return loss

    def _columns(self, group: dict[str, Any], params: list[Tensor]) -> list[list[Tensor | None]]:
        """Parameters, gradients, momenta and remainders as local real tensors; states are made where missing."""
        rows = []
        for p in params:
            state = self.state[p]
            if "exp_avg" not in state:
                state["exp_avg"] = torch.zeros_like(p, dtype=_momentum_dtype(group, p))
            if _is_compensated(group, p) and "compensation" not in state:
                state["compensation"] = torch.zeros_like(p)
            rows.append([local(t) for t in (p, p.grad, state["exp_avg"], state.get("compensation"))])
        return [list(column) for column in zip(*rows)] if rows else [[], [], [], []]

    def _noise(self, index: int, group: dict[str, Any]) -> Noise:
        if self.generator is not None or group["rounding"] != "stochastic":
            return lambda device: self.generator
        if is_traced() or group["capturable"]:  # a graph knows the device's own generator only
            return lambda device: None
        group["rounding_step"] = group.get("rounding_step", 0) + 1
        return shared_noise((group["rounding_step"], index))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, also one of a model of another dtype.

        The momentum comes back in ``momentum_dtype`` or its parameter's dtype without passing through another one,
        a remainder only where parameter and rounding have a use for it.
        """
        super().load_state_dict(state_dict)
        saved = [i for g in state_dict["param_groups"] for i in g["params"]]
        own = [(g, p) for g in self.param_groups for p in g["params"]]
        for index, (group, p) in zip(saved, own):
            stored, state = state_dict["state"].get(index), self.state.get(p)
            if not stored or not state:
                continue
            if "exp_avg" in stored:
                momentum = stored["exp_avg"].detach()
                state["exp_avg"] = momentum.to(device=p.device, dtype=_momentum_dtype(group, p), copy=True)
            if not _is_compensated(group, p):
                state.pop("compensation", None)


def check_group(group: dict[str, Any]) -> None:
    """Refuse options outside their range; what an optimizer does not have is not there."""
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"lr: got a tensor of {lr.numel()} elements, expected one element")
    check_number("lr", lr, least=0, below=math.inf)
    if len(group.get("betas", (0, 0))) != 2:
        raise ValueError(f"betas: got {len(group['betas'])} numbers, expected two")
    for index, beta in enumerate(group.get("betas", ())):
        check_number(f"betas[{index}]", beta, least=0, below=1)
    if "beta" in group:
        check_number("beta", group["beta"], least=0, below=1)
    check_number("weight_decay", group["weight_decay"], least=0, below=math.inf)
    check_one_of("rounding", group["rounding"], ROUNDINGS)
    dtype = group["momentum_dtype"]
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"momentum_dtype: got {dtype}, expected a floating dtype or None")


def rate(lr: float | Tensor, capturable: bool, params: Iterable[Tensor]) -> float | Tensor:
    """The learning rate as a number, or as a tensor without dimensions.

    Raises:
        ValueError: in a CUDA graph a rate on another device would be read once and never again.
    """
    if not isinstance(lr, Tensor):
        return lr
    if capturable and any(p.device != lr.device for p in params):
        raise ValueError(f"lr: got a tensor on {lr.device}, expected it on the parameters' device (capturable)")
    return lr.detach().reshape(())


def _is_captured() -> bool:
    return not is_traced() and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _momentum_dtype(group: dict[str, Any], p: Tensor) -> torch.dtype:
    if group["momentum_dtype"] is None:
        return p.dtype
    asked = getattr(torch, group["momentum_dtype"])
    return asked.to_complex() if p.is_complex() else asked


def _is_compensated(group: dict[str, Any], p: Tensor) -> bool:
    return group["rounding"] == "kahan" and p.dtype == torch.bfloat16
