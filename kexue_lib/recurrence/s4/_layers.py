"""The layers: a kernel in training, a recurrence in generation."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Literal, cast

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib.recurrence.s4._dplr import discretize_dplr, legs_dplr, recover_readout, truncate_readout
from kexue_lib.recurrence.s4._kernels import (
    causal_conv,
    diagonal_kernel,
    discretize_diagonal,
    pair_kernel,
    s4d_init,
)


class _StateSpace(nn.Module, ABC):
    """A system of its own for each channel, with conjugate pairs of poles; subclasses add kernel and step."""

    def __init__(
        self,
        d_model: int,
        d_state: int,
        dt_min: float,
        dt_max: float,
        generator: torch.Generator | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        check_integer("d_model", d_model, 1)
        check_integer("d_state", d_state, 2, even=True)
        check_number("dt_max", dt_max, above=0, below=math.inf)
        check_number("dt_min", dt_min, above=0, most=dt_max)
        self.d_model, self.d_state = d_model, d_state
        low, high = math.log(dt_min), math.log(dt_max)
        uniform = torch.rand(d_model, generator=generator, dtype=torch.float64)
        self.log_dt = nn.Parameter((low + (high - low) * uniform).to(dtype))
        self.D = nn.Parameter(torch.randn(d_model, generator=generator, dtype=torch.float64).to(dtype))
        self._run: tuple[tuple, tuple[Tensor, ...]] | None = None

    def _poles(self, Lam: Tensor, dtype: torch.dtype) -> None:
        Lam = Lam.expand(self.d_model, -1)
        self.log_decay = nn.Parameter((-Lam.real).log().to(dtype))
        self.frequency = nn.Parameter(Lam.imag.to(dtype).clone())

    def poles(self) -> Complex[Tensor, "d n"]:
        """Return one pole of each conjugate pair, (d_model, d_state / 2), real parts below 0."""
        return torch.complex(-self.log_decay.exp(), self.frequency)

    @abstractmethod
    def kernel(self, L: int) -> Float[Tensor, "d L"]:
        """Return the first L terms of each channel's kernel."""

    def forward(self, u: Float[Tensor, "... L d"]) -> Float[Tensor, "... L d"]:
        """Convolve each channel with its kernel and add D ⊙ u.

        Args:
            u: (..., L, d_model).

        Raises:
            TypeError: ``u`` is not floating.
            ValueError: another last dimension than ``d_model``; in S4 L above ``l_max``.
        """
        check_dtype("u", u, "floating")
        check_shape("u", u, ("...", "L", self.d_model), "as d_model says")
        L = u.shape[-2]
        if not L:
            return u * self.D
        return (causal_conv(u.mT, self.kernel(L)) + self.D[:, None] * u.mT).mT.to(u.dtype)

    def step(
        self, u: Float[Tensor, "... d"], state: Complex[Tensor, "... d n"]
    ) -> tuple[Float[Tensor, "... d"], Complex[Tensor, "... d n"]]:
        """Return the output at one position and the state behind it, in O(d_model · d_state).

        Args:
            u: input at the position, (..., d_model).
            state: before it, (..., d_model, d_state / 2).

        Raises:
            TypeError: ``u`` is not floating.
            ValueError: another last dimension than ``d_model``.

        In evaluation the discretised parameters are kept between steps and have no gradients.
        """
        v = self._checked(u)
        *system, source, C = self._prepared()
        state = self._moved(state, *system) + source * v[..., None]
        return (2 * (C * state).real.sum(-1) + self.D * v).to(u.dtype), state

    @abstractmethod
    def _moved(self, state: Tensor, *system: Tensor) -> Tensor:
        """Return the state one position later without its input."""

    def initial_state(self, *batch: int) -> Complex[Tensor, "... d n"]:
        """Return zeros, (*batch, d_model, d_state / 2), complex."""
        dtype = torch.promote_types(self.log_dt.dtype, torch.complex64)
        return torch.zeros(*batch, self.d_model, self.d_state // 2, dtype=dtype, device=self.log_dt.device)

    def resampled(self, rate: float) -> _StateSpace:
        """Return a copy for the same signals at ``rate`` times the sampling rate: its steps are divided by it.

        Args:
            rate: 0.5 for every second sample, 2.0 for twice as many.

        Raises:
            ValueError: ``rate`` not above 0 or not finite.
        """
        check_number("rate", rate, above=0, below=math.inf)
        other = copy.deepcopy(self).train(self.training)
        with torch.no_grad():
            other.log_dt -= math.log(rate)
        return other

    def train(self, mode: bool = True) -> _StateSpace:
        """Set the mode, and forget what :meth:`setup_step` has prepared."""
        self._run = None
        return super().train(mode)

    def setup_step(self) -> None:
        """Prepare the recurrence: discretise, once for all steps. ``step`` calls it when it must."""
        with torch.no_grad():
            self._run = (self._version(), self._recurrence())

    def _prepared(self) -> tuple[Tensor, ...]:
        # In training the parameters change and want gradients: prepared at each step, slow and right.
        if self.training:
            return self._recurrence()
        if self._run is None or self._run[0] != self._version():
            self.setup_step()
        assert self._run is not None  # made by setup_step
        return self._run[1]

    def _version(self) -> tuple:
        return tuple((p.data_ptr(), p._version) for p in self.parameters())

    @abstractmethod
    def _recurrence(self) -> tuple[Tensor, ...]:
        """Return the discretised parameters that ``step`` needs."""

    def _checked(self, u: Tensor) -> Tensor:
        check_dtype("u", u, "floating")
        check_shape("u", u, ("...", self.d_model), "as d_model says")
        return u.to(torch.promote_types(u.dtype, self.log_dt.dtype))


class S4(_StateSpace):
    r"""Each channel a LegS system: diagonal plus rank one, bilinear, its kernel by Cauchy sums and FFT.

    .. math:: y_m=\sum_{k\le m}K_k\,u_{m-k}+D\,u_m,\qquad K_k=\Re\,C\bar A^k\bar B,\qquad A=\Lambda-PP^*

    The row of the rank-one part is tied to the column, which keeps A stable whatever P is. The parameter of the
    readout is :math:`\tilde C=C(I-\bar A^L)` at L = ``l_max``. No mixing of channels and no nonlinearity: see
    :class:`kexue_lib.recurrence.block.SequenceBlock`.

    Args:
        d_model: channels H.
        d_state: real state of a channel, N, even.
        l_max: longest input.
        dt_min: the steps are drawn log-uniformly from here …
        dt_max: … to here.
        generator: source of steps, C and D.
        dtype: of the real parameters; the state is complex.

    Raises:
        TypeError: a size that is no integer.
        ValueError: a size below 1, ``d_state`` odd, unless 0 < ``dt_min`` ≤ ``dt_max``.

    Cost: :func:`s4_kernel` at ``l_max`` for H channels, whatever L, and FFTs; a step has O(H N) and its preparation
    O(H N³ log l_max).

    >>> layer = S4(2, 8, l_max=32, generator=torch.Generator().manual_seed(0)).eval()
    >>> u, state = torch.randn(32, 2), layer.initial_state()
    >>> for t in range(32):
    ...     y, state = layer.step(u[t], state)
    >>> torch.allclose(layer(u)[-1], y, atol=1e-4)
    True
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        *,
        l_max: int,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(d_model, d_state, dt_min, dt_max, generator, dtype)
        check_integer("l_max", l_max, 1)
        self.l_max = l_max
        n = d_state // 2
        Lam, P, B, _ = legs_dplr(d_state)
        self._poles(Lam[n:], dtype)
        shared = lambda x: nn.Parameter(torch.view_as_real(x[n:].expand(d_model, n)).to(dtype).clone())
        self.P, self.B = shared(P), shared(B)
        C = torch.randn(d_model, n, generator=generator, dtype=torch.complex128)
        self.Ct = nn.Parameter(torch.empty(d_model, n, 2, dtype=dtype))
        with torch.no_grad():
            Ab, _, _, _ = self._dense()
            self.Ct.copy_(torch.view_as_real(truncate_readout(_both(C), Ab, l_max)[:, n:]))

    def kernel(self, L: int) -> Float[Tensor, "d L"]:
        r"""Return the first L terms of each channel's kernel.

        Args:
            L: length.

        Raises:
            ValueError: L above ``l_max``.

        The truncated readout belongs to ``l_max``, so that the whole kernel is computed and cut.
        """
        check_integer("L", L, 1, self.l_max, most_is="l_max")
        P, B, Ct = (torch.view_as_complex(p) for p in (self.P, self.B, self.Ct))
        return pair_kernel(self.poles(), P, B, Ct, self.log_dt.exp(), self.l_max)[:, :L]

    def _moved(self, state: Tensor, keep: Tensor, column: Tensor, row: Tensor) -> Tensor:
        low_rank = 2 * (row * state).real.sum(-1, keepdim=True)
        return keep * state - column * low_rank

    def resampled(self, rate: float) -> S4:
        """Return a copy for the same signals at ``rate`` times the sampling rate, ``l_max`` being scaled too.

        Args:
            rate: 0.5 for every second sample, 2.0 for twice as many.

        Raises:
            ValueError: ``rate`` not above 0 or not finite.

        The truncated readout depends on step and length: it is recovered and truncated again, in O(N³ log l_max).
        """
        other = cast("S4", super().resampled(rate))
        n = self.d_state // 2
        with torch.no_grad():
            C = self._recurrence()[-1].to(torch.complex128)
            other.l_max = max(1, math.ceil(self.l_max * rate))
            Ab, *_ = other._dense()
            other.Ct.copy_(torch.view_as_real(truncate_readout(_both(C), Ab, other.l_max)[:, n:]))
        return other

    def _dense(self) -> tuple[Tensor, ...]:
        """Return the bilinear A and B of all poles, and poles and P in double precision."""
        Lam = self.poles().to(torch.complex128)
        P, B = (torch.view_as_complex(p).to(torch.complex128) for p in (self.P, self.B))
        dt = self.log_dt.double().exp()
        both = _both(P)
        return *discretize_dplr(_both(Lam), both, both.conj(), _both(B), dt), Lam, P

    def _recurrence(self) -> tuple[Tensor, ...]:
        # dplr_step with the sum over all poles as twice the real part over one of each pair.
        Ab, Bb, Lam, P = self._dense()
        n, rate = self.d_state // 2, 2 / self.log_dt.double().exp()[:, None]
        D = 1 / (rate - Lam)
        row = P.conj() * D
        row = 2 * rate * row / (1 + 2 * (row * P).real.sum(-1, keepdim=True))
        C = recover_readout(_both(torch.view_as_complex(self.Ct).to(torch.complex128)), Ab, self.l_max)
        parts = (D * (rate + Lam), D * P, row, Bb[:, n:], C[:, n:])
        return tuple(p.to(self.initial_state().dtype) for p in parts)


class S4D(_StateSpace):
    r"""Each channel a diagonal system: S4 without its rank-one part.

    .. math:: y_m=\sum_{k\le m}K_k\,u_{m-k}+D\,u_m,\qquad K_k=2\Re\sum_nC_n\bar B_n\bar\lambda_n^{\,k}

    Args:
        d_model: channels H.
        d_state: real state of a channel, even: ``d_state / 2`` conjugate pairs.
        kind: starting poles, see :func:`s4d_init`; B starts as ones, for "legs" as LegS has it.
        method: "zoh" or "bilinear".
        dt_min: the steps are drawn log-uniformly from here …
        dt_max: … to here.
        generator: source of steps, C and D.
        dtype: of the real parameters; the state is complex.

    Raises:
        TypeError: a size that is no integer.
        ValueError: a size below 1, ``d_state`` odd, an unknown word, unless 0 < ``dt_min`` ≤ ``dt_max``.

    Cost: :func:`s4d_kernel` for H channels and FFTs, any length; a step has O(H N).

    >>> layer = S4D(2, 8, generator=torch.Generator().manual_seed(0)).eval()
    >>> u, state = torch.randn(32, 2), layer.initial_state()
    >>> for t in range(32):
    ...     y, state = layer.step(u[t], state)
    >>> torch.allclose(layer(u)[-1], y, atol=1e-4)
    True
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        *,
        kind: Literal["lin", "inv", "legs"] = "lin",
        method: Literal["zoh", "bilinear"] = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(d_model, d_state, dt_min, dt_max, generator, dtype)
        check_one_of("method", method, ("zoh", "bilinear"))
        self.method = method
        n = d_state // 2
        self._poles(s4d_init(n, kind), dtype)
        B = legs_dplr(d_state)[2][n:] if kind == "legs" else torch.ones(n, dtype=torch.complex128)
        C = torch.randn(d_model, n, generator=generator, dtype=torch.complex128)
        self.B, self.C = (nn.Parameter(torch.view_as_real(x).to(dtype).clone()) for x in (B.expand(d_model, n), C))

    def kernel(self, L: int) -> Float[Tensor, "d L"]:
        """Return the first L terms of each channel's kernel."""
        check_integer("L", L, 1)
        B, C = torch.view_as_complex(self.B), torch.view_as_complex(self.C)
        return diagonal_kernel(self.poles(), B, C, self.log_dt.exp(), L, self.method)

    def _moved(self, state: Tensor, keep: Tensor) -> Tensor:
        return keep * state

    def _recurrence(self) -> tuple[Tensor, ...]:
        B, C = torch.view_as_complex(self.B), torch.view_as_complex(self.C)
        exponent, source = discretize_diagonal(self.poles().to(torch.complex128), B, self.log_dt.exp(), self.method)
        return exponent.exp().to(B.dtype), source, C


def _both(x: Tensor) -> Tensor:
    """Return the conjugates of the upper halves in front of them, in the order of :func:`legs_dplr`."""
    return torch.cat([x.flip(-1).conj(), x], -1)
