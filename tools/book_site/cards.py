"""Cards that lead into the book: its parts and one claim on the front page, a part's chapters on the part's page."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import notebooks
from docutils import nodes
from sphinx.application import Sphinx

from . import stored
from .bundles import claim_card, evidence_badge, inline, verdict_card
from .pages import BookDirective


class CardDirective(BookDirective):
    """A directive that may show a chapter's figure without a second copy of it in the repository."""

    def image(self, figure: stored.Figure, *classes: str) -> nodes.image:
        """Return a figure as an image node.

        Args:
            figure: bytes and alternative text.
            classes: for the stylesheet.

        Returns:
            The node; its file lies in the build folder, as those that myst-nb writes do.
        """
        folder = Path(self.env.app.outdir).parent / "thumbnails"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{hashlib.sha256(figure.png).hexdigest()[:16]}.png"
        path.write_bytes(figure.png)
        uri = "/" + Path(os.path.relpath(path, self.root)).as_posix()
        return nodes.image(uri=uri, alt=stored.plain(figure.alt, 400), classes=list(classes))


class ClaimWalk(CardDirective):
    """One claim of a chapter on its way from the article to the verdict; the argument is ``part/slug``.

    Four lines name what is shown: ``proof`` the title of a claim, ``code`` and ``run`` a piece of the source of a cell
    (``run`` one that draws), ``verdict`` the title of a verdict.
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the five stations; nothing while the chapter is not written."""
        docname = f"chapters/{self.arguments[0]}"
        chapter = next((c for c in self.written() if c.article.docname == docname), None)
        if chapter is None:
            return []
        named = dict(line.split(": ", 1) for line in self.content)
        claim = self._one(chapter.claims, lambda c: c["title"] == named["proof"], named["proof"])
        verdict = self._one(chapter.verdicts, lambda v: v["title"] == named["verdict"], named["verdict"])
        cells = notebooks.code_cells(chapter.notebook)
        code = self._one(cells, lambda c: named["code"] in notebooks.source(c), named["code"])
        drawn = self._one(
            cells, lambda c: named["run"] in notebooks.source(c) and stored.figure(c) is not None, named["run"]
        )
        words = [*inline(self, verdict["title"]), nodes.Text(": "), *inline(self, verdict["claimed"])]
        source = nodes.literal_block("", notebooks.source(code).strip(), language="python")
        return [
            nodes.container(
                "",
                self._station("The article says", nodes.paragraph("", "", *words)),
                self._station("proved by machine", claim_card(self, claim, self.claim_link(claim))),
                self._station("run as code", source),
                self._station("seen in a run", self.image(stored.figure(drawn))),
                self._station("judged", verdict_card(self, verdict)),
                nodes.paragraph("", "From the chapter ", self.page_link(docname, *inline(self, chapter.title))),
                classes=["walk"],
            )
        ]

    def _one(self, items: Sequence[dict], fits: Callable[[dict], bool], name: str) -> dict:
        found = [item for item in items if fits(item)]
        if len(found) != 1:
            raise self.error(f"{len(found)} places fit {name!r} in {self.arguments[0]}, expected one")
        return found[0]

    @staticmethod
    def _station(name: str, *content: nodes.Node) -> nodes.container:
        title = nodes.paragraph("", name, classes=["walk-name"])
        return nodes.container("", title, *content, classes=["walk-station"])


class PartCards(CardDirective):
    """One card for each part of the book: its title and first sentence come from the part's own page."""

    def run(self) -> list[nodes.Node]:
        """Return the cards in reading order."""
        written = self.written()
        grid = nodes.container(classes=["tiles"])
        for part, listed in stored.articles(self.root).items():
            page = self.root / "chapters" / part / "index.md"
            self.env.note_dependency(str(page))
            text = page.read_text(encoding="utf-8")
            ready = [c for c in written if c.article.part == part]
            card = nodes.container(classes=["tile", "tile-part"])
            title = re.search(r"^# +(.+)$", text, re.M)[1]
            link = self.page_link(f"chapters/{part}/index", *inline(self, title))
            card += nodes.paragraph("", "", link, classes=["tile-title"])
            summary = stored.first_paragraph(text.split(title, 1)[1])
            card += nodes.paragraph("", "", *inline(self, summary), classes=["tile-text"])
            state = f"{len(ready)} of {len(listed)} chapters" if ready else f"{len(listed)} chapters planned"
            card += nodes.paragraph("", state, classes=["tile-foot"])
            grid += card
        return [grid]


class ChapterCards(CardDirective):
    """One card for each chapter of the part whose page this is: figure, title, one-sentence answer, claims."""

    def run(self) -> list[nodes.Node]:
        """Return the written chapters as cards, the planned ones as a list below them."""
        part = Path(self.env.docname).parent.name
        written = {c.article: c for c in self.written() if c.article.part == part}
        grid, planned = nodes.container(classes=["tiles"]), nodes.bullet_list(bullet="-", classes=["planned"])
        for article in stored.articles(self.root)[part]:
            if article in written:
                grid += self._card(written[article])
            else:
                original = nodes.reference("", "", refuri=article.link)
                original += nodes.inline("", article.chinese, classes=["chinese"])
                entry = nodes.paragraph("", f"{article.english} (")
                entry += [original, nodes.Text(f", {article.date})")]
                planned += nodes.list_item("", entry)
        found: list[nodes.Node] = [grid] if grid.children else []
        if planned.children:
            found += [nodes.paragraph("", "Planned:", classes=["planned-head"]), planned]
        return found

    def _card(self, chapter: stored.Chapter) -> nodes.container:
        card = nodes.container(classes=["tile", "tile-chapter"])
        if chapter.figure:
            card += self.image(chapter.figure, "tile-image")
        title = self.page_link(chapter.article.docname, *inline(self, chapter.title))
        card += nodes.paragraph("", "", title, classes=["tile-title"])
        card += nodes.paragraph("", "", *inline(self, chapter.answer), classes=["tile-text"])
        foot = nodes.paragraph(classes=["tile-foot"])
        for evidence, count in stored.totals([chapter]).items():
            badge = evidence_badge({"evidence": evidence, "instance": ""})
            badge.insert(0, nodes.Text(f"{count} "))
            foot += [badge, nodes.Text(" ")]
        card += foot
        return card


def setup(app: Sphinx) -> None:
    """Register the directives.

    ``{part-cards}`` and ``{chapter-cards}`` take no arguments, ``{claim-walk} part/slug`` one and four lines.
    """
    app.add_directive("claim-walk", ClaimWalk)
    app.add_directive("part-cards", PartCards)
    app.add_directive("chapter-cards", ChapterCards)
