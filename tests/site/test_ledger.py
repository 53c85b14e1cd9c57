"""The pages that are computed agree with the notebooks they are computed from."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from pathlib import Path

from book_site import stored
from visits import ROOT


def _bundles(kind: str) -> dict[str, list[dict]]:
    """Read the notebooks anew, without the book's own reader."""
    found = {}
    for path in sorted((ROOT / "chapters").glob("*/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        data = [o.get("data", {}) for c in cells for o in c.get("outputs", [])]
        found[path.stem] = [
            d[f"application/vnd.kexue.{kind}+json"] for d in data if f"application/vnd.kexue.{kind}+json" in d
        ]
    return found


def _words(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_totals_are_those_of_the_notebooks(site: Path):
    counted = Counter(claim["evidence"] for claims in _bundles("claim").values() for claim in claims)
    for page in ("intro.html", "about/ledger.html"):
        text = (site / page).read_text(encoding="utf-8")
        tiles = re.findall(r'total-count">(\d+)</span>\s*<span class="total-name">(\w+)', text)
        assert {name: int(count) for count, name in tiles} == {e: counted[e] for e in stored.EVIDENCE}, page


def test_front_page_walks_one_claim_from_the_article_to_the_verdict(site: Path):
    page = (site / "intro.html").read_text(encoding="utf-8")
    walk = page[page.index('class="walk ') :]
    walk = walk[: walk.index("From the chapter")]
    assert len(re.findall(r'class="walk-name"', walk)) == 5
    assert "<img" in walk
    assert "highlight" in walk
    words, claims, verdicts = _words(walk), _bundles("claim")["squareplus"], _bundles("verdict")["squareplus"]
    assert [c["evidence"] for c in claims if c["title"] in words] == ["proved"]
    [verdict] = [v for v in verdicts if v["title"] in words]
    assert all(verdict[key] in words for key in ("claimed", "obtained", "verdict"))


def test_ledger_lists_each_claim_once_and_links_to_its_place(site: Path):
    ledger = (site / "about/ledger.html").read_text(encoding="utf-8")
    links = re.findall(r'href="\.\./chapters/\w+/(\w+)\.html#claim-(\w+?)-(\w+)"', ledger)
    assert sorted((slug, label) for slug, _, label in links) == sorted(
        (slug, claim["label"]) for slug, claims in _bundles("claim").items() for claim in claims
    )
    assert all(slug == chapter for slug, chapter, _ in links)


def test_each_claim_is_a_card_with_its_evidence_in_words(site: Path):
    for path in (ROOT / "chapters").glob("*/*.ipynb"):
        page = (site / path.relative_to(ROOT).with_suffix(".html")).read_text(encoding="utf-8")
        for claim in _bundles("claim")[path.stem]:
            card = page.split(f'id="{stored.anchor(claim["chapter"], claim["label"])}"', 1)
            assert len(card) == 2, f"{path.stem} shows no {claim['label']}"
            words = f"{claim['evidence']} for {claim['instance']}" if claim["instance"] else claim["evidence"]
            assert f'badge-{claim["evidence"]}">{html.escape(words)}<' in card[1][:3000]


def test_verdicts_are_all_shown(site: Path):
    page = _words((site / "about/verdicts.html").read_text(encoding="utf-8"))
    for slug, verdicts in _bundles("verdict").items():
        shown = site / next((ROOT / "chapters").glob(f"*/{slug}.ipynb")).relative_to(ROOT).with_suffix(".html")
        chapter = _words(shown.read_text(encoding="utf-8"))
        for verdict in verdicts:
            assert verdict["verdict"] in stored.VERDICTS
            plain = re.split(r"[$`*]", verdict["title"])[0].strip()
            assert _straight(plain) in _straight(page)
            assert _straight(plain) in _straight(chapter)


def _straight(text: str) -> str:
    """Quotation marks as typed; the site sets them curved."""
    return text.translate(str.maketrans("’‘“”", "''\"\""))


def test_articles_are_all_listed_with_their_state(site: Path):
    page = (site / "about/articles.html").read_text(encoding="utf-8")
    listed = [a for part in stored.articles(ROOT).values() for a in part]
    assert len({a.slug for a in listed}) == len(listed)
    for article in listed:
        assert article.link in page
        assert article.chinese in page
    written = {path.stem for path in (ROOT / "chapters").glob("*/*.ipynb")}
    assert written <= {a.slug for a in listed}
    assert page.count(">planned<") == len(listed) - len(written)


def test_papers_gather_the_references_of_the_chapters(site: Path):
    words = _words((site / "about/articles.html").read_text(encoding="utf-8"))
    for chapter in stored.chapters(ROOT):
        assert chapter.references, f"{chapter.article.slug} has no list under a heading References"
        for reference in chapter.references:
            for number in re.findall(r"\d{4}\.\d{4,5}", reference):
                assert number in words


def test_part_pages_show_their_chapters(site: Path):
    for chapter in stored.chapters(ROOT):
        page = (site / f"chapters/{chapter.article.part}/index.html").read_text(encoding="utf-8")
        assert f'href="{chapter.article.slug}.html"' in page
        assert chapter.figure is not None, f"{chapter.article.slug} has no figure"
        assert "tile-image" in page
        assert chapter.answer, f"{chapter.article.slug} has no one-sentence answer below its title"
