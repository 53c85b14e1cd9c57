"""Caches cut, reordered and cloned against whole passes."""

import pytest
import torch
from attention.core.small_decoder import OPTIONS, tiny, tokens

from kexue_lib.attention.core import LayerCache


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_cache_truncates_reorders_and_clones(options):
    model, ids = tiny(**options), tokens(3, 8)
    cache = model.new_cache(3, 8)
    model(ids[:, :6], cache=cache)
    copy = cache.clone()
    cache.truncate(4)
    torch.testing.assert_close(model(ids[:, 4:], cache=cache), model(ids)[:, 4:], rtol=1e-11, atol=1e-12)
    order = torch.tensor([2, 2, 0])
    copy.reorder(order)
    torch.testing.assert_close(model(ids[order, 6:], cache=copy), model(ids[order])[:, 6:], rtol=1e-11, atol=1e-12)
    assert (copy.length, cache.length) == (8, 8)


def test_cache_counts_its_bytes_and_refuses_what_does_not_fit():
    model = tiny(n_kv_heads=2)
    cache = model.new_cache(3, 10)
    assert cache.nbytes() == 2 * 2 * 3 * 2 * 10 * 6 * 8 + 3 * 10 * 8
    model(tokens(3, 8), cache=cache)
    with pytest.raises(ValueError, match=r"length 8 \+ 3 .*max_len 10"):
        model(tokens(3, 3), cache=cache)
    assert cache.length == 8
    with pytest.raises(ValueError, match="n: got 9"):
        cache.truncate(9)
    layer = LayerCache([(1, 4, 2)])
    with pytest.raises(ValueError, match="length 0 "):
        layer.append(torch.zeros(1, 5, 2))
