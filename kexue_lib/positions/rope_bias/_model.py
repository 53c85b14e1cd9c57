"""Biases in a model: trainable ones on queries and keys, and a kernel that is added to all scores."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kexue_lib._arguments import check_integer, check_one_of, check_shape
from kexue_lib.attention.core import attention
from kexue_lib.positions.rope import Layout, RotaryEmbedding
from kexue_lib.positions.rope_bias._kernel import check_biases, sandwich_biases
from kexue_lib.positions.rope_bias._scores import append_kernel


class QueryKeyBias(nn.Module):
    r"""Trainable vectors that are added to queries and keys before the rotation.

    .. math:: q\to q+a,\qquad k\to k+b

    Args:
        num_heads: H, of queries.
        dim: head dimension d, even.
        num_key_heads: G, a divisor of H; default H.
        init: ``"zero"``, or ``"sandwich"`` so that the kernel is Sandwich's at the start.
        strength: λ of :func:`sandwich_biases`, before the division of scores by √d; not used by ``"zero"``.
        layout: which components form a pair; of importance to ``"sandwich"`` only.

    Attributes: ``query_bias`` ``(H, d)`` and ``key_bias`` ``(G, d)``.

    Raises:
        TypeError: a size that is no integer, or ``strength`` no number.
        ValueError: a size not positive, ``dim`` odd, G no divisor of H, an unknown ``init`` or ``layout``, or
            ``strength`` negative.

    >>> biases = QueryKeyBias(3, 8, init="sandwich")
    >>> q, k = biases(torch.zeros(3, 5, 8), torch.zeros(3, 5, 8))
    >>> q[0, 0]
    tensor([1., 1., 1., 1., 0., 0., 0., 0.], grad_fn=<SelectBackward0>)
    """

    def __init__(
        self,
        num_heads: int,
        dim: int,
        *,
        num_key_heads: int | None = None,
        init: Literal["zero", "sandwich"] = "zero",
        strength: float = 1.0,
        layout: Layout = "half",
    ):
        super().__init__()
        check_integer("num_heads", num_heads, 1)
        check_integer("dim", dim, 2, even=True)
        num_key_heads = num_heads if num_key_heads is None else num_key_heads
        check_integer("num_key_heads", num_key_heads, 1, num_heads, most_is="num_heads")
        if num_heads % num_key_heads:
            raise ValueError(f"num_key_heads: got {num_key_heads}, expected a divisor of num_heads = {num_heads}")
        check_one_of("init", init, ("zero", "sandwich"))
        a, b = sandwich_biases(dim, strength, layout=layout)
        times = 1.0 if init == "sandwich" else 0.0
        self.query_bias = nn.Parameter(times * a.expand(num_heads, dim))
        self.key_bias = nn.Parameter(times * b.expand(num_key_heads, dim))

    def forward(
        self, q: Float[Tensor, "*batch_q H n d"], k: Float[Tensor, "*batch_k G N d"]
    ) -> tuple[Float[Tensor, "*batch_q H n d"], Float[Tensor, "*batch_k G N d"]]:
        """Return queries and keys with their biases, in their own dtypes.

        Args:
            q: ``(..., H, n, d)`` before the rotation.
            k: ``(..., G, N, d)`` before the rotation.
        """
        return q + self.query_bias[:, None].to(q.dtype), k + self.key_bias[:, None].to(k.dtype)

    @torch.no_grad()
    def fold(self, query: nn.Linear, key: nn.Linear) -> None:
        """Move the biases into the projections, where they cost nothing and stay trainable.

        Args:
            query: maps to ``H * d`` outputs, heads first; gets a bias if it has none, else ``query_bias`` is added.
            key: maps to ``G * d`` outputs.

        Raises:
            ValueError: a projection with another number of outputs; neither is changed then.

        >>> query, key = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        >>> QueryKeyBias(2, 2, init="sandwich").fold(query, key)
        >>> query.bias.tolist()
        [1.0, 0.0, 1.0, 0.0]
        """
        both = (("query", query, self.query_bias), ("key", key, self.key_bias))
        for name, projection, bias in both:
            check_shape(f"{name}.weight", projection.weight, (bias.numel(), "n"), "as the biases have outputs")
        for _, projection, bias in both:
            own = bias.flatten().to(projection.weight)
            own = own.clone() if projection.bias is None else projection.bias + own
            projection.bias = nn.Parameter(own)


class KernelRotary(RotaryEmbedding):
    r"""Rotary positions with the kernel of two biases added to the scores: a position object for decoder models.

    .. math:: s_{mn}=\frac{q^\top R_{n-m}k+a^\top R_{n-m}b}{\sqrt d}

    The biases are fixed, the same for all heads and layers; the terms that mix biases with content are left out.
    Assign it to ``model.position``.

    Args:
        a: ``(d,)``.
        b: ``(d,)``.
        base: of the frequencies.
        layout: which components form a pair.
        inv_freq: other frequencies ``(d/2,)``.

    Raises:
        ValueError: d odd or not the same, ``inv_freq`` of another length, bad ``base`` or ``layout``.

    >>> position = KernelRotary(*sandwich_biases(8, 2.0))
    >>> q = k = v = torch.zeros(1, 2, 3, 8)
    >>> position.attend(q, k, v, q_positions=torch.arange(3), k_positions=torch.arange(3)).shape
    torch.Size([1, 2, 3, 8])
    """

    cache_raw_keys = True

    def __init__(
        self,
        a: Float[Tensor, " d"],
        b: Float[Tensor, " d"],
        *,
        base: float = 10000.0,
        layout: Layout = "half",
        inv_freq: Tensor | None = None,
    ):
        check_biases(a, b, layout)
        super().__init__(a.shape[-1], base, layout=layout, inv_freq=inv_freq)
        self.a, self.b = a.detach().clone(), b.detach().clone()

    def attend(
        self,
        q: Float[Tensor, "*batch H n d"],
        k: Float[Tensor, "*batch G N d"],
        v: Float[Tensor, "*batch G N v_dim"],
        *,
        q_positions: Tensor,
        k_positions: Tensor,
        causal: bool = True,
        scale: float | None = None,
    ) -> Float[Tensor, "*batch H n v_dim"]:
        """Return attention with the kernel in its scores.

        Args:
            q: queries ``(..., H, n, d)``, not rotated.
            k: keys ``(..., G, N, d)``, not rotated.
            v: values ``(..., G, N, v_dim)``.
            q_positions: ``(n,)`` or with the batch dimensions of ``q``.
            k_positions: ``(N,)`` or with the batch dimensions of ``k``.
            causal: query i sees key j iff j ≤ i + (N − n).
            scale: of the scores; default d^(-1/2).
        """
        if q.shape[-3] != k.shape[-3]:
            group = q.shape[-3] // k.shape[-3]
            k, v = (t.repeat_interleave(group, dim=-3) for t in (k, v))
        a, b = (t.to(q).expand(q.shape[-3], -1) for t in (self.a, self.b))
        places = {"q_positions": q_positions, "k_positions": k_positions}
        q, k = append_kernel(q, k, a, b, self.inv_freq, layout=self.layout, **places)
        return attention(q, k, v, causal=causal, scale=self.dim**-0.5 if scale is None else scale)
