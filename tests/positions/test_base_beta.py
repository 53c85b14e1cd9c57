"""base_beta: digits against Python's own integers, frequencies against 50 digits and against transformers."""

from __future__ import annotations

import itertools
import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rotary_embedding_torch import RotaryEmbedding as RotaryEmbeddingTorch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from kexue_lib.attention.core import DecoderLM, LMConfig
from kexue_lib.positions import base_beta as bb
from kexue_lib.positions.rope import RotaryEmbedding, inverse_frequencies

OF_FACTOR = {
    "pi": bb.pi_frequencies,
    "ntk-old": bb.ntk_old_frequencies,
    "ntk-aware": bb.ntk_aware_frequencies,
    "ntk-fixed": bb.ntk_fixed_frequencies,
    "ntk-mixed": bb.ntk_mixed_frequencies,
}
OF_LENGTH = {"ntk-by-parts": bb.ntk_by_parts_frequencies, "yarn": bb.yarn_frequencies, "llama3": bb.llama3_frequencies}


def llama_config(kind: str, *, base=10000.0, head_dim=64, factor=8.0, length=4096, **more) -> LlamaConfig:
    parameters = {"rope_type": kind, "rope_theta": base}
    if kind != "default":
        parameters |= {"factor": factor, "original_max_position_embeddings": length, **more}
    return LlamaConfig(
        vocab_size=50,
        hidden_size=2 * head_dim,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=length,
        rope_parameters=parameters,
    )


# --- digits -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**62), st.lists(st.integers(2, 1000), min_size=1, max_size=8))
def test_digits_are_those_of_repeated_divmod_on_python_integers(n, radices):
    expected, rest = [], n
    for radix in radices:
        rest, place = divmod(rest, radix)
        expected.append(place)
    found = bb.digits(n, radices)
    assert found.tolist() == expected
    assert bb.from_digits(found, radices).item() == n % math.prod(radices)


@pytest.mark.parametrize("base", [2, 8, 10, 16])
def test_digits_print_as_python_prints_them(base):
    letters = {2: "b", 8: "o", 10: "d", 16: "x"}[base]
    for n in (0, 1, 1749, 65535):
        text = "".join("0123456789abcdef"[v] for v in bb.digits(n, [base] * 16).flip(-1).tolist())
        assert text == format(n, f"016{letters}")


@pytest.mark.parametrize("base", [10, 13, 16])
def test_digits_compare_as_the_numbers_do(base):
    most_significant_first = bb.digits(torch.arange(2000), [base] * 4).flip(-1).tolist()
    assert most_significant_first == sorted(most_significant_first)
    assert len({tuple(row) for row in most_significant_first}) == 2000


def test_digits_keep_dtype_and_shape_and_drop_what_is_beyond():
    n = torch.arange(24, dtype=torch.int16).view(2, 3, 4)
    found = bb.digits(n, [5, 2])
    assert found.dtype == torch.int16
    assert found.shape == (2, 3, 4, 2)
    assert torch.equal(bb.from_digits(found, [5, 2]), n % 10)
    assert bb.digits(n[:0], [5]).shape == (0, 3, 4, 1)


@pytest.mark.parametrize(("count", "places"), [(2000, 3), (4096, 3), (4097, 3), (1, 2), (10**15, 3), (7, 1)])
def test_smallest_base_is_just_large_enough(count, places):
    base = bb.smallest_base(count, places)
    assert base**places >= count
    assert base == 2 or (base - 1) ** places < count


# --- frequencies ------------------------------------------------------------------------------------------------------


def exact(method: str, d: int, k: float, b: float) -> list[mpmath.mpf]:
    """The article's formulas, digit by digit with m = 1…N, in 50 digits."""
    mpmath.mp.dps = 50
    k, b, size = mpmath.mpf(k), mpmath.mpf(b), d // 2
    beta = b ** (mpmath.mpf(2) / d)
    radix = {
        "pi": lambda m: k if m == 1 else 1,
        "ntk-old": lambda m: 1 if m == 1 else k ** (mpmath.mpf(2) / d),
        "ntk-aware": lambda m: 1 if m == 1 else k ** (mpmath.mpf(2) / (d - 2)),
        "ntk-fixed": lambda m: k ** (mpmath.mpf(2) / d),
        "ntk-mixed": lambda m: mpmath.exp(
            mpmath.log(k) / size ** mpmath.mpf("0.625") * (m ** mpmath.mpf("0.625") - (m - 1) ** mpmath.mpf("0.625"))
        ),
    }[method]
    out, product = [], mpmath.mpf(1)
    for m in range(1, size + 1):
        product *= radix(m)
        out.append(1 / (beta ** (m - 1) * product))
    return out


@pytest.mark.parametrize("method", OF_FACTOR)
@pytest.mark.parametrize(("d", "k", "b"), [(4, 2.0, 100.0), (64, 8.0, 10000.0), (128, 40.0, 5e5), (6, 1e6, 2.0)])
def test_frequencies_are_the_products_of_the_radices_to_14_digits(method, d, k, b):
    found = OF_FACTOR[method](d, k, b)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.tensor([float(v) for v in exact(method, d, k, b)], dtype=torch.float64),
                               rtol=1e-13, atol=0)  # fmt: skip
    radices = [float(v) for v in bb.effective_radices(found, b)]
    assert math.prod(radices) == pytest.approx(b * float(k if method != "ntk-old" else k ** (1 - 2 / d)), rel=1e-11)


@pytest.mark.parametrize("base", [10000.0, 500000.0])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("factor", [1.0, 4.0, 40.0])
def test_agreement_with_transformers(base, head_dim, factor):
    # They round the base's powers to float32, and the share of a ramp that is interpolated, which counts up to k times.
    rtol = 1e-7 * (20 + factor)

    def agrees(found, kind, expected_scale=1.0, **more):
        config = llama_config(kind, base=base, head_dim=head_dim, factor=factor, **more)
        theirs, scale = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
        torch.testing.assert_close(found.float(), theirs, rtol=rtol, atol=0)
        assert scale == pytest.approx(expected_scale, rel=1e-12)

    agrees(bb.pi_frequencies(head_dim, factor, base), "linear")
    for truncate in (True, False):
        yarn = bb.yarn_frequencies(head_dim, factor, 4096, base, truncate=truncate)
        agrees(yarn, "yarn", bb.yarn_attention_factor(factor), truncate=truncate)
    agrees(bb.yarn_frequencies(head_dim, factor, 4096, base, beta_fast=8, beta_slow=2), "yarn",
           bb.yarn_attention_factor(factor), beta_fast=8, beta_slow=2)  # fmt: skip
    agrees(bb.llama3_frequencies(head_dim, factor, 4096, base), "llama3", low_freq_factor=1.0, high_freq_factor=4.0)
    for length in (100, 4096, 4097, 10_000):
        config = llama_config("dynamic", base=base, head_dim=head_dim, factor=factor)
        theirs, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=length)
        found = bb.dynamic_ntk_frequencies(head_dim, length, 4096, base, factor=factor)
        torch.testing.assert_close(found.float(), theirs, rtol=rtol, atol=0)


def test_ntk_aware_is_the_rescaled_base_of_rotary_embedding_torch():
    theirs = RotaryEmbeddingTorch(dim=64, theta_rescale_factor=8.0).freqs.detach()
    torch.testing.assert_close(bb.ntk_aware_frequencies(64, 8.0).float(), theirs, rtol=2e-6, atol=0)


@pytest.mark.parametrize("method", [*OF_FACTOR, *OF_LENGTH])
@pytest.mark.parametrize("dim", [4, 64, 128])
def test_a_factor_of_one_changes_no_bit_and_factors_lie_between_one_and_k(method, dim):
    function = OF_FACTOR.get(method) or (lambda d, k, b: OF_LENGTH[method](d, k, 4096, b))
    assert torch.equal(function(dim, 1, 10000.0), inverse_frequencies(dim, 10000.0))
    found = function(dim, 8, 10000.0)
    factors = bb.interpolation_factors(found)
    assert (found.diff() < 0).all()
    assert factors.min() >= 1 - 1e-12
    assert factors.max() <= 8 * (1 + 1e-12)
    assert (factors.diff() >= -1e-12).all()


def test_mixed_ends_are_interpolation_and_fixed():
    torch.testing.assert_close(bb.ntk_mixed_frequencies(64, 8, exponent=0.0), bb.pi_frequencies(64, 8))
    torch.testing.assert_close(bb.ntk_mixed_frequencies(64, 8, exponent=1.0), bb.ntk_fixed_frequencies(64, 8))


def test_by_parts_keeps_and_interpolates_by_turns_inside_the_training_length():
    found = bb.ntk_by_parts_frequencies(128, 8, 4096)
    for i, theta in enumerate(inverse_frequencies(128).tolist()):
        turns = 4096 * theta / (2 * math.pi)
        share = min(1.0, max(0.0, (turns - 1) / 31))
        assert found[i].item() == pytest.approx(share * theta + (1 - share) * theta / 8, rel=1e-13)


def test_one_turn_at_the_critical_index():
    for dim, length, base in itertools.product((32, 128), (64, 8192), (1e4, 5e5)):
        i = bb.critical_index(dim, length, base)
        assert length * base ** (-2 * i / dim) == pytest.approx(2 * math.pi)


# --- position objects -------------------------------------------------------------------------------------------------


def test_a_scaled_rotary_is_plain_rotary_with_other_frequencies():
    x = torch.randn(2, 3, 7, 16, generator=torch.Generator().manual_seed(0))
    scaled = bb.ScaledRotary(16, method="yarn", factor=4, original_length=16, rotary_dim=8)
    plain = RotaryEmbedding(16, rotary_dim=8, inv_freq=bb.yarn_frequencies(8, 4, 16))
    out = scaled.rotate(x, torch.arange(7))
    torch.testing.assert_close(out[..., :8], plain.rotate(x, torch.arange(7))[..., :8] * (0.1 * math.log(4) + 1))
    assert not hasattr(scaled, "query_scale")
    # Half a step of interpolation by two is one step of the trained model.
    half = bb.ScaledRotary(16, method="pi", factor=2)
    torch.testing.assert_close(half.rotate(x, 2 * torch.arange(7)), RotaryEmbedding(16).rotate(x, torch.arange(7)))


@pytest.mark.parametrize("mode", ["clip", "full"])
def test_log_scale_reaches_the_queries_of_a_model(mode):
    config = LMConfig(vocab_size=11, d_model=16, n_layers=1, n_heads=2)
    model = DecoderLM(config, generator=torch.Generator().manual_seed(0))
    tokens = torch.arange(9)[None]
    plain = model(tokens)
    model.position = bb.ScaledRotary(8, method="none", original_length=4, log_scale=mode)
    scaled = model(tokens)
    changed = (scaled - plain).abs().amax((0, 2)) > 1e-7
    # One key leaves softmax nothing to sharpen; at position 3 the factor is 1.
    assert changed.tolist() == [False, mode == "full", mode == "full", False, *[True] * 5]


def test_cached_and_uncached_dynamic_attention_agree_in_one_layer():
    """Its raw cache gives what rotating everything afresh gives; a cache of rotated keys does not."""
    config = LMConfig(vocab_size=11, d_model=16, n_layers=1, n_heads=2)
    model = DecoderLM(
        config, position=bb.DynamicRotary(8, original_length=4), generator=torch.Generator().manual_seed(0)
    )
    model, tokens = model.double(), torch.arange(10)[None]
    cache = model.new_cache(1, 10)
    for t in range(10):
        step = model(tokens[:, t : t + 1], cache=cache)[0, -1]
        torch.testing.assert_close(step, model(tokens[:, : t + 1])[0, -1], rtol=0, atol=1e-12)
    # No call leaves a trace for the next one.
    before = model(tokens[:, :5])
    model(tokens)
    assert torch.equal(model(tokens[:, :5]), before)


def test_dynamic_rows_do_not_depend_on_one_another():
    rotary = bb.DynamicRotary(8, original_length=4)
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 8, generator=g, dtype=torch.float64) for _ in range(3))
    positions = torch.stack([torch.arange(5), torch.arange(5) + 40])
    both = rotary.attend(q, k, v, q_positions=positions, k_positions=positions, causal=True)
    for row in (0, 1):
        alone = rotary.attend(
            q[row], k[row], v[row], q_positions=positions[row], k_positions=positions[row], causal=True
        )
        torch.testing.assert_close(both[row], alone)


def test_dynamic_at_a_length_is_ntk_aware_by_that_factor():
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 12, 8, generator=g, dtype=torch.float64) for _ in range(3))
    at = torch.arange(12)
    out = bb.DynamicRotary(8, original_length=4).attend(q, k, v, q_positions=at, k_positions=at, causal=True)
    static = bb.ScaledRotary(8, method="ntk-aware", factor=3)
    scores = (static.rotate(q, at) @ static.rotate(k, at).mT / 8**0.5).masked_fill(at > at[:, None], -torch.inf)
    torch.testing.assert_close(out, scores.softmax(-1) @ v)


@pytest.mark.parametrize("make", [lambda: bb.ScaledRotary(8, method="ntk-mixed", factor=8), lambda: RotaryEmbedding(8)])
def test_swapping_the_recipe_keeps_one_compiled_graph(make, without_runtime_types):
    rope, x = make(), torch.randn(1, 2, 5, 8)
    rope(x, x)
    compiled = torch.compile(lambda a: rope(a, a), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), rope(x, x))


# --- Hugging Face -----------------------------------------------------------------------------------------------------

KINDS = {
    "linear": ("pi", {}, {}),
    "yarn": ("yarn", {}, {}),
    "llama3": ("llama3", {}, {"low_freq_factor": 1.0, "high_freq_factor": 4.0}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_call_makes_a_llama_what_its_own_config_would_make_it(kind):
    method, options, more = KINDS[kind]
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(llama_config(kind, head_dim=16, length=32, **more)).eval()
    ours = LlamaForCausalLM(llama_config("default", head_dim=16, length=32)).eval()
    ours.load_state_dict(theirs.state_dict())
    tokens = torch.randint(50, (2, 100), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, expected = ours(tokens).logits, theirs(tokens).logits
        recipe = bb.scale_transformers_rotary(ours, method, 8.0, **options)
        torch.testing.assert_close(ours(tokens).logits, expected, rtol=0, atol=2e-5)
        assert (plain - expected).abs().max() > 3e-4
        assert (recipe.method, recipe.base) == (method, 10000.0)
        bb.scale_transformers_rotary(ours, "none")
        torch.testing.assert_close(ours(tokens).logits, plain, rtol=0, atol=2e-5)


@pytest.mark.parametrize("method", [m for m in bb.METHODS if m != "none"])
def test_every_recipe_runs_in_a_llama_and_gives_our_models_scores(method):
    model = LlamaForCausalLM(llama_config("default", head_dim=16, length=32)).eval()
    recipe = bb.scale_transformers_rotary(model, method, 8)
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(100)[None])
    ours = recipe.table(torch.arange(100))
    for theirs, table in zip((cos, sin), ours):
        torch.testing.assert_close(theirs[0], torch.cat([table, table], -1), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("config", "network"), [(MistralConfig, MistralForCausalLM), (Qwen2Config, Qwen2ForCausalLM)])
def test_models_of_the_llama_kind_take_a_recipe_and_give_it_back(config, network):
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 50}
    torch.manual_seed(0)
    model = network(config(num_attention_heads=2, num_key_value_heads=2, **sizes)).eval()
    tokens = torch.randint(50, (1, 60), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model(tokens).logits
        recipe = bb.scale_transformers_rotary(model, "pi", 4)
        # Interpolation by four is the plain model at positions that are four times closer.
        closer = model(tokens).logits
        bb.scale_transformers_rotary(model, "none")
        torch.testing.assert_close(model(tokens, position_ids=torch.arange(60)[None] / 4).logits, closer)
        torch.testing.assert_close(model(tokens).logits, plain, rtol=0, atol=1e-6)
    assert recipe.base == model.config.rope_parameters["rope_theta"]
    assert (plain - closer).abs().max() > 1e-4


def test_a_dynamic_llama_becomes_free_of_its_history():
    model = LlamaForCausalLM(llama_config("dynamic", head_dim=16, length=32)).eval()
    bb.scale_transformers_rotary(model, "ntk-aware", 8)
    tokens = torch.randint(50, (1, 200), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(tokens[:, :40]).logits
        model(tokens)
        assert torch.equal(model(tokens[:, :40]).logits, before)


def test_transformers_dynamic_recipe_depends_on_earlier_calls():
    """What the chapter shows of transformers 5.20: the frequencies of the longest call stay until a short one."""
    rotary = LlamaRotaryEmbedding(llama_config("dynamic", factor=2.0, length=2048))
    calls = {2048: 2048, 4096: 4096, 3000: 4096}
    again = {2048: 4096, 2047: 2048, 3000: 3000}
    for length, used in (*calls.items(), *again.items()):
        rotary(torch.zeros(1), torch.arange(length)[None])
        expected = bb.dynamic_ntk_frequencies(64, used, 2048, factor=2).float()
        torch.testing.assert_close(rotary.inv_freq, expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize(
    ("more", "expected"), [({"mscale": 2.0}, 1.1386), ({"mscale": 1.0, "mscale_all_dim": 1.0}, 1.0)]
)
def test_mscale_alone_changes_nothing_in_transformers(more, expected):
    _, scale = ROPE_INIT_FUNCTIONS["yarn"](llama_config("yarn", factor=4.0, **more), "cpu")
    assert scale == pytest.approx(expected, abs=1e-4)


def test_setting_rope_theta_or_the_config_later_changes_nothing_in_transformers():
    config = llama_config("default", head_dim=16, length=32)
    model = LlamaForCausalLM(config)
    before = model.model.rotary_emb.inv_freq.clone()
    model.config.rope_theta = 80000.0
    model(torch.zeros(1, 3, dtype=torch.long))
    assert torch.equal(model.model.rotary_emb.inv_freq, before)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*OF_FACTOR, *OF_LENGTH])
@pytest.mark.parametrize("factor", [0.5, math.inf, math.nan])
def test_bad_factors(method, factor):
    with pytest.raises(ValueError, match="factor"):
        bb.ScaledRotary(8, method=method, factor=factor, original_length=64)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("exponent", lambda: bb.ntk_mixed_frequencies(8, 2, exponent=-0.1)),
        ("exponent", lambda: bb.ntk_mixed_frequencies(8, 2, exponent=1.1)),
        ("dim", lambda: bb.pi_frequencies(7, 2)),
        ("dim", lambda: bb.ntk_aware_frequencies(2, 2)),
        ("dim", lambda: bb.dynamic_ntk_frequencies(2, 5, 4)),
        ("dim", lambda: bb.DynamicRotary(2, original_length=4)),
        ("length", lambda: bb.dynamic_ntk_frequencies(8, 0, 4)),
        ("original_length", lambda: bb.yarn_frequencies(8, 2, 0)),
        ("original_length", lambda: bb.ScaledRotary(8, method="yarn", factor=2)),
        ("original_length", lambda: bb.ScaledRotary(8, method="pi", log_scale="clip")),
        ("train_length", lambda: bb.log_length_scale(torch.arange(3), 1)),
        ("low", lambda: bb.llama3_frequencies(8, 2, 64, low=4.0)),
        ("beta_slow", lambda: bb.yarn_frequencies(8, 2, 64, beta_slow=40)),
        ("base", lambda: bb.yarn_frequencies(8, 2, 64, 1.0)),
        ("base", lambda: bb.pi_frequencies(8, 2, -1.0)),
        ("ntk-mixed", lambda: bb.ScaledRotary(8, method="ntk")),
        ("DynamicRotary", lambda: bb.ScaledRotary(8, method="dynamic")),
        ("options", lambda: bb.ScaledRotary(8, method="none", exponent=0.5)),
        ("radices", lambda: bb.digits(5, [])),
        ("radices", lambda: bb.digits(5, [10, 1])),
        ("radices", lambda: bb.digits(torch.tensor([5], dtype=torch.int8), [1000])),
        ("n: got -1", lambda: bb.digits(torch.tensor([3, -1]), [10])),
        ("d: got shape", lambda: bb.from_digits(torch.zeros(3, dtype=torch.long), [10])),
        ("count", lambda: bb.smallest_base(0, 3)),
        ("places", lambda: bb.smallest_base(5, 0)),
    ],
)
def test_bad_values_are_named(name, call, without_runtime_types):
    with pytest.raises(ValueError, match=name):
        call()


def test_bad_kinds_are_named(without_runtime_types):
    for bad in (torch.tensor([1.0]), torch.tensor([True]), 1.5, True):
        with pytest.raises(TypeError, match="n: got"):
            bb.digits(bad, [10])
    with pytest.raises(TypeError, match="model"):
        bb.scale_transformers_rotary(torch.nn.Linear(2, 2), "pi", 2.0)
    with pytest.raises(ValueError, match="log_scale"):
        bb.ScaledRotary(8, method="pi", original_length=8, log_scale="half")
    llama = LlamaForCausalLM(llama_config("default", head_dim=16, length=32))
    with pytest.raises(ValueError, match="log_scale"):
        bb.scale_transformers_rotary(llama, "pi", 2.0, log_scale="clip")
