"""Spread the repository's address from ``_config.yml`` to everything that must name it.

It stands once, under ``repository:``, as ``url`` and ``branch``. Badges, launch links, set-up cells and metadata name
it too, because GitHub, Colab and pip read those as plain text. Change it in ``_config.yml``, run this, commit.
``--check`` changes nothing and exits 1 if a file names another address.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("README.md", "CITATION.cff", "CONTRIBUTING.md", "intro.md", "chapters/*/*.ipynb", "chapters/*/*.md")
SLUG = r"[\w.-]+/[\w.-]+?"
# Each pattern keeps what surrounds owner/name and branch; Pages serves at owner.github.io/name.
FORMS = (
    (rf"(colab\.research\.google\.com/github/){SLUG}/blob/[\w.-]+/", r"\g<1>{slug}/blob/{branch}/"),
    (rf"(mybinder\.org/v2/gh/){SLUG}/[\w.-]+(?=\?|\"|\))", r"\g<1>{slug}/{branch}"),
    (rf"(git\+https://github\.com/){SLUG}(?=[\"'\s`)@\\]|$)", r"\g<1>{slug}"),
    (rf"(git clone https://github\.com/){SLUG}(?=[\"'\s`)]|$)", r"\g<1>{slug}"),
    (rf"(repository-code: https://github\.com/){SLUG}(?=\s|$)", r"\g<1>{slug}"),
    (rf"(github\.com/){SLUG}(/actions/workflows/)", r"\g<1>{slug}\g<2>"),
    (r"https://[\w-]+\.github\.io/[\w.-]+?(?=/|\"|\)|\s|$)", r"https://{owner}.github.io/{name}"),
)


def address() -> tuple[str, str, str]:
    """Return owner, name and branch as ``_config.yml`` has them.

    Raises:
        SystemExit: the address is missing or not one of GitHub's.
    """
    repository = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8")).get("repository", {})
    match = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+?)/?", repository.get("url", ""))
    if not match:
        sys.exit("_config.yml: repository.url must be https://github.com/<owner>/<name>")
    return match[1], match[2], repository.get("branch", "main")


def rewritten(text: str, owner: str, name: str, branch: str) -> str:
    """Return a text in which every mention of the book's repository has this address.

    Args:
        text: content of a file.
        owner: GitHub user or organisation.
        name: repository.
        branch: branch that the links open.
    """
    for pattern, form in FORMS:
        target = form.replace("{slug}", f"{owner}/{name}").replace("{branch}", branch)
        text = re.sub(pattern, target.replace("{owner}", owner).replace("{name}", name), text, flags=re.M)
    return text


def main() -> int:
    """Rewrite, or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file differs")
    check = parser.parse_args().check
    differing = []
    for path in sorted(p for pattern in PLACES for p in ROOT.glob(pattern)):
        before = path.read_text(encoding="utf-8")
        after = rewritten(before, *address())
        if before != after:
            differing.append(path.relative_to(ROOT).as_posix())
            if not check:
                path.write_text(after, encoding="utf-8")
    for name in differing:
        print(f"{name}: {'names another address than _config.yml' if check else 'rewritten'}")
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
