"""Layers with a low-rank addition, whose own weight is frozen and never written.

Merging fills a second weight beside the first and undoing it drops that one, so that nothing has to be subtracted: the
layer's own weight is the same to the bit, also where another layer holds it too. The merged weight is in no state dict.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib.matrices.lora_gradient._gradients import factored

Start = Literal["zero_B", "zero_A", "both"]
INITS = ("zero_B", "zero_A", "both")


class LoRALayer(nn.Module, ABC):
    r"""What the adapters of all kinds of layers have in common: ``W = W₀ + s AB`` with ``A (n, r)``, ``B (r, m)``.

    Attributes:
        base: the layer itself, all its parameters frozen; its weight is changed by ``set_factors`` only.
        lora_A: ``(n, r)``; float32 where the layer is of a 16-bit type, and rounded to it for each product only.
        lora_B: ``(r, m)``, likewise.
        rank: r.
        scale: s = alpha / r, or alpha / √r with ``rslora``.
        merged: whether ``forward`` uses the merged weight.
    """

    _layers: tuple[type[nn.Module], ...]  # what it wraps
    _merged_weight: Tensor | None

    def __init__(
        self,
        base: nn.Module,
        rank: int,
        *,
        alpha: float | None = None,
        rslora: bool = False,
        dropout: float = 0.0,
        init: Start = "zero_B",
        generator: torch.Generator | None = None,
    ) -> None:
        self.check(base, rank, alpha, dropout, init)
        super().__init__()
        n, m = self._sizes(base)
        self.base, self.rank, self.dropout = base.requires_grad_(False), rank, dropout
        self.scale = float(rank if alpha is None else alpha) / (math.sqrt(rank) if rslora else rank)
        self.register_buffer("_merged_weight", None, persistent=False)
        self.register_load_state_dict_post_hook(_merge_again)
        # 16-bit factors would swallow small steps: 1 + 1e-3 is 1 in bfloat16
        weight = cast("Tensor", base.weight)
        empty: dict[str, Any] = {"dtype": torch.promote_types(weight.dtype, torch.float32), "device": weight.device}
        self.lora_A = nn.Parameter(torch.zeros(n, rank, **empty))
        self.lora_B = nn.Parameter(torch.zeros(rank, m, **empty))
        self._start(init, generator)

    @classmethod
    def check(cls, base: Any, rank: int, alpha: float | None, dropout: float, init: str) -> None:
        """Refuse what the constructor does not take; nothing is changed."""
        kinds = [kind for kind in cls._layers if isinstance(base, kind)]
        if not kinds or type(base).forward is not kinds[0].forward:
            words = " or ".join(f"nn.{kind.__name__}" for kind in cls._layers)
            raise TypeError(f"base: got {type(base).__name__}, expected {words} with torch's own forward")
        if "weight" not in base._parameters:
            raise ValueError("base: got a layer whose weight is no parameter of its own (parametrized or pruned?), "
                             "expected a plain one")  # fmt: skip
        check_integer("rank", rank, 1, min(cls._sizes(base)), most_is="min(n, m)")
        check_number("dropout", dropout, least=0, below=1)
        check_one_of("init", init, INITS)
        if alpha is not None:
            check_number("alpha", alpha, above=0, below=math.inf)

    @staticmethod
    @abstractmethod
    def _sizes(base: Any) -> tuple[int, int]:
        """n and m of the layer's weight."""

    @abstractmethod
    def _in_layout(self, W: Tensor) -> Tensor:
        """A matrix ``(n, m)`` in the layout of the layer's weight."""

    @abstractmethod
    def _forward_merged(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer with this weight."""

    @abstractmethod
    def _forward_factored(self, x: Tensor) -> Tensor:
        """The layer and the thin one beside it."""

    def _factors(self) -> tuple[Tensor, Tensor]:
        """A and B in the type of the layer's weight."""
        dtype = cast("Tensor", self.base.weight).dtype
        return self.lora_A.to(dtype), self.lora_B.to(dtype)

    def _spread_of_A(self) -> float:
        """Standard deviation of A's start: the thin layer keeps the size of inputs of size 1."""
        return self.lora_A.shape[0] ** -0.5

    @torch.no_grad()
    def _start(self, init: Start, generator: torch.Generator | None) -> None:
        drawn = []
        for factor, spread, zero in (
            (self.lora_A, self._spread_of_A(), "zero_A"),
            (self.lora_B, self.rank**-0.5, "zero_B"),
        ):
            new = torch.zeros_like(factor)
            if init != zero:
                new.normal_(0.0, spread, generator=generator)
            drawn.append(new)
        self.set_factors(*drawn, preserve_output=init == "both")

    def _admissible(self, A: Tensor) -> Tensor:
        """A with zeros where it must have them."""
        return A

    @property
    def merged(self) -> bool:
        return self._merged_weight is not None

    @property
    def weight(self) -> Tensor:
        """W in the layer's layout: modules that read a layer's weight instead of calling it get the whole of it."""
        return self.effective_weight() if self._merged_weight is None else self._merged_weight

    @property
    def bias(self) -> Tensor | None:
        return getattr(self.base, "bias", None)

    def delta_weight(self) -> Float[Tensor, "*layout"]:
        """``s AB`` in the layout of the layer's weight, for ``nn.Linear`` ``(m, n)``; gradients flow to the factors."""
        return self._in_layout(self.lora_A @ self.lora_B * self.scale)

    def effective_weight(self) -> Float[Tensor, "*layout"]:
        """``W₀ + s AB`` in the layout of the layer's weight, rounded once where that is of a 16-bit type."""
        return self._moved(cast("Tensor", self.base.weight), self.lora_A, self.lora_B)

    def _moved(self, weight: Tensor, A: Tensor, B: Tensor) -> Tensor:
        wide = torch.promote_types(weight.dtype, torch.float32)
        delta = self._in_layout(A.to(wide) @ B.to(wide) * self.scale)
        return (weight.to(wide) + delta).to(weight.dtype)

    @torch.no_grad()
    def set_factors(self, A: Float[Tensor, "n r"], B: Float[Tensor, "r m"], *, preserve_output: bool = True) -> None:
        r"""Replace the factors by copies of others, and move the layer's weight so that W stays what it is.

        .. math:: W_0 \leftarrow W_0 + s\,(A_\text{old}B_\text{old} - AB)

        Args:
            A: ``(n, r)``.
            B: ``(r, m)``.
            preserve_output: False leaves the layer's weight alone, so that W changes.

        Raises:
            TypeError: a factor that is not floating.
            ValueError: a factor of another shape.
            RuntimeError: the layer is merged.
        """
        if self.merged:
            raise RuntimeError("set_factors: got a merged layer, expected unmerge() first")
        for name, factor, own in (("A", A, self.lora_A), ("B", B, self.lora_B)):
            check_dtype(name, factor, "floating")
            check_shape(name, factor, tuple(own.shape), "as the layer's factor has")
        A, B = self._admissible(A.to(self.lora_A)), B.to(self.lora_B)
        if preserve_output:
            wide = torch.promote_types(A.dtype, torch.float32)
            left, right = torch.cat([self.lora_A, A], 1).to(wide), torch.cat([self.lora_B, -B]).to(wide)
            weight = cast("Tensor", self.base.weight)
            weight.copy_(self._moved(weight, left, right))
        self.lora_A.copy_(A)
        self.lora_B.copy_(B)

    @torch.no_grad()
    def merge(self) -> LoRALayer:
        """Form W once, so that ``forward`` is the plain layer's; returns the layer. Factors that change later are not
        seen until the next ``merge``, which forms W again."""
        self._merged_weight = self.effective_weight().detach()
        return self

    def unmerge(self) -> LoRALayer:
        """Drop the merged weight; returns the layer."""
        self._merged_weight = None
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The layer with W in place of its own weight."""
        if self._merged_weight is not None:
            return self._forward_merged(x, self._merged_weight)
        return self._forward_factored(x)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, scale={self.scale:g}" + (", merged" if self.merged else "")


def _merge_again(layer: LoRALayer, _: Any) -> None:
    """A merged layer that loaded other weights stays merged, with them."""
    if layer.merged:
        layer.merge()


class LoRALinear(LoRALayer):
    r"""A linear layer with a low-rank addition.

    .. math:: Y = XW_0 + s\,(XA)B + b

    Args:
        base: the layer, which is frozen; it stays the owner of its weight and bias.
        rank: r, from 1 to min(n, m).
        alpha: s = alpha / r; None means alpha = r, so that s = 1.
        rslora: s = alpha / √r instead.
        dropout: share of the inputs of A that training zeroes, in [0, 1).
        init: which factor starts at zero, "zero_B" or "zero_A"; "both" draws both and takes s AB from the layer's
            weight. The others are A ~ N(0, 1/n) and B ~ N(0, 1/r).
        generator: what the factors are drawn from.

    Attributes: ``base``, ``lora_A (n, r)``, ``lora_B (r, m)`` (float32 for a layer of a 16-bit type), ``rank``,
    ``scale``, ``merged``; ``weight`` is the whole of W ``(m, n)``, for modules that read it.

    Raises:
        TypeError: ``base`` is no ``nn.Linear``, or one with a forward of its own.
        ValueError: ``rank`` outside of 1 … min(n, m), ``dropout``, ``alpha``, another word for ``init``, a weight that
            is no parameter.

    Cost: ``forward`` and its backward as ``lora_linear``; merged as the plain layer, and one weight more in memory.
    Source: article 9590; Hu et al., arXiv:2106.09685; Kalajdzievski, arXiv:2312.03732 (``rslora``).

    >>> layer = LoRALinear(torch.nn.Linear(4, 3), rank=2, alpha=4.0, generator=torch.Generator().manual_seed(0))
    >>> layer.lora_A.shape, layer.lora_B.shape, layer.scale
    (torch.Size([4, 2]), torch.Size([2, 3]), 2.0)
    >>> x = torch.ones(5, 4)
    >>> torch.equal(layer(x), layer.base(x))
    True
    """

    _layers = (nn.Linear,)
    base: nn.Linear

    @staticmethod
    def _sizes(base: nn.Linear) -> tuple[int, int]:
        return base.in_features, base.out_features

    def _in_layout(self, W: Tensor) -> Tensor:
        return W.mT

    def _forward_merged(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight, self.base.bias)

    def _forward_factored(self, x: Tensor) -> Tensor:
        A, B = self._factors()
        if self.dropout and self.training:
            thin = F.dropout(x, self.dropout) @ A @ B
            return F.linear(x, self.base.weight, self.base.bias) + thin * self.scale
        return factored(x, self.base.weight, A, B, self.base.bias, self.scale)
