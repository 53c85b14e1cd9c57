"""The book's address: spread from one place, in the state with one and in the state without."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import notebooks
import pytest
import spread_address
from spread_address import Address

ROOT = spread_address.ROOT
OURS = Address("https://github.com/example-owner/example.book", "v9.9.9")
NONE = Address("", "v9.9.9")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The files that name the address, with no address in them."""
    root = tmp_path_factory.mktemp("copy")
    for name in spread_address.TEXTS:
        shutil.copy(ROOT / name, root / name)
    for path in notebooks.all_notebooks():
        (root / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.relative_to(ROOT))
    spread(root, NONE)
    return root


def spread(root: Path, address: Address) -> dict[str, str]:
    for path, text in spread_address.rewritten(root, address).items():
        path.write_text(text, encoding="utf-8", newline="\n")
    return {p.relative_to(root).as_posix(): p.read_text(encoding="utf-8") for p in root.rglob("*") if p.is_file()}


def test_every_file_names_the_address_of_the_configuration():
    assert list(spread_address.rewritten(ROOT, spread_address.read_address())) == []


def test_an_address_goes_everywhere_and_away_again(copy):
    without = spread(copy, NONE)
    with_address = spread(copy, OURS)
    for name, text in with_address.items():
        assert "example-owner/example.book" in text, name
        assert "example" not in without[name].replace("for example", "") or "example-owner" not in without[name]
    assert spread(copy, Address("https://github.com/other/name", "v1")) != with_address
    assert spread(copy, OURS) == with_address
    assert spread(copy, NONE) == without
    hosts = re.compile(r"git\+https|git clone|colab\.research|mybinder\.org/v2|repository-code")
    assert [name for name, text in without.items() if hosts.search(text)] == []


def test_set_up_cells_install_from_the_tag_or_say_how_to_get_the_library(copy):
    for state, words in ((OURS, "git+https://github.com/example-owner/example.book@v9.9.9"), (NONE, "pip install -e")):
        spread(copy, state)
        for path in sorted(copy.glob("chapters/*/*.ipynb")):
            cell = notebooks.source(notebooks.code_cells(notebooks.read(path))[0])
            assert words in cell
            assert ('"install", "-q"' in cell) == (state is OURS)
            assert max(map(len, cell.splitlines())) <= 100
            ast.parse(cell)


def test_without_an_address_a_set_up_cell_runs_nothing_from_the_network(tmp_path):
    code = spread_address.SET_UP[0].replace("kexue_lib", "a_library_that_is_nowhere")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "in a copy of the book's repository run pip install -e '.[notebook]'" in done.stderr


@pytest.mark.parametrize("url", ["https://example.org/a/b", "github.com/a/b", "https://github.com/a"])
def test_an_address_of_another_kind_is_refused(url):
    with pytest.raises(ValueError, match=r"url: got .* expected https://github.com/<owner>/<name>"):
        Address(url, "v1")


def test_a_passage_that_is_gone_is_named():
    with pytest.raises(ValueError, match="holds neither 'here'"):
        OURS.spread("something else", ("here", "at {url}"))
