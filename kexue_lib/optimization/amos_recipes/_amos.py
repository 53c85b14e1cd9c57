"""Amos itself: the recipe with the progress measured by a running mean of the squared gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from kexue_lib._arguments import check_number, check_one_of
from kexue_lib.optimization.amos_recipes._steps import in_lists, wide, wide_dtype, with_gradients

REDUCTIONS = ("all", "fan_in", "none")


def default_eta(p: Tensor) -> float:
    r"""Return the scale η that Amos expects of a trained parameter.

    .. math:: \eta=\tfrac12\ \text{(vectors, scalars)},\quad \sqrt{2/n_1}\ \text{(matrices)},\quad
              \sqrt{1/n_1}\ \text{(more dimensions)},\qquad n_1=\text{size of dimension 1}

    Args:
        p: the parameter.

    Raises:
        ValueError: dimension 1 is empty.

    >>> default_eta(torch.zeros(7, 8)), default_eta(torch.zeros(7))
    (0.5, 0.5)
    """
    if p.ndim <= 1:
        return 0.5
    if p.shape[1] == 0:
        raise ValueError(f"p: got shape {tuple(p.shape)}, expected entries along dimension 1")
    return math.sqrt((2 if p.ndim == 2 else 1) / p.shape[1])


class Amos(Optimizer):
    r"""Amos (Tian & Parikh, 2022): an update relative to a parameter's scale, with decays that it derives itself.

    .. math::
        v&\leftarrow\beta v+(1-\beta)\,\overline{g^2},\qquad r=\frac{1-\beta^t}{\max(v,\epsilon)},\qquad
        \gamma=c(b)\,\xi^2\,r\,\overline{g^2}\\
        \theta&\leftarrow\theta-d(b)\Big[\xi\eta\sqrt r\,g+\big(\tfrac12\gamma+\lambda_2\big)\theta\Big],\qquad
        b\leftarrow b+\gamma(1+b)\\
        c(b)&=\big(1+\tfrac14\sqrt{\xi}\,b\big)^{-1/2},\qquad d(b)=\big(1+\tfrac14\sqrt{\xi\eta}\,b\big)^{-1}

    with the b of before in c and d. The bar is the mean over a tensor (``reduce="all"``: the state is two numbers a
    tensor), over all dimensions but the first (``"fan_in"``), or over nothing (``"none"``: two numbers an entry).

    Args:
        params: parameters or groups; a group may have its own value of every option.
        lr: ξ ≥ 0; float or 0-d tensor. The authors advise 1/√N for N independent batches.
        beta: β in [0, 1).
        momentum: μ in [0, 1): with μ > 0 the moving average of the whole update is subtracted, not debiased.
        extra_l2: λ₂ ≥ 0, decay beside the derived one.
        eta: η > 0, a number or a function of the parameter; default :func:`default_eta`.
        reduce: which entries share v and b.
        c_coef: the ¼ in c, ≥ 0.
        d_coef: the ¼ in d, ≥ 0.
        eps: ε > 0.
        clip_value: largest magnitude of an entry of the gradient, > 0.
        foreach: update all tensors of a group together (default, except for ``reduce="none"``) or one after the other.
        maximize: ascend.
        capturable: keep the step count on the parameter's device, for CUDA graphs.

    Gradients are read, never written. v and b are float32 for bfloat16 and float16; a mean square beyond the largest
    number of the type counts as that number.

    Raises:
        ValueError: an option outside its range, by name.
        TypeError: an option of another type.
        RuntimeError: a sparse gradient, a complex or a sharded parameter.

    Cost: reads g twice, reads and writes θ twice; no host synchronisation.
    Source: Tian & Parikh, https://arxiv.org/abs/2210.11693, algorithm 1; Su Jianlin, https://kexue.fm/archives/9344.

    >>> theta = torch.nn.Parameter(torch.ones(2, 2))
    >>> theta.grad = torch.ones(2, 2)
    >>> Amos([theta], lr=0.1, eta=1.0).step()       # 1 - (0.1 + 0.1² / 2)
    >>> round(theta[0, 0].item(), 4)
    0.895
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        beta: float = 0.999,
        momentum: float = 0.0,
        extra_l2: float = 0.0,
        *,
        eta: float | Callable[[Tensor], float] | None = None,
        reduce: Literal["all", "fan_in", "none"] = "all",
        c_coef: float = 0.25,
        d_coef: float = 0.25,
        eps: float = 2.0**-125,
        clip_value: float | None = None,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
    ) -> None:
        own = {"lr": lr, "beta": beta, "momentum": momentum, "extra_l2": extra_l2, "eta": eta, "reduce": reduce}
        own |= {"c_coef": c_coef, "d_coef": d_coef, "eps": eps, "clip_value": clip_value}
        super().__init__(params, own | {"foreach": foreach, "maximize": maximize, "capturable": capturable})

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
            # Slots as large as the parameters are best passed through the cache one tensor after the other.
            together = group["foreach"] if group["foreach"] is not None else group["reduce"] != "none"
            for some in in_lists(params, together):
                self._update(some, group)
        return loss

    def _begin(self, p: Tensor, group: dict[str, Any]) -> None:
        state, dtype = self.state[p], wide_dtype(p)
        if not state:
            eta = group["eta"]
            eta = default_eta(p) if eta is None else eta(p) if callable(eta) else eta
            check_number("eta", eta, above=0, below=math.inf)
            state["step"] = torch.zeros((), device=p.device if group["capturable"] else "cpu")
            state["eta"] = torch.full((), float(cast("float", eta)), dtype=dtype, device=p.device)
            state["exp_avg_sq"] = torch.zeros(_slot_shape(p, group["reduce"]), dtype=dtype, device=p.device)
            state["decay"] = torch.zeros_like(state["exp_avg_sq"])
            if group["momentum"] > 0:
                state["exp_avg"] = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[p] for p in params]
        grads = wide(cast("list[Tensor]", [p.grad for p in params]))
        if group["clip_value"] is not None:
            grads = list(torch._foreach_clamp_min(grads, -group["clip_value"]))
            torch._foreach_clamp_max_(grads, group["clip_value"])
        torch._foreach_add_([s["step"] for s in states], 1)
        rates, shrinks = _coefficients(grads, states, group)
        own, sign = wide(params), 1 if group["maximize"] else -1
        if group["momentum"] > 0:
            updates, keep = [s["exp_avg"] for s in states], 1 - group["momentum"]
            torch._foreach_mul_(updates, group["momentum"])
            torch._foreach_addcmul_(updates, own, shrinks, keep)
            torch._foreach_addcmul_(updates, grads, rates, -sign * keep)
            torch._foreach_sub_(own, updates)
        else:
            torch._foreach_addcmul_(own, own, shrinks, -1)
            torch._foreach_addcmul_(own, grads, rates, sign)
        if own[0] is not params[0]:
            torch._foreach_copy_(params, own)


def _coefficients(grads: list[Tensor], states: list[dict], group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Move v and b on; return the factors of the gradients and of the parameters in the update.

    All slots of the list make one vector, so that their arithmetic is a handful of calls however many tensors there
    are.
    """
    shapes = [s["decay"].shape for s in states]
    flat = lambda tensors: torch.cat([x.reshape(-1) for x in tensors])
    v, b = flat(s["exp_avg_sq"] for s in states), flat(s["decay"] for s in states)
    eta = flat(s["eta"].expand(shape) for s, shape in zip(states, shapes))
    squares = flat(_mean_squares(grads, shapes, group["reduce"])).clamp_max(torch.finfo(v.dtype).max)
    if group["capturable"]:
        debias = flat((1 - group["beta"] ** s["step"]).expand(shape) for s, shape in zip(states, shapes)).to(v.dtype)
    else:
        steps = {s["step"].item() for s in states}  # on the CPU: nothing to wait for
        if len(steps) == 1:
            debias = 1 - group["beta"] ** steps.pop()
        else:
            debias = flat(torch.full(shape, 1 - group["beta"] ** s["step"].item()) for s, shape in zip(states, shapes))
            debias = debias.to(v)
    xi = group["lr"]
    v.mul_(group["beta"]).add_(squares, alpha=1 - group["beta"])
    r = debias / v.clamp_min(group["eps"])
    d = (1 + group["d_coef"] * (xi * eta).sqrt() * b).reciprocal_()
    gamma = (1 + group["c_coef"] * xi**0.5 * b).rsqrt_() * xi**2 * (r * squares)
    rates, shrinks = d * xi * eta * r.sqrt(), d * (gamma / 2 + group["extra_l2"])
    b.add_(gamma * (1 + b))
    split = lambda x: [y.view(shape) for y, shape in zip(x.split([s.numel() for s in shapes]), shapes)]
    torch._foreach_copy_([s["exp_avg_sq"] for s in states], split(v))
    torch._foreach_copy_([s["decay"] for s in states], split(b))
    return split(rates), split(shrinks)


def _mean_squares(grads: list[Tensor], shapes: list[torch.Size], reduce: str) -> list[Tensor]:
    if reduce == "all":
        norms = torch._foreach_norm(grads)
        torch._foreach_div_(norms, [math.sqrt(max(g.numel(), 1)) for g in grads])
        return list(torch._foreach_mul(norms, norms))
    if reduce == "none":
        return list(torch._foreach_mul(grads, grads))
    own = [tuple(range(1, g.ndim)) for g in grads]
    return [g.square().mean(dim, keepdim=True) if dim else g.square() for g, dim in zip(grads, own)]


def _slot_shape(p: Tensor, reduce: str) -> tuple[int, ...]:
    if reduce == "none":
        return tuple(p.shape)
    if reduce == "all":
        return (1,) * p.ndim
    return (*p.shape[:1], *(1 for _ in p.shape[1:]))


def _check(options: dict[str, Any]) -> None:
    lr = options["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"lr: got a tensor of {lr.numel()} entries, expected one")
    check_number("lr", lr, least=0, below=math.inf)
    check_number("beta", options["beta"], least=0, below=1)
    check_number("momentum", options["momentum"], least=0, below=1)
    for name in ("extra_l2", "c_coef", "d_coef"):
        check_number(name, options[name], least=0, below=math.inf)
    check_number("eps", options["eps"], above=0, below=math.inf)
    check_one_of("reduce", options["reduce"], REDUCTIONS)
    if options["clip_value"] is not None:
        check_number("clip_value", options["clip_value"], above=0)
    if options["eta"] is not None and not callable(options["eta"]):
        check_number("eta", options["eta"], above=0, below=math.inf)
