"""The four terms of a score with biases, the kernel without a matrix of scores, and means by distance."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib.positions.rope import Layout, apply_rotary, cos_sin
from kexue_lib.positions.rope_bias._kernel import check_biases, check_frequencies

_ROWS = 128  # of a block: few enough for the small triangles to stay in the cache, enough to hide the calls


class ScoreTerms(NamedTuple):
    r"""What a score :math:`(R_m(q+a))^\top R_n(k+b)` consists of, unscaled and unmasked.

    ``content`` is :math:`q^\top Rk`, ``bias_key`` :math:`a^\top Rk`, ``query_bias`` :math:`q^\top Rb`, each
    ``(..., H, n, N)``; ``bias_bias`` is :math:`a^\top Rb`, ``(H, n, N)`` (with leading dimensions where the positions
    have them). Their sum is the score.
    """

    content: Tensor
    bias_key: Tensor
    query_bias: Tensor
    bias_bias: Tensor


@without_autocast
def score_terms(
    q: Float[Tensor, "*batch H n d"],
    k: Float[Tensor, "*batch G N d"],
    a: Float[Tensor, "H d"],
    b: Float[Tensor, "G d"],
    inv_freq: Float[Tensor, " pairs"],
    *,
    q_positions: Shaped[Tensor, "*rows n"] | None = None,
    k_positions: Shaped[Tensor, "*rows N"] | None = None,
    layout: Layout = "half",
) -> ScoreTerms:
    r"""Return the four terms of all scores.

    .. math:: (q+a)^\top R_{n-m}(k+b)=q^\top Rk+a^\top Rk+q^\top Rb+a^\top Rb

    Args:
        q: queries ``(..., H, n, d)`` before biases and rotation.
        k: keys ``(..., G, N, d)``, G a divisor of H; query head h uses key head h // (H // G).
        a: ``(H, d)`` added to queries.
        b: ``(G, d)`` added to keys.
        inv_freq: ``(d/2,)`` radians per token; 0 for pairs that are not rotated.
        q_positions: ``(n,)`` or with the batch dimensions of ``q``; default the last n of N.
        k_positions: ``(N,)`` or with the batch dimensions of ``k``; default 0…N − 1.
        layout: which components form a pair.

    Returns:
        :class:`ScoreTerms` in the dtype of the inputs.

    Raises:
        ValueError: shapes that do not fit together, d odd, ``inv_freq`` of another length, an unknown ``layout``.

    Cost: three products of the size of the score matrix, and one without the batch: for looking, not for training.

    >>> q, k, a = torch.randn(2, 5, 4), torch.randn(1, 5, 4), torch.ones(2, 4)
    >>> [tuple(t.shape) for t in score_terms(q, k, a, a[:1], torch.ones(2))]
    [(2, 5, 5), (2, 5, 5), (2, 5, 5), (2, 5, 5)]
    """
    _check(q, k, a, b, inv_freq, layout)
    q_turned, a_turned = _turned(q, a, _query_positions(q, k, q_positions), inv_freq, layout)
    k_turned, b_turned = _turned(k, b, _key_positions(k, k_positions), inv_freq, layout)
    group = q.shape[-3] // k.shape[-3]
    keys, biases = (t.repeat_interleave(group, dim=-3).mT for t in (k_turned, b_turned))
    return ScoreTerms(q_turned @ keys, a_turned @ keys, q_turned @ biases, a_turned @ biases)


def append_kernel(
    q: Float[Tensor, "*batch H n d"],
    k: Float[Tensor, "*batch H N d"],
    a: Float[Tensor, "H d"],
    b: Float[Tensor, "H d"],
    inv_freq: Float[Tensor, " pairs"],
    *,
    q_positions: Shaped[Tensor, "*rows n"] | None = None,
    k_positions: Shaped[Tensor, "*rows N"] | None = None,
    layout: Layout = "half",
) -> tuple[Float[Tensor, "*batch H n 2*d"], Float[Tensor, "*batch H N 2*d"]]:
    r"""Return rotated queries and keys of twice the width whose products contain the kernel of the biases.

    .. math:: q'=[R_mq,\ R_ma],\quad k'=[R_nk,\ R_nb]\quad\Rightarrow\quad q'\cdot k'=q^\top R_{n-m}k+a^\top R_{n-m}b

    No n × N matrix of biases is made, so that fused attention can be used: with ``scale=d**-0.5`` given by hand,
    since its default would be :math:`(2d)^{-1/2}`.

    Args:
        q: ``(..., H, n, d)``.
        k: ``(..., H, N, d)``, as many heads.
        a: ``(H, d)``.
        b: ``(H, d)``.
        inv_freq: ``(d/2,)`` radians per token.
        q_positions: ``(n,)`` or with the batch dimensions of ``q``; default the last n of N.
        k_positions: ``(N,)`` or with the batch dimensions of ``k``; default 0…N − 1.
        layout: which components form a pair.

    Returns:
        ``(..., H, n, 2d)`` and ``(..., H, N, 2d)`` in the dtypes of ``q`` and ``k``.

    Raises:
        ValueError: shapes that do not fit together, d odd, ``inv_freq`` of another length, an unknown ``layout``.

    Cost: O((n + N) d) time and memory. Source: arXiv 2202.10447 (the term), with an n × N matrix there.

    >>> q, k = append_kernel(torch.randn(2, 3, 4), torch.randn(2, 5, 4), *torch.ones(2, 2, 4), torch.ones(2))
    >>> q.shape, k.shape
    (torch.Size([2, 3, 8]), torch.Size([2, 5, 8]))
    """
    _check(q, k, a, b, inv_freq, layout)
    check_shape("b", b, tuple(a.shape), "as a has")
    q_turned = _turned(q, a, _query_positions(q, k, q_positions), inv_freq, layout)
    k_turned = _turned(k, b, _key_positions(k, k_positions), inv_freq, layout)
    q_long, k_long = (torch.cat([x, y.to(x.dtype).expand_as(x)], dim=-1) for x, y in (q_turned, k_turned))
    return q_long, k_long


def distance_profile(scores: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n"]:
    r"""Return the mean of a causal matrix at every distance.

    .. math:: p_r=\frac1{n-r}\sum_{i=r}^{n-1}s_{i,i-r}

    Args:
        scores: ``(..., n, n)``, query before key; what lies above the diagonal is not looked at.

    Returns:
        ``(..., n)``, entry r for the pairs with query minus key = r; half types are summed in float32.

    Raises:
        ValueError: ``scores`` not square.

    Cost: one read of the lower half, in views of its memory; no loop over r and no copy of a contiguous input.

    >>> distance_profile(torch.tensor([[1.0, 9.0], [5.0, 3.0]]))
    tensor([2., 5.])
    """
    check_dtype("scores", scores, "floating")
    n = scores.shape[-1] if scores.dim() else 0
    if scores.dim() < 2 or scores.shape[-2] != n:
        raise ValueError(f"scores: got shape {tuple(scores.shape)}, expected square (..., n, n)")
    if n == 0:
        return scores.sum(-1)
    work = torch.promote_types(scores.dtype, torch.float32)
    first, sums = 0, scores.new_zeros(scores.shape[:-1], dtype=work)
    for rows in scores.split(_ROWS, dim=-2):
        part = _block_sums(rows, first, work)
        first += rows.shape[-2]
        sums = sums + F.pad(part, (0, n - first))
    return (sums / torch.arange(n, 0, -1, device=scores.device)).to(scores.dtype)


def _block_sums(rows: Tensor, first: int, dtype: torch.dtype) -> Tensor:
    """Sums by distance 0, 1, … of consecutive rows ``(..., h, n)``, the first of which is row ``first``."""
    h, n = rows.shape[-2:]
    # In steps of n + 1, memory runs along diagonals: column c of the view is at distance first − c in every row.
    near = rows.flatten(-2).unfold(-1, first + 1, n + 1).sum(-2, dtype=dtype).flip(-1)
    # What is left is a triangle. Read as rows of h + 1 after h − 1 zeros, its diagonals become columns too.
    rest = F.pad(rows[..., :h].tril(-1).flatten(-2), (h - 1, 1)).unflatten(-1, (h, h + 1))
    far = rest.sum(-2, dtype=dtype)[..., : h - 1].flip(-1)
    return torch.cat([near, far], dim=-1)


def _turned(
    x: Tensor, bias: Tensor, positions: Tensor, inv_freq: Tensor, layout: Layout
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Vectors ``(..., heads, n, d)`` and one bias a head, both rotated to all positions."""
    cos, sin = cos_sin(positions.to(x.device), inv_freq, dtype=torch.promote_types(x.dtype, torch.float32))
    if positions.ndim > 1:  # (batch, n, pairs) -> (batch, 1, n, pairs): all heads share the table
        cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)
    rows = bias.to(x.dtype)[:, None].expand(*cos.shape[:-3], len(bias), x.shape[-2], -1)
    return apply_rotary(x, cos, sin, layout=layout), apply_rotary(rows, cos, sin, layout=layout)


def _query_positions(q: Tensor, k: Tensor, positions: Tensor | None) -> Tensor:
    n, N = q.shape[-2], k.shape[-2]
    return _checked("q_positions", torch.arange(N - n, N, device=q.device) if positions is None else positions, n)


def _key_positions(k: Tensor, positions: Tensor | None) -> Tensor:
    N = k.shape[-2]
    return _checked("k_positions", torch.arange(N, device=k.device) if positions is None else positions, N)


def _checked(name: str, positions: Tensor, n: int) -> Tensor:
    check_shape(name, positions, ("...", n), "as many as vectors")
    return positions


def _check(q: Tensor, k: Tensor, a: Tensor, b: Tensor, inv_freq: Tensor, layout: str) -> None:
    for name, x in (("q", q), ("k", k)):
        check_dtype(name, x, "floating")
        check_shape(name, x, ("...", "heads", "length", "d"))
    check_biases(a, b, layout)
    check_frequencies(inv_freq, a.shape[-1])
    (H, _, dim), G = q.shape[-3:], k.shape[-3]
    check_shape("a", a, (H, dim), "as q has heads and width")
    check_shape("b", b, (G, k.shape[-1]), "as k has heads and width")
    if G == 0 or H % G:
        raise ValueError(f"k: got {G} heads, expected a divisor of the {H} heads of q")
