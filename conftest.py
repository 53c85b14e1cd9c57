"""Settings of every test run: figures are drawn without a window, and closed after each test."""

import os
import sys

import pytest

os.environ.setdefault("MPLBACKEND", "agg")


def pytest_configure(config):
    """Make nbval's kernels keep their history, in which IPython looks for the semicolon that ends a cell quietly."""
    if not config.getoption("--nbval-lax", False):
        return
    from nbval.kernel import RunningKernel

    def execute_cell_input(self, cell_input, allow_stdin=None):
        return self.kc.execute(cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)

    RunningKernel.execute_cell_input = execute_cell_input


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def without_runtime_types():
    """Run as a reader's program does: the compiler cannot look through the checks that the tests put on every call."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
