"""An index of 20 000 documents of 100 tokens beside rank-bm25, bm25s and tantivy.

Run: python -m benchmarks.interludes.bench_site_search [--save]
"""

from __future__ import annotations

import bm25s
import numpy as np
import tantivy
import torch
from rank_bm25 import BM25Okapi

from benchmarks.measure import Report
from kexue_lib.interludes.site_search import BM25Index, max_score_search

DOCS, LENGTH, VOCABULARY, QUERIES, K = 20_000, 100, 30_000, 64, 10


def corpus() -> tuple[list[list[str]], list[list[str]]]:
    """Documents by Zipf's law; queries of three terms drawn from the documents' tokens, frequent ones too."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, VOCABULARY + 1)
    tokens = rng.choice(VOCABULARY, (DOCS, LENGTH), p=share / share.sum())
    docs = [[f"t{number}" for number in row] for row in tokens.tolist()]
    queries = [rng.choice(docs[place], 3, replace=False).tolist() for place in rng.integers(DOCS, size=QUERIES)]
    return docs, queries


def tantivy_searcher(docs: list[list[str]]) -> tuple[tantivy.Index, tantivy.Searcher]:
    """An index in memory, one thread, positions left out as in the others."""
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("number", stored=True)
    builder.add_text_field("body", index_option="freq")
    index = tantivy.Index(builder.build())
    writer = index.writer(heap_size=200_000_000, num_threads=1)
    for number, doc in enumerate(docs):
        writer.add_document(tantivy.Document(number=number, body=" ".join(doc)))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    return index, index.searcher()


def agree(ours: list[tuple[int, float]], scores: np.ndarray) -> bool:
    """Whether another's scores of the documents that we found are its best ones."""
    return np.allclose(np.sort(scores)[::-1][: len(ours)], scores[[doc for doc, _ in ours]], rtol=1e-4)


def main() -> None:
    torch.set_num_threads(1)
    report = Report("Full-text search", ("rank-bm25", "bm25s", "tantivy"))
    docs, queries = corpus()
    ours = BM25Index(k1=1.5, scale=False).fit(docs)
    okapi = BM25Okapi(docs)
    quick = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    quick.index(docs, show_progress=False)
    plain = BM25Index(k1=1.5, scale=False).fit(docs)
    plain._rows = {}
    index, searcher = tantivy_searcher(docs)
    parsed = [index.parse_query(" ".join(query), ["body"]) for query in queries]
    same = BM25Index(k1=1.5, idf_method="okapi_floor").fit(docs)
    assert all(agree(same.search(query, K), okapi.get_scores(query)) for query in queries[:8])
    assert all(agree(ours.search(query, K), quick.get_scores(query)) for query in queries)

    def peer(batch: list[list[str]]) -> object:
        return quick.retrieve(batch, k=K, show_progress=False, n_threads=0)

    one = queries[:8]
    report.compare(
        "8 queries, one at a time",
        {
            "BM25Index.search": lambda: [ours.search(query, K) for query in one],
            "max_score_search": lambda: [max_score_search(ours, query, K) for query in one],
            "bm25s": lambda: [peer([query]) for query in one],
            "tantivy": lambda: [searcher.search(query, K) for query in parsed[:8]],
            "rank-bm25": lambda: [okapi.get_top_n(query, range(DOCS), K) for query in one],
        },
        baseline="BM25Index.search",
        rounds=25,
        seconds=25.0,
    )
    report.compare(
        "A batch of 64 queries",
        {
            "BM25Index.search_batch": lambda: ours.search_batch(queries, K),
            "the same without full rows": lambda: plain.search_batch(queries, K),
            "bm25s": lambda: peer(queries),
            "tantivy, one at a time": lambda: [searcher.search(query, K) for query in parsed],
        },
        baseline="BM25Index.search_batch",
        rounds=25,
    )
    report.compare(
        "Building the index from tokens",
        {
            "BM25Index.fit": lambda: BM25Index().fit(docs),
            "bm25s": lambda: bm25s.BM25(method="lucene").index(docs, show_progress=False),
            "tantivy": lambda: tantivy_searcher(docs),
            "rank-bm25": lambda: BM25Okapi(docs),
        },
        baseline="BM25Index.fit",
        rounds=7,
        warmup=1,
    )
    stored = [ours._docs, ours._weights, *ours._rows.values()]
    report.number("Postings per query, mean", sum(map(ours.cost, queries)) / len(queries))
    report.number("Postings in all", len(ours._docs))
    report.number("Megabytes of our index, without the words", sum(part.nbytes for part in stored) / 1e6)
    report.number("Megabytes of bm25s's index, without the words", sum(part.nbytes for part in _arrays(quick)) / 1e6)
    report.finish("interludes/site_search")


def _arrays(quick: bm25s.BM25) -> list[np.ndarray]:
    return [part for part in quick.scores.values() if isinstance(part, np.ndarray)]


if __name__ == "__main__":
    main()
