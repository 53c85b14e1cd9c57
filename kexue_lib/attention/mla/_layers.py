"""The attention layers: keys and values shared in groups, or made from one latent vector."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn
from torch.nn.init import normal_, zeros_

from kexue_lib._arguments import check_one_of
from kexue_lib.attention.core import LayerCache, attention, causal_mask, keep_layout
from kexue_lib.attention.mla._caches import buffer_shapes
from kexue_lib.attention.mla._config import AttentionConfig
from kexue_lib.positions.rope import RotaryEmbedding

Form = Literal["auto", "expanded", "absorbed"]


class _CachedAttention(nn.Module):
    """What both classes share: rotation, positions that go on from the cache, initial weights."""

    def __init__(self, config: AttentionConfig, rotated_width: int):
        super().__init__()
        self.config = config
        self.rope = None
        if config.rope_dim:
            self.rope = RotaryEmbedding(
                rotated_width, config.rope_base, rotary_dim=config.rope_dim, layout=config.rope_layout
            )
            keep_layout(self)

    def cache_shapes(self, batch: int, max_len: int) -> list[tuple[int, ...]]:
        """Return the shapes of the buffers that a cache of this layer needs.

        Args:
            batch: rows.
            max_len: tokens.
        """
        return buffer_shapes(self.config, batch, max_len)

    def _positions(self, x: Tensor, positions: Tensor | None, cache: LayerCache | None) -> Tensor:
        start = 0 if cache is None else cache.length
        if cache is not None and len(cache.buffers[0]) != len(x):
            raise ValueError(f"cache: got {len(cache.buffers[0])} rows, expected {len(x)} as x has")
        return torch.arange(start, start + x.shape[1], device=x.device) if positions is None else positions

    @staticmethod
    def _append(cache: LayerCache, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        kept = cache.buffers[0].dtype
        if kept != first.dtype and not torch.is_autocast_enabled(first.device.type):
            raise ValueError(f"cache: got {kept}, expected {first.dtype} as the layer's weights and x have")
        return cache.append(first, second)

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        return x if self.rope is None else self.rope.rotate(x, positions)

    def _initialise(self, generator: torch.Generator | None) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                normal_(module.weight, 0.0, module.in_features**-0.5, generator=generator)
                if module.bias is not None:
                    zeros_(module.bias)


class GroupedAttention(_CachedAttention):
    r"""Attention whose query heads share keys and values in groups: MHA (g = h), GQA, MQA (g = 1).

    Head s (from 0) attends to the keys and values of group :math:`\lfloor sg/h\rfloor`.

    Args:
        config: of kind ``"mha"``, ``"gqa"`` or ``"mqa"``.
        generator: source of the initial weights :math:`\mathcal N(0,1/n_\text{in})`.

    Raises:
        ValueError: ``config.kind`` is ``"mla"``.

    Cost: 2g(d_k + d_v) numbers written per token. Source: arXiv 2305.13245, arXiv 1911.02150.

    >>> layer = GroupedAttention(AttentionConfig(d_model=8, n_heads=4, kind="gqa", n_kv_heads=2))
    >>> layer(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, config: AttentionConfig, *, generator: torch.Generator | None = None):
        if config.kind == "mla":
            raise ValueError("config: got kind 'mla', which is LatentAttention's, expected 'mha', 'gqa' or 'mqa'")
        super().__init__(config, config.head_dim)
        c = config
        self.q = nn.Linear(c.d_model, c.n_heads * c.head_dim, bias=c.bias)
        self.k = nn.Linear(c.d_model, c._kv_groups() * c.head_dim, bias=c.bias)
        self.v = nn.Linear(c.d_model, c._kv_groups() * c.v_head_dim, bias=c.bias)
        self.out = nn.Linear(c.n_heads * c.v_head_dim, c.d_model, bias=c.bias)
        self._initialise(generator)

    def forward(
        self,
        x: Float[Tensor, "B L d"],
        *,
        positions: Num[Tensor, "..."] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        causal: bool = True,
        cache: LayerCache | None = None,
        form: Form = "auto",
    ) -> Float[Tensor, "B L d"]:
        """Attend to ``x`` and to what the cache holds.

        Args:
            x: ``(B, L, d)``.
            positions: ``(L,)`` or ``(B, L)``, tokens; default: go on from the cache.
            mask: True where visible, broadcastable to ``(B, h, L, S)``; combined with ``causal``.
            causal: hide keys behind a query; queries are the last L of S tokens.
            cache: the new keys and values are appended.
            form: ``"auto"``; there is one form.

        Returns:
            ``(B, L, d)``.

        Raises:
            ValueError: another ``form``, a cache of another batch or dtype, or a full one.
        """
        if form != "auto":
            raise ValueError(f"form: got {form!r}, expected 'auto': only latent attention has two forms")
        c, (B, L, _) = self.config, x.shape
        positions = self._positions(x, positions, cache)
        q = self._rotate(self.q(x).view(B, L, c.n_heads, c.head_dim).transpose(1, 2), positions)
        k = self._rotate(self.k(x).view(B, L, c.n_kv_heads, c.head_dim).transpose(1, 2), positions)
        v = self.v(x).view(B, L, c.n_kv_heads, c.v_head_dim).transpose(1, 2)
        if cache is not None:
            k, v = self._append(cache, k, v)
        out = attention(q, k, v, mask=mask, causal=causal)
        return self.out(out.transpose(1, 2).reshape(B, L, -1))


class LatentAttention(_CachedAttention):
    r"""Multi-head latent attention: trains as multi-head attention, decodes as attention to one shared latent.

    .. math:: c_i=\operatorname{norm}(x_iW_c),\quad k_i^{(s)}=[c_iW_k^{(s)},\,x_iW_r\mathcal R_i],\quad
              v_i^{(s)}=c_iW_v^{(s)},\quad q_t^{(s)}=[c_t'W_{qc}^{(s)},\,c_t'W_{qr}^{(s)}\mathcal R_t]

    Two forms of one function. *Expanded*: keys and values of every head are made from the latents. *Absorbed*: the
    query takes :math:`W_k^{(s)}` and the output :math:`W_v^{(s)}`, so that keys and values are the latents themselves:

    .. math:: q_t^{(s)}k_i^{(s)\top}=\big(c_t'W_{qc}^{(s)}W_k^{(s)\top}\big)c_i^\top+\text{rotary part},\qquad
              o_t^{(s)}=\Big(\sum_i\alpha_{ti}c_i\Big)W_v^{(s)}

    Args:
        config: of kind ``"mla"``.
        generator: source of the initial weights :math:`\mathcal N(0,1/n_\text{in})`.

    Raises:
        ValueError: ``config.kind`` is not ``"mla"``.

    Weights: ``kv_down`` gives [latent | rotary key]; ``q_up`` per head [d_k | d_r]; ``kv_up`` per head
    [d_k of the key | d_v of the value]. Source: arXiv 2405.04434, section 2.1.

    >>> layer = LatentAttention(AttentionConfig(d_model=8, n_heads=4, kind="mla", kv_rank=6, rope_dim=2))
    >>> layer(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, config: AttentionConfig, *, generator: torch.Generator | None = None):
        if config.kind != "mla":
            raise ValueError(f"config: got kind {config.kind!r}, which is GroupedAttention's, expected 'mla'")
        super().__init__(config, config.rope_dim)
        c = config
        rank, norm = c._kv_rank() // c.latent_heads, lambda width: nn.RMSNorm(width, eps=c.norm_eps)
        queries = c.n_heads * (c.head_dim + c.rope_dim)
        if c.q_rank is None:
            self.q_up = nn.Linear(c.d_model, queries, bias=c.bias)
        else:
            self.q_down = nn.Linear(c.d_model, c.q_rank, bias=c.bias)
            self.q_norm = norm(c.q_rank) if c.norm_latents else nn.Identity()
            self.q_up = nn.Linear(c.q_rank, queries, bias=False)
        self.kv_down = nn.Linear(c.d_model, c._kv_rank() + c.rope_dim, bias=c.bias)
        self.kv_norm = norm(rank) if c.norm_latents else nn.Identity()
        self.kv_up = nn.Linear(rank, c.n_heads * (c.head_dim + c.v_head_dim), bias=False)
        self.out = nn.Linear(c.n_heads * c.v_head_dim, c.d_model, bias=c.bias)
        self._initialise(generator)

    def forward(
        self,
        x: Float[Tensor, "B L d"],
        *,
        positions: Num[Tensor, "..."] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        causal: bool = True,
        cache: LayerCache | None = None,
        form: Form = "auto",
    ) -> Float[Tensor, "B L d"]:
        """Attend to ``x`` and to what the cache holds.

        Args:
            x: ``(B, L, d)``.
            positions: ``(L,)`` or ``(B, L)``, tokens; default: go on from the cache.
            mask: True where visible, broadcastable to ``(B, h, L, S)``; combined with ``causal``.
            causal: hide keys behind a query; queries are the last L of S tokens.
            cache: the new latents and rotary keys are appended.
            form: ``"auto"`` takes the one with fewer operations for L new of S tokens: absorbed if there is a cache and
                L S (2 d_c - d_k - d_v) < (S - L) d_c (d_k + d_v), so never for a fresh prompt (S = L) if
                2 d_c >= d_k + d_v.

        Returns:
            ``(B, L, d)``; both forms agree up to rounding.

        Raises:
            ValueError: an unknown ``form``, a cache of another batch or dtype, or a full one.

        Cost: absorbed 2h(2 d_c + d_r) operations per query and token and 2h d_c(d_k + d_v) for each new token, expanded
        2h(d_k + d_r + d_v) per query and token and 2h d_c(d_k + d_v) for each of the S tokens.
        """
        check_one_of("form", form, ("auto", "expanded", "absorbed"))
        c, (B, L, _) = self.config, x.shape
        positions = self._positions(x, positions, cache)
        q = self.q_up(x if c.q_rank is None else self.q_norm(self.q_down(x)))
        q = q.view(B, L, c.n_heads, -1).transpose(1, 2)
        content, rotary = q[..., : c.head_dim], self._rotate(q[..., c.head_dim :], positions)
        latent, key = self.kv_down(x).split([c.kv_rank, c.rope_dim], dim=-1)
        latent = self.kv_norm(latent.unflatten(-1, (c.latent_heads, -1))).flatten(-2)
        key = self._rotate(key[:, None], positions)[:, 0]
        if cache is not None:
            latent, key = self._append(cache, latent, key)
        if form == "auto":
            form = "absorbed" if cache is not None and self._absorbing_pays(L, latent.shape[1]) else "expanded"
        attend = self._absorbed if form == "absorbed" else self._expanded
        return self.out(attend(content, rotary, latent, key, mask, causal).transpose(1, 2).reshape(B, L, -1))

    def _absorbing_pays(self, L: int, S: int) -> bool:
        c = self.config
        rank, expanded = c._kv_rank() // c.latent_heads, c.head_dim + c.v_head_dim
        # Per head: each of the L * S pairs costs the absorbed form more, each of the S - L cached tokens spares it one
        # expansion; the new tokens cost both forms the same.
        return L * S * (2 * rank - expanded) < (S - L) * rank * expanded

    def _expanded(
        self, content: Tensor, rotary: Tensor, latent: Tensor, key: Tensor, mask: Tensor | None, causal: bool
    ) -> Tensor:
        c = self.config
        up = self.kv_up.weight.unflatten(0, (c.latent_heads, -1))  # (m, h/m * (d_k + d_v), d_c/m)
        pieces = [piece @ w.T for piece, w in zip(latent.chunk(c.latent_heads, -1), up)]
        k, v = (
            torch.cat(pieces, -1).unflatten(-1, (c.n_heads, -1)).transpose(1, 2).split([c.head_dim, c.v_head_dim], -1)
        )
        k = torch.cat([k, key[:, None].expand(-1, c.n_heads, -1, -1)], dim=-1)
        q = torch.cat([content, rotary], dim=-1)
        return attention(q, k, v, mask=mask, causal=causal, scale=c.score_dim**-0.5)

    def _absorbed(
        self, content: Tensor, rotary: Tensor, latent: Tensor, key: Tensor, mask: Tensor | None, causal: bool
    ) -> Tensor:
        """Heads are the rows of one matrix product with the latents, which are read where they lie in the cache."""
        c, (B, h, L, _) = self.config, content.shape
        m, S = c.latent_heads, latent.shape[1]
        to_key, to_value = absorbed_weights(self)
        q = _per_head(content * c.score_dim**-0.5, to_key)  # (B, h, L, d_c/m); the scale of training, not of d_c + d_r
        scores = (rotary * c.score_dim**-0.5).flatten(1, 2) @ key.transpose(1, 2)  # (B, hL, S)
        scores, pieces = list(scores.chunk(m, 1)), latent.chunk(m, -1)
        for j, (part, piece) in enumerate(zip(q.chunk(m, 1), pieces)):
            scores[j] = torch.baddbmm(scores[j], part.flatten(1, 2), piece.transpose(1, 2))
        visible = _visible(mask, causal, L, S, content.device)
        weights = [_softmax(s.view(B, h // m, L, S), _heads_of(visible, j, h // m)) for j, s in enumerate(scores)]
        sums = [(w.flatten(1, 2) @ piece).view(B, h // m, L, -1) for w, piece in zip(weights, pieces)]
        return _per_head(torch.cat(sums, 1), to_value.transpose(1, 2))


def _per_head(x: Tensor, weight: Tensor) -> Tensor:
    """(B, h, L, a) times (h, a, b): the weights of a head are read once for all rows."""
    B, h, L, _ = x.shape
    return torch.bmm(x.transpose(0, 1).reshape(h, B * L, -1), weight).view(h, B, L, -1).transpose(0, 1)


def _visible(mask: Tensor | None, causal: bool, L: int, S: int, device: torch.device) -> Tensor | None:
    if causal and L > 1:
        order = causal_mask(L, S, device=device)
        return order if mask is None else mask & order
    return mask


def _heads_of(visible: Tensor | None, j: int, count: int) -> Tensor | None:
    """The part of a mask that belongs to the heads of latent part j."""
    if visible is None or visible.ndim <= 2 or visible.shape[-3] <= 1:
        return visible
    return visible[..., j * count : (j + 1) * count, :, :]


def _softmax(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Over the last dimension in float32 or better; 0 for a query that sees nothing."""
    if visible is None:
        return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)
    weights = scores.masked_fill(~visible, -torch.inf).softmax(
        -1, dtype=torch.promote_types(scores.dtype, torch.float32)
    )
    return torch.where(visible, weights, 0.0).to(scores.dtype)


def absorbed_weights(
    module: LatentAttention,
) -> tuple[Float[Tensor, "h d_k rank"], Float[Tensor, "h d_v rank"]]:
    """Return what the absorbed form multiplies queries and outputs with: views of ``kv_up``.

    Args:
        module: the layer.

    Returns:
        Keys' part ``(h, d_k, d_c / m)``, values' part ``(h, d_v, d_c / m)``.
    """
    c = module.config
    keys, values = module.kv_up.weight.unflatten(0, (c.n_heads, -1)).split([c.head_dim, c.v_head_dim], dim=1)
    return keys, values
