"""The extension's own rules, on small inputs."""

from __future__ import annotations

import json

import nbformat
import pytest
from book_site import bundles, head, reference, search, stored, weight


@pytest.mark.parametrize(
    ("below_the_title", "answer"),
    [
        ("**It is smooth.**\n\nMore.", "It is smooth."),
        ("> It is\n> smooth.\n", "It is smooth."),
        ("[![badge](a.svg)](b)\n\n*It is smooth.*", "It is smooth."),
        ("<!-- note -->\n\n- a list\n\nIt is **very** smooth.", "It is **very** smooth."),
        ("# Only headings", ""),
    ],
)
def test_answer_is_the_first_paragraph(below_the_title: str, answer: str):
    assert stored.first_paragraph(below_the_title) == answer


def test_plain_words_keep_identifiers_and_lose_markup():
    assert stored.plain(r"The *gradient* of $\log Z_k$ is `grad_topk`, see [C1](#c1).") == (
        "The gradient of log Z_k is grad_topk, see C1."
    )


def test_summaries_of_docstrings_show_roles_as_what_they_mean():
    words = reference.summary_words("Return :math:`x^2` of :func:`~a.b.f`, *not* ``x``.".replace("``", "`"))
    found = [(type(word).__name__, word.astext()) for word in words]
    assert found == [
        ("Text", "Return "), ("math", "x^2"), ("Text", " of "), ("literal", "f"), ("Text", ", "), ("emphasis", "not"),
        ("Text", " "), ("literal", "x"), ("Text", "."),
    ]  # fmt: skip


def test_plain_words_are_cut_between_words():
    assert stored.plain("one two three four", 12) == "one two…"


def test_summaries_in_the_search_keep_formulas_whole():
    assert search.shown("A *sum* of `f` is $x_1 + y$, see [there](a.md).") == "A sum of f is $x_1 + y$, see there."
    assert search.shown("one $x + y$, two", 9) == "one…"
    assert search.shown("one $x + y$, two", 12) == "one $x + y$,…"


def test_claim_becomes_a_directive_and_keeps_every_word():
    claim = {"chapter": "a", "label": "C1", "title": "T", "statement": r"x \le ``y``", "evidence": "proved"}
    output = nbformat.v4.new_output("display_data", {"application/vnd.kexue.claim+json": claim, "text/latex": "$x$"})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("d", outputs=[output])])
    read = bundles.read_notebook(nbformat.writes(notebook)).cells[0]
    markdown = read.outputs[0]["data"]["text/markdown"]
    assert markdown.startswith("```{claim-card}")
    assert json.loads(markdown.split("\n")[1]) == claim
    assert read.metadata["mystnb"]["markdown_format"] == "myst"


def test_trimming_keeps_what_a_page_can_match():
    css = ".a{x:1}.b .a,.c{x:2}@media print{.a{x:3}.b{x:4}}h1:not(.b){x:5}@font-face{x:6}.a\\.1{x:7}"
    assert weight.trimmed(css, {"a", "c"}) == ".a{x:1}.c{x:2}@media print{.a{x:3}}h1:not(.b){x:5}@font-face{x:6}"


def test_docstrings_are_prose():
    lines = ["log Σ_{|S|=k}, x_ and (*batch, n), $a_1$, ``*x*``", ":param x_: **bold**", ">>> a | b"]
    reference.read_docstring_as_prose(None, "", "", None, None, lines)
    assert lines == [
        r"log Σ\_{\|S\|=k}, x\_ and (\*batch, n), :math:`a_1`, ``*x*``",
        ":param x_: **bold**",
        ">>> a | b",
    ]


def test_code_words_name_functions():
    assert reference.NAMED.fullmatch("smooth_topk.grad_topk(x, k)")[1] == "grad_topk"
    assert reference.NAMED.fullmatch("pip install x") is None


def test_remote_badges_have_local_twins():
    assert all(uri.startswith("/_static/badges/") for uri in head.BADGES.values())
