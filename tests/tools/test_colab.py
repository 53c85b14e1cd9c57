"""A chapter starts on Colab: an empty folder, PyTorch and Jupyter there, the book's library not.

The set-up cell then installs the library from its repository; here git is told to take a local copy of the working
tree in place of an address that the chapter is given for it. What the library itself depends on comes through pip, so
this needs the network.
"""

import ast
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import notebooks
import pytest
import spread_address
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = notebooks.ROOT
ON_COLAB = ("torch", "numpy", "matplotlib", "matplotlib-inline", "sympy", "ipykernel", "nbclient", "pip")
RUN = (
    "import nbformat, nbclient, sys; n = nbformat.read(sys.argv[1], 4);"
    "nbclient.NotebookClient(n, kernel_name='python3', timeout=500).execute(); nbformat.write(n, sys.argv[1])"
)


def closure(names: tuple[str, ...]) -> set[str]:
    found, queue = set(), [canonicalize_name(n) for n in names]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                queue.append(canonicalize_name(requirement.name))
    return found


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Path:
    """A Python that sees only what Colab has, by links into this environment."""
    folder = tmp_path_factory.mktemp("colab")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name in closure(ON_COLAB):
        distribution = importlib.metadata.distribution(name)
        for top in {Path(f).parts[0] for f in distribution.files or [] if not str(f).startswith((".", "/"))}:
            target = Path(distribution.locate_file(top))
            if target.exists() and not (site / top).exists() and top != "__pycache__":
                (site / top).symlink_to(target)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A git repository with the files of the working tree, committed or not."""
    folder = tmp_path_factory.mktemp("repository")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if name.startswith("kexue_lib/") or "/" not in name:
            if not (ROOT / name).is_file():
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    tag = ["tag", spread_address.read_address().tag]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "snapshot"], tag):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


def opening(chapter: dict) -> dict:
    """A chapter up to its second cell with claims, then all its imports: the rest needs nothing else from outside."""
    cells, derived = [], 0
    for cell in chapter["cells"]:
        cells.append(cell)
        derived += any(notebooks.CLAIM in output.get("data", {}) for output in cell.get("outputs", []))
        if derived == 2:
            break
    code = "\n".join(notebooks.source(cell) for cell in notebooks.code_cells(chapter))
    plain = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))
    found = [ast.unparse(n) for n in ast.parse(plain).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    last = {"cell_type": "code", "id": "imports", "metadata": {}, "outputs": [], "execution_count": None}
    return {**chapter, "cells": [*cells, {**last, "source": "\n".join(found)}]}


@pytest.mark.slow
def test_a_chapter_runs_in_an_empty_folder_without_the_library(colab, repository, tmp_path):
    have = subprocess.run([colab, "-c", "import kexue_lib"], capture_output=True, cwd=tmp_path)
    assert have.returncode, "the stand-in for Colab already has the library"
    probe = [colab, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path / "probe"), "jaxtyping"]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no package index in reach: the set-up cell could not install what the library depends on")
    address = spread_address.Address("https://github.com/me/book", spread_address.read_address().tag)
    chapter = opening(notebooks.read(ROOT / "chapters" / "distributions" / "squareplus.ipynb"))
    stored = json.dumps(chapter, ensure_ascii=False)
    path = tmp_path / "chapter.ipynb"
    path.write_text(spread_address.rewritten_notebook(stored, address, "chapter.ipynb"), encoding="utf-8")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))},
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{repository}.insteadOf",
        "GIT_CONFIG_VALUE_0": address.url,
    }
    (tmp_path / "probe").exists() and shutil.rmtree(tmp_path / "probe")
    done = subprocess.run([colab, "-c", RUN, path], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    before = list(notebooks.bundles(chapter, notebooks.CLAIM))
    assert before
    assert list(notebooks.bundles(notebooks.read(path), notebooks.CLAIM)) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chapter.ipynb"]


def test_the_stand_in_is_not_this_environment(colab):
    shown = subprocess.run([colab, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert Path(shown.stdout.strip()) != Path(sys.prefix)
