"""A visit of a page by a real browser: everything that the tests ask of it, gathered in a single load."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent
AXE, THIN = FOLDER / "vendor" / "axe.min.js", FOLDER / "thin.js"


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
    """Loads pages in one browser, one after the other in one tab for each kind of screen: the scripts that all pages
    share stay compiled. The same page on the same screen is looked at once.
    """

    def __init__(self, browser: Any, address: str):
        self.browser, self.address = browser, address
        self._tabs: dict[Screen, Any] = {}
        self._visits: dict[tuple[str, Screen, str], Visit] = {}

    @contextmanager
    def open(self, page: str, screen: Screen, query: str = "") -> Iterator[tuple[Any, Visit]]:
        """Load a page and wait until its mathematics is typeset; leave it at the end.

        Args:
            page: its name without suffix.
            screen: width and theme.
            query: what follows the question mark of its address.

        Returns:
            The browser's tab, and what the load showed.
        """
        tab, visit = self._tab(screen), Visit()
        listeners = self._listeners(visit)
        for event, listener in listeners.items():
            tab.on(event, listener)
        try:
            tab.goto(f"{self.address}{page}.html{query and '?' + query}", wait_until="load")
            tab.evaluate("window.MathJax?.startup?.promise.then(() => document.fonts.ready).then(() => true)")
            visit.transferred = sum(map(_size_on_the_wire, tab.evaluate(_ADDRESSES)))
            yield tab, visit
        finally:
            for event, listener in listeners.items():
                tab.remove_listener(event, listener)
            tab.goto("about:blank")  # what the page still asks for must not be blamed on the next one

    def visit(self, page: str, screen: Screen, query: str = "") -> Visit:
        """Return what a page shows on a screen: loaded at the first call, remembered at the next.

        Args:
            page: its name without suffix.
            screen: width and theme.
            query: what follows the question mark of its address.
        """
        if (page, screen, query) not in self._visits:
            with self.open(page, screen, query) as (tab, visit):
                visit.facts = tab.evaluate(_FACTS)
                tab.evaluate(THIN.read_text(encoding="utf-8"))
                tab.evaluate(AXE.read_text(encoding="utf-8"))
                visit.violations = tab.evaluate(_AXE_RUN, screen is DESK)
            self._visits[page, screen, query] = visit
        return self._visits[page, screen, query]

    def _listeners(self, visit: Visit) -> dict[str, Callable[[Any], None]]:
        own = (self.address, "data:", "blob:")
        return {
            "console": lambda m: visit.console.append(m.text) if m.type in ("error", "warning") else None,
            "pageerror": lambda error: visit.console.append(str(error)),
            "requestfailed": lambda request: visit.failed.append(request.url),
            "response": lambda r: visit.failed.append(f"{r.status} {r.url}") if r.status >= 400 else None,
            "request": lambda r: visit.foreign.append(r.url) if not r.url.startswith(own) else None,
        }

    def _tab(self, screen: Screen) -> Any:
        if screen not in self._tabs:
            context = self.browser.new_context(viewport={"width": screen.width, "height": screen.height})
            # A newcomer's storage: what one page leaves there, such as words to highlight, must not show on the next.
            settings = "".join(f"localStorage.setItem('{key}', '{screen.theme}');" for key in ("mode", "theme"))
            context.add_init_script(f"localStorage.clear(); sessionStorage.clear(); {settings}")
            context.set_default_timeout(180_000)  # milliseconds: ends what hangs, judges no busy machine
            self._tabs[screen] = context.new_page()
        return self._tabs[screen]


# Everything that a page loads, whether or not the browser had it cached; and fonts of mathematics that an earlier page
# of the same tab left in memory, which the browser takes up at once. The sum is no less than what a newcomer loads.
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

# All rules in the reader's own theme and, at the desk, where more is in view, the contrast of the other theme too.
# Axe calls every breach of the rule `region`, its dearest but for contrast, moderate: the filter below would drop it.
_AXE_RUN = """async (bothThemes) => {
  const own = document.documentElement.dataset.theme;
  const all = { resultTypes: ["violations"], rules: { region: { enabled: false } } };
  const found = (await axe.run(document, all)).violations;
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
