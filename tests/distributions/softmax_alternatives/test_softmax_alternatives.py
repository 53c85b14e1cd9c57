"""The other substitutes against counting and closed forms, the layer, and bad input."""

from __future__ import annotations

import math

import pytest
import torch
from distributions.softmax_alternatives.random_scores import normal
from opinfo import as_users_call

from kexue_lib.distributions.softmax_alternatives import (
    Entmax,
    entmax,
    entmax15,
    margin_cross_entropy,
    perturb_max,
    perturb_max_sample,
    sparse_softmax,
    sparse_softmax_loss,
    sparsemax,
    taylor_softmax,
)

# -- the others --------------------------------------------------------------------------------------------------------


def test_sparse_softmax_keeps_exactly_k():
    x = torch.ones(3, 6)
    assert ((sparse_softmax(x, 2) > 0).sum(-1) == 2).all()
    torch.testing.assert_close(sparse_softmax(normal(3, 6), 6), normal(3, 6).softmax(-1))
    torch.testing.assert_close(sparse_softmax(normal(6, 3), 2, dim=0), sparse_softmax(normal(6, 3).T, 2).T)


def test_sparse_softmax_loss_reaches_targets_that_were_dropped():
    x = torch.tensor([[3.0, 2.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(sparse_softmax_loss(x, torch.tensor([3]), 2), x)
    expected = sparse_softmax(x, 2) - torch.tensor([0.0, 0, 0, 1])
    torch.testing.assert_close(grad, expected)


def test_taylor_softmax_does_not_overflow_and_excludes():
    x = torch.tensor([1e15, -1e15, 0.0, -math.inf])
    torch.testing.assert_close(taylor_softmax(x, 8), torch.tensor([0.5, 0.5, 0.0, 0.0]))
    x.requires_grad_()
    assert torch.autograd.grad(taylor_softmax(x, 4)[0], x)[0].isfinite().all()


def test_taylor_softmax_is_not_monotone_below_the_root():
    p = taylor_softmax(torch.tensor([-1.0, -3.0]))
    assert p[1] > p[0]


def test_margin_asks_for_a_lead():
    cos, target = torch.tensor([[0.6, 0.2, 0.1]]), torch.tensor([0])
    shifted = torch.tensor([[0.25, 0.2, 0.1]]) * 30
    expected = torch.nn.functional.cross_entropy(shifted, target)
    torch.testing.assert_close(margin_cross_entropy(cos, target), expected)


@pytest.mark.parametrize("noise", ["gumbel", "normal", "exponential", "logistic"])
def test_perturb_max_agrees_with_counting(noise: str):
    x = torch.tensor([1.0, 0.5, 0.0, -2.0, -math.inf], dtype=torch.float64)
    p = perturb_max(x, noise)
    counted = perturb_max_sample(x.expand(5000, 5), noise, 20, generator=torch.Generator().manual_seed(0)).mean(0)
    assert p[4] == 0 == counted[4]
    torch.testing.assert_close(p, counted, rtol=0, atol=6e-3)


@pytest.mark.parametrize("noise", ["normal", "logistic", "exponential"])
def test_perturb_max_sums_to_one_before_it_is_normalised(noise: str):
    for n in (2, 16, 64):
        for spread in (0.0, 1.0, 10.0):
            x = spread * (torch.rand(5, n, generator=torch.Generator().manual_seed(n)).double() - 0.5)
            once, finer = perturb_max(x, noise), perturb_max(x, noise, 1000)
            torch.testing.assert_close(once, finer, rtol=0, atol=1e-8)


@pytest.mark.parametrize("row", [[-math.inf] * 3, [0.0, math.inf, 1.0], [0.0, math.nan, 1.0]])
@pytest.mark.parametrize("dim", [-1, 0])
@pytest.mark.parametrize(
    "function",
    [entmax, sparsemax, lambda x, dim: sparse_softmax(x, 2, dim), lambda x, dim: entmax(x, 1.0, dim)]
    + [lambda x, dim, noise=noise: perturb_max(x, noise, dim=dim) for noise in ("gumbel", "normal", "logistic")],
)
def test_a_row_without_a_finite_maximum_is_nan_and_sends_no_gradient(function, dim: int, row: list[float]):
    x = torch.tensor([[0.5, -0.2, 1.0], row]).double().movedim(-1, dim).requires_grad_()
    p = function(x, dim=dim).movedim(dim, -1)
    assert p[1].isnan().all()
    p[0, 0].backward()
    gradient = x.grad.movedim(dim, -1)
    assert gradient[1].eq(0).all()
    assert gradient[0].isfinite().all()
    assert gradient[0, 0] > 0


def test_perturb_max_of_two():
    for gap in (0.0, 0.7, 3.0):
        x = torch.tensor([gap, 0.0], dtype=torch.float64)
        assert perturb_max(x)[0].item() == pytest.approx(0.5 * math.erfc(-gap / 2), abs=1e-10)
        assert perturb_max(x, "exponential")[0].item() == pytest.approx(1 - 0.5 * math.exp(-gap), abs=1e-14)


@pytest.mark.parametrize(("noise", "gap"), [("normal", 8.4), ("logistic", 23.5)])
def test_perturb_max_keeps_its_digits_down_to_1e_9(noise: str, gap: float):
    far = math.exp(-gap)
    exact = {"normal": 0.5 * math.erfc(gap / 2), "logistic": far * (gap - 1 + far) / (1 - far) ** 2}[noise]
    assert exact < 2e-9
    p = perturb_max(torch.tensor([0.0, -gap], dtype=torch.float64), noise)
    assert p[1].item() == pytest.approx(exact, rel=2e-3)


# -- layer and bad input -----------------------------------------------------------------------------------------------


def test_layer_learns_one_alpha_for_each_head():
    layer = Entmax(1.5, learnable=True, num_heads=3)
    x = normal(2, 3, 4, 6, dtype=torch.float32)
    torch.testing.assert_close(layer(x), entmax15(x))
    layer(x).square().sum().backward()
    assert (layer.raw.grad != 0).all()
    assert layer.raw.shape == (3,)
    torch.testing.assert_close(Entmax(2.0, dim=0)(x), sparsemax(x, 0))


BAD = [
    (lambda: perturb_max_sample(torch.zeros(3), "normal", 0), ValueError, "num_samples"),
    (lambda: Entmax(2.0, learnable=True), ValueError, "alpha"),
    (lambda: Entmax(num_heads=2), ValueError, "num_heads"),
    (lambda: Entmax(learnable=True, num_heads=2)(torch.zeros(3, 4, 5)), ValueError, "x"),
]


@pytest.mark.parametrize(("call", "error", "name"), BAD, ids=range(len(BAD)))
def test_bad_input_is_named(call, error: type[Exception], name: str):
    with as_users_call(), pytest.raises(error, match=rf"^{name}\b"):
        call()
