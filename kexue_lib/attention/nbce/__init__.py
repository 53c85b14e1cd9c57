r"""Naive Bayes context extension: answering from n contexts that together exceed a model's window, without training.

.. math:: \log p(T|S_1,\dots,S_n)\approx(\beta+1)\,\mathcal P[\log p(T|S_1),\dots,\log p(T|S_n)]-\beta\log p(T)

Article 9617 of Scientific Spaces, with its sequels 9632 and 9648.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kexue_lib._arguments import check_integer
from kexue_lib.attention.core import sample, truncate_log_probs
from kexue_lib.attention.nbce._generation import (
    CausalLM,
    NBCETrace,
    core_adapter,
    generate_nbce,
    hf_adapter,
    nbce_batch,
    parallel_context_windows,
)
from kexue_lib.attention.nbce._merge import NBCEOutput, Pooling, divergence, entropy_of, nbce_logits

__all__ = [
    "CausalLM",
    "NBCELogitsProcessor",
    "NBCEOutput",
    "NBCETrace",
    "Pooling",
    "core_adapter",
    "divergence",
    "entropy_of",
    "generate_nbce",
    "hf_adapter",
    "nbce_batch",
    "nbce_logits",
    "parallel_context_windows",
    "sample",
    "truncate_log_probs",
]


class NBCELogitsProcessor:
    """Merges the rows of each group inside ``model.generate`` of Hugging Face transformers.

    The batch has ``groups * (n_contexts + 1)`` rows, in each group the row without context first, then one for each
    context: what :func:`nbce_batch` returns, for several questions one after the other. All rows of a group get the
    same scores, so that greedy decoding keeps them in step. Where transformers is loaded, an instance is a
    ``transformers.LogitsProcessor``. Call ``model.generate(..., do_sample=False)`` always: sampling there would draw
    another token for each row; with ``do_sample=True`` *here* one token is drawn for the group.

    Args:
        n_contexts: contexts of each group.
        do_sample: draw one token for each group; it gets score 0, all others −inf.
        temperature: of that draw.
        generator: source of randomness.
        **nbce_options: of :func:`nbce_logits`.

    Attributes:
        indices: chosen contexts ``(groups,)`` of each step.
        divergence: :func:`divergence` of the contexts at the first step ``(groups, n_contexts)``; None before it.

    Raises:
        TypeError: ``n_contexts`` is no integer.
        ValueError: ``n_contexts`` < 1, or rows that are no multiple of ``n_contexts + 1``.

    Source: article 9617 and its script, github.com/bojone/NBCE.

    >>> process = NBCELogitsProcessor(2, top_p=None)
    >>> process(torch.zeros(3, 1, dtype=torch.long), torch.tensor([[0.0, 0.0], [0.0, 0.1], [3.0, 0.0]])).argmax(-1)
    tensor([0, 0, 0])
    >>> process.indices
    [tensor([1])]
    """

    def __new__(cls, *args: Any, **options: Any) -> NBCELogitsProcessor:
        """Make an instance that is also a ``transformers.LogitsProcessor`` once that package is loaded."""
        transformers = sys.modules.get("transformers")
        if cls is NBCELogitsProcessor and transformers is not None:
            return object.__new__(_for_transformers(transformers))
        return object.__new__(cls)

    def __init__(
        self,
        n_contexts: int,
        *,
        do_sample: bool = False,
        temperature: float | int = 1.0,
        generator: torch.Generator | None = None,
        **nbce_options: Any,
    ):
        check_integer("n_contexts", n_contexts, 1)
        self.n_contexts, self.do_sample, self.temperature = n_contexts, do_sample, temperature
        self.generator, self.nbce_options = generator, nbce_options
        self.reset()

    def reset(self) -> None:
        """Forget the steps so far; call it before another ``generate``."""
        self.indices: list[Tensor] = []
        self.divergence: Tensor | None = None

    def __call__(self, input_ids: Int[Tensor, "rows L"], scores: Float[Tensor, "rows V"]) -> Float[Tensor, "rows V"]:
        """Return the merged scores, the same for all rows of a group.

        Args:
            input_ids: ``(rows, L)``, not used.
            scores: raw logits ``(rows, V)``.
        """
        size = self.n_contexts + 1
        if len(scores) % size:
            raise ValueError(f"scores: got {len(scores)} rows, expected a multiple of n_contexts + 1 = {size}")
        groups = scores.unflatten(0, (-1, size))  # (groups, n + 1, V)
        previous = self.indices[-1] if self.indices else None
        if previous is not None and len(previous) != len(groups):
            raise ValueError(
                f"scores: got {len(groups)} groups, expected {len(previous)} as before; call reset() first"
            )
        if previous is None:
            self.divergence = divergence(groups[:, 1:], groups[:, 0])
        out = nbce_logits(groups[:, 1:], groups[:, 0], previous=previous, **self.nbce_options)
        self.indices.append(out.index)
        merged = out.logits
        if self.do_sample:
            token = sample(merged, temperature=self.temperature, generator=self.generator)
            merged = torch.full_like(merged, -torch.inf).scatter_(-1, token[:, None], 0.0)
        return merged.repeat_interleave(size, 0)


@cache
def _for_transformers(transformers: Any) -> type:
    base = transformers.LogitsProcessor
    return type("NBCELogitsProcessor", (NBCELogitsProcessor, base), {"__doc__": NBCELogitsProcessor.__doc__})
