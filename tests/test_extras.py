"""What a user of the bare library sees: a version, and errors that say which package is missing and what brings it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import kexue_lib

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("use", "what", "package"),
    [
        ("import kexue_lib.plotting", "kexue_lib.plotting", "matplotlib"),
        ("import kexue_lib.training", "kexue_lib.training", "accelerate"),
        ("import kexue_lib.training", "kexue_lib.training", "tqdm"),
        ("import kexue_lib.pretrain", "kexue_lib.training", "accelerate"),
        ("from kexue_lib.data import digits; digits()", "kexue_lib.data.digits", "sklearn"),
        ("from kexue_lib.checkpoints import load; load('positions/tiny_lm')", "kexue_lib.checkpoints", "safetensors"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(use, what, package):
    hide = f"import sys; sys.modules[{package!r}] = None; "
    done = subprocess.run([sys.executable, "-c", hide + use], capture_output=True, text=True, cwd=ROOT)
    last = done.stderr.splitlines()[-1]
    assert re.match(rf"ImportError: {what} needs {package}\S*, which the extra 'notebook' brings", last), done.stderr
    assert '".[notebook]"' in last


@pytest.mark.parametrize(
    ("file", "pattern"),
    [("pyproject.toml", r'^version = "(.*)"$'), ("CITATION.cff", r"^version: (.*)$"), ("CHANGELOG.md", r"^## (\d\S*)")],
)
def test_the_version_is_the_same_everywhere(file, pattern):
    found = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert found[1] == kexue_lib.__version__
