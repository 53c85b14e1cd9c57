"""scaling_law, theory and fits: 30-digit zeta functions, Monte Carlo, SciPy's optimizers, planted constants."""

from __future__ import annotations

import math
import re
import warnings

import mpmath
import numpy as np
import pytest
import torch
from opinfo import as_users_call
from scipy import optimize, stats

from kexue_lib.optimization import scaling_law as sl

REFIT = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def runs(m: int, seed: int, noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Runs spread over three decades of N and D, with normal noise on log L."""
    draw = lambda: torch.rand(m, dtype=torch.float64, generator=generator)
    generator = seeded(seed)
    N, D = 10 ** (7 + 3 * draw()), 10 ** (8.5 + 3 * draw())
    error = torch.randn(m, dtype=torch.float64, generator=generator)
    return N, D, sl.chinchilla_loss(N, D, **REFIT) * (noise * error).exp()


# --- the quantum model ------------------------------------------------------------------------------------------------


def test_frequencies_are_a_normalised_power():
    p = sl.zipf_frequencies(50, 0.7)
    assert p.sum().item() == pytest.approx(1, rel=1e-14)
    ks = np.arange(1, 51)
    np.testing.assert_allclose(np.diff(np.log(p.numpy())) / np.diff(np.log(ks)), -1.7, rtol=1e-10)


@pytest.mark.parametrize("gamma", [0.083, 0.4, 1.0, 3.0])
@pytest.mark.parametrize("n", [0, 1, 10, 1000, 10**6])
def test_tail_agrees_with_the_hurwitz_zeta_function(n, gamma):
    with mpmath.workdps(30):
        expected = mpmath.zeta(gamma + 1, n + 1) / mpmath.zeta(gamma + 1)
    assert sl.zipf_tail(n, gamma).item() == pytest.approx(float(expected), rel=1e-12)


def test_loss_is_the_share_of_what_is_not_learned():
    k = np.arange(1, 11)
    learned = stats.zipf.pmf(k, 1.5).sum()
    assert sl.quantized_loss(10, 0.5, a=2.0, b=5.0).item() == pytest.approx(2 * learned + 5 * (1 - learned), rel=1e-10)


def test_integral_is_an_upper_bound_and_the_midpoint_is_of_second_order():
    n = torch.tensor([10.0, 100.0, 1000.0], dtype=torch.float64)
    exact = sl.quantized_loss(n, 0.4)
    error = sl.quantized_loss_asymptotic(n, 0.4) / exact - 1
    np.testing.assert_allclose(error * n, 0.4 / 2, rtol=0.04)
    middle = (sl.quantized_loss_asymptotic(n, 0.4, midpoint=True) / exact - 1).abs()
    np.testing.assert_allclose(middle[:-1] / middle[1:], 100, rtol=0.12)


def test_learned_quanta_meet_the_threshold():
    n = sl.learned_quanta(3e5, 0.6, kind="data", tau=7.0)
    p = n.item() ** -1.6 / float(mpmath.zeta(1.6))
    assert 3e5 * p == pytest.approx(7.0, rel=1e-12)
    assert sl.learned_quanta(3e3, 0.6, kind="steps", tau=7.0, batch_size=100) == n
    assert sl.learned_quanta(300, 0.6, kind="parameters", capacity=5).item() == 60


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_predicted_exponents_are_slopes_of_the_exact_loss(gamma):
    predicted = sl.predicted_exponents(gamma)
    resource = torch.tensor([1e7, 1e8], dtype=torch.float64)
    for kind in ("parameters", "data", "steps"):
        loss = sl.quantized_loss(sl.learned_quanta(resource, gamma, kind=kind), gamma).log10()
        assert (loss[0] - loss[1]).item() == pytest.approx(predicted[kind], rel=2e-3)
    least = [
        optimize.minimize_scalar(
            lambda z, c=c: math.exp(-gamma * z) + math.exp(-(math.log(c) - z) * gamma / (gamma + 1)),
            bounds=(0, math.log(c)),
            options={"xatol": 1e-10},
        ).fun
        for c in (1e10, 1e12)
    ]
    assert math.log(least[0] / least[1], 100) == pytest.approx(predicted["compute"], rel=1e-6)


@pytest.mark.parametrize("tau", [1, 3])
def test_expected_loss_agrees_with_drawing_counts(tau):
    p = sl.zipf_frequencies(40, 0.5)
    counts = np.random.default_rng(0).poisson(50 * p.numpy(), size=(40_000, 40))
    lost = ((counts < tau) * p.numpy()).sum(1)
    expected = sl.expected_loss(50, p, tau, a=1.0, b=3.0).item()
    assert abs(1 + 2 * lost.mean() - expected) < 4 * 2 * lost.std() / 200


def test_expected_loss_is_the_same_in_blocks():
    p = sl.zipf_frequencies(1_500_000, 0.5)
    D = torch.tensor([10.0, 1e4], dtype=torch.float64)
    direct = (p * torch.exp(-D[:, None] * p)).sum(1)
    torch.testing.assert_close(sl.expected_loss(D, p, 1), direct, rtol=1e-10, atol=0)


def test_expected_loss_has_the_derivatives_of_its_terms():
    D, p = torch.tensor([5.0, 20.0], dtype=torch.float64), sl.zipf_frequencies(6, 0.5)
    weigh = lambda D, p: sl.expected_loss(D, p, 3, a=0.5, b=2.0)
    assert torch.autograd.gradcheck(weigh, (D.requires_grad_(), p.requires_grad_()))


# --- fits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("coef", "exponent", "offset"), [(3.0, 0.7, 0.5), (20.0, 0.095, 1.0), (1e6, 2.0, 1e-3)])
def test_noise_free_power_law_is_recovered(coef, exponent, offset):
    x = torch.logspace(0, 5, 12, dtype=torch.float64)
    fit = sl.fit_power_law(x, offset + coef * x**-exponent)
    assert (fit.coef, fit.exponent, fit.offset) == pytest.approx((coef, exponent, offset), rel=1e-4)
    assert fit.stderr.isnan().all()
    assert fit.ci.isnan().all()


def test_pure_power_is_recovered_with_and_without_offset():
    x = torch.logspace(0, 5, 12, dtype=torch.float64)
    for offset in (True, False):
        fit = sl.fit_power_law(x, 2 * x**-0.3, offset=offset)
        assert (fit.coef, fit.exponent) == pytest.approx((2.0, 0.3), abs=1e-3)
        assert fit.offset < 1e-3


def test_one_outlier_does_not_move_the_exponent():
    x = torch.logspace(0, 3, 12, dtype=torch.float64)
    y = 0.5 + 3 * x**-0.5
    y[4] *= 3
    assert abs(sl.fit_power_law(x, y).exponent - 0.5) < 5e-3


def test_least_squares_limit_agrees_with_scipy():
    x = torch.logspace(0, 4, 20, dtype=torch.float64)
    y = (1 + 4 * x**-0.6) * (0.02 * torch.randn(20, generator=seeded(0), dtype=torch.float64)).exp()
    model = lambda z, c, s, e: np.log(e + c * np.exp(-s * z))
    best, _ = optimize.curve_fit(model, x.log().numpy(), y.log().numpy(), p0=(1, 1, 0.5), xtol=1e-12, ftol=1e-12)
    fit = sl.fit_power_law(x, y, delta=1e3)
    assert (fit.coef, fit.exponent, fit.offset) == pytest.approx(tuple(best), rel=1e-5)


def huber_sum(theta, N, D, L, delta):
    """The objective of a Chinchilla fit, plainly."""
    e, a, b, alpha, beta = theta
    size = np.abs(np.log(math.exp(e) + math.exp(a) * N**-alpha + math.exp(b) * D**-beta) - np.log(L))
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).sum()


@pytest.mark.parametrize("seed", [0, 1])
def test_no_search_of_scipy_finds_a_better_chinchilla_fit(seed):
    N, D, L = runs(60, seed, 0.01)
    fit = sl.fit_chinchilla(N, D, L)
    at = (math.log(fit.E), math.log(fit.A), math.log(fit.B), fit.alpha, fit.beta)
    data = (N.numpy(), D.numpy(), L.numpy(), 1e-3)
    assert huber_sum(at, *data) == pytest.approx(fit.loss, rel=1e-9)
    random = np.random.default_rng(seed)
    for start in [at, *(at + random.normal(0, 0.1, (4, 5)))]:
        options = {"maxiter": 6000, "maxfev": 6000, "xatol": 1e-9, "fatol": 1e-14}
        found = optimize.minimize(huber_sum, start, data, method="Nelder-Mead", options=options).fun
        assert found >= fit.loss * (1 - 1e-7)


def test_noise_free_chinchilla_constants_are_recovered():
    fit = sl.fit_chinchilla(*runs(30, 0, 0.0))
    assert fit[:5] == pytest.approx(tuple(REFIT.values()), rel=1e-4)


def test_resamples_are_fitted_as_well_as_alone():
    N, D, L = runs(50, 3, 0.01)
    fit = sl.fit_chinchilla(N, D, L, n_bootstrap=5, generator=seeded(7))
    drawn = torch.randint(50, (5, 50), generator=seeded(7))
    for rows, sample in zip(drawn, fit.samples):
        alone = sl.fit_chinchilla(N[rows], D[rows], L[rows])
        assert sample.tolist() == pytest.approx(alone[:5], rel=1e-3)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    hits, trials, x = 0, 60, torch.logspace(0, 3, 40, dtype=torch.float64)
    for seed in range(trials):
        noise = 0.02 * torch.randn(40, generator=seeded(seed), dtype=torch.float64)
        fit = sl.fit_power_law(
            x, (1 + 3 * x**-0.5) * noise.exp(), delta=1.0, n_bootstrap=200, level=0.9, generator=seeded(seed)
        )
        hits += int(fit.ci[1, 0] <= 0.5 <= fit.ci[1, 1])
    # Percentile intervals of 40 points are a little too narrow: 0.8 is within three standard errors of what is seen.
    assert 0.75 * trials <= hits <= 0.99 * trials


def test_published_chinchilla_constants_do_not_give_twenty_tokens_a_parameter():
    C = 5.76e23
    N, D, _ = sl.compute_optimal(C, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    assert (N.item(), D.item()) == pytest.approx((3.22e10, 2.98e12), rel=2e-3)
    N, D, L = sl.compute_optimal(C, **REFIT)
    loss = lambda z: float(sl.chinchilla_loss(torch.tensor(math.exp(z)), torch.tensor(C / 6 / math.exp(z)), **REFIT))
    least = optimize.minimize_scalar(loss, bounds=(15, 35), method="bounded", options={"xatol": 1e-9})
    assert (math.log(N), L.item()) == pytest.approx((least.x, least.fun), rel=1e-5)


def test_kaplan_loss_has_the_two_power_laws_as_limits():
    N, infinite = torch.tensor([1e6, 1e9], dtype=torch.float64), torch.tensor(math.inf)
    torch.testing.assert_close(sl.kaplan_loss(N, infinite), (8.8e13 / N) ** 0.076)
    torch.testing.assert_close(sl.kaplan_loss(infinite, N), (5.4e13 / N) ** 0.095)


@pytest.mark.parametrize("power", [1.0, -1.0, 0.5])
def test_runs_on_a_line_are_refused_because_their_terms_can_be_exchanged(power):
    N = torch.logspace(7, 10, 60, dtype=torch.float64)
    D = 1e6 * N**power
    one = {"E": 1.8, "A": 480.0, "B": 2000.0, "alpha": 0.35, "beta": 0.36}
    other = {"E": 1.8, "A": 2000.0 * 1e6**-0.36, "B": 480.0 * 1e6 ** (0.35 / power)}
    other |= {"alpha": 0.36 * power, "beta": 0.35 / power}
    L = sl.chinchilla_loss(N, D, **one)
    torch.testing.assert_close(L, sl.chinchilla_loss(N, D, **other), rtol=1e-13, atol=0)
    with as_users_call(), pytest.raises(ValueError, match=f"D: got a constant times N\\^{power:g} in all runs"):
        sl.fit_chinchilla(N, D, L)


@pytest.mark.parametrize("fixed", ["N", "D"])
def test_a_resource_that_never_varies_is_refused(fixed):
    N = torch.logspace(7, 10, 60, dtype=torch.float64)
    columns = {"N": N, "D": N, fixed: torch.full_like(N, 1e9)}
    with as_users_call(), pytest.raises(ValueError, match=f"{fixed}: got the same value"):
        sl.fit_chinchilla(*columns.values(), N)


def test_runs_close_to_a_line_are_warned_of():
    N = torch.logspace(7, 10, 60, dtype=torch.float64)
    scatter, noise = torch.randn(2, 60, dtype=torch.float64, generator=seeded(0))
    D = 20 * N * (0.01 * scatter).exp()
    with pytest.warns(UserWarning, match="(alpha|beta): the points do not identify it"):
        sl.fit_chinchilla(N, D, sl.chinchilla_loss(N, D, **REFIT) * (0.01 * noise).exp())


def test_a_range_too_short_for_the_offset_is_warned_of():
    noise = 0.01 * torch.randn(12, dtype=torch.float64, generator=seeded(0))
    law = lambda x: (1 + 3 * x**-0.5) * noise.exp()
    with pytest.warns(UserWarning, match="exponent: the points do not identify it"):
        sl.fit_power_law(short := torch.logspace(0, 0.2, 12, dtype=torch.float64), law(short))
    with pytest.warns(UserWarning, match="exponent: the points do not identify it"):
        sl.fit_power_law(short, torch.full_like(short, 2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sl.fit_power_law(wide := torch.logspace(0, 3, 12, dtype=torch.float64), law(wide))


def test_standard_error_behind_the_warning_is_that_of_least_squares():
    x = torch.logspace(0, 0.4, 20, dtype=torch.float64)
    y = (1 + 4 * x**-0.6) * (0.02 * torch.randn(20, generator=seeded(1), dtype=torch.float64)).exp()
    model = lambda z, c, s, e: np.log(e + c * np.exp(-s * z))
    best, covariance = optimize.curve_fit(model, x.log().numpy(), y.log().numpy(), p0=(4, 0.6, 1), maxfev=100_000)
    with pytest.warns(UserWarning, match="exponent") as caught:
        sl.fit_power_law(x, y, delta=1e3)
    numbers = re.search(r"\((\S+) with a standard error of (\S+)\)", str(caught[0].message)).groups()
    assert [float(v) for v in numbers] == pytest.approx([best[1], covariance[1, 1] ** 0.5], rel=0.06)


TWELVE = torch.arange(1.0, 13.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sl.zipf_frequencies(0, 1.0), ValueError, "n: got 0"),
        (lambda: sl.zipf_frequencies(3, 0.0), ValueError, "gamma: got 0.0"),
        (lambda: sl.zipf_tail(-1, 1.0), ValueError, "n: got -1"),
        (lambda: sl.predicted_exponents(-1.0), ValueError, "gamma: got -1.0"),
        (lambda: sl.learned_quanta(1.0, 1.0, kind="time"), ValueError, "kind: got 'time'"),
        (lambda: sl.fit_power_law(TWELVE, -TWELVE), ValueError, "y: got -1.0"),
        (lambda: sl.fit_power_law(TWELVE, TWELVE[:5]), ValueError, "y: got shape"),
        (lambda: sl.fit_power_law(TWELVE[:3], TWELVE[:3]), ValueError, "x: got 3 points"),
        (lambda: sl.fit_power_law(torch.ones(9), TWELVE[:9]), ValueError, "x: got 1 different"),
        (lambda: sl.fit_power_law(TWELVE, TWELVE, level=1.0), ValueError, "level: got 1.0"),
        (lambda: sl.fit_chinchilla(TWELVE[:5], TWELVE[:5], TWELVE[:5]), ValueError, "N: got 5 points"),
        (
            lambda: sl.compute_optimal(1e20, A=1, B=1, alpha=torch.tensor([0.3, -0.016]), beta=1),
            ValueError,
            "alpha: got -0.016, expected above 0 everywhere: no split is best",
        ),
        (lambda: sl.compute_optimal(0, A=1, B=1, alpha=1, beta=1), ValueError, "C: got 0"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, error, message):
    with as_users_call(), pytest.raises(error, match=message):
        call()
