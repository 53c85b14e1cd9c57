"""Keep pages light: cut the theme's stylesheets down to the rules that some page of the book can use."""

from __future__ import annotations

import re
from pathlib import Path

import tinycss2
from sphinx.application import Sphinx

# The theme brings all of Bootstrap; of its 400 kB of rules the book uses a quarter.
HEAVY = ("styles/bootstrap.css", "styles/pydata-sphinx-theme.css", "sphinx-design.min.css", "mystnb.*.css")
WORD = re.compile(r"[A-Za-z_][\w-]*")
CLASS = re.compile(r"\.((?:\\.|[\w-])+)")


def used_words(folder: Path) -> set[str]:
    """Return every word that could be a class: those of the pages, and those that scripts may add to them.

    Args:
        folder: the built site.
    """
    words: set[str] = set()
    for path in [*folder.rglob("*.html"), *(folder / "_static").rglob("*.js")]:
        if "mathjax" not in path.parts:
            words.update(WORD.findall(path.read_text(encoding="utf-8")))
    return words


def trimmed(css: str, words: set[str]) -> str:
    """Return a stylesheet without the rules that no page can match.

    Args:
        css: the stylesheet.
        words: the classes that occur.

    Returns:
        The same rules in the same order; selectors that need an absent class are left out, rules without selectors too.
    """
    return _rules(tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True), words)


def _rules(rules: list, words: set[str]) -> str:
    kept = []
    for rule in rules:
        if rule.type == "qualified-rule":
            selectors = [s for s in _selectors(tinycss2.serialize(rule.prelude)) if _possible(s, words)]
            if selectors:
                kept.append(f"{','.join(selectors)}{{{tinycss2.serialize(rule.content)}}}")
        elif rule.type == "at-rule" and rule.content is not None and rule.lower_at_keyword in ("media", "supports"):
            inner = _rules(tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True), words)
            if inner:
                kept.append(f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{inner}}}")
        elif rule.type == "at-rule":
            kept.append(rule.serialize())
    return "".join(kept)


def _selectors(prelude: str) -> list[str]:
    """Split at the commas that stand outside brackets: ``:is(a, b) c, d`` is two selectors."""
    return [s.strip() for s in re.split(r",(?![^(]*\))", prelude)]


def _possible(selector: str, words: set[str]) -> bool:
    # A class inside :not(…), :is(…) or :where(…) need not occur for the selector to match.
    needed = CLASS.findall(re.sub(r":(?:not|is|where|has)\((?:[^()]|\([^()]*\))*\)", "", selector))
    return all(name.replace("\\", "") in words for name in needed)


def trim_stylesheets(app: Sphinx, exception: Exception | None) -> None:
    """Rewrite the heavy stylesheets of the built site.

    Args:
        app: Sphinx.
        exception: what ended the build, if anything did.
    """
    if exception or app.builder.format != "html":
        return
    folder = Path(app.outdir)
    words = used_words(folder)
    for pattern in HEAVY:
        for path in (folder / "_static").glob(pattern):
            path.write_text(trimmed(path.read_text(encoding="utf-8"), words), encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Trim when all pages and assets are written.

    The highest priority value comes last: other extensions copy their stylesheets at the same event.
    """
    app.connect("build-finished", trim_stylesheets, priority=950)
