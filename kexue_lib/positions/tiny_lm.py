r"""The small byte model on which every chapter of this part tests its positions, and how it is judged.

Two layers, width 96, three heads of 32, 0.25 million weights, trained on windows of 64 bytes of Python source, half of
them periodic. Each variant ships with three seeds (``kexue_lib/checkpoints/positions``). Weights do not depend on the
position object: assign ``model.position`` and measure again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from kexue_lib._arguments import check_integer, check_one_of
from kexue_lib.attention.core import DecoderLM, LMConfig
from kexue_lib.checkpoints import load
from kexue_lib.data import byte_windows, python_source

__all__ = [
    "SEEDS",
    "TRAIN_LENGTH",
    "evaluation_batch",
    "last_bytes_accuracy",
    "last_bytes_loss",
    "load_tiny_lm",
    "position_losses",
    "tiny_config",
    "training_batches",
]

Variant = Literal["plain", "log_n"]
TRAIN_LENGTH = 64
SEEDS = (0, 1, 2)
_PERIODS = (4, 48)  # shortest and longest period of the periodic training rows
_REPEATED = 96  # period of the copying test: longer than any window of the training


def tiny_config(variant: Variant = "plain") -> LMConfig:
    r"""Return the sizes of the tiny model.

    Args:
        variant: ``"log_n"`` was trained with queries multiplied by :math:`\log_{64}(p+1)` at position p.

    Raises:
        ValueError: an unknown ``variant``.

    >>> tiny_config().width, tiny_config("log_n").logit_scale
    (32, 'log_n')
    """
    check_one_of("variant", variant, get_args(Variant))
    scale: Literal["sqrt_d", "log_n"] = "log_n" if variant == "log_n" else "sqrt_d"
    return LMConfig(
        vocab_size=256, d_model=96, n_layers=2, n_heads=3, logit_scale=scale, train_len=TRAIN_LENGTH
    )  # fmt: skip


def load_tiny_lm(variant: Variant = "plain", *, seed: int = 0) -> DecoderLM:
    """Return the trained tiny model in evaluation mode.

    Args:
        variant: ``"plain"``, or ``"log_n"`` for the one trained with growing queries.
        seed: which of the three training runs.

    Returns:
        A float32 model; its weights are stored in half precision, and everything in the book is measured with those.

    Raises:
        ValueError: an unknown ``variant`` or ``seed``.

    >>> load_tiny_lm().num_parameters()
    246240
    """
    model = DecoderLM(tiny_config(variant))
    check_one_of("seed", seed, SEEDS)
    content, _ = load("positions/tiny_lm" if variant == "plain" else "positions/tiny_lm_log_n")
    prefix = f"seed{seed}."
    weights = {name.removeprefix(prefix): w.float() for name, w in content.items() if name.startswith(prefix)}
    weights["head.weight"] = weights["embedding.weight"]  # tied, stored once
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def training_batches(
    length: int = TRAIN_LENGTH, batch_size: int = 32
) -> Callable[[torch.Generator | None], Int64[Tensor, "batch tokens"]]:
    """Return a sampler of training windows of Python source: ``length`` bytes to read and one more to predict.

    The first half of the rows is text; in the others the first p bytes of the window repeat, p uniform in 4…48, which
    teaches even two layers to copy from a distance.

    Args:
        length: bytes that the model reads.
        batch_size: rows.

    Returns:
        ``sample(generator) -> (batch_size, length + 1)`` int64.

    Raises:
        ValueError: ``length`` or ``batch_size`` not positive.

    >>> training_batches(8, 4)(torch.Generator().manual_seed(0)).shape
    torch.Size([4, 9])
    """
    check_integer("length", length, 1)
    windows = byte_windows(python_source().train, length + 1, batch_size)
    place, shortest, longest = torch.arange(length + 1), *_PERIODS

    def sample(generator: torch.Generator | None = None) -> Int64[Tensor, "batch tokens"]:
        tokens = windows(generator)
        periods = torch.randint(shortest, longest + 1, (batch_size - batch_size // 2, 1), generator=generator)
        tokens[batch_size // 2 :] = tokens[batch_size // 2 :].gather(1, place % periods)
        return tokens

    return sample


def evaluation_batch(
    kind: Literal["text", "rep96"], length: int, batch_size: int, *, generator: torch.Generator | None = None
) -> Int64[Tensor, "batch length"]:
    """Return windows of the part of Python's source that no model was trained on.

    Args:
        kind: ``"text"``, or ``"rep96"``: the first 96 bytes of each window repeated to its end. Text can be predicted
            from the bytes just before; the repetition only by whoever finds the place 96 bytes back.
        length: bytes.
        batch_size: rows.
        generator: source of the windows.

    Returns:
        ``(batch_size, length)`` int64.

    Raises:
        ValueError: an unknown ``kind``; ``length`` or ``batch_size`` not positive.

    >>> tokens = evaluation_batch("rep96", 200, 3)
    >>> torch.equal(tokens[:, 96:], tokens[:, :-96])
    True
    """
    check_one_of("kind", kind, ("text", "rep96"))
    tokens = byte_windows(python_source().validation, length, batch_size)(generator)
    return tokens if kind == "text" else tokens[:, torch.arange(length) % _REPEATED]


def last_bytes_accuracy(model: DecoderLM, tokens: Int64[Tensor, "batch length"], *, last: int = 128) -> float:
    """Return the share of the last bytes that the model's most probable next byte hits.

    Args:
        model: of bytes.
        tokens: ``(batch, length)``.
        last: bytes that count, at the end of each row, at most ``length - 1``.

    Raises:
        ValueError: ``last`` outside 1…length − 1.

    >>> model = DecoderLM(tiny_config())
    >>> 0 <= last_bytes_accuracy(model, torch.zeros(1, 9, dtype=torch.long), last=8) <= 1
    True
    """
    hits = _last_logits(model, tokens, last).argmax(-1) == tokens[:, -last:]
    return hits.double().mean().item()


def last_bytes_loss(model: DecoderLM, tokens: Int64[Tensor, "batch length"], *, last: int = 128) -> float:
    """Return the mean cross-entropy of the last bytes.

    Args:
        model: of bytes.
        tokens: ``(batch, length)``.
        last: bytes that count, at the end of each row, at most ``length - 1``.

    Returns:
        Nats per byte.

    Raises:
        ValueError: ``last`` outside 1…length − 1.

    >>> last_bytes_loss(DecoderLM(tiny_config()), torch.zeros(1, 9, dtype=torch.long), last=8) > 0
    True
    """
    logits = _last_logits(model, tokens, last)
    return F.cross_entropy(logits.flatten(0, 1).double(), tokens[:, -last:].flatten()).item()


def position_losses(model: DecoderLM, tokens: Int64[Tensor, "batch length"]) -> Float[Tensor, " predicted"]:
    """Return the mean cross-entropy at every place of a window.

    Args:
        model: of bytes.
        tokens: ``(batch, length)``.

    Returns:
        ``(length - 1,)`` nats per byte in float64; entry p is the prediction from the first p + 1 bytes.

    >>> position_losses(DecoderLM(tiny_config()), torch.zeros(2, 9, dtype=torch.long)).shape
    torch.Size([8])
    """
    logits = _last_logits(model, tokens, tokens.shape[1] - 1).double()
    return F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").mean(0)


@torch.no_grad()
def _last_logits(model: DecoderLM, tokens: Tensor, last: int) -> Tensor:
    check_integer("last", last, 1, tokens.shape[1] - 1, most_is="length - 1")
    # The head is a third of the arithmetic: it is applied only where a byte counts.
    hidden = model(tokens[:, :-1], return_hidden=True)
    return model.head(hidden[:, -last:])
