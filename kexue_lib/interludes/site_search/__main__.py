"""Search the book from a shell: ``python -m kexue_lib.interludes.site_search "smooth top-k" [-k 5] [--json PATH]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from kexue_lib.interludes.site_search import SiteSearch


def main(arguments: list[str] | None = None) -> None:
    """Print the best pages for a query, or write the index for the browser."""
    book = Path(__file__).resolve().parents[3]
    parser = argparse.ArgumentParser(description="Search the chapters of the book.")
    parser.add_argument("query", nargs="?", default="")
    parser.add_argument("-k", type=int, default=5, help="how many pages")
    parser.add_argument("--root", type=Path, default=book, help="folder that holds chapters/")
    parser.add_argument("--json", type=Path, help="write the index for _static/site_search.js")
    options = parser.parse_args(arguments)
    chapters = options.root / "chapters"
    site = SiteSearch.from_chapters([*chapters.glob("*/*.ipynb"), *chapters.glob("*/*.md")], options.root)
    if options.json:
        site.to_json(options.json)
    for hit in site.search(options.query, options.k):
        print(f"{hit.score:6.2f}  {hit.title}  {hit.url}\n        {hit.snippet}")


if __name__ == "__main__":
    main()
