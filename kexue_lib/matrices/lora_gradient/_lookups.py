"""The low-rank addition of tables and of convolutions: linear maps of one-hot rows and of patches."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kexue_lib.matrices.lora_gradient._adapters import LoRALayer


class LoRAEmbedding(LoRALayer):
    r"""A table with a low-rank addition: row i is ``W₀[i] + s A[i] B``.

    The rows of X are one-hot: n is the number of entries of the table, m its width, and torch stores the table as
    ``(n, m)``, not transposed. One input is not zero, so A ~ N(0, 1). The row of ``padding_idx`` stays as it is.

    Args: as ``LoRALinear``; ``dropout`` must be 0.

    Raises:
        TypeError: ``base`` is no ``nn.Embedding``.
        ValueError: as ``LoRALinear``; a table with ``max_norm``, ``scale_grad_by_freq`` or ``sparse``.

    Cost: 2rm flops a look-up; no gradient of shape ``(n, m)``, but one ``(n, r)``.

    >>> layer = LoRAEmbedding(torch.nn.Embedding(10, 4), rank=2)
    >>> layer(torch.tensor([1, 2])).shape
    torch.Size([2, 4])
    """

    _layers = (nn.Embedding,)
    base: nn.Embedding

    @classmethod
    def check(cls, base: Any, rank: int, alpha: float | None, dropout: float, init: str) -> None:
        super().check(base, rank, alpha, dropout, init)
        for name, usual in (("max_norm", None), ("scale_grad_by_freq", False), ("sparse", False)):
            if (got := getattr(base, name)) != usual:
                raise ValueError(f"base: got a table with {name}={got}, expected {name}={usual}")
        _refuse_dropout(dropout)

    @staticmethod
    def _sizes(base: nn.Embedding) -> tuple[int, int]:
        return base.num_embeddings, base.embedding_dim

    def _spread_of_A(self) -> float:
        return 1.0

    def _admissible(self, A: Tensor) -> Tensor:
        if self.base.padding_idx is None:
            return A
        return A.index_fill(0, torch.tensor(self.base.padding_idx, device=A.device), 0.0)

    def _in_layout(self, W: Tensor) -> Tensor:
        return W

    def _forward_merged(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.embedding(x, weight, self.base.padding_idx)

    def _forward_factored(self, x: Tensor) -> Tensor:
        A, B = self._factors()
        thin = F.embedding(x, A, self.base.padding_idx) @ B
        return F.embedding(x, self.base.weight, self.base.padding_idx) + thin * self.scale


class LoRAConv(LoRALayer):
    r"""A convolution with a low-rank addition: one to r channels with the kernel's shape, then one of size 1.

    The rows of X are patches: n is channels times kernel size, in the order of torch's kernel, and m the number of
    output channels.

    Args: as ``LoRALinear``; ``dropout`` must be 0.

    Raises:
        TypeError: ``base`` is no ``nn.Conv1d`` or ``nn.Conv2d``.
        ValueError: as ``LoRALinear``; a convolution with ``groups`` other than 1.

    Cost: 2r(n + m) flops a place.

    >>> layer = LoRAConv(torch.nn.Conv2d(3, 8, 3, padding=1), rank=2)
    >>> layer.lora_A.shape, layer.lora_B.shape, layer(torch.ones(1, 3, 5, 5)).shape
    (torch.Size([27, 2]), torch.Size([2, 8]), torch.Size([1, 8, 5, 5]))
    """

    _layers = (nn.Conv1d, nn.Conv2d)
    base: nn.Conv1d | nn.Conv2d

    @classmethod
    def check(cls, base: Any, rank: int, alpha: float | None, dropout: float, init: str) -> None:
        super().check(base, rank, alpha, dropout, init)
        if base.groups != 1:
            raise ValueError(f"base: got a convolution of {base.groups} groups, expected groups=1")
        _refuse_dropout(dropout)

    @staticmethod
    def _sizes(base: nn.Conv1d | nn.Conv2d) -> tuple[int, int]:
        return base.weight[0].numel(), base.out_channels

    def _in_layout(self, W: Tensor) -> Tensor:
        return W.mT.reshape(self.base.weight.shape)

    def _forward_merged(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.base._conv_forward(x, weight, self.base.bias)

    def _forward_factored(self, x: Tensor) -> Tensor:
        A, B = self._factors()
        kernel = A.mT.reshape(self.rank, *self.base.weight.shape[1:])
        point = B.mT.reshape(-1, self.rank, *[1] * (self.base.weight.dim() - 2))
        convolve = F.conv1d if isinstance(self.base, nn.Conv1d) else F.conv2d
        return self.base(x) + convolve(self.base._conv_forward(x, kernel, None), point) * self.scale


def _refuse_dropout(dropout: float) -> None:
    if dropout != 0:
        raise ValueError(f"dropout: got {dropout}, expected 0 except for linear layers")
