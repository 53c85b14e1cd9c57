"""Where terms stand: the index with positions, phrases, the shortest window, and the fine ranking built on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kexue_lib._arguments import check_integer
from kexue_lib.interludes.site_search._postings import check_tokens


class InvertedIndex:
    """For each term the documents that hold it, with the positions: a dict of dicts, to be read.

    >>> index = InvertedIndex()
    >>> index.add(7, ["to", "be", "or", "not", "to", "be"])
    >>> index.postings("be"), index.phrase(["not", "to"])
    ({7: [1, 5]}, [7])
    """

    def __init__(self) -> None:
        self._terms: dict[str, dict[int, list[int]]] = {}
        self._docs: set[int] = set()

    def add(self, doc_id: int, tokens: Sequence[str]) -> None:
        """Add a document.

        Raises:
            TypeError: a plain string in place of tokens.
            ValueError: a number that was added before.

        Cost: linear in the tokens.
        """
        check_integer("doc_id", doc_id)
        check_tokens("tokens", tokens)
        if doc_id in self._docs:
            raise ValueError(f"doc_id: got {doc_id} again, expected a number for each document")
        self._docs.add(doc_id)
        for position, term in enumerate(tokens):
            self._terms.setdefault(term, {}).setdefault(doc_id, []).append(position)

    def postings(self, term: str) -> dict[int, list[int]]:
        """Return document → ascending positions, empty for an unknown term."""
        return {doc: list(positions) for doc, positions in self._terms.get(term, {}).items()}

    def conjunctive(self, terms: Sequence[str]) -> list[int]:
        """Return the documents that hold every term, ascending; none for no terms.

        Cost: the length of the shortest postings times the number of terms.
        """
        check_tokens("terms", terms)
        lists = sorted((self._terms.get(term, {}) for term in terms), key=len)
        return sorted(doc for doc in lists[0] if all(doc in rest for rest in lists)) if lists else []

    def phrase(self, terms: Sequence[str]) -> list[int]:
        """Return the documents that hold the terms one after the other, ascending."""
        found = []
        for doc in self.conjunctive(terms):
            places = [set(self._terms[term][doc]) for term in terms]
            if any(all(start + i in places[i] for i in range(len(terms))) for start in places[0]):
                found.append(doc)
        return found


def minimum_window(positions: Sequence[Sequence[int]]) -> int:
    """Return the length of the shortest span of tokens that holds one position of every list.

    Args:
        positions: for each term its positions, ascending.

    Raises:
        ValueError: no lists, or an empty one.

    Cost: n log n for n positions: one sort and one pass with two ends.

    >>> minimum_window([[0, 9], [4, 11]])
    3
    """
    if not positions or not all(positions):
        raise ValueError(f"positions: got {list(map(list, positions))}, expected at least one position for each term")
    events = sorted((place, term) for term, places in enumerate(positions) for place in places)
    inside, missing, left, best = [0] * len(positions), len(positions), 0, events[-1][0] - events[0][0] + 1
    for place, term in events:
        missing -= inside[term] == 0
        inside[term] += 1
        while not missing:
            best = min(best, place - events[left][0] + 1)
            inside[events[left][1]] -= 1
            missing += inside[events[left][1]] == 0
            left += 1
    return best


RERANK_WEIGHTS = {"score": 1.0, "title": 0.3, "coverage": 0.3, "window": 0.2, "phrase": 0.2}


def rerank(
    candidates: Sequence[tuple[int, float]],
    query: Sequence[str],
    titles: Mapping[int, Sequence[str]],
    bodies: Mapping[int, Sequence[str]],
    weights: Mapping[str, float] = RERANK_WEIGHTS,
) -> list[tuple[int, float]]:
    """Sort the hits of a coarse search again by what a sum over terms cannot see: order, nearness, coverage.

    A candidate's points are the weighted sum of its score over the best score ("score"), the share of the query's
    terms in its title ("title") and in its body ("coverage"), the number of terms over the shortest window of the body
    that holds all the body's terms of the query, if there are two ("window"), and 1 if the body holds the query as a
    phrase ("phrase"). The weights are a choice made before any measurement, not a fit.

    Args:
        candidates: documents with positive scores, the best first.
        query: tokens.
        titles: for each candidate its title's tokens.
        bodies: for each candidate its body's tokens.
        weights: of the five features.

    Returns:
        Documents with their points, the best first, equal points in the given order.

    Raises:
        ValueError: other features than the five.

    Cost: linear in the tokens of the candidates.

    >>> bodies = {0: ["search", "a", "tree"], 1: ["tree", "search"]}
    >>> rerank([(0, 1.0), (1, 1.0)], ["tree", "search"], {0: [], 1: []}, bodies)[0][0]
    1
    """
    check_tokens("query", query)
    if set(weights) != set(RERANK_WEIGHTS):
        raise ValueError(f"weights: got {sorted(weights)}, expected {sorted(RERANK_WEIGHTS)}")
    if not candidates or not query:
        return list(candidates)
    best = candidates[0][1]
    points = []
    for doc, score in candidates:
        seen = _features(query, titles[doc], bodies[doc])
        seen["score"] = score / best
        points.append((doc, sum(weights[name] * seen[name] for name in RERANK_WEIGHTS)))
    return sorted(points, key=lambda hit: -hit[1])


def _features(query: Sequence[str], title: Sequence[str], body: Sequence[str]) -> dict[str, float]:
    terms = list(dict.fromkeys(query))
    positions: dict[str, list[int]] = {term: [] for term in terms}
    for place, token in enumerate(body):
        if token in positions:
            positions[token].append(place)
    present = [places for places in positions.values() if places]
    length = len(query)
    starts = positions[query[0]] if length > 1 else []
    return {
        "title": sum(term in title for term in terms) / len(terms),
        "coverage": len(present) / len(terms),
        "window": len(present) / minimum_window(present) if len(present) > 1 else 0.0,
        "phrase": float(any(list(body[start : start + length]) == list(query) for start in starts)),
    }
