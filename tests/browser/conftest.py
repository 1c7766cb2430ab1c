"""A real browser, and the page as a real process over a store that is filled beforehand."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from wherefrom.stores import open_store

from .traffic import make_traffic
from .visitor import PATIENCE_MS, Visitor

VARIABLE = "TEST_BROWSER"
# The shell has no windows, of which chromium makes one for each page: that takes more than the page itself.
BROWSERS = ("chromium-headless-shell", "chromium")
MISSING = f"no browser: install Debian's {' or '.join(BROWSERS)}, or name one in {VARIABLE}"
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_browser() -> str | None:
    """The browser to drive."""
    return os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, BROWSERS)), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a browser all that want one are skipped, for one reason."""
    if find_browser() is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=MISSING))


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One browser for all tests; each has a context of its own in it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=QUIET)
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with the traffic in it."""
    url = f"sqlite:///{tmp_path_factory.mktemp('browser') / 'wherefrom.db'}"
    store = open_store(url)
    store.write(make_traffic())
    store.close()
    return url


@pytest.fixture(scope="package")
def site(browser: Browser, store_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the page over that store."""
    with serve_page(store_url, tmp_path_factory.mktemp("ui")) as url:
        yield url


@pytest.fixture
def visitor(browser: Browser, site: str) -> Iterator[Visitor]:
    """Somebody who looks at the page; what the browser complains of fails the test."""
    with visiting(browser, site) as visitor:
        yield visitor


@contextmanager
def visiting(browser: Browser, site: str) -> Iterator[Visitor]:
    """Somebody who looks at any site, in a context of their own."""
    visitor = Visitor(browser, site)
    yield visitor
    visitor.leave()
    assert visitor.faults == []


@contextmanager
def serve_page(store_url: str, folder: Path, **environ: str) -> Iterator[str]:
    """``wherefrom ui`` over a store, on a port of its own; gives its address."""
    log = folder / "log"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WHEREFROM_")}
    command = [sys.executable, "-m", "wherefrom", "ui", "--port", "0", "--store", store_url]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=kept | environ, cwd=folder, stdout=out, stderr=subprocess.PIPE
        )
    assert process.stderr is not None
    try:
        yield read_address(process.stderr)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=20)[1].decode()
    assert "Traceback" not in rest, rest


def read_address(output: IO[bytes]) -> str:
    """The address that the command prints first."""
    line = output.readline().decode()
    found = re.search(r"http://[\d.]+:\d+", line)
    assert found, line + output.read().decode()
    return found[0]
