"""A reader finds a chapter by its words."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from book_site import stored
from visits import DESK, ROOT, Visitor

CHAPTERS = stored.chapters(ROOT)


@pytest.mark.browser
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.article.slug)
def test_search_finds_the_chapter_by_its_title(visitor: Visitor, chapter: stored.Chapter):
    words = [w for w in stored.plain(chapter.title).replace(":", "").split() if w.isalpha()]
    with visitor.open("search", DESK, f"q={quote(' '.join(words))}") as (tab, visit):
        tab.wait_for_selector("#search-results ul.search li a")
        tab.wait_for_load_state("networkidle")
        found = tab.eval_on_selector_all("#search-results ul.search li > a", "links => links.map(l => l.href)")
    assert any(chapter.article.docname in link for link in found), found
    assert not visit.console


def test_index_holds_the_words_of_the_claims(site: Path):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    for chapter in CHAPTERS:
        assert f'"{chapter.article.docname}"' in index
