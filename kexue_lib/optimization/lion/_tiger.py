"""Tiger: the sign of a momentum that also accumulates gradients, with rates relative to the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from kexue_lib._arguments import check_integer, check_number, check_one_of
from kexue_lib.optimization.lion._lion import give_back
from kexue_lib.optimization.lion._pieces import pieces, widened, working_dtype
from kexue_lib.optimization.lion._state import Noise, SignOptimizer, rate


class Tiger(SignOptimizer):
    r"""Tiger: Lion with one β, micro-batches gathered in the momentum itself, and rates relative to the weights.

    .. math:: m_t=\big[(\beta-1)\chi_{(t-1)/k}+1\big]m_{t-1}+\frac{1-\beta}kg_t,\qquad
              \theta_t=\theta_{t-1}-\chi_{t/k}\,\eta_\theta\,(\operatorname{sign}m_t+\lambda\theta_{t-1})

    with χ = 1 where its index is whole, else 0, and k the ``accumulation_steps``: call ``step`` and ``zero_grad``
    after every micro-batch. :math:`\eta_\theta` is η·RMS(θ) for matrices and what has more dimensions; for vectors
    and scalars it is η times ``vector_scale``, without decay. A matrix of zeros has RMS 0 and never moves: initialise
    it otherwise, or put it into a group with ``scale="none"``.

    A tensor whose gradient is not finite keeps its momentum, and is drawn towards ``center`` at that very call:
    θ ← (θ − c)s + c.

    Args:
        params: tensors, named tensors, or groups with options of their own.
        lr: η, at least 0, a number or a tensor of one element.
        beta: in [0, 1); the article takes 0.945 for vision and 0.965 for language.
        weight_decay: λ, at least 0.
        accumulation_steps: k, micro-batches of one step.
        scale: ``"rms"`` as above; ``"none"`` takes η and λ for every tensor.
        vector_scale: rate of vectors and scalars under ``"rms"``, in units of η.
        skip_nonfinite: leave out gradients that are not finite.
        shrink: s, in [0, 1].
        center: c; the article takes 1 for the gains of a normalisation, else 0.
        maximize: go up instead of down.
        foreach: False takes one tensor at a time; the result is the same.
        momentum_dtype: of ``exp_avg``; default: the parameter's.
        rounding: how bfloat16 parameters are stored, as in :class:`Lion`.
        generator: of stochastic rounding, as in :class:`Lion`.

    Raises:
        TypeError: an option of another type.
        ValueError: an option outside its range.
        RuntimeError: in ``step``, a sparse gradient.

    Cost: 4 bytes of state a float32 parameter, with any number of micro-batches; no host synchronisation.

    Source: https://kexue.fm/archives/9512, equations (1), (4) and (7).

    >>> weight = torch.nn.Parameter(torch.full((2, 2), 4.0))
    >>> optimizer = Tiger([weight], lr=0.25, weight_decay=0.0)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> weight.tolist()
    [[3.0, 3.0], [3.0, 3.0]]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        beta: float = 0.965,
        weight_decay: float = 0.01,
        *,
        accumulation_steps: int = 1,
        scale: Literal["rms", "none"] = "rms",
        vector_scale: float = 0.5,
        skip_nonfinite: bool = True,
        shrink: float = 0.99,
        center: float = 0.0,
        maximize: bool = False,
        foreach: bool | None = None,
        momentum_dtype: torch.dtype | None = None,
        rounding: Literal["nearest", "stochastic", "kahan"] = "nearest",
        generator: torch.Generator | None = None,
    ):
        defaults = {
            "lr": lr,
            "beta": beta,
            "weight_decay": weight_decay,
            "accumulation_steps": accumulation_steps,
            "scale": scale,
            "vector_scale": vector_scale,
            "skip_nonfinite": skip_nonfinite,
            "shrink": shrink,
            "center": center,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": False,
            "momentum_dtype": momentum_dtype,
            "rounding": rounding,
            "micro_step": 0,
        }
        super().__init__(params, defaults, generator)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, its options checked as the constructor's are."""
        group = {**self.defaults, **param_group}
        check_integer("accumulation_steps", group["accumulation_steps"], 1)
        check_one_of("scale", group["scale"], ("rms", "none"))
        check_number("vector_scale", group["vector_scale"], least=0, below=math.inf)
        check_number("shrink", group["shrink"], least=0, most=1)
        check_number("center", group["center"], above=-math.inf, below=math.inf)
        super().add_param_group(param_group)

    def _update(self, group: dict[str, Any], params: list[Tensor], noise: Noise) -> None:
        every, now = group["accumulation_steps"], group["micro_step"]
        group["micro_step"] = (now + 1) % every
        factors = [_factors(group, p, now == 0, now == every - 1) for p in params]
        for owners, piece in pieces(self._columns(group, params), group["foreach"] is not False):
            _step(piece, [factors[i] for i in owners], group, noise, moves=now == every - 1)


def _factors(group: dict[str, Any], p: Tensor, first: bool, last: bool) -> tuple[Tensor, ...]:
    """For one tensor, without dimensions: whether its gradient is finite, and the factors of m, θ and sign m, shift.

    They are tensors, so that nothing waits for the device.
    """
    dtype = working_dtype(p) if not p.is_complex() else p.real.dtype
    lr, decay = rate(group["lr"], False, ()), group["weight_decay"]
    if group["scale"] == "rms" and p.dim() >= 2:
        norm = _whole(torch.linalg.vector_norm(p, dtype=None if p.is_complex() else dtype)).to(dtype)
        lr = lr * norm / math.sqrt(max(1, p.numel()))
    elif group["scale"] == "rms":
        lr, decay = lr * group["vector_scale"], 0.0
    lr = torch.as_tensor(lr, dtype=dtype, device=p.device) if last else torch.zeros((), dtype=dtype, device=p.device)
    one = torch.ones_like(lr)
    kept = one * group["beta"] if first else one
    if not group["skip_nonfinite"]:
        return one.bool(), kept, 1 - lr * decay, -lr, 0 * one
    assert p.grad is not None  # only what has one is updated
    finite = _is_finite(p.grad)
    shift = group["center"] * (1 - group["shrink"]) * one
    return (
        finite,
        torch.where(finite, kept, one),
        torch.where(finite, 1 - lr * decay, group["shrink"] * one),
        torch.where(finite, -lr, 0 * lr),
        torch.where(finite, 0 * one, shift),
    )


def _is_finite(g: Tensor) -> Tensor:
    if hasattr(g, "full_tensor") or g.numel() == 0:
        return _whole(g.isfinite().all())
    return torch.linalg.vector_norm(g, math.inf).isfinite()  # one pass without a temporary


def _whole(value: Tensor) -> Tensor:
    """A number reduced over all processes, if the tensor was sharded."""
    whole = getattr(value, "full_tensor", None)
    return value if whole is None else whole()


def _step(piece: list[list], factors: list[tuple], group: dict[str, Any], noise: Noise, *, moves: bool) -> None:
    params, grads, momenta, remainders = piece
    dtype = working_dtype(params[0])
    p, g, m = (widened(tensors, dtype) for tensors in (params, grads, momenta))
    if remainders[0] is not None:
        torch._foreach_add_(p, widened(remainders, dtype))
    finite, of_momentum, of_parameter, of_sign, shift = (list(column) for column in zip(*factors))
    if group["skip_nonfinite"]:
        g = [torch.where(ok, t, 0) for ok, t in zip(finite, g)]
    sign = -1 if group["maximize"] else 1
    torch._foreach_mul_(m, of_momentum)
    torch._foreach_add_(m, g, alpha=sign * (1 - group["beta"]) / group["accumulation_steps"])
    if moves or group["skip_nonfinite"]:
        torch._foreach_mul_(p, of_parameter)
    if moves:
        update = torch._foreach_sign(m)
        torch._foreach_mul_(update, of_sign)
        torch._foreach_add_(p, update)
    if group["center"] and group["skip_nonfinite"]:
        torch._foreach_add_(p, shift)
    give_back(piece, p, m, group["rounding"], noise)
