"""Gradients of a model's linear layers on calibration batches, with little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Targets = Callable[[str, nn.Linear], bool] | Sequence[str] | None
Loss = Callable[[nn.Module, Any], Tensor]
Consume = Callable[[str, Tensor], None]


def collect_gradients(
    model: nn.Module,
    loss_fn: Loss,
    batches: Iterable[Any],
    *,
    targets: Targets = None,
    serial: bool = False,
    consume: Consume | None = None,
) -> dict[str, Float[Tensor, "n m"]]:
    """Return the mean gradient over the batches of every target's weight, in article orientation (n in, m out).

    The model is in evaluation mode meanwhile, so that dropout is off and no statistics move. Its parameters' ``grad``
    and ``requires_grad`` and its modes are afterwards what they were before, after an exception too.

    Args:
        model: any model with ``nn.Linear`` layers, frozen or not.
        loss_fn: ``loss_fn(model, batch)`` returns a scalar, the convention of ``kexue_lib.training.fit``.
        batches: of equal weight.
        targets: names of layers, whole or their last dotted part, or ``targets(name, layer) -> bool``; None for every
            ``nn.Linear``. A weight that several layers share counts once, under the first name.
        serial: one layer at a time, with a forward and a backward pass for each.
        consume: ``consume(name, G)`` is handed each gradient, which is then freed; the result is empty.

    Returns:
        Name of the layer → gradient, float32 for 16-bit weights, else their dtype; zeros for a layer that the loss
        does not use.

    Raises:
        ValueError: no layer matches; no batches; the loss is no scalar or depends on no target.

    Cost: a pass over the batches, with ``serial`` one for each target. Extra memory besides activations: all
    gradients; with ``consume`` the largest single one, if there is one batch or with ``serial``.
    Source: LoRA-GA, arXiv 2407.05000, section 3.4 and algorithm 2.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> collect_gradients(nn.Sequential(layer), lambda model, x: model(x).sum(), [torch.ones(3, 2)])
    {'0': tensor([[3.],
            [3.]])}
    """
    layers = linear_targets(model, targets)
    batches = list(batches)
    if not batches:
        raise ValueError("batches: got none, expected at least one calibration batch")
    collected: dict[str, Tensor] = {}
    take = consume or collected.__setitem__
    with undisturbed(model):
        groups = [[name] for name in layers] if serial else [list(layers)]
        # A list, not a generator: every group must have its pass.
        used = [_one_pass(model, loss_fn, batches, {name: layers[name] for name in names}, take) for names in groups]
    if not any(used):
        raise unused()
    return {name: collected[name] for name in layers if name in collected}


def linear_targets(model: nn.Module, targets: Targets) -> dict[str, nn.Linear]:
    """Return the layers that ``targets`` names, a shared weight once.

    Raises:
        ValueError: there is none.
    """
    chosen: dict[str, nn.Linear] = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear) or any(layer.weight is other.weight for other in chosen.values()):
            continue
        if targets is None:
            fits = True
        elif callable(targets):
            fits = targets(name, layer)
        else:
            fits = name in targets or name.rpartition(".")[2] in targets
        if fits:
            chosen[name] = layer
    if not chosen:
        raise ValueError(f"targets: got {targets!r}, expected some that match an nn.Linear of the model")
    return chosen


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradient wanted of any parameter; everything as it was afterwards."""
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        for p, _, _ in parameters:
            p.requires_grad_(False).grad = None
        yield
    finally:
        for module, training in modes:
            module.training = training
        for p, wanted, grad in parameters:
            p.requires_grad_(wanted).grad = grad


def backward(loss: Any) -> bool:
    """Run the backward pass of a scalar; False where there is none, for the loss depends on no target.

    Raises:
        ValueError: it is no scalar.
    """
    if not isinstance(loss, Tensor) or loss.dim():
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"loss_fn: got {got}, expected a scalar tensor")
    if loss.requires_grad:
        loss.backward()
    return loss.requires_grad


def unused() -> ValueError:
    """What to raise where no batch's loss depends on a target."""
    return ValueError("loss_fn: got a loss that depends on no target, expected one that does")


def _one_pass(model: nn.Module, loss_fn: Loss, batches: list[Any], layers: dict[str, nn.Linear], take: Consume) -> bool:
    """Hand over each layer's mean gradient, at once where there is only one batch; whether the loss used a layer."""
    totals: dict[str, Tensor] = {}

    def ready(name: str, gradient: Tensor) -> None:
        if len(batches) == 1:
            totals[name] = gradient.new_empty(0)  # seen
            take(name, gradient.mT)
        elif name in totals:
            totals[name].add_(gradient, alpha=1 / len(batches))
        else:
            totals[name] = gradient.div_(len(batches))

    hooks = []
    try:
        for name, layer in layers.items():
            layer.weight.requires_grad_(True)
            hooks.append(layer.weight.register_post_accumulate_grad_hook(_hand_over(name, ready)))
        with torch.enable_grad():
            used = [backward(loss_fn(model, batch)) for batch in batches]
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers.values():
            layer.weight.requires_grad_(False)
    for name, layer in layers.items():
        if name not in totals:
            take(name, torch.zeros_like(_wide(layer.weight.detach())).mT)
        elif len(batches) > 1:
            take(name, totals.pop(name).mT)
    return any(used)


def _hand_over(name: str, ready: Callable[[str, Tensor], None]) -> Callable[[Tensor], None]:
    def hook(weight: Tensor) -> None:
        gradient, weight.grad = weight.grad, None
        assert gradient is not None  # the hook runs when it has been made
        ready(name, _wide(gradient))

    return hook


def _wide(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
