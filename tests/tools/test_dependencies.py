"""pyproject.toml, requirements.lock and environment.yml say the same, and say it in a form that their readers take."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = [Requirement(line) for line in (ROOT / "requirements.lock").read_text().splitlines() if line.strip()]
PINNED = {canonicalize_name(r.name): next(iter(r.specifier)).version for r in LOCK}
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
CONDA_NAMES = {"pytorch-cpu": "torch"}
DECLARED = {
    (extra, str(r)): r
    for extra, rows in {"runtime": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items()
    for r in map(Requirement, rows)
    if r.name != PROJECT["name"]
}


def conda_pins() -> dict[str, str]:
    pairs = (d.split("=") for d in CONDA["dependencies"] if isinstance(d, str) and "=" in d)
    return {CONDA_NAMES.get(name, name): version for name, version in pairs}


def test_lock_pins_every_package_exactly_and_without_addresses_or_hashes():
    for r in LOCK:
        assert [s.operator for s in r.specifier] == ["=="], r
        assert r.url is None
    assert "--" not in (ROOT / "requirements.lock").read_text()
    assert PINNED["torch"] == "2.13.0"


def test_lock_holds_no_gpu_package():
    assert not [name for name in PINNED if re.match(r"nvidia|cuda|triton", name)]


@pytest.mark.parametrize("requirement", DECLARED.values(), ids=[f"{e}:{r}" for e, r in DECLARED])
def test_lock_satisfies_what_the_project_declares(requirement):
    assert requirement.specifier.contains(PINNED[canonicalize_name(requirement.name)])


def test_environment_has_the_versions_of_the_lock():
    pins = {n: v for n, v in conda_pins().items() if n != "python"}
    assert pins == {n: PINNED[canonicalize_name(n)] for n in pins}


def test_environment_holds_what_the_notebooks_need_and_the_library_itself():
    needed = {Requirement(r).name for r in PROJECT["optional-dependencies"]["notebook"] + PROJECT["dependencies"]}
    assert needed <= set(conda_pins())
    assert {"pip": ["-e ."]} in CONDA["dependencies"]
    assert conda_pins()["python"] >= PROJECT["requires-python"].removeprefix(">=")


def test_environment_is_what_binder_accepts(monkeypatch):
    conda = pytest.importorskip("repo2docker.buildpacks.conda")
    monkeypatch.chdir(ROOT)
    pack = conda.CondaBuildPack(base_image="unused: nothing is built")
    assert pack.detect()
    assert pack.python_version == "3.11"
    assert pack.environment_yaml["name"] == CONDA["name"]
    # A local package in the environment: Binder must copy the repository before it installs.
    assert not pack._should_preassemble_env
    # A buildpack that comes earlier in its list, or a binder/ folder, would hide environment.yml.
    assert not any((ROOT / name).exists() for name in ("Dockerfile", "binder", ".binder", "Project.toml"))


def test_importing_a_module_of_a_chapter_needs_torch_and_jaxtyping_only():
    modules = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for part in (ROOT / "chapters").iterdir()
        for p in sorted((ROOT / "kexue_lib" / part.name).rglob("*.py"))
    ]
    heavy = ["sympy", "matplotlib", "accelerate", "sklearn", "scipy", "IPython", "transformers"]
    code = f"import sys\nimport torch\nbefore = set(sys.modules)\nimport {', '.join(modules)}\n"
    code += f"print([m for m in {heavy} if m in set(sys.modules) - before])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
