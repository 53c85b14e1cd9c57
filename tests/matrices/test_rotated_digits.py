"""rotated_digits: the same images turned, the same network at every call, and training that learns."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kexue_lib.data import digits
from kexue_lib.matrices.rotated_digits import fine_tune, pretrained, task
from tests.opinfo import as_users_call


def test_turned_images_are_numpys_rot90() -> None:
    upright, turned = task(rotated=False), task()
    for a, b in zip(upright, turned):
        expected = np.rot90(a.x.reshape(-1, 8, 8).numpy(), axes=(1, 2)).reshape(-1, 64)
        np.testing.assert_array_equal(b.x.numpy(), expected)
        assert torch.equal(a.y, b.y)
    assert torch.equal(upright[0].x, digits(test_size=797).x_train)


def test_the_network_knows_upright_digits_and_not_turned_ones() -> None:
    model, again = pretrained(64), pretrained(64)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters()))
    accuracy = {}
    for rotated in (False, True):
        _, test = task(rotated)
        accuracy[rotated] = (model(test.x).argmax(-1) == test.y).double().mean().item()
    assert accuracy[False] > 0.95
    assert accuracy[True] < 0.2


def test_fine_tuning_learns_and_touches_only_the_optimizers_parameters() -> None:
    model = pretrained(64)
    bias = model[0].bias.detach().clone()
    weights = [m.weight for m in model if isinstance(m, nn.Linear)]
    result = fine_tune(model, torch.optim.Adam(weights, lr=1e-2), generator=torch.Generator().manual_seed(1))
    assert result.losses.shape == (100,)
    assert result.train_loss < 0.3 < result.losses[0]
    train, test = task()
    with torch.no_grad():
        logits = model(train.x).double()
        expected = (logits.logsumexp(-1) - logits.gather(1, train.y[:, None]).squeeze(1)).mean().item()
        assert result.train_loss == pytest.approx(expected, rel=1e-5)
        assert result.test_accuracy == pytest.approx((model(test.x).argmax(-1) == test.y).double().mean().item())
    assert torch.equal(model[0].bias, bias)


def test_equal_generators_give_equal_runs() -> None:
    start = pretrained(32)
    losses = []
    for seed in (3, 3, 4):
        model = copy.deepcopy(start)
        sgd = lambda p: torch.optim.SGD(p, lr=0.1)
        losses.append(fine_tune(model, sgd, steps=5, generator=torch.Generator().manual_seed(seed)).losses)
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_bad_input() -> None:
    with as_users_call():
        with pytest.raises(ValueError, match="width: got 0"):
            pretrained(0)
        with pytest.raises(ValueError, match="batch_size: got 0"):
            fine_tune(nn.Linear(64, 10), lambda p: torch.optim.SGD(p, 0.1), batch_size=0)
        with pytest.raises(ValueError, match="steps: got -1"):
            fine_tune(nn.Linear(64, 10), lambda p: torch.optim.SGD(p, 0.1), steps=-1)
    with pytest.raises(FloatingPointError):
        fine_tune(pretrained(32), lambda p: torch.optim.SGD(p, 1e38), generator=torch.Generator().manual_seed(0))
