"""What a term in a document is worth: inverse document frequency, saturation and length, over one field or several."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Num
from torch import Tensor

from kexue_lib._arguments import check_integer, check_number, check_one_of

IDF_METHODS = ("lucene", "robertson", "okapi_floor")


def idf(n_docs: int, doc_freq: Num[Tensor, " terms"], method: str = "lucene") -> Float[Tensor, " terms"]:
    r"""Weight of a term that ``doc_freq`` of ``n_docs`` documents contain.

    .. math:: \text{robertson: } \log\frac{N-n+\frac12}{n+\frac12},\qquad \text{lucene: } \log\frac{N+1}{n+\frac12}

    "okapi_floor" is "robertson" with a quarter of the mean over the terms in place of each negative weight, the rule of
    rank-bm25.

    Args:
        n_docs: N, at least 1.
        doc_freq: n, from 0 to N.
        method: "lucene" (always positive), "robertson" (negative for n > N/2) or "okapi_floor".

    Returns:
        Weights in float64.

    Raises:
        TypeError: ``n_docs`` is no ``int``.
        ValueError: a number of documents outside of its range, or an unknown method.

    Cost: linear.

    Source: Robertson and Zaragoza, 2009, equation 3.6; Kamphuis et al., 2020.

    >>> idf(10, torch.tensor([1, 9]), "robertson")
    tensor([ 1.8458, -1.8458], dtype=torch.float64)
    """
    check_integer("n_docs", n_docs, 1)
    check_one_of("method", method, IDF_METHODS)
    check_number("doc_freq", doc_freq, least=0, most=n_docs)
    n = doc_freq.double()
    if method == "lucene":
        return torch.log((n_docs + 1) / (n + 0.5))
    weights = torch.log((n_docs - n + 0.5) / (n + 0.5))
    if method == "okapi_floor" and len(weights):
        return torch.where(weights < 0, 0.25 * weights.mean(), weights)
    return weights


def length_factor(lengths: Num[Tensor, " docs"], b: float) -> Float[Tensor, " docs"]:
    """Return B = 1 - b + b·length/mean: what a document's counts are divided by (1 where all are empty)."""
    lengths = lengths.double()
    mean = lengths.mean()
    return 1 - b + b * lengths / mean if mean > 0 else torch.ones_like(lengths)


def check_parameters(k1: float, b: float) -> None:
    """Refuse a saturation below 0 or a share of length normalisation outside [0, 1]."""
    check_number("k1", k1, least=0, below=float("inf"))
    check_number("b", b, least=0, most=1)


def bm25f(
    field_tf: Mapping[str, Num[Tensor, "docs terms"]],
    lengths: Mapping[str, Num[Tensor, " docs"]],
    weights: Mapping[str, float],
    term_idf: Num[Tensor, " terms"],
    *,
    k1: float = 1.2,
    b: float = 0.75,
) -> Float[Tensor, " docs"]:
    r"""Score documents of several fields against the terms of a query, counts joined before they saturate.

    .. math::
        \sum_i \mathrm{idf}_i\frac{(k_1+1)\tilde f_i}{k_1+\tilde f_i},\qquad \tilde f_i=\sum_c w_c\frac{f_{ci}}{B_c}

    The formula on dense counts; :class:`BM25FIndex` does the same on postings.

    Args:
        field_tf: for each field the counts, a row for each document and a column for each term of the query.
        lengths: for each field the number of tokens of each document.
        weights: of the fields, at least 0.
        term_idf: one for each term.
        k1: saturation, at least 0; 0 counts presence only.
        b: length normalisation, 0 (none) to 1 (full).

    Returns:
        A score for each document, float64.

    Raises:
        ValueError: the mappings differ in their fields, or a number outside of its range.

    Cost: fields × documents × terms.

    Source: Robertson, Zaragoza and Taylor, 2004; Robertson and Zaragoza, 2009, section 3.6.

    >>> title, body = torch.tensor([[1], [0]]), torch.tensor([[0], [1]])
    >>> lengths = {"title": torch.tensor([2, 2]), "body": torch.tensor([5, 5])}
    >>> bm25f({"title": title, "body": body}, lengths, {"title": 3.0, "body": 1.0}, torch.ones(1))
    tensor([1.5714, 1.0000], dtype=torch.float64)
    """
    check_parameters(k1, b)
    for name, mapping in (("lengths", lengths), ("weights", weights)):
        if set(mapping) != set(field_tf):
            raise ValueError(f"{name}: got fields {sorted(mapping)}, expected {sorted(field_tf)}")
    joined: Tensor | float = 0.0
    for field, tf in field_tf.items():
        check_number(f"weights[{field!r}]", weights[field], least=0, below=float("inf"))
        # A document without tokens has no counts to divide, even where b = 1 makes its factor 0.
        factor = length_factor(lengths[field], b)[:, None]
        joined = joined + weights[field] * torch.where(tf > 0, tf / factor, 0.0)
    return saturated(torch.as_tensor(joined), k1) @ term_idf.double()


def saturated(tf: Float[Tensor, "..."], k1: float, *, scale: bool = True) -> Float[Tensor, "..."]:
    """Return (k1+1)·tf/(k1+tf), without the constant k1+1 if ``scale`` is false; 0 where tf is 0, also for k1 = 0."""
    return torch.where(tf > 0, (k1 + 1 if scale else 1) * tf / (k1 + tf), 0.0)
