"""lora_pro: the directions, by least squares over all pairs of factors and by SciPy's solver."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
import torch
from opinfo import as_users_call
from torch import Tensor

from kexue_lib.matrices import lora_pro
from kexue_lib.matrices.lora_gradient import equivalent_gradient, lora_gradients

CHOICES = ("zero", "symmetric", "sylvester")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def problem(n: int = 7, m: int = 5, r: int = 3, batch: tuple[int, ...] = ()) -> tuple[Tensor, Tensor, Tensor]:
    return normal(*batch, n, m), normal(*batch, n, r, seed=1), normal(*batch, r, m, seed=2)


def joint(G: Tensor, A: Tensor, B: Tensor, scale: float = 1.0, **options) -> Tensor:
    """The step of W for the directions at G."""
    H = lora_pro.lora_pro_gradients(*lora_gradients(G, A, B, scale), A, B, scale=scale, **options)
    return equivalent_gradient(*H, A, B, scale)


def ill_conditioned(n: int, r: int, condition: float, seed: int) -> Tensor:
    left, right = torch.linalg.qr(normal(n, r, seed=seed))[0], torch.linalg.qr(normal(r, r, seed=seed + 1))[0]
    return left @ torch.logspace(0, -np.log10(condition), r, dtype=torch.float64).diag() @ right


@pytest.mark.parametrize("choice", [*CHOICES, "matrix"])
@pytest.mark.parametrize("scale", [1.0, -0.25, 8.0])
def test_joint_step_is_the_least_squares_fit_for_every_choice_and_scale(choice: str, scale: float):
    G, A, B = problem()
    system = np.hstack([np.kron(np.eye(7), B.numpy().T), np.kron(A.numpy(), np.eye(5))])
    fit = system @ np.linalg.lstsq(system, G.numpy().reshape(-1), rcond=None)[0]
    C = normal(3, 3, seed=3) if choice == "matrix" else choice
    np.testing.assert_allclose(joint(G, A, B, scale, C=C).numpy().reshape(-1), fit, atol=1e-12)
    assert np.linalg.matrix_rank(system) == 3 * (7 + 5) - 3**2


def test_sylvester_choice_is_nearest_to_the_gradients():
    G, A, B = problem()
    grads = lora_gradients(G, A, B)
    H_A, H_B = lora_pro.lora_pro_gradients(*grads, A, B, C="sylvester")
    P, Q = A.mT @ A, B @ B.mT
    C = scipy.linalg.solve_sylvester(P.numpy(), Q.numpy(), (-A.mT @ grads[0] @ Q.inverse()).numpy())
    expected = lora_pro.lora_pro_gradients(*grads, A, B, C=torch.from_numpy(C))
    torch.testing.assert_close((H_A, H_B), expected, rtol=1e-11, atol=1e-11)
    distance = lambda D: ((H_A + A @ D - grads[0]).square().sum() + (H_B - D @ B - grads[1]).square().sum()).item()
    assert all(distance(0.01 * normal(3, 3, seed=s)) > distance(torch.zeros(3, 3).double()) for s in range(20))


def test_symmetric_choice_makes_both_contributions_nearest_to_each_other():
    G, A, B = problem()
    H_A, H_B = lora_pro.lora_pro_gradients(*lora_gradients(G, A, B), A, B)
    apart = lambda D: ((H_A + A @ D) @ B - A @ (H_B - D @ B)).norm().item()
    assert all(apart(0.01 * normal(3, 3, seed=s)) > apart(torch.zeros(3, 3).double()) for s in range(20))


def test_zero_choice_lets_a_move_all_that_both_can():
    G, A, B = problem()
    _, H_B = lora_pro.lora_pro_gradients(*lora_gradients(G, A, B), A, B, C="zero")
    torch.testing.assert_close(H_B @ B.mT, torch.zeros(3, 3).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("choice", CHOICES)
def test_orthonormal_factors_without_overlap_keep_their_gradients(choice: str):
    G = normal(7, 5)
    U, _, Vh = torch.linalg.svd(G)
    A, B = U[:, :2], Vh[2:4]
    grads = lora_gradients(G, A, B)
    torch.testing.assert_close(lora_pro.lora_pro_gradients(*grads, A, B, C=choice), grads, rtol=0, atol=1e-13)


@pytest.mark.parametrize("choice", ["zero", "symmetric"])
def test_directions_follow_a_change_of_basis(choice: str):
    G, A, B = problem()
    S = normal(3, 3, seed=4)
    H_A, H_B = lora_pro.lora_pro_gradients(*lora_gradients(G, A, B), A, B, C=choice)
    A_S, S_B = A @ S, S.inverse() @ B
    turned = lora_pro.lora_pro_gradients(*lora_gradients(G, A_S, S_B), A_S, S_B, C=choice)
    torch.testing.assert_close(turned, (H_A @ S, S.inverse() @ H_B), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("choice", CHOICES)
def test_zero_and_deficient_factors_act_as_their_pseudo_inverse(choice: str):
    G, A, B = problem()
    A[:, 2] = A[:, 0] + A[:, 1]
    for b in (0 * B, B):
        pinv_A, pinv_B = torch.linalg.pinv(A), torch.linalg.pinv(b)
        expected = A @ pinv_A @ G + G @ pinv_B @ b - A @ pinv_A @ G @ pinv_B @ b
        torch.testing.assert_close(joint(G, A, b, C=choice), expected, rtol=0, atol=1e-9)
    H_A, _ = lora_pro.lora_pro_gradients(*lora_gradients(G, A, 0 * B), A, 0 * B, C=choice)
    assert not H_A.any()


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e3])
def test_float32_keeps_four_digits_up_to_condition_1000(choice: str, condition: float):
    G, A, B = normal(64, 48), ill_conditioned(64, 8, condition, 5), ill_conditioned(48, 8, condition, 7).mT
    G, A, B = (x.float() for x in (G, A, B))
    exact = lora_pro.tangent_projection(G.double(), A.double(), B.double())
    error = (joint(G, A, B, C=choice) - exact).norm() / exact.norm()
    assert error < 1e-4


def test_batch_half_types_and_strides():
    G, A, B = problem(batch=(2, 3))
    grads = lora_gradients(G, A, B)
    H_A, H_B = lora_pro.lora_pro_gradients(*grads, A, B, C="sylvester")
    one = lora_pro.lora_pro_gradients(*(x[1, 2] for x in (*grads, A, B)), C="sylvester")
    torch.testing.assert_close((H_A[1, 2], H_B[1, 2]), one, rtol=1e-12, atol=1e-12)
    turned = [x.mT.contiguous().mT for x in (*grads, A, B)]
    torch.testing.assert_close(lora_pro.lora_pro_gradients(*turned, C="sylvester"), (H_A, H_B), rtol=1e-12, atol=1e-12)
    half = [x.bfloat16() for x in (*grads, A, B)]
    widened = lora_pro.lora_pro_gradients(*(x.float() for x in half))
    for low, wide in zip(lora_pro.lora_pro_gradients(*half), widened):
        assert torch.equal(low, wide.bfloat16())
    empty = lora_pro.lora_pro_gradients(*(x[:0] for x in (*grads, A, B)))
    assert [x.shape for x in empty] == [(0, 3, 7, 3), (0, 3, 3, 5)]


def test_tolerance_says_which_directions_count():
    G, A, B = problem(r=2)
    A = torch.linalg.qr(A)[0] @ torch.tensor([1.0, 1e-3]).double().diag()
    first = lora_pro.tangent_projection(G, A[:, :1], B[:1] * 0)
    assert torch.allclose(joint(G, A, 0 * B, rtol=1e-5), first)
    assert not torch.allclose(joint(G, A, 0 * B), first)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (5, 5)])
def test_sylvester_agrees_with_scipy(shape: tuple[int, int]):
    (p, q), R = shape, normal(*shape)
    P, Q = (x @ x.mT for x in (normal(p, p, seed=1), normal(q, q, seed=2)))
    expected = scipy.linalg.solve_sylvester(P.numpy(), Q.numpy(), R.numpy())
    np.testing.assert_allclose(lora_pro.solve_sylvester_spd(P, Q, R).numpy(), expected, rtol=1e-7)


def test_sylvester_compiles_without_graph_breaks_in_a_process_without_type_checker():
    lines = (
        "import torch; from kexue_lib.matrices.lora_pro import solve_sylvester_spd as solve",
        "P, Q, R = torch.eye(3), 2 * torch.eye(2), torch.ones(3, 2, requires_grad=True)",
        "X = torch.compile(solve, fullgraph=True, backend='aot_eager')(P, Q, R)",
        "X.sum().backward(); print(X.sum().item(), R.grad.sum().item())",
    )
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert [float(word) for word in run.stdout.split()] == pytest.approx([2.0, 2.0])


def test_sylvester_of_singular_coefficients_has_least_norm():
    P, Q = torch.tensor([2.0, 0.0]).double().diag(), torch.tensor([0.0, 4.0]).double().diag()
    X = lora_pro.solve_sylvester_spd(P, Q, torch.ones(2, 2).double())
    assert X.tolist() == [[0.5, pytest.approx(1 / 6)], [0.0, 0.25]]


def test_sylvester_has_a_gradient_where_eigenvalues_coincide():
    P = (2 * torch.eye(3).double()).requires_grad_()
    X = lora_pro.solve_sylvester_spd(P, torch.eye(2).double(), normal(3, 2))
    X.sum().backward()
    step = 1e-6
    for i, j in ((0, 0), (0, 2)):
        E = torch.zeros(3, 3).double()
        E[i, j] = step
        values = [
            lora_pro.solve_sylvester_spd(P.detach() + s * E, torch.eye(2).double(), normal(3, 2)) for s in (1, -1)
        ]
        assert P.grad[i, j].item() == pytest.approx(((values[0] - values[1]).sum() / (2 * step)).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "name"),
    [
        ({"A": torch.ones(4, 3)}, ValueError, "B"),
        ({"B": torch.ones(3, 3)}, ValueError, "B"),
        ({"G_A": torch.ones(4, 3)}, ValueError, "G_A"),
        ({"G_B": torch.ones(2, 4)}, ValueError, "G_B"),
        ({"A": torch.ones(4)}, ValueError, "A"),
        ({"A": torch.ones(4, 2, dtype=torch.long)}, TypeError, "A"),
        ({"C": "best"}, ValueError, "C"),
        ({"C": torch.ones(2, 3)}, ValueError, "C"),
        ({"scale": 0.0}, ValueError, "scale"),
        ({"scale": float("nan")}, ValueError, "scale"),
        ({"scale": "1"}, TypeError, "scale"),
        ({"rtol": -1.0}, ValueError, "rtol"),
    ],
)
def test_bad_input(change: dict, error: type[Exception], name: str):
    A, B = torch.ones(4, 2), torch.ones(2, 3)
    with as_users_call(), pytest.raises(error, match=f"^{name}: got"):
        lora_pro.lora_pro_gradients(**{"G_A": A, "G_B": B, "A": A, "B": B, **change})
