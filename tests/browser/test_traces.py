"""The Traces page: list, filter, columns and pages."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from .traffic import EACH
from .visitor import Visitor

SIZE = 50


def rows(page: Page) -> list[str]:
    """The ids of the traces that are shown, from the top."""
    return [row.get_attribute("data-trace") or "" for row in page.locator("#rows > tr").all()]


def asked(page: Page) -> dict[str, str]:
    """What the address asks for."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def test_the_newest_are_first_with_times_of_the_reader(visitor: Visitor) -> None:
    """Times are in the zone of the browser; what they are in UTC is said when one points at them."""
    page = visitor.open("/")
    assert urlsplit(page.url).path == "/traces"
    assert rows(page) == [f"tr-{number:032x}" for number in range(2 * EACH, 2 * EACH - SIZE, -1)]
    time = page.locator("#rows time").first
    moment = re.search(r"T(\d\d):(\d\d:\d\d)", time.get_attribute("datetime") or "")
    assert moment is not None
    hour, rest = moment.groups()
    expect(time).to_contain_text(f"{(int(hour) + 9) % 24:02}:{rest}")
    assert f"{hour}:{rest}" in (time.get_attribute("title") or "")


def test_a_filter_is_typed(visitor: Visitor) -> None:
    """It narrows the list, and is part of the address, so the address can be shared."""
    page = visitor.open("/traces")
    box = page.get_by_label("Filter", exact=True)
    box.fill("status = 'ERROR' AND metadata.app_version = '1.1.0'")
    box.press("Enter")
    page.wait_for_url("**filter=**")
    failed = rows(page)
    assert len(failed) == EACH // 9
    assert page.locator("#rows .state-error").count() == len(failed)
    again = visitor.open(page.url.removeprefix(visitor.site))
    assert rows(again) == failed
    again.get_by_role("link", name="Clear", exact=True).click()
    expect(again.locator("#rows > tr")).to_have_count(SIZE)


def test_a_wrong_filter_shows_where(visitor: Visitor) -> None:
    """The text stays, and a caret below it marks the invalid word."""
    visitor.forgive("status of 400")
    page = visitor.open("/traces", filter="statis = 'OK'")
    said = page.get_by_role("alert").inner_text()
    typed, caret = next(
        pair for pair in zip(said.splitlines(), said.splitlines()[1:], strict=False) if "^" in pair[1]
    )
    assert typed[caret.index("^") :].startswith("statis")
    assert "status" in said
    expect(page.get_by_label("Filter", exact=True)).to_have_value("statis = 'OK'")


def test_fields_and_values_are_offered(visitor: Visitor) -> None:
    """While one types, with the keys that such a list is known to take."""
    page = visitor.open("/traces")
    box = page.get_by_label("Filter", exact=True)
    with page.expect_response(re.compile(r"/complete\.json\?text=metadata\.app_v$")):
        box.press_sequentially("metadata.app_v")
    offers = page.get_by_role("listbox").get_by_role("option")
    expect(offers.first).to_contain_text("app_version")
    box.press("ArrowDown")
    box.press("Enter")
    expect(box).to_have_value(re.compile(r"^metadata\.app_version = ?$"))
    expect(offers.filter(has_text="1.1.0")).to_have_count(1)
    box.press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()


def test_facets_edit_the_filter(visitor: Visitor) -> None:
    """A click adds a condition, a second one takes it out again."""
    page = visitor.open("/traces")
    facets = page.get_by_role("complementary", name="Facets")
    facets.get_by_role("link", name=re.compile(r"^ERROR\s*11$")).click()
    expect(page.locator("#rows > tr")).to_have_count(11)
    facets.get_by_role("link", name=re.compile(r"^1\.0\.0\s*1$")).click()
    expect(page.locator("#rows > tr")).to_have_count(1)
    words = page.get_by_label("Filter", exact=True).input_value()
    assert "'ERROR'" in words
    assert "'1.0.0'" in words
    facets.get_by_role("link", name=re.compile("^ERROR")).click()
    expect(page.locator("#rows > tr")).to_have_count(SIZE)
    assert "ERROR" not in page.get_by_label("Filter", exact=True).input_value()


def test_what_is_typed_is_kept(visitor: Visitor) -> None:
    """By a click on a facet, a range or a column before it was searched for."""
    page = visitor.open("/traces")
    box = page.get_by_label("Filter", exact=True)
    box.fill("name = 'POST /chat'")
    box.blur()
    facets = page.get_by_role("complementary", name="Facets")
    facets.get_by_role("link", name=re.compile("^ERROR")).click()
    expect(box).to_have_value("name = 'POST /chat' AND status = 'ERROR'")
    page.wait_for_load_state()
    box.fill("status = 'OK'")
    box.blur()
    page.get_by_role("link", name="6 hours", exact=True).click()
    page.wait_for_url("**since=6h**")
    expect(box).to_have_value("status = 'OK'")
    box.fill("status ==")
    box.blur()
    visitor.forgive("status of 400")
    facets.get_by_role("link", name=re.compile("^1.0.0")).click()
    expect(page.get_by_role("alert")).to_contain_text("did you mean =?")
    expect(box).to_have_value("status ==")


def test_times_are_typed_as_they_are_shown(visitor: Visitor) -> None:
    """In the time zone of the browser; the address is in UTC, and the same for everybody."""
    page = visitor.open("/traces")
    page.get_by_text("Custom…").click()
    begin = page.get_by_label("From", exact=True)
    assert "Asia/Tokyo" in page.locator(".exact .note").inner_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?", begin.input_value())
    begin.fill("2026-01-02 05:30")
    page.get_by_role("button", name="Set").click()
    page.wait_for_url("**since=**")
    assert asked(page)["since"] == "2026-01-01T20:30:00.000Z"


@pytest.mark.parametrize("chart", [".histogram svg", "#trends svg.chart"])
def test_a_stretch_of_time_is_dragged_over(visitor: Visitor, chart: str) -> None:
    """The list is then of that time alone."""
    page = visitor.open("/traces?size=8")
    drawn = page.locator(chart)
    drawn.scroll_into_view_if_needed()
    box = drawn.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.1, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, middle)
    page.mouse.move(box["x"] + box["width"] * 0.3, middle)
    page.mouse.up()
    page.wait_for_url("**until=**")
    query = asked(page)
    length = int(query["until"]) - int(query["since"])
    assert 0.15 < length / (2 * EACH * 60_000) < 0.3
    shown = page.locator(".histogram strong").inner_text()
    assert abs(int(shown.split()[0]) - length / 60_000) <= 1


def test_pages_are_turned(visitor: Visitor) -> None:
    """There and back again, without a gap or a row twice."""
    page = visitor.open("/traces")
    first = rows(page)
    page.get_by_role("link", name="Next", exact=True).click()
    page.wait_for_url("**after=**")
    second = rows(page)
    assert second == [f"tr-{number:032x}" for number in range(2 * EACH - SIZE, 2 * EACH - 2 * SIZE, -1)]
    page.get_by_role("link", name="Previous", exact=True).click()
    page.wait_for_url("**before=**")
    assert rows(page) == first


def test_columns_are_chosen(visitor: Visitor) -> None:
    """The address contains them."""
    page = visitor.open("/traces")
    page.get_by_text("Columns", exact=True).click()
    page.get_by_label("Session", exact=True).uncheck()
    page.get_by_label("Other:").fill("metadata.region")
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_url("**columns=**")
    heads = page.locator("thead th").all_inner_texts()
    assert "metadata.region" in heads or "region" in " ".join(heads).lower()
    assert "Session" not in heads
    expect(page.locator("#rows > tr").first).to_contain_text("us-east-1")


def test_a_view_is_saved_and_comes_back(visitor: Visitor) -> None:
    """In this browser, under a name that is shown as text; and it can be removed."""
    page = visitor.open("/traces?filter=status+%3D+%27ERROR%27&since=6h+ago")
    page.get_by_text("Saved views").click()
    page.get_by_label("Save this one as").fill("<b>errors</b>")
    page.get_by_role("button", name="Save", exact=True).click()
    page.goto(visitor.address("/traces"))
    page.get_by_text("Saved views").click()
    page.get_by_role("link", name="<b>errors</b>").click()
    page.wait_for_url("**since=6h**")
    assert asked(page)["filter"] == "status = 'ERROR'"
    page.get_by_text("Saved views").click()
    page.get_by_role("button", name="Remove <b>errors</b>").click()
    expect(page.get_by_role("link", name="<b>errors</b>")).to_have_count(0)
