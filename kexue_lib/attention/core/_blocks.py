r"""The parts of a decoder: its configuration, attention with positions and a cache, feed-forward and convolution.

:mod:`kexue_lib.attention.core` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kexue_lib._arguments import check_integer, check_one_of
from kexue_lib.attention.core._attention import attention
from kexue_lib.attention.core._cache import LayerCache
from kexue_lib.attention.core._layout import keep_layout
from kexue_lib.positions.rope import log_length_scale


@dataclass(frozen=True, kw_only=True)
class LMConfig:
    """Sizes and parts of a :class:`DecoderLM`.

    Args:
        vocab_size: tokens.
        d_model: width of the residual stream.
        n_layers: blocks.
        n_heads: query heads.
        n_kv_heads: key and value heads; default ``n_heads``.
        head_dim: width of a head; default ``d_model // n_heads``.
        d_ff: inner width; default 8/3 d_model rounded up to a multiple of 16 for ``"swiglu"``, else 4 d_model.
        positions: how positions enter.
        rope_base: base of the rotary frequencies.
        rope_dim: rotated channels of a head; default all.
        rope_layout: which channels form a pair, see :mod:`kexue_lib.positions.rope`. Weights say which they were
            trained with, and weights of the other layout are refused at loading.
        max_len: longest sequence; needed by ``"learned"``.
        norm: kind of normalisation.
        norm_eps: added to variances.
        qk_norm: RMS norm of every query and key head before the rotation.
        ffn: kind of feed-forward block; ``"relu2"`` is the square of ReLU.
        tie_embedding: the output head shares the embedding's weight.
        conv_width: width of a causal depthwise convolution with residual on the attention input; 0 is off.
        logit_scale: ``"log_n"`` multiplies queries by :math:`\\log_{train\\_len}(position+1)`.
        train_len: base of that logarithm, tokens.
        zero_init_residual: blocks start as the identity.
        embed_std: standard deviation of the initial embedding.
        bias: of all linear layers.
        dropout: in attention weights and after both sublayers.
        causal: False gives a bidirectional encoder.

    Raises:
        TypeError: ``conv_width`` or ``rope_dim`` is no integer.
        ValueError: naming the field, for sizes that do not fit together.
    """

    vocab_size: int
    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int | None = None
    head_dim: int | None = None
    d_ff: int | None = None
    positions: Literal["rope", "none", "learned", "sinusoidal", "alibi"] = "rope"
    rope_base: float = 10000.0
    rope_dim: int | None = None
    rope_layout: Literal["half", "interleaved"] = "half"
    max_len: int | None = None
    norm: Literal["rms", "layer", "none"] = "rms"
    norm_eps: float = 1e-6
    qk_norm: bool = False
    ffn: Literal["swiglu", "gelu", "relu2"] = "swiglu"
    tie_embedding: bool = True
    conv_width: int = 0
    logit_scale: Literal["sqrt_d", "log_n"] = "sqrt_d"
    train_len: int = 512
    zero_init_residual: bool = False
    embed_std: float = 0.02
    bias: bool = False
    dropout: float = 0.0
    causal: bool = True

    def __post_init__(self):
        if self.head_dim is None and self.d_model % self.n_heads:
            raise ValueError(
                f"n_heads: got {self.n_heads}, expected a divisor of d_model = {self.d_model}, or head_dim"
            )
        if self.n_heads % self.kv_heads:
            raise ValueError(f"n_kv_heads: got {self.kv_heads}, expected a divisor of n_heads = {self.n_heads}")
        if self.rope_dim is not None:
            check_integer("rope_dim", self.rope_dim, 2, self.width, most_is="head_dim", even=True)
        if self.positions == "rope" and self.rope_dim is None and self.width % 2:
            raise ValueError(f"head_dim: got {self.width}, expected an even integer (rotary positions), or rope_dim")
        if self.positions == "learned" and self.max_len is None:
            raise ValueError("max_len: got None, expected an integer with positions='learned'")
        check_integer("conv_width", self.conv_width, 0)
        check_one_of("rope_layout", self.rope_layout, ("half", "interleaved"))

    @property
    def width(self) -> int:
        """Width of a head."""
        return self.d_model // self.n_heads if self.head_dim is None else self.head_dim

    @property
    def kv_heads(self) -> int:
        """Key and value heads."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def inner_width(self) -> int:
        """Inner width of the feed-forward block."""
        if self.d_ff is not None:
            return self.d_ff
        return -(-8 * self.d_model // 3 // 16) * 16 if self.ffn == "swiglu" else 4 * self.d_model


AttentionFactory = Callable[[LMConfig, int], nn.Module]


class Unrotated:
    """Position object that leaves queries and keys alone (NoPE, and positions that enter elsewhere).

    It follows the protocol of position objects: ``rotate(x, positions)`` and ``cache_raw_keys``.
    """

    cache_raw_keys = False

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return ``x``."""
        return x


class SelfAttention(nn.Module):
    """Multi-head (or grouped-query) self-attention with a cache and a position object.

    Args:
        config: sizes.
        layer: index of the block.

    ``forward`` and :meth:`cache_shapes` are the protocol that other attention modules of a :class:`DecoderLM` follow.
    """

    def __init__(self, config: LMConfig, layer: int):
        super().__init__()
        self.config, self.layer = config, layer
        c, width = config, config.width
        self.q = nn.Linear(c.d_model, c.n_heads * width, bias=c.bias)
        self.k = nn.Linear(c.d_model, c.kv_heads * width, bias=c.bias)
        self.v = nn.Linear(c.d_model, c.kv_heads * width, bias=c.bias)
        self.out = nn.Linear(c.n_heads * width, c.d_model, bias=c.bias)
        self.q_norm = nn.RMSNorm(width, eps=c.norm_eps) if c.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(width, eps=c.norm_eps) if c.qk_norm else nn.Identity()
        self.position: Any = Unrotated()
        if config.positions == "rope":
            keep_layout(self)

    def cache_shapes(self, batch: int, max_len: int) -> list[tuple[int, ...]]:
        """Return the shapes of the buffers that a cache of this layer needs.

        Args:
            batch: rows.
            max_len: tokens.
        """
        shape = (batch, self.config.kv_heads, max_len, self.config.width)
        return [shape, shape]

    def forward(
        self,
        x: Float[Tensor, "batch L d"],
        *,
        positions: Tensor,
        mask: Tensor | None,
        causal: bool,
        cache: LayerCache | None,
        k_positions: Tensor | None = None,
    ) -> Float[Tensor, "batch L d"]:
        """Attend to ``x`` and to what the cache holds.

        Args:
            x: ``(B, L, d_model)``.
            positions: of the tokens, ``(L,)`` or ``(B, L)``.
            mask: boolean, broadcastable to ``(B, H, L, S)``, or None.
            causal: whether keys behind a query are hidden.
            cache: of this layer; the new keys and values are appended.
            k_positions: of all keys with the cached ones, ``(S,)`` or ``(B, S)``; default ``positions``.
        """
        B, L, _ = x.shape
        config, position = self.config, self.position
        q = self.q_norm(self.q(x).view(B, L, config.n_heads, config.width)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(B, L, config.kv_heads, config.width)).transpose(1, 2)
        v = self.v(x).view(B, L, config.kv_heads, config.width).transpose(1, 2)
        k_positions = positions if k_positions is None else k_positions
        q = self._scaled(q, positions)
        replaces = _has(position, "attend")
        raw = replaces or position.cache_raw_keys
        together = L == 1 and not raw and not isinstance(self.position, Unrotated)
        if together:  # of a single token a call costs more than its work
            q, k = position.rotate(torch.cat([q, k], 1), positions).split([config.n_heads, config.kv_heads], 1)
        elif not raw:
            k = position.rotate(k, positions)
        if cache is not None:
            k, v = cache.append(k, v)
        if replaces:
            if mask is not None:
                raise ValueError("mask: got one, expected None with a position object that has attend: give positions")
            out = position.attend(q, k, v, q_positions=positions, k_positions=k_positions, causal=causal, scale=None)
        else:
            k = position.rotate(k, k_positions) if raw else k
            q = q if together else position.rotate(q, positions)
            if config.positions == "alibi":
                mask = self._alibi(positions, k_positions, mask, q)
            dropout = config.dropout if self.training else 0.0
            out = attention(q, k, v, mask=mask, causal=causal, dropout=dropout)
        return self.out(out.transpose(1, 2).reshape(B, L, -1))

    def _scaled(self, q: Tensor, positions: Tensor) -> Tensor:
        scale = None
        if self.config.logit_scale == "log_n":
            scale = log_length_scale(positions, self.config.train_len, clip=False)
        if _has(self.position, "query_scale"):
            own = self.position.query_scale(positions)
            scale = own if scale is None else scale * own
        if scale is None:
            return q
        scale = scale[..., None] if scale.ndim == 1 else scale[:, None, :, None]
        return q * scale.to(q.dtype)

    def _alibi(self, q_positions: Tensor, k_positions: Tensor, mask: Tensor | None, q: Tensor) -> Tensor:
        """Penalty of the distance, slope 2^{-8(h+1)/H} for head h (Press et al., arXiv 2108.12409)."""
        heads = torch.arange(1, self.config.n_heads + 1, device=q.device, dtype=torch.float64)
        slopes = torch.exp2(-8 * heads / self.config.n_heads)[:, None, None]
        distance = (q_positions[..., :, None] - k_positions[..., None, :]).abs()
        distance = distance[:, None] if distance.ndim == 3 else distance
        bias = (-slopes * distance).to(q.dtype)
        return bias if mask is None else bias.masked_fill(~mask, -torch.inf)


def _has(position: Any, name: str) -> bool:
    """As hasattr, without the exception that a module raises inside for what it lacks."""
    return hasattr(type(position), name) or name in getattr(position, "__dict__", ())


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202), GELU or squared-ReLU block.

    Args:
        config: sizes and kind.
    """

    def __init__(self, config: LMConfig):
        super().__init__()
        self.kind, inner = config.ffn, config.inner_width
        if self.kind == "swiglu":
            self.gate = nn.Linear(config.d_model, inner, bias=config.bias)
        self.up = nn.Linear(config.d_model, inner, bias=config.bias)
        self.down = nn.Linear(inner, config.d_model, bias=config.bias)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Map every vector by itself."""
        if self.kind == "swiglu":
            return self.down(F.silu(self.gate(x)) * self.up(x))
        inner = self.up(x)
        return self.down(F.gelu(inner) if self.kind == "gelu" else F.relu(inner).square())


class CausalConvolution(nn.Module):
    r"""Depthwise causal convolution with residual, :math:`y_t=x_t+\sum_jc_j\odot x_{t-j}`.

    It hands every position its predecessors directly, which spares attention the forming of previous-token heads.

    Args:
        d_model: channels.
        width: taps, the current position included.
    """

    def __init__(self, d_model: int, width: int):
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(width, d_model))

    def forward(self, x: Float[Tensor, "batch L d"], cache: LayerCache | None) -> Float[Tensor, "batch L d"]:
        """Convolve, with the predecessors of the first token from the cache.

        Args:
            x: ``(B, L, d)``.
            cache: of this layer's convolution; ``x`` is appended.
        """
        before, L = len(self.kernel) - 1, x.shape[1]
        past = x
        if cache is not None:
            (past,) = cache.append(x)
            past = past[:, max(0, past.shape[1] - L - before) :]
        past = F.pad(past, (0, 0, L + before - past.shape[1], 0))
        return x + sum(self.kernel[j] * past[:, before - j : before - j + L] for j in range(before + 1))


class Block(nn.Module):
    """Pre-norm block: ``x += attention(conv(norm(x)))``, ``x += ffn(norm(x))``.

    Args:
        config: sizes.
        attention: the attention module.
    """

    def __init__(self, config: LMConfig, attention: nn.Module):
        super().__init__()
        self.norm1 = make_norm(config)
        self.conv = CausalConvolution(config.d_model, config.conv_width) if config.conv_width else None
        self.attention = attention
        self.norm2 = make_norm(config)
        self.ffn = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "batch L d"], conv_cache: LayerCache | None, **options: Any
    ) -> Float[Tensor, "batch L d"]:
        """Apply the block; ``options`` go to the attention module."""
        hidden = self.norm1(x)
        if self.conv is not None:
            hidden = self.conv(hidden, conv_cache)
        x = x + self._dropped(self.attention(hidden, **options))
        return x + self._dropped(self.ffn(self.norm2(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        return self.dropout(x) if self.dropout.training else x


def make_norm(config: LMConfig) -> nn.Module:
    """Return the normalisation of the residual stream that a configuration names.

    Args:
        config: ``norm``, ``norm_eps``, ``d_model``, ``bias``.
    """
    if config.norm == "rms":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    if config.norm == "layer":
        return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)
    return nn.Identity()
