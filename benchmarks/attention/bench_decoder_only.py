"""Attention in two directions beside the dense mask, the streamed log-determinant beside factorisations, and the models
of the mask comparison beside x-transformers.

Run: python -m benchmarks.attention.bench_decoder_only [--save]
"""

from __future__ import annotations

import resource
import time

import torch
from x_transformers import Decoder, TransformerWrapper, XTransformer

from benchmarks.measure import Report
from kexue_lib.attention.core import LMConfig
from kexue_lib.attention.decoder_only import (
    Seq2Seq,
    Seq2SeqConfig,
    attention_matrix,
    causal_logdet,
    head_masks,
    mixed_attention,
)

WIDTH, LAYERS, HEADS, BATCH, HALF = 256, 4, 4, 8, 128


def two_directions(report: Report) -> None:
    dense = torch.nn.functional.scaled_dot_product_attention
    for length in (512, 1024, 2048):
        q, k, v = (torch.randn(4, 8, length, 64) for _ in range(3))
        mask = head_masks("mixed", length, n_heads=8)
        report.compare(
            f"half of the heads causal, half anti-causal: batch 4, 8 heads of 64, {length} tokens",
            {
                "PyTorch, dense mask": lambda q=q, k=k, v=v, m=mask: dense(q, k, v, attn_mask=m),
                "two causal calls (ours)": lambda q=q, k=k, v=v: mixed_attention(q, k, v),
            },
            baseline="two causal calls (ours)",
            rounds=9,
        )


def determinants(report: Report) -> None:
    q, k = torch.randn(2048, 64), torch.randn(2048, 64)
    mask = head_masks("causal", 2048)[0]
    report.compare(
        "log-determinant of causal attention, 2048 tokens, head of 64",
        {
            "matrix and torch.linalg.slogdet": lambda: torch.linalg.slogdet(attention_matrix(q, k, mask=mask)),
            "matrix and its diagonal": lambda: attention_matrix(q, k, mask=mask).diagonal().log().sum(),
            "causal_logdet (ours)": lambda: causal_logdet(q, k),
        },
        baseline="causal_logdet (ours)",
        rounds=9,
    )


def long_sequence(report: Report) -> None:
    """First of all: the peak of the process only grows."""
    q, k = torch.randn(16384, 64), torch.randn(16384, 64)
    causal_logdet(q[:1024], k[:1024])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    causal_logdet(q, k)
    report.number("CPU seconds of causal_logdet, 16384 tokens, head of 64", time.process_time() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    report.number("peak memory it adds, MiB", grown)


def models(report: Report) -> None:
    source, target = torch.randint(256, (BATCH, HALF)), torch.randint(256, (BATCH, HALF))
    both = torch.cat([source, target], dim=1)
    base = LMConfig(vocab_size=256, d_model=WIDTH, n_layers=LAYERS, n_heads=HEADS, ffn="gelu")
    sizes = {"depth": LAYERS, "heads": HEADS, "attn_dim_head": WIDTH // HEADS, "attn_flash": True}
    theirs = TransformerWrapper(
        num_tokens=256,
        max_seq_len=2 * HALF,
        attn_layers=Decoder(dim=WIDTH, rotary_pos_emb=True, ff_no_bias=True, use_rmsnorm=True, **sizes),
    )
    peer = XTransformer(
        dim=WIDTH, tie_token_emb=True,
        **{f"enc_{name}": value for name, value in sizes.items()}, enc_num_tokens=256, enc_max_seq_len=HALF,
        **{f"dec_{name}": value for name, value in sizes.items()}, dec_num_tokens=256, dec_max_seq_len=HALF + 1,
    )  # fmt: skip
    ours = {name: Seq2Seq(Seq2SeqConfig(base, kind)) for name, kind in (("GPT", "causal"), ("UniLM", "bidirectional"))}
    t5 = Seq2Seq(Seq2SeqConfig(base, "bidirectional", shared=False))
    mask = head_masks("prefix", 2 * HALF - 1, prefix=HALF)[None]
    entropy = torch.nn.functional.cross_entropy

    def prefix_peer() -> None:
        logits = theirs(both[:, :-1], attn_mask=mask)[:, HALF - 1 :]
        entropy(logits.flatten(0, 1), target.flatten()).backward()

    report.compare(
        f"loss and gradient of a target of {HALF} tokens given as many, batch {BATCH}, {LAYERS} layers of {WIDTH}",
        {
            "GPT (ours)": lambda: ours["GPT"].loss(source, target).backward(),
            "UniLM (ours)": lambda: ours["UniLM"].loss(source, target).backward(),
            "T5 (ours)": lambda: t5.loss(source, target).backward(),
            "x-transformers, prefix mask": prefix_peer,
            "x-transformers, encoder-decoder": lambda: peer(source, both[:, HALF - 1 :]).backward(),
        },
        baseline="UniLM (ours)",
        rounds=7,
    )


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("Masks on the input", peers=("x-transformers",))
    with torch.inference_mode():
        long_sequence(report)
        two_directions(report)
        determinants(report)
    models(report)
    report.finish("attention/decoder_only")


if __name__ == "__main__":
    main()
