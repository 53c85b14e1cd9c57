"""A plain multilayer perceptron whose initial weights come from an explicit generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

from kexue_lib._arguments import check_integer

__all__ = ["mlp"]


def mlp(
    sizes: Sequence[int],
    *,
    activation: Callable[[], nn.Module] = nn.ReLU,
    bias: bool = True,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    r"""Return Linear, activation, Linear, …, Linear with PyTorch's default initialisation drawn from ``generator``.

    .. math:: W_{ij}, b_i \sim \mathcal U\big(-1/\sqrt{n_\text{in}},\, 1/\sqrt{n_\text{in}}\big)

    Args:
        sizes: widths ``[n_in, hidden…, n_out]``, at least two, all positive.
        activation: makes the module between two linear layers.
        bias: whether the layers have one.
        generator: source of the initial weights; equal generators give equal networks. Default: the global one.

    Returns:
        A module mapping ``(..., n_in)`` to ``(..., n_out)``.

    Raises:
        TypeError: a size that is no integer.
        ValueError: ``sizes`` has fewer than two entries or one that is not positive.

    >>> mlp([2, 3, 1], generator=torch.Generator().manual_seed(0))(torch.zeros(5, 2)).shape
    torch.Size([5, 1])
    """
    sizes = list(sizes)
    if len(sizes) < 2:
        raise ValueError(f"sizes: got {sizes}, expected two or more")
    for i, n in enumerate(sizes):
        check_integer(f"sizes[{i}]", n, 1)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        linear = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias)
        bound = 1 / math.sqrt(n_in)
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])
