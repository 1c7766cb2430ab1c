"""Somebody with a browser: opens pages, and keeps what the browser complains of."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode, urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

PATIENCE_MS = 20_000
_BETWEEN_LOOKS_MS = 50
_MOST_LOOKS = PATIENCE_MS // _BETWEEN_LOOKS_MS
INLINE = frozenset({"blob", "data"})


class Visitor:
    """Opens pages of one site; ``faults`` holds each error on the console and each request to elsewhere."""

    def __init__(self, browser: Browser, site: str) -> None:
        self.site = site
        self.faults: list[str] = []
        self.forgiven: list[str] = []
        self._browser = browser
        self._contexts: list[BrowserContext] = []

    def open(self, path: str, *, options: dict[str, Any] | None = None, **query: str) -> Page:
        """A page of the site in a new context, with these options of Playwright's contexts."""
        page = self.arrive(**options or {})
        page.goto(self.address(path, **query))
        return page

    def arrive(self, **options: Any) -> Page:
        """An empty page in a new context."""
        given = {"locale": "en-GB", "timezone_id": "Asia/Tokyo", "viewport": {"width": 1280, "height": 800}}
        context = self._browser.new_context(**given | options)
        context.set_default_timeout(PATIENCE_MS)
        context.on("request", self._on_request)
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self._keep(f"{error.page and error.page.url}: {error.error}"))
        self._contexts.append(context)
        return context.new_page()

    def address(self, path: str, **query: str) -> str:
        """The address of a page."""
        return f"{self.site}{path}" + (f"?{urlencode(query)}" if query else "")

    def forgive(self, text: str) -> None:
        """Complaints that hold this text are no faults: the test provokes them."""
        self.forgiven.append(text)

    def leave(self) -> None:
        """Close everything."""
        for context in self._contexts:
            context.close()

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in INLINE and f"{parts.scheme}://{parts.netloc}" != self.site:
            self._keep(f"asked elsewhere: {request.url}")

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._keep(f"{message.type} on the console: {message.text}")

    def _keep(self, fault: str) -> None:
        if not any(text in fault for text in self.forgiven):
            self.faults.append(fault)


def wait_until(page: Page, question: str, about: object = None) -> None:
    """Ask the page until the answer is true.

    Playwright's ``wait_for_function`` has the page itself repeat the question, and our policy forbids that.
    """
    for _ in range(_MOST_LOOKS):
        if page.evaluate(question, about):
            return
        page.wait_for_timeout(_BETWEEN_LOOKS_MS)
    raise AssertionError(f"it never becomes true: {question}")
