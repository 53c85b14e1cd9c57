"""A pytest plugin for the whole book: which tests stay together, in which order they start, and what they cost.

One pool of workers runs everything. A notebook, a page of the site and a file of tests are units of work: each stays on
one worker. The long ones start first, so that at the end no worker waits long for the others.

Costs are CPU seconds of the tests and of all that they start (kernels, browsers, interpreters): what else runs on the
machine hardly changes them. The table at the end fails nothing. It also says what the run becomes when every article
that the book lists is a chapter.
"""

from __future__ import annotations

import re
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
# In the order in which they start. The first file builds the site, beside the first notebooks; the others of the site
# come after the notebooks, when it is ready, so that no worker waits for it.
BUILDS = "tests/site/test_head.py"
IN_A_BROWSER = {"test_pages.py", "test_search.py", "test_reading.py"}
BUILT, NOTEBOOKS, SEEN, PROOFS, BATTERY, OF_CHAPTERS, REST = PARTS = (
    "site: build, files",
    "notebooks",
    "site: in a browser",
    "proof engine",
    "operator battery",
    "tests of chapters",
    "library and tools",
)
GROWS, FIXED, AROUND = "grows", "fixed", "workers: start, imports, collection"
PAGE = re.compile(r"tests/site/test_pages\.py::\w+\[(.+)-(?:desk|phone)\]$")
SEARCH = re.compile(r"tests/site/test_search\.py::test_search_\w+\[(\w+)\]$")


class ByChapter(LoadScopeScheduling):
    """Hand out whole notebooks, whole pages and whole files, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        page = PAGE.match(nodeid)
        return page[1] if page else nodeid.split("::")[0]


def part_of(nodeid: str) -> str:
    """Return the part of the run that a test belongs to, one of ``PARTS``.

    Args:
        nodeid: pytest's name of the test.
    """
    file = Path(nodeid.split("::")[0])
    if file.suffix == ".ipynb":
        return NOTEBOOKS
    if file.parts[:2] == ("tests", "site"):
        return SEEN if file.name in IN_A_BROWSER else BUILT
    if file.parts[:2] == ("tests", "derivation"):
        return PROOFS
    if file.name == "test_ops.py":
        return BATTERY
    return OF_CHAPTERS if len(file.parts) > 2 and (CHAPTERS / file.parts[1]).is_dir() else REST


def growth_of(nodeid: str) -> str:
    """Return ``GROWS`` for a test that is there because of one chapter, ``FIXED`` for the others.

    Args:
        nodeid: pytest's name of the test.
    """
    page = PAGE.match(nodeid)
    if page:
        return GROWS if (ROOT / f"{page[1]}.ipynb").is_file() else FIXED
    return GROWS if part_of(nodeid) in (NOTEBOOKS, BATTERY, OF_CHAPTERS) or SEARCH.match(nodeid) else FIXED


def cpu_seconds(*, of_the_living: bool) -> float:
    """Return the CPU seconds that this process and those that it waited for have used.

    Args:
        of_the_living: add those of its descendants that still run; to list them takes some milliseconds.
    """
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(u.ru_utime + u.ru_stime for u in usage)
    for child in psutil.Process().children(recursive=True) if of_the_living else ():
        with suppress(psutil.Error):  # it ended between listing and reading
            total += sum(child.cpu_times()[:4])
    return total


class Costs:
    """Adds up what the tests of one process cost, or, where workers run them, of all workers."""

    def __init__(self, jobs: int):
        self.jobs, self.spent = jobs, Counter()

    def pytest_collection_finish(self) -> None:
        """Book what no test is to blame for: the start of the process, its imports, the list of tests."""
        self.spent[AROUND, FIXED] += cpu_seconds(of_the_living=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        """Measure one test with its share of set-up and tear-down.

        Args:
            item: the test.
            nextitem: the test after it, None at the end, when browsers and kernels are closed.
        """
        children_stay = nextitem is None or part_of(item.nodeid) in (NOTEBOOKS, SEEN)
        before = cpu_seconds(of_the_living=children_stay)
        result = yield
        # A browser's process that ends takes its count with it where nobody waited for it: a fifth of what it used.
        cost = max(0.0, cpu_seconds(of_the_living=children_stay) - before)
        self.spent[part_of(item.nodeid), growth_of(item.nodeid)] += cost
        return result

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send a worker's account to the process that started it.

        Args:
            session: pytest's.
        """
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["costs"] = [[*key, cost] for key, cost in self.spent.items()]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Add the account of a worker that has ended.

        Args:
            node: xdist's handle of the worker; one that crashed sent nothing.
        """
        for part, growth, cost in getattr(node, "workeroutput", {}).get("costs", ()):
            self.spent[part, growth] += cost

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the table and the projection.

        Args:
            terminalreporter: where pytest writes.
        """
        written = len(list(CHAPTERS.glob("*/*.ipynb")))
        parts = yaml.safe_load((CHAPTERS / "articles.yml").read_text(encoding="utf-8"))
        terminalreporter.section("CPU seconds")
        for line in table(self.spent, written, sum(len(part["chapters"]) for part in parts), self.jobs):
            terminalreporter.write_line(line)


def table(spent: Counter[tuple[str, str]], written: int, listed: int, jobs: int) -> list[str]:
    """Return the lines of the table: what each part cost, and the run of the finished book.

    Args:
        spent: CPU seconds by part and by ``GROWS`` or ``FIXED``.
        written: how many chapters there are.
        listed: how many there will be.
        jobs: how many workers share the work.
    """
    lines = [f"{'':36}{'all':>7}{'fixed':>9}{'per chapter':>14}"]
    sums = {growth: sum(cost for (_, kind), cost in spent.items() if kind == growth) for growth in (FIXED, GROWS)}
    rows = [(part, spent[part, FIXED], spent[part, GROWS]) for part in (AROUND, *PARTS)]
    for part, fixed, grown in [*rows, ("together", sums[FIXED], sums[GROWS])]:
        if fixed or grown:
            lines.append(f"{part:36}{fixed + grown:7.0f}{fixed:9.0f}{grown / max(written, 1):14.1f}")
    then = sums[FIXED] + sums[GROWS] / max(written, 1) * listed
    lines.append(f"{written} chapters: {sum(sums.values()) / jobs / 60:.1f} minutes of {jobs} busy workers")
    lines.append(f"{listed} chapters: {then / jobs / 60:.1f} minutes, if the others are like these")
    return lines


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the long units first.

    Args:
        items: the tests; sorted in place, and in their own order within a part.
    """

    def turn(item: pytest.Item) -> int:
        part = part_of(item.nodeid)
        return PARTS.index(SEEN if part == BUILT and not item.nodeid.startswith(BUILDS) else part)

    items.sort(key=turn)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByChapter:
    """Return who hands out the work.

    Args:
        config: pytest's.
        log: xdist's.
    """
    return ByChapter(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Take the order from here instead of the number of tests, and open the account.

    Args:
        config: pytest's.
    """
    config.option.loadscopereorder = False
    config.pluginmanager.register(Costs(config.option.numprocesses or 1), "costs")
