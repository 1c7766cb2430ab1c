"""Takes pictures of every page of the web UI with the demo's traffic, in the light and the dark theme.

``make screenshots`` runs it and writes to ``docs/screenshots``. It needs Playwright, and Debian's chromium or
the browser that ``TEST_BROWSER`` names.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from examples import demo
from playwright.sync_api import Browser, Page, sync_playwright

from wherefrom import TraceClient

FOLDER: Final = Path(__file__).parent.parent / "docs" / "screenshots"
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
WIDTH: Final = 1200
MOST_HEIGHT: Final = 720
MINUTE_MS: Final = 60_000


def addresses() -> dict[str, str]:
    """Return the address of each picture, by file name."""
    client = TraceClient(demo.STORE)
    newest = client.search_traces(max_results=1)[0].info.request_time
    oldest = client.search_traces(max_results=1, order_by=["timestamp ASC"])[0].info.request_time
    failed = client.search_traces(filter_string="name = 'POST /chat' AND status = 'ERROR'", max_results=1)[0]
    window = f"since={oldest - MINUTE_MS // 12}&until={newest + MINUTE_MS // 12}"
    return {
        "traces": "/traces",
        "trace": f"/traces/{failed.info.trace_id}",
        "sessions": "/sessions",
        "session": f"/session?id={failed.info.trace_metadata['mlflow.trace.session']}",
        "compare": "/compare",
        "deployments": f"/deployments?{window}",
        "status": "/status",
    }


def take(browser: Browser, site: str, scheme: Literal["light", "dark"]) -> Iterator[Path]:
    """Take a picture of each page, as high as it is visible without scrolling."""
    context = browser.new_context(
        color_scheme=scheme,
        locale="en-GB",
        timezone_id="Etc/UTC",
        viewport={"width": WIDTH, "height": MOST_HEIGHT},
    )
    page = context.new_page()
    for name, address in addresses().items():
        page.goto(site + address)
        file = FOLDER / f"{name}-{scheme}.png"
        page.screenshot(
            path=file, clip={"x": 0, "y": 0, "width": WIDTH, "height": height_of(page)}, animations="disabled"
        )
        yield file
    context.close()


def height_of(page: Page) -> int:
    """Return the height of the page's content, at most ``MOST_HEIGHT``."""
    end = page.evaluate("document.querySelector('main').getBoundingClientRect().bottom")
    return min(MOST_HEIGHT, int(end))


def main() -> None:
    path = os.environ.get("TEST_BROWSER") or shutil.which("chromium")
    if path is None:
        sys.exit("No browser found. Install Debian's chromium, or set TEST_BROWSER to a browser.")
    demo.record_traffic()
    FOLDER.mkdir(parents=True, exist_ok=True)
    port = demo.choose_port()
    with demo.page(port), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for scheme in SCHEMES:
            for file in take(browser, f"http://127.0.0.1:{port}", scheme):
                print(f"{file.relative_to(FOLDER.parent.parent)}  {file.stat().st_size:,} bytes")
        browser.close()


if __name__ == "__main__":
    main()
