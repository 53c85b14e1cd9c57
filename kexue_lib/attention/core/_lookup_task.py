"""Key–value lookup: the smallest task that a language model can only solve by attending to what it has read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def lookup_batches(
    *, keys: int = 26, values: int = 10, pairs: tuple[int, int] = (1, 8), batch_size: int = 64
) -> Callable[[torch.Generator], tuple[Int64[Tensor, "batch L"], Float[Tensor, "batch L-1"]]]:
    """Return a sampler of sequences ``[BOS] k v k v … [SEP] k v k v …``.

    The second half repeats the pairs of the first in another order. Keys of a row are distinct, values need not be.
    Ids: keys 0…, values after them, then BOS and SEP.

    Args:
        keys: number of keys.
        values: number of values.
        pairs: smallest and largest number of pairs; one number is drawn for each batch.
        batch_size: rows.

    Returns:
        ``sample(generator) -> (tokens, weights)``: ids ``(B, 4 n + 2)`` and weights of the next-token targets
        ``(B, 4 n + 1)``, 1 on the repeated values and 0 elsewhere, for ``DecoderLM.loss(tokens, weights=weights)``.

    Raises:
        ValueError: more pairs than keys, or an empty range of pairs.

    >>> tokens, weights = lookup_batches(keys=4, values=3, pairs=(2, 2), batch_size=1)(torch.Generator().manual_seed(0))
    >>> tokens.shape, weights[0].tolist()
    (torch.Size([1, 10]), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    """
    low, high = pairs
    if not 1 <= low <= high <= keys:
        raise ValueError(f"pairs: got {pairs}, expected 1 <= smallest <= largest <= keys = {keys}")

    def sample(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        n = int(torch.randint(low, high + 1, (), generator=generator))
        chosen = torch.rand(batch_size, keys, generator=generator).argsort(-1)[:, :n]
        held = torch.randint(values, (batch_size, n), generator=generator) + keys
        order = torch.rand(batch_size, n, generator=generator).argsort(-1)
        first = torch.stack([chosen, held], -1).flatten(1)
        again = torch.stack([chosen.gather(1, order), held.gather(1, order)], -1).flatten(1)
        special = torch.full((batch_size, 1), keys + values)
        tokens = torch.cat([special, first, special + 1, again], 1)
        weights = torch.zeros(batch_size, 4 * n + 1)
        weights[:, 2 * n + 2 :: 2] = 1.0
        return tokens, weights

    return sample


def lookup_accuracy(
    model: Callable[[Tensor], Tensor], tokens: Int64[Tensor, "batch L"], weights: Float[Tensor, "batch L-1"]
) -> float:
    """Return the share of repeated values that a model finds.

    Args:
        model: maps ids to logits ``(B, L, V)``.
        tokens: from :func:`lookup_batches`.
        weights: the same.

    >>> sample = lookup_batches(keys=4, values=3, pairs=(2, 2), batch_size=8)
    >>> tokens, weights = sample(torch.Generator().manual_seed(0))
    >>> oracle = lambda ids: torch.nn.functional.one_hot(tokens.roll(-1, 1), 9).float()
    >>> lookup_accuracy(oracle, tokens, weights)
    1.0
    """
    with torch.no_grad():
        right = model(tokens)[:, :-1].argmax(-1) == tokens[:, 1:]
    return right[weights.bool()].double().mean().item()
