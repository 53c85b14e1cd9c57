"""Spread the repository's address from ``_config.yml`` to everything that must name it.

``python tools/spread_address.py https://github.com/<owner>/<name>`` writes the address there and into badges, launch
links, set-up cells and metadata, which GitHub, Colab and pip read as plain text; without an argument it spreads the
one that stands there. An empty address is the state of a book that has no home yet: then nothing launches, and nothing
is installed from a name that anybody could register. ``--check`` changes nothing and exits 1 if a file differs.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import notebooks
import yaml

ROOT = notebooks.ROOT
GITHUB = r"https://github\.com/([\w.-]+)/([\w.-]+?)/?"
# In each file the text of a book without an address, and of one that has it.
TEXTS = {
    "README.md": (
        (
            "nothing else installed, in a copy of this repository:\n\n```bash\n",
            "nothing else installed:\n\n```bash\ngit clone {url} && cd {name}\n",
        ),
        ("the site: `make book` prints where it is.", "the site: [{site}](https://{site}/)."),
        (
            "**Launch** any page on Colab or Binder, as soon as your copy has an address (see the end).",
            "**Launch** any page in the cloud with the rocket at its top: [![Open in Colab](_static/badges/colab.svg)]"
            "({colab}/chapters/distributions/smooth_topk.ipynb) "
            "[![Launch on Binder](_static/badges/binder.svg)]({binder}/chapters)",
        ),
        ("the library: `pip install .` in a copy of this repository.", 'the library: `pip install "{package}"`.'),
    ),
    "intro.md": (
        (
            "**Launch it** on Binder or Colab, as soon as the book has an address of its own.",
            "**Launch it** on Binder or Colab with the rocket at the top of any chapter.",
        ),
        (
            "In a copy of the repository:\n\n```bash\nmake book ",
            "```bash\ngit clone {url}\ncd {name}\nmake book ",
        ),
        ("```bash\npip install .\n```", '```bash\npip install "{package}"\n```'),
        (
            "This book has no address of its own yet: no page launches or installs anything from the network.",
            "Launch links and set-up cells trust one address, {url}, at its tag {tag}.",
        ),
    ),
    "CONTRIBUTING.md": (
        (
            "In your copy of the repository:\n\n```bash\nmake test ",
            "```bash\ngit clone {url}\ncd {name}\nmake test ",
        ),
    ),
    "CITATION.cff": (('Proved and Run"\nlicense:', 'Proved and Run"\nrepository-code: {url}\nlicense:'),),
}
SET_UP = (
    """\
# Set-up: library, style, seed.
import importlib.util

if importlib.util.find_spec("kexue_lib") is None:
    raise ModuleNotFoundError(
        "kexue_lib is missing: in a copy of the book's repository run "
        "pip install -e '.[notebook]', then restart this kernel."
    )
""",
    """\
# Set-up: library (from the book's repository where missing), style, seed.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("kexue_lib") is None:
    source = "{extras}"
    install = [sys.executable, "-m", "pip", "install", "-q", source]
    subprocess.run(install, check=True)
    importlib.invalidate_caches()
""",
)
BADGES = (
    "",
    "\n\n[![Open in Colab](../../_static/badges/colab.svg)]({colab}/{path})\n"
    "[![Launch on Binder](../../_static/badges/binder.svg)]({binder}/{path})",
)


@dataclass(frozen=True)
class Address:
    """Where the book lives; empty where it has no home yet.

    Attributes:
        url: ``https://github.com/<owner>/<name>`` or empty.
        tag: what set-up cells install and badges open.
    """

    url: str
    tag: str

    def __post_init__(self) -> None:
        if self.url and not re.fullmatch(GITHUB, self.url):
            raise ValueError(f"url: got {self.url!r}, expected https://github.com/<owner>/<name> or nothing")

    def words(self, path: str = "") -> dict[str, str]:
        """Return what the texts are filled with.

        Args:
            path: of the notebook, from the repository's root.
        """
        owner, name = re.fullmatch(GITHUB, self.url).groups() if self.url else ("", "")
        source = f"git+{self.url}@{self.tag}"
        return {
            "url": self.url,
            "name": name,
            "tag": self.tag,
            "path": path,
            "site": f"{owner}.github.io/{name}",
            "package": f"kexue-lib @ {source}",
            "extras": f"kexue-lib[notebook] @ {source}",
            "colab": f"https://colab.research.google.com/github/{owner}/{name}/blob/{self.tag}",
            "binder": f"https://mybinder.org/v2/gh/{owner}/{name}/{self.tag}?urlpath=lab/tree",
        }

    def spread(self, text: str, states: tuple[str, str], path: str = "") -> str:
        """Return a text with the passage of this address in place of that of any other, or of none.

        Args:
            text: content of a file or a cell.
            states: the passage without an address, and with one.
            path: of the notebook.

        Raises:
            ValueError: the text has the passage in neither state.
        """
        wanted = states[1].format(**self.words(path)) if self.url else states[0]
        named = re.sub(r"\\\{\w+\\\}", r"[^\\s\"`)]+(?: @ [^\\s\"`)]+)?", re.escape(states[1]))
        pattern = named + (f"|{re.escape(states[0])}" if states[0] else "")
        if states[0] and not re.search(pattern, text):
            raise ValueError(f"text: holds neither {states[0]!r} nor the same with an address")
        return re.sub(pattern, lambda match: wanted, text)


def read_address() -> Address:
    """Return the address that ``_config.yml`` has, with the tag of the version in ``pyproject.toml``."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    version = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    return Address((config.get("repository") or {}).get("url") or "", f"v{version[1]}")


def rewritten_notebook(text: str, address: Address, path: str) -> str:
    """Return a stored notebook whose badges and set-up cell are those of the address.

    Args:
        text: the notebook's JSON.
        address: the address.
        path: of the notebook, from the repository's root.
    """
    content = notebooks.json.loads(text)
    first = content["cells"][0]
    title = Address("", "").spread(notebooks.source(first), BADGES).rstrip()
    if address.url:
        title += BADGES[1].format(**address.words(path))
    first["source"] = title.splitlines(keepends=True)
    cell = next(cell for cell in content["cells"] if cell["cell_type"] == "code")
    cell["source"] = address.spread(notebooks.source(cell), SET_UP, path).splitlines(keepends=True)
    return notebooks.text(content)


def rewritten(root: Path, address: Address) -> dict[Path, str]:
    """Return the files that do not name this address as they should, with what they should hold.

    Args:
        root: of the repository.
        address: the address.

    Raises:
        ValueError: a file holds a passage in neither state; the message names both.
    """
    differing = {}
    for path in [*map(root.joinpath, TEXTS), *sorted(root.glob("chapters/*/*.ipynb"))]:
        before = after = path.read_text(encoding="utf-8")
        name = path.relative_to(root).as_posix()
        try:
            if path.suffix == ".ipynb":
                after = rewritten_notebook(before, address, name)
            for states in TEXTS.get(path.name, ()):
                after = address.spread(after, states)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if before != after:
            differing[path] = after
    return differing


def main() -> int:
    """Rewrite, or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", help="the address to set first; '' for none")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file differs")
    options = parser.parse_args()
    if options.url is not None:
        Address(options.url, "")
        config = (ROOT / "_config.yml").read_text(encoding="utf-8")
        config = re.sub(r"^(repository:\n  url:).*$", rf'\g<1> "{options.url.rstrip("/")}"', config, flags=re.M)
        (ROOT / "_config.yml").write_text(config, encoding="utf-8")
    try:
        differing = rewritten(ROOT, read_address())
    except ValueError as error:
        sys.exit(str(error))
    for path, text in differing.items():
        print(
            f"{notebooks.relative(path)}: {'names another address than _config.yml' if options.check else 'rewritten'}"
        )
        if not options.check:
            path.write_text(text, encoding="utf-8", newline="\n")
    return int(options.check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
