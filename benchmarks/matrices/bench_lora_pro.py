"""LoRA-Pro's step beside a loop over the layers with SciPy, and beside plain AdamW on the factors.

Run: python -m benchmarks.matrices.bench_lora_pro [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import scipy.linalg
import torch
from torch import Tensor, nn

from benchmarks.measure import Report
from kexue_lib.matrices.lora_gradient import LoRAPair, inject_lora, lora_pairs
from kexue_lib.matrices.lora_pro import LoRAProAdamW, LoRAProSGD, solve_sylvester_spd

PAIRS = 24


def pairs(n: int, r: int) -> list[LoRAPair]:
    made = []
    for _ in range(PAIRS):
        A, B = nn.Parameter(torch.randn(n, r) / n**0.5), nn.Parameter(torch.randn(r, n) / n**0.5)
        A.grad, B.grad = torch.randn_like(A), torch.randn_like(B)
        made.append(LoRAPair(A, B, 1.0))
    return made


@torch.no_grad()
def loop(made: list[LoRAPair], lr: float = 1e-6, dtype: torch.dtype = torch.float32) -> None:
    """The paper's formulas, one layer after the other: torch.linalg.inv, and SciPy for the Sylvester equation."""
    for A, B, s in made:
        a, b, G_A, G_B = (x.to(dtype) for x in (A, B, A.grad, B.grad))
        P, Q = a.mT @ a, b @ b.mT
        P_inverse, Q_inverse = torch.linalg.inv(P), torch.linalg.inv(Q)
        H_A = G_A @ Q_inverse / s**2
        H_B = P_inverse @ G_B
        H_B = (H_B - H_B @ b.mT @ Q_inverse @ b) / s**2
        C = torch.from_numpy(scipy.linalg.solve_sylvester(P.numpy(), Q.numpy(), (-a.mT @ H_A).numpy())).to(dtype)
        A.sub_(lr * (H_A + a @ C).to(A.dtype))
        B.sub_(lr * (H_B - C @ b).to(B.dtype))


def network(width: int, r: int) -> nn.Sequential:
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(PAIRS)))
    inject_lora(model, r, init="both", generator=torch.Generator().manual_seed(0))
    return model


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return step


def factors(made: list[LoRAPair]) -> list[Tensor]:
    return [p for A, B, _ in made for p in (A, B)]


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    report = Report("LoRA-Pro", peers=("scipy",))
    for n, r in ((256, 8), (1024, 8), (1024, 32)):
        one = pairs(n, r)
        step = LoRAProSGD(one, 1e-6, C="sylvester").step
        plain = torch.optim.AdamW(factors(one), 1e-6, foreach=True)
        report.compare(
            f"Optimizer step of {PAIRS} pairs, n = m = {n}, r = {r}, Sylvester choice",
            {
                "LoRAProSGD": step,
                "loop with inv and solve_sylvester, float32": lambda one=one: loop(one),
                "the same in float64": lambda one=one: loop(one, dtype=torch.float64),
                "torch AdamW on the factors": plain.step,
            },
            baseline="LoRAProSGD",
            rounds=25,
        )
    for r in (8, 32):
        roots = torch.randn(2, PAIRS, r, 2 * r, dtype=torch.float64)
        (P, Q), R = roots @ roots.mT, torch.randn(PAIRS, r, r, dtype=torch.float64)
        arrays = [[x.numpy() for x in column] for column in (P, Q, R)]
        report.compare(
            f"{PAIRS} Sylvester equations, r = {r}, float64",
            {
                "solve_sylvester_spd": lambda P=P, Q=Q, R=R: solve_sylvester_spd(P, Q, R),
                "scipy solve_sylvester, one by one": lambda a=arrays: [
                    scipy.linalg.solve_sylvester(*x) for x in zip(*a)
                ],
            },
            baseline="solve_sylvester_spd",
            rounds=25,
        )
    for rows in (64, 512):
        candidates = {}
        x = torch.randn(rows, 1024)
        for name in ("AdamW", "LoRAProAdamW, factor moments", "LoRAProAdamW, full moments"):
            model = network(1024, 8)
            if name == "AdamW":
                optimizer = torch.optim.AdamW(factors(lora_pairs(model)), 1e-6, foreach=True)
            else:
                optimizer = LoRAProAdamW(lora_pairs(model), 1e-6, moments=name.split()[1])
            candidates[name] = training_step(model, optimizer, x)
        report.compare(
            f"Training step of {PAIRS} LoRA layers 1024 × 1024, r = 8, {rows} rows",
            candidates,
            baseline="AdamW",
            rounds=11,
            warmup=2,
        )
    report.finish("matrices/lora_pro")


if __name__ == "__main__":
    main()
