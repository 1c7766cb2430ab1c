"""The Errors page."""

from __future__ import annotations

import httpx

from wherefrom.model import SpanEvent, SpanStatus, SpanStatusCode, Trace
from wherefrom.stores import Store

from ..conftest import HOSTILE, get
from ..samples import make_trace


def failing(number: int, message: str) -> Trace:
    trace = make_trace(number, failed=True)
    (root,) = trace.data.spans
    root.status = SpanStatus(SpanStatusCode.ERROR, f"ValueError: {message}")
    attributes = {"exception.type": "ValueError", "exception.message": message}
    root.events.append(SpanEvent("exception", root.start_time_ns, attributes))
    return trace


async def test_groups_lead_to_their_traces(client: httpx.AsyncClient, store: Store) -> None:
    """The count to all of them, the type to the newest, both within the filter and the range."""
    store.write([make_trace(1), failing(2, "case 2"), failing(3, "case 3"), failing(4, "other")])
    page = await get(client, "/errors", since="0", filter="alice")
    first = page.one("tbody").all("tr")[0]
    assert "case #" in first.text
    assert "3 failed traces, in 2 groups" in page.one("caption").text
    listed = await get(client, first.all("a")[1].attributes["href"])
    assert len(listed.one("tbody", id="rows").all("tr")) == 2
    newest = await get(client, first.all("a")[0].attributes["href"])
    assert len(newest.one("nav", class_="near").all("a", rel="up")) == 1
    twin = (await client.get("/errors.json", params={"since": "0"})).json()
    assert [one["traces"] for one in twin["groups"]] == [2, 1]


async def test_without_errors_it_says_so(client: httpx.AsyncClient, store: Store) -> None:
    store.write([make_trace(1)])
    assert "No errors" in (await get(client, "/errors")).one("div", class_="empty").text
    wrong = await get(client, "/errors", filter="statu = 'x'")
    assert "did you mean status" in wrong.one("div", class_="failed").text


async def test_hostile_errors_are_text(client: httpx.AsyncClient, store: Store) -> None:
    store.write([failing(1, HOSTILE), failing(2, HOSTILE * 9)])
    page = await get(client, "/errors", since="0")
    assert not page.all("img")
    assert "\u202e" not in page.text
    assert all(one.attributes["href"].startswith(("/", "#")) for one in page.all("a"))
