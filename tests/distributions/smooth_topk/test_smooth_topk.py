"""What smooth Top-k operators are, checked against enumeration, 50-digit arithmetic, root finding and counting."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from distributions.ops_smooth_topk import bracketed_threshold, enumerated_loss, enumerated_marginals
from hypothesis import given, settings
from hypothesis import strategies as st
from opinfo import as_users_call
from scipy import stats
from scipy.special import expit
from torch import Tensor

from kexue_lib.distributions.smooth_topk import (
    SmoothTopK,
    grad_topk,
    hard_topk,
    iterative_topk,
    log_elementary_symmetric,
    log_partition,
    sample_k_subset,
    thre_topk,
    threshold,
    topk_cross_entropy,
)
from kexue_lib.distributions.smooth_topk._k_subset import tilt
from kexue_lib.distributions.smooth_topk._polynomial_product import correlation, product

settings.register_profile("deterministic", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("deterministic")

RESPONSES = ("sigmoid", "laplace", "minexp", "clip")
METHODS = ("grad", *RESPONSES)
every_method = pytest.mark.parametrize("method", METHODS)
every_response = pytest.mark.parametrize("f", RESPONSES)

ScoresAndK = st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=9).flatmap(
    lambda x: st.tuples(st.just(torch.tensor(x, dtype=torch.float64)), st.integers(1, len(x)))
)
every_case = given(case=ScoresAndK)


def smooth(x: Tensor, k: int, method: str, tau: float = 1.0) -> Tensor:
    return grad_topk(x, k, tau) if method == "grad" else thre_topk(x, k, method, tau)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def elementary_symmetric(weights: list[mpmath.mpf], k: int) -> list[mpmath.mpf]:
    e = [mpmath.mpf(1)] + [mpmath.mpf(0)] * k
    for w in weights:
        for d in range(k, 0, -1):
            e[d] += w * e[d - 1]
    return e


def jacobian(function, x: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(function, x)


# -- what all of them share -------------------------------------------------------------------------------------------


@every_method
@every_case
def test_values_lie_in_the_unit_interval_and_sum_to_k(method: str, case):
    x, k = case
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        p = smooth(x.to(dtype), k, method)
        assert ((p >= 0) & (p <= 1)).all()
        assert abs(p.sum().item() - k) <= bound * k


@every_method
@every_case
def test_order_of_scores_is_order_of_values(method: str, case):
    x, k = case
    p = smooth(x, k, method)[x.argsort()]
    assert (p.diff() >= -1e-14).all()


@every_method
@settings(max_examples=30)
@given(case=ScoresAndK, shift=st.floats(-100, 100), seed=st.integers(0, 99))
def test_commutes_with_permutations_and_ignores_shifts(method: str, case, shift: float, seed: int):
    x, k = case
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(smooth(x[order] + shift, k, method), smooth(x, k, method)[order], rtol=0, atol=1e-11)


@pytest.mark.parametrize("method", ["grad", "sigmoid", "laplace", "clip"])
@every_case
def test_choosing_k_is_rejecting_the_others(method: str, case):
    x, k = case
    if k < len(x):
        torch.testing.assert_close(smooth(x, k, method), 1 - smooth(-x, len(x) - k, method), rtol=0, atol=1e-12)


def test_minexp_has_no_such_symmetry():
    x = torch.tensor([math.log(4), 0.0, 0.0], dtype=torch.float64)
    chosen, rejected = thre_topk(x, 1, "minexp"), 1 - thre_topk(-x, 2, "minexp")
    torch.testing.assert_close(chosen[0], torch.tensor(4 / 6, dtype=torch.float64))  # softmax
    assert (chosen - rejected).abs().max() > 0.05


@every_method
@pytest.mark.parametrize("tau", [1e-4, 1e-10, 1e-30, 1e-300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cold_limit_is_the_hard_topk_without_nan(method: str, tau: float, dtype: torch.dtype):
    x = torch.tensor([[3.0, 2.0, 1.0, 4.0], [-1e5, 1e5, 0.5, -0.5]], dtype=dtype, requires_grad=True)
    p = smooth(x, 2, method, tau)
    assert torch.equal(p, torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]], dtype=dtype))
    (grad,) = torch.autograd.grad(p[:, 0].sum(), x)
    assert torch.equal(grad, torch.zeros_like(x))


@every_method
def test_equal_scores_share_equally_at_any_temperature(method: str):
    for tau in (1e-30, 1.0, 1e3):
        p = smooth(torch.tensor([5.0, 5.0, 5.0, 1e4, -1e4]), 2, method, tau)
        if method in ("grad", "sigmoid", "laplace", "clip") and tau < 1e3:
            torch.testing.assert_close(p, torch.tensor([1 / 3, 1 / 3, 1 / 3, 1.0, 0.0]))
        torch.testing.assert_close(p[:3], p[:1].expand(3))


@every_method
def test_taking_all_is_all_ones_with_zero_gradient(method: str):
    x = normal(3, 5).requires_grad_()
    p = smooth(x, 5, method)
    assert torch.equal(p, torch.ones_like(p))
    assert torch.equal(torch.autograd.grad(p.square().sum(), x)[0], torch.zeros_like(p))


@every_method
def test_excluded_entries_change_nothing_for_the_others(method: str):
    x = torch.tensor([0.3, -math.inf, 1.2, -math.inf, -0.7, 0.1], dtype=torch.float64, requires_grad=True)
    kept = torch.tensor([0, 2, 4, 5])
    weights = torch.arange(6.0, dtype=torch.float64)
    for k in (1, 2, 3, 4):
        p = smooth(x, k, method)
        torch.testing.assert_close(p[kept], smooth(x[kept], k, method), rtol=0, atol=1e-13)
        (grad,) = torch.autograd.grad((weights * p).sum(), x)
        assert (p[[1, 3]] == 0).all()
        assert (grad[[1, 3]] == 0).all()
        assert not grad.isnan().any()
    assert smooth(x, 5, method).isnan().all()


@every_method
def test_nan_stays_in_its_row(method: str):
    x = torch.tensor([[1.0, math.nan, 2.0], [1.0, 0.0, 2.0]])
    p = smooth(x, 1, method)
    assert p[0].isnan().all()
    torch.testing.assert_close(p[1], smooth(x[1], 1, method))


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_float32_rounded_once(method: str, dtype: torch.dtype):
    x = normal(4, 50, dtype=dtype) * 3
    assert torch.equal(smooth(x, 7, method), smooth(x.float(), 7, method).to(dtype))


@every_method
def test_temperature_divides_the_scores_and_is_learnable(method: str):
    x, tau = normal(2, 6), torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(smooth(x, 2, method, tau), smooth(x / 0.8, 2, method))
    assert torch.autograd.gradcheck(lambda t: smooth(x, 2, method, t), tau)


# -- GradTopK ---------------------------------------------------------------------------------------------------------


@every_case
def test_grad_topk_is_the_inclusion_probability_of_a_random_subset(case):
    x, k = case
    torch.testing.assert_close(
        grad_topk(x, k), torch.from_numpy(enumerated_marginals(x.numpy(), k)), rtol=1e-12, atol=0
    )


def test_grad_topk_is_the_gradient_of_the_log_partition():
    x = normal(3, 7).requires_grad_()
    for k in range(1, 8):
        (grad,) = torch.autograd.grad(log_elementary_symmetric(x, k)[..., k].sum(), x)
        torch.testing.assert_close(grad_topk(x, k), grad, rtol=1e-12, atol=1e-14)


def test_grad_topk_and_minexp_reduce_to_softmax_when_k_is_one():
    x = normal(4, 30) * 5
    torch.testing.assert_close(grad_topk(x, 1), torch.softmax(x, dim=-1), rtol=1e-12, atol=0)
    torch.testing.assert_close(thre_topk(x, 1, "minexp"), torch.softmax(x, dim=-1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("n", "k"), [(40, 3), (40, 10), (40, 33), (129, 20)])
def test_accuracy_against_fifty_digits(n: int, k: int, dtype: torch.dtype):
    """Relative accuracy of every representable entry, of p and of the loss, at spreads from 1 to 100."""
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    with mpmath.workdps(50):
        for std in (1, 3, 10, 30, 100):
            x = (normal(n, seed=n + k + std) * std).to(dtype)
            weights = [mpmath.exp(v) for v in x.tolist()]
            total = elementary_symmetric(weights, k)
            p, z = grad_topk(x, k), log_elementary_symmetric(x, k)
            assert abs(p.sum().item() - k) <= 4 * eps * k
            for i in range(0, n, n // 13):
                others = elementary_symmetric(weights[:i] + weights[i + 1 :], k)
                inclusion = weights[i] * others[k - 1] / total[k]
                # The input of exp has a relative error of eps: one digit of p is lost for each digit of |log p|.
                bound = 20 * eps * (1 + abs(mpmath.log(inclusion)))
                assert abs(p[i].item() - inclusion) <= bound * inclusion + 2 * tiny
                loss = mpmath.log1p(others[k] / (weights[i] * others[k - 1]))
                bound = 20 * eps * (1 + abs(mpmath.log(loss)))
                assert abs(topk_cross_entropy(x, torch.tensor(i), k).item() - loss) <= bound * loss + 2 * tiny
            for d in range(k + 1):
                assert abs(z[d].item() - mpmath.log(total[d])) <= 4 * eps * (1 + abs(mpmath.log(total[d])))
            assert abs(log_partition(x, k).item() - z[k].item()) <= 4 * eps * (1 + abs(z[k].item()))


def test_subtracting_recursion_of_the_article_fails_where_the_tree_does_not():
    """Z_{k,i} = e^{xᵢ}(Z_{k−1} − Z_{k−1,i}) cancels; the products add positive numbers only."""
    x = 5 * normal(10, 40, seed=3)
    z, log_z = torch.full_like(x, -math.inf), x.new_zeros(10, 1)
    for k in range(1, 16):
        z = x + log_z + torch.log1p(-torch.exp(z - log_z))
        log_z = z.logsumexp(-1, keepdim=True) - math.log(k)
    good = ((z - log_z).exp() - grad_topk(x, 15)).abs().amax(-1) < 1e-3
    assert good.sum() < 5
    torch.testing.assert_close(grad_topk(x, 15).sum(-1), x.new_full((10,), 15.0), rtol=1e-14, atol=0)


def test_jacobian_is_the_covariance_of_the_subset():
    x, k = normal(6, seed=4) * 2, 3
    subsets = list(itertools.combinations(range(6), k))
    indicators = torch.zeros(len(subsets), 6, dtype=torch.float64)
    for row, subset in zip(indicators, subsets):
        row[list(subset)] = 1
    probability = torch.softmax(indicators @ x, dim=0)
    mean = probability @ indicators
    covariance = (indicators.mT * probability) @ indicators - torch.outer(mean, mean)
    actual = jacobian(lambda x: grad_topk(x, k), x)
    torch.testing.assert_close(actual, covariance, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(torch.autograd.functional.hessian(lambda x: log_partition(x, k), x), covariance)
    assert (actual - torch.diag(actual.diag()) <= 0).all()


@pytest.mark.parametrize(("n", "k"), [(5, 2), (6, 6 - 1), (30, 11)])
def test_jacobian_at_equal_scores(n: int, k: int):
    expected = k * (n - k) / (n * (n - 1)) * (torch.eye(n) - 1 / n)
    torch.testing.assert_close(jacobian(lambda x: grad_topk(x, k), torch.zeros(n)), expected)


def test_float32_gradient_is_accurate_at_every_spread():
    for std in (0.1, 1.0, 10.0, 100.0):
        x, v = normal(8, 300, seed=5, dtype=torch.float32) * std, normal(8, 300, seed=6, dtype=torch.float32)
        for k in (1, 20, 290):
            x64, x32 = x.double().requires_grad_(), x.clone().requires_grad_()
            (expected,) = torch.autograd.grad(grad_topk(x64, k), x64, v.double())
            (actual,) = torch.autograd.grad(grad_topk(x32, k), x32, v)
            torch.testing.assert_close(actual.double(), expected, rtol=0, atol=2e-5)


def test_tiny_values_keep_their_digits_in_float32():
    """Across a gap of 80 the values are near 1e-35; half of the exponent is in σ(x − λ), half in the count."""
    x = normal(300, 64, seed=9) - 80.0 * (torch.arange(64) >= 20)
    torch.testing.assert_close(grad_topk(x.float(), 20).double(), grad_topk(x, 20), rtol=1e-4, atol=0)
    torch.testing.assert_close(thre_topk(x.float(), 20).double(), thre_topk(x, 20), rtol=1e-4, atol=0)


def test_tilted_count_is_never_improbable():
    """The count k of independent Bernoulli variables whose mean is k has a probability of at least 1/(n + 1)."""
    for n, k, std in itertools.product((2, 10, 300), (1, 7, 150), (0.0, 1.0, 30.0, 1e3)):
        if k < n:
            q = torch.sigmoid(tilt(normal(n, seed=n) * std, k, 1.0)).numpy()
            count = np.array([1.0])
            for value in q:
                count = np.convolve(count, [1 - value, value])
            assert count[k] > 1 / (n + 1)


def test_sigmoid_threshold_is_grad_topk_without_conditioning():
    gaps = []
    for n in (16, 128, 1024):
        x = normal(20, n, seed=7)
        gaps.append((grad_topk(x, n // 4) - thre_topk(x, n // 4)).abs().amax(-1).mean().item())
    slopes = np.diff(np.log(gaps)) / np.log(8)
    assert np.all(np.abs(slopes + 1) < 0.15)


@pytest.mark.parametrize("columns", [1, 700])  # a gathered product, a loop of fused multiply-adds
@pytest.mark.parametrize(("left", "right", "degree"), [(1, 2, 2), (3, 3, 4), (20, 20, 38), (33, 33, 32), (5, 40, 20)])
def test_products_are_convolutions_and_correlations_their_transposes(left: int, right: int, degree: int, columns: int):
    a, b, g = normal(left, columns, seed=1), normal(right, columns, seed=2), normal(degree + 1, columns, seed=3)
    convolved = [np.convolve(x, y)[: degree + 1] for x, y in zip(a.mT.numpy(), b.mT.numpy())]
    padded = torch.from_numpy(np.stack([np.pad(c, (0, degree + 1 - len(c))) for c in convolved])).mT
    torch.testing.assert_close(product(a, b, degree), padded, rtol=1e-12, atol=1e-12)
    inner = (g * padded).sum(0)
    torch.testing.assert_close((a * correlation(g, b, left)).sum(0), inner, rtol=1e-10, atol=1e-10)
    inputs = (a[:, :2].clone().requires_grad_(), b[:, :2].clone().requires_grad_())
    assert torch.autograd.gradgradcheck(lambda a, b: product(a, b, degree), inputs)


# -- log_elementary_symmetric, hard_topk, iterative_topk --------------------------------------------------------------


def test_polynomial_with_equal_roots_is_binomial():
    log_binomial = [math.log(math.comb(100, d)) for d in range(61)]
    torch.testing.assert_close(
        log_elementary_symmetric(torch.zeros(100, dtype=torch.float64), 60),
        torch.tensor(log_binomial, dtype=torch.float64),
    )


def test_absent_weights_have_log_zero_and_no_gradient():
    x = torch.tensor([1.0, -math.inf, 2.0], dtype=torch.float64, requires_grad=True)
    z = log_elementary_symmetric(x, 3)
    torch.testing.assert_close(z[2], torch.tensor(3.0, dtype=torch.float64))
    assert z[3] == log_partition(x, 3) == -math.inf
    (grad,) = torch.autograd.grad(z[1], x)
    torch.testing.assert_close(grad, torch.softmax(x.detach(), dim=0))


def test_hard_topk_is_the_article_example_and_takes_the_first_of_equals():
    assert hard_topk(torch.tensor([3.0, 2.0, 1.0, 4.0]), 2).tolist() == [1, 0, 0, 1]
    assert hard_topk(torch.zeros(5), 2).tolist() == [1, 1, 0, 0, 0]
    assert hard_topk(torch.tensor([1.0, -math.inf]), 2).isnan().all()


@pytest.mark.parametrize("a", [0.01, 1.0, 20.0])
def test_shift_iteration_exceeds_one(a: float):
    first = expit(a)
    p = iterative_topk(torch.tensor([a, 0.0], dtype=torch.float64), 2)
    assert p[0].item() == pytest.approx(first + expit((1 - first) * a), rel=1e-14)
    assert p[0] > 1


def test_shift_iteration_is_not_monotone():
    x = torch.tensor([-3.694, 0.983, 1.642, 1.956])
    assert (iterative_topk(x, 2).diff() < 0).any()
    assert (grad_topk(x, 2).diff() > 0).all()


def test_weighted_iteration_tends_to_one_and_a_half():
    """Two steps with weights e^{−12.5} and e^{−25}: the second softmax splits between the first two entries."""
    p = iterative_topk(torch.tensor([0.0, -12.5, -25.0], dtype=torch.float64), 2, "weighted")
    torch.testing.assert_close(p, torch.tensor([1.5, 0.5, 0.0], dtype=torch.float64), rtol=0, atol=2e-5)


# -- thresholds -------------------------------------------------------------------------------------------------------


@every_response
@every_case
def test_threshold_solves_its_equation(f: str, case):
    x, k = case
    if k < len(x):
        level = threshold(x, k, f)
        root = torch.from_numpy(bracketed_threshold(x.numpy(), k, f))
        # λ is as ill-determined as the sum is flat; the values are not.
        response = {"sigmoid": torch.sigmoid, "laplace": _laplace, "minexp": lambda u: u.clamp(max=0).exp()}
        value = response.get(f, lambda u: u.clamp(0, 1))
        torch.testing.assert_close(value(x - level), value(x - root), rtol=0, atol=1e-11)


def _laplace(u: Tensor) -> Tensor:
    return torch.from_numpy(stats.laplace.cdf(u.numpy()))


@pytest.mark.parametrize("f", ["sigmoid", "laplace"])
def test_newton_steps_suffice_for_every_shape_of_scores(f: str):
    """The fixed number of steps reaches rounding for spreads of 0.1 … 1000, mixed scales, ties and all k."""
    for n in (2, 3, 33, 1000, 10_000):
        x = normal(4, n, seed=n)
        families = [x * std for std in (0.1, 1.0, 3.0, 10.0, 100.0, 1000.0)]
        families += [x * 10 ** normal(4, n, seed=1), (3 * x).round() * 5, torch.zeros_like(x), x / x.roll(1, -1)]
        for scores in families:
            for k in {1, 2, n // 10, n // 2, n - 2, n - 1} & set(range(1, n)):
                residual = (thre_topk(scores, k, f).sum(-1) - k).abs().max().item()
                assert residual <= 1e-12 * k


@pytest.mark.parametrize("f", ["sigmoid", "laplace"])
def test_newton_steps_suffice_for_equal_scores(f: str):
    """λ then lies at the very end of the interval that is searched."""
    for n in range(2, 220):
        for k in (1, n - 1):
            p = thre_topk(torch.zeros(n, dtype=torch.float64), k, f)
            torch.testing.assert_close(p, torch.full_like(p, k / n), rtol=1e-13, atol=0)


@pytest.mark.parametrize("f", ["sigmoid", "laplace"])
@given(data=st.data())
def test_newton_steps_suffice_for_clusters(f: str, data):
    """Clusters of very different size and distance are where the equation is most curved."""
    clusters = data.draw(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 200)), min_size=1, max_size=5))
    x = torch.cat([torch.full((count,), centre, dtype=torch.float64) for centre, count in clusters])
    if len(x) > 1:
        k = data.draw(st.integers(1, len(x) - 1))
        assert abs(thre_topk(x, k, f).sum().item() - k) <= 1e-12 * k


def test_sigmoid_threshold_of_two_is_the_mean_and_not_softmax():
    x = torch.tensor([3.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(threshold(x, 1), torch.tensor([2.0], dtype=torch.float64))
    torch.testing.assert_close(thre_topk(x, 1), torch.from_numpy(expit([1.0, -1.0])))


@pytest.mark.parametrize("k", [1, 3, 6])
def test_laplace_threshold_has_the_closed_form_of_the_article(k: int):
    x = normal(7, seed=8).sort(descending=True).values
    level = threshold(x, k, "laplace").item()
    m = int((x > level).sum())
    a, b = x[:m].neg().exp().sum().item(), x[m:].exp().sum().item()
    if m == 0:
        expected = math.log(b / (2 * k))
    elif m == 7:
        expected = math.log(2 * (7 - k) / a)
    else:
        expected = 0.5 * math.log(b / a) - math.asinh((k - m) / math.sqrt(a * b))
    assert level == pytest.approx(expected, abs=1e-13)


def test_laplace_threshold_may_lie_below_all_scores():
    """The article lets m run to n − 1 only, and finds no λ here."""
    x = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)
    level = threshold(x, 2, "laplace")
    assert level < 0
    torch.testing.assert_close(level, torch.log(2 / torch.exp(-x).sum()).reshape(1))


def test_laplace_is_softmax_only_while_softmax_stays_below_one_half():
    x = torch.tensor([math.log(4), 0.0], dtype=torch.float64)
    torch.testing.assert_close(thre_topk(x, 1, "laplace"), torch.tensor([0.75, 0.25], dtype=torch.float64))
    even = torch.tensor([0.3, 0.1, 0.0], dtype=torch.float64)
    torch.testing.assert_close(thre_topk(even, 1, "laplace"), torch.softmax(even, dim=0))


SLOPES = {
    "sigmoid": lambda u: expit(u) * expit(-u),
    "laplace": lambda u: 0.5 * np.exp(-np.abs(u)),
    "minexp": lambda u: np.where(u < 0, np.exp(np.minimum(u, 0)), 0),
    "clip": lambda u: ((u > 0) & (u < 1)).astype(float),
}


@every_response
@pytest.mark.parametrize("k", [1, 3, 6])
def test_jacobian_has_the_closed_form(f: str, k: int):
    x = 0.4 * normal(7, seed=10 + k)
    s = torch.from_numpy(SLOPES[f]((x - threshold(x, k, f)).numpy()))
    expected = torch.diag(s) - torch.outer(s, s) / s.sum()
    torch.testing.assert_close(jacobian(lambda x: thre_topk(x, k, f), x), expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(jacobian(lambda x: threshold(x, k, f), x)[0], s / s.sum(), rtol=1e-11, atol=1e-13)


def test_stop_gradient_form_has_no_second_derivative_of_the_threshold():
    x = normal(5, seed=20)

    def stop_gradient(x: Tensor) -> Tensor:
        fixed = x.detach().requires_grad_()
        level = threshold(fixed, 2)
        (slope,) = torch.autograd.grad(level.sum(), fixed)
        return ((x - x.detach()) * slope).sum() + level.detach().squeeze()

    hessian = torch.autograd.functional.hessian
    torch.testing.assert_close(jacobian(stop_gradient, x), jacobian(lambda x: threshold(x, 2).squeeze(), x))
    assert hessian(stop_gradient, x).abs().max() == 0
    assert hessian(lambda x: threshold(x, 2).squeeze(), x).abs().max() > 1e-3


def test_threshold_of_distant_scores_is_the_midpoint():
    x = torch.tensor([1e6, -3e6])
    for f in ("sigmoid", "laplace"):
        torch.testing.assert_close(threshold(x, 1, f), torch.tensor([-1e6]))
        assert threshold(torch.tensor([1.0, -math.inf]), 1, f) == -math.inf
    assert threshold(torch.tensor([4.0, 1.0, 2.0]), 3, "minexp") == 1


# -- samples and loss -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 4])
def test_samples_have_the_probabilities_of_the_subsets(k: int):
    x, draws = torch.tensor([[0.5, -0.3, 1.0, 0.0, -1.0], [3.0, 0.0, 0.0, 1.0, 2.0]]), 20_000
    samples = sample_k_subset(x, k, draws, torch.Generator().manual_seed(0))
    assert samples.shape == (draws, 2, 5)
    assert (samples.sum(-1) == k).all()
    subsets = list(itertools.combinations(range(5), k))
    codes = (samples * 2 ** torch.arange(5)).sum(-1)
    for row in range(2):
        weights = np.array([math.exp(x[row, list(s)].double().sum().item()) for s in subsets])
        counts = [(codes[:, row] == sum(2**i for i in s)).sum().item() for s in subsets]
        assert stats.chisquare(counts, draws * weights / weights.sum()).pvalue > 1e-3


@pytest.mark.parametrize(("n", "k"), [(129, 5), (129, 120), (64, 64), (1000, 30)])
def test_many_samples_have_k_members_and_the_marginals(n: int, k: int):
    x = normal(n, seed=n)
    samples = sample_k_subset(x, k, 500, torch.Generator().manual_seed(1))
    assert (samples.sum(-1) == k).all()
    p = grad_topk(x, k)
    deviation = (samples.double().mean(0) - p) / (p * (1 - p) / 500 + 1e-6).sqrt()
    assert deviation.abs().max() < 5
    assert torch.equal(samples, sample_k_subset(x, k, 500, torch.Generator().manual_seed(1)))


def test_samples_avoid_excluded_entries_and_take_overwhelming_ones():
    x = torch.tensor([0.0, -math.inf, 1e30, 0.0, 0.0])
    samples = sample_k_subset(x, 2, 200, torch.Generator().manual_seed(2))
    assert not samples[:, 1].any()
    assert samples[:, 2].all()
    assert samples[:, [0, 3, 4]].any(0).all()


@given(case=ScoresAndK, index=st.integers(0, 8))
def test_loss_is_the_negative_logarithm_of_the_marginal(case, index: int):
    x, k = case
    target = index % len(x)
    expected = torch.from_numpy(enumerated_loss(x.numpy(), target, k))
    torch.testing.assert_close(topk_cross_entropy(x, torch.tensor(target), k), expected, rtol=1e-11, atol=0)


def test_loss_is_finite_with_the_gradient_of_a_hinge_at_any_spread():
    x = torch.tensor([[2e30, -1e30, 3.0, 1e30], [2e30, -1e30, 3.0, 1e30]], requires_grad=True)
    loss = topk_cross_entropy(x, torch.tensor([1, 3]), 2, reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), x)
    torch.testing.assert_close(loss, torch.tensor([2e30, 0.0]))  # distance to the second largest of the others
    assert torch.equal(grad, torch.tensor([[0.0, -1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]))


def test_loss_reduces_like_cross_entropy_for_k_one():
    x, target = normal(6, 9), torch.arange(6)
    for reduction in ("mean", "sum", "none"):
        torch.testing.assert_close(
            topk_cross_entropy(x, target, 1, 0.5, reduction),
            torch.nn.functional.cross_entropy(x / 0.5, target, reduction=reduction),
        )


# -- the module -------------------------------------------------------------------------------------------------------


@every_method
def test_module_is_the_function(method: str):
    x = normal(3, 8, dtype=torch.float32)
    torch.testing.assert_close(SmoothTopK(3, method, 0.3)(x), smooth(x, 3, method, 0.3))
    assert list(SmoothTopK(3, method).parameters()) == []


@every_method
def test_learnable_temperature_stays_positive_and_follows_its_gradient(method: str):
    layer = SmoothTopK(2, method, tau=0.5, learnable_tau=True)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    x = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0]) / 3
    sharpness = []
    for _ in range(30):
        p = layer(x)
        optimizer.zero_grad()
        (p * (1 - p)).sum().backward()
        optimizer.step()
        sharpness.append(p[:2].sum().item())
    assert 0 < layer.tau.item() < 0.5
    assert sharpness[-1] > sharpness[0]
    restored = SmoothTopK(2, method, learnable_tau=True)
    restored.load_state_dict(layer.state_dict())
    assert restored.tau == layer.tau


# -- bad input --------------------------------------------------------------------------------------------------------

X = torch.zeros(2, 4)
NO_OPERATORS = {"hard_topk": hard_topk, "sample_k_subset": lambda x, k: sample_k_subset(x, k, 1)}
BAD_SCORES_OR_K = [
    (X.long(), 2, TypeError, "x: got torch.int64, expected"),
    ([1.0, 2.0], 1, TypeError, "x: got list, expected"),
    (X[:, :0], 1, ValueError, "x: got shape \\(2, 0\\), expected at least one entry"),
    (X[0, 0], 1, ValueError, "x: got shape \\(\\), expected at least one entry"),
    (X, 2.0, TypeError, "k: got 2.0, expected an integer"),
    (X, True, TypeError, "k: got True, expected an integer"),
    (X, 0, ValueError, "k: got 0, expected at least 1"),
    (X, 5, ValueError, "k: got 5, expected at most n = 4"),
]


@pytest.mark.parametrize(("x", "k", "error", "message"), BAD_SCORES_OR_K)
@pytest.mark.parametrize("name", NO_OPERATORS)
def test_bad_scores_or_k(name: str, x, k, error, message: str):
    with as_users_call(), pytest.raises(error, match=message):
        NO_OPERATORS[name](x, k)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sample_k_subset(X, 2, -1), ValueError, "num_samples: got -1, expected at least 0"),
        (lambda: sample_k_subset(X / 0, 2, 1), ValueError, "x: got NaN .* expected at least k = 2 entries"),
        (lambda: sample_k_subset(X.log(), 2, 1), ValueError, "x: got .* −inf, expected at least k = 2 entries"),
        (lambda: SmoothTopK(0), ValueError, "k: got 0, expected at least 1"),
        (lambda: SmoothTopK(2.0), TypeError, "k: got 2.0, expected an integer"),
        (lambda: SmoothTopK(2, "soft"), ValueError, "method: got 'soft', expected 'grad', 'sigmoid'"),
        (lambda: SmoothTopK(2, tau=0.0), ValueError, "tau: got 0.0, expected a finite number above 0"),
        (lambda: SmoothTopK(5)(X), ValueError, "k: got 5, expected at most n = 4"),
    ],
)
def test_other_bad_input(call, error, message: str):
    with as_users_call(), pytest.raises(error, match=message):
        call()
