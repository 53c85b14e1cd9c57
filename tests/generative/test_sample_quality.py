"""Distances between samples: against SciPy, POT, mpmath-free closed forms and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from opinfo import as_users_call

from kexue_lib.generative.sample_quality import energy_distance, frechet_distance, modes_found


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_in_one_dimension_it_is_the_square_of_scipys():
    x, y = draw(200, 1), 0.5 * draw(150, 1, seed=1) + 1
    theirs = scipy.stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert energy_distance(x, y).item() == pytest.approx(theirs**2, rel=1e-10)


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 1000])
def test_energy_distance_is_the_loop_over_pairs(chunk_size):
    x, y = draw(40, 3), draw(30, 3, seed=1) + 0.3

    def mean(a, b):
        return np.mean([math.dist(p, q) for p in a.tolist() for q in b.tolist()])

    expected = 2 * mean(x, y) - mean(x, x) - mean(y, y)
    assert energy_distance(x, y, chunk_size=chunk_size).item() == pytest.approx(expected, rel=1e-12)


def test_samples_of_one_law_have_the_floor_of_the_docstring():
    """E of the value is (1/n + 1/m) E|x − x'|; for N(0, I₂) E|x − x'| = √π."""
    values = [energy_distance(draw(100, 2, seed=2 * i), draw(50, 2, seed=2 * i + 1)).item() for i in range(400)]
    floor = (1 / 100 + 1 / 50) * math.sqrt(math.pi)
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values) - floor) < 4 * error < 0.15 * floor


def test_far_from_the_origin_small_distances_keep_their_digits():
    x, y = draw(50, 2), draw(50, 2, seed=1)
    near, far = energy_distance(x.float(), y.float()), energy_distance((x + 4096).float(), (y + 4096).float())
    assert far.item() == pytest.approx(near.item(), rel=0.02)  # coordinates near 4096 are spaced by 1/2048


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_low_precision_only_rounds_the_result(dtype):
    x, y = draw(60, 2).to(dtype), draw(60, 2, seed=1).to(dtype) + 1
    got = energy_distance(x, y)
    assert got.dtype == dtype
    assert got.item() == pytest.approx(energy_distance(x.double(), y.double()).item(), rel=torch.finfo(dtype).eps * 4)


def test_energy_distance_has_gradients():
    x, y = draw(5, 2).requires_grad_(), draw(6, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: energy_distance(x, y), x)
    assert energy_distance(y.requires_grad_(), y).backward() is None
    assert torch.isfinite(y.grad).all()


def test_frechet_distance_is_scipys_formula_and_pots():
    ot = pytest.importorskip("ot")
    x, y = draw(300, 4) @ draw(4, 4, seed=5), draw(200, 4, seed=1) @ draw(4, 4, seed=6) + 0.5
    m, n = x.mean(0).numpy(), y.mean(0).numpy()
    c, k = np.cov(x.numpy().T), np.cov(y.numpy().T)
    expected = ((m - n) ** 2).sum() + np.trace(c + k - 2 * scipy.linalg.sqrtm(c @ k).real)
    got = frechet_distance(x, y).item()
    assert got == pytest.approx(expected, rel=1e-9)
    assert got == pytest.approx(ot.gaussian.bures_wasserstein_distance(m, n, c, k) ** 2, rel=1e-6)


def test_frechet_distance_of_singular_covariances():
    """Points on two perpendicular lines: C C' = 0, so the distance is the sum of the variances."""
    line = draw(50, 1)
    x, y = torch.cat([line, 0 * line], 1), torch.cat([0 * line, line], 1)
    x, y = x - x.mean(0), y - y.mean(0)
    assert frechet_distance(x, y).item() == pytest.approx(2 * line.var().item(), rel=1e-7)
    assert frechet_distance(x, x).item() == pytest.approx(0, abs=1e-14)


def test_modes_found_counts_shares_not_points():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    x = torch.cat([centres[0].expand(97, 2), centres[1].expand(2, 2), centres[2].expand(1, 2)])
    assert modes_found(x, centres, radius=0.5) == 2
    assert modes_found(x, centres, radius=0.5, min_fraction=0.01) == 3
    assert modes_found(x + 0.4, centres, radius=0.5) == 0  # 0.4 √2 > 0.5: outside every radius
    assert modes_found(x + 0.3, centres, radius=0.5) == 2


def test_bad_input_is_refused_by_name():
    x = torch.randn(4, 2)
    with as_users_call():
        with pytest.raises(ValueError, match=r"x, y: got shapes \(4, 2\) and \(3, 3\)"):
            energy_distance(x, torch.randn(3, 3))
        with pytest.raises(ValueError, match=r"y: got shape \(0, 2\)"):
            energy_distance(x, x[:0])
        with pytest.raises(ValueError, match=r"x: got shape \(1, 2\), expected \(n, d\) with n at least 2"):
            frechet_distance(x[:1], x)
        with pytest.raises(TypeError, match=r"x: got torch.int64"):
            frechet_distance(torch.ones(3, 2, dtype=torch.int64), x)
        with pytest.raises(ValueError, match="radius: got 0"):
            modes_found(x, x, radius=0)
        with pytest.raises(ValueError, match="min_fraction"):
            modes_found(x, x, radius=1.0, min_fraction=0)
        with pytest.raises(ValueError, match="centres: got shape"):
            modes_found(x, x[:0], radius=1.0)
        with pytest.raises(ValueError, match="chunk_size"):
            energy_distance(x, x, chunk_size=0)
