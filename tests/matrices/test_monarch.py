"""monarch: products, transforms, systems, by dense permutations and blocks, by NumPy and SciPy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
import torch
from opinfo import as_users_call
from torch import Tensor

from kexue_lib.matrices.monarch import (
    block_diag_dense,
    dft_monarch,
    hadamard_monarch,
    kron_monarch,
    monarch_circular_conv,
    monarch_dense,
    monarch_matmul,
    monarch_permutation,
    monarch_project,
    monarch_slogdet,
    monarch_solve,
)

SHAPES = [(2, 3, 4, 5, 1), (2, 3, 4, 5, 2), (1, 1, 1, 1, 1), (3, 1, 1, 4, 2), (4, 4, 4, 4, 1), (1, 5, 2, 3, 1)]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def factors(I: int, J: int, K: int, l: int, q: int = 1, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return normal(J, I, K * q, seed=1, dtype=dtype), normal(K, J * q, l, seed=2, dtype=dtype)


def by_permutations(L: Tensor, R: Tensor, q: int) -> np.ndarray:
    """P blockdiag(L) P' blockdiag(R) with dense matrices; P' moves whole groups of q."""
    (J, I, _), K = L.shape, len(R)
    right, left = (scipy.linalg.block_diag(*x.numpy()) for x in (R, L))
    shuffle = np.kron(np.eye(K * J)[np.arange(K * J).reshape(K, J).T.reshape(-1)], np.eye(q))
    last = np.eye(I * J)[np.arange(J * I).reshape(J, I).T.reshape(-1)]
    return last @ left @ shuffle @ right


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_product_and_matrix_are_those_of_blocks_and_permutations(shape: tuple[int, ...], dtype: torch.dtype):
    L, R = factors(*shape, dtype=dtype)
    dense = by_permutations(L, R, shape[-1])
    np.testing.assert_allclose(monarch_dense(L, R).numpy(), dense, atol=1e-12)
    x = normal(2, 3, dense.shape[1], dtype=dtype)
    np.testing.assert_allclose(monarch_matmul(x, L, R).numpy(), x.numpy() @ dense.T, atol=1e-12)


def test_square_case_is_the_product_of_the_library_s_own_permutations_and_blocks():
    n, b = 12, 3
    L, R = factors(4, 3, 4, 3)
    P, P_back = (torch.eye(n).double()[monarch_permutation(n, size)] for size in (b, n // b))
    torch.testing.assert_close(P @ P_back, torch.eye(n).double())
    # the output of L is (j, i): P_(b, n/b) turns it into (i, j)
    expected = P_back @ block_diag_dense(L) @ P @ block_diag_dense(R)
    torch.testing.assert_close(monarch_dense(L, R), expected)


@pytest.mark.parametrize(("n", "b"), [(6, 2), (6, 3), (16, 4), (7, 1), (7, 7)])
def test_permutation_is_a_transposition(n: int, b: int):
    x = np.arange(n) ** 2
    assert x[monarch_permutation(n, b).numpy()].tolist() == x.reshape(n // b, b).T.reshape(n).tolist()


@pytest.mark.parametrize("needed", [(True, False, False), (False, True, False), (False, False, True), (True,) * 3])
@pytest.mark.parametrize("q", [1, 2])
def test_gradients_are_those_of_the_dense_product(needed: tuple[bool, ...], q: int):
    inputs = [normal(7, 20), *factors(2, 3, 4, 5, q)]
    inputs = [t.requires_grad_(n) for t, n in zip(inputs, needed)]
    g = normal(7, 6, seed=9)
    wanted = [t for t in inputs if t.requires_grad]
    actual = torch.autograd.grad(monarch_matmul(*inputs), wanted, g)
    dense = inputs[0] @ monarch_dense(*inputs[1:]).mT
    torch.testing.assert_close(actual, torch.autograd.grad(dense, wanted, g))


def test_complex_gradients():
    inputs = [normal(3, 6, dtype=torch.complex128), *factors(2, 2, 3, 2, dtype=torch.complex128)]
    with as_users_call():
        assert torch.autograd.gradcheck(monarch_matmul, [t.requires_grad_() for t in inputs])


def test_result_is_contiguous_for_empty_one_dimensional_and_strided_rows():
    L, R = factors(2, 3, 4, 5)
    for x in (normal(0, 20), normal(2, 0, 20), normal(20), normal(20, 6).mT, normal(3, 20).expand(2, 3, 20)):
        y = monarch_matmul(x.requires_grad_(), L, R)
        assert y.is_contiguous()
        torch.testing.assert_close(y, x @ monarch_dense(L, R).mT)
        y.sum().backward()


@pytest.mark.parametrize("nblocks", [1, 2, 3, 6, 12])
def test_fourier_transform(nblocks: int):
    L, R, perm = dft_monarch(12, nblocks)
    x = normal(3, 12)
    expected = np.fft.fft(x.numpy())
    np.testing.assert_allclose(monarch_matmul(x[..., perm], L, R).numpy(), expected, atol=1e-12)


def test_long_fourier_transform_keeps_its_digits():
    L, R, perm = dft_monarch(2**14, 2**7)
    x = normal(2**14)
    error = monarch_matmul(x[perm], L, R) - torch.fft.fft(x)
    assert error.abs().max() / torch.fft.fft(x).abs().max() < 1e-14


@pytest.mark.parametrize("complex_input", [False, True])
def test_circular_convolution(complex_input: bool):
    dtype = torch.complex128 if complex_input else torch.float64
    x, h = normal(4, 1, 12, dtype=dtype), normal(3, 12, seed=1)
    y = monarch_circular_conv(x, h, 4)
    assert y.dtype == dtype
    expected = np.einsum("cts,bds->bct", np.stack([scipy.linalg.circulant(row) for row in h.numpy()]), x.numpy())
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("nblocks", [1, 4, 16, 64])
def test_hadamard_matrix(nblocks: int):
    dense = monarch_dense(*hadamard_monarch(64, nblocks, torch.float64))
    np.testing.assert_array_equal(dense.numpy(), scipy.linalg.hadamard(64))


def test_kronecker_product():
    A, B = normal(2, 3), normal(4, 5)
    np.testing.assert_allclose(monarch_dense(*kron_monarch(A, B)).numpy(), np.kron(A, B), rtol=1e-14)


@pytest.mark.parametrize(("J", "K"), [(1, 1), (3, 4), (5, 2), (4, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_solution_and_determinant_are_those_of_the_dense_matrix(J: int, K: int, dtype: torch.dtype):
    L, R = factors(K, J, K, J, dtype=dtype)
    y, dense = normal(2, 3, K * J, dtype=dtype), monarch_dense(L, R).numpy()
    expected = np.linalg.solve(dense, y.numpy().reshape(6, -1).T).T.reshape(y.shape)
    np.testing.assert_allclose(monarch_solve(L, R, y).numpy(), expected, rtol=1e-8, atol=1e-8)
    for actual, wanted in zip(monarch_slogdet(L, R), np.linalg.slogdet(dense)):
        np.testing.assert_allclose(actual.numpy(), wanted, rtol=1e-9)


def test_singular_matrix():
    L, R = factors(4, 3, 4, 3)
    L[1] = 0
    assert [v.item() for v in monarch_slogdet(L, R)] == [0.0, -np.inf]
    with pytest.raises(torch.linalg.LinAlgError):
        monarch_solve(L, R, normal(12))


def test_set_of_monarch_matrices_has_one_free_scale_for_each_pair_of_blocks():
    for I, J, K, l in ((2, 2, 2, 2), (3, 3, 3, 3), (2, 3, 4, 2)):
        L, R = factors(I, J, K, l)
        jacobian = torch.autograd.functional.jacobian(lambda a, b: monarch_dense(a, b), (L, R))
        flat = torch.cat([x.flatten(0, 1).flatten(1) for x in jacobian], 1)
        assert torch.linalg.matrix_rank(flat) == I * J * K + J * K * l - J * K


def butterfly(n: int, seed: int) -> Tensor:
    """B_n B_{n/2} … B_2, each block diagonal with k × k blocks of four diagonal matrices."""
    total, k = torch.eye(n, dtype=torch.float64), 2
    while k <= n:
        D = normal(n // k, 2, 2, k // 2, seed=seed + k)
        blocks = [torch.cat([torch.cat([b.diag() for b in row], 1) for row in block]) for block in D]
        total, k = torch.block_diag(*blocks) @ total, 2 * k
    return total


@pytest.mark.parametrize("n", [16, 64])
def test_butterfly_products_are_monarch_for_every_number_of_blocks(n: int):
    B = butterfly(n, 0)
    for nblocks in (2**i for i in range(n.bit_length())):
        gap = monarch_dense(*monarch_project(B, nblocks, n // nblocks)) - B
        assert gap.norm() / B.norm() < 1e-13


def test_compiles_without_graph_breaks_and_under_autocast():
    L, R = (t.float() for t in factors(2, 3, 4, 5, 2))
    x = normal(7, 20).float()
    with as_users_call():
        compiled = torch.compile(monarch_matmul, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x, L, R), monarch_matmul(x, L, R))
        with torch.autocast("cpu", torch.bfloat16):
            assert monarch_matmul(x, L, R).dtype == torch.bfloat16


BAD = {
    "b": (lambda: monarch_permutation(10, 4), r"b: got 4, expected a divisor of n = 10"),
    "blocks": (lambda: block_diag_dense(normal(2, 2)), r"blocks: got shape \(2, 2\)"),
    "nblocks_in": (lambda: monarch_project(normal(6, 8), 3), r"nblocks_in: got 3, expected a divisor of .* = 8"),
    "nblocks_out": (lambda: monarch_project(normal(6, 8), 2, 4), r"nblocks_out: got 4, expected a divisor of .* = 6"),
    "rank": (lambda: monarch_project(normal(6, 8), 2, 2, rank=4), r"rank: got 4, expected at most min\(I, l\) = 3"),
    "rank 0": (lambda: monarch_project(normal(6, 8), 2, 2, rank=0), r"rank: got 0"),
    "power": (lambda: monarch_project(normal(6, 8), 2, rank=2, method="power"), r"method: got 'power' with rank 2"),
    "method": (lambda: monarch_project(normal(6, 8), 2, method="qr"), r"method: got 'qr'"),
    "hadamard": (lambda: hadamard_monarch(12, 4), r"n: got 12, expected a power of 2"),
    "dft": (lambda: dft_monarch(12, 5), r"nblocks: got 5, expected a divisor of n = 12"),
    "kron": (lambda: kron_monarch(normal(4), normal(6, 1)), r"A: got shape \(4,\), expected a matrix"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str):
    call, words = BAD[case]
    with as_users_call(), pytest.raises(ValueError, match=words):
        call()


def test_real_dtype_for_the_fourier_transform_is_refused():
    with as_users_call(), pytest.raises(TypeError, match=r"dtype: got torch.float32"):
        dft_monarch(4, 2, torch.float32)


def test_module_stands_alone():
    loaded = "[m for m in ('sympy', 'matplotlib', 'accelerate') if m in sys.modules]"
    code = f"import sys, kexue_lib.matrices.monarch; print({loaded})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
