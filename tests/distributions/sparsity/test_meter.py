"""Measures of a stream against those of the whole."""

from __future__ import annotations

import pytest
import torch
from distributions.sparsity.random_vectors import X, inf, normal

from kexue_lib.distributions.sparsity import SparsityMeter, norm_ratio


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


def test_meter_refuses_another_number_of_features():
    meter = SparsityMeter(per_feature=True)
    meter.update(X)
    with pytest.raises(ValueError, match="got 2 features, expected 3 as before"):
        meter.update(X[:, :2])
