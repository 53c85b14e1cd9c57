"""Pretrain a byte-level language model on Python's own source code, on whatever there is to train on.

    python -m kexue_lib.pretrain                                        one process: CPU or GPU
    accelerate launch -m kexue_lib.pretrain                             what ``accelerate config`` says
    torchrun --nproc-per-node=8 -m kexue_lib.pretrain                   eight GPUs of one machine (DDP)
    ACCELERATE_USE_FSDP=true torchrun --nnodes=4 … -m kexue_lib.pretrain   four machines, sharded (FSDP)

The same file, the same numbers: k processes with batch b see what one process with batch k·b would.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
import torch.distributed as dist

from kexue_lib.attention.core import DecoderLM, LMConfig
from kexue_lib.data import byte_windows, ngram_entropy, python_source
from kexue_lib.training import FitResult, fit, warmup_linear

__all__ = ["main", "parser", "pretrain"]


def pretrain(
    *,
    steps: int = 365,
    batch_size: int = 16,
    length: int = 128,
    d_model: int = 128,
    n_layers: int = 4,
    n_heads: int = 4,
    lr: float = 2e-3,
    warmup: int = 50,
    seed: int = 0,
    evaluate_every: int = 50,
    **options,
) -> FitResult:
    """Train a byte model on the standard library's source and watch its loss on the part kept apart.

    Args:
        steps: optimizer steps.
        batch_size: windows of one process and step.
        length: bytes of a window.
        d_model: width.
        n_layers: blocks.
        n_heads: heads.
        lr: peak learning rate of AdamW (β = 0.9, 0.95, weight decay 0.1).
        warmup: steps of the rise; the fall to zero is linear.
        seed: of weights and batches.
        evaluate_every: steps between evaluations.
        options: passed on to :func:`kexue_lib.training.fit`: ``checkpoint``, ``precision``, ``device``, …

    Returns:
        ``FitResult``; its history has ``validation``, nats per byte over 64 windows of the validation part.

    Cost: 0.8 M parameters by default, about 0.16 s a step on one CPU core.
    """
    corpus = python_source()
    config = LMConfig(vocab_size=256, d_model=d_model, n_layers=n_layers, n_heads=n_heads, train_len=length)
    model = DecoderLM(config, generator=torch.Generator().manual_seed(seed))
    held_out = byte_windows(corpus.validation, length + 1, 64)(torch.Generator().manual_seed(1))

    def evaluate(network: DecoderLM) -> dict[str, float]:
        device = next(network.parameters()).device
        return {"validation": network.loss(held_out.to(device)).item()}

    return fit(
        model,
        lambda network, tokens: network.loss(tokens),
        byte_windows(corpus.train, length + 1, batch_size),
        optimizer=lambda p: torch.optim.AdamW(p, lr=lr, betas=(0.9, 0.95), weight_decay=0.1),
        schedule=warmup_linear(steps, warmup=min(warmup, steps)),
        steps=steps,
        clip_norm=1.0,
        evaluate=evaluate,
        evaluate_every=evaluate_every,
        seed=seed,
        **options,
    )


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``python -m kexue_lib.pretrain``.

    >>> parser().parse_args(["--steps", "10"]).steps
    10
    """
    doc = (__doc__ or "").split("\n", 1)
    formatter = argparse.RawDescriptionHelpFormatter
    arguments = argparse.ArgumentParser(
        "python -m kexue_lib.pretrain", description=doc[0], epilog=doc[1], formatter_class=formatter
    )
    add = arguments.add_argument
    add("--steps", type=int, default=365, help="optimizer steps (default: %(default)s)")
    add("--batch-size", type=int, default=16, help="windows of one process and step (default: %(default)s)")
    add("--length", type=int, default=128, help="bytes of a window (default: %(default)s)")
    add("--d-model", type=int, default=128, help="width (default: %(default)s)")
    add("--n-layers", type=int, default=4, help="blocks (default: %(default)s)")
    add("--n-heads", type=int, default=4, help="heads (default: %(default)s)")
    add("--lr", type=float, default=2e-3, help="peak learning rate (default: %(default)s)")
    add("--warmup", type=int, default=50, help="steps of the rise (default: %(default)s)")
    add("--accumulate", type=int, default=1, help="batches of one step (default: %(default)s)")
    add("--precision", choices=("no", "bf16", "fp16"), default="no", help="mixed precision (default: %(default)s)")
    add("--seed", type=int, default=0, help="of weights and batches (default: %(default)s)")
    add("--evaluate-every", type=int, default=50, help="steps between evaluations (default: %(default)s)")
    add("--log-every", type=int, default=10, help="steps between rows of the history (default: %(default)s)")
    add("--checkpoint", help="folder; a run that finds a checkpoint there goes on from it")
    add("--checkpoint-every", type=int, default=100, help="steps between checkpoints (default: %(default)s)")
    add("--device", help="cpu, cuda, … (default: what there is)")
    return arguments


def main() -> None:
    """Train as the command line says and print what came out.

    Every process of a launch runs this; the first one prints.
    """
    start, options = time.perf_counter(), vars(parser().parse_args())
    result = pretrain(**options)
    if not dist.is_initialized() or dist.get_rank() == 0:
        measured = result.history["validation"]
        final = measured[measured.isfinite()][-1].item()
        corpus = python_source()
        references = ", ".join(f"{n}-gram table {ngram_entropy(corpus.train, n):.3f}" for n in (1, 2))
        print(f"{result.steps} steps in {time.perf_counter() - start:.0f} s")
        print(f"validation: {final:.3f} nats per byte ({final / math.log(2):.3f} bits); {references} nats")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
