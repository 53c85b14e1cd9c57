"""Tiger: its formula by a loop in NumPy, gathering in the momentum, gradients that are not finite."""

import math

import numpy as np
import pytest
import torch
from optimization.test_lion import close, draw, make, run, same
from torch import nn

from kexue_lib.optimization.lion import Lion, Tiger


def tiger_by_hand(micro_steps, every, lr=0.01, beta=0.965, decay=0.01, scale="rms"):
    theta = [t.numpy().copy() for t in draw()]
    m = [np.zeros_like(t) for t in theta]
    for t in range(1, micro_steps + 1):
        for i, g in enumerate(x.numpy() for x in draw(t)):
            m[i] = ((beta - 1) * ((t - 1) % every == 0) + 1) * m[i] + (1 - beta) / every * g
            if t % every == 0:
                vector = scale == "rms" and theta[i].ndim < 2
                size = np.sqrt(np.mean(theta[i] ** 2)) if theta[i].size else 0.0
                rate = lr * (0.5 if vector else 1.0 if scale == "none" else size)
                theta[i] = theta[i] - rate * (np.sign(m[i]) + (0 if vector else decay) * theta[i])
    return [torch.from_numpy(np.asarray(t)) for t in theta]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("scale", ["rms", "none"])
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("foreach", [None, False])
def test_tiger_is_its_formula(every, scale, skip, foreach):
    params = make()
    options = {"accumulation_steps": every, "scale": scale, "skip_nonfinite": skip, "foreach": foreach}
    for lr in (0.01, torch.tensor(0.01, dtype=torch.float64)):
        params = make()
        obtained = run(Tiger(params, lr, **options), params, steps=7)
        close(obtained, tiger_by_hand(7, every, scale=scale), rtol=1e-12, atol=1e-14)


def test_micro_batches_in_the_momentum_are_one_large_batch():
    params, whole = make(), make()
    optimizer, reference = Tiger(params, accumulation_steps=3), Tiger(whole)
    for step in range(4):
        before = [p.detach().clone() for p in params]
        run(optimizer, params, steps=2, first=3 * step)
        same([p.detach() for p in params], before)
        run(optimizer, params, steps=1, first=3 * step + 2)
        for p, *grads in zip(whole, *(draw(3 * step + i) for i in range(3))):
            p.grad = sum(grads) / 3
        reference.step()
    close([p.detach() for p in params], [p.detach() for p in whole], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_gradient_that_is_not_finite_shrinks_its_tensor_alone(bad, dtype):
    params = make(dtype)
    optimizer = Tiger(params, shrink=0.75, center=1.0)
    run(optimizer, params)
    before = [p.detach().clone() for p in params]
    momenta = [optimizer.state[p]["exp_avg"].clone() for p in params]
    for p, g in zip(params, draw(9, dtype)):
        p.grad = g
    params[4].grad[0, 0] = bad
    optimizer.step()
    expected = ((before[4].double() - 1) * 0.75 + 1).to(dtype)
    torch.testing.assert_close(params[4].detach(), expected)
    assert torch.equal(optimizer.state[params[4]]["exp_avg"], momenta[4])
    assert not torch.equal(optimizer.state[params[0]]["exp_avg"], momenta[0])
    assert params[0].detach().isfinite().all()


def test_a_matrix_of_zeros_moves_without_scaling_only():
    for scale, moved in (("rms", False), ("none", True)):
        p = nn.Parameter(torch.zeros(2, 2))
        p.grad = torch.ones(2, 2)
        Tiger([p], scale=scale).step()
        assert bool(p.detach().any()) == moved


def test_a_nan_gradient_stops_a_component_of_lion_and_is_left_out_by_tiger():
    for kind in (Lion, Tiger):
        p = nn.Parameter(torch.ones(2))
        optimizer = kind([p], 0.5, weight_decay=0.0, **({"shrink": 1.0} if kind is Tiger else {}))
        p.grad = torch.tensor([math.nan, 1.0])
        optimizer.step()
        p.grad = torch.ones(2)
        optimizer.step()
        assert p.tolist() == ([1.0, 0.0] if kind is Lion else [0.75, 0.75])
