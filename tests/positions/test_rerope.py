"""rerope: rectified distances against their definition, attention against complex rotations of each pair of tokens."""

from __future__ import annotations

import math
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opinfo import as_users_call

from kexue_lib.attention.core import DecoderLM, LMConfig, attention
from kexue_lib.positions import rerope
from kexue_lib.positions.rope import RotaryEmbedding, inverse_frequencies

THETA = inverse_frequencies(8, 30.0)
SETTINGS = [(0, math.inf), (4, math.inf), (3.5, 3.0), (0, 4.0), (5, 0.5), (100, math.inf)]
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="compiled FlexAttention needs a GPU")


def vectors(n: int, total: int, *, heads=4, groups=2, rows=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, heads, n, 8), (rows, groups, total, 8), (rows, groups, total, 6))
    return tuple(torch.randn(s, dtype=torch.float64, generator=generator).to(dtype) for s in shapes)


def by_complex_numbers(q, k, v, q_positions, k_positions, window, factor):
    """Scores from ρθ for each pair of tokens, in NumPy; a row without keys gives 0 and −∞."""
    group = q.shape[1] // k.shape[1]
    q, k, v = (x.double().numpy() for x in (q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)))
    r = (q_positions[..., :, None] - k_positions[..., None, :]).numpy().astype(float)
    rho = np.where(r < window, r, window + (r - window) / factor)
    turn = np.exp(1j * rho[..., None] * THETA.numpy())
    turn, r = (x if x.ndim == y else x[:, None] for x, y in ((turn, 3), (r, 2)))
    q_c, k_c = (x[..., :4] + 1j * x[..., 4:] for x in (q, k))
    scores = np.einsum("bhip,bhjp,...ijp->bhij", q_c, k_c.conj(), turn).real if turn.ndim == 3 else None
    if scores is None:
        scores = np.einsum("bhip,bhjp,bgijp->bhij", q_c, k_c.conj(), turn).real
    scores = np.where(r >= 0, scores / math.sqrt(8), -np.inf)
    top = np.where(np.isinf(scores.max(-1)), 0.0, scores.max(-1))[..., None]
    weights = np.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + top)[..., 0]
    return torch.from_numpy(weights @ v / np.where(total > 0, total, 1)), torch.from_numpy(lse)


# --- distances --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(-50, 5000), st.floats(0, 600), st.floats(0.05, 100))
def test_rectified_distance_is_the_leaky_relu_form_of_the_article(r, window, factor):
    found = rerope.rectified_distance(torch.tensor([r]), window, factor)
    leaky = window - torch.nn.functional.leaky_relu(torch.tensor([window - r], dtype=torch.float64), 1 / factor)
    torch.testing.assert_close(found, leaky, rtol=1e-12, atol=1e-9)


def test_infinite_factor_clips_at_the_window():
    r = torch.arange(100)
    assert torch.equal(rerope.rectified_distance(r, 7), r.clamp(max=7).double())


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 300), st.data())
def test_supported_length_is_the_last_legal_one_and_inverts_the_required_factor(trained, data):
    window = data.draw(st.integers(0, trained - 2))
    length = data.draw(st.integers(trained, 40 * trained))
    factor = rerope.required_factor(length, trained, window)
    assert rerope.supported_length(trained, window, factor) == length
    legal = rerope.supported_length(trained, window, data.draw(st.integers(1, 60)))
    factor = rerope.required_factor(legal, trained, window)
    farthest = [rerope.rectified_distance(torch.tensor([n - 1]), window, factor).item() for n in (legal, legal + 1)]
    assert farthest[0] <= trained - 1 + 1e-9 < farthest[1] + 1e-9


@pytest.mark.parametrize(("window", "expected"), [(128, (4095 - 128) / 383), (256, (4095 - 256) / 255)])
def test_required_factor_at_the_sizes_of_the_article(window, expected):
    assert rerope.required_factor(4096, 512, window) == pytest.approx(expected, rel=1e-15)
    assert rerope.required_factor(512, 512, window) == 1.0


def test_a_window_of_the_largest_distance_needs_an_infinite_factor():
    assert rerope.required_factor(65, 64, 63) == math.inf
    assert rerope.supported_length(64, 63) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(1, 12))
def test_self_extend_by_python_integers(window, group):
    i, j = torch.tensor([90, 3, 41]), torch.arange(100)
    found = rerope.self_extend_distance(i, j, window, group)
    for row, query in zip(found.tolist(), i.tolist()):
        for distance, key in zip(row, j.tolist()):
            far = query // group - key // group + window - window // group
            assert distance == (query - key if query - key < window else far)


def test_dual_chunks_by_cases_and_within_the_trained_distances():
    chunk, trained = 6, 10
    found = rerope.dual_chunk_distance(torch.arange(40), torch.arange(40), chunk, trained)
    for i in range(40):
        for j in range(i + 1):
            t, u, apart = i % chunk, j % chunk, i // chunk - j // chunk
            expected = t - u if apart == 0 else min(chunk + t, trained - 1) - u if apart == 1 else trained - 1 - u
            assert found[i, j] == expected
    seen = torch.ones(40, 40).tril().bool()
    assert found[seen].min() >= 0
    assert found[seen].max() <= trained - 1
    assert (found[~seen] < 0).all()


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "factor"), SETTINGS)
@pytest.mark.parametrize(("n", "total"), [(23, 23), (5, 23), (1, 23), (7, 3), (1, 1)])
@pytest.mark.parametrize("form", ["blocks", "reference"])
def test_attention_is_that_of_rotated_complex_numbers(window, factor, n, total, form):
    q, k, v = vectors(n, total)
    by = partial(rerope.rerope_attention, block_size=4) if form == "blocks" else rerope.rerope_attention_reference
    out, lse = by(q, k, v, THETA, window=window, factor=factor, return_lse=True)
    expected = by_complex_numbers(q, k, v, torch.arange(total - n, total), torch.arange(total), window, factor)
    torch.testing.assert_close((out, lse), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("window", "factor"), SETTINGS)
@pytest.mark.parametrize("batched", [False, True])
def test_positions_in_any_order_with_gaps(window, factor, batched):
    generator = torch.Generator().manual_seed(4)
    q, k, v = vectors(9, 17)
    rows = [torch.randperm(40, generator=generator) - 5 for _ in range(2)]
    places = torch.stack(rows) if batched else rows[0]
    q_positions, k_positions = places[..., :9], places[..., 9:26]
    options = {"window": window, "factor": factor, "q_positions": q_positions, "k_positions": k_positions}
    expected = by_complex_numbers(q, k, v, q_positions, k_positions, window, factor)
    found = rerope.rerope_attention(q, k, v, THETA, block_size=4, return_lse=True, **options)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_one_row_of_positions_against_a_batch_of_them():
    q, k, v = vectors(3, 8)
    k_positions = torch.stack([torch.arange(8), torch.arange(8) - 2])
    q_positions = torch.tensor([5, 6, 7])
    found = rerope.rerope_attention(
        q, k, v, THETA, window=3, q_positions=q_positions, k_positions=k_positions, block_size=2
    )
    expected, _ = by_complex_numbers(q, k, v, q_positions.expand(2, 3), k_positions, 3, math.inf)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_wide_window_and_a_factor_of_one_are_plain_rotary_attention():
    q, k, v = vectors(12, 12)
    expected = attention(*RotaryEmbedding(8, 30.0)(q, k), v, causal=True)
    for window, factor in ((12, math.inf), (3, 1.0)):
        found = rerope.rerope_attention(q, k, v, THETA, window=window, factor=factor)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_no_window_and_no_factor_are_causal_attention_without_positions():
    q, k, v = vectors(12, 12)
    found = rerope.rerope_attention(q, k, v, THETA, window=0, block_size=5)
    torch.testing.assert_close(found, attention(q, k, v, causal=True))


def test_no_window_with_a_factor_is_position_interpolation():
    q, k, v = vectors(12, 12)
    expected = attention(*RotaryEmbedding(8, inv_freq=THETA / 4)(q, k), v, causal=True)
    found = rerope.rerope_attention(q, k, v, THETA, window=0, factor=4.0, block_size=5)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_positions_up_to_a_million_keep_their_distances():
    q, k, v = vectors(20, 20)
    near, far = (torch.arange(20) + start for start in (0, 10**6))
    found = [
        rerope.rerope_attention(q, k, v, THETA, window=6, factor=3.0, q_positions=p, k_positions=p) for p in (near, far)
    ]
    torch.testing.assert_close(*found, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_round_only_the_result(dtype):
    q, k, v = vectors(40, 40, dtype=dtype)
    out, lse = rerope.rerope_attention(q, k, v, THETA, window=7, factor=2.0, return_lse=True)
    expected = rerope.rerope_attention_reference(*(x.double() for x in (q, k, v)), THETA, window=7, factor=2.0)
    assert (out.dtype, lse.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(out.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_gradients_are_those_of_the_two_full_matrices():
    each = []
    for form in (partial(rerope.rerope_attention, block_size=4), rerope.rerope_attention_reference):
        leaves = [x.requires_grad_() for x in vectors(11, 15)]
        out, lse = form(*leaves, THETA, window=4, factor=3.0, return_lse=True)
        each.append(torch.autograd.grad((out.sin().sum() + lse.square().sum()), leaves))
    torch.testing.assert_close(*each, rtol=1e-10, atol=1e-10)


def test_a_query_without_keys_has_zero_output_and_finite_gradients():
    leaves = [x.requires_grad_() for x in vectors(4, 6)]
    places = {"q_positions": torch.tensor([-3, 2, 9, -1]), "k_positions": torch.arange(6)}
    out, lse = rerope.rerope_attention(*leaves, THETA, window=2, return_lse=True, **places)
    assert (out[:, :, [0, 3]] == 0).all()
    assert (lse[:, :, [0, 3]] == -math.inf).all()
    out.sum().backward()
    assert all(x.grad.isfinite().all() for x in leaves)
    assert (leaves[0].grad[:, :, [0, 3]] == 0).all()


def test_empty_queries_and_empty_keys():
    q, k, v = vectors(3, 0)
    out, lse = rerope.rerope_attention(q, k, v, THETA, window=2, return_lse=True)
    assert (out == 0).all()
    assert (lse == -math.inf).all()
    q, k, v = vectors(0, 4)
    assert rerope.rerope_attention(q, k, v, THETA, window=2).shape == (2, 4, 0, 6)


MEMORY = """
import re, sys, torch
from kexue_lib.positions import rerope
from kexue_lib.positions.rope import inverse_frequencies
torch.set_num_threads(1)
# The peak of this process alone: what resource.getrusage says begins with the peak of the parent.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
form, n, grad = getattr(rerope, sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "grad"
q, k, v = (torch.randn(1, 2, n, 16, requires_grad=grad) for _ in range(3))
call = lambda m: form(q[..., :m, :], k[..., :m, :], v[..., :m, :], inverse_frequencies(16), window=512)
run = lambda m: call(m).sum().backward() if grad else call(m)
run(256)
before = peak()
run(n)
print(peak() - before)
"""


def peak_growth(form: str, n: int, grad: str) -> float:
    """MiB by which a call raises the peak of a fresh process; two heads, float32."""
    command = [sys.executable, "-c", MEMORY, form, str(n), grad]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of a process from /proc")
@pytest.mark.parametrize("grad", ["no_grad", "grad"])
def test_no_matrix_of_all_scores_is_held(grad):
    """One matrix of scores takes 512 MiB at n = 8192 and 32 MiB at 2048, where the article's form holds several."""
    assert peak_growth("rerope_attention", 8192, grad) < 256
    assert peak_growth("rerope_attention_reference", 2048, grad) > 64


# --- merging ----------------------------------------------------------------------------------------------------------


def test_attention_over_parts_of_the_keys_merges_to_attention_over_all():
    q, k, v = vectors(5, 12)
    places = {"window": 3, "factor": 2.0, "q_positions": torch.arange(7, 12)}
    whole = rerope.rerope_attention(q, k, v, THETA, return_lse=True, **places)
    parts = []
    for keys in torch.arange(12).split([1, 4, 7]):
        options = places | {"k_positions": keys, "return_lse": True}
        parts.append(rerope.rerope_attention(q, k[..., keys, :], v[..., keys, :], THETA, **options))
    torch.testing.assert_close(rerope.merge_attention(*zip(*parts)), whole)


def test_merging_nothing_gives_zero_and_no_nan_in_gradients():
    outputs = [torch.ones(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    lses = [torch.tensor([-math.inf, 1.0], dtype=torch.float64, requires_grad=True) for _ in range(2)]
    lses[1] = torch.full((2,), -math.inf, dtype=torch.float64, requires_grad=True)
    out, lse = rerope.merge_attention(outputs, lses)
    assert out.tolist() == [[0] * 3, [1] * 3]
    assert lse.tolist() == [-math.inf, 1.0]
    (out.sum() + lse[1]).backward()
    assert all(x.grad.isfinite().all() for x in (*outputs, *lses))


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize(("window", "factor"), SETTINGS)
def test_two_merged_calls_of_flex_attention_uncompiled(window, factor):
    q, k, v = vectors(9, 13, dtype=torch.float32)
    options = {"window": window, "factor": factor, "return_lse": True}
    found = rerope.rerope_attention(q, k, v, THETA, backend="flex", **options)
    expected = rerope.rerope_attention_reference(q, k, v, THETA, **options)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@on_gpu
@pytest.mark.parametrize(("window", "factor"), [(256, math.inf), (100, 8.0)])
def test_two_merged_calls_of_flex_attention_on_a_gpu(window, factor):
    generator = torch.Generator("cuda").manual_seed(0)
    shapes = ((1, 4, 1024, 64), (1, 2, 1024, 64), (1, 2, 1024, 64))
    leaves = [torch.randn(s, device="cuda", generator=generator).requires_grad_() for s in shapes]
    theta, each = inverse_frequencies(64, device="cuda"), []
    for backend in ("flex", "blocks"):
        out = rerope.rerope_attention(*leaves, theta, window=window, factor=factor, backend=backend)
        each.append((out, *torch.autograd.grad(out.sin().sum(), leaves)))
    torch.testing.assert_close(*each, rtol=5e-3, atol=5e-3)


# --- cache and position objects ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "factor"), SETTINGS)
@pytest.mark.parametrize("pieces", [(40,), (17, 9, *[1] * 14), (1,) * 40, (3, 30, 1, 6)])
def test_a_cache_filled_in_pieces_gives_what_one_call_gives(window, factor, pieces):
    q, k, v = vectors(40, 40)
    cache = rerope.ReRoPECache(THETA, window=window, factor=factor)
    found = []
    for rows in torch.arange(40).split(pieces):
        cache.append(k[..., rows, :], v[..., rows, :])
        found.append(cache.attend(q[..., rows, :]))
    assert len(cache) == 40
    expected = rerope.rerope_attention_reference(q, k, v, THETA, window=window, factor=factor)
    torch.testing.assert_close(torch.cat(found, -2), expected, rtol=1e-6, atol=1e-6)


def test_the_cache_of_rerope_keeps_far_keys_as_they_came():
    _, k, v = vectors(50, 50)
    cache = rerope.ReRoPECache(THETA, window=4)
    for j in range(50):
        cache.append(k[..., j : j + 1, :], v[..., j : j + 1, :])
    assert torch.equal(cache._far.view(), k)
    assert cache._near.view().shape[-2] == 5


@pytest.mark.parametrize("factor", [math.inf, 4.0])
def test_a_model_reads_in_pieces_what_it_reads_at_once(factor):
    config = LMConfig(vocab_size=50, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2)
    model = DecoderLM(config, generator=torch.Generator().manual_seed(0)).eval()
    model.position = rerope.ReRoPE(inverse_frequencies(8), window=6, factor=factor, train_length=16)
    tokens = torch.randint(50, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole, cache = model(tokens), model.new_cache(2, 40)
        pieces = [model(piece, cache=cache) for piece in tokens.split([13, 9, *[1] * 18], 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-5)


def test_position_objects_agree_where_their_distances_do():
    q, k, v = vectors(20, 20)
    places = {"q_positions": torch.arange(20), "k_positions": torch.arange(20), "causal": True}
    distance = lambda i, j: rerope.rectified_distance(i[:, None] - j, 5, 2.0)
    found = rerope.DistanceRotary(THETA, distance).attend(q, k, v, **places)
    torch.testing.assert_close(found, rerope.ReRoPE(THETA, window=5, factor=2.0).attend(q, k, v, **places))


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_partial_rotation_leaves_the_other_components_without_position(layout):
    q, k, v = vectors(10, 10)
    turned = 4 if layout == "half" else slice(0, 4)
    part = inverse_frequencies(4, 30.0)
    distance = rerope.rectified_distance(torch.arange(10)[:, None] - torch.arange(10), 3)
    found = rerope.rerope_attention(q, k, v, part, window=3, layout=layout)
    torch.testing.assert_close(found, rerope.distance_attention(q, k, v, part, distance, layout=layout))
    still = q.clone()
    still[..., : 4 if layout == "half" else turned.stop] = 0
    plain = rerope.rerope_attention(still, k, v, part, window=3, layout=layout)
    torch.testing.assert_close(plain, attention(still, k, v, causal=True))


def test_queries_grow_like_log_n_only_beyond_the_training_length():
    positions = torch.tensor([0, 62, 63, 4095])
    scale = rerope.ReRoPE(THETA, window=6, train_length=64).query_scale(positions)
    assert scale.tolist() == pytest.approx([1, 1, 1, 2])
    assert (rerope.ReRoPE(THETA, window=6).query_scale(positions) == 1).all()


def test_compiles_in_one_graph():
    q, k, v = vectors(20, 20, dtype=torch.float32)
    with as_users_call():
        call = partial(rerope.rerope_attention, inv_freq=THETA, window=5, block_size=8)
        for places in ({}, {"q_positions": torch.arange(20).flip(0), "k_positions": torch.arange(20)}):
            compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
            torch.testing.assert_close(compiled(q, k, v, **places), call(q, k, v, **places), rtol=1e-5, atol=1e-5)


# --- bad input --------------------------------------------------------------------------------------------------------

Q, K, V = (torch.zeros(4, 3, 8), torch.zeros(2, 3, 8), torch.zeros(2, 3, 8))
REFUSED = {
    "window: got -1": lambda: rerope.rectified_distance(torch.arange(3), -1),
    "window: got inf": lambda: rerope.ReRoPE(THETA, window=math.inf),
    "window: got 64": lambda: rerope.required_factor(100, 64, 64),
    "window: got 63.5": lambda: rerope.supported_length(64, 63.5, 2.0),
    "factor: got -1": lambda: rerope.ReRoPECache(THETA, window=2, factor=-1),
    "causal: got False": lambda: rerope.ReRoPE(THETA, window=2).attend(
        Q, K, V, q_positions=torch.arange(3), k_positions=torch.arange(3), causal=False
    ),
    "group: got 0": lambda: rerope.self_extend_distance(torch.arange(3), torch.arange(3), 2, 0),
    "chunk: got 9": lambda: rerope.dual_chunk_distance(torch.arange(3), torch.arange(3), 9, 8),
    "train_length: got 1": lambda: rerope.ReRoPE(THETA, window=2, train_length=1),
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_values_are_refused_by_name(message):
    with as_users_call(), pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_bad_types_are_refused_by_name():
    with as_users_call():
        with pytest.raises(TypeError, match=r"inv_freq: got torch\.int64"):
            rerope.ReRoPECache(torch.arange(4), window=2)
        with pytest.raises(TypeError, match=r"k_positions: got torch\.float32"):
            rerope.self_extend_distance(torch.arange(3), torch.arange(3.0), 2, 1)
        with pytest.raises(TypeError, match="window: got '2'"):
            rerope.rectified_distance(torch.arange(3), "2")


def test_a_cache_refuses_queries_of_tokens_it_did_not_just_get():
    cache = rerope.ReRoPECache(THETA, window=2)
    with as_users_call(), pytest.raises(ValueError, match="q: got length 1"):
        cache.attend(Q[:, :1])
    cache.append(K, V)
    with as_users_call(), pytest.raises(ValueError, match="v: got shape"):
        cache.append(K[:1], V[:1])
    cache.append(K[:, :1], V[:, :1])
    with as_users_call(), pytest.raises(ValueError, match="q: got length 3"):
        cache.attend(Q)
