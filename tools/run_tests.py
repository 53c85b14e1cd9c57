"""Run every test of the book: the library and the tools, then every notebook, then the site.

Three runs of pytest, because they want different workers: units spread test by test, notebooks file by file (one
kernel each), the site in one browser. All run even if one fails; the exit status is the worst of theirs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the three, print the time of each, return the worst status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default: 2)")
    jobs = ["-n", str(parser.parse_args().jobs)]
    by_file = [*jobs, "--dist", "loadfile"]
    runs = {
        "library and tools": ["tests", "kexue_lib", "--ignore=tests/site", *jobs, "--dist", "worksteal"],
        "notebooks": ["chapters", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", *by_file],
        "site": ["tests/site"],
    }
    worst, lines = 0, []
    for name, arguments in runs.items():
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        status = subprocess.run(command, cwd=ROOT, env={"OMP_NUM_THREADS": "1", **os.environ}).returncode
        worst = max(worst, status)
        verdict = "passed" if status == 0 else f"failed (exit {status})"
        lines.append(f"   {name}: {verdict}, {time.perf_counter() - start:.0f} s")
    print("\n".join(lines))
    return worst


if __name__ == "__main__":
    sys.exit(main())
