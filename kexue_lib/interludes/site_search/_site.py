"""The search of a site: pages read, indexed by field, found, shown with a snippet, and written for the browser."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kexue_lib._arguments import check_integer
from kexue_lib.interludes.site_search._index import BM25FIndex
from kexue_lib.interludes.site_search._pages import FIELDS, Page, plain_text, read_page
from kexue_lib.interludes.site_search._positions import rerank
from kexue_lib.interludes.site_search._tokens import tokenize

FIELD_WEIGHTS = {"title": 8.0, "headings": 3.0, "prose": 1.0, "equations": 1.0, "names": 3.0}
_LEVELS = 65535  # of the weights in the browser


@dataclass(frozen=True)
class Hit:
    """A page that was found."""

    title: str
    url: str
    score: float
    snippet: str


class SiteSearch:
    """BM25F over the pages of a site: title, headings, prose, equations and names of functions.

    The weights of the fields are 8, 3, 1, 1 and 3, set before the first measurement.

    Args:
        pages: from ``from_chapters``.

    Raises:
        ValueError: no pages.

    >>> from kexue_lib.interludes.site_search._pages import Page
    >>> texts = {"title": "Scans", "headings": "", "prose": "A linear scan.", "equations": "", "names": "linear_scan"}
    >>> SiteSearch([Page("scan.html", "Scans", "A linear scan.", texts)]).search("linear")[0].url
    'scan.html'
    """

    def __init__(self, pages: Sequence[Page]) -> None:
        if not pages:
            raise ValueError("pages: got none, expected at least one")
        self.pages = list(pages)
        self._tokens = {field: [tokenize(page.fields[field]) for page in self.pages] for field in FIELDS}
        self.index = BM25FIndex(FIELD_WEIGHTS).fit(self._tokens)

    @classmethod
    def from_chapters(cls, paths: Iterable[str | Path], root: str | Path = ".") -> SiteSearch:
        """Read notebooks and Markdown files; a page's address is its path from ``root``, with ``.html``.

        Raises:
            ValueError: another kind of file, one outside ``root``, or no paths.
        """
        files = sorted(Path(path).resolve() for path in paths)
        base = Path(root).resolve()
        return cls([read_page(file, file.relative_to(base).with_suffix(".html").as_posix()) for file in files])

    def search(self, query: str, k: int = 10, *, coarse: int = 0) -> list[Hit]:
        """Return the best k pages for a query.

        Args:
            query: text; it is taken apart by ``tokenize``.
            k: at least 1.
            coarse: how many pages of the first stage ``rerank`` sorts again; 0 leaves it out, as the browser does.

        Raises:
            TypeError: the query is no ``str``.
            ValueError: k < 1 or coarse < 0.
        """
        check_integer("k", k, 1)
        check_integer("coarse", coarse, 0)
        tokens = tokenize(query)
        found = self.index.search(tokens, max(k, coarse))
        if coarse:
            titles = {doc: self._tokens["title"][doc] for doc, _ in found}
            found = rerank(found, tokens, titles, {doc: self._tokens["prose"][doc] for doc, _ in found})
        return [self._hit(doc, score, tokens) for doc, score in found[:k]]

    def related(self, page: int, k: int = 5, n_keywords: int = 10) -> list[Hit]:
        """Return the pages nearest to a page: its keywords of greatest weight are the query.

        Args:
            page: its number in ``pages``.
            k: at least 1.
            n_keywords: at least 1.

        Source: Su Jianlin, 2024-08-12, https://kexue.fm/archives/10311.
        """
        check_integer("k", k, 1)
        words = self.keywords(page, n_keywords)
        found = self.index.search(words, k + 1)
        return [self._hit(doc, score, words) for doc, score in found if doc != page][:k]

    def keywords(self, page: int, n_keywords: int = 10) -> list[str]:
        """Return the terms of greatest BM25F weight in a page among those that another page holds too.

        Among equals the first of the vocabulary comes first.
        """
        check_integer("page", page, 0, len(self.pages) - 1)
        check_integer("n_keywords", n_keywords, 1)
        starts, words, places = self.index._starts, list(self.index.vocabulary), []
        for place in (self.index._docs == page).nonzero().squeeze(1).tolist():
            number = bisect_right(starts, place) - 1
            if starts[number + 1] - starts[number] > 1:
                places.append((-float(self.index._weights[place]), number))
        return [words[number] for _, number in sorted(places)[:n_keywords]]

    def to_json(self, path: str | Path) -> None:
        """Write pages, vocabulary and weights for ``_static/site_search.js``.

        The weights are whole multiples of ``step``, 65535 of them up to the greatest, so a score is off by at most
        half a step for each token of the query.
        """
        weights = self.index._weights.double()
        step = float(weights.max()) / _LEVELS if len(weights) else 1.0
        content = {
            "pages": [{"title": page.title, "url": page.url, "summary": page.summary} for page in self.pages],
            "vocabulary": list(self.index.vocabulary),
            "starts": self.index._starts,
            "docs": self.index._docs.tolist(),
            "weights": (weights / step).round().long().tolist(),
            "step": step,
        }
        Path(path).write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")

    def _hit(self, doc: int, score: float, tokens: Sequence[str]) -> Hit:
        page = self.pages[doc]
        return Hit(page.title, page.url, score, _snippet(page, set(tokens)))


def _snippet(page: Page, terms: set[str], most: int = 160) -> str:
    """The sentence of the prose that holds most of the terms, the first of them among equals, cut to ``most``."""
    sentences = _sentences(page.fields["prose"])
    counts = [len(terms & tokens) for _, tokens in sentences]
    best = max(counts, default=0)
    text = sentences[counts.index(best)][0] if best else page.summary
    return text if len(text) <= most else text[: most - 1] + "…"


@lru_cache(maxsize=1024)
def _sentences(prose: str) -> list[tuple[str, frozenset[str]]]:
    sentences = map(plain_text, re.split(r"(?<=[.!?])\s|\n", prose))
    return [(sentence, frozenset(tokenize(sentence))) for sentence in sentences]
