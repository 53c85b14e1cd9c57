"""Attention against a dense reference in float64, and masks against their definitions."""

import itertools
import subprocess
import sys

import pytest
import torch
from attention.core.small_decoder import seeded

from kexue_lib.attention.core import attention, causal_mask, prefix_mask, segment_mask


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def dense_attention(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    """The definition, entry by entry, in float64."""
    H, L, S = q.shape[-3], q.shape[-2], k.shape[-2]
    k, v = (t.repeat_interleave(H // k.shape[-3], dim=-3) for t in (k, v))
    scores = torch.einsum("...id,...jd->...ij", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    i, j = torch.arange(L)[:, None] + S - L, torch.arange(S)[None]
    visible = torch.ones(L, S, dtype=torch.bool)
    if causal:
        visible &= j <= i
        if window is not None:
            visible &= j > i - window
    elif window is not None:
        visible &= (i - j).abs() < window
    if mask is not None:
        if mask.dtype == torch.bool:
            visible = visible & mask
        else:
            scores = scores + mask
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1).nan_to_num(0.0)
    return weights @ v


CASES = list(
    itertools.product(
        [(4, 4), (4, 2), (4, 1)],  # heads, key heads
        [(7, 7), (3, 7), (1, 7), (7, 3), (70, 70)],  # L, S
        [False, True],  # causal
        [None, 1, 3],  # window
        ["none", "bool", "float", "blind"],  # mask
    )
)


@pytest.mark.parametrize(("heads", "lengths", "causal", "window", "kind"), CASES)
def test_attention_is_its_definition(heads, lengths, causal, window, kind):
    (H, Hk), (L, S) = heads, lengths
    q, k, v = normal(2, H, L, 6), normal(2, Hk, S, 6, seed=1), normal(2, Hk, S, 4, seed=2)
    mask = None
    if kind == "bool":
        mask = normal(2, 1, L, S, seed=3) > -0.5
    elif kind == "float":
        mask = normal(H, L, S, seed=3)
    elif kind == "blind":  # some queries see nothing
        mask = (normal(2, 1, L, S, seed=3) > 0) & (torch.arange(L) % 2 == 0)[:, None]
    out = attention(q, k, v, mask=mask, causal=causal, window=window)
    reference = dense_attention(q, k, v, mask=mask, causal=causal, window=window)
    torch.testing.assert_close(out, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 4, 1, 1), (1, 1, 5, 1), (2, 4, 5, 1)])
def test_scale_may_be_a_tensor(shape):
    q, k, v, scale = normal(2, 4, 5, 8), normal(2, 2, 9, 8, seed=1), normal(2, 2, 9, 8, seed=2), normal(*shape, seed=3)
    expected = dense_attention(q * scale, k, v, causal=True, scale=1.0)
    torch.testing.assert_close(attention(q, k, v, causal=True, scale=scale), expected)
    torch.testing.assert_close(attention(q, k, v, scale=0.3), dense_attention(q, k, v, scale=0.3))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_batch_dimensions_broadcast(batch):
    q, k, v = normal(*batch, 4, 5, 8), normal(2, 5, 8, seed=1), normal(2, 5, 8, seed=2)
    mask = normal(5, 5, seed=3) > -1
    torch.testing.assert_close(attention(q, k, v, mask=mask), dense_attention(q, k, v, mask=mask))


def test_blind_queries_give_zero_with_zero_gradients():
    q, k, v = (t.requires_grad_() for t in (normal(1, 2, 3, 4), normal(1, 2, 3, 4, seed=1), normal(1, 2, 3, 4, seed=2)))
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    out = attention(q, k, v, mask=mask)
    assert (out[..., 1, :] == 0).all()
    gradients = torch.autograd.grad(out.sum(), (q, k, v))
    assert all(g.isfinite().all() for g in gradients)
    assert (gradients[0][..., 1, :] == 0).all()


@pytest.mark.parametrize("options", [{"causal": True}, {"window": 2}, {"mask": torch.ones(4, 4).tril().bool()}])
def test_gradients(options):
    q, k, v = (normal(1, 2, 4, 3, seed=s).requires_grad_() for s in range(3))
    assert torch.autograd.gradcheck(lambda *a: attention(*a, **options), (q, k, v))


def test_attention_without_positions_does_not_know_the_order_of_keys():
    q, k, v = normal(1, 2, 3, 4), normal(1, 2, 6, 4, seed=1), normal(1, 2, 6, 4, seed=2)
    order = torch.randperm(6, generator=seeded())
    torch.testing.assert_close(attention(q, k, v), attention(q, k[..., order, :], v[..., order, :]))


def test_compiles_without_graph_breaks(without_runtime_types):
    compiled = torch.compile(lambda *a: attention(*a, causal=True, window=3), fullgraph=True, backend="aot_eager")
    q, k, v = normal(1, 4, 5, 8), normal(1, 2, 9, 8, seed=1), normal(1, 2, 9, 8, seed=2)
    torch.testing.assert_close(compiled(q, k, v), attention(q, k, v, causal=True, window=3))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of resident memory as Linux counts it")
@pytest.mark.parametrize("widths", [(64, 64), (64, 32)])
def test_plain_causal_attention_stores_no_square_matrix(widths):
    code = f"""
import resource, torch
from kexue_lib.attention.core import attention
torch.set_num_threads(1)
q, k, v = (torch.randn(1, 8, 4096, d) for d in ({widths[0]}, {widths[0]}, {widths[1]}))
attention(q[..., :128, :], k[..., :128, :], v[..., :128, :], causal=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
attention(q, k, v, causal=True)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 * 4096 * 4096 * 4 / 5  # a fifth of one float32 score matrix


# -- masks -------------------------------------------------------------------------------------------------------------


def test_masks_are_their_definitions():
    for L, S, w in itertools.product((1, 3, 5), (3, 6), (None, 2)):
        mask = causal_mask(L, S, window=w)
        for i, j in itertools.product(range(L), range(S)):
            assert mask[i, j] == (j <= i + S - L and (w is None or j > i + S - L - w))
    ids = torch.tensor([[0, 0, 1, 1, 1], [2, 3, 3, 3, 4]])
    packed, prefixed = segment_mask(ids), prefix_mask(5, torch.tensor([0, 3]))
    assert packed.shape == prefixed.shape == (2, 1, 5, 5)
    for b, i, j in itertools.product(range(2), range(5), range(5)):
        assert packed[b, 0, i, j] == (j <= i and ids[b, i] == ids[b, j])
        assert prefixed[b, 0, i, j] == (j <= i or j < (0, 3)[b])
    assert torch.equal(prefix_mask(5, 3), prefixed[1, 0])


def test_a_compiled_graph_serves_every_length(without_runtime_types):
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager", dynamic=True)
    for length, keys in ((9, 9), (11, 11), (5, 12), (1, 7)):
        q, k, v = torch.randn(2, 4, length, 8), torch.randn(2, 2, keys, 8), torch.randn(2, 2, keys, 8)
        torch.testing.assert_close(compiled(q, k, v, causal=True), attention(q, k, v, causal=True))
