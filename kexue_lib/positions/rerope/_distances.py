"""The distance that a rotary embedding is given in place of query position minus key position."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number


def check_rectifier(window: float | int, factor: float | int) -> None:
    """Refuse a window that is no finite number from 0 on, and a factor that is not positive."""
    check_number("window", window, least=0, below=math.inf)
    check_number("factor", factor, above=0)


def rectified_distance(
    relative: Shaped[Tensor, "*shape"], window: float | int, factor: float | int = math.inf
) -> Float64[Tensor, "*shape"]:
    r"""Return the distance that ReRoPE puts in place of r.

    .. math:: \rho(r)=r\text{ for }r<w,\qquad w+(r-w)/k\text{ for }r\ge w

    Args:
        relative: r, query minus key position in tokens, any shape; negative ones (keys behind the query) stay.
        window: w ≥ 0 in tokens, need not be an integer.
        factor: k > 0; infinite (default): every far key stands at w.

    Returns:
        float64, the shape of ``relative``.

    Raises:
        TypeError: ``window`` or ``factor`` is no number.
        ValueError: ``window`` negative or infinite, ``factor`` not positive, or NaN.

    Source: https://kexue.fm/archives/9708.

    >>> rectified_distance(torch.arange(8), 4, 2.0)
    tensor([0.0000, 1.0000, 2.0000, 3.0000, 4.0000, 4.5000, 5.0000, 5.5000], dtype=torch.float64)
    """
    check_rectifier(window, factor)
    relative = relative.to(torch.float64)
    return torch.where(relative < window, relative, window + (relative - window) / factor)


def required_factor(length: int, train_length: int, window: float | int) -> float:
    r"""Return the smallest k with which no distance at a length exceeds the largest one of training.

    .. math:: k\ge\frac{L-1-w}{T-1-w},\qquad\text{at least }1

    Args:
        length: L in tokens, at least 1.
        train_length: T in tokens, at least 1.
        window: w, at most T − 1 tokens.

    Returns:
        The least float that is not below the fraction; infinite for w = T − 1 and L > T.

    Raises:
        TypeError: a length is no integer, ``window`` no number.
        ValueError: ``window`` negative, NaN or above T − 1, the largest distance of training.

    >>> required_factor(4096, 512, 128)
    10.357702349869452
    """
    check_integer("length", length, 1)
    check_integer("train_length", train_length, 1)
    check_number("window", window, least=0, most=train_length - 1)
    if length <= train_length:
        return 1.0
    beyond, room = length - 1 - Fraction(window), train_length - 1 - Fraction(window)
    if room == 0:
        return math.inf
    exact = beyond / room
    nearest = float(exact)
    return nearest if nearest >= exact else math.nextafter(nearest, math.inf)


def supported_length(train_length: int, window: float | int, factor: float | int = math.inf) -> int | None:
    r"""Return the largest length at which no distance exceeds the largest one of training.

    .. math:: \lfloor w+1+k(T-1-w)\rfloor

    Args:
        train_length: T in tokens, at least 1.
        window: w, at most T − 1 tokens.
        factor: k > 0.

    Returns:
        Tokens, or None for an infinite ``factor``: every length.

    Raises:
        TypeError: ``train_length`` is no integer, ``window`` or ``factor`` no number.
        ValueError: ``window`` negative, NaN or above T − 1; ``factor`` not positive.

    >>> supported_length(512, 128, 8.0), supported_length(512, 128)
    (3193, None)
    """
    check_integer("train_length", train_length, 1)
    check_number("window", window, least=0, most=train_length - 1)
    check_number("factor", factor, above=0)
    if math.isinf(factor):
        return None
    return math.floor(Fraction(window) + 1 + Fraction(factor) * (train_length - 1 - Fraction(window)))


def self_extend_distance(
    q_positions: Shaped[Tensor, "*batch n_q"], k_positions: Shaped[Tensor, "*batch n_k"], window: int, group: int
) -> Int64[Tensor, "*batch n_q n_k"]:
    r"""Return the distances of Self-Extend: exact below the window, then of groups of tokens.

    .. math:: \lfloor i/G\rfloor-\lfloor j/G\rfloor+w-\lfloor w/G\rfloor\qquad\text{for }i-j\ge w

    Args:
        q_positions: i, integers.
        k_positions: j, integers.
        window: w ≥ 0 tokens.
        group: G ≥ 1 tokens.

    Returns:
        int64; keys behind the query keep their negative distance.

    Raises:
        TypeError: positions, ``window`` or ``group`` are no integers.
        ValueError: ``window`` negative or ``group`` below 1.

    Source: Jin et al., *LLM Maybe LongLM*, arXiv 2401.01325, section 3.

    >>> self_extend_distance(torch.tensor([7]), torch.arange(8), 4, 2)
    tensor([[5, 5, 4, 4, 3, 2, 1, 0]])
    """
    check_integer("window", window, 0)
    check_integer("group", group, 1)
    i, j = _columns(q_positions, k_positions)
    far = i // group - j // group + window - window // group
    return torch.where(i - j < window, i - j, far)


def dual_chunk_distance(
    q_positions: Shaped[Tensor, "*batch n_q"], k_positions: Shaped[Tensor, "*batch n_k"], chunk: int, train_length: int
) -> Int64[Tensor, "*batch n_q n_k"]:
    r"""Return the distances of dual chunk attention: exact within a chunk of s tokens, nearly so to the chunk before.

    With :math:`t=i\bmod s` and :math:`u=j\bmod s`: t − u in the same chunk, :math:`\min(s+t,T-1)-u` to the chunk
    before, and T − 1 − u to all older ones.

    Args:
        q_positions: i, integers.
        k_positions: j, integers.
        chunk: s, 1…T tokens.
        train_length: T tokens.

    Returns:
        int64; keys behind the query keep their negative distance.

    Raises:
        TypeError: positions, ``chunk`` or ``train_length`` are no integers.
        ValueError: ``train_length`` below 1, or ``chunk`` outside 1…T.

    Source: An et al., *Training-Free Long-Context Scaling*, arXiv 2402.17463, section 3.

    >>> dual_chunk_distance(torch.tensor([9]), torch.arange(10), 4, 6)
    tensor([[5, 4, 3, 2, 5, 4, 3, 2, 1, 0]])
    """
    check_integer("train_length", train_length, 1)
    check_integer("chunk", chunk, 1, train_length, most_is="train_length")
    i, j = _columns(q_positions, k_positions)
    t, u, chunks = i % chunk, j % chunk, i // chunk - j // chunk
    older = torch.where(chunks == 1, (chunk + t).clamp(max=train_length - 1), train_length - 1) - u
    return torch.where((chunks == 0) | (i < j), i - j, older)


def _columns(q_positions: Tensor, k_positions: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of queries as a column, of keys as a row."""
    for name, positions in (("q_positions", q_positions), ("k_positions", k_positions)):
        check_dtype(name, positions, "integer")
    return q_positions.long().unsqueeze(-1), k_positions.long().unsqueeze(-2)
