"""sgd_convergence: options of the optimizer, the schedule and the batch of runs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from kexue_lib.optimization import sgd_convergence as sgd


def test_warm_up_rises_to_the_first_rate_and_then_falls():
    optimizer = sgd.ProjectedSGD([nn.Parameter(torch.zeros(2))], lr=0.6)
    schedule, rates = sgd.InverseSqrtLR(optimizer, warmup_steps=2), []
    for _ in range(5):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.6 / math.sqrt(2), 0.6 / math.sqrt(3)], rel=1e-12)


def test_one_tensor_at_a_time_gives_the_same_bits():
    runs = []
    for foreach in (None, True, False):
        g = torch.Generator().manual_seed(0)
        params = [nn.Parameter(torch.randn(s, generator=g)) for s in ((3, 4), (5,))]
        optimizer = sgd.ProjectedSGD(params, lr=0.3, foreach=foreach, average="uniform")
        for _ in range(3):
            for p in params:
                p.grad = torch.randn(p.shape, generator=g)
            optimizer.step()
        runs.append([*params, *optimizer.averaged_parameters()])
    for other in runs[1:]:
        assert all(torch.equal(x, y) for x, y in zip(runs[0], other))


def test_generator_is_handed_to_the_gradients():
    def noisy(theta, t, generator):
        return theta.sum(-1), torch.randn(theta.shape, generator=generator, dtype=theta.dtype)

    ends = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(3)
        ends.append(sgd.online_gradient_descent(noisy, torch.zeros(2, 3), torch.ones(4), generator=generator).last)
    expected = -torch.stack(
        [torch.randn(2, 3, generator=g) for g in [torch.Generator().manual_seed(3)] for _ in range(4)]
    )
    assert torch.equal(*ends)
    torch.testing.assert_close(ends[0], expected.sum(0))
