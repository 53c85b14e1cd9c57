"""One visit of a page by a real browser: everything that the tests ask of it, gathered in a single load."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import yaml

ROOT = Path(__file__).resolve().parents[2]
AXE = Path(__file__).parent / "vendor" / "axe.min.js"


class Screen(NamedTuple):
    """A kind of reader: width and height in CSS pixels, and the theme they chose."""

    width: int
    height: int
    theme: str


DESK = Screen(1280, 900, "light")
PHONE = Screen(390, 844, "dark")


@dataclass
class Visit:
    """What one load of a page showed."""

    console: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    transferred: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


def toc_pages() -> list[str]:
    """Return every page of the table of contents, without suffix: chapters that are added later are among them."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))

    def files(entry: Any) -> list[str]:
        if isinstance(entry, list):
            return [page for item in entry for page in files(item)]
        if isinstance(entry, dict):
            own = [entry["file"]] if "file" in entry else []
            return own + [page for value in entry.values() for page in files(value)]
        return []

    return [toc["root"], *files(toc["parts"])]


class Visitor:
    """Loads pages in one browser; the same page on the same screen is loaded once."""

    def __init__(self, browser: Any, address: str):
        self.browser, self.address = browser, address
        self._contexts: dict[Screen, Any] = {}
        self._visits: dict[tuple[str, Screen], Visit] = {}

    def open(self, page: str, screen: Screen) -> tuple[Any, Visit]:
        """Load a page and wait until its mathematics is typeset.

        Args:
            page: its name without suffix.
            screen: width and theme.

        Returns:
            The browser's page, which the caller closes, and what the load showed.
        """
        tab, visit = self._context(screen).new_page(), Visit()
        tab.on("console", lambda m: visit.console.append(m.text) if m.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: visit.console.append(str(error)))
        tab.on("requestfailed", lambda request: visit.failed.append(request.url))
        tab.on("response", lambda response: self._count(response, visit))
        tab.on("request", lambda r: visit.foreign.append(r.url) if not r.url.startswith(self._own()) else None)
        tab.goto(f"{self.address}{page}.html", wait_until="load")
        tab.evaluate("window.MathJax?.startup?.promise.then(() => document.fonts.ready).then(() => true)")
        visit.transferred = sum(map(_size_on_the_wire, tab.evaluate(_ADDRESSES)))
        return tab, visit

    def visit(self, page: str, screen: Screen) -> Visit:
        """Return what a page shows on a screen: loaded at the first call, remembered at the next.

        Args:
            page: its name without suffix.
            screen: width and theme.
        """
        if (page, screen) not in self._visits:
            tab, visit = self.open(page, screen)
            visit.facts = tab.evaluate(_FACTS)
            tab.evaluate(_THIN)
            tab.evaluate(AXE.read_text(encoding="utf-8"))
            visit.violations = tab.evaluate(_AXE_RUN, screen is DESK)
            tab.close()
            self._visits[page, screen] = visit
        return self._visits[page, screen]

    def _own(self) -> tuple[str, ...]:
        return (self.address, "data:", "blob:")

    def _count(self, response: Any, visit: Visit) -> None:
        if response.status >= 400:
            visit.failed.append(f"{response.status} {response.url}")

    def _context(self, screen: Screen) -> Any:
        if screen not in self._contexts:
            context = self.browser.new_context(viewport={"width": screen.width, "height": screen.height})
            context.add_init_script(
                f"localStorage.setItem('mode', '{screen.theme}'); localStorage.setItem('theme', '{screen.theme}')"
            )
            self._contexts[screen] = context
        return self._contexts[screen]


# Everything that a page loads, whether or not the browser had it cached.
_ADDRESSES = """() => [performance.getEntriesByType("navigation"), performance.getEntriesByType("resource")].flat()
  .map((entry) => entry.name).filter((name) => name.startsWith("http"))"""


@cache
def _size_on_the_wire(address: str) -> int:
    """Bytes of a body as GitHub Pages sends it, text compressed; the server of these tests does not compress."""
    with urlopen(address) as response:
        body, kind = response.read(), response.headers.get_content_type()
    text = kind.startswith("text/") or kind.split("/")[-1] in ("javascript", "json", "svg+xml")
    return len(gzip.compress(body)) if text else len(body)


_FACTS = r"""async () => {
  for (const image of document.images) image.loading = "eager";
  const loaded = (image) => image.complete || new Promise((done) => { image.onload = image.onerror = done; });
  await Promise.all([...document.images].map(loaded));
  const article = document.querySelector("article") ?? document.body;
  const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  const raw = [];
  while (texts.nextNode()) {
    const text = texts.currentNode;
    if (text.parentElement.closest("pre, code, script, style, mjx-container, dt.sig")) continue;
    if (/\$[^$\s][^$]*\$|\\\(|\\\[|\\begin\{|\\frac|\\sum/.test(text.data)) raw.push(text.data.trim().slice(0, 80));
  }
  return {
    raw,
    errors: [...document.querySelectorAll("mjx-merror, [data-mjx-error]")].map((e) => e.textContent.slice(0, 80)),
    bare: [...document.querySelectorAll("span.math, div.math")].filter((e) => !e.querySelector("mjx-container"))
      .map((e) => e.textContent.slice(0, 80)),
    equations: document.querySelectorAll("mjx-container").length,
    broken: [...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.src),
    silent: [...document.images].filter((i) => !i.alt.trim()).map((i) => i.src),
    pageWidth: document.documentElement.scrollWidth,
    cut: [...article.querySelectorAll("*")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1
      && !e.closest("pre, div.math, .table-scroll, .pst-scrollable-table-container, dt.sig, mjx-container"))
      .map((e) => e.outerHTML.slice(0, 80)),
    theme: document.documentElement.dataset.theme,
  };
}"""

# Axe's time grows with the elements, and nine in ten are glyphs of equations and coloured words of code that differ in
# nothing axe looks at. Of each kind the first three stay; the others keep their text (or size) and lose their markup.
_THIN = """() => {
  const seen = {};
  for (const block of document.querySelectorAll(".highlight pre")) {
    const thin = block.cloneNode(true);
    for (const word of thin.querySelectorAll("span[class]")) {
      seen[word.className] = (seen[word.className] ?? 0) + 1;
      if (seen[word.className] > 3 && !word.children.length) word.replaceWith(word.textContent);
    }
    thin.normalize();
    block.replaceWith(thin);
  }
  const equations = [...document.querySelectorAll("mjx-container")].slice(3);
  const widths = equations.map((equation) => equation.getBoundingClientRect().width);
  equations.forEach((equation, i) => {
    equation.textContent = "equation";
    Object.assign(equation.style, { display: "inline-block", width: `${widths[i]}px` });
  });
}"""

# All rules in the reader's own theme and, at the desk, where more is in view, the contrast of the other theme too.
_AXE_RUN = """async (bothThemes) => {
  const own = document.documentElement.dataset.theme;
  const found = (await axe.run(document, { resultTypes: ["violations"] })).violations;
  if (bothThemes) {
    document.documentElement.dataset.theme = own === "dark" ? "light" : "dark";
    const contrast = { runOnly: ["color-contrast"], resultTypes: ["violations"] };
    found.push(...(await axe.run(document, contrast)).violations);
    document.documentElement.dataset.theme = own;
  }
  return found.filter((v) => ["serious", "critical"].includes(v.impact))
    .map((v) => `${v.id}: ${v.help}: ` + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + " " +
      (n.any[0]?.message ?? "")).join(" | "));
}"""
