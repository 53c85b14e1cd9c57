"""Write ``requirements.lock``: one exact version of every package, good on every platform and Python of the book.

uv resolves for all platforms at once. PyTorch's own GPU packages are left out of the lock: which of them are needed
depends on the build of PyTorch that pip chooses on the machine, and that build names them exactly itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# torch: the version that every stored output was made with. Theme: later ones draw a second search field.
HELD = ("torch==2.13.0", "sphinx-book-theme==1.1.4", "pydata-sphinx-theme==0.15.4")
LEFT_OUT = re.compile(r"^(nvidia-|cuda-|triton\b)")


def main() -> None:
    """Resolve, drop the platform's GPU packages, write the lock."""
    with tempfile.TemporaryDirectory() as folder:
        constraints, out = Path(folder, "held.txt"), Path(folder, "lock.txt")
        constraints.write_text("\n".join(HELD))
        command = "uv pip compile --universal --python-version 3.10 --fork-strategy fewest --all-extras --no-header"
        command += f" --no-annotate pyproject.toml -c {constraints} -o {out}"
        try:
            subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        except subprocess.CalledProcessError:
            sys.exit("lock failed; install uv into .venv (pip install uv) and see its message above")
        pins = [line for line in out.read_text().splitlines() if not LEFT_OUT.match(line)]
    (ROOT / "requirements.lock").write_text("\n".join(pins) + "\n")
    print(f"requirements.lock: {len(pins)} packages")


if __name__ == "__main__":
    main()
