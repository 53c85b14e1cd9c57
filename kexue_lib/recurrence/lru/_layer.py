"""The layer: real projections around a scan of complex, or for comparison of positive, eigenvalues."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor, nn
from torch.nn import functional as F

from kexue_lib._arguments import check_dtype, check_integer, check_shape
from kexue_lib.recurrence.block import SequenceBlock
from kexue_lib.recurrence.lru._spectrum import lru_eigenvalues, lru_init
from kexue_lib.recurrence.scan import linear_scan


class LRU(nn.Module):
    r"""A diagonal linear RNN with complex state, between real projections.

    .. math:: x_t = \lambda \odot x_{t-1} + \gamma \odot (W_{\mathrm{in}}u_t), \qquad
              y_t = W_{\mathrm{out}}[\Re x_t; -\Im x_t] + D \odot u_t

    with :math:`\lambda = \exp(-e^{\nu^{\log}} + i e^{\theta^{\log}})` and :math:`\gamma = e^{\gamma^{\log}}`. The first
    half of the rows of :math:`W_{\mathrm{in}}` gives the real part, the second the imaginary part. With ``real=True``
    (SLRU) :math:`\lambda = \exp(-e^{\nu^{\log}})`, the state is real and the projections have half the size.

    Args:
        d_model: channels of input and output.
        d_state: numbers of the state, complex ones unless ``real``.
        r_min, r_max, max_phase: ring of the first eigenvalues, see :func:`lru_init`.
        real: positive eigenvalues and a real state.
        generator: source of the initial weights.
        device: of the parameters.
        dtype: of the parameters. With half types ``nu_log`` is too coarse for a long memory: keep it in float32.

    Attributes:
        nu_log, theta_log, gamma_log: ``(d_state,)``; no ``theta_log`` with ``real``.
        in_proj: ``(m d_state, d_model)``, m = 1 if ``real`` else 2, drawn with variance 1/(m d_model).
        out_proj: ``(d_model, m d_state)``, drawn with variance 1/d_state.
        D: ``(d_model,)``, drawn with variance 1.

    Raises:
        TypeError: sizes that are no integers.
        ValueError: sizes below 1, a ring as :func:`lru_init` refuses it.

    Cost: m d_model d_state multiply-adds a position each way, and the scan. A step costs the same at every position.

    >>> layer = LRU(4, 8)
    >>> u = torch.randn(2, 10, 4)
    >>> head, state = layer(u[:, :6], return_state=True)
    >>> torch.allclose(torch.cat([head, layer(u[:, 6:], state)], 1), layer(u), atol=1e-5)
    True
    """

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        r_min: float = 0.9,
        r_max: float = 0.999,
        max_phase: float = 2 * math.pi,
        real: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_integer("d_model", d_model, 1)
        nu_log, theta_log, gamma_log = lru_init(
            d_state, r_min=r_min, r_max=r_max, max_phase=max_phase, generator=generator, device=device, dtype=dtype
        )
        self.d_model, self.d_state, self.real = d_model, d_state, real
        self.nu_log, self.gamma_log = nn.Parameter(nu_log), nn.Parameter(gamma_log)
        if not real:
            self.theta_log = nn.Parameter(theta_log)
        m = 1 if real else 2

        def normal(*shape: int, variance: float) -> nn.Parameter:
            where = "cpu" if generator is None else generator.device
            drawn = torch.randn(*shape, generator=generator, device=where) * math.sqrt(variance)
            return nn.Parameter(drawn.to(device=device, dtype=dtype))

        self.in_proj = normal(m * d_state, d_model, variance=1 / (m * d_model))
        self.out_proj = normal(d_model, m * d_state, variance=1 / d_state)
        self.D = normal(d_model, variance=1.0)

    def eigenvalues(self) -> Inexact[Tensor, " d_state"]:
        """Return the eigenvalues, complex, or real with ``real=True``."""
        if self.real:
            nu_log = self.nu_log.float() if self.nu_log.dtype in (torch.float16, torch.bfloat16) else self.nu_log
            return torch.exp(-nu_log.exp())
        return lru_eigenvalues(self.nu_log, self.theta_log)

    def forward(
        self, u: Float[Tensor, "*batch L d_model"], state: Inexact[Tensor, "..."] | None = None, *, return_state=False
    ) -> Any:
        """Run a sequence, or the next piece of one.

        Args:
            u: input, ``(..., L, d_model)``.
            state: the state before it, ``(..., d_state)``; zero if None.
            return_state: whether to return the state behind it too.

        Returns:
            The output, of the shape and dtype of ``u``; with ``return_state`` the pair of it and the state. The scan
            runs in float32 or complex64 at least.

        Raises:
            TypeError: ``u`` is not floating.
            ValueError: a last dimension other than ``d_model``, a state of another size.
        """
        self._check(u, ("...", "L", self.d_model), state)
        states = linear_scan(self.eigenvalues(), self._driven(u), state)
        y = self._read(states, u)
        if not return_state:
            return y
        if u.shape[-2]:
            return y, states[..., -1, :]
        return y, self.initial_state(*u.shape[:-2]) if state is None else state

    def step(
        self, u: Float[Tensor, "*batch d_model"], state: Inexact[Tensor, "..."]
    ) -> tuple[Float[Tensor, "..."], Inexact[Tensor, "..."]]:
        """Run one position.

        Args:
            u: its input, ``(..., d_model)``.
            state: the state before it, ``(..., d_state)``.

        Returns:
            The output, of the shape of ``u``, and the state behind the position.

        Raises:
            TypeError: ``u`` is not floating.
            ValueError: a last dimension other than ``d_model``, a state of another size.
        """
        self._check(u, ("...", self.d_model), state)
        # One position is smaller than the weights: here the halves of the products are put together, not of the rows.
        v = _wide(F.linear(u.to(self.in_proj.dtype), self.in_proj))
        v = v if self.real else torch.complex(*v.chunk(2, -1))
        state = self.eigenvalues() * state + self.gamma_log.exp() * v
        x = state if self.real else torch.cat([state.real, -state.imag], -1)
        return (F.linear(x.to(self.out_proj.dtype), self.out_proj) + self.D * u).to(u.dtype), state

    def initial_state(self, *batch: int) -> Inexact[Tensor, "*batch d_state"]:
        """Return zeros of shape ``(*batch, d_state)``, complex unless ``real``."""
        dtype = torch.promote_types(self.nu_log.dtype, torch.float32)
        dtype = dtype if self.real else dtype.to_complex()
        return torch.zeros(*batch, self.d_state, dtype=dtype, device=self.nu_log.device)

    def _driven(self, u: Tensor) -> Tensor:
        """γ W_in u as the scan reads it. Rows are interleaved, not the far larger result: less time by a quarter."""
        gamma = self.gamma_log.exp()
        if self.real:
            return _wide(F.linear(u.to(self.in_proj.dtype), self.in_proj * gamma[:, None]))
        halves = self.in_proj.unflatten(0, (2, self.d_state)) * gamma[:, None]
        pairs = F.linear(u.to(self.in_proj.dtype), halves.transpose(0, 1).flatten(0, 1))
        return torch.view_as_complex(_wide(pairs).unflatten(-1, (self.d_state, 2)))

    def _read(self, x: Tensor, u: Tensor) -> Tensor:
        weight = self.out_proj
        if not self.real:
            real, imaginary = weight.unflatten(1, (2, self.d_state)).unbind(1)
            weight = torch.stack([real, -imaginary], -1).flatten(1)
            x = torch.view_as_real(x.resolve_conj()).flatten(-2)
        return (F.linear(x.to(weight.dtype), weight) + self.D * u).to(u.dtype)

    def _check(self, u: Tensor, shape: tuple[int | str, ...], state: Tensor | None) -> None:
        check_dtype("u", u, "floating")
        check_shape("u", u, shape, "as d_model says")
        if state is not None:
            check_shape("state", state, ("...", self.d_state), "as d_state says")
            if self.real and state.is_complex():
                raise TypeError(f"state: got {state.dtype}, expected a real one, as eigenvalues and inputs are")


class LRUBlock(SequenceBlock):
    r"""An :class:`LRU` in the residual block of its paper.

    .. math:: u + \mathrm{drop}(\mathrm{GLU}(W\,\mathrm{drop}(\mathrm{GELU}(\mathrm{LRU}(\mathrm{norm}(u)))) + b))

    Args:
        d_model: channels.
        d_state: numbers of the state.
        dropout: probability, behind GELU and behind the gate.
        **lru_kwargs: options of :class:`LRU`; a ``generator`` draws the gate's weights too.

    Raises:
        TypeError, ValueError: as :class:`LRU` and :class:`SequenceBlock` do.

    >>> block = LRUBlock(4, 8)
    >>> y, state = block.step(torch.randn(2, 4), block.initial_state(2))
    >>> y.shape, state.shape
    (torch.Size([2, 4]), torch.Size([2, 8]))
    """

    def __init__(self, d_model: int, d_state: int, *, dropout: float = 0.0, **lru_kwargs: Any) -> None:
        layer = LRU(d_model, d_state, **lru_kwargs)
        super().__init__(layer, d_model, dropout=dropout, generator=lru_kwargs.get("generator"))
        self.mix.to(device=layer.D.device, dtype=layer.D.dtype)
        self.norm.to(device=layer.D.device, dtype=layer.D.dtype)


def _wide(x: Tensor) -> Tensor:
    """A matrix product under autocast is a half type, which no complex number is made of."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
