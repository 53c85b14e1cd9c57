"""What softmax and its substitutes are, checked against 50-digit bisection, sorting, counting, finite differences."""

from __future__ import annotations

import math

import entmax as peer
import pytest
import torch
from distributions.ops_softmax_alternatives import EDGE, exact_entmax
from hypothesis import given, settings
from hypothesis import strategies as st
from opinfo import as_users_call
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from kexue_lib.distributions.softmax_alternatives import (
    Entmax,
    entmax,
    entmax15,
    entmax_loss,
    jacobian,
    margin_cross_entropy,
    perturb_max,
    perturb_max_sample,
    sparse_softmax,
    sparse_softmax_loss,
    sparsemax,
    sparsemax_loss,
    taylor_softmax,
)
from kexue_lib.distributions.softmax_alternatives import _entmax_rows as entmax_rows

settings.register_profile("deterministic", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("deterministic")

ALPHAS = (1.0, 1.001, 1.2, 1.5, 1.7, 2.0)
every_alpha = pytest.mark.parametrize("alpha", ALPHAS)
sparse_alpha = pytest.mark.parametrize("alpha", ALPHAS[2:])
Scores = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=9).map(
    lambda x: torch.tensor(x, dtype=torch.float64)
)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def exact(x: Tensor, alpha: float) -> Tensor:
    return torch.tensor([[float(v) for v in exact_entmax(row.double().numpy(), alpha)] for row in x], dtype=x.dtype)


# -- entmax ------------------------------------------------------------------------------------------------------------


@every_alpha
@given(x=Scores)
def test_is_a_distribution_in_the_order_of_the_scores(alpha: float, x: Tensor):
    p = entmax(x, alpha)
    assert (p >= 0).all()
    assert abs(p.sum().item() - 1) < 1e-14 * len(x)
    assert (p[x.argsort()].diff() >= -1e-15).all()


@every_alpha
@given(x=Scores, shift=st.floats(-100, 100))
def test_ignores_a_common_shift(alpha: float, x: Tensor, shift: float):
    torch.testing.assert_close(entmax(x + shift, alpha), entmax(x, alpha), rtol=0, atol=1e-11)


@sparse_alpha
@given(x=Scores)
def test_is_exactly_zero_where_a_score_is_too_low(alpha: float, x: Tensor):
    p = entmax(x, alpha)
    assert (p[x < x.max() - 1 / (alpha - 1)] == 0).all()


@sparse_alpha
@pytest.mark.parametrize("n", [1, 2, 200, 1000, 4099])
def test_float32_is_as_exact_as_float64_rounded(alpha: float, n: int):
    x = torch.cat([normal(3, n), 20 * normal(3, n, seed=1), 0.01 * normal(3, n, seed=2)]).float() + 100
    p, reference = entmax(x, alpha), entmax(x.double(), alpha)
    torch.testing.assert_close(p.double(), reference, rtol=0, atol=1e-6)
    support = (reference > 0).sum(-1)
    assert ((p.double().sum(-1) - 1).abs() <= 4 * 1.2e-7 * support.sqrt()).all()


@sparse_alpha
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_not_less_exact_than_the_peer(alpha: float, dtype: torch.dtype):
    rows = torch.tensor([r for r in EDGE if -math.inf not in r], dtype=dtype)
    rows = torch.cat([rows, normal(4, 5, seed=1, dtype=dtype), 1e3 + normal(3, 5, seed=2, dtype=dtype)])
    reference = exact(rows, alpha)
    other = {1.5: peer.entmax15, 2.0: peer.sparsemax}.get(alpha, lambda x, _: peer.entmax_bisect(x, alpha))
    mine, theirs = ((f - reference).abs().max().item() for f in (entmax(rows, alpha), other(rows, -1)))
    assert mine <= max(theirs, 4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("alpha", [1.5, 1.9, 2.0])
def test_staircases_need_no_more_steps_than_allowed(alpha: float):
    """Each Newton step drops few entries here."""
    n = 40
    for ratio in (0.5, 0.8, 0.95):
        x = -torch.tensor([ratio**k for k in range(n)], dtype=torch.float64) * 3
        torch.testing.assert_close(entmax(x, alpha), exact(x[None], alpha)[0], rtol=0, atol=1e-13)
        on_device_steps = torch.func.vmap(lambda v: entmax(v, alpha))(x[None])[0]  # a fixed number of steps
        torch.testing.assert_close(on_device_steps, entmax(x, alpha), rtol=0, atol=1e-14)


def test_the_support_is_that_of_sorting():
    x = normal(500, 12)
    z = x.sort(dim=-1, descending=True).values
    k = torch.arange(1, 13)
    sparse = (k * z - z.cumsum(-1) >= -1).sum(-1)
    assert torch.equal((sparsemax(x) > 0).sum(-1), sparse)
    half = z / 2
    distance = torch.stack([(half[:, : j + 1] - half[:, j : j + 1]).square().sum(-1) for j in range(12)], -1)
    assert torch.equal((entmax15(x) > 0).sum(-1), (distance <= 1).sum(-1))


def test_alpha_one_is_softmax_and_is_approached_without_loss_of_digits():
    x = normal(4, 30) * 3
    torch.testing.assert_close(entmax(x, 1.0), x.softmax(-1))
    near = x.float()
    for gap in (1e-3, 1e-5, 1e-7):
        reference = entmax(near.double(), 1 + gap)
        torch.testing.assert_close(entmax(near, 1 + gap).double(), reference, rtol=4e-6, atol=0)
        torch.testing.assert_close(reference, near.double().softmax(-1), rtol=200 * gap, atol=0)


def test_half_types_compute_in_float32():
    x = normal(4, 50).bfloat16()
    assert torch.equal(entmax15(x), entmax15(x.float()).bfloat16())


@every_alpha
def test_dim_is_respected_and_tiles_do_not_matter(alpha: float):
    x = normal(3, 700, 300, dtype=torch.float32)
    p = entmax(x, alpha, dim=1)
    torch.testing.assert_close(p[1, :, 5], entmax(x[1, :, 5], alpha), rtol=1e-5, atol=1e-7)
    assert p.shape == x.shape
    leaf = x[:, :, :200].clone().requires_grad_()
    entmax(leaf, alpha, dim=1).square().sum().backward()
    row = x[1, :, 5].clone().requires_grad_()
    entmax(row, alpha).square().sum().backward()
    torch.testing.assert_close(leaf.grad[1, :, 5], row.grad, rtol=1e-4, atol=1e-6)


@every_alpha
def test_what_is_excluded_gets_nothing_and_what_is_undefined_is_nan(alpha: float):
    x = torch.tensor([[0.5, -math.inf, 0.2], [-math.inf] * 3, [1.0, math.inf, 0.0], [1.0, math.nan, 0.0]])
    x.requires_grad_()
    p = entmax(x, alpha)
    assert p[0, 1] == 0
    assert p[0].sum().item() == pytest.approx(1)
    assert p[1:].isnan().all()
    p[0].square().sum().backward()
    assert x.grad[0, 1] == 0
    assert x.grad[0].isfinite().all()


@every_alpha
def test_the_written_out_jacobian_is_the_derivative(alpha: float):
    x = normal(6)
    actual = torch.autograd.functional.jacobian(lambda v: entmax(v, alpha), x)
    torch.testing.assert_close(jacobian(entmax(x, alpha), alpha), actual, rtol=1e-10, atol=1e-12)


def test_the_gradient_to_alpha_in_float32_keeps_its_digits():
    x = normal(20, dtype=torch.float32)
    for alpha in (1.0001, 1.01, 1.4, 1.5, 2.0):
        grads = []
        for dtype in (torch.float32, torch.float64):
            a = torch.tensor(alpha, dtype=dtype, requires_grad=True)
            (grad,) = torch.autograd.grad((entmax(x.to(dtype), a) * torch.arange(20)).sum(), a)
            grads.append(grad.double())
        torch.testing.assert_close(*grads, rtol=2e-3, atol=1e-5)


def test_alpha_for_each_head_and_in_the_loss():
    x = normal(1, 3, 2, 4).requires_grad_()
    alpha = torch.tensor([1.2, 1.5, 1.9], dtype=torch.float64).view(3, 1, 1).requires_grad_()
    p = entmax(x, alpha)
    torch.testing.assert_close(p[:, 2], entmax(x[:, 2], 1.9))
    assert gradcheck(entmax, (x, alpha))
    assert gradgradcheck(entmax, (x, alpha))
    target = torch.randint(4, (1, 3, 2), generator=torch.Generator().manual_seed(0))
    loss = lambda x, a: entmax_loss(x, target, a)
    assert gradcheck(loss, (x, alpha))
    assert gradgradcheck(loss, (x, alpha))
    torch.testing.assert_close(entmax_loss(x[:, 2], target[:, 2], alpha[2]), entmax_loss(x[:, 2], target[:, 2], 1.9))


def test_compiled_graphs_agree_for_a_learnt_alpha():
    alpha = torch.tensor(1.4)
    x, target = normal(4, 40, dtype=torch.float32).requires_grad_(), torch.tensor([0, 3, 2, 39])

    def both(x: Tensor) -> Tensor:
        return entmax(x, alpha).square().sum() + entmax_loss(x, target, alpha)

    torch._dynamo.reset()
    with as_users_call():
        out = torch.compile(both, fullgraph=True, backend="aot_eager")(x)
    (actual,) = torch.autograd.grad(out, x)
    (expected,) = torch.autograd.grad(both(x), x)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


# -- losses ------------------------------------------------------------------------------------------------------------


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


def test_perturb_max_of_two():
    for gap in (0.0, 0.7, 3.0):
        x = torch.tensor([gap, 0.0], dtype=torch.float64)
        assert perturb_max(x)[0].item() == pytest.approx(0.5 * math.erfc(-gap / 2), abs=1e-10)
        assert perturb_max(x, "exponential")[0].item() == pytest.approx(1 - 0.5 * math.exp(-gap), abs=1e-14)


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
    (lambda: entmax(torch.zeros(3), 0.5), ValueError, "alpha"),
    (lambda: entmax(torch.zeros(3), 2.5), ValueError, "alpha"),
    (lambda: entmax(torch.zeros(3), "1.5"), TypeError, "alpha"),
    (lambda: entmax(torch.zeros(3), torch.tensor([1.2, 1.3, 1.4])), ValueError, "alpha"),
    (lambda: entmax(torch.zeros(3), torch.tensor(2)), TypeError, "alpha"),
    (lambda: sparsemax(torch.zeros(3, dtype=torch.int64)), TypeError, "x"),
    (lambda: sparsemax(torch.zeros(3, 0)), ValueError, "dim"),
    (lambda: sparsemax(torch.zeros(3), dim=1), ValueError, "dim"),
    (lambda: sparse_softmax(torch.zeros(3), 4), ValueError, "k"),
    (lambda: sparse_softmax(torch.zeros(3), 0), ValueError, "k"),
    (lambda: sparse_softmax(torch.zeros(3), 1.0), TypeError, "k"),
    (lambda: taylor_softmax(torch.zeros(3), 3), ValueError, "order"),
    (lambda: taylor_softmax(torch.zeros(3), 0), ValueError, "order"),
    (lambda: taylor_softmax(torch.zeros(3), 2.0), TypeError, "order"),
    (lambda: perturb_max(torch.zeros(3), "cauchy"), ValueError, "noise"),
    (lambda: perturb_max(torch.zeros(3), num_points=1), ValueError, "num_points"),
    (lambda: perturb_max_sample(torch.zeros(3), "normal", 0), ValueError, "num_samples"),
    (lambda: entmax_loss(torch.zeros(2, 3), torch.tensor([0, 3])), ValueError, "target"),
    (lambda: entmax_loss(torch.zeros(2, 3), torch.tensor([-1, 0])), ValueError, "target"),
    (lambda: entmax_loss(torch.zeros(2, 3), torch.tensor([0])), ValueError, "target"),
    (lambda: entmax_loss(torch.zeros(2, 3), torch.zeros(2)), ValueError, "target"),
    (lambda: entmax_loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int32)), TypeError, "target"),
    (lambda: entmax_loss(torch.zeros(2, 3), torch.tensor([0, 1]), reduction="max"), ValueError, "reduction"),
    (lambda: sparse_softmax_loss(torch.zeros(2, 3), torch.zeros(2, 3), 2), TypeError, "target"),
    (lambda: margin_cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), tau=0.0), ValueError, "tau"),
    (lambda: Entmax(2.0, learnable=True), ValueError, "alpha"),
    (lambda: Entmax(num_heads=2), ValueError, "num_heads"),
    (lambda: Entmax(learnable=True, num_heads=2)(torch.zeros(3, 4, 5)), ValueError, "x"),
]


@pytest.mark.parametrize(("call", "error", "name"), BAD, ids=range(len(BAD)))
def test_bad_input_is_named(call, error: type[Exception], name: str):
    with as_users_call(), pytest.raises(error, match=rf"^{name}\b"):
        call()


def test_batched_gradients_take_the_plain_path():
    x = normal(4, 300).requires_grad_()
    p = entmax(x, 1.4)
    basis = normal(3, 4, 300, seed=1)
    (batched,) = torch.autograd.grad(p, x, basis, is_grads_batched=True)
    expected = torch.stack([entmax_rows.jacobian_product(v, p.detach(), 0.4) for v in basis])
    torch.testing.assert_close(batched, expected, rtol=1e-9, atol=1e-12)
