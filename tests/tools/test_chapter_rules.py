"""What lint asks of a chapter: each standard is kept by a sound notebook and broken by a planted fault."""

import copy

import chapter_rules
import notebooks
import pytest

LATEX = "$\\displaystyle p_i < 1$"
CLAIM = {
    "chapter": "sound",
    "label": "C1",
    "title": "Each weight is below one",
    "statement": "p_{i} < 1",
    "evidence": "proved",
    "scope": "",
    "method": "",
    "kind": "claim",
    "instance": "",
    "uses": [],
    "form": "Statement(StrictLessThan(Symbol('p'), Integer(1)))",
}
RUN = 'd.verdict("It is fast", obtained=f"{ratio:.1f}", verdict="reproduced")'
MEASURED = 'd.measured("The ratio", ratio, 2.0)'


def sound():
    """The cells of a chapter that keeps every standard: one claim, one verdict, the sections."""
    prose = "\n".join(f"## {section}" for section in (*chapter_rules.SECTIONS, *chapter_rules.LATER_SECTIONS))
    code = {
        "cell_type": "code",
        "source": f"{RUN}\n{MEASURED}",
        "metadata": {},
        "outputs": [{"output_type": "display_data", "data": {notebooks.CLAIM: dict(CLAIM), "text/latex": LATEX}}],
    }
    return {"cells": [{"cell_type": "markdown", "source": prose, "metadata": {}}, code]}


def standard_faults(content):
    chapter = chapter_rules.Chapter(notebooks.CHAPTERS / "attention" / "sound.ipynb")
    chapter.__dict__["content"] = content
    return chapter_rules.standard_faults(chapter)


def test_a_sound_chapter_has_no_fault():
    assert standard_faults(sound()) == []


def bundle(content, **changes):
    content["cells"][1]["outputs"][0]["data"][notebooks.CLAIM].update(changes)


def code(content, source):
    content["cells"][1]["source"] = source


FAULTS = {
    "characters": lambda c: c["cells"][0].update(source=c["cells"][0]["source"] + "\n" + "x" * 60_000),
    "words of prose": lambda c: c["cells"][0].update(source=c["cells"][0]["source"] + " x" * 3_500),
    "41 cards": lambda c: c["cells"][1]["outputs"].extend(copy.deepcopy(c["cells"][1]["outputs"]) * 40),
    "9 figures": lambda c: c["cells"][1]["outputs"].extend(
        [{"output_type": "display_data", "data": {"image/png": ""}}] * 9
    ),
    "for one size only": lambda c: (
        bundle(c, instance="n = 3"),
        c["cells"][1]["outputs"].extend(copy.deepcopy(c["cells"][1]["outputs"]) * 2),
    ),
    "no section 'what to keep'": lambda c: c["cells"][0].update(source=c["cells"][0]["source"].replace("what to", "")),
    "81 columns": lambda c: code(c, "x" * 81),
    "'obtained' holds no value": lambda c: code(c, RUN.replace('f"{ratio:.1f}"', '"3 of 3"')),
    "'observed' holds no value": lambda c: code(c, MEASURED.replace("ratio,", "3 / 2,")),
    "is not shown": lambda c: code(c, "table(rows, names)\nprint(rows)"),
    "did not render: '\\\\displaystyle \\rho": lambda c: c["cells"][1]["outputs"][0]["data"].update(
        {"text/latex": "\\displaystyle \rho_1"}
    ),
    'did not render: "p + rho': lambda c: c["cells"][1]["outputs"][0]["data"].update({"text/latex": "p + rho''"}),
    "means nothing alone": lambda c: bundle(c, title="… and distance"),
    "arithmetic on typed-in constants": lambda c: bundle(c, form="Statement(StrictLessThan(Integer(1), Integer(2)))"),
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_planted_fault_is_named(message):
    content = sound()
    FAULTS[message](content)
    assert any(message in fault for fault in standard_faults(content)), standard_faults(content)


def test_slips_of_the_source_may_be_typed():
    slip = RUN.replace('f"{ratio:.1f}"', '"the sign"').replace('"reproduced"', '"slip in the source"')
    assert chapter_rules.call_faults(slip) == []
