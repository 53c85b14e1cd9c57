"""Low-rank training of plain weights: what LoRA and random projections do, done by the optimizer."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from kexue_lib._arguments import check_integer, check_number, check_one_of
from kexue_lib.matrices.lora_gradient._adapters import INITS, Start
from kexue_lib.matrices.lora_gradient._gradients import lora_gradients


class MatrixOptimizer(Optimizer):
    """An optimizer of matrices in torch's layout ``(m, n)``; of a kind is ``_update``, which steps one of them."""

    _update: Callable[[dict[str, Any], Tensor], None]
    _bounded_rank = True  # whether rank ≤ min(n, m)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, its options and parameters checked first."""
        group = self.defaults | param_group
        check_number("lr", group["lr"], least=0, below=math.inf)
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        for p in params:
            if p.dim() != 2:
                raise ValueError(f"params: got a parameter of shape {tuple(p.shape)}, expected matrices (m, n) only")
            check_integer("rank", group["rank"], 1, min(p.shape) if self._bounded_rank else None, most_is="min(n, m)")
        super().add_param_group(param_group | {"params": params})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do a step; a closure's loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError(f"{type(self).__name__}: got a sparse gradient, expected a dense one")
                self._update(group, p)
        return loss


class LoRAOptimizer(MatrixOptimizer):
    r"""LoRA without adapters: the factors are the optimizer's state, the network is the plain one.

    .. math:: G_A = s\,GB^\top,\quad G_B = s\,A^\top G,\quad (A, B) \to (A', B')\text{ by the inner optimizer},\quad
              W \leftarrow W + s\,(\Delta A\,B' + A\,\Delta B)

    It follows ``LoRALinear`` with the torch optimizer of that name. Weights of 16 bits are formed anew from the first
    ones and the factors in float32, so that steps below their resolution add up.

    Args:
        params: matrices ``(m, n)``, as ``nn.Linear`` stores its weight, or groups with options of their own.
        lr: η ≥ 0.
        rank: r, from 1 to min(n, m).
        inner: what steps the factors: "sgd", "adam", or "adamw".
        momentum: of "sgd", without dampening.
        betas, eps: of "adam" and "adamw".
        weight_decay: of the factors, as the torch optimizer applies it.
        scale: s.
        init: as ``LoRALinear``; the weights begin as they are with each.
        generator: what the factors are drawn from.

    Raises:
        ValueError: an option outside its range; a parameter that is no matrix.
        RuntimeError: a sparse gradient.

    Cost: 8nmr flops a matrix and a step; state r(n + m) numbers, with Adam three times as many, and for 16 bits a copy
    of the weight. The gradient G is a full one: what is saved is state, not the gradient's memory.
    Source: article 9590.

    >>> weight = torch.nn.Parameter(torch.zeros(3, 4))
    >>> optimizer = LoRAOptimizer([weight], lr=0.1, rank=2, inner="adam")
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> optimizer.state[weight]["A"].shape, optimizer.state[weight]["B"].shape
    (torch.Size([4, 2]), torch.Size([2, 3]))
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        rank: int,
        *,
        inner: Literal["sgd", "adam", "adamw"] = "sgd",
        momentum: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        scale: float = 1.0,
        init: Start = "zero_B",
        generator: torch.Generator | None = None,
    ) -> None:
        check_one_of("inner", inner, ("sgd", "adam", "adamw"))
        check_one_of("init", init, INITS)
        for index, beta in enumerate(betas):
            check_number(f"betas[{index}]", beta, least=0, below=1)
        check_number("momentum", momentum, least=0, below=1)
        for name, value in (("eps", eps), ("weight_decay", weight_decay)):
            check_number(name, value, least=0, below=math.inf)
        check_number("scale", scale, above=0, below=math.inf)
        own = {"lr": lr, "rank": rank, "inner": inner, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(params, own | {"weight_decay": weight_decay, "scale": scale, "init": init})
        for group in self.param_groups:
            for p in group["params"]:
                self._begin(group, p, generator)

    def _begin(self, group: dict[str, Any], p: Tensor, generator: torch.Generator | None) -> None:
        m, n = p.shape
        kind = {"dtype": torch.promote_types(p.dtype, torch.float32), "device": p.device}
        A, B = torch.zeros(n, group["rank"], **kind), torch.zeros(group["rank"], m, **kind)
        for factor, spread, zero in ((A, n**-0.5, "zero_A"), (B, group["rank"] ** -0.5, "zero_B")):
            if group["init"] != zero:
                factor.normal_(0.0, spread, generator=generator)
        state = {"A": A, "B": B}
        if p.dtype != kind["dtype"]:
            state |= {"first": p.detach().clone(), "first_A": A.clone(), "first_B": B.clone()}
        self.state[p] = state

    def _update(self, group: dict[str, Any], p: Tensor) -> None:
        state = self.state[p]
        if not state:  # of a group that was added later
            self._begin(group, p, None)
            state = self.state[p]
        A, B, scale = state["A"], state["B"], group["scale"]
        step = state["step"] = state.get("step", 0) + 1
        before_A, before_B = A.clone(), B.clone()
        assert p.grad is not None  # only what has one is updated
        gradients = lora_gradients(p.grad.mT.to(A.dtype), A, B, scale)
        for name, gradient in zip("AB", gradients):
            _step_factor(group, state, name, gradient, step)
        if "first" in state:
            left = torch.cat([A, state["first_A"]], 1)
            right = torch.cat([B, -state["first_B"]])
            p.copy_(torch.addmm(state["first"].to(A.dtype), right.mT, left.mT, alpha=scale))
        else:
            left, right = torch.cat([A - before_A, before_A], 1), torch.cat([B, B - before_B])
            p.addmm_(right.mT, left.mT, alpha=scale)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; factors and moments of 16-bit weights stay in float32."""
        super().load_state_dict(state_dict)
        saved = [i for g in state_dict["param_groups"] for i in g["params"]]
        own = [p for g in self.param_groups for p in g["params"]]
        for index, p in zip(saved, own):
            for name, value in state_dict["state"].get(index, {}).items():
                if isinstance(value, Tensor):
                    self.state[p][name] = value.detach().to(device=p.device, copy=True)


def _step_factor(group: dict[str, Any], state: dict[str, Any], name: str, gradient: Tensor, step: int) -> None:
    """One step of torch's SGD, Adam or AdamW on a factor, in place."""
    factor, lr, decay = state[name], group["lr"], group["weight_decay"]
    if group["inner"] == "adamw":
        factor.mul_(1 - lr * decay)
    elif decay:
        gradient = gradient.add(factor, alpha=decay)
    if group["inner"] == "sgd":
        if group["momentum"]:
            if step == 1:
                state[f"momentum_{name}"] = gradient.clone()
            else:
                state[f"momentum_{name}"].mul_(group["momentum"]).add_(gradient)
            gradient = state[f"momentum_{name}"]
        factor.add_(gradient, alpha=-lr)
        return
    beta_1, beta_2 = group["betas"]
    if step == 1:
        state[f"exp_avg_{name}"], state[f"exp_avg_sq_{name}"] = torch.zeros_like(factor), torch.zeros_like(factor)
    first = state[f"exp_avg_{name}"].lerp_(gradient, 1 - beta_1)
    second = state[f"exp_avg_sq_{name}"].mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
    size = (second.sqrt() / math.sqrt(1 - beta_2**step)).add_(group["eps"])
    factor.addcdiv_(first, size, value=-lr / (1 - beta_1**step))


class RandomProjectionSGD(MatrixOptimizer):
    r"""SGD on a gradient projected onto fresh random directions in each step.

    .. math:: \hat G = \tfrac12(UU^\top G + GV^\top V),\qquad E\hat G = G,\qquad W \leftarrow W - \eta\hat G

    U ``(n, r)`` and V ``(r, m)`` are normal with variance 1/r. One side alone is UUᵀG or GVᵀV, without the half.

    Args:
        params: matrices ``(m, n)``, as ``nn.Linear`` stores its weight, or groups.
        lr: η ≥ 0. The second moment of the estimate is (n + r + 1)/r times that of G for one side: the largest stable
            rate is as much smaller.
        rank: r ≥ 1, also above min(n, m).
        sides: "both", "left" (UUᵀG), or "right" (GVᵀV).
        generator: what the directions are drawn from, on the device of the parameters; its state is not in
            ``state_dict``.

    Raises:
        ValueError: an option outside its range; a parameter that is no matrix.
        RuntimeError: a sparse gradient.

    Cost: 4nmr flops a side and a step, no state.
    Source: article 9590, its section of guesses.

    >>> weight = torch.nn.Parameter(torch.zeros(3, 4))
    >>> weight.sum().backward()
    >>> RandomProjectionSGD([weight], lr=0.1, rank=2).step()
    """

    _bounded_rank = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        rank: int = 1,
        *,
        sides: Literal["both", "left", "right"] = "both",
        generator: torch.Generator | None = None,
    ) -> None:
        check_one_of("sides", sides, ("both", "left", "right"))
        self.generator = generator
        super().__init__(params, {"lr": lr, "rank": rank, "sides": sides})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "generator": self.generator}

    def _update(self, group: dict[str, Any], p: Tensor) -> None:
        m, n = p.shape
        wide = torch.promote_types(p.dtype, torch.float32)
        assert p.grad is not None  # only what has one is updated
        G = p.grad.mT.to(wide)
        share = -group["lr"] / (2 if group["sides"] == "both" else 1)
        moved, rank = torch.zeros_like(p, dtype=wide), group["rank"]
        draw = functools.partial(torch.randn, generator=self.generator, dtype=wide, device=p.device)
        if group["sides"] != "right":
            U = draw(n, rank) / math.sqrt(rank)
            moved.addmm_((U.mT @ G).mT, U.mT)
        if group["sides"] != "left":
            V = draw(rank, m) / math.sqrt(rank)
            moved.addmm_(V.mT, (G @ V.mT).mT)
        p.add_(moved.to(p.dtype), alpha=share)
