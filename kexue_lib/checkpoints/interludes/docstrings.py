"""Known-item search in the docstrings of Python's standard library: eight rankings, the same queries for all; and
k1, b and the weight of the name chosen on queries of their own, measured on others.

A document is a module, class or function with a docstring; its fields are its dotted name and its text. It changes
with the version of Python, so the ranks are stored, by :mod:`kexue_lib.checkpoints.interludes.site_search`."""

from __future__ import annotations

import ast
import random
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from kexue_lib.interludes.site_search import BM25FIndex, BM25Index, rerank, tokenize

__all__ = [
    "HAND_MADE",
    "K1",
    "RULES",
    "WEIGHTS",
    "B",
    "compare_methods",
    "docstrings",
    "known_item_queries",
    "rankers",
    "sweep_fields",
    "sweep_parameters",
]

HAND_MADE = {
    "json decoder": "json.decoder.JSONDecoder",
    "least recently used cache": "functools.lru_cache",
    "binary search sorted list": "bisect",
    "insert item and keep the list sorted": "bisect.insort_right",
    "thread safe queue first in first out": "queue.Queue",
    "greatest common divisor of fractions": "fractions",
    "temporary directory removed on exit": "tempfile.TemporaryDirectory",
    "wrap a paragraph of text to a width": "textwrap.wrap",
    "guess the format of a csv file": "csv.Sniffer",
    "copy objects recursively": "copy.deepcopy",
    "count hashable objects": "collections.Counter",
    "median of data": "statistics.median",
    "parse command line options": "argparse.ArgumentParser",
    "difference between two sequences of lines": "difflib.unified_diff",
}
RULES = {  # words of the name, words of the text, and whether a word that occurs twice is twice as likely
    "three words of the text": (0, 3, False),
    "three words, by their counts": (0, 3, True),
    "one of the name, two of the text": (1, 2, False),
}
PER_RULE, DEPTH = 300, 100
K1, B = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 2.0), (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # of the name, over that of the text
USUAL = (1.2, 0.75)
_FIELD_WEIGHTS = {"name": 3.0, "text": 1.0}


def docstrings() -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Return the dotted names of all documented public objects, and the tokens of names and of texts.

    Returns:
        Three lists of the same length, in the order of the files; tests and IDLE are left out.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    names, texts = [], []
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder).with_suffix("").parts
        if {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "pydoc_data"} & set(parts):
            continue
        module = ".".join(part for part in parts if part != "__init__")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(file.read_bytes())
        except SyntaxError:
            continue
        for name, text in _documented(tree, module):
            if not any(part.startswith("_") for part in name.split(".")):
                names.append(name)
                texts.append(text)
    return names, [tokenize(name) for name in names], [tokenize(text) for text in texts]


def _documented(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    if text := ast.get_docstring(node):
        yield name, text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _documented(child, f"{name}.{child.name}")


def known_item_queries(
    name_tokens: list[list[str]], texts: list[list[str]], rule: str, seed: int = 0
) -> list[tuple[list[str], int]]:
    """Return queries with the document they were drawn from.

    The document is drawn evenly among those with twelve different words of three letters or more in the text that
    are not in the name; the words evenly among these, or by their counts, and evenly among those of the name.

    Args:
        name_tokens: of each document.
        texts: tokens of each document.
        rule: of ``RULES``.
        seed: of the draws.
    """
    generator, (of_name, of_text, by_count) = random.Random(f"{seed} {rule}"), RULES[rule]
    choices = []
    for place, (name, text) in enumerate(zip(name_tokens, texts)):
        words = sorted(word for word in text if len(word) > 2 and word not in name)
        if len(set(words)) >= 12:
            choices.append((place, sorted(set(name)), words))

    def draw(words: list[str]) -> list[str]:
        if not by_count:
            return generator.sample(sorted(set(words)), of_text)
        return list(dict.fromkeys(generator.sample(words, len(words))))[:of_text]

    drawn = [generator.choice(choices) for _ in range(PER_RULE)]
    return [(generator.sample(name, of_name) + draw(words), place) for place, name, words in drawn]


def rankers(
    name_tokens: list[list[str]], texts: list[list[str]]
) -> dict[str, Callable[[list[str]], list[tuple[int, float]]]]:
    """Return the rankings that are compared: each maps a query to its best documents.

    Args:
        name_tokens: of each document.
        texts: tokens of each document.
    """
    joined = [name + text for name, text in zip(name_tokens, texts)]
    index = BM25Index().fit(joined)
    fields = BM25FIndex(_FIELD_WEIGHTS).fit({"name": name_tokens, "text": texts})
    apart = {field: BM25Index().fit(docs) for field, docs in (("name", name_tokens), ("text", texts))}

    def cosine(**options: bool) -> Callable[[list[str]], list[tuple[int, float]]]:
        vectorizer = TfidfVectorizer(analyzer=list, **options)
        matrix = vectorizer.fit_transform(joined)
        return lambda query: _best(torch.from_numpy((matrix @ vectorizer.transform([query]).T).toarray()[:, 0]))

    def by_field(query: list[str]) -> list[tuple[int, float]]:
        return _best(sum(weight * apart[field].score(query) for field, weight in _FIELD_WEIGHTS.items()))

    def fine(query: list[str]) -> list[tuple[int, float]]:
        return _reranked(fields.search(query, DEPTH), query, name_tokens, texts)

    return {
        "tf-idf, cosine": cosine(),
        "tf-idf, log of tf": cosine(sublinear_tf=True),
        "BM25": lambda query: index.search(query, DEPTH),
        "BM25, k1 = 0": _searcher(BM25Index(k1=0.0).fit(joined)),
        "BM25, b = 0": _searcher(BM25Index(b=0.0).fit(joined)),
        "BM25 by field, added": by_field,
        "BM25F": lambda query: fields.search(query, DEPTH),
        "BM25F, reranked": fine,
    }


def _reranked(
    found: list[tuple[int, float]], query: list[str], name_tokens: list[list[str]], texts: list[list[str]]
) -> list[tuple[int, float]]:
    docs = [doc for doc, _ in found]
    return rerank(found, query, {doc: name_tokens[doc] for doc in docs}, {doc: texts[doc] for doc in docs})


def _searcher(index: BM25Index) -> Callable[[list[str]], list[tuple[int, float]]]:
    return lambda query: index.search(query, DEPTH)


def _best(scores: torch.Tensor) -> list[tuple[int, float]]:
    values, docs = scores.sort(descending=True, stable=True)
    return [(doc, value) for doc, value in zip(docs[:DEPTH].tolist(), values[:DEPTH].tolist()) if value > 0]


def compare_methods() -> dict[str, object]:
    """Rank all queries by all methods.

    Returns:
        ``documents``, ``tokens``; ``ranks``: for each set of queries and each method the rank of the wanted document,
        0 where it is not among the first hundred; ``queries``: the hand-made ones.
    """
    names, name_tokens, texts = docstrings()
    methods = rankers(name_tokens, texts)
    sets = {"by hand": [(tokenize(query), names.index(wanted)) for query, wanted in HAND_MADE.items()]}
    sets |= {rule: known_item_queries(name_tokens, texts, rule) for rule in RULES}
    ranks = {
        kind: {method: [_rank(rank(query), wanted) for query, wanted in queries] for method, rank in methods.items()}
        for kind, queries in sets.items()
    }
    tokens = sum(map(len, texts)) + sum(map(len, name_tokens))
    return {"documents": len(names), "tokens": tokens, "ranks": ranks, "queries": HAND_MADE}


def sweep_parameters() -> dict[str, object]:
    """Choose k1 and b of BM25 on one set of drawn queries (seed 1) and measure the choice on another (seed 2).

    The choice is the pair of the greatest mean reciprocal rank over the three rules. Measured beside it are the usual
    pair and, for both, what is left without length (b = 0), without counts (each count set to 1, the lengths kept) and
    without either (the sum of idf over the terms present).

    Returns:
        ``chosen``: k1 and b; ``grid``: for each set ("choose", "measure") and each rule the mean reciprocal rank, a row
        for each k1 and a column for each b; ``ranks``: for each rule and each variant the ranks in "measure";
        ``foreign``: those with a foreign word, in one line.
    """
    _, name_tokens, texts = docstrings()
    docs = [name + text for name, text in zip(name_tokens, texts)]
    # A token that nobody asks for keeps the length of a document whose repetitions are taken out.
    once = [[*(kept := list(dict.fromkeys(doc))), *[""] * (len(doc) - len(kept))] for doc in docs]
    drawn = {
        name: {rule: known_item_queries(name_tokens, texts, rule, seed) for rule in RULES}
        for name, seed in (("choose", 1), ("measure", 2))
    }

    def ranks(index: BM25Index, name: str) -> dict[str, list[int]]:
        return {
            rule: [_rank(index.search(query, DEPTH), wanted) for query, wanted in queries]
            for rule, queries in drawn[name].items()
        }

    grid = {name: {rule: [[0.0] * len(B) for _ in K1] for rule in RULES} for name in drawn}
    for row, k1 in enumerate(K1):
        for column, b in enumerate(B):
            index = BM25Index(k1, b).fit(docs)
            for name, of_rule in grid.items():
                for rule, places in ranks(index, name).items():
                    of_rule[rule][row][column] = sum(1 / place for place in places if place) / len(places)
    total = lambda pair: sum(table[pair[0]][pair[1]] for table in grid["choose"].values())
    row, column = max(((i, j) for i in range(len(K1)) for j in range(len(B))), key=total)
    chosen = K1[row], B[column]
    variants = {"neither": BM25Index(0.0).fit(docs)}
    for name, (k1, b) in (("usual", USUAL), ("chosen", chosen)):
        variants[f"{name}, both"] = BM25Index(k1, b).fit(docs)
        variants[f"{name}, counts"] = BM25Index(k1, 0.0).fit(docs)
        variants[f"{name}, length"] = BM25Index(k1, b).fit(once)
    found = {name: ranks(index, "measure") for name, index in variants.items()}
    by_rule = {rule: {name: of_rule[rule] for name, of_rule in found.items()} for rule in RULES}
    drawn["foreign"] = {rule: _with_foreign_word(queries) for rule, queries in drawn["measure"].items()}
    foreign = {name: ranks(variants[name], "foreign") for name in ("neither", "usual, both", "chosen, both")}
    lines = {rule: {name: " ".join(map(str, of[rule])) for name, of in foreign.items()} for rule in RULES}
    return {"chosen": chosen, "grid": grid, "ranks": by_rule, "foreign": lines}


def _with_foreign_word(queries: list[tuple[list[str], int]]) -> list[tuple[list[str], int]]:
    return [
        ([*query[:-1], other[-1]], place) for (query, place), (other, _) in zip(queries, [*queries[1:], queries[0]])
    ]


def sweep_fields() -> dict[str, object]:
    """Choose k1, b and the weight of the name on drawn queries (seed 1) and measure the choice on others (seed 2).

    Both ways to use two fields are given the same choice: the counts joined before they saturate (BM25F), and BM25 of
    the name and of the text added. For each weight, k1 and b are those of the greatest mean reciprocal rank over the
    three rules; BM25 on one field, tuned alike, is in :func:`sweep_parameters`.

    The joined fields, reranked, are measured at the choice.

    Returns:
        For "joined" and "added": ``best``: for each weight k1 and b; ``chosen``: the weight; ``measure``: for each
        rule and each weight the mean reciprocal rank on the queries measured; and ``ranks``: for each rule and for
        "joined", "added" and "reranked" the ranks at the choice, in one line.
    """
    _, name_tokens, texts = docstrings()
    fields = {"name": name_tokens, "text": texts}
    drawn = {
        seed: [query for rule in RULES for query in known_item_queries(name_tokens, texts, rule, seed)]
        for seed in (1, 2)
    }
    asked = {seed: [query for query, _ in queries] for seed, queries in drawn.items()}
    wanted = {seed: torch.tensor([place for _, place in queries]) for seed, queries in drawn.items()}

    def ranks(way: str, k1: float, b: float, seed: int, weights: tuple[float, ...] = WEIGHTS) -> list[torch.Tensor]:
        if way == "joined":
            indices = [BM25FIndex({"name": weight, "text": 1.0}, k1, b).fit(fields) for weight in weights]
            return [_ranks(index.score_batch(asked[seed]), wanted[seed]) for index in indices]
        name, text = (BM25Index(k1, b).fit(docs).score_batch(asked[seed]) for docs in fields.values())
        return [_ranks(text + weight * name, wanted[seed]) for weight in weights]

    content: dict[str, Any] = {"ranks": {rule: {} for rule in RULES}}

    def store(name: str, places: Sequence[torch.Tensor]) -> None:
        for rule, row in zip(RULES, places):
            content["ranks"][rule][name] = " ".join(map(str, row.tolist()))

    pairs = [(k1, b) for k1 in K1 for b in B[1:]]
    for way in ("joined", "added"):
        means = torch.stack([torch.stack([_mean(places) for places in ranks(way, *pair, 1)]) for pair in pairs])
        best = [pairs[row] for row in means.argmax(0).tolist()]
        place = int(means.amax(0).argmax())
        measured = [ranks(way, *pair, 2, (weight,))[0].split(PER_RULE) for pair, weight in zip(best, WEIGHTS)]
        measure = {rule: [float(_mean(row[i])) for row in measured] for i, rule in enumerate(RULES)}
        content[way] = {"best": best, "chosen": WEIGHTS[place], "measure": measure}
        store(way, measured[place])
        if way == "joined":
            index = BM25FIndex({"name": WEIGHTS[place], "text": 1.0}, *best[place]).fit(fields)
            found = [_reranked(index.search(query, DEPTH), query, name_tokens, texts) for query in asked[2]]
            last = torch.tensor([_rank(hits, doc) for hits, doc in zip(found, wanted[2].tolist())])
            store("reranked", last.split(PER_RULE))
    return content


def _mean(ranks: torch.Tensor) -> torch.Tensor:
    return torch.where(ranks > 0, 1 / ranks, 0.0).mean()


def _ranks(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The rank of each query's document, ties by lower number; 0 beyond ``DEPTH`` or without a positive score."""
    own = scores.gather(1, wanted[:, None])
    before = torch.arange(scores.shape[1]) < wanted[:, None]
    places = 1 + ((scores > own) | (scores == own) & before).sum(1)
    return torch.where((places <= DEPTH) & (own[:, 0] > 0), places, 0)


def _rank(found: list[tuple[int, float]], wanted: int) -> int:
    return next((place for place, (doc, _) in enumerate(found, 1) if doc == wanted), 0)
