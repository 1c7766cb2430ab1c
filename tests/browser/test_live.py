"""Live: a request shows by itself, from a real app that records into the store that the page reads."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import Browser, expect

from wherefrom.stores import open_store

from ..servers.processes import PROMPT, running, start
from .conftest import serve_page, visiting


def test_a_request_shows_while_one_looks(browser: Browser, tmp_path: Path) -> None:
    """From an empty page on, the newest at the top, and counted; turned off, nothing moves any more."""
    server = start(tmp_path, "uvicorn", environ=PROMPT)
    url = f"sqlite:///{server.store}"
    store = open_store(url)
    store.write([])
    store.close()

    def ask(path: str) -> None:
        urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10).close()

    with running(server), serve_page(url, tmp_path) as site, visiting(browser, site) as visitor:
        page = visitor.open("/traces")
        expect(page.get_by_text("No traces yet")).to_be_visible()
        live = page.get_by_role("button", name="Live")
        with page.expect_response("**/changes?**"):
            live.click()
        ask("/items/first")
        rows = page.locator("#rows > tr")
        expect(rows).to_have_count(1)
        with page.expect_response("**/changes?**"):  # loaded anew, it is on again, and has its cursor
            pass
        ask("/items/second")
        expect(rows).to_have_count(2)
        expect(page.get_by_role("status")).to_have_text("1 new trace")
        expect(page.locator(".histogram strong")).to_have_text("2 requests")
        expect(page.locator("#facets .count").first).to_have_text("2")
        newest = page.locator("#rows time")
        moments = [one.get_attribute("datetime") or "" for one in newest.all()]
        assert moments == sorted(moments, reverse=True)
        assert "live=true" in page.url
        live.click()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        ask("/items/third")
        page.wait_for_timeout(1500)  # longer than it waits between two questions
        assert [
            url for url in asked if "/static/" not in url
        ] == []  # a browser asks for the icon when it likes
        expect(rows).to_have_count(2)
        page.reload()
        expect(rows).to_have_count(3)
