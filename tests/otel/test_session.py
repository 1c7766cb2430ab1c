"""One server span a request, whoever opens it, and on whichever side of ours."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from opentelemetry import trace as otel
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as ContribMiddleware
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from starlette.background import BackgroundTask
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware as StarletteMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, Router

import wherefrom
from wherefrom import TraceState

from .telemetry import Telemetry, build, connect, fastapi_app, get, ok, tree_of

OWNERS = ["fastapi", "starlette", "contrib", "nobody"]
ORDERS = ["outside", "inside"]
CALLER = f"00-{'ab' * 16}-{'cd' * 8}-01"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("owner", OWNERS)
class TestEachOwner:
    """FastAPI's telemetry, Starlette's middleware, contrib's and nobody, outside of us and inside."""

    async def test_a_plain_request(self, telemetry: Telemetry, owner: str, order: str) -> None:
        """One server span in both places, with our metadata on it, and the library's call below our span."""
        response = await get(
            build(telemetry, owner, order), "/plain/7", x_session_id="chat-1", x_user_id="ada"
        )
        assert response.json() == {"item": "7"}
        telemetry.check()
        trace, (server,) = telemetry.trace, telemetry.server_spans
        assert trace.info.name == "GET /plain/{item}"
        assert trace.info.state == TraceState.OK
        assert telemetry.tree()["model"] == "work"
        # In the others, the handler runs in a span of theirs below the server span.
        if owner != "fastapi" and (owner, order) != ("contrib", "inside"):
            assert trace.data.spans[0].attributes["app.tier"] == "gold"
        attributes = dict(server.attributes or {})
        assert attributes["mlflow.trace.session"] == attributes["session.id"] == "chat-1"
        assert attributes["mlflow.trace.user"] == attributes["user.id"] == "ada"
        assert attributes["tenant"] == "acme"
        assert attributes["environment"] == trace.info.trace_metadata["environment"]
        assert attributes["client_request_id"] == response.headers["x-request-id"]

    async def test_a_streamed_answer(self, telemetry: Telemetry, owner: str, order: str) -> None:
        """A generator that makes three instrumented calls: one trace, all below the generator's span."""
        response = await get(build(telemetry, owner, order), "/stream")
        assert response.text == "0 1 2 "
        telemetry.check()
        tree = telemetry.tree()
        assert tree["model 0"] == tree["model 1"] == tree["model 2"] == "answer"
        assert telemetry.trace.data.spans[0].attributes["wherefrom.response.chunks"] == 3

    async def test_a_request_that_fails(self, telemetry: Telemetry, owner: str, order: str) -> None:
        """An error in both places, recorded once in ours."""
        response = await get(build(telemetry, owner, order), "/fail")
        assert response.status_code == 500
        telemetry.check()
        root = telemetry.trace.data.spans[0]
        assert telemetry.trace.info.state == TraceState.ERROR
        assert [event.name for event in root.events] == ["exception"]
        assert telemetry.server_spans[0].status.status_code is StatusCode.ERROR

    async def test_many_at_once(self, telemetry: Telemetry, owner: str, order: str) -> None:
        """Concurrent requests stay apart."""
        app = build(telemetry, owner, order)
        await asyncio.gather(*(get(app, f"/plain/{number}") for number in range(10)))
        assert len({trace.info.trace_id for trace in telemetry.sink.traces}) == 10
        assert len(telemetry.server_spans) == 10
        assert all(tree_of(trace)["model"] == "work" for trace in telemetry.sink.traces)
        assert wherefrom.stats().errors == {}

    async def test_what_their_sampler_drops(self, telemetry: Telemetry, owner: str, order: str) -> None:
        """OpenTelemetry exports nothing, the libraries' spans do not exist; ours has its own spans."""
        telemetry = Telemetry(sampler=ALWAYS_OFF)
        await get(build(telemetry, owner, order), "/plain/7")
        assert telemetry.exported == ()
        assert [span.name for span in telemetry.trace.data.spans] == ["GET /plain/{item}", "work"]
        assert wherefrom.stats().errors == {}

    async def test_what_our_sampling_drops(self, telemetry: Telemetry, owner: str, order: str) -> None:
        """Nothing in our store, everything in theirs."""
        telemetry.settings = {"sample_rate": 0, "keep_errors": False}
        await get(build(telemetry, owner, order), "/plain/7", x_session_id="chat-1")
        assert telemetry.sink.traces == []
        (server,) = telemetry.server_spans
        assert server.attributes is not None
        assert server.attributes["session.id"] == "chat-1"
        assert server.attributes["http.route" if owner == "nobody" else "tenant"]
        (model,) = (span for span in telemetry.exported if span.name == "model")
        assert model.context is not None
        assert server.context is not None
        assert model.context.trace_id == server.context.trace_id
        assert wherefrom.stats().errors == {}

    async def test_without_the_bridge(self, telemetry: Telemetry, owner: str, order: str) -> None:
        """Two tracers side by side: neither sees or changes anything of the other."""
        telemetry.bridge = None
        await get(build(telemetry, owner, order), "/plain/7", x_session_id="chat-1")
        assert [span.name for span in telemetry.trace.data.spans] == ["GET /plain/{item}", "work"]
        assert telemetry.trace.data.spans[0].parent_id is None
        servers = telemetry.server_spans
        assert len(servers) == (owner != "nobody")
        for span in telemetry.exported:
            assert span.context is not None
            assert f"tr-{span.context.trace_id:032x}" != telemetry.trace.info.trace_id
            assert "session.id" not in (span.attributes or {})


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("owner", ["fastapi", "starlette"])
async def test_a_caller_that_they_join(telemetry: Telemetry, owner: str, order: str) -> None:
    """Their server span continues the caller's trace: so does ours then, and the link is the parent now."""
    app = build(telemetry, owner, order)
    await get(app, "/plain/7", traceparent=CALLER)
    telemetry.check()
    root = telemetry.trace.data.spans[0]
    assert (root.trace_id, root.parent_id, root.links) == (f"tr-{'ab' * 16}", "cd" * 8, [])


async def test_a_caller_that_nobody_else_joins(telemetry: Telemetry) -> None:
    """``upstream`` decides: linked by default, joined when asked, and OpenTelemetry is told the same."""
    app = telemetry.traced(ok)
    await get(app, traceparent=CALLER, tracestate="a=1")
    (server,) = telemetry.server_spans
    assert server.parent is None
    assert server.links[0].context.span_id == int("cd" * 8, 16)
    telemetry.check()
    telemetry.sink.traces.clear()
    telemetry.exporter.clear()
    app = telemetry.traced(ok, upstream="continue")
    await get(app, traceparent=CALLER, tracestate="a=1")
    (server,) = telemetry.server_spans
    assert server.context is not None
    assert server.context.trace_id == int("ab" * 16, 16)
    assert server.context.trace_state.to_header() == "a=1"
    assert server.parent is not None
    assert server.parent.span_id == int("cd" * 8, 16)
    telemetry.check()


async def test_the_hooks_and_headers_have_the_final_id(telemetry: Telemetry) -> None:
    """What ``on_request`` and ``Server-Timing`` tell is what is stored; inside, the latter still is."""
    seen = []
    options: Any = {
        "server_timing": True,
        "on_request": lambda trace, _scope: seen.append(trace.info.trace_id),
    }
    response = await get(fastapi_app(telemetry, lambda app: telemetry.traced(app, **options)), "/plain/7")
    assert seen == [telemetry.trace.info.trace_id]
    assert telemetry.trace.info.trace_id[3:] in response.headers["server-timing"]
    telemetry.sink.traces.clear()
    response = await get(telemetry.traced(fastapi_app(telemetry), **options), "/plain/7")
    assert telemetry.trace.info.trace_id[3:] in response.headers["server-timing"]


async def test_spans_before_their_server_span_move_along(telemetry: Telemetry) -> None:
    """A middleware between us and theirs may have begun spans: they are of the same trace in the end."""
    inner = StarletteMiddleware(ok, tracer_provider=telemetry.provider)

    async def between(scope: Any, receive: Any, send: Any) -> None:
        with wherefrom.start_span("check") as span:
            assert otel.get_current_span().get_span_context().span_id == int(span.span_id, 16)
            await inner(scope, receive, send)
            assert otel.get_current_span().get_span_context().trace_id == int(span.trace_id[3:], 16)

    await get(telemetry.traced(between))
    telemetry.check()
    assert telemetry.tree() == {"GET": None, "check": "GET"}


async def test_metadata_that_comes_after_the_last_byte(telemetry: Telemetry) -> None:
    """Starlette's span is open until the background tasks are done: it gets what they add."""

    async def endpoint(_request: Any) -> PlainTextResponse:
        def later() -> None:
            wherefrom.update_current_trace(metadata={"late": "yes"})
            otel.get_current_span().add_event("done")
            otel.get_current_span().add_link(
                otel.SpanContext(1, 2, is_remote=True, trace_flags=otel.TraceFlags(1))
            )

        return PlainTextResponse("ok", background=BackgroundTask(later))

    app = telemetry.traced(Router([Route("/", endpoint)]))
    await get(StarletteMiddleware(app, tracer_provider=telemetry.provider))
    telemetry.check()
    assert (telemetry.server_spans[0].attributes or {})["late"] == "yes"
    root = telemetry.trace.data.spans[0]
    assert [event.name for event in root.events] == ["done"]
    assert root.links == [{"trace_id": f"tr-{1:032x}", "span_id": f"{2:016x}", "attributes": {}}]
    assert "late" not in root.attributes


async def test_query_strings_stay_theirs(telemetry: Telemetry) -> None:
    """Theirs has them; in our store they might be secrets."""
    await get(fastapi_app(telemetry, lambda app: telemetry.traced(app)), "/plain/7?token=secret")
    assert (telemetry.server_spans[0].attributes or {})["url.query"] == "token=secret"
    assert "secret" not in str(telemetry.trace.to_dict())


async def test_another_app_of_the_same_process(telemetry: Telemetry) -> None:
    """An app that a handler calls in process is another request: its server span is not ours to take."""
    inner = StarletteMiddleware(ok, tracer_provider=telemetry.provider)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await get(inner, "/inner")
        await ok(scope, receive, send)

    await get(telemetry.traced(app), "/outer")
    outer, other = telemetry.trace, telemetry.exported[0]
    assert other.context is not None
    assert f"tr-{other.context.trace_id:032x}" != outer.info.trace_id
    assert [span.name for span in outer.data.spans] == ["GET"]


async def test_a_request_inside_a_request(telemetry: Telemetry) -> None:
    """Each has a trace of its own, though one runs in the context of the other; so in OpenTelemetry."""
    inner = telemetry.traced(ok)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with telemetry.tracer.start_as_current_span("call"):
            await get(inner, "/inner")
            assert otel.get_current_span().name == "call"  # type: ignore[attr-defined]
        await ok(scope, receive, send)

    await get(telemetry.traced(app), "/outer")
    first, second = telemetry.sink.traces
    assert [span.name for span in first.data.spans] == ["GET"]
    assert tree_of(second) == {"GET": None, "call": "GET"}
    assert len({span.context.trace_id for span in telemetry.server_spans if span.context}) == 2


async def test_a_server_span_below_one_of_our_spans(telemetry: Telemetry) -> None:
    """A call in process that carries our headers is a child, as it would be over the wire."""
    inner = StarletteMiddleware(ok, tracer_provider=telemetry.provider)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with telemetry.tracer.start_as_current_span("call", kind=SpanKind.CLIENT) as call:
            context = call.get_span_context()
            await get(inner, "/inner", traceparent=f"00-{context.trace_id:032x}-{context.span_id:016x}-01")
        await ok(scope, receive, send)

    await get(telemetry.traced(app), "/outer")
    assert [(span.name, span.span_type) for span in telemetry.trace.data.spans] == [
        ("GET", "SERVER"),
        ("call", "CLIENT"),
        ("GET", "SERVER"),
    ]


@pytest.mark.parametrize("owner", ["fastapi", "contrib"])
@pytest.mark.parametrize("order", ORDERS)
async def test_websockets(telemetry: Telemetry, owner: str, order: str) -> None:
    """A connection is one trace and one server span, too."""
    config: Any = {"tracer_provider": telemetry.provider, "metrics": False, "tracing": owner == "fastapi"}
    app = FastAPI(telemetry=config)

    @app.websocket("/ws/{room}")
    async def talk(socket: WebSocket, room: str) -> None:
        await socket.accept()
        with telemetry.tracer.start_as_current_span("model"):
            await socket.send_text(room)
        await socket.close()

    whole: Any = app
    if owner == "contrib" and order == "inside":
        whole = telemetry.traced(ContribMiddleware(app, tracer_provider=telemetry.provider))
    elif owner == "contrib":
        whole = ContribMiddleware(telemetry.traced(app), tracer_provider=telemetry.provider)
    elif order == "inside":
        whole = telemetry.traced(app)
    else:
        app.add_middleware(lambda app: telemetry.traced(app))
    sent = await connect(whole, "/ws/7", [(b"x-session-id", b"s")])
    assert sent[1] == {"type": "websocket.send", "text": "7"}
    telemetry.check()
    assert (telemetry.server_spans[0].attributes or {})["session.id"] == "s"


async def test_a_span_that_another_request_has_left_behind(telemetry: Telemetry) -> None:
    """A leaked context: a span that has ended, is taken, or is remote, is not this request's."""
    spans: list[Any] = []

    async def keep(scope: Any, receive: Any, send: Any) -> None:
        spans.append(otel.get_current_span())
        await ok(scope, receive, send)

    app = telemetry.traced(keep)
    with telemetry.tracer.start_as_current_span("GET", kind=SpanKind.SERVER) as server:
        await get(app, "/1")
        await get(app, "/2")  # the same one, still open: a pipelined request while background tasks run
    with otel.use_span(server):  # it has ended
        await get(app, "/3")
    with otel.use_span(spans[1]):  # one of ours
        await get(app, "/4")
    with otel.use_span(otel.NonRecordingSpan(otel.SpanContext(7, 8, is_remote=True))):
        await get(app, "/5")
    with telemetry.tracer.start_as_current_span("internal"):
        await get(app, "/6")
    first, *others = telemetry.sink.traces
    assert spans[0] is server
    assert first.info.trace_id == f"tr-{server.get_span_context().trace_id:032x}"
    assert len({trace.info.trace_id for trace in telemetry.sink.traces}) == 6
    assert all(trace.data.spans[0].parent_id is None for trace in others)
    for trace, span in zip(telemetry.sink.traces, spans, strict=True):
        assert trace.info.trace_id == f"tr-{span.get_span_context().trace_id:032x}"
    assert otel.get_current_span() is otel.INVALID_SPAN


async def test_an_excluded_request_in_a_context_that_was_left_behind(telemetry: Telemetry) -> None:
    """What is traced in it is no part of the request before."""
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with telemetry.tracer.start_as_current_span("call"):
            left.append(contextvars.copy_context())
        await ok(scope, receive, send)

    traced = telemetry.traced(app, exclude=["/health"])
    await get(traced, "/chat")
    await asyncio.create_task(get(traced, "/health"), context=left[0])
    in_chat, in_health = (span for span in telemetry.exported if span.name == "call")
    assert in_health.parent is None
    assert in_chat.parent is not None
    assert telemetry.tree() == {"GET": None, "call": "GET"}


async def test_a_leaked_baggage_goes_with_the_leaked_span(telemetry: Telemetry) -> None:
    """Without a leak, what others have put in the context stays."""
    from opentelemetry import baggage, context

    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(baggage.get_baggage("tenant"))
        await ok(scope, receive, send)

    token = context.attach(baggage.set_baggage("tenant", "acme"))
    await get(telemetry.traced(app))
    with telemetry.tracer.start_as_current_span("left"):
        await get(telemetry.traced(app))
    context.detach(token)
    assert seen == ["acme", None]


async def test_an_app_that_is_abandoned(telemetry: Telemetry) -> None:
    """A request that is dropped in the middle ends in both places."""

    async def hang(_scope: Any, _receive: Any, _send: Any) -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(get(telemetry.traced(hang)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    telemetry.check()
    assert telemetry.trace.data.spans[0].attributes["wherefrom.outcome"] == "cancelled"
