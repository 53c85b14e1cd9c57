"""The built site, served on localhost, and one browser for all tests of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(Path(__file__).parent)]

from visits import Visitor  # noqa: E402  the folder is on the path only now


class Site(NamedTuple):
    """The folder of the built pages, and how long the build took (None when it was built before)."""

    folder: Path
    seconds: float | None


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The site that ``KEXUE_SITE`` names, or one built for these tests by the command of ``make book``."""
    if given := os.environ.get("KEXUE_SITE"):
        return Site(Path(given), None)
    into = tmp_path_factory.mktemp("site")
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "tools" / "build_book.py"), "--into", str(into)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return Site(into / "_build" / "html", time.perf_counter() - start)


@pytest.fixture(scope="session")
def site(built: Site) -> Path:
    """The folder of the built pages."""
    return built.folder


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served while the tests run."""
    handler = partial(_Quiet, directory=str(site))
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
