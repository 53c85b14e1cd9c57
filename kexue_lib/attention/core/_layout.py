"""The layout of rotary pairs travels with the weights of attention."""

from __future__ import annotations

from typing import Any

from torch import nn


def keep_layout(module: nn.Module) -> None:
    """Write ``module.config.rope_layout`` beside the weights of an attention module, and check it at loading.

    The names and shapes of the weights are the same in both layouts, the function is not. The layout travels in the
    metadata of ``state_dict()``; weights without any are taken as they are.

    Args:
        module: with queries, keys and a ``config``.
    """
    module.register_state_dict_post_hook(_write_layout)
    module.register_load_state_dict_pre_hook(_check_layout)


def _write_layout(module: Any, _state: dict, _prefix: str, metadata: dict) -> None:
    metadata["rope_layout"] = module.config.rope_layout


def _check_layout(module, _state, prefix: str, metadata: dict, _strict, _missing, _unexpected, errors: list) -> None:
    own, theirs = module.config.rope_layout, metadata.get("rope_layout", module.config.rope_layout)
    if own != theirs:
        where = prefix.rstrip(".") or type(module).__name__
        errors.append(
            f"{where}: got weights of rope_layout {theirs!r}, expected {own!r}: set it in the config, or permute the "
            "rows of q and k by kexue_lib.positions.rope.layout_permutation"
        )
