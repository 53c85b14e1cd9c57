"""Full-text search small enough to read: BM25 and BM25F on postings, exact pruning, and the search of this book.

Source: Su Jianlin, "Cool Papers update: a simple in-site search system", 2024, https://kexue.fm/archives/10088.
"""

from __future__ import annotations

from kexue_lib.interludes.site_search._index import BM25FIndex, BM25Index
from kexue_lib.interludes.site_search._pages import Page
from kexue_lib.interludes.site_search._positions import InvertedIndex, minimum_window, rerank
from kexue_lib.interludes.site_search._pruning import max_score_search
from kexue_lib.interludes.site_search._site import Hit, SiteSearch
from kexue_lib.interludes.site_search._tokens import tokenize
from kexue_lib.interludes.site_search._weights import bm25f, idf

__all__ = [
    "BM25FIndex",
    "BM25Index",
    "Hit",
    "InvertedIndex",
    "Page",
    "SiteSearch",
    "bm25f",
    "idf",
    "max_score_search",
    "minimum_window",
    "rerank",
    "tokenize",
]
