"""``TraceMiddleware(app, redact=...)``: the app's hook sees whatever is recorded of a request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException

from wherefrom import (
    MemorySink,
    Settings,
    TraceMiddleware,
    WherefromError,
    start_span,
    trace,
    update_current_trace,
)
from wherefrom._capture import secrets
from wherefrom.sinks import BackgroundSink

from .raw import http_scope, ok, only, root_of, serve, websocket_scope
from .test_capture import served

EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+")
ADA = "ada@example.com"


@pytest.fixture(autouse=True)
def _usual_redactor() -> Iterator[None]:
    before = secrets.redactor()
    yield
    secrets._in_use.redactor = before


def redact(name: str, value: Any) -> Any:
    if name == "iban":
        return None
    return EMAIL.sub("[email]", value) if isinstance(value, str) else value


def guarded(app: Any, sink: Any, **settings: Any) -> TraceMiddleware:
    return TraceMiddleware(app, sink=sink, settings=Settings(store="none", **settings), redact=redact)


@trace
def find(who: str, iban: str) -> dict[str, str]:
    return {"found": who, "iban": iban}


def customers() -> FastAPI:
    app = FastAPI()

    @app.post("/customers/{who}")
    async def read(who: str, body: dict[str, Any]) -> dict[str, Any]:
        find(who, "DE12 3456")
        with start_span("note", attributes={"customer": who, "nested": {"deep": [who]}}) as span:
            span.add_event("seen", {"by": who})
            span.set_status("ERROR", f"no {who}")
        update_current_trace(
            tags={"owner": who}, metadata={"tenant": who}, request_preview=f"of {who}", session_id=who
        )
        if body["fails"]:
            try:
                raise KeyError(who)
            except KeyError as error:
                raise ExceptionGroup(f"of {who}", [ValueError(who)]) from error
        return {"who": who, "iban": "DE12 3456", "n": 5}

    return app


@pytest.mark.parametrize("fails", [False, True])
async def test_everything_that_is_recorded_passes_the_hook(fails: bool, sink: MemorySink) -> None:
    """On a real server: path, headers, user, bodies, arguments, attributes, tags, previews, exceptions."""
    app = guarded(customers(), sink, capture_bodies=True, capture_headers="x-owner,user-agent")
    headers = {"X-User-ID": ADA, "X-Owner": ADA, "User-Agent": f"bot ({ADA})"}
    async with served(app) as http:
        answer = await http.post(f"/customers/{ADA}", json={"fails": fails, "to": [ADA]}, headers=headers)
    assert answer.status_code == (500 if fails else 200)
    found = only(sink)
    assert ADA not in found.to_json()
    assert "DE12" not in found.to_json()
    assert found.info.trace_metadata["mlflow.trace.user"] == found.info.tags["owner"] == "[email]"
    assert found.info.request_preview == "of [email]"
    root, call, note = found.data.spans
    assert root.inputs == {"fails": fails, "to": ["[email]"]}
    assert root.attributes["url.path"] == "/customers/[email]"
    assert root.attributes["http.request.header.x-owner"] == ["[email]"]
    assert (call.inputs, call.outputs) == (
        {"who": "[email]", "iban": None}, {"found": "[email]", "iban": None},
    )  # fmt: skip
    assert (note.attributes["customer"], note.status.description) == ("[email]", "no [email]")
    if fails:
        assert root.status.description == "ExceptionGroup: of [email] (1 sub-exception): ValueError: [email]"
        assert "KeyError: '[email]'" in root.events[0].attributes["exception.stacktrace"]
    else:
        assert root.outputs == {"who": "[email]", "iban": None, "n": 5}


async def test_behind_a_queue_too() -> None:
    """A request of which nothing is used takes no short way past the hook."""
    store = MemorySink()
    queue = BackgroundSink(store)
    headers = [(b"x-user-id", ADA.encode()), (b"x-session-id", b"s-1")]
    await serve(guarded(ok, queue), http_scope(f"/{ADA}", headers=headers))
    assert queue.flush(5)
    assert root_of(store).attributes["url.path"] == "/[email]"
    assert only(store).info.trace_metadata["mlflow.trace.user"] == "[email]"
    assert only(store).info.trace_metadata["mlflow.trace.session"] == "s-1"


async def test_a_websocket(sink: MemorySink) -> None:
    """The reason for which a client left."""
    left = {"type": "websocket.disconnect", "code": 4000, "reason": f"bye {ADA}"}

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    await serve(guarded(app, sink), websocket_scope(), {"type": "websocket.connect"}, left)
    assert root_of(sink).attributes["wherefrom.websocket.close_reason"] == "bye [email]"


async def test_a_hook_that_fails_shows_nothing(sink: MemorySink) -> None:
    """The app does not notice; ``None`` leaves a value out."""

    def rude(name: str, value: Any) -> Any:
        if name in {"mlflow.trace.user", "url.path"}:
            return None
        raise RuntimeError(name)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        update_current_trace(tags={"a": "b"}, metadata={"mlflow.trace.user": "x"})
        await ok(scope, receive, send)

    middleware = TraceMiddleware(app, sink=sink, settings=Settings(store="none"), redact=rude)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(middleware), base_url="http://test") as http:
        assert (await http.get("/secret", headers={"X-Session-ID": "s"})).text == "ok"
    found = only(sink)
    assert found.info.tags["a"] == found.info.trace_metadata["mlflow.trace.session"] == "[redacted]"
    assert "mlflow.trace.user" not in found.info.trace_metadata
    assert "url.path" not in root_of(sink).attributes


@pytest.mark.parametrize("wrong", ["password", ["ssn"], 5])
def test_what_is_no_function_is_refused(wrong: Any) -> None:
    """At start, in one sentence."""
    with pytest.raises(WherefromError, match="redact takes a function of a name and a value, not"):
        TraceMiddleware(ok, settings=Settings(store="none"), redact=wrong)


def test_nor_is_a_coroutine_function() -> None:
    """Nobody would await it."""

    async def later(name: str, value: Any) -> Any:
        return value

    with pytest.raises(WherefromError, match="redact takes a function"):
        TraceMiddleware(ok, settings=Settings(store="none"), redact=later)


async def test_added_names_count_everywhere(sink: MemorySink) -> None:
    """``WHEREFROM_REDACT`` is for arguments and attributes as it is for bodies."""
    app = FastAPI()

    @app.post("/")
    async def read(body: dict[str, Any]) -> None:
        with start_span("s", attributes={"patientId": "p-1", "n": {"patient-id": "p-1"}}):
            raise HTTPException(400, "patient_id=p-1")

    settings = Settings(store="none", redact="patient_id", capture_bodies=True)
    async with served(TraceMiddleware(app, sink=sink, settings=settings)) as http:
        await http.post("/", json={"patientID": "p-1", "password": "x"})
    assert "p-1" not in "".join(str(span.attributes) + str(span.inputs) for span in only(sink).data.spans)


async def test_another_middleware_of_the_process(sink: MemorySink) -> None:
    """The hook counts for the whole process, also where a middleware has none, or was made before."""
    before = TraceMiddleware(ok, sink=sink, settings=Settings(store="none"))
    guarded(ok, sink)
    after = TraceMiddleware(ok, sink=sink, settings=Settings(store="none"))
    for middleware in (before, after):
        sink.traces.clear()
        await serve(middleware, http_scope(f"/{ADA}", [(b"x-user-id", ADA.encode())]))
        assert ADA not in only(sink).to_json()
