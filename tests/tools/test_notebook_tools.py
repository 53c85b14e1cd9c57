"""The executor, the normaliser and the house check do what the book relies on."""

import copy
import functools
import itertools
import json
import re
import shutil
import subprocess
import sys

import execute_notebooks
import notebooks
import pytest
from tqdm import tqdm

NUMBERS = itertools.count()


def cell(source, kind="code", **metadata):
    extra = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "id": f"test-{next(NUMBERS)}", "metadata": metadata, "source": source, **extra}


def notebook(*cells):
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def store(tmp_path):
    def _store(*cells):
        path = tmp_path / "chapter.ipynb"
        path.write_text(json.dumps(notebook(*cells)))
        return path

    return _store


def run(path):
    return execute_notebooks.execute(path, tqdm(disable=True))


def test_execution_stores_outputs_counts_and_fingerprint(store):
    path = store(cell("# Title", "markdown"), cell("x = 6"), cell("print(x * 7)"))
    row = run(path)
    stored = notebooks.read(path)
    code = notebooks.code_cells(stored)
    assert [c["execution_count"] for c in code] == [1, 2]
    assert "".join(code[1]["outputs"][0]["text"]) == "42\n"
    assert not execute_notebooks.stale(path)
    assert set(row) == {"seconds", "peak_mb", "stored_kb"}
    assert row["peak_mb"] > 10


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import warnings; warnings.warn('odd')", "stderr"),
        ("import os; print(os.path.expanduser('~') + '/notes')", "path of the machine"),
        ("print('x' * 1_100_000)", "bytes stored"),
        ("object()", "shows what its last line returns"),
    ],
)
def test_a_run_that_must_not_be_stored_leaves_the_file_alone(store, code, message):
    path = store(cell(code))
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match=message):
        run(path)
    assert path.read_bytes() == before


def test_peak_memory_sees_what_a_cell_allocates(store):
    row = run(store(cell("b = bytearray(400_000_000); import time; time.sleep(0.3)")))
    assert 400 < row["peak_mb"] < 800


def test_memory_budget_is_enforced(store, monkeypatch):
    monkeypatch.setattr(execute_notebooks, "MAX_BYTES_IN_MEMORY", 1e6)
    with pytest.raises(RuntimeError, match="bytes of memory"):
        run(store(cell("import time; time.sleep(0.3)")))


def test_fingerprint_follows_imports_of_the_library_and_ignores_prose(tmp_path, monkeypatch):
    package = tmp_path / "kexue_lib"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text('"""Doc."""\nVALUE = 1\n')
    (package / "outer.py").write_text("def f():\n    from kexue_lib.inner import VALUE\n    return VALUE\n")
    (package / "other.py").write_text("VALUE = 1\n")
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    book = notebook(cell("prose", "markdown"), cell("%matplotlib inline\nfrom kexue_lib.outer import f"))
    first = notebooks.fingerprint(book)
    book["cells"][0]["source"] = "other prose"
    (package / "other.py").write_text("VALUE = 2\n")
    (package / "inner.py").write_text('"""Another doc."""\nVALUE = 1  # comment\n')
    assert notebooks.fingerprint(book) == first
    (package / "inner.py").write_text('"""Doc."""\nVALUE = 2\n')
    assert notebooks.fingerprint(book) != first


def test_normalising_is_idempotent_and_tags_deriving_cells():
    claim = {notebooks.CLAIM: {"label": "C1", "evidence": "proved"}, "text/plain": "C1"}
    raw = notebook(cell("d.equal(1)", execution={"a": 1}, tags=["hide-input"]), cell("  "), cell("2"))
    raw["cells"][0]["outputs"] = [{"output_type": "display_data", "data": claim, "metadata": {}, "transient": {}}]
    raw["cells"][2]["execution_count"] = 17
    once = notebooks.normalise(raw)
    assert once == notebooks.normalise(copy.deepcopy(once))
    assert once["cells"][0]["metadata"] == {"tags": ["hide-input", "nbval-check-output"]}
    assert [c["execution_count"] for c in once["cells"]] == [1, None, 2]


def test_every_notebook_is_current_measured_and_within_its_budget(monkeypatch):
    monkeypatch.setattr(notebooks, "_without_docstrings", functools.cache(notebooks._without_docstrings))
    table = json.loads(execute_notebooks.MEASURED.read_text())
    assert set(table) == {notebooks.relative(p) for p in notebooks.all_notebooks()}
    for path in notebooks.all_notebooks():
        assert not execute_notebooks.stale(path), f"{path.name}: run make notebooks"
    for name, row in table.items():
        assert row["seconds"] <= execute_notebooks.MAX_SECONDS, name
        assert row["peak_mb"] <= execute_notebooks.MAX_BYTES_IN_MEMORY / 1e6, name
        assert row["stored_kb"] <= execute_notebooks.MAX_BYTES_STORED / 1e3, name
    assert sum(row["seconds"] for row in table.values()) <= 20 * 60 * 2  # two at a time, 20 minutes together


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What nbval says of three claims: one as it was stored, one stored otherwise, one not stored."""
    first = (
        "import sympy as sp\nfrom kexue_lib.derivation import Derivation\nx = sp.symbols('x', real=True)\n"
        "d = Derivation('probe')\nd.equal('Square of a sum', (x + 1)**2, x**2 + 2*x + 1);"
    )
    others = [f"d.equal('Difference of squares, {k}', x**2 - {k}**2, (x - {k}) * (x + {k}));" for k in (2, 3)]
    folder = tmp_path_factory.mktemp("nbval")
    path = folder / "chapter.ipynb"
    path.write_text(json.dumps(notebook(*map(cell, (first, *others)))))
    shutil.copy(notebooks.ROOT / "conftest.py", folder)  # the settings that the chapters are tested with
    run(path)
    stored = notebooks.read(path)
    stored["cells"][1]["outputs"][0]["data"][notebooks.CLAIM]["statement"] += "+1"
    del stored["cells"][2]["outputs"][0]
    notebooks.write(path, stored)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--nbval-lax"]
    done = subprocess.run([*command, "--nbval-current-env", str(path)], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 1, done.stdout
    found = re.findall(r"^(PASSED|FAILED) \S*Cell (\d)", done.stdout, re.M)
    return {int(number): outcome for outcome, number in found}


@pytest.mark.parametrize(
    "changed", [pytest.param(1, id="stored claim differs"), pytest.param(2, id="stored claim vanished")]
)
def test_nbval_notices_a_claim_that_is_not_the_stored_one(outcomes, changed):
    assert set(outcomes) == {0, 1, 2}
    assert outcomes[0] == "PASSED"
    assert outcomes[changed] == "FAILED"
