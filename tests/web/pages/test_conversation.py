"""Conversations on the Trace page, the Session page and in the list."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from wherefrom import keys
from wherefrom.model import Span, Trace
from wherefrom.stores import Store

from ..conftest import HOSTILE, Element, read
from ..samples import make_trace

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
REQUEST: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": "You are brief." * 10},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "one"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "How is **Rome**?\n\n```py\nprint(1)\n```\n"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": '{"sky": "clear"}'},
    ],
}
RESPONSE: dict[str, Any] = {
    "model": "gpt-4o",
    "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "It is *sunny*."}}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
}


def make_chat(number: int = 1, request: Any = REQUEST, response: Any = RESPONSE, **changes: Any) -> Trace:
    trace = make_trace(number, name="POST /chat", **changes)
    trace.data.spans[0].inputs, trace.data.spans[0].outputs = request, response
    return trace


async def get(client: httpx.AsyncClient, path: str, **query: Any) -> Element:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200
    return read(answer.text)


async def show(client: httpx.AsyncClient, store: Store, trace: Trace) -> Element:
    store.write([trace])
    return await get(client, f"/traces/{trace.info.trace_id}")


def messages(page: Element) -> list[tuple[str, bool, str]]:
    """Role, whether it is open, and its text."""
    found = []
    for item in page.one("section", class_="conversation").all("li", class_="message"):
        folded = item.all("details")[0]
        found.append((item.attributes["class"].split("is-")[1], "open" in folded.attributes, item.text))
    return found


async def test_the_conversation_is_read(client: httpx.AsyncClient, store: Store) -> None:
    """Question, calls and answer are open; the system prompt and earlier turns are one line each."""
    page = await show(client, store, make_chat())
    found = messages(page)
    roles = [(role, is_open) for role, is_open, _ in found]
    assert roles == [
        ("system", False), ("user", False), ("assistant", False),
        ("user", True), ("assistant", True), ("assistant", True),
    ]  # fmt: skip
    assert "140 characters" in found[0][2]
    section = page.one("section", class_="conversation")
    assert [strong.text for strong in section.all("strong")] == ["Rome"]
    assert "print(1)\n" in [code.text for code in section.all("code")]
    assert "image/png" in found[3][2]
    assert "8 B" in found[3][2]
    call = section.one("div", class_="call")
    assert 'weather(city="Rome")' in call.text
    assert "sky clear" in call.one("div", class_="result").text
    assert [em.text for em in section.all("em")] == ["sunny"]


async def test_raw_equals_what_was_recorded(client: httpx.AsyncClient, store: Store) -> None:
    """Also what cannot be seen; texts have their Markdown beside them, and the twin has the messages."""
    response = RESPONSE | {
        "note": HOSTILE,
        "choices": [{"message": {"role": "assistant", "content": HOSTILE}}],
    }
    trace = make_chat(response=response)
    page = await show(client, store, trace)
    raw = page.one("details", class_="raw")
    assert [json.loads(pre.text) for pre in raw.all("pre")] == [REQUEST, response]
    twin = (await client.get(f"/traces/{trace.info.trace_id}.json")).json()
    assert twin["conversation"]["answers"][0]["parts"][0]["text"] == HOSTILE
    assert twin["conversation_span"] == trace.data.spans[0].span_id
    assert twin["calls"]["cost"] == 0.0035


async def test_hostile_messages(client: httpx.AsyncClient, store: Store) -> None:
    """Nothing of a message becomes an element that runs, loads or leaves, whatever part it is in."""
    odd = f"{HOSTILE}\n\n[a](javascript:alert(1)) ![b](https://evil.example/x.png)\n\n<iframe src=x></iframe>"
    parts = [
        {"type": "text", "text": odd},
        {"type": odd, "a": odd},
        {"type": "image_url", "image_url": {"url": odd}},
    ]
    call = {"id": odd, "function": {"name": odd, "arguments": json.dumps({odd: odd})}}
    request = {
        "messages": [
            {"role": odd, "name": odd, "content": odd},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": odd, "tool_calls": [call], "reasoning_content": odd},
            {"role": "tool", "tool_call_id": odd, "content": odd},
        ]
    }
    page = await show(
        client,
        store,
        make_chat(
            request=request,
            response={"model": odd, "choices": [{"message": {"content": odd}, "finish_reason": odd}]},
        ),
    )
    section = page.one("section", class_="conversation")
    assert {one.tag for one in section.walk()} <= {
        "ol", "li", "details", "summary", "b", "span", "div", "p", "a", "pre", "code", "bdi", "button", "ul",
        "h2", "h3", "strong", "em",
    }  # fmt: skip
    targets = {link.attributes["href"].partition(":")[0] for link in section.all("a")}
    assert all(target.startswith(("/traces/", "https")) for target in targets)
    assert not [
        one for one in section.walk() for name in one.attributes if name.startswith("on") or name == "style"
    ]
    assert "\u202e" not in section.text
    assert "\x1b" not in section.text


async def test_what_is_left_out_is_counted_and_linked(client: httpx.AsyncClient, store: Store) -> None:
    """Texts and trees beyond the size of a page say how much is missing; the JSON has it."""
    request = {"messages": [{"role": "user", "content": "x" * 500_000}]}
    page = await show(client, store, make_chat(request=request, response={"b": list(range(1_000))}))
    section = page.one("section", class_="conversation")
    links = {link.text: link.attributes["href"] for link in section.all("a")}
    whole = f"/traces/{'tr-' + '0' * 31 + '1'}/spans/{'0' * 15 + '1'}.json"
    assert links["200,000 more characters in the JSON"] == whole
    assert any(text.startswith("500,0") for text in links)
    body = page.one("section", id="detail")
    assert links["941 more items in the JSON"] == whole
    assert "496,000 more characters in the JSON" in body.text
    assert (await client.get(whole)).json()["inputs"] == request


async def test_a_conversation_of_another_span(client: httpx.AsyncClient, store: Store) -> None:
    """It says which span it is from; other calls have theirs at their spans."""
    trace = make_trace(1)
    (root,) = trace.data.spans
    for at in (1, 2):
        call = Span(
            root.trace_id, f"{at:016x}aa"[-16:], root.span_id, f"call-{at}", "LLM", root.start_time_ns + at
        )
        call.inputs = {"messages": [{"role": "user", "content": f"question {at}"}]}
        call.outputs = RESPONSE
        trace.data.spans.append(call)
    await show(client, store, trace)
    page = await get(client, f"/traces/{root.trace_id}", span=trace.data.spans[1].span_id)
    first, other = page.all("section", class_="conversation")
    assert "from the span call-2" in first.text
    assert "question 2" in first.text
    assert "question 1" in other.text
    facts = page.one("dl", class_="facts").text
    assert "2,000 in, 200 out" in facts
    assert "$0.0070" in facts


async def test_models_without_a_price_are_named(client: httpx.AsyncClient, store: Store) -> None:
    """Their cost is not zero but unknown."""
    page = await show(client, store, make_chat(response=RESPONSE | {"model": "my-model"}))
    assert "no price for my-model" in page.one("dl", class_="facts").text


async def test_bodies_that_were_cut(client: httpx.AsyncClient, store: Store) -> None:
    """The page says so."""
    page = await show(
        client,
        store,
        make_chat(
            request=json.dumps(REQUEST)[:300] + "...",
            response='data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n...',
        ),
    )
    text = page.one("section", class_="conversation").text
    assert "request ends early" in text
    assert "response ends early" in text


async def test_values_without_messages_are_trees(client: httpx.AsyncClient, store: Store) -> None:
    """They fold; attributes can be filtered by, where one value of them is."""
    trace = make_chat(request={"a": {"b": [1, None, "x" * 200]}, "c": ""}, response="text")
    trace.data.spans[0].attributes |= {"tier": "gold", "size": 8, "odd": {"x": 1}}
    page = await show(client, store, trace)
    assert page.all("section", class_="conversation") == []
    inputs, outputs = page.all("ul", class_="tree")
    assert [item.attributes["data-key"] for item in inputs.all("li")] == ["a", "b", "0", "1", "2", "c"]
    assert inputs.attributes["data-path"] == "inputs"
    assert outputs.text == "text"
    filters = [link for link in page.all("a") if link.text.startswith("Filter by")]
    assert [link.text for link in filters][-2:] == ["Filter by tier", "Filter by size"]
    for link in filters:
        rows = await get(client, link.attributes["href"], since="0")
        assert len(rows.all("tr", data_trace=trace.info.trace_id)) == 1, link.attributes["href"]


async def test_the_session_page(client: httpx.AsyncClient, store: Store) -> None:
    """Each turn has its own messages, not those before it again, and what it cost."""
    usage = json.dumps({"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100})
    metadata = {keys.TOKEN_USAGE: usage, keys.MODELS: "gpt-4o"}
    store.write([make_chat(1, metadata=metadata), make_chat(2, metadata=metadata), make_trace(3)])
    page = await get(client, "/session", id="s-1")
    first, second, other = page.one("ol", class_="turns").all("li", class_="turn")
    for turn in (first, second):
        assert [item.attributes["class"] for item in turn.all("li", class_="message")] == [
            "message is-user", "message is-assistant", "message is-assistant",
        ]  # fmt: skip
        assert "gpt-4o, 1,100 tokens, $0.0035" in turn.text
    assert other.all("li", class_="message") == []
    assert "2,200 tokens, $0.0070" in page.one("main").text
    twin = (await client.get("/session.json", params={"id": "s-1"})).json()
    assert len(twin["conversations"]) == 2
    assert twin["calls"]["cost"] == pytest.approx(0.007)


async def test_columns_of_the_list(client: httpx.AsyncClient, store: Store) -> None:
    """Model, tokens, cost and time to the first token are columns to choose."""
    usage = json.dumps({"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100})
    cost = json.dumps({"input_cost": 0.5, "output_cost": 0.25, "total_cost": 0.75})
    known = {keys.TOKEN_USAGE: usage, keys.MODELS: "gpt-4o", keys.COST: cost, keys.FIRST_TOKEN: "250.0"}
    store.write(
        [
            make_trace(1, metadata=known),
            make_trace(2, metadata={keys.TOKEN_USAGE: usage, keys.MODELS: "my-model"}),
            make_trace(3, metadata={keys.TOKEN_USAGE: "odd", keys.FIRST_TOKEN: "odd", keys.COST: "[]"}),
        ]
    )
    columns = ["model", "tokens", "cost", "first_token"]
    page = await get(client, "/traces", since="0", columns=columns)
    rows = [[cell.text for cell in row.all("td")[1:]] for row in page.one("tbody", id="rows").all("tr")]
    assert rows == [
        ["", "", "", ""],
        ["my-model", "1,100", "no price for my-model", ""],
        ["gpt-4o", "1,100", "$0.75", "250 ms"],
    ]


async def test_totals_on_the_compare_page(client: httpx.AsyncClient, store: Store) -> None:
    """Tokens and cost by the value that is compared; its JSON has them too."""
    usage = json.dumps({"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100})
    known = {keys.TOKEN_USAGE: usage, keys.MODELS: "gpt-4o"}
    store.write([make_trace(number, metadata=known, version=f"1.{number % 2}") for number in range(1, 4)])
    page = await get(client, "/compare", since="0")
    table = page.one("section", aria_label="Tokens and cost")
    assert [cell.text for cell in table.all("td")][:6] == [
        "2",
        "2,000",
        "200",
        "$0.0070",
        "$0.0035",
        "gpt-4o",
    ]
    twin = (await client.get("/calls.json", params={"since": "0", "by": "user"})).json()
    assert [(one["value"], one["traces"]) for one in twin["values"]] == [("alice", 3)]
