"""The matrix, and its product with vectors by two batches of small products."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor
from torch.autograd import forward_ad

from kexue_lib._arguments import check_dtype, check_integer, check_shape
from kexue_lib._tracing import is_traced

Factor = Shaped[Tensor, "_ _ _"]


class Sizes(NamedTuple):
    """I, J, K, l and the rank q of a pair of factors."""

    I: int
    J: int
    K: int
    l: int
    q: int


def monarch_permutation(n: int, b: int, device: torch.device | str | None = None) -> Int64[Tensor, " n"]:
    r"""Return the permutation :math:`P_{(n/b,\,b)}` as indices: ``x[perm]`` is ``x.reshape(n // b, b).T.reshape(n)``.

    Args:
        n: length.
        b: size of the groups that are shuffled into one another; :math:`P_{(b,\,n/b)}`, with n/b, is the inverse.
        device: of the result.

    Raises:
        TypeError: a size that is no integer.
        ValueError: ``b`` does not divide ``n``, or a size below 1.

    >>> monarch_permutation(6, 2).tolist()
    [0, 2, 4, 1, 3, 5]
    """
    check_integer("n", n, 1)
    check_divides("b", b, "n", n)
    return torch.arange(n, device=device).view(n // b, b).T.reshape(n)


def block_diag_dense(blocks: Shaped[Tensor, "g p q"]) -> Shaped[Tensor, "gp gq"]:
    """Return the block diagonal matrix ``(g·p, g·q)`` of g blocks of p × q; differentiable.

    Raises:
        ValueError: ``blocks`` is not 3-D.

    >>> block_diag_dense(torch.ones(2, 1, 2)).tolist()
    [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
    """
    check_shape("blocks", blocks, ("g", "p", "q"))
    return torch.block_diag(*blocks)


def monarch_dense(L: Factor, R: Factor) -> Shaped[Tensor, "IJ Kl"]:
    r"""Return the matrix itself.

    .. math:: M_{ij,\,kp} = \sum_{t<q} L_{j,\,i,\,kt}\,R_{k,\,jt,\,p}

    Args:
        L: ``(J, I, K·q)``, merged index k·q + t.
        R: ``(K, J·q, l)``, merged index j·q + t.

    Returns:
        ``(I·J, K·l)``, row i·J + j, column k·l + p.

    Raises:
        ValueError: factors that are not 3-D or do not chain.

    Cost: q·I·J·K·l multiply-adds.

    >>> monarch_dense(torch.ones(2, 3, 2), torch.ones(2, 2, 4)).shape
    torch.Size([6, 8])
    """
    I, J, K, l, q = sizes(L, R)
    dense = torch.einsum("jikt,kjtl->ijkl", L.view(J, I, K, q), R.view(K, J, q, l))
    return dense.reshape(I * J, K * l)


def monarch_matmul(x: Shaped[Tensor, "*b Kl"], L: Factor, R: Factor) -> Shaped[Tensor, "*b IJ"]:
    r"""Multiply vectors by a Monarch matrix: ``x @ monarch_dense(L, R).mT`` without making the matrix.

    .. math:: h_{kjt} = \sum_p R_{k,\,jt,\,p}\,x_{kp}, \qquad y_{ij} = \sum_{k,t} L_{j,\,i,\,kt}\,h_{kjt}

    Args:
        x: ``(..., K·l)``; of the factors' dtype, or real with complex factors.
        L: ``(J, I, K·q)``, merged index k·q + t.
        R: ``(K, J·q, l)``, merged index j·q + t.

    Returns:
        ``(..., I·J)``, contiguous. Differentiable as often as you like; under autocast in its dtype.

    Raises:
        ValueError: factors that are not 3-D or do not chain, or another last dimension of ``x``.

    Cost: q·(J·K·l + K·I·J) multiply-adds a vector, for n = m² and q = 1 that is 2·n^1.5.

    >>> L, R = torch.ones(2, 3, 2), torch.ones(2, 2, 4)
    >>> monarch_matmul(torch.ones(8), L, R).tolist()
    [8.0, 8.0, 8.0, 8.0, 8.0, 8.0]
    """
    size = sizes(L, R)
    width = size.K * size.l
    check_dtype("x", x, "floating or complex")
    if x.dim() == 0 or x.shape[-1] != width:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected (..., {width}) for R of shape {tuple(R.shape)}")
    if L.is_complex() and not x.is_complex():
        x = x.to(L.dtype)
    rows = x.reshape(math.prod(x.shape[:-1]), width)
    product = _FewCopies.apply if _takes_few_copies(rows, L, R) else _product
    return product(rows, L, R).view(*x.shape[:-1], size.I * size.J)


def sizes(L: Tensor, R: Tensor) -> Sizes:
    """Read I, J, K, l, q off the factors, or refuse them."""
    for name, x in (("L", L), ("R", R)):
        check_dtype(name, x, "floating or complex")
    words = f"L: got shapes {tuple(L.shape)} and R {tuple(R.shape)}, expected L (J, I, K·q) and R (K, J·q, l)"
    if L.dim() != 3 or R.dim() != 3:
        raise ValueError(words)
    (J, I, Kq), (K, Jq, l) = L.shape, R.shape
    if 0 in (J, K) or Kq % K or Jq % J or Kq // K != Jq // J or Kq == 0:
        raise ValueError(words)
    return Sizes(I, J, K, l, Kq // K)


def check_divides(name: str, value: int, whole_name: str, whole: int) -> None:
    """Refuse a number of blocks, or a size of one, that does not divide the length."""
    check_integer(name, value, 1)
    if whole % value:
        raise ValueError(f"{name}: got {value}, expected a divisor of {whole_name} = {whole}")


def _hidden(x: Tensor, R: Tensor, J: int) -> Tensor:
    """h in the layout (J, K·q, B) of the second product: for q = 1 a view, since the row of the batch is last."""
    (K, _, l), B, q = R.shape, x.shape[0], R.shape[1] // J
    h = torch.bmm(R, x.view(B, K, l).permute(1, 2, 0))
    return h.view(K, J, q, B).transpose(0, 1).reshape(J, K * q, B)


def _product(x: Tensor, L: Tensor, R: Tensor) -> Tensor:
    """The product for tracers, higher derivatives, complex numbers and autocast."""
    J, I, _ = L.shape
    return torch.bmm(L, _hidden(x, R, J)).permute(2, 1, 0).reshape(x.shape[0], I * J)


def _takes_few_copies(*tensors: Tensor) -> bool:
    """Whether the kernel below applies, which writes into its outputs."""
    if is_traced() or torch.is_autocast_enabled(tensors[0].device.type):
        return False
    same = all(t.dtype == tensors[0].dtype and not t.is_complex() for t in tensors)
    return same and all(forward_ad.unpack_dual(t).tangent is None for t in tensors)


class _FewCopies(torch.autograd.Function):
    """Four products backward, each of which writes its result where the next one reads it.

    The row of the batch is the fast index of h and of y until the last transposition, so that the permutation
    between the two products is a change of strides.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, L: Tensor, R: Tensor) -> Tensor:
        J, I, _ = L.shape
        h = _hidden(x, R, J)
        y = x.new_empty(I, J, len(x))
        torch.bmm(L, h, out=y.transpose(0, 1))
        ctx.save_for_backward(x, L, R, h)
        return y.view(I * J, len(x)).mT.contiguous()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, L, R, h = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _again(ctx, g, x, L, R)
        (J, I, _), (K, Jq, l), B = L.shape, R.shape, len(x)
        g = g.mT.contiguous().view(I, J, B).transpose(0, 1)
        of_x = of_R = None
        of_L = torch.bmm(g, h.mT) if ctx.needs_input_grad[1] else None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[2]:
            of_h = x.new_empty(K, J, Jq // J, B)
            if Jq == J:
                torch.bmm(L.mT, g, out=of_h.squeeze(2).transpose(0, 1))
            else:
                of_h.copy_(torch.bmm(L.mT, g).view(J, K, Jq // J, B).transpose(0, 1))
            of_h = of_h.view(K, Jq, B)
            if ctx.needs_input_grad[0]:
                of_x = x.new_empty(B, K, l)
                torch.bmm(of_h.mT, R, out=of_x.transpose(0, 1))
                of_x = of_x.view(B, K * l)
            if ctx.needs_input_grad[2]:
                of_R = torch.bmm(of_h, x.view(B, K, l).transpose(0, 1))
        return of_x, of_L, of_R


def _again(ctx: Any, g: Tensor, *inputs: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients as functions of g and the inputs, for second derivatives."""
    wanted = [t for t, needed in zip(inputs, ctx.needs_input_grad) if needed]
    grads = iter(torch.autograd.grad(_product(*inputs), wanted, g, create_graph=True))
    return tuple(next(grads) if needed else None for needed in ctx.needs_input_grad)
