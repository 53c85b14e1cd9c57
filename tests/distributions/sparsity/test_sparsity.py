"""Sparsity measures against 50-digit arithmetic, SciPy and brute force."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import torch
from distributions.sparsity.random_vectors import X, inf, nan, normal, tensor
from opinfo import as_users_call
from scipy import stats

from kexue_lib.distributions.sparsity import (
    SparsityMeter,
    check_axioms,
    effective_number,
    gini,
    hoyer,
    norm_ratio,
    power_mean,
    renyi_entropy,
    sparsity_penalty,
    theil,
)

MEASURES = {"norm_ratio": norm_ratio, "gini": gini, "hoyer": hoyer, "theil": theil}
every_measure = pytest.mark.parametrize("name", MEASURES)
ORDERS = (0.0, 0.3, 1.0, 2.0, 5.0, inf)
every_order = pytest.mark.parametrize("alpha", ORDERS)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 7.5])
def test_power_mean_is_scipys(p: float):
    x = normal(4, 9).abs()
    np.testing.assert_allclose(power_mean(x, p), stats.pmean(x.numpy(), p, axis=-1), rtol=1e-13)


def test_power_mean_increases_with_its_power_from_minimum_to_maximum():
    x = normal(50, 6)
    means = torch.stack([power_mean(x, p) for p in (-inf, -40.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 2.0, 40.0, inf)])
    assert (means.diff(dim=0) > 0).all()
    torch.testing.assert_close(means[[0, -1]], torch.stack((x.abs().amin(-1), x.abs().amax(-1))))


@pytest.mark.parametrize(("q", "p"), [(1.0, 2.0), (0.5, 2.0), (0.01, 300.0), (2.0, 4.0), (1.0, inf)])
@pytest.mark.parametrize("size", [1e-36, 1.0, 1e30])
def test_norm_ratio_in_float32_has_the_digits_of_fifty(q: float, p: float, size: float):
    x = (normal(9) * size).float()
    with mpmath.workdps(50):
        exact = [abs(mpmath.mpf(v)) for v in x.tolist()]
        mean = lambda e: (
            max(exact) if e == inf else (mpmath.fsum(v**e for v in exact) / len(exact)) ** (1 / mpmath.mpf(e))
        )
        ratio = float(mean(q) / mean(p))
    assert norm_ratio(x, q, p).item() == pytest.approx(ratio, rel=2e-6 if q >= 0.5 else 2e-4)


def test_large_powers_do_not_overflow_half_precision():
    for dtype in (torch.float16, torch.bfloat16):
        assert norm_ratio(tensor(100.0, 0.0, 0.0, 0.0, dtype=dtype), 1.0, 4.0).item() == pytest.approx(
            4**-0.75, rel=4e-3
        )


def test_norm_ratio_of_one_hot_and_constant_vectors_are_its_bounds():
    for q, p in itertools.combinations((0.25, 1.0, 2.0, 5.0, inf), 2):
        assert norm_ratio(torch.eye(7, dtype=torch.float64)[2], q, p).item() == pytest.approx(7 ** (1 / p - 1 / q))
        assert norm_ratio(tensor(-3.0, 3.0, 3.0), q, p).item() == pytest.approx(1.0, rel=1e-14)
        ratios = norm_ratio(normal(200, 7), q, p)
        assert ((ratios > 7 ** (1 / p - 1 / q)) & (ratios < 1)).all()


def test_norm_ratio_is_the_cosine_to_the_signs():
    x = normal(20, 8)
    torch.testing.assert_close(norm_ratio(x), torch.cosine_similarity(x, x.sign(), dim=-1))


def test_gini_is_the_mean_absolute_difference():
    x = normal(30, 11)
    x[0, :4] = 0.5
    size = x.abs()
    pairs = (size[:, :, None] - size[:, None, :]).abs().sum((1, 2)) / (2 * 11 * size.sum(-1))
    torch.testing.assert_close(gini(x), pairs, rtol=1e-13, atol=0)


def test_gini_of_a_million_is_that_of_the_exponential_distribution():
    x = -torch.rand(10**6, generator=torch.Generator().manual_seed(0)).clamp(min=1e-7).log().requires_grad_()
    (grad,) = torch.autograd.grad(gini(x), x)
    assert gini(x).item() == pytest.approx(0.5, abs=2e-3)
    assert (x * grad).sum().item() == pytest.approx(0.0, abs=1e-5)


def test_hoyer_runs_from_zero_to_one():
    torch.testing.assert_close(hoyer(torch.eye(5)), torch.ones(5))
    assert hoyer(torch.ones(5)).item() == pytest.approx(0.0, abs=1e-6)
    assert hoyer(tensor(3.0)).item() == 0


def test_theil_is_the_entropy_gap():
    x = normal(20, 9).abs()
    torch.testing.assert_close(theil(x), math.log(9) - torch.from_numpy(stats.entropy(x.numpy(), axis=-1)))


@every_order
@pytest.mark.parametrize("log_input", [False, True])
def test_entropy_of_equal_outcomes_counts_them(alpha: float, log_input: bool):
    p = torch.zeros(3, 8, dtype=torch.float64)
    for row, k in enumerate((1, 3, 8)):
        p[row, :k] = 1 / k
    counted = effective_number(p.log() if log_input else p, alpha, log_input=log_input)
    torch.testing.assert_close(counted, tensor(1.0, 3.0, 8.0))


@every_order
def test_entropy_from_logarithms_survives_probabilities_that_underflow(alpha: float):
    scores = torch.tensor([0.0, -800.0, -800.0, -inf], dtype=torch.float64)
    log_p = scores.log_softmax(-1)
    with mpmath.workdps(400):
        weights = [mpmath.exp(v) for v in (0, -800, -800)]
        p = [w / mpmath.fsum(weights) for w in weights]
        if alpha == 1:
            exact = -mpmath.fsum(v * mpmath.log(v) for v in p)
        elif alpha == inf:
            exact = -mpmath.log(max(p))
        else:
            exact = mpmath.log(mpmath.fsum(v ** mpmath.mpf(alpha) for v in p)) / (1 - mpmath.mpf(alpha))
    assert renyi_entropy(log_p, alpha, log_input=True).item() == pytest.approx(float(exact), rel=1e-12, abs=1e-15)


def test_entropy_decreases_with_its_order_and_is_continuous_at_one():
    p = normal(40, 6).softmax(-1)
    entropies = torch.stack([renyi_entropy(p, a) for a in (0.0, 0.5, 0.9, 1.0, 1.1, 2.0, 10.0, inf)])
    assert (entropies.diff(dim=0) < 0).all()
    for a in (1 - 1e-6, 1 + 1e-6):
        torch.testing.assert_close(renyi_entropy(p, a), renyi_entropy(p), rtol=0, atol=2e-6)


def test_entropy_of_order_two_is_the_norm_ratio_on_the_simplex():
    p = normal(20, 6).softmax(-1)
    torch.testing.assert_close(effective_number(p, 2.0), 6 * norm_ratio(p).square())


@every_order
@pytest.mark.parametrize("log_input", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_masked_attention_gives_gradients_without_nan(alpha: float, log_input: bool, dtype: torch.dtype):
    scores = normal(4, 6).to(dtype)
    scores[0, 1:], scores[1, 3:] = -inf, -inf
    scores.requires_grad_()
    p = scores.log_softmax(-1) if log_input else scores.softmax(-1)
    (grad,) = torch.autograd.grad(effective_number(p, alpha, log_input=log_input).sum(), scores)
    assert grad.isfinite().all()
    assert effective_number(p, alpha, log_input=log_input)[0].item() == pytest.approx(1.0)


# -- dimensions, edges -------------------------------------------------------------------------------------------------


REDUCTIONS = {
    **MEASURES,
    "norm_ratio": lambda x, *a, **k: norm_ratio(x, 1.0, 2.0, *a, **k),
    "power_mean": lambda x, *a, **k: power_mean(x, 3.0, *a, **k),
    "geometric": lambda x, *a, **k: power_mean(x, 0.0, *a, **k),
    "largest": lambda x, *a, **k: power_mean(x, inf, *a, **k),
    "entropy": lambda x, *a, **k: renyi_entropy(x.abs(), 1.0, *a, **k),
    "logarithms": lambda x, *a, **k: renyi_entropy(-x.abs(), 2.0, *a, **k, log_input=True),
    "effective": lambda x, *a, **k: effective_number(x, 2.0, *a, **k),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_dimensions(name: str):
    f, x = REDUCTIONS[name], normal(3, 4, 5)
    torch.testing.assert_close(f(x), f(x, -1))
    torch.testing.assert_close(f(x, 1), f(x.mT.contiguous()))
    torch.testing.assert_close(f(x, (0, -1)), f(x.transpose(0, 1).reshape(4, 15)))
    torch.testing.assert_close(f(x, None), f(x.flatten()))
    assert f(x, (-1, 0), True).shape == (1, 4, 1)
    assert f(x, None, True).shape == (1, 1, 1)
    assert f(x, None).shape == f(x[0, 0, 0]).shape == f(x[0, 0, 0], None, True).shape == ()
    assert f(x[:0]).shape == (0, 4)


@every_measure
def test_zero_and_nan(name: str):
    f, x = MEASURES[name], torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(f(x).sum(), x)
    assert torch.equal(grad, torch.zeros(2, 4, dtype=torch.float64))
    assert f(x).tolist() == [float(name == "norm_ratio")] * 2
    assert f(tensor(1.0, nan, 2.0)).isnan()
    assert renyi_entropy(tensor(0.5, nan)).isnan()
    for p in (2.0, 0.0, -1.0, inf, -inf):
        assert power_mean(tensor(1.0, nan), p).isnan()


@every_measure
def test_gradient_is_orthogonal_to_the_vector(name: str):
    x = normal(10, 7).requires_grad_()
    (grad,) = torch.autograd.grad(MEASURES[name](x).sum(), x)
    torch.testing.assert_close((x * grad).sum(-1), torch.zeros(10, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("q", "p"), [(1.0, 2.0), (0.5, 3.0), (1.5, 4.0)])
def test_gradient_of_norm_ratio_is_the_closed_form(q: float, p: float):
    x = normal(7).requires_grad_()
    (grad,) = torch.autograd.grad(norm_ratio(x, q, p), x)
    size, s = x.abs(), norm_ratio(x, q, p)
    form = s * (size ** (q - 1) / (size**q).sum() - size ** (p - 1) / (size**p).sum()) * x.sign()
    torch.testing.assert_close(grad, form.detach())


def test_penalty_is_the_mean_and_makes_sparse_without_shrinking():
    x = normal(5, 4)
    torch.testing.assert_close(sparsity_penalty(x, 0.5, 3.0), norm_ratio(x, 0.5, 3.0).mean())
    v = tensor(3.0, 1.0, 0.5).requires_grad_()
    for _ in range(300):
        (grad,) = torch.autograd.grad(sparsity_penalty(v), v)
        v = (v - 0.02 * grad).detach().requires_grad_()
    assert v[0] > 3
    assert v[1:].abs().max() < 0.2


def test_saves_the_input_and_small_reductions_only():
    sizes = []
    x = normal(8, 512).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
        norm_ratio(x)
    assert sizes.count(x.numel()) == 1
    assert all(s in (8, x.numel()) for s in sizes)


# -- compilation, imports, bad input -----------------------------------------------------------------------------------


def test_compiled_kernel_agrees_and_has_the_same_gradient():
    with as_users_call():
        torch._dynamo.reset()
        compiled = torch.compile(norm_ratio, fullgraph=True)
        x = normal(5, 33).float()
        x[0], x[1, ::2], x[2, 0] = 0, 0, inf
        x[3] *= torch.logspace(-30, 30, 33)
        results = []
        for f in (norm_ratio, compiled):
            leaf = x.clone().requires_grad_()
            out = f(leaf)
            results.append((out.detach(), *torch.autograd.grad(out.square().sum(), leaf)))
        torch.testing.assert_close(results[1], results[0])


def test_import_needs_torch_and_jaxtyping_only():
    code = (
        "import sys, kexue_lib.distributions.sparsity as s, torch; s.norm_ratio(torch.ones(9));"
        "assert not {'sympy', 'scipy', 'numpy.testing', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SparsityMeter(2.0, 1.0), ValueError, "0 < q < p"),
        (lambda: SparsityMeter().update(X.int()), TypeError, "x: got torch.int32, expected .* floating dtype"),
        (lambda: SparsityMeter(per_feature=True).update(X[0, 0]), ValueError, "x: got shape .*, expected .*features"),
        (
            lambda: SparsityMeter().merge(SparsityMeter(0.5)),
            ValueError,
            "other: got .q, p, per_feature.* expected the same",
        ),
        (lambda: SparsityMeter().merge(X), TypeError, "other: got Tensor, expected a SparsityMeter"),
        (lambda: check_axioms(gini, trials=0), ValueError, "trials: got 0, expected at least 1"),
        (lambda: check_axioms(gini, n=2), ValueError, "^n: got 2, expected at least 3"),
        (lambda: check_axioms(lambda x: x), ValueError, "measure: got shape .*, expected shape"),
        (lambda: check_axioms(lambda x: x.mean(-1) * nan), ValueError, "measure: got NaN at"),
    ],
)
def test_bad_input(call, error, message: str):
    with as_users_call(), pytest.raises(error, match=message):
        call()
