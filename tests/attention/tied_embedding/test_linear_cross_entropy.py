"""The loss in chunks against PyTorch's cross-entropy of all logits."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from attention.tied_embedding.seeded_inputs import generator, normal
from torch import Tensor

from kexue_lib.attention.tied_embedding import _linear_cross_entropy, linear_cross_entropy


def plain(hidden, weight, targets, bias=None, scale=1.0, ignore_index=-100, reduction="mean", z_loss=0.0) -> Tensor:
    logits = scale * (hidden @ weight.T) + (0 if bias is None else bias)
    each = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=ignore_index, reduction="none")
    counted = targets.flatten() != ignore_index
    each = each + z_loss * logits.logsumexp(-1).flatten().square() * counted
    if reduction == "none":
        return each.view(targets.shape)
    return each.sum() / (counted.sum().clamp(min=1) if reduction == "mean" else 1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("chunk_size", [1, 5, 14, 1000])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("biased", [False, True])
def test_loss_and_gradients_are_those_of_all_logits(reduction: str, chunk_size: int, z_loss: float, biased: bool):
    leaves = [normal(2, 7, 6), normal(11, 6, seed=2), normal(11, seed=3)][: 2 + biased]
    targets = torch.randint(0, 11, (2, 7), generator=generator())
    targets[0, 2:4] = -100
    options = {"scale": 0.7, "reduction": reduction, "z_loss": z_loss}
    results = []
    for function, more in ((linear_cross_entropy, {"chunk_size": chunk_size}), (plain, {})):
        h, w, *b = (t.clone().requires_grad_() for t in leaves)
        out = function(h, w, targets, bias=b[0] if biased else None, **options, **more)
        weights = normal(*out.shape, seed=9) if reduction == "none" else torch.tensor(1.7, dtype=torch.float64)
        results.append([out.detach(), *torch.autograd.grad((out * weights).sum(), [h, w, *b])])
    for actual, expected in zip(*results):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)


def test_only_what_is_needed_is_differentiated():
    targets = torch.tensor([0, 1, 2])
    for needs in itertools.product((False, True), repeat=2):
        h, w = normal(3, 4).requires_grad_(needs[0]), normal(5, 4).requires_grad_(needs[1])
        out = linear_cross_entropy(h, w, targets)
        assert out.requires_grad == any(needs)
        if any(needs):
            out.backward()
        assert (h.grad is not None, w.grad is not None) == needs


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ignored_rows_leave_no_trace(reduction: str):
    h, w = normal(4, 3).requires_grad_(), normal(5, 3).requires_grad_()
    with torch.no_grad():
        h[1] = math.nan
        h[2] = math.inf
    targets = torch.tensor([1, 9, 9, 4])
    out = linear_cross_entropy(h, w, targets, ignore_index=9, reduction=reduction)
    out.sum().backward()
    assert h.grad[1:3].eq(0).all()
    assert w.grad.isfinite().all()
    ignored = linear_cross_entropy(h, w, torch.full((4,), 9), ignore_index=9, reduction=reduction)
    assert ignored.eq(0).all()
    grads = torch.autograd.grad(ignored.sum(), (h, w))
    assert all(g.eq(0).all() for g in grads)
    empty = linear_cross_entropy(normal(0, 3), w, torch.zeros(0, dtype=torch.long), reduction="sum")
    assert empty.item() == 0


def test_half_precision_accumulates_in_float32():
    hidden, weight = torch.randn(300, 32, generator=generator()), torch.randn(999, 32, generator=generator(1)) / 6
    targets = torch.randint(0, 999, (300,), generator=generator(2))
    h, w = (t.bfloat16().requires_grad_() for t in (hidden, weight))
    exact = [t.detach().double().requires_grad_() for t in (h, w)]
    out, expected = linear_cross_entropy(h, w, targets, chunk_size=7), plain(*exact, targets)
    assert out.dtype == torch.float32
    assert out.item() == pytest.approx(expected.item(), rel=2e-3)
    for actual, wanted in zip(torch.autograd.grad(out, (h, w)), torch.autograd.grad(expected, exact)):
        assert actual.dtype == torch.bfloat16
        assert (actual.double() - wanted).norm() < 0.01 * wanted.norm()


def test_huge_logits_overflow_nothing():
    h, w = torch.tensor([[1e4, -1e4]]).requires_grad_(), torch.tensor([[1e3, 0.0], [0.0, 1e3], [0.0, 0.0]])
    out = linear_cross_entropy(h, w, torch.tensor([1]))
    assert out.item() == 2e7
    assert torch.equal(torch.autograd.grad(out, h)[0], torch.tensor([[1e3, -1e3]]))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("soft_cap", [None, 2.0])
def test_smoothing_soft_cap_and_learnable_scale(reduction: str, smoothing: float, soft_cap: float | None):
    targets = torch.tensor([3, -100, 0, 10, 4])
    results = []
    for ours in (True, False):
        h, w, s = (x.requires_grad_() for x in (normal(5, 6), normal(11, 6, seed=2), torch.tensor(1.3).double()))
        if ours:
            options = {"label_smoothing": smoothing, "soft_cap": soft_cap, "z_loss": 0.05, "chunk_size": 2}
            out = linear_cross_entropy(h, w, targets, scale=s, reduction=reduction, **options)
        else:
            z = s * (h @ w.T)
            z = z if soft_cap is None else soft_cap * torch.tanh(z / soft_cap)
            out = F.cross_entropy(z, targets, label_smoothing=smoothing, reduction="none")
            out = out + 0.05 * z.logsumexp(-1).square() * (targets != -100)
            out = {"mean": out.sum() / 4, "sum": out.sum(), "none": out}[reduction]
        weights = normal(*out.shape, seed=9) if reduction == "none" else 1.0
        results.append([out.detach(), *torch.autograd.grad((out * weights).sum(), [h, w, s])])
    for actual, expected in zip(*results):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("factor", [1.0, 1024.0, 65536.0])
def test_half_gradients_are_as_good_as_those_of_all_logits(reduction: str, factor: float):
    """2048 rows and 4000 tokens: divided by the rows, entries of the softmax are below the least half number."""
    draw = torch.Generator().manual_seed(0)
    h, w = torch.randn(2048, 16, generator=draw).half(), torch.randn(4000, 16, generator=draw).half()
    targets = torch.randint(4000, (2048,), generator=draw)
    grads = []
    for function, dtype in ((linear_cross_entropy, torch.float16), (plain, torch.float64)):
        leaves = [x.to(dtype).requires_grad_() for x in (h, w)]
        out = function(*leaves, targets, reduction=reduction)
        grads.append(torch.autograd.grad(out.mean() * factor, leaves))
    for actual, expected in zip(*grads):
        error = (actual.double() - expected).norm() / expected.norm()
        assert error < 1e-3 * (50 if factor == 1.0 else 1)  # at scale 1 the gradients themselves leave the half range


def test_sums_of_half_rows_stay_finite():
    h = torch.full((1024, 2), 300.0).half()
    w = torch.zeros(3, 2).half().requires_grad_()
    linear_cross_entropy(h, w, torch.zeros(1024, dtype=torch.long)).backward()
    torch.testing.assert_close(w.grad, torch.tensor([[-200.0] * 2, [100.0] * 2, [100.0] * 2]).half(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_reaches_nothing(dtype: torch.dtype):
    h, w = normal(6, 8).to(dtype).requires_grad_(), normal(11, 8).float().requires_grad_()
    targets = torch.arange(6)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(h, w, targets)
    expected = F.cross_entropy(h.float() @ w.T, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    for actual, wanted in zip(torch.autograd.grad(loss, (h, w)), torch.autograd.grad(expected, (h, w))):
        torch.testing.assert_close(actual, wanted)


def test_without_gradients_none_are_made(monkeypatch):
    h, w, targets = normal(4, 3).requires_grad_(), normal(5, 3).requires_grad_(), torch.arange(4)
    expected = linear_cross_entropy(h, w, targets).detach()
    monkeypatch.setattr(_linear_cross_entropy, "_add_product", None)
    with pytest.raises(TypeError):
        linear_cross_entropy(h, w, targets)
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(h, w, targets), expected, rtol=0, atol=0)


def test_function_transforms():
    h, w, targets = normal(4, 3), normal(5, 3), torch.tensor([0, -100, 4, 1])
    loss = lambda h: linear_cross_entropy(h, w, targets, z_loss=0.1, soft_cap=3.0, label_smoothing=0.2)
    leaf = h.clone().requires_grad_()
    torch.testing.assert_close(torch.func.grad(loss)(h), torch.autograd.grad(loss(leaf), leaf)[0])
    step = 1e-6 * normal(4, 3, seed=7)
    tangent = torch.func.jvp(loss, (h,), (step,))[1]
    torch.testing.assert_close(tangent, (loss(h + step) - loss(h - step)) / 2, rtol=1e-6, atol=0)
    rowwise = torch.func.vmap(lambda h, t: linear_cross_entropy(h[None], w, t[None], reduction="sum"))(h, targets)
    torch.testing.assert_close(rowwise, linear_cross_entropy(h, w, targets, reduction="none"))


def test_second_derivative_is_refused():
    h = normal(3, 4).requires_grad_()
    (grad,) = torch.autograd.grad(linear_cross_entropy(h, normal(5, 4), torch.tensor([0, 1, 2])), h, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(grad.sum(), h)


def test_a_chunk_of_logits_is_all_that_is_held():
    """Peak of tensors alive during forward and backward, counted by the profiler, against all logits."""
    rows, n, d, chunk = 1024, 8192, 16, 64
    h, w = torch.randn(rows, d, requires_grad=True), torch.randn(n, d, requires_grad=True)
    targets = torch.randint(0, n, (rows,))
    peaks = []
    for loss in (
        lambda: linear_cross_entropy(h, w, targets, chunk_size=chunk),
        lambda: F.cross_entropy(h @ w.T, targets),
    ):
        with torch.profiler.profile(profile_memory=True) as profile:
            loss().backward()
        h.grad = w.grad = None
        level = highest = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                level += event.nbytes()
                highest = max(highest, level)
        peaks.append(highest)
    assert peaks[0] < 4 * (chunk * n + n * d + rows * d) * 3
    assert peaks[0] < 0.15 * peaks[1]
