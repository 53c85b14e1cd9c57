"""Check the rules of the house that no general linter knows: mirrored places, anatomy of a chapter, budgets, names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import notebooks

MAX_CELL_LINES, MAX_FILE_LINES, MAX_TEST_LINES = 30, 450, 650
MIN_CLAIMS, MIN_FIGURES, MAX_BYTES = 8, 3, 1_000_000
SECTIONS = ("in your own code", "against the field", "beyond the article", "exercises", "references")
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "tmp"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError(\(\))?\s*$", re.M)
BOOK_IN_NOTEBOOK = re.compile(r"^(```\{|:::|\{[a-z]+\}`)", re.M)


def tracked_files() -> list[Path]:
    """Return the files of the project: tracked, or new and not ignored."""
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, cwd=notebooks.ROOT, check=True
    )
    return [p for line in done.stdout.splitlines() if (p := notebooks.ROOT / line).is_file()]


def chapter_faults(path: Path) -> list[str]:
    """Return what a chapter's notebook lacks.

    Args:
        path: ``chapters/<part>/<slug>.ipynb``.

    Returns:
        One sentence for each fault.
    """
    content, part, slug = notebooks.read(path), path.parent.name, path.stem
    code = notebooks.code_cells(content)
    prose = "\n".join(notebooks.source(c) for c in content["cells"] if c["cell_type"] == "markdown")
    claims = list(notebooks.bundles(content, notebooks.CLAIM))
    outputs = [o for c in code for o in c.get("outputs", [])]
    found = notebooks.faults(content)
    for places in (
        (f"kexue_lib/{part}/{slug}.py", f"kexue_lib/{part}/{slug}/__init__.py"),
        (f"tests/{part}/test_{slug}.py", f"tests/{part}/{slug}"),
        (f"benchmarks/{part}/bench_{slug}.py",),
    ):
        if not any((notebooks.ROOT / place).exists() for place in places):
            found.append(f"has no {' or '.join(places)}")
    if [c["execution_count"] for c in code] != list(range(1, len(code) + 1)):
        found.append("is not the result of one clean run")
    if len(claims) < MIN_CLAIMS:
        found.append(f"has {len(claims)} checked steps; a chapter has {MIN_CLAIMS} or more")
    if sum(any(m.startswith("image/") for m in o.get("data", {})) for o in outputs) < MIN_FIGURES:
        found.append(f"has fewer than {MIN_FIGURES} figures")
    if path.stat().st_size > MAX_BYTES:
        found.append(f"stores {path.stat().st_size / 1e6:.2f} MB; the budget is {MAX_BYTES / 1e6:.0f} MB")
    for number, cell in enumerate(code, 1):
        if notebooks.source(cell).count("\n") >= MAX_CELL_LINES:
            found.append(f"code cell {number} is longer than {MAX_CELL_LINES} lines")
        drawn = any("image/png" in o.get("data", {}) for o in cell.get("outputs", []))
        if drawn and not cell["metadata"].get("mystnb", {}).get("image", {}).get("alt"):
            found.append(f"code cell {number} draws a figure without alternative text")
    for section in SECTIONS:
        if not re.search(rf"^#+ .*{section}", prose, re.I | re.M):
            found.append(f"has no section '{section}'")
    if "kexue.fm/archives/" not in prose:
        found.append("does not link to its article")
    if BOOK_IN_NOTEBOOK.search(prose):
        found.append("uses a MyST directive, which GitHub and Colab show as raw text")
    return [f"{notebooks.relative(path)} {fault}" for fault in found]


def module_faults(path: Path) -> list[str]:
    """Return what a Python file of the project breaks.

    Args:
        path: any tracked ``.py`` file.

    Returns:
        One sentence for each fault.
    """
    text, found = path.read_text(encoding="utf-8"), []
    if path.stem in EMPTY_NAMES:
        found.append("has a name that says nothing")
    limit = MAX_TEST_LINES if "tests" in path.relative_to(notebooks.ROOT).parts else MAX_FILE_LINES
    if (lines := text.count("\n")) > limit:
        found.append(f"has {lines} lines; more than {limit} want splitting by meaning")
    if UNFINISHED.search(text) and path != Path(__file__).resolve():
        found.append(f"is unfinished: {UNFINISHED.search(text).group(0)}")
    tree = ast.parse(text)
    if notebooks.LIBRARY in path.relative_to(notebooks.ROOT).parts and not notebooks.is_inner(path):
        for node in tree.body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
                continue
            doc = ast.get_docstring(node) or ""
            if len(doc.splitlines()) < 3:
                found.append(f"line {node.lineno}: public {node.name} has no full docstring")
            elif isinstance(node, ast.FunctionDef) and "raise " in ast.unparse(node) and "Raises" not in doc:
                found.append(f"line {node.lineno}: {node.name} raises and its docstring does not say so")
    return [f"{notebooks.relative(path)} {fault}" for fault in found]


def main() -> int:
    """Print every fault; exit 1 if there is one."""
    found = []
    for path in tracked_files():
        if path.suffix == ".py":
            found += module_faults(path)
    for path in notebooks.all_notebooks():
        found += chapter_faults(path)
        if notebooks.fingerprint(content := notebooks.read(path)) != content["metadata"].get("kexue", {}).get(
            "fingerprint"
        ):
            found.append(f"{notebooks.relative(path)} is older than the code it depends on: run make notebooks")
    print("\n".join(found) or "house rules: all kept")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
