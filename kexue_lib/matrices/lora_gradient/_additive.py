"""The additive form: the sum of a column and a row in place of their product."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_shape


def additive_delta(A: Float[Tensor, "*batch n r"], B: Float[Tensor, "*batch r m"]) -> Float[Tensor, "*batch n m"]:
    r"""Return the additive update of a matrix.

    .. math:: \Delta W = A\,[I_r\ I_r\cdots] + [I_r;\ I_r;\cdots]\,B,\qquad
              \Delta W_{ij} = A_{i,\,j\bmod r} + B_{i\bmod r,\,j}

    Args:
        A: ``(..., n, r)``, r a divisor of n and m.
        B: ``(..., r, m)``.

    Returns:
        ``(..., n, m)``, of rank 2r at most.

    Raises:
        TypeError: a tensor that is not floating.
        ValueError: another rank of B, or one that does not divide n and m.

    Cost: nm additions.
    Source: article 9590, last section.

    >>> import torch
    >>> additive_delta(torch.tensor([[1.0], [2.0]]), torch.tensor([[10.0, 20.0, 30.0]])).tolist()
    [[11.0, 21.0, 31.0], [12.0, 22.0, 32.0]]
    """
    check_dtype("A", A, "floating")
    check_dtype("B", B, "floating")
    check_shape("A", A, ("...", "n", "r"))
    check_shape("B", B, ("...", "r", "m"))
    n, m = A.shape[-2], B.shape[-1]
    if A.shape[-1] != B.shape[-2]:
        raise ValueError(f"B: got shape {tuple(B.shape)}, expected (..., {A.shape[-1]}, m) as A is {tuple(A.shape)}")
    _check_divides("A", A.shape[-1], n, m)
    return A.repeat(*[1] * (A.dim() - 1), m // A.shape[-1]) + B.repeat(*[1] * (B.dim() - 2), n // B.shape[-2], 1)


def additive_gradients(
    G: Float[Tensor, "*batch n m"], rank: int
) -> tuple[Float[Tensor, "*batch n r"], Float[Tensor, "*batch r m"]]:
    r"""Return the gradients of the additive form's A and B: sums of the blocks of G.

    .. math:: (\partial_A)_{ik} = \sum_{j\equiv k} G_{ij},\qquad (\partial_B)_{kj} = \sum_{i\equiv k} G_{ij}
              \pmod r

    Args:
        G: ``(..., n, m)``.
        rank: r, a divisor of n and m.

    Returns:
        ``(..., n, r)`` and ``(..., r, m)``.

    Raises:
        TypeError: G is not floating, the rank no integer.
        ValueError: a rank that does not divide n and m.

    Cost: 2nm additions.

    >>> import torch
    >>> G_A, G_B = additive_gradients(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 1)
    >>> G_A.tolist(), G_B.tolist()
    ([[3.0], [7.0]], [[4.0, 6.0]])
    """
    check_dtype("G", G, "floating")
    check_shape("G", G, ("...", "n", "m"))
    n, m = G.shape[-2:]
    check_integer("rank", rank, 1)
    _check_divides("rank", rank, n, m)
    return G.unflatten(-1, (-1, rank)).sum(-2), G.unflatten(-2, (-1, rank)).sum(-3)


def _check_divides(name: str, rank: int, n: int, m: int) -> None:
    if rank < 1 or n % rank or m % rank:
        got = rank if name == "rank" else f"rank {rank}"
        raise ValueError(f"{name}: got {got}, expected a divisor of n = {n} and of m = {m}")
