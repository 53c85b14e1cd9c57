"""Learning curves of the small language model: bytes of Python source, and key–value lookup with and without a
convolution. Run by ``python -m kexue_lib.checkpoints.attention.learning`` with one thread, about three minutes."""

from __future__ import annotations

import time

import torch

from kexue_lib.attention.core import DecoderLM, LMConfig, lookup_accuracy, lookup_batches
from kexue_lib.checkpoints import rounded, save
from kexue_lib.data import ngram_entropy, python_source
from kexue_lib.pretrain import pretrain
from kexue_lib.training import fit, warmup_linear

__all__ = ["LOOKUP_STEPS", "STEPS", "lookup_run", "main"]

STEPS, LOOKUP_STEPS = 365, 500


def lookup_run(conv_width: int, d_model: int, n_heads: int, steps: int) -> dict:
    """Train on 1–8 pairs and test on more.

    Args:
        conv_width: taps of the convolution; 0 for none.
        d_model: width.
        n_heads: heads.
        steps: optimizer steps.

    Returns:
        ``loss`` (means of 10 steps), ``accuracy`` by number of pairs, ``cpu_seconds``, ``parameters``.
    """
    config = LMConfig(vocab_size=38, d_model=d_model, n_layers=2, n_heads=n_heads, conv_width=conv_width)
    model = DecoderLM(config, generator=torch.Generator().manual_seed(0))
    start = time.process_time()
    result = fit(
        model,
        lambda network, batch: network.loss(batch[0], weights=batch[1]),
        lookup_batches(),
        optimizer=lambda p: torch.optim.AdamW(p, lr=3e-3),
        steps=steps,
        schedule=warmup_linear(steps, warmup=20),
        log_every=10,
    )
    seconds, accuracy = time.process_time() - start, {}
    for pairs in (1, 4, 8, 16, 24):
        batch = lookup_batches(pairs=(pairs, pairs), batch_size=250)(torch.Generator().manual_seed(100 + pairs))
        accuracy[str(pairs)] = lookup_accuracy(model.eval(), *batch)
    return {
        "loss": result.history["loss"],
        "accuracy": accuracy,
        "cpu_seconds": seconds,
        "parameters": model.num_parameters(),
    }


def main() -> None:
    """Run all and store the curves.

    One thread, so that the seconds are comparable; about three minutes.
    """
    torch.set_num_threads(1)
    start = time.process_time()
    result = pretrain(steps=STEPS, log_every=5, evaluate_every=50, progress=True)
    seconds = time.process_time() - start
    measured, corpus = result.history["validation"], python_source()
    seen = measured.isfinite()
    content = {
        "bytes": {
            "step": result.history["step"],
            "loss": result.history["loss"],
            "validation_step": result.history["step"][seen],
            "validation": measured[seen],
            "unigram": ngram_entropy(corpus.train, 1),
            "bigram": ngram_entropy(corpus.train, 2),
            "cpu_seconds": seconds,
            "parameters": result.model.num_parameters(),
        },
        "retrieval": {
            "convolution": lookup_run(3, 64, 2, LOOKUP_STEPS),
            "no convolution": lookup_run(0, 128, 4, LOOKUP_STEPS),
        },
    }
    summary = {
        "steps": STEPS,
        "seed": 0,
        "validation": rounded(measured[seen][-1].item()),
        "accuracy_at_8_pairs": content["retrieval"]["convolution"]["accuracy"]["8"],
    }
    print(save("attention/learning", rounded(content), made_with=summary).name, summary)


if __name__ == "__main__":
    main()
