"""The reference of the library, written by its docstrings, and the links between it and the chapters."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms.post_transforms import SphinxPostTransform

from .bundles import inline
from .pages import BookDirective, table

LIBRARY = "kexue_lib"
# `grad_topk`, `grad_topk(x, k)` and `smooth_topk.grad_topk` all name the same function in prose.
NAMED = re.compile(r"(?:[\w.]+\.)?(\w+)(?:\([^()]*\))?")
# What a docstring marks on purpose: code, math, strong words, fields such as :param x:.
MARKED = re.compile(r"(``.+?``|:\w+(?:\s[^:]*)?:(?:`[^`]+`)?|`[^`]+`_{0,2}|\$[^$\s](?:[^$]*[^$\s])?\$|\*\*\w.*?\*\*)")
ROLE = re.compile(r"(?::(\w+):)?`([^`]+)`|\*(\w+)\*")  # :role:`content`, `content`, *word*
UNINTENDED = re.compile(r"(?<!\\)[|*]|(?<=\w)_(?!\w)")


class ApiModules(BookDirective):
    """The modules of one package of the library, each with its members; the argument is the package's name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return one section for each public module."""
        package = self.arguments[0]
        titles = {chapter.module: chapter for chapter in self.written()}
        sections = []
        for name in modules(self.root, package):
            section = self.section(
                [nodes.literal("", name.removeprefix(f"{LIBRARY}."), classes=["xref"])], f"module-{name}"
            )
            if chapter := titles.get(name):
                line = nodes.paragraph("", "Explained in the chapter ", classes=["see-chapter"])
                line += [self.page_link(chapter.article.docname, *inline(self, chapter.title)), nodes.Text(".")]
                section += line
            section += self._contents(name)
            text = f"```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n   :member-order: bysource\n```"
            self.state.nested_parse(StringList(text.splitlines(), source=""), self.content_offset, section)
            sections.append(section)
        return sections or [nodes.paragraph("", "Nothing is here yet.")]

    def _contents(self, module: str) -> list[nodes.Node]:
        """How to import from a module, and all that it has, each leading to its entry below."""
        statement = nodes.literal("", f"from {module} import …", classes=["xref"])
        found: list[nodes.Node] = [nodes.paragraph("", "", statement, classes=["import-line"])]
        rows = [member_row(self.env.docname, module, name, summary) for name, summary, _ in members(module)]
        return found + ([table(["Name", "What it does"], rows)] if rows else [])


class PartFunctions(BookDirective):
    """Tables of what the chapters of one part provide, in reading order; the argument is the part's name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a table for each chapter, and one for what they share: a name, and the first line of its docstring."""
        part = self.arguments[0]
        chapters = {chapter.module: chapter for chapter in self.written() if chapter.article.part == part}
        known = modules(self.root, part)
        found, shown, shared = [], set(), []
        for name in [*(m for m in chapters if m in known), *(m for m in known if m not in chapters)]:
            self.env.note_dependency(str(module_file(self.root, name)))
            rows = [
                member_row(self.env.docname, name, member, summary)
                for member, summary, of in members(name)
                if of not in shown
            ]
            shown |= {of for *_, of in members(name)}
            if chapter := chapters.get(name):
                found += self._titled(self.page_link(chapter.article.docname, *inline(self, chapter.title)), rows)
            else:
                shared += rows
        return found + (self._titled(nodes.Text("Shared by the chapters"), shared) if shared else [])

    def _titled(self, title: nodes.Node, rows: list[list[list[nodes.Node]]]) -> list[nodes.Node]:
        heading = nodes.paragraph("", "", nodes.strong("", "", title), classes=["table-title"])
        return [heading, table(["In the library", "What it does"], rows)] if rows else []


def member_row(docname: str, module: str, member: str, summary: str) -> list[list[nodes.Node]]:
    """Return a row of a table: a member's name, which leads to its entry, and what it does.

    Args:
        docname: the page that shows the row.
        module: dotted name.
        member: the name in it.
        summary: the first line of its docstring.
    """
    literal = nodes.literal("", member, classes=["xref"])
    link = addnodes.pending_xref(
        "", literal, refdomain="py", reftype="obj", reftarget=f"{module}.{member}", refexplicit=True
    )
    link.attributes.update(refwarn=True, refdoc=docname)
    return [[nodes.inline("", "", link, classes=["nobreak"])], summary_words(summary)]


def summary_words(summary: str) -> list[nodes.Node]:
    """Return the first line of a docstring as nodes: text, code, formulas, and names of other members as code.

    Args:
        summary: reStructuredText; single backticks count as double ones.

    >>> [type(node).__name__ for node in summary_words("Return :math:`x^2` of :func:`~a.b.f` or ``x``.")]
    ['Text', 'math', 'Text', 'literal', 'Text', 'literal', 'Text']
    """
    words, end = [], 0
    for match in ROLE.finditer(summary):
        words.append(nodes.Text(summary[end : match.start()]))
        role, content, stressed = match.groups()
        if stressed:
            words.append(nodes.emphasis("", stressed))
        elif role == "math":
            words.append(nodes.math("", content))
        else:
            words.append(nodes.literal("", content.rsplit(".", 1)[-1] if content.startswith("~") else content))
        end = match.end()
    return [word for word in [*words, nodes.Text(summary[end:])] if word.astext()]


class LinkNames(SphinxPostTransform):
    """Turn code words of a chapter's prose that name a member of its module into links to the reference."""

    default_priority = 20

    def run(self, **kwargs: object) -> None:
        """Link each ``literal`` whose text is a documented name of the chapter's own module."""
        module = chapter_module(self.env.docname)
        known = self.env.get_domain("py").objects
        if module is None or module not in known:
            return
        for literal in list(self.document.findall(nodes.literal)):
            match = NAMED.fullmatch(literal.astext())
            target = f"{module}.{match[1]}" if match else ""
            if target not in known or isinstance(literal.parent, (nodes.reference, addnodes.pending_xref)):
                continue
            place = known[target]
            uri = self.app.builder.get_relative_uri(self.env.docname, place.docname)
            link = nodes.reference("", "", internal=True, refuri=f"{uri}#{place.node_id}", classes=["api-link"])
            literal.replace_self(link)
            link += literal


def modules(root: Path, package: str) -> list[str]:
    """Return the public modules of a package of the library.

    Args:
        root: the folder that holds the library.
        package: ``"distributions"``, or ``"."`` for the modules that all chapters share.

    Returns:
        Dotted names, sorted. A file whose name begins with an underscore is inner: how its package works.
    """
    folder = root / LIBRARY / package
    paths = [path.parent if path.name == "__init__.py" else path.with_suffix("") for path in folder.rglob("*.py")]
    names = [path.relative_to(folder).parts for path in paths if path != folder]
    if package == ".":  # a part of the book has a page of its own; scripts that made a checkpoint have none
        names = [name for name in names if not (root / "chapters" / name[0]).is_dir()]
        names = [name for name in names if name[0] != "checkpoints" or len(name) == 1]
    public = [name for name in names if not any(word.startswith("_") for word in name)]
    return [".".join([LIBRARY, *([] if package == "." else [package]), *name]) for name in sorted(public)]


def module_file(root: Path, module: str) -> Path | None:
    """Return the file of a module of the library, or None when there is none.

    Args:
        root: the folder that holds the library.
        module: dotted name.
    """
    base = root.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def members(module: str) -> list[tuple[str, str, object]]:
    """Return the public functions and classes of a module: name, first line of the docstring, the object itself.

    Args:
        module: dotted name; its ``__all__`` counts if it has one, else what it defines itself.
    """
    loaded = importlib.import_module(module)
    own = lambda value: getattr(value, "__module__", None) == module
    names = getattr(loaded, "__all__", None) or [n for n, v in vars(loaded).items() if n[0] != "_" and own(v)]
    found = [(name, inspect.unwrap(getattr(loaded, name))) for name in names]
    return [
        (name, inspect.getdoc(value).split("\n\n")[0].replace("\n", " ").replace("``", "`"), value)
        for name, value in found
        if inspect.isfunction(value) or inspect.isclass(value)
    ]


def chapter_module(docname: str) -> str | None:
    """Return the module that a page explains.

    Args:
        docname: the page.

    Returns:
        ``kexue_lib.<part>.<slug>`` for ``chapters/<part>/<slug>``, None for other pages.
    """
    match = re.fullmatch(r"chapters/(\w+)/(\w+)", docname)
    return f"{LIBRARY}.{match[1]}.{match[2]}" if match and match[2] != "index" else None


def skip_what_says_nothing(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out members whose only words are Python's own, such as the fields of a named tuple.

    Args:
        app: Sphinx.
        what: kind of the parent.
        name: of the member.
        obj: the member.
        skip: what autodoc would do.
        options: of the directive.

    Returns:
        True to leave it out, None for autodoc's own decision.
    """
    return True if (getattr(obj, "__doc__", "") or "").startswith("Alias for field number") else None


def repository(config: Config) -> str:
    """Return where the repository shows its files, without the slash at the end; empty where it has no address.

    Args:
        config: of the site; ``_config.yml`` has the address.
    """
    options = config.html_theme_options
    url = options.get("repository_url", "").rstrip("/")
    return f"{url}/blob/{options['repository_branch']}" if url else ""


def add_chapter_line(app: Sphinx, doctree: nodes.document) -> None:
    """Put below a chapter's title where its code is: reference, module, tests, benchmark.

    Args:
        app: Sphinx.
        doctree: a page that was just read.
    """
    module = chapter_module(app.env.docname)
    root = Path(app.srcdir)
    code = module and module_file(root, module)
    if not code:
        return
    part, slug = module.split(".")[1:]
    base = repository(app.config)
    line = nodes.paragraph("", "Library: ", classes=["chapter-line"])
    shown = nodes.literal("", module, classes=["xref"])
    line += addnodes.pending_xref(
        "",
        shown,
        refdomain="py",
        reftype="mod",
        reftarget=module,
        refexplicit=True,
        refwarn=True,
        refdoc=app.env.docname,
    )
    for word, path in (
        ("source", code.relative_to(root).as_posix().removesuffix("/__init__.py")),
        ("tests", f"tests/{part}/{slug}"),
        ("tests", f"tests/{part}/test_{slug}.py"),
        ("benchmark", f"benchmarks/{part}/bench_{slug}.py"),
    ):
        if (root / path).exists():
            link = nodes.reference("", word, refuri=f"{base}/{path}") if base else nodes.Text(path)
            line += [nodes.Text(" · "), link]
    section = next(doctree.findall(nodes.section), None)
    if section is not None:
        section.insert(1, line)


def read_docstring_as_prose(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Let docstrings be written for ``help()``: ``$x$`` is math, and ``|S|``, ``x_`` and ``*batch`` are no markup.

    Args:
        app: Sphinx.
        what: kind of the object.
        name: dotted name.
        obj: the object.
        options: of the directive.
        lines: the docstring as napoleon left it, changed in place.
    """
    in_example = False
    for number, line in enumerate(lines):
        in_example = bool(line.strip()) and (in_example or line.lstrip().startswith(">>>"))
        if in_example or line.lstrip().startswith(".. "):
            continue
        pieces = MARKED.split(line)
        pieces[::2] = [UNINTENDED.sub(r"\\\g<0>", piece) for piece in pieces[::2]]
        pieces[1::2] = [f":math:`{piece[1:-1]}`" if piece.startswith("$") else piece for piece in pieces[1::2]]
        lines[number] = "".join(pieces)


def _link_to_source(app: Sphinx, config: Config) -> None:
    base = repository(config)

    def resolve(domain: str, info: dict[str, str]) -> str | None:
        if not base:
            return None
        found: object = sys.modules.get(info["module"])
        for name in info["fullname"].split("."):
            found = getattr(found, name, None)
        try:
            lines, first = inspect.getsourcelines(inspect.unwrap(found))
        except (TypeError, OSError):
            return None
        file = Path(inspect.getsourcefile(inspect.unwrap(found)))
        place = file.relative_to(Path(importlib.import_module(LIBRARY).__file__).parent.parent).as_posix()
        return f"{base}/{place}#L{first}-L{first + len(lines) - 1}"

    config.linkcode_resolve = resolve


def setup(app: Sphinx) -> None:
    """Register ``{api-modules}``, ``{part-functions}`` and the links of both directions.

    Autodoc and napoleon read Google-style docstrings; each member links to its lines in the repository. Pages of
    source code would do too, but Sphinx imports PyTorch at every build to keep them up to date.
    """
    for extension in ("sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.linkcode"):
        app.setup_extension(extension)
    app.connect("config-inited", _link_to_source)
    app.add_directive("api-modules", ApiModules)
    app.add_directive("part-functions", PartFunctions)
    app.add_post_transform(LinkNames)
    app.connect("doctree-read", add_chapter_line)
    app.connect("autodoc-skip-member", skip_what_says_nothing)
    app.connect("autodoc-process-docstring", read_docstring_as_prose)
