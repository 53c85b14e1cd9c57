"""The search of the site: the book's own index for its results page, and words for the one that Sphinx writes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

from . import reference, stored

if TYPE_CHECKING:
    from kexue_lib.interludes.site_search import Page, SiteSearch

CHINESE = re.compile(r"[\u4e00-\u9fff]+")
LONGEST = 6  # characters of a Chinese word that is searched for
INDEX = "site_search_index.js"  # beside search.html; a script, as a page opened from a disk may not fetch
LABEL = re.compile(r"^\*\*[^*]+\.\*\* *")  # "The idea in one sentence."


class SearchBook(SearchEnglish):
    """English, with each run of Chinese characters entered under all its parts: Chinese has no blanks between words.

    No page asks Sphinx's index; it is what ``kexue_lib.checkpoints.interludes.site_search`` compares ours with.
    """

    def split(self, input: str) -> list[str]:
        """Return the words of a text.

        Args:
            input: the text.

        >>> SearchBook({}).split("稀疏程度 9595")
        ['稀疏程度', '9595', '稀疏', '疏程', '程度', '稀疏程', '疏程度', '稀疏程度']
        """
        words = super().split(input)
        for run in CHINESE.findall(input):
            lengths = range(2, min(LONGEST, len(run)) + 1)
            words += [run[start : start + n] for n in lengths for start in range(len(run) - n + 1)]
        return words


def book_search(root: Path, docnames: list[str]) -> SiteSearch:
    """Return the search over pages of the book.

    Beside what ``SiteSearch`` reads in a page's source, a page of the reference is found by the names and first lines
    that its directive fills in, and the list of articles by their titles.

    Args:
        root: the folder of the book.
        docnames: pages, from the book's root.
    """
    from kexue_lib.interludes.site_search import SiteSearch  # imports PyTorch, which nothing else here needs

    chapters = {chapter.article.docname: chapter for chapter in stored.chapters(root)}
    pages = []
    for name in docnames:
        source = root / f"{name}.ipynb" if name in chapters else root / f"{name}.md"
        (page,) = SiteSearch.from_chapters([source], root).pages
        pages.append(_completed(page, root, source, chapters.get(name)))
    return SiteSearch(pages)


def _completed(page: Page, root: Path, source: Path, chapter: stored.Chapter | None) -> Page:
    """A page with title and summary to be read in a list, and with the words that its directives fill in."""
    if chapter:
        answer = LABEL.sub("", chapter.answer)
        return replace(page, title=shown(chapter.title), summary=f"{shown(answer)} ({chapter.article.chinese})")
    name, fields = page.url.removesuffix(".html"), dict(page.fields)
    if name.startswith("api/") and name != "api/index":
        package = "." if name == "api/shared" else name.removeprefix("api/")
        listed = [entry for module in reference.modules(root, package) for entry in reference.members(module)]
        fields["names"] += "\n".join(["", *(member for member, *_ in listed)])
        fields["prose"] += "\n".join(["", *(line for _, line, _ in listed)])
    elif name == "about/articles":
        articles = [article for part in stored.articles(root).values() for article in part]
        fields["prose"] += "\n".join(["", *(f"{article.english} {article.chinese}" for article in articles)])
    text = source.read_text(encoding="utf-8")
    return replace(page, summary=shown(stored.first_paragraph(text)), fields=fields)


def shown(markdown: str, limit: int = 320) -> str:
    r"""Return a paragraph as words and ``$math$``, for MathJax in the list of results.

    Args:
        markdown: one line of source.
        limit: characters to keep; the cut falls between words and never inside of a formula.

    >>> shown("A *sum* of `f` is $x + y$, see [there](a.md).", 24)
    'A sum of f is $x + y$,…'
    """
    text = "".join(p if p[:1] == "$" else stored.plain(p, len(p)) for p in re.split(r"(\$[^$]+\$)", markdown))
    kept = ""
    for word in re.findall(r"(?:\$[^$]+\$|\S)+", text):
        if len(kept) + len(word) > limit:
            return f"{kept}…"
        kept += f" {word}" if kept else word
    return kept


def write_index(app: Sphinx, error: Exception | None) -> None:
    """Write the index that ``_templates/search.html`` loads: a script that sets one name.

    Args:
        app: Sphinx.
        error: what ended the build, if anything did.
    """
    if error is not None or app.builder.name != "html":
        return
    path = Path(app.outdir) / INDEX
    book_search(Path(app.srcdir), sorted(app.env.found_docs)).to_json(path)
    path.write_text(f"const kexueSearchIndex = {path.read_text(encoding='utf-8')};\n", encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Take the place of Sphinx's English, and write the book's own index when all pages are built."""
    app.add_search_language(SearchBook)
    app.connect("build-finished", write_index)
