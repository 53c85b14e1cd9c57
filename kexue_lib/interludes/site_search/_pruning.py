"""The best k without reading all postings: MaxScore, exact to the last bit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kexue_lib._arguments import check_integer
from kexue_lib.interludes.site_search._postings import Postings


def max_score_search(index: Postings, query: Sequence[str], k: int = 10) -> tuple[list[tuple[int, float]], int]:
    """Return ``index.search(query, k)`` and how many postings were looked at, leaving out what cannot matter.

    Terms are taken by falling greatest weight. As soon as the k-th best sum so far exceeds all that the other terms
    can still give, no further document can enter; the remaining terms are looked up for the candidates only, and a
    candidate that cannot reach the k-th best any more is dropped.

    Args:
        index: with weights that are not negative.
        query: tokens.
        k: at least 1.

    Returns:
        The hits, equal to those of ``search`` to the last bit, and the number of postings added or looked up.

    Raises:
        ValueError: k < 1, or a term of the query with a negative weight ("robertson").

    Cost: at most that of ``search`` plus a binary search for each candidate and term left over.

    Source: Turtle and Flood, 1995.

    >>> from kexue_lib.interludes.site_search import BM25Index
    >>> index = BM25Index().fit([["a", "b"], ["a"], ["b", "c"], ["b"]])
    >>> max_score_search(index, ["b", "c"], 1)[0] == index.search(["b", "c"], 1)
    True
    """
    check_integer("k", k, 1)
    index._check_fitted()
    columns = index._columns(query)
    spans = {n: slice(index._starts[n], index._starts[n + 1]) for n, _ in columns}
    top = {n: times * float(index._weights[spans[n]].max()) for n, times in columns}
    if any(float(index._weights[span].min()) < 0 for span in spans.values()):
        raise ValueError("index: got a negative weight, expected none; take idf_method='lucene'")
    order = sorted(columns, key=lambda column: -top[column[0]])
    partial = torch.zeros(index.n_docs, dtype=torch.float64)
    seen, visited, kept = torch.zeros(index.n_docs, dtype=torch.bool), 0, None
    for position, (number, times) in enumerate(order):
        docs, weights = index._docs[spans[number]], index._weights[spans[number]].double() * times
        if kept is None:
            partial[docs] += weights
            seen[docs] = True
            visited += len(docs)
        else:
            found, inside = _looked_up(docs, kept)
            partial[kept[inside]] += weights[found[inside]]
            visited += len(kept)
        kept = _survivors(partial, seen, kept, sum((top[n] for n, _ in order[position + 1 :]), 0.0), k)
    if kept is None:
        kept = seen.nonzero().squeeze(1)
    return _exact(index, columns, spans, kept, k), visited


def _looked_up(docs: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Where each candidate stands among a term's documents, and whether it does."""
    found = torch.searchsorted(docs, candidates).clamp(max=len(docs) - 1)
    return found, docs[found] == candidates


def _survivors(partial: Tensor, seen: Tensor, kept: Tensor | None, rest: float, k: int) -> Tensor | None:
    """The candidates that can still be among the best k; None while a document not yet seen can."""
    candidates = seen.nonzero().squeeze(1) if kept is None else kept
    if len(candidates) < k:
        return kept
    sums = partial[candidates]
    threshold = float(sums.topk(k).values[-1]) * (1 - 1e-5)  # the scores themselves are rounded to float32
    if kept is None and rest >= threshold:
        return None
    return candidates[sums + rest >= threshold]


def _exact(index: Postings, columns: list, spans: dict, kept: Tensor, k: int) -> list[tuple[int, float]]:
    """Score the candidates again, term after term in the order of ``score``: the same rounding, the same ties."""
    scores = index._weights.new_zeros(len(kept))
    for number, times in columns:
        found, inside = _looked_up(index._docs[spans[number]], kept)
        weights = index._weights[spans[number]]
        scores[inside] += (weights * times if times > 1 else weights)[found[inside]]
    ranked = sorted(zip(kept.tolist(), scores.tolist()), key=lambda hit: (-hit[1], hit[0]))
    return [(doc, score) for doc, score in ranked[:k] if score > 0]
