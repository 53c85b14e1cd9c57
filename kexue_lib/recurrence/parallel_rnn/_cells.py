"""Cells, one step of a recurrent network, with their derivatives by the state in closed form."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jacfwd, vmap

from kexue_lib._arguments import check_dtype, check_integer


class TanhCell(nn.Module):
    r"""One step :math:`x' = \tanh(Ax + u)`.

    Args:
        A: ``(n, n)``, becomes a parameter.

    Raises:
        TypeError: A not floating.
        ValueError: A not square.

    >>> TanhCell(torch.eye(2))(torch.zeros(2), torch.tensor([0.0, 1.0]))
    tensor([0.0000, 0.7616], grad_fn=<TanhBackward0>)
    """

    def __init__(self, A: Float[Tensor, "..."]) -> None:
        super().__init__()
        check_dtype("A", A, "floating")
        if A.dim() != 2 or A.shape[0] != A.shape[1]:
            raise ValueError(f"A: got shape {tuple(A.shape)}, expected (n, n)")
        self.A = nn.Parameter(A.detach().clone())
        self.state_size = A.shape[0]

    def forward(self, x: Float[Tensor, "*batch n"], u: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """Return the next state."""
        return (x @ self.A.T + u).tanh()

    def jacobian(self, x: Float[Tensor, "*batch n"], u: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n n"]:
        r"""Return :math:`\operatorname{diag}(1-x'^2)A`."""
        return (1 - self(x, u).square())[..., None] * self.A

    def jacobian_diagonal(self, x: Float[Tensor, "*batch n"], u: Float[Tensor, "*batch n"]) -> Float[Tensor, "*b n"]:
        """Return the diagonal of the Jacobian."""
        return (1 - self(x, u).square()) * self.A.diagonal()


class _Gated(nn.Module):
    """Weights of the gates, uniform within 1/√d as PyTorch draws them."""

    def __init__(self, gates: int, d_in: int, d: int, generator: torch.Generator | None, dtype: torch.dtype) -> None:
        super().__init__()
        check_integer("d_in", d_in, 1)
        check_integer("d", d, 1)
        bound = d**-0.5

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(gates * d, *shape, generator=generator, dtype=dtype) - 1) * bound)

        self.W, self.U, self.b = drawn(d_in), drawn(d), drawn()
        self.d = d


class GRUCell(_Gated):
    r"""One step of a gated recurrent unit.

    .. math::
        z, r = \sigma(W_{z,r}u + U_{z,r}h + b_{z,r}), \quad \hat h = \tanh(W_hu + b_h + U_h(r\circ h)), \quad
        h' = (1-z)\circ h + z\circ\hat h

    ``torch.nn.GRU`` multiplies r behind the product with U_h, so that its weights are those of another function.

    Args:
        d_in: width of u.
        d: width of h.
        generator: draws the weights.
        dtype: of the weights.

    Attributes:
        W, U, b: ``(3d, d_in)``, ``(3d, d)``, ``(3d,)``, in the order z, r, h.
        state_size: d.

    Raises:
        TypeError, ValueError: a size that is no integer of at least 1.

    >>> GRUCell(3, 2, generator=torch.Generator().manual_seed(0))(torch.zeros(5, 2), torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self, d_in: int, d: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(3, d_in, d, generator, dtype)
        self.state_size = d

    def _gates(self, h: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of_u = u @ self.W.T + self.b
        z, r = (of_u[..., : 2 * self.d] + h @ self.U[: 2 * self.d].T).sigmoid().chunk(2, -1)
        return z, r, (of_u[..., 2 * self.d :] + (r * h) @ self.U[2 * self.d :].T).tanh()

    def forward(self, x: Float[Tensor, "*batch d"], u: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d"]:
        """Return the next state."""
        z, _, candidate = self._gates(x, u)
        return x + z * (candidate - x)

    def jacobian(self, x: Float[Tensor, "*batch d"], u: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d d"]:
        r"""Return the derivative by the state.

        .. math:: \operatorname{diag}(1-z) + \operatorname{diag}((\hat h-h)z(1-z))U_z + \operatorname{diag}(z(1-\hat
            h^2))U_h[\operatorname{diag}(r)+\operatorname{diag}(h\,r(1-r))U_r]
        """
        z, r, candidate = self._gates(x, u)
        U_z, U_r, U_h = self.U.chunk(3)
        # Row (i, k) of the bracket behind U_h is linear in r and in h r (1-r): one product of matrices for all steps.
        by_r = U_h[:, None, :] * torch.eye(self.d, dtype=x.dtype, device=x.device)
        by_slope = U_h.T[:, :, None] * U_r[:, None, :]
        weights = torch.cat([by_r.movedim(1, 0), by_slope]).flatten(1)
        bracket = torch.cat([r, x * r * (1 - r)], -1) @ weights
        out = bracket.unflatten(-1, (self.d, self.d)) * (z * (1 - candidate.square()))[..., None]
        out = torch.addcmul(out, ((candidate - x) * z * (1 - z))[..., None], U_z)
        out.diagonal(dim1=-2, dim2=-1).add_(1 - z)
        return out

    def jacobian_diagonal(self, x: Float[Tensor, "*batch d"], u: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*b d"]:
        """Return the diagonal of the Jacobian, without the rest of it."""
        z, r, candidate = self._gates(x, u)
        U_z, U_r, U_h = self.U.chunk(3)
        through_r = (x * r * (1 - r)) @ (U_h * U_r.T).T
        inner = U_h.diagonal() * r + through_r
        return 1 - z + (candidate - x) * z * (1 - z) * U_z.diagonal() + z * (1 - candidate.square()) * inner


class LSTMCell(_Gated):
    r"""One step of a long short-term memory, with the state (h, c).

    .. math::
        i, f, o = \sigma(W_{i,f,o}u + U_{i,f,o}h + b_{i,f,o}), \quad g = \tanh(W_gu + U_gh + b_g), \quad
        c' = f\circ c + i\circ g, \quad h' = o\circ\tanh c'

    Args:
        d_in: width of u.
        d: width of h, and of c.
        generator: draws the weights.
        dtype: of the weights.

    Attributes:
        W, U, b: ``(4d, d_in)``, ``(4d, d)``, ``(4d,)``, in the order i, f, g, o, that of ``torch.nn.LSTM``.
        state_size: 2d.

    Raises:
        TypeError, ValueError: a size that is no integer of at least 1.

    >>> LSTMCell(3, 2, generator=torch.Generator().manual_seed(0))(torch.zeros(5, 4), torch.ones(5, 3)).shape
    torch.Size([5, 4])
    """

    def __init__(
        self, d_in: int, d: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(4, d_in, d, generator, dtype)
        self.state_size = 2 * d

    def _gates(self, x: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        h, c = x.chunk(2, -1)
        i, f, g, o = (u @ self.W.T + h @ self.U.T + self.b).chunk(4, -1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        cell = f * c + i * g
        return c, i, f, g, o, cell

    def forward(self, x: Float[Tensor, "*batch n"], u: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch n"]:
        """Return the next state."""
        *_, o, cell = self._gates(x, u)
        return torch.cat([o * cell.tanh(), cell], -1)

    def jacobian(self, x: Float[Tensor, "*batch n"], u: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch n n"]:
        """Return the derivative by the state, in blocks."""
        by_i, by_f, by_g, by_o, f, out = self._derivatives(x, u)
        U_i, U_f, U_g, U_o = self.U.chunk(4)
        c_by_h = by_i[..., None] * U_i + by_f[..., None] * U_f + by_g[..., None] * U_g
        h_by_h = by_o[..., None] * U_o + out[..., None] * c_by_h
        left = torch.cat([h_by_h, c_by_h], -2)
        return torch.cat([left, torch.cat([torch.diag_embed(out * f), torch.diag_embed(f)], -2)], -1)

    def jacobian_diagonal(self, x: Float[Tensor, "*batch n"], u: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*b n"]:
        """Return the diagonal of the Jacobian, without the rest of it."""
        by_i, by_f, by_g, by_o, f, out = self._derivatives(x, u)
        of_i, of_f, of_g, of_o = (U.diagonal() for U in self.U.chunk(4))
        return torch.cat([by_o * of_o + out * (by_i * of_i + by_f * of_f + by_g * of_g), f], -1)

    def _derivatives(self, x: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        """Of c' by what enters i, f and g, of h' by what enters o, of c' by c, and of h' by c'."""
        c, i, f, g, o, cell = self._gates(x, u)
        squashed = cell.tanh()
        by_gates = g * i * (1 - i), c * f * (1 - f), i * (1 - g.square()), squashed * o * (1 - o)
        return *by_gates, f, o * (1 - squashed.square())


def cell_jacobian(
    cell: nn.Module, x: Float[Tensor, "*batch n"], u: Float[Tensor, "*batch m"]
) -> Float[Tensor, "*batch n n"]:
    r"""Return :math:`\partial f(x,u)/\partial x`, by ``cell.jacobian`` where there is one, else by n forward passes.

    Args:
        cell: ``cell(x, u)`` returns the next states ``(..., n)``.
        x: states ``(..., n)``.
        u: inputs ``(..., m)``.

    Cost: memory and, for the cells of this chapter, time of ``(..., n, n)``, for the GRU n times that in time.

    >>> cell_jacobian(TanhCell(torch.eye(2)), torch.zeros(2), torch.zeros(2)).detach()
    tensor([[1., 0.],
            [0., 1.]])
    """
    if hasattr(cell, "jacobian"):
        exact: Any = cell.jacobian
        return exact(x, u)
    rows = vmap(jacfwd(cell))(x.reshape(-1, x.shape[-1]), u.reshape(-1, u.shape[-1]))
    return rows.reshape(*x.shape, x.shape[-1])
