"""Everything with the keyboard alone, and always in sight where one is."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from .pages import PAGES
from .test_accessibility import findings
from .test_trace import FAILED, LONG, detail, span_id
from .visitor import Visitor, wait_until

MOST_STOPS = 400
WHERE = """() => {
  const here = document.activeElement;
  if (here === document.body) return null;
  const box = here.getBoundingClientRect();
  const style = getComputedStyle(here);
  return {
    html: here.outerHTML.slice(0, 160),
    seen: box.width > 0 && box.height > 0 && box.right > 0 && box.bottom > 0
      && box.left < innerWidth && box.top < innerHeight,
    marked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
  };
}"""


def stops(page: Page) -> list[dict[str, Any]]:
    """Where Tab leads, from the top of the page to its end."""
    found: list[dict[str, Any]] = []
    while len(found) < MOST_STOPS:
        page.keyboard.press("Tab")
        here = page.evaluate(WHERE)
        if here is None:
            break
        found.append(here)
    return found


def tab_to(page: Page, words: str) -> None:
    """Press Tab until what has the focus begins with these words."""
    for _ in range(MOST_STOPS):
        page.keyboard.press("Tab")
        text = page.evaluate("document.activeElement.textContent")
        if " ".join(text.split()).startswith(words):
            return
    raise AssertionError(f"Tab never comes to {words!r}")


@pytest.mark.parametrize(
    "name", ["traces", "trace", "sessions", "session", "compare", "deployments", "status"]
)
def test_tab_leads_through_the_page(visitor: Visitor, name: str) -> None:
    """To its end, without a trap; each stop is on the screen, and is marked."""
    page = visitor.open(PAGES[name])
    found = stops(page)
    assert 5 < len(found) < MOST_STOPS
    assert [one["html"] for one in found if not one["seen"]] == []
    assert [one["html"] for one in found if not one["marked"]] == []
    assert "Skip to content" in found[0]["html"]


def test_the_content_is_one_key_away(visitor: Visitor) -> None:
    """The first stop skips the navigation; a slash goes to the filter."""
    page = visitor.open("/traces?size=8")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Filter", exact=True)).to_be_focused()
    page.get_by_role("button", name="Filter").focus()
    page.keyboard.press("/")
    expect(page.get_by_label("Filter", exact=True)).to_be_focused()
    page.keyboard.type("a / b")
    expect(page.get_by_label("Filter", exact=True)).to_have_value("a / b")


def test_a_failed_request_is_found_and_read(visitor: Visitor) -> None:
    """Enter on a facet narrows down, on a row opens the trace, on a span shows it."""
    page = visitor.open("/traces")
    tab_to(page, "ERROR")
    page.keyboard.press("Enter")
    expect(page.locator("#rows > tr")).to_have_count(11)
    tab_to(page, "POST /chat")
    page.keyboard.press("Enter")
    page.wait_for_url("**/traces/tr-*")
    tab_to(page, "OKRRETRIEVERvector_search")
    page.keyboard.press("Enter")
    expect(detail(page).get_by_text("another")).to_be_visible()


def test_errors_are_a_key_away(visitor: Visitor) -> None:
    """n and p go through the spans that failed, also to those that the list does not show yet."""
    page = visitor.open(f"/traces/{LONG}")
    expect(detail(page)).to_have_attribute("data-span", span_id(102, 60))
    for key, place in (("n", 160), ("n", 260), ("n", 260), ("p", 160), ("p", 60), ("p", 60)):
        page.keyboard.press(key)
        expect(detail(page)).to_have_attribute("data-span", span_id(102, place))
        expect(page.locator(f"#span-{span_id(102, place)}")).to_be_in_viewport()
    page.wait_for_url(f"**#span-{span_id(102, 60)}")


def test_spans_are_a_key_away(visitor: Visitor) -> None:
    """j and k go through the list from the span in detail; the list is skipped with one link."""
    page = visitor.open(f"/traces/{FAILED}")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(detail(page)).to_have_attribute("data-span", span_id(100, 4))
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(detail(page)).to_have_attribute("data-span", span_id(100, 3))
    page.get_by_role("button", name="Find").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.getElementById('detail').contains(document.activeElement)")


def test_a_tag_is_written(visitor: Visitor) -> None:
    page = visitor.open(f"/traces/{FAILED}")
    page.get_by_label("Key of the new tag").focus()
    page.keyboard.type("typed")
    page.keyboard.press("Tab")
    page.keyboard.type("by hand")
    page.keyboard.press("Enter")
    expect(page.get_by_label("typed", exact=True)).to_have_value("by hand")
    tab_to(page, "Remove typed")
    page.keyboard.press("Enter")
    expect(page.get_by_label("typed", exact=True)).to_have_count(0)


def test_a_wide_table_is_scrolled(visitor: Visitor) -> None:
    """The place that scrolls sideways takes the focus, and the arrow keys move it."""
    page = visitor.open("/traces?size=8", options={"viewport": {"width": 900, "height": 700}})
    place = page.get_by_role("region", name="Table of traces")
    place.focus()
    page.keyboard.press("ArrowRight")
    wait_until(page, "() => document.querySelector('.list .scroll').scrollLeft > 0")


def test_keys_lead_through_a_list_and_back(visitor: Visitor) -> None:
    """j and k choose a trace, Enter opens it, i and o go on, u returns; ? lists them; typing is typing."""
    page = visitor.open("/traces?size=8&since=30d+ago")
    rows = page.locator("#rows .name a")
    for key in "jjk":
        page.keyboard.press(key)
    expect(rows.first).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/traces/tr-*")
    first = page.url
    page.keyboard.press("o")
    page.wait_for_url(lambda url: "/traces/tr-" in url and url != first)
    page.keyboard.press("i")
    page.wait_for_url(first)
    page.keyboard.press("u")
    page.wait_for_url("**/traces?since=**")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("/")
    page.keyboard.type("jk?")
    expect(page.get_by_label("Filter", exact=True)).to_have_value("jk?")


def test_two_traces_are_chosen_and_compared(visitor: Visitor) -> None:
    """x chooses where j and k lead; only two can be compared. Back finds the choices again."""
    page = visitor.open("/traces?size=8")
    compare = page.get_by_role("button", name="Compare chosen")
    boxes = page.locator("#rows [name=trace]")
    everything = page.get_by_label("Choose all on this page")
    for key in "jx":
        page.keyboard.press(key)
    expect(boxes.first).to_be_checked()
    expect(compare).to_be_disabled()
    everything.check()
    expect(page.locator("#rows [name=trace]:checked")).to_have_count(8)
    everything.uncheck()
    for key in "jxjx":
        page.keyboard.press(key)
    chosen = [boxes.nth(at).get_attribute("value") for at in (0, 1)]
    expect(page.locator("#chosen-count")).to_have_text("of 2 chosen traces")
    compare.click()
    page.wait_for_url(f"**/compare/traces?**&a={chosen[1]}&b={chosen[0]}")
    page.go_back()
    expect(compare).to_be_enabled()


def test_the_palette_goes_to_pages_views_and_ids(visitor: Visitor) -> None:
    """From anywhere, also while somebody types; Escape gives the focus back."""
    page = visitor.open("/traces?size=8&filter=status+%3D+%27ERROR%27")
    page.evaluate(
        'localStorage.setItem(\'wherefrom.views /traces\', \'[{"name": "mine", "query": "?size=7"}]\')'
    )
    page.get_by_label("Filter", exact=True).focus()
    page.keyboard.press("Control+k")
    dialog = page.get_by_role("dialog", name="Go to")
    expect(dialog.get_by_role("combobox")).to_be_focused()
    assert findings(page) == []
    options = dialog.get_by_role("option")
    assert [item.locator("bdi").inner_text() for item in options.all()[:2]] == ["Traces", "Errors"]
    expect(options.last).to_contain_text("mine")
    page.keyboard.press("Escape")
    expect(page.get_by_label("Filter", exact=True)).to_be_focused()
    page.keyboard.press("Control+k")
    page.keyboard.type("depl")
    expect(options.first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    page.wait_for_url("**/deployments")
    page.keyboard.press("Control+k")
    page.keyboard.type("mine")
    page.keyboard.press("Enter")
    page.wait_for_url("**/traces?size=7")
    page.keyboard.press("Control+k")
    page.keyboard.type("req-99")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/traces/{FAILED}")
