"""How close LoRA's first step comes to that of full fine-tuning."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_shape
from kexue_lib._autocast import without_autocast


@without_autocast
def first_step_direction(
    G: Float[Tensor, "*batch n m"], A: Float[Tensor, "*batch n r"], B: Float[Tensor, "*batch r m"]
) -> Float[Tensor, "*batch n m"]:
    """Return what the first SGD step on both factors does to W, for a small rate and up to −ηs²: AAᵀG + GBᵀB.

    Full fine-tuning has G in its place.

    Args:
        G: gradient by W = W₀ + sAB, article orientation: n in, m out.
        A: left factors.
        B: right factors.

    Returns:
        The direction, dtype of G; 16-bit input is multiplied in float32.

    Raises:
        TypeError: an argument is not floating.
        ValueError: shapes that do not chain.

    Cost: 4nmr multiply-adds.
    Source: article 10226, equation 7.

    >>> first_step_direction(torch.eye(2), torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor([[1., 0.],
            [0., 1.]])
    """
    wide, A, B = _chained(G, A, B)
    return (A @ (A.mT @ wide) + (wide @ B.mT) @ B).to(G.dtype)


@without_autocast
def alignment_loss(
    G: Float[Tensor, "*batch n m"], A: Float[Tensor, "*batch n r"], B: Float[Tensor, "*batch r m"]
) -> Float[Tensor, "*batch"]:
    """Return the squared distance ‖AAᵀG + GBᵀB − G‖² of the two first steps.

    Args:
        G: gradient, article orientation.
        A: left factors.
        B: right factors.

    Returns:
        One number for each matrix, dtype of G. At least ``alignment_optimum(G, r)``.

    Raises:
        TypeError: an argument is not floating.
        ValueError: shapes that do not chain.

    Cost: 4nmr multiply-adds.
    Source: article 10226, equation 8.

    >>> alignment_loss(torch.eye(3), torch.eye(3)[:, :1], torch.eye(3)[1:2])
    tensor(1.)
    """
    wide, A, B = _chained(G, A, B)
    return (A @ (A.mT @ wide) + (wide @ B.mT) @ B - wide).square().sum((-2, -1)).to(G.dtype)


@without_autocast
def alignment_optimum(G: Float[Tensor, "*batch n m"], rank: int) -> Float[Tensor, "*batch"]:
    """Return the least alignment loss of any factors of a rank: Σ_{i>2r} σᵢ².

    Args:
        G: gradient, either orientation.
        rank: r; for 2r ≥ min(n, m) the optimum is 0.

    Returns:
        One number for each matrix, dtype of G.

    Raises:
        TypeError: G is not floating, rank no integer.
        ValueError: G has fewer than two dimensions, rank < 1.

    Cost: all singular values.
    Source: article 10226, section 3.

    >>> alignment_optimum(torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0])), 1)
    tensor(5.)
    """
    check_dtype("G", G, "floating")
    check_integer("rank", rank, 1)
    if G.dim() < 2:
        raise ValueError(f"G: got shape {tuple(G.shape)}, expected (..., n, m)")
    return torch.linalg.svdvals(_widened(G))[..., 2 * rank :].square().sum(-1).to(G.dtype)


@without_autocast
def adam_alignment_loss(
    G: Float[Tensor, "*batch n m"], A: Float[Tensor, "*batch n r"], B: Float[Tensor, "*batch r m"]
) -> Float[Tensor, "*batch"]:
    """Return the squared distance of Adam's first steps: ‖A sign(AᵀG) + sign(GBᵀ) B − sign(G)‖².

    Adam without ε moves every entry by the rate in its first step, those of A and B under LoRA, of W in full
    fine-tuning. Unlike the loss for SGD it is linear in the factors' scale.

    Args:
        G: gradient, article orientation.
        A: left factors.
        B: right factors.

    Returns:
        One number for each matrix, dtype of G. The derivative of a sign counts as 0.

    Raises:
        TypeError: an argument is not floating.
        ValueError: shapes that do not chain.

    Cost: 4nmr multiply-adds.
    Source: article 10226, section 5.

    >>> adam_alignment_loss(torch.ones(2, 3), torch.full((2, 1), 0.5), torch.full((1, 3), 0.5))
    tensor(0.)
    """
    wide, A, B = _chained(G, A, B)
    step = A @ torch.sign(A.mT @ wide) + torch.sign(wide @ B.mT) @ B
    return (step - wide.sign()).square().sum((-2, -1)).to(G.dtype)


def stable_factor(out_features: int, gamma: float = 16.0) -> float:
    """Return the scale m^{1/4}/√γ of each orthonormal factor.

    With s = α/√r the offset sA₀B₀ then has, on inputs of unit variance, outputs of variance α²/γ², whatever m and r.

    Args:
        out_features: m.
        gamma: γ > 0; larger factors for smaller γ.

    Raises:
        TypeError: out_features is no integer, gamma no number.
        ValueError: out_features < 1; gamma not in (0, ∞).

    Source: LoRA-GA, arXiv 2407.05000, theorem 3.2 and its factor.

    >>> stable_factor(256)
    1.0
    """
    check_integer("out_features", out_features, 1)
    check_number("gamma", gamma, above=0, below=float("inf"))
    return out_features**0.25 / gamma**0.5


def _widened(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _chained(
    G: Float[Tensor, "..."], A: Float[Tensor, "..."], B: Float[Tensor, "..."]
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."], Float[Tensor, "..."]]:
    """The three, 16-bit ones in float32, if their shapes chain."""
    for name, x in (("G", G), ("A", A), ("B", B)):
        check_dtype(name, x, "floating")
    check_shape("G", G, ("...", "n", "m"))
    check_shape("A", A, ("...", G.shape[-2], "r"), "as G has n rows")
    check_shape("B", B, ("...", A.shape[-1], G.shape[-1]), "as A has r columns and G has m")
    return _widened(G), _widened(A), _widened(B)
