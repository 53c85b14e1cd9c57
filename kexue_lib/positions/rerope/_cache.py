"""A cache for decoding: each key is rotated once when it comes, and never again."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_one_of, check_shape
from kexue_lib._autocast import without_autocast
from kexue_lib.positions.rerope import _blocks as blocks
from kexue_lib.positions.rerope._attention import check_heads
from kexue_lib.positions.rerope._distances import check_rectifier
from kexue_lib.positions.rerope._rotations import far_keys, far_queries, rotated, score_dtype
from kexue_lib.positions.rope import Layout


class ReRoPECache:
    r"""Keys and values of one attention layer, ready for near and for far queries.

    Far keys are kept as :math:`R^{j/k}k_j`, which is :math:`k_j` itself for infinite k; the ordinary :math:`R^jk_j`
    only for those that can still be near. The article's code rotates the whole cache again at every step.

    Args:
        inv_freq: ``(pairs,)`` radians per position.
        window: w ≥ 0 tokens.
        factor: k > 0; infinite for ReRoPE.
        layout: of the rotary pairs.

    Raises:
        TypeError, ValueError: as :func:`~kexue_lib.positions.rerope.rerope_attention`.

    Cost: a token rotates its own key (twice for finite k) and query (twice). Beside keys and values the cache holds
    ``window`` rotated keys, and as many again as the latest piece brought. It keeps no gradients.

    >>> cache = ReRoPECache(torch.ones(1), window=2)
    >>> for _ in range(4):
    ...     q = k = v = torch.ones(1, 1, 2)
    ...     cache.append(k, v)
    ...     out = cache.attend(q)
    >>> len(cache), out.shape
    (4, torch.Size([1, 1, 2]))
    """

    def __init__(
        self, inv_freq: Tensor, *, window: float | int, factor: float | int = math.inf, layout: Layout = "half"
    ):
        check_dtype("inv_freq", inv_freq, "floating")
        check_rectifier(window, factor)
        check_one_of("layout", layout, ("half", "interleaved"))
        self.inv_freq, self.window, self.factor = inv_freq, window, factor
        self.layout: Layout = layout
        self._far, self._values, self._near = _Tokens(), _Tokens(), _Tokens()
        self._latest = 0

    def __len__(self) -> int:
        return self._values.count

    @without_autocast
    @torch.no_grad()
    def append(self, k: Float[Tensor, "*batch G m d"], v: Float[Tensor, "*batch G2 m2 dv"]) -> None:
        """Store the keys and values of the next tokens.

        Args:
            k: ``(..., G, m, d)``, not rotated.
            v: ``(..., G, m, dv)``.

        Raises:
            ValueError: ``k`` and ``v`` of different length or heads, or another shape than before.
        """
        check_heads(k, k, v)
        self._values.check("v", v)
        self._far.check("k", k)
        count, positions = k.shape[-2], len(self) + torch.arange(k.shape[-2], device=k.device)
        self._far.append(far_keys(k, positions, self.inv_freq, self.factor, self.layout).to(k.dtype))
        self._values.append(v)
        # The oldest query of this piece has its near keys ⌈w⌉ − 1 tokens back.
        self._near.keep(math.ceil(self.window))
        self._near.append(rotated(k, positions, self.inv_freq, self.layout).to(k.dtype))
        self._latest = count

    @torch.no_grad()
    @without_autocast
    def attend(self, q: Float[Tensor, "*batch H n d"], *, scale: float | None = None) -> Float[Tensor, "*batch H n dv"]:
        """Return attention of the tokens that came last over all that are stored.

        Args:
            q: ``(..., H, n, d)``, not rotated, of the last n tokens; n is at most what the latest ``append`` brought.
            scale: of the scores; default ``d ** -0.5``.

        Returns:
            ``(..., H, n, dv)`` in the dtype of ``q``.

        Raises:
            ValueError: ``q`` of another width or with heads that G does not divide, or longer than the latest piece.
        """
        n, total = q.shape[-2], len(self)
        if n > self._latest:
            raise ValueError(f"q: got length {n}, expected at most {self._latest}, the tokens of the latest append")
        k, v, near = self._far.view(), self._values.view(), self._near.view()
        check_heads(q, k, v)
        weight: float = q.shape[-1] ** -0.5 if scale is None else scale
        positions = torch.arange(total, device=q.device)
        latest = positions[total - n :]
        dtype = score_dtype(q)
        q_near = rotated(q, latest, self.inv_freq, self.layout) * weight
        q_far = far_queries(q, latest, self.inv_freq, self.window, self.factor, self.layout) * weight
        spans = blocks.default_spans(n, total, self.window, 128)
        first = total - near.shape[-2]
        pairs = (q_near, near.to(dtype)), (q_far, k.to(dtype))
        out, _ = blocks.attend(*pairs, v.to(dtype), (latest, positions), spans, first, self.window, False)
        return out.to(q.dtype)


class _Tokens:
    """Vectors of consecutive tokens in a buffer that doubles, so that appending costs the new tokens only."""

    def __init__(self) -> None:
        self.buffer: Tensor | None = None
        self.start = self.stop = self.count = 0

    def check(self, name: str, x: Tensor) -> None:
        if self.buffer is not None:
            heads, width = self.buffer.shape[:-2], self.buffer.shape[-1]
            check_shape(name, x, (*heads, "m", width), "as the stored ones have")

    def keep(self, last: int) -> None:
        """Forget all but the last ones."""
        self.start = max(self.start, self.stop - last)

    def append(self, x: Tensor) -> None:
        kept, new = self.stop - self.start, x.shape[-2]
        if self.buffer is None or self.stop + new > self.buffer.shape[-2]:
            room = x.new_empty((*x.shape[:-2], max(2 * (kept + new), 64), x.shape[-1]))
            if self.buffer is not None:
                room[..., :kept, :] = self.view()
            self.buffer, self.start, self.stop = room, 0, kept
        self.buffer[..., self.stop : self.stop + new, :] = x
        self.stop += new
        self.count += new

    def view(self) -> Tensor:
        if self.buffer is None:
            raise ValueError("cache: got a query before any key, expected append first")
        return self.buffer[..., self.start : self.stop, :]
