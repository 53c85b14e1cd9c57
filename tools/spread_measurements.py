"""Carry the committed benchmark results into the chapters that quote them.

A chapter marks the place with two comment lines in a Markdown cell, a part's page in its text,

    <!-- measured: distributions/smooth_topk; p and a vector-Jacobian product; One row -->
    <!-- /measured -->

and gets the comparisons of ``benchmarks/results/distributions/smooth_topk.json`` on one thread whose titles contain
one of the phrases (all, if none is named) as tables between them. ``--check`` changes nothing and exits 1 if a
chapter quotes other numbers than the file holds.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import notebooks

PLACE = re.compile(r"(<!-- measured: ([\w/]+)((?:; [^;]+?)*) -->\n)(.*?)(<!-- /measured -->)", re.S)


def tables(results: dict, phrases: list[str]) -> str:
    """Return the chosen comparisons as Markdown.

    Args:
        results: content of a results file.
        phrases: parts of the titles wanted; empty for all.

    Returns:
        A table for each comparison, then one line that names the machine.

    Raises:
        ValueError: a phrase that no title contains.
    """
    single = [c for c in results["comparisons"] if c["threads"] == 1]
    for phrase in phrases:
        if not any(phrase in c["title"] for c in single):
            raise ValueError(f"no comparison on one thread has {phrase!r} in its title")
    parts = []
    for comparison in single:
        if phrases and not any(p in comparison["title"] for p in phrases):
            continue
        base = next(t for t in comparison["timings"] if t["name"] == comparison["baseline"])
        rows = [
            f"| {t['name']} | {t['ratio']:.2f}{_wide(t)} | {'–'.join(f'{q:.2f}' for q in t['ratio_quartiles'])} |"
            for t in comparison["timings"]
            if t is not base
        ]
        title = f"*{comparison['title']}; {base['name']} takes {base['milliseconds']:.3g} ms*"
        head = [title, "", f"| | time, × {base['name']} | middle half |", "|:---|---:|---:|"]
        parts.append("\n".join([*head, *rows]))
    how = "Medians of the ratios within a round of interleaved runs, and the half of the rounds in the middle"
    if any(_wide(t) for c in single for t in c["timings"]):
        how += "; ° is wider than ±15 % and not resolved"
    peers = ", ".join(f"{name} {version}" for name, version in results["peers"].items())
    setting = f"{results['machine']['cpu']}, one thread, PyTorch {results['machine']['torch']}" + f", {peers}" * bool(
        peers
    )
    return "\n\n".join(parts) + f"\n\n{how}; {results['measured']}, {setting}.\n"


def _wide(timing: dict) -> str:
    """A mark where the middle half of the ratios is wider than ±15 % of their median."""
    low, high = timing["ratio_quartiles"]
    return "" if high - low <= 0.3 * timing["ratio"] else "°"


def filled(text: str) -> str:
    """Return a Markdown cell with its tables filled in.

    Args:
        text: source of the cell.
    """

    def replace(match: re.Match) -> str:
        path = notebooks.ROOT / "benchmarks" / "results" / f"{match[2]}.json"
        phrases = [p.strip() for p in match[3].split(";") if p.strip()]
        return match[1] + "\n" + tables(json.loads(path.read_text(encoding="utf-8")), phrases) + "\n" + match[5]

    return PLACE.sub(replace, text)


def filled_page(text: str) -> str:
    """Return the page on training with the stored learning curves filled in.

    Args:
        text: source of ``about/cluster.md``.
    """
    path = notebooks.ROOT / "kexue_lib" / "checkpoints" / "attention" / "learning.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    curve, lookup = stored["content"]["bytes"], stored["content"]["retrieval"]
    rows = {
        "curve": [f"| {s:.0f} | {v:.2f} |" for s, v in zip(curve["validation_step"], curve["validation"])],
        "lookup": [
            f"| {pairs} | {share:.1%} | {lookup['no convolution']['accuracy'][pairs]:.1%} |"
            for pairs, share in lookup["convolution"]["accuracy"].items()
        ],
    }
    for name, lines in rows.items():
        text = re.sub(
            rf"(<!-- {name} -->\n(?:\|[^\n]*\n){{2}}).*?(<!-- /{name} -->)",
            lambda m, lines=lines: m[1] + "\n".join(lines) + "\n" + m[2],
            text,
            flags=re.S,
        )
    values = {"python": stored["made_with"]["python"]} | {n: f"{curve[n]:.2f}" for n in ("unigram", "bigram")}
    place = r"(<!-- value: (\w+) -->)[^<]*(<!-- /value -->)"
    return re.sub(place, lambda m: m[1] + values[m[2]] + m[3], text)


def fill(path: Path) -> tuple[bool, Callable[[], object]]:
    """Return whether a notebook or a page quotes other numbers than are stored, and what writes it anew.

    Args:
        path: of a chapter's notebook, of a part's page, or of the page on training.
    """
    if path.suffix == ".ipynb":
        content, changed = notebooks.read(path), False
        for cell in content["cells"]:
            text = notebooks.source(cell)
            if cell["cell_type"] == "markdown" and (new := filled(text)) != text:
                cell["source"], changed = new.splitlines(keepends=True), True
        return changed, lambda: notebooks.write(path, content)
    text = path.read_text(encoding="utf-8")
    new = filled_page(text) if path.name == "cluster.md" else filled(text)
    return new != text, lambda: path.write_text(new, encoding="utf-8")


def main() -> int:
    """Fill, or check, every chapter, the parts' pages and the page on training, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page differs")
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks and pages; default: all")
    arguments, status = parser.parse_args(), 0
    pages = [*sorted(notebooks.ROOT.glob("chapters/*/index.md")), notebooks.ROOT / "about" / "cluster.md"]
    for path in [p.resolve() for p in arguments.paths] or [*notebooks.all_notebooks(), *pages]:
        changed, write = fill(path)
        if changed:
            print(
                f"{notebooks.relative(path)}: {'quotes other numbers than are stored' if arguments.check else 'filled'}"
            )
            status |= arguments.check
            if not arguments.check:
                write()
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
