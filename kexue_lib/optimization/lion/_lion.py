"""Lion: the sign of an interpolated momentum, and a decay apart from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from kexue_lib._tracing import is_traced
from kexue_lib.optimization.lion._pieces import local, pieces, widened, working_dtype
from kexue_lib.optimization.lion._rounding import store
from kexue_lib.optimization.lion._state import Noise, SignOptimizer, rate

_Tensors = list[Tensor] | tuple[Tensor, ...]
_LEAST_SHARE = 1e-3  # of components that a cautious step moves, so that its scale stays below a thousand


def lion_step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    weight_decay: float,
    maximize: bool = False,
    foreach: bool | None = None,
) -> None:
    r"""Do one step of Lion in place.

    .. math:: u=\operatorname{sign}(\beta_1m+(1-\beta_1)g),\quad\theta\leftarrow\theta(1-\eta\lambda)-\eta u,\quad
              m\leftarrow\beta_2m+(1-\beta_2)g

    Args:
        params: θ, changed in place.
        grads: g, of the parameters' shapes; left alone.
        exp_avgs: m, changed in place; any floating dtype.
        lr: η, number or tensor of one element.
        beta1: weight of the momentum in the step, in [0, 1).
        beta2: weight of the momentum in its average, in [0, 1).
        weight_decay: λ.
        maximize: go up.
        foreach: False takes one tensor at a time, True and None put small ones together. The result is the same.

    Raises:
        ValueError: lists of different lengths.

    Cost: in float32 20 bytes of traffic an element where a piece stays in the cache; one temporary of a piece.

    >>> weight, momentum = torch.tensor([1.0, -1.0]), torch.zeros(2)
    >>> lion_step([weight], [torch.tensor([3.0, 0.0])], [momentum], lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.0)
    >>> weight.tolist(), momentum.tolist()
    ([0.89999..., -1.0], [0.0299..., 0.0])
    """
    if not len(params) == len(grads) == len(exp_avgs):
        lengths = f"{len(params)}, {len(grads)} and {len(exp_avgs)}"
        raise ValueError(f"params, grads, exp_avgs: got {lengths} tensors, expected equally many")
    columns = [[local(t) for t in tensors] for tensors in (params, grads, exp_avgs)]
    columns.append([None] * len(params))
    options = {"betas": (beta1, beta2), "weight_decay": weight_decay, "maximize": maximize, "rounding": "nearest"}
    with torch.no_grad():
        for _, piece in pieces(columns, foreach is not False):
            _step(piece, rate(lr, False, ()), options, lambda device: None)


class Lion(SignOptimizer):
    r"""Lion, with the arithmetic of half-precision parameters in float32.

    .. math:: u_t=\operatorname{sign}(\beta_1m_{t-1}+(1-\beta_1)g_t),\quad
              \theta_t=(1-\eta\lambda)\theta_{t-1}-\eta u_t,\quad m_t=\beta_2m_{t-1}+(1-\beta_2)g_t

    State: ``exp_avg``, and ``compensation`` for ``rounding="kahan"``. A component whose momentum and gradient are
    zero moves by the decay only; gradients are never changed. A NaN gradient makes its component's momentum NaN,
    whose sign is 0: that component stops, and no NaN shows in the weights. :class:`Tiger` leaves such gradients out.

    Args:
        params: tensors, named tensors, or groups with options of their own.
        lr: η, at least 0; a tensor of one element can be changed under ``torch.compile`` and CUDA graphs.
        betas: (β₁, β₂), each in [0, 1); with equal ones it is Signum.
        weight_decay: λ, at least 0, decoupled: a step takes the share ηλ.
        maximize: go up instead of down.
        foreach: False takes one tensor at a time; the result is the same.
        capturable: the step may be captured in a CUDA graph; a tensor ``lr`` has to lie on the parameters' device.
        momentum_dtype: of ``exp_avg``; default: the parameter's.
        rounding: how bfloat16 parameters are stored; others always to the nearest. ``"stochastic"`` is unbiased,
            ``"kahan"`` keeps the remainder in a second bfloat16.
        cautious: leave out components where ug ≤ 0 and divide by the share of the rest, at least 0.001
            (arXiv:2411.16085).
        generator: of the random bits; give it one seed on all processes, and save its state yourself. Default: bits
            that are the same on every process and come back with ``state_dict``; under ``torch.compile`` or with
            ``capturable`` those of the device's own generator.

    Raises:
        TypeError: an option of another type.
        ValueError: an option outside its range.
        RuntimeError: in ``step``, a sparse gradient.

    Cost: 4 bytes of state a float32 parameter, AdamW's are 8; extra memory of a piece: 1 MB on the CPU, 64 MB else.

    Source: arXiv:2302.06675, algorithm 2.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    >>> optimizer = Lion([weight], lr=0.25)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> weight.tolist()
    [0.75, -0.75]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        momentum_dtype: torch.dtype | None = None,
        rounding: Literal["nearest", "stochastic", "kahan"] = "nearest",
        cautious: bool = False,
        generator: torch.Generator | None = None,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "momentum_dtype": momentum_dtype,
            "rounding": rounding,
            "cautious": cautious,
        }
        super().__init__(params, defaults, generator)

    def _update(self, group: dict[str, Any], params: list[Tensor], noise: Noise) -> None:
        lr = rate(group["lr"], group["capturable"], params)
        columns = self._columns(group, params)
        if group["cautious"]:
            for p, *row in zip(params, *columns):
                _step([[t] for t in row], lr, group, noise, p)
            return
        for _, piece in pieces(columns, group["foreach"] is not False):
            _step(piece, lr, group, noise)


def _step(
    piece: list[list], lr: float | Tensor, options: dict[str, Any], noise: Noise, whole: Tensor | None = None
) -> None:
    """One step of a piece; with ``whole``, the parameter that the piece is, a cautious one."""
    params, grads, momenta, remainders = piece
    (beta1, beta2), decay = options["betas"], float(options["weight_decay"])
    dtype = working_dtype(params[0])
    p, g, m = (widened(tensors, dtype) for tensors in (params, grads, momenta))
    if remainders[0] is not None:
        torch._foreach_add_(p, widened(remainders, dtype))
    if options["maximize"]:
        g = torch._foreach_neg(g)
    update = _direction(m, g, beta1)
    torch._foreach_sign_(update)
    if whole is not None:
        _leave_out(update[0], g[0], whole)
    torch._foreach_lerp_(m, g, 1 - beta2)
    _move(p, update, lr, decay)
    give_back(piece, p, m, options["rounding"], noise)


def _direction(m: _Tensors, g: _Tensors, beta1: float) -> _Tensors:
    """β₁m + (1 − β₁)g over the larger weight, as the sign needs no more: one pass, and no factor above 1."""
    if beta1 >= 0.5:
        return torch._foreach_add(m, g, alpha=(1 - beta1) / beta1)
    return torch._foreach_add(g, m, alpha=beta1 / (1 - beta1))


def _move(p: _Tensors, update: _Tensors, lr: float | Tensor, decay: float) -> None:
    """θ ← θ(1 − ηλ) − ηu; the update is used up."""
    if isinstance(lr, Tensor):
        lr = lr.to(p[0].dtype)
        torch._foreach_mul_(update, lr)
        torch._foreach_mul_(p, 1 - lr * decay) if decay else None
        torch._foreach_sub_(p, update)
    elif decay and not is_traced() and all(t.device.type == "cpu" and t.is_contiguous() for t in (*p, *update)):
        # One pass for decay and step: the kernel of torch.optim.SGD(fused=True), which reads memory as it lies.
        torch._fused_sgd_(list(p), list(update), [], weight_decay=decay, momentum=0.0, lr=lr, dampening=0.0,
                          nesterov=False, maximize=False, is_first_step=False)  # fmt: skip
    else:
        torch._foreach_mul_(p, 1 - lr * decay) if decay else None
        torch._foreach_add_(p, update, alpha=-lr)


def give_back(piece: list[list], p: _Tensors, m: _Tensors, rounding: str, noise: Noise) -> None:
    """Store what was computed in a wider dtype."""
    params, _, momenta, remainders = piece
    if m[0] is not momenta[0]:
        torch._foreach_copy_(momenta, m)
    if p[0] is params[0]:
        return
    for dst, src, remainder in zip(params, p, remainders):
        store(dst, src, rounding, remainder, noise(dst.device))


def _leave_out(update: Tensor, g: Tensor, whole: Tensor) -> None:
    """Cautious: of a sign update, keep what agrees with the gradient, divided by its share of the whole tensor."""
    keep = update * g > 0
    count, total = keep.sum(), keep.numel()
    if hasattr(whole, "to_local"):
        from torch.distributed.tensor import DTensor

        sharded: Any = whole
        shards: Any = DTensor.from_local(keep, sharded.device_mesh, sharded.placements, run_check=False)
        count, total = shards.sum().full_tensor(), whole.numel() * (2 if whole.is_complex() else 1)
    update.mul_(keep).div_((count / max(1, total)).clamp(min=_LEAST_SHARE).to(update.dtype))
