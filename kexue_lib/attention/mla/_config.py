"""Sizes of attention layers that share keys and values, what their caches hold, and what one decoded token costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from kexue_lib._arguments import check_integer, check_one_of

_DERIVED: Any = None  # until __post_init__ has filled it in


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """One family of attention layers: MHA, MQA, GQA and MLA.

    Args:
        d_model: width d of the input and the output.
        n_heads: query heads h.
        kind: ``"mha"`` (each head its own keys and values), ``"mqa"`` (one for all), ``"gqa"`` (one for each group of
            heads) or ``"mla"`` (all from one latent vector).
        n_kv_heads: groups g; for ``"gqa"`` only, the others fill it in (``"mla"`` has none).
        head_dim: width d_k of a query and key head without the extra rotary channels of MLA; default d / h.
        v_head_dim: width d_v of a value head; default d_k.
        kv_rank: width d_c of the latent; MLA only.
        q_rank: width of the query's latent; MLA only, None for a query of full rank.
        rope_dim: MLA: extra rotary channels d_r shared by all heads, default d_k // 2. Others: channels that are
            rotated, the first ones of each head, default d_k. 0 is no rotation.
        rope_base: base of the rotary frequencies.
        rope_layout: which channels form a pair, see :mod:`kexue_lib.positions.rope`; DeepSeek's is "interleaved".
            Weights say which they were trained with, and weights of the other layout are refused at loading.
        norm_latents: RMS norm of the latents, as DeepSeek has it; the cached latent is the normalised one.
        norm_eps: added to mean squares.
        bias: of the projections that read the input or write the output.
        latent_heads: MLA: parts m that the latent is split into, each serving h / m heads (grouped latent attention),
            so that m devices each cache their own part.

    Raises:
        TypeError: a size that is no integer.
        ValueError: naming the field, for sizes that do not fit together.
    """

    d_model: int
    n_heads: int
    kind: Literal["mha", "mqa", "gqa", "mla"] = "mha"
    n_kv_heads: int | None = None
    head_dim: int = _DERIVED
    v_head_dim: int = _DERIVED
    kv_rank: int | None = None
    q_rank: int | None = None
    rope_dim: int = _DERIVED
    rope_base: float = 10000.0
    rope_layout: Literal["half", "interleaved"] = "interleaved"
    norm_latents: bool = True
    norm_eps: float = 1e-6
    bias: bool = False
    latent_heads: int = 1

    if TYPE_CHECKING:  # None is accepted and never read

        def __init__(
            self,
            *,
            d_model: int,
            n_heads: int,
            kind: Literal["mha", "mqa", "gqa", "mla"] = "mha",
            n_kv_heads: int | None = None,
            head_dim: int | None = None,
            v_head_dim: int | None = None,
            kv_rank: int | None = None,
            q_rank: int | None = None,
            rope_dim: int | None = None,
            rope_base: float = 10000.0,
            rope_layout: Literal["half", "interleaved"] = "interleaved",
            norm_latents: bool = True,
            norm_eps: float = 1e-6,
            bias: bool = False,
            latent_heads: int = 1,
        ) -> None: ...

    def __post_init__(self):
        for name in ("d_model", "n_heads", "n_kv_heads", "head_dim", "v_head_dim", "kv_rank", "q_rank", "latent_heads"):
            value = getattr(self, name)
            if value is not None:
                check_integer(name, value, 1)
        check_one_of("kind", self.kind, ("mha", "mqa", "gqa", "mla"))
        check_one_of("rope_layout", self.rope_layout, ("half", "interleaved"))
        if self.head_dim is None and self.d_model % self.n_heads:
            raise ValueError(
                f"n_heads: got {self.n_heads}, expected a divisor of d_model = {self.d_model}, or head_dim"
            )
        self._fill("head_dim", self.d_model // self.n_heads)
        self._fill("v_head_dim", self.head_dim)
        self._check_latent() if self.kind == "mla" else self._check_grouped()
        self._check_rope()

    def _kv_groups(self) -> int:
        """``n_kv_heads`` of a kind that has it."""
        return cast("int", self.n_kv_heads)

    def _kv_rank(self) -> int:
        """``kv_rank`` of ``"mla"``."""
        return cast("int", self.kv_rank)

    def _fill(self, name: str, value: int | None) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)

    def _check_grouped(self) -> None:
        for name in ("kv_rank", "q_rank"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected None: only kind='mla' has a latent")
        if self.latent_heads != 1:
            raise ValueError(f"latent_heads: got {self.latent_heads}, expected 1: only kind='mla' has a latent")
        expected = {"mha": self.n_heads, "mqa": 1}.get(self.kind)
        if expected is None and self.n_kv_heads is None:
            raise ValueError("n_kv_heads: got None, expected an integer with kind='gqa'")
        if expected is not None and self.n_kv_heads not in (None, expected):
            raise ValueError(f"n_kv_heads: got {self.n_kv_heads}, expected {expected} with kind={self.kind!r}")
        self._fill("n_kv_heads", expected)
        if self.n_heads % self._kv_groups():
            raise ValueError(f"n_kv_heads: got {self.n_kv_heads}, expected a divisor of n_heads = {self.n_heads}")
        self._fill("rope_dim", self.head_dim)

    def _check_latent(self) -> None:
        if self.n_kv_heads is not None:
            raise ValueError(f"n_kv_heads: got {self.n_kv_heads}, expected None: kind='mla' caches one latent")
        if self.kv_rank is None:
            raise ValueError("kv_rank: got None, expected an integer with kind='mla'")
        for name in ("n_heads", "kv_rank"):
            if getattr(self, name) % self.latent_heads:
                raise ValueError(
                    f"latent_heads: got {self.latent_heads}, expected a divisor of {name} = {getattr(self, name)}"
                )
        self._fill("rope_dim", self.head_dim // 2)

    def _check_rope(self) -> None:
        limit = None if self.kind == "mla" else self.head_dim
        check_integer("rope_dim", self.rope_dim, 0, limit, most_is="head_dim", even=True)

    @property
    def score_dim(self) -> int:
        """Width of the vectors whose product is a score while training: its root divides the scores in every form."""
        return self.head_dim + (self.rope_dim if self.kind == "mla" else 0)


class DecodeCost(NamedTuple):
    """What one new token of one sequence costs in one layer.

    Attributes:
        flops: floating-point operations, projections and attention.
        cache_bytes: read from the cache. Keys and values that the expanded form of MLA writes and reads are not in it.
        weight_bytes: of the projections.
        intensity: operations of the attention for each byte of the cache.
    """

    flops: float
    cache_bytes: float
    weight_bytes: float
    intensity: float


def kv_cache_elements(config: AttentionConfig) -> int:
    """Return how many numbers a cache keeps for each token and layer.

    g (d_k + d_v) for MHA, MQA and GQA; d_c + d_r for MLA, whatever the number of heads.

    Args:
        config: sizes.

    Source: https://kexue.fm/archives/10091.

    >>> kv_cache_elements(AttentionConfig(d_model=4096, n_heads=32))
    8192
    """
    if config.kind == "mla":
        return config._kv_rank() + config.rope_dim
    return config._kv_groups() * (config.head_dim + config.v_head_dim)


def kv_cache_bytes(
    config: AttentionConfig, *, tokens: int = 1, layers: int = 1, batch: int = 1, bits: float = 16
) -> float:
    """Return the size of a cache in bytes.

    Args:
        config: sizes.
        tokens: of each sequence.
        layers: of the model.
        batch: sequences.
        bits: of one number; 6 for the quantised cache of DeepSeek-V2.

    >>> config, layers = PRESETS["deepseek-v3"]
    >>> kv_cache_bytes(config, layers=layers)
    70272.0
    """
    return kv_cache_elements(config) * tokens * layers * batch * bits / 8


def equivalent_gqa_groups(config: AttentionConfig) -> float:
    """Return the number of groups with which GQA of the same heads would need the same cache.

    Args:
        config: sizes.

    >>> equivalent_gqa_groups(PRESETS["deepseek-v2"][0])
    2.25
    """
    return kv_cache_elements(config) / (config.head_dim + config.v_head_dim)


def decode_cost(
    config: AttentionConfig,
    context: int,
    *,
    form: Literal["expanded", "absorbed"] | None = None,
    bytes_per_element: float = 2,
) -> DecodeCost:
    """Return operations and bytes of decoding one token.

    A product with a matrix of P weights counts 2P operations, the softmax nothing.

    Args:
        config: sizes.
        context: cached tokens.
        form: of MLA: ``"absorbed"`` (default) works on the latents, ``"expanded"`` makes keys and values of the whole
            cache from them at every step. Others have one form: None.
        bytes_per_element: of weights and cache.

    Raises:
        TypeError: ``context`` is no integer.
        ValueError: a ``form`` that the kind does not have, or a negative ``context``.

    Source: https://kexue.fm/archives/10091; arXiv 2405.04434.

    >>> round(decode_cost(PRESETS["deepseek-v2"][0], 4096).intensity)
    242
    """
    c = config
    allowed = (None, "expanded", "absorbed") if c.kind == "mla" else (None,)
    if form not in allowed:
        raise ValueError(f"form: got {form!r}, expected one of {allowed} with kind={c.kind!r}")
    check_integer("context", context, 0)
    out = c.n_heads * c.v_head_dim * c.d_model
    if c.kind == "mla":
        rank, width = c._kv_rank() // c.latent_heads, c.n_heads * c.score_dim
        up = rank * c.n_heads * (c.head_dim + c.v_head_dim)
        query = c.d_model * width if c.q_rank is None else c.q_rank * (c.d_model + width)
        outside = query + c.d_model * (c._kv_rank() + c.rope_dim) + out
        weights = outside + up
        if form == "expanded":  # the up-projection runs over the cache instead of over one token
            projections = 2.0 * outside
            attention = 2.0 * context * (up + c.n_heads * (c.score_dim + c.v_head_dim))
        else:
            projections = 2.0 * weights
            attention = 2.0 * context * c.n_heads * (2 * rank + c.rope_dim)
    else:
        weights = c.d_model * (c.n_heads * c.head_dim + c._kv_groups() * (c.head_dim + c.v_head_dim)) + out
        projections = 2.0 * weights
        attention = 2.0 * context * c.n_heads * (c.head_dim + c.v_head_dim)
    cache = context * kv_cache_elements(c) * bytes_per_element
    intensity = attention / cache if cache else 0.0
    return DecodeCost(projections + attention, cache, weights * bytes_per_element, intensity)


def _grouped(d_model: int, n_heads: int, groups: int, base: float = 10000.0) -> AttentionConfig:
    return AttentionConfig(d_model=d_model, n_heads=n_heads, kind="gqa", n_kv_heads=groups, rope_base=base)


def _deepseek(d_model: int, n_heads: int, q_rank: int | None) -> AttentionConfig:
    return AttentionConfig(
        d_model=d_model, n_heads=n_heads, kind="mla", head_dim=128, kv_rank=512, q_rank=q_rank, rope_dim=64
    )


PRESETS: dict[str, tuple[AttentionConfig, int]] = {
    "llama2-7b": (AttentionConfig(d_model=4096, n_heads=32), 32),
    "llama2-70b": (_grouped(8192, 64, 8), 80),
    "llama3.1-405b": (_grouped(16384, 128, 8, 500000.0), 126),
    "qwen2.5-72b": (_grouped(8192, 64, 8, 1000000.0), 80),
    "deepseek-67b": (_grouped(8192, 64, 8), 95),
    "deepseek-v2-lite": (_deepseek(2048, 16, None), 27),
    "deepseek-v2": (_deepseek(5120, 128, 1536), 60),
    "deepseek-v3": (_deepseek(7168, 128, 1536), 61),
}
"""Attention of published models: configuration and number of layers."""
