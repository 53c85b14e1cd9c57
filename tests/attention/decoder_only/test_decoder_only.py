"""The attention matrix and its ranks, against NumPy, mpmath and closed forms."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from attention.decoder_only.random_tokens import causal, generator, normal

from kexue_lib.attention.core import attention
from kexue_lib.attention.decoder_only import attention_matrix, causal_logdet, causal_recover, head_masks, rank_report

# -- the attention matrix ----------------------------------------------------------------------------------------------


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


# -- ranks -------------------------------------------------------------------------------------------------------------


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


def test_logdet_of_nothing():
    q = torch.zeros(2, 0, 3, requires_grad=True)
    causal_logdet(q, q).sum().backward()
    assert causal_logdet(q, q).tolist() == [0, 0]


def test_values_are_recovered_from_the_output():
    q, k, v = normal(3, 20, 8), normal(3, 20, 8, seed=2), normal(3, 20, 5, seed=3)
    A = attention_matrix(0.1 * q, k, mask=causal(20))
    torch.testing.assert_close(causal_recover(A, A @ v), v, rtol=1e-9, atol=1e-9)
