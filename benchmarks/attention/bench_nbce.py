"""Merging n + 1 rows of logits at the vocabulary of a large model, against the reference script's steps and against a
part of the model's own step; one decoding step against concatenation.

Run: python -m benchmarks.attention.bench_nbce [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import TopPLogitsWarper

from benchmarks.measure import Report
from kexue_lib.attention import nbce
from kexue_lib.attention.core import DecoderLM, LMConfig

CONTEXTS, VOCABULARY, HEAD_WIDTH = 16, 128_000, 1024
MODEL_PARAMETERS = 8e9  # of a model with this vocabulary


def script(scores: torch.Tensor, beta: float = 0.25) -> torch.Tensor:
    """The steps of github.com/bojone/NBCE on one group: row 0 has no context."""
    log_p = TopPLogitsWarper(0.95)(None, scores.log_softmax(-1))
    clipped = log_p.clip(-100, 0)
    entropy = -(log_p.exp() * clipped).sum(-1)
    k = entropy[1:].argmin() + 1
    merged = (1 + beta) * log_p[k] - beta * log_p[0]
    return torch.where(clipped[0] > -100, merged, log_p[k])


def reading(length: int, contexts: int) -> dict[str, Callable[[], object]]:
    """Prompts of n contexts and one question: separate rows, and one long row."""
    config = LMConfig(vocab_size=256, d_model=256, n_layers=4, n_heads=4)
    model = DecoderLM(config, generator=torch.Generator().manual_seed(0)).eval()
    parts = [torch.randint(256, (length,)) for _ in range(contexts)]
    question = torch.randint(256, (8,))
    whole = torch.cat([*parts, question])[None]
    return {
        "NBCE, n + 1 rows": lambda: nbce.generate_nbce(model, parts, question, max_new_tokens=1),
        "parallel windows": lambda: nbce.parallel_context_windows(model, parts, question, max_new_tokens=1),
        "concatenation": lambda: model.generate(whole, 1),
    }


@torch.inference_mode()
def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("Merging predictions of many contexts", peers=("transformers",))
    scores = 3 * torch.randn(CONTEXTS + 1, VOCABULARY)
    hidden, head = torch.randn(CONTEXTS + 1, HEAD_WIDTH), torch.randn(VOCABULARY, HEAD_WIDTH)
    merge = lambda **options: lambda: nbce.nbce_logits(scores[1:], scores[0], **options)
    expected, ours = script(scores), merge()().logits
    differ = ((ours - expected).abs() > 1e-4).sum().item()
    report.number(f"tokens of {VOCABULARY} where the script and nbce_logits disagree", differ)
    report.compare(
        f"one merge, n = {CONTEXTS}, V = {VOCABULARY}, float32",
        {
            "nbce_logits": merge(),
            "nbce_logits, no truncation": merge(top_p=None),
            "nbce_logits, top_k 64": merge(top_p=None, top_k=64),
            "nbce_logits, mean, n - 1": merge(pooling="mean", beta=CONTEXTS - 1, top_p=None),
            "reference script's steps": lambda: script(scores),
            f"head of width {HEAD_WIDTH}": lambda: hidden @ head.T,
        },
        baseline="nbce_logits",
        rounds=9,
    )
    rows = {row.name: row.milliseconds for row in report.comparisons[-1].timings}
    step = rows[f"head of width {HEAD_WIDTH}"] * MODEL_PARAMETERS / (VOCABULARY * HEAD_WIDTH)
    for name in ("nbce_logits", "nbce_logits, no truncation"):
        report.number(f"{name}: per cent of a step of 8e9 weights at the head's speed", 100 * rows[name] / step)
    for contexts in (4, 16):
        report.compare(
            f"reading {contexts} contexts of 256 tokens and one new token, d 256, 4 layers",
            reading(256, contexts),
            baseline="NBCE, n + 1 rows",
            rounds=5,
        )
    report.finish("attention/nbce")


if __name__ == "__main__":
    main()
