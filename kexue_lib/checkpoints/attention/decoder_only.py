"""Small byte models that differ in what the input sees: GPT, UniLM and T5 on equal batches, and a GPT as large as T5
(eight random initialisations); the attention matrices of GPT and UniLM (four); masked language models with full, mixed
and linear attention (four; linear attention three). And the spectra of large attention matrices. Run by ``python -m
kexue_lib.checkpoints.attention.decoder_only`` with one thread, about twenty-five minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kexue_lib.attention.core import DecoderLM, LMConfig, SelfAttention
from kexue_lib.attention.decoder_only import (
    MixedSelfAttention,
    Seq2Seq,
    Seq2SeqConfig,
    attention_matrix,
    causal_recover,
    head_masks,
    rank_report,
)
from kexue_lib.checkpoints import rounded, save
from kexue_lib.data import byte_windows, ngram_entropy, python_source
from kexue_lib.training import fit, warmup_linear

__all__ = [
    "BATCH",
    "HIDDEN_BYTE",
    "LENGTH",
    "MASKED",
    "SEEDS",
    "STEPS",
    "LinearSelfAttention",
    "causal_run",
    "head_matrices",
    "heads",
    "main",
    "masked",
    "masked_run",
    "seq2seq_run",
    "spectrum",
    "train",
]

STEPS, SEEDS, BATCH, LENGTH = 240, tuple(range(8)), 16, 128
SIZES = {"d_model": 64, "n_layers": 2, "n_heads": 4}
BASE = LMConfig(vocab_size=256, **SIZES)
HIDDEN_BYTE, MASKED = 256, 0.15  # the id that stands for a masked byte, and the share of masked bytes
SEQ2SEQ = {  # name: configuration, loss on the source too
    "GPT": (Seq2SeqConfig(BASE, "causal"), False),
    "UniLM": (Seq2SeqConfig(BASE, "bidirectional"), False),
    "mixed heads": (Seq2SeqConfig(BASE, "mixed"), False),
    "T5": (Seq2SeqConfig(BASE, "bidirectional", shared=False), False),
    "T5, causal encoder": (Seq2SeqConfig(BASE, "causal", shared=False), False),
    "GPT, loss on all": (Seq2SeqConfig(BASE, "causal"), True),
    "GPT, wider": (Seq2SeqConfig(replace(BASE, d_model=96), "causal"), False),  # as many parameters as T5
}


class LinearSelfAttention(SelfAttention):
    """Self-attention whose weights are normalised products of the exponentials of rotated queries and keys.

    Args:
        config: sizes.
        layer: index of the block.
    """

    def forward(
        self, x: Tensor, *, positions: Tensor, mask: Tensor | None, causal: bool, cache: None, k_positions: Any = None
    ) -> Tensor:
        """Attend; arguments as in :class:`SelfAttention`, neither mask nor cache."""
        q, k, v = (f(x).unflatten(-1, (self.config.n_heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        visible = head_masks("causal", x.shape[1]) if causal else None
        q, k = self.position.rotate(q, positions), self.position.rotate(k, positions)
        weights = attention_matrix(q, k, mask=visible, kind="linear")
        return self.out((weights @ v).transpose(1, 2).flatten(-2))


def train(
    model: nn.Module,
    loss: Callable[[nn.Module, Tensor], Tensor],
    validation: Callable[[nn.Module], Tensor],
    *,
    seed: int,
    steps: int,
    length: int = LENGTH,
    batch_size: int = BATCH,
) -> dict:
    """Train on windows of the standard library's source; equal seeds see equal windows.

    Args:
        model: to train.
        loss: of the model and a batch ``(batch_size, length)``.
        validation: of the model.
        seed: of the batches.
        steps: optimizer steps.
        length: bytes of a window.
        batch_size: windows of a step.

    Returns:
        ``step`` and ``validation``, nats per byte at four points of the run.
    """
    result = fit(
        model,
        loss,
        byte_windows(python_source().train, length, batch_size),
        optimizer=lambda p: torch.optim.AdamW(p, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1),
        schedule=warmup_linear(steps, warmup=steps // 8),
        steps=steps,
        clip_norm=1.0,
        evaluate=lambda network: {"validation": validation(network).item()},
        evaluate_every=steps // 4,
        seed=seed,
        progress=False,
    )
    seen = result.history["validation"].isfinite()
    return {"step": result.history["step"][seen], "validation": result.history["validation"][seen]}


def seq2seq_run(
    config: Seq2SeqConfig,
    seed: int,
    *,
    model: Seq2Seq | None = None,
    source_loss: bool = False,
    steps: int = STEPS,
    length: int = LENGTH,
    batch_size: int = BATCH,
    windows: int = 192,
) -> dict:
    """Train a model to write the second half of a window given the first.

    Args:
        config: of the model.
        seed: of weights and batches.
        model: to train in place; default: one of that configuration and seed.
        source_loss: train on the first half too; the validation never counts it.
        steps: optimizer steps.
        length: bytes of a window.
        batch_size: windows of a step.
        windows: of the validation part.

    Returns:
        As :func:`train`.
    """
    half = length // 2
    held_out = byte_windows(python_source().validation, length, windows)(torch.Generator().manual_seed(1))
    return train(
        Seq2Seq(config, generator=torch.Generator().manual_seed(seed)) if model is None else model,
        lambda network, batch: network.loss(batch[:, :half], batch[:, half:], source_loss=source_loss),
        lambda network: network.loss(held_out[:, :half], held_out[:, half:]),
        seed=seed,
        steps=steps,
        length=length,
        batch_size=batch_size,
    )


def masked(tokens: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Return tokens with 15 % of them hidden, and where.

    Args:
        tokens: ids ``(B, L)``.
        generator: source of the places.
    """
    hidden = torch.rand(tokens.shape, generator=generator) < MASKED
    return tokens.masked_fill(hidden, HIDDEN_BYTE), hidden.float()


def masked_run(attention: type[nn.Module], seed: int, *, steps: int = STEPS) -> dict:
    """Train a bidirectional model to fill in hidden bytes.

    Args:
        attention: module of each layer.
        seed: of weights and batches.
        steps: optimizer steps.

    Returns:
        As :func:`train`; the validation is per hidden byte.
    """
    held_out = byte_windows(python_source().validation, LENGTH, 192)(torch.Generator().manual_seed(1))
    shown, where = masked(held_out, torch.Generator().manual_seed(2))
    config = LMConfig(vocab_size=257, causal=False, **SIZES)

    def loss(network: nn.Module, batch: Tensor) -> Tensor:
        inputs, hidden = masked(batch)
        return network.loss(inputs, batch, weights=hidden)

    return train(
        DecoderLM(config, attention=attention, generator=torch.Generator().manual_seed(seed)),
        loss,
        lambda network: network.loss(shown, held_out, weights=where),
        seed=seed,
        steps=steps,
    )


def causal_run(attention: type[nn.Module], seed: int, *, steps: int = STEPS) -> dict:
    """Train a causal language model.

    Args:
        attention: module of each layer.
        seed: of weights and batches.
        steps: optimizer steps.

    Returns:
        As :func:`train`.
    """
    held_out = byte_windows(python_source().validation, LENGTH, 192)(torch.Generator().manual_seed(1))
    return train(
        DecoderLM(BASE, attention=attention, generator=torch.Generator().manual_seed(seed)),
        lambda network, batch: network.loss(batch),
        lambda network: network.loss(held_out),
        seed=seed,
        steps=steps,
    )


def spectrum(n: int, width: int, kind: str) -> dict:
    """Return ranks and condition of softmax attention between Gaussian queries and keys.

    Args:
        n: tokens.
        width: of the head.
        kind: mask, as in ``head_masks``.

    Returns:
        ``tokens``, ``width``, ``mask`` and numbers of :func:`rank_report`; NaN-free.
    """
    generator = torch.Generator().manual_seed(n + width)
    q, k = (torch.randn(n, width, dtype=torch.float64, generator=generator) for _ in range(2))
    report = rank_report(attention_matrix(q, k, mask=head_masks(kind, n)[0]))
    numbers = {"rank": report.rank, "effective_rank": report.effective_rank, "condition": report.condition}
    return {"tokens": n, "width": width, "mask": kind, **{name: value.item() for name, value in numbers.items()}}


def head_matrices(model: Seq2Seq, kind: str, source: Tensor) -> Tensor:
    """Return the attention matrices of a source in a model of shared layers ``(layers, B, H, P, P)``, float64.

    Args:
        model: to look into.
        kind: mask of the source, as in ``head_masks``.
        source: ids ``(B, P)``.
    """
    seen, visible = [], head_masks(kind, source.shape[1])

    def look(module: SelfAttention, args: tuple, options: dict) -> None:
        split = lambda f: f(args[0]).unflatten(-1, (module.config.n_heads, -1)).transpose(1, 2)
        q, k = (module.position.rotate(split(f), options["positions"]).double() for f in (module.q, module.k))
        seen.append(attention_matrix(q, k, mask=visible))

    hooks = [b.attention.register_forward_pre_hook(look, with_kwargs=True) for b in model.decoder.blocks]
    with torch.no_grad():
        model.decoder(source)
    for hook in hooks:
        hook.remove()
    return torch.stack(seen)


def heads(encoder: str, seed: int) -> dict:
    """Return what the attention matrices of a model are like before and after its training.

    Args:
        encoder: ``"causal"`` or ``"bidirectional"``.
        seed: of weights and batches.

    Returns:
        For ``"untrained"`` and ``"trained"``, over both layers, all heads and eight sources of 64 bytes: the mean
        effective rank, and the median decimal logarithms of the condition of A and of 1 + A.
    """
    config = SEQ2SEQ["GPT" if encoder == "causal" else "UniLM"][0]
    model = Seq2Seq(config, generator=torch.Generator().manual_seed(seed))
    source = byte_windows(python_source().validation, LENGTH // 2, 8)(torch.Generator().manual_seed(3))
    found, one = {}, torch.eye(LENGTH // 2, dtype=torch.float64)
    for when in ("untrained", "trained"):
        if when == "trained":
            seq2seq_run(config, seed, model=model)
        A = head_matrices(model, encoder, source)
        # Substitution keeps the small singular values of a triangular matrix, which an SVD loses in rounding.
        inverse = causal_recover(A, one.expand_as(A)) if encoder == "causal" else torch.linalg.inv(A)
        condition = torch.linalg.matrix_norm(A, 2) * torch.linalg.matrix_norm(inverse, 2)
        found[when] = {
            "effective_rank": rank_report(A).effective_rank.mean(),
            "condition": condition.log10().median(),
            "condition_with_skip": torch.linalg.cond(one + A).log10().median(),
        }
    return found


def main() -> None:
    """Train all and store the curves.

    One thread; about twenty-five minutes.
    """
    torch.set_num_threads(1)
    start = time.process_time()
    content: dict[str, Any] = {"bigram": ngram_entropy(python_source().train, 2)}

    def repeat(group: str, name: str, run: Callable[[int], dict], seeds: tuple[int, ...] = SEEDS) -> None:
        runs = [run(seed) for seed in seeds]
        row = {"step": runs[0]["step"], "validation": [r["validation"] for r in runs]}
        content.setdefault(group, {})[name] = row
        last = [round(r["validation"][-1].item(), 3) for r in runs]
        print(group, name, last, round(time.process_time() - start), flush=True)

    for name, (config, source_loss) in SEQ2SEQ.items():
        repeat("seq2seq", name, lambda seed, c=config, s=source_loss: seq2seq_run(c, seed, source_loss=s))
    content["heads"] = {
        name: [heads(encoder, seed) for seed in SEEDS[:4]]
        for name, encoder in (("GPT", "causal"), ("UniLM", "bidirectional"))
    }
    for name, attention in (("full", SelfAttention), ("mixed", MixedSelfAttention)):
        repeat("masked", name, lambda seed, a=attention: masked_run(a, seed), SEEDS[:4])
    repeat("masked", "linear", lambda seed: masked_run(LinearSelfAttention, seed), SEEDS[:3])
    repeat("causal", "softmax", lambda seed: causal_run(SelfAttention, seed), SEEDS[:3])
    repeat("causal", "linear", lambda seed: causal_run(LinearSelfAttention, seed), SEEDS[:3])
    sizes = [(2048, 64), (2048, 128), (4096, 64), (4096, 128)]
    content["spectra"] = [spectrum(n, d, kind) for n, d in sizes for kind in ("bidirectional", "causal")]
    parameters = {name: Seq2Seq(config).num_parameters() for name, (config, _) in SEQ2SEQ.items()}
    content["parameters"] = parameters
    means = {
        name: sum(float(v[-1]) for v in row["validation"]) / len(SEEDS) for name, row in content["seq2seq"].items()
    }
    summary = {"steps": STEPS, "seed": list(SEEDS), "batch": BATCH, "bytes": LENGTH, "validation": rounded(means)}
    print(save("attention/decoder_only", rounded(content), made_with=summary).name)


if __name__ == "__main__":
    main()
