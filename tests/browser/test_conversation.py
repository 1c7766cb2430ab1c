"""A conversation is read in a browser."""

from __future__ import annotations

import json

from playwright.sync_api import expect

from .test_trace import STREAM
from .traffic import RESPONSE
from .visitor import Visitor, wait_until


def test_question_and_answer_are_read(visitor: Visitor) -> None:
    """Without a click; a click on the system prompt opens it, and one on Raw shows what was recorded."""
    page = visitor.open(f"/traces/{STREAM}", options={"permissions": ["clipboard-read", "clipboard-write"]})
    section = page.get_by_role("region", name="Conversation")
    expect(section.get_by_text("How is the weather in Rome?")).to_be_visible()
    expect(section.get_by_text("سماء صافية", exact=True).last).to_be_visible()
    expect(section.locator(".call code").first).to_have_text('look_up(city="Rome")')
    expect(section.get_by_text("degrees", exact=True)).to_be_visible()
    prompt = section.locator(".is-system .prose")
    expect(prompt).to_be_hidden()
    section.get_by_text("System", exact=True).click()
    expect(prompt).to_be_visible()
    section.get_by_text("Raw JSON").click()
    section.get_by_role("button", name="Copy outputs").click()
    expect(page.locator("#said")).to_have_text("Copied")
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == RESPONSE


def test_paths_and_values_of_json_are_copied(visitor: Visitor) -> None:
    """The item below the pointer offers both; values come from the JSON in full."""
    page = visitor.open(f"/traces/{STREAM}", options={"permissions": ["clipboard-read", "clipboard-write"]})
    page.locator(".waterfall .what", has_text="vector_search").click()
    page.locator(".tree[data-path=outputs] li").nth(1).hover()
    page.get_by_role("button", name="Copy path").click()
    wait_until(page, "async () => (await navigator.clipboard.readText()) === 'outputs[1]'")
    page.get_by_role("button", name="Copy value").click()
    expect(page.locator("#said")).to_have_text("Copied")
    wait_until(page, "async () => (await navigator.clipboard.readText()) === 'another'")
