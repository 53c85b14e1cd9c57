"""Rotary embedding: the algebra by SymPy, the numbers against 50 digits and against other libraries."""

import copy
import math

import mpmath
import pytest
import sympy as sp
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from kexue_lib.derivation import Derivation
from kexue_lib.positions.rope import (
    RotaryEmbedding,
    apply_rotary,
    cos_sin,
    inverse_frequencies,
    layout_permutation,
    log_length_scale,
)


def normal(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def dense(position, frequencies, dim, layout):
    """The rotation as a matrix, entry by entry from the definition."""
    matrix = torch.eye(dim, dtype=torch.float64)
    pairs = len(frequencies)
    for i, theta in enumerate(frequencies.tolist()):
        a, b = (i, i + pairs) if layout == "half" else (2 * i, 2 * i + 1)
        c, s = math.cos(position * theta), math.sin(position * theta)
        matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = c, -s, s, c
    return matrix


# --- algebra ----------------------------------------------------------------------------------------------------------


def symbolic_rotation(m, thetas, layout):
    d, pairs = 2 * len(thetas), len(thetas)
    matrix = sp.zeros(d, d)
    for i, theta in enumerate(thetas):
        a, b = (i, i + pairs) if layout == "half" else (2 * i, 2 * i + 1)
        matrix[a, a] = matrix[b, b] = sp.cos(m * theta)
        matrix[a, b], matrix[b, a] = -sp.sin(m * theta), sp.sin(m * theta)
    return matrix


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rotations_compose_to_the_relative_position(layout):
    m, n = sp.symbols("m n", real=True)
    thetas = sp.symbols("theta_1:3", positive=True)
    R = {k: symbolic_rotation(k, thetas, layout) for k in (m, n, n - m)}
    d = Derivation("rope")
    d.equal("Relative rotation", R[m].T * R[n], R[n - m])
    d.equal("Orthogonal", R[m].T * R[m], sp.eye(4))
    assert [c.evidence for c in d.claims] == ["proved", "proved"]


def test_both_layouts_give_the_same_score_after_the_permutation():
    m, n = sp.symbols("m n", real=True)
    thetas = sp.symbols("theta_1:3", positive=True)
    q, k = sp.Matrix(sp.symbols("q_1:5", real=True)), sp.Matrix(sp.symbols("k_1:5", real=True))
    p = layout_permutation(4).tolist()

    def score(layout, query, key):
        return (query.T * symbolic_rotation(m, thetas, layout).T * symbolic_rotation(n, thetas, layout) * key)[0]

    shuffled = score("half", sp.Matrix([q[i] for i in p]), sp.Matrix([k[i] for i in p]))
    assert sp.expand(score("interleaved", q, k) - shuffled) == 0


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [1.0, 2.5, 10000.0, 5e5])
def test_frequencies_to_the_last_digits(base):
    with mpmath.workdps(50):
        exact = [float(mpmath.mpf(base) ** (-mpmath.mpf(2 * i) / 64)) for i in range(32)]
    torch.testing.assert_close(
        inverse_frequencies(64, base), torch.tensor(exact, dtype=torch.float64), rtol=4e-15, atol=0
    )


@pytest.mark.parametrize("position", [0, 1, 1000, 10**5, 10**6, 12345.678])
def test_cosines_at_far_positions_against_fifty_digits(position):
    frequencies = inverse_frequencies(128)
    with mpmath.workdps(50):
        angles = [mpmath.mpf(position) * mpmath.mpf(f) for f in frequencies.tolist()]
        exact = torch.tensor([[float(mpmath.cos(a)), float(mpmath.sin(a))] for a in angles], dtype=torch.float64)
    for dtype, ulp in ((torch.float64, 0.0), (torch.float32, 2**-25), (torch.bfloat16, 2**-9)):
        table = cos_sin(torch.tensor(position, dtype=torch.float64), frequencies, dtype=dtype)
        assert table[0].dtype == dtype
        for i in (0, 1):
            assert (table[i].double() - exact[:, i]).abs().max() <= ulp + 1e-9


@pytest.mark.parametrize(("near", "error"), [(10**3, 3e-5), (10**4, 5e-4), (10**5, 3e-3), (10**6, 3e-2)])
def test_angles_formed_in_float32_lose_digits_and_ours_do_not(near, error):
    positions, frequencies = torch.arange(near - 200, near), inverse_frequencies(128)
    exact = (positions.double()[:, None] * frequencies).cos()
    formed_in_float32 = (positions.float()[:, None] * frequencies.float()).cos().double()
    measured = (formed_in_float32 - exact).abs().max().item()
    assert error / 3 < measured < 3 * error
    assert (cos_sin(positions, frequencies)[0].double() - exact).abs().max() < 1e-7


def test_angles_formed_in_bfloat16_are_useless():
    positions, frequencies = torch.arange(257, 2000), inverse_frequencies(128)
    formed = (positions.bfloat16()[:, None] * frequencies.bfloat16()).double().cos()
    assert ((positions.double()[:, None] * frequencies).cos() - formed).abs().max() > 1.9


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("rotary_dim", [8, 4])
@pytest.mark.parametrize("inverse", [False, True])
def test_rotation_is_the_matrix_of_the_definition(layout, rotary_dim, inverse):
    x, frequencies = normal(2, 3, 5, 8), inverse_frequencies(rotary_dim, 7.0)
    cos, sin = cos_sin(torch.arange(5), frequencies, dtype=torch.float64)
    out = apply_rotary(x, cos, sin, layout=layout, inverse=inverse)
    for m in range(5):
        matrix = dense(-m if inverse else m, frequencies, 8, layout)
        torch.testing.assert_close(out[:, :, m], x[:, :, m] @ matrix.T, rtol=1e-13, atol=1e-13)
    assert torch.equal(out[..., rotary_dim:], x[..., rotary_dim:])


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)]
)
def test_inverse_undoes_and_norms_stay(dtype, tolerance):
    x = normal(2, 4, 50, 16, dtype=dtype)
    cos, sin = cos_sin(torch.arange(50) * 1000, inverse_frequencies(16), dtype=torch.float64)
    y = apply_rotary(x, cos, sin)
    assert y.dtype == dtype
    torch.testing.assert_close(apply_rotary(y, cos, sin, inverse=True), x, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1), rtol=tolerance, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_rotated_in_float32_and_rounded_once(dtype):
    x = normal(3, 7, 8, dtype=dtype)
    cos, sin = cos_sin(torch.arange(7), inverse_frequencies(8))
    assert torch.equal(apply_rotary(x, cos, sin), apply_rotary(x.float(), cos, sin).to(dtype))


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_agrees_with_transformers(layout):
    x = normal(2, 4, 100, 32, dtype=torch.float32)
    cos, sin = cos_sin(torch.arange(100), inverse_frequencies(32))
    p = layout_permutation(32, source=layout, target="half")
    wide_cos, wide_sin = (torch.cat([t, t], -1)[None] for t in (cos, sin))
    theirs, _ = apply_rotary_pos_emb(x[..., p], x[..., p], wide_cos, wide_sin)
    torch.testing.assert_close(apply_rotary(x, cos, sin, layout=layout)[..., p], theirs, rtol=1e-5, atol=1e-6)


def test_scores_depend_on_the_distance_only_even_a_million_tokens_away():
    rope = RotaryEmbedding(64)
    q, k = normal(1, 2, 30, 64, dtype=torch.float32), normal(1, 2, 30, 64, dtype=torch.float32, seed=1)
    near, far = torch.arange(30), torch.arange(30) + 10**6
    scores = [rope.rotate(q, p) @ rope.rotate(k, p).mT for p in (near, far)]
    assert (scores[0] - scores[1]).abs().max() / 64**0.5 < 1e-5


# --- layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotary_dim", [None, 6])
@pytest.mark.parametrize(("source", "target"), [("interleaved", "half"), ("half", "interleaved"), ("half", "half")])
def test_permuting_and_rotating_commute(rotary_dim, source, target):
    x = normal(4, 10)
    cos, sin = cos_sin(torch.arange(4), inverse_frequencies(rotary_dim or 10), dtype=torch.float64)
    p = layout_permutation(10, rotary_dim=rotary_dim, source=source, target=target)
    first = apply_rotary(x[..., p], cos, sin, layout=target)
    torch.testing.assert_close(first, apply_rotary(x, cos, sin, layout=source)[..., p], rtol=0, atol=0)
    back = layout_permutation(10, rotary_dim=rotary_dim, source=target, target=source)
    assert torch.equal(p[back], torch.arange(10))


def test_permutation_converts_a_checkpoint():
    heads, d, width = 3, 8, 5
    w_q, w_k, x = normal(heads * d, width), normal(heads * d, width, seed=1), normal(6, width, seed=2)
    cos, sin = cos_sin(torch.arange(6), inverse_frequencies(d), dtype=torch.float64)

    def scores(wq, wk, layout):
        q, k = ((x @ w.T).view(6, heads, d).transpose(0, 1) for w in (wq, wk))
        return apply_rotary(q, cos, sin, layout=layout) @ apply_rotary(k, cos, sin, layout=layout).mT

    p = layout_permutation(d)
    convert = lambda w: w.view(heads, d, width)[:, p].reshape(heads * d, width)
    torch.testing.assert_close(scores(convert(w_q), convert(w_k), "half"), scores(w_q, w_k, "interleaved"))


# --- derivatives, transforms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_gradients_first_and_second(layout):
    x = normal(2, 3, 6).requires_grad_()
    cos, sin = (t.requires_grad_() for t in cos_sin(torch.arange(3), inverse_frequencies(4), dtype=torch.float64))
    function = lambda *arguments: apply_rotary(*arguments, layout=layout)
    assert torch.autograd.gradcheck(function, (x, cos, sin), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, (x, cos, sin))


def test_gradient_is_the_inverse_rotation_and_keeps_nothing_of_x():
    x = normal(2, 3, 6).requires_grad_()
    cos, sin = cos_sin(torch.arange(3), inverse_frequencies(6), dtype=torch.float64)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = apply_rotary(x, cos, sin)
    g = normal(2, 3, 6, seed=1)
    assert torch.equal(torch.autograd.grad(out, x, g)[0], apply_rotary(g, cos, sin, inverse=True))
    assert sum(t.numel() for t in kept) == 2 * cos.numel()


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.usefixtures("without_runtime_types")
def test_compiles_without_graph_breaks(layout):
    function = torch.compile(lambda *a: apply_rotary(*a, layout=layout), fullgraph=True, backend="aot_eager")
    x = normal(2, 4, 5, 8, dtype=torch.float32).requires_grad_()
    cos, sin = cos_sin(torch.arange(5), inverse_frequencies(6))
    out = function(x, cos, sin)
    torch.testing.assert_close(out, apply_rotary(x, cos, sin, layout=layout))
    torch.testing.assert_close(
        torch.autograd.grad(out.sum(), x), torch.autograd.grad(apply_rotary(x, cos, sin, layout=layout).sum(), x)
    )


@pytest.mark.parametrize("in_dims", [(0, None, None), (1, 0, 0), (None, 0, 0)])
def test_vmap_is_a_loop(in_dims):
    x = normal(3, 3, 4, 8)
    cos, sin = cos_sin(torch.arange(12).view(3, 4), inverse_frequencies(8), dtype=torch.float64)
    tables = (cos, sin) if in_dims[1] == 0 else (cos[0], sin[0])
    out = torch.func.vmap(apply_rotary, in_dims)(x, *tables)
    for i in range(3):
        arguments = [t if d is None else t.select(d, i) for t, d in zip((x, *tables), in_dims)]
        torch.testing.assert_close(out[i], apply_rotary(*arguments), rtol=0, atol=0)


def test_non_contiguous_and_empty_inputs():
    x = normal(4, 2, 3, 8).transpose(0, 2)
    cos, sin = cos_sin(torch.arange(2), inverse_frequencies(8), dtype=torch.float64)
    table = (cos[:, None], sin[:, None])
    assert torch.equal(apply_rotary(x, *table), apply_rotary(x.contiguous(), *table))
    assert apply_rotary(x[:0], *table).shape == (0, 2, 4, 8)


# --- the module -------------------------------------------------------------------------------------------------------


def test_module_default_positions_continue_a_cache():
    rope = RotaryEmbedding(16).double()
    q, k = normal(2, 4, 3, 16), normal(2, 2, 10, 16)
    q1, k1 = rope(q, k, offset=7)
    q2, k2 = rope(q, k, torch.arange(7, 10), torch.arange(10))
    torch.testing.assert_close(q1, q2, rtol=0, atol=1e-15)
    torch.testing.assert_close(k1, k2, rtol=0, atol=1e-15)


@pytest.mark.parametrize("cast", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), copy.deepcopy])
def test_frequencies_survive_casts_and_copies(cast):
    rope = torch.nn.Sequential(RotaryEmbedding(16))
    x = normal(1, 1, 5, 16)
    expected = rope[0].rotate(x, torch.arange(5) + 10**6)
    assert torch.equal(cast(rope)[0].rotate(x, torch.arange(5) + 10**6), expected)
    assert not rope.state_dict()


def test_positions_per_row_and_fractional_positions():
    rope = RotaryEmbedding(8)
    x, positions = normal(3, 2, 4, 8), torch.tensor([[0, 1, 2, 3], [5, 6, 7, 8], [0, 0, 1, 1]])
    out = rope.rotate(x, positions)
    for row in range(3):
        torch.testing.assert_close(out[row], rope.rotate(x[row], positions[row]), rtol=0, atol=0)
    half = rope.rotate(rope.rotate(x, torch.full((4,), 0.5)), torch.full((4,), 0.5))
    torch.testing.assert_close(half, rope.rotate(x, torch.ones(4, dtype=torch.long)))


def test_attention_factor_scales_logits_by_its_square():
    q, k = normal(1, 1, 4, 8), normal(1, 1, 4, 8, seed=1)
    plain, scaled = RotaryEmbedding(8), RotaryEmbedding(8, attention_factor=1.2)
    scores = [a @ b.mT for a, b in (plain(q, k), scaled(q, k))]
    torch.testing.assert_close(scores[1], 1.44 * scores[0])


def test_table_grows_by_doubling_and_is_shared_by_dtype():
    rope = RotaryEmbedding(8)
    x = normal(1, 1, 300, 8, dtype=torch.float32)
    rope(x, x)
    rope(x.bfloat16(), x.bfloat16())
    assert {len(t[0]) for t in rope._tables.values()} == {300}
    rope(x[..., :1, :], torch.zeros(1, 1, 301, 8), offset=300)
    assert {len(t[0]) for t in rope._tables.values()} == {600}


@pytest.mark.usefixtures("without_runtime_types")
def test_module_has_no_graph_breaks():
    rope = RotaryEmbedding(8)
    q = normal(1, 2, 5, 8, dtype=torch.float32)
    rope(q, q)
    compiled = torch.compile(lambda a: rope(a, a), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q), rope(q, q))


def test_log_length_scale_is_the_logarithm_in_base_of_the_training_length():
    positions = torch.tensor([0, 1, 99, 100, 9999])
    exact = [math.log(p + 1) / math.log(100) for p in positions.tolist()]
    torch.testing.assert_close(log_length_scale(positions, 100, clip=False), torch.tensor(exact, dtype=torch.float64))
    assert log_length_scale(positions, 100).tolist() == [max(1.0, v) for v in exact]


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, -2, 7])
def test_bad_dim(dim):
    with pytest.raises(ValueError, match="dim"):
        inverse_frequencies(dim)


@pytest.mark.parametrize("base", [0.0, -1.0, math.inf, math.nan])
def test_bad_base(base):
    with pytest.raises(ValueError, match="base"):
        inverse_frequencies(8, base)


def test_bad_tables_and_layouts():
    x = normal(3, 8)
    with pytest.raises(TypeError, match="inv_freq"):
        cos_sin(torch.arange(3), torch.arange(4))
    for positions in (torch.ones(3, dtype=torch.bool), torch.ones(3, dtype=torch.complex64)):
        with pytest.raises(TypeError, match="positions"):
            cos_sin(positions, inverse_frequencies(8))
    with pytest.raises(ValueError, match="positions"):
        RotaryEmbedding(8).rotate(x, torch.arange(5))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("rotary_dim", {"rotary_dim": 3}),
        ("rotary_dim", {"rotary_dim": 10}),
        ("inv_freq", {"inv_freq": torch.ones(3)}),
        ("base", {"base": -1.0}),
    ],
)
def test_bad_module_arguments(name, arguments):
    with pytest.raises(ValueError, match=name):
        RotaryEmbedding(8, **arguments)


@pytest.mark.parametrize(
    "function",
    [
        lambda bad: layout_permutation(4, source=bad),
        lambda bad: layout_permutation(4, target=bad),
        lambda bad: RotaryEmbedding(4, layout=bad),
    ],
)
def test_unknown_layouts_are_named(function):
    with pytest.raises(Exception, match=r"layout|source|target"):
        function("neox")


def test_bad_lengths():
    with pytest.raises(ValueError, match="train_length"):
        log_length_scale(torch.arange(3), 1)
    with pytest.raises(ValueError, match="rotary_dim"):
        layout_permutation(4, rotary_dim=6)
