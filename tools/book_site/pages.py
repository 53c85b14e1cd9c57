"""The pages that the book writes about itself: ledger, verdicts, articles, papers. Each is one directive."""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from . import stored
from .bundles import evidence_badge, inline, verdict_card

LOGGER = logging.getLogger(__name__)


class BookDirective(SphinxDirective):
    """A directive that reads the stored notebooks, and is read again when one of them changes."""

    has_content = False
    option_spec = {"class": directives.class_option}  # noqa: RUF012

    @property
    def root(self) -> Path:
        """The folder of the book."""
        return Path(self.env.srcdir)

    def written(self) -> list[stored.Chapter]:
        """Return the written chapters; the page now depends on them and on the list of articles."""
        self.env.note_dependency(str(self.root / "chapters" / "articles.yml"))
        found = stored.chapters(self.root)
        for chapter in found:
            self.env.note_dependency(str(chapter.path))
        _book_pages(self.env).add(self.env.docname)
        return found

    def page_link(self, docname: str, *content: nodes.Node) -> nodes.Node:
        """Return a link to a page of the book.

        Args:
            docname: the page, from the book's root.
            content: what is shown.
        """
        # Sphinx's own reference to a page would turn the mathematics of a title into plain letters.
        if docname not in self.env.found_docs:
            LOGGER.warning("no such page: %s", docname, location=self.get_location())
        link = nodes.reference(
            "", "", internal=True, refuri=self.env.app.builder.get_relative_uri(self.env.docname, docname)
        )
        link += nodes.inline("", "", *content, classes=["doc"])
        return link

    def claim_link(self, claim: dict) -> nodes.Node:
        """Return a link to the place of a claim in its chapter.

        Args:
            claim: its bundle.
        """
        target = stored.anchor(claim["chapter"], claim["label"]).lower()
        shown = nodes.inline("", claim["label"], classes=["std", "std-ref"])
        link = addnodes.pending_xref(
            "", shown, refdomain="std", reftype="ref", reftarget=target, refexplicit=True, refwarn=True
        )
        link["refdoc"] = self.env.docname
        return link

    def section(self, title: list[nodes.Node], name: str) -> nodes.section:
        """Return an empty section that appears in the page's table of contents.

        Args:
            title: the heading's nodes.
            name: the id to link to.
        """
        heading = nodes.section(ids=[name], names=[name])
        heading += nodes.title("", "", *title)
        self.state.document.note_implicit_target(heading, heading)
        return heading


class Totals(BookDirective):
    """The ledger in three numbers."""

    def run(self) -> list[nodes.Node]:
        """Return one tile for each kind of evidence, and a sentence on how many chapters stand."""
        written = self.written()
        listed = sum(len(part) for part in stored.articles(self.root).values())
        tiles = nodes.container(classes=["totals"])
        for evidence, count in stored.totals(written).items():
            tile = nodes.paragraph(classes=["total", f"total-{evidence}"])
            tile += [nodes.inline("", str(count), classes=["total-count"]), nodes.Text(" ")]
            tile += nodes.inline("", evidence, classes=["total-name"])
            tiles += tile
        sentence = nodes.paragraph(classes=["totals-note"])
        sentence += nodes.Text(f"{len(written)} of {listed} chapters are written. ")
        sentence += self.page_link("about/ledger", nodes.Text("The ledger"))
        sentence += nodes.Text(" lists every claim with its evidence; ")
        sentence += self.page_link("about/verdicts", nodes.Text("the verdicts"))
        sentence += nodes.Text(" set the articles’ numbers against ours.")
        return [tiles, sentence]


class Ledger(BookDirective):
    """Every claim of every chapter, with its evidence and a link to its place."""

    def run(self) -> list[nodes.Node]:
        """Return one section for each written chapter."""
        sections, confirmed = [], stored.confirmed(self.root)
        for chapter in self.written():
            section = self.section(inline(self, chapter.title), f"ledger-{chapter.article.slug.replace('_', '-')}")
            counts = ", ".join(f"{count} {evidence}" for evidence, count in stored.totals([chapter]).items())
            instances = sum(bool(claim["instance"]) for claim in chapter.claims)
            twice = sum((claim["chapter"], claim["label"]) in confirmed for claim in chapter.claims)
            more = [f"{instances} for one size"] * bool(instances) + [f"{twice} by two provers"] * bool(twice)
            more += [f"beside {len(chapter.steps)} steps of calculations"] * bool(chapter.steps)
            line = nodes.paragraph("", f"{len(chapter.claims)} claims: {', '.join([counts, *more])}. ")
            line += self.page_link(chapter.article.docname, nodes.Text("Read the chapter"))
            section += line
            rows = [
                [
                    [self.claim_link(claim)],
                    inline(self, claim["title"]),
                    [evidence_badge(claim), *self.twice(claim, confirmed)],
                    inline(self, claim["scope"]),
                ]
                for claim in chapter.claims
            ]
            section += table(["Claim", "What it says", "Evidence", "Scope"], rows)
            sections.append(section)
        return sections or [nodes.paragraph("", "No chapter is written yet.")]

    def twice(self, claim: dict, confirmed: set[tuple[str, str]]) -> list[nodes.Node]:
        """Return the mark of a claim that a second prover, which shares nothing with SymPy, proves too."""
        found = (claim["chapter"], claim["label"]) in confirmed
        return [nodes.Text(" "), nodes.inline("", "2×", classes=["badge-evidence", "badge-proved"])] if found else []


class Verdicts(BookDirective):
    """Every published number or claim that a chapter tested, beside what our run gave."""

    def run(self) -> list[nodes.Node]:
        """Return one section for each chapter that has verdicts."""
        sections = []
        for chapter in self.written():
            if not chapter.verdicts:
                continue
            section = self.section(inline(self, chapter.title), f"verdicts-{chapter.article.slug.replace('_', '-')}")
            line = nodes.paragraph("", "Chapter: ")
            line += self.page_link(chapter.article.docname, *inline(self, chapter.title))
            line += [
                nodes.Text(". Article: "),
                nodes.reference("", chapter.article.chinese, refuri=chapter.article.link),
            ]
            section += line
            section += [verdict_card(self, verdict) for verdict in chapter.verdicts]
            sections.append(section)
        return sections or [nodes.paragraph("", "No chapter has set its article against a run yet.")]


class Articles(BookDirective):
    """The articles that the book teaches, by part, and which of them have their chapter."""

    def run(self) -> list[nodes.Node]:
        """Return one section for each part."""
        written = {chapter.article: chapter for chapter in self.written()}
        sections = []
        for part, listed in stored.articles(self.root).items():
            section = self.section([nodes.Text(part.capitalize())], f"articles-{part}")
            rows = []
            for article in listed:
                chapter = written.get(article)
                state = [self.page_link(article.docname, nodes.Text("written"))] if chapter else [nodes.Text("planned")]
                original = nodes.reference("", "", refuri=article.link)
                original += nodes.inline("", article.chinese, lang="zh", classes=["chinese"])
                title = [nodes.Text(article.english), nodes.Text(" ("), original, nodes.Text(")")]
                rows.append([title, [nodes.inline("", article.date, classes=["nobreak"])], state])
            section += table(["Article", "Published", "Chapter"], rows)
            sections.append(section)
        return sections


class Papers(BookDirective):
    """The references of the written chapters, gathered: each once, with the chapters that cite it."""

    def run(self) -> list[nodes.Node]:
        """Return a list in the order of the alphabet."""
        citing: dict[str, list[stored.Chapter]] = {}
        shown: dict[str, str] = {}
        for chapter in self.written():
            for reference in chapter.references:
                key = _paper_key(reference)
                shown.setdefault(key, reference)
                citing.setdefault(key, []).append(chapter)
        papers = nodes.bullet_list(bullet="-", classes=["papers"])
        for key in sorted(shown, key=lambda k: stored.plain(shown[k]).casefold()):
            entry = nodes.paragraph("", "", *inline(self, shown[key]))
            entry += nodes.Text(" Cited in: ")
            for number, chapter in enumerate(citing[key]):
                entry += nodes.Text(", " if number else "")
                entry += self.page_link(chapter.article.docname, *inline(self, chapter.title))
            entry += nodes.Text(".")
            papers += nodes.list_item("", entry)
        return [papers] if shown else [nodes.paragraph("", "No chapter cites a paper yet.")]


def table(columns: list[str], rows: list[list[list[nodes.Node]]]) -> nodes.container:
    """Return a table in a box of its own, which scrolls where the page is narrow.

    Args:
        columns: headings.
        rows: cells, each a list of inline nodes.

    Returns:
        The box; its columns are as wide as their content asks.
    """
    group = nodes.tgroup(cols=len(columns))
    group += [nodes.colspec(colwidth=1) for _ in columns]
    head, body = nodes.thead(), nodes.tbody()
    head += _row([[nodes.Text(column)] for column in columns])
    body += [_row(row) for row in rows]
    group += [head, body]
    return nodes.container(
        "", nodes.table("", group, classes=["book-table", "colwidths-auto"]), classes=["table-scroll"]
    )


def pages_to_read_again(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Return the pages about the book when a notebook or a module came or went: no page depends on what is not there.

    Args:
        app: Sphinx.
        env: its memory between builds.
        added: pages that are there for the first time.
        changed: pages whose sources changed.
        removed: pages that are gone.
    """
    root = Path(app.srcdir)
    listing = sorted(
        str(path) for pattern in ("chapters/*/*.ipynb", "kexue_lib/**/*.py") for path in root.glob(pattern)
    )
    known, env.book_listing = getattr(env, "book_listing", None), listing
    return [] if listing == known else sorted(_book_pages(env) & env.found_docs)


def _book_pages(env: BuildEnvironment) -> set[str]:
    """The pages that use a directive of this module, remembered between builds."""
    if not hasattr(env, "book_pages"):
        env.book_pages = set()
    return env.book_pages


def _row(cells: list[list[nodes.Node]]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def _paper_key(reference: str) -> str:
    """One paper is cited with different words; its arXiv number or, failing that, its title tells it apart."""
    number = re.search(r"\b(\d{4}\.\d{4,5})\b", reference)
    title = re.search(r"\*([^*]+)\*", reference)
    return (number or title or re.match(r"(.*)", reference))[1].casefold()


def setup(app: Sphinx) -> None:
    """Register the directives.

    ``{ledger-totals}``, ``{ledger}``, ``{verdicts}``, ``{articles}`` and ``{papers}`` take no arguments.
    Each reads the notebooks that are stored beside the book.
    """
    for name, directive in {
        "ledger-totals": Totals,
        "ledger": Ledger,
        "verdicts": Verdicts,
        "articles": Articles,
        "papers": Papers,
    }.items():
        app.add_directive(name, directive)
    app.connect("env-get-outdated", pages_to_read_again)
