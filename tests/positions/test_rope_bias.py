"""rope_bias: kernels against complex numbers, scores against rotated vectors, models against explicit masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from opinfo import as_users_call
from torch import nn

from kexue_lib.attention.core import DecoderLM, LMConfig, attention
from kexue_lib.checkpoints import load
from kexue_lib.checkpoints.positions import rope_bias as script
from kexue_lib.positions import rope_bias as rb
from kexue_lib.positions.rope import RotaryEmbedding, inverse_frequencies

LAYOUTS = ("half", "interleaved")
coefficients = st.lists(st.tuples(*[st.floats(-1e100, 1e100, width=64)] * 2), min_size=1, max_size=6)


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# --- kernels ----------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(coefficients, st.sampled_from(LAYOUTS))
def test_every_sum_of_waves_is_reached_with_equal_lengths(pairs, layout):
    alpha, beta = torch.tensor(pairs, dtype=torch.float64).T
    a, b = rb.biases_from_coefficients(alpha, beta, layout=layout)
    amplitude = torch.hypot(alpha, beta)
    for got, expected in zip(rb.bias_coefficients(a, b, layout=layout), (alpha, beta)):
        assert ((got - expected).abs() <= 1e-14 * amplitude + 1e-300).all()
    halves = [x.chunk(2) if layout == "half" else (x[0::2], x[1::2]) for x in (a, b)]
    lengths = [torch.hypot(*half) for half in halves]
    torch.testing.assert_close(*lengths, rtol=1e-12, atol=1e-160)


def test_pair_without_amplitude_gives_zeros_and_no_nan_gradient():
    alpha, beta = (torch.tensor([0.0, 2.0], dtype=torch.float64, requires_grad=True) for _ in range(2))
    a, b = rb.biases_from_coefficients(alpha, beta - beta.detach() * torch.tensor([0.0, 1.0]))
    (a.sum() + b.sum()).backward()
    assert a[0] == b[0] == b[2] == 0
    assert alpha.grad[0] == beta.grad[0] == 0
    assert alpha.grad.isfinite().all()


def test_moving_length_from_one_bias_to_the_other_changes_nothing():
    a, b, times = drawn(8), drawn(8, seed=1), torch.tensor([2.0, 0.5, 8.0, 0.25]).repeat(2)
    relative, theta = torch.arange(-50, 50), inverse_frequencies(8)
    kernels = [rb.rotary_kernel(x, y, relative, theta) for x, y in ((a, b), (times * a, b / times))]
    torch.testing.assert_close(*kernels, rtol=0, atol=1e-13)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_kernel_is_the_score_of_rotated_biases(layout):
    a, b, rope = drawn(3, 8), drawn(3, 8, seed=1), RotaryEmbedding(8, layout=layout)
    query, key = rope(a[:, None].expand(3, 40, 8), b[:, None].expand(3, 40, 8))
    profile = (query @ key.mT)[:, -1].flip(-1)  # the last query sees distances 39…0
    expected = rb.rotary_kernel(a, b, torch.arange(40), rope.inv_freq, layout=layout)
    torch.testing.assert_close(profile, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sandwich_is_the_product_of_sinusoidal_positions(layout):
    theta = 10000.0 ** -(np.arange(0, 16, 2) / 16)
    positions = np.concatenate([f(np.arange(100)[:, None] * theta) for f in (np.sin, np.cos)], axis=-1)
    a, b = rb.sandwich_biases(16, 2.5, layout=layout, dtype=torch.float64)
    kernel = rb.rotary_kernel(a, b, torch.arange(100), torch.from_numpy(theta), layout=layout)
    np.testing.assert_allclose(kernel, 2.5 * positions @ positions[0], rtol=0, atol=1e-12)


def test_far_distances_keep_their_angle():
    a = torch.tensor([1.0, 0.0])
    got = rb.rotary_kernel(a, a, torch.tensor([10**6]), torch.tensor([0.7], dtype=torch.float64))
    assert got.item() == pytest.approx(math.cos(0.7 * 10**6), abs=1e-6)


def test_half_types_are_summed_in_single_precision():
    a, b = drawn(64).bfloat16(), drawn(64, seed=1).bfloat16()
    relative, theta = torch.arange(100), inverse_frequencies(64)
    exact = rb.rotary_kernel(a.double(), b.double(), relative, theta)
    got = rb.rotary_kernel(a, b, relative, theta)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), exact, rtol=2**-8, atol=1e-4)


# --- fits -------------------------------------------------------------------------------------------------------------


def test_fit_recovers_a_kernel_from_its_values():
    theta = torch.tensor([1.3, 0.6, 0.2], dtype=torch.float64)
    a, b = drawn(6), drawn(6, seed=1)
    values = rb.rotary_kernel(a, b, torch.arange(40), theta)
    fitted = rb.fit_biases(values, theta, ridge=0.0)
    torch.testing.assert_close(
        rb.bias_coefficients(*fitted), rb.bias_coefficients(a, b), rtol=0, atol=1e-10
    )  # fmt: skip


@pytest.mark.parametrize("ridge", [1e-8, 1e-2, 10.0])
def test_fit_is_least_squares_of_the_augmented_system(ridge):
    n, theta = 512, inverse_frequencies(64)
    target = -4 * torch.arange(n, dtype=torch.float64) / n
    angles = np.arange(n)[:, None] * theta.numpy()
    waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
    system = np.concatenate([waves, math.sqrt(ridge) * np.eye(64)])
    exact = np.linalg.lstsq(system, np.concatenate([target, np.zeros(64)]), rcond=None)[0]
    got = torch.cat(rb.bias_coefficients(*rb.fit_biases(target, theta, ridge=ridge)))
    np.testing.assert_allclose(waves @ got.numpy(), waves @ exact, rtol=0, atol=1e-6)
    np.testing.assert_allclose(got, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


def test_larger_ridge_gives_a_shorter_and_worse_fit():
    n, theta = 256, inverse_frequencies(32)
    target = -torch.log1p(torch.arange(n, dtype=torch.float64))
    errors, sizes = [], []
    for ridge in (0.0, 1e-6, 1e-2, 1.0, 100.0):
        a, b = rb.fit_biases(target, theta, ridge=ridge)
        errors.append((rb.rotary_kernel(a, b, torch.arange(n), theta) - target).square().sum().item())
        sizes.append(sum(x.square().sum() for x in rb.bias_coefficients(a, b)).item())
    assert errors == sorted(errors)
    assert sizes == sorted(sizes, reverse=True)
    assert errors[0] < errors[-1]
    assert sizes[0] > sizes[-1]


def test_fits_in_a_batch_are_each_their_own():
    targets, theta = drawn(2, 3, 20), inverse_frequencies(6)
    a, b = rb.fit_biases(targets, theta, layout="interleaved")
    one = rb.fit_biases(targets[1, 2], theta, layout="interleaved")
    torch.testing.assert_close((a[1, 2], b[1, 2]), one)


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("places", ["default", "given", "by row"])
def test_terms_add_up_to_the_score_of_rotated_vectors_with_biases(layout, places):
    q, k, a, b = drawn(2, 4, 3, 8), drawn(2, 2, 7, 8, seed=1), drawn(4, 8, seed=2), drawn(2, 8, seed=3)
    rope = RotaryEmbedding(8, layout=layout)
    q_positions, k_positions = torch.arange(4, 7), torch.arange(7)
    options = {}
    if places != "default":
        q_positions, k_positions = q_positions * 3 + 5, k_positions * 2
        if places == "by row":
            q_positions, k_positions = torch.stack([q_positions, q_positions + 9]), torch.stack([k_positions] * 2)
        options = {"q_positions": q_positions, "k_positions": k_positions}
    terms = rb.score_terms(q, k, a, b, rope.inv_freq, layout=layout, **options)
    query, key = rope(q + a[:, None], k + b[:, None], q_positions, k_positions)
    expected = query @ key.repeat_interleave(2, dim=1).mT
    torch.testing.assert_close(sum(terms), expected, rtol=0, atol=1e-12)
    only_key = rope(torch.zeros_like(q) + a[:, None], k, q_positions, k_positions)
    torch.testing.assert_close(terms.bias_key, only_key[0] @ only_key[1].repeat_interleave(2, dim=1).mT)
    zero = rb.score_terms(q, k, 0 * a, b, rope.inv_freq, layout=layout, **options)
    assert not zero.bias_key.any()
    assert not zero.bias_bias.any()
    torch.testing.assert_close(zero.query_bias, terms.query_bias)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_appended_kernel_in_fused_attention_is_an_additive_mask(layout):
    q, k, v = (drawn(2, 3, 9, 8, seed=s) for s in range(3))
    a, b, rope = drawn(3, 8, seed=3), drawn(3, 8, seed=4), RotaryEmbedding(8, layout=layout)
    place = torch.arange(9)
    kernel = rb.rotary_kernel(a, b, torch.arange(-8, 9), rope.inv_freq, layout=layout)
    mask = kernel[:, place[:, None] - place + 8] / math.sqrt(8)
    mask = mask.masked_fill(place[:, None] < place, -torch.inf)
    expected = F.scaled_dot_product_attention(*rope(q, k), v, attn_mask=mask)
    query, key = rb.append_kernel(q, k, a, b, rope.inv_freq, layout=layout)
    got = F.scaled_dot_product_attention(query, key, v, is_causal=True, scale=8**-0.5)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_scores_depend_on_the_distance_only():
    q, k, a, b = drawn(1, 5, 8), drawn(1, 5, 8, seed=1), drawn(1, 8, seed=2), drawn(1, 8, seed=3)
    place = torch.arange(5)
    near, far = (
        rb.score_terms(q, k, a, b, inverse_frequencies(8), q_positions=p, k_positions=p) for p in (place, place + 1000)
    )
    torch.testing.assert_close(near, far, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [2, 17, 128, 129, 300])
def test_profile_is_the_mean_of_every_diagonal(n):
    scores = drawn(2, 3, n, n).masked_fill(torch.ones(n, n).triu(1).bool(), torch.nan)
    expected = np.stack([np.diagonal(scores.numpy(), -r, -2, -1).mean(-1) for r in range(n)], axis=-1)
    for layout in (scores, scores.mT.contiguous().mT):
        np.testing.assert_allclose(rb.distance_profile(layout), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 0), (2, 0, 0), (0, 3, 3), (1, 1)])
def test_profile_of_empty_and_single_matrices(shape):
    assert rb.distance_profile(torch.ones(shape)).shape == shape[:-1]


def test_key_bias_without_rotation_has_no_effect_and_no_gradient():
    q, k, v = (drawn(2, 6, 8, seed=s) for s in range(3))
    a, b = drawn(2, 8, seed=3).requires_grad_(), drawn(2, 8, seed=4).requires_grad_()

    def output(theta):
        query, key = q + a[:, None], k + b[:, None]
        scores = sum(rb.score_terms(query, key, torch.zeros_like(a), torch.zeros_like(b), theta))
        return torch.softmax(scores, -1) @ v

    for theta, moves in ((torch.zeros(4), False), (inverse_frequencies(8), True)):
        of_query, of_key = torch.autograd.grad((output(theta) * drawn(2, 6, 8, seed=5)).sum(), (a, b))
        assert of_query.abs().max() > 1e-3
        assert (of_key.abs().max() > 1e-3) == moves
        assert moves or of_key.abs().max() < 1e-14


# --- modules ----------------------------------------------------------------------------------------------------------


def tiny(**options):
    config = LMConfig(vocab_size=11, d_model=24, n_layers=2, n_heads=3, **options)
    return DecoderLM(config, generator=torch.Generator().manual_seed(0)).eval()


def test_zero_biases_change_nothing_and_sandwich_starts_as_sandwich():
    q, k = torch.randn(2, 3, 4, 8), torch.randn(2, 1, 4, 8)
    plain = rb.QueryKeyBias(3, 8, num_key_heads=1)(q, k)
    assert torch.equal(plain[0], q)
    assert torch.equal(plain[1], k)
    biases = rb.QueryKeyBias(3, 8, num_key_heads=1, init="sandwich", strength=2.0, layout="interleaved")
    expected = rb.sandwich_biases(8, 2.0, layout="interleaved")[0]
    moved = biases(q, k)
    torch.testing.assert_close(moved[0] - q, expected.expand_as(q), rtol=0, atol=1e-6)
    torch.testing.assert_close(moved[1] - k, expected.expand_as(k), rtol=0, atol=1e-6)
    assert biases(q.bfloat16(), k.bfloat16())[0].dtype == torch.bfloat16
    assert {name for name, _ in biases.named_parameters()} == {"query_bias", "key_bias"}


@pytest.mark.parametrize("bias", [False, True])
def test_folded_biases_are_those_of_the_module(bias):
    biases = rb.QueryKeyBias(4, 6, num_key_heads=2)
    biases.query_bias.data, biases.key_bias.data = torch.randn(4, 6), torch.randn(2, 6)
    query, key, x = nn.Linear(5, 24, bias=bias), nn.Linear(5, 12, bias=bias), torch.randn(3, 7, 5)
    split = lambda y, heads: y.view(3, 7, heads, 6).transpose(1, 2)
    expected = biases(split(query(x), 4), split(key(x), 2))
    biases.fold(query, key)
    torch.testing.assert_close((split(query(x), 4), split(key(x), 2)), expected)
    assert query.bias.requires_grad
    assert isinstance(key.bias, nn.Parameter)


def test_fold_refuses_before_it_changes_anything():
    query, key = nn.Linear(5, 12, bias=False), nn.Linear(5, 13, bias=False)
    with pytest.raises(ValueError, match=r"key.weight: got shape \(13, 5\), expected \(12, n\)"):
        rb.QueryKeyBias(2, 6).fold(query, key)
    assert query.bias is None


class Masked(RotaryEmbedding):
    """Rotary attention with a kernel as an explicit mask, by the distance of the given positions."""

    def __init__(self, a, b):
        super().__init__(len(a))
        self.kernel = lambda r: rb.rotary_kernel(a, b, r.flatten(), self.inv_freq).view(r.shape)

    def attend(self, q, k, v, *, q_positions, k_positions, causal, scale):
        distance = q_positions[..., :, None] - k_positions[..., None, :]
        mask = self.kernel(distance)[..., None, :, :] / math.sqrt(self.dim)
        q, k = self.rotate(q, q_positions), self.rotate(k, k_positions)
        return attention(q, k, v, mask=mask, causal=causal)


@pytest.mark.parametrize("kv_heads", [3, 1])
@pytest.mark.parametrize("shift", [0, 700])
def test_kernel_position_is_an_additive_mask_in_a_decoder(kv_heads, shift):
    model, tokens = tiny(n_kv_heads=kv_heads), torch.arange(20).remainder(11).view(2, 10)
    a, b = drawn(8, seed=1).float(), drawn(8, seed=2).float()
    positions = torch.arange(10).expand(2, 10) * 3 + torch.tensor([[0], [shift]])
    outputs = []
    for position in (Masked(a, b), rb.KernelRotary(a, b), RotaryEmbedding(8)):
        model.position = position
        outputs.append(model(tokens, positions=positions))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
    assert (outputs[2] - outputs[0]).abs().max() > 1e-3


def test_kernel_position_generates_alike_with_and_without_a_cache():
    model, prompt = tiny(), torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    model.position = rb.KernelRotary(*rb.sandwich_biases(8, 2.0))
    assert torch.equal(model.generate(prompt, 12), model.generate(prompt, 12, use_cache=False))
    model.position = rb.KernelRotary(*rb.sandwich_biases(8, 0.0))
    without = model(prompt)
    model.position = RotaryEmbedding(8)
    torch.testing.assert_close(without, model(prompt), rtol=1e-4, atol=1e-6)


def test_kernel_position_keeps_the_dtype_of_the_queries():
    position = rb.KernelRotary(*rb.sandwich_biases(8))
    q = k = v = torch.randn(1, 2, 70, 8).bfloat16()
    place = torch.arange(70)
    assert position.attend(q, k, v, q_positions=place, k_positions=place).dtype == torch.bfloat16


# --- stored runs ------------------------------------------------------------------------------------------------------


def test_all_methods_of_a_seed_start_from_the_same_weights():
    weights = [script.prepared(m, 1).state_dict() for m in ("plain", "zero", "sandwich", "kernel")]
    for other in weights[1:]:
        assert all(torch.equal(w, other[name]) for name, w in weights[0].items())


def test_stored_runs_are_those_that_the_script_makes():
    content, _ = load("positions/rope_bias")
    stored = [(row["method"], row["seed"], row["steps"]) for row in content["rows"]]
    expected = {(name, *run[1:]) for run in script.runs() for name in script.read_as(*run)}
    assert len(stored) == len(set(stored))
    assert set(stored) == expected
    assert all(0 < value < 1 for row in content["rows"] for kind in script.KINDS for value in row[kind])


# --- what is refused --------------------------------------------------------------------------------------------------

X, Y = torch.zeros(2, 5, 6), torch.zeros(1, 5, 6)
THETA = torch.ones(3)
REFUSED = {
    "layout": (lambda: rb.sandwich_biases(4, layout="neox"), "layout: got 'neox'"),
    "strength": (lambda: rb.sandwich_biases(4, -1.0), "strength: got -1.0, expected"),
    "strength of a module": (lambda: rb.QueryKeyBias(2, 4, strength=-1.0), "strength: got -1.0"),
    "odd dim": (lambda: rb.sandwich_biases(5), "dim: got 5, expected an even integer"),
    "init": (lambda: rb.QueryKeyBias(2, 4, init="ones"), "init: got 'ones', expected 'zero' or 'sandwich'"),
    "heads": (lambda: rb.QueryKeyBias(3, 4, num_key_heads=2), "num_key_heads: got 2, expected a divisor"),
    "kernel of a position": (lambda: rb.KernelRotary(torch.ones(4), torch.ones(6)), "a, b: got widths 4 and 6"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_its_name(case):
    call, message = REFUSED[case]
    with as_users_call(), pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rb.sandwich_biases(4.0), "dim: got 4.0, expected an integer"),
        (lambda: rb.QueryKeyBias(True, 4), "num_heads: got True"),
    ],
)
def test_wrong_types_are_refused(call, message):
    with as_users_call(), pytest.raises(TypeError, match=message):
        call()
