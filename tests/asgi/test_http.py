"""One HTTP request: its trace, and the response that the client gets."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

import wherefrom
from wherefrom import (
    MemorySink,
    TraceClient,
    TraceMiddleware,
    TraceState,
    current_trace,
    start_span,
    update_current_trace,
)
from wherefrom.analysis import compare
from wherefrom.model import SpanStatusCode
from wherefrom.process import process
from wherefrom.sinks import BackgroundSink
from wherefrom.stores import Selection, open_store

from .raw import (
    BODY,
    REQUEST,
    START,
    Wire,
    client,
    http_scope,
    ok,
    only,
    root_of,
    serve,
    traced,
    websocket_scope,
)


async def test_a_request_leaves_one_trace(sink: MemorySink) -> None:
    """One request is one trace with one root span, named after its route, in OpenTelemetry's words."""
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def read(item_id: int) -> dict[str, int]:
        return {"item": item_id}

    async with client(traced(app, sink), headers={"User-Agent": "me/1"}) as http:
        response = await http.get("/items/7?q=secret")
    assert response.json() == {"item": 7}
    trace = only(sink)
    root = trace.root
    assert root.name == trace.info.name == "GET /items/{item_id}"
    assert (root.span_type, root.parent_id, root.status.code) == ("SERVER", None, SpanStatusCode.OK)
    assert trace.data.spans == [root]
    assert root.attributes == {
        "http.request.method": "GET",
        "url.path": "/items/7",
        "http.route": "/items/{item_id}",
        "http.response.status_code": 200,
        "http.response.body.size": len(response.content),
        "network.protocol.version": "1.1",
        "url.scheme": "http",
        "server.address": "test",
        "server.port": 80,
        "client.address": "127.0.0.1",
        "user_agent.original": "me/1",
        "wherefrom.outcome": "completed",
    }
    assert trace.info.state is TraceState.OK
    assert trace.info.experiment == "default"
    assert trace.info.execution_duration == (root.end_time_ns - root.start_time_ns) // 1_000_000
    assert trace.info.request_time == root.start_time_ns // 1_000_000
    assert trace.info.request_preview is trace.info.response_preview is None


async def test_an_unmatched_path_gives_no_name(sink: MemorySink) -> None:
    """Where no route matched the name is the method alone: names stay few, whatever clients ask for."""
    async with client(traced(FastAPI(), sink)) as http:
        response = await http.get("/wp-login.php")
    assert response.status_code == 404
    root = root_of(sink)
    assert root.name == "GET"
    assert root.attributes["url.path"] == "/wp-login.php"
    assert "http.route" not in root.attributes
    assert only(sink).info.state is TraceState.OK


async def test_methods_that_http_does_not_know_give_no_name(sink: MemorySink) -> None:
    """A made-up method is OpenTelemetry's ``_OTHER``, with what was sent beside it."""
    await serve(traced(ok, sink), http_scope(method="BREW"))
    root = root_of(sink)
    assert root.name == "HTTP"
    assert root.attributes["http.request.method"] == "_OTHER"
    assert root.attributes["http.request.method_original"] == "BREW"


class TestRequestId:
    async def test_the_client_s_is_accepted_and_echoed(self, sink: MemorySink) -> None:
        """An acceptable request id is the trace's, the response's, the scope's and the context's."""
        seen: dict[str, Any] = {}
        app = FastAPI()

        @app.get("/")
        async def read(request: Request) -> None:
            seen.update(state=request.state.request_id, context=wherefrom.context.request_id)

        async with client(traced(app, sink)) as http:
            response = await http.get("/", headers={"X-Request-ID": " abc-1 "})
        assert response.headers["x-request-id"] == "abc-1"
        assert only(sink).info.client_request_id == "abc-1"
        assert seen == {"state": "abc-1", "context": "abc-1"}

    async def test_one_is_made_where_the_client_has_none(self, sink: MemorySink) -> None:
        """A request without an id gets a UUIDv7."""
        wire = await serve(traced(ok, sink))
        ((name, value),) = wire.headers
        assert name == b"x-request-id"
        assert uuid.UUID(value.decode()).version == 7
        assert only(sink).info.client_request_id == value.decode()

    @pytest.mark.parametrize("name", [b"x-request-id", b"X-Request-ID"])
    async def test_the_app_s_own_header_stays_alone(self, sink: MemorySink, name: bytes) -> None:
        """An app that sets the header itself is not answered with a second one."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send({**START, "headers": [(name, b"mine")]})
            await send(BODY)

        wire = await serve(traced(app, sink), http_scope(headers=[(b"x-request-id", b"theirs")]))
        assert wire.headers == [(name, b"mine")]

    async def test_the_header_has_the_name_of_the_settings(self, sink: MemorySink) -> None:
        """``request_id_header`` names the header, both ways."""
        middleware = traced(ok, sink, request_id_header="X-Correlation-ID")
        wire = await serve(middleware, http_scope(headers=[(b"x-correlation-id", b"c-1")]))
        assert wire.headers == [(b"x-correlation-id", b"c-1")]
        assert only(sink).info.client_request_id == "c-1"

    async def test_one_that_the_app_sets_is_told_to_the_client(self, sink: MemorySink) -> None:
        """Trace, response, scope and context have it; the last one set before the response counts."""
        seen: dict[str, Any] = {}
        app = FastAPI()

        @app.get("/")
        async def read(request: Request) -> None:
            update_current_trace(client_request_id="first")
            update_current_trace(client_request_id="own-1", tags={"a": "b"})
            seen.update(state=request.state.request_id, context=wherefrom.context.request_id)

        async with client(traced(app, sink)) as http:
            response = await http.get("/", headers={"X-Request-ID": "theirs"})
        assert response.headers.get_list("x-request-id") == ["own-1"]
        assert only(sink).info.client_request_id == "own-1"
        assert seen == {"state": "own-1", "context": "own-1"}

    @pytest.mark.parametrize("hook", ["on_request", "on_response"])
    async def test_a_hook_may_set_it(self, sink: MemorySink, hook: str) -> None:
        """Before the response it is told, after it only recorded beside the id that was told."""

        def rename(trace: Any, _scope: Any) -> None:
            trace.set_request_id("own-1")

        hooks: dict[str, Any] = {hook: rename}
        wire = await serve(
            TraceMiddleware(ok, sink=sink, **hooks), http_scope(headers=[(b"x-request-id", b"r")])
        )
        told = dict(wire.headers)[b"x-request-id"].decode()
        assert told == only(sink).info.client_request_id == ("own-1" if hook == "on_request" else "r")

    async def test_one_that_is_set_when_the_response_has_started_is_recorded_beside_it(
        self, sink: MemorySink
    ) -> None:
        """In a stream or a background task: what the client was told is what is found."""
        app = FastAPI()

        @app.get("/")
        async def read() -> StreamingResponse:
            async def lines() -> AsyncIterator[str]:
                yield "a"
                update_current_trace(client_request_id="late")
                yield "b"

            return StreamingResponse(lines())

        async with client(traced(app, sink)) as http:
            response = await http.get("/", headers={"X-Request-ID": "told"})
        info = only(sink).info
        assert response.headers["x-request-id"] == info.client_request_id == "told"
        assert info.trace_metadata["wherefrom.client_request_id"] == "late"

    @pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "\N{SNOWMAN}", " a", "x" * 257, ""])
    async def test_one_that_is_not_valid_in_a_header_is_recorded_and_not_sent(
        self, sink: MemorySink, value: str
    ) -> None:
        """The client is told nothing, so nothing else than what is recorded."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            update_current_trace(client_request_id=value)
            await send(START)
            await send(BODY)

        wire = await serve(traced(app, sink))
        assert wire.headers == []
        assert only(sink).info.client_request_id == value
        wire = await serve(traced(ok, sink))
        assert [name for name, _ in wire.headers] == [b"x-request-id"]

    async def test_one_that_is_set_without_an_echo_is_recorded_at_any_time(self, sink: MemorySink) -> None:
        """Nobody was told another one."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send(START)
            update_current_trace(client_request_id="late")
            await send(BODY)

        wire = await serve(traced(app, sink, echo_request_id=False))
        assert wire.sent == [START, BODY]
        assert only(sink).info.client_request_id == "late"

    async def test_one_that_is_set_in_a_request_that_is_not_recorded_is_told_too(
        self, sink: MemorySink
    ) -> None:
        """The app logs it."""

        async def app(scope: Any, _receive: Any, send: Any) -> None:
            update_current_trace(client_request_id="own-1")
            assert scope["state"]["request_id"] == wherefrom.context.request_id == "own-1"
            await send(START)
            await send(BODY)

        wire = await serve(traced(app, sink, sample_rate=0, keep_errors=False))
        assert wire.headers == [(b"x-request-id", b"own-1")]

    async def test_it_is_not_echoed_when_told_so(self, sink: MemorySink) -> None:
        """``echo_request_id=false`` leaves the response's headers alone."""
        wire = await serve(traced(ok, sink, echo_request_id=False))
        assert wire.sent == [START, BODY]

    async def test_the_scope_s_state_is_kept(self, sink: MemorySink) -> None:
        """The lifespan's state stays in the scope beside the request id."""
        scope = http_scope(state={"pool": 1})
        await serve(traced(ok, sink), scope)
        assert scope["state"] == {"pool": 1, "request_id": only(sink).info.client_request_id}

    async def test_a_500_carries_it_when_the_app_is_wrapped_from_outside(self, sink: MemorySink) -> None:
        """``TraceMiddleware(app)`` sees the 500 that Starlette's outermost middleware writes."""
        app = FastAPI()

        @app.get("/")
        async def read() -> None:
            raise RuntimeError("boom")

        async with client(traced(app, sink), raises=False) as http:
            response = await http.get("/", headers={"X-Request-ID": "r-1"})
        assert (response.status_code, response.headers["x-request-id"]) == (500, "r-1")

    async def test_a_500_is_recorded_when_the_middleware_is_inside(self, sink: MemorySink) -> None:
        """``add_middleware`` sees the exception but not the answer: the status is 500 all the same."""
        app = FastAPI()
        app.add_middleware(TraceMiddleware, sink=sink)

        @app.get("/")
        async def read() -> None:
            raise RuntimeError("boom")

        async with client(app, raises=False) as http:
            response = await http.get("/")
        assert response.status_code == 500
        assert root_of(sink).attributes["http.response.status_code"] == 500
        assert only(sink).info.state is TraceState.ERROR


class TestMetadata:
    async def test_who_asked_comes_from_headers(self, sink: MemorySink) -> None:
        """``X-Session-ID`` and ``X-User-ID`` are MLflow's session and user; absent ones are absent."""
        headers = [(b"x-session-id", b"s-1"), (b"x-user-id", b"J\xf6rg")]
        await serve(traced(ok, sink), http_scope(headers=headers))
        await serve(traced(ok, sink))
        first, second = (trace.info.trace_metadata for trace in sink.traces)
        assert (first["mlflow.trace.session"], first["mlflow.trace.user"]) == ("s-1", "Jörg")
        assert not {"mlflow.trace.session", "mlflow.trace.user"} & second.keys()

    async def test_headers_can_be_added_and_removed(self, sink: MemorySink) -> None:
        """``header_metadata`` adds to the defaults; ``null`` removes one."""
        chosen = {"X-Tenant-ID": "tenant", "X-User-ID": None}
        headers = [(b"x-tenant-id", b"t"), (b"x-user-id", b"u"), (b"x-session-id", b"s")]
        await serve(traced(ok, sink, header_metadata=chosen), http_scope(headers=headers))
        metadata = only(sink).info.trace_metadata
        assert (metadata["tenant"], metadata["mlflow.trace.session"]) == ("t", "s")
        assert "mlflow.trace.user" not in metadata

    async def test_the_first_of_repeated_headers_counts(self, sink: MemorySink) -> None:
        """A header sent twice says what it said first."""
        headers = [(b"x-session-id", b"first"), (b"accept", b"*/*"), (b"x-session-id", b"second")]
        await serve(traced(ok, sink), http_scope(headers=headers))
        assert only(sink).info.trace_metadata["mlflow.trace.session"] == "first"

    async def test_the_process_is_in_every_trace(self, sink: MemorySink) -> None:
        """What is the same for all traces is read once: every trace has it, and shares one source."""
        middleware = traced(ok, sink)
        await serve(middleware)
        await serve(middleware)
        first, second = (trace.info for trace in sink.traces)
        assert first.source is not None
        assert first.source is second.source
        instance = {"service.instance.id": process.instance_id}
        assert first.trace_metadata == second.trace_metadata == first.source.pairs | instance
        assert first.trace_metadata is not second.trace_metadata
        assert first.trace_metadata["mlflow.trace_schema.version"] == "3"

    async def test_the_instance_is_stored_beside_the_source(self, tmp_path: Path) -> None:
        """With and without facts that are written unread; it is searchable, and no part of the source."""
        store = open_store(f"sqlite:///{tmp_path / 'traces.db'}")
        queue = BackgroundSink(store)
        for sink in (queue, store):
            await serve(traced(ok, sink))
            await serve(traced(ok, sink), http_scope(headers=[(b"x-session-id", b"s")]))
            await serve(traced(ok, sink, header_metadata={"X-Tenant": "tenant"}))
        assert queue.flush(10)
        found = TraceClient(store).search_traces(
            filter_string=f"metadata.service.instance.id = '{process.instance_id}'"
        )
        assert len(found) == 6
        with store.snapshot() as snapshot:
            assert len(snapshot.sources(Selection())) == 1
        assert compare(by="service.instance.id", store=store).rows[0].value == process.instance_id
        store.close()

    async def test_precedence(self, sink: MemorySink, monkeypatch: pytest.MonkeyPatch) -> None:
        """Detected, environment, headers, ``on_request``, the app: the last of them that speaks counts."""
        monkeypatch.setenv("TENANT", "environment")
        names = [f"k{n}" for n in range(4)]
        order = ["environment", "header", "hook", "app"]

        def hook(trace: Any, _scope: Any) -> None:
            trace.info.trace_metadata |= dict.fromkeys(names[2:], "hook")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            update_current_trace(metadata={names[3]: "app"})
            await ok(scope, receive, send)

        middleware = traced(
            app,
            sink,
            on_request=hook,
            env_metadata={f"TENANT{n}": name for n, name in enumerate(names)} | {"TENANT": "k0"},
            header_metadata={f"x-{name}": name for name in names[1:]},
        )
        await serve(middleware, http_scope(headers=[(f"x-{name}".encode(), b"header") for name in names]))
        metadata = only(sink).info.trace_metadata
        assert [metadata[name] for name in names] == order

    async def test_user_ids_are_hashed_under_a_key(self, sink: MemorySink) -> None:
        """With ``user_hash_key`` no user id is kept anywhere, yet equal users stay groupable."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/said":
                update_current_trace(user="alice@example.org")
            await ok(scope, receive, send)

        middleware = traced(
            app, sink, user_hash_key="k", capture_headers="x-user-id", header_metadata={"x-login": USER}
        )
        for name in (b"x-user-id", b"x-login"):
            await serve(middleware, http_scope(headers=[(name, b"alice@example.org")]))
        await serve(middleware, http_scope("/said"))
        await serve(middleware, http_scope(headers=[(b"x-user-id", b"bob")]))
        users = [trace.info.trace_metadata[USER] for trace in sink.traces]
        assert users[0] == users[1] == users[2] != users[3]
        assert all(len(user) == 32 and int(user, 16) for user in users)
        assert not any("alice" in trace.to_json() for trace in sink.traces)

        await serve(traced(ok, sink, user_hash_key="other"), http_scope(headers=[(b"x-user-id", b"bob")]))
        assert sink.traces[-1].info.trace_metadata[USER] != users[3]


USER = "mlflow.trace.user"


class TestState:
    @pytest.mark.parametrize(
        ("status", "state"),
        [(200, "OK"), (302, "OK"), (404, "OK"), (499, "OK"), (500, "ERROR"), (503, "ERROR")],
    )
    async def test_of_a_status(self, sink: MemorySink, status: int, state: str) -> None:
        """5xx is the server's failure; 4xx is not: the server did its work."""
        app = FastAPI()

        @app.get("/")
        async def read() -> Any:
            return PlainTextResponse("x", status)

        async with client(traced(app, sink)) as http:
            await http.get("/")
        assert only(sink).info.state == state
        assert root_of(sink).attributes["wherefrom.outcome"] == "completed"
        assert root_of(sink).status.description == (f"HTTP {status}" if state == "ERROR" else "")

    @pytest.mark.parametrize(("status", "stated"), [(500, "OK"), (200, "ERROR")])
    async def test_what_the_app_says_wins(self, sink: MemorySink, status: int, stated: str) -> None:
        """An explicit ``update_current_trace(state=...)`` beats what the response would say."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            update_current_trace(state=stated)
            await send({**START, "status": status})
            await send(BODY)

        await serve(traced(app, sink))
        assert only(sink).info.state == stated

    async def test_of_an_exception(self, sink: MemorySink) -> None:
        """An exception is an event with its stack, status 500 and state ERROR; the server gets it too."""
        error = LookupError("nothing here")

        async def app(_scope: Any, _receive: Any, _send: Any) -> None:
            raise error

        with pytest.raises(LookupError) as caught:
            await serve(traced(app, sink))
        assert caught.value is error
        root = root_of(sink)
        (event,) = root.events
        assert event.name == "exception"
        assert event.attributes["exception.type"] == "LookupError"
        assert event.attributes["exception.message"] == "nothing here"
        assert "raise error" in event.attributes["exception.stacktrace"]
        assert root.attributes["http.response.status_code"] == 500
        assert (root.status.code, root.status.description) == ("ERROR", "LookupError: nothing here")
        assert only(sink).info.state is TraceState.ERROR

    async def test_of_an_exception_in_a_response(self, sink: MemorySink) -> None:
        """An exception after the response has started keeps the status that was sent."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send(START)
            raise ValueError("half way")

        with pytest.raises(ValueError, match="half way"):
            await serve(traced(app, sink))
        assert root_of(sink).attributes["http.response.status_code"] == 200
        assert root_of(sink).attributes["wherefrom.outcome"] == "failed"
        assert only(sink).info.state is TraceState.ERROR

    async def test_an_exception_that_a_handler_answers_is_no_error(self, sink: MemorySink) -> None:
        """What the app's exception handler turns into a 4xx leaves the trace OK."""
        app = FastAPI()

        @app.exception_handler(KeyError)
        async def handle(_request: Request, _error: KeyError) -> JSONResponse:
            return JSONResponse({}, 409)

        @app.get("/")
        async def read() -> None:
            raise KeyError

        async with client(traced(app, sink)) as http:
            assert (await http.get("/")).status_code == 409
        assert only(sink).info.state is TraceState.OK


class TestResponse:
    async def test_it_may_have_no_headers(self, sink: MemorySink) -> None:
        """``http.response.start`` needs no ``headers``; the request id is added all the same."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})

        wire = await serve(traced(app, sink), http_scope(headers=[(b"x-request-id", b"r")]))
        assert wire.headers == [(b"x-request-id", b"r")]
        assert root_of(sink).attributes["http.response.status_code"] == 204
        assert root_of(sink).attributes["wherefrom.outcome"] == "completed"

    @pytest.mark.parametrize("echo", [True, False])
    @pytest.mark.parametrize("kind", [tuple, list, iter])
    async def test_headers_may_be_any_iterable(self, sink: MemorySink, kind: Any, echo: bool) -> None:
        """Tuples, lists and generators of headers all reach the server whole."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send({**START, "headers": kind([[b"a", b"1"], (b"b", b"2")])})
            await send(BODY)

        scope = http_scope(headers=[(b"x-request-id", b"r")])
        wire = await serve(traced(app, sink, echo_request_id=echo), scope)
        assert wire.headers == [(b"a", b"1"), (b"b", b"2"), *([(b"x-request-id", b"r")] if echo else [])]

    async def test_the_app_s_messages_are_not_changed(self, sink: MemorySink) -> None:
        """An app may keep its messages and send them for every request."""
        headers = [(b"content-type", b"text/plain")]
        start, body = {**START, "headers": headers}, dict(BODY)

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send(start)
            await send(body)

        middleware = traced(app, sink)
        wires = [await serve(middleware) for _ in range(3)]
        assert start == {**START, "headers": [(b"content-type", b"text/plain")]}
        assert start["headers"] is headers
        assert body == BODY
        assert all(len(wire.headers) == 2 for wire in wires)
        assert len({wire.headers[1] for wire in wires}) == 3

    async def test_sizes_in_flight_together_are_each_their_own(self, sink: MemorySink) -> None:
        """Request state is in the call: 10 and 100,000 bytes answered at once are 10 and 100,000."""
        both_here = asyncio.Barrier(2)
        app = FastAPI()

        @app.get("/{size}")
        async def read(size: int) -> Any:
            async def body() -> AsyncIterator[bytes]:
                for _ in range(10):
                    await both_here.wait()
                    yield b"x" * (size // 10)

            return StreamingResponse(body())

        async with client(traced(app, sink)) as http:
            await asyncio.gather(http.get("/10"), http.get("/100000"))
        sizes = {
            trace.root.attributes["url.path"]: trace.root.attributes["http.response.body.size"]
            for trace in sink.traces
            if trace.root
        }
        assert sizes == {"/10": 10, "/100000": 100_000}

    async def test_many_at_once_keep_their_own(self, sink: MemorySink) -> None:
        """A hundred requests at once: each has its own id, session, user, context and trace."""
        app = FastAPI()

        @app.get("/{n}")
        async def read(n: int) -> dict[str, Any]:
            await asyncio.sleep(0)
            with start_span(f"work {n}"):
                await asyncio.sleep(0)
            return {"trace": wherefrom.context.trace_id, "user": wherefrom.context.user_id}

        async def get(http: httpx.AsyncClient, n: int) -> tuple[Any, Any]:
            headers = {"X-Request-ID": f"r{n}", "X-Session-ID": f"s{n}", "X-User-ID": f"u{n}"}
            response = await http.get(f"/{n}", headers=headers)
            assert response.headers["x-request-id"] == f"r{n}"
            return response.json()["trace"], response.json()["user"]

        async with client(traced(app, sink)) as http:
            answers = await asyncio.gather(*(get(http, n) for n in range(100)))
        by_id = {trace.info.trace_id: trace for trace in sink.traces}
        assert len(by_id) == 100
        for n, (trace_id, user) in enumerate(answers):
            trace = by_id[trace_id]
            assert user == f"u{n}"
            assert trace.info.client_request_id == f"r{n}"
            assert trace.info.trace_metadata["mlflow.trace.session"] == f"s{n}"
            assert [span.name for span in trace.data.spans] == ["GET /{n}", f"work {n}"]

    async def test_server_timing_tells_browsers_the_trace(self, sink: MemorySink) -> None:
        """``server_timing`` sends the trace id to the page; it stands beside a Server-Timing of the app's."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send({**START, "headers": [(b"server-timing", b"db;dur=3")]})
            await send(BODY)

        wire = await serve(traced(app, sink, server_timing=True, echo_request_id=False))
        root = root_of(sink)
        parent = f'traceparent;desc="00-{root.trace_id[3:]}-{root.span_id}-03"'
        assert wire.headers == [(b"server-timing", b"db;dur=3"), (b"server-timing", parent.encode())]


class TestAfterTheLastByte:
    async def test_background_tasks_belong_to_the_trace(self, sink: MemorySink) -> None:
        """Spans of a background task are in the trace; its time is not in the duration."""
        app = FastAPI()

        async def later() -> None:
            with start_span("mail"):
                await asyncio.sleep(0.001)

        @app.get("/")
        async def read(background: BackgroundTasks) -> None:
            background.add_task(later)

        async with client(traced(app, sink)) as http:
            await http.get("/")
        trace = only(sink)
        root, mail = trace.data.spans
        assert (mail.name, mail.parent_id) == ("mail", root.span_id)
        assert mail.start_time_ns > root.end_time_ns

    async def test_a_task_that_outlives_the_request_is_stored_late(self, sink: MemorySink) -> None:
        """A span that ends after its request arrives by itself, under the same trace."""
        tasks = []
        go = asyncio.Event()

        async def work() -> None:
            with start_span("late"), start_span("inside"):
                await go.wait()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            tasks.append(asyncio.create_task(work()))
            await asyncio.sleep(0)
            await ok(scope, receive, send)

        batches: list[list[str]] = []

        class Batches:
            def write(self, traces: Any) -> None:
                batches.extend(
                    [[span.name for span in trace.data.spans if span.end_time_ns] for trace in traces]
                )
                sink.write(traces)

        await serve(traced(app, Batches()))
        assert batches == [["GET"]]
        go.set()
        await tasks[0]
        assert batches == [["GET"], ["inside"], ["late"]]
        root, late, inside = only(sink).data.spans
        assert (late.parent_id, inside.parent_id) == (root.span_id, late.span_id)

    async def test_a_thread_that_outlives_the_request_is_stored_late(self, sink: MemorySink) -> None:
        """The same for a thread that runs in the request's context."""
        go, threads = threading.Event(), []

        def work() -> None:
            with start_span("late"):
                go.wait(5)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
            thread.start()
            threads.append(thread)
            await ok(scope, receive, send)

        await serve(traced(app, sink))
        go.set()
        threads[0].join(5)
        root, late = only(sink).data.spans
        assert (late.name, late.parent_id, late.end_time_ns is not None) == ("late", root.span_id, True)

    async def test_late_spans_of_a_trace_that_was_not_kept_are_not_either(self, sink: MemorySink) -> None:
        """A request that the sampler dropped stays dropped, whatever ends after it."""
        spans = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            trace = current_trace()
            assert trace is not None
            spans.append(trace.start_span("late"))
            await ok(scope, receive, send)

        await serve(traced(app, sink, sample_rate=0))
        spans[0].end()
        assert sink.traces == []


class TestFollowing:
    """What begins in the context of a request that has ended is a trace of its own, linked to it."""

    async def test_a_worker_started_in_the_first_request(self, sink: MemorySink) -> None:
        """Its jobs are traces of their own for the life of the process; none is dropped."""
        queue: asyncio.Queue[int] = asyncio.Queue()
        tasks: list[asyncio.Task[None]] = []

        @wherefrom.trace
        async def step(number: int) -> int:
            return number

        async def worker() -> None:
            while True:
                number = await queue.get()
                with start_span("job", attributes={"number": number}):
                    await step(number)
                queue.task_done()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if not tasks:
                tasks.append(asyncio.create_task(worker()))
            await ok(scope, receive, send)

        await serve(traced(app, sink, max_spans_per_trace=3))
        for number in range(20):
            queue.put_nowait(number)
        await queue.join()
        tasks[0].cancel()
        first, *jobs = sink.traces
        assert [span.name for span in first.data.spans] == ["GET"]
        assert len({job.info.trace_id for job in jobs}) == 20
        root = first.data.spans[0]
        link = {"trace_id": first.info.trace_id, "span_id": root.span_id, "attributes": {}}
        for number, job in enumerate(jobs):
            work, inner = job.data.spans
            assert (work.name, work.parent_id, work.links) == ("job", None, [link])
            assert work.attributes["number"] == inner.outputs == number
            assert inner.parent_id == work.span_id
            assert job.info.client_request_id is None
            assert "wherefrom.outcome" not in work.attributes
        assert wherefrom.stats().dropped == {}

    async def test_a_span_that_never_ends(self, sink: MemorySink) -> None:
        """A worker that runs inside of a span: its jobs are linked to that span."""
        go = asyncio.Event()

        async def worker() -> None:
            with start_span("worker"):
                await go.wait()
                with start_span("job"):
                    pass

        tasks = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            tasks.append(asyncio.create_task(worker()))
            await asyncio.sleep(0)
            await ok(scope, receive, send)

        await serve(traced(app, sink))
        go.set()
        await tasks[0]
        request, job = sink.traces
        outer = request.data.spans[1]
        assert [span.name for span in request.data.spans] == ["GET", "worker"]
        assert outer.end_time_ns is not None
        assert job.data.spans[0].links[0]["span_id"] == outer.span_id

    @pytest.mark.parametrize("kind", ["decorated", "generator", "method of the trace", "thread"])
    async def test_however_it_begins(self, sink: MemorySink, kind: str) -> None:
        """By the decorator, the block, the trace's own method, from a thread."""
        kept: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            kept.extend((contextvars.copy_context(), current_trace()))
            await ok(scope, receive, send)

        @wherefrom.trace
        def work() -> int:
            return 1

        @wherefrom.trace
        def work_in_steps() -> Iterator[int]:
            yield 1

        await serve(traced(app, sink))
        then, ended = kept
        if kind == "decorated":
            then.run(work)
        elif kind == "generator":
            then.run(list, then.run(work_in_steps))
        elif kind == "thread":
            thread = threading.Thread(target=then.run, args=(work,))
            thread.start()
            thread.join()
        else:
            ended.start_span("work").end()
        first, second = sink.traces
        (span,) = second.data.spans
        assert span.links[0]["trace_id"] == first.info.trace_id
        assert span.end_time_ns is not None
        assert len(ended.data.spans) == 1

    async def test_of_a_request_that_was_not_kept(self, sink: MemorySink) -> None:
        """It is sampled by itself: a rate of 0 keeps none, but one that failed."""
        kept: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            kept.append(contextvars.copy_context())
            await ok(scope, receive, send)

        @wherefrom.trace
        def work(*, fails: bool) -> None:
            if fails:
                raise ValueError("no")

        await serve(traced(app, sink, sample_rate=0))
        kept[0].run(work, fails=False)
        assert sink.traces == []
        with pytest.raises(ValueError, match="no"):
            kept[0].run(work, fails=True)
        assert [trace.info.state for trace in sink.traces] == ["ERROR"]


class TestLeftAlone:
    @pytest.mark.parametrize("path", ["/health", "/static/a/b.css"])
    async def test_excluded_paths(self, sink: MemorySink, path: str) -> None:
        """``exclude`` passes a request through: no trace, no context, no header."""
        seen = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(wherefrom.context.trace_id)
            await ok(scope, receive, send)

        wire = await serve(traced(app, sink, exclude="/health, /static/*"), http_scope(path))
        assert (seen, wire.sent, sink.traces) == ([None], [START, BODY], [])

    async def test_paths_that_only_begin_alike_are_traced(self, sink: MemorySink) -> None:
        """A glob matches the whole path."""
        await serve(traced(ok, sink, exclude="/health"), http_scope("/healthy"))
        assert len(sink.traces) == 1

    async def test_everything_when_disabled(self, sink: MemorySink) -> None:
        """``enabled=false`` makes the middleware a call and nothing more."""
        scope = http_scope(headers=[(b"x-request-id", b"r")])
        before = dict(scope)
        wire = await serve(traced(ok, sink, enabled=False), scope)
        assert (wire.sent, sink.traces, scope) == ([START, BODY], [], before)

    async def test_scopes_of_other_types(self, sink: MemorySink) -> None:
        """A scope type that we do not know gets through with the same ``receive`` and ``send``."""
        seen: list[Any] = []

        async def app(*arguments: Any) -> None:
            seen.extend(arguments)

        wire = Wire()
        scope = {"type": "webtransport"}
        await traced(app, sink)(scope, wire.receive, wire.send)
        assert seen == [scope, wire.receive, wire.send]


async def test_what_breaks_the_recording_is_counted(sink: MemorySink) -> None:
    """A trace that somebody spoiled beyond use is lost and counted; the client has its answer."""

    def spoil(trace: Any, _scope: Any) -> None:
        trace.info.tags = None

    wire = await serve(traced(ok, sink, on_request=spoil))
    assert wire.sent[1] == BODY
    assert wherefrom.stats().dropped == {"recording_failed": 1}
    assert wherefrom.stats().errors == {"recording": 1}


class TestHooks:
    async def test_they_run_around_the_app(self, sink: MemorySink) -> None:
        """``on_request`` comes after the metadata and before the app; ``on_response`` before the sink."""
        order: list[Any] = []

        def on_request(trace: Any, scope: Any) -> None:
            order.append(("request", trace.info.trace_metadata["mlflow.trace.session"], scope["path"]))
            trace.info.tags["team"] = "core"

        def on_response(trace: Any, scope: Any) -> None:
            order.append(("response", trace.info.state.value, trace.info.name, len(sink.traces)))
            trace.info.trace_metadata["late"] = "1"

        async def app(scope: Any, receive: Any, send: Any) -> None:
            order.append("app")
            await ok(scope, receive, send)

        middleware = traced(app, sink, on_request=on_request, on_response=on_response)
        await serve(middleware, http_scope("/a", headers=[(b"x-session-id", b"s")]))
        assert order == [("request", "s", "/a"), "app", ("response", "OK", "GET", 0)]
        assert only(sink).info.tags["team"] == "core"
        assert only(sink).info.trace_metadata["late"] == "1"

    async def test_what_they_raise_is_counted(
        self, sink: MemorySink, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A broken hook costs the client nothing and the trace neither; the log hears of it once a minute."""

        def broken(_trace: Any, _scope: Any) -> None:
            raise ZeroDivisionError("hook")

        middleware = traced(ok, sink, on_request=broken, on_response=broken)
        for _ in range(2):
            wire = await serve(middleware)
            assert wire.sent[1] == BODY
        assert len(sink.traces) == 2
        assert wherefrom.stats().errors == {"on_request": 2, "on_response": 2}
        assert [record.getMessage().split(" failed")[0] for record in caplog.records] == [
            "on_request",
            "on_response",
        ]


async def test_a_sink_that_fails_reaches_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """What a sink raises is counted as a dropped trace; the client has its answer."""

    class Full:
        def write(self, _traces: Any) -> None:
            raise OSError(28, "No space left on device")

    wire = await serve(traced(ok, Full()))
    assert wire.sent[1] == BODY
    stats = wherefrom.stats()
    assert (stats.recorded, stats.stored, stats.dropped) == (1, 0, {"sink_failed": 1})
    assert "No space left" in caplog.text


async def test_the_same_scope_again_is_another_request(sink: MemorySink) -> None:
    """A retry outside the middleware that sends the same scope in again is a second request."""
    scope = http_scope()
    middleware = traced(ok, sink)
    await serve(middleware, scope)
    await serve(middleware, scope)
    assert len(sink.traces) == 2


async def test_spans_beyond_the_limit_are_counted(sink: MemorySink) -> None:
    """``max_spans_per_trace`` bounds a trace; the root says how many are missing."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for n in range(7):
            with start_span(f"{n}") as span:
                span.set_outputs(n)
        await ok(scope, receive, send)

    await serve(traced(app, sink, max_spans_per_trace=5))
    assert [span.name for span in only(sink).data.spans] == ["GET", "0", "1", "2", "3"]
    assert root_of(sink).attributes["wherefrom.dropped_spans"] == 3
    assert wherefrom.stats().dropped == {"span_limit": 3}


async def test_the_app_may_name_its_root(sink: MemorySink) -> None:
    """A name and attributes that the app gave to the root span stay."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        trace = current_trace()
        assert trace is not None
        trace.root.name = "chat"
        trace.root.set_attribute("http.route", "/mine")
        trace.root.set_inputs({"q": 1})
        trace.root.set_outputs("a")
        await ok(scope, receive, send)

    await serve(traced(app, sink), None, REQUEST)
    info = only(sink).info
    assert (info.name, root_of(sink).attributes["http.route"]) == ("chat", "/mine")
    assert (info.request_preview, info.response_preview) == ('{"q": 1}', '"a"')
    assert info.trace_metadata["mlflow.traceInputs"] == '{"q": 1}'


@pytest.mark.parametrize(
    ("scope", "host", "expected"),
    [
        ({}, b"example.com", ("http", "example.com", 80)),
        ({"scheme": "https"}, b"example.com", ("https", "example.com", 443)),
        ({}, b"example.com:8080", ("http", "example.com", 8080)),
        ({}, b"[::1]:9000", ("http", "::1", 9000)),
        ({"scheme": "https"}, b"[::1]", ("https", "::1", 443)),
        ({}, b"example.com:", ("http", "example.com", 80)),
        ({}, b"example.com:http", ("http", "example.com", 80)),
        ({}, b"example.com:99999", ("http", "example.com", 80)),
        ({}, b"example.com:" + b"9" * 400, ("http", "example.com", 80)),
        ({"scheme": "odd"}, b"example.com", ("odd", "example.com", None)),
        ({}, b"", ("http", "10.0.0.1", 8000)),
        ({"server": ["10.0.0.2", 81]}, b"", ("http", "10.0.0.2", 81)),
        ({"server": ("/run/app.sock", None)}, b"", ("http", "/run/app.sock", None)),
        ({"server": ("alone",)}, b"", ("http", "alone", None)),
        ({"server": None, "scheme": None}, b"", ("http", None, None)),
    ],
)
async def test_scheme_and_port(
    scope: dict[str, Any], host: bytes, expected: tuple[str, str | None, int | None]
) -> None:
    """The port that the client used, which is not the one behind a proxy; with and without a queue."""
    queued, direct = MemorySink(), MemorySink()
    queue = BackgroundSink(queued)
    for sink in (queue, direct):
        await serve(traced(ok, sink), http_scope(headers=[(b"host", host)] if host else [], **scope))
    assert queue.flush(5)
    for sink in (queued, direct):
        told = root_of(sink).attributes
        assert tuple(told.get(key) for key in ("url.scheme", "server.address", "server.port")) == expected


@pytest.mark.parametrize(("scheme", "port"), [("ws", 80), ("wss", 443), (None, 80)])
async def test_scheme_and_port_of_a_websocket(scheme: str | None, port: int, sink: MemorySink) -> None:
    """As of a request."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    await serve(traced(app, sink), websocket_scope(headers=[(b"host", b"example.com")], scheme=scheme))
    told = root_of(sink).attributes
    assert (told["url.scheme"], told["server.port"]) == (scheme or "ws", port)
