"""Derivatives and the fused kernel, against plain autograd."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
from distributions.squareplus.functions import FUNCTIONS, every_dtype, every_function, normal, wide_range
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from kexue_lib.distributions.squareplus import _kernels as kernels
from kexue_lib.distributions.squareplus import squareplus

# -- derivatives -------------------------------------------------------------------------------------------------------


SHAPES_OF_B = [(), (1,), (4,), (3, 1), (2, 3, 4)]


@every_function
@pytest.mark.parametrize("shape", SHAPES_OF_B)
def test_first_and_second_derivatives(name: str, shape: tuple[int, ...]):
    x = (2 * normal(3, 4)).requires_grad_()
    b = (0.3 + normal(1, *shape, seed=1)[0].abs()).requires_grad_()
    assert gradcheck(FUNCTIONS[name], (x, b), check_forward_ad=True)
    assert gradgradcheck(FUNCTIONS[name], (x, b))
    assert gradcheck(lambda x: FUNCTIONS[name](x, 0.7), (x,), check_forward_ad=True)
    assert gradgradcheck(lambda x: FUNCTIONS[name](x, 0.7), (x,))


def test_derivatives_at_zero_and_in_the_tail():
    x = torch.tensor([0.0, -1e3, -1e12], requires_grad=True)
    (first,) = torch.autograd.grad(squareplus(x, 4.0).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(first.detach(), torch.tensor([0.5, 1e-6, 1e-24]), rtol=1e-5, atol=0)
    torch.testing.assert_close(second, torch.tensor([0.25, 2e-9, 2e-36]), rtol=1e-5, atol=0)


@every_function
@every_dtype
def test_gradients_in_every_dtype_agree_with_float64(name: str, dtype: torch.dtype):
    x = (3 * normal(50)).to(dtype)
    grads = []
    for cast in (dtype, torch.float64):
        leaf, b = x.to(cast).requires_grad_(), torch.tensor(1.5, dtype=cast, requires_grad=True)
        grads.append(torch.autograd.grad(FUNCTIONS[name](leaf, b).sum(), (leaf, b)))
    for actual, expected in zip(*grads):
        assert actual.dtype == dtype
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(actual.double(), expected, rtol=8 * eps, atol=8 * eps)


@every_function
def test_infinite_inputs_have_gradients_without_nan(name: str):
    x = torch.tensor([-math.inf, -3e38, 3e38, math.inf], requires_grad=True)
    b = torch.tensor(2.0, requires_grad=True)
    x_grad, b_grad = torch.autograd.grad(FUNCTIONS[name](x, b).sum(), (x, b))
    assert torch.equal(x_grad, torch.zeros(4) if name == "squareplus_grad" else torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert b_grad.abs() < 1e-30


@every_function
def test_vmap_over_both_arguments_and_of_derivatives(name: str):
    f, x, b = FUNCTIONS[name], normal(5, 3), 0.5 + normal(5, seed=1).abs()
    expected = torch.stack([f(r, v) for r, v in zip(x, b)])
    torch.testing.assert_close(torch.func.vmap(f)(x, b), expected)
    torch.testing.assert_close(torch.func.vmap(f, in_dims=(1, None))(x, b[0]), f(x, b[0]).T)
    torch.testing.assert_close(torch.func.vmap(lambda v: f(x, v))(b)[2], f(x, b[2]))
    hessian = torch.func.vmap(torch.func.hessian(lambda r: f(r, 1.3).sum()))(x)
    reverse = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(lambda r: f(r, 1.3).sum())))(x)
    torch.testing.assert_close(hessian, reverse)


# -- the fused kernel --------------------------------------------------------------------------------------------------


@pytest.fixture
def fused_at_any_size(monkeypatch, without_runtime_types):
    monkeypatch.setattr(kernels, "FUSED_FROM", 2)
    monkeypatch.setattr(kernels, "_UNFUSED", set())
    torch._dynamo.reset()
    kernels._compiled.cache_clear()
    yield kernels
    kernels._compiled.cache_clear()


def value_and_gradients(x: Tensor, b: Tensor | float) -> tuple[Tensor, ...]:
    leaves = [t.clone().requires_grad_() for t in (x, b) if isinstance(t, Tensor)]
    out = squareplus(*leaves, *(() if isinstance(b, Tensor) else (b,)))
    first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
    return (out, *first, *torch.autograd.grad(first[0].sum(), leaves))


def test_fused_kernel_agrees_with_plain_formulas(fused_at_any_size, monkeypatch):
    x = torch.cat((wide_range(torch.float32, 1e30), torch.tensor([math.inf]))).view(-1, 2)
    fused = squareplus(x), *value_and_gradients(x.clamp(-50, 50), torch.tensor(2.0))
    assert not fused_at_any_size._UNFUSED, "this machine has a compiler, and it failed"
    monkeypatch.setattr(kernels, "FUSED_FROM", 10**9)
    plain = squareplus(x), *value_and_gradients(x.clamp(-50, 50), torch.tensor(2.0))
    for actual, expected in zip(fused, plain):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)


def test_without_a_compiler_the_plain_formulas_run(fused_at_any_size, monkeypatch):
    def broken(*key):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(kernels, "_compiled", broken)
    broken.cache_clear = lambda: None
    x = normal(3, 2**15).float()  # several pieces
    actual = value_and_gradients(x, 2.0)
    assert "cpu" in fused_at_any_size._UNFUSED
    monkeypatch.setattr(kernels, "FUSED_FROM", 10**9)
    for result, expected in zip(actual, value_and_gradients(x, 2.0)):
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-7)


def test_import_needs_torch_and_jaxtyping_only_and_compiles_nothing():
    code = (
        "import sys, kexue_lib.distributions.squareplus as s, torch; s.squareplus(torch.zeros(9));"
        "assert not {'sympy', 'scipy', 'numpy.testing', 'matplotlib', 'torch._inductor.compile_fx'} & set(sys.modules)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@every_function
def test_compiles_without_graph_breaks(name: str, without_runtime_types):
    torch._dynamo.reset()
    f = FUNCTIONS[name]
    compiled = torch.compile(lambda x, b: f(x, b) + f(x, 1.5), fullgraph=True, backend="aot_eager")
    x, b = normal(4, 3).requires_grad_(), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    actual = torch.autograd.grad(compiled(x, b).square().sum(), (x, b))
    expected = torch.autograd.grad((f(x, b) + f(x, 1.5)).square().sum(), (x, b))
    torch.testing.assert_close(actual, expected)
