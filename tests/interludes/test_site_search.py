"""site_search: rankings against brute force, rank-bm25 and bm25s; the browser's search against Python's."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch

from kexue_lib.interludes import site_search as ss
from kexue_lib.interludes.site_search import BM25FIndex, BM25Index, InvertedIndex, Page, SiteSearch, tokenize
from kexue_lib.interludes.site_search.__main__ import main
from tests import opinfo

ROOT = Path(__file__).resolve().parents[2]
FIELDS = ("title", "headings", "prose", "equations", "names")


def corpus(seed: int = 0, size: int = 200, words: int = 60) -> tuple[list[list[str]], list[list[str]]]:
    """Documents of 0 to 40 words, some of them frequent, and queries that hold an unknown word and one twice."""
    rng = random.Random(seed)
    draw = lambda count: [f"w{min(int(rng.expovariate(0.12)), words)}" for _ in range(count)]
    docs = [draw(rng.randrange(41)) for _ in range(size)]
    queries = [draw(rng.randrange(1, 5)) for _ in range(40)]
    return docs, [*queries, ["w3", "w3", "w40"], ["nowhere", "w2"]]


def brute_force(docs: list[list[str]], query: list[str], k1: float, b: float) -> list[float]:
    """BM25 with Lucene's idf, from the formula, a token at a time."""
    mean = sum(map(len, docs)) / len(docs)
    scores = []
    for doc in docs:
        score = 0.0
        for term in query:
            n, f = sum(term in other for other in docs), doc.count(term)
            weight = math.log(1 + (len(docs) - n + 0.5) / (n + 0.5))
            score += weight * f * (k1 + 1) / (f + k1 * (1 - b + b * len(doc) / mean)) if f else 0.0
        scores.append(score)
    return scores


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Linear_scan, images!", ["linear_scan", "linear", "scan", "images"]),
        ("得分匹配 与 RoPE", ["得分", "分匹", "匹配", "与", "rope"]),
        (
            r"$\alpha_1 = \frac{x^2}{\operatorname{sign} y}$",
            ["alpha", "1", "frac", "x", "2", "operatorname", "sign", "y"],
        ),
        ("Ｆｕｌｌ ﬁeld Čech naïve", ["full", "field", "čech", "naïve"]),
        ("__init__ a_b", ["init", "a_b", "a", "b"]),
        ("λ Β-VAE Ωμέγα", ["λ", "β", "vae", "ωμέγα"]),
        ("𝛼_𝟏 Привет", ["α_1", "α", "1", "привет"]),
        ("変分ベイズ法 ｶﾅ の", ["変分", "分ベ", "ベイ", "イズ", "ズ法", "カナ", "の"]),
        ("β函数 b̂", ["β", "函数", "b"]),
        ("— 😀 ...", []),
        ("", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


def test_single_characters_in_place_of_bigrams() -> None:
    assert tokenize("得分匹配a ベイズ λx", bigrams=False) == [*"得分匹配", "a", *"ベイズ", "λx"]


def test_a_function_is_found_by_its_name_and_by_its_parts() -> None:
    index = BM25Index().fit([tokenize("linear_scan"), tokenize("search")])
    assert all(index.search(tokenize(query))[0][0] == 0 for query in ("linear_scan", "linear scan", "LINEAR_SCAN"))


@pytest.mark.parametrize(("k1", "b"), [*product((0.0, 1.2, 3.0), (0.0, 0.75, 1.0))])
def test_scores_are_those_of_the_formula(k1: float, b: float) -> None:
    docs, queries = corpus(size=60)
    index = BM25Index(k1, b, dtype=torch.float64).fit(docs)
    for query, row in zip(queries, index.score_batch(queries)):
        assert row.tolist() == pytest.approx(brute_force(docs, query, k1, b), abs=1e-12)


def test_scores_are_the_product_of_the_matrix_and_the_counts() -> None:
    docs, queries = corpus(1)
    index = BM25Index(dtype=torch.float64).fit(docs)
    for query in queries:
        counts = torch.tensor([query.count(word) for word in index.vocabulary], dtype=torch.float64)
        torch.testing.assert_close(index.matrix @ counts, index.score(query))
        held = [query_word for query_word in set(query) if query_word in index.vocabulary]
        assert index.cost(query) == sum(word in doc for word in held for doc in docs)


def test_okapi_as_rank_bm25_has_it() -> None:
    peer = pytest.importorskip("rank_bm25")
    docs, queries = corpus(2)
    docs = [doc or ["w1"] for doc in docs]
    theirs, ours = peer.BM25Okapi(docs), BM25Index(1.5, idf_method="okapi_floor", dtype=torch.float64).fit(docs)
    for query in queries:
        assert ours.score(query).tolist() == pytest.approx(theirs.get_scores(query).tolist(), abs=1e-10)


@pytest.mark.parametrize("method", ["lucene", "robertson"])
def test_scores_as_bm25s_has_them(method: str) -> None:
    peer = pytest.importorskip("bm25s")
    docs, queries = corpus(3)
    theirs = peer.BM25(method=method, k1=1.5, b=0.75)
    theirs.index(docs, show_progress=False)
    ours = BM25Index(1.5, idf_method="lucene", scale=False).fit(docs)
    if method == "robertson":  # theirs sets negative weights to zero, so only rare words are compared
        queries = [[word for word in query if sum(word in doc for doc in docs) < len(docs) / 2] for query in queries]
        ours = BM25Index(1.5, idf_method="robertson", scale=False).fit(docs)
    known = [[word for word in query if word in ours.vocabulary] for query in queries]
    for query in filter(None, known):
        assert ours.score(query).tolist() == pytest.approx(theirs.get_scores(query).tolist(), abs=1e-5)


@pytest.mark.parametrize("k", [1, 3, 10, 70, 1000])
def test_best_documents_with_ties_by_lower_number(k: int) -> None:
    docs, queries = corpus(4, size=300)
    docs += docs[:150]  # every one of these ties with its copy
    index = BM25Index().fit(docs)
    for query, hits in zip(queries, index.search_batch(queries, k)):
        scores = index.score(query).tolist()
        expected = sorted(((-score, doc) for doc, score in enumerate(scores) if score > 0))[:k]
        assert hits == [(doc, -score) for score, doc in expected]
        assert index.search(query, k) == hits


def test_large_batches_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    docs, queries = corpus(5)
    index = BM25Index().fit(docs)
    whole = index.search_batch(queries)
    monkeypatch.setattr("kexue_lib.interludes.site_search._postings._CHUNK", 3 * len(docs))
    assert index.search_batch(queries) == whole


@pytest.mark.parametrize("k", [1, 5, 40])
def test_max_score_is_exact_and_reads_less(k: int) -> None:
    docs, queries = corpus(6, size=3000)
    index = BM25Index().fit(docs)
    visited = 0
    for query in queries:
        hits, read = ss.max_score_search(index, query, k)
        assert hits == index.search(query, k)
        visited += read
    assert visited <= sum(map(index.cost, queries))
    long = ["w0", "w45", "w1"]
    assert ss.max_score_search(index, long, 1)[1] < index.cost(long) / 2


def test_max_score_refuses_negative_weights() -> None:
    index = BM25Index(idf_method="robertson").fit([["a"], ["a", "b"], ["a"]])
    with pytest.raises(ValueError, match="negative weight"):
        ss.max_score_search(index, ["a"])


def test_fields_are_joined_before_they_saturate() -> None:
    titles, bodies = corpus(7)[0], corpus(8)[0]
    weights, terms = {"title": 3.0, "body": 1.0}, ["w1", "w7", "w20"]
    fields = {"title": titles, "body": bodies}
    index = BM25FIndex(weights).fit(fields)
    count = lambda docs: torch.tensor([[doc.count(term) for term in terms] for doc in docs])
    freq = torch.tensor([sum(t in a or t in b for a, b in zip(titles, bodies)) for t in terms])
    lengths = {name: torch.tensor([len(doc) for doc in docs]) for name, docs in fields.items()}
    dense = ss.bm25f({n: count(d) for n, d in fields.items()}, lengths, weights, ss.idf(len(titles), freq))
    torch.testing.assert_close(index.score(terms).double(), dense, rtol=1e-5, atol=1e-6)


def test_one_field_is_bm25() -> None:
    docs, queries = corpus(9)
    one, plain = BM25FIndex({"body": 1.0}).fit({"body": docs}), BM25Index().fit(docs)
    torch.testing.assert_close(one.score_batch(queries), plain.score_batch(queries))


def test_a_part_of_the_weight_stays_in_long_documents() -> None:
    docs = [["a"] + ["x"] * 10_000, ["b"]]
    plain, plus = BM25Index().fit(docs), BM25Index(delta=1.0).fit(docs)
    gain = plus.score(["a"])[0] - plain.score(["a"])[0]
    assert gain.item() == pytest.approx(math.log(3 / 1.5), rel=1e-5)


def test_saved_and_loaded(tmp_path: Path) -> None:
    docs, queries = corpus(10)
    index = BM25Index(0.9, 0.4, "robertson", scale=False, delta=0.5).fit(docs)
    index.save(tmp_path / "index.npz")
    back = BM25Index.load(tmp_path / "index.npz")
    assert torch.equal(back.score_batch(queries), index.score_batch(queries))
    assert (back.k1, back.b, back.idf_method, back.scale, back.delta) == (0.9, 0.4, "robertson", False, 0.5)


@pytest.mark.parametrize("k", [3, 4, 6])
def test_shortest_window_by_trying_all(k: int) -> None:
    rng = random.Random(k)
    for _ in range(200):
        lists = [sorted(rng.sample(range(60), rng.randrange(1, 5))) for _ in range(k)]
        tried = min(max(choice) - min(choice) + 1 for choice in product(*lists))
        assert ss.minimum_window(lists) == tried


def test_phrases_and_conjunctions_by_text_search() -> None:
    docs, queries = corpus(11)
    index = InvertedIndex()
    for number, doc in enumerate(docs):
        index.add(number, doc)
    for query in [*queries, *[doc[3:6] for doc in docs if len(doc) > 6]]:
        text = " " + " ".join(query) + " "
        assert index.conjunctive(query) == [i for i, doc in enumerate(docs) if set(query) <= set(doc)]
        assert index.phrase(query) == [i for i, doc in enumerate(docs) if text in " " + " ".join(doc) + " "]


def test_reranking_prefers_title_nearness_and_order() -> None:
    query, far = ["a", "b"], ["a", *["x"] * 8, "b"]
    ranked = lambda titles, bodies: [doc for doc, _ in ss.rerank([(0, 2.0), (1, 2.0)], query, titles, bodies)]
    assert ranked({0: [], 1: ["a"]}, {0: far, 1: far}) == [1, 0]
    assert ranked({0: [], 1: []}, {0: far, 1: ["b", "x", "a"]}) == [1, 0]
    assert ranked({0: [], 1: []}, {0: ["b", "a"], 1: ["a", "b"]}) == [1, 0]
    assert ranked({0: [], 1: []}, {0: ["a"], 1: far}) == [1, 0]


def notebook(*cells: tuple[str, str], claim: str = "") -> str:
    listed: list[dict] = [{"cell_type": kind, "source": [text]} for kind, text in cells]
    data = {"application/vnd.kexue.claim+json": {"title": claim, "statement": r"\zeta = 1"}}
    listed.append({"cell_type": "code", "source": ["x = hidden_name"], "outputs": [{"data": data}, {"text": ["loud"]}]})
    return json.dumps({"cells": listed})


@pytest.fixture
def site(tmp_path: Path) -> SiteSearch:
    texts = [
        (
            "markdown",
            "# Linear *recurrences*\n\n**Answer.** They are [scans](other.md) of `linear_scan`.\n\n## 得分匹配",
        ),
        ("code", "from kexue_lib.recurrence.scan import linear_scan"),
        ("markdown", "Then $\\gamma < 1$.\n\n```python\nmatrix_scan(x)\n```"),
    ]
    (tmp_path / "a.ipynb").write_text(notebook(*texts, claim="Every state is bounded"), encoding="utf-8")
    (tmp_path / "b.md").write_text("# Trees\n\nA tree of scans, scans, scans.", encoding="utf-8")
    return SiteSearch.from_chapters(tmp_path.glob("*"), tmp_path)


def test_all_fields_of_a_page_are_found(site: SiteSearch) -> None:
    for query in ("recurrences", "linear_scan", "matrix scan", "匹配", r"\gamma", "bounded", "zeta"):
        assert [hit.url for hit in site.search(query)] == ["a.html"], query
    assert site.search("hidden_name") == site.search("loud") == site.search("other md") == site.search("") == []
    assert [hit.url for hit in site.search("scans", coarse=5)] == ["b.html", "a.html"]
    assert site.search("bounded state")[0].snippet == "Every state is bounded"
    assert site.pages[0].summary == "Answer. They are scans of linear_scan."
    assert [hit.url for hit in site.related(1)] == ["a.html"]


def test_nothing_is_stemmed(site: SiteSearch) -> None:
    assert site.search("recurrence") == []


def test_from_the_shell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "chapters" / "part"
    folder.mkdir(parents=True)
    (folder / "scan.md").write_text("# Scans\n\nA linear scan.", encoding="utf-8")
    main(["linear", "--root", str(tmp_path), "--json", str(tmp_path / "index.json")])
    assert "Scans  chapters/part/scan.html" in capsys.readouterr().out
    assert json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))["pages"][0]["title"] == "Scans"


BROWSER_QUERIES = [
    "linear scan",
    "linear_scan",
    "learning rates learning rate",
    r"\operatorname{sign}(\beta_1 m)",
    "旋转位置编码的底数",
    "共享 embedding",
    "N = ab + c",
    "Ｓｏｆｔｍａｘ naïve __init__",
    "λ β-VAE 𝛼 Ωμέγας Привет",
    "変分ベイズ法 ｶﾅ の 々",
    "nowhere_at_all 😀",
    "",
]


def test_the_browser_ranks_as_python_does(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js on the PATH")
    book = SiteSearch.from_chapters((ROOT / "chapters").glob("*/*.ipynb"), ROOT)
    book.to_json(tmp_path / "index.json")
    script = """
    const { SiteSearch, tokenize } = require(process.argv[1]);
    const site = new SiteSearch(JSON.parse(require("fs").readFileSync(process.argv[2])));
    const asked = JSON.parse(process.argv[3]);
    console.log(JSON.stringify(asked.map((query) => [tokenize(query), site.search(query, 50)])));
    """
    command = [node, "-e", script, str(ROOT / "_static" / "site_search.js"), str(tmp_path / "index.json")]
    queries = [*BROWSER_QUERIES, *(page.title for page in book.pages)]
    done = subprocess.run([*command, json.dumps(queries)], check=True, capture_output=True, text=True)
    step = json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))["step"]
    for query, (tokens, theirs) in zip(queries, json.loads(done.stdout)):
        ours = {hit.url: hit.score for hit in book.search(query, 50)}
        assert tokens == tokenize(query)
        assert {hit["url"] for hit in theirs} == set(ours), query
        bound = step * (len(tokens) / 2) + 1e-4
        scores = [ours[hit["url"]] for hit in theirs]
        assert all(abs(hit["score"] - score) <= bound for hit, score in zip(theirs, scores))
        assert all(a >= b - 2 * bound for a, b in pairwise(scores)), query


def test_the_browser_asks_nobody() -> None:
    script = (ROOT / "_static" / "site_search.js").read_text(encoding="utf-8")
    code = re.sub(r"/\*.*?\*/|//.*", "", script, flags=re.DOTALL)
    assert not re.search(r"fetch|XMLHttpRequest|import|require|https?:", code)


BAD = {
    "text: got int": lambda: tokenize(3),
    r"k1: got -1": lambda: BM25Index(k1=-1.0),
    r"b: got 1.5": lambda: BM25Index(b=1.5),
    "idf_method: got 'atire', expected 'lucene', 'robertson' or 'okapi_floor'": lambda: BM25Index(idf_method="atire"),
    "delta: got -1": lambda: BM25Index(delta=-1.0),
    "docs: got none": lambda: BM25Index().fit([]),
    "docs: got str": lambda: BM25Index().fit("a plain text"),
    r"docs\[1\]: got str": lambda: BM25Index().fit([["a"], "a plain text"]),
    "query: got str": lambda: BM25Index().fit([["a"]]).search("a"),
    "queries: got str": lambda: BM25Index().fit([["a"]]).search_batch("a"),
    "k: got 0": lambda: BM25Index().fit([["a"]]).search(["a"], 0),
    "expected fit": lambda: BM25Index().search(["a"]),
    "weights: got no fields": lambda: BM25FIndex({}),
    r"weights\['a'\]: got -1": lambda: BM25FIndex({"a": -1.0}),
    r"fields: got \['b'\]": lambda: BM25FIndex({"a": 1.0}).fit({"b": [["x"]]}),
    "same number": lambda: BM25FIndex({"a": 1.0, "b": 1.0}).fit({"a": [["x"]], "b": [["x"], ["y"]]}),
    "positions: got": lambda: ss.minimum_window([[1], []]),
    "doc_id: got 1 again": lambda: [index := InvertedIndex(), index.add(1, ["a"]), index.add(1, ["b"])],
    "pages: got none": lambda: SiteSearch([]),
    "paths: got 'x.txt'": lambda: SiteSearch.from_chapters([ROOT / "x.txt"], ROOT),
    "doc_freq: got 9": lambda: ss.idf(3, torch.tensor([9])),
    r"weights: got \['x'\]": lambda: ss.rerank([(0, 1.0)], ["a"], {0: []}, {0: []}, {"x": 1.0}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_with_its_name(message: str) -> None:
    with opinfo.as_users_call(), pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        BAD[message]()


def test_empty_documents_and_queries_are_legal() -> None:
    index = BM25Index(b=1.0).fit([[], []])
    assert index.search(["a"]) == index.search([]) == []
    assert index.score_batch([]).shape == (0, 2)
    half = BM25Index(b=1.0).fit([[], ["a"]])
    assert [doc for doc, _ in half.search(["a"])] == [1]
    assert torch.isfinite(half.matrix.to_dense()).all()
    page = Page("x.html", "", "", dict.fromkeys(FIELDS, ""))
    assert SiteSearch([page]).search("x") == []
