"""axe-core finds no serious violation on any page, light or dark."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page

from .conftest import visiting
from .pages import PAGES, REMARKS
from .test_login import locked_site
from .visitor import Visitor

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
GRAVE = {"serious", "critical"}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

__all__ = ["locked_site"]


def findings(page: Page, *, rules: tuple[str, ...] = ()) -> list[str]:
    """What axe-core finds that is grave; by all its rules, or by these alone."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": rules}
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {node['html'][:300]}"
        for one in found["violations"]
        if one["impact"] in GRAVE
        for node in one["nodes"][:5]
    ]


def open_everything(page: Page) -> None:
    """What is folded is looked at too."""
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")


def check(page: Page) -> None:
    """By all rules in the light, and by those of colour in the dark too."""
    open_everything(page)
    assert findings(page) == []
    page.emulate_media(color_scheme="dark")
    assert findings(page, rules=("color-contrast", "link-in-text-block")) == []


@pytest.mark.parametrize("name", PAGES)
def test_every_page(visitor: Visitor, name: str) -> None:
    for remark in REMARKS:
        visitor.forgive(remark)
    check(visitor.open(PAGES[name], options={"color_scheme": "light"}))


def test_a_phone(visitor: Visitor) -> None:
    """Where rows are cards they are rows still."""
    page = visitor.open("/traces?size=8", options={"viewport": {"width": 320, "height": 640}})
    check(page)
    page.goto(visitor.address("/compare"))
    check(page)


def test_logging_in(browser: Browser, locked_site: str) -> None:
    with visiting(browser, locked_site) as stranger:
        stranger.forgive("status of 401")
        page = stranger.open("/traces")
        check(page)
        page.get_by_label("Token").fill("open barley")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        check(page)


def test_what_is_grave_is_found(visitor: Visitor) -> None:
    """The check is no formality: a button without a name and grey on grey are found."""
    page = visitor.arrive()
    page.set_content(
        "<main><button></button><p style='color:#aaa;background:#bbb'>Can you read this?</p></main>"
    )
    found = {one.split()[0] for one in findings(page)}
    assert {"button-name", "color-contrast"} <= found
