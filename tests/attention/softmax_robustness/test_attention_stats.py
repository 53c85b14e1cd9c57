"""Attention with statistics, block by block, against dense attention."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from attention.softmax_robustness.random_logits import normal, seeded
from opinfo import as_users_call
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from kexue_lib.attention.softmax_robustness import attention_stats
from kexue_lib.attention.softmax_robustness._stats import AttentionStats


def dense(q: Tensor, k: Tensor, v: Tensor, scale: float | Tensor | None = None, visible: Tensor | None = None):
    """Attention with all scores at once, in float64."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    s = q.double() @ k.double().mT * (scale.double()[..., None] if isinstance(scale, Tensor) else scale)
    visible = torch.ones((), dtype=torch.bool) if visible is None else visible
    alive = visible.expand(s.shape).any(-1)
    s = s.masked_fill(~visible & alive[..., None], -math.inf)
    p = s.softmax(-1)
    results = (
        p @ v.double(),
        s.logsumexp(-1),
        s.logsumexp(-1) - (p * s.masked_fill(p == 0, 0.0)).sum(-1),
        1 / p.square().sum(-1),
    )
    return AttentionStats(
        *(
            torch.where(alive.view(*alive.shape, *(1,) * (i == 0)), x, -math.inf if i == 1 else 0.0)
            for i, x in enumerate(results)
        )
    )


def close(actual: AttentionStats, expected: AttentionStats, bound: float = 1e-11) -> None:
    for a, e in zip(actual, expected):
        torch.testing.assert_close(a.double(), e, rtol=bound, atol=bound)


@pytest.mark.parametrize("block_size", [1, 3, 7, 64])
def test_blocks_of_any_size_give_dense_attention(block_size: int):
    q, k, v = 2 * normal(2, 3, 5, 4), normal(2, 3, 7, 4, seed=1), normal(2, 3, 7, 6, seed=2)
    close(attention_stats(q, k, v, block_size=block_size), dense(q, k, v))


@pytest.mark.parametrize(("L", "S"), [(5, 7), (7, 5), (6, 6), (1, 9), (3, 1)])
def test_causal_rows_see_keys_up_to_their_own(L: int, S: int):
    q, k, v = normal(2, L, 4), normal(2, S, 4, seed=1), normal(2, S, 3, seed=2)
    visible = torch.arange(S) <= torch.arange(L)[:, None] + (S - L)
    close(attention_stats(q, k, v, causal=True, block_size=2), dense(q, k, v, visible=visible))


def test_many_tiles_of_queries_heads_and_keys(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kexue_lib.attention.softmax_robustness._stats._TILE", 12)
    q, k, v = normal(2, 3, 11, 4), normal(3, 13, 4, seed=1), normal(2, 1, 13, 2, seed=2)
    masks = [(2, 3, 11, 13), (2, 1, 11, 13), (3, 1, 13), (11, 1), (13,), ()]
    for shape in masks:
        mask = torch.rand(shape, generator=seeded(3)) < 0.7
        visible = mask & (torch.arange(13) <= torch.arange(11)[:, None] + 2)
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        ours = attention_stats(*inputs, causal=True, mask=mask, block_size=3)
        theirs = dense(*inputs, visible=visible)
        alive = theirs.lse.isfinite()
        close(ours, theirs)
        loss = lambda out, alive=alive: sum(x[alive].sin().sum() for x in out)
        for a, e in zip(torch.autograd.grad(loss(ours), inputs), torch.autograd.grad(loss(theirs), inputs)):
            torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-10)


def test_row_without_a_visible_key():
    q, k, v = (normal(3, 4, seed=i).requires_grad_() for i in range(3))
    mask = torch.tensor([[False] * 3, [True] * 3, [False, True, False]])
    out = attention_stats(q, k, v, mask=mask)
    assert (out.output[0] == 0).all()
    assert [x[0].item() for x in out[1:]] == [-math.inf, 0.0, 0.0]
    assert [out.entropy[2].item(), out.effective[2].item()] == [0.0, 1.0]
    grads = torch.autograd.grad(out.output.sum() + out.entropy.sum() + out.effective.sum(), (q, k, v))
    assert all(g.isfinite().all() for g in grads)
    assert (grads[0][0] == 0).all()


def test_one_key_has_no_entropy_and_no_keys_give_zero():
    q = normal(2, 3, 4)
    one = attention_stats(q, normal(2, 1, 4), normal(2, 1, 5))
    assert (one.entropy == 0).all()
    assert (one.effective == 1).all()
    none = attention_stats(q, normal(2, 0, 4), normal(2, 0, 5))
    assert none.output.shape == (2, 3, 5)
    assert (none.lse == -math.inf).all()
    assert attention_stats(q[:, :0], q, q).output.shape == (2, 0, 4)


def test_scores_far_apart_neither_overflow_nor_lose_the_entropy():
    k = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float32)
    q = torch.tensor([[1e4], [-1e4], [20.0]])
    out = attention_stats(q, k, k, scale=1.0, block_size=1)
    expected = dense(q, k, k, 1.0)
    torch.testing.assert_close(out.entropy.double(), expected.entropy, rtol=0, atol=1e-7)
    torch.testing.assert_close(out.lse.double(), expected.lse, rtol=1e-6, atol=0)
    assert (out.entropy >= 0).all()


def test_scale_may_differ_from_query_to_query_and_has_a_gradient():
    q, k, v = normal(2, 5, 4), normal(2, 7, 4, seed=1), normal(2, 7, 3, seed=2)
    scale = torch.linspace(0.0, 1.5, 5, dtype=torch.float64)
    close(attention_stats(q, k, v, scale=scale, block_size=2), dense(q, k, v, scale))
    for s in (scale, torch.tensor(0.4, dtype=torch.float64)):
        assert gradcheck(lambda s: attention_stats(q, k, v, scale=s, block_size=3), (s.requires_grad_(),))


def test_gradients_of_all_four_results():
    inputs = [normal(2, 4, 3), normal(5, 3, seed=1), normal(2, 5, 2, seed=2)]
    inputs = [x.requires_grad_() for x in inputs]
    function = lambda q, k, v: attention_stats(q, k, v, causal=True, block_size=2)
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_half_types_accumulate_in_float32():
    q, k, v = (normal(2, 9, 8, seed=i, dtype=torch.bfloat16) for i in range(3))
    out = attention_stats(q, k, v, block_size=4)
    assert [x.dtype for x in out] == [torch.bfloat16, *[torch.float32] * 3]
    torch.testing.assert_close(out.entropy.double(), dense(q, k, v).entropy, rtol=1e-5, atol=1e-5)


def test_compiled_gradients_are_the_eager_ones():
    inputs = [normal(2, 5, 3, seed=i).requires_grad_() for i in range(3)]
    with as_users_call():
        loss = lambda q, k, v: sum(x.sin().sum() for x in attention_stats(q, k, v, causal=True, block_size=3))
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        for a, e in zip(torch.autograd.grad(compiled(*inputs), inputs), torch.autograd.grad(loss(*inputs), inputs)):
            torch.testing.assert_close(a, e)


MEMORY = """
import re, torch
from kexue_lib.attention.softmax_robustness import attention_stats
torch.set_num_threads(1)
peak = lambda: int(re.search("VmHWM:[^0-9]*([0-9]+)", open("/proc/self/status").read())[1])
q, k, v = (torch.randn(4096, 64, requires_grad=True) for _ in range(3))
def dense():
    p = (q @ k.T / 8).softmax(-1)
    return p @ v, -(p * p.log()).sum(-1), 1 / p.square().sum(-1)
attention_stats(q[:64], k[:64], v[:64]).entropy.sum().backward()
start = peak(); out = attention_stats(q, k, v); forward = peak()
(out.output.sum() + out.entropy.sum() + out.effective.sum()).backward(); backward = peak()
with torch.no_grad():
    dense()
print((forward - start) / (peak() - start), (backward - start) / (peak() - start))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_both_passes_is_a_tenth_of_the_dense_forward_pass():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    forward, backward = map(float, done.stdout.split())
    assert forward < 0.1
    assert backward < 0.1
