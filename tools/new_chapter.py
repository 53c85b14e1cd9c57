"""Begin a chapter: write its mirrored places and every line that names it; ``make lint`` says what is still missing.

``make chapter part=interludes slug=example`` (or this script with the two words) writes the notebook, the module, its
tests, its benchmark, the entry in ``chapters/articles.yml``, the line in ``_toc.yml`` and the part's page of the
reference. Where an ellipsis stands, the author writes. Nothing that exists is changed but by added lines.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import notebooks
import spread_address
import yaml

ARTICLE = """\
    - slug: {slug}
      english: "…"
      chinese: …
      date: 2000-01-01
      archive: 0
"""
MODULE = '''\
"""…

Source: Su Jianlin, "{english}", {year}, https://kexue.fm/archives/{archive}.
"""

from __future__ import annotations

__all__: list[str] = []
'''
TESTS = '''\
"""{slug}: …, by independent methods."""

from __future__ import annotations
'''
BENCHMARK = '''\
"""{slug} beside its peers.

Run: python -m benchmarks.{part}.bench_{slug} [--save]
"""

from __future__ import annotations

from benchmarks.measure import Report


def main() -> None:
    report = Report("…")
    report.finish("{part}/{slug}")


if __name__ == "__main__":
    main()
'''
REFERENCE = """\
# `kexue_lib.{part}`

…
The part of the book is [{title}](../chapters/{part}/index.md).

```{{api-modules}} {part}
```
"""
TITLE = """\
# …

**The idea in one sentence.** …

| | |
|---|---|
| **Article** | Su Jianlin, *{english}* ({chinese}), {date}, [{link}](https://{link}) |
| **Afterwards you can** | … |
| **You need** | … |
| **Run time** | under a minute on two CPU cores |"""
IMPORTS = """
import sympy as sp
import torch

from kexue_lib.derivation import Derivation
from kexue_lib.plotting import lines, use_style

use_style()
d = Derivation("{slug}")"""
HEADINGS = (
    "The question",
    "Derivation",
    "From algebra to algorithm",
    "In your own code",
    "Experiments",
    "The article's claims against our runs",
    "Against the field",
    "Which one should I use?",
    "Beyond the article",
    "Exercises",
    "What to keep",
    "Where next",
    "References",
)


class Begun(Exception):
    """The chapter cannot be begun: it exists, or its part does not."""


def files(part: str, slug: str, article: dict[str, object]) -> dict[str, str]:
    """Return the files of a new chapter, by their path from the repository's root.

    Args:
        part: of the book.
        slug: the chapter's name.
        article: its entry in ``chapters/articles.yml``.
    """
    link, year = f"kexue.fm/archives/{article['archive']}", str(article["date"])[:4]
    words = {**article, "part": part, "slug": slug, "link": link, "year": year}
    return {
        f"chapters/{part}/{slug}.ipynb": notebooks.text(notebooks.normalise(_notebook(words))),
        f"kexue_lib/{part}/{slug}.py": MODULE.format(**words),
        f"tests/{part}/test_{slug}.py": TESTS.format(**words),
        f"benchmarks/{part}/bench_{slug}.py": BENCHMARK.format(**words),
    }


def _notebook(words: dict[str, object]) -> dict:
    set_up = spread_address.read_address().spread(spread_address.SET_UP[0], spread_address.SET_UP)
    texts = [("markdown", TITLE.format(**words)), ("code", set_up + IMPORTS.format(**words))]
    texts += [("markdown", f"## {heading}\n\n…") for heading in HEADINGS]
    cells = [
        {"cell_type": kind, "metadata": {}, "source": text, **({"outputs": []} if kind == "code" else {})}
        for kind, text in texts
    ]
    cells[1]["metadata"] = {"tags": [notebooks.FOLDED]}
    return {"cells": cells, "metadata": {}}


def begin(root: Path, part: str, slug: str) -> list[str]:
    """Write all places of a new chapter.

    Args:
        root: of the repository.
        part: one of the book's parts.
        slug: letters, digits and underscores.

    Returns:
        The paths that were written or got a line.

    Raises:
        Begun: no such part, a slug that is no name, or files that exist already; nothing was written then.
    """
    listed = root / "chapters" / "articles.yml"
    parts = yaml.safe_load(listed.read_text(encoding="utf-8"))
    known = [entry["part"] for entry in parts]
    if part not in known:
        raise Begun(f"part: got {part!r}, expected one of {', '.join(known)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", slug):
        raise Begun(f"slug: got {slug!r}, expected lower-case letters, digits and underscores")
    articles = {entry["slug"]: entry for entry in parts[known.index(part)]["chapters"]}
    unknown = {"english": "…", "chinese": "…", "date": "2000-01-01", "archive": 0}
    written = files(part, slug, articles.get(slug, unknown))
    if there := [name for name in written if (root / name).exists() or (root / name.removesuffix(".py")).exists()]:
        raise Begun(f"slug: {slug!r} has {', '.join(there)} already")
    if slug not in articles:
        _add_line(listed, rf"(- part: {part}\n(?:  .*\n| *\n)*)", ARTICLE.format(slug=slug))
    written |= _reference(root, part)
    for name, text in written.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8", newline="\n")
    return [*written, *_contents(root, part, slug)]


def _reference(root: Path, part: str) -> dict[str, str]:
    """The part's page of the reference and its package, where this is the first chapter of the part."""
    title = re.search(r"^# +(.+)$", (root / f"chapters/{part}/index.md").read_text(encoding="utf-8"), re.M)[1]
    places = {
        f"api/{part}.md": REFERENCE.format(part=part, title=title),
        f"kexue_lib/{part}/__init__.py": f'"""{title}: …"""\n',
        f"benchmarks/{part}/__init__.py": "",
    }
    return {name: text for name, text in places.items() if not (root / name).exists()}


def _contents(root: Path, part: str, slug: str) -> list[str]:
    """Add the lines that lead to the chapter and to the reference of its part."""
    toc, index = root / "_toc.yml", root / "api" / "index.md"
    text = toc.read_text(encoding="utf-8")
    line, section = f"      - file: chapters/{part}/index\n", f"          - file: chapters/{part}/{slug}\n"
    planned = text.index("  - caption: Planned\n") if "  - caption: Planned\n" in text else len(text)
    if text.index(line) > planned:  # the part's first chapter: the part moves up
        text = text.replace(line, "")
        text = text[:planned] + line + "        sections:\n" + section + text[planned:]
    else:
        text = re.sub(rf"({re.escape(line)}        sections:\n(?:          .*\n)*)", rf"\g<1>{section}", text)
    text = text.replace("  - caption: Planned\n    chapters:\n  - caption", "  - caption")
    changed = ["_toc.yml", "chapters/articles.yml"]
    if f"file: api/{part}\n" not in text:
        shared = "          - file: api/shared\n"
        text = text.replace(shared, f"          - file: api/{part}\n{shared}")
        shown = index.read_text(encoding="utf-8")
        entry = f"- [{part.capitalize()}]({part}.md): …\n"
        index.write_text(shown.replace("- [Shared by all chapters]", f"{entry}- [Shared by all chapters]"), "utf-8")
        changed.append("api/index.md")
    toc.write_text(text, encoding="utf-8")
    return changed


def _add_line(path: Path, place: str, line: str) -> None:
    """Put lines behind what a pattern finds."""
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(place, lambda found: found[1].rstrip("\n") + "\n" + line, text, count=1), encoding="utf-8")


def main() -> int:
    """Begin a chapter, and say where to write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", help="distributions, optimization, …")
    parser.add_argument("slug", help="the chapter's name in paths and imports")
    options = parser.parse_args()
    try:
        written = begin(notebooks.ROOT, options.part, options.slug)
    except Begun as error:
        sys.exit(str(error))
    print("\n".join(written))
    print("\nWrite where an ellipsis stands; make lint says what is missing, CONTRIBUTING.md what each place holds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
