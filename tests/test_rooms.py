"""The rooms of the library: what is public keeps its path and name, what is inner is used at home only."""

import ast
import importlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = "kexue_lib"
# The public paths and names; a release may add to them and takes none away.
PUBLIC = {
    line.split(":")[0]: line.split(":")[1].split()
    for line in (ROOT / "tests" / "public_names.txt").read_text(encoding="utf-8").splitlines()
}


def python_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


def public_modules() -> list[str]:
    paths = (path.relative_to(ROOT) for path in python_files() if path.is_relative_to(ROOT / LIBRARY))
    public = [path for path in paths if not any(p[0] == "_" and p != "__init__.py" for p in path.parts)]
    return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in public)


@pytest.mark.parametrize("module", PUBLIC)
def test_public_paths_and_names_stay(module):
    loaded = importlib.import_module(module)
    assert [name for name in PUBLIC[module] if not hasattr(loaded, name)] == []


def test_every_public_module_says_what_is_public():
    for name in public_modules():
        loaded = importlib.import_module(name)
        if "/checkpoints/" in loaded.__file__ and not loaded.__file__.endswith("__init__.py"):
            continue  # a script that made a checkpoint
        defined = {
            key
            for key, value in vars(loaded).items()
            if key[0] != "_" and callable(value) and getattr(value, "__module__", "") == name
        }
        stated = set(getattr(loaded, "__all__", ()))
        assert defined <= stated, f"{name}: {sorted(defined - stated)} stand in no __all__"
        assert all(hasattr(loaded, word) for word in stated), name


def test_inner_files_are_imported_at_home_only():
    """A package's own tests and benchmark may look inside it."""
    strangers = []
    for path in python_files():
        home = path.relative_to(ROOT).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != LIBRARY:
                continue
            for alias in node.names:
                parts = [*node.module.split("."), alias.name]
                inner = next((i for i, part in enumerate(parts) if part.startswith("_")), None)
                if inner is not None and not at_home(home, parts[1:inner]):
                    strangers.append(f"{'/'.join(home)} imports {'.'.join(parts)}")
    assert strangers == []


def at_home(file: tuple[str, ...], package: list[str]) -> bool:
    """Whether a file lies in a package of the library, or in the place of its tests or of its benchmark."""
    if file[0] == LIBRARY:
        return list(file[1 : 1 + len(package)]) == package
    names = {word.removeprefix(prefix) for word in file for prefix in ("test_", "ops_", "bench_", "")}
    return file[0] in ("tests", "benchmarks") and (not package or package[-1] in names)
