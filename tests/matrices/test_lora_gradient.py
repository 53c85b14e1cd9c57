"""lora_gradient: the factored layer against autograd on the product form, gradcheck and the definition."""

from __future__ import annotations

import pytest
import torch
from opinfo import as_users_call
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kexue_lib.matrices.lora_gradient import (
    LoRALinear,
    equivalent_gradient,
    lora_gradients,
    lora_linear,
    lora_training_flops,
)


def draws(*shapes: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def product_form(x: Tensor, weight: Tensor, A: Tensor, B: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    y = x @ (weight.mT + scale * A @ B)
    return y if bias is None else y + bias


class Sizes(TorchDispatchMode):
    """The number of elements of every tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor)}
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in known:
                self.made.append(t.numel())
        return out


@pytest.mark.parametrize(("n", "m", "r"), [(5, 3, 2), (3, 5, 1), (4, 4, 4), (1, 1, 1), (7, 1, 1)])
@pytest.mark.parametrize("rows", [(6,), (2, 3), (), (0,), (2, 0), (70,), (2, 35)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_values_and_gradients_are_those_of_the_product_form(n, m, r, rows, has_bias):
    tensors = draws((*rows, n), (m, n), (n, r), (r, m), *[(m,)] * has_bias)
    x, weight, A, B, bias = *tensors, *[None] * (not has_bias)
    ours, naive = lora_linear(x, weight, A, B, bias, 0.7), product_form(x, weight, A, B, bias, 0.7)
    torch.testing.assert_close(ours, naive, rtol=1e-12, atol=1e-12)
    (upstream,) = draws(tuple(ours.shape), seed=1)
    for got, expected in zip(
        torch.autograd.grad(ours, tensors, upstream), torch.autograd.grad(naive, tensors, upstream)
    ):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rows", [2, 65])  # below and above where the backward is one function
def test_first_and_second_derivatives_and_forward_mode(rows):
    tensors = draws((rows, 3), (2, 3), (3, 1), (1, 2), (2,))
    with as_users_call():
        assert torch.autograd.gradcheck(lambda *t: lora_linear(*t, 0.7), tensors, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(lambda *t: lora_linear(*t, 0.7), tensors)


@pytest.mark.parametrize("has_bias", [True, False])
def test_few_rows_of_a_large_weight(has_bias):
    tensors = draws((16, 1024), (512, 1024), (1024, 2), (2, 512), (512,))[: 4 + has_bias]
    ours = lora_linear(*tensors)
    naive = product_form(*tensors, *[None] * (not has_bias), 1.0)
    torch.testing.assert_close(ours, naive, rtol=1e-10, atol=1e-10)
    for got, expected in zip(
        torch.autograd.grad(ours.sin().sum(), tensors), torch.autograd.grad(naive.sin().sum(), tensors)
    ):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_vmap_over_everything_is_a_loop():
    tensors = draws((3, 2, 4), (3, 5, 4), (3, 4, 2), (3, 2, 5), (3, 5))
    with as_users_call():
        mapped = torch.func.vmap(lora_linear)(*tensors)
    loop = torch.stack([lora_linear(*(t[i] for t in tensors)) for i in range(3)])
    torch.testing.assert_close(mapped, loop, rtol=1e-13, atol=1e-13)


def test_strided_rows_and_mixed_needs_of_gradients():
    x, weight, A, B = draws((4, 6), (3, 6), (6, 2), (2, 3))
    rows = x.detach().mT.contiguous().mT
    for wanted in ([A], [B], [A, B], [weight]):
        got = torch.autograd.grad(lora_linear(rows, weight, A, B).square().sum(), wanted)
        expected = torch.autograd.grad(product_form(rows, weight, A, B, None, 1.0).square().sum(), wanted)
        for g, e in zip(got, expected):
            torch.testing.assert_close(g, e, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_other_dtypes_are_near_float64(dtype, tolerance):
    tensors = draws((8, 32), (16, 32), (32, 4), (4, 16), (16,))
    exact = lora_linear(*tensors, 0.5)
    got = lora_linear(*(t.to(dtype) for t in tensors), 0.5)
    assert got.dtype == dtype
    assert (got.double() - exact).abs().max() <= tolerance * exact.abs().max()


def test_autocast_gives_its_dtype_and_gradients_in_that_of_the_factors():
    tensors = draws((8, 32), (16, 32), (32, 4), (4, 16), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = lora_linear(*tensors)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert all(t.grad.dtype == torch.float32 for t in tensors)


@pytest.mark.parametrize("b", [5, 100])
def test_no_matrix_of_the_weights_size_is_made_in_a_training_step(b):
    n, m, r = 64, 48, 4
    layer = LoRALinear(nn.Linear(n, m), r)
    x = torch.ones(b, n, requires_grad=True)
    with Sizes() as sizes:
        layer(x).sum().backward()
    assert sizes.made
    assert n * m not in sizes.made
    assert layer.base.weight.grad is None

    with Sizes() as naive:  # the meter does see one where there is one
        product_form(x, layer.base.weight, layer.lora_A, layer.lora_B, layer.base.bias, 1.0).sum().backward()
    assert n * m in naive.made


def peak_bytes(run) -> int:
    """Highest sum of what a function allocates and frees, by the profiler's memory events."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize(("b", "share"), [(2, 8), (70, 0.5)])
def test_peak_memory_of_a_step_is_that_of_the_thin_matrices(b, share):
    n = m = 256
    layer, x = LoRALinear(nn.Linear(n, m), 4), torch.ones(b, n, requires_grad=True)
    peak = peak_bytes(lambda: layer(x).sum().backward())
    full = nn.Linear(n, m)
    full_peak = peak_bytes(lambda: full(x).sum().backward())
    assert full_peak >= 4 * n * m
    assert 0 < peak <= 4 * n * m / share
    assert peak < full_peak - 3 * n * m


@pytest.mark.parametrize("merged", [False, True])
def test_forward_compiles_without_graph_break(merged):
    with as_users_call():
        layer = LoRALinear(nn.Linear(6, 4), 2, init="both", alpha=3.0)
        if merged:
            layer.merge()
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(compiled(x), layer(x))
        if not merged:
            compiled(x).sum().backward()
            got = layer.lora_A.grad.clone()
            layer.zero_grad()
            layer(x).sum().backward()
            torch.testing.assert_close(got, layer.lora_A.grad)


def test_gradients_of_the_factors_from_that_of_the_matrix():
    W, A, B, X = draws((5, 4), (5, 2), (2, 4), (3, 5))
    loss = (X @ (W + 0.3 * A @ B)).sin().sum()
    G, expected_A, expected_B = torch.autograd.grad(loss, [W, A, B])
    got_A, got_B = lora_gradients(G, A, B, 0.3)
    torch.testing.assert_close(got_A, expected_A, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got_B, expected_B, rtol=1e-12, atol=1e-12)


def test_equivalent_gradient_is_the_derivative_along_the_step():
    A, B, H_A, H_B = draws((3, 5, 2), (3, 2, 4), (3, 5, 2), (3, 2, 4))
    _, derivative = torch.autograd.functional.jvp(lambda a, b: 0.3 * a @ b, (A, B), (H_A, H_B))
    torch.testing.assert_close(equivalent_gradient(H_A, H_B, A, B, 0.3), derivative, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("b", [7, 70])
def test_flops_are_those_that_torch_counts(b):
    from torch.utils.flop_counter import FlopCounterMode

    def in_place(_, left, right, out_shape=None, **options) -> int:  # torch counts products that allocate only
        return 2 * left[0] * left[1] * right[1]

    n, m, r = 12, 10, 3
    x, weight, A, B = draws((b, n), (m, n), (n, r), (r, m))
    runs = {
        "full": lambda: nn.functional.linear(x, weight),
        "product": lambda: product_form(x, weight.detach(), A, B, None, 1.0),
        "factored": lambda: lora_linear(x, weight.detach(), A, B),
    }
    for form, run in runs.items():
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place}) as counter:
            run().sum().backward()
        assert counter.get_total_flops() == lora_training_flops(b, n, m, r, form)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lora_linear(torch.ones(2, 3), torch.ones(4, 5), torch.ones(5, 1), torch.ones(1, 4)), ValueError,
         r"x: got shape \(2, 3\), expected \(..., 5\) as weight is \(4, 5\)"),
        (lambda: lora_linear(torch.ones(2, 5), torch.ones(4, 5), torch.ones(3, 1), torch.ones(1, 4)), ValueError,
         r"A: got shape \(3, 1\), expected \(5, r\)"),
        (lambda: lora_linear(torch.ones(2, 5), torch.ones(4, 5), torch.ones(5, 1), torch.ones(2, 4)), ValueError,
         r"B: got shape \(2, 4\), expected \(1, 4\) as A is \(5, 1\)"),
        (lambda: lora_linear(torch.ones(2, 5).long(), torch.ones(4, 5), torch.ones(5, 1), torch.ones(1, 4)), TypeError,
         "x: got torch.int64"),
        (lambda: lora_training_flops(1, 2, 3, 0, "full"), ValueError, "r: got 0"),
        (lambda: lora_training_flops(1, 2, 3, 1, "half"), ValueError, "form: got 'half'"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with as_users_call(), pytest.raises(error, match=message):
        call()
