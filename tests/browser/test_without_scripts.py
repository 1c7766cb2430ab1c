"""Without JavaScript everything works except live updates."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from .pages import PAGES, REMARKS
from .test_compare import download
from .test_trace import FAILED, LONG, detail, label, span_id
from .visitor import Visitor

NO_SCRIPTS = {"java_script_enabled": False}


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_whole(visitor: Visitor, name: str) -> None:
    """Its heading and content are there, and no button that would do nothing."""
    for remark in REMARKS:
        visitor.forgive(remark)
    page = visitor.open(PAGES[name], options=NO_SCRIPTS)
    assert page.locator("h1").count() == 1
    for button in page.locator("button:visible").all():
        assert button.evaluate("button => button.form !== null"), button.inner_text()
        assert button.get_attribute("type") != "button", button.inner_text()


def test_traces_are_asked_for(visitor: Visitor) -> None:
    """By filter, facet, time and page; times are in UTC then, and say so."""
    page = visitor.open("/traces", options=NO_SCRIPTS)
    expect(page.locator("#rows time").first).to_have_attribute("datetime", re.compile("T"))
    box = page.get_by_label("Filter", exact=True)
    box.fill("metadata.app_version = '1.1.0'")
    box.press("Enter")
    facets = page.get_by_role("complementary", name="Facets")
    facets.get_by_role("link", name=re.compile("^ERROR")).click()
    expect(page.locator("#rows > tr")).to_have_count(10)
    for row in (0, 1):
        page.locator("#rows [name=trace]").nth(row).check()
    page.get_by_role("button", name="Compare chosen").click()
    page.wait_for_url("**/compare/traces?**&a=tr-*&b=tr-*")
    page.go_back()
    page.get_by_role("link", name="Clear", exact=True).click()
    page.get_by_role("link", name="Next", exact=True).click()
    expect(page.locator("#rows > tr")).to_have_count(50)
    page.get_by_role("link", name="First", exact=True).click()
    narrow(page)
    expect(page.locator("#rows > tr")).to_have_count(10)
    page.get_by_text("Columns", exact=True).click()
    page.get_by_label("Session", exact=True).uncheck()
    page.get_by_role("button", name="Show", exact=True).click()
    assert "Session" not in page.locator("thead th").all_inner_texts()


def narrow(page: Page) -> None:
    """To the time from the tenth trace on, by the form for exact times."""
    tenth = page.locator("#rows time").nth(9).get_attribute("datetime") or ""
    page.get_by_text("Custom…").click()
    page.get_by_label("From", exact=True).fill(tenth)
    page.get_by_label("to", exact=True).fill("")
    page.get_by_role("button", name="Set").click()
    page.wait_for_url("**since=**")


def test_a_trace_is_read_and_tagged(visitor: Visitor) -> None:
    page = visitor.open(f"/traces/{FAILED}", options=NO_SCRIPTS)
    label(page, "vector_search").click()
    expect(detail(page).get_by_text("another")).to_be_visible()
    expect(page.locator(f"#span-{span_id(100, 2)}")).to_be_in_viewport()
    page.reload()
    expect(detail(page).get_by_text("another")).to_be_visible()
    page.get_by_role("link", name="1 span below model").click()
    expect(label(page, "look_up")).to_have_count(0)
    page.get_by_label("Search among spans").fill("vector")
    page.get_by_role("button", name="Find").click()
    expect(page.locator(".rows .what")).to_have_text(["vector_search"])
    page.get_by_label("Key of the new tag").fill("plain")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("button", name="Remove plain").click()
    expect(page.get_by_label("plain", exact=True)).to_have_count(0)


def test_many_spans_are_paged_through(visitor: Visitor) -> None:
    """Errors and pages are links."""
    page = visitor.open(f"/traces/{LONG}", options=NO_SCRIPTS)
    page.get_by_role("link", name="Next error").click()
    page.get_by_role("link", name="Next error").click()
    expect(label(page, "step 250")).to_be_in_viewport()
    page.get_by_role("link", name="Previous", exact=True).click()
    expect(label(page, "step 10")).to_be_visible()
    expect(detail(page)).to_have_attribute("data-span", span_id(102, 260))


def test_versions_are_compared(visitor: Visitor) -> None:
    page = visitor.open("/compare?sequential=false", options=NO_SCRIPTS)
    page.get_by_label("By", exact=True).fill("deployment_id")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("region", name="Verdicts")).to_contain_text("deploy-42 is worse than deploy-41")
    assert download(page, "Download PNG")[1].startswith(b"\x89PNG")
