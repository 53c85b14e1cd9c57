"""Position objects with the frequencies of a recipe, for models of this library and of Hugging Face."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kexue_lib._arguments import check_one_of
from kexue_lib.positions.base_beta import _frequencies as recipes
from kexue_lib.positions.rope import RotaryEmbedding, apply_rotary, cos_sin, inverse_frequencies, log_length_scale

_OF_FACTOR = {
    "pi": recipes.pi_frequencies,
    "ntk-old": recipes.ntk_old_frequencies,
    "ntk-aware": recipes.ntk_aware_frequencies,
    "ntk-fixed": recipes.ntk_fixed_frequencies,
    "ntk-mixed": recipes.ntk_mixed_frequencies,
}
_OF_LENGTH = {
    "ntk-by-parts": recipes.ntk_by_parts_frequencies,
    "yarn": recipes.yarn_frequencies,
    "llama3": recipes.llama3_frequencies,
}
METHODS = ("none", *_OF_FACTOR, *_OF_LENGTH)
"""Names of the recipes whose frequencies do not depend on the sequence."""


class ScaledRotary(RotaryEmbedding):
    r"""Rotary embedding with the frequencies of a recipe; assign it to a trained model's ``position``.

    Args:
        dim: head dimension.
        method: one of :data:`METHODS`.
        factor: k ≥ 1; 1 gives the plain frequencies for every method.
        base: b of the trained model.
        original_length: T, training length in tokens; needed by by-parts, YaRN, Llama 3 and ``log_scale``.
        log_scale: multiply queries by :math:`\log_T(p+1)`: ``"full"`` for models trained so, ``"clip"`` (at least 1)
            for others.
        rotary_dim: rotated components; default ``dim``.
        attention_factor: multiplies cosine and sine; default YaRN's for ``"yarn"``, else 1.
        options: of the recipe's function, such as ``exponent`` or ``beta_fast``.

    Raises:
        ValueError: an unknown ``method`` or ``log_scale``, or what the recipe's function refuses.

    >>> ScaledRotary(4, method="pi", factor=8.0, base=100.0).inv_freq
    tensor([0.1250, 0.0125], dtype=torch.float64)
    """

    def __init__(
        self,
        dim: int,
        *,
        method: str,
        factor: float | int = 1.0,
        base: float | int = 10000.0,
        original_length: float | int | None = None,
        log_scale: Literal["clip", "full"] | None = None,
        rotary_dim: int | None = None,
        attention_factor: float | int | None = None,
        **options: Any,
    ):
        rotary_dim = dim if rotary_dim is None else rotary_dim
        frequencies = _frequencies_of(method, rotary_dim, factor, base, original_length, options)
        if attention_factor is None:
            attention_factor = recipes.yarn_attention_factor(factor) if method == "yarn" else 1.0
        super().__init__(dim, base, rotary_dim=rotary_dim, inv_freq=frequencies, attention_factor=attention_factor)
        self.method, self.factor = method, factor
        if log_scale is not None:
            check_one_of("log_scale", log_scale, ("clip", "full", None))
            trained = int(recipes.checked_length(original_length))
            # An attribute and not a method: models multiply queries only where a position object has it.
            self.query_scale = partial(log_length_scale, train_length=trained, clip=log_scale == "clip")

    def extra_repr(self) -> str:
        """Return what a printed model says of its positions."""
        return f"{self.dim}, method={self.method!r}, factor={self.factor}"


def _frequencies_of(
    method: str,
    dim: int,
    factor: float | int,
    base: float | int,
    original_length: float | int | None,
    options: dict[str, Any],
) -> Tensor:
    if method in _OF_FACTOR:
        return _OF_FACTOR[method](dim, factor, base, **options)
    if method in _OF_LENGTH:
        return _OF_LENGTH[method](dim, factor, recipes.checked_length(original_length), base, **options)
    if method != "none":
        hint = "; the dynamic one is DynamicRotary" if method == "dynamic" else ""
        raise ValueError(f"method: got {method!r}, expected one of {', '.join(METHODS)}{hint}")
    if options:
        raise ValueError(f"options: got {sorted(options)}, method 'none' takes none")
    return inverse_frequencies(dim, base)


class DynamicRotary:
    r"""Dynamic NTK without history: the cache holds keys before rotation, and each call rotates all of them alike.

    The frequencies are those of :func:`dynamic_ntk_frequencies` for the length of each row, its largest query position
    plus one, so that a call depends on nothing that the object has seen before, and a score on the distance alone. Keys
    and values that upper layers have cached were still computed with the frequencies of their time.

    Args:
        dim: head dimension, even, at least 4.
        base: b of the trained model.
        original_length: T, training length in tokens.
        factor: k of the formula.

    Raises:
        ValueError: as :func:`dynamic_ntk_frequencies`.

    >>> rotary = DynamicRotary(8, original_length=4)
    >>> q = k = v = torch.ones(1, 1, 3, 8)
    >>> rotary.attend(q, k, v, q_positions=torch.arange(3), k_positions=torch.arange(3), causal=True).shape
    torch.Size([1, 1, 3, 8])
    """

    cache_raw_keys = True

    def __init__(
        self, dim: int, base: float | int = 10000.0, *, original_length: float | int, factor: float | int = 1.0
    ):
        recipes.dynamic_ntk_frequencies(dim, 1, original_length, base, factor=factor)  # refuses bad arguments
        self.inv_freq, self.original_length, self.factor = inverse_frequencies(dim, base), original_length, factor

    def attend(
        self,
        q: Float[Tensor, "*batch_q heads n_q d"],
        k: Float[Tensor, "*batch_k kv_heads n_k d"],
        v: Float[Tensor, "*batch_v kv_heads n_k dv"],
        *,
        q_positions: Tensor,
        k_positions: Tensor,
        causal: bool,
        scale: float | None = None,
    ) -> Float[Tensor, "*batch heads n_q dv"]:
        """Return attention over unrotated queries and keys.

        Args:
            q: ``(..., heads, n_q, d)``.
            k: ``(..., kv_heads, n_k, d)``, cached ones included.
            v: ``(..., kv_heads, n_k, dv)``.
            q_positions: ``(n_q,)``, or one row for each row of the batch; tokens.
            k_positions: the same for keys.
            causal: hide keys behind a query, aligned to the end.
            scale: of the scores; default ``d ** -0.5``.

        Cost: every key is rotated at every call, O(n_k d) beside the O(n_q n_k d) of the scores.
        """
        from kexue_lib.attention.core import attention

        length = q_positions.amax(-1, keepdim=True) + 1
        theta = recipes.stretched(self.inv_freq.to(q.device), length, self.original_length, self.factor)
        rotated = []
        for x, positions in ((q, q_positions), (k, k_positions)):
            cos, sin = cos_sin(positions, theta, dtype=torch.promote_types(x.dtype, torch.float32))
            if positions.ndim > 1:
                cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)
            rotated.append(apply_rotary(x, cos, sin))
        turned_q, turned_k = rotated
        return attention(turned_q, turned_k, v, causal=causal, scale=scale)


def scale_transformers_rotary(
    model: nn.Module,
    method: str,
    factor: float | int = 1.0,
    *,
    original_length: float | int | None = None,
    base: float | int | None = None,
    **options: Any,
) -> ScaledRotary:
    r"""Install a recipe in a Hugging Face model of the Llama kind, in place: its ``inv_freq`` and attention scaling.

    Args:
        model: with modules that hold ``inv_freq``, ``attention_scaling`` and one ``rope_type`` (Llama, Mistral, Qwen…).
        method: one of :data:`METHODS`.
        factor: k ≥ 1. ``"none"`` brings the plain frequencies back.
        original_length: T; default: what the model's config says it was trained with.
        base: b; default: ``rope_theta`` of the model's config.
        options: as for :class:`ScaledRotary`, without ``log_scale``.

    Returns:
        The recipe that was installed.

    Raises:
        TypeError: no such module in ``model``.
        ValueError: ``log_scale`` (a Llama has no place for it), or what :class:`ScaledRotary` refuses.

    The model's config is left as it was, so ``save_pretrained`` does not store the recipe. Cast the model first:
    frequencies cast to bfloat16 are wrong in the third digit.
    """
    found = [
        m for m in model.modules() if hasattr(m, "attention_scaling") and isinstance(m._buffers.get("inv_freq"), Tensor)
    ]
    found: list[Any] = [m for m in found if isinstance(m.rope_type, str)]
    if not found:
        raise TypeError(f"model: got {type(model).__name__} without a module that holds inv_freq and attention_scaling")
    if "log_scale" in options:
        raise ValueError(
            "log_scale: a transformers model scales no queries; use attention_factor, or a position object"
        )
    config = found[0].config
    stored = config.rope_parameters
    theta: float = stored["rope_theta"] if base is None else base
    if original_length is None:
        original_length = stored.get("original_max_position_embeddings", config.max_position_embeddings)
    for module in found:
        device = module.inv_freq.device
        dim = 2 * module.inv_freq.shape[-1]
        recipe = ScaledRotary(dim, method=method, factor=factor, base=theta, original_length=original_length, **options)
        for name in ("inv_freq", "original_inv_freq"):
            module.register_buffer(name, recipe.inv_freq.to(device, torch.float32), persistent=False)
        module.attention_scaling = recipe.attention_factor
        module.rope_type = "default"  # else its forward recomputes the frequencies for the dynamic kinds
    return recipe
