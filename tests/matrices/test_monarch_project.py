"""monarch: the nearest matrix, by NumPy slice by slice and by descent over the factors; the layer, the conversion."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from opinfo import as_users_call
from torch import Tensor, nn

from kexue_lib.matrices.monarch import (
    MonarchLinear,
    convert_to_monarch,
    hadamard_monarch,
    monarch_dense,
    monarch_matmul,
    monarch_project,
)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def squared_error(M: Tensor, L: Tensor, R: Tensor) -> float:
    return (M - monarch_dense(L, R)).abs().square().sum().item()


def least_error(M: Tensor, K: int, J: int, q: int = 1) -> float:
    """The tails of the singular values of all slices, one NumPy decomposition each."""
    I, l = len(M) // J, M.shape[1] // K
    slices = M.numpy().reshape(I, J, K, l)
    tails = [np.linalg.svd(slices[:, j, k], compute_uv=False)[q:] for j in range(J) for k in range(K)]
    return float(sum((s**2).sum() for s in tails))


@pytest.mark.parametrize("q", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize(("K", "J"), [(2, 4), (4, 2), (1, 1), (4, 4)])
def test_error_is_the_tail_of_the_singular_values_of_the_slices(K: int, J: int, q: int, dtype: torch.dtype):
    M = normal(12, 16, dtype=dtype)
    L, R = monarch_project(M, K, J, rank=q)
    assert squared_error(M, L, R) == pytest.approx(least_error(M, K, J, q), rel=1e-10, abs=1e-20)
    # balanced: each slice has equal norms in both factors, whatever its phase
    I, l = 12 // J, 16 // K
    of_L = L.view(J, I, K, q).abs().square().sum(1)
    torch.testing.assert_close(of_L.transpose(0, 1), R.view(K, J, q, l).abs().square().sum(-1))


def test_descent_over_the_factors_finds_nothing_better():
    M = normal(9, 12)
    least = least_error(M, 3, 3)
    found = []
    for seed in range(5):
        pair = [normal(3, 3, 3, seed=10 + seed).requires_grad_(), normal(3, 3, 4, seed=20 + seed).requires_grad_()]
        optimizer = torch.optim.LBFGS(pair, max_iter=2000, tolerance_grad=1e-12, tolerance_change=0)
        optimizer.param_groups[0]["line_search_fn"] = "strong_wolfe"

        def closure(pair=pair, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (M - monarch_dense(*pair)).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        found.append(closure().item())
    assert min(found) == pytest.approx(least, rel=1e-8)
    assert all(f > least * (1 - 1e-12) for f in found)


@pytest.mark.parametrize("shape", [(256, 256, 16, 16), (96, 256, 8, 4), (256, 96, 4, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_power_method_is_within_its_promise(shape: tuple[int, ...], dtype: torch.dtype):
    rows, columns, K, J = shape
    for seed in range(3):
        M = normal(rows, columns, seed=seed).to(dtype)
        L, R = (f.double() for f in monarch_project(M, K, J, method="power"))
        assert squared_error(M.double(), L, R) / least_error(M.double(), K, J) - 1 < 1e-5


def test_power_method_at_ties_zeros_and_extreme_scales():
    identity = torch.eye(16, dtype=torch.float64)
    stride = torch.eye(16, dtype=torch.float64).view(4, 4, 16).transpose(0, 1).reshape(16, 16)  # slices I or 0
    for M in (identity, 0 * identity, stride, 1e-30 * normal(16, 16), 1e30 * normal(16, 16), 1e-30 * stride.float()):
        L, R = monarch_project(M, 4, method="power")
        assert L.isfinite().all()
        assert R.isfinite().all()
        scale = max(M.abs().max().item(), 1e-300)
        gap = (M.double() - monarch_dense(L.double(), R.double())) / scale
        least = least_error(M.double() / scale, 4, 4)
        assert gap.square().sum().item() == pytest.approx(least, rel=1e-5, abs=1e-12)


def test_projection_leaves_monarch_matrices_alone_in_half_types_too():
    H = monarch_dense(*hadamard_monarch(64, 8))
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for method in ("svd", "power"):
            L, R = monarch_project(H.to(dtype), 8, method=method)
            assert L.dtype == R.dtype == dtype
            torch.testing.assert_close(monarch_dense(L.double(), R.double()), H.double(), rtol=0.02, atol=0)


@pytest.mark.parametrize("sizes", [(64, 64), (10, 7), (7, 10), (1, 5), (13, 1), (100, 60), (17, 23)])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_of_every_shape_computes_what_its_dense_weight_says(sizes: tuple[int, int], bias: bool):
    layer = MonarchLinear(*sizes, bias=bias, dtype=torch.float64)
    x = normal(2, 3, sizes[0])
    expected = x @ layer.weight_dense().mT + (layer.bias if bias else 0)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.to_linear()(x), expected)


@pytest.mark.parametrize(
    ("n", "m", "K", "J", "q"), [(10, 7, 3, 2, 1), (10, 7, 3, 2, 2), (17, 23, 4, 5, 1), (9, 9, 3, 3, 2)]
)
def test_conversion_is_nearest_in_spite_of_padding(n: int, m: int, K: int, J: int, q: int):
    """The tails of slices that keep only what lies inside of the weight."""
    linear = nn.Linear(n, m, dtype=torch.float64)
    layer = MonarchLinear.from_linear(linear, K, J, rank=q)
    l = -(-n // K)
    W = linear.weight.detach().numpy()
    slices = [W[j::J, k * l : (k + 1) * l] for j in range(J) for k in range(K)]
    least = sum((np.linalg.svd(s, compute_uv=False)[q:] ** 2).sum() for s in slices if s.size)
    gap = (linear.weight - layer.weight_dense()).square().sum().item()
    assert gap == pytest.approx(least, rel=1e-9, abs=1e-20)
    assert torch.equal(layer.bias, linear.bias)


def test_initial_weight_has_the_variance_of_a_linear_layer_shared_by_the_factors():
    torch.manual_seed(0)
    for n, m, q in ((256, 256, 1), (300, 500, 2), (1000, 90, 1)):
        layers = [MonarchLinear(n, m, rank=q) for _ in range(30)]
        variance = torch.stack([layer.weight_dense().square().mean() for layer in layers]).mean() * 3 * n
        gains = [
            torch.stack([f.square().mean() for f in fs]).mean() * fs[0].shape[2]
            for fs in ([layer.L for layer in layers], [layer.R for layer in layers])
        ]
        assert variance.item() == pytest.approx(1, abs=0.03)
        assert (gains[0] / gains[1]).item() == pytest.approx(1, abs=0.03)


def test_layer_with_one_block_is_a_layer_of_low_rank():
    layer = MonarchLinear(30, 20, 1, 1, rank=3)
    assert torch.linalg.matrix_rank(layer.weight_dense()) == 3
    assert layer.L.numel() + layer.R.numel() == 3 * (30 + 20)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(20, 20), nn.Linear(20, 8)
        self.again = self.first
        self.inner = nn.ModuleDict({"first": nn.Linear(20, 20)})

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner["first"](self.again(self.first(x))))


def test_conversion_of_a_model_replaces_the_targets_and_keeps_shared_layers_shared():
    model = Model()
    before = copy.deepcopy(model)
    names = convert_to_monarch(model, targets=["first"], nblocks=4, rank=5)
    assert names == ["first", "inner.first"]
    assert isinstance(model.first, MonarchLinear)
    assert type(model.last) is nn.Linear
    x = normal(3, 20, dtype=torch.float32)
    torch.testing.assert_close(model(x), before(x), rtol=1e-4, atol=1e-5)  # slices 5 x 5 of rank 5: exact


def test_conversion_of_all_layers_from_a_fresh_start():
    model = Model()
    assert convert_to_monarch(model, project=False) == ["first", "last", "again", "inner.first"]
    assert model.again is model.first
    model(normal(3, 20, dtype=torch.float32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_bad_input_is_named_and_leaves_the_model_alone():
    tied = nn.Sequential(nn.Embedding(8, 8), nn.Linear(8, 8))
    tied[1].weight = tied[0].weight
    cases = [
        (ValueError, lambda: convert_to_monarch(Model(), targets=["third"]), r"targets: got \['third'\]"),
        (ValueError, lambda: convert_to_monarch(nn.Sequential(nn.ReLU())), "model: got no nn.Linear"),
        (ValueError, lambda: convert_to_monarch(tied), r"targets: got '1', whose weight '0' holds too"),
        (TypeError, lambda: MonarchLinear.from_linear(nn.ReLU()), "linear: got ReLU, expected nn.Linear"),
        (ValueError, lambda: MonarchLinear(9, 9, 10), r"nblocks_in: got 10, expected at most in_features = 9"),
        (ValueError, lambda: MonarchLinear(9, 9, 3, 3, rank=4), r"rank: got 4, expected at most min\(I, l\) = 3"),
        (ValueError, lambda: MonarchLinear(9, 9)(torch.zeros(2, 8)), r"x: got shape \(2, 8\), expected \(\.\.\., 9\)"),
        (TypeError, lambda: MonarchLinear(9.0, 9), "in_features: got 9.0, expected an integer"),
    ]
    with as_users_call():
        for error, call, words in cases:
            with pytest.raises(error, match=words):
                call()
    model = Model()
    with pytest.raises(ValueError, match="rank"):
        convert_to_monarch(model, nblocks=4, rank=3)
    assert not any(isinstance(m, MonarchLinear) for m in model.modules())


def test_dense_and_structured_products_agree_after_training_steps():
    torch.manual_seed(0)
    layer = MonarchLinear(12, 12)
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)
    x, H = normal(64, 12).float(), normal(12, 12, seed=3).float() / 4
    losses = []
    for _ in range(200):
        loss = (layer(x) - x @ H.mT).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    torch.testing.assert_close(monarch_matmul(x, layer.L, layer.R), x @ layer.weight_dense().mT, rtol=1e-4, atol=1e-5)
