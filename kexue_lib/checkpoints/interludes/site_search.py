"""Thirty queries with known pages, by Sphinx's own search and by ours; and known-item search in Python's docstrings.

Run by ``python -m kexue_lib.checkpoints.interludes.site_search <folder>`` with the folder of a built book (its
``_build/html`` and the notebooks it was built from). Node.js runs the ``searchtools.js`` that Sphinx put there. The
queries were written down before any of them was asked."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from kexue_lib.checkpoints import save
from kexue_lib.checkpoints.interludes.docstrings import compare_methods, sweep_fields, sweep_parameters
from kexue_lib.interludes.site_search import BM25Index, SiteSearch, tokenize

__all__ = ["QUERIES", "main", "sphinx_results"]

QUERIES = {
    "English": {
        "share input and output embeddings": "attention/tied_embedding",
        "smaller key value cache": "attention/mla",
        "update with the sign of the momentum": "optimization/lion",
        "how sparse is my data": "distributions/sparsity",
        "different learning rates for the two factors": "matrices/lora_plus",
        "smooth approximation of relu": "distributions/squareplus",
        "clip relative positions beyond a window": "positions/rerope",
        "rank of the causal attention matrix": "attention/decoder_only",
        "power law between loss and model size": "optimization/scaling_law",
        "initialize adapters from the gradient of the weights": "matrices/lora_ga",
    },
    "Chinese": {
        "度量稀疏": "distributions/sparsity",
        "低秩适应 学习率": "matrices/lora_plus",
        "旋转位置编码的底数": "positions/rope_base_bound",
        "注意力 缓存压缩": "attention/mla",
        "梯度流": "optimization/gradient_flow",
        "共享词向量": "attention/tied_embedding",
        "傅里叶级数 概率密度": "distributions/fourier_density",
        "朴素贝叶斯 长文本": "attention/nbce",
        "随机梯度下降 收敛": "optimization/sgd_convergence",
        "并行计算 非线性循环网络": "recurrence/parallel_rnn",
    },
    "names and formulas": {
        "linear_scan": "recurrence/lru",
        "kv_cache_bytes": "attention/mla",
        "sample_k_subset": "distributions/smooth_topk",
        "hoyer": "distributions/sparsity",
        "MonarchLinear": "matrices/monarch",
        r"x + \sqrt{x^2 + b}": "distributions/squareplus",
        "N = ab + c": "interludes/abc_decomposition",
        r"\operatorname{sign}(\beta_1 m + (1 - \beta_1) g)": "optimization/lion",
        r"e^{x_i} / \sum_j e^{x_j}": "distributions/softmax_alternatives",
        r"bilinear (I - \Delta A / 2)^{-1}": "recurrence/hippo_discretization",
    },
}

_HAN = re.compile("[\u4e00-\u9fff]+")

# What searchtools.js asks of a page: enough of a document for it to load and to remove what it finds.
_BROWSER = """
const fs = require("fs"), vm = require("vm"), [html, queries] = [process.argv[1], JSON.parse(process.argv[2])];
const nothing = { firstChild: null, addEventListener() {} };
const page = { documentElement: { dataset: { content_root: "./" } }, readyState: "loading",
  addEventListener() {}, getElementById: () => nothing, querySelectorAll: () => [] };
const context = vm.createContext({ document: page, window: { location: { search: "" } }, console,
  SPHINX_HIGHLIGHT_ENABLED: false, _ready() {}, _: (text) => text });
const load = (name) => vm.runInContext(fs.readFileSync(`${html}/${name}`, "utf8"), context);
load("_static/language_data.js"); load("_static/searchtools.js"); load("searchindex.js");
context.queries = queries;
const found = vm.runInContext(
  "queries.map((q) => { const parsed = Search._parseQuery(q); return Search._performSearch(...parsed).reverse(); })",
  context);
console.log(JSON.stringify(found.map((results) => results.map((result) => result[0]))));
"""


def sphinx_results(html: Path, queries: list[str]) -> list[list[str]]:
    """Return the pages that Sphinx's search shows for each query, the best first, each page once.

    Args:
        html: a built site.
        queries: as a reader types them.
    """
    command = [shutil.which("node") or "node", "-e", _BROWSER, str(html), json.dumps(queries)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [list(dict.fromkeys(pages)) for pages in json.loads(done.stdout)]


def compare_searches(book: Path) -> dict[str, object]:
    """Ask both searches all queries, over the same chapters and overviews; Sphinx also over its whole site.

    The control "one field" is BM25 on all the text of our fields, each word counting alike; "no pairs" takes a run
    of Chinese characters as one word, "single characters" takes each as one, "presence" is k1 = 0. "title and summary"
    holds a page's title and first paragraph only.

    Args:
        book: a folder with ``chapters/`` and ``_build/html``.

    Returns:
        ``pages`` searched; for each kind of query the rows (query, page wanted, what each search found first).
    """
    html = book / "_build" / "html"
    built = [path for path in (book / "chapters").glob("*/*.*") if path.suffix in (".ipynb", ".md")]
    built = [path for path in built if (html / path.relative_to(book).with_suffix(".html")).exists()]
    ours = SiteSearch.from_chapters(built, book)
    texts = ["\n".join(page.fields.values()) for page in ours.pages]
    short = [f"{page.title}\n{page.summary}" for page in ours.pages]
    controls = {
        "one field": (tokenize, texts, 1.2),
        "one field, presence": (tokenize, texts, 0.0),
        "one field, single characters": (partial(tokenize, bigrams=False), texts, 1.2),
        "one field, no pairs": (_whole_runs, texts, 1.2),
        "title and summary": (tokenize, short, 1.2),
    }
    indices = {name: BM25Index(k1).fit(list(map(split, of))) for name, (split, of, k1) in controls.items()}
    url = lambda page: ours.pages[page].url.removesuffix(".html")
    asked = [query for wanted in QUERIES.values() for query in wanted]
    theirs = dict(zip(asked, sphinx_results(html, asked)))
    content: dict[str, Any] = {"pages": len(ours.pages), "kinds": {}}
    for kind, wanted in QUERIES.items():
        rows = content["kinds"][kind] = []
        for query, target in wanted.items():
            lists = {
                "sphinx, whole site": theirs[query],
                "sphinx, chapters": [page for page in theirs[query] if page.startswith("chapters/")],
                "ours": [hit.url.removesuffix(".html") for hit in ours.search(query, 10)],
                "ours, reranked": [hit.url.removesuffix(".html") for hit in ours.search(query, 10, coarse=20)],
            }
            for name, (split, *_) in controls.items():
                lists[name] = [url(page) for page, _ in indices[name].search(split(query))]
            ranks = {name: _rank(pages, f"chapters/{target}") for name, pages in lists.items()}
            rows.append({"query": query, "wanted": target, "rank": ranks})
    return content


def _whole_runs(text: str) -> list[str]:
    return [*tokenize(_HAN.sub(" ", text)), *_HAN.findall(text)]


def compare_parts(book: Path) -> dict[str, object]:
    """Return, for each chapter, how many of its three related chapters belong to its part, and the share by chance.

    Args:
        book: a folder with ``chapters/`` and ``_build/html``.
    """
    html = book / "_build" / "html"
    files = sorted((book / "chapters").glob("*/*.ipynb"))
    site = SiteSearch.from_chapters(
        [f for f in files if (html / f.relative_to(book).with_suffix(".html")).exists()], book
    )
    parts = [page.url.split("/")[1] for page in site.pages]
    same = [sum(hit.url.split("/")[1] == part for hit in site.related(number, 3)) for number, part in enumerate(parts)]
    chance = [(parts.count(part) - 1) / (len(parts) - 1) for part in parts]
    return {"same part among 3": same, "share by chance": chance}


def _rank(pages: list[str], target: str) -> int | None:
    return pages.index(target) + 1 if target in pages[:10] else None


def main() -> None:
    """Run all comparisons and store them.

    The one argument is a folder with ``chapters/`` and ``_build/html``; about two minutes on one thread.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("book", type=Path, help="folder with chapters/ and _build/html")
    book = parser.parse_args().book
    content = {
        "book": compare_searches(book),
        "related": compare_parts(book),
        "docstrings": compare_methods(),
        "sweep": sweep_parameters(),
        "fields": sweep_fields(),
    }
    save(
        "interludes/site_search",
        content,
        made_with={"queries": "written down before the first run", "seed": 0, "steps": 0},
    )


if __name__ == "__main__":
    main()
