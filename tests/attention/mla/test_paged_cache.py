"""The paged cache against lists and against the plain cache."""

from __future__ import annotations

import pytest
import torch
from attention.mla.formulas import GROUPED, LATENT, generator, layer, normal

from kexue_lib.attention.mla import AttentionConfig, KVCache, PagedKVCache

# -- paged cache -------------------------------------------------------------------------------------------------------


def snapshot(pool: PagedKVCache) -> tuple:
    return (
        pool.free_blocks, pool.utilisation(), list(pool._users), dict(pool._lengths),
        {s: list(b) for s, b in pool._blocks.items()}, [p.clone() for p in pool.pools],
    )  # fmt: skip


def equal(a: tuple, b: tuple) -> bool:
    return a[:5] == b[:5] and all(torch.equal(x, y) for x, y in zip(a[5], b[5]))


@pytest.mark.parametrize("config", [LATENT, GROUPED[2]], ids=["mla", "gqa"])
def test_paged_cache_holds_what_lists_hold_through_random_use(config: AttentionConfig):
    chance, draw = torch.Generator().manual_seed(5), generator(6)
    pool, lists = PagedKVCache(config, n_blocks=24, block_size=4, dtype=torch.float64), {}
    shapes = [p.shape[1:-2] for p in pool.pools], [p.shape[-1] for p in pool.pools]
    refused = 0
    for _ in range(400):
        action = int(torch.randint(0, 10, (), generator=chance))
        known = list(lists)
        pick = known[int(torch.randint(0, len(known), (), generator=chance))] if known else None
        if action == 0 or pick is None:
            lists[pool.new_sequence()] = [torch.zeros(*s, 0, w, dtype=torch.float64) for s, w in zip(*shapes)]
        elif action == 1:
            lists[pool.fork(pick)] = list(lists[pick])
        elif action == 2:
            pool.free(pick)
            del lists[pick]
        else:
            count = int(torch.randint(0, 9, (), generator=chance))
            new = [torch.randn(*s, count, w, dtype=torch.float64, generator=draw) for s, w in zip(*shapes)]
            before = snapshot(pool)
            size, length = 4, pool.length(pick)
            shared = length % size > 0 and pool._users[pool._blocks[pick][-1]] > 1 and count > 0
            if -(-(length + count) // size) - -(-length // size) + shared > pool.free_blocks:
                refused += 1
                with pytest.raises(RuntimeError, match=f"the pool has {pool.free_blocks}"):
                    pool.append(pick, *new)
                assert equal(before, snapshot(pool))
            else:
                pool.append(pick, *new)
                lists[pick] = [torch.cat([old, n], -2) for old, n in zip(lists[pick], new)]
        if lists:
            *tensors, lengths = pool.gather(list(lists))
            for row, (seq, parts) in enumerate(lists.items()):
                assert lengths[row] == parts[0].shape[-2] == pool.length(seq)
                for tensor, part in zip(tensors, parts):
                    assert torch.equal(tensor[row][..., : lengths[row], :], part)
                    assert not tensor[row][..., lengths[row] :, :].any()
        used = {b for blocks in pool._blocks.values() for b in blocks}
        assert pool.free_blocks == 24 - len(used)
        assert all(pool._users[b] == sum(bs.count(b) for bs in pool._blocks.values()) for b in range(24))
    assert refused > 5
    for seq in list(lists):
        pool.free(seq)
    assert pool.free_blocks == 24
    assert pool.utilisation() == 1.0


def test_fork_copies_only_the_block_that_it_writes_to():
    pool = PagedKVCache(LATENT, n_blocks=5, block_size=4)
    first = pool.new_sequence()
    pool.append(first, torch.ones(6, 8), torch.ones(6, 4))
    second = pool.fork(first)
    assert pool.free_blocks == 3
    assert pool.utilisation() == 6 / 8
    pool.append(second, torch.zeros(1, 8), torch.zeros(1, 4))
    assert pool.free_blocks == 2
    pool.append(first, torch.full((1, 8), 2.0), torch.full((1, 4), 2.0))  # the only user by now: no copy
    assert pool.free_blocks == 2
    a, _, lengths = pool.gather([first, second])
    assert lengths.tolist() == [7, 7]
    assert (a[0, 6] == 2).all()
    assert (a[1, 6] == 0).all()
    assert (a[:, :6] == 1).all()


def test_paged_decoding_equals_the_plain_cache():
    module, x = layer(LATENT), normal(1, 10, 24)
    plain = KVCache(LATENT, batch=1, max_len=10, dtype=torch.float64)
    module(x, cache=plain)
    pool = PagedKVCache(LATENT, n_blocks=4, block_size=3, dtype=torch.float64)
    seq = pool.new_sequence()
    for i in range(10):
        pool.append(seq, *(b[0, i : i + 1] for b in plain.buffers))
    latents, keys, _ = pool.gather([seq])
    assert torch.equal(latents, plain.buffers[0])
    assert torch.equal(keys, plain.buffers[1])


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_paged_cache_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="block_size"):
        PagedKVCache(LATENT, n_blocks=2, block_size=0)
    pool = PagedKVCache(LATENT, n_blocks=2, block_size=4)
    seq = pool.new_sequence()
    for a, b, message in (
        (torch.zeros(2, 7), torch.zeros(2, 4), "^a: got shape"),
        (torch.zeros(2, 8), torch.zeros(1, 2, 4), "^b: got shape"),
        (torch.zeros(2, 8), torch.zeros(3, 4), "2 and 3 tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            pool.append(seq, a, b)
    for act in (lambda: pool.free(9), lambda: pool.fork(9), lambda: pool.gather([9]), lambda: pool.length(9)):
        with pytest.raises(ValueError, match="got 9, expected a sequence"):
            act()
    with pytest.raises(ValueError, match="seqs"):
        pool.gather([])
    with pytest.raises(RuntimeError, match="needs 3 free blocks of 4 tokens, the pool has 2"):
        pool.append(seq, torch.zeros(9, 8), torch.zeros(9, 4))
    assert pool.free_blocks == 2
