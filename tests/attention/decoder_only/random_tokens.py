"""Random vectors and tokens, a causal mask, and the kinds of sequence models."""

from __future__ import annotations

import torch
from torch import Tensor

from kexue_lib.attention.decoder_only import head_masks

KINDS = [(e, s) for e in ("causal", "bidirectional", "mixed") for s in (True, False)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def causal(n: int) -> Tensor:
    return head_masks("causal", n)[0]


def tokens(*shape: int, seed: int = 3) -> Tensor:
    return torch.randint(13, shape, generator=generator(seed))
