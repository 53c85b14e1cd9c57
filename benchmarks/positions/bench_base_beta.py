"""Recipes of base_beta beside plain rotary embedding, transformers and rotary-embedding-torch.

Run: python -m benchmarks.positions.bench_base_beta [--save]
"""

from __future__ import annotations

import torch
from rotary_embedding_torch import RotaryEmbedding as RotaryEmbeddingTorch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from benchmarks.measure import Report
from kexue_lib.positions.base_beta import ScaledRotary, yarn_frequencies
from kexue_lib.positions.rope import RotaryEmbedding


def yarn_config() -> LlamaConfig:
    parameters = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 512}
    return LlamaConfig(
        hidden_size=1024, num_attention_heads=16, max_position_embeddings=4096, rope_parameters=parameters
    )


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("Base-β recipes", peers=("transformers", "rotary-embedding-torch"))
    config = yarn_config()
    theirs, _ = ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")
    ours = yarn_frequencies(64, 8, 512)
    report.number("largest relative difference to transformers' yarn", ((ours - theirs) / ours).abs().max().item())
    q, k = torch.randn(1, 16, 1024, 64), torch.randn(1, 16, 1024, 64)
    plain = RotaryEmbedding(64)
    yarn = ScaledRotary(64, method="yarn", factor=8, original_length=512)
    # A Llama makes its tables once per call of the model, for all layers: they are not timed.
    tables = LlamaRotaryEmbedding(config)(q, torch.arange(1024)[None])
    other = RotaryEmbeddingTorch(dim=64, theta_rescale_factor=8.0)
    report.compare(
        "queries and keys (1, 16, 1024, 64), float32",
        {
            "ScaledRotary, yarn": lambda: yarn(q, k),
            "RotaryEmbedding, plain": lambda: plain(q, k),
            "transformers, yarn": lambda: apply_rotary_pos_emb(q, k, *tables),
            "rotary-embedding-torch, NTK-aware": lambda: (
                other.rotate_queries_or_keys(q),
                other.rotate_queries_or_keys(k),
            ),
        },
        baseline="ScaledRotary, yarn",
        rounds=151,
    )
    report.finish("positions/base_beta")


if __name__ == "__main__":
    main()
