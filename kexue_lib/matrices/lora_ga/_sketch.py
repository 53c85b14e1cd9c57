"""A gradient's leading triplets from products with thin random matrices: the gradient itself is never formed."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_shape


class GradientSketch:
    """Two-sided linear sketch GΩ, ΨG of a gradient G = Σ XᵀdY that arrives in rows.

    Ω (m, k) and Ψ (2k + 1, n) are Gaussian, k = rank + oversample. The sketch is linear, so that micro-batches add up.
    The reconstruction Q (ΨQ)⁺ (ΨG) with Q an orthonormal basis of GΩ is exact, up to rounding, where
    rank(G) ≤ k.

    Args:
        n: in features.
        m: out features.
        rank: triplets wanted, 2r for LoRA-GA.
        oversample: further ones that are kept; the more, the closer the leading ones.
        generator: of Ω and Ψ.
        dtype: of the sketch.
        device: of the sketch.

    Raises:
        TypeError: a size is no integer.
        ValueError: n, m or rank < 1, rank > min(n, m), oversample < 0.

    Cost: (3k + 1)(n + m) + mk numbers at most; an update of b rows 2bk(2n + 2m) multiply-adds or fewer.
    Source: Tropp, Yurtsever, Udell and Cevher, arXiv 1609.00048, algorithms 1 and 4.

    >>> sketch = GradientSketch(6, 5, 1, generator=torch.Generator().manual_seed(0))
    >>> sketch.update(torch.ones(3, 6), torch.ones(3, 5))
    >>> torch.allclose(sketch.svd(1)[1], 3 * torch.tensor([30.0]).sqrt())
    True
    """

    def __init__(
        self,
        n: int,
        m: int,
        rank: int,
        *,
        oversample: int = 8,
        generator: Generator | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ):
        check_integer("n", n, 1)
        check_integer("m", m, 1)
        check_integer("rank", rank, 1, min(n, m), most_is="min(n, m)")
        check_integer("oversample", oversample, 0)
        self.n, self.m = n, m
        self.columns = min(rank + oversample, n, m)
        rows = min(2 * self.columns + 1, n)
        drawn_on = generator.device if generator is not None else device
        draw = lambda *size: torch.randn(*size, generator=generator, dtype=dtype, device=drawn_on).to(device)
        self._omega = draw(m, self.columns)
        # Orthonormal rows keep the least-squares problem well conditioned.
        self._psi = torch.linalg.qr(draw(n, rows))[0].mT.contiguous()
        self.range = torch.zeros(n, self.columns, dtype=dtype, device=device)
        self.corange = torch.zeros(rows, m, dtype=dtype, device=device)

    @torch.no_grad()
    def update(self, X: Float[Tensor, "... n"], dY: Float[Tensor, "... m"]) -> None:
        """Add XᵀdY of the rows of X and dY.

        Args:
            X: inputs of the layer.
            dY: gradient by its outputs, as many rows.

        Raises:
            TypeError: not floating.
            ValueError: other sizes, or another number of rows.
        """
        check_dtype("X", X, "floating")
        check_dtype("dY", dY, "floating")
        check_shape("X", X, ("...", self.n))
        check_shape("dY", dY, (*X.shape[:-1], self.m), "as the rows of X")
        X, dY = (x.reshape(-1, x.shape[-1]).to(self.range.dtype) for x in (X, dY))
        self.range.addmm_(X.mT, dY @ self._omega)
        self.corange.addmm_(self._psi @ X.mT, dY)

    def svd(self, k: int) -> tuple[Float[Tensor, "n k"], Float[Tensor, " k"], Float[Tensor, "k m"]]:
        """Return the ``k`` leading triplets of the reconstruction.

        Args:
            k: at most rank + oversample.

        Returns:
            (U, S, Vh), orthonormal also where S is 0.

        Raises:
            TypeError: k is no integer.
            ValueError: k outside.

        Cost: decompositions of matrices with rank + oversample columns.
        """
        check_integer("k", k, 1, self.columns, most_is="rank + oversample")
        Q = torch.linalg.qr(self.range)[0]
        core = torch.linalg.pinv(self._psi @ Q) @ self.corange
        right, triangle = torch.linalg.qr(core.mT)
        U, S, Vh = torch.linalg.svd(triangle.mT)
        return Q @ U[:, :k], S[:k], Vh[:k] @ right.mT
