"""The stored runs of monarch: a sample of them, run again, and what the page says of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kexue_lib.checkpoints import load
from kexue_lib.checkpoints.matrices import monarch as runs
from kexue_lib.matrices.rotated_digits import pretrained

STORED, _ = load("matrices/monarch")


def test_errors_of_random_matrices_are_the_stored_ones():
    monarch, low_rank, gain = STORED["densities"]["0.05"]
    draws = torch.tensor([runs.errors(runs.masked(256, 0.05, seed)) for seed in range(10)])
    for mean, (stored, se) in zip(draws.mean(0), (monarch, low_rank)):
        assert abs(mean.item() - stored) < 4 * se * 2  # 10 draws of 40
    assert gain[0] == pytest.approx(low_rank[0] - monarch[0], abs=1e-4)


def test_errors_are_those_of_numpy():
    A = runs.masked(16, 0.5, 3)
    slices = A.numpy().reshape(4, 4, 4, 4)
    tails = [np.linalg.svd(slices[:, j, k], compute_uv=False)[1:] for j in range(4) for k in range(4)]
    low = np.linalg.svd(A.numpy(), compute_uv=False)[4:]
    total = np.sum(A.numpy() ** 2)
    expected = [np.sum(np.square(tails)) / total, np.sum(low**2) / total]
    np.testing.assert_allclose(runs.errors(A), expected, rtol=1e-10)


@pytest.mark.parametrize("kind", ["Monarch", "low rank 16"])
def test_conversion_is_the_stored_one(kind: str):
    actual = runs.converted(pretrained(), kind, runs.RATES[2], 0)
    stored = STORED["converted"][kind][2][0]
    assert actual[0] == pytest.approx(stored[0], abs=0.01)
    for a, s in ((actual[1], stored[1]), (actual[3], stored[3])):
        assert abs(a - s) <= 0.03  # another machine's rounding flips a few of 797 images


def test_every_rate_and_seed_is_stored_and_parameters_are_equal():
    assert all(np.shape(v) == (len(runs.RATES), len(runs.SEEDS), 5) for v in STORED["converted"].values())
    shape = (len(runs.SCRATCH_RATES), len(runs.SEEDS), 3)
    assert all(np.shape(v) == shape for v in STORED["scratch"].values())
    counts = {kind: v[0][0][0] for kind, v in STORED["scratch"].items()}
    assert counts["Monarch"] == counts["low rank 16"]
    assert counts["dense, narrow"] == pytest.approx(counts["Monarch"], rel=0.01)
