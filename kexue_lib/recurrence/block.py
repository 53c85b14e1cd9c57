r"""The residual block around a recurrent layer, and a small model made of such blocks.

.. math::
    \mathrm{block}(u) = u + \mathrm{drop}\Big(\mathrm{GLU}\big(W\,\mathrm{drop}(
    \mathrm{GELU}(\mathrm{layer}(\mathrm{norm}(u)))) + b\big)\Big),\qquad
    \mathrm{GLU}(p, q) = p \odot \sigma(q)

The layer mixes positions and may be linear; GELU and GLU mix channels at each position. Everything outside the layer
acts on one position at a time, so a block computes in parallel or step by step exactly as its layer does.

Source: A. Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences", 2023, arXiv 2303.06349, Fig. 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib.mlp import mlp

__all__ = ["RecurrentLayer", "SequenceBlock", "SequenceModel"]


@runtime_checkable
class RecurrentLayer(Protocol):
    """What a :class:`SequenceBlock` asks of its layer: the whole sequence at once, or one position and a state.

    A layer whose ``forward`` also takes ``(u, state, return_state=True)`` and then returns the last state with its
    output lets a long sequence be run in pieces.
    """

    def __call__(self, u: Tensor, /, *args: Any, **kwargs: Any) -> Any:
        """Map (..., L, d_model) to the same shape, causally."""

    def step(self, u: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Map (..., d_model) at one position and the state before it to the output and the state after it."""
        ...

    def initial_state(self, *batch: int) -> Any:
        """Return the state before the first position."""


class SequenceBlock(nn.Module):
    r"""A layer over positions inside LayerNorm, GELU, a gated linear unit and a residual connection.

    Args:
        layer: see :class:`RecurrentLayer`.
        d_model: channels, of the layer and of the block.
        dropout: probability, behind GELU and behind the gate.
        generator: source of the initial weights of the gate; the layer comes with its own.

    Raises:
        TypeError: ``d_model`` is no integer, ``dropout`` no number.
        ValueError: ``d_model`` below 1, ``dropout`` outside [0, 1).

    Cost: that of the layer, and 2 d_model² multiply-adds a position.

    >>> from torch import nn
    >>> class Memoryless(nn.Identity):
    ...     def step(self, u, state):
    ...         return u, state
    ...     def initial_state(self, *batch):
    ...         return torch.zeros(*batch, 0)
    >>> block = SequenceBlock(Memoryless(), 4)
    >>> u = torch.randn(2, 7, 4)
    >>> y, _ = block.step(u[:, 3], block.initial_state(2))
    >>> torch.allclose(block(u)[:, 3], y, atol=1e-6)
    True
    """

    def __init__(
        self,
        layer: RecurrentLayer,
        d_model: int,
        *,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_integer("d_model", d_model, 1)
        check_number("dropout", dropout, least=0, below=1)
        self.d_model = d_model
        self.norm = nn.LayerNorm(d_model)
        self.layer = layer
        self.mix = mlp([d_model, 2 * d_model], generator=generator)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, u: Float[Tensor, "... L d"], state: Any = None, *, return_state: bool = False
    ) -> Float[Tensor, "... L d"] | tuple[Float[Tensor, "... L d"], Any]:
        """Run the whole sequence, or with a layer that can the next piece of one.

        Args:
            u: input, (..., L, d_model).
            state: the layer's state before the piece; None: the initial one.
            return_state: whether to return the state behind the piece too.

        Returns:
            The output, of the shape of ``u``; with ``return_state`` the pair of it and the state.

        Raises:
            TypeError: ``u`` is not floating.
            ValueError: a last dimension other than ``d_model``.
        """
        self._check(u, ("...", "L", self.d_model))
        if state is None and not return_state:
            return self._mixed(u, self.layer(self.norm(u)))
        y, state = self.layer(self.norm(u), state, return_state=True)
        out = self._mixed(u, y)
        return (out, state) if return_state else out

    def step(self, u: Float[Tensor, "... d"], state: Any) -> tuple[Float[Tensor, "... d"], Any]:
        """Run one position.

        Args:
            u: its input, (..., d_model).
            state: the state before it.

        Returns:
            The output, of the shape of ``u``, and the state behind the position.

        Raises:
            TypeError: ``u`` is not floating.
            ValueError: a last dimension other than ``d_model``.
        """
        self._check(u, ("...", self.d_model))
        y, state = self.layer.step(self.norm(u), state)
        return self._mixed(u, y), state

    def initial_state(self, *batch: int) -> Any:
        """Return the layer's state before the first position, for a batch of the given sizes."""
        return self.layer.initial_state(*batch)

    def _mixed(self, u: Tensor, y: Tensor) -> Tensor:
        gated = F.glu(self.mix(self.dropout(F.gelu(y))), -1)
        return u + self.dropout(gated)

    def _check(self, u: Tensor, shape: tuple[int | str, ...]) -> None:
        check_dtype("u", u, "floating")
        check_shape("u", u, shape, "as d_model says")


class SequenceModel(nn.Module):
    r"""Input map, blocks, LayerNorm and a linear output, at each position or at the last one.

    Args:
        blocks: modules of (..., L, d_model) with one ``d_model``, such as :class:`SequenceBlock`.
        d_in: channels of a real input, which a linear layer maps to ``d_model``.
        d_out: channels of the output.
        readout: "each" position or the "last".
        vocab_size: number of tokens; then the input holds integers, which an embedding maps to ``d_model``.
        generator: source of the initial weights of input and output.

    Exactly one of ``d_in`` and ``vocab_size`` is given.

    Raises:
        TypeError: a size that is no integer.
        ValueError: no block, blocks of different ``d_model``, a size below 1, both or neither of ``d_in`` and
            ``vocab_size``, an unknown ``readout``.

    Cost: that of the blocks, and ``d_model`` (``d_in`` + ``d_out``) multiply-adds a position.
    """

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        *,
        d_in: int | None = None,
        d_out: int,
        readout: Literal["last", "each"],
        vocab_size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        stack: list[Any] = list(self.blocks)
        widths = sorted({block.d_model for block in stack})
        if len(widths) != 1:
            raise ValueError(f"blocks: got d_model of {widths}, expected at least one block, all of one d_model")
        if (d_in is None) == (vocab_size is None):
            raise ValueError(f"d_in: got {d_in} beside vocab_size {vocab_size}, expected exactly one of the two")
        check_integer("d_out", d_out, 1)
        check_one_of("readout", readout, ("last", "each"))
        (d_model,) = widths
        if d_in is not None:
            check_integer("d_in", d_in, 1)
            self.input = mlp([d_in, d_model], generator=generator)
        else:
            check_integer("vocab_size", vocab_size, 1)
            embedding = nn.utils.skip_init(nn.Embedding, vocab_size, d_model)
            self.input = embedding
            nn.init.normal_(cast("nn.Embedding", embedding).weight, generator=generator)
        self.norm = nn.LayerNorm(d_model)
        self.output = mlp([d_model, d_out], generator=generator)
        self.readout = readout

    def forward(
        self, u: Float[Tensor, "... L d_in"] | Shaped[Tensor, "... L"]
    ) -> Float[Tensor, "... L d_out"] | Float[Tensor, "... d_out"]:
        """Return (..., L, d_out), or (..., d_out) with ``readout="last"``.

        Args:
            u: (..., L, d_in) real numbers, or (..., L) integers below ``vocab_size``.

        Raises:
            ValueError: an empty sequence with ``readout="last"``.
        """
        x = self.input(u)
        for block in self.blocks:
            x = block(x)
        if self.readout == "last":
            if not x.shape[-2]:
                raise ValueError(f"u: got shape {tuple(u.shape)}, expected at least one position to read the last of")
            x = x[..., -1, :]
        return self.output(self.norm(x))

    def step(
        self, u: Float[Tensor, "... d_in"] | Shaped[Tensor, "..."], state: tuple
    ) -> tuple[Float[Tensor, "... d_out"], tuple]:
        """Return the output at one position, whatever ``readout`` is, and the states behind it.

        Args:
            u: the position's input, (..., d_in) or (...).
            state: the states of the blocks before it.
        """
        x, after = self.input(u), []
        for block, before in zip(cast("Iterable[Any]", self.blocks), state, strict=True):
            x, now = block.step(x, before)
            after.append(now)
        return self.output(self.norm(x)), tuple(after)

    def initial_state(self, *batch: int) -> tuple:
        """Return the states of the blocks before the first position."""
        return tuple(block.initial_state(*batch) for block in cast("Iterable[Any]", self.blocks))
