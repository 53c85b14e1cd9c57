"""A book with an address of its own: what its pages launch, edit and install."""

import shutil
import subprocess
import sys

import pytest
from spread_address import read_address
from test_links import ROOT

CHAPTER, TAG = "chapters/distributions/squareplus", read_address().tag


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """One chapter of a copy of the book that lives at github.com/me/copy."""
    root = tmp_path_factory.mktemp("book")
    for name in ("_static", "_templates", "tools", "chapters", "kexue_lib"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "pyproject.toml", "README.md", "intro.md", "CONTRIBUTING.md", "CITATION.cff"):
        shutil.copy(ROOT / name, root / name)
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: {CHAPTER}\n", encoding="utf-8")
    spread = [sys.executable, "tools/spread_address.py", "https://github.com/me/copy"]
    subprocess.run(spread, cwd=root, check=True, capture_output=True)
    build = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", ".", "--quiet"]
    done = subprocess.run(build, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return (root / f"_build/html/{CHAPTER}.html").read_text(encoding="utf-8")


def test_launch_links_point_at_the_notebook(page: str):
    path = f"{CHAPTER}.ipynb"
    assert f"https://colab.research.google.com/github/me/copy/blob/main/{path}" in page  # the rocket's menu
    assert f"https://mybinder.org/v2/gh/me/copy/main?urlpath=lab/tree/{path}" in page
    assert f"https://colab.research.google.com/github/me/copy/blob/{TAG}/{path}" in page  # the badges
    assert f"https://mybinder.org/v2/gh/me/copy/{TAG}?urlpath=lab/tree/{path}" in page


def test_pages_lead_to_their_sources(page: str):
    assert f"https://github.com/me/copy/edit/main/{CHAPTER}.ipynb" in page
    assert "https://github.com/me/copy/blob/main/kexue_lib/distributions/squareplus" in page


def test_set_up_cells_install_from_the_tag(page: str):
    assert f"git+https://github.com/me/copy@{TAG}" in page


def test_pages_know_their_own_address(page: str):
    assert f'content="https://me.github.io/copy/{CHAPTER}.html"' in page
