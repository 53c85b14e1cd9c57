"""Loss of small byte models that differ in their attention only: MHA, GQA, MQA and MLA at one number of parameters,
three random initialisations each. Run by ``python -m kexue_lib.checkpoints.attention.mla`` with one thread, about eight
minutes."""

from __future__ import annotations

import time

import torch

from kexue_lib.attention.core import DecoderLM, LMConfig
from kexue_lib.attention.mla import AttentionConfig, build_attention, kv_cache_elements
from kexue_lib.checkpoints import rounded, save
from kexue_lib.data import byte_windows, ngram_entropy, python_source
from kexue_lib.training import fit, warmup_linear

__all__ = [
    "HEADS",
    "HIDDEN",
    "LAYERS",
    "SEEDS",
    "STEPS",
    "WIDTH",
    "attention_parameters",
    "hidden_width",
    "main",
    "make_model",
    "run",
]

STEPS, SEEDS = 360, (0, 1, 2)
WIDTH, LAYERS, HEADS, HIDDEN = 128, 2, 4, 352  # HIDDEN: of the feed-forward layers beside MHA
SIZES = {"d_model": WIDTH, "n_heads": HEADS}
CONFIGS = {
    "MHA": AttentionConfig(**SIZES),
    "GQA, 2 groups": AttentionConfig(**SIZES, kind="gqa", n_kv_heads=2),
    "MLA, 112 + 16": AttentionConfig(**SIZES, kind="mla", kv_rank=112, rope_dim=16),
    "MQA": AttentionConfig(**SIZES, kind="mqa"),
    "MLA, 48 + 16": AttentionConfig(**SIZES, kind="mla", kv_rank=48, rope_dim=16),
}


def attention_parameters(config: AttentionConfig) -> int:
    """Return the number of weights of one attention layer.

    Args:
        config: sizes.
    """
    return sum(p.numel() for p in build_attention(config).parameters())


def hidden_width(config: AttentionConfig) -> int:
    """Return the width of the feed-forward layers with which a model has as many weights as the one with MHA.

    Args:
        config: sizes of the attention.
    """
    saved = attention_parameters(CONFIGS["MHA"]) - attention_parameters(config)
    return HIDDEN + round(saved / (3 * WIDTH))  # three matrices in a gated layer


def make_model(config: AttentionConfig, seed: int) -> DecoderLM:
    """Return the untrained model.

    Args:
        config: sizes of the attention.
        seed: of its weights.
    """
    model_config = LMConfig(
        vocab_size=256, d_model=WIDTH, n_layers=LAYERS, n_heads=HEADS, d_ff=hidden_width(config), positions="none"
    )
    generator = torch.Generator().manual_seed(seed)
    return DecoderLM(
        model_config, attention=lambda _, index: build_attention(config, generator=generator), generator=generator
    )


def run(config: AttentionConfig, seed: int, steps: int) -> dict:
    """Train one model; equal seeds see equal batches.

    Args:
        config: sizes of the attention.
        seed: of weights and batches.
        steps: optimizer steps, 16 windows of 128 bytes each.

    Returns:
        ``loss`` (means of 20 steps) and the final ``validation``, both in nats per byte.
    """
    corpus = python_source()
    held_out = byte_windows(corpus.validation, 129, 256)(torch.Generator().manual_seed(1))
    result = fit(
        make_model(config, seed),
        lambda network, tokens: network.loss(tokens),
        byte_windows(corpus.train, 129, 16),
        optimizer=lambda p: torch.optim.AdamW(p, lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1),
        schedule=warmup_linear(steps, warmup=50),
        steps=steps,
        clip_norm=1.0,
        evaluate=lambda network: {"validation": network.loss(held_out).item()},
        evaluate_every=steps,
        log_every=20,
        seed=seed,
        progress=False,
    )
    history = result.history
    return {
        "step": history["step"],
        "loss": history["loss"],
        "validation": history["validation"][-1].item(),
    }


def main() -> None:
    """Train all and store the curves.

    One thread; about fifteen minutes.
    """
    torch.set_num_threads(1)
    start, corpus, rows = time.process_time(), python_source(), {}
    for name, config in CONFIGS.items():
        runs = [run(config, seed, STEPS) for seed in SEEDS]
        rows[name] = {
            "cache": kv_cache_elements(config),
            "hidden": hidden_width(config),
            "parameters": make_model(config, 0).num_parameters(),
            "step": runs[0]["step"],
            "loss": [r["loss"] for r in runs],
            "validation": [r["validation"] for r in runs],
        }
        print(name, rows[name]["parameters"], rows[name]["validation"], round(time.process_time() - start), flush=True)
    content = {"runs": rows, "bigram": ngram_entropy(corpus.train, 2)}
    means = {name: sum(row["validation"]) / len(SEEDS) for name, row in rows.items()}
    summary = {"steps": STEPS, "seed": list(SEEDS), "validation": rounded(means)}
    print(save("attention/mla", rounded(content), made_with=summary).name)


if __name__ == "__main__":
    main()
