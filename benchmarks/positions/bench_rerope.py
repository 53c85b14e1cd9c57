"""ReRoPE by blocks beside the article's two full matrices and plain rotary attention; decoding with a long cache.

Run: python -m benchmarks.positions.bench_rerope [--save]
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.measure import Report
from kexue_lib.attention.core import attention
from kexue_lib.positions.rerope import ReRoPECache, rerope_attention
from kexue_lib.positions.rope import RotaryEmbedding, apply_rotary, cos_sin, inverse_frequencies

LENGTH, WINDOW, WIDTH = 4096, 512, 64
THETA = inverse_frequencies(WIDTH)


class TwoMatrices:
    """The article's form, as its author's patch for transformers has it; tables and masks are made once, not timed."""

    def __init__(self, q_places: Tensor, total: int):
        places = torch.arange(total)
        relative = q_places[:, None] - places
        self.near = relative < WINDOW
        self.hidden = torch.zeros(relative.shape).masked_fill(relative < 0, -torch.inf)
        self.q_table, self.k_table = cos_sin(q_places, THETA), cos_sin(places, THETA)
        self.far_table = cos_sin(torch.full_like(q_places, WINDOW), THETA)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        first = apply_rotary(q, *self.q_table) @ apply_rotary(k, *self.k_table).mT
        second = apply_rotary(q, *self.far_table) @ k.mT
        scores = torch.where(self.near, first, second) / WIDTH**0.5 + self.hidden
        return scores.softmax(-1) @ v


def whole_sequence(report: Report) -> None:
    q, k, v = (torch.randn(1, 4, LENGTH, WIDTH) for _ in range(3))
    two_matrices = TwoMatrices(torch.arange(LENGTH), LENGTH)
    rope = RotaryEmbedding(WIDTH)
    ours = rerope_attention(q, k, v, THETA, window=WINDOW)
    apart = (ours - two_matrices(q, k, v)).abs().max().item()
    report.number("largest difference to the article's form", apart)
    report.compare(
        "whole sequence, (1, 4, 4096, 64), window 512, float32",
        {
            "rerope_attention": lambda: rerope_attention(q, k, v, THETA, window=WINDOW),
            "two full matrices, as in the article": lambda: two_matrices(q, k, v),
            "plain RoPE, PyTorch's fused causal attention": lambda: attention(*rope(q, k), v, causal=True),
        },
        baseline="rerope_attention",
        rounds=21,
        seconds=90.0,
    )


def one_token(report: Report) -> None:
    total = 32768
    k, v = (torch.randn(1, 8, total, WIDTH) for _ in range(2))
    q = torch.randn(1, 8, 1, WIDTH)
    cache = ReRoPECache(THETA, window=WINDOW)
    cache.append(k[..., :-1, :], v[..., :-1, :])
    cache.append(k[..., -1:, :], v[..., -1:, :])
    rope, place = RotaryEmbedding(WIDTH), torch.tensor([total - 1])
    stored = rope.rotate(k, torch.arange(total))
    two_matrices = TwoMatrices(place, total)
    report.compare(
        "one token, 32768 in the cache, 8 heads of 64, window 512, float32",
        {
            "ReRoPECache": lambda: cache.attend(q),
            "plain RoPE, keys stored rotated": lambda: attention(rope.rotate(q, place), stored, v, causal=True),
            "the whole cache rotated again, as in the article": lambda: two_matrices(q, k, v),
        },
        baseline="ReRoPECache",
        rounds=41,
        seconds=60.0,
    )


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("ReRoPE")
    whole_sequence(report)
    one_token(report)
    report.finish("positions/rerope")


if __name__ == "__main__":
    main()
