"""Rotary embedding against transformers, rotary-embedding-torch, x-transformers and a plain product of the same size.

Run: python -m benchmarks.positions.bench_rope [--save]
"""

from __future__ import annotations

import rotary_embedding_torch
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from x_transformers.x_transformers import apply_rotary_pos_emb as x_transformers_apply

from benchmarks.measure import Report
from kexue_lib.positions.rope import apply_rotary, cos_sin, inverse_frequencies


def main() -> None:
    torch.manual_seed(0)
    report = Report("Rotary embedding", peers=("transformers", "rotary-embedding-torch", "x-transformers"))
    x, frequencies = torch.randn(8, 16, 1024, 64), inverse_frequencies(64)
    cos, sin = cos_sin(torch.arange(1024), frequencies)
    wide_cos, wide_sin = (torch.cat([t, t], -1)[None] for t in (cos, sin))
    angles = torch.arange(1024)[:, None] * frequencies
    pairs = angles.float().repeat_interleave(2, -1)
    nothing = x[:, :0]  # transformers rotates queries and keys together; here it gets no keys
    report.number(
        "largest difference to transformers",
        _gap(apply_rotary(x, cos, sin), apply_rotary_pos_emb(x, nothing, wide_cos, wide_sin)[0]),
    )
    compiled = torch.compile(apply_rotary)
    product = torch.compile(lambda a: a * 1.5)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        report.compare(
            "(8, 16, 1024, 64) float32, eager",
            {
                "apply_rotary, half": lambda: apply_rotary(x, cos, sin),
                "apply_rotary, interleaved": lambda: apply_rotary(x, cos, sin, layout="interleaved"),
                "transformers": lambda: apply_rotary_pos_emb(x, nothing, wide_cos, wide_sin),
                "rotary-embedding-torch": lambda: rotary_embedding_torch.apply_rotary_emb(pairs, x),
                "x-transformers": lambda: x_transformers_apply(x, pairs[None]),
            },
            baseline="apply_rotary, half",
            rounds=15,
        )
        report.compare(
            "(8, 16, 1024, 64) float32, torch.compile",
            {"x * c": lambda: product(x), "apply_rotary, half": lambda: compiled(x, cos, sin)},
            baseline="x * c",
            rounds=15,
        )
    report.finish("positions/rope")


def _gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


if __name__ == "__main__":
    main()
