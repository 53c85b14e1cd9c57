"""Ranks and collapse of attention against NumPy, mpmath and loops; sequence-to-sequence models against one another."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from opinfo import as_users_call
from torch import Tensor

from kexue_lib import checkpoints
from kexue_lib.attention.core import DecoderLM, LMConfig, attention
from kexue_lib.attention.decoder_only import (
    MixedSelfAttention,
    Seq2Seq,
    Seq2SeqConfig,
    attention_matrix,
    causal_logdet,
    causal_recover,
    collapse_curve,
    collapse_residual,
    head_masks,
    mixed_attention,
    rank_report,
)
from kexue_lib.checkpoints.attention import decoder_only as stored

BASE = LMConfig(vocab_size=13, d_model=16, n_layers=2, n_heads=4)
KINDS = [(e, s) for e in ("causal", "bidirectional", "mixed") for s in (True, False)]
every_kind = pytest.mark.parametrize(("encoder", "shared"), KINDS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def causal(n: int) -> Tensor:
    return head_masks("causal", n)[0]


def model(encoder: str, shared: bool = True, seed: int = 0, base: LMConfig = BASE) -> Seq2Seq:
    return Seq2Seq(Seq2SeqConfig(base, encoder, shared), generator=generator(seed)).double().eval()


def tokens(*shape: int, seed: int = 3) -> Tensor:
    return torch.randint(13, shape, generator=generator(seed))


# -- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5])
def test_masks_are_what_their_names_say(n: int):
    i, j = np.indices((n, n))
    assert torch.equal(head_masks("causal", n)[0], torch.from_numpy(j <= i))
    assert torch.equal(head_masks("reverse", n)[0], torch.from_numpy(j >= i))
    assert head_masks("bidirectional", n, n_heads=3).all()
    assert head_masks("bidirectional", n, n_heads=3).shape == (3, n, n)
    mixed = head_masks("mixed", n, n_heads=4)
    assert torch.equal(mixed, torch.stack([causal(n), causal(n), causal(n).mT, causal(n).mT]))
    for p in {0, min(2, n), n}:
        expected = torch.from_numpy((j <= i) | (j < p))
        assert torch.equal(head_masks("prefix", n, prefix=p, n_heads=2), torch.stack([expected, expected]))


def test_every_row_of_a_batch_has_its_own_prefix():
    masks = head_masks("prefix", 4, prefix=torch.tensor([0, 3, 4]), n_heads=2)
    assert masks.shape == (3, 2, 4, 4)
    for row, p in zip(masks, (0, 3, 4)):
        assert torch.equal(row, head_masks("prefix", 4, prefix=p, n_heads=2))
    assert head_masks("prefix", 4, prefix=torch.zeros(0, dtype=torch.long)).shape == (0, 1, 4, 4)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"kind": "diagonal"}, "kind: got 'diagonal'"),
        ({"kind": "prefix"}, "prefix: got None"),
        ({"kind": "prefix", "prefix": -1}, "prefix: got -1"),
        ({"kind": "prefix", "prefix": 6}, "0 to the length 5"),
        ({"kind": "prefix", "prefix": torch.tensor([1, 6])}, "0 to the length 5"),
        ({"kind": "causal", "prefix": 2}, "only there"),
        ({"kind": "mixed"}, "n_heads: got 1"),
        ({"kind": "mixed", "n_heads": 3}, "n_heads: got 3"),
    ],
)
def test_masks_refuse(kwargs: dict, words: str):
    with as_users_call(), pytest.raises(ValueError, match=words):
        head_masks(kwargs.pop("kind"), 5, **kwargs)


# -- the attention matrix ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bidirectional", "causal", "reverse"])
def test_the_matrix_is_what_fast_attention_applies(kind: str):
    q, k, v = (normal(2, 3, 6, 4, seed=s) for s in range(3))
    mask = head_masks(kind, 6)
    torch.testing.assert_close(attention_matrix(q, k, mask=mask) @ v, attention(q, k, v, mask=mask))
    torch.testing.assert_close(
        attention_matrix(q, k, mask=mask, scale=0.3) @ v, attention(q, k, v, mask=mask, scale=0.3)
    )


@pytest.mark.parametrize("kind", ["softmax", "linear"])
def test_rows_sum_to_one_and_blind_rows_are_zero_with_zero_gradient(kind: str):
    q, k = normal(4, 3).requires_grad_(), normal(5, 3, seed=2).requires_grad_()
    mask = torch.rand(4, 5, generator=generator()) > 0.3
    mask[1] = False
    A = attention_matrix(q, k, mask=mask, kind=kind)
    torch.testing.assert_close(A.sum(-1), torch.tensor([1.0, 0, 1, 1], dtype=torch.float64))
    assert (A[~mask] == 0).all()
    A.square().sum().backward()
    assert q.grad.isfinite().all()
    assert k.grad.isfinite().all()
    assert (q.grad[1] == 0).all()


def test_linear_weights_stay_finite_far_from_zero_and_follow_the_feature_map():
    q, k = normal(4, 3) * 500, normal(4, 3, seed=2) * 500
    A = attention_matrix(q, k, kind="linear")
    assert A.isfinite().all()
    torch.testing.assert_close(A.sum(-1), torch.ones(4, dtype=torch.float64))
    relu = attention_matrix(q, k, kind="linear", feature_map=torch.relu)
    weights = q.relu() @ k.relu().T
    total = weights.sum(-1, keepdim=True)
    torch.testing.assert_close(relu, torch.where(total > 0, weights / total, 0.0))


def test_the_matrix_refuses():
    q = torch.ones(3, 2)
    for error, words, kwargs in (
        (ValueError, "kind: got 'cosine'", {"kind": "cosine"}),
        (ValueError, "scale: got 1.0", {"kind": "linear", "scale": 1.0}),
        (ValueError, "feature_map: gives negative", {"kind": "linear", "feature_map": torch.neg}),
        (TypeError, "mask: dtype torch.float32", {"mask": torch.ones(3, 3)}),
    ):
        with as_users_call(), pytest.raises(error, match=words):
            attention_matrix(q, q, **kwargs)
    with as_users_call(), pytest.raises(ValueError, match="key: width 4"):
        attention_matrix(q, torch.ones(3, 4))


# -- ranks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (2, 3, 5, 4), (4, 7), (1, 1)])
def test_the_report_agrees_with_numpy(shape: tuple[int, ...]):
    matrix = normal(*shape)
    report, array = rank_report(matrix), matrix.numpy()
    np.testing.assert_allclose(report.singular_values, np.linalg.svd(array, compute_uv=False), rtol=1e-10)
    np.testing.assert_array_equal(report.rank, np.linalg.matrix_rank(array, rtol=1e-6))
    np.testing.assert_allclose(report.condition, np.linalg.cond(array), rtol=1e-9)
    np.testing.assert_allclose(report.stable_rank, (array**2).sum((-2, -1)) / np.linalg.norm(array, 2, (-2, -1)) ** 2)
    if shape[-1] == shape[-2]:
        np.testing.assert_allclose(report.logabsdet, np.linalg.slogdet(array).logabsdet, rtol=1e-9)
    else:
        assert report.logabsdet.isnan().all()


def test_notions_of_rank_at_known_spectra():
    diagonals = torch.tensor([[1.0, 1, 1, 1], [4, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1e-5, 1e-7]])
    report = rank_report(torch.diag_embed(diagonals), rtol=1e-6)
    assert report.rank.tolist() == [4, 1, 0, 3]
    np.testing.assert_allclose(report.effective_rank[:3], [4, 1, 0], atol=1e-12)
    np.testing.assert_allclose(report.stable_rank, [4, 1, 0, 2], atol=1e-9)
    assert report.condition[0] == 1
    assert report.condition[1].isinf()
    assert report.condition[2].isinf()
    assert report.logabsdet[1].isneginf()
    assert rank_report(torch.zeros(0, 3, 3)).rank.shape == (0,)


def test_half_types_are_promoted():
    matrix = normal(5, 5)
    for dtype in (torch.float32, torch.bfloat16):
        rounded = matrix.to(dtype)
        torch.testing.assert_close(rank_report(rounded).logabsdet, rank_report(rounded.double()).logabsdet)
        assert rank_report(rounded).condition.dtype == torch.float64


@pytest.mark.parametrize(
    ("matrix", "words"), [(torch.ones(0, 3), "matrix: shape"), (torch.full((2, 2), math.nan), "finite")]
)
def test_the_report_refuses(matrix: Tensor, words: str):
    with pytest.raises(ValueError, match=words):
        rank_report(matrix)
    with pytest.raises(ValueError, match="rtol: got -1"):
        rank_report(torch.eye(2), rtol=-1.0)


@pytest.mark.parametrize("n", [4, 16, 32])
def test_causal_matrices_have_the_determinant_of_two_hundred_digits(n: int):
    q, k = normal(n, 4) * 2, normal(n, 4, seed=2)
    with mpmath.workdps(200):
        scores = [[mpmath.fdot(map(mpmath.mpf, a), map(mpmath.mpf, b)) / 2 for b in k.tolist()] for a in q.tolist()]
        weights = mpmath.matrix(n, n)
        for i in range(n):
            total = mpmath.fsum(mpmath.exp(s) for s in scores[i][: i + 1])
            for j in range(i + 1):
                weights[i, j] = mpmath.exp(scores[i][j]) / total
        exact = float(mpmath.log(mpmath.det(weights)))
    assert causal_logdet(q, k).item() == pytest.approx(exact, rel=1e-12)
    assert rank_report(attention_matrix(q, k, mask=causal(n))).logabsdet.item() == pytest.approx(exact, rel=1e-9)


def test_bidirectional_matrices_of_one_channel_have_vandermondes_determinant():
    q, n = torch.tensor([0.0, 0.5, 1.0, 1.3], dtype=torch.float64), 4
    A = attention_matrix(q[:, None], torch.arange(n, dtype=torch.float64)[:, None], scale=1.0)
    x = q.exp()
    vandermonde = math.prod(float(x[j] - x[i]) for i, j in itertools.combinations(range(n), 2))
    rows = math.prod(float(sum(x[i] ** j for j in range(n))) for i in range(n))
    assert rank_report(A).logabsdet.exp().item() == pytest.approx(vandermonde / rows, rel=1e-12)


@pytest.mark.parametrize("n", [1, 7, 40])
def test_uniform_causal_attention_has_determinant_one_over_n_factorial(n: int):
    zero = torch.zeros(n, 3, dtype=torch.float64)
    assert causal_logdet(zero, zero, block_size=16).item() == pytest.approx(-math.lgamma(n + 1), abs=1e-10)


@pytest.mark.parametrize("block_size", [1, 5, 12, 100])
def test_blocks_do_not_change_the_determinant_nor_its_gradient(block_size: int):
    q, k = normal(2, 12, 3).requires_grad_(), normal(2, 12, 3, seed=2).requires_grad_()
    whole = attention_matrix(q, k, mask=causal(12), scale=0.7).diagonal(dim1=-2, dim2=-1).log().sum(-1)
    streamed = causal_logdet(q, k, scale=0.7, block_size=block_size)
    torch.testing.assert_close(streamed, whole)
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)
    grads = [torch.autograd.grad(f @ weights, [q, k]) for f in (whole, streamed)]
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


def test_logdet_of_nothing_and_refusals():
    q = torch.zeros(2, 0, 3, requires_grad=True)
    causal_logdet(q, q).sum().backward()
    assert causal_logdet(q, q).tolist() == [0, 0]
    with as_users_call(), pytest.raises(ValueError, match="key: shape"):
        causal_logdet(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="block_size: got 0"):
        causal_logdet(torch.zeros(3, 2), torch.zeros(3, 2), block_size=0)


def test_values_are_recovered_from_the_output():
    q, k, v = normal(3, 20, 8), normal(3, 20, 8, seed=2), normal(3, 20, 5, seed=3)
    A = attention_matrix(0.1 * q, k, mask=causal(20))
    torch.testing.assert_close(causal_recover(A, A @ v), v, rtol=1e-9, atol=1e-9)


def test_recovery_refuses():
    eye, out = torch.eye(3), torch.ones(3, 2)
    for matrix, words in (
        (torch.ones(3, 3), "above the diagonal"),
        (torch.ones(3, 2), "shapes"),
        (torch.eye(2), "shapes"),
        (eye * torch.tensor([1.0, 0, 1]), "zero on the diagonal"),
    ):
        with as_users_call(), pytest.raises(ValueError, match=words):
            causal_recover(matrix, out)


# -- collapse ---------------------------------------------------------------------------------------------------------


def test_residual_is_the_distance_to_the_nearest_constant():
    x = normal(6, 4)
    ones = torch.ones(6, 1, dtype=torch.float64)
    nearest = torch.linalg.lstsq(ones, x).solution
    expected = torch.linalg.matrix_norm(x - ones @ nearest) / torch.linalg.matrix_norm(x)
    torch.testing.assert_close(collapse_residual(x), expected)
    torch.testing.assert_close(collapse_residual(x * 1e200), expected)
    torch.testing.assert_close(collapse_residual(x * 1e-200), expected)
    assert collapse_residual(torch.zeros(3, 2)) == 0
    assert collapse_residual(torch.ones(0, 3, 2)).shape == (0,)
    with pytest.raises(ValueError, match="x: shape"):
        collapse_residual(torch.zeros(0, 2))


@pytest.mark.parametrize("kind", ["bidirectional", "causal", "mixed"])
@pytest.mark.parametrize("skip", [False, True])
def test_curve_is_the_formula(kind: str, skip: bool):
    n, d, H = 6, 4, 2
    x, masks = normal(3, n, d), head_masks(kind, n, n_heads=H)
    curve = collapse_curve(x, 2, masks=masks, skip=skip, normalize=False, generator=generator(5))
    rng, expected = generator(5), [collapse_residual(x)]
    for _ in range(2):
        w_q, w_k = (torch.randn(H, d, d, dtype=torch.float64, generator=rng) / d**0.5 for _ in range(2))
        y = sum(attention_matrix(x @ w_q[h], x @ w_k[h], mask=masks[h]) @ x for h in range(H)) / H
        x = y + x if skip else y
        expected.append(collapse_residual(x))
    torch.testing.assert_close(curve, torch.stack(expected))


def test_uniform_attention_collapses_in_one_step_and_causal_to_the_first_token():
    x = normal(8, 5)
    A = torch.full((8, 8), 1 / 8, dtype=torch.float64)
    assert collapse_residual(A @ x) < 1e-15
    C = attention_matrix(torch.zeros(8, 1), torch.zeros(8, 1), mask=causal(8)).double()
    torch.testing.assert_close(torch.linalg.matrix_power(C, 200) @ x, x[:1].expand(8, 5))


def test_mlp_and_normalisation_keep_sizes():
    x = normal(16, 32)
    for mlp, skip in itertools.product((False, True), repeat=2):
        options = {"mlp": mlp, "skip": skip, "masks": head_masks("causal", 16, n_heads=2)}
        curve = collapse_curve(x, 3, generator=generator(), **options)
        again = collapse_curve(x, 3, generator=generator(), **options)
        assert torch.equal(curve, again)
        assert curve.shape == (4,)
        assert curve.isfinite().all()
    assert collapse_curve(x.expand(2, 3, 16, 32), 0, masks=causal(16)).shape == (1, 2, 3)


def test_curve_refuses():
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match="depth: got -1"):
        collapse_curve(x, -1, masks=causal(4))
    with as_users_call(), pytest.raises(ValueError, match="masks: shape"):
        collapse_curve(x, 1, masks=causal(5))
    with as_users_call(), pytest.raises(TypeError, match=r"mask: dtype torch\.float32"):
        collapse_curve(x, 1, masks=torch.ones(4, 4))


# -- mixed directions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("H", "Hk"), [(2, 2), (4, 4), (8, 4), (4, 1), (6, 3), (2, 1)])
def test_two_causal_calls_are_the_dense_mask(H: int, Hk: int):
    q, k, v = normal(2, H, 9, 4), normal(2, Hk, 9, 4, seed=2), normal(2, Hk, 9, 5, seed=3)
    dense = attention(q, k, v, mask=head_masks("mixed", 9, n_heads=H))
    torch.testing.assert_close(mixed_attention(q, k, v), dense)


def test_mixed_attention_refuses():
    q = torch.zeros(1, 3, 4, 2)
    with pytest.raises(ValueError, match="n_heads: got 3"):
        mixed_attention(q, q, q)
    with as_users_call(), pytest.raises(ValueError, match="key: 5 tokens"):
        mixed_attention(torch.zeros(1, 2, 4, 2), torch.zeros(1, 2, 5, 2), torch.zeros(1, 2, 5, 2))
    with pytest.raises(ValueError, match="n_heads: got 1"):
        DecoderLM(LMConfig(vocab_size=3, d_model=4, n_heads=1, causal=False), attention=MixedSelfAttention)
    with pytest.raises(ValueError, match="alibi"):
        DecoderLM(LMConfig(vocab_size=3, d_model=4, n_heads=2, positions="alibi"), attention=MixedSelfAttention)
    encoder = DecoderLM(LMConfig(vocab_size=3, d_model=4, n_heads=2, causal=False), attention=MixedSelfAttention)
    cache = encoder.new_cache(1, 6)
    encoder(torch.zeros(1, 2, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="cache: holds 2 tokens"):
        encoder(torch.zeros(1, 2, dtype=torch.long), cache=cache)


def test_mixed_encoder_is_the_model_with_the_dense_mask():
    config = LMConfig(vocab_size=13, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, qk_norm=True, causal=False)
    mixed = DecoderLM(config, attention=MixedSelfAttention, generator=generator()).double()
    plain = DecoderLM(config, generator=generator()).double()
    x = tokens(2, 7)
    torch.testing.assert_close(mixed(x), plain(x, mask=head_masks("mixed", 7, n_heads=4)))


# -- sequence to sequence ---------------------------------------------------------------------------------------------


def test_gpt_is_the_language_model_and_its_target_loss_is_part_of_the_whole():
    gpt, x, y = model("causal"), tokens(3, 5), tokens(3, 4, seed=4)
    both = torch.cat([x, y], 1)
    torch.testing.assert_close(gpt.loss(x, y, source_loss=True), gpt.decoder.loss(both))
    weights = torch.tensor([0.0] * 4 + [1.0] * 4, dtype=torch.float64).expand(3, 8)
    torch.testing.assert_close(gpt.loss(x, y), gpt.decoder.loss(both[:, :-1], both[:, 1:], weights=weights))


def test_gpt_and_unilm_differ_in_the_mask_only():
    gpt, unilm, x, y = model("causal"), model("bidirectional"), tokens(3, 5), tokens(3, 4, seed=4)
    assert gpt.num_parameters() == unilm.num_parameters() == gpt.decoder.num_parameters()
    for (name, a), (other, b) in zip(gpt.named_parameters(), unilm.named_parameters()):
        assert name == other
        assert torch.equal(a, b)
    assert not torch.isclose(gpt.loss(x, y), unilm.loss(x, y))
    torch.testing.assert_close(gpt.loss(x[:, :1], y), unilm.loss(x[:, :1], y))  # one token sees itself in either way


def test_encoder_decoder_has_about_twice_the_parameters():
    L, d = BASE.n_layers, BASE.d_model
    gpt, t5 = model("causal"), model("bidirectional", shared=False)
    layers = gpt.num_parameters() - 13 * d - d
    assert t5.num_parameters() == 13 * d + 2 * d + 2 * layers + L * (4 * d * d + d)


@every_kind
def test_no_target_token_is_predicted_from_itself_or_what_follows(encoder: str, shared: bool):
    net, x, y = model(encoder, shared), tokens(2, 5), tokens(2, 4, seed=4)
    logits = []
    for z in (y, (y + torch.tensor([0, 0, 1, 1])) % 13):
        inputs = torch.cat([x, z], dim=1)
        if shared:
            logits.append(net.decoder(inputs, mask=net._mask(5, 9, x.device))[:, 4:])
        else:
            logits.append(net.decoder(inputs[:, 4:], memory=net._memory(x)))
    torch.testing.assert_close(logits[0][:, :3], logits[1][:, :3])
    assert not torch.isclose(logits[0][:, 3:], logits[1][:, 3:]).any()


@every_kind
def test_what_the_source_sees(encoder: str, shared: bool):
    net, x = model(encoder, shared), tokens(2, 6)
    states = lambda s: net.decoder(s, return_hidden=True) if shared else net.encoder(s, return_hidden=True)
    last, first = x.clone(), x.clone()
    last[:, -1], first[:, 0] = (last[:, -1] + 1) % 13, (first[:, 0] + 1) % 13
    moved = [(states(z) - states(x)).abs().amax((0, 2)) > 1e-9 for z in (last, first)]
    assert moved[0].tolist() == [encoder != "causal"] * 5 + [True]
    assert moved[1].all()


@every_kind
def test_generation_with_a_cache_follows_the_loss(encoder: str, shared: bool):
    net, x = model(encoder, shared), tokens(2, 6)
    y = net.generate(x, 5)
    assert y.shape == (2, 5)
    for t, shift in itertools.product((0, 4), (1, 5, 9)):  # no other token is better, given those before
        other = y[:, : t + 1].clone()
        other[0, t] = (other[0, t] + shift) % 13
        assert net.loss(x, other) >= net.loss(x, y[:, : t + 1])
    drawn = [net.generate(x, 4, temperature=1.0, top_k=5, generator=generator(7)) for _ in range(2)]
    assert torch.equal(*drawn)


@every_kind
def test_losses_have_gradients_for_all_parameters_and_other_bases_work(encoder: str, shared: bool):
    base = LMConfig(
        vocab_size=13, d_model=16, n_layers=1, n_heads=4, n_kv_heads=2, tie_embedding=False, conv_width=2,
        positions="learned", max_len=12, ffn="gelu", norm="layer", bias=True,
    )  # fmt: skip
    net = model(encoder, shared, base=base)
    net.loss(tokens(2, 5), tokens(2, 3, seed=4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.generate(tokens(2, 5), 3).shape == (2, 3)


def test_sequence_models_refuse():
    x, y = tokens(2, 5), tokens(2, 3, seed=4)
    with as_users_call():
        with pytest.raises(ValueError, match="encoder: got 'sideways'"):
            Seq2SeqConfig(BASE, "sideways")
        for encoder, shared in KINDS[1:]:
            with pytest.raises(ValueError, match="source_loss"):
                model(encoder, shared).loss(x, y, source_loss=True)
        gpt = model("causal")
        for source, target in ((x[:, :0], y), (x, y[:, :0]), (x, y[:1])):
            with pytest.raises(ValueError, match="source, target: shapes"):
                gpt.loss(source, target)
        with pytest.raises(ValueError, match="source: shape"):
            gpt.generate(x[:, :0], 2)
        with pytest.raises(ValueError, match="prompt_lengths, use_cache: not accepted"):
            gpt.generate(x, 2, use_cache=False, prompt_lengths=torch.tensor([5, 5]))


# -- the stored runs --------------------------------------------------------------------------------------------------


def test_stored_runs_are_whole():
    content, made_with = checkpoints.load("attention/decoder_only")
    for name, row in content["seq2seq"].items():
        last = [curve[-1] for curve in row["validation"]]
        assert len(last) == len(made_with["seed"])
        assert np.mean(last) == pytest.approx(made_with["validation"][name], rel=1e-4)
        assert np.max(last) < content["bigram"] + 0.1
        encoder, shared = stored.SEQ2SEQ[name][0].encoder, stored.SEQ2SEQ[name][0].shared
        assert content["parameters"][name] == model(encoder, shared, base=stored.BASE).num_parameters()


@pytest.mark.slow
def test_a_stored_run_comes_out_again():
    content = checkpoints.load("attention/decoder_only")[0]["seq2seq"]["UniLM"]
    run = stored.seq2seq_run(stored.SEQ2SEQ["UniLM"][0], 0)
    np.testing.assert_allclose(run["validation"], content["validation"][0], atol=0.02)
