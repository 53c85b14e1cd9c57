"""lora_pro: the optimizers, against the formulas written out for one pair in NumPy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from opinfo import as_users_call
from torch import Tensor, nn

from kexue_lib.matrices.lora_gradient import LoRAPair
from kexue_lib.matrices.lora_pro import LoRAProAdamW, LoRAProSGD

SHAPES = ((6, 5, 2), (6, 5, 2), (4, 7, 2), (5, 5, 3))


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pairs(scales: tuple[float, ...] = (1.0, 1.0, 0.5, 2.0)) -> list[LoRAPair]:
    made = []
    for i, ((n, m, r), scale) in enumerate(zip(SHAPES, scales)):
        A, B = nn.Parameter(normal(n, r, seed=i)), nn.Parameter(normal(r, m, seed=10 + i))
        made.append(LoRAPair(A, B, scale))
    return made


def target(index: int) -> Tensor:
    n, m, _ = SHAPES[index]
    return normal(n, m, seed=20 + index)


def backward(made: list[LoRAPair]) -> float:
    """The loss ½Σ‖sAB − T‖², whose full gradient is sAB − T."""
    loss = sum((s * A @ B - target(i)).square().sum() / 2 for i, (A, B, s) in enumerate(made))
    for A, B, _ in made:
        A.grad = B.grad = None
    loss.backward()
    return loss.item()


def best(X: np.ndarray, A: np.ndarray, B: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray]:
    """The symmetric directions by pseudo-inverses, from the full matrix X."""
    left, right = np.linalg.pinv(A), np.linalg.pinv(B)
    return (np.eye(len(A)) - A @ left / 2) @ X @ right / s, left @ X @ (np.eye(B.shape[1]) - right @ B / 2) / s


def reference_steps(kind: str, steps: int, lr: float, decay: float) -> list[np.ndarray]:
    """All products sAB after some steps, one pair at a time."""
    products, (b1, b2), eps = [], (0.9, 0.99), 1e-8
    for i, pair in enumerate(pairs()):
        A, B, s = (*(p.detach().numpy().copy() for p in pair[:2]), pair.scale)
        M, V = 0.0, 0.0
        m, v = [0.0, 0.0], [0.0, 0.0]
        for t in range(1, steps + 1):
            H = best(s * A @ B - target(i).numpy(), A, B, s)
            if kind == "full":
                X = s * (H[0] @ B + A @ H[1])
                M, V = b1 * M + (1 - b1) * X, b2 * V + (1 - b2) * X**2
                H = best(M / (1 - b1**t) / (np.sqrt(V / (1 - b2**t)) + eps), A, B, s)
            if kind == "factor":
                m = [b1 * x + (1 - b1) * h for x, h in zip(m, H)]
                v = [b2 * x + (1 - b2) * h**2 for x, h in zip(v, H)]
                H = [x / (1 - b1**t) / (np.sqrt(y / (1 - b2**t)) + eps) for x, y in zip(m, v)]
            A, B = (1 - lr * decay) * A - lr * H[0], (1 - lr * decay) * B - lr * H[1]
        products.append(s * A @ B)
    return products


def make(kind: str, made: list[LoRAPair], lr: float = 0.02, decay: float = 0.3):
    if kind == "sgd":
        return LoRAProSGD(made, lr)
    return LoRAProAdamW(made, lr, betas=(0.9, 0.99), weight_decay=decay, moments=kind)


@pytest.mark.parametrize("kind", ["sgd", "factor", "full"])
def test_stacked_pairs_follow_the_formulas_one_by_one(kind: str):
    made = pairs()
    optimizer = make(kind, made)
    for _ in range(4):
        backward(made)
        optimizer.step()
    expected = reference_steps(kind, 4, 0.02, 0.0 if kind == "sgd" else 0.3)
    for (A, B, s), product in zip(made, expected):
        np.testing.assert_allclose((s * A @ B).detach().numpy(), product, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("choice", ["zero", "symmetric", "sylvester"])
def test_first_order_fall_of_the_loss_is_the_squared_norm_of_the_joint_step(choice: str):
    made, lr = pairs(), 1e-6
    before = backward(made)
    fall = 0.0
    for i, (A, B, s) in enumerate(made):
        G = (s * A @ B - target(i)).detach().numpy()
        H_A, H_B = best(G, A.detach().numpy(), B.detach().numpy(), s)
        fall += np.square(s * (H_A @ B.detach().numpy() + A.detach().numpy() @ H_B)).sum()
    LoRAProSGD(made, lr, C=choice).step()
    assert (before - backward(made)) / lr == pytest.approx(fall, rel=1e-3)


def test_pairs_without_gradient_stay_and_have_no_state():
    made = pairs()
    backward(made)
    made[1].A.grad = None
    frozen = made[1].A.clone(), made[1].B.clone()
    optimizer = LoRAProAdamW(made, moments="full")
    optimizer.step()
    assert torch.equal(frozen[0], made[1].A)
    assert torch.equal(frozen[1], made[1].B)
    assert set(optimizer.state) == {made[i].A for i in (0, 2, 3)}
    backward(made)
    optimizer.step()  # pairs of different age in one model
    assert [optimizer.state[p.A]["step"].item() for p in made] == [2, 1, 2, 2]


@pytest.mark.parametrize("kind", ["sgd", "factor", "full"])
def test_stored_state_continues_the_same_run(kind: str):
    made = pairs()
    optimizer = make(kind, made)
    for _ in range(2):
        backward(made)
        optimizer.step()
    again = copy.deepcopy(made)
    resumed = make(kind, again, lr=0.5, decay=0.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(2):
        for pairs_, run in ((made, optimizer), (again, resumed)):
            backward(pairs_)
            run.step()
    for one, other in zip(made, again):
        assert torch.equal(one.A, other.A)
        assert torch.equal(one.B, other.B)


def test_half_precision_factors_have_wide_full_moments_also_from_a_checkpoint():
    made = [LoRAPair(*(nn.Parameter(p.detach().bfloat16()) for p in pair[:2]), pair.scale) for pair in pairs()]
    optimizer = LoRAProAdamW(made)
    for A, B, _ in made:
        A.grad, B.grad = torch.ones_like(A), torch.ones_like(B)
    optimizer.step()
    other = LoRAProAdamW(made)
    other.load_state_dict(optimizer.state_dict())
    assert other.state[made[0].A]["exp_avg"].dtype == torch.float32
    assert torch.equal(other.state[made[0].A]["exp_avg"], optimizer.state[made[0].A]["exp_avg"])


def test_a_schedule_sets_the_rate_of_every_pair():
    made = pairs()
    optimizer = LoRAProSGD(made, 0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05] * 4
    assert optimizer.step(lambda: 3.0) == 3.0


@pytest.mark.parametrize("kind", ["sgd", "factor", "full"])
def test_which_steps_do_not_depend_on_the_factorisation(kind: str):
    products = []
    for S in (torch.eye(2).double(), normal(2, 2, seed=30)):
        A, B, _ = pairs()[0]
        pair = LoRAPair(nn.Parameter(A.detach() @ S), nn.Parameter(S.inverse() @ B.detach()), 1.0)
        optimizer = make(kind, [pair])
        for _ in range(3):
            backward([pair])
            optimizer.step()
        products.append((pair.A @ pair.B).detach())
    assert torch.allclose(*products, rtol=0, atol=1e-9) == (kind != "factor")


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"lr": -1.0}, ValueError, "lr"),
        ({"lr": "fast"}, TypeError, "lr"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\]"),
        ({"eps": -1.0}, ValueError, "eps"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay"),
        ({"C": "best"}, ValueError, "C"),
        ({"moments": "half"}, ValueError, "moments"),
        ({"pairs": []}, ValueError, "pairs"),
        ({"pairs": pairs((0.0,))}, ValueError, "scale"),
        ({"pairs": [LoRAPair(pairs()[0].A, pairs()[3].B, 1.0)]}, ValueError, "pairs"),
    ],
)
def test_bad_input(options: dict, error: type[Exception], name: str):
    with as_users_call(), pytest.raises(error, match=f"^{name}: got"):
        LoRAProAdamW(**{"pairs": pairs(), **options})
