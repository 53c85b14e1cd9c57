"""The network's form: a score at every time and dtype, averaged training that can be repeated, the stored digits."""

from __future__ import annotations

import math

import opinfo
import pytest
import torch
from torch import nn

from kexue_lib.checkpoints import load
from kexue_lib.checkpoints.generative import digits_score, ring_score, samplers
from kexue_lib.data import digits
from kexue_lib.generative import score_matching as sm


def training(**options: object) -> nn.Module:
    torch.manual_seed(0)
    model = sm.ScoreMLP(2, width=16, depth=1)
    ring = sm.GaussianMixture.ring()
    seed = torch.Generator().manual_seed(1)
    arguments = {"schedule": sm.VPSchedule(), "steps": 20, "generator": seed} | options
    return sm.train_score_model(model, lambda g: ring.sample(32, g), **arguments)


@pytest.mark.parametrize("schedule", [sm.VPSchedule(), sm.VESchedule()])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_score_is_finite_at_every_time_and_dtype(schedule, dtype):
    torch.manual_seed(0)
    model = sm.ScoreMLP(3, width=8, depth=2, schedule=schedule)
    nn.init.normal_(model.outer.weight)
    t = torch.tensor([1e-3, 0.3, 1.0])
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    expected = model.double()(x.double(), t.double())
    score = model.to(dtype)(x.to(dtype), t.to(dtype))
    assert score.dtype == dtype
    error = (score.double() - expected).norm() / expected.norm()
    assert error < {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.06}[dtype]


def test_untrained_model_predicts_no_noise():
    assert not sm.ScoreMLP(3, width=8, depth=1)(torch.ones(2, 3), torch.ones(2)).any()


def test_compiled_network_is_the_network():
    model, x, t = sm.ScoreMLP(2, width=8, depth=1), torch.randn(4, 2), torch.rand(4) + 0.01
    nn.init.normal_(model.outer.weight)
    with opinfo.as_users_call():
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x, t), model(x, t))


def test_training_can_be_repeated_and_averages():
    same = [dict(training().named_parameters()) for _ in range(2)]
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0])
    last = dict(training(ema=0.0).named_parameters())
    assert any(not torch.equal(last[name], same[0][name]) for name in last)


def test_nothing_happens_in_no_steps():
    assert not training(steps=0).outer.weight.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"lr": 0.0}, "lr: got 0.0"), ({"steps": -1}, "steps: got -1"), ({"ema": 1.0}, "ema: got 1.0")],
)
def test_bad_settings_are_named(options, message):
    with opinfo.as_users_call(), pytest.raises(ValueError, match=message):
        training(**options)


def test_bad_sizes_are_named():
    with opinfo.as_users_call(), pytest.raises(ValueError, match="depth: got 0"):
        sm.ScoreMLP(2, depth=0)


def test_stored_digits_have_the_losses_they_were_stored_with():
    model, data, made_with = digits_score.trained(), digits(scale="symmetric"), load(digits_score.NAME)[1]
    assert made_with["ema"] == digits_score.EMA
    assert made_with["steps"] >= 20_000
    assert digits_score.noise_loss(model, data.x_train) == pytest.approx(made_with["loss_seen"], rel=1e-4)
    assert digits_score.noise_loss(model, data.x_test) == pytest.approx(made_with["loss_unseen"], rel=1e-4)
    assert made_with["loss_seen"] < made_with["loss_unseen"] < 0.2


def test_stored_ring_is_near_its_floor():
    """At σ = 0.78 its squared error is small beside what no model can remove."""
    ring, schedule, t = sm.GaussianMixture.ring(), sm.VPSchedule(), torch.tensor(0.3)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x0 = ring.sample(20_000, torch.Generator().manual_seed(3))
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(4))
    x_t = alpha * x0 + sigma * noise
    with torch.no_grad():
        score = ring_score.trained()(x_t, t.expand(len(x_t)))
    error = sigma**2 * (score - ring.diffuse(alpha, sigma).score(x_t)).square().sum(1).mean()
    floor = sigma**2 * sm.conditional_score_gap(ring, alpha, sigma, 20_000, torch.Generator().manual_seed(5))[0]
    assert error < 0.01 * floor


def test_stored_samplers_can_be_measured_again():
    stored = load("generative/samplers")[0]
    row, count = stored["found"]["2"]["heun"], stored["counts"].index(20)
    again = samplers.measures(samplers.sampled("heun", 2, 20, 0), 0)
    assert again == pytest.approx(row[count][0], rel=1e-2)
    assert samplers.measures(samplers.data(1000), 0) == pytest.approx(stored["data"][0], rel=1e-3)


def test_width_and_strays_see_what_they_should():
    ring = samplers.RING
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(6))
    points = ring.means.repeat(500, 1) + 0.2 * noise
    _, width, strays = samplers.measures(points, 0)
    assert width == pytest.approx(0.2, rel=0.03)
    assert strays == pytest.approx(math.exp(-((0.45 / 0.2) ** 2) / 2), rel=0.15)
