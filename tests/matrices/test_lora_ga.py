"""lora_ga, its linear algebra: against NumPy's decomposition, brute force, and scikit-learn's random projection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opinfo import as_users_call
from sklearn.utils.extmath import randomized_svd as sklearn_svd
from torch import Tensor

from kexue_lib.matrices.lora_ga import (
    GradientSketch,
    adam_alignment_loss,
    alignment_loss,
    alignment_optimum,
    first_step_direction,
    lora_ga_adam_factors,
    lora_ga_factors,
    randomized_svd,
    stable_factor,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def low_rank(n: int, m: int, rank: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return normal(n, rank, seed=seed, dtype=dtype) @ normal(rank, m, seed=seed + 1, dtype=dtype)


def decaying(n: int, m: int, seed: int = 0) -> Tensor:
    """Singular values 1, 1/2, 1/3, …"""
    k = min(n, m)
    left, right = (torch.linalg.qr(normal(size, k, seed=seed + size))[0] for size in (n, m))
    return left / torch.arange(1, k + 1) @ right.mT


def is_orthonormal(A: Tensor, B: Tensor, tol: float = 1e-10) -> bool:
    eye = torch.eye(A.shape[-1], dtype=A.dtype)
    return bool((A.mT @ A - eye).abs().max() < tol and (B @ B.mT - eye).abs().max() < tol)


# --- the objective ----------------------------------------------------------------------------------------------------
def test_direction_is_the_derivative_of_a_step_of_sgd_on_both_factors():
    X, W, T = normal(9, 5), normal(5, 4, seed=1), normal(9, 4, seed=2)
    A, B = (x.requires_grad_() for x in (normal(5, 2, seed=3), normal(2, 4, seed=4)))
    full = W.clone().requires_grad_()
    loss = lambda weight: (X @ weight - T).square().mean()
    loss(full).backward()
    loss(W - (A @ B).detach() + A @ B).backward()
    eta = 1e-6
    step = (A - eta * A.grad) @ (B - eta * B.grad) - A @ B
    expected = first_step_direction(full.grad, A.detach(), B.detach())
    torch.testing.assert_close(-step.detach() / eta, expected, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 50), st.sampled_from(["left", "right", "alternate"]))
def test_every_split_attains_the_optimum_of_numpy(n: int, m: int, seed: int, split: str):
    G = normal(n, m, seed=seed)
    for rank in range(1, min(n, m) // 2 + 1):
        A, B = lora_ga_factors(G, rank, split=split)
        values = np.linalg.svd(G.numpy(), compute_uv=False)
        best = (values[2 * rank :] ** 2).sum()
        assert abs(alignment_loss(G, A, B).item() - best) < 1e-10 * values[0] ** 2
        assert abs(alignment_optimum(G, rank).item() - best) < 1e-10 * values[0] ** 2
        assert is_orthonormal(A, B)


def test_no_descent_from_random_starts_goes_below_the_optimum_and_the_best_comes_to_it():
    G, reached = normal(7, 5), []
    best = alignment_optimum(G, 2).item()
    for seed in range(6):
        A, B = (x.requires_grad_() for x in (normal(7, 2, seed=seed + 10), normal(2, 5, seed=seed + 20)))
        optimizer = torch.optim.LBFGS(
            [A, B], max_iter=400, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def closure(A=A, B=B, optimizer=optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = alignment_loss(G, A, B)
            loss.backward()
            return loss

        optimizer.step(closure)
        reached.append((alignment_loss(G, A, B).item(), is_orthonormal(A.detach(), B.detach(), tol=1e-3)))
    assert min(reached)[0] == pytest.approx(best, rel=1e-6)
    assert all(loss > best * (1 - 1e-9) for loss, _ in reached)
    # Nothing asked for orthonormal factors; the optimum has no others.
    assert all(orthonormal for loss, orthonormal in reached if loss < best * (1 + 1e-6))


def test_overlapping_components_are_as_bad_as_no_step():
    G = normal(6, 8)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    loss = alignment_loss(G, U[:, :3], Vh[:3])
    torch.testing.assert_close(loss, G.square().sum())


def test_batches_are_decomposed_one_by_one():
    G = normal(2, 3, 8, 6)
    A, B = lora_ga_factors(G, 2, factor=3.0)
    assert A.shape == (2, 3, 8, 2)
    assert B.shape == (2, 3, 2, 6)
    one = lora_ga_factors(G[1, 2], 2)
    torch.testing.assert_close(A[1, 2] @ A[1, 2].mT, 9 * one[0] @ one[0].mT)
    torch.testing.assert_close(alignment_loss(G, A / 3, B / 3), alignment_optimum(G, 2))


# --- what gradients look like in practice -----------------------------------------------------------------------------
@pytest.mark.parametrize("svd", ["exact", "randomized"])
@pytest.mark.parametrize("rank_of_G", [0, 1, 3])
def test_dead_and_rank_deficient_layers_get_orthonormal_factors(svd: str, rank_of_G: int):
    G = low_rank(60, 40, rank_of_G)
    A, B = lora_ga_factors(G, 4, svd=svd, generator=seeded())
    assert is_orthonormal(A, B)
    assert alignment_loss(G, A, B).item() < 1e-20 * max(1.0, G.square().sum().item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_gradients_give_float32_factors_of_the_same_quality(dtype: torch.dtype):
    G = decaying(50, 40).to(dtype)
    A, B = lora_ga_factors(G, 3)
    assert A.dtype == B.dtype == torch.float32
    assert is_orthonormal(A, B, tol=1e-5)
    best = alignment_optimum(G.double(), 3).item()
    assert alignment_loss(G.double(), A.double(), B.double()).item() < best * (1 + 1e-5)


@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
def test_random_projection_is_within_a_hundredth_of_the_optimal_loss(shape: tuple[int, int]):
    G = decaying(*shape)
    A, B = lora_ga_factors(G, 8, svd="randomized", generator=seeded())
    assert alignment_loss(G, A, B).item() < 1.01 * alignment_optimum(G, 8).item()
    U, _, Vh = randomized_svd(G, 16, generator=seeded())
    assert is_orthonormal(U, Vh)
    exact = np.linalg.svd(G.numpy(), compute_uv=False)[:16]
    options = {"n_oversamples": 8, "n_iter": 2, "power_iteration_normalizer": "QR"}
    theirs = [sklearn_svd(G.numpy(), 16, random_state=seed, **options)[1] for seed in range(60)]
    ours = [randomized_svd(G, 16, generator=seeded(seed))[1].numpy() for seed in range(60)]
    errors = [np.abs(np.stack(values) - exact).sum(1).mean() for values in (ours, theirs)]
    assert errors[0] < 1.3 * errors[1]  # their means scatter by a tenth


def test_random_projection_is_exact_for_low_rank_and_for_enough_columns():
    G = low_rank(80, 50, 6)
    for matrix, options in ((G, {}), (normal(30, 20), {"oversample": 14})):
        U, S, Vh = randomized_svd(matrix, 6, generator=seeded(), **options)
        np.testing.assert_allclose(S.numpy(), np.linalg.svd(matrix.numpy(), compute_uv=False)[:6], rtol=1e-10)
        np.testing.assert_allclose(((U * S) @ Vh).norm().item(), S.norm().item(), rtol=1e-10)


def test_auto_takes_the_random_projection_for_large_matrices_only():
    small, large = normal(40, 40), normal(200, 200)
    for G, word in ((small, "exact"), (large, "randomized")):
        one = lora_ga_factors(G, 2, generator=seeded())
        other = lora_ga_factors(G, 2, svd=word, generator=seeded())
        assert torch.equal(one[0], other[0])


# --- Adam -------------------------------------------------------------------------------------------------------------
def test_direct_search_ends_no_worse_than_its_starts_at_any_scale():
    for seed in range(5):
        G = normal(12, 9, seed=seed)
        found = adam_alignment_loss(G, *lora_ga_adam_factors(G, 2, method="direct")).item()
        for method in ("sgd", "sign"):
            A, B = lora_ga_adam_factors(G, 2, method=method)
            others = [adam_alignment_loss(G, c * A, c * B).item() for c in np.linspace(0.1, 3, 60)]
            assert found <= min(others) + 1e-9
        assert found >= alignment_optimum(G.sign(), 2).item() - 1e-9


def test_the_sign_method_decomposes_the_signs():
    G = normal(12, 9)
    A, B = lora_ga_adam_factors(G, 2, method="sign")
    torch.testing.assert_close(alignment_loss(G.sign(), A, B), alignment_optimum(G.sign(), 2))


def test_adam_of_torch_moves_as_the_loss_says():
    G = normal(6, 5)
    A, B = (x.requires_grad_() for x in (normal(6, 2, seed=1), normal(2, 5, seed=2)))
    optimizer = torch.optim.Adam([A, B], lr=1e-7, eps=0.0)
    before = (A @ B).detach()
    (G * (A @ B)).sum().backward()
    A0, B0 = A.detach().clone(), B.detach().clone()
    optimizer.step()
    step = -((A @ B).detach() - before) / 1e-7
    torch.testing.assert_close((step - G.sign()).square().sum(), adam_alignment_loss(G, A0, B0), rtol=1e-5, atol=1e-5)


def test_a_zero_gradient_and_no_steps_are_allowed_in_the_direct_search():
    A, B = lora_ga_adam_factors(torch.zeros(6, 5), 2, method="direct", steps=0)
    assert bool(torch.isfinite(A).all() and torch.isfinite(B).all())


# --- the scale --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("n", "m", "rank"), [(64, 32, 4), (32, 96, 8)])
def test_stable_factor_makes_the_offset_s_output_independent_of_the_sizes(n: int, m: int, rank: int):
    A, B = lora_ga_factors(normal(n, m), rank)
    alpha, gamma = 8.0, 4.0
    scale = stable_factor(m, gamma)
    x = normal(20000, n, seed=3)
    variance = (alpha / rank**0.5 * (x @ (scale * A)) @ (scale * B)).var().item()
    assert variance == pytest.approx(alpha**2 / gamma**2, rel=0.03)


# --- the sketch -------------------------------------------------------------------------------------------------------
def test_sketch_of_micro_batches_reconstructs_a_gradient_of_low_rank():
    X, dY = normal(12, 40, dtype=torch.float32), normal(12, 30, seed=1, dtype=torch.float32)
    sketch = GradientSketch(40, 30, 4, oversample=8, generator=seeded())
    for rows in (slice(0, 5), slice(5, 12)):
        sketch.update(X[rows], dY[rows])
    U, S, Vh = sketch.svd(12)
    G = (X.mT @ dY).double()
    assert ((U * S @ Vh).double() - G).norm() < 1e-5 * G.norm()
    assert is_orthonormal(U, Vh, tol=1e-5)


def test_sketch_of_a_full_gradient_aligns_nearly_as_well_as_the_gradient():
    G = decaying(200, 150)
    sketch = GradientSketch(200, 150, 8, oversample=16, generator=seeded(), dtype=torch.float64)
    sketch.update(torch.eye(200, dtype=torch.float64), G)
    U, _, Vh = sketch.svd(8)
    loss, best = alignment_loss(G, U[:, :4], Vh[4:]).item(), alignment_optimum(G, 4).item()
    assert best < loss < 1.5 * best


def test_sketch_of_nothing_is_orthonormal():
    U, S, Vh = GradientSketch(10, 8, 4, generator=seeded(), dtype=torch.float64).svd(4)
    assert is_orthonormal(U, Vh)
    assert S.abs().max() == 0


# --- bad input --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: lora_ga_factors(torch.eye(4), 3), ValueError, r"rank: got 3"),
        (lambda: lora_ga_factors(torch.eye(4), 0), ValueError, r"rank: got 0"),
        (lambda: lora_ga_factors(torch.eye(4), 1.0), TypeError, r"rank: got 1.0"),
        (lambda: lora_ga_factors(torch.eye(4) / 0, 1), ValueError, r"G: got an entry that is not finite"),
        (lambda: lora_ga_factors(torch.ones(4), 1), ValueError, r"G: got shape \(4,\)"),
        (lambda: lora_ga_factors(torch.ones(4, 4, dtype=torch.int64), 1), TypeError, r"G: got torch.int64"),
        (lambda: lora_ga_factors(torch.eye(4), 1, split="up"), ValueError, r"split: got 'up'"),
        (lambda: lora_ga_factors(torch.eye(4), 1, svd="fast"), ValueError, r"svd: got 'fast'"),
        (lambda: lora_ga_factors(torch.eye(4), 1, factor=float("inf")), ValueError, r"factor: got inf"),
        (lambda: lora_ga_adam_factors(torch.eye(4), 1, method="x"), ValueError, r"method: got 'x'"),
        (lambda: lora_ga_adam_factors(torch.eye(4), 1, steps=-1), ValueError, r"steps: got -1"),
        (lambda: randomized_svd(torch.eye(4), 5), ValueError, r"k: got 5"),
        (lambda: randomized_svd(torch.eye(4), 1, oversample=-1), ValueError, r"oversample: got -1"),
        (lambda: randomized_svd(torch.eye(4), 1, n_iter=-1), ValueError, r"n_iter: got -1"),
        (lambda: stable_factor(4, 0.0), ValueError, r"gamma: got 0.0"),
        (lambda: stable_factor(0), ValueError, r"out_features: got 0"),
        (lambda: GradientSketch(4, 3, 4), ValueError, r"rank: got 4"),
        (lambda: GradientSketch(4, 3, 1).update(torch.ones(2, 3), torch.ones(2, 3)), ValueError, r"X: got shape"),
        (lambda: GradientSketch(4, 3, 1).update(torch.ones(2, 4), torch.ones(1, 3)), ValueError, r"dY: got shape"),
        (lambda: GradientSketch(40, 30, 1, oversample=2).svd(4), ValueError, r"k: got 4"),
    ],
)
def test_bad_input_is_named(call, error: type[Exception], words: str):
    with as_users_call(), pytest.raises(error, match=words):
        call()
