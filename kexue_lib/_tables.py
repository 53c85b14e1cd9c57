"""Result tables that display themselves; the public name is :func:`kexue_lib.plotting.table`."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


class Table:
    """A result table that displays itself: HTML on the site and in JupyterLab, Markdown and text elsewhere.

    Args:
        cells: rows of strings.
        columns: headings.
        numeric: for each column whether it holds numbers, which are aligned to the right.
    """

    def __init__(self, cells: list[list[str]], columns: list[str], numeric: list[bool]):
        self.cells, self.columns, self.numeric = cells, columns, numeric

    def _repr_html_(self) -> str:
        def row(tag: str, cells: list[str]) -> str:
            style = ['style="text-align:right"' if n else 'style="text-align:left"' for n in self.numeric]
            return "<tr>" + "".join(f"<{tag} {s}>{html.escape(c)}</{tag}>" for c, s in zip(cells, style)) + "</tr>"

        body = "\n".join(row("td", r) for r in self.cells)
        head = row("th", self.columns)
        return f'<table class="results"><thead>{head}</thead>\n<tbody>{body}</tbody></table>'

    def _repr_markdown_(self) -> str:
        rule = ["---:" if n else ":---" for n in self.numeric]
        escaped = [[c.replace("|", "\\|") for c in r] for r in [self.columns, *self.cells]]
        return "\n".join("| " + " | ".join(r) + " |" for r in [escaped[0], rule, *escaped[1:]])

    def __repr__(self) -> str:
        widths = [max(len(r[i]) for r in [self.columns, *self.cells]) for i in range(len(self.columns))]

        def line(r: list[str]) -> str:
            cells = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(r, widths, self.numeric))
            return "  ".join(cells).rstrip()

        return "\n".join(line(r) for r in [self.columns, *self.cells])


def table(rows: Sequence[Sequence[Any]], columns: Sequence[str], *, digits: int = 4) -> Table:
    """Return a table that displays itself, numbers aligned and rounded to significant digits.

    Args:
        rows: one sequence for each row; entries are text, numbers or 0-d tensors.
        columns: headings, with units.
        digits: significant digits of floats.

    Returns:
        A display object.

    Raises:
        ValueError: a row whose length is not that of ``columns``.

    >>> table([["softmax", 1 / 3], ["hard", 1]], ["map", "ratio"])
    map       ratio
    softmax  0.3333
    hard          1
    """
    for i, r in enumerate(rows):
        if len(r) != len(columns):
            raise ValueError(f"rows: got {len(r)} entries in row {i}, expected {len(columns)} as columns has")
    plain = [[e.item() if isinstance(e, (torch.Tensor, np.generic)) else e for e in r] for r in rows]

    def text(entry: Any) -> str:
        if isinstance(entry, float):
            return f"{entry:.{digits}g}"
        return str(entry)

    numeric = [
        all(isinstance(r[i], (int, float)) and not isinstance(r[i], bool) for r in plain) for i in range(len(columns))
    ]
    return Table([[text(e) for e in r] for r in plain], list(columns), numeric)
