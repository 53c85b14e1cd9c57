r"""Output layers that share the embedding, the loss they start with, and a cross-entropy that fits large vocabularies.

Source: Su Jianlin, "Re-exploring the shared embedding at the output of language models", 2023,
https://kexue.fm/archives/9698.

Notation: vocabulary size n, width d, embedding rows :math:`w_i` with independent entries of mean 0 and standard
deviation σ. Schemes, what stands between the last hidden vector and the product with the embedding:
``"tied"`` nothing; ``"scaled"`` a factor :math:`1/\sqrt d`; ``"swap"`` the halves of the vector change places;
``"shuffle"`` channels are shuffled; ``"orthogonal"`` a matrix that starts orthogonal; ``"untied"`` a matrix of its own
in place of the embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm

from kexue_lib._arguments import check_dim, check_integer, check_number, check_one_of
from kexue_lib.attention.tied_embedding._linear_cross_entropy import linear_cross_entropy

__all__ = [
    "FactorizedEmbedding",
    "SharedHead",
    "bigram_logits",
    "channel_shuffle",
    "expected_initial_loss",
    "half_swap",
    "linear_cross_entropy",
    "recommended_std",
]

Scheme = Literal["tied", "scaled", "swap", "shuffle", "orthogonal", "untied"]
SCHEMES = ("tied", "scaled", "swap", "shuffle", "orthogonal", "untied")


def expected_initial_loss(
    vocab_size: int,
    d: int,
    std: float,
    *,
    scheme: Scheme = "tied",
    logit_scale: float | None = None,
    repeat_prob: float = 0.0,
    refined: bool = True,
) -> float:
    r"""Return the loss in nats of a model whose blocks still are the identity, before any training.

    The hidden vector of token i is :math:`\sqrt d\,w_i/\|w_i\|`. With scale c its own logit is about
    :math:`m=c\,d\sigma` for the schemes that keep it (0 for the others), and the others are normal with variance
    :math:`v=c^2d\sigma^2`:

    .. math:: \log\big(e^m+(n-1)e^{v/2}\big)-\rho m,

    with :math:`\sqrt{2v\log(n-1)}` for :math:`\log(n-1)+v/2` once :math:`v>2\log(n-1)`: there the largest
    logit decides.

    Args:
        vocab_size: n, at least 2.
        d: width.
        std: σ, positive.
        scheme: see the module.
        logit_scale: c; default 1, and :math:`1/\sqrt d` for ``"scaled"``.
        repeat_prob: ρ, how often the next token is the present one.
        refined: False leaves out v, as the article does.

    Raises:
        TypeError: ``std`` or ``repeat_prob`` is no number.
        ValueError: ``vocab_size`` < 2, ``d`` < 1, ``std`` ≤ 0, an unknown ``scheme``, ``repeat_prob`` outside [0, 1].

    Source: https://kexue.fm/archives/9698, and for v the moment generating function of the normal distribution.

    >>> round(expected_initial_loss(8192, 256, 256**-0.5), 2)
    16.0
    """
    _check_sizes(vocab_size, d, scheme)
    check_number("std", std, above=0, below=math.inf)
    check_number("repeat_prob", repeat_prob, least=0, most=1)
    scale = _default_scale(scheme, d) if logit_scale is None else logit_scale
    own = scale * d * std if scheme in ("tied", "scaled") else 0.0
    variance = scale**2 * d * std**2 if refined else 0.0
    log_others = math.log(vocab_size - 1)
    others = log_others + variance / 2 if variance <= 2 * log_others else math.sqrt(2 * variance * log_others)
    high, low = max(own, others), min(own, others)
    return high + math.log1p(math.exp(low - high)) - repeat_prob * own


def recommended_std(vocab_size: int, d: int, *, scheme: Scheme = "tied") -> float:
    r"""Return a standard deviation of the embedding with which training starts near the uniform loss.

    :math:`\log n/d` for ``"tied"``: then the own logit weighs as much as all others together. :math:`1/\sqrt d` else.

    Args:
        vocab_size: n, at least 2.
        d: width.
        scheme: see the module.

    Raises:
        ValueError: ``vocab_size`` < 2, ``d`` < 1 or an unknown ``scheme``.

    Source: https://kexue.fm/archives/9698.

    >>> round(recommended_std(32000, 4096), 5)
    0.00253
    """
    _check_sizes(vocab_size, d, scheme)
    return math.log(vocab_size) / d if scheme == "tied" else d**-0.5


def half_swap(x: Shaped[Tensor, "..."], dim: int = -1) -> Shaped[Tensor, "..."]:
    """Exchange the two halves of a dimension; doing it twice changes nothing.

    Args:
        x: any shape, even in ``dim``.
        dim: what is halved.

    Raises:
        ValueError: an odd size.

    Source: https://kexue.fm/archives/9698.

    >>> half_swap(torch.arange(4))
    tensor([2, 3, 0, 1])
    """
    check_dim(dim, x)
    if x.shape[dim] % 2:
        raise ValueError(f"x: got size {x.shape[dim]} in dimension {dim}, expected an even one")
    return torch.cat(x.chunk(2, dim)[::-1], dim)


def channel_shuffle(x: Shaped[Tensor, "..."], groups: int, dim: int = -1) -> Shaped[Tensor, "..."]:
    """Write a dimension as a matrix of ``groups`` rows and read it by columns.

    Channel 0 and the last one stay, and with them every channel a with a (g − 1) divisible by d − 1.
    ``channel_shuffle(channel_shuffle(x, g), d // g)`` is x.

    Args:
        x: any shape.
        groups: g, a divisor of the size of ``dim`` other than 1 and the size itself.
        dim: what is shuffled.

    Raises:
        TypeError: ``groups`` is no integer.
        ValueError: such a ``groups``.

    Source: Zhang et al., *ShuffleNet*, arXiv 1707.01083.

    >>> channel_shuffle(torch.arange(6), 2)
    tensor([0, 3, 1, 4, 2, 5])
    """
    check_dim(dim, x)
    d = x.shape[dim]
    check_integer("groups", groups)
    if not 1 < groups < d or d % groups:
        raise ValueError(f"groups: got {groups}, expected a divisor of {d} other than 1 and {d}")
    dim = dim % x.ndim
    return x.unflatten(dim, (groups, d // groups)).transpose(dim, dim + 1).flatten(dim, dim + 1)


def bigram_logits(
    weight: Float[Tensor, "n d"], tokens: Int[Tensor, "*batch"], *, scheme: Scheme = "tied", **options: Any
) -> Float[Tensor, "*batch n"]:
    """Return what a model predicts whose blocks are the identity: embedding, RMS norm, head.

    Args:
        weight: embedding ``(n, d)``.
        tokens: present tokens.
        scheme: see the module.
        **options: of :class:`SharedHead`.

    Returns:
        Logits ``(..., n)``.

    >>> bigram_logits(torch.eye(2), torch.tensor([0]))
    tensor([[1.4142, 0.0000]])
    """
    head = SharedHead(nn.Embedding.from_pretrained(weight.detach()), scheme=scheme, **options)
    hidden = rms_norm(weight[tokens], weight.shape[1:])
    table = head.weight if scheme == "untied" else weight
    return linear(head.transform(hidden) * head.logit_scale, table, head.bias)


class SharedHead(nn.Module):
    """Logits from the last hidden vector with the weight of the embedding.

    Args:
        embedding: whose weight is shared; ``"untied"`` starts a weight of its own with the same spread.
        scheme: see the module.
        groups: of ``"shuffle"``; default: the divisor of d nearest to √d from below.
        bias: add one to each logit, and to the projection of ``"orthogonal"``.
        activation: after the projection of ``"orthogonal"``, as BERT's head has it.
        logit_scale: of the logits; default 1, and 1/√d for ``"scaled"``.
        generator: source of the initial weights of ``"orthogonal"`` and ``"untied"``.

    Raises:
        ValueError: an unknown ``scheme``, an odd width for ``"swap"``, no or a bad ``groups`` for ``"shuffle"``, an
            option that the scheme does not have.

    Source: https://kexue.fm/archives/9698; arXiv 1608.05859.

    >>> head = SharedHead(nn.Embedding(11, 4), scheme="swap")
    >>> head(torch.zeros(2, 4)).shape
    torch.Size([2, 11])
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        *,
        scheme: Scheme = "tied",
        groups: int | None = None,
        bias: bool = False,
        activation: Callable[[Tensor], Tensor] | None = None,
        logit_scale: float | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        n, d = embedding.weight.shape
        _check_sizes(n, d, scheme)
        if scheme == "swap" and d % 2:
            raise ValueError(f"embedding: got width {d}, expected an even one for scheme 'swap'")
        if groups is not None and scheme != "shuffle":
            raise ValueError(f"groups: got {groups}, expected None for scheme {scheme!r}")
        if activation is not None and scheme != "orthogonal":
            raise ValueError(f"activation: got one, expected None for scheme {scheme!r}")
        self.scheme, self.activation = scheme, activation
        self.groups = _default_groups(d) if scheme == "shuffle" and groups is None else groups
        if self.groups is not None:
            channel_shuffle(torch.empty(d), self.groups)  # refuses bad groups now rather than at the first call
        self.logit_scale = _default_scale(scheme, d) if logit_scale is None else float(logit_scale)
        like = {"device": embedding.weight.device, "dtype": embedding.weight.dtype}
        self._shared = (embedding,)  # past the registration: its weight is read at every use, so the tie cannot break
        if scheme == "untied":
            std = embedding.weight.detach().std().item()
            self.own_weight = nn.Parameter(torch.empty(n, d, **like).normal_(0.0, std, generator=generator))
        if scheme == "orthogonal":
            self.proj = nn.Linear(d, d, bias=bias, **like)
            nn.init.orthogonal_(self.proj.weight, generator=generator)
            if bias:
                nn.init.zeros_(self.proj.bias)
        self.bias = nn.Parameter(torch.zeros(n, **like)) if bias else None

    @property
    def weight(self) -> Tensor:
        """The weight of the logits: the embedding's as it is now, or the head's own for ``"untied"``."""
        return self.own_weight if self.scheme == "untied" else self._shared[0].weight

    def transform(self, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return what is multiplied with the embedding.

        Args:
            hidden: ``(..., d)``, normalised.
        """
        if self.scheme == "swap":
            return half_swap(hidden)
        if self.groups is not None:  # "shuffle"
            return channel_shuffle(hidden, self.groups)
        if self.scheme == "orthogonal":
            hidden = self.proj(hidden)
            return hidden if self.activation is None else self.activation(hidden)
        return hidden

    def forward(self, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch n"]:
        """Return logits.

        Args:
            hidden: ``(..., d)``, normalised.
        """
        return linear(self.transform(hidden) * self.logit_scale, self.weight, self.bias)

    def loss(self, hidden: Float[Tensor, "*batch d"], targets: Int[Tensor, "*batch"], **options: Any) -> Tensor:
        """Return the cross-entropy without ever holding all logits.

        Args:
            hidden: ``(..., d)``, normalised.
            targets: ``(...)``.
            **options: of :func:`linear_cross_entropy`.
        """
        transformed = self.transform(hidden)
        return linear_cross_entropy(
            transformed, self.weight, targets, bias=self.bias, scale=self.logit_scale, **options
        )

    def extra_repr(self) -> str:
        """Return the options that the submodules do not show."""
        return f"scheme={self.scheme!r}, n={len(self.weight)}, logit_scale={self.logit_scale:.4g}"


class FactorizedEmbedding(nn.Module):
    """An embedding of small width, mapped to the width of the model, and its output layer.

    Args:
        vocab_size: n.
        d_embed: width of the embedding.
        d_model: width of the model.
        scheme: ``"orthogonal"``: the output has a map of its own to the small width, with orthonormal rows at the
            start; ``"tied"``: it uses the transpose of the input's map.
        std: of the embedding; default 1/√d_embed.
        generator: source of the initial weights.

    Raises:
        TypeError: ``d_embed`` is no integer, ``std`` is no number.
        ValueError: ``d_embed`` > ``d_model``, another ``scheme``, ``std`` ≤ 0.

    Cost: n d_embed + d_embed d_model (tied) or + 2 d_embed d_model parameters. Source: arXiv 1909.11942 (ALBERT).

    >>> layer = FactorizedEmbedding(100, 4, 16)
    >>> layer.attend(layer(torch.tensor([1, 2]))).shape
    torch.Size([2, 100])
    """

    def __init__(
        self,
        vocab_size: int,
        d_embed: int,
        d_model: int,
        *,
        scheme: Literal["tied", "orthogonal"] = "orthogonal",
        std: float | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        check_one_of("scheme", scheme, ("tied", "orthogonal"))
        check_integer("d_embed", d_embed, 1, d_model, most_is="d_model")
        _check_sizes(vocab_size, d_embed, scheme)
        spread: float = d_embed**-0.5 if std is None else std
        check_number("std", spread, above=0, below=math.inf)
        self.embedding = nn.Embedding(vocab_size, d_embed)
        nn.init.normal_(self.embedding.weight, 0.0, spread, generator=generator)
        self.up = nn.Linear(d_embed, d_model, bias=False)
        nn.init.orthogonal_(self.up.weight, generator=generator)
        self.down = None
        if scheme == "orthogonal":
            self.down = nn.Linear(d_model, d_embed, bias=False)
            nn.init.orthogonal_(self.down.weight, generator=generator)

    def forward(self, tokens: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch d_model"]:
        """Return input vectors.

        Args:
            tokens: ids.
        """
        return self.up(self.embedding(tokens))

    def attend(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch n"]:
        """Return logits.

        Args:
            hidden: ``(..., d_model)``.
        """
        small = linear(hidden, self.up.weight.T) if self.down is None else self.down(hidden)
        return linear(small, self.embedding.weight)


def _default_scale(scheme: str, d: int) -> float:
    return d**-0.5 if scheme == "scaled" else 1.0


def _default_groups(d: int) -> int:
    divisors = [g for g in range(2, math.isqrt(d) + 1) if d % g == 0]
    if not divisors:
        raise ValueError(f"groups: got None for width {d}, expected a width with a divisor other than 1 and itself")
    return divisors[-1]


def _check_sizes(vocab_size: int, d: int, scheme: str) -> None:
    check_one_of("scheme", scheme, SCHEMES)
    check_integer("vocab_size", vocab_size, 2)
    check_integer("d", d, 1)
