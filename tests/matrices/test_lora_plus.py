"""lora_plus: rates of every parameter, contributions against finite changes of a loss, the ratio by drawing."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kexue_lib.matrices.lora_gradient import inject_lora, lora_pairs
from kexue_lib.matrices.lora_plus import (
    PAPER_RATIO,
    contribution_ratio,
    feature_update_terms,
    lora_plus_param_groups,
    measure_contributions,
    sign_step_contributions,
)
from tests.opinfo import as_users_call


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Two layers of unequal shape, a norm that stays trainable, random factors."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 20), nn.LayerNorm(20), nn.ReLU(), nn.Linear(20, 6)).to(dtype)
    inject_lora(model, 3, alpha=6.0, generator=seeded(seed))
    for pair in lora_pairs(model):
        with torch.no_grad():
            pair.B.copy_(torch.randn(pair.B.shape, generator=seeded(seed + 1), dtype=dtype))
    for parameter in model[1].parameters():
        parameter.requires_grad_(True)
    return model


@pytest.mark.parametrize(("n", "m", "r"), [(256, 256, 8), (512, 128, 4), (128, 512, 4), (64, 10, 1)])
def test_ratio_is_what_drawn_matrices_give(n: int, m: int, r: int) -> None:
    G = torch.randn(24, n, m, generator=seeded(0), dtype=torch.float64)
    A = torch.randn(24, n, r, generator=seeded(1), dtype=torch.float64) / math.sqrt(n)
    B = torch.randn(24, r, m, generator=seeded(2), dtype=torch.float64) / math.sqrt(r)
    by_a, by_b = sign_step_contributions(G, A, B)
    quotients = by_a / by_b
    error = quotients.std() / math.sqrt(24)
    assert abs(quotients.mean() - contribution_ratio(n, m, r)) < 5 * error + 0.03 * quotients.mean()
    if n != m:  # the article's rule is off by √(n/m), a factor 2 or more here
        assert abs(math.log(quotients.mean() / contribution_ratio(n, m, r, "article"))) > 0.5


def test_rules_agree_on_square_layers_and_differ_by_the_root_of_the_shape() -> None:
    assert contribution_ratio(768, 768, 8) == pytest.approx(math.sqrt(96))
    for n, m in ((100, 400), (400, 100)):
        quotient = contribution_ratio(n, m, 4, "article") / contribution_ratio(n, m, 4)
        assert quotient == pytest.approx(math.sqrt(n / m))


def test_contributions_are_the_slope_of_the_loss_along_a_sign_step() -> None:
    model = network()
    x, y = torch.randn(7, 12, generator=seeded(3), dtype=torch.float64), torch.arange(7) % 6
    measured = measure_contributions(model, F.cross_entropy(model(x), y))
    assert list(measured) == ["0", "3"]
    assert all(p.grad is None for p in model.parameters())
    for index, name in enumerate(measured):
        for which in (0, 1):
            values = []
            for size in (1e-6, -1e-6):
                moved = copy.deepcopy(model)
                factor = lora_pairs(moved)[index][which]
                (gradient,) = torch.autograd.grad(F.cross_entropy(moved(x), y), factor)
                with torch.no_grad():
                    factor -= size * gradient.sign()
                values.append(F.cross_entropy(moved(x), y).item())
            slope = (values[1] - values[0]) / 2e-6
            assert measured[name][which] == pytest.approx(slope, rel=1e-5)


def test_measured_contributions_of_a_layer_that_the_loss_does_not_reach() -> None:
    model = network()
    hidden = model[0](torch.ones(2, 12, dtype=torch.float64))
    measured = measure_contributions(model, hidden.square().sum())
    assert measured["0"][0] > 0
    assert measured["3"] == (0.0, 0.0)


def test_every_trainable_parameter_once_with_its_rate_and_decay() -> None:
    model = network()
    groups = lora_plus_param_groups(model, 1e-3, ratio=16.0, weight_decay=0.1, other_lr=5e-4)
    table = {id(p): (g["name"], g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert sum(len(g["params"]) for g in groups) == len(table)
    assert set(table) == {id(p) for p in model.parameters() if p.requires_grad}
    for pair in lora_pairs(model):
        assert table[id(pair.A)] == ("lora_A", 1e-3, 0.1)
        assert table[id(pair.B)] == ("lora_B", pytest.approx(1.6e-2), 0.1)
    for parameter in model[1].parameters():
        assert table[id(parameter)] == ("other_no_decay", 5e-4, 0.0)


@pytest.mark.parametrize("rule", ["corrected", "article"])
def test_a_rule_gives_each_layer_its_own_rate(rule: str) -> None:
    model = network()
    groups = lora_plus_param_groups(model, 1e-2, ratio=rule)
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    for pair, (n, m) in zip(lora_pairs(model), [(12, 20), (20, 6)]):
        expected = n / math.sqrt(3 * m) if rule == "corrected" else n / m * math.sqrt(n / 3)
        assert rates[id(pair.B)] == pytest.approx(1e-2 * expected)


def test_equal_rates_share_a_group_and_a_shared_pair_is_listed_once() -> None:
    layers = [nn.Linear(8, 8) for _ in range(5)]
    model = nn.Sequential(*layers)
    inject_lora(model, 2)
    for ratio in (PAPER_RATIO, "corrected"):
        groups = lora_plus_param_groups(model, 1e-3, ratio=ratio)
        assert [(g["name"], len(g["params"])) for g in groups] == [("lora_A", 5), ("lora_B", 5)]


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}, {}])
def test_groups_train_as_two_optimizers_would(options: dict) -> None:
    ours, theirs = network(), network()
    groups = lora_plus_param_groups(ours, 1e-2, ratio=8.0)
    optimizer = torch.optim.AdamW(groups, **options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))
    pairs = lora_pairs(theirs)
    slow = torch.optim.AdamW([p.A for p in pairs] + list(theirs[1].parameters()), 1e-2, weight_decay=0.0)
    fast = torch.optim.AdamW([p.B for p in pairs], 8e-2, weight_decay=0.0)
    x, y = torch.randn(7, 12, generator=seeded(3), dtype=torch.float64), torch.arange(7) % 6
    for t in range(4):
        for model, optimizers in ((ours, [optimizer]), (theirs, [slow, fast])):
            for o in optimizers:
                o.zero_grad()
            F.cross_entropy(model(x), y).backward()
            for o in optimizers:
                o.step()
        scheduler.step()
        for o, rate in ((slow, 1e-2), (fast, 8e-2)):
            o.param_groups[0]["lr"] = rate / (2 + t)
    for p, q in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("c", [0.25, 4.0])
def test_ratio_and_size_of_the_factors_are_one_knob_for_adam(c: float) -> None:
    """(A, B) at rates (η, c²η) gives at every step the same AB as (cA, B/c) at the common rate cη, if ε = 0."""
    ours, theirs = network(), network()
    for pair in lora_pairs(theirs):
        with torch.no_grad():
            pair.A.mul_(c)
            pair.B.div_(c)
    for model in (ours, theirs):
        model[1].requires_grad_(False)
    one = torch.optim.Adam(lora_plus_param_groups(ours, 1e-3, ratio=c * c), eps=0.0)
    other = torch.optim.Adam([f for pair in lora_pairs(theirs) for f in pair[:2]], lr=c * 1e-3, eps=0.0)
    x, y = torch.randn(7, 12, generator=seeded(3), dtype=torch.float64), torch.arange(7) % 6
    for _ in range(20):
        losses = []
        for model, optimizer in ((ours, one), (theirs, other)):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert losses[0] < 0.99 * math.log(6) * 3
    plain = torch.optim.Adam([f for pair in lora_pairs(ours) for f in pair[:2]], lr=1e-3, eps=0.0)
    plain.zero_grad()
    F.cross_entropy(ours(x), y).backward()
    before = [pair.A @ pair.B for pair in lora_pairs(ours)]
    plain.step()
    changes = [(pair.A @ pair.B - old).norm() for pair, old in zip(lora_pairs(ours), before)]
    assert min(changes) > 1e-5  # the step does something, so agreement above was no agreement of stillness


def test_terms_add_up_to_the_change() -> None:
    x, A, B, dA, dB = (torch.randn(s, generator=seeded(k), dtype=torch.float64)
                       for k, s in enumerate([(2, 3, 5), (5, 2), (2, 4), (5, 2), (2, 4)]))  # fmt: skip
    d1, d2, d3 = feature_update_terms(x, A, B, dA, dB, scale=0.5)
    torch.testing.assert_close(d1 + d2 + d3, 0.5 * (x @ (A + dA) @ (B + dB) - x @ A @ B), rtol=1e-12, atol=1e-12)
    still = feature_update_terms(x, A, B, torch.zeros_like(A), dB)
    assert not still[0].any()
    assert not still[2].any()


def test_same_rates_as_peft() -> None:
    peft = pytest.importorskip("peft")
    from peft.optimizers import create_loraplus_optimizer

    theirs = peft.get_peft_model(
        nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 6)),
        peft.LoraConfig(r=3, target_modules=["0", "2"]),
    )
    optimizer = create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=8.0)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    ours = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 6))
    inject_lora(ours, 3)
    own = {id(p): g["lr"] for g in lora_plus_param_groups(ours, 1e-3, ratio=8.0) for p in g["params"]}
    for letter, which in (("A", 0), ("B", 1)):
        expected = {rates[id(p)] for name, p in theirs.named_parameters() if f"lora_{letter}" in name}
        assert {own[id(pair[which])] for pair in lora_pairs(ours)} == expected


@pytest.mark.parametrize("name", ["n", "m", "r"])
def test_sizes_below_one(name: str) -> None:
    with as_users_call():
        with pytest.raises(ValueError, match=f"{name}: got 0"):
            contribution_ratio(**{"n": 4, "m": 4, "r": 2, name: 0})
        with pytest.raises(TypeError, match=f"{name}: got"):
            contribution_ratio(**{"n": 4, "m": 4, "r": 2, name: 2.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "lr: got 0"),
        ({"lr": float("nan")}, "lr: got nan"),
        ({"lr": 1e-3, "ratio": -1.0}, "ratio: got -1"),
        ({"lr": 1e-3, "ratio": "paper"}, "ratio: got 'paper'"),
        ({"lr": 1e-3, "weight_decay": -0.1}, "weight_decay: got -0.1"),
        ({"lr": 1e-3, "other_lr": 0.0}, "other_lr: got 0"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with as_users_call(), pytest.raises(ValueError, match=message):
        lora_plus_param_groups(network(), **options)


def test_bad_models_rules_and_shapes() -> None:
    plain = nn.Linear(3, 3)
    with as_users_call():
        with pytest.raises(ValueError, match="rule: got 'x'"):
            contribution_ratio(4, 4, 2, "x")
        with pytest.raises(ValueError, match="model: got no LoRA"):
            lora_plus_param_groups(plain, 1e-3)
        with pytest.raises(ValueError, match="model: got no LoRA"):
            measure_contributions(plain, plain(torch.ones(3)).sum())
        with pytest.raises(ValueError, match="loss: got shape"):
            measure_contributions(network(), torch.ones(2))
