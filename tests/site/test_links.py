"""Every link inside the built site leads somewhere: the page exists, and so does the place in it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag

import yaml
from book_site import stored
from visits import ROOT, toc_pages

ATTRIBUTE = re.compile(r"""<(\w+)\b[^>]*?\s(?:href|src)\s*=\s*["']([^"']*)["']""")
ID = re.compile(r"""\sid\s*=\s*["']([^"']+)["']|<a\s[^>]*?\bname=["']([^"']+)["']""")


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _ids(path: Path) -> frozenset[str]:
    return frozenset(first or second for first, second in ID.findall(_text(path)))


def test_every_internal_link_resolves(site: Path):
    dead = []
    for page in site.rglob("*.html"):
        if "_static" in page.relative_to(site).parts:
            continue
        for tag, link in ATTRIBUTE.findall(_text(page)):
            if re.match(r"[a-z+]+:|//", link) or (tag == "a" and link in ("#", "")):
                continue
            place, fragment = urldefrag(link.replace("&amp;", "&"))
            target = page.parent / unquote(place.split("?")[0]) if place else page
            if target.is_dir():
                target = target / "index.html"
            in_page = fragment and target.suffix == ".html"
            if not target.is_file() or (in_page and unquote(fragment) not in _ids(target.resolve())):
                dead.append(f"{page.relative_to(site)}: {link}")
    assert not dead, "\n".join(dead[:40])


def test_every_page_of_the_contents_is_built(site: Path):
    assert not [page for page in toc_pages() if not (site / f"{page}.html").is_file()]


def test_every_notebook_is_in_the_contents():
    notebooks = {p.relative_to(ROOT).with_suffix("").as_posix() for p in (ROOT / "chapters").glob("*/*.ipynb")}
    assert notebooks <= set(toc_pages())


def test_every_notebook_teaches_a_listed_article_and_names_it():
    listed = {a.docname for part in stored.articles(ROOT).values() for a in part}
    chapters = stored.chapters(ROOT)
    assert {p.relative_to(ROOT).with_suffix("").as_posix() for p in (ROOT / "chapters").glob("*/*.ipynb")} <= listed
    for chapter in chapters:
        prose = "".join("".join(c["source"]) for c in chapter.notebook["cells"] if c["cell_type"] == "markdown")
        assert chapter.article.link in prose
        assert chapter.article.chinese in prose


def test_no_page_leads_to_an_address_that_the_book_does_not_have(site: Path):
    url = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    for chapter in stored.chapters(ROOT):
        page = _text(site / f"{chapter.article.docname}.html")
        launches = re.findall(r"https://(?:colab\.research|mybinder)[^\"]*", page)
        assert bool(launches) == bool(url), launches
        assert ("git+https" in page) == bool(url)
        path = f"{chapter.article.docname}.ipynb"
        assert (site / "_sources" / path).read_bytes() == chapter.path.read_bytes()
        assert f'_sources/{path}"' in page
