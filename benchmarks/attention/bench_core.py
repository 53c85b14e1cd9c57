"""Attention against PyTorch's kernel with repeated keys, and the decoder against transformers' Llama.

Run: python -m benchmarks.attention.bench_core [--save]
"""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.measure import Report
from kexue_lib.attention.core import DecoderLM, LMConfig, attention

SIZES = {"vocab_size": 512, "layers": 4, "d_model": 256, "heads": 8, "kv_heads": 2, "d_ff": 704}


def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=SIZES["vocab_size"], hidden_size=SIZES["d_model"], intermediate_size=SIZES["d_ff"],
        num_hidden_layers=SIZES["layers"], num_attention_heads=SIZES["heads"],
        num_key_value_heads=SIZES["kv_heads"], tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def decoder() -> DecoderLM:
    config = LMConfig(
        vocab_size=SIZES["vocab_size"], d_model=SIZES["d_model"], d_ff=SIZES["d_ff"], n_layers=SIZES["layers"],
        n_heads=SIZES["heads"], n_kv_heads=SIZES["kv_heads"],
    )  # fmt: skip
    return DecoderLM(config).eval()


def repeated(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """Grouped queries by repeating the keys, as most code does."""
    group = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(group, dim=1) for t in (k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=causal)


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("Attention and the decoder", peers=("transformers",))
    q, k, v = torch.randn(1, 8, 1, 64), torch.randn(1, 2, 8192, 64), torch.randn(1, 2, 8192, 64)
    report.compare(
        "one query, 8192 cached keys, 8 heads on 2 key heads",
        {
            "attention": lambda: attention(q, k, v, causal=True),
            "keys repeated": lambda: repeated(q, k, v, False),
            "enable_gqa": lambda: scaled_dot_product_attention(q, k, v, enable_gqa=True),
        },
        baseline="attention",
    )
    long_q, long_k, long_v = torch.randn(1, 8, 2048, 64), k[:, :, :2048], v[:, :, :2048]
    report.compare(
        "2048 queries and keys, causal, 8 heads on 2 key heads",
        {
            "attention": lambda: attention(long_q, long_k, long_v, causal=True),
            "keys repeated": lambda: repeated(long_q, long_k, long_v, True),
        },
        baseline="attention",
        rounds=9,
    )
    ours, theirs, ids = decoder(), llama(), torch.randint(SIZES["vocab_size"], (4, 256))
    report.compare(
        "4 layers of width 256: forward of (4, 256) tokens",
        {"DecoderLM": lambda: ours(ids), "transformers Llama": lambda: theirs(ids).logits},
        baseline="DecoderLM",
        rounds=15,
    )
    prompt = ids[:1, :32]
    report.compare(
        "4 layers of width 256: 64 tokens generated greedily after 32",
        {
            "DecoderLM.generate": lambda: ours.generate(prompt, 64),
            "transformers generate": lambda: theirs.generate(
                prompt, max_new_tokens=64, min_new_tokens=64, do_sample=False, pad_token_id=0
            ),
        },
        baseline="DecoderLM.generate",
        rounds=7,
    )
    report.finish("attention/core")


if __name__ == "__main__":
    main()
