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


def test_nothing_moves_when_the_counts_arrive(visitor: Visitor) -> None:
    """The rows come first; the chart and the facets have their place already, wide or narrow."""
    page = visitor.open("/traces?size=8")
    for width in (1280, 700):
        page.set_viewport_size({"width": width, "height": 800})
        place = page.locator("#rows").evaluate(
            """rows => {
              const parts = ["over-time", "facets"].map((id) => document.getElementById(id));
              const whole = rows.getBoundingClientRect().top;
              for (const part of parts) part.remove();
              const without = rows.getBoundingClientRect().top;
              for (const part of parts) rows.closest(".found").append(part);
              return whole - without;
            }"""
        )
        assert abs(place) < 1, width


def test_times_are_local_as_soon_as_they_arrive(visitor: Visitor) -> None:
    """Also in what is put into the page later; a script that runs before the page does it."""
    page = visitor.open("/traces?size=8")
    early = page.locator("head script[src*=times]")
    assert early.get_attribute("defer") is None
    shown = page.evaluate(
        """async () => {
          const time = document.createElement("time");
          [time.dateTime, time.textContent, time.dataset.form] = ["2026-01-02T20:30:00Z", "utc", "short"];
          document.body.append(time);
          await Promise.resolve();
          return time.textContent;
        }"""
    )
    assert shown == "3 Jan, 05:30:00"


def test_long_text_is_cut_at_its_end_in_both_directions(visitor: Visitor) -> None:
    """The first letter of an Arabic question is on the screen, as that of an English one."""
    page = visitor.open("/traces?size=8")
    for text in ("لماذا لم تصل الطلبية " * 8, "why did the order not arrive " * 8):
        inside = page.locator("#rows .preview").first.evaluate(
            """(cell, text) => {
              cell.querySelector("bdi").textContent = text;
              const range = document.createRange();
              range.setStart(cell.querySelector("bdi").firstChild, 0);
              range.setEnd(cell.querySelector("bdi").firstChild, 1);
              const [first, box] = [range, cell].map((one) => one.getBoundingClientRect());
              return first.left >= box.left - 1 && first.right <= box.right + 1 && box.width < 600;
            }""",
            text,
        )
        assert inside, text
    long = "cell => (cell.querySelector('bdi').textContent = 'x'.repeat(300), cell.offsetWidth)"
    assert page.locator("#rows .name").first.evaluate(long) < 360  # beside it there is room for the preview


def test_paper_has_both_panes_in_full(visitor: Visitor) -> None:
    """The list and the span below it, nothing of which scrolls or is folded."""
    page = visitor.open(PAGES["long"], options={"color_scheme": "dark"})
    page.emulate_media(media="print", color_scheme="dark")
    for part in (".rows", "#detail"):
        cut = page.locator(part).evaluate("part => part.scrollHeight - part.clientHeight")
        assert cut <= 1, part
    boxes = [page.locator(part).bounding_box() for part in ("#tree", "#detail")]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
    for part in (".seek", ".same"):
        assert not page.locator(part).is_visible(), part
    assert luminance(page, ".rows .is-chosen", "backgroundColor") > 0.9


def test_paper_has_the_content_alone(visitor: Visitor) -> None:
    """No forms and links to elsewhere; nothing is cut, and dark is not printed."""
    page = visitor.open("/traces?size=8", options={"color_scheme": "dark"})
    page.emulate_media(media="print", color_scheme="dark")
    for part in ("form.filter", ".ranges", "#facets", ".tools", ".pages", ".top nav"):
        assert not page.locator(part).first.is_visible(), part
    assert page.locator("#rows > tr").count() == 8
    for part in (".name", ".preview"):
        box = page.locator(f"#rows {part}").first.bounding_box()
        assert box
        assert box["width"] > 80, part
    assert page.locator("figure.histogram").is_visible()
    assert luminance(page, "body", "backgroundColor") > 0.9
    assert luminance(page, "#rows .name a", "color") < 0.3
