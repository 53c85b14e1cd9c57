"""The scans themselves, without gradients: numbers (``matrix=False``) or square matrices, forwards or backwards.

All take ``a (..., L or 1, d)`` or ``(..., L or 1, n, n)``, ``b (..., L, d)`` and ``start (..., 1, d)`` of one dtype and
one number of batch dimensions, and return all states ``(..., L, d)``. None of them divides, so that a = 0 is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, "Tensor | None", bool, bool, "int | None"], Tensor]


def time_axis(matrix: bool) -> int:
    """Where time stands in a."""
    return -3 if matrix else -2


def applied(a: Tensor, x: Tensor, matrix: bool) -> Tensor:
    """a x, for each vector x in the last axis."""
    return (a @ x[..., None])[..., 0] if matrix else a * x


def joined(later: Tensor, earlier: Tensor, matrix: bool) -> Tensor:
    """The coefficient of two steps in a row."""
    return later @ earlier if matrix else later * earlier


def output_shape(a: Tensor, b: Tensor, start: Tensor | None, matrix: bool) -> torch.Size:
    """The shape of all states."""
    batch = [a.shape[: time_axis(matrix)], b.shape[:-2]] + ([] if start is None else [start.shape[:-2]])
    return torch.broadcast_shapes(*batch) + b.shape[-2:]


def stepped(b: Tensor, a: Tensor, x: Tensor, out: Tensor, matrix: bool) -> None:
    """Write a x + b to ``out``."""
    if matrix:
        torch.add(applied(a, x, True), b, out=out)
    else:
        torch.addcmul(b, a, x, out=out)


def sequential(
    a: Tensor,
    b: Tensor,
    start: Tensor | None,
    reverse: bool,
    matrix: bool,
    chunk_size: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """One step after the other, each written where it belongs."""
    out = b.new_empty(output_shape(a, b, start, matrix)) if out is None else out
    _run(_slices(a, b.shape[-2], time_axis(matrix)), b.unbind(-2), out.unbind(-2), start, reverse, matrix)
    return out


def _slices(a: Tensor, length: int, axis: int) -> tuple[Tensor, ...]:
    return a.unbind(axis) if a.shape[axis] == length else (a.select(axis, 0),) * length


def _run(
    a: tuple[Tensor, ...],
    b: tuple[Tensor, ...],
    out: tuple[Tensor, ...],
    start: Tensor | None,
    reverse: bool,
    matrix: bool,
) -> None:
    """The recurrence over slices of the time axis."""
    x = None if start is None else start.squeeze(-2)
    for t in reversed(range(len(b))) if reverse else range(len(b)):
        if x is None:
            out[t].copy_(b[t])
        else:
            stepped(b[t], a[t], x, out[t], matrix)
        x = out[t]


def chunked(
    a: Tensor,
    b: Tensor,
    start: Tensor | None,
    reverse: bool,
    matrix: bool,
    chunk_size: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """All chunks at once to their ends, the ends after one another, and all chunks again from their true starts.

    The products of a over a chunk may overflow where the states do not; on a CPU that is seen, and the steps are then
    taken one by one.
    """
    axis, length = time_axis(matrix), b.shape[-2]
    size = min(chunk_size or max(1, round((length / 2) ** 0.5)), length)
    count = length // size
    if count < 2:
        return sequential(a, b, start, reverse, matrix, out=out)
    rest = length - count * size  # steps at the end, in the order of the recurrence
    low, high = (rest, length) if reverse else (0, length - rest)
    varies = a.shape[axis] == length
    out = b.new_empty(output_shape(a, b, start, matrix)) if out is None else out
    cut = lambda x, where: x.narrow(where, low, high - low).unflatten(where, (count, size))
    parts = cut(a, axis).unbind(axis) if varies else (a,) * size  # one step of all chunks each
    steps, states = cut(b, -2).unbind(-2), cut(out, -2).unbind(-2)
    starts = _starts(parts, steps, start, out, reverse, matrix, varies)
    if starts is None:
        return sequential(a, b, start, reverse, matrix, out=out)
    x = starts
    for c in reversed(range(size)) if reverse else range(size):
        stepped(steps[c], parts[c], x, states[c], matrix)
        x = states[c]
    if rest:
        low, end = (0, 0 + rest) if reverse else (high, high - 1)
        tail_b, tail_out = (t.narrow(-2, low, rest).unbind(-2) for t in (b, out))
        of_a = _slices(a.narrow(axis, low, rest) if varies else a, rest, axis)
        _run(of_a, tail_b, tail_out, out.narrow(-2, end, 1), reverse, matrix)
    return out


def _starts(
    parts: tuple[Tensor, ...],
    steps: tuple[Tensor, ...],
    start: Tensor | None,
    out: Tensor,
    reverse: bool,
    matrix: bool,
    varies: bool,
) -> Tensor | None:
    """The state before each chunk ``(..., chunks, d)``; None where a product over a chunk is not finite."""
    order = list(range(len(steps)))[:: -1 if reverse else 1]
    product, ends = parts[order[0]], steps[order[0]]
    buffers: list[Tensor | None] = [None, None]  # the first two are views of what was given
    for c in order[1:]:
        if matrix:
            ends, product = applied(parts[c], ends, True) + steps[c], parts[c] @ product
        else:
            ends = torch.addcmul(steps[c], parts[c], ends, out=buffers[0])
            product = torch.mul(parts[c], product, out=buffers[1])
            buffers = [ends, product]
    if out.device.type == "cpu" and not (product.isfinite().all() and ends.isfinite().all()):
        return None
    count = steps[0].shape[-2]
    starts = out.new_empty(*out.shape[:-2], count, out.shape[-1])
    places = starts.unbind(-2)
    before = order_of(count, reverse)
    places[before[0]].zero_() if start is None else places[before[0]].copy_(start.squeeze(-2))
    products = _slices(product, count, time_axis(matrix))
    ends = ends.unbind(-2)
    for one, following in pairwise(before):
        stepped(ends[one], products[one], places[one], places[following], matrix)
    return starts


def order_of(count: int, reverse: bool) -> list[int]:
    """0, 1, … or the other way round."""
    return list(range(count))[:: -1 if reverse else 1]


def _forwards(inner: Callable[[Tensor, Tensor, bool], Tensor]) -> Kernel:
    """A kernel from one that has no start and one direction."""

    def kernel(
        a: Tensor, b: Tensor, start: Tensor | None, reverse: bool, matrix: bool, chunk_size: int | None = None
    ) -> Tensor:
        axis = time_axis(matrix)
        full = output_shape(a, b, start, matrix)
        a, b = a.expand(*full[:-1], *a.shape[axis + 1 :]), b.expand(full)
        if reverse:
            a, b = a.flip(axis), b.flip(-2)
        if start is not None:
            first = b[..., :1, :] + applied(a.narrow(axis, 0, 1), start, matrix)
            b = torch.cat([first, b[..., 1:, :]], -2)
        out = inner(a, b, matrix)
        return out.flip(-2) if reverse else out

    return kernel


def _doubling(a: Tensor, b: Tensor, matrix: bool) -> Tensor:
    """Hillis and Steele: log₂ L rounds, each of which joins every step with the one 1, 2, 4, … before; L log L work."""
    axis, length, shift = time_axis(matrix), b.shape[-2], 1
    while shift < length:
        later, earlier = a.narrow(axis, shift, length - shift), a.narrow(axis, 0, length - shift)
        moved = b[..., shift:, :] + applied(later, b[..., :-shift, :], matrix)
        b = torch.cat([b[..., :shift, :], moved], -2)
        a = torch.cat([a.narrow(axis, 0, shift), joined(later, earlier, matrix)], axis)
        shift *= 2
    return b if shift > 1 else b.clone()


def _odd_even(a: Tensor, b: Tensor, matrix: bool) -> Tensor:
    """Join neighbours, scan the half that is left, and fill in the others; 2L work."""
    axis, length = time_axis(matrix), b.shape[-2]
    if length == 1:
        return b.clone()
    pick = lambda first, count: a[(..., slice(first, None, 2)) + (slice(None),) * (-axis - 1)].narrow(axis, 0, count)
    half = length // 2
    later, earlier = pick(1, half), pick(0, half)
    odd = _odd_even(
        joined(later, earlier, matrix), b[..., 1::2, :] + applied(later, b[..., 0::2, :][..., :half, :], matrix), matrix
    )
    out = torch.empty_like(b)
    out[..., 1::2, :] = odd
    out[..., 0, :] = b[..., 0, :]
    rest = (length - 1) // 2
    out[..., 2::2, :] = b[..., 2::2, :] + applied(pick(2, rest), odd[..., :rest, :], matrix)
    return out


def _associative(a: Tensor, b: Tensor, matrix: bool) -> Tensor:
    """PyTorch's own scan of the monoid, generic on a CPU."""
    from torch._higher_order_ops.associative_scan import associative_scan

    axis = time_axis(matrix) % a.dim()

    def combine(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return joined(right[0], left[0], matrix), applied(right[0], left[1], matrix) + right[1]

    return associative_scan(combine, (a.contiguous(), b.contiguous()), dim=axis, combine_mode="generic")[1]


KERNELS: dict[str, Kernel] = {
    "sequential": sequential,
    "chunked": chunked,
    "doubling": _forwards(_doubling),
    "odd_even": _forwards(_odd_even),
    "associative": _forwards(_associative),
}
