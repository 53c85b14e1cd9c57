"""The multilayer perceptron has PyTorch's default initialisation, from the generator that it is given."""

import pytest
import torch
from torch import nn

from kexue_lib.mlp import mlp


def test_equal_generators_give_equal_networks_and_leave_the_global_one_alone():
    state = torch.get_rng_state()
    a, b = (mlp([3, 5, 2], generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    assert torch.equal(state, torch.get_rng_state())


def test_initialisation_has_the_distribution_of_pytorch():
    ours = mlp([400, 300], generator=torch.Generator().manual_seed(0))[0]
    theirs = nn.Linear(400, 300)
    for p, q in zip(ours.parameters(), theirs.parameters()):
        assert p.abs().max() <= 1 / 20
        assert p.std().item() == pytest.approx(q.std().item(), rel=0.1)


def test_layers_alternate_and_end_linear():
    layers = mlp([2, 3, 4, 1], activation=nn.Tanh, bias=False)
    assert [type(m) for m in layers] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    assert all(m.bias is None for m in layers if isinstance(m, nn.Linear))


@pytest.mark.parametrize("sizes", [[], [3], [3, 0], [2, -1, 3]])
def test_bad_sizes_are_named(sizes):
    with pytest.raises(ValueError, match="sizes"):
        mlp(sizes)


def test_true_is_no_size():
    with pytest.raises(TypeError, match=r"sizes\[1\]: got True"):
        mlp([2, True])
