"""BM25 over one field and BM25F over several, computed once for each term and document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from kexue_lib._arguments import check_number, check_one_of
from kexue_lib.interludes.site_search._postings import Postings, check_tokens, count_terms
from kexue_lib.interludes.site_search._weights import IDF_METHODS, check_parameters, idf, length_factor, saturated


class BM25Index(Postings):
    r"""Documents ranked by BM25, all weights computed when the index is built.

    .. math::
        \sum_{i\in q}\mathrm{idf}_i\left(\frac{(k_1+1)f}{f+k_1B}+\delta\right),\qquad B=1-b+b\frac{|d|}{\mathrm{avg}}

    over the query's tokens that the document holds, f times each.

    Args:
        k1: saturation, at least 0.
        b: length normalisation, 0 to 1.
        idf_method: "lucene", "robertson" or "okapi_floor"; see ``idf``.
        scale: whether the constant k1+1 is there; the ranking is the same (for ``delta`` = 0).
        delta: at least 0; what a term is worth in the longest document still (BM25+).
        dtype: of the weights.

    Raises:
        ValueError: a parameter outside of its range, an unknown method, no documents.
        TypeError: a plain string in place of tokens.
        RuntimeError: a query before ``fit``.

    Cost: ``fit`` sorts all tokens once; a query adds up the postings of its terms.

    Source: Robertson and Walker, 1994; Lù, 2024, arXiv 2407.03618.

    >>> docs = [["linear", "scan"], ["linear", "algebra", "of", "scan", "lines"], ["search"]]
    >>> [doc for doc, _ in BM25Index().fit(docs).search(["linear", "scan"])]
    [0, 1]
    """

    def __init__(
        self,
        k1: float = 1.2,
        b: float = 0.75,
        idf_method: str = "lucene",
        *,
        scale: bool = True,
        delta: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_parameters(k1, b)
        check_one_of("idf_method", idf_method, IDF_METHODS)
        check_number("delta", delta, least=0, below=float("inf"))
        self.k1, self.b, self.idf_method, self.scale, self.delta, self.dtype = k1, b, idf_method, scale, delta, dtype

    def fit(self, docs: Sequence[Sequence[str]]) -> BM25Index:
        """Index documents, each a sequence of tokens, and return the index; a document may be empty."""
        check_tokens("docs", docs)
        if not docs:
            raise ValueError("docs: got none, expected at least one document")
        self.vocabulary, self.n_docs = {}, len(docs)
        terms, places, tf, lengths = count_terms(docs, self.vocabulary)
        weights = idf(self.n_docs, torch.bincount(terms, minlength=len(self.vocabulary)), self.idf_method)
        part = saturated(tf / length_factor(lengths, self.b)[places], self.k1, scale=self.scale)
        self._store(terms, places, weights[terms] * (part + self.delta), self.dtype)
        return self

    def to(self, device: torch.device | str) -> BM25Index:
        """Move the weights to a device and return the index."""
        self._check_fitted()
        self._docs, self._weights = self._docs.to(device), self._weights.to(device)
        self._spread_frequent_terms()
        return self

    def save(self, path: str | Path) -> None:
        """Write the index to an ``.npz`` file (nothing is pickled)."""
        self._check_fitted()
        words = np.frombuffer("\n".join(self.vocabulary).encode(), np.uint8)
        options = [self.k1, self.b, IDF_METHODS.index(self.idf_method), self.scale, self.delta, self.n_docs]
        with Path(path).open("wb") as file:
            arrays = {"starts": self._starts, "docs": self._docs.cpu(), "weights": self._weights.cpu()}
            np.savez_compressed(file, words=words, options=np.array(options, np.float64), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> BM25Index:
        """Read what ``save`` wrote; the weights are on the CPU.

        A dtype that NumPy lacks (bfloat16) cannot be saved.
        """
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        k1, b, method, scale, delta, n_docs = arrays["options"].tolist()
        index = cls(k1, b, IDF_METHODS[int(method)], scale=bool(scale), delta=delta)
        words = arrays["words"].tobytes().decode()
        index.vocabulary = {word: i for i, word in enumerate(words.split("\n"))} if words else {}
        index.n_docs, index._starts = int(n_docs), arrays["starts"].tolist()
        index._docs, index._weights = torch.from_numpy(arrays["docs"]), torch.from_numpy(arrays["weights"])
        index.dtype = index._weights.dtype
        index._spread_frequent_terms()
        return index


class BM25FIndex(Postings):
    """Documents of several fields ranked by ``bm25f``, all weights computed when the index is built.

    A term's document frequency counts the documents that hold it in any field.

    Args:
        weights: of the fields, at least 0.
        k1: saturation, at least 0.
        b: length normalisation of every field, 0 to 1.

    Raises:
        ValueError: a parameter outside of its range, other fields than the weights name, fields of different sizes,
            no documents.

    Cost: as :class:`BM25Index`; a query costs the same however many fields there are.

    Source: Robertson, Zaragoza and Taylor, 2004.

    >>> fields = {"title": [["scan"], ["search"]], "body": [["search", "tree"], ["scan", "tree"]]}
    >>> BM25FIndex({"title": 5.0, "body": 1.0}).fit(fields).search(["scan"], 1)[0][0]
    0
    """

    def __init__(self, weights: Mapping[str, float], k1: float = 1.2, b: float = 0.75) -> None:
        super().__init__()
        check_parameters(k1, b)
        if not weights:
            raise ValueError("weights: got no fields, expected at least one")
        for field, weight in weights.items():
            check_number(f"weights[{field!r}]", weight, least=0, below=float("inf"))
        self.weights, self.k1, self.b = dict(weights), k1, b

    def fit(self, fields: Mapping[str, Sequence[Sequence[str]]]) -> BM25FIndex:
        """Index documents, given as the sequence of their tokens for each field, and return the index."""
        if set(fields) != set(self.weights):
            raise ValueError(f"fields: got {sorted(fields)}, expected {sorted(self.weights)}")
        sizes = {len(docs) for docs in fields.values()}
        if len(sizes) > 1 or 0 in sizes:
            raise ValueError(f"fields: got {sorted(sizes)} documents, expected the same number of at least 1 in each")
        (self.n_docs,) = sizes
        self.vocabulary = {}
        keys, counts = [], []
        for field, docs in fields.items():
            terms, places, tf, lengths = count_terms(docs, self.vocabulary)
            keys.append(terms * self.n_docs + places)
            counts.append(self.weights[field] * tf / length_factor(lengths, self.b)[places])
        every, where = torch.unique(torch.cat(keys), return_inverse=True)
        joined = torch.zeros(len(every), dtype=torch.float64).index_add_(0, where, torch.cat(counts))
        terms, places = every // self.n_docs, every % self.n_docs
        weights = idf(self.n_docs, torch.bincount(terms, minlength=len(self.vocabulary)))
        self._store(terms, places, weights[terms] * saturated(joined, self.k1), torch.float32)
        return self
