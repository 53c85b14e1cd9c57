"""Monarch matrices: products of two block diagonal matrices and two permutations.

Input k·l + p, entry p < l of block k < K; output i·J + j, with i < I and j < J:

    M[ij, kp] = Σ_t L[j, i, kt] · R[k, jt, p],    R (K, J·q, l), L (J, I, K·q), t < q the rank

Source: Su Jianlin, "Monarch matrices: computationally efficient sparse matrix factorisation", 2024,
https://kexue.fm/archives/10249; T. Dao et al., "Monarch: Expressive Structured Matrices for Efficient and Accurate
Training", ICML 2022, arXiv 2204.00595.
"""

from __future__ import annotations

from kexue_lib.matrices.monarch._layer import MonarchLinear, convert_to_monarch
from kexue_lib.matrices.monarch._product import (
    block_diag_dense,
    monarch_dense,
    monarch_matmul,
    monarch_permutation,
)
from kexue_lib.matrices.monarch._projection import monarch_project
from kexue_lib.matrices.monarch._square import monarch_slogdet, monarch_solve
from kexue_lib.matrices.monarch._transforms import (
    dft_monarch,
    hadamard_monarch,
    kron_monarch,
    monarch_circular_conv,
)

__all__ = [
    "MonarchLinear",
    "block_diag_dense",
    "convert_to_monarch",
    "dft_monarch",
    "hadamard_monarch",
    "kron_monarch",
    "monarch_circular_conv",
    "monarch_dense",
    "monarch_matmul",
    "monarch_permutation",
    "monarch_project",
    "monarch_slogdet",
    "monarch_solve",
]
