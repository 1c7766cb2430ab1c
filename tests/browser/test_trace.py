"""The Trace page: where the time went, what failed, and what is said about it."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Locator, Page, expect

from .traffic import COMMIT, REPOSITORY
from .visitor import Visitor, wait_until

FAILED = f"tr-{100:032x}"
STREAM = f"tr-{101:032x}"
LONG = f"tr-{102:032x}"
"""A trace of many spans, of which three failed."""


def bar(page: Page, name: str) -> tuple[float, float]:
    """Where the bar of a span begins and ends, in pixels."""
    box = span(page, name).locator(".whole").bounding_box()
    assert box is not None
    return box["x"], box["x"] + box["width"]


def label(page: Page, name: str) -> Locator:
    return page.locator(".what", has_text=re.compile(f"^{re.escape(name)}$"))


def span(page: Page, name: str) -> Locator:
    """The row of a span."""
    return page.locator(".rows li", has=label(page, name))


def detail(page: Page) -> Locator:
    """The pane that shows one span."""
    return page.get_by_role("region", name="Span", exact=True)


def span_id(trace: int, place: int) -> str:
    return f"{trace:012x}{place:04x}"


def test_a_trace_is_opened_and_its_waterfall_read(visitor: Visitor) -> None:
    """Spans stand below their parents, their bars within the parents' bars, in the order of time."""
    page = visitor.open("/traces", filter=f"request_id = '{FAILED}'")
    page.locator("#rows").get_by_role("link", name="POST /chat").click()
    page.wait_for_url(f"**/traces/{FAILED}?*")
    assert page.locator(".waterfall .what").all_inner_texts() == [
        "POST /chat",
        "vector_search",
        "model",
        "look_up",
    ]
    root, search, model, tool = (
        bar(page, one) for one in ("POST /chat", "vector_search", "model", "look_up")
    )
    assert root[0] <= search[0] < search[1] < model[0] < model[1] <= root[1]
    assert model[0] < tool[0] < tool[1] < model[1]
    whole = root[1] - root[0]
    assert abs((tool[0] - root[0]) / whole - 0.5) < 0.01
    indents = [label(page, one).bounding_box() for one in ("model", "look_up")]
    assert indents[0]
    assert indents[1]
    assert indents[0]["x"] < indents[1]["x"]


def test_the_span_that_failed_is_open(visitor: Visitor) -> None:
    """With its stack trace, beside the list; what failed stands at the top."""
    page = visitor.open(f"/traces/{FAILED}")
    expect(page.get_by_role("region", name="Failure")).to_contain_text("the model did not answer in time")
    expect(detail(page).get_by_role("heading", level=3)).to_contain_text("model")
    expect(detail(page).get_by_text('File "main.py", line 51').first).to_be_visible()
    boxes = [page.locator(".waterfall").bounding_box(), detail(page).bounding_box()]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]


def test_a_span_is_opened_and_stays_open(visitor: Visitor) -> None:
    """A click shows what went in and came out; the address names the span, after a refresh too."""
    page = visitor.open(f"/traces/{FAILED}")
    page.get_by_label("Key of the new tag").fill("not lost")
    label(page, "vector_search").click()
    search = span_id(100, 2)
    page.wait_for_url(f"**/traces/{FAILED}?span={search}#span-{search}")
    expect(detail(page).get_by_text("another")).to_be_visible()
    expect(detail(page).get_by_text("question 99")).to_be_visible()
    expect(span(page, "vector_search").locator("a.pick")).to_have_attribute("aria-current", "true")
    expect(page.locator("[aria-current=true]")).to_have_count(1)
    assert page.get_by_label("Key of the new tag").input_value() == "not lost"
    page.reload()
    expect(detail(page).get_by_text("another")).to_be_visible()
    label(page, "look_up").click()
    expect(detail(page)).to_have_attribute("data-span", span_id(100, 4))
    page.go_back()
    expect(detail(page).get_by_text("another")).to_be_visible()
    page.go_back()
    expect(detail(page)).to_have_attribute("data-span", span_id(100, 3))


def test_a_link_names_a_span(visitor: Visitor) -> None:
    """Also by the part after # alone, as somebody may write it; one that is none is said."""
    page = visitor.open(f"/traces/{FAILED}#span-{span_id(100, 2)}")
    expect(detail(page).get_by_text("another")).to_be_visible()
    page = visitor.open(f"/traces/{FAILED}#span-%")
    expect(detail(page)).to_have_attribute("data-span", span_id(100, 3))
    page = visitor.open(f"/traces/{FAILED}#span-nope")
    expect(page.get_by_role("status")).to_have_text("This trace has no such span")
    page = visitor.open(f"/traces/{FAILED}", span="nope")
    expect(page.get_by_role("alert")).to_have_text("This trace has no span nope.")


def test_spans_are_folded_and_found_in_place(visitor: Visitor) -> None:
    """Without loading the page again."""
    page = visitor.open(f"/traces/{FAILED}")
    page.get_by_label("Key of the new tag").fill("not lost")
    page.get_by_role("link", name="1 span below model").click()
    expect(label(page, "look_up")).to_have_count(0)
    expect(page.get_by_role("link", name="1 span below model")).to_be_focused()
    expect(detail(page)).to_have_attribute("data-span", span_id(100, 3))
    page.get_by_role("link", name="1 span below model").click()
    expect(label(page, "look_up")).to_be_visible()
    page.get_by_label("errors only").check()
    page.get_by_role("button", name="Find").click()
    expect(page.locator(".rows .what")).to_have_text(["POST /chat", "model"])
    page.get_by_role("link", name="Show all").click()
    expect(page.locator(".rows .what")).to_have_count(4)
    page.keyboard.press("/")
    page.keyboard.type("LOOK")
    page.keyboard.press("Enter")
    expect(page.locator(".rows .what")).to_have_text(["look_up"])
    page.wait_for_url("**search=LOOK**")
    assert page.get_by_label("Key of the new tag").input_value() == "not lost"


def test_the_ruler_stays(visitor: Visitor) -> None:
    """Of many spans, when the list is scrolled; only some are on the page, the others follow."""
    page = visitor.open(f"/traces/{LONG}")
    expect(page.locator(".rows li")).to_have_count(200)
    page.locator(".rows").evaluate("rows => rows.scrollTo(0, 3000)")
    places = [page.locator(one).bounding_box() for one in (".scale", ".rows")]
    assert places[0]
    assert places[1]
    assert abs(places[0]["y"] - places[1]["y"]) < 3
    page.get_by_role("navigation", name="Pages of spans").get_by_role("link", name="Last").click()
    expect(label(page, "step 398")).to_be_visible()
    expect(page.locator(".rows li")).to_have_count(3)


def test_a_stream_says_when_its_first_byte_came(visitor: Visitor) -> None:
    page = visitor.open(f"/traces/{STREAM}")
    facts = page.locator(".facts")
    expect(facts).to_contain_text("12.5 ms")
    expect(facts).to_contain_text("31.0 ms")


def test_a_tag_is_edited(visitor: Visitor) -> None:
    """Set, changed, found by a filter, and removed."""
    page = visitor.open(f"/traces/{FAILED}")
    page.get_by_label("Key of the new tag").fill("cause")
    page.get_by_label("Value of the new tag").fill("a slow model")
    page.get_by_role("button", name="Add").click()
    box = page.get_by_label("cause", exact=True)
    expect(box).to_have_value("a slow model")
    box.fill("the network's fault")
    page.get_by_role("button", name="Save cause").click()
    expect(page.get_by_label("cause", exact=True)).to_have_value("the network's fault")
    page.goto(visitor.address("/traces", filter="tag.cause = 'the network''s fault'"))
    expect(page.locator("#rows > tr")).to_have_count(1)
    page.locator("#rows").get_by_role("link", name="POST /chat").click()
    page.get_by_role("button", name="Remove cause").click()
    expect(page.get_by_label("cause", exact=True)).to_have_count(0)


def test_it_is_copied(visitor: Visitor) -> None:
    """As JSON and as a filter that finds it."""
    page = visitor.arrive(permissions=["clipboard-read", "clipboard-write"])
    page.goto(visitor.address(f"/traces/{FAILED}"))
    page.get_by_role("button", name="Copy JSON").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied["trace_id"] == FAILED
    page.get_by_role("button", name="Copy as filter").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    wait_until(page, "async id => (await navigator.clipboard.readText()).includes(`= '${id}'`)", FAILED)


def test_the_ways_on(visitor: Visitor) -> None:
    """To the commit on its host, to the traces before and after, and to the session."""
    page = visitor.open(f"/traces/{FAILED}")
    commit = page.get_by_role("link", name=COMMIT)
    assert commit.get_attribute("href") == f"{REPOSITORY}/commit/{COMMIT}"
    page.get_by_role("link", name=re.compile("Older")).click()
    page.wait_for_url(f"**/tr-{99:032x}")
    page.get_by_role("link", name=re.compile("Newer")).click()
    page.wait_for_url(f"**/{FAILED}")
    page.get_by_role("link", name="Same session").click()
    page.wait_for_url("**/session?**")
    turns = page.locator(".turn")
    expect(turns).to_have_count(15)
    expect(turns.first).to_contain_text("what is question 3")
    expect(turns.last).to_contain_text("what is question 171")
