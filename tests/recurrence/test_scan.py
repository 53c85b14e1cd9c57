"""scan: exact fractions, SciPy's filter, the triangular matrix, halves against the whole; gradients of every method."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from torch import Tensor

from kexue_lib.recurrence.scan import linear_scan, matrix_scan, scan_combine

METHODS = ("auto", "sequential", "chunked", "doubling", "odd_even", "associative")
DTYPES = (torch.float64, torch.complex128)
every_method = pytest.mark.parametrize("method", METHODS)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@every_method
@pytest.mark.parametrize("length", [1, 2, 5, 24, 37])
def test_exact_on_small_integers(method: str, length: int) -> None:
    a = [Fraction(int(x)) for x in torch.randint(-2, 3, (length,), generator=torch.Generator().manual_seed(1))]
    b = [Fraction(int(x)) for x in torch.randint(-9, 10, (length,), generator=torch.Generator().manual_seed(2))]
    states = list(accumulate(range(length), lambda x, t: a[t] * x + b[t], initial=Fraction(3)))[1:]
    column = lambda values: torch.tensor([[float(x)] for x in values], dtype=torch.float64)
    out = linear_scan(column(a), column(b), torch.tensor([3.0], dtype=torch.float64), method=method)
    assert out.flatten().tolist() == [float(x) for x in states]


@every_method
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_triangular_matrix_of_products(method: str, reverse: bool, dtype: torch.dtype) -> None:
    length = 30
    a, b = drawn(length, 2, dtype=dtype), drawn(3, length, 2, seed=1, dtype=dtype)
    if reverse:
        a_, b_ = a.flip(0), b.flip(1)
    else:
        a_, b_ = a, b
    M = torch.zeros(2, length, length, dtype=dtype)
    for t in range(length):
        for k in range(t + 1):
            M[:, t, k] = a_[k + 1 : t + 1].prod(0)
    expected = torch.einsum("dtk,bkd->btd", M, b_)
    expected = expected.flip(1) if reverse else expected
    size = expected.abs().max()
    torch.testing.assert_close(
        linear_scan(a, b, reverse=reverse, method=method), expected, rtol=1e-11, atol=1e-12 * size
    )


@every_method
def test_scipys_filter_for_one_coefficient_at_all_times(method: str) -> None:
    decay, u = torch.tensor([0.9, -0.5, 1.0], dtype=torch.float64), drawn(200, 3)
    expected = np.stack([lfilter([1.0], [1.0, -decay[c].item()], u[:, c].numpy()) for c in range(3)], -1)
    for a in (decay, decay[None], decay.expand(200, 3)):
        np.testing.assert_allclose(linear_scan(a, u, method=method).numpy(), expected, rtol=1e-11, atol=1e-11)


@every_method
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_two_halves_are_the_whole(method: str, reverse: bool, dtype: torch.dtype) -> None:
    """The state handed over keeps its imaginary part and every row of the batch."""
    a, b, x0 = drawn(3, 50, 2, dtype=dtype), drawn(3, 50, 2, seed=1, dtype=dtype), drawn(3, 2, seed=2, dtype=dtype)
    whole = linear_scan(a, b, x0, reverse=reverse, method=method)
    order = [slice(23, None), slice(None, 23)] if reverse else [slice(None, 23), slice(23, None)]
    state, parts = x0, {}
    for part in order:
        out = linear_scan(a[:, part], b[:, part], state, reverse=reverse, method=method)
        parts[part.start or 0] = out
        state = out[:, 0 if reverse else -1]
    torch.testing.assert_close(torch.cat([parts[0], parts[23]], 1), whole, rtol=1e-11, atol=1e-11)


@every_method
@pytest.mark.parametrize("size", [1, 2, 7, 40, 1000])
def test_every_chunk_size(method: str, size: int) -> None:
    a, b = drawn(2, 40, 3), drawn(2, 40, 3, seed=1)
    expected = linear_scan(a, b, method="sequential")
    torch.testing.assert_close(linear_scan(a, b, method=method, chunk_size=size), expected, rtol=1e-11, atol=1e-11)


@every_method
def test_a_zero_resets_exactly_and_has_a_gradient(method: str) -> None:
    a, b = drawn(40, 1).clamp(-1, 1), drawn(40, 1, seed=1)
    a[17] = 0.0
    a.requires_grad_()
    out = linear_scan(a, b, method=method)
    assert out[17].item() == b[17].item()
    fresh = linear_scan(a[18:], b[18:], b[17], method=method)
    torch.testing.assert_close(out[18:], fresh, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(out[17].sum(), a)
    assert gradient[17].item() == pytest.approx(out[16].item(), rel=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_products_that_overflow_where_the_states_do_not(reverse: bool) -> None:
    a, b = torch.tensor([1000.0]), torch.zeros(2000, 1)
    for method in ("auto", "chunked", "sequential"):
        assert not linear_scan(a, b, method=method, reverse=reverse).any()
    a, b = torch.full((2000, 1), 1000.0), torch.zeros(2000, 1)
    a[1000:], b[1000:] = 0.5, 1.0  # from zero, first through huge coefficients
    if reverse:
        a, b = a.flip(0), b.flip(0)
    states = linear_scan(a, b, method="chunked", reverse=reverse)
    assert torch.equal(states, linear_scan(a, b, method="sequential", reverse=reverse))
    assert states[0 if reverse else -1].item() == 2.0


@every_method
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 1), (1,)])
def test_first_and_second_derivatives(method: str, reverse: bool, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    a, b, x0 = (
        drawn(*s, seed=k, dtype=dtype).requires_grad_() for k, s in enumerate([shape, (2, 4, 1), (1,)])
    )  # fmt: skip
    scan = lambda a, b, x0: linear_scan(a, b, x0, reverse=reverse, method=method)
    assert torch.autograd.gradcheck(scan, (a, b, x0), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(scan, (a, b, x0))


@every_method
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 2, 2), (2, 2)])
def test_derivatives_of_matrices(method: str, reverse: bool, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    A, b, x0 = (
        drawn(*s, seed=k, dtype=dtype).requires_grad_() for k, s in enumerate([shape, (3, 2), (2,)])
    )  # fmt: skip
    scan = lambda A, b, x0: matrix_scan(A, b, x0, reverse=reverse, method=method)
    assert torch.autograd.gradcheck(scan, (A, b, x0), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(scan, (A, b, x0))


@every_method
@pytest.mark.parametrize("reverse", [False, True])
def test_matrices_against_numpys_loop(method: str, reverse: bool) -> None:
    A, b, x0 = drawn(4, 60, 3, 3) / 2, drawn(60, 3, seed=1), drawn(4, 3, seed=2)
    expected = np.zeros((4, 60, 3))
    for row in range(4):
        x = x0[row].numpy()
        for t in reversed(range(60)) if reverse else range(60):
            x = A[row, t].numpy() @ x + b[t].numpy()
            expected[row, t] = x
    out = matrix_scan(A, b, x0, reverse=reverse, method=method)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_numbers_and_matrices_mix_real_and_complex() -> None:
    a, b = drawn(8, 3).requires_grad_(), drawn(8, 3, seed=1, dtype=torch.complex128)
    out = linear_scan(a, b)
    torch.testing.assert_close(out, linear_scan(a.to(torch.complex128), b))
    out.abs().square().sum().backward()
    assert a.grad.dtype == torch.float64
    assert linear_scan(b, drawn(8, 3)).dtype == torch.complex128
    diagonal = torch.diag_embed(a.detach())
    torch.testing.assert_close(matrix_scan(diagonal, b), out.detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_accumulated_in_float32(dtype: torch.dtype) -> None:
    a, b = torch.full((3000, 1), 1.0, dtype=dtype), torch.full((3000, 1), 1.0, dtype=dtype)
    out = linear_scan(a, b)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float().flatten(), torch.arange(1.0, 3001.0).to(dtype).float())


def test_empty_sequences_and_batches_stay_functions_of_their_arguments() -> None:
    for shape in ((2, 0, 3), (0, 5, 3), (2, 5, 0)):
        b = torch.zeros(shape, requires_grad=True)
        out = linear_scan(torch.ones(shape[-1]), b)
        assert out.shape == shape
        out.sum().backward()
        assert b.grad.shape == shape


@every_method
def test_inputs_are_not_written_to(method: str) -> None:
    a, b, x0 = drawn(1, 40, 3).expand(2, 40, 3), drawn(40, 2, 3, seed=1).movedim(0, 1), drawn(2, 3, seed=2)
    before = [x.clone() for x in (a, b, x0)]
    for reverse in (False, True):
        out = linear_scan(a, b, x0, reverse=reverse, method=method)
        assert all(torch.equal(x, y) for x, y in zip(before, (a, b, x0)))
        assert torch.equal(out, linear_scan(a, b, x0, reverse=reverse, method=method))


def test_vmap_over_any_dimension_of_any_argument() -> None:
    a, b = drawn(5, 20, 2), drawn(20, 5, 2, seed=1)
    expected = torch.stack([linear_scan(x, y) for x, y in zip(a, b.movedim(1, 0))])
    torch.testing.assert_close(torch.vmap(linear_scan, in_dims=(0, 1))(a, b), expected)
    shared = torch.vmap(lambda y: linear_scan(a[0], y), in_dims=1)(b)
    torch.testing.assert_close(shared, torch.stack([linear_scan(a[0], y) for y in b.movedim(1, 0)]))
    decays = torch.vmap(lambda x: linear_scan(x, b[:, 0]))(a[:, 0])
    torch.testing.assert_close(decays, torch.stack([linear_scan(x, b[:, 0]) for x in a[:, 0]]))


def test_combining_is_associative_and_is_what_the_scan_does() -> None:
    a, b = drawn(3, 4), drawn(3, 4, seed=1)
    pieces = list(zip(a, b))
    left = scan_combine(scan_combine(*pieces[:2]), pieces[2])
    right = scan_combine(pieces[0], scan_combine(*pieces[1:]))
    torch.testing.assert_close(left, right)
    torch.testing.assert_close(left[1], linear_scan(a, b)[-1])


def test_memory_beside_the_output() -> None:
    """At most one and a half times the output, by PyTorch's own count."""
    a, b = torch.rand(4, 4096, 64), torch.randn(4, 4096, 64)
    with torch.profiler.profile(profile_memory=True) as profile, torch.no_grad():
        linear_scan(a, b)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert b.nbytes <= peak <= 1.5 * b.nbytes
