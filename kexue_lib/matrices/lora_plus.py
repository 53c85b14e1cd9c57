r"""LoRA+: a learning rate for each of the two factors, computed from the layer's shape or measured.

Rows x, :math:`Y = X(W_0 + sAB)`, :math:`A \in \mathbb R^{n\times r}`, :math:`B \in \mathbb R^{r\times m}`: n inputs, m
outputs. B, the factor next to the output, gets the larger rate.

Source: Su Jianlin, "With different learning rates, can LoRA gain a little more?", 2024,
https://kexue.fm/archives/10001; S. Hayou, N. Ghosh, B. Yu, "LoRA+: Efficient Low Rank Adaptation of Large Models",
2024, arXiv 2402.12354.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib.matrices.lora_gradient import LoRAPair, lora_gradients, lora_pairs

__all__ = [
    "PAPER_RATIO",
    "contribution_ratio",
    "feature_update_terms",
    "lora_plus_param_groups",
    "measure_contributions",
    "sign_step_contributions",
]

PAPER_RATIO: float = 16.0  # of the rates, recommended by Hayou et al. for r = 8 and widths 768 to 4096
_RULES = ("corrected", "article")


def contribution_ratio(n: int, m: int, r: int, rule: Literal["corrected", "article"] = "corrected") -> float:
    r"""Return the ratio of rates at which both factors lower the loss equally in a sign step, to first order.

    .. math:: \frac{\eta_B}{\eta_A} = \frac{\mathbb E\|GB^\top\|_1}{\mathbb E\|A^\top G\|_1} = \frac{n}{\sqrt{mr}}
              \quad(\text{corrected}), \qquad \frac nm\sqrt{\frac nr} \quad(\text{article})

    for independent entries of variance 1/n in A and 1/r in B. The article's estimate leaves out that an entry of
    :math:`GB^\top` sums over m terms and one of :math:`A^\top G` over n; both agree at m = n.

    Args:
        n: input features.
        m: output features.
        r: rank.
        rule: ``"corrected"`` or ``"article"``.

    Raises:
        TypeError: a size that is no integer.
        ValueError: a size below 1, or an unknown ``rule``.

    >>> round(contribution_ratio(4096, 11008, 8), 1), round(contribution_ratio(4096, 11008, 8, "article"), 2)
    (13.8, 8.42)
    """
    for name, size in (("n", n), ("m", m), ("r", r)):
        check_integer(name, size, 1)
    check_one_of("rule", rule, _RULES)
    return n / math.sqrt(m * r) if rule == "corrected" else n / m * math.sqrt(n / r)


@without_autocast
def sign_step_contributions(
    G: Float[Tensor, "*b n m"],
    A: Float[Tensor, "*b n r"],
    B: Float[Tensor, "*b r m"],
    lr_A: float = 1.0,
    lr_B: float = 1.0,
    scale: float = 1.0,
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    r"""Return what each factor adds to the first-order change of the loss in one step of sign descent.

    .. math:: \Delta\mathcal L = -\eta_A\|sGB^\top\|_1 - \eta_B\|sA^\top G\|_1, \qquad
              \|M\|_1 = \sum_{ij}|M_{ij}|

    Args:
        G: gradient by the weight, ``(..., n, m)``.
        A: ``(..., n, r)``.
        B: ``(..., r, m)``.
        lr_A: rate of A.
        lr_B: rate of B.
        scale: s.

    Returns:
        The two terms, none positive, each of the batch's shape. Differentiable; nothing larger than G is made.

    Raises:
        ValueError: shapes that do not chain.

    >>> eye = torch.eye(2)
    >>> [float(term) for term in sign_step_contributions(2 * eye, eye, eye, lr_B=16.0)]
    [-4.0, -64.0]
    """
    for name, rate in (("lr_A", lr_A), ("lr_B", lr_B)):
        check_number(name, rate, above=-math.inf, below=math.inf)
    G_A, G_B = lora_gradients(G, A, B, scale)
    return -lr_A * G_A.abs().sum((-2, -1)), -lr_B * G_B.abs().sum((-2, -1))


@without_autocast
def feature_update_terms(
    x: Float[Tensor, "*k n"],
    A: Float[Tensor, "n r"],
    B: Float[Tensor, "r m"],
    dA: Float[Tensor, "n r"],
    dB: Float[Tensor, "r m"],
    scale: float = 1.0,
) -> tuple[Float[Tensor, "*k m"], Float[Tensor, "*k m"], Float[Tensor, "*k m"]]:
    r"""Split the change of the adapter's output when both factors move.

    .. math:: sX(A+\Delta A)(B+\Delta B) - sXAB =
              \underbrace{sX\,\Delta A\,B}_{\delta_1} + \underbrace{sXA\,\Delta B}_{\delta_2}
              + \underbrace{sX\,\Delta A\,\Delta B}_{\delta_3}

    Args:
        x: rows ``(..., n)``.
        A: ``(n, r)``.
        B: ``(r, m)``.
        dA: change of A.
        dB: change of B.
        scale: s.

    Returns:
        ``(d1, d2, d3)``, each ``(..., m)``.

    Raises:
        ValueError: shapes that do not chain.

    >>> one = torch.ones(1, 1)
    >>> [float(d) for d in feature_update_terms(one, 2 * one, 3 * one, 0.5 * one, 0.1 * one)]
    [1.5, 0.2..., 0.05...]
    """
    for name, tensor in (("x", x), ("A", A), ("B", B), ("dA", dA), ("dB", dB)):
        check_dtype(name, tensor, "floating")
    check_number("scale", scale, above=-math.inf, below=math.inf)
    check_shape("A", A, ("n", "r"))
    check_shape("B", B, (A.shape[1], "m"), "as A has columns")
    (n, r), m = A.shape, B.shape[1]
    for name, tensor, shape in (("x", x, ("...", n)), ("dA", dA, (n, r)), ("dB", dB, (r, m))):
        check_shape(name, tensor, shape, f"beside A of shape {(n, r)}")
    moved = x @ dA
    return scale * (moved @ B), scale * (x @ A @ dB), scale * (moved @ dB)


def lora_plus_param_groups(
    model: nn.Module,
    lr: float,
    *,
    ratio: float | Literal["corrected", "article"] = PAPER_RATIO,
    weight_decay: float = 0.0,
    other_lr: float | None = None,
) -> list[dict[str, Any]]:
    r"""Return parameter groups for any optimizer: :math:`\eta_A` for the factors A, :math:`\rho\,\eta_A` for B.

    Every trainable parameter is in exactly one group. Factors of equal rate share a group, so that ``foreach`` and
    ``fused`` updates stay as few as they can be.

    Args:
        model: has been through :func:`~kexue_lib.matrices.lora_gradient.inject_lora`.
        lr: :math:`\eta_A`.
        ratio: ρ for all layers, or the rule of :func:`contribution_ratio`, applied to each layer's n, m and r.
        weight_decay: of both factors and of other matrices; other vectors and scalars get none.
        other_lr: rate of trainable parameters outside the adapters, for instance norms. Default: ``lr``.

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay`` and ``name``: ``"lora_A"``, ``"lora_B"`` (one for each
        distinct rate), ``"other"`` (two axes or more) and ``"other_no_decay"``; empty ones are left out.

    Raises:
        TypeError: a rate, ratio or decay that is no number.
        ValueError: ``lr``, ``other_lr`` or ``ratio`` not positive, an unknown rule, a negative decay, or a model
            without adapters.

    >>> from kexue_lib.matrices.lora_gradient import inject_lora
    >>> model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16))
    >>> _ = inject_lora(model, rank=4)
    >>> [(g["name"], g["lr"]) for g in lora_plus_param_groups(model, 1e-3, ratio="corrected")]
    [('lora_A', 0.001), ('lora_B', 0.008), ('lora_B', 0.002)]
    """
    check_number("lr", lr, above=0)
    check_number("weight_decay", weight_decay, least=0)
    if other_lr is not None:
        check_number("other_lr", other_lr, above=0)
    if isinstance(ratio, str):
        check_one_of("ratio", ratio, _RULES)
    else:
        check_number("ratio", ratio, above=0)
    groups: dict[tuple[str, float], dict[str, Any]] = {}
    seen: set[nn.Parameter] = set()

    def put(parameter: nn.Parameter, name: str, rate: float, decay: float) -> None:
        if parameter in seen or not parameter.requires_grad:
            return
        seen.add(parameter)
        group = {"params": [], "lr": rate, "weight_decay": decay, "name": name}
        groups.setdefault((name, rate), group)["params"].append(parameter)

    pairs = _pairs(model)
    for pair in pairs:
        put(pair.A, "lora_A", lr, weight_decay)
    for pair in pairs:
        (n, r), m = pair.A.shape, pair.B.shape[1]
        rho = contribution_ratio(n, m, r, ratio) if isinstance(ratio, str) else ratio
        put(pair.B, "lora_B", lr * rho, weight_decay)
    rest = lr if other_lr is None else other_lr
    for parameter in model.parameters():
        flat = parameter.ndim < 2
        put(parameter, "other_no_decay" if flat else "other", rest, 0.0 if flat else weight_decay)
    return list(groups.values())


def measure_contributions(model: nn.Module, loss: Float[Tensor, ""]) -> dict[str, tuple[float, float]]:
    r"""Return :math:`(\|\partial_A\mathcal L\|_1, \|\partial_B\mathcal L\|_1)` of each adapter: their quotient is the
    ratio :math:`\eta_B/\eta_A` at which both would contribute equally to the next sign step.

    Args:
        model: has been through :func:`~kexue_lib.matrices.lora_gradient.inject_lora`.
        loss: a scalar of the model's outputs. Its graph is used up, no ``.grad`` is touched.

    Returns:
        Two sums of absolute values for the name of each adapted layer; (0, 0) where the loss does not reach it.

    Raises:
        ValueError: a model without adapters, or a loss that is no scalar.

    Cost: one backward pass, and one transfer from the device for all layers.
    """
    pairs = _pairs(model)
    check_shape("loss", loss, ())
    factors = [factor for pair in pairs for factor in (pair.A, pair.B)]
    gradients = torch.autograd.grad(loss, factors, allow_unused=True, materialize_grads=True)
    sums = torch.stack([g.double().abs().sum() for g in gradients]).reshape(-1, 2).tolist()
    names = {parameter: name.rpartition(".")[0] for name, parameter in model.named_parameters()}
    return {names[pair.A]: (a, b) for pair, (a, b) in zip(pairs, sums)}


def _pairs(model: nn.Module) -> list[LoRAPair]:
    pairs = lora_pairs(model)
    if not pairs:
        raise ValueError("model: got no LoRA layers, expected a model that has been through inject_lora")
    return pairs
