"""Functions whose digits are what they are for: autocast, which turns matrix products to half types, stops there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

_P = ParamSpec("_P")
_R = TypeVar("_R")


def without_autocast(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function as it is outside of ``torch.autocast``, on the device of its first tensor.

    >>> product = without_autocast(lambda x: x @ x)
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     product(torch.eye(2)).dtype
    torch.float32
    """

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        kind = next((x.device.type for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), "cpu")
        if not torch.is_autocast_enabled(kind):
            return function(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(*args, **kwargs)

    return wrapped
