"""The built site, served on localhost, and one browser for all tests of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(Path(__file__).parent)]

from visits import Visitor  # noqa: E402  the folder is on the path only now


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site that ``KEXUE_SITE`` names, or one built for these tests, once for all workers."""
    if given := os.environ.get("KEXUE_SITE"):
        return Path(given)
    workers_share = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    into = (base.parent if workers_share else base) / "site"
    outcome = into / "outcome.txt"
    try:
        into.mkdir()
    except FileExistsError:  # another worker came first
        while not outcome.exists():
            time.sleep(0.2)
    else:
        unfinished = into / "unfinished.txt"
        unfinished.write_text(_build(into), encoding="utf-8")
        unfinished.rename(outcome)
    complaint = outcome.read_text(encoding="utf-8")
    assert not complaint, complaint
    return into / "_build" / "html"


def _build(into: Path) -> str:
    """Build the site by the command of ``make book``; return its complaint where it failed, else nothing."""
    command = [sys.executable, str(ROOT / "tools" / "build_book.py"), "--into", str(into)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return f"{done.stdout}\n{done.stderr}" if done.returncode else ""


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served while the tests run."""
    with _served(site) as host:
        yield host


@pytest.fixture
def below(site: Path) -> Iterator[str]:
    """Where the site is served below the root of its host, as GitHub Pages does."""
    with _served(site.parent) as host:
        yield f"{host}{site.name}/"


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def visitor(address: str) -> Iterator[Visitor]:
    """A browser that visits each page once for each kind of screen and remembers what it saw."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on the PATH: install Debian's package chromium to run the browser tests")
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `test` brings Playwright")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=chromium, args=flags)
        yield Visitor(browser, address)
        browser.close()


class _Quiet(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        """Let the browser keep scripts and styles between pages, as it does for a reader."""
        self.send_header("Cache-Control", "max-age=3600")
        super().end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing: pytest shows what matters."""
