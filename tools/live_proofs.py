"""The proof engine for readers' browsers: Python compiled for them, with the modules that deciding a claim needs.

``bundle()`` makes it once from the pinned packages and keeps it in the environment; npm brings the Python. As a script,
``python tools/live_proofs.py`` decides every stored claim with it and compares the evidence with the ledger.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import files, version
from pathlib import Path

import notebooks

FOLDER = notebooks.ROOT / "tools" / "live"
HOME = notebooks.ROOT / ".venv" / "live"
ENGINE = notebooks.ROOT / "kexue_lib" / "derivation"
LOCK = json.loads((FOLDER / "package-lock.json").read_text(encoding="utf-8"))
PYODIDE = LOCK["packages"]["node_modules/pyodide"]["version"]
PACKAGES = ("sympy", "mpmath")
# Of SymPy what no statement needs, unless importing the rest brings it.
LEFT_OUT = ("categories", "codegen", "crypto", "diffgeom", "geometry", "holonomic", "interactive", "liealgebras")
LEFT_OUT += ("parsing", "physics", "plotting", "printing", "sandbox", "stats", "testing", "vector")
# `simplify` asks for units, and compiling a formula for a kind of code.
KEPT = ("sympy.codegen", "sympy.codegen.ast", "sympy.physics", "sympy.physics.matrices", "sympy.physics.units")
LARGE = ("pyodide.asm.wasm.gz", "python_stdlib.zip", "modules.zip.gz")
NEEDED = "import json, sys, kexue_lib.derivation.answers as a; print(json.dumps(sorted(sys.modules)))"


class Missing(RuntimeError):
    """The engine cannot be made here; the message says what is missing."""


def bundle() -> Path:
    """Return the folder of the engine's files, made on the first call.

    Raises:
        Missing: no npm or node on the PATH, or npm could not install the pinned package.
    """
    made = HOME / _fingerprint()
    if (made / "manifest.json").exists():
        return made
    for program in ("npm", "node"):
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed")
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME) as room:
        _make(Path(room))
        with tempfile.TemporaryDirectory(dir=HOME) as aside:  # another process may have been faster
            if made.exists():
                made.rename(Path(aside) / "old")
        (Path(room) / "made").rename(made)
    for old in HOME.iterdir():
        if old.is_dir() and old != made and len(old.name) == 64:
            shutil.rmtree(old, ignore_errors=True)
    return made


def _fingerprint() -> str:
    digest = hashlib.sha256(json.dumps([PYODIDE, *map(version, PACKAGES)]).encode())
    for path in sorted([*ENGINE.glob("*.py"), *FOLDER.iterdir(), Path(__file__)]):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _make(room: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(FOLDER / name, room)
    _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], room)
    pyodide, made = room / "node_modules" / "pyodide", room / "made"
    made.mkdir()
    (room / "list.json").write_text(json.dumps(list(_sources())), encoding="utf-8")
    _run(["node", str(FOLDER / "compile.mjs"), str(pyodide), str(room / "list.json"), str(room / "modules.zip")], room)
    for name in ("pyodide.mjs", "pyodide.asm.mjs", "python_stdlib.zip"):
        shutil.copy(pyodide / name, made)
    for source in (pyodide / "pyodide.asm.wasm", room / "modules.zip"):
        (made / f"{source.name}.gz").write_bytes(gzip.compress(source.read_bytes(), 9, mtime=0))
    (made / "LICENSES.txt").write_text(_licenses(), encoding="utf-8")
    lock = json.loads((pyodide / "pyodide-lock.json").read_text(encoding="utf-8"))
    manifest = {
        "version": _fingerprint()[:12],
        "bytes": sum((made / name).stat().st_size for name in LARGE),
        "lock": {"info": lock["info"], "packages": {}},
    }
    (made / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout).strip()[-400:]}")


def _sources() -> Iterator[tuple[str, str]]:
    """Yield each module's source and its name in the archive."""
    yield "", "kexue_lib/__init__.py"  # an empty one
    for path in sorted(ENGINE.glob("*.py")):
        yield str(path), f"kexue_lib/derivation/{path.name}"
    shown = subprocess.run([sys.executable, "-c", NEEDED], capture_output=True, text=True, check=True)
    imported = set(json.loads(shown.stdout))
    for package in PACKAGES:
        for file in sorted(files(package), key=str):
            name = str(file)
            parts = Path(name).with_suffix("").parts
            if parts[0] != package or not name.endswith(".py") or {"tests", "benchmarks"} & set(parts):
                continue
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            kept = module in (*imported, *KEPT) or module.startswith(f"{KEPT[-1]}.")
            if kept or not set(parts[1:2]) & {*LEFT_OUT, "function_docs"}:
                yield str(file.locate()), name


def _licenses() -> str:
    heads = [f"Pyodide {PYODIDE}: Mozilla Public License 2.0, source at https://github.com/pyodide/pyodide"]
    for package in PACKAGES:
        texts = [f.read_text() for f in files(package) if f.name == "LICENSE" and "dist-info" in str(f)]
        heads.append("\n".join([f"{package} {version(package)}:", *texts]))
    return "\n\n".join(heads)


# --- all claims of the book -------------------------------------------------------------------------------------------


def stored_facts() -> dict[str, dict[str, dict]]:
    """Return what a browser has to know of each chapter's claims, by label."""
    found: dict[str, dict[str, dict]] = {}
    for path in notebooks.all_notebooks():
        content = notebooks.read(path)
        steps = (step for group in notebooks.bundles(content, notebooks.CALCULATION) for step in group["steps"])
        claims = {claim["label"]: claim for claim in (*notebooks.bundles(content, notebooks.CLAIM), *steps)}
        found[path.stem] = {
            label: {
                "form": claim["form"],
                "evidence": claim["evidence"],
                "uses": [claims[used]["evidence"] for used in claim["uses"]],
            }
            for label, claim in claims.items()
            if claim["form"]
        }
    return found


def main() -> None:
    """Decide every stored claim in the browsers' Python; exit with an error where one answer differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=120.0, help="for the attempts at one proof")
    chosen = parser.parse_args()
    made = bundle()
    claims = [[chapter, label, facts] for chapter, known in stored_facts().items() for label, facts in known.items()]
    with tempfile.TemporaryDirectory() as room:
        running = []
        for job in range(chosen.jobs):
            (Path(room) / f"{job}.json").write_text(json.dumps(claims[job :: chosen.jobs]), encoding="utf-8")
            command = ["node", str(FOLDER / "check.mjs"), str(made), f"{job}.json", str(chosen.seconds)]
            running.append(subprocess.Popen(command, cwd=room, stdout=subprocess.PIPE, text=True, env={**os.environ}))
        answers = [json.loads(line) for process in running for line in process.communicate()[0].splitlines()]
    different = [a for a in answers if a["answer"] != a["evidence"]]
    for one in different:
        print(
            f"{one['chapter']} {one['label']}: the ledger says {one['evidence']}, here {one['answer']} ({one['why']})"
        )
    count = Counter(a["evidence"] for a in answers if a["answer"] == a["evidence"])
    seconds = sorted(a["seconds"] for a in answers)
    print(f"{len(answers)} of {len(claims)} claims decided, the same evidence for {sum(count.values())}: {dict(count)}")
    middle, high = seconds[len(seconds) // 2], seconds[9 * len(seconds) // 10]
    print(f"seconds for one: median {middle:.2f}, nine of ten below {high:.1f}")
    sys.exit(bool(different) or len(answers) != len(claims))


if __name__ == "__main__":
    main()
