"""Networks of linear recurrences that need no convergence."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kexue_lib._arguments import check_integer
from kexue_lib.recurrence.scan import linear_scan


class MinGRU(nn.Module):
    r"""A GRU whose gate and candidate see the input only, so that one scan computes it.

    .. math:: z_t = \sigma(W_zu_t + b_z), \qquad h_t = (1-z_t)\circ h_{t-1} + z_t\circ(W_hu_t + b_h)

    Source: L. Feng et al., "Were RNNs All We Needed?", 2024, arXiv 2410.01201, without their logarithms.

    Args:
        d_in: width of u.
        d: width of h.
        generator: draws the weights.
        dtype: of the weights.

    Attributes:
        W, b: ``(2d, d_in)``, ``(2d,)``, in the order z, candidate.

    Raises:
        TypeError, ValueError: a size that is no integer of at least 1.

    >>> MinGRU(3, 2, generator=torch.Generator().manual_seed(0))(torch.ones(5, 7, 3)).shape
    torch.Size([5, 7, 2])
    """

    def __init__(
        self, d_in: int, d: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        check_integer("d_in", d_in, 1)
        check_integer("d", d, 1)
        bound = d_in**-0.5
        drawn = lambda *shape: (2 * torch.rand(2 * d, *shape, generator=generator, dtype=dtype) - 1) * bound
        self.W, self.b = nn.Parameter(drawn(d_in)), nn.Parameter(drawn())

    def _gates(self, u: Tensor) -> tuple[Tensor, Tensor]:
        z, candidate = (u @ self.W.T + self.b).chunk(2, -1)
        return z.sigmoid(), candidate

    def forward(
        self, u: Float[Tensor, "*batch L d_in"], h0: Float[Tensor, "*start d"] | None = None
    ) -> Float[Tensor, "*batch L d"]:
        """Return all states; ``h0`` is zero if None."""
        z, candidate = self._gates(u)
        return linear_scan(1 - z, z * candidate, h0)

    def step(self, u: Float[Tensor, "*batch d_in"], h: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return the next state."""
        z, candidate = self._gates(u)
        return h + z * (candidate - h)


class FixedIterationRNN(nn.Module):
    r"""The iteration with a constant diagonal, stopped after a fixed number of rounds: the model is what comes out.

    .. math::
        y^{(k)}_t = \lambda\circ y^{(k)}_{t-1} + P\tanh(\operatorname{Re}Qy^{(k-1)}_{t-1} + u_t) -
        \lambda\circ y^{(k-1)}_{t-1}, \qquad y^{(0)} = 0

    with complex y and λ; for PQ = diag(λ) and many rounds it is the network with A = Q diag(λ) Q⁻¹.

    Args:
        d: width of u and of the real output Re Qy.
        state: number of complex numbers of the state.
        rounds: K, number of linear recurrences, which share all weights.
        generator: draws the weights; |λ| lies between 0.9 and 0.999.

    Raises:
        TypeError, ValueError: a size that is no integer of at least 1.

    >>> FixedIterationRNN(3, 4, rounds=2, generator=torch.Generator().manual_seed(0))(torch.ones(5, 7, 3)).shape
    torch.Size([5, 7, 3])
    """

    def __init__(self, d: int, state: int, *, rounds: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        check_integer("d", d, 1)
        check_integer("state", state, 1)
        check_integer("rounds", rounds, 1)
        self.rounds = rounds
        size = 0.9 + 0.099 * torch.rand(state, generator=generator)
        self.decay = nn.Parameter((-size.log()).log())
        self.angle = nn.Parameter(0.5 * torch.pi * torch.rand(state, generator=generator))
        normal = lambda *shape: torch.randn(*shape, 2, generator=generator) / (2 * shape[0]) ** 0.5
        self.P, self.Q = nn.Parameter(normal(d, state)), nn.Parameter(normal(state, d))

    def forward(self, u: Float[Tensor, "*batch L d"]) -> Float[Tensor, "*batch L d"]:
        """Return Re Qy of the last round."""
        eigenvalue = torch.polar((-self.decay.exp()).exp(), self.angle)
        P, Q = torch.view_as_complex(self.P), torch.view_as_complex(self.Q)
        y = None
        for _ in range(self.rounds):
            if y is None:
                driven = u.tanh().to(P.dtype) @ P
            else:
                before = torch.cat([torch.zeros_like(y[..., :1, :]), y[..., :-1, :]], -2)
                driven = ((before @ Q).real + u).tanh().to(P.dtype) @ P - eigenvalue * before
            y = linear_scan(eigenvalue, driven)
        assert y is not None  # there is a round at least
        return (y @ Q).real
