"""A newcomer's way from `make chapter` to a chapter that lint accepts, as CONTRIBUTING.md tells it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import new_chapter
import notebooks
import pytest

ROOT = notebooks.ROOT
PARTS = (
    "_config.yml",
    "_static",
    "_toc.yml",
    "pyproject.toml",
    "api",
    "benchmarks",
    "chapters",
    "kexue_lib",
    "tests",
    "tools",
)
LIBRARY = '''
from jaxtyping import Float
from torch import Tensor

__all__ = ["geometric_mean"]


def geometric_mean(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Geometric mean, $exp(mean log x)$.

    Args:
        x: ``(..., n)``, positive.

    >>> import torch
    >>> geometric_mean(torch.tensor([1.0, 4.0]))
    tensor(2.)
    """
    return x.log().mean(-1).exp()
'''
DERIVATION = """
x, y = sp.symbols("x y", positive=True)
root, mean = sp.sqrt(x * y), (x + y) / 2
gap = (sp.sqrt(x) - sp.sqrt(y)) ** 2 / 2
d.holds("The geometric mean is below the arithmetic", root <= mean)
d.holds("The harmonic mean is below the geometric", x * y / mean <= root)
d.equal("Squares of sum and difference", (x + y) ** 2 - (x - y) ** 2, 4 * x * y)
d.equal("Distance of the means", mean - root, gap)
d.equal("Derivative in one entry", sp.Derivative(root, x), sp.sqrt(y / x) / 2)
d.equal("Logarithm of the mean", sp.log(root), (sp.log(x) + sp.log(y)) / 2)
d.equal("Sum times reciprocals", (x + y) * (1 / x + 1 / y), 2 + x / y + y / x)
d.holds("Below the sum", sp.sqrt(x * (x + y)) <= x + y);
"""
FIGURE = """
t = torch.linspace(0.1, 1, 20)
lines(t, {{"mean": t**{power}}}, title="Power {power}", xlabel="x", ylabel="y");
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A clone of the repository, as git knows it."""
    root = tmp_path_factory.mktemp("clone")
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__", "vendor"))
        else:
            shutil.copy(source, root / name)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def run(root: Path, *command: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    environment.pop("MPLBACKEND", None)  # a kernel draws into the notebook
    return subprocess.run([sys.executable, *command], cwd=root, env=environment, capture_output=True, text=True)


def faults(root: Path) -> list[str]:
    shown = run(root, "tools/check_house.py").stdout.splitlines()
    return [line for line in shown if "example" in line and " characters " not in line]


def fill(root: Path) -> None:
    """Write what lint still misses, each in its place."""
    path = root / "chapters" / "interludes" / "example.ipynb"
    content = notebooks.read(path)
    for cell in content["cells"]:
        cell["source"] = notebooks.source(cell).replace("…", "Words about means.")
        if "## Exercises" in cell["source"]:
            cell["source"] = cell["source"].replace("## Exercises", "## Exercises\n\n<!-- answer -->")
            task = {"kind": "expression", "prompt": "Twice x", "symbols": "x: real", "given": ""}
            cell["metadata"]["answers"] = [{**task, "wanted": "2*x", "wrong": "x^2"}]
    title, derivation = content["cells"][0], DERIVATION.strip()
    title["source"] = title["source"].replace("archives/0", "archives/1")
    new = [derivation, *(FIGURE.format(power=power).strip() for power in (1, 2, 3))]
    alt = {"mystnb": {"image": {"alt": "A curve that rises from left to right."}}}
    cells = [
        {"cell_type": "code", "metadata": alt if "lines" in code else {}, "source": code, "outputs": []} for code in new
    ]
    content["cells"][4:4] = cells
    path.write_text(json.dumps(content), encoding="utf-8")
    module = root / "kexue_lib" / "interludes" / "example.py"
    text = module.read_text(encoding="utf-8").replace("…", "Means", 1)
    module.write_text(text.replace("\n__all__: list[str] = []\n", LIBRARY), encoding="utf-8")
    test = root / "tests" / "interludes" / "test_example.py"
    code = "\nimport torch\n\nfrom kexue_lib.interludes.example import geometric_mean\n\n\ndef test_two_numbers():\n"
    code += "    assert geometric_mean(torch.tensor([2.0, 8.0])).sub(4).abs() < 1e-5\n"
    test.write_text(test.read_text(encoding="utf-8").replace("…", "means") + code, encoding="utf-8")
    for name in ("benchmarks/interludes/bench_example.py", "kexue_lib/interludes/__init__.py", "api/interludes.md"):
        place = root / name
        place.write_text(place.read_text(encoding="utf-8").replace("…", "Means"), encoding="utf-8")


def test_a_new_chapter_is_begun_filled_and_accepted(copy):
    begun = run(copy, "tools/new_chapter.py", "interludes", "example")
    assert begun.returncode == 0, begun.stderr
    missing = " ".join(faults(copy))
    for words in ("checked steps", "figures", "has no test", "an ellipsis stands", "older than the code"):
        assert words in missing, missing
    fill(copy)
    executed = run(copy, "tools/execute_notebooks.py", "chapters/interludes/example.ipynb")
    assert executed.returncode == 0, executed.stdout + executed.stderr
    assert faults(copy) == []
    tested = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/interludes", "kexue_lib/interludes")
    assert tested.returncode == 0, tested.stdout
    style = run(copy, "-m", "ruff", "check", "kexue_lib/interludes", "tests/interludes", "benchmarks/interludes")
    assert style.returncode == 0, style.stdout


def test_the_contents_lead_to_the_first_chapter_of_a_part(tmp_path):
    for name in ("_toc.yml", "chapters/articles.yml", "chapters/matrices/index.md", "api/index.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    new_chapter.begin(tmp_path, "matrices", "example_one")
    new_chapter.begin(tmp_path, "matrices", "example_two")
    toc = (tmp_path / "_toc.yml").read_text(encoding="utf-8")
    assert "file: chapters/matrices/example_one\n          - file: chapters/matrices/example_two\n" in toc
    assert toc.count("chapters/matrices/index") == 1
    assert toc.count("file: api/matrices") == 1
    assert (tmp_path / "api" / "matrices.md").is_file()


@pytest.mark.parametrize(
    ("part", "slug", "message"),
    [
        ("nowhere", "example", "part: got 'nowhere', expected one of distributions"),
        ("interludes", "Example 1", "slug: got 'Example 1', expected lower-case letters"),
        ("distributions", "squareplus", "slug: 'squareplus' has chapters/distributions/squareplus.ipynb"),
    ],
)
def test_what_cannot_be_begun_is_refused(part, slug, message):
    with pytest.raises(new_chapter.Begun, match=message):
        new_chapter.begin(ROOT, part, slug)
