"""Run every test of the book in one pool of workers: the library, the tools, all notebooks, the site.

``run_costs`` says which tests stay together and in which order they start, and shows at the end what each part cost.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300"]


def main() -> int:
    """Run them, return pytest's status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("rest", nargs="*", help="what to test, and options of pytest after -- (default: everything)")
    options = parser.parse_args()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "run_costs", *NOTEBOOKS]
    command += ["-n", str(options.jobs), *(options.rest or ["chapters", "tests", "kexue_lib"])]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(ROOT / "tools")}
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
