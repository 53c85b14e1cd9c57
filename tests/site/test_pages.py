"""Every page of the table of contents, seen by a real browser at a desk in daylight and on a phone at night."""

from __future__ import annotations

import pytest
from visits import DESK, PHONE, Screen, Visitor, toc_pages

MAX_BYTES = 1_500_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.parametrize("page", toc_pages()),
    pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"]),
]


def test_loads_without_a_complaint(visitor: Visitor, page: str, screen: Screen):
    visit = visitor.visit(page, screen)
    assert not visit.console
    assert not visit.failed


def test_asks_no_other_host(visitor: Visitor, page: str, screen: Screen):
    assert not visitor.visit(page, screen).foreign


def test_every_equation_is_typeset(visitor: Visitor, page: str, screen: Screen):
    facts = visitor.visit(page, screen).facts
    assert not facts["raw"]
    assert not facts["errors"]
    assert not facts["bare"]


def test_every_image_is_loaded_and_has_words(visitor: Visitor, page: str, screen: Screen):
    facts = visitor.visit(page, screen).facts
    assert not facts["broken"]
    assert not facts["silent"]


def test_page_does_not_scroll_sideways(visitor: Visitor, page: str, screen: Screen):
    facts = visitor.visit(page, screen).facts
    assert facts["pageWidth"] <= screen.width
    assert not facts["cut"]


def test_no_serious_barrier_for_anybody(visitor: Visitor, page: str, screen: Screen):
    """Axe-core over the whole page: all rules, and the contrast of both themes."""
    visit = visitor.visit(page, screen)
    assert visit.facts["theme"] == screen.theme
    assert not visit.violations


def test_weighs_less_than_the_budget(visitor: Visitor, page: str, screen: Screen):
    assert 0 < visitor.visit(page, screen).transferred < MAX_BYTES
