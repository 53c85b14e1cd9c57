"""A small reading task: look up two digits in one of several contexts, or fall back on what was learnt by heart.

Token ids: keys 0…63, digits 64…73, BOS, SEP. A context is a list of triples
(key, digit, digit); a question is ``SEP key``; its answer is two digits. A key that the context does not hold has a
default answer, which is the model's prior knowledge.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from kexue_lib import checkpoints
from kexue_lib._arguments import check_one_of
from kexue_lib.attention.core import DecoderLM, LMConfig

__all__ = [
    "BOS",
    "DEFAULT",
    "DIGITS",
    "KEYS",
    "PRESENT",
    "QUESTIONS",
    "SEP",
    "TRIPLES",
    "VOCABULARY",
    "Trial",
    "default_answers",
    "load",
    "make_model",
    "sample_batch",
    "sample_trial",
]

KEYS, DIGITS = 64, 10
BOS, SEP = KEYS + DIGITS, KEYS + DIGITS + 1
VOCABULARY = SEP + 1
TRIPLES, QUESTIONS = 6, 4  # at most, in one context of the training; questions after it
PRESENT, DEFAULT = 0.6, 0.6  # shares of asked keys that the context holds, and of absent keys with their default answer


class Trial(NamedTuple):
    """One question over several contexts.

    ``contexts`` ``(n, 3 * triples)``; ``question`` ``(2,)``, SEP and the key; ``answer`` ``(2,)``; ``hit``, the index
    of the only context that holds the key.
    """

    contexts: Int64[Tensor, "n L"]
    question: Int64[Tensor, "2"]
    answer: Int64[Tensor, "2"]
    hit: int


def default_answers() -> Int64[Tensor, "keys 2"]:
    """Return the digits that each key has when no context says otherwise, as token ids ``(64, 2)``.

    >>> default_answers().shape
    torch.Size([64, 2])
    """
    return torch.randint(DIGITS, (KEYS, 2), generator=torch.Generator().manual_seed(9617)) + KEYS


def sample_batch(
    generator: torch.Generator, batch: int = 64, *, default: float = DEFAULT, either_order: bool = False
) -> tuple[Int64[Tensor, "batch L"], Float[Tensor, "batch L-1"]]:
    """Draw training sequences ``BOS (key digit digit)* (SEP key digit digit)*4``.

    One number of triples, 0 to 6, is drawn for the batch. An asked key is in the context with probability 0.6 while
    there are enough; the answer to an absent one is its default with probability ``default``, else uniform.

    Args:
        generator: source of randomness.
        batch: sequences.
        default: share of absent keys that have their default answer.
        either_order: exchange the two digits of every second answer at random, so that both orders are right.

    Returns:
        ids ``(B, 3 n + 17)`` and weights ``(B, 3 n + 16)`` of the next-token targets: 1 on the digits of answers.

    >>> tokens, weights = sample_batch(torch.Generator().manual_seed(0), 2)
    >>> weights.sum(-1).tolist()
    [8.0, 8.0]
    """
    n = int(torch.randint(TRIPLES + 1, (), generator=generator))
    order = torch.rand(batch, KEYS, generator=generator).argsort(-1)
    held, absent = order[:, :n], order[:, n : n + QUESTIONS]
    values = torch.randint(DIGITS, (batch, n, 2), generator=generator) + KEYS
    context = torch.cat([held[..., None], values], -1).flatten(1)

    m = min(n, QUESTIONS)  # order is random already: the first m keys are as good as any
    present = torch.rand(batch, QUESTIONS, generator=generator) < PRESENT
    present[:, m:] = False
    uniform = torch.randint(DIGITS, (batch, QUESTIONS, 2), generator=generator) + KEYS
    known = torch.rand(batch, QUESTIONS, 1, generator=generator) < default
    by_heart = torch.where(known, default_answers()[absent], uniform)
    place = torch.rand(batch, n, generator=generator).argsort(-1)[:, :m]  # which triples are asked for
    found = torch.cat([held.gather(1, place), absent[:, m:]], 1)
    copied = torch.cat([values.gather(1, place[..., None].expand(-1, -1, 2)), uniform[:, m:]], 1)
    key = torch.where(present, found, absent)
    answer = torch.where(present[..., None], copied, by_heart)
    if either_order:
        exchanged = torch.rand(batch, QUESTIONS, 1, generator=generator) < 0.5
        answer = torch.where(exchanged, answer.flip(-1), answer)
    separator = torch.full_like(key, SEP)
    questions = torch.cat([separator[..., None], key[..., None], answer], -1).flatten(1)

    tokens = torch.cat([torch.full((batch, 1), BOS), context, questions], 1)
    weights = torch.zeros(batch, 3 * n + 4 * QUESTIONS)
    weights[:, 3 * n + 2 :: 4] = 1.0
    weights[:, 3 * n + 3 :: 4] = 1.0
    return tokens, weights


def sample_trial(generator: torch.Generator, num_contexts: int, *, triples: int = TRIPLES) -> Trial:
    """Draw contexts without a common key, and a question that exactly one of them answers.

    Args:
        generator: source of randomness.
        num_contexts: n, at least 1.
        triples: of each context.

    Returns:
        ``Trial(contexts, question, answer, hit)``.

    Raises:
        ValueError: more triples than there are keys, or none.

    >>> trial = sample_trial(torch.Generator().manual_seed(0), 3)
    >>> trial.contexts.shape, trial.hit in range(3)
    (torch.Size([3, 18]), True)
    """
    if num_contexts < 1 or triples < 1 or num_contexts * triples > KEYS:
        raise ValueError(
            f"num_contexts: got {num_contexts} contexts of {triples} triples, expected 1 to {KEYS} triples in all"
        )
    keys = torch.randperm(KEYS, generator=generator)[: num_contexts * triples].view(num_contexts, triples, 1)
    values = torch.randint(DIGITS, (num_contexts, triples, 2), generator=generator) + KEYS
    asked = int(torch.randint(num_contexts * triples, (), generator=generator))
    hit, place = divmod(asked, triples)
    question = torch.stack([torch.tensor(SEP), keys[hit, place, 0]])
    return Trial(torch.cat([keys, values], -1).flatten(1), question, values[hit, place].clone(), hit)


def make_model(generator: torch.Generator | None = None) -> DecoderLM:
    """Return the untrained model: two layers of width 64, 0.1 million parameters.

    Args:
        generator: source of the initial weights.

    >>> make_model().num_parameters()
    105920
    """
    config = LMConfig(vocab_size=VOCABULARY, d_model=64, n_layers=2, n_heads=2, conv_width=3)
    return DecoderLM(config, generator=generator)


def load(variant: Literal["soft", "hard", "either"] = "soft") -> tuple[DecoderLM, dict[str, Any]]:
    """Return the trained model and what it was made with.

    Args:
        variant: ``"soft"``: absent keys had their default answer with probability 0.6; ``"hard"``: always;
            ``"either"``: as soft, and the two digits of every answer stood in either order.

    Raises:
        ValueError: an unknown variant.

    >>> model, made_with = load()
    >>> made_with["accuracy"]["soft"] > 0.99
    True
    """
    check_one_of("variant", variant, ("soft", "hard", "either"))
    content, made_with = checkpoints.load("attention/nbce")
    model = make_model().eval()
    own = {k.removeprefix(f"{variant}."): v.float() for k, v in content.items() if k.startswith(f"{variant}.")}
    model.load_state_dict(own)
    return model, made_with
