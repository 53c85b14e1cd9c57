"""Collapse of deep attention, against loops and least squares."""

from __future__ import annotations

import itertools

import pytest
import torch
from attention.decoder_only.random_tokens import causal, generator, normal
from opinfo import as_users_call

from kexue_lib.attention.decoder_only import attention_matrix, collapse_curve, collapse_residual, head_masks


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
    with pytest.raises(ValueError, match="x: got shape"):
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
    with as_users_call(), pytest.raises(ValueError, match="masks: got shape"):
        collapse_curve(x, 1, masks=causal(5))
    with as_users_call(), pytest.raises(TypeError, match=r"masks: got torch\.float32"):
        collapse_curve(x, 1, masks=torch.ones(4, 4))
