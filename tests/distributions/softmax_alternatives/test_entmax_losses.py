"""Losses against the peer, cross-entropy and squared distances."""

from __future__ import annotations

import math

import entmax as peer
import pytest
import torch
from distributions.softmax_alternatives.random_scores import Scores, every_alpha, normal, sparse_alpha
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kexue_lib.distributions.softmax_alternatives import (
    entmax,
    entmax_loss,
    margin_cross_entropy,
    sparse_softmax_loss,
    sparsemax,
    sparsemax_loss,
)


@every_alpha
def test_the_gradient_of_the_loss_is_p_minus_y(alpha: float):
    x = normal(600, 300, dtype=torch.float32).requires_grad_()
    target = torch.arange(600) % 300
    (grad,) = torch.autograd.grad(entmax_loss(x, target, alpha, "sum"), x)
    expected = entmax(x, alpha) - torch.nn.functional.one_hot(target, 300)
    torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-6)


def test_sparsemax_loss_is_half_the_difference_of_squared_distances():
    x, target = normal(7, 5), torch.arange(7) % 5
    y, p = torch.nn.functional.one_hot(target, 5), sparsemax(x)
    expected = 0.5 * ((x - y).square().sum(-1) - (x - p).square().sum(-1))
    torch.testing.assert_close(sparsemax_loss(x, target, "none"), expected)


def test_alpha_one_is_cross_entropy():
    x, target = normal(7, 5, dtype=torch.float32) + 1000, torch.arange(7) % 5
    expected = torch.nn.functional.cross_entropy(x, target)
    for alpha in (1.0, 1 + 1e-7):
        torch.testing.assert_close(entmax_loss(x, target, alpha), expected)


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0])
def test_losses_agree_with_the_peer(alpha: float):
    x, target = normal(50, 20) * 2, torch.arange(50) % 20
    expected = peer.entmax_bisect_loss(x, target, alpha, 60)
    torch.testing.assert_close(entmax_loss(x, target, alpha, "none"), expected, rtol=1e-9, atol=1e-12)


@sparse_alpha
def test_the_loss_vanishes_from_the_margin_on(alpha: float):
    margin = 1 / (alpha - 1)
    x = torch.tensor([[margin, 0.0, -1.0], [0.8 * margin, 0.0, -1.0]], dtype=torch.float64)
    loss = entmax_loss(x, torch.tensor([0, 0]), alpha, "none")
    assert loss[0] < 1e-15
    assert loss[1] > 1e-6


@every_alpha
@given(x=Scores, seed=st.integers(0, 50))
def test_the_loss_of_a_distribution_is_zero_only_at_its_own_scores(alpha: float, x: Tensor, seed: int):
    y = entmax(normal(len(x), seed=seed), alpha)
    assert entmax_loss(x[None], y[None], alpha) >= 0
    assert entmax_loss(normal(1, len(x), seed=seed), y[None], alpha) < 1e-14


def test_losses_at_excluded_targets_and_reductions():
    x = torch.tensor([[0.0, -math.inf, 1.0], [0.0, 0.5, 1.0]])
    target = torch.tensor([1, 2])
    assert entmax_loss(x, target, 1.5, "none")[0] == math.inf
    each = entmax_loss(x[1:], target[1:], 1.5, "none")
    assert entmax_loss(x[1:], target[1:]) == each.mean()
    assert entmax_loss(x[1:], target[1:], 1.5, "sum") == each.sum()


@pytest.mark.parametrize(
    "loss",
    [
        *(lambda x, t, a=a, **kw: entmax_loss(x, t, a, **kw) for a in (1.0, 1.5, 2.0, 3.0)),
        lambda x, t, **kw: sparse_softmax_loss(x, t, 3, **kw),
        lambda x, t, **kw: margin_cross_entropy(x, t, **kw),
    ],
)
@pytest.mark.parametrize("ignored", [-100, 2])
def test_ignored_targets_count_for_nothing(loss, ignored: int):
    x, target = normal(6, 5), torch.tensor([0, ignored, 3, ignored, 4, 1])
    kept = target != ignored
    leaf, alone = x.clone().requires_grad_(), x[kept].requires_grad_()
    for reduction in ("mean", "sum"):
        out = loss(leaf, target, reduction=reduction, ignore_index=ignored)
        expected = loss(alone, target[kept], reduction=reduction)
        torch.testing.assert_close(out, expected)
        (grad,), (wanted,) = torch.autograd.grad(out, leaf), torch.autograd.grad(expected, alone)
        assert (grad[~kept] == 0).all()
        torch.testing.assert_close(grad[kept], wanted)
    assert (loss(x, target, reduction="none", ignore_index=ignored)[~kept] == 0).all()
