"""Decoding one token with the caches of MHA, GQA, MQA and MLA, against transformers' DeepSeek-V3 and the re-expansion.

Run: python -m benchmarks.attention.bench_mla [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import DeepseekV3Config
from transformers.cache_utils import DynamicCache
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

from benchmarks.measure import Report
from kexue_lib.attention.mla import AttentionConfig, KVCache, build_attention, kv_cache_elements

BATCH = 4
SIZES = {"d_model": 1024, "n_heads": 32, "head_dim": 64}
CONFIGS = {
    "MHA": AttentionConfig(**SIZES),
    "GQA, 8 groups": AttentionConfig(**SIZES, kind="gqa", n_kv_heads=8),
    "MQA": AttentionConfig(**SIZES, kind="mqa"),
    "MLA": AttentionConfig(**SIZES, kind="mla", kv_rank=256, rope_dim=32),
}


def decoding(config: AttentionConfig, context: int, form: str = "auto") -> Callable[[], torch.Tensor]:
    """One step behind `context` tokens, always at the same place."""
    layer = build_attention(config).eval()
    cache = KVCache(config, batch=BATCH, max_len=context + 1)
    for buffer in cache.buffers:
        buffer.normal_()
    x = torch.randn(BATCH, 1, config.d_model)

    def step() -> torch.Tensor:
        cache.length = context
        return layer(x, cache=cache, form=form)

    return step


def peer(config: AttentionConfig, context: int) -> Callable[[], torch.Tensor]:
    """The same layer of transformers with its own cache."""
    c = config
    theirs = DeepseekV3Config(
        hidden_size=c.d_model, num_attention_heads=c.n_heads, num_key_value_heads=c.n_heads, q_lora_rank=None,
        kv_lora_rank=c.kv_rank, qk_nope_head_dim=c.head_dim, qk_rope_head_dim=c.rope_dim, v_head_dim=c.v_head_dim,
        num_hidden_layers=1, max_position_embeddings=2 * context, attn_implementation="sdpa",
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    layer, table = DeepseekV3Attention(theirs, 0).eval(), DeepseekV3RotaryEmbedding(theirs)
    cache, x = DynamicCache(), torch.randn(BATCH, 1, c.d_model)
    cache.update(torch.randn(BATCH, 1, context, c.kv_rank), torch.randn(BATCH, 1, context, c.rope_dim), 0)

    def step() -> torch.Tensor:
        out = layer(x, table(x, torch.tensor([[context]])), None, past_key_values=cache)[0]
        cache.crop(-1)
        return out

    return step


@torch.inference_mode()
def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("Decoding with shared keys and values", peers=("transformers",))
    mla = CONFIGS["MLA"]
    for context in (512, 2048, 4096):
        steps = {name: decoding(config, context) for name, config in CONFIGS.items()}
        steps["MLA, expanded each step"] = decoding(mla, context, "expanded")
        steps["transformers DeepSeek-V3"] = peer(mla, context)
        report.compare(
            f"one token, batch {BATCH}, context {context}, d 1024, 32 heads of 64, float32",
            steps,
            baseline="MLA",
            rounds=15 if context > 2000 else 31,
        )
    for name, config in CONFIGS.items():
        report.number(f"numbers per token and layer in the cache, {name}", kv_cache_elements(config))
    report.finish("attention/mla")


if __name__ == "__main__":
    main()
