"""Whatever a client sends, the answer is the bare app's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wherefrom
from wherefrom import MemorySink, Trace
from wherefrom.process import ledger

from .raw import BODY, START, http_scope, ok, only, root_of, serve, traced

REFUSED = {
    "ESC": b"\x1b[31mred",
    "5 kB": b"x" * 5000,
    "257 characters": b"x" * 257,
    "empty": b"",
    "blank": b" \t ",
    "C1": b"a\x9bb",
    "NUL": b"a\x00b",
    "DEL": b"a\x7fb",
    "line feed": b"a\nb",
    "inner tab": b"a\tb",
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED.keys())
async def test_a_refused_request_id_is_replaced(sink: MemorySink, value: bytes) -> None:
    """A request id that is refused is not recorded, not echoed, counted, and a fresh one is made."""
    wire = await serve(traced(ok, sink), http_scope(headers=[(b"x-request-id", value)]))
    ((_, echoed),) = wire.headers
    assert len(echoed) == 36
    assert only(sink).info.client_request_id == echoed.decode()
    assert wherefrom.stats().refused_headers == {"x-request-id": 1}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED.keys())
async def test_refused_metadata_is_absent(sink: MemorySink, value: bytes) -> None:
    """A session or user that is refused leaves no key, and is counted by header."""
    await serve(traced(ok, sink), http_scope(headers=[(b"x-session-id", value), (b"x-user-id", value)]))
    assert not {"mlflow.trace.session", "mlflow.trace.user"} & only(sink).info.trace_metadata.keys()
    assert wherefrom.stats().refused_headers == {"x-session-id": 1, "x-user-id": 1}


@pytest.mark.parametrize("value", [b"x" * 256, b"a\xa0b", b"J\xf6rg", b" trimmed\t", b"\xff\xad"])
async def test_odd_but_acceptable_values(sink: MemorySink, value: bytes) -> None:
    """256 characters, no-break spaces and letters beyond ASCII are values, decoded as latin-1 and trimmed."""
    wire = await serve(traced(ok, sink), http_scope(headers=[(b"x-request-id", value)]))
    assert only(sink).info.client_request_id == value.decode("latin-1").strip(" \t")
    assert wire.headers[0][1] == value.strip(b" \t")
    assert wherefrom.stats().refused_headers == {}


ODD_REQUESTS: dict[str, dict[str, Any]] = {
    "user agent": {"headers": [(b"user-agent", b"\xff\\")]},
    "traceparent": {"headers": [(b"traceparent", b"\xff\\")]},
    "two traceparents": {"headers": [(b"traceparent", b"00"), (b"traceparent", b"00")]},
    "baggage": {"headers": [(b"baggage", b"%%%=\xff")]},
    "host": {"headers": [(b"host", b"[::1")]},
    "long host": {"headers": [(b"host", b"x" * 9000)]},
    "long user agent": {"headers": [(b"user-agent", b"x" * 9000)]},
    "long path": {"path": "/" + "x" * 9000},
    "surrogate in the path": {"path": "/\udcff"},
    "nul in the path": {"path": "/\x00"},
    "tuple headers": {"headers": ((b"user-agent", b"x"), (b"a", b"b"))},
    "list pairs": {"headers": [[b"user-agent", b"x"]]},
    "no client": {"client": None},
    "no server": {"server": None},
    "unix socket": {"server": ("/run/app.sock", None), "client": None},
    "no http version": {"http_version": None},
}


@pytest.mark.parametrize("odd", ODD_REQUESTS.values(), ids=ODD_REQUESTS.keys())
async def test_odd_requests_are_answered_and_recorded(sink: MemorySink, odd: dict[str, Any]) -> None:
    """The answer is the bare app's, and the trace can be written as JSON and read again."""
    scope = http_scope(**odd)
    wire = await serve(traced(ok, sink, upstream="continue", server_timing=True), scope)
    assert wire.sent[1] == BODY
    trace = only(sink)
    assert trace.info.state == "OK"
    assert wherefrom.stats().errors == {}
    attributes = trace.root.attributes
    assert len(attributes["url.path"]) <= 2048
    assert len(attributes.get("user_agent.original", "")) <= 512


@pytest.mark.parametrize("key", ["client", "server", "headers", "http_version", "raw_path", "root_path"])
async def test_a_scope_may_lack_what_is_optional(sink: MemorySink, key: str) -> None:
    """A key that a server leaves out costs its attribute and nothing else."""
    scope = http_scope()
    del scope[key]
    wire = await serve(traced(ok, sink), scope)
    assert wire.sent[1] == BODY
    assert root_of(sink).attributes["http.response.status_code"] == 200


async def test_a_scope_without_headers_can_be_captured(sink: MemorySink) -> None:
    """Where there are no headers, none are recorded; the trace is."""
    scope = http_scope()
    del scope["headers"]
    await serve(traced(ok, sink, capture_headers="accept", capture_bodies=True), scope)
    assert wherefrom.stats().errors == {}
    assert len(sink.traces) == 1


@pytest.mark.parametrize("state", [None, 7])
async def test_a_state_of_no_known_shape_is_left_alone(sink: MemorySink, state: Any) -> None:
    """A state that we cannot write to is the app's, and costs no trace."""
    scope = http_scope(state=state)
    wire = await serve(traced(ok, sink), scope)
    assert wire.sent[1] == BODY
    assert scope["state"] is state
    assert len(sink.traces) == 1


@pytest.mark.parametrize("headers", [7, None, [7], [(b"a",)], [("a", "b")]])
async def test_a_scope_that_cannot_be_read_is_the_app_s(sink: MemorySink, headers: Any) -> None:
    """Headers of no known shape are the app's to deal with: it is called, with the scope as it was."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["headers"])
        await ok(scope, receive, send)

    wire = await serve(traced(app, sink), http_scope(headers=headers))
    assert wire.sent[1] == BODY
    assert seen == [headers]


@pytest.mark.parametrize("headers", [7, [7], [b"x"], [("a", "b")]])
async def test_response_headers_that_no_server_takes(sink: MemorySink, headers: Any) -> None:
    """What is wrong with a response the server says; the message is handed on."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({**START, "headers": headers})
        await send(BODY)

    wire = await serve(traced(app, sink), http_scope())
    handed_on = wire.sent[0]["headers"]
    assert (handed_on if isinstance(headers, int) else list(handed_on)[:1]) == headers
    assert root_of(sink).attributes["http.response.status_code"] == 200


names = st.sampled_from(
    b"x-request-id x-session-id x-user-id traceparent tracestate baggage user-agent host content-type"
    b" x-tenant X-Request-ID".split()
)
headers = st.lists(st.tuples(names | st.binary(max_size=8), st.binary(max_size=300)), max_size=12)


@settings(max_examples=150, deadline=None)
@given(headers, st.text(max_size=40), st.binary(max_size=50), st.sampled_from(["link", "continue", "ignore"]))
async def test_no_header_changes_the_answer(
    headers: list[tuple[bytes, bytes]], path: str, body: bytes, upstream: str
) -> None:
    """For any headers, path and body: the bare app's answer, one trace, a fit request id, nothing failed."""
    ledger.reset()
    sink = MemorySink()
    request = {"type": "http.request", "body": body, "more_body": False}
    scope = http_scope("/" + path.encode("utf-8", "replace").decode(), headers=headers)
    middleware = traced(
        reading,
        sink,
        upstream=upstream,
        capture_bodies=True,
        capture_headers="x-user-id,content-type,x-tenant",
        header_metadata={"x-tenant": "tenant"},
        user_hash_key="k",
    )
    wire = await serve(middleware, scope, request)
    bare = await serve(reading, http_scope(headers=headers), request)
    assert wire.sent[1:] == bare.sent[1:]
    added = wire.headers[len(bare.headers) :]
    assert wire.headers[: len(bare.headers)] == bare.headers
    ((name, value),) = added
    assert name == b"x-request-id"
    assert 0 < len(value) <= 256
    assert not any(byte < 32 or 127 <= byte < 160 for byte in value)
    trace = only(sink)
    assert wherefrom.stats().errors == {}
    assert Trace.from_json(trace.to_json()).to_json() == trace.to_json()


async def reading(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({**START, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b'{"a": '})
