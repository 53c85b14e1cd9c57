"""Blocks, memory, precision and compilation of the sums."""

from __future__ import annotations

import math

import pytest
import torch
from distributions.fourier_density.random_densities import line_density, normal, uniform
from opinfo import as_users_call

from kexue_lib.distributions.fourier_density import _line as fourier_line
from kexue_lib.distributions.fourier_density import _trigonometric_sum as trigonometric_sum
from kexue_lib.distributions.fourier_density import periodic_log_prob


def test_blocks_do_not_change_the_result(monkeypatch):
    a, x = normal(3, 6), uniform(3, 50) * 2 - 1
    weight, h = normal(3, 50), uniform(3, 50)
    whole = [
        trigonometric_sum.synthesis(a, x),
        trigonometric_sum.synthesis(a, x, h),
        trigonometric_sum.analysis(weight, x, h, 6),
    ]
    for size in (7, 120):
        monkeypatch.setitem(trigonometric_sum.BLOCK, "cpu", size)
        parts = [
            trigonometric_sum.synthesis(a, x),
            trigonometric_sum.synthesis(a, x, h),
            trigonometric_sum.analysis(weight, x, h, 6),
        ]
        torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("half_width", [None, 0.3])
def test_sums_agree_with_the_matrix(half_width: float | None):
    a, x = normal(9), uniform(20) * 2 - 1
    h = None if half_width is None else torch.full_like(x, half_width)
    k = torch.arange(9, dtype=torch.float64)
    matrix = torch.exp(1j * math.pi * k * x[:, None])
    if h is not None:
        matrix = matrix * half_width * torch.sinc(k * half_width)
    torch.testing.assert_close(trigonometric_sum.synthesis(a, x, h), matrix @ a)
    weight = normal(20)
    torch.testing.assert_close(trigonometric_sum.analysis(weight, x, h, 9), weight @ matrix)


def test_memory_does_not_grow_with_frequencies_times_points():
    a = normal(65).to(torch.complex64).requires_grad_()
    x = torch.rand(2**17)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        periodic_log_prob(a, x).sum().backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 8 * len(x)  # one complex number for each point


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_compute_in_float32(dtype: torch.dtype):
    model = line_density().float()
    y = torch.linspace(-3, 3, 13).to(dtype)
    for method in (model.log_prob, model.cdf, model.bin_log_prob):
        out = method(y)
        assert out.dtype == dtype
        torch.testing.assert_close(out, method(y.float()).to(dtype))


def test_module_compiles_without_graph_breaks():
    model = line_density().float()
    y = torch.linspace(-3, 3, 13)
    torch._dynamo.reset()
    with as_users_call():
        loss = torch.compile(lambda v: model.log_prob(v).mean(), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(loss(y), model.log_prob(y).mean())


def test_empty_points_and_missing_values():
    model = line_density(batch_shape=(2,))
    for method in (model.log_prob, model.cdf, model.icdf, model.bin_log_prob):
        assert method(torch.empty(2, 0, dtype=torch.float64)).shape == (2, 0)
        assert method(torch.full((2, 1), math.nan, dtype=torch.float64)).isnan().all()
    assert model.sample((0,)).shape == (2, 0)


def test_core_takes_several_densities_and_precisions():
    a, x = normal(2, 4).to(torch.complex64), uniform(2, 3)
    wide, points = fourier_line.common_precision(a, x)
    assert wide.dtype == torch.complex128
    assert points.dtype == torch.float64
