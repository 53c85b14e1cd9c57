"""Permutations, shared heads and their first loss, against PyTorch's shuffle and simulation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from attention.tied_embedding.seeded_inputs import generator, normal
from opinfo import as_users_call
from torch import nn

from kexue_lib.attention.core import DecoderLM, LMConfig
from kexue_lib.attention.tied_embedding import (
    FactorizedEmbedding,
    SharedHead,
    bigram_logits,
    channel_shuffle,
    expected_initial_loss,
    half_swap,
    recommended_std,
)

SCHEMES = ("tied", "scaled", "swap", "shuffle", "orthogonal", "untied")
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


# -- permutations ------------------------------------------------------------------------------------------------------


def test_swap_is_its_own_inverse_in_every_dimension():
    x = normal(2, 6, 4)
    for dim in (0, 1, -1):
        assert torch.equal(half_swap(half_swap(x, dim), dim), x)
    assert torch.equal(half_swap(x, 1), torch.cat([x[:, 3:], x[:, :3]], 1))


@pytest.mark.parametrize("d", [4, 6, 12, 16, 24, 36, 60, 64])
def test_shuffle_is_pytorchs_and_leaves_the_channels_that_the_formula_says(d: int):
    x = normal(3, d)
    for g in (g for g in range(2, d) if d % g == 0):
        # torch's own shuffle reads the same matrix by columns, on dimension 1 of images
        assert torch.equal(channel_shuffle(x, g), F.channel_shuffle(x[..., None, None], g)[..., 0, 0])
        assert torch.equal(channel_shuffle(channel_shuffle(x, g), d // g), x)
        fixed = (channel_shuffle(torch.arange(d), g) == torch.arange(d)).sum().item()
        assert fixed == math.gcd(g - 1, d // g - 1) + 1
        assert torch.equal(channel_shuffle(x.T.contiguous(), g, 0), channel_shuffle(x, g).T)


# -- heads -------------------------------------------------------------------------------------------------------------


@every_scheme
@pytest.mark.parametrize("bias", [False, True])
def test_head_is_its_transform_times_a_weight(scheme: str, bias: bool):
    embedding = nn.Embedding(30, 12).double()
    head = SharedHead(embedding, scheme=scheme, bias=bias, generator=generator())
    if bias:
        nn.init.normal_(head.bias, generator=generator(4))
    hidden, targets = normal(2, 5, 12), torch.randint(0, 30, (2, 5), generator=generator())
    scale = 12**-0.5 if scheme == "scaled" else 1.0
    logits = head(hidden)
    expected = scale * head.transform(hidden) @ head.weight.T + (head.bias if bias else 0)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(head.loss(hidden, targets), F.cross_entropy(logits.flatten(0, 1), targets.flatten()))
    assert (head.weight is embedding.weight) == (scheme != "untied")
    model = nn.ModuleDict({"embedding": embedding, "head": head})
    extra = {"untied": 30 * 12, "orthogonal": 144 + 12 * bias}.get(scheme, 0)
    assert sum(p.numel() for p in model.parameters()) == 360 + extra + 30 * bias
    if scheme in ("swap", "shuffle", "orthogonal", "untied") and not bias:
        torch.testing.assert_close(head.transform(hidden).norm(dim=-1), hidden.norm(dim=-1))


@every_scheme
def test_the_tie_survives_loading(scheme: str):
    make = lambda: nn.ModuleDict({"head": SharedHead(e := nn.Embedding(30, 12), scheme=scheme), "embedding": e})
    model, loaded = make(), make()
    loaded.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    assert (loaded["head"].weight is loaded["embedding"].weight) == (scheme != "untied")
    hidden = torch.randn(3, 12, generator=generator())
    torch.testing.assert_close(loaded["head"](hidden), model["head"](hidden))


def test_activation_stands_behind_the_projection():
    head = SharedHead(nn.Embedding(9, 4).double(), scheme="orthogonal", activation=F.gelu, bias=True)
    hidden = normal(3, 4)
    torch.testing.assert_close(head.transform(hidden), F.gelu(hidden @ head.proj.weight.T + head.proj.bias))


def test_head_fits_into_the_decoder():
    config = LMConfig(vocab_size=13, d_model=16, n_layers=1, n_heads=2)
    model = DecoderLM(config, generator=generator())
    head = SharedHead(model.embedding, scheme="orthogonal", generator=generator(1))
    transform = nn.Module()
    transform.proj, transform.forward = head.proj, head.transform
    other = DecoderLM(config, output_transform=transform, generator=generator())
    tokens = torch.randint(0, 13, (2, 6), generator=generator(2))
    torch.testing.assert_close(other(tokens), head(model(tokens, return_hidden=True)))


@every_scheme
def test_tied_gradient_is_the_sum_of_input_and_output_gradients(scheme: str):
    weight = normal(7, 6).requires_grad_()
    tokens, targets = torch.tensor([0, 3, 3]), torch.tensor([1, 2, 6])
    loss = F.cross_entropy(bigram_logits(weight, tokens, scheme=scheme, generator=generator()), targets)
    (grad,) = torch.autograd.grad(loss, weight)
    head = SharedHead(nn.Embedding.from_pretrained(weight.detach()), scheme=scheme, generator=generator())
    inside, outside = weight.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_()
    table = head.weight if scheme == "untied" else outside
    hidden = F.rms_norm(inside[tokens], (6,))
    apart = F.cross_entropy(head.logit_scale * head.transform(hidden) @ table.T, targets)
    grads = torch.autograd.grad(apart, (inside, outside), allow_unused=True)
    torch.testing.assert_close(grad, sum(g for g in grads if g is not None))
    assert (grad.abs().sum(1) > 0).all() == (scheme != "untied")


def test_swapped_bigrams_are_symmetric_up_to_the_norm():
    weight = normal(9, 8)
    weight = weight / weight.square().mean(1, keepdim=True).sqrt()
    logits = bigram_logits(weight, torch.arange(9), scheme="swap")
    torch.testing.assert_close(logits, logits.T)


@pytest.mark.parametrize("scheme", ["tied", "orthogonal"])
def test_factorised_embedding(scheme: str):
    torch.set_default_dtype(torch.float64)
    try:
        layer = FactorizedEmbedding(50, 4, 16, scheme=scheme, generator=generator())
    finally:
        torch.set_default_dtype(torch.float32)
    assert sum(p.numel() for p in layer.parameters()) == 50 * 4 + 4 * 16 * (1 + (scheme == "orthogonal"))
    tokens = torch.tensor([[1, 2], [3, 49]])
    hidden = layer(tokens)
    torch.testing.assert_close(hidden, layer.embedding.weight[tokens] @ layer.up.weight.T)
    torch.testing.assert_close(layer.up.weight.T @ layer.up.weight, torch.eye(4, dtype=torch.float64))
    back = layer.up.weight.T if scheme == "tied" else layer.down.weight
    torch.testing.assert_close(back @ back.T, torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(layer.attend(hidden), hidden @ back.T @ layer.embedding.weight.T)


# -- initial loss ------------------------------------------------------------------------------------------------------


def simulated(n: int, d: int, std: float, scheme: str, repeat: float = 0.0) -> float:
    """Mean loss of the bigram model on pairs of random tokens, a share of them repeated."""
    weight = std * torch.randn(n, d, generator=generator(7))
    tokens, targets = torch.randint(0, n, (2, 600), generator=generator(8))
    targets = torch.where(torch.rand(600, generator=generator(9)) < repeat, tokens, targets)
    logits = bigram_logits(weight, tokens, scheme=scheme, generator=generator(10))
    return F.cross_entropy(logits, targets).item()


@pytest.mark.parametrize(
    ("d", "std"), [(256, 256**-0.5), (1024, 1024**-0.5), (1024, 0.02), (256, math.log(4096) / 256)]
)
@every_scheme
def test_predicted_loss_is_the_simulated_one(d: int, std: float, scheme: str):
    spread = d**0.5 * std * (1 if scheme != "scaled" else d**-0.5) / math.sqrt(600)
    predicted = expected_initial_loss(4096, d, std, scheme=scheme)
    assert simulated(4096, d, std, scheme) == pytest.approx(
        predicted, abs=0.05 + 5 * spread + 0.02 * d * std * (scheme == "tied")
    )


def test_repeated_tokens_lower_the_tied_loss():
    d, std = 256, 256**-0.5
    for rho in (0.1, 0.5):
        predicted = expected_initial_loss(4096, d, std, repeat_prob=rho)
        assert simulated(4096, d, std, "tied", rho) == pytest.approx(predicted, abs=0.8)
        assert predicted == pytest.approx(expected_initial_loss(4096, d, std) - rho * d * std)


def test_limits_of_the_prediction():
    n, d = 8192, 256
    assert expected_initial_loss(n, d, 1e-12) == pytest.approx(math.log(n))
    assert expected_initial_loss(n, d, 1e6 / d, refined=False) == pytest.approx(1e6)
    assert math.isfinite(expected_initial_loss(n, d, 1e6))
    for factor in (0.999999, 1.000001):  # both branches of the largest logit meet
        std = factor * math.sqrt(2 * math.log(n - 1) / d)
        assert expected_initial_loss(n, d, std, scheme="swap") == pytest.approx(2 * math.log(n - 1), rel=1e-4)
    std = recommended_std(n, d)
    assert expected_initial_loss(n, d, std, refined=False) == pytest.approx(math.log(2 * n - 1))
    assert recommended_std(n, d, scheme="swap") == d**-0.5
    assert expected_initial_loss(n, d, 0.1, scheme="scaled") == expected_initial_loss(n, d, 0.1, logit_scale=d**-0.5)


def test_bad_sizes_are_named():
    embedding = nn.Embedding(5, 6)
    with as_users_call():
        for name, call in (
            ("scheme", lambda: expected_initial_loss(9, 4, 0.1, scheme="soft")),
            ("scheme", lambda: SharedHead(embedding, scheme="soft")),
            ("std", lambda: expected_initial_loss(9, 4, 0.0)),
            ("vocab_size", lambda: expected_initial_loss(1, 4, 0.1)),
            ("d", lambda: recommended_std(9, 0)),
            ("repeat_prob", lambda: expected_initial_loss(9, 4, 0.1, repeat_prob=1.1)),
            ("x", lambda: half_swap(torch.zeros(3))),
            ("embedding", lambda: SharedHead(nn.Embedding(5, 3), scheme="swap")),
            ("groups", lambda: SharedHead(embedding, scheme="shuffle", groups=4)),
            ("groups", lambda: SharedHead(embedding, scheme="shuffle", groups=6)),
            ("groups", lambda: SharedHead(nn.Embedding(5, 7), scheme="shuffle")),
            ("groups", lambda: SharedHead(embedding, groups=2)),
            ("activation", lambda: SharedHead(embedding, activation=F.gelu)),
            ("groups", lambda: channel_shuffle(torch.zeros(6), 1)),
            ("d_embed", lambda: FactorizedEmbedding(9, 5, 4)),
            ("scheme", lambda: FactorizedEmbedding(9, 2, 4, scheme="swap")),
            ("std", lambda: FactorizedEmbedding(9, 2, 4, std=-1.0)),
        ):
            with pytest.raises(ValueError, match=f"^{name}"):
                call()
