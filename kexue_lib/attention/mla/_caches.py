"""What decoding with shared keys and values keeps: one buffer for a batch, or a pool of blocks shared by sequences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from kexue_lib._arguments import check_integer, check_shape
from kexue_lib.attention.core import LayerCache
from kexue_lib.attention.mla._config import AttentionConfig


class KVCache(LayerCache):
    """The cache of one attention layer, with buffers that follow from its configuration.

    Keys ``(B, g, max_len, d_k)`` and values ``(B, g, max_len, d_v)``; for MLA latents ``(B, max_len, d_c)`` and rotary
    keys ``(B, max_len, d_r)``. All methods are those of :class:`kexue_lib.attention.core.LayerCache`.

    Args:
        config: sizes.
        batch: rows B.
        max_len: tokens that fit.
        dtype: of the buffers, the layer's; default: PyTorch's, float32 unless set otherwise.
        device: of the buffers.

    >>> cache = KVCache(AttentionConfig(d_model=8, n_heads=2, kind="mla", kv_rank=3, rope_dim=2), batch=1, max_len=9)
    >>> latents, keys = cache.append(torch.ones(1, 4, 3), torch.ones(1, 4, 2))
    >>> cache.length, latents.shape
    (4, torch.Size([1, 4, 3]))
    """

    def __init__(
        self,
        config: AttentionConfig,
        *,
        batch: int,
        max_len: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__(buffer_shapes(config, batch, max_len), dtype=dtype, device=device)
        self.config = config


class PagedKVCache:
    """Caches of many sequences in one pool of blocks, as servers keep them.

    A sequence holds a list of blocks; a fork shares them until one of both appends to a block that is not full, which
    is copied first. No memory is reserved for tokens that are not there yet, beyond the rest of a block.

    Args:
        config: sizes of the attention layer.
        n_blocks: blocks in the pool.
        block_size: tokens of a block.
        dtype: of the pool; default: PyTorch's.
        device: of the pool.

    Raises:
        TypeError: ``n_blocks`` or ``block_size`` is no integer.
        ValueError: ``n_blocks`` or ``block_size`` < 1.

    Source: the idea is that of Kwon et al., *Efficient Memory Management for Large Language Model Serving with
    PagedAttention*, arXiv 2309.06180.

    >>> config = AttentionConfig(d_model=8, n_heads=2, kind="mla", kv_rank=3, rope_dim=2)
    >>> pool = PagedKVCache(config, n_blocks=4, block_size=2)
    >>> first = pool.new_sequence()
    >>> pool.append(first, torch.ones(3, 3), torch.ones(3, 2))
    >>> second = pool.fork(first)
    >>> pool.free_blocks
    2
    >>> pool.append(second, torch.zeros(1, 3), torch.zeros(1, 2))
    >>> pool.free_blocks, pool.gather([first, second])[2]
    (1, tensor([3, 4]))
    """

    def __init__(
        self,
        config: AttentionConfig,
        *,
        n_blocks: int,
        block_size: int = 16,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        for name, value in (("n_blocks", n_blocks), ("block_size", block_size)):
            check_integer(name, value, 1)
        self.config, self.block_size = config, block_size
        self.pools = [torch.zeros(s, dtype=dtype, device=device) for s in buffer_shapes(config, n_blocks, block_size)]
        self._free = list(range(n_blocks - 1, -1, -1))
        self._users = [0] * n_blocks
        self._filled = [0] * n_blocks
        self._blocks: dict[int, list[int]] = {}
        self._lengths: dict[int, int] = {}
        self._next = 0

    @property
    def free_blocks(self) -> int:
        """Blocks that no sequence uses."""
        return len(self._free)

    def new_sequence(self) -> int:
        """Return the number of a new, empty sequence; it takes no block yet."""
        return self._register([], 0)

    def append(self, seq: int, a: Shaped[Tensor, "..."], b: Shaped[Tensor, "..."]) -> None:
        """Write new tokens behind those of a sequence.

        Args:
            seq: from :meth:`new_sequence` or :meth:`fork`.
            a: keys ``(g, n, d_k)``; for MLA latents ``(n, d_c)``.
            b: values ``(g, n, d_v)``; for MLA rotary keys ``(n, d_r)``.

        Raises:
            ValueError: unknown ``seq``, or shapes that do not fit; nothing is written then.
            RuntimeError: the pool has not enough free blocks; nothing is written then.
        """
        blocks, length = self._known(seq), self._lengths[seq]
        count = self._count(a, b)
        if count == 0:
            return
        size = self.block_size
        rest = length % size
        copies = rest > 0 and self._users[blocks[-1]] > 1
        needed = -(-(length + count) // size) - len(blocks) + copies
        if needed > len(self._free):
            raise RuntimeError(f"append: needs {needed} free blocks of {size} tokens, the pool has {len(self._free)}")
        if copies:
            blocks[-1] = self._copied(blocks[-1], rest)
        done = 0
        while done < count:
            offset = (length + done) % size
            if offset == 0:
                blocks.append(self._take())
            block, step = blocks[-1], min(size - offset, count - done)
            for pool, new in zip(self.pools, (a, b)):
                pool[block][..., offset : offset + step, :] = new[..., done : done + step, :]
            self._filled[block] = offset + step
            done += step
        self._lengths[seq] = length + count

    def gather(
        self, seqs: Sequence[int]
    ) -> tuple[Shaped[Tensor, "..."], Shaped[Tensor, "..."], Int64[Tensor, " seqs"]]:
        """Return the tokens of several sequences as a padded batch.

        Args:
            seqs: sequences, possibly one several times.

        Returns:
            What was appended with a batch dimension in front, ``(len(seqs), ..., n, width)`` where n is the longest
            length, zeros behind the end of shorter ones; and the lengths.

        Raises:
            ValueError: an unknown sequence, or none at all.
        """
        if not seqs:
            raise ValueError("seqs: got none, expected at least one sequence")
        tables = [self._known(seq) for seq in seqs]
        device = self.pools[0].device
        lengths = torch.tensor([self._lengths[seq] for seq in seqs], device=device)
        longest, width = max(self._lengths[seq] for seq in seqs), max(map(len, tables))
        table = torch.tensor([t + [0] * (width - len(t)) for t in tables], dtype=torch.long, device=device)
        absent = (torch.arange(longest, device=device) >= lengths[:, None])[..., None]  # (seqs, n, 1)
        out = []
        for pool in self.pools:
            found = pool[table].movedim(1, -3).flatten(-3, -2)[..., :longest, :]  # (seqs, ..., blocks * size, width)
            hidden = absent.view(len(seqs), *(1,) * (found.ndim - 3), longest, 1)
            out.append(found.masked_fill(hidden, 0))
        return *out, lengths

    def fork(self, seq: int) -> int:
        """Return a new sequence with the same tokens, sharing their blocks.

        Args:
            seq: the sequence to continue in two ways.

        Raises:
            ValueError: unknown ``seq``.
        """
        blocks = self._known(seq)
        for block in blocks:
            self._users[block] += 1
        return self._register(list(blocks), self._lengths[seq])

    def free(self, seq: int) -> None:
        """Forget a sequence; blocks that no other one uses return to the pool.

        Args:
            seq: not to be used again.

        Raises:
            ValueError: unknown ``seq``.
        """
        for block in self._known(seq):
            self._release(block)
        del self._blocks[seq], self._lengths[seq]

    def length(self, seq: int) -> int:
        """Return the number of tokens of a sequence.

        Args:
            seq: the sequence.

        Raises:
            ValueError: unknown ``seq``.
        """
        self._known(seq)
        return self._lengths[seq]

    def nbytes(self) -> int:
        """Return the bytes of the pool."""
        return sum(pool.nbytes for pool in self.pools)

    def utilisation(self) -> float:
        """Return which share of the used blocks' places holds a token; shared blocks count once, no block is 1."""
        used = [i for i, users in enumerate(self._users) if users]
        return sum(self._filled[i] for i in used) / (len(used) * self.block_size) if used else 1.0

    def _register(self, blocks: list[int], length: int) -> int:
        seq, self._next = self._next, self._next + 1
        self._blocks[seq], self._lengths[seq] = blocks, length
        return seq

    def _known(self, seq: int) -> list[int]:
        if seq not in self._blocks:
            raise ValueError(f"seq: got {seq!r}, expected a sequence of this pool")
        return self._blocks[seq]

    def _count(self, a: Tensor, b: Tensor) -> int:
        for name, new, pool in zip("ab", (a, b), self.pools):
            check_shape(name, new, (*pool.shape[1:-2], "n", pool.shape[-1]))
        if a.shape[-2] != b.shape[-2]:
            raise ValueError(f"a, b: got {a.shape[-2]} and {b.shape[-2]} tokens, expected the same number")
        return a.shape[-2]

    def _take(self) -> int:
        block = self._free.pop()
        self._users[block] = 1
        return block

    def _copied(self, block: int, rest: int) -> int:
        own = self._take()
        for pool in self.pools:
            pool[own][..., :rest, :] = pool[block][..., :rest, :]
        self._filled[own] = rest
        self._release(block)
        return own

    def _release(self, block: int) -> None:
        self._users[block] -= 1
        if not self._users[block]:
            self._filled[block] = 0
            self._free.append(block)


def buffer_shapes(config: AttentionConfig, batch: int, max_len: int) -> list[tuple[int, ...]]:
    """Return the shapes of a layer's two buffers.

    Args:
        config: sizes.
        batch: rows.
        max_len: tokens.
    """
    if config.kind == "mla":
        return [(batch, max_len, config._kv_rank()), (batch, max_len, config.rope_dim)]
    return [(batch, config._kv_groups(), max_len, width) for width in (config.head_dim, config.v_head_dim)]
