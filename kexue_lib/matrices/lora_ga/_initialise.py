"""A model's linear layers with LoRA-GA's factors, from calibration batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from kexue_lib._arguments import check_one_of
from kexue_lib.matrices.lora_ga._alignment import stable_factor
from kexue_lib.matrices.lora_ga._collect import (
    Loss,
    Targets,
    backward,
    collect_gradients,
    linear_targets,
    undisturbed,
    unused,
)
from kexue_lib.matrices.lora_ga._factors import Split, check_rank, factors_from_triplets, lora_ga_factors
from kexue_lib.matrices.lora_ga._sketch import GradientSketch
from kexue_lib.matrices.lora_gradient import inject_lora

Told = dict[str, dict[str, float]]
Factors = dict[str, tuple[Tensor, Tensor]]


def initialise_lora_ga(
    model: nn.Module,
    loss_fn: Loss,
    batches: Iterable[Any],
    rank: int,
    *,
    targets: Targets = None,
    alpha: float | None = None,
    rslora: bool = True,
    gamma: float = 16.0,
    split: Split = "left",
    mode: Literal["exact", "serial", "sketch"] = "exact",
    generator: Generator | None = None,
) -> Told:
    """Put ``LoRALinear`` in the place of layers, with LoRA-GA's factors; the model's output stays what it is.

    W = (W₀ − sA₀B₀) + sAB with A₀, B₀ from ``lora_ga_factors`` of the mean gradient, times ``stable_factor``. The
    frozen weight is moved, hence a floating one that belongs to this model alone; a 16-bit one is rounded once.

    Args:
        model: changed in place; afterwards only the factors require gradients.
        loss_fn: ``loss_fn(model, batch)`` returns a scalar.
        batches: calibration batches; one of a usual size will do.
        rank: r, 2r ≤ min(n, m) of every target.
        targets: names of layers, whole or their last dotted part, or ``targets(name, layer) -> bool``; None for every
            ``nn.Linear``.
        alpha: s = α/√r, or α/r without ``rslora``; None means α = r.
        rslora: see ``alpha``.
        gamma: γ of ``stable_factor``.
        split: as ``lora_ga_factors``.
        mode: where the gradients go. ``"exact"``: one pass; with one batch each gradient is freed once its factors are
            there. ``"serial"``: a pass for each layer. ``"sketch"``: a pass in which no gradient of a weight is
            formed, for thin products of it (``GradientSketch``).
        generator: of random projections, those of the sketch and of layers with min(n, m) ≥ 8(2r + 8).

    Returns:
        Name of the layer → ``cosine``, of the first step's direction and the gradient, and ``captured``,
        1 − loss/‖G‖², both for the orthonormal factors and 0 for a zero gradient. With ``"sketch"`` the gradient is
        its reconstruction of rank 2r + 8, which leaves out the rest: both are then too high.

    Raises:
        TypeError: rank is no integer, and as ``collect_gradients``.
        ValueError: unknown mode or split, 2·rank > min(n, m) for a target, and as ``collect_gradients`` and
            ``inject_lora``. The model is unchanged then.

    Cost: passes over the batches, and a decomposition for each layer. Extra memory besides activations and factors:
    ``"exact"`` the largest gradient with one batch, all of them with more; ``"serial"`` the largest;
    ``"sketch"`` about (6r + 24)(n + m) numbers a layer, and the inputs of the layers.
    Source: LoRA-GA, arXiv 2407.05000, algorithm 1; the sketch is ours.

    >>> net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))
    >>> told = initialise_lora_ga(net, lambda f, x: f(x).square().mean(), [torch.randn(32, 8)], 1)
    >>> sorted(told), net[0].rank
    (['0', '2'], 1)
    """
    check_one_of("mode", mode, ("exact", "serial", "sketch"))
    check_one_of("split", split, ("left", "right", "alternate"))
    layers = linear_targets(model, targets)
    for layer in layers.values():
        check_rank(rank, *layer.weight.shape)
        stable_factor(layer.out_features, gamma)
    factors: Factors = {}
    told: Told = {}
    if mode == "sketch":
        for name, sketch in _sketches(model, loss_fn, batches, layers, 2 * rank, generator).items():
            U, S, Vh = sketch.svd(sketch.columns)
            factors[name] = factors_from_triplets(U, Vh, rank, split, 1.0)
            # In the coordinates of the singular vectors, so that no matrix of the weight's size is made.
            told[name] = _told(torch.diag(S), U.mT @ factors[name][0], factors[name][1] @ Vh.mT)
    else:

        def consume(name: str, G: Tensor) -> None:
            factors[name] = lora_ga_factors(G, rank, split=split, generator=generator)
            told[name] = _told(G, *factors[name])

        own = lambda name, _: name in layers
        collect_gradients(model, loss_fn, batches, targets=own, serial=mode == "serial", consume=consume)
    weights = {id(layer.weight) for layer in layers.values()}
    inject_lora(model, rank, targets=lambda _, layer: id(layer.weight) in weights, alpha=alpha, rslora=rslora)
    for name, (A, B) in factors.items():
        scale = stable_factor(B.shape[-1], gamma)
        adapter: Any = model.get_submodule(name)
        adapter.set_factors(scale * A, scale * B)
    return {name: told[name] for name in layers}


def _told(G: Float[Tensor, "n m"], A: Float[Tensor, "n r"], B: Float[Tensor, "r m"]) -> dict[str, float]:
    """How much of a gradient the first step X of orthonormal factors follows, by thin products only.

    ⟨X, G⟩ = ‖AᵀG‖² + ‖GBᵀ‖² and ‖X‖² = ⟨X, G⟩ + 2‖AᵀGBᵀ‖².
    """
    left = A.mT @ G
    inner = (left.square().sum() + (G @ B.mT).square().sum()).item()
    squares, norm = inner + 2 * (left @ B.mT).square().sum().item(), G.norm().item()
    if inner == 0:
        return {"cosine": 0.0, "captured": 0.0}
    return {"cosine": inner / (squares**0.5 * norm), "captured": (2 * inner - squares) / norm**2}


def _sketches(
    model: nn.Module,
    loss_fn: Loss,
    batches: Iterable[Any],
    layers: dict[str, nn.Linear],
    rank: int,
    generator: Generator | None,
) -> dict[str, GradientSketch]:
    """A sketch of each layer's mean gradient, from its inputs and its outputs' gradients.

    Raises:
        ValueError: no batches; the loss is no scalar or depends on no target.
    """
    batches = list(batches)
    if not batches:
        raise ValueError("batches: got none, expected at least one calibration batch")
    sketches, hooks = {}, []
    # Layers that share a weight feed one sketch.
    by_weight = {id(layer.weight): name for name, layer in layers.items()}
    try:
        with undisturbed(model), torch.enable_grad():
            for layer in (x for x in model.modules() if isinstance(x, nn.Linear) and id(x.weight) in by_weight):
                name, weight = by_weight[id(layer.weight)], layer.weight
                wide = torch.promote_types(weight.dtype, torch.float32)
                if name not in sketches:
                    rows, columns = weight.shape
                    sketches[name] = GradientSketch(
                        columns, rows, rank, generator=generator, dtype=wide, device=weight.device
                    )
                hooks.append(layer.register_forward_hook(_feed(sketches[name], len(batches))))
            used = [backward(loss_fn(model, batch)) for batch in batches]
    finally:
        for hook in hooks:
            hook.remove()
    if not any(used):
        raise unused()
    return sketches


def _feed(sketch: GradientSketch, share: int) -> Any:
    """A forward hook that adds the batch to the sketch in the backward pass; gradients are divided by ``share``."""

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        X = inputs[0].detach()
        if not output.requires_grad:
            # Nothing before it requires a gradient: the graph begins here. A copy, for what follows may write to it.
            output = output.detach().requires_grad_().clone()
        output.register_hook(lambda dY: sketch.update(X, dY / share))
        return output

    return hook
