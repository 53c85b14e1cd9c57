"""The factored layer, its gradients, and what a step of it costs: formulas C1 to C5 of the chapter as functions."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of
from kexue_lib._tracing import is_traced

_FEW = 64  # rows


class LoRAPair(NamedTuple):
    """The factors of one layer, ``W = W₀ + scale A B``.

    Attributes:
        A: ``(n, r)``, a parameter.
        B: ``(r, m)``, a parameter.
        scale: s.
    """

    A: nn.Parameter
    B: nn.Parameter
    scale: float


def lora_linear(
    x: Float[Tensor, "*batch n"],
    weight: Float[Tensor, "m n"],
    A: Float[Tensor, "n r"],
    B: Float[Tensor, "r m"],
    bias: Float[Tensor, "m"] | None = None,
    scale: float = 1.0,
) -> Float[Tensor, "*batch m"]:
    r"""Return a linear layer plus a low-rank one, without ever forming the product of the factors.

    .. math:: Y = XW_0 + s\,(XA)B + b,\qquad
              \partial_A = X^\top H,\quad \partial_B = s\,(XA)^\top\partial_Y,\quad
              \partial_X = \partial_Y W_0^\top + HA^\top,\qquad H = s\,\partial_Y B^\top

    Args:
        x: ``(..., n)``, any number of rows, none among them.
        weight: ``(m, n)``, the transpose of W₀ as ``nn.Linear`` stores it.
        A: ``(n, r)``; peft's ``lora_A.weight`` is its transpose.
        B: ``(r, m)``; peft's ``lora_B.weight`` is its transpose.
        bias: ``(m,)`` or None.
        scale: s.

    Returns:
        ``(..., m)``.

    Raises:
        TypeError: a tensor that is not floating.
        ValueError: shapes that do not chain.

    Cost: 2b(nm + r(n + m)) flops forward on b rows, twice that backward without the gradient of ``weight``; no tensor
    of shape ``(m, n)`` is made unless ``weight`` requires a gradient.
    Source: article 9590; Hu et al., arXiv:2106.09685.

    >>> x, weight = torch.tensor([[1.0, 2.0]]), torch.eye(2)
    >>> lora_linear(x, weight, torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0, 3.0]])).tolist()
    [[1.0, 5.0]]
    """
    for name, tensor in (("x", x), ("weight", weight), ("A", A), ("B", B)):
        check_dtype(name, tensor, "floating")
    _check_chain("weight", weight.mT, A, B)
    if x.dim() == 0 or x.shape[-1] != weight.shape[-1]:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected (..., {weight.shape[-1]}) as weight is "
                         f"{tuple(weight.shape)}")  # fmt: skip
    return factored(x, weight, A, B, bias, scale)


def factored(x: Tensor, weight: Tensor, A: Tensor, B: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """``lora_linear`` of what has been checked."""
    if is_traced() or forward_ad._current_level >= 0 or torch.is_autocast_enabled(x.device.type):
        # Compilers fuse this themselves, functorch and autocast choose their own rule for each product.
        return F.linear(x, weight, bias) + (x @ A @ B) * scale
    rows = x.numel() // max(x.shape[-1], 1)
    if rows > _FEW:
        return _Factored.apply(x, weight, A, B, bias, scale)
    # Here the calls cost more than the numbers, and a Function of Python's is the dearest of them.
    flat = x if x.dim() == 2 else x.reshape(rows, x.shape[-1])
    y = torch.addmm(_frozen(flat, weight, bias), flat @ A, B, alpha=scale)
    return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[-1])


class _Factored(torch.autograd.Function):
    """Six thin products around the two of a frozen layer; sums are accumulated by the products themselves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, A: Tensor, B: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        hidden = rows @ A
        y = x.new_empty(*x.shape[:-1], weight.shape[0])  # no view: what follows may change it in place
        flat = y.view(rows.shape[0], weight.shape[0])
        torch.mm(rows, weight.mT, out=flat) if bias is None else torch.addmm(bias, rows, weight.mT, out=flat)
        flat.addmm_(hidden, B, alpha=scale)
        ctx.scale, ctx.has_bias = scale, bias is not None
        ctx.save_for_backward(x, weight, A, B, hidden)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, A, B, hidden = ctx.saved_tensors
        wants_x, wants_weight, wants_A, wants_B, wants_bias, _ = ctx.needs_input_grad
        rows, g = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        if torch.is_grad_enabled():  # a second derivative flows through it
            hidden = rows @ A
        thin = (g @ B.mT).mul_(ctx.scale) if wants_x or wants_A else None
        grad_x = (g @ weight).addmm_(thin, A.mT).view(x.shape) if wants_x else None
        grad_A = rows.mT @ thin if wants_A else None
        grad_B = (hidden.mT @ g).mul_(ctx.scale) if wants_B else None
        grad_weight = g.mT @ rows if wants_weight else None
        grad_bias = g.sum(0) if wants_bias and ctx.has_bias else None
        return grad_x, grad_weight, grad_A, grad_B, grad_bias, None


def _frozen(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The plain layer. For a few rows a CPU's library is faster with the weight on the left, where it is not
    transposed: measured for 16 and 32 rows of weights of this size, and not outside of that."""
    on_cpu = rows.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
    if on_cpu and 8 <= rows.shape[0] <= 32 and weight.numel() >= 2**19:
        y = (weight @ rows.mT).mT
        return y if bias is None else y + bias
    return F.linear(rows, weight, bias)


def lora_gradients(
    G: Float[Tensor, "*batch n m"], A: Float[Tensor, "*batch n r"], B: Float[Tensor, "*batch r m"], scale: float = 1.0
) -> tuple[Float[Tensor, "*batch n r"], Float[Tensor, "*batch r m"]]:
    r"""Return the gradients of the factors from that of the whole matrix.

    .. math:: \partial_A = s\,GB^\top,\qquad \partial_B = s\,A^\top G

    Args:
        G: ``(..., n, m)``, the gradient by W in the orientation Y = XW: the transpose of a ``weight.grad`` of torch.
        A: ``(..., n, r)``.
        B: ``(..., r, m)``.
        scale: s.

    Returns:
        The gradients by A, ``(..., n, r)``, and by B, ``(..., r, m)``.

    Raises:
        TypeError: a tensor that is not floating.
        ValueError: shapes that do not chain.

    Cost: 4nmr flops.
    Source: article 9590, equation (2).

    >>> G_A, G_B = lora_gradients(torch.eye(2), torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]]))
    >>> G_A.tolist(), G_B.tolist()
    ([[3.0], [4.0]], [[1.0, 2.0]])
    """
    for name, tensor in (("G", G), ("A", A), ("B", B)):
        check_dtype(name, tensor, "floating")
    _check_chain("G", G, A, B)
    check_number("scale", scale, above=-math.inf, below=math.inf)
    return (G @ B.mT) * scale, (A.mT @ G) * scale


def equivalent_gradient(
    H_A: Float[Tensor, "*batch n r"],
    H_B: Float[Tensor, "*batch r m"],
    A: Float[Tensor, "*batch n r"],
    B: Float[Tensor, "*batch r m"],
    scale: float = 1.0,
) -> Float[Tensor, "*batch n m"]:
    r"""Return what a step along ``(H_A, H_B)`` of the factors is, to first order, for the matrix itself.

    .. math:: s\,(H_A B + A H_B)

    With H_A and H_B from ``lora_gradients`` it is s²(GBᵀB + AAᵀG), of rank 2r at most.

    Args:
        H_A: ``(..., n, r)``.
        H_B: ``(..., r, m)``.
        A: ``(..., n, r)``.
        B: ``(..., r, m)``.
        scale: s.

    Returns:
        ``(..., n, m)``.

    Raises:
        TypeError: a tensor that is not floating.
        ValueError: shapes that do not chain.

    Cost: 4nmr flops.
    Source: article 9590, equation (5); the name is of Wang et al., arXiv:2407.18242.

    >>> A, B = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]])
    >>> equivalent_gradient(*lora_gradients(torch.eye(2), A, B), A, B).tolist()
    [[10.0, 14.0], [14.0, 20.0]]
    """
    for name, tensor in (("H_A", H_A), ("H_B", H_B), ("A", A), ("B", B)):
        check_dtype(name, tensor, "floating")
    for name, step, factor in (("H_A", H_A, A), ("H_B", H_B, B)):
        if step.shape[-2:] != factor.shape[-2:]:
            raise ValueError(f"{name}: got shape {tuple(step.shape)}, expected that of its factor, "
                             f"{tuple(factor.shape)}")  # fmt: skip
    if A.shape[-1] != B.shape[-2]:
        raise ValueError(f"B: got shape {tuple(B.shape)}, expected (..., {A.shape[-1]}, m) as A is {tuple(A.shape)}")
    check_number("scale", scale, above=-math.inf, below=math.inf)
    return (H_A @ B + A @ H_B) * scale


def lora_training_flops(b: int, n: int, m: int, r: int, form: Literal["full", "product", "factored"]) -> int:
    r"""Return the floating-point operations of the matrix products of one training step of a linear layer.

    .. math:: 6bnm\ \text{(full)},\qquad 6bnm + 6nmr\ \text{(product)},\qquad 4bnm + 6br(n+m)\ \text{(factored)}

    A multiplication with its addition counts 2; the gradient by the input is included.

    Args:
        b: rows.
        n: width of the input.
        m: width of the output.
        r: rank; not looked at for "full".
        form: the plain layer, X(W₀ + AB), or XW₀ + (XA)B.

    Raises:
        TypeError: a size that is no integer.
        ValueError: a negative number of rows, another size below 1, another form.

    >>> [lora_training_flops(512, 1024, 1024, 8, form) / 1e9 for form in ("full", "product", "factored")]
    [3.221225472, 3.27155712, 2.197815296]
    """
    check_integer("b", b, 0)
    for name, size in (("n", n), ("m", m), ("r", r)):
        check_integer(name, size, 1)
    check_one_of("form", form, ("full", "product", "factored"))
    if form == "factored":
        return 4 * b * n * m + 6 * b * r * (n + m)
    return 6 * b * n * m + (6 * n * m * r if form == "product" else 0)


def _check_chain(name: str, matrix: Tensor, A: Tensor, B: Tensor) -> None:
    """Refuse factors whose product has another shape than the matrix, given in the orientation (n, m)."""
    if min(matrix.dim(), A.dim(), B.dim()) < 2:
        low = next(k for k, t in ((name, matrix), ("A", A), ("B", B)) if t.dim() < 2)
        raise ValueError(f"{low}: got fewer than two dimensions, expected a matrix")
    n, m = matrix.shape[-2:]
    if A.shape[-2] != n:
        raise ValueError(f"A: got shape {tuple(A.shape)}, expected ({n}, r) as {name} maps {n} inputs to {m} outputs")
    if B.shape[-2:] != (A.shape[-1], m):
        raise ValueError(f"B: got shape {tuple(B.shape)}, expected ({A.shape[-1]}, {m}) as A is {tuple(A.shape)} and "
                         f"{name} has {m} outputs")  # fmt: skip
