"""Claims decided in the reader's browser: the buttons, what they answer, exercises, and a site without the engine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import live_proofs
import notebooks
import pytest
from book_site import live
from visits import AXE, DESK, PHONE, Screen, Visitor

from kexue_lib.derivation import answers

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = "chapters/distributions/squareplus"
BADGE = ".badge-evidence"
MOST_BYTES = 15_000_000
LONG = "Integral(1/((1 + x^b)*(1 + x^2)), (x, 0, oo)) = pi/4"  # true for every b: many seconds of quadrature
TASKS = [
    pytest.param(task, id=f"{path.stem}-{number}")
    for path in notebooks.all_notebooks()
    for number, task in live.exercises(notebooks.read(path)).items()
]


@pytest.fixture(scope="module")
def engine(site: Path) -> Path:
    """The engine's folder in the built site."""
    folder = site / "_static/live/engine"
    if not folder.exists():
        pytest.skip("the site was built without live proofs: install node and npm to test them")
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_the_solution_is_right_and_the_usual_slip_is_wrong(task: dict[str, str]):
    marked = [
        answers.exercise(task["kind"], task[which], task["symbols"], task["given"], task["wanted"])["answer"]
        for which in ("wanted", "wrong")
    ]
    assert marked == ["proved", "false"]


def test_the_engine_is_small_enough_and_says_whose_it_is(engine: Path):
    assert sum(file.stat().st_size for file in engine.iterdir()) < MOST_BYTES
    assert {file.name for file in engine.iterdir()} >= {*live_proofs.LARGE, "pyodide.mjs", "pyodide.asm.mjs"}
    notice = (engine / "LICENSES.txt").read_text(encoding="utf-8")
    assert all(name in notice for name in ("Mozilla Public License", "SymPy", "mpmath"))


def test_every_card_that_is_no_measurement_can_be_decided(site: Path, engine: Path):
    for path in notebooks.all_notebooks():
        known = json.loads((site / f"_static/live/facts/{path.stem}.json").read_text(encoding="utf-8"))
        page = (site / path.relative_to(ROOT).with_suffix(".html")).read_text(encoding="utf-8")
        for label in known["claims"]:
            assert f'id="claim-{path.stem}-{label}"' in page
        for number in known["exercises"]:
            assert f'data-exercise="{path.stem}:{number}"' in page


def test_without_npm_the_site_is_built_and_says_what_it_lacks(tmp_path: Path):
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import live_proofs; "
        f"live_proofs.HOME = __import__('pathlib').Path({str(tmp_path)!r})\n"
        "try: live_proofs.bundle()\nexcept live_proofs.Missing as missing: print(missing)"
    )
    done = subprocess.run([sys.executable, "-c", program], env={"PATH": ""}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "npm is not installed"


@pytest.mark.browser
def test_a_reader_checks_changes_breaks_and_stops(visitor: Visitor, engine: Path):
    with visitor.open(CHAPTER, DESK) as (tab, visit):
        card = tab.locator("#claim-squareplus-C3")
        card.get_by_text("Check again").click()
        card.locator(f".live-again {BADGE}").wait_for()
        assert "proved again, as the book says" in card.locator(".live-again").inner_text().replace("\n", " ")
        card.get_by_text("Change it").click()
        statement, answer = card.locator("textarea[name=statement]"), card.locator(".live-editor .live-answer")
        before = statement.input_value()
        with _without_network(tab):
            statement.fill(before.replace("=", "= 1 +", 1))
            statement.press("Control+Enter")
            answer.locator(BADGE).get_by_text("false").wait_for()
            answer.locator("mjx-container .put-in").first.wait_for()
            assert "left side" in answer.inner_text()
            statement.fill("x = (1 +")
            card.get_by_role("button", name="Decide").click()
            answer.get_by_text("statement, line 1, column 5").wait_for()
            assert statement.get_attribute("aria-invalid") == "true"
            card.get_by_role("button", name="As it was").click()
            assert statement.input_value() == before
            statement.fill(LONG)
            card.get_by_role("button", name="Decide").click()
            card.get_by_role("button", name="Stop").click()
            answer.get_by_text("Stopped.").wait_for()
        card.get_by_role("button", name="Decide").click()
        other = tab.locator("#claim-squareplus-C4")
        other.get_by_text("Check again").click()
        card.get_by_role("button", name="Stop").click()
        other.locator(f".live-again {BADGE}").get_by_text("proved").wait_for()  # stopping one question stops no other
        assert answer.inner_text() == "Stopped."
        assert not visit.console + visit.foreign


@contextmanager
def _without_network(tab: Any) -> Iterator[None]:
    tab.context.set_offline(True)
    try:
        yield
    finally:
        tab.context.set_offline(False)


@pytest.mark.browser
@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_the_editor_fits_and_is_accessible(visitor: Visitor, engine: Path, screen: Screen):
    with visitor.open(CHAPTER, screen) as (tab, _):
        card = tab.locator("#claim-squareplus-C3")
        card.get_by_text("Change it").click()
        card.locator("textarea[name=statement]").wait_for()
        tab.evaluate(AXE.read_text(encoding="utf-8"))
        broken = tab.evaluate(
            "axe.run('#claim-squareplus-C3', {resultTypes: ['violations']}).then((r) => r.violations.map((v) => v.id))"
        )
        width = tab.evaluate("document.documentElement.scrollWidth")
    assert broken == []
    assert width <= screen.width


# One card of each chapter in one page, where the engine runs already: what its two buttons do, without loading the
# engine another time for every chapter.
_BORROW = """async ([page, place]) => {
  const text = await (await fetch(page)).text();
  const card = new DOMParser().parseFromString(text, "text/html").getElementById(place);
  for (const old of document.querySelectorAll(".borrowed")) old.remove();
  card.classList.add("borrowed");
  document.querySelector("article").prepend(document.adoptNode(card));
  const script = document.querySelector("script[src*=live_proofs]").src;
  const ui = await import(new URL("live/ui.mjs", script));
  await ui.again(card);
  await ui.change(card);
  return card.querySelector(".live-again").innerText;
}"""


@pytest.mark.browser
def test_a_card_of_every_chapter_is_decided_again_and_refuted_when_it_is_made_false(visitor: Visitor, engine: Path):
    wrong = {}
    chapters = live_proofs.stored_facts()
    with visitor.open(CHAPTER, DESK) as (tab, visit):
        for path in notebooks.all_notebooks():
            claims = {k: c for k, c in chapters[path.stem].items() if c["evidence"] == "proved" and "Eq" in c["form"]}
            label = min(claims, key=lambda label: (len(claims[label]["form"]), label))
            page = f"{visitor.address}{path.relative_to(ROOT).with_suffix('.html').as_posix()}"
            said = tab.evaluate(_BORROW, [page, f"claim-{path.stem}-{label}"])
            tab.locator(".borrowed textarea[name=statement]").fill("1 = 2")
            tab.locator(".borrowed .live-go").click()
            tab.locator(f".borrowed .live-editor {BADGE}").wait_for()
            refuted = tab.locator(f".borrowed .live-editor {BADGE}").inner_text()
            if "proved again" not in said.replace("\n", " ") or refuted != "false":
                wrong[f"{path.stem} {label}"] = (said, refuted)
        assert not visit.console + visit.foreign
    assert wrong == {}


@pytest.mark.browser
def test_an_exercise_is_marked_on_the_page(visitor: Visitor, engine: Path):
    with visitor.open(CHAPTER, PHONE) as (tab, visit):
        box = tab.locator(".live-exercise").first
        box.get_by_role("button", name="Answer it here").click()
        box.locator("input").fill("sqrt(b - c)/2")
        box.get_by_role("button", name="Mark it").click()
        box.locator(BADGE).get_by_text("false").wait_for()
        assert "Not equal" in box.inner_text()
        box.locator("input").fill("(b - c)/(2*(sqrt(b) + sqrt(c)))")
        box.get_by_role("button", name="Mark it").click()
        box.locator(BADGE).get_by_text("proved").wait_for()
        assert "Right" in box.inner_text()
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE.width
        assert not visit.console + visit.foreign


@pytest.mark.browser
def test_the_page_to_play_on_decides_an_example_and_a_link_carries_the_text(visitor: Visitor, engine: Path):
    with visitor.open("about/prove", DESK) as (tab, visit):
        tab.get_by_role("button", name="Do matrices commute?").click()
        tab.get_by_role("button", name="Decide").click()
        tab.locator(f".live-answer {BADGE}").get_by_text("false").wait_for()
        tab.locator("textarea[name=statement]").fill("A*B = B*A + A")
        tab.get_by_role("button", name="Copy a link to this").click()
        address = tab.evaluate("location.href")
        tab.goto("about:blank")
        tab.goto(address)
        tab.locator("textarea[name=statement]").wait_for()
        assert tab.locator("textarea[name=statement]").input_value() == "A*B = B*A + A"
        assert "matrix (n, n)" in tab.locator("textarea[name=symbols]").input_value()
        assert not visit.foreign
