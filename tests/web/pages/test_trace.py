from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from wherefrom import keys
from wherefrom._clock import wall_ns
from wherefrom.client import TraceClient
from wherefrom.model import Source, Span, SpanEvent, SpanStatus, SpanStatusCode, Trace, TraceState
from wherefrom.model.parts import mark_part
from wherefrom.stores import Store
from wherefrom.web.application import make_application
from wherefrom.web.auth import Access
from wherefrom.web.queries import QueryPool

from ..conftest import HOSTILE, Element, asking, get, read
from ..samples import MS, START, make_trace

STACK = "Traceback (most recent call last):\n  File \"app.py\", line 1, in answer\n    1 / 0\nKeyError: 'x'"


def make_span(name: str, parent: str | None, begin: float, end: float | None, **fields: Any) -> Span:
    """A span of trace 1, from ``begin`` to ``end`` ms after it began."""
    began = (START + 1000) * MS
    span_id = f"{sum(name.encode()):016x}"
    parent_id = None if parent is None else f"{sum(parent.encode()):016x}"
    over = None if end is None else began + round(end * MS)
    span = Span(f"tr-{1:032x}", span_id, parent_id, name, "TOOL", began + round(begin * MS), over)
    for field, value in fields.items():
        setattr(span, field, value)
    return span


def make_chat() -> Trace:
    """A request with two child spans; the second failed after its response had started."""
    failed = SpanStatus(SpanStatusCode.ERROR, "KeyError: 'x'")
    error = SpanEvent(
        "exception",
        (START + 1090) * MS,
        {"exception.type": "KeyError", "exception.message": "'x'", "exception.stacktrace": STACK},
    )
    root = make_span("root", None, 0, 100, status=failed, span_type="SERVER", inputs={"question": "why?"})
    root.attributes = {
        "wherefrom.outcome": "failed", "wherefrom.time_to_first_byte_ms": 25.0,
        "wherefrom.response.longest_gap_ms": 12.5, "http.request.method": "POST", "url.path": "/chat",
        "server.address": "api.example",
    }  # fmt: skip
    find = make_span("find", "root", 10, 40, inputs={"query": "q"}, outputs=[1, 2], attributes={"k": 8})
    answer = make_span("answer", "root", 40, 90, status=failed, events=[error])
    metadata = {
        keys.GIT_COMMIT: "a" * 40, keys.GIT_REPO_URL: "git@github.com:acme/chat.git",
        "feature_flag_new": "true", "tier": "gold",
    }  # fmt: skip
    return make_trace(
        1, name="POST /chat", failed=True, ms=100, spans=[root, find, answer], metadata=metadata
    )


def asked(link: Element) -> str:
    return parse_qs(urlsplit(link.attributes["href"]).query)["filter"][0]


def path_of(trace: Trace) -> str:
    return f"/traces/{trace.info.trace_id}"


def facts(page: Element) -> dict[str, str]:
    pairs = page.one("dl", class_="facts").all("div")
    return {pair.one("dt").text: pair.one("dd").text for pair in pairs}


@pytest.fixture
def chat(store: Store) -> Trace:
    trace = make_chat()
    store.write([trace])
    return trace


async def test_the_head_says_how_it_went(client: httpx.AsyncClient, chat: Trace) -> None:
    """State, duration, first byte, outcome, and when."""
    page = await get(client, path_of(chat))
    told = facts(page)
    assert page.one("h1").text == "POST /chat"
    assert (told["State"], told["Duration"], told["Outcome"]) == ("Error", "100 ms", "failed")
    assert (told["Time to first byte"], told["Longest gap"]) == ("25.0 ms", "12.5 ms")
    assert told["Trace id"] == chat.info.trace_id


def rows(page: Element) -> dict[str, Element]:
    """The listed spans by name, in order."""
    listed = page.one("section", id="tree").all("ol")
    items = [child for child in listed[0].children if isinstance(child, Element)] if listed else []
    return {one.one("span", class_="what").text: one for one in items}


def detail(page: Element) -> Element:
    return page.one("section", id="detail")


def href(element: Element) -> str:
    return element.attributes["href"]


def span_id(name: str) -> str:
    return f"{sum(name.encode()):016x}"


async def test_the_list_nests_spans_and_tells_their_own_time(client: httpx.AsyncClient, chat: Trace) -> None:
    """Solid where no child ran; events and the first byte have their place; types have letters."""
    listed = rows(await get(client, path_of(chat)))
    assert list(listed) == ["root", "find", "answer"]
    root, find, answer = listed.values()
    assert [one.attributes["class"].split()[0] for one in (root, find, answer)] == ["d0", "d1", "d1"]
    assert root.one("path", class_="own").attributes["d"] == (
        "M0.0 2h100.0v8h-100.0zM900.0 2h100.0v8h-100.0z"
    )
    assert root.one("rect", class_="first-byte").attributes["x"] == "250.0"
    assert answer.one("rect", class_="bad").attributes["x"] == "898.5"
    assert [one.one("span", class_="badge").text for one in (root, find)] == ["SSERVER", "TTOOL"]
    assert "Error" in answer.one("a", class_="pick").text


async def test_a_span_is_shown_in_detail(client: httpx.AsyncClient, chat: Trace) -> None:
    """By a link of its row, which names it for the server and for the browser; its part alone too."""
    page = await get(client, path_of(chat))
    link = href(rows(page)["find"].one("a", class_="pick"))
    assert link == f"{path_of(chat)}?span={span_id('find')}#span-{span_id('find')}"
    page = await get(client, link)
    assert rows(page)["find"].one("a", class_="pick").attributes["aria-current"] == "true"
    shown = detail(page)
    for text in ("find", "in root", "start 10.0 ms", "own time 30.0 ms", "query q", "0 11 2", "k8"):
        assert text in shown.text
    assert detail(await get(client, f"{path_of(chat)}/spans/{span_id('find')}")).text == shown.text


async def test_the_error_is_open(client: httpx.AsyncClient, store: Store, chat: Trace) -> None:
    """Where it began; without an error, the root. Errors before and after it are a link away."""
    page = await get(client, path_of(chat))
    shown = detail(page)
    assert shown.attributes["data-span"] == span_id("answer")
    assert "error 2 of 2" in shown.text
    before = shown.one("a", data_key="p")
    assert shown.all("a", data_key="n") == []
    page = await get(client, href(before))
    assert detail(page).attributes["data-span"] == span_id("root")
    assert href(detail(page).one("a", data_key="n")).endswith(f"#span-{span_id('answer')}")
    fine = make_trace(2)
    store.write([fine])
    shown = detail(await get(client, path_of(fine)))
    assert shown.attributes["data-span"] == fine.data.spans[0].span_id
    assert shown.one("nav", class_="errors").text.strip() == ""


async def test_each_span_of_several_services_names_its_own(client: httpx.AsyncClient, store: Store) -> None:
    """In one waterfall, and in its JSON; services of one entry point are told apart by their versions."""
    trace = make_trace(1, spans=[make_span("shop", None, 0, 100)], metadata={keys.SOURCE_NAME: "main:app"})
    part = make_trace(1, metadata={keys.SOURCE_NAME: "main:app", keys.APP_VERSION: HOSTILE}, source=None)
    cart = make_span("cart", "shop", 10, 90)
    mark_part(part.info, cart)
    part.data.spans = [cart, make_span("find", "cart", 20, 30)]
    store.write([part, trace])
    page = await get(client, path_of(trace))
    version = trace.info.trace_metadata[keys.APP_VERSION]
    told = [small.text for small in page.all("small", class_="service")]
    assert told[0] == f"main:app {version}"
    assert told[1] == told[2]
    assert told[1].startswith("main:app <script>")
    assert "\x1b" not in page.text
    twin = (await client.get(f"{path_of(trace)}.json")).json()
    services, spans = twin["services"], twin["spans"]
    assert [(one["name"], one["spans"]) for one in services] == [
        (f"main:app {version}", 1),
        (f"main:app {services[1]['version']}", 2),
    ]
    assert [span["service"] for span in spans] == [services[0]["name"], *[services[1]["name"]] * 2]


async def test_what_went_wrong_stands_first(client: httpx.AsyncClient, chat: Trace) -> None:
    """Each exception once, with a link to its span, which has the stack."""
    page = await get(client, path_of(chat))
    first, second = page.all("section", class_="failure")
    assert first.one("h2").text == "KeyError"
    assert "in answer" in first.text
    assert href(first.one("a")).endswith(f"#span-{span_id('answer')}")
    assert "in root" in second.text
    assert STACK in detail(page).one("section", class_="exception").text


async def test_causes_are_named_and_libraries_are_folded(client: httpx.AsyncClient, store: Store) -> None:
    """As by ``wherefrom show``: what was raised last is seldom what went wrong. Our frames are left out."""
    between = "\n\nThe above exception was the direct cause of the following exception:\n\n"
    cause = (
        "Traceback (most recent call last):\n"
        '  File "/x/site-packages/wherefrom/asgi/middleware.py", line 1, in __call__\n    ours()\n'
        '  File "/x/site-packages/starlette/routing.py", line 2, in handle\n    theirs()\n'
        "  File \"app.py\", line 3, in answer\n    mine()\nKeyError: 'x'"
    )
    stack = f"{cause}{between}{STACK[: STACK.index('KeyError')]}ValueError: bad\nthing"
    attributes = {
        "exception.type": "ValueError", "exception.message": "bad\nthing", "exception.stacktrace": stack,
    }  # fmt: skip
    event = SpanEvent("exception", (START + 1090) * MS, attributes)
    trace = make_trace(1)
    trace.data.spans = [make_span("root", None, 0, 100, events=[event])]
    store.write([trace])
    page = await get(client, path_of(trace))
    (failure,) = page.all("section", class_="failure")
    assert "caused by KeyError: 'x'" in failure.text
    first, second = detail(page).all("div", class_="raised")
    assert first.one("pre", class_="said").text == "ValueError: bad\nthing"
    assert second.one("pre", class_="said").text == "caused by KeyError: 'x'"
    folded = second.one("details")
    assert "open" not in folded.attributes
    assert "1 frame in libraries" in folded.text
    assert "theirs()" in folded.text
    assert "mine()" in second.text
    assert "ours()" not in second.text
    assert stack in detail(page).one("details", class_="source").text


async def test_spans_are_folded_and_found(client: httpx.AsyncClient, chat: Trace) -> None:
    """By links and a form: folded below a span, by text, only errors, and by own time."""
    path = path_of(chat)
    page = await get(client, path)
    fold = rows(page)["root"].one("a", class_="fold")
    assert fold.attributes["aria-expanded"] == "true"
    page = await get(client, href(fold))
    assert list(rows(page)) == ["root"]
    assert "+2" in rows(page)["root"].text
    assert detail(page).attributes["data-span"] == span_id("root")
    assert list(rows(await get(client, href(rows(page)["root"].one("a", class_="fold"))))) == [
        "root", "find", "answer",
    ]  # fmt: skip
    assert list(rows(await get(client, path, search="FIND"))) == ["find"]
    assert list(rows(await get(client, path, search="'x'"))) == ["root", "answer"]
    assert list(rows(await get(client, path, errors="true"))) == ["root", "answer"]
    page = await get(client, path, order="own", errors="true")
    assert list(rows(page)) == ["answer", "root"]
    assert "50.0 ms" in rows(page)["answer"].one("span", class_="took").text
    page = await get(client, path, search="nothing like it", span=span_id("find"))
    assert "No span is like that" in page.text
    form = page.one("form", class_="seek")
    assert form.one("input", type="hidden").attributes["value"] == span_id("find")
    assert form.one("input", name="search").attributes["value"] == "nothing like it"
    assert list(rows(await get(client, href(page.one("section", id="tree").one("a"))))) == [
        "root", "find", "answer",
    ]  # fmt: skip
    twin = (await client.get(f"{path}.json", params={"search": "find", "fold": span_id("root")})).json()
    assert [span["name"] for span in twin["spans"]] == ["find"]


@pytest.mark.parametrize("asked", ["nope", HOSTILE, "%", "../..", "0" * 300])
async def test_an_unknown_span_is_named(client: httpx.AsyncClient, chat: Trace, asked: str) -> None:
    """The page says so, and shows what it shows without it."""
    page = await get(client, path_of(chat), span=asked, fold=asked)
    assert "This trace has no span" in page.one("p", role="alert").text
    assert detail(page).attributes["data-span"] == span_id("answer")
    assert len(rows(page)) == 3


async def test_a_span_beyond_all_bounds_is_refused(client: httpx.AsyncClient, chat: Trace) -> None:
    """In a sentence that names the parameter."""
    for name, value in {"span": "0" * 301, "page": "0", "order": "up", "errors": "perhaps"}.items():
        answer = await client.get(f"{path_of(chat)}.json", params={name: value})
        assert answer.status_code == 400
        assert name in answer.json()["message"]


async def test_metadata_is_in_groups_with_a_link_to_the_commit(
    client: httpx.AsyncClient, chat: Trace
) -> None:
    """On the host of the repository, over https."""
    page = await get(client, path_of(chat))
    panels = {panel.one("h2").text: panel for panel in page.all("section", class_="panel")}
    assert set(panels) == {
        "Request",
        "User",
        "Version",
        "Environment",
        "Git",
        "Flags",
        "Other",
        "Feedback",
        "Tags",
        "curl command",
    }
    link = panels["Git"].one("a").attributes
    assert link["href"] == f"https://github.com/acme/chat/commit/{'a' * 40}"
    assert "noreferrer" in link["rel"]
    assert "gold" in panels["Other"].text


async def test_the_ways_on_are_links(client: httpx.AsyncClient, store: Store, chat: Trace) -> None:
    """To the traces of the same session, user, version and route, and to those before and after."""
    store.write([make_trace(0), make_trace(2), make_trace(3, experiment="other")])
    page = await get(client, path_of(chat))
    session, *links = page.one("nav", class_="same").all("a")[:4]
    assert session.attributes["href"] == "/session?id=s-1"
    assert [asked(link) for link in links] == [
        "user = 'alice'", "metadata.app_version = '1.1.0'", "name = 'POST /chat'",
    ]  # fmt: skip
    near = page.one("nav", class_="near")
    assert near.one("a", rel="next").attributes["href"] == path_of(make_trace(0))
    assert near.all("a", rel="up") == []
    newest = await get(client, near.one("a", rel="prev").attributes["href"])
    assert newest.one("nav", class_="near").all("a", rel="prev") == []


async def test_similar_traces_are_looked_for_around_an_old_trace(
    client: httpx.AsyncClient, store: Store, chat: Trace
) -> None:
    """Long after it they are still found; around a new trace, the last day has them."""
    store.write([make_trace(9, request_time=wall_ns() // MS)])
    same = (await get(client, path_of(chat))).one("nav", class_="same").all("a")[1:4]
    for link in same:
        assert "POST /chat" in (await get(client, link.attributes["href"])).one("tbody", id="rows").text
    same = (await get(client, path_of(make_trace(9)))).one("nav", class_="same").all("a")[1:4]
    assert not any("since" in link.attributes["href"] for link in same)


async def test_the_list_of_a_trace_is_kept(client: httpx.AsyncClient, store: Store) -> None:
    """Newer, Older, a changed tag and similar traces stay within its filter and time range."""
    store.write([make_trace(number, failed=number % 2 == 0) for number in range(10)])
    asked_for = {"filter": "status = 'ERROR'", "since": str(START + 1000), "until": str(START + 7000)}
    rows = (await get(client, "/traces", **asked_for)).one("tbody", id="rows").all("tr")
    page = await get(client, rows[1].one("th").one("a").attributes["href"])
    assert facts(page)["Trace id"] == make_trace(4).info.trace_id
    near = page.one("nav", class_="near")
    ends = [await get(client, near.one("a", rel=rel).attributes["href"]) for rel in ("next", "prev")]
    assert [facts(end)["Trace id"] for end in ends] == [make_trace(n).info.trace_id for n in (2, 6)]
    assert [end.one("nav", class_="near").all("a", rel=rel) for end, rel in zip(ends, ("next", "prev"),
        strict=True)] == [[], []]  # fmt: skip
    listed = await get(client, near.one("a", rel="up").attributes["href"])
    assert len(listed.one("tbody", id="rows").all("tr")) == 3
    query = parse_qs(urlsplit(page.one("nav", class_="same").all("a")[1].attributes["href"]).query)
    assert (query["since"], query["until"]) == ([asked_for["since"]], [asked_for["until"]])
    form = page.one("form", class_="new")
    csrf = form.one("input", name="csrf").attributes["value"]
    data = {"csrf": csrf, "change": "set", "key": "a", "value": "b"}
    answer = await client.post(form.attributes["action"], data=data)
    assert {key: [value] for key, value in asked_for.items()} == parse_qs(
        urlsplit(answer.headers["location"]).query
    )
    twin = await client.get(f"{path_of(make_trace(4))}/near.json", params={"filter": "status = 'OK'"})
    assert twin.json() == {"older": make_trace(3).info.trace_id, "newer": make_trace(5).info.trace_id}
    long = {"filter": " OR ".join(["status = 'OK'"] * 40), "since": "0"}
    row = (await get(client, "/traces", **long)).one("tbody", id="rows").all("tr")[0]
    assert urlsplit(row.one("th").one("a").attributes["href"]).query == "since=0"


async def test_it_can_be_copied(client: httpx.AsyncClient, chat: Trace) -> None:
    """As JSON, as the request that it was, and as a filter."""
    page = await get(client, path_of(chat))
    buttons = {one.text: one.attributes for one in page.all("button", class_="quiet") if "Copy" in one.text}
    assert buttons["Copy JSON"]["data-copy-from"] == f"{path_of(chat)}.json"
    assert buttons["Copy as filter"]["data-copy"] == f"request_id = '{chat.info.trace_id}'"
    assert buttons["Copy as curl"]["data-copy"] == (
        "curl --globoff -X POST http://api.example/chat -H 'X-Request-ID: req-1'"
        """ -H 'Content-Type: application/json' --data-raw '{"question":"why?"}'"""
    )


async def test_the_twin_holds_all_of_it(client: httpx.AsyncClient, chat: Trace) -> None:
    """Numbers that JavaScript can hold: times count from the beginning of the trace."""
    twin = (await client.get(f"{path_of(chat)}.json")).json()
    assert [span["name"] for span in twin["spans"]] == ["root", "find", "answer"]
    assert twin["spans"][1]["start_ns"] == 10_000_000
    assert twin["spans"][1]["outputs"] == [1, 2]
    assert twin["metadata"]["tier"] == "gold"
    span = twin["spans"][2]
    assert (await client.get(f"{path_of(chat)}/spans/{span['span_id']}.json")).json() == span


@pytest.mark.parametrize("path", ["/traces/tr-no", "/traces/tr-no.json", f"/traces/tr-{1:032x}/spans/x.json"])
async def test_what_is_not_there_is_said(client: httpx.AsyncClient, chat: Trace, path: str) -> None:
    """The error names the id of the request."""
    answer = await client.get(path)
    assert answer.status_code == 404
    assert "tr-no" in answer.text or "no span" in answer.text


async def change_tag(client: httpx.AsyncClient, trace: Trace, **fields: str) -> httpx.Response:
    form = (await get(client, path_of(trace))).one("form", class_="new")
    csrf = form.one("input", name="csrf").attributes["value"]
    return await client.post(form.attributes["action"], data={"csrf": csrf, "change": "set", **fields})


async def test_tags_are_added_changed_and_removed(
    client: httpx.AsyncClient, store: Store, chat: Trace
) -> None:
    """By forms; then the trace is shown again."""
    answer = await change_tag(client, chat, key="verdict", value="<b>wrong</b>")
    assert (answer.status_code, answer.headers["location"]) == (303, path_of(chat))
    form = (await get(client, path_of(chat))).all("form", class_="tag")[0]
    assert form.one("input", name="value").attributes["value"] == "<b>wrong</b>"
    await change_tag(client, chat, key="verdict", value="right")
    assert TraceClient(store).get_trace(chat.info.trace_id).info.tags["verdict"] == "right"
    await change_tag(client, chat, key="verdict", change="remove")
    assert "verdict" not in TraceClient(store).get_trace(chat.info.trace_id).info.tags


async def test_a_tag_that_cannot_be_is_refused(client: httpx.AsyncClient, chat: Trace) -> None:
    """In a sentence; and no form of others changes anything."""
    for fields, status in (
        ({"key": " "}, 400),
        ({"key": "a\nb"}, 400),
        ({"key": "no", "change": "remove"}, 404),
    ):
        assert (await change_tag(client, chat, **fields)).status_code == status
    answer = await client.post(f"{path_of(chat)}/tags", data={"key": "a", "value": "b"})
    assert answer.status_code == 403
    assert (await client.get(f"{path_of(chat)}/tags")).status_code == 405


async def test_a_trace_without_spans_or_end_is_shown(client: httpx.AsyncClient, store: Store) -> None:
    """A running trace, a trace without spans, and a span that never ended."""
    bare = make_trace(1, spans=[], name="GET /")
    running = make_trace(
        2,
        spans=[make_span("root", None, 0, None), make_span("child", "root", 5, 9)],
        execution_duration=None,
        state=TraceState.IN_PROGRESS,
    )
    for span in running.data.spans:
        span.trace_id = running.info.trace_id
    store.write([bare, running])
    assert "No spans recorded" in (await get(client, path_of(bare))).text
    page = await get(client, path_of(running))
    assert facts(page)["Duration"] == "still running"
    assert "still open" in detail(page).text
    deep = [make_span("x" * (depth + 1), "x" * depth if depth else None, depth, 99) for depth in range(30)]
    trace = make_trace(3, spans=deep)
    for span in deep:
        span.trace_id = trace.info.trace_id
    store.write([trace])
    assert "29 deep" in (await get(client, path_of(trace))).text


def make_hostile(long: str) -> Trace:
    text = HOSTILE + long
    event = SpanEvent(
        text[:200], (START + 1001) * MS,
        {"exception.type": text, "exception.message": text, "exception.stacktrace": text, text[:200]: text},
    )  # fmt: skip
    root = make_span(
        "root",
        None,
        0,
        100,
        inputs={text: [text]},
        outputs=text,
        status=SpanStatus(SpanStatusCode.ERROR, text),
    )
    root.name, root.span_type, root.events = text, text, [event]
    root.attributes = {
        text[:200]: text,
        "wherefrom.outcome": text,
        "http.request.method": text,
        "url.path": text,
        "server.address": text,
    }
    root.links = [{"trace_id": HOSTILE, "span_id": text, "attributes": {}}, {"trace_id": 7}]
    source = Source(
        {
            keys.APP_VERSION: text,
            keys.GIT_REPO_URL: f"javascript:alert(1)//{HOSTILE}",
            keys.GIT_COMMIT: "a" * 40,
        }
    )
    metadata = {keys.USER: text, keys.SESSION: text, f"feature_flag_{HOSTILE}": text, HOSTILE: text}
    return make_trace(
        1, name=text, spans=[root], source=source, request_preview=text[:1000], response_preview=text[:1000],
        client_request_id=text, experiment=HOSTILE, tags={HOSTILE: text[:8000]},
        trace_metadata={**source, **metadata},
    )  # fmt: skip


@pytest.mark.parametrize("long", ["", "\u202e<b>" * 50_000], ids=["short", "long"])
async def test_hostile_traces_are_text(client: httpx.AsyncClient, store: Store, long: str) -> None:
    """Their values are no markup and no script URL, reorder no text, and do not make the page large.

    Whatever is cut by a box can be scrolled with the keyboard.
    """
    trace = make_hostile(long)
    store.write([trace])
    answer = await client.get(path_of(trace))
    assert answer.status_code == 200
    assert len(answer.content) < 200_000
    page = read(answer.text)
    scripts = page.all("script")
    assert [one.attributes["src"].partition("?")[0] for one in scripts] == [
        "/static/times.js",
        "/static/wherefrom.js",
    ]
    assert not any(one.text for one in scripts)
    assert not page.all("img")
    assert not page.all("b", class_="x")
    assert [one.text for one in page.all("pre") if one.attributes.get("tabindex") != "0"] == []
    assert "\u202e" not in page.text
    names = {name for one in page.walk() for name in one.attributes}
    assert not [name for name in names if name.startswith(("on", "style"))]
    addresses = [one.attributes["href"] for one in page.walk() if "href" in one.attributes]
    assert all(address.startswith(("/", "#")) for address in addresses), addresses
    assert "<script>alert(1)</script>" in page.one("h1").text
    whole = (await client.get(f"{path_of(trace)}.json")).json()
    assert whole["spans"][0]["outputs"] == HOSTILE + long
    span = f"{path_of(trace)}/spans/{whole['spans'][0]['span_id']}.json"
    assert (await client.get(span)).json()["outputs"] == HOSTILE + long
    if long:
        assert span in addresses


async def test_a_thousand_large_spans_stay_readable(client: httpx.AsyncClient, store: Store) -> None:
    """Only what is seen is in the page."""
    spans = [make_span("root", None, 0, 1000)]
    for number in range(999):
        span = make_span("root", "root", number, number + 1, inputs="x" * 10_000, outputs="y" * 10_000)
        span.span_id = f"{number + 10_000:016x}"
        spans.append(span)
    store.write([make_trace(1, spans=spans)])
    answer = await client.get(path_of(make_trace(1)))
    assert answer.status_code == 200
    assert len(answer.content) < 300_000


async def test_ten_thousand_spans_stay_usable(store: Store) -> None:
    """A page of them at a time, of at most 1 MB, whatever is asked for; each span is one link away."""
    async with asking(make_application(store, Access(), QueryPool(seconds=60))) as client:
        await check_ten_thousand_spans(client, store)


async def check_ten_thousand_spans(client: httpx.AsyncClient, store: Store) -> None:
    failed = SpanStatus(SpanStatusCode.ERROR, "too late")
    spans = [make_span("root", None, 0, 10_000, status=failed)]
    for number in range(9_999):
        span = make_span(f"step {number}", "root", number, number + 1, events=make_events(number))
        span.span_id, span.attributes = f"{number + 10_000:016x}", {"k": "v" * 100}
        if number % 2:
            span.parent_id = spans[-1].span_id
        spans.append(span)
    spans[7_999].status = spans[8_000].status = failed
    trace = make_trace(1, spans=spans, metadata={keys.TOKEN_USAGE: '{"total_tokens": 5}'})
    store.write([trace])
    page = await get_small(client, path_of(trace))
    assert detail(page).attributes["data-span"] == spans[8_000].span_id
    assert "step 7999" in rows(page)
    assert len(rows(page)) == 200
    assert "8,001\N{EN DASH}8,200 of 10,000" in page.one("nav", class_="pages").text
    for asked in (
        {"order": "own"},
        {"search": "step 77"},
        {"page": "50"},
        {"filter": "name = 'x' OR " * 500},
    ):
        page = await get_small(client, path_of(trace), **asked)
        assert 0 < len(rows(page)) <= 200
    folded = [span.span_id for span in spans[1::200]]
    page = await get_small(client, path_of(trace), fold=folded, span=spans[9_999].span_id)
    assert rows(page)["step 9998"].one("a", class_="pick").attributes["aria-current"] == "true"
    end = await get_small(client, path_of(trace), page="999999999")
    assert "step 9998" in rows(end)


def make_events(number: int) -> list[SpanEvent]:
    return [SpanEvent("tick", (START + 1000 + number) * MS, {"at": at}) for at in range(4)]


async def get_small(client: httpx.AsyncClient, path: str, **query: Any) -> Element:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200
    assert len(answer.content) < 1_000_000
    return read(answer.text)
