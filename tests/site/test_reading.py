"""What a page does for its reader: previews, the code switch, the menu, the dark, paper, the index and lost readers."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from visits import DESK, PHONE, Screen, Visitor

CHAPTER = "chapters/distributions/squareplus"
HOVERED = """async ([selector, kind]) => {
  const link = document.querySelector(selector);
  link.scrollIntoView({block: "center"});
  if (kind === "focus") link.focus();
  else link.dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
  const shows = () => document.querySelector("#preview:not([hidden])");
  for (let i = 0; i < 100 && !shows(); i++) await new Promise((then) => setTimeout(then, 50));
  const box = document.querySelector("#preview");
  const shown = {text: box.innerText, described: link.getAttribute("aria-describedby"), role: box.getAttribute("role")};
  document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
  return {...shown, hidden: box.hidden};
}"""


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["hover", "focus"])
@pytest.mark.parametrize(
    ("page", "selector", "words"),
    [
        (CHAPTER, "a.term[href$='#term-sigmoid']", "sigmoid"),
        (CHAPTER, "a.api-link[href$='squareplus.optimal_b']", "optimal_b("),
        ("about/ledger", "a[href*='squareplus'][href*='#claim-']:not(.claim-label)", "C"),
    ],
    ids=["term", "function", "claim"],
)
def test_a_link_shows_its_entry(visitor: Visitor, page: str, selector: str, words: str, kind: str):
    with visitor.open(page, DESK) as (tab, visit):
        shown = tab.evaluate(HOVERED, [selector, kind])
    assert words in shown["text"]
    assert len(shown["text"]) > len(words) + 10
    assert (shown["described"], shown["role"], shown["hidden"]) == ("preview", "tooltip", True)
    assert not visit.console + visit.foreign


@pytest.mark.browser
def test_terms_are_linked_once_and_never_in_titles(visitor: Visitor):
    with visitor.open(CHAPTER, DESK) as (tab, _):
        links = tab.eval_on_selector_all(
            "a.term", "found => found.map((a) => [a.hash, Boolean(a.closest('h1, h2, table'))])"
        )
    assert len(links) >= 3
    assert len({place for place, _ in links}) == len(links)
    assert not any(inside for _, inside in links)


@pytest.mark.browser
def test_one_switch_shows_all_code(visitor: Visitor):
    state = "() => [...document.querySelectorAll('div.cell details.hide')].map((fold) => fold.open)"
    with visitor.open(CHAPTER, DESK) as (tab, _):
        before = tab.evaluate(state)
        tab.click(".code-switch")
        after, pressed = tab.evaluate(state), tab.get_attribute(".code-switch", "aria-pressed")
        tab.click(".code-switch")
        again = tab.evaluate(state)
    assert before == again == [False] * len(before)
    assert after == [True] * len(before)
    assert pressed == "true"
    assert len(before) > 5


@pytest.mark.browser
def test_logo_and_search_stay_in_sight(visitor: Visitor):
    with visitor.open("chapters/attention/mla", Screen(1280, 620, "light")) as (tab, _):
        seen = """() => ['.navbar-brand', '.search-button-field', '.bd-sidebar-primary .current.active > a']
          .map((place) => document.querySelector(place).getBoundingClientRect())
          .map((box) => box.top >= 0 && box.bottom <= innerHeight)"""
        assert tab.evaluate(seen) == [True] * 3


@pytest.mark.browser
def test_result_tables_are_dark_in_the_dark(visitor: Visitor):
    with visitor.open(CHAPTER, Screen(1280, 900, "dark")) as (tab, _):
        ground = """(box) => {
          const colour = (e) => getComputedStyle(e).backgroundColor;
          while (colour(box) === "rgba(0, 0, 0, 0)") box = box.parentElement;
          return colour(box).match(/\\d+/g).map(Number);
        }"""
        colours = tab.eval_on_selector_all("table.results", f"tables => tables.map({ground})")
    assert colours
    assert max(max(colour[:3]) for colour in colours) < 80


@pytest.mark.browser
def test_nothing_is_cut_off_on_paper(visitor: Visitor):
    with visitor.open(CHAPTER, Screen(794, 1100, "light")) as (tab, _):
        tab.emulate_media(media="print")
        cut = tab.evaluate(
            """() => [...document.querySelectorAll('div.highlight pre, .cell_output pre')]
              .filter((e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1).length"""
        )
        shown = tab.evaluate("() => getComputedStyle(document.querySelector('.bd-sidebar-primary')).display")
        tab.emulate_media(media="screen")
    assert (cut, shown) == (0, "none")


@pytest.mark.browser
@pytest.mark.parametrize("page", ["genindex", "py-modindex"])
def test_indexes_fit_a_phone(visitor: Visitor, page: str):
    with visitor.open(page, PHONE) as (tab, _):
        assert tab.evaluate("() => document.documentElement.scrollWidth") <= PHONE.width


@pytest.mark.browser
@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("稀疏", "chapters/distributions/sparsity"),
        ("缓存", "chapters/attention/mla"),
        ("光滑", "chapters/distributions/smooth_topk"),
        ("鲁棒", "chapters/attention/softmax_robustness"),
        ("概率", "chapters/distributions/fourier_density"),
        ("注意力", "chapters/attention/softmax_robustness"),
        ("损失", "about/glossary"),
        ("10373", "chapters/distributions/smooth_topk"),
        ("MoE router", "about/glossary"),
    ],
)
def test_search_finds_chinese_words_and_numbers_of_articles(visitor: Visitor, query: str, page: str):
    with visitor.open("search", DESK, f"q={quote(query)}") as (tab, _):
        tab.wait_for_selector("#search-results ul.search li a")
        tab.wait_for_load_state("networkidle")
        found = tab.eval_on_selector_all("#search-results ul.search li > a", "links => links.map(l => l.href)")
        room = tab.evaluate(
            "() => parseFloat(getComputedStyle(document.querySelector('.bd-search input')).paddingLeft)"
        )
    assert any(page in link for link in found), found
    assert room > 24  # the magnifier stands there


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_that_were_searched_for_can_be_read(visitor: Visitor, theme: str):
    with visitor.open(CHAPTER, Screen(1280, 900, theme), "highlight=squareplus") as (tab, _):
        mark = "<span class=highlighted>x</span>"
        tab.evaluate(f"() => document.querySelector('.bd-article p').insertAdjacentHTML('beforeend', '{mark}')")
        colours = tab.evaluate(
            """() => { const s = getComputedStyle(document.querySelector('span.highlighted'));
              return [s.backgroundColor, s.color].map((c) => c.match(/[\\d.]+/g).slice(0, 3).map(Number)); }"""
        )
    assert contrast(*colours) > 4.5


def contrast(one: list[float], other: list[float]) -> float:
    """Ratio of luminances by WCAG 2."""

    def luminance(colour: list[float]) -> float:
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_tables_keep_their_headings_and_cards_have_none(site: Path):
    page = (site / f"{CHAPTER}.html").read_text(encoding="utf-8")
    card, *_, _ = page.split("</table>")
    assert "Run time" in card
    assert "<thead" not in card
    measured = next(part for part in page.split("</table>") if "time, × " in part)
    assert "<thead" in measured
    assert "display: none" not in "".join(line for line in _css(site) if "thead" in line)


def _css(site: Path) -> list[str]:
    return (site / "_static" / "book.css").read_text(encoding="utf-8").splitlines()


def test_entrance_and_lost_page(site: Path):
    entrance, lost = ((site / name).read_text(encoding="utf-8") for name in ("index.html", "404.html"))
    for page in (entrance, lost):
        assert "<title>Scientific Spaces, Proved and Run</title>" in page
        assert '<meta name="description"' in page
        assert '<meta property="og:title"' in page
    assert 'url=intro.html"' in entrance
    assert "intro.html" in lost
    assert "search.html" in lost
