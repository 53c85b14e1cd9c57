r"""The shared attention function and a small decoder language model that many chapters build on.

Pre-norm transformer with the parts of Llama (Touvron et al., arXiv 2302.13971) by default: rotary positions, RMS
norm, SwiGLU, no biases. Attention modules, position objects and an output transform plug in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from kexue_lib.attention.core._attention import attention, causal_mask, prefix_mask, segment_mask
from kexue_lib.attention.core._blocks import (
    AttentionFactory,
    Block,
    CausalConvolution,
    FeedForward,
    LMConfig,
    SelfAttention,
    Unrotated,
    make_norm,
)
from kexue_lib.attention.core._cache import Cache, LayerCache
from kexue_lib.attention.core._checks import check_forward, check_generation
from kexue_lib.attention.core._layout import keep_layout
from kexue_lib.attention.core._llama import llama_weights
from kexue_lib.attention.core._lookup_task import lookup_accuracy, lookup_batches
from kexue_lib.attention.core._sampling import sample, truncate_log_probs
from kexue_lib.positions.rope import RotaryEmbedding

__all__ = [
    "AttentionFactory",
    "Block",
    "Cache",
    "CausalConvolution",
    "DecoderLM",
    "FeedForward",
    "LMConfig",
    "LayerCache",
    "SelfAttention",
    "Unrotated",
    "attention",
    "causal_mask",
    "keep_layout",
    "llama_weights",
    "lookup_accuracy",
    "lookup_batches",
    "make_norm",
    "prefix_mask",
    "sample",
    "segment_mask",
    "truncate_log_probs",
]


class DecoderLM(nn.Module):
    r"""A language model: embedding, blocks, final norm, head.

    Args:
        config: sizes and parts.
        attention: makes the attention module of each layer; default :class:`SelfAttention`. Such a module has
            ``forward(x, *, positions, mask, causal, cache)`` and ``cache_shapes(batch, max_len)``.
        position: position object in place of the one that ``config.positions`` names. ``model.position`` can be
            assigned later, on a trained model too: no weight depends on it.
        output_transform: applied after the final norm, before the head.
        generator: source of the initial weights, drawn in the order of declaration: linear weights
            :math:`\mathcal N(0,1/n_\text{in})`, those that write to the residual stream (``out``, ``down``) divided by
            :math:`\sqrt{2\,n_\text{layers}}`, embeddings ``embed_std``, convolutions 0.1.

    >>> model = DecoderLM(LMConfig(vocab_size=11, d_model=16, n_layers=1, n_heads=2))
    >>> model(torch.zeros(2, 5, dtype=torch.long)).shape
    torch.Size([2, 5, 11])
    """

    def __init__(
        self,
        config: LMConfig,
        *,
        attention: AttentionFactory | None = None,
        position: Any = None,
        output_transform: nn.Module | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.config = config
        make = SelfAttention if attention is None else attention
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = None
        if config.positions == "learned" and config.max_len is not None:
            self.position_embedding = nn.Embedding(config.max_len, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, make(config, i)) for i in range(config.n_layers))
        self.norm = make_norm(config)
        self.output_transform = nn.Identity() if output_transform is None else output_transform
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self._tie()
        # Loading with assign=True and moving from the meta device put new parameters in the place of the shared one.
        self.register_load_state_dict_post_hook(_tie)
        self._initialise(generator)
        if position is None and config.positions == "rope":
            position = RotaryEmbedding(config.width, config.rope_base, rotary_dim=config.rope_dim,
                                       layout=config.rope_layout)  # fmt: skip
        self.position = Unrotated() if position is None else position

    def _tie(self) -> None:
        if self.config.tie_embedding:
            self.head.weight = self.embedding.weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DecoderLM:
        super()._apply(fn, recurse)
        self._tie()
        return self

    @property
    def position(self) -> Any:
        """The position object that all layers use."""
        return self.__dict__["_position"]

    @position.setter
    def position(self, value: Any) -> None:
        # Past the registration of submodules: the object is shared by all layers and holds nothing to save or cast.
        self.__dict__["_position"] = value
        for block in self.blocks:
            if hasattr(block.attention, "position"):
                vars(block.attention)["position"] = value

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "position":  # torch would register a module, past the setter
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _initialise(self, generator: torch.Generator | None) -> None:
        config, tied = self.config, self.config.tie_embedding
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not (module is self.head and tied):
                std = config.embed_std if module is self.head else module.in_features**-0.5
                if name.rsplit(".", 1)[-1] in ("out", "down"):
                    std = 0.0 if config.zero_init_residual else std / math.sqrt(2 * config.n_layers)
                nn.init.normal_(module.weight, 0.0, std, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, 0.0, config.embed_std, generator=generator)
            elif isinstance(module, CausalConvolution):
                nn.init.normal_(module.kernel, 0.0, 0.1, generator=generator)

    def forward(
        self,
        tokens: Integer[Tensor, "batch L"],
        *,
        positions: Int[Tensor, "..."] | None = None,
        mask: Tensor | None = None,
        causal: bool | None = None,
        cache: Cache | None = None,
        return_hidden: bool = False,
        last_only: bool = False,
    ) -> Float[Tensor, "batch L_out width"]:
        """Return logits.

        Args:
            tokens: ids ``(B, L)``.
            positions: ``(L,)`` or ``(B, L)``; default: go on from the last position of each row of the cache.
            mask: boolean ``(L, S)``, ``(H, L, S)``, ``(B, 1, L, S)`` or ``(B, H, L, S)``, True where visible; what
                ``causal`` hides stays hidden. A padding mask ``(B, S)`` is given as ``mask[:, None, None]``.
            causal: whether later tokens are hidden; default ``config.causal``. A prefix-LM says False beside its mask.
            cache: from :meth:`new_cache`; the tokens are appended.
            return_hidden: return what the head would be applied to.
            last_only: only the last position; the head is not applied to the others.

        Returns:
            ``(B, L, V)``, or ``(B, 1, V)`` with ``last_only``; ``d_model`` in place of V with ``return_hidden``.

        Raises:
            TypeError: ``mask`` is not boolean.
            ValueError: more tokens than the cache or the learned positions hold, a token outside of the vocabulary
                (looked at on the CPU only), ``tokens``, ``positions`` or a ``mask`` of another shape.
        """
        check_forward(tokens, positions, mask, self.config, 0 if cache is None else cache.length)
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
            positions = positions if cache is None else cache.next_positions() + positions
        k_positions = positions if cache is None else cache.append_positions(positions)
        causal = self.config.causal if causal is None else causal
        x = self._embedded(tokens, positions)
        for i, block in enumerate(self.blocks):
            options = {"positions": positions, "mask": mask, "causal": causal}
            options["cache"] = None if cache is None else cache.layers[i]
            if isinstance(block.attention, SelfAttention):
                options["k_positions"] = k_positions
            x = block(x, None if cache is None else cache.convolutions[i], **options)
        x = self.output_transform(self.norm(x[:, -1:] if last_only else x))
        return x if return_hidden else self.head(x)

    def _embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        x, config = self.embedding(tokens.long()), self.config
        if self.position_embedding is not None:
            if config.max_len is not None and tokens.shape[1] > config.max_len:
                raise ValueError(f"tokens: got {tokens.shape[1]} of them, expected at most max_len = {config.max_len}")
            x = x + self.position_embedding(positions)
        elif config.positions == "sinusoidal":
            x = x + _sinusoidal(positions, config.d_model).to(x.dtype)
        return self.dropout(x) if self.dropout.training else x

    def loss(
        self,
        tokens: Integer[Tensor, "batch L"],
        targets: Int[Tensor, "batch L_out"] | None = None,
        *,
        weights: Float[Tensor, "batch L_out"] | None = None,
        mask: Tensor | None = None,
        causal: bool | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy in nats per token.

        Args:
            tokens: ids ``(B, L)``.
            targets: ids to predict, −100 for none; default: the next tokens, so that L − 1 positions count.
            weights: of the targets, at least 0; normalised by their sum over the targets that count.
            mask: as in :meth:`forward`, for the tokens that are read: L − 1 of them without ``targets``.
            causal: as in :meth:`forward`.

        Returns:
            Scalar in float32 or better.

        Raises:
            ValueError: weights that sum to zero.
        """
        if targets is None:
            tokens, targets = tokens[:, :-1], tokens[:, 1:]
        logits = self(tokens, mask=mask, causal=causal)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if weights is None:
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        total = weights[targets != -100].sum()
        if not total > 0:
            raise ValueError("weights: got a sum of zero, expected at least one positive weight")
        each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return (each * weights.flatten()).sum() / total

    def new_cache(
        self,
        batch: int,
        max_len: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Cache:
        """Return an empty cache.

        Args:
            batch: rows.
            max_len: tokens that fit.
            dtype: default: that of the embedding.
            device: default: that of the embedding.
        """
        dtype = self.embedding.weight.dtype if dtype is None else dtype
        device = self.embedding.weight.device if device is None else device
        layers, convolutions = [], []
        for block in self.blocks:
            attention: Any = block.attention
            layers.append(LayerCache(attention.cache_shapes(batch, max_len), dtype=dtype, device=device))
            shape = (batch, max_len, self.config.d_model)
            convolutions.append(LayerCache([shape], dtype=dtype, device=device) if block.conv is not None else None)
        return Cache(layers, convolutions, batch=batch, max_len=max_len, device=device)

    @torch.no_grad()
    def generate(
        self,
        prompt: Integer[Tensor, "batch L"],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        eos: int | None = None,
        use_cache: bool = True,
        logits_processor: Callable[[Tensor, Tensor], Tensor] | None = None,
        prompt_lengths: Int[Tensor, " batch"] | None = None,
        padding: Literal["right", "left"] = "right",
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "batch L_new"]:
        """Return the prompt and tokens drawn after it.

        Args:
            prompt: ids ``(B, L)``, of any integer dtype, at least one in a row.
            max_new_tokens: tokens to draw.
            temperature: 0 takes the most probable token.
            top_k: draw among the k most probable.
            top_p: draw among the smallest set of this probability.
            eos: a row that drew it is finished and filled with it; generation ends when all rows are.
            use_cache: one prefill, then one token a step; else the whole sequence at every step. Same result.
            logits_processor: ``(tokens, logits) -> logits``, after the temperature and before ``top_k``, ``top_p``.
            prompt_lengths: real tokens of each padded prompt; the padding is never attended to, and the new tokens of
                a row take the positions after its real ones.
            padding: the side of the prompts on which it stands.
            generator: source of randomness.

        Returns:
            ``(B, L + max_new_tokens)`` int64; new tokens start at column L.

        Raises:
            TypeError: ``prompt``, ``eos`` or another option of the wrong type.
            ValueError: an empty prompt, a token outside of the vocabulary, ``max_new_tokens`` or ``temperature`` < 0,
                ``top_k``, ``top_p`` or ``eos`` out of range, ``prompt_lengths`` outside 1…L or with a model that
                cannot skip padding, or a prompt that with the new tokens exceeds ``max_len``.
        """
        check_generation(prompt, self.config, self.position, new=max_new_tokens, temperature=temperature, top_k=top_k,
                         top_p=top_p, eos=eos, lengths=prompt_lengths, padding=padding)  # fmt: skip
        tokens = prompt = prompt.long()
        total, device = prompt.shape[1] + max_new_tokens, prompt.device
        positions, visible = _columns(prompt.shape[1], total, prompt_lengths, padding, device)
        cache = self.new_cache(len(prompt), total) if use_cache else None
        finished = torch.zeros(len(prompt), dtype=torch.bool, device=device)
        for step in range(max_new_tokens):
            ends = prompt_lengths if step == 0 and padding == "right" else None
            logits = self._next_logits(tokens, positions, visible, cache, ends)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            if temperature > 0:
                logits = logits / temperature
            if logits_processor is not None:
                logits = logits_processor(tokens, logits)
            if temperature > 0 and (top_k is not None or top_p is not None):
                logits = truncate_log_probs(logits.log_softmax(-1), top_k=top_k, top_p=top_p)
            new = sample(logits, temperature=1.0 if temperature > 0 else 0.0, generator=generator)
            if eos is not None:
                new = torch.where(finished, eos, new)
                finished = finished | (new == eos)
            tokens = torch.cat([tokens, new[:, None]], dim=1)
            if eos is not None and finished.all():
                return F.pad(tokens, (0, total - tokens.shape[1]), value=eos)
        return tokens

    def _next_logits(
        self, tokens: Tensor, positions: Tensor, visible: Tensor | None, cache: Cache | None, ends: Tensor | None
    ) -> Tensor:
        """Logits ``(B, V)`` of the token after each row's last real one: the last column, or the ``ends``-th."""
        length = tokens.shape[1]
        start = 0 if cache is None else cache.length
        logits = self(
            tokens[:, start:],
            positions=positions[..., start:length],
            mask=None if visible is None else visible[..., :length],
            cache=cache,
            last_only=ends is None,
        )
        if ends is None:
            return logits[:, -1]
        return logits[torch.arange(len(logits), device=logits.device), ends.to(logits.device) - 1]

    def num_parameters(self, *, embedding: bool = True) -> int:
        """Return the number of parameters; shared ones count once.

        Args:
            embedding: count the embeddings (and the head, where it is tied to them).
        """
        parameters = {id(p): p for p in self.parameters()}
        if not embedding:
            for module in (self.embedding, self.position_embedding):
                if module is not None:
                    parameters.pop(id(module.weight))
        return sum(p.numel() for p in parameters.values())


def _tie(model: DecoderLM, _: Any) -> None:
    model._tie()


def _columns(
    L: int, total: int, lengths: Tensor | None, padding: str, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Positions ``(total,)`` or ``(B, total)`` of prompts and new tokens, and which columns hold a token."""
    columns = torch.arange(total, device=device)
    if lengths is None:
        return columns, None
    padded = L - lengths.to(device)[:, None]
    new = columns >= L
    if padding == "left":
        return (columns - padded).clamp(min=0), (columns >= padded)[:, None, None]
    return torch.where(new, columns - padded, columns), (new | (columns < L - padded))[:, None, None]


def _sinusoidal(positions: Tensor, d_model: int) -> Tensor:
    """Interleaved sines and cosines with base 10000 (Vaswani et al., arXiv 1706.03762, section 3.5)."""
    pairs = torch.arange(0, d_model, 2, dtype=torch.float64, device=positions.device)
    angle = positions.to(torch.float64)[..., None] * torch.exp(pairs * (-math.log(10000.0) / d_model))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[..., :d_model]
