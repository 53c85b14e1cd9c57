"""Store notebooks the way the book keeps them (see ``notebooks.normalise``); ``--check`` only says which differ."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import notebooks


def main() -> int:
    """Normalise the given notebooks, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks (default: all)")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if one differs or stores a fault")
    options = parser.parse_args()
    status = 0
    for path in options.paths or notebooks.all_notebooks():
        before = path.read_text(encoding="utf-8")
        content = notebooks.normalise(json.loads(before))
        for fault in notebooks.faults(content):
            print(f"{notebooks.relative(path)}: {fault}")
            status = 1
        if json.loads(before) != content:
            print(f"{notebooks.relative(path)}: {'not normalised' if options.check else 'normalised'}")
            status |= options.check
            if not options.check:
                notebooks.write(path, content)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
