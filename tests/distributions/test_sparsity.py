"""What sparsity measures are: 50-digit arithmetic, SciPy, brute force, majorisation, and the six axioms."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from opinfo import as_users_call
from scipy import stats
from torch import Tensor

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

inf, nan = math.inf, math.nan
MEASURES = {"norm_ratio": norm_ratio, "gini": gini, "hoyer": hoyer, "theil": theil}
every_measure = pytest.mark.parametrize("name", MEASURES)
ORDERS = (0.0, 0.3, 1.0, 2.0, 5.0, inf)
every_order = pytest.mark.parametrize("alpha", ORDERS)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tensor(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


# -- values -----------------------------------------------------------------------------------------------------------


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


# -- dimensions, edges ------------------------------------------------------------------------------------------------

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


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("q", "p"), [(1.0, 2.0), (0.5, 3.0), (1.0, inf)])
@pytest.mark.parametrize("per_feature", [False, True])
def test_meter_of_pieces_is_norm_ratio_of_the_whole(q: float, p: float, per_feature: bool):
    x = normal(50, 6) * 10 ** (20 * normal(50, 1, seed=1))  # the largest entry grows along the way
    x[:, 2] = 0
    meters = [SparsityMeter(q, p, per_feature) for _ in range(3)]
    for i, piece in enumerate(x.float().split(7)):
        meters[i % 2].update(piece)
    meters[0].merge(meters[1])
    meters[0].merge(meters[2])  # which has seen nothing
    meters[2].merge(meters[0])
    expected = norm_ratio(x.float().double(), q, p, 0 if per_feature else None)
    for meter in (meters[0], meters[2]):
        torch.testing.assert_close(meter.compute(), expected, rtol=1e-6, atol=0)
        assert meter.count == (50 if per_feature else 300)


def test_meter_of_zeros_and_empty_pieces():
    meter = SparsityMeter()
    meter.update(torch.zeros(0, 3))
    with pytest.raises(RuntimeError, match="seen no data"):
        meter.compute()
    meter.update(torch.zeros(4))
    assert meter.compute() == 1
    meter.update(torch.tensor(2.0))
    assert meter.compute().item() == pytest.approx(5**-0.5)


# -- axioms -----------------------------------------------------------------------------------------------------------


def shares(x: Tensor) -> Tensor:
    return x / x.sum(-1, keepdim=True)


def kurtosis(x: Tensor) -> Tensor:
    return torch.from_numpy(stats.kurtosis(x.numpy(), axis=-1, fisher=False))


# measure, larger is sparser, axioms that fail
AXIOMS = {
    "share of nonzeros": (lambda x: (x > 0).double().mean(-1), False, {"D1", "D3", "P1"}),
    "l1": (lambda x: x.sum(-1), False, {"D1", "D2", "D4", "P1", "P2"}),
    "mean over maximum": (lambda x: norm_ratio(x, 1.0, inf), False, {"D1"}),
    "l1/(n l2)": (lambda x: x.mean(-1) / x.norm(dim=-1), False, {"D4"}),
    "S 1,2": (norm_ratio, False, set()),
    "S 1/2,2": (lambda x: norm_ratio(x, 0.5, 2.0), False, set()),
    "S 1/4,1": (lambda x: norm_ratio(x, 0.25, 1.0), False, set()),
    "S 1/2,inf": (lambda x: norm_ratio(x, 0.5, inf), False, set()),
    "S 2,4": (lambda x: norm_ratio(x, 2.0, 4.0), False, {"D1"}),
    "S 1.1,1.2": (lambda x: norm_ratio(x, 1.1, 1.2), False, {"D1"}),
    "S 1/4,3/4": (lambda x: norm_ratio(x, 0.25, 0.75), False, {"D1"}),
    "S 1/2,0.9": (lambda x: norm_ratio(x, 0.5, 0.9), False, {"D1"}),
    "entropy": (lambda x: renyi_entropy(shares(x)), False, {"D4", "P2"}),
    "entropy − log n": (lambda x: renyi_entropy(shares(x)) - math.log(x.shape[-1]), False, set()),
    "H₂ − log n": (lambda x: renyi_entropy(shares(x), 2.0) - math.log(x.shape[-1]), False, set()),
    "Hoyer": (hoyer, True, {"D4"}),
    "Gini": (gini, True, set()),
    "Theil": (theil, True, set()),
    "kurtosis": (kurtosis, True, {"D1", "D3", "P2"}),
}


@pytest.mark.parametrize("name", AXIOMS)
@pytest.mark.parametrize("trials", [60, 300])
def test_axioms_that_fail_are_found_and_no_others(name: str, trials: int):
    measure, larger_is_sparser, failing = AXIOMS[name]
    generator = torch.Generator().manual_seed(trials)
    reports = check_axioms(measure, larger_is_sparser, trials=trials, generator=generator)
    assert list(reports) == ["D1", "D2", "D3", "D4", "P1", "P2"]
    assert {axiom for axiom, report in reports.items() if not report.holds} == failing
    assert all((report.counterexample is None) == report.holds for report in reports.values())


def test_counterexamples_are_genuine():
    measure = lambda x: norm_ratio(x, 2.0, 4.0)
    before, after = check_axioms(measure)["D1"].counterexample
    moved = (after - before).nonzero()[:, 0].tolist()
    rich, poor = sorted(moved, key=lambda i: -before[i])
    assert len(moved) == 2
    assert before.sum() == pytest.approx(after.sum())
    assert before[poor] < after[poor] <= after[rich] < before[rich]
    assert measure(after) < measure(before)


def test_larger_is_sparser_turns_the_direction_around():
    assert not check_axioms(gini, larger_is_sparser=False)["D1"].holds


def test_the_transfer_that_refutes_the_article_in_exact_numbers():
    def fourth_power(x: tuple) -> Fraction:  # S*₂,₄ to the fourth: (Σx²)²/(n Σx⁴)
        return Fraction(sum(v**2 for v in x)) ** 2 / (len(x) * Fraction(sum(v**4 for v in x)))

    before, after = (10, 2, 1), (10, Fraction(3, 2), Fraction(3, 2))
    assert (fourth_power(before), fourth_power(after)) == (Fraction(175, 477), Fraction(87362, 240243))
    assert fourth_power(after) < fourth_power(before)
    for x in (before, after):
        exact = float(fourth_power(x)) ** 0.25
        assert norm_ratio(tensor(*map(float, x)), 2.0, 4.0).item() == pytest.approx(exact, rel=1e-14)


def test_schur_concave_measures_never_contradict_majorisation():
    x = normal(2000, 8).abs()
    x = x / x.sum(-1, keepdim=True)
    y = x.clone()
    for seed in range(3):  # y is majorised by x: an average of permutations of x
        weight = torch.rand(2000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        y = weight * y + (1 - weight) * y[:, torch.randperm(8, generator=torch.Generator().manual_seed(seed))]
    assert (x.sort().values.cumsum(-1) <= y.sort().values.cumsum(-1) + 1e-12).all()
    assert (norm_ratio(x) <= norm_ratio(y) + 1e-12).all()
    for f in (gini, theil, hoyer):
        assert (f(x) >= f(y) - 1e-12).all()


# -- compilation, imports, bad input -----------------------------------------------------------------------------------


def test_compiled_kernel_agrees_and_has_the_same_gradient():
    with as_users_call():
        torch._dynamo.reset()
        compiled = torch.compile(norm_ratio, fullgraph=True)
        x = normal(4, 33).float()
        x[0], x[1, ::2], x[2, 0] = 0, 0, inf
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


X = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        *[(lambda f=f: f(X.long()), TypeError, "x must be .* got torch.int64") for f in MEASURES.values()],
        (lambda: gini(X.to(torch.complex64)), TypeError, "x must be .* got torch.complex64"),
        (lambda: renyi_entropy([1.0]), TypeError, "p must be .* got <class 'list'>"),
        (lambda: effective_number(X.int()), TypeError, "p must be .* got torch.int32"),
        (lambda: power_mean(X.int(), 1.0), TypeError, "x must be .* got torch.int32"),
        (lambda: power_mean(X, "2"), TypeError, "p must be a number, got '2'"),
        (lambda: power_mean(X, nan), ValueError, "p must be a number, got nan"),
        (lambda: norm_ratio(X, 2.0, 2.0), ValueError, "q and p must satisfy 0 < q < p <= inf, got q = 2.0, p = 2.0"),
        (lambda: norm_ratio(X, 3.0, 2.0), ValueError, "0 < q < p"),
        (lambda: norm_ratio(X, 0.0), ValueError, "0 < q < p"),
        (lambda: norm_ratio(X, -1.0), ValueError, "0 < q < p"),
        (lambda: norm_ratio(X, 1.0, nan), ValueError, "p must be a number, got nan"),
        (lambda: norm_ratio(X, True), TypeError, "q must be a number, got True"),
        (lambda: norm_ratio(X, inf, inf), ValueError, "0 < q < p"),
        (lambda: renyi_entropy(X, -0.1), ValueError, "alpha must be at least 0, got -0.1"),
        (lambda: renyi_entropy(X, nan), ValueError, "alpha must be a number, got nan"),
        (lambda: norm_ratio(X[:, :0]), ValueError, "is empty"),
        (lambda: gini(torch.zeros(0)), ValueError, "is empty"),
        (lambda: renyi_entropy(X[:0], dim=None), ValueError, "is empty"),
        (lambda: hoyer(X, 2), ValueError, "dim must name different dimensions of 2, got 2"),
        (lambda: theil(X, (0, -2)), ValueError, "dim must name different dimensions"),
        (lambda: theil(X, 1.0), TypeError, "dim must be an int, a tuple of int or None, got 1.0"),
        (lambda: SparsityMeter(2.0, 1.0), ValueError, "0 < q < p"),
        (lambda: SparsityMeter().update(X.int()), TypeError, "x must be .* got torch.int32"),
        (lambda: SparsityMeter(per_feature=True).update(X[0, 0]), ValueError, "last dimension of features"),
        (lambda: SparsityMeter().merge(SparsityMeter(0.5)), ValueError, "same .q, p, per_feature."),
        (lambda: SparsityMeter().merge(X), TypeError, "other must be a SparsityMeter"),
        (lambda: check_axioms(gini, trials=0), ValueError, "trials must be at least 1, got 0"),
        (lambda: check_axioms(gini, n=2), ValueError, "n must be at least 3, got 2"),
        (lambda: check_axioms(lambda x: x), ValueError, "measure must map"),
        (lambda: check_axioms(lambda x: x.mean(-1) * nan), ValueError, "measure is NaN at"),
    ],
)
def test_bad_input(call, error, message: str):
    with as_users_call(), pytest.raises(error, match=message):
        call()


def test_meter_refuses_another_number_of_features():
    meter = SparsityMeter(per_feature=True)
    meter.update(X)
    with pytest.raises(ValueError, match="3 features as before, got 2"):
        meter.update(X[:, :2])
