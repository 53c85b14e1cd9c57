"""Initial factors from a gradient."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from kexue_lib._arguments import check_integer, check_number, check_one_of
from kexue_lib.matrices.lora_ga._alignment import adam_alignment_loss
from kexue_lib.matrices.lora_ga._svd import checked_gradient, randomized_svd

Split = Literal["left", "right", "alternate"]
Pair = tuple[Tensor, Tensor]
OVERSAMPLE = 8


def lora_ga_factors(
    G: Float[Tensor, "*batch n m"],
    rank: int,
    *,
    split: Split = "left",
    factor: float = 1.0,
    svd: Literal["auto", "exact", "randomized"] = "auto",
    generator: Generator | None = None,
) -> tuple[Float[Tensor, "*batch n r"], Float[Tensor, "*batch r m"]]:
    """Return factors whose first SGD step is as close to full fine-tuning's as the rank allows.

    With G = UΣV: A₀ = U[:, :r], B₀ = V[r:2r, :], both times ``factor``.

    Args:
        G: gradient, article orientation: n in, m out.
        rank: r, 1 ≤ 2r ≤ min(n, m).
        split: which of the 2r leading components A gets: ``"left"`` the first r, ``"right"`` the second,
            ``"alternate"`` the 1st, 3rd, …; B gets the others. All three are optimal.
        factor: scale of both.
        svd: ``"exact"``, ``"randomized"``, or ``"auto"``: randomized where min(n, m) ≥ 8(2r + 8).
        generator: of the randomized decomposition.

    Returns:
        (A₀, B₀): columns of A₀ and rows of B₀ orthonormal times ``factor``, also for a gradient of lower rank or
        zero; float32 for 16-bit input, else the dtype of G. No gradient flows through them.

    Raises:
        TypeError: G is not floating, rank no integer, factor no number.
        ValueError: G has fewer than two dimensions or entries that are not finite; rank outside; an unknown word;
            factor not finite.

    Cost: one decomposition.
    Source: article 10226, equation 11.

    >>> lora_ga_factors(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 1)[0].abs().flatten()
    tensor([1., 0., 0.])
    """
    check_one_of("split", split, ("left", "right", "alternate"))
    check_one_of("svd", svd, ("auto", "exact", "randomized"))
    check_number("factor", factor, below=float("inf"))
    G = checked_gradient(G).detach()
    check_rank(rank, *G.shape[-2:])
    k = 2 * rank
    if svd == "randomized" or (svd == "auto" and min(G.shape[-2:]) >= 8 * (k + OVERSAMPLE)):
        U, _, Vh = randomized_svd(G, k, oversample=OVERSAMPLE, generator=generator)
    else:
        U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    return factors_from_triplets(U, Vh, rank, split, factor)


def factors_from_triplets(
    U: Float[Tensor, "*batch n k"], Vh: Float[Tensor, "*batch k m"], rank: int, split: Split, factor: float
) -> tuple[Float[Tensor, "*batch n r"], Float[Tensor, "*batch r m"]]:
    """Deal the 2r leading components to the two factors."""
    first, second = slice(0, rank), slice(rank, 2 * rank)
    if split == "alternate":
        first, second = slice(0, 2 * rank, 2), slice(1, 2 * rank, 2)
    elif split == "right":
        first, second = second, first
    return factor * U[..., first], factor * Vh[..., second, :]


def check_rank(rank: int, n: int, m: int) -> None:
    """Refuse a rank whose 2r components an n × m matrix does not have.

    Raises:
        TypeError: no integer.
        ValueError: outside.
    """
    check_integer("rank", rank, 1, min(n, m) // 2, most_is=f"min({n}, {m}) // 2")


def lora_ga_adam_factors(
    G: Float[Tensor, "*batch n m"],
    rank: int,
    *,
    method: Literal["sgd", "sign", "direct"] = "sgd",
    factor: float = 1.0,
    steps: int = 30,
    generator: Generator | None = None,
) -> tuple[Float[Tensor, "*batch n r"], Float[Tensor, "*batch r m"]]:
    """Return factors for a first step of Adam, in one of three ways.

    Args:
        G: gradient, article orientation.
        rank: r, 1 ≤ 2r ≤ min(n, m).
        method: ``"sgd"`` takes ``lora_ga_factors(G)``; ``"sign"`` takes ``lora_ga_factors(sign(G))``; ``"direct"``
            lowers ``adam_alignment_loss`` from the better of these, each at its best scale: with the signs
            P = sign(AᵀG), Q = sign(GBᵀ) held, AP + QB ≈ sign(G) is solved for A, then for B, by least squares,
            and the signs are taken anew.
        factor: scale of both factors, after all else.
        steps: rounds of ``"direct"``, which keeps the best pair it met.
        generator: of the randomized decomposition.

    Returns:
        (A₀, B₀). Orthonormal times ``factor``, except for ``"direct"``, whose loss (at ``factor=1``) is at most
        that of the pair it starts from. Its factors may differ widely in norm and have a rank below r, down to 1:
        a least-squares solution has at most the rank of its sign pattern, where rows of P or columns of Q that agree
        up to the sign count once.

    Raises:
        TypeError: as ``lora_ga_factors``; steps no integer.
        ValueError: as ``lora_ga_factors``; unknown method, steps < 0.

    Cost: one decomposition; ``"direct"`` two, and two least-squares problems with r unknowns a row in each round.
    Source: article 10226, section 5; the alternation is ours.

    >>> G = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    >>> lora_ga_adam_factors(G, 1, method="direct")[0].shape
    torch.Size([2, 1])
    """
    check_one_of("method", method, ("sgd", "sign", "direct"))
    check_integer("steps", steps, 0)
    check_number("factor", factor, below=float("inf"))
    G = checked_gradient(G).detach()
    if method == "sgd":
        return lora_ga_factors(G, rank, factor=factor, generator=generator)
    if method == "sign":
        return lora_ga_factors(G.sign(), rank, factor=factor, generator=generator)
    starts = [lora_ga_factors(X, rank, generator=generator) for X in (G, G.sign())]
    A, B = _better(G, _best_scaled(G, *starts[0]), _best_scaled(G, *starts[1]))
    best = A, B
    for _ in range(steps):
        P, Q = torch.sign(A.mT @ G), torch.sign(G @ B.mT)
        A = (G.sign() - Q @ B) @ torch.linalg.pinv(P)
        B = torch.linalg.pinv(Q) @ (G.sign() - A @ P)
        best = _better(G, best, (A, B))
    return factor * best[0], factor * best[1]


def _better(G: Float[Tensor, "*batch n m"], one: Pair, other: Pair) -> Pair:
    """For each matrix the pair with the smaller loss, the first one at a tie."""
    takes = (adam_alignment_loss(G, *other) < adam_alignment_loss(G, *one))[..., None, None]
    return torch.where(takes, other[0], one[0]), torch.where(takes, other[1], one[1])


def _best_scaled(G: Float[Tensor, "*batch n m"], A: Tensor, B: Tensor) -> Pair:
    """Both factors times the number with the smallest loss; its sign is +, for the step goes with sign(G)."""
    step = A @ torch.sign(A.mT @ G) + torch.sign(G @ B.mT) @ B
    norm = step.square().sum((-2, -1), keepdim=True)
    scale = (step * G.sign()).sum((-2, -1), keepdim=True) / norm.clamp_min(torch.finfo(G.dtype).tiny)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale * A, scale * B
