"""lora_gradient: adapters in models, merged and unmerged, saved and loaded, against the plain model with W put in."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from opinfo import as_users_call
from torch import Tensor, nn

from kexue_lib.matrices.lora_gradient import (
    LoRAConv,
    LoRAEmbedding,
    LoRALinear,
    inject_lora,
    load_lora_state_dict,
    lora_pairs,
    lora_state_dict,
    merge_lora,
    unload_lora,
    unmerge_lora,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Everything(nn.Module):
    """Every kind of layer once: a table with padding, two convolutions, attention, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8, padding_idx=0)
        self.along = nn.Conv1d(8, 8, 3, padding="same", padding_mode="circular", dilation=2)
        self.plane = nn.Conv2d(1, 4, (3, 2), stride=2, padding=1, bias=False)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.blocks = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 3, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        x = x + self.along(x.mT).mT + self.plane(x[:, None]).mean((1, 2, 3))[:, None, None]
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(x + self.blocks(x))


ALL = ["table", "along", "plane", "attention.out_proj", "blocks.0", "blocks.2", "head"]
TOKENS = torch.randint(0, 11, (5, 6), generator=generator(1))


def with_random_factors(model: nn.Module, spread: float = 0.3) -> None:
    for pair in lora_pairs(model):
        for factor in (pair.A, pair.B):
            factor.data.normal_(0.0, spread, generator=generator(2))
    for module in model.modules():
        if isinstance(module, LoRAEmbedding):
            module.lora_A.data[0] = 0  # the padding row, as set_factors makes it


def everything(dtype: torch.dtype = torch.float64, **options) -> tuple[nn.Module, nn.Module]:
    """The plain model, and a copy with adapters on all its layers."""
    torch.manual_seed(0)
    plain = Everything().to(dtype)
    adapted = copy.deepcopy(plain)
    assert inject_lora(adapted, 2, targets=ALL, generator=generator(), **options) == ALL
    return plain, adapted


def put_in(plain: nn.Module, adapted: nn.Module) -> nn.Module:
    """The plain model with W = W₀ + s AB in each layer, from the definition."""
    model, scale = copy.deepcopy(plain), lora_pairs(adapted)[0].scale
    for name in ALL:
        layer, adapter = model.get_submodule(name), adapted.get_submodule(name)
        W = scale * adapter.lora_A @ adapter.lora_B
        layout = W if isinstance(layer, nn.Embedding) else W.mT.reshape(layer.weight.shape)
        layer.weight.data += layout.detach()
    return model


@pytest.mark.parametrize("init", ["zero_B", "zero_A", "both"])
def test_injecting_changes_no_output_and_trains_the_factors_only(init):
    plain, adapted = everything(init=init)
    # Not to the last bit: on some processors a product rounds otherwise at another address.
    torch.testing.assert_close(adapted(TOKENS), plain(TOKENS), rtol=1e-12, atol=1e-12)
    trainable = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert trainable == {f"{name}.lora_{letter}" for name in ALL for letter in "AB"}
    assert len(lora_pairs(adapted)) == len(ALL)


def test_output_and_gradients_of_all_kinds_are_those_of_the_whole_weights():
    plain, adapted = everything(alpha=3.0)
    with_random_factors(adapted)
    model = put_in(plain, adapted)
    torch.testing.assert_close(adapted(TOKENS), model(TOKENS), rtol=1e-11, atol=1e-11)
    adapted(TOKENS).square().sum().backward()
    model(TOKENS).square().sum().backward()
    for name in ALL:
        adapter, layer = adapted.get_submodule(name), model.get_submodule(name)
        grad = layer.weight.grad
        G = grad if isinstance(layer, nn.Embedding) else grad.flatten(1).mT
        torch.testing.assert_close(adapter.lora_A.grad, 1.5 * G @ adapter.lora_B.mT, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(adapter.lora_B.grad, 1.5 * adapter.lora_A.mT @ G, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_merge_and_unmerge_give_back_every_bit(dtype):
    plain, adapted = everything(dtype)
    with_random_factors(adapted)
    before, state = adapted(TOKENS), copy.deepcopy(adapted.state_dict())
    for _ in range(3):
        merge_lora(adapted)
        merge_lora(adapted)
        assert all(m.merged for m in adapted.modules() if isinstance(m, LoRALinear))
        unmerge_lora(adapted)
        unmerge_lora(adapted)
    assert torch.equal(adapted(TOKENS), before)
    for name, tensor in adapted.state_dict().items():
        assert torch.equal(tensor, state[name])
    unload_lora(adapted, merge=False)
    for (name, own), (_, original) in zip(adapted.state_dict().items(), plain.state_dict().items(), strict=True):
        assert torch.equal(own, original), name
    assert [type(m) for m in adapted.modules()] == [type(m) for m in plain.modules()]


def test_merged_and_unloaded_models_compute_the_same():
    plain, adapted = everything(rslora=True)
    with_random_factors(adapted)
    expected = put_in(plain, adapted)(TOKENS)
    assert lora_pairs(adapted)[0].scale == pytest.approx(2**0.5)
    merge_lora(adapted)
    torch.testing.assert_close(adapted(TOKENS), expected, rtol=1e-11, atol=1e-11)
    unload_lora(adapted)
    assert adapted.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(adapted(TOKENS), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_loading_works_in_every_mode(merged, training, whole):
    _, source = everything()
    with_random_factors(source)
    _, target = everything()
    target.train(training)
    if merged:
        merge_lora(target)
    if whole:
        buffer = io.BytesIO()
        merge_lora(source)  # a merged model saves the same state
        torch.save(source.state_dict(), buffer)
        target.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    else:
        load_lora_state_dict(target, lora_state_dict(source))
    torch.testing.assert_close(target(TOKENS), source(TOKENS), rtol=1e-11, atol=1e-11)
    unmerge_lora(target)
    unmerge_lora(source)
    target.eval()
    target.train()
    assert torch.equal(target(TOKENS), source(TOKENS))


def test_layers_that_read_the_weight_get_the_whole_of_it():
    torch.manual_seed(0)
    plain = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    adapted = copy.deepcopy(plain)
    inject_lora(adapted, 2, generator=generator())
    with_random_factors(adapted)
    x = torch.randn(3, 5, 8, generator=generator())
    slow = adapted(x)
    with torch.no_grad():  # takes torch's fused path, which never calls the layers
        fused = adapted(x)
    torch.testing.assert_close(fused, slow, rtol=1e-5, atol=1e-5)
    assert (slow - plain(x)).abs().max() > 0.01


def test_a_module_in_two_places_is_adapted_once():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert inject_lora(model, 2, generator=generator()) == ["0"]
    assert model[0] is model[2]
    assert isinstance(model[0], LoRALinear)
    assert len(lora_pairs(model)) == 1
    unload_lora(model)
    assert model[0] is shared
    assert model[2] is shared


@pytest.mark.parametrize("init", ["zero_B", "both"])
def test_tied_linear_layers_stay_tied(init):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).double()
    model[1].weight = model[0].weight
    x = torch.randn(3, 4, generator=generator(), dtype=torch.float64)
    before = model(x)
    inject_lora(model, 2, init=init, generator=generator())
    torch.testing.assert_close(model(x), before, rtol=1e-12, atol=1e-12)
    assert model[0].lora_A is model[1].lora_A
    assert len(lora_pairs(model)) == 1
    with_random_factors(model)
    after = model(x)
    merge_lora(model)
    torch.testing.assert_close(model(x), after, rtol=1e-12, atol=1e-12)
    unload_lora(model)
    assert model[0].weight is model[1].weight
    torch.testing.assert_close(model(x), after, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("targets", [None, ["head"], ["table"], ["table", "head"]])
def test_a_table_tied_to_a_head_is_refused(targets):
    model = Everything()
    model.head = nn.Linear(8, 11, bias=False)
    model.head.weight = model.table.weight
    before = [p.requires_grad for p in model.parameters()]
    with as_users_call(), pytest.raises(ValueError, match=r"whose weight .* holds too"):
        inject_lora(model, 2, targets=targets)
    assert not any(isinstance(m, LoRALinear) for m in model.modules())
    assert [p.requires_grad for p in model.parameters()] == before


def test_padding_stays_and_an_embedding_is_a_linear_map_of_one_hot_rows():
    layer = LoRAEmbedding(nn.Embedding(7, 5, padding_idx=2), 3, init="both", generator=generator())
    start = layer.base.weight[2].clone()
    optimizer = torch.optim.SGD([layer.lora_A, layer.lora_B], lr=0.1)
    ids = torch.tensor([[2, 0], [1, 2]])
    layer(ids).square().sum().backward()
    optimizer.step()
    assert torch.equal(layer(torch.tensor(2)), start)
    one_hot = F.one_hot(ids, 7).float() @ layer.effective_weight()
    torch.testing.assert_close(layer(ids), one_hot)


def test_set_factors_keeps_the_padding_row():
    layer = LoRAEmbedding(nn.Embedding(7, 5, padding_idx=2), 3)
    layer.set_factors(torch.ones(7, 3), torch.ones(3, 5), preserve_output=False)
    assert torch.equal(layer(torch.arange(7)) - layer.base.weight == 0, (torch.arange(7) == 2)[:, None].expand(7, 5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_set_factors_keeps_the_represented_weight(dtype):
    layer = LoRALinear(nn.Linear(32, 24).to(dtype), 4, alpha=2.0, init="both", generator=generator())
    A, B = (torch.randn(s, generator=generator(3)).to(dtype) for s in ((32, 4), (4, 24)))
    before, base = layer.effective_weight().detach().double(), layer.base.weight.detach().clone()
    layer.set_factors(A, B)
    assert torch.equal(layer.lora_A, A.to(layer.lora_A.dtype))
    assert torch.equal(layer.lora_B, B.to(layer.lora_B.dtype))
    error = (layer.effective_weight().double() - before).abs().max()
    size = layer.base.weight.abs().max().double()
    assert error <= 2 * torch.finfo(dtype).eps * size
    layer.set_factors(torch.zeros_like(A), B, preserve_output=False)
    assert torch.equal(layer.effective_weight(), layer.base.weight)
    assert not torch.equal(layer.base.weight, base)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_small_steps_add_up_in_layers_of_16_bits(dtype, dropout):
    """A step of 1e-5 is below half a spacing of most entries; the factors are float32, the layer's output is not."""
    layer = LoRALinear(nn.Linear(256, 64).to(dtype), 8, dropout=dropout, init="both", generator=generator())
    before = layer.lora_A.detach().clone()
    optimizer = torch.optim.Adam([layer.lora_A, layer.lora_B], lr=1e-5)
    x = torch.randn(32, 256, generator=generator(1)).to(dtype)
    for _ in range(3):
        optimizer.zero_grad()
        out = layer(x)
        assert out.dtype == dtype
        out.float().square().mean().backward()
        optimizer.step()
    assert layer.lora_A.dtype == layer.lora_A.grad.dtype == torch.float32
    assert (layer.lora_A != before).double().mean() > 0.99


@pytest.mark.parametrize(
    ("base", "x"),
    [(nn.Embedding(7, 5), torch.arange(7)), (nn.Conv2d(3, 8, 3), torch.ones(1, 3, 5, 5, dtype=torch.bfloat16))],
    ids=["table", "convolution"],
)
def test_other_layers_of_16_bits_have_float32_factors_too(base, x):
    adapter = (LoRAEmbedding if isinstance(base, nn.Embedding) else LoRAConv)(base.bfloat16(), 2, init="both")
    assert adapter.lora_A.dtype == adapter.lora_B.dtype == torch.float32
    assert adapter(x).dtype == torch.bfloat16
    whole = adapter._forward_merged(x, adapter.effective_weight())
    torch.testing.assert_close(adapter(x), whole, rtol=2e-2, atol=2e-2)


def test_dropout_is_of_the_thin_branch_only():
    layer = LoRALinear(nn.Linear(64, 4).double(), 4, dropout=0.5, init="both", generator=generator())
    x = torch.ones(20_000, 64, dtype=torch.float64)
    torch.manual_seed(0)
    draws, expected = layer(x).detach(), layer.eval()(x[0]).detach()
    error = draws.std(0) / len(x) ** 0.5
    assert ((draws.mean(0) - expected).abs() <= 5 * error).all()
    assert (error > 0).all()
    layer.train()
    zero = LoRALinear(nn.Linear(4, 4), 2, dropout=0.5)
    assert torch.equal(zero(torch.ones(2, 4)), zero.base(torch.ones(2, 4)))


def test_targets_by_function_and_by_second_call():
    model = Everything()
    assert inject_lora(model, 1, targets=lambda name, layer: name.startswith("blocks")) == ["blocks.0", "blocks.2"]
    assert inject_lora(model, 2, targets=["head", "table"]) == ["table", "head"]
    assert sorted(p.A.shape[1] for p in lora_pairs(model)) == [1, 1, 2, 2]
    assert all(p.A.requires_grad and p.B.requires_grad for p in lora_pairs(model))
    with as_users_call(), pytest.raises(ValueError, match=r"targets: got .*base"):
        inject_lora(model, 2, targets=["base"])


def test_equal_generators_give_equal_factors_and_their_spread():
    layers = [LoRALinear(nn.Linear(400, 300), 100, init="both", generator=generator(5)) for _ in range(2)]
    assert torch.equal(layers[0].lora_A, layers[1].lora_A)
    assert torch.equal(layers[0].lora_B, layers[1].lora_B)
    assert layers[0].lora_A.std().item() == pytest.approx(400**-0.5, rel=0.03)
    assert layers[0].lora_B.std().item() == pytest.approx(100**-0.5, rel=0.03)


def test_outputs_and_gradients_are_peft_s():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    ours, x = copy.deepcopy(model), torch.randn(4, 6)
    config = peft.LoraConfig(r=2, lora_alpha=3, use_rslora=True, target_modules=["0", "2"])
    theirs = peft.get_peft_model(model, config)
    inject_lora(ours, 2, alpha=3.0, rslora=True)
    with_random_factors(ours)
    for name in "02":
        layer, own = theirs.base_model.model.get_submodule(name), ours.get_submodule(name)
        layer.lora_A["default"].weight.data.copy_(own.lora_A.data.mT)
        layer.lora_B["default"].weight.data.copy_(own.lora_B.data.mT)
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    for name in "02":
        layer, own = theirs.base_model.model.get_submodule(name), ours.get_submodule(name)
        torch.testing.assert_close(own.lora_A.grad.mT, layer.lora_A["default"].weight.grad)
        torch.testing.assert_close(own.lora_B.grad.mT, layer.lora_B["default"].weight.grad)


def merged_layer() -> LoRALinear:
    return LoRALinear(nn.Linear(4, 3), 2).merge()


def parametrized() -> nn.Linear:
    return nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))


class OwnForward(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LoRALinear(nn.Linear(4, 3), 0), ValueError, "rank: got 0"),
        (lambda: LoRALinear(nn.Linear(4, 3), 4), ValueError, r"rank: got 4, expected at most min\(n, m\) = 3"),
        (lambda: LoRALinear(nn.Linear(4, 3), True), TypeError, "rank: got True"),
        (lambda: LoRALinear(nn.ReLU(), 1), TypeError, "base: got ReLU"),
        (lambda: LoRALinear(OwnForward(4, 3), 1), TypeError, "base: got OwnForward"),
        (lambda: LoRALinear(parametrized(), 1), ValueError, "base: got a layer whose weight"),
        (lambda: LoRALinear(nn.Linear(4, 3), 1, init="zero"), ValueError, "init: got 'zero'"),
        (lambda: LoRALinear(nn.Linear(4, 3), 1, dropout=1.0), ValueError, "dropout: got 1.0"),
        (lambda: LoRALinear(nn.Linear(4, 3), 1, alpha=0.0), ValueError, "alpha: got 0.0"),
        (lambda: LoRAEmbedding(nn.Embedding(4, 3, max_norm=1.0), 1), ValueError, "base: got a table with max_norm"),
        (lambda: LoRAEmbedding(nn.Embedding(4, 3), 1, dropout=0.1), ValueError, "dropout: got 0.1"),
        (lambda: LoRAConv(nn.Conv2d(4, 4, 1, groups=2), 1), ValueError, "base: got a convolution of 2 groups"),
        (lambda: LoRAConv(nn.ConvTranspose2d(4, 4, 1), 1), TypeError, "base: got ConvTranspose2d"),
        (lambda: merged_layer().set_factors(torch.ones(4, 2), torch.ones(2, 3)), RuntimeError, "set_factors"),
        (lambda: LoRALinear(nn.Linear(4, 3), 2).set_factors(torch.ones(4, 1), torch.ones(2, 3)), ValueError,
         r"A: got shape \(4, 1\), expected \(4, 2\)"),
        (lambda: inject_lora(nn.Linear(4, 3), 1), ValueError, "model: got a single Linear"),
        (lambda: inject_lora("model", 1), TypeError, "model: got str"),
        (lambda: inject_lora(nn.Sequential(nn.ReLU()), 1), ValueError, "targets: got None"),
        (lambda: inject_lora(Everything(), 1, targets=["heads"]), ValueError, r"targets: got \['heads'\]"),
        (lambda: inject_lora(Everything(), 4), ValueError, "rank: got 4"),
        (lambda: load_lora_state_dict(everything()[1], {}), ValueError, "state: got no along.lora_A"),
        (lambda: load_lora_state_dict(nn.Linear(2, 2), {"lora_A": torch.ones(1)}), ValueError, "state: got lora_A"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with as_users_call(), pytest.raises(error, match=message):
        call()


def test_a_refused_injection_leaves_the_model_as_it_was():
    model = Everything()
    kinds, needs = [type(m) for m in model.modules()], [p.requires_grad for p in model.parameters()]
    with as_users_call(), pytest.raises(ValueError, match="rank"):
        inject_lora(model, 4)
    assert [type(m) for m in model.modules()] == kinds
    assert [p.requires_grad for p in model.parameters()] == needs


@pytest.mark.parametrize("shape", [(3, 8), (100, 8), (10, 12, 8), (0, 8)])
def test_what_follows_may_change_the_output_in_place(shape: tuple[int, ...]) -> None:
    """As ``nn.ReLU(inplace=True)`` does, with few rows and many."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    results = []
    for inplace in (True, False):
        model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(inplace=inplace), nn.Linear(6, 4))
        model.load_state_dict({k: torch.ones_like(v) / 7 for k, v in model.state_dict().items()})
        inject_lora(model, 2, init="both", generator=torch.Generator().manual_seed(1))
        model(x).square().sum().backward()
        results.append([p.grad for p in model.parameters() if p.requires_grad])
    for one, other in zip(*results):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_factors_of_another_scale_are_refused_and_nothing_is_changed() -> None:
    models = []
    for alpha in (8.0, None):
        model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4))
        inject_lora(model, 2, alpha=alpha, init="both", generator=torch.Generator().manual_seed(1))
        models.append(model)
    before = copy.deepcopy(lora_state_dict(models[1]))
    with pytest.raises(ValueError, match=r"state: got 0.lora_scale 4, expected the model's 1"):
        load_lora_state_dict(models[1], lora_state_dict(models[0]))
    assert all(torch.equal(before[name], held) for name, held in lora_state_dict(models[1]).items())


def test_an_error_of_one_layer_names_it() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 2))
    with as_users_call(), pytest.raises(ValueError, match=r"rank: got 3.*\(layer '1'\)"):
        inject_lora(model, 3)
    assert isinstance(model[0], nn.Linear)
