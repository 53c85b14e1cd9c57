"""Postings: for each term the documents that hold it and what it is worth there; scores, the best k, both for batches.

The matrix of weights, documents × terms, lies column after column. A query adds up a few columns: as many operations
as these have entries, however many documents there are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, count, pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_integer

_CHUNK = 1 << 22  # entries of a dense block of scores: 16 MB in float32
_BLOCKS = 256


def check_tokens(name: str, tokens: object) -> None:
    """Refuse a plain string, which would be taken apart into characters without a word."""
    if isinstance(tokens, (str, bytes)) or not isinstance(tokens, Sequence):
        raise TypeError(f"{name}: got {type(tokens).__name__}, expected a sequence of tokens; see tokenize")


def count_terms(docs: Sequence[Sequence[str]], vocabulary: dict[str, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Count all tokens in one pass and one sort; ``vocabulary`` takes up the terms it does not hold.

    Returns:
        Term, document and count of each entry, sorted by term and document; and the documents' lengths.
    """
    for position, doc in enumerate(docs):
        check_tokens(f"docs[{position}]", doc)
    numbers = defaultdict(count(len(vocabulary)).__next__, vocabulary)
    lengths = torch.tensor([len(doc) for doc in docs])
    total = int(lengths.sum())
    terms = torch.from_numpy(np.fromiter(map(numbers.__getitem__, chain.from_iterable(docs)), np.int64, total))
    vocabulary.update(numbers)
    place = torch.repeat_interleave(torch.arange(len(docs)), lengths)
    keys, tf = torch.unique(terms * len(docs) + place, return_counts=True)
    return keys // len(docs), keys % len(docs), tf, lengths


class Postings:
    """Scores and searches of an index; what fills it is for :class:`BM25Index` and :class:`BM25FIndex`."""

    def __init__(self) -> None:
        self.vocabulary: dict[str, int] = {}
        self.n_docs = 0

    def _store(self, terms: Tensor, docs: Tensor, weights: Tensor, dtype: torch.dtype) -> None:
        sizes = torch.bincount(terms, minlength=len(self.vocabulary))
        self._starts = [0, *sizes.cumsum(0).tolist()]
        self._docs, self._weights = docs, weights.to(dtype)
        self._spread_frequent_terms()

    def _spread_frequent_terms(self) -> None:
        """Keep a weight for every document where a sixteenth of them hold the term: adding that row is faster."""
        self._padded = -(-self.n_docs // _BLOCKS) * _BLOCKS
        self._rows = {}
        for number, (start, stop) in enumerate(pairwise(self._starts)):
            if stop - start > self.n_docs / 16:
                self._rows[number] = self._weights.new_zeros(self._padded)
                self._rows[number][self._docs[start:stop]] = self._weights[start:stop]

    def _check_fitted(self) -> None:
        if not self.n_docs:
            raise RuntimeError("index: got no documents yet, expected fit(docs) before a query")

    @property
    def matrix(self) -> Tensor:
        """Weights as a sparse tensor (documents, terms)."""
        self._check_fitted()
        sizes = torch.tensor(self._starts, device=self._docs.device).diff()
        terms = torch.repeat_interleave(torch.arange(len(sizes), device=self._docs.device), sizes)
        places, shape = torch.stack([self._docs, terms]), (self.n_docs, len(self.vocabulary))
        return torch.sparse_coo_tensor(places, self._weights, shape, check_invariants=False)

    def postings(self, term: str) -> tuple[Tensor, Tensor]:
        """Return documents (ascending) and weights of a term; both empty if no document holds it."""
        self._check_fitted()
        number = self.vocabulary.get(term)
        span = slice(0, 0) if number is None else slice(self._starts[number], self._starts[number + 1])
        return self._docs[span], self._weights[span]

    def _columns(self, query: Sequence[str]) -> list[tuple[int, int]]:
        """Number and multiplicity of the terms of a query that the index holds, by number: the order of the sum."""
        check_tokens("query", query)
        numbers = map(self.vocabulary.get, query)
        return sorted(Counter(number for number in numbers if number is not None).items())

    def score(self, query: Sequence[str]) -> Float[Tensor, " docs"]:
        """Return the score of every document; a token that occurs twice counts twice, an unknown one not at all.

        Cost: the lengths of the terms' postings, and N for the zeros.
        """
        return self.score_batch([query])[0]

    def score_batch(self, queries: Sequence[Sequence[str]]) -> Float[Tensor, "queries docs"]:
        """Return the scores of every document for every query; see ``score``.

        Cost: the lengths of the postings of all terms, in one addition, and queries × N for the zeros.
        """
        return self._scores(queries)[:, : self.n_docs]

    def _scores(self, queries: Sequence[Sequence[str]]) -> Float[Tensor, "queries padded"]:
        """Scores, and zeros up to a multiple of ``_BLOCKS``."""
        self._check_fitted()
        check_tokens("queries", queries)
        scores = self._weights.new_zeros(len(queries), self._padded)
        for row, query in zip(scores, queries):
            for number, times in self._columns(query):
                if number in self._rows:
                    weights = self._rows[number]
                    row += weights * times if times > 1 else weights
                    continue
                span = slice(self._starts[number], self._starts[number + 1])
                weights = self._weights[span]
                row.index_add_(0, self._docs[span], weights * times if times > 1 else weights)
        return scores

    def search(self, query: Sequence[str], k: int = 10) -> list[tuple[int, float]]:
        """Return the best k documents of positive score, ties by lower number, with their scores.

        Args:
            query: tokens.
            k: at least 1.

        Raises:
            TypeError: a plain string in place of tokens.
            ValueError: k < 1.
            RuntimeError: before ``fit``.

        Cost: that of ``score`` and a partial sort of N numbers.
        """
        return self.search_batch([query], k)[0]

    def search_batch(self, queries: Sequence[Sequence[str]], k: int = 10) -> list[list[tuple[int, float]]]:
        """Return ``search(query, k)`` for every query, computed together."""
        self._check_fitted()
        check_integer("k", k, 1)
        check_tokens("queries", queries)
        rows = max(1, _CHUNK // self.n_docs)
        blocks = (queries[start : start + rows] for start in range(0, len(queries), rows))
        return [hits for block in blocks for hits in _best(self._scores(block), min(k, self.n_docs))]

    def cost(self, query: Sequence[str]) -> int:
        """Return how many postings ``score`` adds up: the sum over the query's distinct terms of their documents."""
        self._check_fitted()
        return sum(self._starts[number + 1] - self._starts[number] for number, _ in self._columns(query))


def _best(scores: Float[Tensor, "queries padded"], k: int) -> Iterable[list[tuple[int, float]]]:
    # Which of several equal documents topk returns is not specified: one more than k shows whether there is a tie
    # at the edge, and a stable sort by document puts the others in order.
    values, places = _largest(scores, min(k + 1, scores.shape[1]))
    edge = values[:, k - 1]
    ties = (edge == values[:, -1]).tolist() if values.shape[1] > k else [False] * len(values)
    for row, (best, where, tie) in enumerate(zip(values[:, :k].tolist(), places[:, :k].tolist(), ties)):
        if tie and best[-1] > 0:
            where = (scores[row] >= edge[row]).nonzero().squeeze(1).tolist()
            best = scores[row, where].tolist()
        ranked = sorted(zip(where, best), key=lambda hit: (-hit[1], hit[0]))
        yield [(doc, score) for doc, score in ranked[:k] if score > 0]


def _largest(scores: Float[Tensor, "queries padded"], k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row: they lie in the k blocks of largest maxima, and a maximum over strides is fast."""
    if 4 * k > _BLOCKS:
        return scores.topk(k)
    blocks = scores.view(len(scores), -1, _BLOCKS)  # document d lies in block d mod _BLOCKS
    chosen = blocks.amax(1).topk(k).indices
    within = blocks.gather(2, chosen[:, None].expand(-1, blocks.shape[1], -1))
    values, places = within.flatten(1).topk(k)
    return values, places // k * _BLOCKS + chosen.gather(1, places % k)
