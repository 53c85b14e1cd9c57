"""Weights of Hugging Face's Llama under the names of this library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from kexue_lib._arguments import check_integer, check_one_of
from kexue_lib.positions.rope import layout_permutation

_PARTS = {
    "input_layernorm": "norm1",
    "post_attention_layernorm": "norm2",
    "self_attn.q_proj": "attention.q",
    "self_attn.k_proj": "attention.k",
    "self_attn.v_proj": "attention.v",
    "self_attn.o_proj": "attention.out",
    "mlp.gate_proj": "ffn.gate",
    "mlp.up_proj": "ffn.up",
    "mlp.down_proj": "ffn.down",
}
_ENDS = {"model.embed_tokens": "embedding", "model.norm": "norm", "lm_head": "head"}


def llama_weights(
    state: Mapping[str, Tensor], *, head_dim: int, layout: Literal["half", "interleaved"] = "half"
) -> dict[str, Tensor]:
    """Rename the weights of a ``transformers.LlamaForCausalLM`` to those of a :class:`DecoderLM`.

    The entries below ``blocks.<i>.attention.`` are those of a :class:`kexue_lib.attention.mla.GroupedAttention` too,
    whose default layout is ``"interleaved"``.

    Args:
        state: its ``state_dict()``.
        head_dim: width of a head.
        layout: of the rotary pairs of the model that is loaded; Hugging Face's own is ``"half"``.

    Returns:
        What ``DecoderLM(config).load_state_dict`` takes, for a config of the same sizes; tensors are shared with
        ``state`` where nothing is permuted.

    Raises:
        ValueError: an unknown ``layout``, or a name that is not Llama's.

    >>> import torch
    >>> list(llama_weights({"model.norm.weight": torch.ones(4)}, head_dim=2))
    ['norm.weight']
    """
    check_integer("head_dim", head_dim, 2, even=True)
    check_one_of("layout", layout, ("half", "interleaved"))
    order = layout_permutation(head_dim, source="half", target=layout)
    renamed = {}
    for name, value in state.items():
        where, kind = name.rsplit(".", 1)
        if where.startswith("model.layers."):
            _, _, layer, part = where.split(".", 3)
            own = f"blocks.{layer}.{_PARTS[part]}" if part in _PARTS else None
        else:
            own, part = _ENDS.get(where), ""
        if own is None:
            raise ValueError(f"state: got {name!r}, expected the names of a LlamaForCausalLM")
        if part in ("self_attn.q_proj", "self_attn.k_proj") and layout != "half":
            value = value.unflatten(0, (-1, head_dim)).index_select(1, order.to(value.device)).flatten(0, 1)
        renamed[f"{own}.{kind}"] = value
    if "head.weight" not in renamed and "embedding.weight" in renamed:  # tied
        renamed["head.weight"] = renamed["embedding.weight"]
    return renamed
