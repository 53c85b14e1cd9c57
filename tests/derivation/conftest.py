"""A derivation, and the bundles that it publishes."""

import pytest

from kexue_lib.derivation import Derivation, _display


@pytest.fixture
def d():
    return Derivation("demo")


@pytest.fixture
def shown(monkeypatch):
    """The bundles that a derivation publishes."""
    bundles = []
    monkeypatch.setattr(_display, "publish", bundles.append)
    return bundles
