"""The stored runs of lora_gradient: a sample of them, run again."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.optim import SGD

from kexue_lib.checkpoints import load
from kexue_lib.checkpoints.matrices.lora_gradient import FORGETTING, RATES, SEEDS, TARGET, until
from kexue_lib.matrices.lora_gradient import RandomProjectionSGD


@pytest.mark.parametrize(("name", "rate"), [("SGD", 0.1), ("projection, rank 64", 0.1)])
def test_accuracy_left_at_the_target_is_the_stored_one(name, rate):
    rank = FORGETTING[name][0]
    directions = torch.Generator().manual_seed(1000)
    make = partial(RandomProjectionSGD, rank=rank, generator=directions) if rank else SGD
    old, steps = until(partial(make, lr=rate), 0)
    stored = load("matrices/lora_gradient")[0]["forgetting"][name][f"{rate:g}"]
    assert abs(old - stored[0][0]) <= 0.03  # another machine's rounding flips a few of 797 images
    assert abs(steps - stored[1][0]) <= 20


def test_every_rate_and_seed_is_stored():
    content, made_with = load("matrices/lora_gradient")
    assert made_with["target"] == TARGET
    for by_rate in content["table"].values():
        assert set(by_rate) == {f"{rate:g}" for rate in RATES}
        assert all(len(losses) == len(accuracies) == len(SEEDS) for losses, accuracies in by_rate.values())
    for name, (_, rates) in FORGETTING.items():
        assert list(content["forgetting"][name]) == [f"{rate:g}" for rate in rates]
