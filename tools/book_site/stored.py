"""What the site knows about the book: its articles, and what each written chapter stores in its notebook."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import notebooks
import yaml

EVIDENCE = ("proved", "checked", "measured")
VERDICTS = ("reproduced", "holds at small scale", "not resolved", "does not hold", "slip in the source")
THUMBNAIL = "thumbnail"
BLOG = "https://kexue.fm/archives/"


@dataclass(frozen=True)
class Article:
    """One article of Scientific Spaces, as ``chapters/articles.yml`` lists it."""

    part: str
    slug: str
    english: str
    chinese: str
    date: str
    archive: int

    @property
    def docname(self) -> str:
        """The page of the chapter that teaches the article."""
        return f"chapters/{self.part}/{self.slug}"

    @property
    def link(self) -> str:
        """Where the article stands."""
        return f"{BLOG}{self.archive}"


@dataclass(frozen=True)
class Figure:
    """The picture that stands for a chapter: PNG bytes and what they show, in words."""

    png: bytes
    alt: str


@dataclass
class Chapter:
    """A written chapter, read from its notebook once a build."""

    article: Article
    path: Path
    notebook: dict = field(repr=False)

    @cached_property
    def title(self) -> str:
        """The notebook's first heading; it may hold ``$math$``."""
        return _heading(self._opening) or self.article.english

    @cached_property
    def answer(self) -> str:
        """The one-sentence answer: the first paragraph below the title."""
        below = self._opening.split("\n", 1)[1] if "\n" in self._opening else ""
        return first_paragraph(below)

    @cached_property
    def claims(self) -> list[dict]:
        """The claim bundles, in the order of the chapter."""
        return list(notebooks.bundles(self.notebook, notebooks.CLAIM))

    @cached_property
    def steps(self) -> list[dict]:
        """The steps of the calculations, which the ledger counts apart from the claims."""
        return [step for group in notebooks.bundles(self.notebook, notebooks.CALCULATION) for step in group["steps"]]

    @cached_property
    def verdicts(self) -> list[dict]:
        """The verdict bundles, in the order of the chapter."""
        return list(notebooks.bundles(self.notebook, notebooks.VERDICT))

    @cached_property
    def figure(self) -> Figure | None:
        """The picture of the cell tagged ``thumbnail``; without such a cell, the first picture."""
        drawn = [cell for cell in notebooks.code_cells(self.notebook) if figure(cell)]
        tagged = [cell for cell in drawn if THUMBNAIL in cell["metadata"].get("tags", [])]
        chosen = (tagged or drawn)[:1]
        return figure(chosen[0], f"A figure of the chapter {self.title}") if chosen else None

    @cached_property
    def references(self) -> list[str]:
        """The items of the list under the heading *References*, as the notebook writes them."""
        prose = "\n\n".join(notebooks.source(c) for c in self.notebook["cells"] if c["cell_type"] == "markdown")
        section = re.search(r"^##+ +(?:\d+\W+)?References\s*$(.*?)(?=^##? |\Z)", prose, re.M | re.S)
        if not section:
            return []
        items = re.split(r"^(?:[-*]|\d+\.) +", section[1], flags=re.M)[1:]
        return [" ".join(item.split()) for item in items]

    @property
    def module(self) -> str:
        """The module of the library that the chapter explains."""
        return f"kexue_lib.{self.article.part}.{self.article.slug}"

    @property
    def _opening(self) -> str:
        first = next((c for c in self.notebook["cells"] if c["cell_type"] == "markdown"), None)
        return notebooks.source(first).strip() if first else ""


def articles(root: Path) -> dict[str, list[Article]]:
    """Return the articles of the book by part, in reading order.

    Args:
        root: the folder that holds ``chapters``.

    Returns:
        Part to articles; parts in reading order.
    """
    listed = yaml.safe_load((root / "chapters" / "articles.yml").read_text(encoding="utf-8"))
    return {
        part["part"]: [Article(part["part"], **{**entry, "date": str(entry["date"])}) for entry in part["chapters"]]
        for part in listed
    }


def chapters(root: Path) -> list[Chapter]:
    """Return the written chapters in reading order.

    Args:
        root: the folder that holds ``chapters``.

    Returns:
        One entry for each article whose notebook exists.
    """
    listed = [article for part in articles(root).values() for article in part]
    paths = [(article, root / f"{article.docname}.ipynb") for article in listed]
    return [Chapter(article, path, notebooks.read(path)) for article, path in paths if path.is_file()]


def totals(written: list[Chapter]) -> Counter[str]:
    """Count the claims of some chapters by evidence.

    Args:
        written: the chapters to count over.

    Returns:
        ``proved``, ``checked`` and ``measured``, each present even when zero.
    """
    counted = Counter(claim["evidence"] for chapter in written for claim in chapter.claims)
    return Counter({evidence: counted[evidence] for evidence in EVIDENCE})


def badge(claim: dict) -> str:
    """Return the evidence of a claim in words: a proof for one size alone says so.

    Args:
        claim: its bundle.
    """
    return f"{claim['evidence']} for {claim['instance']}" if claim["instance"] else claim["evidence"]


def confirmed(root: Path) -> set[tuple[str, str]]:
    """Return the claims that the second prover proves too, as chapter and label.

    Args:
        root: the folder that holds ``about``.
    """
    path = root / "about" / "confirmed.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {(chapter, label) for chapter, labels in found.items() for label in labels}


def anchor(chapter: str, label: str) -> str:
    """Return the name of a claim's place in its chapter's page.

    Args:
        chapter: the chapter's slug.
        label: the claim's label, ``C1`` and so on.
    """
    return f"claim-{chapter}-{label}"


def first_paragraph(markdown: str) -> str:
    """Return the first paragraph of a Markdown text in one line, without quote marks and outer emphasis.

    Args:
        markdown: CommonMark below a heading.

    Returns:
        The paragraph's source; inner markup is kept. Lists, tables, HTML, comments and directives are passed over.
    """
    for block in re.split(r"\n\s*\n", markdown.strip()):
        line = " ".join(part.lstrip("> ").strip() for part in block.splitlines()).strip()
        if line and not re.match(r"(#|<|!\[|\[!\[|[-*] |\||```|:::|\(.*\)=)", line):
            return re.sub(r"^(\*\*|\*|_)(?!\1)(.*?)\1$", r"\2", line)
    return ""


def plain(markdown: str, limit: int = 200) -> str:
    """Return Markdown as words, for the places that take no markup.

    Args:
        markdown: one line of source.
        limit: characters to keep; the cut falls between words.

    Returns:
        The text without emphasis, links, code quotes and dollar signs.
    """
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    text = re.sub(r"\$([^$]*)\$", lambda m: re.sub(r"\\(?:mathrm|operatorname|text)?|[{}]", "", m[1]), text)
    text = re.sub(r"[*`]|(?<!\w)_|_(?!\w)", "", text)
    return text if len(text) <= limit else text[: limit - 1].rsplit(" ", 1)[0] + "…"


def _heading(markdown: str) -> str:
    match = re.match(r"# +(.+)", markdown)
    return match[1].strip() if match else ""


def figure(cell: dict, description: str = "") -> Figure | None:
    """Return what a cell drew last, with its alternative text.

    Args:
        cell: a code cell.
        description: the text where the cell has none.
    """
    pictures = [o["data"]["image/png"] for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    if not pictures:
        return None
    alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
    return Figure(b64decode("".join(pictures[-1])), alt or description)
