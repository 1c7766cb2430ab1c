"""The Compare and Deployments pages: which version is worse, and since when it has been there."""

from __future__ import annotations

import re
import struct
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from playwright.sync_api import Page, expect

from .traffic import EACH
from .visitor import Visitor


def download(page: Page, name: str) -> tuple[str, bytes]:
    """What a link with this name downloads: the file's name, and its content."""
    with page.expect_download() as waiting:
        page.get_by_role("link", name=name).click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_the_verdict_is_told_in_words(visitor: Visitor) -> None:
    """And each figure leads to the traces that it was made of."""
    page = visitor.open("/compare?sequential=false")
    expect(page.get_by_role("region", name="Verdicts")).to_contain_text("1.1.0 is worse than 1.0.0")
    rows = page.locator(".compared").first.get_by_role("row")
    row = rows.filter(has=page.get_by_role("rowheader", name="1.1.0"))
    expect(row).to_contain_text("worse")
    row.get_by_role("link", name=re.compile(r"^11\.1")).click()
    expect(page.locator("#rows .state-error")).to_have_count(EACH // 9)


def test_what_is_compared_is_chosen(visitor: Visitor) -> None:
    page = visitor.open("/compare")
    page.get_by_label("By", exact=True).fill("region")
    page.get_by_label("Baseline", exact=True).fill("us-east-1")
    page.get_by_label("Filter", exact=True).fill("name = 'POST /chat'")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("region")
    rows = page.locator(".compared").first.get_by_role("row")
    row = rows.filter(has=page.get_by_role("rowheader", name="us-east-1"))
    expect(row).to_contain_text("baseline")
    expect(row).to_contain_text(str(EACH // 3))


def test_points_in_time_lead_to_traces(visitor: Visitor) -> None:
    """A bar of the timeline is a link to what came in then."""
    page = visitor.open("/compare")
    timeline = page.locator(".charts section").filter(has=page.get_by_role("heading", name="Over time"))
    timeline.locator("a[href*='/traces']").last.click()
    page.wait_for_url("**/traces?**since=**")
    assert page.locator("#rows > tr").count() > 0


def test_the_picture_is_downloaded_as_svg(visitor: Visitor) -> None:
    """One file that needs nothing else and holds nothing that runs."""
    name, content = download(visitor.open("/compare?sequential=false"), "Download SVG")
    assert name.endswith(".svg")
    root = ET.fromstring(content)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = " ".join(root.itertext())
    assert "1.1.0" in text
    assert "worse" in text
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    assert b"http://" not in content.replace(b"http://www.w3.org/", b"")


def test_the_picture_is_downloaded_as_png(visitor: Visitor) -> None:
    name, content = download(visitor.open("/compare"), "Download PNG")
    assert name.endswith(".png")
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert 600 <= width <= 4000
    assert 200 <= height <= 4000
    assert content.endswith(b"IEND\xaeB`\x82")


def test_deployments_say_what_ran_when(visitor: Visitor) -> None:
    """The latest first; each leads to its traces."""
    page = visitor.open("/deployments")
    heads = page.locator("tbody th").all_inner_texts()
    assert len(heads) == 2
    assert "1.1.0" in heads[0]
    page.locator("tbody th a").last.click()
    page.wait_for_url("**/traces?**")
    assert "'1.0.0'" in page.get_by_label("Filter", exact=True).input_value()


@pytest.mark.parametrize("zone", ["Etc/UTC", "Asia/Tokyo", "America/New_York"])
def test_times_on_an_axis_do_not_lie_on_each_other(visitor: Visitor, zone: str) -> None:
    """In whatever zone the reader lives, and however narrow the chart is."""
    page = visitor.open("/deployments", options={"timezone_id": zone})
    boxes = page.evaluate(
        """[...document.querySelectorAll("svg.chart text[data-time]")].map(label => {
          const box = label.getBoundingClientRect();
          return box.width ? [box.left, box.right] : null;
        }).filter(Boolean)"""
    )
    assert len(boxes) >= 2
    assert all(left[1] < right[0] for left, right in pairwise(boxes))
