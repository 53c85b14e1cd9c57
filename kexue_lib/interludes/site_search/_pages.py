"""The fields of a page of the book, read from its notebook or its Markdown with the json module alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIELDS = ("title", "headings", "prose", "equations", "names")

_CLAIM, _STEPS = "application/vnd.kexue.claim+json", "application/vnd.kexue.calculation+json"
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#{1,6}\s+(.*)$", re.MULTILINE)
_NOISE = re.compile(r"\]\([^)\s]*\)|<[^>\n]+>|https?://\S+")  # targets of links, tags
_IMPORT = re.compile(r"^from kexue_lib\S* import (\([^)]*\)|.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A page: its address, its title, its answer in a sentence, and the text of each field."""

    url: str
    title: str
    summary: str
    fields: dict[str, str]


def read_page(path: Path, url: str) -> Page:
    """Read a page; ``path`` ends in ``.ipynb`` or ``.md``."""
    if path.suffix not in (".ipynb", ".md"):
        raise ValueError(f"paths: got {path.name!r}, expected a name that ends in .ipynb or .md")
    text = path.read_text(encoding="utf-8")
    cells: list[dict[str, Any]]
    cells = json.loads(text)["cells"] if path.suffix == ".ipynb" else [{"cell_type": "markdown", "source": text}]
    parts: dict[str, list[str]] = {field: [] for field in FIELDS}
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            _read_markdown(source, parts)
        elif cell["cell_type"] == "code":
            parts["names"] += _IMPORT.findall(source)
            for output in cell.get("outputs", ()):
                _read_claims(output.get("data", {}), parts)
    headings = parts["headings"]
    title = plain_text(headings[0]) if headings else path.stem
    parts["title"], parts["headings"] = headings[:1] or [path.stem], headings[1:]
    paragraphs = [plain_text(part) for part in "\n".join(parts["prose"]).split("\n\n")]
    summary = next((part for part in paragraphs if part), "")
    return Page(url, title, summary, {field: "\n".join(texts) for field, texts in parts.items()})


def _read_markdown(source: str, parts: dict[str, list[str]]) -> None:
    parts["names"] += [match.group() for match in _FENCE.finditer(source)]
    source = _FENCE.sub(" ", source)
    parts["names"] += _CODE.findall(source)
    parts["equations"] += ["".join(pair) for pair in _MATH.findall(source)]
    parts["headings"] += _HEADING.findall(source)
    prose = _HEADING.sub("", _NOISE.sub(" ", source))
    parts["prose"].append(_MATH.sub(" ", _CODE.sub(r"\1", prose)))


def _read_claims(data: dict, parts: dict[str, list[str]]) -> None:
    """Titles and statements of the checked steps that a cell displays."""
    claims = [data[_CLAIM]] if _CLAIM in data else data.get(_STEPS, {}).get("steps", [])
    for claim in claims:
        parts["prose"].append(claim["title"])
        parts["equations"].append(claim["statement"])


def plain_text(text: str) -> str:
    """Text without the marks of Markdown, on one line."""
    text = _NOISE.sub("", text).replace("**", "").replace("[", "").replace("]", "")
    return " ".join(text.replace("$", "").replace("`", "").replace("|", " ").split())
