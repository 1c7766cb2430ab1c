"""The page of two traces side by side, and the ways to it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from wherefrom import keys
from wherefrom.model import OK, Span, Trace
from wherefrom.stores import Store

from ..conftest import HOSTILE, Element, get, read
from ..samples import MS, START, make_trace

A, B, OTHER, LATER, LAST = (f"tr-{number:032x}" for number in (1, 2, 3, 4, 6))


def chat(number: int, answer: str, ms: float, version: str, **changes: Any) -> Trace:
    """A request with one model call, and in version 2 one more span."""
    trace_id, begun = f"tr-{number:032x}", (START + number * 1000) * MS

    def span(place: int, name: str, kind: str, share: float) -> Span:
        parent = f"{number:08x}{1:08x}" if place > 1 else None
        end = begun + round(ms * share * MS)
        return Span(trace_id, f"{number:08x}{place:08x}", parent, name, kind, begun, end, OK)

    spans = [span(1, "POST /chat", "SERVER", 1), span(2, "model", "LLM", 0.5)]
    spans[1].inputs = {"messages": [{"role": "user", "content": "why is it blue?"}]}
    spans[1].outputs = {"choices": [{"message": {"role": "assistant", "content": answer}}]}
    if version == "2":
        spans.append(span(3, "rank", "TOOL", 0.25))
    return make_trace(number, ms=ms, version=version, name="POST /chat", spans=spans, **changes)


@pytest.fixture
def traces(store: Store) -> None:
    store.write(
        [
            chat(1, "because of the sky", 100, "1"),
            chat(2, "because of the sea", 140, "2", metadata={"tier": HOSTILE.replace("\x00", "")}),
            make_trace(3, version="2"),
            chat(4, "because", 900, "2"),
            chat(5, "because", 130, "2"),
            make_trace(6, version="", name="n" * 2000),
        ]
    )


def texts(page: Element, tag: str) -> list[str]:
    found = [one.text for one in page.one("section", aria_labelledby="messages").all(tag)]
    return [text for text in found if not text.startswith("only in")]


@pytest.mark.usefixtures("traces")
async def test_what_differs_is_shown(client: httpx.AsyncClient) -> None:
    """Words of the answers, spans that only one has, durations, and facts; hostile ones are text."""
    page = await get(client, "/compare/traces", a=A, b=B)
    assert (texts(page, "del"), texts(page, "ins")) == (["sky"], ["sea"])
    assert [one.text for one in page.all("summary")] == [
        "User the same in both 15 characters", "Assistant 18 characters",
    ]  # fmt: skip
    rows = {
        row.one("span", class_="who").all("bdi")[0].text: [one.text for one in row.all("td")]
        for row in page.one("table", class_="spans").one("tbody").all("tr")
    }
    assert rows["POST /chat"][2] == "+40.0 ms"
    assert rows["model"][2] == "+20.0 ms"
    assert rows["rank"][0] == "none"
    facts = {
        row.one("th").all("bdi")[0].text: row for row in page.all("table", class_="cards")[0].all("tr")[1:]
    }
    assert [one.text for one in facts["app_version"].all("td")] == ["1", "2"]
    assert "<script>alert(1)</script>" in facts["tier"].text
    assert "environment" not in facts


@pytest.mark.usefixtures("traces")
async def test_the_twin_has_all_of_it(client: httpx.AsyncClient) -> None:
    found = (await client.get("/compare/traces.json", params={"a": A, "b": B})).json()
    assert (found["a"]["trace_id"], found["b"]["trace_id"]) == (A, B)
    assert (found["only_a"], found["only_b"], found["span_pairs"]) == (0, 1, 3)
    assert [one["difference_ns"] for one in found["spans"]] == [40 * MS, 20 * MS, None]
    by_difference = (
        await client.get("/compare/traces.json", params={"a": A, "b": B, "order": "difference"})
    ).json()
    assert [one["name"] for one in by_difference["spans"]] == ["POST /chat", "rank", "model"]


@pytest.mark.usefixtures("traces")
async def test_a_trace_is_compared_with_its_neighbours_on_the_route(client: httpx.AsyncClient) -> None:
    """By links of its page, which name one of the two; the form takes the id of a request."""
    around = {"filter": "status = 'OK'", "since": str(START)}
    page = await get(client, f"/traces/{B}", **around)
    links = [one.attributes["href"] for one in page.one("details", class_="with").all("a")]
    asked = []
    for link in links:
        answer = await client.get(link)
        assert answer.status_code == 303
        asked.append(parse_qs(urlsplit(answer.headers["location"]).query))
    kept = {name: [value] for name, value in around.items()}
    assert asked == [{"a": [A], "b": [B], **kept}, {"a": [B], "b": [LATER], **kept}]
    form = page.one("details", class_="with").one("form")
    assert form.attributes["action"] == "/compare/traces"
    hidden = {one.attributes["name"]: one.attributes["value"] for one in form.all("input", type="hidden")}
    assert hidden == {**around, "a": B}
    answer = await client.get("/compare/traces", params={**hidden, "b": "req-3"})
    page = await get(client, answer.headers["location"])
    heads = [urlsplit(one.attributes["href"]) for one in page.one("div", class_="sides").all("a")]
    assert [one.path for one in heads] == [f"/traces/{B}", f"/traces/{OTHER}"]
    assert [parse_qs(one.query) for one in heads] == [kept, kept]
    assert page.all("h2", id="messages")  # of one trace only: it has no conversation, and the other does


@pytest.mark.usefixtures("traces")
async def test_compare_leads_to_a_typical_trace_of_each(client: httpx.AsyncClient) -> None:
    """Near to the median of each version, on the route that both have: 140 ms of 130, 140 and 900."""
    page = await get(client, "/compare", since=START, until=START + 3_600_000)
    assert len(page.one("p", class_="typical").all("a")) == 1  # an empty version has no link
    alone = await get(client, "/compare", since=START, baseline="2", filter="app_version IN ('', '2')")
    assert not alone.all("p", class_="typical")
    link = page.one("p", class_="typical").one("a").attributes["href"]
    answer = await client.get(link)
    found = parse_qs(urlsplit(answer.headers["location"]).query)
    assert (found["a"], found["b"], found["since"]) == ([A], [B], [str(START)])
    twin = await client.get(link.replace("/compare/traces", "/compare/traces.json"))
    assert twin.json()["b"]["trace_id"] == B


@pytest.mark.usefixtures("traces")
async def test_two_choices_are_compared_the_earlier_first(client: httpx.AsyncClient) -> None:
    """As a form of checkboxes sends them; the address then names both."""
    answer = await client.get("/compare/traces", params={"trace": [LATER, A], "filter": "status = 'OK'"})
    found = parse_qs(urlsplit(answer.headers["location"]).query)
    assert found == {"a": [A], "b": [LATER], "filter": ["status = 'OK'"]}


@pytest.mark.usefixtures("traces")
@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({}, 400, "name two traces by a and b"),
        ({"a": A, "b": "nope"}, 404, "no trace has the id 'nope'"),
        ({"b": A}, 404, "no trace of 'POST /chat' before"),
        ({"a": LAST}, 404, "no trace of 'nnnn"),
        ({"baseline": "1", "candidate": "3" * 9000, "since": "0"}, 404, "of '1' and of '33"),
        ({"baseline": "1", "candidate": "3", "since": "0"}, 404, "no route has traces of '1' and of '3'"),
        ({"trace": A}, 400, "choose two traces to compare, not 1"),
        ({"baseline": "1", "candidate": "2", "by": "experiment"}, 400, "name two traces by their ids"),
    ],
)
async def test_what_cannot_be_compared(
    client: httpx.AsyncClient, query: dict[str, str], status: int, message: str
) -> None:
    answer = await client.get("/compare/traces.json", params=query)
    assert answer.status_code == status
    assert message in answer.json()["message"]
    assert len(answer.json()["message"]) < 300
    page = await client.get("/compare/traces", params=query)
    assert page.status_code == (status if query else 200)
    read(page.text)


async def test_traces_without_messages_are_compared_by_what_they_took(
    client: httpx.AsyncClient, store: Store
) -> None:
    """The inputs and outputs of the roots."""
    traces = [make_trace(1), make_trace(2, metadata={keys.USER: "bob"})]
    traces[0].data.spans[0].inputs, traces[1].data.spans[0].inputs = {"city": "Rome"}, {"city": "Bern"}
    store.write([*traces, make_trace(3, spans=[], trace_metadata={}, tags={})])
    page = await get(client, "/compare/traces", a=A, b=B)
    assert (texts(page, "del"), texts(page, "ins")) == (["Rome"], ["Bern"])
    assert (
        "only in A" in (await get(client, "/compare/traces", a=A, b=OTHER)).one("table", class_="spans").text
    )
