"""What a tracer may not see: checks that read values, and code that runs in place."""

from __future__ import annotations

import torch


def is_traced() -> bool:
    """Whether tensors stand for others here: under torch.compile, vmap and the like.

    There a value cannot be read and nothing may be written in place, so that checks of values and reused buffers are
    left out.

    >>> is_traced()
    False
    """
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
