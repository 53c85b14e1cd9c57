"""LoRA-Pro as an optimizer of pairs of factors: along the gradient, and with Adam's moments."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from kexue_lib._arguments import check_number, check_one_of
from kexue_lib.matrices.lora_gradient import LoRAPair
from kexue_lib.matrices.lora_pro._directions import (
    CHOICES,
    Spectra,
    Stack,
    check_scale,
    decompose,
    directions,
    rank_tolerance,
)

_CACHE = 1 << 19  # bytes of a stack of factors in float64


class _PairOptimizer(Optimizer):
    """One group for each pair, its ``params`` being [A, B]; pairs of equal shape and options step as one stack."""

    def __init__(self, pairs: Sequence[LoRAPair], defaults: dict[str, Any]):
        pairs = list(pairs)
        if not pairs:
            raise ValueError("pairs: got none, expected one at least")
        super().__init__([{"params": [A, B], "scale": scale} for A, B, scale in pairs], defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a pair, its options checked."""
        options = {**self.defaults, **param_group}
        check_number("lr", options["lr"], least=0, below=math.inf)
        check_one_of("C", options["C"], CHOICES)
        check_scale(options["scale"])
        A, B = param_group["params"]
        if A.dim() != 2 or B.dim() != 2 or A.shape[1] != B.shape[0]:
            raise ValueError(f"pairs: got shapes {tuple(A.shape)} and {tuple(B.shape)}, expected (n, r) and (r, m)")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step, and return what the closure returns; pairs without gradients stay.

        On an accelerator it waits once for each rank: torch.linalg.eigh reads from the device whether it succeeded.

        Args:
            closure: evaluates the loss with its gradients; called under ``enable_grad``.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        alike: dict[Any, list[dict[str, Any]]] = {}
        for group in self.param_groups:
            if all(p.grad is not None for p in group["params"]):
                alike.setdefault(self._key(group), []).append(group)
        kinds = [piece for kind in alike.values() for piece in _pieces(kind)]
        stacks = [Stack(*(_stacked(kind, index) for index in (0, 1))) for kind in kinds]
        for members, spectra in _decomposed(kinds, stacks):
            for index, found in zip(members, spectra):
                self._update(kinds[index], stacks[index], found)
        return loss

    @abstractmethod
    def _update(self, kind: list[dict[str, Any]], stack: Stack, spectra: Spectra) -> None:
        """Step the pairs of one kind."""

    def _key(self, group: dict[str, Any]) -> Any:
        """What pairs must share to step as one: shapes, dtype, device, options."""
        options = tuple(value for name, value in sorted(group.items()) if name != "params")
        A, B = group["params"]
        return A.shape, B.shape, A.dtype, A.device, options


class LoRAProSGD(_PairOptimizer):
    r"""Gradient descent along the best directions of both factors.

    .. math:: A\leftarrow A-\eta H_A,\qquad B\leftarrow B-\eta H_B

    Args:
        pairs: (A, B, scale) of each adapted layer, as ``lora_pairs(model)`` gives them.
        lr: η.
        C: ``"symmetric"``, ``"sylvester"`` or ``"zero"``, see :func:`lora_pro_gradients`.

    Raises:
        TypeError: ``lr`` or a scale is no number.
        ValueError: no pairs, factors that do not chain, ``lr`` negative, an unknown ``C``, a scale of 0.

    Cost: a stack of all pairs of equal shape, and one eigendecomposition call for each rank; no n × m matrix, no state.

    Source: Wang et al., 2024, algorithm 1.

    >>> from kexue_lib.matrices.lora_gradient import LoRAPair
    >>> A, B = torch.nn.Parameter(torch.eye(3, 1)), torch.nn.Parameter(torch.eye(1, 2))
    >>> optimizer = LoRAProSGD([LoRAPair(A, B, 1.0)], lr=0.5)
    >>> (A @ B).square().sum().backward()
    >>> optimizer.step(), (A @ B)[0, 0].item()
    (None, 0.25)
    """

    def __init__(
        self,
        pairs: Sequence[LoRAPair],
        lr: float,
        *,
        C: Literal["symmetric", "sylvester", "zero"] = "symmetric",
    ):
        super().__init__(pairs, {"lr": lr, "C": C})

    def _update(self, kind: list[dict[str, Any]], stack: Stack, spectra: Spectra) -> None:
        H = directions(*_gradients(kind), stack, spectra, kind[0]["C"], kind[0]["scale"])
        for index in (0, 1):
            params = [group["params"][index] for group in kind]
            torch._foreach_add_(params, list(H[index]), alpha=-kind[0]["lr"])


class LoRAProAdamW(_PairOptimizer):
    r"""AdamW along the best directions, with moments of the joint step or of the two factors.

    With ``moments="full"``, as in the paper:

    .. math:: \tilde G=s(H_AB+AH_B),\quad U=\frac{\hat M}{\sqrt{\hat V}+\epsilon},\quad
              (H_A,H_B)\ \text{again, for}\ U\ \text{in place of}\ G

    With ``moments="factor"`` H_A and H_B are the gradients of an ordinary AdamW on A and B.

    Args:
        pairs: (A, B, scale) of each adapted layer.
        lr: η.
        betas: decay rates of both moments, in [0, 1).
        eps: ε.
        weight_decay: λ; both factors shrink by 1 − ηλ before the step.
        C: as for :class:`LoRAProSGD`.
        moments: ``"full"`` keeps two n × m matrices a pair, as full fine-tuning does; ``"factor"`` 2r(n + m) numbers.

    Raises:
        TypeError: an option is no number.
        ValueError: no pairs, factors that do not chain, an option outside its range or unknown.

    Cost: ``"factor"`` a stack of all pairs of equal shape; ``"full"`` also O(nmr) and one n × m temporary a pair.

    Source: Wang et al., 2024, algorithm 2; the article prints ε under the root, here it stands as in Adam.

    >>> from kexue_lib.matrices.lora_gradient import LoRAPair
    >>> A, B = torch.nn.Parameter(torch.eye(3, 1)), torch.nn.Parameter(torch.eye(1, 2))
    >>> optimizer = LoRAProAdamW([LoRAPair(A, B, 1.0)], lr=0.1)
    >>> (A @ B).square().sum().backward()
    >>> optimizer.step(), optimizer.state[A]["exp_avg"].shape, round((A @ B)[0, 0].item(), 4)
    (None, torch.Size([3, 2]), 0.9025)
    """

    def __init__(
        self,
        pairs: Sequence[LoRAPair],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        C: Literal["symmetric", "sylvester", "zero"] = "symmetric",
        moments: Literal["full", "factor"] = "full",
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "C": C, "moments": moments}
        super().__init__(pairs, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a pair, its options checked."""
        options = {**self.defaults, **param_group}
        for index, beta in enumerate(options["betas"]):
            check_number(f"betas[{index}]", beta, least=0, below=1)
        for name in ("eps", "weight_decay"):
            check_number(name, options[name], least=0, below=math.inf)
        check_one_of("moments", options["moments"], ("full", "factor"))
        super().add_param_group({**param_group, "betas": tuple(options["betas"])})

    def _update(self, kind: list[dict[str, Any]], stack: Stack, spectra: Spectra) -> None:
        options = kind[0]
        H = directions(*_gradients(kind), stack, spectra, kind[0]["C"], kind[0]["scale"])
        if options["moments"] == "factor":
            for index in (0, 1):
                self._adamw([group["params"][index] for group in kind], H[index], options)
            return
        aligned = [self._full_direction(group, *pair) for group, *pair in zip(kind, *H)]
        G_A, G_B = (torch.stack(column) for column in zip(*aligned))
        H = directions(G_A, G_B, stack, spectra, options["C"], options["scale"])
        lr = options["lr"]
        for index in (0, 1):
            params = [group["params"][index] for group in kind]
            torch._foreach_mul_(params, 1 - lr * options["weight_decay"])
            torch._foreach_add_(params, list(H[index]), alpha=-lr)

    def _adamw(self, params: list[Tensor], H: Tensor, options: dict[str, Any]) -> None:
        """PyTorch's own AdamW with H in the place of the gradients."""
        columns = [self._moments(p, p.shape, p.dtype) for p in params]
        adamw(
            params,
            list(H.to(params[0].dtype)),
            [state["exp_avg"] for state in columns],
            [state["exp_avg_sq"] for state in columns],
            [],
            [state["step"] for state in columns],
            foreach=True,
            amsgrad=False,
            maximize=False,
            beta1=options["betas"][0],
            beta2=options["betas"][1],
            lr=options["lr"],
            weight_decay=options["weight_decay"],
            eps=options["eps"],
        )

    def _full_direction(self, group: dict[str, Any], H_A: Tensor, H_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return sUBᵀ and sAᵀU of Adam's direction U for the joint step."""
        (A, B), scale, (beta1, beta2) = group["params"], group["scale"], group["betas"]
        dtype = torch.float32 if A.dtype.itemsize == 2 else A.dtype
        state = self._moments(A, (A.shape[0], B.shape[1]), dtype)
        state["step"] += 1
        step = state["step"].item()  # it lies on the CPU
        wide_A, wide_B = A.to(dtype), B.to(dtype)
        joint = torch.cat([H_A.to(dtype), wide_A], 1) @ torch.cat([wide_B, H_B.to(dtype)]).mul_(scale)
        state["exp_avg"].lerp_(joint, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(joint, joint, value=1 - beta2)
        spread = torch.sqrt(state["exp_avg_sq"], out=joint).div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
        direction = torch.div(state["exp_avg"], spread, out=spread).mul_(scale / (1 - beta1**step))
        return (direction @ wide_B.mT).double(), (wide_A.mT @ direction).double()

    def _moments(self, p: Tensor, shape: Iterable[int], dtype: torch.dtype) -> dict[str, Any]:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros(*shape, dtype=dtype, device=p.device)
            state["exp_avg_sq"] = torch.zeros(*shape, dtype=dtype, device=p.device)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; full moments come back in their own dtype, not in that of half-precision factors."""
        super().load_state_dict(state_dict)
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        own = [p for group in self.param_groups for p in group["params"]]
        for index, p in zip(saved, own):
            for name, value in state_dict["state"].get(index, {}).items():
                self.state[p][name] = value.detach().to("cpu" if name == "step" else p.device, copy=True)


def _pieces(kind: list[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    """On the CPU stacks that fit into its cache; elsewhere one."""
    A, B = kind[0]["params"]
    count = max(1, _CACHE // (8 * max(A.numel(), B.numel()))) if A.device.type == "cpu" else len(kind)
    return (kind[start : start + count] for start in range(0, len(kind), count))


def _stacked(kind: list[dict[str, Any]], index: int) -> Tensor:
    return _wide([group["params"][index] for group in kind])


def _gradients(kind: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    G_A, G_B = (_wide([group["params"][index].grad for group in kind]) for index in (0, 1))
    return G_A, G_B


def _wide(tensors: list[Tensor]) -> Tensor:
    """A stack in float64, without one of the narrow type on the way."""
    out = tensors[0].new_empty((len(tensors), *tensors[0].shape), dtype=torch.float64)
    return torch.stack(tensors, out=out)


def _decomposed(kinds: list, stacks: list[Stack]) -> Iterable[tuple[list[int], list[Spectra]]]:
    """Indices of the stacks of one rank and device, with their spectra."""
    together: dict[Any, list[int]] = {}
    for index, stack in enumerate(stacks):
        together.setdefault((stack.A.shape[-1], stack.A.device), []).append(index)
    for members in together.values():
        tolerances = [rank_tolerance(kinds[i][0]["params"][0]) for i in members]
        yield members, decompose([stacks[i] for i in members], tolerances)
