"""Lists of tensors cut into pieces, so that one temporary of the size of a piece serves a whole model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kexue_lib._tracing import is_traced

_CACHE = 1 << 20  # bytes of a piece on the CPU: its tensors stay in the cache from the first pass to the last
_DEVICE = 1 << 26  # elsewhere: large enough to fill the device, small beside the model


def pieces(columns: Sequence[Sequence[Tensor | None]], foreach: bool) -> Iterator[tuple[list[int], list[list]]]:
    """Yield pieces of parallel lists: which tensors they come from, and for each list its parts.

    The first list decides where to cut. A piece has one device and one set of dtypes. Large contiguous tensors are
    cut too; with ``foreach=False`` every tensor is by itself.

    Args:
        columns: lists of equal length: parameters, gradients, states; in each row the shapes agree.
        foreach: whether small tensors are put together.
    """
    owners: list[int] = []
    rows: list[tuple] = []
    kind, size = None, 0
    for owner, row in _cut(columns):
        of_row = (row[0].device, *(None if t is None else t.dtype for t in row))
        limit = 0 if not foreach else _limit(row[0])
        more = row[0].numel() * row[0].element_size()
        if rows and (of_row != kind or size + more > limit):
            yield owners, [list(column) for column in zip(*rows)]
            owners, rows, size = [], [], 0
        kind, size = of_row, size + more
        owners.append(owner)
        rows.append(row)
    if rows:
        yield owners, [list(column) for column in zip(*rows)]


def _limit(first: Tensor) -> int:
    if is_traced():  # the compiler fuses the passes into one, and there is nothing to cut
        return 1 << 62
    return _CACHE if first.device.type == "cpu" else _DEVICE


def _cut(columns: Sequence[Sequence[Tensor | None]]) -> Iterator[tuple[int, tuple]]:
    for owner, row in enumerate(zip(*columns)):
        first, limit = row[0], _limit(row[0])
        whole = first.numel() * first.element_size() <= limit
        if whole or not all(t is None or t.is_contiguous() for t in row):
            yield owner, row
            continue
        length = limit // first.element_size()
        parts = [None if t is None else t.view(-1).split(length) for t in row]
        for index in range(-(-first.numel() // length)):
            yield owner, tuple(None if p is None else p[index] for p in parts)


def local(tensor: Tensor | None) -> Tensor | None:
    """A tensor as the real numbers on this process: its shard, and real and imaginary parts of complex ones."""
    if tensor is None:
        return None
    shard = getattr(tensor, "to_local", None)
    own: Tensor = tensor if shard is None else shard()
    return torch.view_as_real(own) if own.is_complex() else own


def widened(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The tensors in the dtype of the arithmetic; those that have it are the same objects."""
    return [t if t.dtype == dtype else t.to(dtype) for t in tensors]


def working_dtype(tensor: Tensor) -> torch.dtype:
    """float32 for half precision, else the tensor's own."""
    return torch.float32 if tensor.dtype in (torch.bfloat16, torch.float16) else tensor.dtype
