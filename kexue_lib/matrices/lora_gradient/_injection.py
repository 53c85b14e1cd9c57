"""Adapters in the place of a model's layers, and out again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from kexue_lib.matrices.lora_gradient._adapters import LoRALayer, LoRALinear, Start
from kexue_lib.matrices.lora_gradient._gradients import LoRAPair
from kexue_lib.matrices.lora_gradient._lookups import LoRAConv, LoRAEmbedding

Targets = Callable[[str, nn.Module], bool] | Sequence[str] | None
_ADAPTERS = {nn.Linear: LoRALinear, nn.Embedding: LoRAEmbedding, nn.Conv1d: LoRAConv, nn.Conv2d: LoRAConv}


def inject_lora(
    model: nn.Module,
    rank: int,
    *,
    targets: Targets = None,
    alpha: float | None = None,
    rslora: bool = False,
    dropout: float = 0.0,
    init: Start = "zero_B",
    generator: torch.Generator | None = None,
) -> list[str]:
    """Put adapters in the place of a model's layers, in place, and freeze every other parameter.

    A module that stands in several places is replaced by one adapter in all of them. Linear layers that share one
    weight get adapters that share their factors, so that they stay tied.

    Args:
        model: any module; adapters of an earlier call stay, and stay trainable.
        rank: r of every adapter, at most min(n, m) of each layer.
        targets: None for every ``nn.Linear``; names, each a whole one or the last dotted part of one; or a function of
            name and layer, which says whether the layer is adapted. Names and functions reach ``nn.Linear``,
            ``nn.Embedding``, ``nn.Conv1d`` and ``nn.Conv2d``.
        alpha: as ``LoRALinear``; None means s = 1.
        rslora: s = alpha / √r.
        dropout: as ``LoRALinear``; must be 0 where other layers than linear ones are adapted.
        init: "zero_B", "zero_A" or "both".
        generator: what all factors are drawn from, in the order of the names.

    Returns:
        The names of the adapted layers, in the model's order, one for a module that stands in several places.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: no layer matches, or a name matches none; the model is itself such a layer; a weight is shared
            with a layer that is not adapted, or of another kind; what ``LoRALinear`` refuses.

    Cost: r(n + m) numbers a layer.

    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> inject_lora(model, rank=2)
    ['0', '2']
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad)
    46
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, expected a module")
    if isinstance(model, tuple(_ADAPTERS)):
        raise ValueError(f"model: got a single {type(model).__name__}, expected a module that holds such layers")
    chosen = _chosen(model, targets)
    _refuse_half_tied(model, chosen)
    options: dict[str, Any] = {
        "alpha": alpha,
        "rslora": rslora,
        "dropout": dropout,
        "init": init,
        "generator": generator,
    }
    for name, layer in chosen.items():  # all before the first is changed
        try:
            _kind(layer).check(layer, rank, alpha, dropout, init)
        except ValueError as error:
            raise ValueError(f"{error} (layer {name!r})") from None
    adapters: dict[nn.Module, LoRALayer] = {}
    by_weight: dict[int, LoRALayer] = {}
    for layer in chosen.values():
        first = by_weight.get(id(layer.weight))
        # A second holder of a weight must not move it again.
        adapters[layer] = _kind(layer)(layer, rank, **options if first is None else {**options, "init": "zero_A"})
        if first is not None:
            adapters[layer].lora_A, adapters[layer].lora_B = first.lora_A, first.lora_B
        by_weight.setdefault(id(layer.weight), adapters[layer])
    model.requires_grad_(False)
    _replace(model, adapters)
    for pair in lora_pairs(model):
        pair.A.requires_grad_(True)
        pair.B.requires_grad_(True)
    return list(chosen)


def merge_lora(model: nn.Module) -> None:
    """Merge every adapter: the model's layers then cost what the plain ones do. See ``LoRALinear.merge``."""
    for _, adapter in _adapters(model):
        adapter.merge()


def unmerge_lora(model: nn.Module) -> None:
    """Undo ``merge_lora``: every output is again what it was, to the bit."""
    for _, adapter in _adapters(model):
        adapter.unmerge()


@torch.no_grad()
def unload_lora(model: nn.Module, *, merge: bool = True) -> None:
    """Put the plain layers back, in place; all their parameters stay frozen.

    Args:
        model: a module with adapters.
        merge: write W into the layers' weights; False puts them back as they were before, to the bit, unless
            ``set_factors`` or ``init="both"`` had moved them.
    """
    plain: dict[nn.Module, nn.Module] = {}
    written: set[int] = set()
    for _, adapter in _adapters(model):
        weight = cast("Tensor", adapter.base.weight)
        if merge and id(weight) not in written:
            weight.copy_(adapter.effective_weight())
            written.add(id(weight))
        plain[adapter] = adapter.base
    _replace(model, plain)


def lora_pairs(model: nn.Module) -> list[LoRAPair]:
    """Return the factors of every adapter, in the model's order; factors that tied layers share stand there once.

    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 3))
    >>> _ = inject_lora(model, rank=2, alpha=4.0)
    >>> [(tuple(pair.A.shape), tuple(pair.B.shape), pair.scale) for pair in lora_pairs(model)]
    [((4, 2), (2, 8), 2.0), ((8, 2), (2, 3), 2.0)]
    """
    pairs = {id(adapter.lora_A): adapter for _, adapter in _adapters(model)}
    return [LoRAPair(adapter.lora_A, adapter.lora_B, adapter.scale) for adapter in pairs.values()]


def lora_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the factors, under the names that ``model.state_dict()`` gives them, and each scale as ``….lora_scale``.

    The factors share memory with the model's.
    """
    state = {}
    for name, adapter in _adapters(model):
        prefix = f"{name}." if name else ""
        state[f"{prefix}lora_A"], state[f"{prefix}lora_B"] = adapter.lora_A.detach(), adapter.lora_B.detach()
        state[f"{prefix}lora_scale"] = torch.tensor(adapter.scale, dtype=torch.float64)
    return state


@torch.no_grad()
def load_lora_state_dict(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy factors into the adapters of a model, whether merged, in training, or in evaluation; all or none.

    A merged adapter forms its weight again.

    Args:
        model: a module with the same adapters.
        state: what ``lora_state_dict`` returned.

    Raises:
        ValueError: a name that is missing, or that the model does not have; a factor of another shape; another scale,
            with which the same factors would be another update.
    """
    own = lora_state_dict(model)
    if missing := sorted(own.keys() - state.keys()):
        raise ValueError(f"state: got no {', '.join(missing)}, expected all factors and scales of the model")
    if unknown := sorted(state.keys() - own.keys()):
        raise ValueError(f"state: got {', '.join(unknown)}, expected factors and scales of the model only")
    for name, held in own.items():
        if state[name].shape != held.shape:
            raise ValueError(f"state: got {name} of shape {tuple(state[name].shape)}, expected {tuple(held.shape)}")
        if name.endswith("lora_scale") and float(state[name]) != float(held):
            raise ValueError(f"state: got {name} {float(state[name]):g}, expected the model's {float(held):g}")
    for name, held in own.items():
        if not name.endswith("lora_scale"):
            held.copy_(state[name])
    for _, adapter in _adapters(model):
        if adapter.merged:
            adapter.merge()


def _kind(layer: nn.Module) -> type[LoRALayer]:
    return next(adapter for base, adapter in _ADAPTERS.items() if isinstance(layer, base))


def _adapters(model: nn.Module) -> Iterator[tuple[str, LoRALayer]]:
    for name, module in model.named_modules():
        if isinstance(module, LoRALayer):
            yield name, module


def _chosen(model: nn.Module, targets: Targets) -> dict[str, Any]:
    """The layers to adapt by name; those within adapters are none."""
    inside = {id(part) for _, adapter in _adapters(model) for part in adapter.modules()}
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, tuple(_ADAPTERS)) and id(module) not in inside
    }
    if targets is None:
        chosen = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear)}
    elif callable(targets):
        chosen = {name: layer for name, layer in layers.items() if targets(name, layer)}
    else:
        wanted = [targets] if isinstance(targets, str) else list(targets)
        matched = {t: {name for name in layers if t in (name, name.rpartition(".")[2])} for t in wanted}
        if unknown := [t for t, names in matched.items() if not names]:
            raise ValueError(f"targets: got {unknown}, which name no layer, expected some of {list(layers)}")
        chosen = {name: layer for name, layer in layers.items() if any(name in names for names in matched.values())}
    if not chosen:
        raise ValueError(f"targets: got {targets!r}, which matches no layer, expected some of {list(layers)}")
    return chosen


def _refuse_half_tied(model: nn.Module, chosen: dict[str, Any]) -> None:
    """Refuse to adapt a layer whose weight another one holds that would not follow."""
    for name, layer in chosen.items():
        for other, module in model.named_modules():
            if module is layer or not any(p is layer.weight for p in module._parameters.values()):
                continue
            if not (isinstance(layer, nn.Linear) and isinstance(module, nn.Linear) and other in chosen):
                raise ValueError(
                    f"targets: got {name!r}, whose weight {other!r} holds too, expected targets without it, or tied "
                    "linear layers together"
                )


def _replace(model: nn.Module, by: Mapping[Any, nn.Module]) -> None:
    """Put other modules in the places of some, wherever these stand."""
    for parent in list(model.modules()):
        if parent in by.values():
            continue
        for name, child in list(parent._modules.items()):
            if child in by:
                setattr(parent, name, by[child])
