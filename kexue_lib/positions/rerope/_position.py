"""Position objects with distances of another kind, for trained models of this library."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib.positions.rerope._attention import average_of_visible, check_frequencies, check_heads, rerope_attention
from kexue_lib.positions.rerope._distances import check_rectifier
from kexue_lib.positions.rerope._rotations import score_dtype
from kexue_lib.positions.rope import Layout, log_length_scale


class ReRoPE:
    r"""Position object: ReRoPE or Leaky ReRoPE; assign it to a trained model's ``position``.

    Args:
        inv_freq: ``(pairs,)`` radians per position, those of the model's training.
        window: w ≥ 0 tokens, well inside the training length.
        factor: k > 0; infinite for ReRoPE.
        layout: of the rotary pairs.
        train_length: T in tokens: multiplies queries by :math:`\max(1,\log_T(p+1))`. Default None: no factor, also for
            models that were trained with their own.

    Raises:
        TypeError, ValueError: as :func:`~kexue_lib.positions.rerope.rerope_attention`; ``train_length`` below 2.

    >>> position = ReRoPE(torch.ones(2), window=16, train_length=64)
    >>> position.query_scale(torch.tensor([0, 63, 4095]))
    tensor([1., 1., 2.], dtype=torch.float64)
    """

    cache_raw_keys = True

    layout: Layout

    def __init__(
        self,
        inv_freq: Float[Tensor, " pairs"],
        *,
        window: float | int,
        factor: float | int = math.inf,
        layout: Layout = "half",
        train_length: int | None = None,
    ):
        check_rectifier(window, factor)
        self.window, self.factor = window, factor
        self.inv_freq, self.layout, self.train_length = _settings(inv_freq, layout, train_length)

    def query_scale(self, positions: Tensor) -> Float[Tensor, "*shape"]:
        """Return what queries are multiplied by.

        Args:
            positions: p ≥ 0 in tokens, any shape.
        """
        return _query_scale(positions, self.train_length)

    def attend(
        self,
        q: Float[Tensor, "*batch H n d"],
        k: Float[Tensor, "*batch G N d2"],
        v: Float[Tensor, "*batch G2 N2 dv"],
        *,
        q_positions: Tensor,
        k_positions: Tensor,
        causal: bool,
        scale: float | None = None,
    ) -> Float[Tensor, "*batch H n dv"]:
        """Return attention over unrotated queries and keys.

        Args:
            q: ``(..., H, n, d)``.
            k: ``(..., G, N, d)``, cached ones included.
            v: ``(..., G, N, dv)``.
            q_positions: ``(n,)``, or one row for each row of the batch; tokens.
            k_positions: the same for keys.
            causal: must be True.
            scale: of the scores; default ``d ** -0.5``.

        Raises:
            ValueError: ``causal`` is False: distances behind the query have no rectified form.
        """
        _check_causal(causal)
        return rerope_attention(
            q,
            k,
            v,
            self.inv_freq,
            window=self.window,
            factor=self.factor,
            q_positions=q_positions,
            k_positions=k_positions,
            scale=scale,
            layout=self.layout,
        )


class DistanceRotary:
    r"""Position object with any distance in place of i − j, for trials: it holds n × N matrices.

    Args:
        inv_freq: ``(pairs,)`` radians per position.
        distance: ``distance(q_positions, k_positions) -> (..., n, N)``; negative entries hide a key.
        layout: of the rotary pairs.
        train_length: as in :class:`ReRoPE`.

    Raises:
        TypeError: ``inv_freq`` is not floating.
        ValueError: an unknown ``layout``; ``train_length`` below 2.

    >>> from functools import partial
    >>> from kexue_lib.positions.rerope import self_extend_distance
    >>> position = DistanceRotary(torch.ones(1), partial(self_extend_distance, window=16, group=4))
    >>> q = k = v = torch.ones(1, 1, 3, 2)
    >>> position.attend(q, k, v, q_positions=torch.arange(3), k_positions=torch.arange(3), causal=True).shape
    torch.Size([1, 1, 3, 2])
    """

    cache_raw_keys = True

    layout: Layout

    def __init__(
        self,
        inv_freq: Float[Tensor, " pairs"],
        distance: Callable[[Tensor, Tensor], Tensor],
        *,
        layout: Layout = "half",
        train_length: int | None = None,
    ):
        self.distance = distance
        self.inv_freq, self.layout, self.train_length = _settings(inv_freq, layout, train_length)

    def query_scale(self, positions: Tensor) -> Float[Tensor, "*shape"]:
        """Return what queries are multiplied by.

        Args:
            positions: p ≥ 0 in tokens, any shape.
        """
        return _query_scale(positions, self.train_length)

    def attend(
        self,
        q: Float[Tensor, "*batch H n d"],
        k: Float[Tensor, "*batch G N d2"],
        v: Float[Tensor, "*batch G2 N2 dv"],
        *,
        q_positions: Tensor,
        k_positions: Tensor,
        causal: bool,
        scale: float | None = None,
    ) -> Float[Tensor, "*batch H n dv"]:
        """Return attention over unrotated queries and keys.

        Args:
            q: ``(..., H, n, d)``.
            k: ``(..., G, N, d)``.
            v: ``(..., G, N, dv)``.
            q_positions: ``(n,)``, or one row for each row of the batch; tokens.
            k_positions: the same for keys.
            causal: must be True.
            scale: of the scores; default ``d ** -0.5``.

        Raises:
            ValueError: ``causal`` is False.
        """
        _check_causal(causal)
        distance = self.distance(q_positions, k_positions)
        return distance_attention(q, k, v, self.inv_freq, distance, scale=scale, layout=self.layout)


@without_autocast
@without_autocast
def distance_attention(
    q: Float[Tensor, "*batch H n d"],
    k: Float[Tensor, "*batch G N d2"],
    v: Float[Tensor, "*batch G2 N2 dv"],
    inv_freq: Float[Tensor, " pairs"],
    distance: Tensor,
    *,
    scale: float | None = None,
    layout: Layout = "half",
) -> Float[Tensor, "*batch H n dv"]:
    r"""Attention in which every pair of tokens has the rotary distance that a matrix says.

    Nothing is rotated: with pairs :math:`(x_1,x_2)` of the query and :math:`(y_1,y_2)` of the key, a score is

    .. math:: \sum_{\text{pairs}}(x_1y_1+x_2y_2)\cos\rho\theta+(x_1y_2-x_2y_1)\sin\rho\theta

    Args:
        q: ``(..., H, n, d)``, not rotated.
        k: ``(..., G, N, d)``, not rotated; G divides H.
        v: ``(..., G, N, dv)``.
        inv_freq: ``(pairs,)`` radians per position.
        distance: ρ, ``(n, N)`` or ``(*batch, n, N)``; a negative entry hides the key.
        scale: of the scores; default ``d ** -0.5``.
        layout: of the rotary pairs.

    Returns:
        ``(..., H, n, dv)`` in the dtype of ``q``; zeros where a query sees no key.

    Raises:
        TypeError: ``inv_freq`` is not floating.
        ValueError: ``k`` (dim, heads), ``v`` (heads, length), or ``layout``.

    Cost: O(n N d) time with a large constant, O(n N) memory for each head.

    >>> q = k = v = torch.eye(2).view(1, 2, 2)
    >>> distance_attention(q, k, v, torch.ones(1), torch.tensor([[0, -1], [1, 0]]))[0, 0]
    tensor([1., 0.])
    """
    check_heads(q, k, v)
    check_frequencies(inv_freq, q.shape[-1])
    check_dtype("distance", distance, "real")
    check_shape("distance", distance, ("...", q.shape[-2], k.shape[-2]), "as q and k have lengths")
    check_one_of("layout", layout, ("half", "interleaved"))
    weight: float = q.shape[-1] ** -0.5 if scale is None else scale
    check_number("scale", weight)
    dtype, work, group = q.dtype, score_dtype(q), q.shape[-3] // k.shape[-3]
    k, v = (x.repeat_interleave(group, -3).to(work) for x in (k, v))
    q = q.to(work) * weight
    distance = distance.unsqueeze(-3) if distance.ndim > 2 else distance
    pairs = len(inv_freq)
    scores = q[..., 2 * pairs :] @ k[..., 2 * pairs :].mT
    sign = torch.tensor([-1.0, 1.0], dtype=work, device=q.device)
    places = range(pairs) if layout == "half" else range(0, 2 * pairs, 2)
    for theta, a in zip(inv_freq.to(distance.device, torch.float64), places):
        b = a + (pairs if layout == "half" else 1)
        angle = distance.double() * theta
        pair, crossed = k[..., [a, b]].mT, q[..., [b, a]] * sign
        scores = torch.addcmul(scores, q[..., [a, b]] @ pair, angle.cos().to(work))
        scores = torch.addcmul(scores, crossed @ pair, angle.sin().to(work))
    return average_of_visible(scores, distance >= 0, v).to(dtype)


def _settings(inv_freq: Tensor, layout: Layout, train_length: int | None) -> tuple[Tensor, Layout, int | None]:
    check_dtype("inv_freq", inv_freq, "floating")
    check_one_of("layout", layout, ("half", "interleaved"))
    if train_length is not None:
        check_integer("train_length", train_length, 2)
    return inv_freq, layout, train_length


def _query_scale(positions: Tensor, train_length: int | None) -> Tensor:
    if train_length is None:
        return torch.ones_like(positions, dtype=torch.float64)
    return log_length_scale(positions, train_length)


def _check_causal(causal: bool) -> None:
    if not causal:
        raise ValueError("causal: got False, expected True: a rectified distance is defined for keys before the query")
