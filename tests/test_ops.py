"""The operator battery: what every public differentiable function promises, tested over all `<part>/ops_*.py`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from opinfo import Bad, OpInfo, Sample, as_users_call
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

OPS = [
    op
    for file in sorted(Path(__file__).parent.glob("*/ops_*.py"))
    for op in import_module(f"{file.parent.name}.{file.stem}").OPS
]
every_op = pytest.mark.parametrize("info", OPS, ids=lambda info: info.name)


def close(actual: Tensor, expected: Tensor, info: OpInfo, dtype: torch.dtype | None = None) -> None:
    """Within the entry's multiple of eps of the dtype, of half types at least one rounding of the result."""
    eps = torch.finfo(dtype or actual.dtype).eps
    bound = (info.half_tolerance if (dtype or actual.dtype).itemsize == 2 else info.tolerance) * eps
    torch.testing.assert_close(actual.double(), expected.double(), rtol=bound, atol=bound, equal_nan=True)


def differentiable(sample: Sample) -> tuple[Tensor, ...]:
    return tuple(x.clone().requires_grad_() for x in sample.inputs)


def gradients(info: OpInfo, sample: Sample, autocast: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The result, and the gradients of a fixed random combination of its finite entries."""
    inputs = differentiable(sample)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):  # as users do it, around the forward pass only
        out = sample.call(info.op, *inputs)
    finite = out.isfinite()
    weights = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(out)
    return out.detach(), torch.autograd.grad((out[finite] * weights[finite]).sum(), inputs, materialize_grads=True)


@every_op
def test_agrees_with_an_independent_method_in_every_dtype(info: OpInfo):
    for dtype in info.dtypes:
        for sample in info.samples():
            sample = sample.to(dtype)
            out = sample.call(info.op)
            assert out.dtype == dtype
            close(out, info.expected(sample), info)


@every_op
def test_gradient_in_every_dtype_agrees_with_float64(info: OpInfo):
    for dtype in info.dtypes:
        for sample in info.samples():
            sample = sample.to(dtype)
            _, actual = gradients(info, sample)
            _, expected = gradients(info, sample.to(torch.float64))
            for a, e in zip(actual, expected):
                assert a.dtype == dtype
                scale = 1 + e.abs().max().item()
                bound = scale * (8 if dtype.itemsize == 2 else info.tolerance) * torch.finfo(dtype).eps
                torch.testing.assert_close(a.double(), e, rtol=0, atol=bound)


@every_op
def test_autocast_changes_nothing(info: OpInfo):
    """Except where the entry says so; there it must work."""
    for sample in info.samples():
        sample = sample.to(torch.float32)
        out, grads = gradients(info, sample, autocast=True)
        expected, wanted = gradients(info, sample)
        if info.autocast:
            torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.1)
            continue
        for actual, e in zip((out, *grads), (expected, *wanted)):
            torch.testing.assert_close(actual, e, rtol=1e-6, atol=1e-6)


@every_op
def test_agrees_at_the_edge_of_the_domain_without_nan(info: OpInfo):
    for sample in info.extreme():
        for dtype in (torch.float64, torch.float32):
            typed = sample.to(dtype)
            out, grads = gradients(info, typed)
            close(out, info.expected(typed), info)
            assert not any(g.isnan().any() for g in grads)


@every_op
def test_first_derivative(info: OpInfo):
    with as_users_call():  # thousands of calls, whose signatures the other tests check
        for sample in info.samples():
            assert gradcheck(
                lambda *x, s=sample: s.call(info.op, *x), differentiable(sample), check_forward_ad=info.forward_mode
            )


@every_op
def test_second_derivative(info: OpInfo):
    if not info.second_derivative:
        pytest.skip("first derivatives only")
    with as_users_call():
        for sample in info.samples():
            assert gradgradcheck(lambda *x, s=sample: s.call(info.op, *x), differentiable(sample))


def layouts(x: Tensor) -> Iterator[Tensor]:
    """The same values with other strides."""
    yield x.mT.contiguous().mT
    yield torch.stack((x, x.flip(0)), dim=-1)[..., 0]


@every_op
def test_strides_do_not_matter(info: OpInfo):
    for sample in info.samples():
        expected = sample.call(info.op)
        for inputs in zip(*(layouts(x) for x in sample.inputs)):
            torch.testing.assert_close(sample.call(info.op, *inputs), expected, rtol=1e-14, atol=1e-14)


@every_op
def test_batch_is_row_by_row(info: OpInfo):
    for sample in info.samples():
        whole = sample.call(info.op)
        for i in range(len(whole)):
            torch.testing.assert_close(sample.rows(i).call(info.op), whole[i], rtol=1e-13, atol=1e-13)
        deep = Sample(
            tuple(x.expand(3, 1, *x.shape) for x in sample.inputs),
            sample.kwargs,
            {name: value.expand(3, 1, *value.shape) for name, value in sample.per_row.items()},
        )
        torch.testing.assert_close(deep.call(info.op), whole.expand(3, 1, *whole.shape), rtol=1e-13, atol=1e-13)


@every_op
def test_empty_batch(info: OpInfo):
    for sample in info.samples():
        inputs = differentiable(sample.rows(slice(0, 0)))
        out = sample.rows(slice(0, 0)).call(info.op, *inputs)
        assert out.shape == (0, *sample.call(info.op).shape[1:])
        for grad in torch.autograd.grad(out.sum(), inputs, materialize_grads=True):
            assert len(grad) == 0


@every_op
def test_vmap_of_value_and_jacobian(info: OpInfo):
    if not info.vmap:
        pytest.skip("no vmap")
    for sample in info.samples():
        names = list(sample.per_row)

        def row(*arguments: Tensor, sample: Sample = sample, names: list[str] = names) -> Tensor:
            inputs = arguments[: len(sample.inputs)]
            return info.op(*inputs, **sample.kwargs, **dict(zip(names, arguments[len(inputs) :])))

        arguments = (*sample.inputs, *sample.per_row.values())
        torch.testing.assert_close(torch.func.vmap(row)(*arguments), sample.call(info.op), rtol=1e-13, atol=1e-13)
        reverse = torch.func.vmap(torch.func.jacrev(row))(*arguments)
        if info.forward_mode:
            forward = torch.func.vmap(torch.func.jacfwd(row))(*arguments)
            torch.testing.assert_close(reverse, forward, rtol=1e-10, atol=1e-10)
        one_by_one = [torch.autograd.functional.jacobian(lambda x, r=a: row(x, *r[1:]), a[0]) for a in zip(*arguments)]
        torch.testing.assert_close(reverse, torch.stack(one_by_one), rtol=1e-10, atol=1e-10)


@every_op
def test_compiles_without_graph_breaks(info: OpInfo):
    if not info.compiles:
        pytest.skip("has graph breaks; its docstring says why")
    sample = [*info.samples(), *info.extreme()][-1]
    torch._dynamo.reset()
    with as_users_call(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(info.op, fullgraph=True, backend="aot_eager")
        out, grads = gradients(replace(info, op=compiled), sample)
        expected, eager_grads = gradients(info, sample)
        for actual, eager in zip((out, *grads), (expected, *eager_grads)):
            torch.testing.assert_close(actual, eager, rtol=1e-10, atol=1e-10, equal_nan=True)


@every_op
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu(info: OpInfo):
    for dtype in info.dtypes:
        for sample in info.samples():
            out, grads = gradients(info, sample.to(dtype))
            on_device, device_grads = gradients(info, sample.to(dtype, "cuda"))
            for actual, expected in zip((on_device, *device_grads), (out, *grads)):
                assert actual.is_cuda
                torch.testing.assert_close(actual.cpu(), expected)


def tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


@every_op
def test_bad_input_is_refused_by_name_and_left_alone(info: OpInfo):
    for bad in info.errors():
        arguments = {**bad.good, **bad.changes}
        given = list(tensors(list(arguments.values())))
        before = [x.clone() for x in given]
        with as_users_call(), pytest.raises(bad.error) as caught:
            bad.function(**arguments)
        assert type(caught.value) is bad.error in (TypeError, ValueError)  # no subclass
        message = str(caught.value)
        assert message.startswith(bad.message), (bad.changes, message)
        names, colon, got = bad.message.partition(": got ")
        assert colon, bad.message
        assert got, bad.message
        assert ", expected " in message, message
        known = inspect.signature(bad.function).parameters
        assert all(name.split(".")[0] in known for name in names.split(", ")), (bad.message, [*known])
        for x, old in zip(given, before):
            torch.testing.assert_close(x, old, rtol=0, atol=0, equal_nan=True)


def of_kind(bad: Bad) -> str:
    """Whether a dtype, a shape, or an option is wrong."""
    if not list(tensors(list(bad.changes.values()))):
        return "option"
    return "dtype" if bad.error is TypeError else "shape" if "shape" in bad.message else "value"


@every_op
def test_bad_inputs_are_of_every_kind_that_the_operator_can_refuse(info: OpInfo):
    listed = list(info.errors())
    assert listed
    kinds = {of_kind(bad) for bad in listed}
    function, good = listed[0].function, listed[0].good
    assert inspect.unwrap(function).__module__.startswith("kexue_lib.")
    defaults = [p.default for p in inspect.signature(function).parameters.values()]
    has_options = any(type(value) in (int, float, str) for value in [*defaults, *good.values()])
    has_tensors = bool(list(tensors(list(good.values()))))
    wanted = {"dtype": has_tensors, "shape": has_tensors and not info.any_shape, "option": has_options}
    assert {kind for kind, is_wanted in wanted.items() if is_wanted} <= kinds
    with as_users_call():
        function(**good)
