"""What a decoder accepts: tokens, positions, masks and the options of generation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kexue_lib._arguments import check_broadcast, check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._tracing import is_traced
from kexue_lib.attention.core._blocks import LMConfig


def check_tokens(name: str, tokens: Any, vocab_size: int) -> None:
    """Refuse what is no ``(B, L)`` of token ids."""
    check_dtype(name, tokens, "integer")
    check_shape(name, tokens, ("B", "L"))
    if tokens.device.type == "cpu" and tokens.numel() and not is_traced():  # elsewhere the host would have to wait
        low, high = (int(end) for end in tokens.aminmax())
        if low < 0 or high >= vocab_size:
            raise ValueError(f"{name}: got {low if low < 0 else high}, expected 0 to vocab_size - 1 = {vocab_size - 1}")


def check_forward(tokens: Any, positions: Tensor | None, mask: Tensor | None, config: LMConfig, stored: int) -> None:
    """Refuse arguments of a forward pass that do not fit together; ``stored`` tokens are in a cache."""
    check_tokens("tokens", tokens, config.vocab_size)
    B, L = tokens.shape
    if positions is not None:
        check_broadcast("positions", positions, (B, L), "(B, L)")
    if mask is None:
        return
    check_dtype("mask", mask, "bool")
    S = stored + L
    if mask.ndim < 2 or (mask.ndim < 4 and mask.shape[-2:] != (L, S)):
        raise ValueError(
            f"mask: got shape {tuple(mask.shape)}, expected (L, S) = ({L}, {S}), (H, L, S) or (B, 1, L, S); "
            "a padding mask (B, S) is given as mask[:, None, None]"
        )
    check_broadcast("mask", mask, (B, config.n_heads, L, S), "(B, H, L, S)")


def check_generation(
    prompt: Any,
    config: LMConfig,
    position: Any,
    *,
    new: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    eos: int | None,
    lengths: Tensor | None,
    padding: str,
) -> None:
    """Refuse options of generation, before anything is drawn."""
    check_tokens("prompt", prompt, config.vocab_size)
    B, L = prompt.shape
    if L == 0:
        raise ValueError("prompt: got no token in a row, expected at least one")
    check_integer("max_new_tokens", new, 0)
    check_number("temperature", temperature, least=0, below=torch.inf)
    if top_k is not None:
        check_integer("top_k", top_k, 1)
    if top_p is not None:
        check_number("top_p", top_p, above=0, most=1)
    if eos is not None:
        check_integer("eos", eos, 0, config.vocab_size - 1, most_is="vocab_size - 1")
    check_one_of("padding", padding, ("right", "left"))
    if config.max_len is not None and L + new > config.max_len:
        raise ValueError(f"max_new_tokens: got {new} after {L} tokens, expected max_len = {config.max_len} in all")
    if lengths is None:
        return
    check_dtype("prompt_lengths", lengths, "integer")
    check_shape("prompt_lengths", lengths, (B,), "one for each row of prompt")
    if ((lengths < 1) | (lengths > L)).any():
        raise ValueError(f"prompt_lengths: got {lengths.tolist()}, expected 1 to {L}")
    if config.conv_width or hasattr(position, "attend"):
        what = "a convolution" if config.conv_width else "a position object with attend"
        raise ValueError(f"prompt_lengths: got lengths with {what}, which would see the padding; expected None")
