"""The public scans: arguments, the choice of a kernel, and gradients, which are scans the other way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from jaxtyping import Inexact
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_one_of
from kexue_lib._autocast import without_autocast
from kexue_lib._autograd import remember_signature
from kexue_lib.recurrence.scan._kernels import KERNELS, applied, output_shape, time_axis

Method = Literal["auto", "sequential", "chunked", "doubling", "odd_even", "associative"]
METHODS = ("auto", *KERNELS)
IN_PLACE = ("sequential", "chunked")  # kernels that write to a given place
_SHORT = 24  # steps for which chunks do not pay
_WIDE, _WIDE_COMPLEX = 1 << 18, 1 << 13  # numbers a step from which one pass over memory beats two, on a CPU
_DENSE = 2000  # numbers of all matrices of one step from which products of matrices cost more than steps


def scan_combine(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    r"""Join two pieces of a sequence, the earlier one on the left.

    .. math:: (a_1, b_1) \bullet (a_2, b_2) = (a_2 a_1,\ a_2 b_1 + b_2)

    Args:
        left: coefficient and end of the earlier piece, of shapes that broadcast.
        right: of the later piece.

    >>> one = torch.tensor(2.0), torch.tensor(1.0)
    >>> [float(x) for x in scan_combine(one, scan_combine(one, one))]
    [8.0, 7.0]
    """
    return right[0] * left[0], right[0] * left[1] + right[1]


@without_autocast
def linear_scan(
    a: Inexact[Tensor, "..."],
    b: Inexact[Tensor, "*batch length d"],
    x0: Inexact[Tensor, "..."] | None = None,
    *,
    reverse: bool = False,
    method: Method = "auto",
    chunk_size: int | None = None,
) -> Inexact[Tensor, "..."]:
    r"""Return all states of a linear recurrence.

    .. math:: x_t = a_t x_{t-1} + b_t, \quad t = 0, \dots, L-1, \qquad x_{-1} = x^0

    With ``reverse`` :math:`x_t = a_t x_{t+1} + b_t` and :math:`x_L = x^0`.

    Args:
        a: coefficients ``(..., L, d)``, or the same at all times: ``(d,)`` or ``(..., 1, d)``. Any value: 0 resets the
            state exactly, and more than 1 in size is allowed.
        b: inputs ``(..., L, d)``; batch dimensions broadcast.
        x0: the state before the first step ``(..., d)``; zero if None.
        reverse: from the last step to the first.
        method: ``"sequential"`` one step after the other; ``"chunked"`` √L chunks at once, in two passes;
            ``"doubling"`` L log L work in log L rounds; ``"odd_even"`` 2L work; ``"associative"`` PyTorch's own. All
            agree to rounding. ``"auto"`` chooses between the first two on a CPU by length and width, and takes the
            last elsewhere.
        chunk_size: steps of a chunk, for ``"chunked"``; about √(L/2) if None.

    Returns:
        All states ``(..., L, d)`` in the common dtype of the three; real and complex mix. Half types are accumulated in
        float32. Differentiable twice and forwards; ``torch.func`` and ``torch.compile`` work.

    Raises:
        TypeError: a tensor that is neither floating nor complex.
        ValueError: an unknown method, shapes that do not fit, ``chunk_size`` below 1.

    Cost: two reads of a and b and one write, the output and O(L^½) more memory; backward one scan the other way. On an
    accelerator products of many a larger than 1 may overflow where the states do not; on a CPU that is noticed.

    >>> linear_scan(torch.tensor([0.5]), torch.ones(4, 1)).flatten().tolist()
    [1.0, 1.5, 1.75, 1.875]
    """
    return _scan(a, b, x0, reverse, method, chunk_size, False)


@without_autocast
def matrix_scan(
    A: Inexact[Tensor, "..."],
    b: Inexact[Tensor, "*batch length n"],
    x0: Inexact[Tensor, "..."] | None = None,
    *,
    reverse: bool = False,
    method: Method = "auto",
) -> Inexact[Tensor, "..."]:
    r"""Return all states of a linear recurrence with matrices.

    .. math:: x_t = A_t x_{t-1} + b_t

    Args:
        A: ``(..., L, n, n)``, or the same at all times: ``(n, n)`` or ``(..., 1, n, n)``.
        b: ``(..., L, n)``; batch dimensions broadcast.
        x0: ``(..., n)``; zero if None.
        reverse: as in :func:`linear_scan`.
        method: as in :func:`linear_scan`.

    Returns:
        All states ``(..., L, n)``, as :func:`linear_scan` does.

    Raises:
        TypeError: a tensor that is neither floating nor complex.
        ValueError: an unknown method, matrices that are not square, shapes that do not fit.

    Cost: chunks multiply matrices, n³ a step where the plain loop takes n²: they pay for small n and batch only.

    >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    >>> matrix_scan(turn, torch.zeros(3, 2), torch.tensor([1.0, 0.0])).tolist()
    [[0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
    """
    return _scan(A, b, x0, reverse, method, None, True)


def _scan(
    a: Tensor, b: Tensor, x0: Tensor | None, reverse: bool, method: str, chunk_size: int | None, matrix: bool
) -> Tensor:
    name = "A" if matrix else "a"
    for argument, x in ((name, a), ("b", b), ("x0", x0)):
        if x is not None:
            check_dtype(argument, x, "floating or complex")
    check_one_of("method", method, METHODS)
    if chunk_size is not None:
        check_integer("chunk_size", chunk_size, 1)
    a, start = _fitted(name, a, b, x0, matrix)
    dtype = torch.promote_types(a.dtype, b.dtype)
    dtype = dtype if start is None else torch.promote_types(dtype, start.dtype)
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    a, b, start = a.to(wide), b.to(wide), None if start is None else start.to(wide)
    shape = output_shape(a, b, start, matrix)
    if not shape.numel():  # still a function of its arguments
        return (b.sum() * 0 + torch.zeros(shape, dtype=wide, device=b.device)).to(dtype)
    if method == "auto":
        method = _chosen(shape, b, matrix)
    if torch.compiler.is_compiling():
        out = _opaque(a, b, start, reverse, matrix, method, chunk_size or 0)
    else:
        out = _Scan.apply(a, b, start, reverse, matrix, method, chunk_size)
    return out.to(dtype)


def _fitted(name: str, a: Tensor, b: Tensor, x0: Tensor | None, matrix: bool) -> tuple[Tensor, Tensor | None]:
    """a and x0 with a time axis, and all three with one number of batch dimensions."""
    if b.dim() < 2:
        raise ValueError(f"b: got shape {tuple(b.shape)}, expected (..., L, d)")
    length, d = b.shape[-2:]
    inner = (d, d) if matrix else (d,)
    axis, wanted = time_axis(matrix), "(..., L, n, n) or (n, n)" if matrix else "(..., L, d), (..., 1, d) or (d,)"
    if a.dim() == len(inner):
        a = a.unsqueeze(axis)
    tail = tuple(a.shape[axis + 1 :])
    same = tail == inner or (not matrix and tail == (1,))
    if a.dim() <= len(inner) or not same or a.shape[axis] not in (1, length):
        raise ValueError(f"{name}: got shape {tuple(a.shape)}, expected {wanted} beside b {tuple(b.shape)}")
    if not matrix:
        a = a.expand(*a.shape[:-1], d)
    if x0 is not None:
        if x0.dim() == 0 or x0.shape[-1] != d:
            raise ValueError(f"x0: got shape {tuple(x0.shape)}, expected (..., {d}) beside b {tuple(b.shape)}")
        x0 = x0.unsqueeze(-2)
    try:
        output_shape(a, b, x0, matrix)
    except RuntimeError:
        shapes = {name: a, "b": b, **({} if x0 is None else {"x0": x0})}
        told = ", ".join(f"{key} {tuple(x.shape)}" for key, x in shapes.items())
        raise ValueError(f"{name}: got batch dimensions {told}, expected ones that broadcast") from None
    return a, x0


def _chosen(shape: torch.Size, b: Tensor, matrix: bool) -> str:
    """The kernel for this size on this device."""
    if b.device.type != "cpu":
        return "associative"
    length, width = shape[-2], shape.numel() // shape[-2]
    if matrix:
        return "chunked" if length >= _SHORT and width * shape[-1] <= _DENSE else "sequential"
    return "chunked" if length >= _SHORT and width <= (_WIDE_COMPLEX if b.is_complex() else _WIDE) else "sequential"


@remember_signature
class _Scan(torch.autograd.Function):
    r"""The gradient by the states is summed by a scan, :math:`\bar g_t = g_t + \overline{a_{t+1}}\,\bar g_{t+1}`."""

    @staticmethod
    def forward(
        a: Tensor, b: Tensor, start: Tensor | None, reverse: bool, matrix: bool, method: str, chunk_size: int | None
    ) -> Tensor:
        return KERNELS[method](a, b, start, reverse, matrix, chunk_size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        a, b, start, ctx.reverse, ctx.matrix, ctx.method, ctx.chunk_size = inputs
        ctx.b_shape = b.shape
        ctx.save_for_backward(a, start, output)
        ctx.save_for_forward(a, start, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        a, start, out = ctx.saved_tensors
        needs = ctx.needs_input_grad[0], ctx.needs_input_grad[1], start is not None and ctx.needs_input_grad[2]
        rest = (ctx.matrix, ctx.method, ctx.chunk_size)
        grads = _gradients(_Scan.apply, grad, a, start, out, ctx.b_shape, ctx.reverse, *rest, needs)
        return *grads, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, da: Tensor | None, db: Tensor | None, dstart: Tensor | None, *_: Any) -> Tensor:
        a, start, out = ctx.saved_tensors
        pushed = torch.zeros_like(out) if db is None else db.expand(out.shape)
        if da is not None:
            pushed = pushed + applied(da, _before(out, start, ctx.reverse), ctx.matrix)
        return _Scan.apply(a, pushed, dstart, ctx.reverse, ctx.matrix, ctx.method, ctx.chunk_size)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, a: Tensor, b: Tensor, start: Tensor | None, *rest: Any) -> tuple[Tensor, int]:
        moved = [
            x if x is None else x.unsqueeze(0) if dim is None else x.movedim(dim, 0)
            for x, dim in zip((a, b, start), in_dims)
        ]
        matrix = rest[1]
        batch = max(x.dim() - (2 + (matrix and i == 0)) for i, x in enumerate(moved) if x is not None)
        for i, x in enumerate(moved):
            while x is not None and x.dim() - (2 + (matrix and i == 0)) < batch:
                x = x.unsqueeze(1)
            moved[i] = x
        out = _Scan.apply(*moved, *rest)
        return out.expand(info.batch_size, *out.shape[1:]), 0


def _gradients(
    scan: Callable[..., Tensor],
    grad: Tensor,
    a: Tensor,
    start: Tensor | None,
    out: Tensor,
    b_shape: torch.Size,
    reverse: bool,
    matrix: bool,
    method: str,
    chunk_size: int | None,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients by a, b and the start."""
    axis, length = time_axis(matrix), out.shape[-2]
    adjoint = a.mH if matrix else a.conj()
    if scan is _Scan.apply and not matrix and method in IN_PLACE and length > 1 and not torch.is_grad_enabled():
        grads = _gradients_in_place(grad, adjoint, start, out, reverse, method, chunk_size, needs[0])
        shapes = (a.shape, b_shape, None if start is None else start.shape)
        by_a, by_b, by_start = (
            g.sum_to_size(shape) if need and g is not None and shape is not None else None
            for g, shape, need in zip(grads, shapes, needs)
        )
        return by_a, by_b, by_start
    first = length - 1 if reverse else 0
    back = adjoint
    if a.shape[axis] > 1:  # the coefficient of the step after
        kept = adjoint.narrow(axis, 0 if reverse else 1, length - 1)
        ending = torch.zeros_like(adjoint.narrow(axis, 0, 1))
        back = torch.cat([ending, kept] if reverse else [kept, ending], axis)
    total = scan(back, grad, None, not reverse, matrix, method, chunk_size)
    grad_a = grad_start = None
    if needs[0]:
        before = _before(out, start, reverse).conj()
        each = total[..., None] * before[..., None, :] if matrix else total * before
        grad_a = each.sum_to_size(a.shape)
    if needs[2] and start is not None:
        head = adjoint.select(axis, first if a.shape[axis] > 1 else 0)
        grad_start = applied(head, total[..., first, :], matrix).unsqueeze(-2).sum_to_size(start.shape)
    return grad_a, total.sum_to_size(b_shape) if needs[1] else None, grad_start


def _gradients_in_place(
    grad: Tensor,
    adjoint: Tensor,
    start: Tensor | None,
    out: Tensor,
    reverse: bool,
    method: str,
    chunk_size: int | None,
    needs_a: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The same for first derivatives by numbers: nothing is copied, all is written where it belongs."""
    length = out.shape[-2]
    cut = lambda x, from_start: x.narrow(-2, 0 if from_start else 1, length - 1)
    total = torch.empty_like(out)
    edge = total.narrow(-2, 0 if reverse else length - 1, 1)  # the last step: nothing comes after it
    edge.copy_(grad.narrow(-2, 0 if reverse else length - 1, 1))
    after = cut(adjoint, reverse) if adjoint.shape[-2] > 1 else adjoint  # the coefficient of the step after
    grad = grad.expand(out.shape)
    kernel = cast("Callable[..., Tensor]", KERNELS[method])  # one of IN_PLACE, which take the output too
    kernel(after, cut(grad, not reverse), edge, not reverse, False, chunk_size, cut(total, not reverse))
    head = total.narrow(-2, length - 1 if reverse else 0, 1)
    grad_a = None
    if needs_a:
        grad_a = torch.empty_like(out)
        states = cut(out, not reverse)
        torch.mul(cut(total, reverse), states.conj().resolve_conj(), out=cut(grad_a, reverse))
        first = grad_a.narrow(-2, length - 1 if reverse else 0, 1)
        torch.mul(head, start.conj().resolve_conj(), out=first) if start is not None else first.zero_()
    first_a = adjoint.narrow(-2, length - 1 if reverse and adjoint.shape[-2] > 1 else 0, 1)
    return grad_a, total, first_a * head


def _before(out: Tensor, start: Tensor | None, reverse: bool) -> Tensor:
    """The state before each step."""
    edge = torch.zeros_like(out[..., :1, :]) if start is None else start.expand_as(out[..., :1, :])
    return torch.cat([out[..., 1:, :], edge] if reverse else [edge, out[..., :-1, :]], -2)


_SCHEMA = "(Tensor a, Tensor b, Tensor? start, bool reverse, bool matrix, str method, int chunk_size) -> Tensor"


@torch.library.custom_op("kexue::scan", mutates_args=(), schema=_SCHEMA)
def _opaque(
    a: Tensor, b: Tensor, start: Tensor | None, reverse: bool, matrix: bool, method: str, chunk_size: int
) -> Tensor:
    """The same for a compiler, which should not unroll the steps; 0 stands for no chunk size.

    PyTorch's own scan does not run inside of another operator, the one of equal work does.
    """
    return KERNELS["odd_even" if method == "associative" else method](a, b, start, reverse, matrix, chunk_size or None)


@_opaque.register_fake
def _(a: Tensor, b: Tensor, start: Tensor | None, reverse: bool, matrix: bool, method: str, chunk_size: int) -> Tensor:
    return b.new_empty(output_shape(a, b, start, matrix))


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    a, b, start, ctx.reverse, ctx.matrix, ctx.method, ctx.chunk_size = inputs
    ctx.b_shape = b.shape
    ctx.save_for_backward(a, start, output)


def _opaque_backward(ctx: Any, grad: Tensor) -> tuple:
    a, start, out = ctx.saved_tensors
    needs = (True, True, start is not None)
    rest = (ctx.matrix, ctx.method, ctx.chunk_size)
    grads = _gradients(_opaque, grad, a, start, out, ctx.b_shape, ctx.reverse, *rest, needs)
    return *grads, None, None, None, None


_opaque.register_autograd(_opaque_backward, setup_context=_keep)
