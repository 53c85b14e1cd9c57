"""Build the site from the stored outputs of the notebooks, with warnings as errors, and print where it is.

Sphinx rebuilds only the pages whose sources changed. ``--into FOLDER`` builds elsewhere, from scratch.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build(into: Path) -> Path:
    """Build the site.

    Args:
        into: folder that receives ``_build/html``.

    Returns:
        The path of the index page.

    Raises:
        SystemExit: a warning or an error of Sphinx; its report stands above.
    """
    run = "from jupyter_book.cli.main import main; main()"  # the package itself cannot be run with -m
    command = [sys.executable, "-c", run, "build", str(ROOT), "--path-output", str(into)]
    command += ["--warningiserror", "--keep-going", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\nthe site was not built: mend the warnings above")
    return into / "_build" / "html" / "index.html"


def main() -> None:
    """Build, then say where the site is and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=ROOT, help="folder that receives _build (default: the project)")
    start = time.perf_counter()
    index = build(parser.parse_args().into.resolve())
    print(f"built in {time.perf_counter() - start:.0f} s: {index}")


if __name__ == "__main__":
    main()
