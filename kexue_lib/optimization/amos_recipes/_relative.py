"""An update whose length is a share of the parameter's scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from kexue_lib._arguments import check_number, check_one_of
from kexue_lib.optimization.amos_recipes._decay import POWER, Mode
from kexue_lib.optimization.amos_recipes._steps import in_lists, wide, wide_dtype, with_gradients

SIGMA_OF_VECTORS = 0.5
BASES = ("adam", "sign", "sgd")


class RelativeUpdate(Optimizer):
    r"""Move every tensor by a share α₀ of its scale, and let the matching weight decay take the second order away.

    .. math:: \theta_{t+1}=\theta_t-\alpha_0\sqrt k\,\sigma f_t\,\frac{u_t}{\|u_t\|}-\frac{\alpha_0^2}{2q}f_t\,\theta_t,
              \qquad f_t=\frac1{1+\kappa t}\ \text{or}\ \frac1{(1+\kappa t)^2}

    where k is the number of entries of the tensor and u the direction: the gradient, its sign, or Adam's. It does not
    change when a weight is written as a constant times another parameter, if u does not (the sign; the others up to
    ε) and σ is that of the tensor: a vector's default, 0.5, is not.

    Args:
        params: parameters or groups; a group may have its own value of every option but ``foreach``.
        alpha0: α₀ > 0, relative change in the first step; 1e-3, up to 1e-2 for easy tasks.
        sigma: σ > 0; default: the standard deviation of a tensor at its first step if it has two dimensions or more
            (0.5 if that is 0), and 0.5 for vectors and scalars.
        kappa: κ ≥ 0 per step, see :func:`kappa_from_half_life`; 0 keeps the rates constant.
        q: q > 0, share of the error in θ·ε = q‖ε‖²; ``math.inf`` switches the decay off.
        mode: law of f.
        base: direction: ``"adam"``, ``"sign"`` or ``"sgd"``.
        betas: of Adam's moments, in [0, 1).
        eps: ε > 0 of Adam.
        foreach: update all tensors of a group together; default: on a GPU.

    A group's ``lr``, 1, is one more factor of both terms, for schedulers. A tensor whose direction is 0 only decays.
    State: Adam's two moments (float32 for bfloat16 and float16) and two numbers a tensor.

    Raises:
        ValueError: an option outside its range, by name.
        TypeError: an option of another type.
        RuntimeError: a sparse gradient, a complex or a sharded parameter.

    Cost: Adam's, and a norm for each tensor.
    Source: Su Jianlin, https://kexue.fm/archives/9344.

    >>> theta = torch.nn.Parameter(torch.tensor([[3.0, -3.0]]))
    >>> theta.grad = torch.tensor([[2.0, 2.0]])
    >>> RelativeUpdate([theta], 0.1, sigma=1.0, q=math.inf, base="sign").step()
    >>> [round(x, 3) for x in theta[0].tolist()]
    [2.9, -3.1]
    """

    def __init__(
        self,
        params: Iterable[Any],
        alpha0: float = 1e-3,
        *,
        sigma: float | None = None,
        kappa: float = 0.0,
        q: float = 1.0,
        mode: Mode = "inverse_time",
        base: Literal["adam", "sign", "sgd"] = "adam",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        foreach: bool | None = None,
    ) -> None:
        own = {"alpha0": alpha0, "sigma": sigma, "kappa": kappa, "q": q, "mode": mode, "base": base}
        super().__init__(params, own | {"betas": betas, "eps": eps, "foreach": foreach, "lr": 1.0})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, its options checked first."""
        if isinstance(param_group, dict):
            _check(self.defaults | param_group)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do a step; a closure's loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, params in with_gradients(self):
            for p in params:
                self._begin(p, group)
            # Many temporaries at once help a GPU, where a launch is what costs, and leave the cache of a CPU.
            on_gpu = bool(params) and params[0].device.type == "cuda"
            for some in in_lists(params, on_gpu if group["foreach"] is None else group["foreach"]):
                self._update(some, group)
        return loss

    def _begin(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = 0
            state["sigma"] = _scale(p) if group["sigma"] is None else group["sigma"]
            if group["base"] == "adam":
                state["exp_avg"] = torch.zeros_like(p, dtype=wide_dtype(p), memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(state["exp_avg"])

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[p] for p in params]
        grads = cast("list[Tensor]", [p.grad for p in params])
        directions = _directions(wide(grads), states, group)
        factors = [(1 + group["kappa"] * s["step"]) ** -POWER[group["mode"]] * group["lr"] for s in states]
        lengths = [group["alpha0"] * math.sqrt(p.numel()) * s["sigma"] * f for p, s, f in zip(params, states, factors)]
        norms = torch._foreach_norm(directions)
        torch._foreach_maximum_(norms, torch.finfo(norms[0].dtype).tiny)  # a direction of 0 stays 0
        torch._foreach_div_(directions, norms)
        torch._foreach_mul_(directions, lengths)
        own = wide(params)
        if group["q"] != math.inf:
            decays = [group["alpha0"] ** 2 / (2 * group["q"]) * f for f in factors]
            torch._foreach_add_(directions, torch._foreach_mul(own, decays))
        torch._foreach_sub_(own, directions)
        if own[0] is not params[0]:
            torch._foreach_copy_(params, own)
        for state in states:
            state["step"] += 1


def _directions(grads: list[Tensor], states: list[dict], group: dict[str, Any]) -> list[Tensor]:
    """Return the directions u as tensors that may be overwritten."""
    if group["base"] == "sgd":
        return [g.clone() for g in grads]
    if group["base"] == "sign":
        return list(torch._foreach_sign(grads))
    beta1, beta2 = group["betas"]
    first, second = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
    torch._foreach_lerp_(first, grads, 1 - beta1)
    torch._foreach_mul_(second, beta2)
    torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
    steps = [s["step"] + 1 for s in states]
    below = torch._foreach_sqrt(torch._foreach_div(second, [1 - beta2**t for t in steps]))
    torch._foreach_add_(below, group["eps"])
    directions = torch._foreach_div(first, [1 - beta1**t for t in steps])
    torch._foreach_div_(directions, below)
    return list(directions)


def _scale(p: Tensor) -> float:
    """Return σ of a tensor as it is at its first step."""
    spread = p.to(wide_dtype(p)).std(correction=0).item() if p.ndim >= 2 and p.numel() else 0.0
    return spread or SIGMA_OF_VECTORS


def _check(options: dict[str, Any]) -> None:
    check_number("alpha0", options["alpha0"], above=0, below=math.inf)
    if options["sigma"] is not None:
        check_number("sigma", options["sigma"], above=0, below=math.inf)
    check_number("kappa", options["kappa"], least=0, below=math.inf)
    check_number("q", options["q"], above=0)
    check_number("eps", options["eps"], above=0, below=math.inf)
    for i, beta in enumerate(options["betas"]):
        check_number(f"betas[{i}]", beta, least=0, below=1)
    check_one_of("mode", options["mode"], POWER)
    check_one_of("base", options["base"], BASES)
