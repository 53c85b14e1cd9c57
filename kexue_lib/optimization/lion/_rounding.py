"""Storing float32 results in bfloat16: to the nearest, at random without bias, or with the remainder kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kexue_lib._arguments import check_shape

ROUNDINGS = ("nearest", "stochastic", "kahan")
_LOW = 1 << 16  # patterns of the sixteen bits that float32 has and bfloat16 lacks


def stochastic_round_(dst: Tensor, src: Tensor, generator: torch.Generator | None = None) -> Tensor:
    r"""Store ``src`` in a bfloat16 tensor, rounded up or down at random so that the mean is exact.

    .. math:: P(\text{up})=\frac{x-\lfloor x\rfloor}{\lceil x\rceil-\lfloor x\rfloor},\qquad\mathbb E[\text{dst}]=x

    where ⌊x⌋ and ⌈x⌉ are the neighbours of x in bfloat16. Sixteen uniform random bits are added to the low half of
    the float32 pattern, which is then cut off. Values that bfloat16 holds, ±∞ and NaN stay as they are.

    Args:
        dst: bfloat16 tensor, overwritten.
        src: values of the same shape and device; brought to float32 first.
        generator: source of the bits, on that device; default: the global one.

    Returns:
        ``dst``.

    Raises:
        TypeError: ``dst`` is not bfloat16.
        ValueError: the shapes differ.

    Cost: one integer of temporary memory for each element, and three passes.

    >>> sum(stochastic_round_(torch.empty(4096, dtype=torch.bfloat16), torch.full((4096,), 1.001)).unique().tolist())
    2.0078125
    """
    if dst.dtype != torch.bfloat16:
        raise TypeError(f"dst: got {dst.dtype}, expected torch.bfloat16")
    check_shape("src", src, tuple(dst.shape), "as dst has")
    with torch.no_grad():
        src = src.to(torch.float32)
        bits = torch.randint(_LOW, src.shape, dtype=torch.int32, device=src.device, generator=generator)
        # Patterns of finite numbers grow with their magnitude, so a carry reaches the next bfloat16 away from zero.
        bits = bits.add_(src.contiguous().view(torch.int32)).bitwise_and_(-_LOW)
        return dst.copy_(torch.where(src.isfinite(), bits.view(torch.float32), src))


def store(
    dst: Tensor, src: Tensor, rounding: str, compensation: Tensor | None, generator: torch.Generator | None
) -> None:
    """Write float32 ``src`` into a parameter of half precision; only bfloat16 knows a rounding other than nearest."""
    if dst.dtype != torch.bfloat16 or rounding == "nearest":
        dst.copy_(src)
    elif rounding == "stochastic":
        stochastic_round_(dst, src, generator)
    else:
        assert compensation is not None  # "kahan" keeps one
        dst.copy_(src)
        compensation.copy_(src - dst)


def shared_noise(seed: tuple[int, int]) -> Callable[[torch.device], torch.Generator]:
    """Return generators, one for each device, that are the same on every process and in every run.

    Replicas of a model in data parallel training must round alike; a global generator differs between processes.
    """
    made: dict[torch.device, torch.Generator] = {}

    def generator(device: torch.device) -> torch.Generator:
        if device not in made:
            step, group = seed
            made[device] = torch.Generator(device).manual_seed((step * 0x9E3779B97F4A7C15 + group + 1) % 2**63)
        return made[device]

    return generator
