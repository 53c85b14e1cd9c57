"""What a decoder remembers of the tokens it has seen: preallocated buffers, filled from the front."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from kexue_lib._arguments import check_integer


class LayerCache:
    """Buffers of one layer, with the sequence in dimension −2 and the batch in dimension 0.

    Args:
        shapes: of the buffers, each ``(batch, ..., max_len, width)``.
        dtype: of the buffers; default: PyTorch's.
        device: of the buffers.

    >>> cache = LayerCache([(1, 2, 8, 4)])
    >>> (keys,) = cache.append(torch.ones(1, 2, 3, 4))
    >>> keys.shape, cache.length, cache.nbytes()
    (torch.Size([1, 2, 3, 4]), 3, 256)
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        self.buffers = [torch.zeros(shape, dtype=dtype, device=device) for shape in shapes]
        self.length = 0

    @property
    def max_len(self) -> int:
        """Tokens that fit."""
        return self.buffers[0].shape[-2]

    def append(self, *new: Shaped[Tensor, "..."]) -> tuple[Tensor, ...]:
        """Write new tokens behind the stored ones.

        Args:
            new: one tensor for each buffer, the same number of tokens in each.

        Returns:
            Views of everything stored, one for each buffer.

        Raises:
            ValueError: the tokens do not fit; nothing is written then.

        Cost: the new tokens are written in place; where gradients flow through them, the buffer is copied.
        """
        count = new[0].shape[-2]
        end = self.length + count
        if end > self.max_len:
            raise ValueError(
                f"cache: got length {self.length} + {count} tokens, expected at most max_len {self.max_len}"
            )
        for i, (buffer, tokens) in enumerate(zip(self.buffers, new)):
            if torch.is_grad_enabled() and (buffer.requires_grad or tokens.requires_grad):
                # Written in place, the buffer would change under the backward pass of the tokens before.
                parts = [buffer[..., : self.length, :], tokens.to(buffer.dtype), buffer[..., end:, :]]
                self.buffers[i] = torch.cat(parts, dim=-2)
            else:
                buffer[..., self.length : end, :] = tokens
        self.length = end
        return tuple(buffer[..., :end, :] for buffer in self.buffers)

    def nbytes(self) -> int:
        """Return the allocated bytes."""
        return sum(buffer.nbytes for buffer in self.buffers)

    def truncate(self, n: int) -> None:
        """Forget all but the first ``n`` tokens.

        Args:
            n: 0…length.

        Raises:
            TypeError: ``n`` is no integer.
            ValueError: ``n`` outside 0…length.
        """
        check_integer("n", n, 0, self.length, most_is="the cache's length")
        self.length = n

    def reorder(self, index: Int[Tensor, " rows"]) -> None:
        """Take rows of the batch, in a new order and possibly several times (beam search).

        Args:
            index: rows to keep.
        """
        self.buffers = [buffer.index_select(0, index.to(buffer.device)) for buffer in self.buffers]

    def clone(self) -> LayerCache:
        """Return an independent copy."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.buffers = [buffer.clone() for buffer in self.buffers]
        return copy


class Cache:
    """The caches of all layers of a decoder, and the positions of the stored tokens.

    Args:
        layers: one cache for each layer's attention.
        convolutions: one for the input of each layer's convolution, or None where a layer has none. It keeps all
            tokens, not only the last ``conv_width - 1``, so that :meth:`truncate` can go back to any length.
        batch: rows.
        max_len: tokens that fit.
        device: of the positions.
    """

    def __init__(
        self,
        layers: Sequence[LayerCache],
        convolutions: Sequence[LayerCache | None],
        *,
        batch: int,
        max_len: int,
        device: torch.device | str | None = None,
    ):
        self.layers, self.convolutions = list(layers), list(convolutions)
        self.positions = LayerCache([(batch, max_len, 1)], dtype=torch.int64, device=device)
        self._by_row = False  # whether rows have positions of their own

    def append_positions(self, positions: Int[Tensor, "*batch L"]) -> Int[Tensor, "*batch S"]:
        """Store the positions of new tokens and return those of all.

        Args:
            positions: ``(L,)`` where all rows have the same, else ``(batch, L)``.

        Returns:
            ``(S,)`` while all rows have had the same, else ``(batch, S)``.
        """
        (stored,) = self.positions.append(positions.expand(len(self.positions.buffers[0]), -1)[..., None])
        self._by_row = self._by_row or positions.ndim > 1
        return stored[..., 0] if self._by_row else stored[0, :, 0]

    def next_positions(self) -> Int[Tensor, "*batch 1"]:
        """Return one more than the last position, ``(1,)`` or ``(batch, 1)``; 0 for an empty cache."""
        (stored,) = self.positions.buffers
        if not self.length:
            return stored.new_zeros(1)
        last = stored[:, self.length - 1] + 1
        return last if self._by_row else last[0]

    @property
    def _parts(self) -> list[LayerCache]:
        return [*self.layers, *(c for c in self.convolutions if c is not None), self.positions]

    @property
    def length(self) -> int:
        """Tokens stored."""
        return self.positions.length

    @property
    def max_len(self) -> int:
        """Tokens that fit."""
        return self.positions.max_len

    def nbytes(self) -> int:
        """Return the allocated bytes of all layers."""
        return sum(part.nbytes() for part in self._parts)

    def truncate(self, n: int) -> None:
        """Forget all but the first ``n`` tokens in every layer.

        Args:
            n: 0…length.

        Raises:
            ValueError: ``n`` outside 0…length.
        """
        for part in self._parts:
            part.truncate(n)
        self._by_row = self._by_row and n > 0

    def reorder(self, index: Int[Tensor, " rows"]) -> None:
        """Take rows of the batch in every layer.

        Args:
            index: rows to keep, in their new order.
        """
        for part in self._parts:
            part.reorder(index)

    def clone(self) -> Cache:
        """Return an independent copy."""
        copy = object.__new__(Cache)
        copy.layers = [layer.clone() for layer in self.layers]
        copy.convolutions = [c.clone() if c is not None else None for c in self.convolutions]
        copy.positions, copy._by_row = self.positions.clone(), self._by_row
        return copy
