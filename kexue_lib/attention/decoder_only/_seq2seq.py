r"""GPT, UniLM and T5 as three settings of one sequence-to-sequence model."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from kexue_lib._arguments import check_one_of
from kexue_lib.attention.core import (
    Block,
    Cache,
    DecoderLM,
    LayerCache,
    LMConfig,
    SelfAttention,
    attention,
    causal_mask,
    make_norm,
    prefix_mask,
)
from kexue_lib.attention.decoder_only._mixed_directions import MixedSelfAttention


@dataclass(frozen=True)
class Seq2SeqConfig:
    """What a :class:`Seq2Seq` is made of.

    Args:
        base: sizes; its ``causal`` is set by ``encoder``.
        encoder: what the tokens of the source see: ``"causal"`` those before, ``"bidirectional"`` all, ``"mixed"``
            those before in half of the heads and those behind in the others.
        shared: one stack of layers for source and target (GPT, UniLM); else an encoder and a decoder with
            cross-attention (T5).

    Raises:
        ValueError: an unknown ``encoder``.
    """

    base: LMConfig
    encoder: Literal["causal", "bidirectional", "mixed"]
    shared: bool = True

    def __post_init__(self):
        check_one_of("encoder", self.encoder, ("causal", "bidirectional", "mixed"))


class Seq2Seq(nn.Module):
    r"""A model of a target given a source, in which only what the source sees and who shares layers can vary.

    .. math:: -\frac1T\sum_{t=1}^T\log p(y_t\mid x_1,\dots,x_P,y_1,\dots,y_{t-1})

    Args:
        config: sizes and kind.
        generator: source of the initial weights; equal generators give GPT and UniLM equal weights.

    The first target token is predicted at the last token of the source, which the decoder of an encoder-decoder model
    therefore gets as its first input. Source: https://kexue.fm/archives/9529; UniLM, arXiv 1905.03197; T5, arXiv
    1910.10683.

    >>> base = LMConfig(vocab_size=11, d_model=16, n_layers=1, n_heads=2)
    >>> model = Seq2Seq(Seq2SeqConfig(base, "bidirectional"))
    >>> model.generate(torch.zeros(2, 5, dtype=torch.long), 3).shape
    torch.Size([2, 3])
    """

    def __init__(self, config: Seq2SeqConfig, *, generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        reads = replace(config.base, causal=config.encoder == "causal")
        factory = MixedSelfAttention if config.encoder == "mixed" else SelfAttention
        self.encoder = None
        if config.shared:
            self.decoder = DecoderLM(reads, attention=factory, generator=generator)
        else:
            self.encoder = DecoderLM(reads, attention=factory, generator=generator)
            self.encoder.add_module("head", nn.Identity())
            self.decoder = CrossDecoder(replace(config.base, causal=True), generator=generator)
            self.decoder.share_embedding(self.encoder.embedding)

    def loss(
        self, source: Int[Tensor, "batch P"], target: Int[Tensor, "batch T"], *, source_loss: bool = False
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of the target tokens given the source, in nats per token.

        Args:
            source: ids ``(B, P)``, P ≥ 1.
            target: ids ``(B, T)``, T ≥ 1.
            source_loss: predict the source's tokens too; the mean is then over all P + T − 1 predicted tokens.

        Returns:
            Scalar in float32 or better.

        Raises:
            ValueError: an empty source or target, different batches, or ``source_loss`` where the source's tokens see
                what they would have to predict.
        """
        P, T = source.shape[1], target.shape[1]
        if not P or not T or len(source) != len(target):
            raise ValueError(
                f"source, target: got shapes {tuple(source.shape)}, {tuple(target.shape)}, expected (B, P) and (B, T)"
            )
        if source_loss and not (self.config.shared and self.config.encoder == "causal"):
            raise ValueError(
                f"source_loss: got encoder {self.config.encoder!r}, shared={self.config.shared}, expected a causal "
                "encoder that shares its layers, since other sources see the tokens that they would predict"
            )
        if self.encoder is not None:
            inputs = torch.cat([source[:, -1:], target[:, :-1]], dim=1)
            logits = self.decoder(inputs, memory=self._memory(source))
            return _cross_entropy(logits, target)
        tokens = torch.cat([source, target[:, :-1]], dim=1)
        mask = self._mask(P, P + T - 1, source.device)
        hidden = self.decoder(tokens, mask=mask, causal=mask is None, return_hidden=True)
        if source_loss:
            return _cross_entropy(self.decoder.head(hidden), torch.cat([source[:, 1:], target], dim=1))
        return _cross_entropy(self.decoder.head(hidden[:, P - 1 :]), target)

    @torch.no_grad()
    def generate(self, source: Int[Tensor, "batch P"], max_new_tokens: int, **kw: Any) -> Int[Tensor, "batch new"]:
        """Return tokens drawn after the source; it is read once, and everything is cached.

        Args:
            source: ids ``(B, P)``, P ≥ 1.
            max_new_tokens: tokens to draw.
            kw: ``temperature``, ``top_k``, ``top_p``, ``eos``, ``logits_processor`` and ``generator`` of
                :meth:`kexue_lib.attention.core.DecoderLM.generate`.

        Returns:
            ``(B, max_new_tokens)``, the new tokens only.

        Raises:
            ValueError: an empty source, ``use_cache`` or ``prompt_lengths``.
        """
        if refused := {"use_cache", "prompt_lengths"} & kw.keys():
            raise ValueError(f"{', '.join(sorted(refused))}: got one, expected none: sources have one length")
        if not source.shape[1]:
            raise ValueError(f"source: got shape {tuple(source.shape)}, expected at least one token")
        if self.encoder is None:
            # Without a causal mask a prompt is seen as a whole; single tokens behind the cache see all that is stored.
            return self.decoder.generate(source, max_new_tokens, **kw)[:, source.shape[1] :]
        reader = copy.copy(self.decoder)
        reader.forward = partial(self.decoder, memory=self._memory(source))
        return reader.generate(source[:, -1:], max_new_tokens, **kw)[:, 1:]

    def num_parameters(self) -> int:
        """Return the number of parameters; shared ones count once."""
        return sum(p.numel() for p in self.parameters())

    def _mask(self, P: int, L: int, device: torch.device) -> Tensor | None:
        """Which tokens of source ⊕ target see which; None is causal."""
        if self.config.encoder == "causal":
            return None
        if self.config.encoder == "bidirectional":
            return prefix_mask(L, P, device=device)
        causal = causal_mask(L, device=device)
        backwards = causal.clone()
        backwards[:P, :P] = causal[:P, :P].mT
        return torch.stack([causal, backwards]).repeat_interleave(self.config.base.n_heads // 2, 0)[None]

    def _memory(self, source: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the encoded source for each layer of the decoder."""
        assert self.encoder is not None  # only a model with one reads a memory
        encoded = self.encoder(source, return_hidden=True)
        return [cast("CrossBlock", block).cross.keys_values(encoded) for block in self.decoder.blocks]


class CrossAttention(nn.Module):
    """Attention of the target to the encoded source, without positions.

    Args:
        config: sizes.
    """

    def __init__(self, config: LMConfig):
        super().__init__()
        c = self.config = config
        self.q = nn.Linear(c.d_model, c.n_heads * c.width, bias=c.bias)
        self.k = nn.Linear(c.d_model, c.kv_heads * c.width, bias=c.bias)
        self.v = nn.Linear(c.d_model, c.kv_heads * c.width, bias=c.bias)
        self.out = nn.Linear(c.n_heads * c.width, c.d_model, bias=c.bias)

    def keys_values(self, encoded: Float[Tensor, "batch P d"]) -> tuple[Tensor, Tensor]:
        """Return the source's keys and values ``(B, Hk, P, width)``, computed once.

        Args:
            encoded: output of the encoder.
        """
        return tuple(f(encoded).unflatten(-1, (self.config.kv_heads, -1)).transpose(1, 2) for f in (self.k, self.v))

    def forward(self, x: Float[Tensor, "batch L d"], memory: tuple[Tensor, Tensor]) -> Float[Tensor, "batch L d"]:
        """Read the source.

        Args:
            x: of the target.
            memory: from :meth:`keys_values`.
        """
        q = self.q(x).unflatten(-1, (self.config.n_heads, -1)).transpose(1, 2)
        return self.out(attention(q, *memory).transpose(1, 2).flatten(-2))


class CrossBlock(Block):
    """Pre-norm block with cross-attention between self-attention and feed-forward.

    Args:
        config: sizes.
        attention: the self-attention module.
    """

    def __init__(self, config: LMConfig, attention: nn.Module):
        super().__init__(config, attention)
        self.cross_norm, self.cross = make_norm(config), CrossAttention(config)

    def forward(
        self,
        x: Float[Tensor, "batch L d"],
        conv_cache: LayerCache | None,
        *,
        memory: tuple[Tensor, Tensor],
        **options: Any,
    ) -> Float[Tensor, "batch L d"]:
        """Apply the block; ``options`` go to the self-attention."""
        hidden = self.norm1(x)
        if self.conv is not None:
            hidden = self.conv(hidden, conv_cache)
        x = x + self.dropout(self.attention(hidden, **options))
        x = x + self.dropout(self.cross(self.cross_norm(x), memory))
        return x + self.dropout(self.ffn(self.norm2(x)))


class CrossDecoder(DecoderLM):
    """A decoder whose layers also read an encoded source.

    Args:
        config: sizes.
        generator: source of the initial weights.
    """

    def __init__(self, config: LMConfig, *, generator: torch.Generator | None = None):
        super().__init__(config)
        self.blocks = nn.ModuleList(CrossBlock(config, cast("Block", block).attention) for block in self.blocks)
        self._initialise(generator)

    def share_embedding(self, embedding: nn.Embedding) -> None:
        """Use the embedding of the encoder.

        Args:
            embedding: of the same size.
        """
        self.embedding = embedding
        self._tie()

    def forward(
        self,
        tokens: Int[Tensor, "batch L"],
        *,
        memory: list[tuple[Tensor, Tensor]],
        positions: Tensor | None = None,
        mask: None = None,
        cache: Cache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "batch L_out vocab"]:
        """Return logits; ``memory`` are the source's keys and values for each layer, the others as in ``DecoderLM``."""
        start, L = 0 if cache is None else cache.length, tokens.shape[1]
        positions = torch.arange(start, start + L, device=tokens.device) if positions is None else positions
        seen = positions
        if cache is not None:
            seen = cache.append_positions(positions)
        x = self._embedded(tokens, positions)
        for i, block in enumerate(self.blocks):
            layer, conv = (None, None) if cache is None else (cache.layers[i], cache.convolutions[i])
            x = block(
                x, conv, memory=memory[i], positions=positions, mask=None, causal=True, cache=layer, k_positions=seen
            )
        return self.head(self.norm(x[:, -1:] if last_only else x))


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
