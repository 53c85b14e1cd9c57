"""The best directions of the two factors, from the gradients of the factors alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_number, check_one_of, check_shape

CHOICES = ("symmetric", "sylvester", "zero")


@torch.no_grad()
def lora_pro_gradients(
    G_A: Float[Tensor, "*batch n r"],
    G_B: Float[Tensor, "*batch r m"],
    A: Float[Tensor, "*batch n r"],
    B: Float[Tensor, "*batch r m"],
    *,
    C: Literal["symmetric", "sylvester", "zero"] | Float[Tensor, "*batch r r"] = "symmetric",
    scale: float = 1.0,
    rtol: float | None = None,
) -> tuple[Float[Tensor, "*batch n r"], Float[Tensor, "*batch r m"]]:
    r"""Return directions whose joint step :math:`s(H_AB+AH_B)` is as near as possible to the full gradient G.

    .. math:: H_A=s^{-2}G_A(BB^\top)^{-1}+AC,\qquad H_B=s^{-2}(A^\top A)^{-1}G_B(I-P_B)-CB

    where W = W₀ + sAB, :math:`G_A=sGB^\top`, :math:`G_B=sA^\top G`, :math:`P_B=B^\top(BB^\top)^{-1}B`. G itself is
    not needed. Every r × r matrix C gives the same joint step; it says which factor moves the part
    :math:`P_AGP_B` that both can reach.

    Args:
        G_A: gradient of A, (..., n, r); both gradients from the same G.
        G_B: gradient of B, (..., r, m).
        A: (..., n, r).
        B: (..., r, m).
        C: ``"symmetric"`` gives half of that part to each factor, ``"zero"`` all of it to A, ``"sylvester"`` (the
            paper's) makes :math:`\|H_A-G_A\|^2+\|H_B-G_B\|^2` least; or the matrix itself, (..., r, r).
        scale: s, not 0.
        rtol: eigenvalues of AᵀA and BBᵀ below rtol times the largest count as zero, their inverses as well; default
            (r·eps)², eps that of the dtype (of float32 for the half types), and r·eps of float64 at least.

    Returns:
        (H_A, H_B) in the dtypes of the factors; no gradient flows through them.

    Raises:
        TypeError: no tensors of floating dtype, or ``scale`` or ``rtol`` no number.
        ValueError: sizes that do not chain, an unknown ``C``, ``scale`` zero or not finite, ``rtol`` negative.

    Cost: seven products of (n + m)r² and two eigendecompositions of r × r; arithmetic in float64, since a Gram matrix
    has the square of its factor's condition number.

    Source: Wang et al., 2024, theorems 2.1 and 2.3; Su, 2024.

    >>> A, B = torch.eye(3, 1), torch.eye(1, 2)
    >>> G = torch.tensor([[4.0, 2.0], [3.0, 5.0], [1.0, 5.0]])
    >>> H_A, H_B = lora_pro_gradients(G @ B.mT, A.mT @ G, A, B)
    >>> H_A.flatten().tolist(), H_B.flatten().tolist(), (H_A @ B + A @ H_B).tolist()
    ([2.0, 3.0, 1.0], [2.0, 2.0], [[4.0, 2.0], [3.0, 0.0], [1.0, 0.0]])
    """
    _check(G_A, G_B, A, B, scale, rtol)
    check_choice(C, A)
    stack = Stack(A.double(), B.double())
    (spectra,) = decompose([stack], [rank_tolerance(A) if rtol is None else float(rtol)])
    choice = C if isinstance(C, str) else C.double()
    H_A, H_B = directions(G_A.double(), G_B.double(), stack, spectra, choice, scale)
    return H_A.to(A.dtype), H_B.to(B.dtype)


class Stack(NamedTuple):
    """Factors of pairs of one shape, in float64: (..., n, r) and (..., r, m)."""

    A: Tensor
    B: Tensor


class Spectra(NamedTuple):
    """Eigenvalues a, b (..., r), zero where they count as such; eigenvectors U, V and inverses (..., r, r)."""

    a: Tensor
    U: Tensor
    inverse_A: Tensor
    b: Tensor
    V: Tensor
    inverse_B: Tensor


def decompose(stacks: Sequence[Stack], rtols: Sequence[float]) -> list[Spectra]:
    """Return the spectra of AᵀA and BBᵀ of several stacks of one rank and device, by one eigendecomposition."""
    grams, sizes = [], []
    for A, B in stacks:
        both = torch.stack([A.mT @ A, B @ B.mT])
        grams.append(both.flatten(0, -3))
        sizes.append(both.shape)
    values, vectors = torch.linalg.eigh(torch.cat(grams))
    spectra = []
    counts = [len(gram) for gram in grams]
    for w, u, shape, rtol in zip(values.split(counts), vectors.split(counts), sizes, rtols):
        w = w.where(w > rtol * w[..., -1:], 0.0)
        inverse = (u * w.where(w > 0, torch.inf).reciprocal()[..., None, :]) @ u.mT
        w, u, inverse = w.view(shape[:-1]), u.view(shape), inverse.view(shape)
        spectra.append(Spectra(w[0], u[0], inverse[0], w[1], u[1], inverse[1]))
    return spectra


def directions(
    G_A: Tensor, G_B: Tensor, stack: Stack, spectra: Spectra, C: str | Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Return H_A and H_B, all in float64."""
    shape_A, shape_B = G_A.shape, G_B.shape
    G_A, G_B, A, B, inverse_A, inverse_B = (
        x.reshape(-1, *x.shape[-2:]) for x in (G_A, G_B, *stack, spectra.inverse_A, spectra.inverse_B)
    )
    H_A = G_A @ (inverse_B / scale**2)
    H_B = (inverse_A / scale**2) @ G_B
    shared = H_B @ B.mT @ inverse_B  # A⁺GB⁺: what both factors can do
    if isinstance(C, str):
        C = -share_of_B(C, spectra, shared.view(spectra.U.shape))
    C = C.reshape(shared.shape)
    H_A.baddbmm_(A, C)  # in place: memory for large temporaries costs more than the products
    H_B.baddbmm_(shared + C, B, alpha=-1)
    return H_A.view(shape_A), H_B.view(shape_B)


def share_of_B(choice: str, spectra: Spectra, shared: Tensor) -> Tensor:
    """Return the part −C of A⁺GB⁺ that B moves.

    In the eigenvectors of both Gram matrices each choice multiplies by a number: 0, a half, or for the Sylvester
    equation AᵀA C + C BBᵀ = −AᵀA·A⁺GB⁺ the quotient a / (a + b).
    """
    if choice != "sylvester":
        return (0.5 if choice == "symmetric" else 0.0) * shared
    a, b = spectra.a[..., :, None], spectra.b[..., None, :]
    weight = a / (a + b).where(a + b > 0, 1.0)
    return spectra.U @ (weight * (spectra.U.mT @ shared @ spectra.V)) @ spectra.V.mT


def rank_tolerance(A: Tensor) -> float:
    """Return the share of the largest eigenvalue of AᵀA below which one is rounding of A, or of its Gram matrix."""
    r, eps = A.shape[-1], precision(A.dtype)
    return max((r * eps) ** 2, r * torch.finfo(torch.float64).eps)


def precision(dtype: torch.dtype) -> float:
    """Return eps of the dtype, of float32 for the half types, whose factors were rounded but are what they are."""
    return torch.finfo(torch.float32 if dtype.itemsize == 2 else dtype).eps


def check_choice(C: str | Tensor, A: Tensor) -> None:
    """Refuse what is neither the name of a choice nor a matrix (..., r, r)."""
    if isinstance(C, Tensor):
        check_dtype("C", C, "floating")
        check_shape("C", C, (*A.shape[:-2], A.shape[-1], A.shape[-1]), "as A has")
    else:
        check_one_of("C", C, CHOICES)


def _check(G_A: Tensor, G_B: Tensor, A: Tensor, B: Tensor, scale: float, rtol: float | None) -> None:
    for name, x in (("G_A", G_A), ("G_B", G_B), ("A", A), ("B", B)):
        check_dtype(name, x, "floating")
    check_shape("A", A, ("...", "n", "r"))
    check_shape("B", B, (*A.shape[:-2], A.shape[-1], "m"), "as A has")
    check_shape("G_A", G_A, tuple(A.shape), "as A has")
    check_shape("G_B", G_B, tuple(B.shape), "as B has")
    check_scale(scale)
    if rtol is not None:
        check_number("rtol", rtol, least=0, below=1)


def check_scale(scale: float) -> None:
    """Refuse a scale that is zero or not finite."""
    check_number("scale", scale, below=float("inf"))
    if scale == 0 or scale == -float("inf"):
        raise ValueError(f"scale: got {scale}, expected a finite number other than 0")
