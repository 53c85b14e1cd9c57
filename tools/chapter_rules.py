"""What the house asks of a chapter: its places, its anatomy, its length, and what its cards and verdicts say."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import notebooks

MAX_CELL_LINES, MAX_COLUMNS, MIN_CLAIMS, MIN_FIGURES, MAX_BYTES = 30, 80, 8, 3, 1_000_000
MAX_CHARACTERS, MAX_WORDS, MAX_CARDS, MAX_FIGURES, MAX_INSTANCES = 60_000, 3_500, 40, 8, 1 / 20
SECTIONS = ("in your own code", "against the field", "beyond the article", "exercises", "references")
LATER_SECTIONS = ("which one", "what to keep", "where next")
UNWRITTEN = re.compile(r"^(?:#+ +)?…$|\| … \||\*\* …$|\*…\* \(…\)", re.M)
BOOK_IN_NOTEBOOK = re.compile(r"^(```\{|:::|\{[a-z]+\}`)", re.M)
WORDS = re.compile(r"\\text(?:bf|rm|it)?\{[^{}]*\}")
# LaTeX that lost its backslash on the way: a control character that was \t, \r, \f or \a, or the rest of a command.
BROKEN_LATEX = re.compile(
    r"[\x00-\x09\x0b-\x1f]|''|(?<![\\a-zA-Z])(?:rho|ho|heta|theta|abla|nabla|extbf|rac|frac|imes|times|lpha|alpha)(?![a-zA-Z])"
)


@dataclass(frozen=True)
class Chapter:
    """A stored notebook, and what lint reads from it.

    Attributes:
        path: ``chapters/<part>/<slug>.ipynb``.
    """

    path: Path

    @property
    def name(self) -> str:
        """Part and slug."""
        return f"{self.path.parent.name}/{self.path.stem}"

    @cached_property
    def content(self) -> dict:
        """The notebook."""
        return notebooks.read(self.path)

    @cached_property
    def code(self) -> list[dict]:
        """Its code cells that hold code."""
        return notebooks.code_cells(self.content)

    @cached_property
    def prose(self) -> str:
        """The text of its Markdown cells."""
        cells = (notebooks.source(c) for c in self.content["cells"] if c["cell_type"] == "markdown")
        return "\n".join(cells).replace(notebooks.ANSWER, "")

    @cached_property
    def claims(self) -> list[dict]:
        """The bundles of claims and of the steps of calculations."""
        return list(notebooks.bundles(self.content, notebooks.CLAIM))

    @cached_property
    def cards(self) -> list[dict]:
        """The claims alone: what the page shows as a card."""
        return [claim for claim in self.claims if claim["kind"] == "claim"]

    @cached_property
    def instances(self) -> list[str]:
        """Labels of the symbolic claims that hold for one size only."""
        one_size = re.compile(r"\b[a-zA-Z_]+ = [\d(]")
        chosen = [c for c in self.cards if c["instance"] or one_size.search(c["scope"])]
        return [c["label"] for c in chosen if c["evidence"] != "measured"]

    @cached_property
    def outputs(self) -> list[dict]:
        """All stored outputs."""
        return [output for cell in self.code for output in cell.get("outputs", [])]

    @cached_property
    def figures(self) -> int:
        """How many pictures the page shows."""
        return sum(any(m.startswith("image/") for m in o.get("data", {})) for o in self.outputs)

    @cached_property
    def characters(self) -> int:
        """Length of the page's text: prose, code, and the words and formulas of the outputs, runs of blanks as one."""
        parts = [self.prose, *map(notebooks.source, self.code), *map(_shown, self.outputs)]
        return len(re.sub(r"\s+", " ", "\n".join(parts)))

    @cached_property
    def words(self) -> int:
        """Words of prose."""
        return len(self.prose.split())

    def summary(self) -> str:
        """One line of figures."""
        share = len(self.instances) / max(1, len(self.cards))
        return (
            f"{self.name:38}{self.characters:8} characters{self.words:6} words{len(self.cards):4} cards"
            f"{self.figures:4} figures{share:6.0%} instances"
        )


def _shown(output: dict) -> str:
    """The words and formulas that an output puts on the page."""
    data = output.get("data", {})
    for mime in (notebooks.CLAIM, notebooks.VERDICT):
        if mime in data:
            shown = ("title", "statement", "scope", "claimed", "obtained", "why")
            return " ".join(str(data[mime].get(key, "")) for key in shown)
    if any(mime.startswith("image/") for mime in data):
        return ""
    text = data.get("text/markdown") or data.get("text/latex") or data.get("text/plain") or output.get("text", "")
    return text if isinstance(text, str) else "".join(text)


def faults(path: Path) -> list[str]:
    """Return what a chapter breaks of the rules for notebooks, places and length.

    Args:
        path: ``chapters/<part>/<slug>.ipynb``.

    Returns:
        One sentence for each fault.
    """
    chapter = Chapter(path)
    found = [*notebooks.faults(chapter.content), *place_faults(chapter)]
    found += [*form_faults(chapter), *standard_faults(chapter)]
    return [f"{notebooks.relative(path)} {fault}" for fault in found]


def place_faults(chapter: Chapter) -> list[str]:
    """Return which of the places that belong to a chapter are missing.

    Args:
        chapter: the chapter.
    """
    part, slug = chapter.name.split("/")
    places = [
        (f"kexue_lib/{part}/{slug}.py", f"kexue_lib/{part}/{slug}/__init__.py"),
        (f"tests/{part}/test_{slug}.py", f"tests/{part}/{slug}"),
        (f"benchmarks/{part}/bench_{slug}.py",),
        (f"api/{part}.md",),
    ]
    found = [
        f"has no {' or '.join(choice)}" for choice in places if not any((notebooks.ROOT / p).exists() for p in choice)
    ]
    tests = [*(notebooks.ROOT / f"tests/{part}").glob(f"test_{slug}.py")]
    tests += (notebooks.ROOT / f"tests/{part}/{slug}").glob("test_*.py")
    if tests and not any(re.search(r"^def test_", test.read_text(encoding="utf-8"), re.M) for test in tests):
        found.append("has no test of its library")
    lines = {
        "_toc.yml": rf"file: chapters/{chapter.name}\b",
        "chapters/articles.yml": rf"slug: {slug}\b",
        "api/index.md": rf"\b{part}\b",
    }
    for file, line in lines.items():
        if not re.search(line, (notebooks.ROOT / file).read_text(encoding="utf-8")):
            found.append(f"has no line in {file}")
    return found


def form_faults(chapter: Chapter) -> list[str]:
    """Return what every notebook of the book keeps and this one does not.

    Args:
        chapter: the chapter.
    """
    found = []
    if [c["execution_count"] for c in chapter.code] != list(range(1, len(chapter.code) + 1)):
        found.append("is not the result of one clean run")
    if len(chapter.claims) < MIN_CLAIMS:
        found.append(f"has {len(chapter.claims)} checked steps; a chapter has {MIN_CLAIMS} or more")
    if chapter.figures < MIN_FIGURES:
        found.append(f"has fewer than {MIN_FIGURES} figures")
    if (size := chapter.path.stat().st_size) > MAX_BYTES:
        found.append(f"stores {size / 1e6:.2f} MB; the budget is {MAX_BYTES / 1e6:.0f} MB")
    for number, cell in enumerate(chapter.code, 1):
        if notebooks.source(cell).count("\n") >= MAX_CELL_LINES:
            found.append(f"code cell {number} is longer than {MAX_CELL_LINES} lines")
        drawn = any("image/png" in o.get("data", {}) for o in cell.get("outputs", []))
        if drawn and "nbval-check-output" in cell["metadata"].get("tags", []):
            found.append(f"code cell {number} is compared with its stored output and draws, which tests cannot compare")
        if drawn and not cell["metadata"].get("mystnb", {}).get("image", {}).get("alt"):
            found.append(f"code cell {number} draws a figure without alternative text")
    found += [f"has no section '{s}'" for s in SECTIONS if not re.search(rf"^#+ .*{s}", chapter.prose, re.I | re.M)]
    if unwritten := UNWRITTEN.findall(chapter.prose):
        found.append(f"has {len(unwritten)} places where an ellipsis stands for the text")
    found += answer_faults(chapter)
    if "kexue.fm/archives/" not in chapter.prose:
        found.append("does not link to its article")
    if not re.search(r"\*\*Run time\*\*", chapter.prose):
        found.append("does not say its run time in the table below its title")
    if BOOK_IN_NOTEBOOK.search(chapter.prose):
        found.append("uses a MyST directive, which GitHub and Colab show as raw text")
    return found


def answer_faults(chapter: Chapter) -> list[str]:
    """Return what is wrong with the exercises that a reader of the site can answer on the page.

    Args:
        chapter: the chapter.
    """
    tasks, found = [], []
    for cell in chapter.content["cells"]:
        asked = cell["metadata"].get("answers", [])
        tasks += asked
        if notebooks.source(cell).count(notebooks.ANSWER) != len(asked):
            found.append(f"a cell has {len(asked)} answers in its metadata, and not as many places for them")
    if not tasks:
        found.append("has no exercise that its reader can answer on the page")
    keys = {"kind", "prompt", "symbols", "given", "wanted", "wrong"}
    return found + [f"the answer to {task.get('prompt')!r} lacks a key" for task in tasks if set(task) != keys]


def standard_faults(chapter: Chapter) -> list[str]:
    """Return where a chapter is too long, shows what needs no card, or says more than its run.

    Args:
        chapter: the chapter.
    """
    found = [
        f"has {count} {what}, at most {limit}: keep what serves the chapter's question"
        for what, count, limit in (
            ("characters", chapter.characters, MAX_CHARACTERS),
            ("words of prose", chapter.words, MAX_WORDS),
            ("cards", len(chapter.cards), MAX_CARDS),
            ("figures", chapter.figures, MAX_FIGURES),
        )
        if count > limit
    ]
    if len(chapter.instances) > max(1, MAX_INSTANCES * len(chapter.cards)):
        found.append(f"proves {len(chapter.instances)} claims for one size only ({', '.join(chapter.instances)})")
    missing = [s for s in LATER_SECTIONS if not re.search(rf"^#+ .*{s}", chapter.prose, re.I | re.M)]
    found += [f"has no section '{s}'" for s in missing]
    for number, cell in enumerate(chapter.code, 1):
        wide = max(map(len, notebooks.source(cell).splitlines()))
        if wide > MAX_COLUMNS:
            found.append(f"code cell {number} has a line of {wide} columns, at most {MAX_COLUMNS}")
        found += [f"code cell {number}: {fault}" for fault in call_faults(notebooks.source(cell))]
    for output in chapter.outputs:
        latex = WORDS.sub("", "".join(output.get("data", {}).get("text/latex", "")))
        if match := BROKEN_LATEX.search(latex):
            found.append(f"shows LaTeX that did not render: {latex[max(0, match.start() - 20) : match.end() + 20]!r}")
    for claim in chapter.claims:
        if claim["title"].startswith(("…", "...")):
            found.append(f"{claim['label']}: the title {claim['title']!r} means nothing alone")
        if claim["evidence"] != "measured" and "Symbol(" not in claim["form"] and "Indexed" not in claim["form"]:
            found.append(f"{claim['label']} ({claim['title']}) is arithmetic on typed-in constants, no claim")
    return found


def call_faults(code: str) -> list[str]:
    """Return the verdicts and measured claims of a cell that hold no value of the run, and tables that nobody sees.

    Args:
        code: the cell's source.
    """
    plain = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in code.splitlines())
    tree = ast.parse(plain)
    found = [
        f"{ast.unparse(line)[:60]} is not shown: a table has to be the last line of its cell"
        for line in tree.body[:-1]
        if isinstance(line, ast.Expr) and isinstance(line.value, ast.Call) and ast.unparse(line.value.func) == "table"
    ]
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args):
            continue
        title = ast.unparse(call.args[0])
        given = {k.arg: k.value for k in call.keywords}
        slip = isinstance(given.get("verdict"), ast.Constant) and given["verdict"].value == "slip in the source"
        if call.func.attr == "verdict" and "obtained" in given and not slip and _typed(given["obtained"]):
            found.append(f"verdict {title}: 'obtained' holds no value of the run")
        if call.func.attr == "measured" and len(call.args) > 1 and _typed(call.args[1]):
            found.append(f"measured {title}: 'observed' holds no value of the run")
    return found


def _typed(node: ast.expr) -> bool:
    """Whether an expression names nothing, so that no run can change it."""
    return not any(isinstance(part, ast.Name) for part in ast.walk(node))


def summaries(paths: list[Path]) -> str:
    """Return a line of figures for each chapter.

    Args:
        paths: of notebooks.
    """
    return "\n".join(Chapter(path).summary() for path in paths)
