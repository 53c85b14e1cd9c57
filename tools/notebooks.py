"""What the tools know of a chapter's notebook: where it is, what it depends on, how it is stored."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
LIBRARY = "kexue_lib"
CLAIM = "application/vnd.kexue.claim+json"
CALCULATION = "application/vnd.kexue.calculation+json"
VERDICT = "application/vnd.kexue.verdict+json"
STORED, SUFFIXES = ROOT / LIBRARY / "checkpoints", {".json", ".safetensors"}
COMPARED = "nbval-check-output"
ANSWER = (
    "<!-- answer -->"  # stands in an exercise where readers of the site may type theirs; the cell's metadata tell more
)
FOLDED = "hide-input"  # on the site a reader sees the mathematics first; the notebook shows the code
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python", "pygments_lexer": "ipython3"}
# What a run leaves in cell metadata and no reader needs.
VOLATILE = {"execution", "collapsed", "ExecuteTime", "jupyter", "vscode", "outputId", "colab", "editable", "slideshow"}
MACHINE_PATH = re.compile(
    r"(?:^|[\s\"'=(:])("
    + "|".join(re.escape(str(p)) for p in {ROOT.parent, Path.home(), Path(tempfile.gettempdir())} if len(str(p)) > 1)
    + r"|/site-packages|[A-Z]:\\Users\\)"
)


def all_notebooks() -> list[Path]:
    """Return every chapter's notebook, in the order of their names.

    Returns:
        Paths of ``chapters/<part>/<slug>.ipynb``.
    """
    return sorted(p for p in CHAPTERS.glob("*/*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def read(path: Path) -> dict:
    """Return a notebook as the dictionary that its JSON holds.

    Args:
        path: the ``.ipynb`` file.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, notebook: dict) -> None:
    """Store a notebook the way Jupyter does, so that a later save there changes nothing.

    Args:
        path: the ``.ipynb`` file.
        notebook: its content.
    """
    path.write_text(text(notebook), encoding="utf-8", newline="\n")


def text(notebook: dict) -> str:
    """Return the JSON of a notebook as Jupyter writes it.

    Args:
        notebook: its content.
    """
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def code_cells(notebook: dict) -> list[dict]:
    """Return the code cells that hold code.

    Args:
        notebook: its content.
    """
    return [c for c in notebook["cells"] if c["cell_type"] == "code" and source(c).strip()]


def source(cell: dict) -> str:
    """Return a cell's text; the format allows a string or a list of lines.

    Args:
        cell: a cell of any type.
    """
    text = cell.get("source", "")
    return text if isinstance(text, str) else "".join(text)


def bundles(notebook: dict, mime: str) -> Iterator[dict]:
    """Yield the stored outputs of one MIME type, in order.

    Args:
        notebook: its content.
        mime: for example ``notebooks.CLAIM``.
    """
    for cell in code_cells(notebook):
        for output in cell.get("outputs", []):
            if mime in output.get("data", {}):
                yield output["data"][mime]


def imported_modules(code: str) -> set[str]:
    """Return the modules of the library that a piece of code imports, anywhere in it.

    Args:
        code: Python source; lines of IPython magic are skipped.

    Returns:
        Dotted names. ``from kexue_lib.a import b`` names both ``kexue_lib.a`` and ``kexue_lib.a.b``.
    """
    plain = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in code.splitlines())
    found: set[str] = set()
    for node in ast.walk(ast.parse(plain)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return {name for name in found if name.split(".")[0] == LIBRARY}


def module_file(name: str) -> Path | None:
    """Return the file of a module of the library, or None when there is no such module.

    Args:
        name: dotted name.
    """
    base = ROOT.joinpath(*name.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def is_inner(path: Path) -> bool:
    """Return whether a file of the library is the business of its package alone: a leading underscore says so.

    Args:
        path: a Python file of the repository.
    """
    return any(part.startswith("_") and part != "__init__.py" for part in path.relative_to(ROOT).parts)


def library_files(code: str) -> list[Path]:
    """Return every file of the library that a piece of code reaches through imports.

    Args:
        code: Python source.

    Returns:
        Sorted paths: direct and indirect imports.
    """
    queue, seen = list(imported_modules(code)), {}
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen[name] = module_file(name)
        if seen[name]:
            queue += imported_modules(seen[name].read_text(encoding="utf-8"))
    return sorted({p for p in seen.values() if p})


def fingerprint(notebook: dict) -> str:
    """Return a digest of all that the stored outputs depend on, and of the outputs themselves.

    Code, the library files that it reaches, the checkpoints that it names; outputs as they were stored, so that
    outputs that were cleared or edited are no longer those of a run.

    Args:
        notebook: its content.

    Returns:
        Sixteen hexadecimal digits; prose does not count.
    """
    code = "\n\n".join(source(c) for c in code_cells(notebook))
    digest = hashlib.sha256(code.encode())
    library = library_files(code)
    for path in library:
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(_without_docstrings(path))
    for path in checkpoint_files(code, library):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    outputs = [output for cell in code_cells(notebook) for output in cell.get("outputs", [])]
    digest.update(json.dumps(outputs, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def checkpoint_files(code: str, library: list[Path]) -> list[Path]:
    """Return the files of trained weights and results whose names stand in a piece of code, or in what it imports.

    Args:
        code: Python source.
        library: the files that it imports.
    """
    texts = [code, *(path.read_text(encoding="utf-8") for path in library if "checkpoints" not in path.parts)]
    known = {p.relative_to(STORED).with_suffix("").as_posix(): p for p in STORED.glob("*/*") if p.suffix in SUFFIXES}
    return sorted(path for name, path in known.items() if any(f'"{name}"' in text for text in texts))


def _without_docstrings(path: Path) -> bytes:
    """Return what of a module can change an output: its syntax tree, bare of comments and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree).encode()


def normalise(notebook: dict) -> dict:
    """Return a notebook as the book stores it: counts 1..N, the plain kernel, nothing that a run leaves behind.

    Args:
        notebook: its content; changed in place and returned.
    """
    kept = {k: v for k, v in notebook["metadata"].items() if k == "kexue"}
    notebook["metadata"] = {"kernelspec": dict(KERNEL), "language_info": dict(LANGUAGE), **kept}
    notebook["nbformat"], notebook["nbformat_minor"] = 4, 5
    count = 0
    for number, cell in enumerate(notebook["cells"]):
        cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k not in VOLATILE}
        cell["id"] = _cell_id(cell, number)
        cell["source"] = source(cell).rstrip().splitlines(keepends=True)
        if cell["cell_type"] != "code":
            cell.pop("outputs", None)
            continue
        if not "".join(cell["source"]).strip():
            cell["execution_count"] = None
            continue
        count += 1
        cell["execution_count"] = count
        for output in cell["outputs"]:
            output.pop("transient", None)
            if "execution_count" in output:
                output["execution_count"] = count
        claims = [output["data"][CLAIM] for output in cell["outputs"] if CLAIM in output.get("data", {})]
        tags = {COMPARED} if claims else set()
        if any(claim["evidence"] != "measured" for claim in claims):
            tags.add(FOLDED)
        if tags:
            cell["metadata"]["tags"] = sorted({*cell["metadata"].get("tags", []), *tags})
    return notebook


def _cell_id(cell: dict, number: int) -> str:
    """Return the cell's own id where it has a readable one, else its number: ids must not churn between saves."""
    own = cell.get("id", "")
    return own if own and not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?|cell-\d+", own) else f"cell-{number:03d}"


def faults(notebook: dict) -> list[str]:
    """Return what must not be stored: errors, warnings, machine paths, objects that nobody asked to see.

    Args:
        notebook: its content.

    Returns:
        One sentence for each fault; empty when there is none.
    """
    found = []
    for number, cell in enumerate(code_cells(notebook), 1):
        for output in cell.get("outputs", []):
            text = json.dumps(output.get("data", output.get("text", "")), ensure_ascii=False)
            if output["output_type"] == "error":
                found.append(f"code cell {number} ends in {output['ename']}: {output['evalue'][:200]}")
            elif output.get("name") == "stderr":
                found.append(f"code cell {number} writes to stderr: {''.join(output['text'])[:200]!r}")
            elif hit := MACHINE_PATH.search(re.sub(r'"image/png": "[^"]*"', "", text)):
                found.append(f"code cell {number} stores a path of the machine: {hit.group(0).strip()!r}")
            elif output["output_type"] == "execute_result" and list(output["data"]) == ["text/plain"]:
                shown = "".join(output["data"]["text/plain"])[:60]
                beside_a_card = any(CLAIM in other.get("data", {}) for other in cell["outputs"])
                if shown.startswith("<") or beside_a_card:
                    found.append(f"code cell {number} shows what its last line returns, {shown!r}: end it with ;")
    return found


def relative(path: Path) -> str:
    """Return a path as it is written in messages and tables.

    Args:
        path: a file of the project.
    """
    return path.resolve().relative_to(ROOT).as_posix() if path.resolve().is_relative_to(ROOT) else path.name
