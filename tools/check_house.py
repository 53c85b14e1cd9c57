"""Check the rules of the house that no general linter knows: mirrored places, anatomy of a chapter, budgets, names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import chapter_rules
import notebooks

MAX_FILE_LINES, MAX_TEST_LINES = 450, 650
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "tmp"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError(\(\))?\s*$", re.M)


def tracked_files() -> list[Path]:
    """Return the files of the project: tracked, or new and not ignored."""
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, cwd=notebooks.ROOT, check=True
    )
    return [p for line in done.stdout.splitlines() if (p := notebooks.ROOT / line).is_file()]


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
    place = path.relative_to(notebooks.ROOT).parts[0]
    first = (ast.get_docstring(tree) or "").split("\n")[0]
    if first == "…" or ": …" in first or (place == "benchmarks" and 'Report("…")' in text):
        found.append("is unfinished: an ellipsis stands where words belong")
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
        found += chapter_rules.faults(path)
        if notebooks.fingerprint(content := notebooks.read(path)) != content["metadata"].get("kexue", {}).get(
            "fingerprint"
        ):
            found.append(f"{notebooks.relative(path)} is older than the code it depends on: run make notebooks")
    print(chapter_rules.summaries(notebooks.all_notebooks()))
    print("\n".join(found) or "house rules: all kept")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
