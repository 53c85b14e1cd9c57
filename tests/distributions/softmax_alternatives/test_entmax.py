"""Entmax against 50-digit bisection, sorting and finite differences."""

from __future__ import annotations

import math

import entmax as peer
import pytest
import torch
from distributions.ops_softmax_alternatives import EDGE, exact_entmax
from distributions.softmax_alternatives.random_scores import Scores, every_alpha, normal, sparse_alpha
from hypothesis import given
from hypothesis import strategies as st
from opinfo import as_users_call
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from kexue_lib.distributions.softmax_alternatives import _entmax_rows as entmax_rows
from kexue_lib.distributions.softmax_alternatives import entmax, entmax15, entmax_loss, jacobian, sparsemax


def exact(x: Tensor, alpha: float) -> Tensor:
    return torch.tensor([[float(v) for v in exact_entmax(row.double().numpy(), alpha)] for row in x], dtype=x.dtype)


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


def test_batched_gradients_take_the_plain_path():
    x = normal(4, 300).requires_grad_()
    p = entmax(x, 1.4)
    basis = normal(3, 4, 300, seed=1)
    (batched,) = torch.autograd.grad(p, x, basis, is_grads_batched=True)
    expected = torch.stack([entmax_rows.jacobian_product(v, p.detach(), 0.4) for v in basis])
    torch.testing.assert_close(batched, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("alpha", [2.2, 3.0, 4.0])
@pytest.mark.parametrize("n", [1, 2, 7, 700])
def test_beyond_sparsemax_the_sum_is_one_at_a_bisected_threshold(alpha: float, n: int):
    """Oracle: p = relu((α − 1)x − λ)^{1/(α−1)} with λ halved 200 times."""
    x = 2 * normal(90, n)
    z = (alpha - 1) * x
    low, high = z.amax(-1, keepdim=True) - 1, z.amax(-1, keepdim=True) - float(n) ** (1 - alpha)
    for _ in range(200):
        middle = (low + high) / 2
        above = (z - middle).clamp_min(0).pow(1 / (alpha - 1)).sum(-1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    expected = (z - low).clamp_min(0).pow(1 / (alpha - 1))
    torch.testing.assert_close(entmax(x, alpha), expected, rtol=0, atol=1e-9)
    assert gradcheck(lambda x: entmax(x, alpha), (x[:3, :7].clone().requires_grad_(),))


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0])
@pytest.mark.parametrize("n", [10**6, 5 * 10**6])
def test_long_float32_rows_sum_to_one(alpha: float, n: int):
    assert abs(entmax(torch.zeros(n), alpha).double().sum().item() - 1) < 1e-6


@pytest.mark.parametrize("alpha", [1.0, 1.3, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("size", [(2, 4), (600, 300)], ids=str)  # whole, and in tiles
def test_no_gradient_leaves_a_row_that_is_all_masked(alpha: float, size: tuple[int, int]):
    x = normal(*size)
    x[0] = -math.inf
    x.requires_grad_()
    p = entmax(x, alpha)
    assert p[0].isnan().all()
    (grad,) = torch.autograd.grad(p[1:].square().sum(), x)
    alone = x.detach()[1:].clone().requires_grad_()
    (expected,) = torch.autograd.grad(entmax(alone, alpha).square().sum(), alone)
    assert (grad[0] == 0).all()
    torch.testing.assert_close(grad[1:], expected)


def test_alpha_below_one_is_led_back():
    x, alpha = normal(3, 5), torch.tensor([[0.9]], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([[1 + 1e-9]], dtype=torch.float64, requires_grad=True)
    slopes = [torch.autograd.grad(entmax(x, a)[:, 0].sum(), a)[0] for a in (alpha, other)]
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=0)
    assert slopes[0].abs() > 1e-3
