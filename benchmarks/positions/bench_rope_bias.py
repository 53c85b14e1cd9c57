"""rope_bias beside its rivals: an explicit mask of biases, FlexAttention, and a loop over diagonals.

Run: python -m benchmarks.positions.bench_rope_bias [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.measure import Report
from kexue_lib.attention.core import attention
from kexue_lib.positions.rope import RotaryEmbedding
from kexue_lib.positions.rope_bias import append_kernel, distance_profile, rotary_kernel


def mask_of(n: int, a: Tensor, b: Tensor, rope: RotaryEmbedding) -> Tensor:
    """The kernel at all distances, gathered into an n × n mask."""
    place = torch.arange(n)
    distance = place[:, None] - place
    mask = rotary_kernel(a, b, place, rope.inv_freq)[:, distance.clamp(min=0)] * a.shape[-1] ** -0.5
    return mask.masked_fill_(distance < 0, -torch.inf)[None]


def by_mask(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, rope: RotaryEmbedding) -> Tensor:
    return scaled_dot_product_attention(*rope(q, k), v, attn_mask=mask)


def by_width(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, rope: RotaryEmbedding) -> Tensor:
    """The kernel as more components of queries and keys."""
    return attention(*append_kernel(q, k, a, b, rope.inv_freq), v, causal=True, scale=q.shape[-1] ** -0.5)


def flex(n: int, a: Tensor, b: Tensor, rope: RotaryEmbedding) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """FlexAttention, compiled, that looks the kernel up by distance; the table is made once."""
    values = rotary_kernel(a, b, torch.arange(n), rope.inv_freq) * a.shape[-1] ** -0.5
    causal = create_block_mask(lambda batch, head, i, j: i >= j, None, None, n, n, device="cpu")
    compiled = torch.compile(flex_attention)

    def added(score: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score + values[head, (i - j).clamp(min=0)]

    return lambda q, k, v: compiled(*rope(q, k), v, score_mod=added, block_mask=causal)


def by_loop(scores: Tensor) -> Tensor:
    return torch.stack([scores.diagonal(-r, -2, -1).mean(-1) for r in range(scores.shape[-1])], dim=-1)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("Query and key biases under RoPE")
    q, k, v = torch.randn(3, 1, 4, 4096, 64).unbind()
    a, b = torch.randn(2, 4, 64).unbind()
    rope = RotaryEmbedding(64)
    mask, by_flex = mask_of(4096, a, b, rope), flex(4096, a, b, rope)
    wide = by_width(q, k, v, a, b, rope)
    apart = max((wide - x).abs().max().item() for x in (by_mask(q, k, v, mask, rope), by_flex(q, k, v)))
    report.number("largest difference of the three ways", apart)
    report.compare(
        "causal attention with a kernel, (1, 4, 4096, 64), float32",
        {
            "append_kernel": lambda: by_width(q, k, v, a, b, rope),
            "n × n mask, made anew": lambda: by_mask(q, k, v, mask_of(4096, a, b, rope), rope),
            "n × n mask, kept": lambda: by_mask(q, k, v, mask, rope),
            "FlexAttention, compiled": lambda: by_flex(q, k, v),
            "no kernel at all": lambda: attention(*rope(q, k), v, causal=True),
        },
        baseline="append_kernel",
        rounds=15,
    )
    scores = torch.randn(2048, 2048)
    report.compare(
        "mean by distance, 2048 × 2048, float32",
        {"distance_profile": lambda: distance_profile(scores), "loop over diagonals": lambda: by_loop(scores)},
        baseline="distance_profile",
        rounds=31,
    )
    report.finish("positions/rope_bias")


if __name__ == "__main__":
    main()
