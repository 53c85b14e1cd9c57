"""The six axioms, exact counterexamples and majorisation."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from distributions.sparsity.random_vectors import inf, normal, tensor
from scipy import stats
from torch import Tensor

from kexue_lib.distributions.sparsity import check_axioms, gini, hoyer, norm_ratio, renyi_entropy, theil


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
    "Hoyer": (hoyer, True, {"D4", "P2"}),  # P2 at a single nonzero entry: 1 for every n
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
