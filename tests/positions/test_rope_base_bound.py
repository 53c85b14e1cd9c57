"""The bound on RoPE's base: by direct cosines, interval arithmetic, 40 digits, and grids that must not know better."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from kexue_lib.checkpoints import load
from kexue_lib.positions import rope_base_bound as bound
from kexue_lib.positions.rope import apply_rotary, cos_sin, inverse_frequencies


def direct(m, base, dim, turning=None):
    """The definition in NumPy."""
    turning = turning or dim
    speeds = base ** (-np.arange(0, turning, 2) / turning)
    return np.cos(np.asarray(m, dtype=float)[..., None] * speeds).sum(-1) + (dim - turning) / 2


def precise(m, base, dim):
    """The definition with the working precision of mpmath."""
    return mpmath.fsum(mpmath.cos(m * mpmath.mpf(base) ** (-mpmath.mpf(2 * i) / dim)) for i in range(dim // 2))


# --- the gap ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "turning"), [(2, 2), (8, 8), (64, 48), (128, 128)])
def test_gap_is_the_sum_of_cosines(dim, turning):
    m = torch.tensor([0.0, 0.5, 1.0, 17.0, 4000.0])
    for base in (1.0, 50.0, 1e4, 1e9):
        ours = bound.similarity_gap(m, base, dim, rotary_dim=turning)
        np.testing.assert_allclose(ours.numpy(), direct(m.numpy(), base, dim, turning), atol=1e-10)


def test_gap_broadcasts_bases_and_distances():
    m, bases = torch.arange(5), torch.tensor([[10.0], [1e4]], dtype=torch.float64)
    ours = bound.similarity_gap(m, bases, 16)
    assert ours.shape == (2, 5)
    np.testing.assert_allclose(ours[1].numpy(), direct(np.arange(5), 1e4, 16), atol=1e-13)


def test_gap_is_the_mean_score_difference_of_a_rotated_pair():
    """2σ²f is the trace of the rotation times σ²; the trace is read off the library's own rotary module."""
    dim, base = 16, 300.0
    cos, sin = cos_sin(torch.tensor([[37]]), inverse_frequencies(dim, base), dtype=torch.float64)
    rotated = apply_rotary(torch.eye(dim, dtype=torch.float64).unsqueeze(1), cos, sin)
    trace = rotated.squeeze(1).diagonal().sum().item()
    assert trace == pytest.approx(2 * bound.similarity_gap(torch.tensor(37), base, dim).item(), abs=1e-12)


@pytest.mark.parametrize("length", [1, 2, 3, 1000, 4097])
@pytest.mark.parametrize("turning", [None, 10])
def test_range_agrees_with_direct_cosines(length, turning):
    ours = bound.similarity_gap_range(777.0, 32, length, rotary_dim=turning)
    np.testing.assert_allclose(ours.numpy(), direct(np.arange(length), 777.0, 32, turning), atol=1e-11)


def test_range_error_at_a_million_positions_is_below_its_bound():
    ours = bound.similarity_gap_range(6e7, 128, 2**20)
    with mpmath.workdps(30):
        for m in (2**20 - 1, 2**20 - 1023, 999_983, 524_287):
            assert abs(ours[m].item() - float(precise(m, 6e7, 128))) < 1e-9


@pytest.mark.parametrize(("base", "dim"), [(1.0, 4), (100.0, 32), (1e4, 128), (1e4, 64), (5e5, 64), (1e6, 64)])
def test_context_length_is_the_first_negative_gap(base, dim):
    negative = np.flatnonzero(direct(np.arange(12000), base, dim) < 0)
    assert bound.max_context_length(base, dim) == negative[0]
    assert bound.max_context_length(base, dim, limit=int(negative[0])) is None


def test_half_rotation_has_no_bound():
    assert bound.max_context_length(1.0, 64, rotary_dim=32, limit=5000) is None
    assert bound.min_base(5000, 64, rotary_dim=32) == bound.MinBase(1.0, 5000, 64, None)


# --- the least base ---------------------------------------------------------------------------------------------------


def test_smallest_cases_are_roots_of_one_equation():
    assert bound.min_base(2, 4) == bound.MinBase(1.0, 2, 4, None)
    root = brentq(lambda b: math.cos(2) + math.cos(2 / math.sqrt(b)), 2, 5, xtol=1e-14)
    found = bound.min_base(3, 4)
    assert found.base == pytest.approx(root, rel=1e-10)
    assert found.binding == 2


def test_one_pair_has_no_feasible_base():
    assert bound.min_base(2, 2).base == 1.0
    assert bound.min_base(3, 2) == bound.MinBase(math.inf, 3, 2, None)
    assert bound.min_base(3, 4, rotary_dim=2) == bound.MinBase(1.0, 3, 4, None)


@pytest.mark.parametrize(("length", "dim"), [(5, 4), (20, 6), (64, 32), (100, 16), (200, 128)])
def test_no_point_of_a_fine_grid_below_is_feasible(length, dim):
    """A grid of 5000 bases finds nothing below; the result is feasible and zero at its binding distance."""
    base, _, _, binding = bound.min_base(length, dim)
    grid = np.exp(np.linspace(0, math.log(base) - 1e-9, 5_000))
    feasible = np.ones(len(grid), dtype=bool)
    for m in range(1, length):
        feasible &= _row(m, grid, dim) >= 0
    assert not feasible.any()
    assert direct(np.arange(length), base, dim).min() >= -1e-8
    assert abs(direct(binding, base, dim)) < 1e-6


@pytest.mark.parametrize(("length", "dim"), [(16, 8), (64, 32), (100, 64)])
def test_certificate_by_interval_arithmetic(length, dim):
    """Outward-rounded intervals over each step, subdivided until they decide, never meet a gap that is not negative."""
    (result,), exclusion = bound.certified_min_bases([length], dim)
    reached = 0.0
    for m, low, width, cells in zip(*(x.tolist() for x in exclusion[:4])):
        assert 0 <= low - reached <= 1e-10
        reached = low + cells * width
        assert 0 < m < length
        _exclude(m, low, reached, dim)
    assert abs(reached - math.log(result.base)) < 1e-10


def test_certificate_of_all_lengths_to_a_million():
    """Shipped steps: contiguous from base 1, distances below their length, each cell negative by the chord bound."""
    content, made_with = load("positions/rope_base_bound_certificate")
    distance, low, width, cells = (content[k].double().numpy() for k in ("distance", "low", "width", "cells"))
    end = low + cells * width
    assert low[0] == 0
    assert ((low[1:] - end[:-1] <= 1e-10) & (low[1:] >= end[:-1])).all()
    for length, base in zip(content["length"].tolist(), content["base"].tolist()):
        below = low < math.log(base) - 1e-10
        assert distance[below].max() < length
        assert abs(end[below][-1] - math.log(base)) < 1e-10
    s = np.arange(64) / 64
    phases = distance[:, None] * np.exp(-low[:, None] * s)
    sag = (s**2 * (phases + phases**2)).sum(1) * width**2 / 8
    for n in range(int(cells.max()) + 1):
        u = low + width * np.minimum(n, cells)
        gaps = np.cos(distance[:, None] * np.exp(-u[:, None] * s)).sum(1)
        assert (gaps + sag < 0).all()
    assert made_with["dim"] == 128


@pytest.mark.parametrize("row", range(11))
def test_bases_to_a_million_cross_zero_at_40_digits(row):
    """At the binding distance the gap is negative at b(1 − 10⁻¹⁰) and positive at b(1 + 10⁻¹⁰); nothing else binds."""
    content, _ = load("positions/rope_base_bound_certificate")
    length, base, binding = (content[k][row].item() for k in ("length", "base", "binding"))
    with mpmath.workdps(40):
        below, above = (precise(binding, mpmath.mpf(base) * (1 + sign * mpmath.mpf("1e-10")), 128) for sign in (-1, 1))
    assert below < 0 < above
    gaps = bound.similarity_gap_range(base, 128, length)
    gaps[binding] = torch.inf
    assert gaps.min() > 0.01


def test_a_thousand_times_the_length_does_not_always_serve():
    """At 40 digits the gap at 465807 is negative for the base 1000 · 470622."""
    assert bound.max_context_length(470_622_000.0, 128) == 465_807
    with mpmath.workdps(40):
        assert precise(465_807, 470_622_000, 128) < -0.3


@pytest.mark.parametrize("dim", [4, 6, 8, 10])
def test_context_length_of_a_short_head_stays_below_pi_roots_of_the_base(dim):
    for base in (1e8, 1e10, 1e12):
        assert bound.max_context_length(base, dim) < math.pi * math.sqrt(base)


def test_recomputed_bases_equal_the_shipped_ones():
    content, _ = load("positions/rope_base_bound_certificate")
    lengths = [4096, 1024, 2048]
    for each in bound.min_bases(lengths):
        row = content["length"].tolist().index(each.length)
        assert each.base == pytest.approx(content["base"][row].item(), rel=1e-10)
        assert each.binding == content["binding"][row]
    assert [each.length for each in bound.min_bases(lengths)] == lengths
    assert bound.min_base(2048).base == pytest.approx(content["base"][1].item(), rel=1e-10)


def test_every_shipped_base_serves_its_length():
    """Also at half a million tokens, where the zero of the gap lies below the rounding of its angles."""
    content, _ = load("positions/rope_base_bound_certificate")
    for length, base in zip(content["length"].tolist(), content["base"].tolist(), strict=True):
        far = bound.max_context_length(base, 128, limit=length)
        assert far is None, (length, far)


def test_least_base_above_a_lower_end():
    assert bound.min_base(1024, lower=4300.0) == bound.MinBase(4300.0, 1024, 128, None)
    assert bound.min_base(1024, lower=4500.0).base == pytest.approx(5602.17856, rel=1e-8)


@pytest.mark.parametrize("dim", [8, 64])
def test_least_base_and_context_length_are_inverse(dim):
    for each in bound.min_bases([10, 50, 200], dim):
        assert bound.max_context_length(each.base * (1 + 1e-9), dim) >= each.length
        assert bound.max_context_length(each.base * (1 - 1e-6), dim) < each.length


# --- all feasible bases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "dim", "low", "high"), [(64, 32, 1.0, 2000.0), (200, 64, 100.0, 1e4), (1024, 128, 4000, 7000)]
)
def test_intervals_agree_with_a_grid(length, dim, low, high):
    intervals = bound.feasible_intervals(length, dim, low, high)
    grid = np.exp(np.linspace(math.log(low), math.log(high), 4001))
    worst = np.min([_row(m, grid, dim) for m in range(length)], axis=0)
    inside = np.zeros(len(grid), dtype=bool)
    for a, b in intervals:
        inside |= (grid >= a * (1 - 1e-9)) & (grid <= b * (1 + 1e-9))
    assert (inside == (worst >= 0))[np.abs(worst) > 1e-7].all()


def test_ends_of_intervals_are_roots_or_the_given_ends():
    intervals = bound.feasible_intervals(1024, 128, 3000, 1e6)
    assert len(intervals) == 3
    assert intervals[-1][1] == 1e6
    for end in [x for pair in intervals for x in pair][:-1]:
        assert abs(direct(np.arange(1024), end, 128).min()) < 1e-5
    assert bound.feasible_intervals(1024, 128, 3000, 4000) == []
    assert bound.feasible_intervals(2, 4, 1.0, 5.0) == [(1.0, 5.0)]


# --- what the gap is made of ------------------------------------------------------------------------------------------


def test_cosine_integral_at_30_digits():
    x = torch.logspace(-10, 6, 300, dtype=torch.float64)
    with mpmath.workdps(30):
        expected = [float(mpmath.ci(mpmath.mpf(v))) for v in x.tolist()]
    np.testing.assert_allclose(bound.cosine_integral(x).numpy(), expected, atol=1e-12)


def test_cosine_integral_outside_its_domain():
    values = bound.cosine_integral(torch.tensor([0.0, -1.0, torch.inf, torch.nan]))
    assert values[0] == -torch.inf
    assert values[1].isnan()
    assert values[3].isnan()
    assert values[2].abs() < 1e-15


@pytest.mark.parametrize(("dim", "base", "plain", "waves"), [(128, 1e6, 3.0, 0.05), (64, 5e5, 2.0, 0.05)])
def test_waves_explain_what_the_integral_leaves(dim, base, plain, waves):
    m = torch.randint(200, 200_000, (500,), generator=torch.Generator().manual_seed(3))
    rest = torch.from_numpy(direct(m.numpy(), base, dim)) - bound.smooth_gap(m, base, dim)
    assert rest.square().mean().sqrt() > plain
    assert (rest - bound.aliased_gap(m, base, dim)).square().mean().sqrt() < waves


def test_smooth_gap_at_distance_zero_and_without_its_correction():
    assert bound.smooth_gap(torch.tensor([0]), 100.0, 16).item() == 8
    with mpmath.workdps(30):
        integral = mpmath.quad(lambda s: mpmath.cos(5 * mpmath.mpf(100) ** (-s)), [0, 0.5, 1])
    ours = bound.smooth_gap(torch.tensor([5.0]), 100.0, 16, correction=False)
    assert ours.item() == pytest.approx(8 * float(integral), abs=1e-12)
    assert bound.aliased_gap(torch.empty(0), 100.0, 16).shape == (0,)


# --- bad input --------------------------------------------------------------------------------------------------------

ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bound.similarity_gap_range(10.0, 4, 0), ValueError, "length: got 0"),
        (lambda: bound.similarity_gap_range(10.0, 4, 2, rotary_dim=6), ValueError, "rotary_dim: got 6"),
        (lambda: bound.max_context_length(10.0, 4, rotary_dim=3), ValueError, "rotary_dim: got 3"),
        (lambda: bound.max_context_length(10.0, 4, limit=0), ValueError, "limit: got 0"),
        (lambda: bound.min_base(0), ValueError, "length: got 0"),
        (lambda: bound.min_base(True), TypeError, "length: got True"),
        (lambda: bound.min_base(4, lower=0.5), ValueError, "lower: got 0.5"),
        (lambda: bound.min_base(4, tol=-1.0), ValueError, "tol: got -1.0"),
        (lambda: bound.min_bases([4, 0]), ValueError, "lengths: got 0"),
        (lambda: bound.feasible_intervals(4, 4, 5.0, 5.0), ValueError, "high: got 5.0"),
        (lambda: bound.aliased_gap(ONE, 1.0, 4), ValueError, "base: got 1.0"),
    ],
)
def test_bad_input_names_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


def _row(m, grid, dim):
    """The gap at one distance for many bases."""
    return np.cos(m * grid[:, None] ** (-np.arange(0, dim, 2) / dim)).sum(1)


def _exclude(m, low, high, dim):
    """Prove by intervals that the gap at m is negative for all ln b from low to high; else fail."""
    iv, mpmath.iv.prec = mpmath.iv, 100
    pending = [(low, high)]
    while pending:
        a, b = pending.pop()
        u = iv.mpf([a, b])
        gap = sum((iv.cos(m * iv.exp(-u * iv.mpf(i) / (dim // 2))) for i in range(dim // 2)), iv.mpf(0))
        if gap.b < 0:
            continue
        assert b - a > 1e-15, f"undecided at distance {m}, ln b = {a}"
        pending += [(a, (a + b) / 2), ((a + b) / 2, b)]
