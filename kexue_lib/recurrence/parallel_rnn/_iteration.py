"""The iteration for all times at once, its derivatives, and the exponents that say how fast it converges."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of
from kexue_lib._autocast import without_autocast
from kexue_lib.recurrence.parallel_rnn._cells import cell_jacobian
from kexue_lib.recurrence.scan import linear_scan, matrix_scan

Method = Literal["jacobi", "constant", "input", "newton", "quasi"]
_METHODS = ("jacobi", "constant", "input", "newton", "quasi")
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
_SMALL = 2000  # numbers of all matrices of one step up to which half-length scans beat a loop, on a CPU
_SLACK = 10.0  # an equation is off by up to ‖f'‖ times the last change


class ParallelRNNResult(NamedTuple):
    """What the iteration found.

    Attributes:
        states: ``(..., L, n)``.
        iterations: how many were run.
        residuals: largest change of a state in each of them.
        converged: whether the last change is at most ``tol``, or the L-th iteration was reached, and no equation
            is off by more than 10 ``tol``. Then the states solve the equations to that; they are those of
            :func:`sequential_rnn` only as far as the equations determine them. Where small differences grow along
            the trajectory (a positive exponent) they can be another trajectory within rounding, far from the loop's.
    """

    states: Tensor
    iterations: int
    residuals: Tensor
    converged: bool


def sequential_rnn(
    cell: nn.Module, u: Float[Tensor, "*batch L m"], x0: Float[Tensor, "*start n"] | None = None
) -> Float[Tensor, "*batch L n"]:
    """Return all states of the recurrence, one step after the other.

    Args:
        cell: ``cell(x, u)`` returns the next state; has ``state_size`` n.
        u: inputs ``(..., L, m)``, float32 or float64.
        x0: the state before the first step ``(..., n)``; zero if None.

    Raises:
        TypeError: ``cell`` no module with a ``state_size``; ``u`` neither float32 nor float64.
        ValueError: L = 0, ``x0`` of another shape.

    >>> from kexue_lib.recurrence.parallel_rnn import TanhCell
    >>> sequential_rnn(TanhCell(torch.zeros(1, 1)), torch.ones(3, 1)).flatten().tolist()[2]
    0.7615941762924194
    """
    x, states = _start(cell, u, x0), []
    for step in u.unbind(-2):
        x = cell(x, step)
        states.append(x)
    return torch.stack(states, -2)


@overload
def parallel_rnn(
    cell: nn.Module,
    u: Float[Tensor, "*batch L m"],
    x0: Float[Tensor, "*start n"] | None = None,
    *,
    method: Method = "newton",
    transition: Float[Tensor, "..."] | None = None,
    max_iters: int | None = None,
    tol: float | None = None,
    init: Float[Tensor, "*batch L n"] | None = None,
    damping: float = 0.0,
    return_info: Literal[False] = False,
) -> Tensor: ...


@overload
def parallel_rnn(
    cell: nn.Module,
    u: Float[Tensor, "*batch L m"],
    x0: Float[Tensor, "*start n"] | None = None,
    *,
    method: Method = "newton",
    transition: Float[Tensor, "..."] | None = None,
    max_iters: int | None = None,
    tol: float | None = None,
    init: Float[Tensor, "*batch L n"] | None = None,
    damping: float = 0.0,
    return_info: Literal[True],
) -> ParallelRNNResult: ...


@overload
def parallel_rnn(
    cell: nn.Module,
    u: Float[Tensor, "*batch L m"],
    x0: Float[Tensor, "*start n"] | None = None,
    *,
    method: Method = "newton",
    transition: Float[Tensor, "..."] | None = None,
    max_iters: int | None = None,
    tol: float | None = None,
    init: Float[Tensor, "*batch L n"] | None = None,
    damping: float = 0.0,
    return_info: bool = False,
) -> Tensor | ParallelRNNResult: ...


@without_autocast
def parallel_rnn(
    cell: nn.Module,
    u: Float[Tensor, "*batch L m"],
    x0: Float[Tensor, "*start n"] | None = None,
    *,
    method: Method = "newton",
    transition: Float[Tensor, "..."] | None = None,
    max_iters: int | None = None,
    tol: float | None = None,
    init: Float[Tensor, "*batch L n"] | None = None,
    damping: float = 0.0,
    return_info: bool = False,
) -> Tensor | ParallelRNNResult:
    r"""Return all states of a nonlinear recurrence :math:`x_t=f(x_{t-1},u_t)`, by linear recurrences.

    .. math:: x^{(k)}_t = f(p_t, u_t) + (1-\delta)M_t\,(x^{(k)}_{t-1} - p_t), \qquad p_t = x^{(k-1)}_{t-1}

    Whatever M is, the first k states are exact after k iterations; they are kept as they are from there on, and entries
    that are not finite become 0. Differentiable, twice too, by ``u``, ``x0`` and the parameters of the cell: the
    gradient is a scan backwards with the full Jacobian. It is that of the equations at the states returned, the same
    for every method once these solve them, and wrong where they do not: look at ``converged`` before it is used.

    Args:
        cell: a module with ``state_size`` n whose ``cell(x, u)`` maps ``(..., n)`` and ``(..., m)`` to the next states.
            Where it has them, ``jacobian(x, u)`` and ``jacobian_diagonal(x, u)`` are used. What it is to be
            differentiated by, besides x and u, must be among its parameters.
        u: inputs ``(..., L, m)``, float32 or float64, as the cell is.
        x0: the state before the first step ``(..., n)``; zero if None.
        method: M is 0 (``"jacobi"``), ``transition`` (``"constant"``), f' at state 0 (``"input"``), f' at
            :math:`p_t` (``"newton"``), or the diagonal of that (``"quasi"``).
        transition: ``(n, n)``, or ``(n,)`` for a diagonal; for ``"constant"``, and only there.
        max_iters: L if None, at which the states are exact.
        tol: largest change of a state at which to stop; 1e-5 in float32, 1e-10 in float64 if None. With 0 the
            smaller of ``max_iters`` and L iterations are run, and nothing waits for the device.
        init: a first guess ``(..., L, n)``; zero if None.
        damping: δ, from 0 to 1, which is ``"jacobi"``.
        return_info: return a :class:`ParallelRNNResult`.

    Returns:
        The states ``(..., L, n)``.

    Raises:
        TypeError: ``cell`` no module with a ``state_size``; ``u`` neither float32 nor float64.
        ValueError: an unknown method; ``transition`` missing, not wanted or of another shape; L = 0; ``max_iters``
            below 1; ``damping`` outside [0, 1]; ``tol`` below 0; ``x0`` or ``init`` of another shape; a cell that
            depends on a tensor with ``requires_grad`` that is none of its parameters, unless gradients are off.

    Warns:
        RuntimeWarning: not converged, and ``return_info`` is False, and ``tol`` is not 0.

    Cost: an iteration evaluates the cell at all L times at once, its Jacobian ``(..., L, n, n)``, and one scan, n³ a
    step for "newton" and "input", n for "quasi". Neither vmap nor ``torch.compile``: the loop depends on values.

    >>> from kexue_lib.recurrence.parallel_rnn import TanhCell
    >>> cell = TanhCell(torch.tensor([[0.9]]))
    >>> info = parallel_rnn(cell, torch.ones(1000, 1), return_info=True)
    >>> info.iterations, info.converged
    (4, True)
    """
    start = _start(cell, u, x0)
    _check_leaves(cell, u, start)
    check_one_of("method", method, _METHODS)
    check_number("damping", damping, least=0, most=1)
    length, n = u.shape[-2], _size(cell)
    _check_transition(transition, method, n)
    check_integer("max_iters", max_iters := length if max_iters is None else max_iters, 1)
    check_number("tol", tol := _TOLERANCE[u.dtype] if tol is None else tol, least=0)
    shape = (*u.shape[:-1], n)
    if init is not None and init.shape != shape:
        raise ValueError(f"init: got shape {tuple(init.shape)}, expected (..., L, n) = {shape}")
    start = start.expand(*u.shape[:-2], n)
    changes: list[Tensor] = []

    def solve() -> Tensor:
        guess = u.new_zeros(shape) if init is None else init
        states = torch.cat([start[..., None, :], guess], -2)
        slope, dense = _slope(cell, u, method, transition, 1 - damping)
        for done in range(min(max_iters, length)):
            changes.append(_iterate(cell, u, states, done, slope, dense))
            if tol > 0 and changes[-1] <= tol:
                break
        return states[..., 1:, :].contiguous()

    out = _Implicit.apply(solve, cell, u, start, *cell.parameters())
    if not return_info and tol == 0:
        return out
    with torch.no_grad():
        off = (cell(_shifted(start, out), u) - out).abs().amax() if out.numel() else out.new_zeros(())
        finished = len(changes) == length or bool(changes[-1] <= tol)
    converged = finished and bool(off <= _SLACK * (tol or _TOLERANCE[u.dtype]))
    if return_info:
        return ParallelRNNResult(out, len(changes), torch.stack(changes), converged)
    if not converged:
        told = (
            f"not converged after {len(changes)} iterations: last change {changes[-1]:.1e}, equations off by {off:.1e}"
        )
        warnings.warn(f"parallel_rnn: {told}", RuntimeWarning, stacklevel=2)
    return out


def lyapunov_exponents(
    cell: nn.Module, u: Float[Tensor, "*batch L m"], x0: Float[Tensor, "*start n"] | None = None
) -> Float[Tensor, "*batch n"]:
    r"""Return the mean rates at which small differences of the state grow along its trajectory, per step.

    By the QR method, :math:`J_tQ_{t-1}=Q_tR_t`: the exponents are the means of :math:`\log|\operatorname{diag}R_t|`.
    If the largest is positive, rounding decides the states. If it is negative they are determined, but it is a mean:
    products of some successive Jacobians may still be large, and :func:`parallel_rnn` slow.

    Args:
        cell: as for :func:`parallel_rnn`.
        u: inputs ``(..., L, m)``.
        x0: the state before the first step.

    Returns:
        n exponents ``(..., n)``, in the order of the directions, which tends to a descending one.

    Raises:
        TypeError, ValueError: as :func:`sequential_rnn`.

    Cost: the loop over time, and a QR factorisation of an n × n matrix at each step.

    >>> from kexue_lib.recurrence.parallel_rnn import TanhCell
    >>> lyapunov_exponents(TanhCell(torch.tensor([[0.5]])), torch.zeros(9, 1)).exp()
    tensor([0.5000])
    """
    with torch.no_grad():
        states = sequential_rnn(cell, u, x0)
        previous = _shifted(_start(cell, u, x0).expand(states[..., 0, :].shape), states)
        Q, rates = None, u.new_zeros(())
        for J in cell_jacobian(cell, previous, u).unbind(-3):
            Q, R = torch.linalg.qr(J if Q is None else J @ Q)
            rates = rates + R.diagonal(dim1=-2, dim2=-1).abs().log()
        return rates / u.shape[-2]


def _start(cell: nn.Module, u: Tensor, x0: Tensor | None) -> Tensor:
    """The state before the first step, once cell and inputs are what they should be."""
    if not isinstance(cell, nn.Module) or not isinstance(getattr(cell, "state_size", None), int):
        raise TypeError(f"cell: got {type(cell).__name__}, expected a module with an integer state_size")
    check_dtype("u", u, "floating")
    if u.dtype not in _TOLERANCE:
        raise TypeError(f"u: got {u.dtype}, expected torch.float32 or torch.float64")
    if u.dim() < 2 or u.shape[-2] == 0:
        raise ValueError(f"u: got shape {tuple(u.shape)}, expected (..., L, m) with L of at least 1")
    expected = (*u.shape[:-2], _size(cell))
    if x0 is None:
        return u.new_zeros(expected)
    check_dtype("x0", x0, "floating")
    try:
        return x0.expand(expected)
    except RuntimeError:
        raise ValueError(f"x0: got shape {tuple(x0.shape)}, expected one that broadcasts to {expected}") from None


def _size(cell: nn.Module) -> int:
    return cast("int", cell.state_size)


def _check_leaves(cell: nn.Module, u: Tensor, start: Tensor) -> None:
    """Refuse a cell whose gradient would be lost: one step of it, without what is differentiated, needs none."""
    if torch.is_grad_enabled():
        constants = {name: weight.detach() for name, weight in cell.named_parameters()}
        if functional_call(cell, constants, (start.detach(), u[..., 0, :].detach())).requires_grad:
            told = "got one that depends on a tensor with requires_grad that is none of its parameters"
            raise ValueError(f"cell: {told}, expected it as nn.Parameter (its gradient would be lost)")


def _check_transition(transition: Tensor | None, method: str, n: int) -> None:
    if (transition is None) != (method != "constant"):
        got = "None" if transition is None else "a tensor"
        wanted = f"({n}, {n}) or ({n},)" if transition is None else "None"
        raise ValueError(f"transition: got {got}, expected {wanted} for method {method!r}")
    if transition is not None and tuple(transition.shape) not in ((n, n), (n,)):
        raise ValueError(f"transition: got shape {tuple(transition.shape)}, expected ({n}, {n}) or ({n},)")


def _shifted(start: Tensor, states: Tensor) -> Tensor:
    """The state before each step."""
    return torch.cat([start[..., None, :], states[..., :-1, :]], -2)


def _slope(
    cell: nn.Module, u: Tensor, method: str, transition: Tensor | None, share: float
) -> tuple[Callable[[Tensor, Tensor, int], Tensor] | None, bool]:
    """M from step ``done`` on, by the states before and the inputs, None for 0; and whether it consists of matrices."""
    if method == "jacobi" or share == 0:
        return None, False
    if method == "constant":
        assert transition is not None  # looked at by _check_transition
        fixed = transition.detach() * share
        return lambda p, v, done: fixed, fixed.dim() == 2
    if method == "input":
        at_zero = cell_jacobian(cell, u.new_zeros(*u.shape[:-1], _size(cell)), u) * share
        return lambda p, v, done: at_zero[..., done:, :, :], True
    if method == "newton":
        slope = lambda p, v, done: cell_jacobian(cell, p, v)
    elif hasattr(cell, "jacobian_diagonal"):
        diagonal: Any = cell.jacobian_diagonal
        slope = lambda p, v, done: diagonal(p, v)
    else:
        slope = lambda p, v, done: cell_jacobian(cell, p, v).diagonal(dim1=-2, dim2=-1)
    return slope if share == 1 else lambda p, v, done: slope(p, v, done) * share, method == "newton"


def _iterate(cell: nn.Module, u: Tensor, states: Tensor, done: int, slope: Callable | None, dense: bool) -> Tensor:
    """One iteration in place on ``states``, which begin with x0; the largest change.

    The unknown is the change, :math:`d_t = M_t d_{t-1} + (f(p_t)-x_t)`: rounding in a scan whose M expands is in
    proportion to it, and vanishes with it.
    """
    p, v, x = states[..., done:-1, :], u[..., done:, :], states[..., done + 1 :, :]
    following = cell(p, v)
    change = following - x
    if slope is not None:
        change = (_matrix_scan if dense else linear_scan)(slope(p, v, done), change)
    if not x.numel():
        return x.new_zeros(())
    largest = change.abs().amax()
    x.add_(change)
    x[..., 0, :] = following[..., 0, :]  # its past is exact, and so is this state, whatever the guess was
    torch.nan_to_num_(x, nan=0.0, posinf=0.0, neginf=0.0)
    return largest


def _matrix_scan(M: Tensor, b: Tensor, x0: Tensor | None = None, *, reverse: bool = False) -> Tensor:
    """The scan that is fastest for few and small matrices, where that is what they are."""
    length = b.shape[-2]
    small = b.device.type == "cpu" and length > 0 and b.numel() // length * b.shape[-1] <= _SMALL
    return matrix_scan(M, b, x0, reverse=reverse, method="odd_even" if small and length >= 24 else "auto")


class _Implicit(torch.autograd.Function):
    r"""Derivatives of the fixed point, :math:`\lambda_t = g_t + J_{t+1}^\top\lambda_{t+1}`; nothing else is stored."""

    @staticmethod
    def forward(ctx: Any, solve: Callable[[], Tensor], cell: nn.Module, u: Tensor, x0: Tensor, *weights: Tensor):
        states = solve()
        ctx.cell = cell
        ctx.save_for_backward(states, u, x0, *weights)
        return states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, u, x0, *weights = ctx.saved_tensors
        again = torch.is_grad_enabled()  # whether this will be differentiated, too
        wanted = ctx.needs_input_grad[2:]
        previous = _shifted(x0, states)
        if not again:
            previous = previous.detach()
        J = cell_jacobian(ctx.cell, previous, u)[..., 1:, :, :].mT
        last = grad[..., -1, :]
        adjoint = torch.cat([_matrix_scan(J, grad[..., :-1, :], last, reverse=True), last[..., None, :]], -2)
        with torch.enable_grad():  # aliases: only what the cell itself depends on is differentiated here
            alias = lambda x: x.view_as(x) if again and x.requires_grad else x.detach().requires_grad_()
            v, before, mirrored = alias(u), alias(previous), [alias(w) for w in weights]
            names = [name for name, _ in ctx.cell.named_parameters()]
            out = functional_call(ctx.cell, dict(zip(names, mirrored)), (before, v))
            sources = [v, before, *mirrored]
            needed = [x for x, want in zip(sources, wanted) if want]
            grads = iter(torch.autograd.grad(out, needed, adjoint, create_graph=again, allow_unused=True))
        grad_u, grad_before, *grad_weights = (next(grads) if want else None for want in wanted)
        grad_start = None if grad_before is None else grad_before[..., 0, :]
        return None, None, grad_u, grad_start, *grad_weights
