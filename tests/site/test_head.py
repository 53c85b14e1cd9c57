"""What surrounds the text: tags for those who share a link, local mathematics, the reference."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
import yaml
from book_site import reference, stored
from visits import ROOT, toc_pages


def test_building_runs_no_notebook():
    """Seconds, not minutes: the pages show stored outputs."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert config["execute"]["execute_notebooks"] == "off"


@pytest.mark.parametrize("page", toc_pages())
def test_open_graph_tags(site: Path, page: str):
    text = (site / f"{page}.html").read_text(encoding="utf-8")
    tags = dict(re.findall(r'<meta property="(og:\w+)" content="([^"]*)"', text))
    url = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    assert tags["og:title"]
    assert len(tags["og:description"]) > 20
    assert "$" not in tags["og:description"]
    if url:  # a page and a picture have addresses only where the book has one
        base = "https://{}.github.io/{}/".format(*url.split("/")[-2:])
        assert tags["og:url"] == f"{base}{page}.html"
        assert tags["og:image"].startswith(base)
        assert (site / tags["og:image"].removeprefix(base)).is_file()
    else:
        assert not {"og:url", "og:image"} & set(tags)
    assert f'<meta name="description" content="{tags["og:description"]}"' in text


def test_chapter_is_described_by_its_answer(site: Path):
    for chapter in stored.chapters(ROOT):
        text = html.unescape((site / f"{chapter.article.docname}.html").read_text(encoding="utf-8"))
        assert stored.plain(chapter.answer)[:60] in text


def test_mathematics_comes_from_the_site_itself(site: Path):
    for chapter in stored.chapters(ROOT):
        text = (site / f"{chapter.article.docname}.html").read_text(encoding="utf-8")
        scripts = re.findall(r'<script[^>]*src="([^"]+)"', text)
        assert [s.split("?")[0] for s in scripts if "mathjax" in s] == ["../../_static/mathjax/tex-chtml.js"]
        assert not [s for s in scripts if "//" in s]
    assert (site / "_static/mathjax/LICENSE").is_file()
    assert (site / "_static/mathjax/output/chtml/fonts/woff-v2/MathJax_Main-Regular.woff").is_file()


def test_reference_shows_every_public_module(site: Path):
    packages = [path.name for path in (ROOT / "chapters").iterdir() if (ROOT / "kexue_lib" / path.name).is_dir()]
    shown = "".join(p.read_text(encoding="utf-8") for p in (site / "api").glob("*.html"))
    for package in [".", *sorted(packages)]:
        for module in reference.modules(ROOT, package):
            assert f'id="module-{module}"' in shown, f"{module} is on no page of api/"


def test_chapter_and_reference_link_to_each_other(site: Path):
    for chapter in stored.chapters(ROOT):
        if not reference.module_file(ROOT, chapter.module):
            continue
        part = chapter.article.part
        page = (site / f"{chapter.article.docname}.html").read_text(encoding="utf-8")
        assert f"../../api/{part}.html#module-{chapter.module}" in page
        assert f"../{chapter.article.docname}.html" in (site / f"api/{part}.html").read_text(encoding="utf-8")


def test_signatures_show_shapes(site: Path):
    text = re.sub(r"<[^>]+>", "", (site / "api/distributions.html").read_text(encoding="utf-8"))
    assert re.search(r"Float\[Tensor, (?:'|&#39;|\")\*batch", text)
    assert "jaxtyping.Float" not in text
    assert "<class" not in text
