"""From a phone to a wall of a screen, light and dark."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from .pages import PAGES, REMARKS
from .visitor import Visitor


def luminance(page: Page, selector: str, name: str) -> float:
    """How light the colour of an element is, from 0 to 1."""
    return float(
        page.locator(selector).first.evaluate(
            """(element, name) => {
              const canvas = document.createElement("canvas").getContext("2d");
              canvas.fillStyle = getComputedStyle(element)[name];
              canvas.fillRect(0, 0, 1, 1);
              const [red, green, blue] = canvas.getImageData(0, 0, 1, 1).data;
              return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255;
            }""",
            name,
        )
    )


@pytest.mark.parametrize("name", PAGES)
def test_no_width_is_too_narrow_or_too_wide(visitor: Visitor, name: str) -> None:
    """Nothing sticks out of the window from 320 to 2560 pixels."""
    for remark in REMARKS:
        visitor.forgive(remark)
    page = visitor.open(PAGES[name], options={"viewport": {"width": 320, "height": 640}})
    for width in (320, 768, 2560):
        page.set_viewport_size({"width": width, "height": 640})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width
        assert page.evaluate("document.body.scrollWidth") <= width, width


def test_dark_is_dark(visitor: Visitor) -> None:
    """What the reader's system prefers is what they see, in tables and charts too."""
    page = visitor.open("/compare", options={"color_scheme": "light"})
    ink = "svg.chart .ink"
    assert luminance(page, "body", "backgroundColor") > 0.9 > 0.3 > luminance(page, ink, "fill")
    page.emulate_media(color_scheme="dark")
    assert luminance(page, "body", "backgroundColor") < 0.15 < 0.7 < luminance(page, ink, "fill")
    assert luminance(page, "table", "color") > 0.7


def test_a_phone_shows_what_matters(visitor: Visitor) -> None:
    """A row on a phone is a card: its name, state and time are on the screen without moving it sideways."""
    page = visitor.open("/traces?size=8", options={"viewport": {"width": 320, "height": 640}})
    row = page.locator("#rows > tr").first
    for part in (".name a", ".state", "time"):
        box = row.locator(part).first.bounding_box()
        assert box is not None
        assert 0 <= box["x"] < box["x"] + box["width"] <= 320


def test_who_wants_no_motion_gets_none(visitor: Visitor) -> None:
    page = visitor.open("/traces?size=8", options={"reduced_motion": "reduce"})
    page.locator("#rows > tr").first.evaluate("row => row.classList.add('is-new')")
    assert page.locator("#rows > tr").first.evaluate("row => row.getAnimations().length") == 0
