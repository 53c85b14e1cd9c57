"""Claims and verdicts on the page: a notebook's bundles become cards that wrap, scroll and can be linked to.

A notebook stores each checked step as LaTeX for Jupyter and as JSON for this extension. While Sphinx reads a notebook,
the JSON is put in the place of the LaTeX as a directive; the file itself is not touched.
"""

from __future__ import annotations

import html
import itertools
import json

import nbformat
import notebooks
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import stored

DIRECTIVES = {
    notebooks.CLAIM: "claim-card",
    notebooks.CALCULATION: "calculation-card",
    notebooks.VERDICT: "verdict-card",
}


ANSWER = '<div class="live-exercise" data-exercise="{chapter}:{number}" data-title="exercise"></div>'


def read_notebook(text: str) -> nbformat.NotebookNode:
    """Read a notebook for the site; myst-nb calls it for every ``.ipynb`` (``nb_custom_formats``).

    Args:
        text: the notebook's JSON.

    Returns:
        The notebook with its bundles as directives, its HTML tables in scrollable boxes, and cell tags kept.
    """
    notebook = nbformat.reads(text, as_version=4)
    number = itertools.count(1)
    chapter = next((claim["chapter"] for claim in notebooks.bundles(notebook, notebooks.CLAIM)), "")
    for cell in notebook.cells:
        for _ in cell.metadata.get("answers", []):
            box = ANSWER.format(chapter=chapter, number=next(number))
            cell.source = cell.source.replace(notebooks.ANSWER, box, 1)
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            data = output.get("data", {})
            mime = next((m for m in DIRECTIVES if m in data), None)
            if mime:
                body = json.dumps(data[mime], ensure_ascii=False)
                output["data"] = {"text/markdown": f"```{{{DIRECTIVES[mime]}}}\n{body}\n```"}
                cell.metadata["mystnb"] = {**cell.metadata.get("mystnb", {}), "markdown_format": "myst"}
            elif "text/html" in data:
                # `output_area` is the class inside which MathJax typesets what Jupyter would typeset too.
                table = "".join(data["text/html"])
                output["data"] = {"text/html": f'<div class="table-scroll output_area">{table}</div>'}
            # Printing objects that draw nothing on the page would leave "<Axes: …>" below a figure.
            elif "image/png" in data:
                data.pop("text/plain", None)
    return notebook


class ClaimCard(SphinxDirective):
    """One checked step: label, title, evidence, statement, scope and method, under an anchor of its own."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the card."""
        return [claim_card(self, json.loads("\n".join(self.content)))]


class CalculationCard(SphinxDirective):
    """The steps of one calculation under a folded line that counts them."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the folded cards."""
        calculation = json.loads("\n".join(self.content))
        steps = calculation["steps"]
        kinds = sorted({stored.badge(step) for step in steps})
        evidence = f"{'all ' if len(steps) > 1 else ''}{kinds[0]}" if len(kinds) == 1 else ", ".join(kinds)
        title = html.escape(calculation["title"])
        count = f"{len(steps)} step{'s' if len(steps) > 1 else ''} of this calculation, {html.escape(evidence)}"
        opening = f'<details class="calculation"><summary>{title} <span class="claim-note">{count}</span></summary>'
        return [
            nodes.raw("", opening, format="html"),
            *(claim_card(self, step) for step in steps),
            nodes.raw("", "</details>", format="html"),
        ]


def claim_card(directive: SphinxDirective, claim: dict, link: nodes.Node | None = None) -> nodes.container:
    """Return a claim as a card.

    Args:
        directive: the directive that is being run.
        claim: its bundle.
        link: to the claim's place, for a card elsewhere; without it the card is that place and links to itself.
    """
    name = stored.anchor(claim["chapter"], claim["label"])
    card = nodes.container(classes=["claim", f"claim-{claim['evidence']}"])
    if link is None:
        card["ids"], card["names"] = [name], [name.lower()]
        directive.state.document.note_explicit_target(card)
        link = nodes.reference("", claim["label"], refid=name, classes=["claim-label"])
    head = nodes.paragraph(classes=["claim-head"])
    head += link
    head += nodes.Text(" ")
    head += nodes.inline("", "", *inline(directive, claim["title"]), classes=["claim-title"])
    head += nodes.Text(" ")
    head += evidence_badge(claim)
    card += head
    # `nowrap` keeps Sphinx from putting a `split` around statements that bring their own rows.
    card += nodes.math_block("", rf"\[{claim['statement']}\]", nowrap=True, number=None)
    note = nodes.paragraph(classes=["claim-note"])
    if claim["scope"]:
        note += [nodes.inline("", "", *inline(directive, claim["scope"]), classes=["claim-scope"]), nodes.Text(" ")]
    note += nodes.inline("", claim["method"], classes=["claim-method"])
    for at, label in enumerate(claim["uses"]):
        target = stored.anchor(claim["chapter"], label)
        note += [nodes.Text(", " if at else "; by "), nodes.reference("", label, refid=target)]
    if claim["scope"] or claim["method"]:
        card += note
    return card


class VerdictCard(SphinxDirective):
    """A published number or claim beside what our run gave, and why they differ if they do."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the card."""
        return [verdict_card(self, json.loads("\n".join(self.content)))]


def verdict_card(directive: SphinxDirective, verdict: dict[str, str]) -> nodes.container:
    """Return a verdict as a card, for the chapter and for the page of all verdicts.

    Args:
        directive: the directive that is being run.
        verdict: its bundle.
    """
    card = nodes.container(classes=["verdict", verdict_class(verdict["verdict"])])
    head = nodes.paragraph(classes=["claim-head"])
    head += [nodes.inline("", "", *inline(directive, verdict["title"]), classes=["claim-title"]), nodes.Text(" ")]
    head += nodes.inline("", verdict["verdict"], classes=["badge-evidence", verdict_class(verdict["verdict"])])
    card += head
    for name, value in (("Claimed", verdict["claimed"]), ("Our run", verdict["obtained"])):
        row = nodes.paragraph(classes=["verdict-row"])
        row += [nodes.inline("", name, classes=["verdict-name"]), nodes.Text(" ")]
        row += nodes.inline("", "", *inline(directive, value), classes=["verdict-value"])
        card += row
    if verdict["why"]:
        card += nodes.paragraph("", "", *inline(directive, verdict["why"]), classes=["claim-note"])
    return card


def inline(directive: SphinxDirective, text: str) -> list[nodes.Node]:
    """Return one line of Markdown, math included, as nodes.

    Args:
        directive: the directive that is being run; its parser is used.
        text: the source.
    """
    return directive.state.inline_text(text, directive.lineno)[0]


def evidence_badge(claim: dict) -> nodes.Node:
    """Return the badge of a claim: its evidence in words, coloured.

    Args:
        claim: its bundle.
    """
    return nodes.inline("", stored.badge(claim), classes=["badge-evidence", f"badge-{claim['evidence']}"])


def verdict_class(verdict: str) -> str:
    """Return the class that colours a verdict.

    Args:
        verdict: one of ``stored.VERDICTS``.
    """
    return f"verdict-{verdict.split()[0]}"


def setup(app: Sphinx) -> None:
    """Register the two directives.

    They are for ``read_notebook`` only; an author writes ``d.equal`` and ``d.verdict``.
    The reader itself is named in ``_config.yml``, under ``nb_custom_formats``.
    """
    app.add_directive("claim-card", ClaimCard)
    app.add_directive("calculation-card", CalculationCard)
    app.add_directive("verdict-card", VerdictCard)
