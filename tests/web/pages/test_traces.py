from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from wherefrom.exceptions import QueryTimeoutError
from wherefrom.model import SpanStatus, SpanStatusCode, TraceState
from wherefrom.stores import Store

from ..conftest import HOSTILE, Element, get, read
from ..samples import START, make_trace, make_traces

ALL = {"since": "0"}


def names(page: Element) -> list[str]:
    return [row.one("th").text for row in page.one("tbody", id="rows").all("tr")]


def query_of(link: Element) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(link.attributes["href"]).query).items()}


async def test_an_empty_store_says_what_to_do(client: httpx.AsyncClient) -> None:
    """One line that makes traces, not an empty table."""
    page = await get(client, "/traces")
    assert "add_middleware(wherefrom.TraceMiddleware)" in page.one("div", class_="empty").text
    assert not page.all("table")


async def test_the_newest_come_first_with_all_that_is_asked_for(
    client: httpx.AsyncClient, store: Store
) -> None:
    """State in a word, duration beside its bar, a link to the trace, the user and the session."""
    store.write([make_trace(1, ms=100, name="GET /a"), make_trace(2, ms=12.5, failed=True, name="GET /b")])
    page = await get(client, "/traces")
    assert names(page) == ["GET /b", "GET /a"]
    first = page.one("tbody", id="rows").all("tr")[0]
    text = " ".join(cell.text for cell in first.walk() if cell.tag in {"td", "th"})
    for word in ("Error", "500", "12.5 ms", "1.1.0", "alice", "s-1", "req-2"):
        assert word in text
    links = [one.attributes["href"] for one in first.all("a")]
    assert links[0] == f"/traces/{make_trace(2).info.trace_id}"
    assert query_of(first.all("a")[1]) == {"filter": "user = 'alice'"}
    older = await get(client, "/traces", since=START, until=START + 60_000)
    ranged = query_of(older.one("tbody", id="rows").all("a")[1])
    assert ranged == {"filter": "user = 'alice'", "since": str(START), "until": str(START + 60_000)}
    assert first.one("rect").attributes["width"] == "12.5"
    assert page.one("table", class_="traces").one("caption").text.startswith("2 traces")
    assert first.one("time").attributes["datetime"] == "2026-09-21T14:13:22.000Z"
    assert first.one("time").attributes["title"] == "2026-09-21 14:13:22.000 UTC"


async def test_the_twin_says_what_the_page_shows(client: httpx.AsyncClient, store: Store) -> None:
    """Under the same parameters."""
    store.write([make_trace(1), make_trace(2, ms=500, failed=True)])
    twin = (await client.get("/traces.json", params={"filter": "status = 'ERROR'"})).json()
    assert [row["trace_id"] for row in twin["traces"]] == [make_trace(2).info.trace_id]
    assert twin["p95_ms"] == 500
    assert twin["next_page"] is None
    page = await get(client, "/traces", filter="status = 'ERROR'")
    assert len(names(page)) == 1
    link = page.one("a", class_="twin").attributes["href"]
    assert (await client.get(link)).json()["traces"] == twin["traces"]


async def test_pages_lead_forth_and_back(client: httpx.AsyncClient, store: Store) -> None:
    """Links to the next, previous and first page keep the parameters of the request."""
    store.write(make_traces(7))
    first = await get(client, "/traces", size=3, filter="status = 'OK'")
    assert not first.all("a", rel="prev")
    second = await get(client, first.one("a", rel="next").attributes["href"])
    assert "filter" in query_of(second.one("a", rel="next"))
    back = await get(client, second.one("a", rel="prev").attributes["href"])
    assert [row.attributes for row in back.all("tr")] == [row.attributes for row in first.all("tr")]
    (home,) = [link for link in second.all("a") if link.text == "First"]
    assert query_of(home) == {"size": "3", "filter": "status = 'OK'"}


async def test_a_filter_that_cannot_be_read_is_shown_where_it_is_typed(client: httpx.AsyncClient) -> None:
    """With the caret under the word, the field marked, and the filter still in it."""
    answer = await client.get("/traces", params={"filter": "statu = 'OK'"})
    page = read(answer.text)
    assert answer.status_code == 400
    field = page.one("input", id="filter")
    assert field.attributes["value"] == "statu = 'OK'"
    assert field.attributes["aria-invalid"] == "true"
    error = page.one("div", id=field.attributes["aria-describedby"]).text
    assert "did you mean status" in error
    assert "\n  ^^^^^" in error
    for wrong in ({"since": "sometime"}, {"since": "now", "until": "1h ago"}, {"after": "x"}):
        assert (await client.get("/traces", params=wrong)).status_code == 400


async def test_what_was_meant_is_a_link(client: httpx.AsyncClient, store: Store) -> None:
    """Each suggestion is a filter that can be read; the twin has them too."""
    store.write([make_trace(1, metadata={"tenant": "acme"})])
    for wrong, meant in (
        ("statu = 'OK' AND user = 'alice'", "status = 'OK' AND user = 'alice'"),
        ("user == 'alice'", "user = 'alice'"),
        ("tenant = 'acme'", "metadata.tenant = 'acme'"),
        ("metadat.tenant = 'acme'", "metadata.tenant = 'acme'"),
    ):
        page = read((await client.get("/traces", params={"filter": wrong, "size": 9})).text)
        link = page.one("p", class_="meant").all("a")[0]
        assert query_of(link) == {"filter": meant, "size": "9"}
        assert len(names(await get(client, link.attributes["href"]))) == 1
        twin = (await client.get("/traces.json", params={"filter": wrong})).json()
        assert meant in twin["suggestions"]
    page = read((await client.get("/traces", params={"filter": "status ="})).text)
    assert not page.all("p", class_="meant")


async def test_words_are_searched_for(client: httpx.AsyncClient, store: Store) -> None:
    """In names, previews and messages; the facets and the other pages take the filter as it was typed."""
    broken = make_trace(4, name="POST /d", failed=True)
    broken.data.spans[0].status = SpanStatus(SpanStatusCode.ERROR, "TimeoutError: too late")
    store.write([
        make_trace(1, name="POST /chat"), make_trace(2, name="POST /b", request_preview="Where is my Order?"),
        make_trace(3, name="POST /c", response_preview="the order is late"), broken,
    ])  # fmt: skip
    found = {"chat": ["POST /chat"], "order": ["POST /c", "POST /b"], "late": ["POST /d", "POST /c"],
             "late status = error": ["POST /d"], "order is late": ["POST /c"], "nothing": []}  # fmt: skip
    for typed, expected in found.items():
        twin = (await client.get("/traces.json", params={"filter": typed})).json()
        assert [row["name"] for row in twin["traces"]] == expected, typed
    page = await get(client, "/traces", filter="late")
    link = next(one for one in page.one("aside").all("a") if one.attributes["data-value"] == "ERROR")
    assert query_of(link)["filter"] == "search ILIKE '%late%' AND status = 'ERROR'"
    assert (await client.get("/compare.json", params={"filter": "late"})).status_code == 200


async def test_an_id_opens_what_it_names(client: httpx.AsyncClient, store: Store) -> None:
    """A trace by its id or the id of its request, a session, and a user."""
    store.write([make_trace(1), make_trace(2, experiment="other", client_request_id="req 2")])
    trace_id = make_trace(1).info.trace_id
    for typed, path in {
        trace_id: f"/traces/{trace_id}",
        f" {trace_id.removeprefix('tr-').upper()}": f"/traces/{trace_id}",
        "req-1": f"/traces/{trace_id}",
        "'req 2'": f"/traces/{make_trace(2).info.trace_id}",
        "s-1": "/session?id=s-1",
        "alice": "/traces?filter=user+%3D+%27alice%27&since=0",
    }.items():
        answer = await client.get("/traces", params={"filter": typed, "since": "0"})
        assert (answer.status_code, answer.headers.get("location")) == (303, path), typed
    for typed in ("req-9", "req-1 s-1", "status = 'OK'"):
        assert (await client.get("/traces", params={"filter": typed})).status_code == 200
    other = await client.get("/traces", params={"filter": "s-1", "experiment": "other"})
    assert other.headers["location"] == "/session?experiment=other&id=s-1"
    twin = (await client.get("/traces.json", params={"filter": "s-1"})).json()
    assert len(twin["traces"]) == 2


async def test_an_id_that_is_not_found_in_time(
    client: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is shown, which has a deadline of its own."""
    store.write([make_trace(1)])

    def too_late(*_: Any) -> Any:
        raise QueryTimeoutError("this took longer than 10 s")

    with store.snapshot() as snapshot:
        monkeypatch.setattr(type(snapshot), "session", too_late)
    answer = await client.get("/traces", params={"filter": "orders", "since": "0"})
    assert answer.status_code == 200
    assert make_trace(1).info.trace_id in answer.text


async def test_facets_are_links_that_edit_the_filter(client: httpx.AsyncClient, store: Store) -> None:
    """Each with its count; a second click takes it back."""
    store.write([make_trace(1, failed=True), make_trace(2), make_trace(3, version="it's 2")])
    page = await get(client, "/traces", size=10)
    facets = page.one("aside", class_="facets")
    assert [title.text for title in facets.all("h2")] == [
        "State",
        "Route",
        "HTTP status",
        "Version",
        "Environment",
        "Region",
    ]
    link, only, others = [link for link in facets.all("a") if link.attributes["data-value"] == "it's 2"]
    assert (only.text, query_of(others)["filter"]) == ("only", "metadata.app_version != 'it''s 2'")
    assert link.one("span", class_="count").text == "1"
    assert query_of(link) == {"size": "10", "filter": "metadata.app_version = 'it''s 2'"}
    narrowed = await get(client, link.attributes["href"])
    assert len(names(narrowed)) == 1
    (chosen,) = narrowed.one("aside").all("a", aria_current="true")
    assert query_of(chosen) == {"size": "10"}


async def test_time_is_chosen_by_links_and_by_bars(client: httpx.AsyncClient, store: Store) -> None:
    """Every bar and every range is an address; the table has what the picture shows."""
    store.write(make_traces(50))
    page = await get(client, "/traces", since=START, until=START + 60_000)
    chart = page.one("section", class_="over-time")
    assert "50 requests" in chart.one("figcaption").text
    assert len(chart.all("rect", class_="requests")) == 50
    bar = await get(client, chart.one("svg").all("a")[7].attributes["href"])
    assert names(bar) == ["GET /orders/{order_id}"]
    figures = await get(client, chart.one("p", class_="as-table").one("a").attributes["href"])
    rows = figures.one("tbody").all("tr")
    assert len(rows) == 50
    assert query_of(rows[8].one("a")) == query_of(chart.one("svg").all("a")[8])
    ranges = page.one("nav", class_="ranges")
    assert not ranges.all("a", aria_current="true")
    assert [query_of(link) for link in ranges.all("a")][-1] == {"since": "0"}
    all_of_it = await get(client, "/traces", since="0")
    begun = all_of_it.one("details", class_="exact").one("input", name="since").attributes["value"]
    assert begun == "2026-09-21T14:13:21.000Z"
    assert (await client.get("/traces.json", params={"since": "0"})).json()["since"] == START + 1000
    day = await get(client, "/traces")
    assert day.one("nav", class_="ranges").one("a", aria_current="true").text == "24 hours"
    assert "No traces in the last 24 hours" in day.one("section", class_="list").text


async def test_without_a_match_the_way_out_is_shown(client: httpx.AsyncClient, store: Store) -> None:
    """Wider ranges, and no filter."""
    store.write([make_trace(1)])
    page = await get(client, "/traces", filter="user = 'nobody'")
    links = {link.text: query_of(link) for link in page.one("div", class_="empty").all("a")}
    assert links["Clear the filter"] == {}
    assert links["all time"] == {"filter": "user = 'nobody'", "since": "0"}
    assert "No trace has user = 'nobody'; there are alice" in page.one("p", class_="why").text
    unknown = await get(client, "/traces", filter="metadata.app_versoin = '1.1.0'", since="0")
    meant = unknown.one("p", class_="why").one("a")
    assert len(names(await get(client, meant.attributes["href"]))) == 1
    earlier = await get(client, "/traces", filter="user = 'alice'", since="1h ago")
    assert names(await get(client, earlier.one("p", class_="why").one("a").attributes["href"]))
    assert (await client.get("/why.json", params={"filter": "user = 'nobody'"})).json()["latest"] is None


async def test_columns_are_chosen_and_kept_in_the_address(client: httpx.AsyncClient, store: Store) -> None:
    """Columns of keys too: the form has them checked, and links and forms keep them."""
    store.write([make_trace(1, metadata={"tier <b>": "gold"}, tags={"team": "search"})])
    columns = ["name", "metadata.tier <b>", "tag.team", "region", "trace_id", "experiment", "response"]
    page = await get(client, "/traces", columns=columns)
    table = page.one("table", class_="traces")
    assert [title.text for title in table.one("thead").all("th")] == [
        "Chosen", "Name", "tier <b>", "team", "Region", "Trace id", "Experiment", "Response",
    ]  # fmt: skip
    cells = [cell.text for cell in table.one("tbody").one("tr").walk() if cell.tag in {"td", "th"}]
    assert cells[2:5] == ["gold", "search", "eu-1"]
    form = page.one("details", class_="columns")
    boxes = [box for box in form.all("input", type="checkbox") if "checked" in box.attributes]
    assert {box.attributes["value"] for box in boxes} == set(columns)
    assert len(page.one("form", class_="filter").all("input", name="columns")) == len(columns)
    assert (await client.get("/traces", params={"columns": "shoe size"})).status_code == 400
    assert "such as" in (await client.get("/traces.json", params={"columns": "x"})).json()["message"]


async def test_sorting_is_a_link_in_the_head(client: httpx.AsyncClient, store: Store) -> None:
    """Its label states the order for screen readers."""
    store.write([make_trace(1, ms=900), make_trace(2, ms=10), make_trace(3, state=TraceState.IN_PROGRESS)])
    page = await get(client, "/traces")
    time, duration = page.one("table", class_="traces").one("thead").all("a")
    assert query_of(time) == {"order": "oldest"}
    slowest = await get(client, duration.attributes["href"])
    assert slowest.one("tbody", id="rows").all("tr")[0].attributes["data-trace"].endswith("1")
    assert slowest.one("th", class_="c-duration").attributes["aria-sort"] == "descending"


async def test_changes_are_rows_since_a_cursor(client: httpx.AsyncClient, store: Store) -> None:
    """As HTML to put into the table, and as JSON."""
    store.write([make_trace(1)])
    cursor = (await client.get("/changes.json")).json()["cursor"]
    store.write([make_trace(2), make_trace(3, failed=True)])
    found = await get(client, "/changes", cursor=cursor, p95_ms=240)
    body = found.one("tbody")
    assert [row.attributes["data-trace"][-1] for row in body.all("tr")] == ["3", "2"]
    assert body.all("rect")[0].attributes["width"] == "50.0"
    ranged = {"cursor": cursor, "since": START + 2000, "until": START + 3000}
    within = (await client.get("/changes.json", params=ranged)).json()
    assert [trace["trace_id"] for trace in within["traces"]] == [make_trace(2).info.trace_id]
    only = (await client.get("/changes.json", params={"cursor": cursor, "filter": "status = 'OK'"})).json()
    assert [trace["trace_id"] for trace in only["traces"]] == [make_trace(2).info.trace_id]
    assert (await client.get("/changes.json", params={"cursor": body.attributes["data-cursor"]})).json()[
        "traces"
    ] == []
    assert (await client.get("/changes.json", params={"cursor": "x"})).status_code == 400


async def test_the_page_has_the_address_of_its_changes(client: httpx.AsyncClient, store: Store) -> None:
    """The address has the page's filter, time range and columns; live updates are a parameter.

    New rows come in by themselves where the newest are shown first.
    """
    store.write(make_traces(3))
    asked = {
        "filter": "status = 'OK'",
        "columns": ["time", "name"],
        "live": "true",
        "since": "0",
        "size": "2",
    }
    page = await get(client, "/traces", **asked)
    button = page.one("button", id="live")
    assert "data-on" in button.attributes
    assert "hidden" in button.attributes
    assert button.attributes["data-grows"] == "2"
    url = button.attributes["data-url"]
    assert parse_qs(urlsplit(url).query) == {
        "filter": ["status = 'OK'"], "columns": ["time", "name"], "since": ["0"],
    }  # fmt: skip
    assert (await get(client, url)).one("tbody").attributes["data-cursor"]
    second = await get(client, page.one("a", rel="next").attributes["href"])
    slowest = await get(client, "/traces", **asked, order="slowest")
    for other in (second, slowest):
        assert "data-grows" not in other.one("button", id="live").attributes
    first = await get(client, second.one("button", id="live").attributes["data-first"])
    assert [row.attributes for row in first.all("tr")] == [row.attributes for row in page.all("tr")]


async def test_a_failed_trace_has_its_message_in_the_list(client: httpx.AsyncClient, store: Store) -> None:
    """Before the preview, also in the rows that come in live, or in a column of its own."""
    broken = make_trace(2, failed=True, request_preview="why?")
    broken.data.spans[0].status = SpanStatus(SpanStatusCode.ERROR, "TimeoutError: <late>")
    cursor = (await client.get("/changes.json")).json()["cursor"]
    store.write([make_trace(1), broken])
    for path in (f"/changes?cursor={cursor}", "/traces"):
        first, second = (await get(client, path)).all("td", class_="preview")
        assert (first.text, second.text) == ("TimeoutError: <late>why?", "")
    page = await get(client, "/traces", columns=["error", "preview"])
    cells = [cell.text for cell in page.all("td", class_="preview")]
    assert cells == ["TimeoutError: <late>", "why?", "", ""]
    twin = (await client.get("/traces.json")).json()
    assert twin["errors"] == {broken.info.trace_id: "TimeoutError: <late>"}


async def test_a_preview_is_one_line(client: httpx.AsyncClient, store: Store) -> None:
    """White space is a space, the joiner of an emoji stays, and what is cut has a sign."""
    store.write(
        [
            make_trace(
                1, request_preview=f"Why?\n\n```py\n\tretry() \U0001f469\u200d\U0001f4bb\x07 {'x' * 200}"
            )
        ]
    )
    (cell,) = (await get(client, "/traces", **ALL)).one("tbody", id="rows").all("td", class_="preview")
    assert cell.text.startswith("Why? ```py retry() \U0001f469\u200d\U0001f4bb\\x07 xxx")
    assert cell.text.endswith("x…")


async def test_a_list_can_be_shared_as_it_is(client: httpx.AsyncClient, store: Store) -> None:
    """Its title has the filter, and a link has the time range as it is now."""
    store.write([make_trace(1), make_trace(2, experiment="other")])
    page = await get(client, "/traces", filter="user = 'alice'", since=START)
    assert page.one("head").one("title").text == "user = 'alice' · Traces · Wherefrom"
    query = query_of(page.one("a", class_="fixed"))
    assert query["filter"] == "user = 'alice'"
    assert int(query["since"]) == START < int(query["until"])


async def test_an_experiment_is_picked_where_there_are_several(
    client: httpx.AsyncClient, store: Store
) -> None:
    store.write([make_trace(1)])
    assert not (await get(client, "/traces")).all("details", class_="experiments")
    store.write([make_trace(2, experiment="other")])
    page = await get(client, "/traces", filter="user = 'alice'")
    every, default, other = page.one("details", class_="experiments").all("a")
    assert (every.text, default.text, every.attributes["aria-current"]) == ("all", "default", "true")
    assert query_of(other) == {"filter": "user = 'alice'", "experiment": "other"}
    assert len(names(await get(client, other.attributes["href"]))) == 1


async def test_a_facet_can_be_added_to_what_is_being_typed(client: httpx.AsyncClient, store: Store) -> None:
    """The page asks for the filter after a click on a facet, from the text in its field."""
    store.write([make_trace(1, version="it's")])
    page = await get(client, "/traces")
    toggle = page.one("input", id="filter").attributes["data-toggle"]
    link = next(one for one in page.one("aside").all("a") if "it's" in one.text)
    value = {"field": link.attributes["data-field"], "value": link.attributes["data-value"]}
    both = "status = 'OK' AND metadata.app_version = 'it''s'"
    for typed, expected in (("status = 'OK'", both), (both, "status = 'OK'"), ("", both[16:].strip("AND "))):
        answer = await client.get(toggle, params={**value, "filter": typed})
        assert answer.json() == {"filter": expected}
    for way, expected in (("only", both), ("not", both.replace("= 'it", "!= 'it"))):
        answer = await client.get(toggle, params={**value, "filter": both, "way": way})
        assert answer.json() == {"filter": expected}
    for wrong in ({"filter": "status ="}, {"field": "statsu"}, {"field": "user = 'x'"}):
        assert (await client.get(toggle, params=value | wrong)).status_code == 400


async def test_previews_have_room_and_the_columns_are_chosen_above_them(
    client: httpx.AsyncClient, store: Store
) -> None:
    """What is the same in most rows is no column by default."""
    store.write([make_trace(1)])
    page = await get(client, "/traces")
    heads = [head.text for head in page.one("table", class_="traces").one("thead").all("th")]
    assert "Preview" in heads
    assert not {"Environment", "Outcome"} & {*heads}
    section = [one for one in page.one("section", class_="list").walk() if one.tag in {"details", "table"}]
    assert [one.attributes["class"] for one in section] == ["columns", "export", "traces"]


async def test_a_range_without_requests_has_an_empty_chart(client: httpx.AsyncClient, store: Store) -> None:
    """Its place on the page does not depend on the counts."""
    store.write([make_trace(1)])
    page = await get(client, "/traces", filter="user = 'nobody'", since="0")
    chart = page.one("figure", class_="histogram")
    assert chart.one("figcaption").text.startswith("0 requests")
    assert chart.one("div", class_="heights").text == "00"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("sta", "status"),
        ("status = '", "'ERROR'"),
        ("status = 'OK' AND metadata.app_v", "metadata.app_version"),
    ],
)
async def test_what_may_come_next_is_offered(
    client: httpx.AsyncClient, store: Store, text: str, label: str
) -> None:
    """Completions of fields, keys and values: the whole filter, and the part that is new."""
    store.write([make_trace(1)])
    offers = (await client.get("/complete.json", params={"text": text})).json()["offers"]
    assert label in {offer["label"].split(" ")[0] for offer in offers}
    begun = [offer["text"].startswith(text) for offer in offers]
    assert begun == sorted(begun, reverse=True)


async def test_what_is_found_can_be_compared(client: httpx.AsyncClient, store: Store) -> None:
    """With the same filter, over the same time."""
    store.write([make_trace(1)])
    page = await get(client, "/traces", filter="user = 'alice'", since="0")
    link = page.one("a", class_="also")
    assert query_of(link) == {"filter": "user = 'alice'", "since": "0"}
    assert (await client.get(link.attributes["href"])).status_code == 200


async def test_the_list_is_small(client: httpx.AsyncClient, store: Store) -> None:
    """Fifty traces with fields of maximum length take less than 165 kB, and 120 kB of usual ones."""
    long = "<" * 1000
    metadata = {"mlflow.trace.user": long, "mlflow.trace.session": long, "environment": long}
    store.write(
        [
            make_trace(
                number, name=long, version=long, metadata=metadata, client_request_id=long[:256],
                request_preview=long,
            )
            for number in range(60)
        ]
    )  # fmt: skip
    sizes = [len((await client.get("/traces")).content)]
    store.write(make_traces(60))
    sizes.append(len((await client.get("/traces", params={"filter": "user = 'alice'"})).content))
    assert sizes[0] < 165_000, sizes
    assert sizes[1] < 120_000, sizes


async def test_hostile_values_are_text(client: httpx.AsyncClient, store: Store) -> None:
    """Markup is shown as it was written, directions cannot leak, and nothing becomes an address to run."""
    store.write(
        [
            make_trace(
                1, name=HOSTILE, version=HOSTILE, client_request_id=HOSTILE, request_preview=HOSTILE,
                experiment=HOSTILE,
                attributes={"wherefrom.outcome": HOSTILE},
                metadata={"mlflow.trace.user": HOSTILE, "mlflow.trace.session": HOSTILE, HOSTILE: HOSTILE},
                tags={HOSTILE: HOSTILE}, response_preview=HOSTILE,
            )
        ]
    )  # fmt: skip
    columns = [
        "name",
        "outcome",
        "version",
        "user",
        "session",
        "request_id",
        "preview",
        "response",
        "experiment",
    ]
    for asked in ({"columns": columns}, {"filter": f"name != '{HOSTILE.replace(chr(39), chr(39) * 2)}x'"}):
        answer = await client.get("/traces", params=asked)
        assert answer.status_code == 200
        page = read(answer.text)
        assert [one.attributes["src"] for one in page.all("script")] == page_scripts(page)
        assert not page.all("img")
        assert "\u202e" not in page.text
        assert all(
            one.attributes["href"].startswith(("/", "#")) for one in page.walk() if "href" in one.attributes
        )
        assert not [
            name for one in page.walk() for name in one.attributes if name.startswith(("on", "style"))
        ]
        assert "<script>alert(1)</script>" in page.one("table", class_="traces").text


def page_scripts(page: Element) -> list[str]:
    return [one.attributes["src"] for one in page.one("head").all("script")]


async def test_durations_and_error_rates_are_drawn_below_the_list(
    client: httpx.AsyncClient, store: Store
) -> None:
    """Within the filter and the time range; a facet tells its values apart, and the twin has the figures."""
    store.write([make_trace(at, version=["1.0", "1.1"][at % 2], failed=at == 3) for at in range(1, 21)])
    around = {"since": START, "until": START + 60_000}
    page = await get(client, "/traces", filter="user = 'alice'", **around)
    section = page.one("section", id="trends")
    assert "20 requests, 1 error" in section.one("svg", class_="chart").all("desc")[0].text
    table = section.one("p", class_="as-table").one("a").attributes["href"]
    assert page.one("figure").one("p", class_="as-table").one("a").attributes["href"] == table
    assert len((await get(client, table)).one("tbody").all("tr")) == 20
    links = {one.text: one.attributes["href"] for one in section.one("details", class_="splits").all("a")}
    split = (await get(client, links["Version"])).one("section", id="trends")
    whole = await get(client, split.one("p", class_="as-table").one("a").attributes["href"])
    assert {cell.text for cell in whole.one("tbody").all("td")} >= {"1.0", "1.1"}
    offered = {one.text for one in whole.one("details", class_="splits").all("a")}
    assert offered == links.keys() - {"Version"} | {"nothing"}
    row = whole.one("tbody").all("tr")[0]
    step = await get(client, row.one("a").attributes["href"])
    filtered = step.one("form", class_="filter").all("input", name="filter")[0].attributes["value"]
    assert ("alice" in filtered, "1.1" in filtered) == (True, True)
    assert len(step.one("tbody", id="rows").all("tr")) == 1
    twin = (await client.get(whole.one("caption").one("a").attributes["href"])).json()
    assert [(one["value"], one["traces"]) for one in twin["trends"]] == [("1.1", 10), ("1.0", 10)]
    assert twin["by"] == "metadata.app_version"
    wrong = await get(client, "/traces", split="nothing.like", **around)
    assert "nothing.like" in wrong.one("section", id="trends").one("div", class_="failed").text
    assert len(wrong.one("tbody", id="rows").all("tr")) == 20
