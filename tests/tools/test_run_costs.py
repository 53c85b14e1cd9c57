"""What stays together in a test run, in which order it starts, and how its cost is foretold."""

import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import run_costs

PAGE = "tests/site/test_pages.py::test_asks_no_other_host[chapters/distributions/squareplus-phone]"
OTHER_PAGE = "tests/site/test_pages.py::test_asks_no_other_host[about/ledger-desk]"
CELL = "chapters/distributions/squareplus.ipynb::ipynb::Cell 3"
UNIT = "tests/distributions/test_squareplus.py::test_odd[a::b-1]"


@pytest.mark.parametrize(
    ("name", "part", "growth"),
    [
        (CELL, "notebooks", "grows"),
        (PAGE, "site: in a browser", "grows"),
        (OTHER_PAGE, "site: in a browser", "fixed"),
        ("tests/site/test_search.py::test_search_finds_the_chapter_by_its_title[mla]", "site: in a browser", "grows"),
        ("tests/site/test_head.py::test_build_is_quick", "site: build, files", "fixed"),
        ("tests/site/test_reading.py::test_a_link_shows_its_entry[a]", "site: in a browser", "fixed"),
        ("tests/site/test_ledger.py::test_verdicts_are_all_shown", "site: build, files", "fixed"),
        ("tests/derivation/test_pairs.py::test_pair[x]", "proof engine", "fixed"),
        ("tests/test_ops.py::test_empty_batch[gini]", "operator battery", "grows"),
        (UNIT, "tests of chapters", "grows"),
        ("kexue_lib/attention/mla/__init__.py::kexue_lib.attention.mla.decode_cost", "tests of chapters", "grows"),
        ("kexue_lib/data.py::kexue_lib.data.digits", "library and tools", "fixed"),
        ("tests/test_data.py::test_digits", "library and tools", "fixed"),
    ],
)
def test_each_test_belongs_to_one_part_and_comes_with_a_chapter_or_not(name, part, growth):
    assert run_costs.part_of(name) == part
    assert run_costs.growth_of(name) == growth


def test_a_page_and_a_file_stay_on_one_worker():
    scope = lambda name: run_costs.ByChapter._split_scope(None, name)
    assert scope(PAGE) == scope(PAGE.replace("phone", "desk").replace("asks_no_other_host", "loads"))
    assert scope(PAGE) != scope(OTHER_PAGE)
    assert scope(CELL) == scope(CELL.replace("3", "14"))
    assert scope(UNIT) == "tests/distributions/test_squareplus.py"


def test_the_build_and_long_units_start_first_and_the_order_within_a_part_stays():
    head, ledger = "tests/site/test_head.py::test_x", "tests/site/test_ledger.py::test_y"
    late = ["tests/test_data.py::test_b", "tests/test_data.py::test_a"]
    items = [SimpleNamespace(nodeid=name) for name in (UNIT, *late, ledger, PAGE, CELL, head)]
    run_costs.pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == [head, CELL, ledger, PAGE, UNIT, *late]


def test_projection_is_what_is_fixed_and_the_mean_chapter_as_often_as_articles_are_listed():
    spent = Counter(
        {("proof engine", "fixed"): 240.0, ("notebooks", "grows"): 120.0, ("operator battery", "grows"): 60.0}
    )
    lines = run_costs.table(spent, written=10, listed=35, jobs=2)
    assert lines[-3].split() == ["together", "420", "240", "18.0"]
    assert lines[-2].startswith("10 chapters: 3.5 minutes")  # 420 s / 2
    assert lines[-1].startswith("35 chapters: 7.2 minutes")  # (240 + 35 * 18) s / 2 = 435 s


def test_cost_of_what_a_test_starts_is_seen_while_it_lives_and_after_it_ended():
    busy = "import time\nwhile time.process_time() < 0.4: pass\nprint('done', flush=True)\ninput()"
    before = {living: run_costs.cpu_seconds(of_the_living=living) for living in (True, False)}
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert run_costs.cpu_seconds(of_the_living=True) - before[True] > 0.3
        assert run_costs.cpu_seconds(of_the_living=False) - before[False] < 0.3
        child.communicate(b"\n")
    assert run_costs.cpu_seconds(of_the_living=False) - before[False] > 0.3
