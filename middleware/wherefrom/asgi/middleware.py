"""``TraceMiddleware``: every request a trace."""

from __future__ import annotations

import asyncio
import fnmatch
import re
import sys
import time
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextlib import suppress

from .. import keys
from .._ids import new_request_id
from .._types import ASGIApp, Message, Receive, Scope, Send
from ..context import enter, leave, span_var, trace_var
from ..exceptions import WherefromError
from ..model import SpanType
from ..process import ledger
from ..propagation import extract, parse_baggage
from ..settings import Settings
from ..sinks import Sink
from ..tracing import assembly
from ..tracing.bridge import Bridge, bridged, flush_bridges, open_bridges
from ..tracing.recorder import LiveTrace, Recorder
from .attributes import content_type, describe, known_method, route_template, trusted_callers
from .capture import Body, Redactor
from .headers import Found, HeaderReader, accept, by_name
from .http import Header, HttpExchange
from .websocket import WebSocketExchange

SCOPE_KEY = "wherefrom.trace"

_SHUTDOWN = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})

_SERVER = SpanType.SERVER.value
_LONG_PATH = 256

Exchange = HttpExchange | WebSocketExchange
Hook = Callable[[LiveTrace, Scope], None]


class TraceMiddleware:
    """Gives every HTTP request and websocket connection a trace that knows wherefrom it came.

    Use it inside the framework, ``app.add_middleware(TraceMiddleware)``, or around the whole app,
    ``app = TraceMiddleware(app)``; only the second sees answers that the framework makes for uncaught
    exceptions, and puts the request id on them.

    Args:
        app: The ASGI 3 application.
        settings: Read from ``WHEREFROM_*`` variables when not given.
        sink: Called directly with each finished trace, in the request's own task. Without one, the store
            and exporters of the settings are used, behind one queue for the process.
        bridges: What keeps other tracers inside our requests; those of the settings when none is given.
        on_request: Called as ``on_request(trace, scope)`` when the metadata is known, before the app.
        on_response: Called as ``on_response(trace, scope)`` when the root span has ended, before the sink.

    Raises:
        SettingsError: a setting cannot be used.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings | None = None,
        sink: Sink | None = None,
        bridges: Sequence[Bridge] = (),
        on_request: Hook | None = None,
        on_response: Hook | None = None,
    ) -> None:
        self.app = app
        self._recorder: Recorder | None = None
        self._unusable: WherefromError | None = None
        try:
            self._set_up(settings, sink, bridges, on_request, on_response)
        except WherefromError as error:
            if not _is_starting():
                raise
            # add_middleware builds us in the lifespan, where raising stops no server.
            self._unusable = error

    def _set_up(
        self,
        settings: Settings | None,
        sink: Sink | None,
        bridges: Sequence[Bridge],
        on_request: Hook | None,
        on_response: Hook | None,
    ) -> None:
        self.settings = settings = settings or Settings()
        self._recorder = assembly.make_recorder(settings, sink) if settings.enabled else None
        if not settings.enabled:
            assembly.switch_off()
        self._flush = getattr(sink, "flush", assembly.flush)
        self._bridges = tuple(bridges or open_bridges(settings.bridges)) if settings.enabled else ()
        self._on_request = on_request
        self._on_response = on_response
        self._reader = HeaderReader(settings)
        self._echo = settings.echo_request_id
        self._heeds_caller = settings.upstream != "ignore"
        self._joins = settings.upstream == "continue"
        self._trusts = trusted_callers(settings)
        self._believes_all = settings.trust_headers == "all"
        self._server_timing = settings.server_timing
        self._excluded = _path_matcher(settings.exclude)
        self._captures = settings.capture_bodies or self._reader.captures
        self._redactor = Redactor(settings.redact) if settings.capture_bodies else None
        self._adds_nothing = not self._captures and on_response is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Trace one connection, as ASGI calls it."""
        exchange = self._begin(scope, receive, send)
        if exchange is None:
            await self._pass_by(scope, receive, send)
            return
        trace = exchange.trace
        trace_token = trace_var.set(trace)
        span_token = span_var.set(trace.root)
        error: BaseException | None = None
        try:
            if self._bridges:
                with bridged(self._bridges, trace, scope, exchange.send) as bridged_send:
                    if self._on_request is not None:
                        self._call_hook("on_request", self._on_request, trace, scope)
                    await self.app(scope, exchange.receive, bridged_send)
            else:
                if self._on_request is not None:
                    self._call_hook("on_request", self._on_request, trace, scope)
                await self.app(scope, exchange.receive, exchange.send)
        except BaseException as raised:
            error = raised
            raise
        finally:
            try:
                trace_var.reset(trace_token)
                span_var.reset(span_token)
            except ValueError:
                pass  # closed from another context, as at the end of a loop: nothing of ours is there
            self._complete(exchange, scope, error)
            error = None  # a frame that keeps the exception that keeps the frame is left to the collector

    def _begin(self, scope: Scope, receive: Receive, send: Send) -> Exchange | None:
        """Start a trace, or nothing for a connection that is not ours to trace."""
        kind = scope["type"]
        if kind == "http":
            name = known_method(scope)
        elif kind == "websocket":
            name = "WS"
        else:
            return None
        # A scope that comes again after its trace is over is another request: a retry outside of us.
        outer = scope.get(SCOPE_KEY)
        if self._recorder is None or (outer is not None and not outer.over):
            return None
        if self._excluded is not None and self._excluded(scope["path"]):
            return None
        try:
            found = by_name(scope.get("headers") or ())
            if b"traceparent" in found and self._heeds_caller:
                trace = self._start_after_caller(self._recorder, name, scope)
            else:
                trace = LiveTrace(self._recorder, name, _SERVER)
                if self._joins and b"baggage" in found and self._trusts(scope):
                    trace.baggage = parse_baggage(scope["headers"])
            trace.of_request = True
            echo = self._identify(trace, scope, found)
            make = HttpExchange if kind == "http" else WebSocketExchange
            exchange: Exchange = make(trace, scope, found, receive, send, echo)
            if self._server_timing:
                exchange.server_timing = True
            if self._redactor is not None and isinstance(exchange, HttpExchange):
                limit = self.settings.max_body_bytes
                exchange.request_body, exchange.response_body = Body(limit), Body(limit)
        except Exception as failure:  # noqa: BLE001 - a scope that we cannot read is still the app's to answer
            ledger.failed("recording", failure)
            scope.pop(SCOPE_KEY, None)
            return None
        return exchange

    def _start_after_caller(self, recorder: Recorder, name: str, scope: Scope) -> LiveTrace:
        """Start a trace that joins, or is linked to, the one that the caller names.

        Only who may be joined also has its baggage carried on.
        """
        caller = extract(scope["headers"])
        joins = self._joins and self._trusts(scope)
        trace = LiveTrace(recorder, name, _SERVER, caller if joins else None)
        if joins:
            trace.baggage = parse_baggage(scope["headers"])
        elif caller is not None:
            link = {"trace_id": f"tr-{caller.trace_id}", "span_id": caller.span_id, "attributes": {}}
            trace.root.links.append(link)
        return trace

    def _identify(self, trace: LiveTrace, scope: Scope, found: Found) -> Header | None:
        """Read the ids, share them with the app, and say which header the response gets."""
        info, reader = trace.info, self._reader
        name = reader.request_id
        request_id = accept(name, found[name]) if name in found else None
        info.client_request_id = request_id = request_id or new_request_id(info.request_time)
        for header, key in reader.metadata:
            if header not in found or not (self._believes_all or self._believes(header, scope)):
                continue
            if (value := accept(header, found[header])) is not None:
                info.trace_metadata[key] = trace.recorder.user(value) if key == keys.USER else value

        scope[SCOPE_KEY] = trace
        if "state" not in scope:
            scope["state"] = {"request_id": request_id}
        elif type(state := scope["state"]) is dict or isinstance(state, MutableMapping):
            state["request_id"] = request_id

        return (name, request_id.encode("latin-1")) if self._echo else None

    def _believes(self, header: bytes, scope: Scope) -> bool:
        """Whether this caller may say what this header says; when not, that is counted."""
        trusted = self._trusts(scope)
        if not trusted:
            ledger.refused(header.decode("latin-1"))
        return trusted

    def _complete(self, exchange: Exchange, scope: Scope, error: BaseException | None) -> None:
        trace = exchange.trace
        try:
            exchange.complete(error)
            route = route_template(scope, exchange.root_path)
            kept = trace.settle(route)
            if kept or trace.followers:
                trace.plain = self._adds_nothing and not (
                    trace.root.attributes or trace.baggage or len(scope["path"]) > _LONG_PATH
                )
                describe(trace.root, scope, exchange.found, exchange.figures(), route)
                if self._captures:
                    self._capture(exchange, scope)
                for follower in trace.followers:
                    follower.agree(trace)
            if kept:
                trace.complete_info()
                if self._on_response is not None:
                    self._call_hook("on_response", self._on_response, trace, scope)
                trace.recorder.hand_over(trace)
        except Exception as failure:  # noqa: BLE001 - the app's answer stands, whatever fails here
            ledger.failed("recording", failure)
            ledger.dropped("recording_failed")
        trace.let_go()

    def _capture(self, exchange: Exchange, scope: Scope) -> None:
        trace, root = exchange.trace, exchange.trace.root
        request_headers = scope.get("headers") or ()
        self._capture_headers(trace, "http.request.header.", request_headers)
        if not isinstance(exchange, HttpExchange):
            return
        self._capture_headers(trace, "http.response.header.", exchange.response_headers)
        if self._redactor is None or exchange.request_body is None or exchange.response_body is None:
            return
        if root.inputs is None:
            root.inputs = exchange.request_body.value(content_type(request_headers), self._redactor)
        if root.outputs is None:
            kind = content_type(exchange.response_headers)
            root.outputs = exchange.response_body.value(kind, self._redactor)

    def _capture_headers(self, trace: LiveTrace, prefix: str, headers: Iterable[Sequence[bytes]]) -> None:
        for name, values in self._reader.captured(headers).items():
            is_user = self._reader.is_user(name)
            trace.root.attributes[prefix + name] = [
                trace.recorder.user(value) if is_user else value for value in values
            ]

    def _call_hook(self, place: str, hook: Hook, trace: LiveTrace, scope: Scope) -> None:
        try:
            hook(trace, scope)
        except Exception as error:  # noqa: BLE001 - a hook's bug is not the client's
            ledger.failed(place, error)

    async def _pass_by(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app without a trace of ours."""
        if self._unusable is not None:
            await self._refuse(scope, receive, send, self._unusable)
            return
        if scope["type"] == "lifespan":
            send = self._flushing(send)
        # A server may have leaked another request's context into this one; a nested one's is its own.
        if trace_var.get() is None or SCOPE_KEY in scope:
            await self.app(scope, receive, send)
            return
        tokens = enter(None, None)
        try:
            await self.app(scope, receive, send)
        finally:
            leave(tokens)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, error: WherefromError) -> None:
        """Stop the server's start with one sentence; where there is no lifespan, each request says it."""
        if scope["type"] != "lifespan":
            raise error.with_traceback(None)
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(error)})

    def _flushing(self, send: Send) -> Send:
        async def send_after_flush(message: Message) -> None:
            if message["type"] in _SHUTDOWN:
                # Nothing else runs on this loop any more, so waiting here needs no thread and suits trio too.
                deadline = time.monotonic() + self.settings.shutdown_timeout
                try:
                    self._flush(self.settings.shutdown_timeout)
                except Exception as error:  # noqa: BLE001 - a sink of the user's own
                    ledger.failed("flush", error)
                flush_bridges(self._bridges, deadline - time.monotonic())
            await send(message)

        return send_after_flush


def _is_starting() -> bool:
    """Whether an event loop runs already: asyncio's, or trio's."""
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        return True
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


def _path_matcher(globs: Sequence[str]) -> Callable[[str], object] | None:
    if not globs:
        return None
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs)).match
