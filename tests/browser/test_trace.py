"""The Trace page: where the time went, what failed, and what is said about it."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Locator, Page, expect

from .traffic import COMMIT, REPOSITORY
from .visitor import Visitor, wait_until

FAILED = f"tr-{100:032x}"
STREAM = f"tr-{101:032x}"


def bar(page: Page, name: str) -> tuple[float, float]:
    """Where the bar of a span begins and ends, in pixels."""
    box = span(page, name).locator(".whole").bounding_box()
    assert box is not None
    return box["x"], box["x"] + box["width"]


def label(page: Page, name: str) -> Locator:
    return page.locator(".what", has_text=re.compile(f"^{re.escape(name)}$"))


def span(page: Page, name: str) -> Locator:
    return page.locator(".waterfall li > details", has=label(page, name))


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


def test_a_span_is_opened(visitor: Visitor) -> None:
    """A click shows what went in and came out; what failed stands at the top, with its stack trace."""
    page = visitor.open(f"/traces/{FAILED}")
    failure = page.get_by_role("region", name="Failure")
    expect(failure).to_contain_text("the model did not answer in time")
    expect(failure.get_by_text('File "main.py", line 51')).to_be_visible()
    search = span(page, "vector_search")
    expect(search.get_by_text("another")).to_be_hidden()
    search.locator("summary").first.click()
    expect(search.get_by_text("another")).to_be_visible()
    expect(search.get_by_text("question 99")).to_be_visible()
    page.get_by_role("button", name="Expand all").click()
    expect(span(page, "look_up").locator(".body")).to_be_visible()


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
