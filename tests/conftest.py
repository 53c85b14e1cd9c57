"""Its place makes pytest put this folder on the import path, so that the tests of all parts can import `opinfo`."""

from collections.abc import Iterator

import mpmath
import pytest


@pytest.fixture(autouse=True)
def _own_precision() -> Iterator[None]:
    """A test that raises mpmath's precision leaves it as it was: it would slow down those after it."""
    before = mpmath.mp.prec
    yield
    mpmath.mp.prec = before
