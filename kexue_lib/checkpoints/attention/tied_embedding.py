"""Small language models with shared output heads: σ of the embedding against the learning rate, longer runs with blocks
that start as the identity, with ordinary ones and with ordinary ones behind an input multiplied by √d, heads with some
signs turned, and the first loss of GPT-2 as ``transformers`` initialises it.

Run by ``python -m kexue_lib.checkpoints.attention.tied_embedding`` with one thread, about twelve minutes; needs the
extra ``peers``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kexue_lib.attention.core import DecoderLM, LMConfig
from kexue_lib.attention.tied_embedding import SharedHead
from kexue_lib.checkpoints import rounded, save
from kexue_lib.data import byte_windows, python_source, word_tokens

__all__ = ["HEADS", "RATES", "SIGMAS", "first_losses_of_gpt2", "main", "train"]

VOCABULARY, WIDTH, BATCH, LENGTH = 1024, 128, 8, 16
RUNG = WIDTH ** (1 / 6)  # three rungs of either ladder are a factor √d
SIGMAS = tuple(WIDTH**-0.5 * RUNG**k for k in range(-5, 5))
RATES = tuple(3e-3 * RUNG**j for j in range(-3, 5))
HEADS = {name: name for name in ("tied", "scaled", "swap", "untied")} | {"scaled, embedding × √d": "scaled"}
SWEEP_STEPS, LONG_STEPS, SEEDS, DIVERGED = 100, 400, range(1, 9), 1000.0
DEFAULT = (WIDTH**-0.5, 3e-3)
NEGATIVE, SIGN_MARKS = (32, 64, 96, 128), (25, SWEEP_STEPS)
SMALL = {"log n/d": math.log(VOCABULARY) / WIDTH, "1/d": 1 / WIDTH}
MARKS = (0, 10, 25, 100, LONG_STEPS)
AT_SMALL = ("tied, σ = log n/d", "swap, σ = log n/d", "untied, σ = log n/d", "tied, σ = 1/d", "untied, σ = 1/d")
LONG = {
    "identity": (*HEADS, "shuffle", "orthogonal", *AT_SMALL),
    "ordinary": ("tied", "tied, σ = log n/d", "swap", "untied"),
    "input × √d": ("tied", "swap", "untied"),
}


def texts() -> tuple[Tensor, Tensor]:
    """Return training and validation tokens: words, blanks and signs of Python source, the last tenth kept.

    Returns:
        Two vectors of ids below `VOCABULARY`; 0 is any other token.
    """
    corpus = python_source()
    text = bytes(corpus.train[:900_000].tolist()) + bytes(corpus.validation[:100_000].tolist())
    ids, _ = word_tokens(text, VOCABULARY)
    return ids[: len(ids) * 9 // 10], ids[len(ids) * 9 // 10 :]


def train(
    head: str, sigma: float, rate: float, seed: int, data: tuple[Tensor, Tensor], *, steps: int, marks: tuple[int, ...],
    identity: bool = True, negative: int = 0, gain: float = 1.0,
) -> list[float]:  # fmt: skip
    """Train a model of one block by Adam and return its held-out losses, `DIVERGED` nats at most.

    Args:
        head: key of `HEADS`, or a scheme of `SharedHead`.
        sigma: of the embedding.
        rate: learning rate; the embedding's is √d times as large where the head's name says so.
        seed: of the weights and the batches, equal for all heads.
        data: training and validation tokens.
        steps: optimizer steps.
        marks: numbers of steps after which the held-out loss is taken.
        identity: the block starts as the identity; else with the library's ordinary residual initialisation.
        negative: channels whose sign is turned between the body and the head.
        gain: factor on the embedding's rows on their way into the body, not in the head.
    """
    generator = torch.Generator().manual_seed(seed)
    config = LMConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, n_layers=1, d_ff=128, zero_init_residual=identity, embed_std=sigma,
        norm_eps=1e-12,
    )  # fmt: skip
    body = DecoderLM(config, generator=generator)
    output = SharedHead(body.embedding, scheme=HEADS.get(head, head), generator=generator)
    scaled: Callable[[nn.Module, Any, Tensor], Tensor] = lambda _, __, rows: gain * rows
    body.embedding.register_forward_hook(scaled)  # the head reads the weight itself
    held_out = byte_windows(data[1], LENGTH + 1, 256)(torch.Generator().manual_seed(0))
    batches, draw = byte_windows(data[0], LENGTH + 1, BATCH), torch.Generator().manual_seed(1000 + seed)
    signs = torch.ones(WIDTH)
    signs[:negative] = -1
    logits = lambda tokens: output(signs * body(tokens, return_hidden=True)).flatten(0, 1)
    loss = lambda batch: F.cross_entropy(logits(batch[:, :-1]), batch[:, 1:].flatten())
    shared = [body.embedding.weight]
    others = [p for p in [*body.parameters(), *output.parameters()] if p is not shared[0]]
    faster = rate * (WIDTH**0.5 if "×" in head else 1.0)
    optimizer = torch.optim.Adam([{"params": shared, "lr": faster}, {"params": others, "lr": rate}], fused=True)
    found = []
    for step in range(steps + 1):
        if step in marks:
            with torch.no_grad():
                found.append(loss(held_out).item())
        optimizer.zero_grad()
        loss(batches(draw)).backward()
        optimizer.step()
    return [min(value, DIVERGED) if math.isfinite(value) else DIVERGED for value in found]


def longer(kind: str, head: str, data: tuple[Tensor, Tensor]) -> list[list[float]]:
    """Train one head for `LONG_STEPS` steps at the default learning rate from each of `SEEDS`.

    Args:
        kind: key of `LONG`: blocks that start as the identity, ordinary ones, or these behind an input times √d.
        head: one of `LONG`'s for that kind; σ is 1/√d where it names none.
        data: training and validation tokens.

    Returns:
        Held-out losses at `MARKS`, for each seed.
    """
    scheme, _, small = head.partition(", σ = ")
    point = (SMALL[small] if small else DEFAULT[0], DEFAULT[1])
    options = {"identity": kind == "identity", "gain": WIDTH**0.5 if kind == "input × √d" else 1.0}
    return [train(scheme, *point, seed, data, steps=LONG_STEPS, marks=MARKS, **options) for seed in SEEDS]


def first_losses_of_gpt2(seeds: range = range(3), pairs: int = 256) -> dict[str, list[list[float]]]:
    """First loss, own logit, cosine with the own row, and variance of the logits of GPT-2 (small) as it is initialised.

    Random tokens in sequences of 64; then the same with all residual branches and the positions set to zero, the
    branches alone, and an output matrix of its own.

    Args:
        seeds: of the weights and tokens.
        pairs: tokens to predict.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    found: dict[str, list[list[float]]] = {}
    for seed in seeds:
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(GPT2Config()).eval()
        tokens = torch.randint(model.config.vocab_size, (pairs // 64, 65))
        untied = torch.empty_like(model.lm_head.weight).normal_(0.0, 0.02)

        def state(name: str, weight: nn.Parameter | Tensor, model=model, tokens=tokens) -> None:
            hidden = model.transformer(tokens[:, :-1]).last_hidden_state
            logits, row = hidden @ weight.T, model.transformer.wte.weight[tokens[:, :-1]]
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            own = logits.gather(-1, tokens[:, :-1, None])
            cosine = F.cosine_similarity(hidden, row, dim=-1)
            found.setdefault(name, []).append([v.item() for v in (loss, own.mean(), cosine.mean(), logits.var())])

        with torch.no_grad():
            state("as initialised", model.lm_head.weight)
            state("untied", untied)
            for block in model.transformer.h:
                for layer in (block.attn.c_proj, block.mlp.c_proj):
                    nn.init.zeros_(layer.weight)
            state("branches of zero", model.lm_head.weight)
            nn.init.zeros_(model.transformer.wpe.weight)
            state("branches and positions of zero", model.lm_head.weight)
    return found


def main() -> None:
    """Run all and store the table.

    One thread; about twelve minutes.
    """
    torch.set_num_threads(1)
    data = texts()
    run = lambda head, point, seed, **options: train(head, *point, seed, data, **options)
    sweep = {
        head: [[run(head, (s, r), 0, steps=SWEEP_STEPS, marks=(SWEEP_STEPS,))[0] for r in RATES] for s in SIGMAS]
        for head in HEADS
    }
    tuned = {}
    for head, rows in sweep.items():
        values = torch.tensor(rows)
        i, j = divmod(int(values.argmin()), len(RATES))
        tuned[head] = {"sigma": i, "rate": j}
        options = {"steps": SWEEP_STEPS, "marks": (SWEEP_STEPS,)}
        tuned[head]["losses"] = [run(head, (SIGMAS[i], RATES[j]), seed, **options)[0] for seed in SEEDS]
        print(head, i, j, tuned[head]["losses"], flush=True)
    long = {kind: {head: longer(kind, head, data) for head in heads} for kind, heads in LONG.items()}
    turned = lambda sigma, k, seed: run(
        "tied", (sigma, DEFAULT[1]), seed, steps=SWEEP_STEPS, marks=SIGN_MARKS, negative=k
    )
    at = {"σ = 1/√d": DEFAULT[0]} | {f"σ = {name}": sigma for name, sigma in SMALL.items()}
    signs = {name: {str(k): [turned(sigma, k, seed) for seed in SEEDS] for k in NEGATIVE} for name, sigma in at.items()}
    content = {"sweep": sweep, "tuned": tuned, "long": long, "signs": signs, "gpt2": first_losses_of_gpt2()}
    summary = {"seed": [0, *SEEDS], "steps": [SWEEP_STEPS, LONG_STEPS], "marks": MARKS, "sigmas": rounded(SIGMAS)}
    summary |= {"rates": rounded(RATES)}
    print(save("attention/tied_embedding", rounded(content), made_with=summary).stat().st_size, "bytes")


if __name__ == "__main__":
    main()
