"""The Sessions page, one session, and their twins."""

from __future__ import annotations

from typing import Any

import httpx

from wherefrom import SpanStatus, Trace, keys
from wherefrom.model import SpanStatusCode
from wherefrom.stores import Store

from ..conftest import HOSTILE, get
from ..samples import START, make_trace


def turn(number: int, session: str, user: str = "alice", **facts: Any) -> Trace:
    return make_trace(
        number, metadata={keys.SESSION: session, keys.USER: user, **facts.pop("own", {})}, **facts
    )


async def test_sessions_are_listed_with_the_latest_first(client: httpx.AsyncClient, store: Store) -> None:
    store.write([turn(1, "a"), turn(2, "a", failed=True), turn(3, "b", "bob"), turn(4, "b", "eve")])
    page = await get(client, "/sessions")
    first, second = page.one("tbody").all("tr")
    assert (first.one("th").text, second.one("th").text) == ("b", "a")
    assert "2 users" in first.text
    assert "alice" in second.text
    assert "✗ 1" in second.text
    found = (await client.get("/sessions.json")).json()
    assert [one["session_id"] for one in found["sessions"]] == ["b", "a"]
    assert found["next_page"] is None


async def test_a_filter_picks_sessions_and_pages_follow(client: httpx.AsyncClient, store: Store) -> None:
    store.write([turn(n, f"s{n}", failed=n % 2 == 0) for n in range(1, 7)])
    page = await get(client, "/sessions", filter="status = 'ERROR'", size=2)
    assert [row.one("th").text for row in page.one("tbody").all("tr")] == ["s6", "s4"]
    (following,) = [one for one in page.all("a", class_="button") if one.text == "Next"]
    page = await get(client, following.attributes["href"])
    assert [row.one("th").text for row in page.one("tbody").all("tr")] == ["s2"]
    assert not [one for one in page.all("a", class_="button") if one.text == "Next"]


async def test_the_time_range_limits_them(client: httpx.AsyncClient, store: Store) -> None:
    store.write([turn(n, f"s{n}") for n in range(1, 4)])
    found = await client.get("/sessions.json", params={"since": START + 2000, "until": START + 3000})
    assert [one["session_id"] for one in found.json()["sessions"]] == ["s2"]


async def test_a_session_is_told_turn_by_turn(client: httpx.AsyncClient, store: Store) -> None:
    own = {"feature_flag_new": "true"}
    broken = turn(9, "a", failed=True, request_preview="and now?")
    broken.data.spans[0].status = SpanStatus(SpanStatusCode.ERROR, "TimeoutError: too late")
    store.write([turn(1, "a", own=own, request_preview="what\nis it", response_preview="a thing"), broken])
    page = await get(client, "/sessions")
    page = await get(client, page.one("tbody").one("a", href="/session?id=a").attributes["href"])
    assert "2 requests, ✗ 1 error" in page.one("main").one("p", class_="note").text
    first, second = page.one("ol", class_="turns").all("li")
    assert "what\nis it" in first.text
    assert "a thing" in first.text
    assert "new = true" in first.text
    assert "7.88 s later" in second.text
    assert "TimeoutError: too late" in second.text
    assert "failed" in second.text
    assert second.all("a")[0].attributes["href"] == f"/traces/tr-{9:032x}"
    found = (await client.get("/session.json", params={"id": "a"})).json()
    assert [one["error"] for one in found["turns"]] == [None, "TimeoutError: too late"]
    assert found["session"]["turns"] == 2


async def test_requests_that_ask_nothing_are_no_turns(client: httpx.AsyncClient, store: Store) -> None:
    """They take a line without previews; in a session without a question every request is a turn."""
    listing = turn(2, "a", name="GET /v1/conversations", response_preview="[1, 2]")
    chat = {"name": "POST /chat", "request_preview": "hi"}
    stream = turn(3, "a", name="GET /chat/stream", request_preview="go on")
    store.write([turn(1, "a", **chat), listing, stream, turn(4, "b", name="GET /x", response_preview="y")])
    turns = (await get(client, "/session", id="a")).all("li", class_="turn")
    assert ["is-aside" in one.attributes["class"] for one in turns] == [False, True, False]
    assert "[1, 2]" not in turns[1].text
    assert turns[1].one("a").text == "GET /v1/conversations"
    found = (await client.get("/session.json", params={"id": "a"})).json()["turns"]
    assert [one["is_turn"] for one in found] == [True, False, True]
    (alone,) = (await get(client, "/session", id="b")).all("li", class_="turn")
    (said,) = alone.one("div", class_="said").all("div", dir="auto")
    assert said.text == "y"


async def test_what_is_cut_says_so(client: httpx.AsyncClient, store: Store) -> None:
    """With a link to the rest, whether the page cut it or the recorder did."""
    store.write([turn(1, "a", request_preview="x" * 1500, response_preview="an answer..."), turn(2, "a",
        request_preview="short", response_preview="whole")])  # fmt: skip
    first, second = (await get(client, "/session", id="a")).all("li", class_="turn")
    assert [one.text for one in first.all("a", class_="note")] == ["Show all", "Show all"]
    assert "x…" in first.text
    assert not second.all("a", class_="note")


async def test_long_sessions_have_pages(client: httpx.AsyncClient, store: Store) -> None:
    store.write([turn(n, "a") for n in range(1, 6)])
    page = await get(client, "/session", id="a", size=3)
    assert len(page.all("li", class_="turn")) == 3
    (later,) = [one for one in page.all("a", class_="button") if one.text == "Later turns"]
    page = await get(client, later.attributes["href"])
    assert len(page.all("li", class_="turn")) == 2
    assert "request_preview" in page.text


async def test_turns_that_overlap_say_so(client: httpx.AsyncClient, store: Store) -> None:
    store.write([turn(1, "a", ms=5000), turn(2, "a")])
    assert "before the previous response ended" in (await get(client, "/session", id="a")).text


async def test_hostile_sessions_are_text(client: httpx.AsyncClient, store: Store) -> None:
    value = HOSTILE.replace("\x00", "")
    trace = turn(1, value, value, own={"feature_flag_" + value: value}, failed=True, name=value)
    trace.info.request_preview = trace.info.response_preview = value * 100
    trace.data.spans[0].status = SpanStatus(SpanStatusCode.ERROR, value)
    store.write([trace])
    listed = await get(client, "/sessions")
    link = listed.one("tbody").all("a")[0].attributes["href"]
    for page in (listed, await get(client, link)):
        assert not page.all("img")
        assert "\u202e" not in page.text
        assert "<script>alert(1)</script>" in page.text
        assert all(one.attributes["href"].startswith(("/", "#")) for one in page.all("a"))


async def test_what_is_not_there_says_what_to_do(client: httpx.AsyncClient, store: Store) -> None:
    assert "X-Session-ID" in (await get(client, "/sessions")).one("div", class_="empty").text
    answer = await client.get("/session", params={"id": "nobody's"})
    assert answer.status_code == 404
    assert (await client.get("/session.json")).status_code == 404
    page = await get(client, "/sessions", filter="statsu = 'OK'")
    assert "statsu" in page.one("div", class_="failed").text
