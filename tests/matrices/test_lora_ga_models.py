"""lora_ga on models: gradients against plain autograd, the model left as it was, and peft's factors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from opinfo import as_users_call
from torch import Tensor, nn

from kexue_lib.matrices.lora_ga import alignment_loss, alignment_optimum, collect_gradients, initialise_lora_ga
from kexue_lib.matrices.lora_gradient import LoRALinear, lora_pairs, unload_lora

MODES = ["exact", "serial", "sketch"]


def network(seed: int = 0, bias: bool = True, inplace: bool = False) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(12, 16, bias=bias), nn.ReLU(inplace), nn.Dropout(0.5), nn.Linear(16, 10), nn.Linear(10, 8)
        )


def batches(count: int = 1, rows: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(rows, 12, generator=generator) for _ in range(count)]


def loss_fn(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) ** 2).sum() + model(x).sum()


def by_autograd(model: nn.Module, data: list[Tensor], loss: Callable = loss_fn) -> dict[str, Tensor]:
    """The gradients of a copy in evaluation mode, in article orientation."""
    model = deepcopy(model).eval().requires_grad_(True)
    (sum(loss(model, x) for x in data) / len(data)).backward()
    return {name: p.weight.grad.mT for name, p in model.named_modules() if isinstance(p, nn.Linear)}


@pytest.mark.parametrize("serial", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("consumed", [False, True])
def test_gradients_are_those_of_autograd_and_the_model_is_left_alone(serial: bool, count: int, consumed: bool):
    model, data, got = network(inplace=True), batches(count), {}
    model[0].requires_grad_(False)
    model[3].weight.grad = torch.ones(10, 16)
    model[4].eval()
    before = deepcopy(model.state_dict())
    returned = collect_gradients(model, loss_fn, data, serial=serial, consume=got.__setitem__ if consumed else None)
    expected = by_autograd(model, data)
    result = got if consumed else returned
    assert result.keys() == expected.keys()
    assert bool(returned) != consumed
    for name, G in result.items():
        torch.testing.assert_close(G, expected[name])
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True, True, True]
    assert torch.equal(model[3].weight.grad, torch.ones(10, 16))
    assert model[0].weight.grad is None
    assert (model.training, model[2].training, model[4].training) == (True, True, False)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("mode", MODES)
def test_an_exception_leaves_the_model_as_it_was(mode: str):
    model = network()

    def broken(module: nn.Module, x: Tensor) -> Tensor:
        raise RuntimeError("broken") if module(x).isfinite().all() else AssertionError

    with pytest.raises(RuntimeError, match="broken"):
        initialise_lora_ga(model, broken, batches(), 2, mode=mode)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(layer._forward_hooks for layer in model.modules())
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [1, 3])
def test_initialisation_keeps_the_output_and_aligns_the_first_step(mode: str, count: int):
    model, data = network(), batches(count)
    expected = by_autograd(model, data)
    output = deepcopy(model).eval()(data[0])
    told = initialise_lora_ga(model, loss_fn, data, 3, alpha=6.0, mode=mode, generator=torch.Generator().manual_seed(0))
    assert list(told) == ["0", "3", "4"]
    torch.testing.assert_close(model.eval()(data[0]), output, rtol=1e-5, atol=1e-5)
    for (name, numbers), pair in zip(told.items(), lora_pairs(model)):
        G = expected[name]
        scale = pair.B.shape[1] ** 0.25 / 4
        loss = alignment_loss(G, pair.A / scale, pair.B / scale).item()
        best = alignment_optimum(G, 3).item()
        # The gradients here have rank 10 or less: the sketch, of 14 columns, loses nothing.
        assert loss == pytest.approx(best, rel=1e-2, abs=1e-8 * G.square().sum().item())
        captured = 1 - loss / G.square().sum().item()
        assert numbers["captured"] == pytest.approx(captured, abs=1e-4)
        assert numbers["cosine"] == pytest.approx(captured**0.5, abs=1e-4)
        assert pair.scale == pytest.approx(6 / 3**0.5)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        f"{name}.lora_{letter}" for name in told for letter in "AB"
    }


def test_a_sketch_bears_activations_in_place():
    told = [
        initialise_lora_ga(network(inplace=inplace), loss_fn, batches(), 3, mode=mode)
        for inplace, mode in ((True, "sketch"), (False, "exact"))
    ]
    for name, numbers in told[0].items():
        assert numbers["captured"] == pytest.approx(told[1][name]["captured"], abs=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_merging_back_before_training_gives_the_weights(mode: str):
    model = network()
    before = deepcopy(model.state_dict())
    initialise_lora_ga(model, loss_fn, batches(), 2, mode=mode)
    unload_lora(model)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_layers_that_the_loss_does_not_use_get_orthonormal_factors(mode: str):
    model = nn.ModuleDict({"used": nn.Linear(12, 8), "dead": nn.Linear(12, 8)})
    told = initialise_lora_ga(model, lambda m, x: m["used"](x).square().sum(), batches(), 2, mode=mode)
    assert told["dead"] == {"cosine": 0.0, "captured": 0.0}
    factor = model["dead"].lora_A.detach() / (8**0.25 / 4)
    torch.testing.assert_close(factor.mT @ factor, torch.eye(2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_shared_weights_count_once_with_the_sum_of_their_gradients(mode: str):
    one, two = nn.Linear(12, 12, bias=False), nn.Linear(12, 12, bias=False)
    two.weight = one.weight
    model = nn.Sequential(one, nn.Tanh(), two)
    G = collect_gradients(model, loss_fn, batches())
    assert list(G) == ["0"]
    torch.testing.assert_close(G["0"], by_autograd(model, batches())["0"])
    output = model(batches()[0]).detach()
    told = initialise_lora_ga(model, loss_fn, batches(), 2, mode=mode, generator=torch.Generator().manual_seed(1))
    best = 1 - alignment_optimum(G["0"], 2).item() / G["0"].square().sum().item()
    assert told["0"]["captured"] == pytest.approx(best, abs=1e-3)
    torch.testing.assert_close(model(batches()[0]), output, rtol=1e-5, atol=1e-5)
    assert model[0].base.weight is model[2].base.weight


def test_bfloat16_weights_are_moved_with_one_rounding():
    model = network().to(torch.bfloat16)
    data = [x.bfloat16() for x in batches()]
    before = {name: p.clone() for name, p in model.named_parameters()}
    gradients = collect_gradients(model, loss_fn, data)
    assert {G.dtype for G in gradients.values()} == {torch.float32}
    initialise_lora_ga(model, loss_fn, data, 2)
    for name, layer in model.named_modules():
        if isinstance(layer, LoRALinear):
            W, moved = before[f"{name}.weight"], layer.effective_weight()
            spacing = torch.finfo(torch.bfloat16).eps * torch.maximum(layer.base.weight.abs(), W.abs())
            assert bool(((W - moved).abs() <= 1.01 * spacing).all())


@pytest.mark.parametrize("targets", [["3"], lambda name, layer: layer.in_features == 16])
def test_only_targets_are_replaced(targets: Any):
    model = network()
    assert list(initialise_lora_ga(model, loss_fn, batches(), 2, targets=targets)) == ["3"]
    assert [type(layer) for layer in (model[0], model[3], model[4])] == [nn.Linear, LoRALinear, nn.Linear]


def test_a_last_part_of_a_name_matches():
    model = nn.ModuleDict({"block": nn.ModuleDict({"proj": nn.Linear(12, 8), "out": nn.Linear(8, 8)})})
    loss = lambda m, x: m["block"]["out"](m["block"]["proj"](x)).sum()
    assert list(collect_gradients(model, loss, batches(), targets=["proj"])) == ["block.proj"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 5}, r"rank: got 5"),
        ({"rank": 0}, r"rank: got 0"),
        ({"targets": ["nothing"]}, r"targets: got \['nothing'\]"),
        ({"batches": []}, r"batches: got none"),
        ({"gamma": 0.0}, r"gamma: got 0.0"),
        ({"split": "up"}, r"split: got 'up'"),
        ({"loss_fn": lambda m, x: m(x)}, r"loss_fn: got shape \(5, 8\)"),
        ({"loss_fn": lambda m, x: torch.zeros(())}, r"loss_fn: got a loss that depends on no target"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(mode: str, options: dict[str, Any], words: str):
    model = network()
    call = {"loss_fn": loss_fn, "batches": batches(), "rank": 2, "mode": mode, **options}
    with as_users_call(), pytest.raises(ValueError, match=words):
        initialise_lora_ga(model, **call)
    assert type(model[0]) is nn.Linear
    assert all(p.requires_grad for p in model.parameters())


def test_an_unknown_mode_is_named():
    with as_users_call(), pytest.raises(ValueError, match="mode: got 'fast'"):
        initialise_lora_ga(network(), loss_fn, batches(), 2, mode="fast")


@pytest.mark.parametrize(("split", "direction"), [("left", "ArB2r"), ("right", "A2rBr")])
def test_column_spaces_are_those_of_peft(split: str, direction: str):
    peft = pytest.importorskip("peft")
    model = network(bias=False).eval()
    theirs = deepcopy(model)
    config = peft.LoraConfig(
        r=3,
        target_modules=["0", "3"],
        init_lora_weights="lora_ga",
        lora_ga_config=peft.LoraGAConfig(direction=direction),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft.tuners.lora import preprocess_loraga

        theirs[2] = nn.Identity()  # peft trains while it looks: dropout would give it another gradient
        preprocess_loraga(theirs, config, lambda: loss_fn(theirs, batches(rows=20)[0]).backward())
        adapted = peft.get_peft_model(theirs, config)
    initialise_lora_ga(model, loss_fn, batches(rows=20), 3, targets=["0", "3"], split=split)
    for name in ("0", "3"):
        layer = adapted.base_model.model.get_submodule(name)
        A, B = layer.lora_A["default"].weight.mT, layer.lora_B["default"].weight.mT
        ours = model.get_submodule(name)
        for one, other in ((A, ours.lora_A), (B.mT, ours.lora_B.mT)):
            bases = [torch.linalg.qr(x.detach())[0] for x in (one, other)]
            overlap = torch.linalg.svdvals(bases[0].mT @ bases[1])
            assert overlap.min().item() > 1 - 1e-3
