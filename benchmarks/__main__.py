"""Run benchmarks and store their tables: all, or those named on the command line as ``part/slug``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Run each benchmark in a process of its own, then carry the tables into the chapters."""
    known = {f"{p.parent.name}/{p.stem.removeprefix('bench_')}": p for p in sorted(HERE.glob("*/bench_*.py"))}
    chosen = sys.argv[1:] or list(known)
    if unknown := [name for name in chosen if name not in known]:
        sys.exit(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    status = 0
    for name in chosen:
        module = f"benchmarks.{known[name].parent.name}.{known[name].stem}"
        print(f"== {name}", flush=True)
        status |= subprocess.run([sys.executable, "-m", module, "--save"], cwd=HERE.parent).returncode
    return status | subprocess.run([sys.executable, "tools/spread_measurements.py"], cwd=HERE.parent).returncode


if __name__ == "__main__":
    sys.exit(main())
