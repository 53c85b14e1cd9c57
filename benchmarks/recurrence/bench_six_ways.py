"""One sequence, six ways to carry a state: a pass over the whole sequence, and one more token.

Run: python -m benchmarks.recurrence.bench_six_ways [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import Report
from kexue_lib.recurrence.hippo import hippo_matrices
from kexue_lib.recurrence.hippo_discretization import legs_scan
from kexue_lib.recurrence.lru import LRU
from kexue_lib.recurrence.parallel_rnn import GRUCell, parallel_rnn, sequential_rnn
from kexue_lib.recurrence.s4 import S4

BATCH, LENGTH, WIDTH = 4, 1024, 64


class Attention(nn.Module):
    """One head, causal, with its projections; a step writes the last place of the cache of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, u: Tensor) -> Tensor:
        q, k, v = self.qkv(u).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def step(self, u: Tensor, cache: Tensor) -> Tensor:
        q, k, v = self.qkv(u).chunk(3, -1)
        cache[:, :, -1] = torch.stack([k, v])
        return F.scaled_dot_product_attention(q[:, None], *cache)


class Memory(nn.Module):
    """LegS of each channel, read by one learned vector; no parameters inside of the recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Parameter(torch.randn(WIDTH, WIDTH) / WIDTH**0.5)

    def forward(self, u: Tensor) -> Tensor:
        return (legs_scan(u.mT, WIDTH) * self.read[:, None]).sum(-1).mT

    def step(self, u: Tensor, state: Tensor) -> Tensor:
        A, B = hippo_matrices("legs", WIDTH, dtype=torch.float32)
        k = LENGTH
        weight = (1 / k + 1 / (k + 1)) / 2
        right = state + state @ A.mT / (2 * k) + weight * u[..., None] * B
        left = torch.eye(WIDTH) - A / (2 * (k + 1))
        state = torch.linalg.solve_triangular(left, right.mT, upper=False).mT
        return (state * self.read).sum(-1)


def trained(function: Callable[[Tensor], Tensor], module: nn.Module, u: Tensor) -> Callable[[], None]:
    """Forward, and backward to the parameters and the input."""
    u = u.clone().requires_grad_()

    def step() -> None:
        out = function(u)
        torch.autograd.grad(out, (u, *module.parameters()), grad_outputs=torch.ones_like(out))

    return step


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("Six ways to carry a state")
    cell, attention, memory = GRUCell(WIDTH, WIDTH), Attention(), Memory()
    lru, s4 = LRU(WIDTH, WIDTH), S4(WIDTH, WIDTH, l_max=LENGTH)
    u = torch.randn(BATCH, LENGTH, WIDTH)
    ways = {
        "attention": (attention, attention),
        "GRU, step by step": (cell, lambda x: sequential_rnn(cell, x)),
        "GRU, Newton's iterations": (cell, lambda x: parallel_rnn(cell, x)),
        "LRU": (lru, lru),
        "LegS": (memory, memory),
        "S4": (s4, s4),
    }
    report.compare(
        f"Forward and backward, batch {BATCH}, {LENGTH} steps, width {WIDTH}",
        {name: trained(function, module, u) for name, (module, function) in ways.items()},
        baseline="LRU",
        rounds=7,
    )
    s4.eval()
    token, cache = u[:, 0], torch.randn(2, BATCH, LENGTH, WIDTH)
    state, hidden, waves = torch.randn(BATCH, WIDTH, WIDTH), torch.randn(BATCH, WIDTH), s4.initial_state(BATCH)
    units = lru.initial_state(BATCH)
    with torch.no_grad():
        report.compare(
            f"One more token after {LENGTH}, batch {BATCH}, width {WIDTH}",
            {
                "attention": lambda: attention.step(token, cache),
                "GRU": lambda: cell(hidden, token),
                "LRU": lambda: lru.step(token, units),
                "LegS": lambda: memory.step(token, state),
                "S4": lambda: s4.step(token, waves),
            },
            baseline="LRU",
            rounds=25,
        )
    report.finish("recurrence/six_ways")


if __name__ == "__main__":
    main()
