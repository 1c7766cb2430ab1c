"""``TraceMiddleware``: records each request as a trace."""

from __future__ import annotations

import asyncio
import fnmatch
import inspect
import re
import sys
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from contextvars import Token
from functools import partial
from typing import Any

from .._capture import secrets
from .._capture.values import safe_repr
from .._clock import monotonic
from .._types import ASGIApp, Message, Receive, Scope, Send
from ..context import enter, leave, span_var, trace_var
from ..exceptions import SettingsError, WherefromError
from ..model import Span, SpanType, Trace
from ..process import in_event_loop, ledger, logger, process
from ..propagation import extract, parse_baggage
from ..settings import Settings
from ..sinks import Sink
from ..tracing import assembly
from ..tracing.bridge import Bridge, close_sessions, flush_bridges, open_bridges, open_sessions, syncing
from ..tracing.exceptions import without_framework_groups
from ..tracing.recorder import Recorder
from .attributes import WEBSOCKET, known_method
from .capture import Body
from .endpoints import warn_of_undecorated
from .exchange import SCOPE_KEY, Exchange, ExchangeOptions, Hook, call_hook
from .headers import index_headers
from .http import HeadExchange, HttpExchange, Unobserved
from .routes import app_path, rooted_app
from .websocket import WebSocketExchange

_SHUTDOWN = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})

# Keys that only the scopes of requests have.
_REQUEST_KEYS = frozenset(
    {"client", "headers", "http_version", "method", "path", "query_string", "raw_path", "root_path", "scheme",
     "server"}
)  # fmt: skip
_OPEN_INTERVAL_S = 0.01

# What apps say that take any scope for a request's: the type of a scope, or the word for this one.
_OF_SCOPE = re.compile(r"(?i)\blifespan\b|\bscope\b.*\btype\b|\btype\b.*\bscope\b|\bscope\[")

_SERVER = SpanType.SERVER.value


class TraceMiddleware:
    """Records one trace per HTTP request and websocket connection.

    Use it inside the framework, ``app.add_middleware(TraceMiddleware)``, or around the whole app,
    ``app = TraceMiddleware(app)``. Only the second sees the responses that the framework makes for uncaught
    exceptions, and adds the request id to them.

    Args:
        app: The ASGI 3 application.
        settings: By default read from ``WHEREFROM_*`` variables.
        sink: Called directly with each finished trace, in the request's own task. By default the store and
            exporters of the settings are used, behind queues that all middlewares of the process share.
        bridges: Connect other tracers; by default those of the settings.
        on_request: Called as ``on_request(trace, scope)`` after the metadata is set and before the app.
        on_response: Called as ``on_response(trace, scope)`` after the root span has ended, before the sink.
        redact: Called as ``redact(name, value)`` with each text and number that this process records; returns
            the value to record, or ``None``. The process uses the hook of the last middleware.

    Raises:
        SettingsError: a setting is invalid.
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
        redact: secrets.Hook | None = None,
    ) -> None:
        self.app = app
        self._recorder: Recorder | None = None
        self._unusable: WherefromError | None = None
        try:
            self._set_up(settings, sink, bridges, on_request, on_response, redact)
        except WherefromError as error:
            if not in_event_loop():
                raise
            # add_middleware constructs us in the lifespan, where an exception does not stop the server.
            self._unusable = error

    def _set_up(
        self,
        settings: Settings | None,
        sink: Sink | None,
        bridges: Sequence[Bridge],
        on_request: Hook | None,
        on_response: Hook | None,
        redact: Any,
    ) -> None:
        if redact is not None:
            if not callable(redact) or inspect.iscoroutinefunction(redact):
                raise SettingsError(f"redact takes a function of a name and a value, not {safe_repr(redact)}")
            secrets.configure(hook=redact)
            for options in process.exchange_options:
                options.take_hook()
        self.settings = settings = settings or Settings()
        self._recorder = assembly.make_recorder(settings, sink) if settings.enabled else None
        if not settings.enabled:
            assembly.switch_off()
        self._flush = getattr(sink, "flush", assembly.flush)
        self._bridges = open_bridges(settings, bridges) if settings.enabled else ()
        self._on_request = on_request
        self._options = ExchangeOptions(settings, on_response)
        self._joins = settings.upstream == "continue"
        # Nobody gets anything of a request: neither the store, nor another tracer, nor a hook.
        self._drops = (
            self._recorder is not None
            and self._recorder.records_none
            and not (self._bridges or on_request or on_response or settings.server_timing)
        )
        self._make = Unobserved if self._drops else HttpExchange
        self._excluded = _path_matcher(settings.exclude)
        self._rooted = None if self._excluded is None else rooted_app(self.app)
        self._open: set[Exchange] = set()
        if settings.enabled:
            warn_of_undecorated(self.app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Trace one connection, as ASGI calls it."""
        exchange = self._begin(scope)
        if exchange is None:
            await self._pass_by(scope, receive, send)
            return
        trace = exchange.trace
        tokens = trace_var.set(trace), span_var.set(trace.root)
        error: BaseException | None = None
        try:
            if isinstance(exchange, Exchange):
                self._open.add(exchange)
                receive, send = partial(exchange.receive, receive), partial(exchange.send, send)
                if self._bridges:
                    open_sessions(self._bridges, trace, scope)
                    send = syncing(send, trace)
                if self._on_request is not None:
                    call_hook("on_request", self._on_request, trace, scope)
            elif self._options.echo:
                send = partial(exchange.send, send)
            await self.app(scope, receive, send)
        except BaseException as raised:
            error = without_framework_groups(raised)
            raise
        finally:
            if trace.sessions:
                close_sessions(trace, error)
            _reset(tokens)
            _finish(exchange, error)
            self._open.discard(exchange)
            # These refer to each other in cycles, and would wait for the garbage collector.
            error = None
            del exchange.trace, exchange.scope

    def _begin(self, scope: Scope) -> Exchange | Unobserved | None:
        """Start a trace; ``None`` for a connection that is not traced."""
        kind, recorder = scope["type"], self._recorder
        make: type[HttpExchange | WebSocketExchange | Unobserved]
        if recorder is None:
            return None
        if kind == "http":
            method = known_method(scope)
            make = HeadExchange if method == "HEAD" and not self._drops else self._make
        elif kind == "websocket":
            make, method = WebSocketExchange, WEBSOCKET
        else:
            return None
        # A scope that returns after its trace is over is another request: a retry by an outer middleware.
        outer = scope.get(SCOPE_KEY)
        if outer is not None and not outer.over:
            return None
        try:
            if self._excluded is not None and self._excluded(
                app_path(scope, getattr(self._rooted, "root_path", ""))
            ):
                return None
            headers = index_headers(scope.get("headers") or ())
            if self._joins and self._options.trusts(scope):
                trace = recorder.start(method, _SERVER, extract(scope["headers"]))
                trace.baggage = parse_baggage(scope["headers"])
            else:
                trace = recorder.start(method, _SERVER)
            exchange = make(trace, scope, headers, self._options)
            if method != "GET":
                exchange.method = method
            if self._options.redactor is not None and isinstance(exchange, HttpExchange):
                limit = self._options.max_body_bytes
                exchange.request_body, exchange.response_body = Body(limit), Body(limit)
        except Exception as failure:  # noqa: BLE001 - the app can still answer a scope that we cannot read
            ledger.failed("recording", failure)
            scope.pop(SCOPE_KEY, None)
            return None
        return exchange

    async def _pass_by(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app without a trace."""
        if self._unusable is not None:
            await self._refuse(scope, receive, send, self._unusable)
            return
        if scope["type"] == "lifespan" and self._recorder is not None:
            warn_of_undecorated(self.app)
            await self._run_lifespan(scope, receive, self._flushing(send))
            return
        # A server may have leaked the context of another request; a nested middleware keeps its outer one's.
        if trace_var.get() is None or SCOPE_KEY in scope:
            await self.app(scope, receive, send)
            return
        tokens = enter(None, None)
        try:
            await self.app(scope, receive, send)
        finally:
            leave(tokens)

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app's lifespan, or one of our own if the app has none.

        Without a lifespan there is no shutdown message: uvicorn then ends by the signal that it received,
        without exit hooks, and the queued traces would be lost.
        """
        process.serves()
        has_begun = False

        async def receive_noting() -> Message:
            nonlocal has_begun
            has_begun = True
            return await receive()

        async def send_noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        tokens = enter(None, None)
        try:
            await self.app(scope, receive_noting, send_noting)
        except Exception as error:
            if has_begun or not _refuses_scope(error):
                raise
            logger.debug(
                "the app does not handle lifespan events (%s); Wherefrom answers them", type(error).__name__
            )
        finally:
            leave(tokens)
        while not has_begun:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, error: WherefromError) -> None:
        """Fail the server's start with one sentence; without a lifespan, fail each request."""
        if scope["type"] != "lifespan":
            raise error.with_traceback(None)
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(error)})

    async def _finish_open(self, deadline: float) -> None:
        """Wait for requests that the server has cancelled; record those that go on as cancelled."""
        while self._open and monotonic() < deadline:
            await _sleep(_OPEN_INTERVAL_S)
        for exchange in list(self._open):
            _finish(exchange, CancelledError("the server has stopped"))

    def _flushing(self, send: Send) -> Send:
        async def send_after_flush(message: Message) -> None:
            if message["type"] in _SHUTDOWN:
                deadline = monotonic() + self.settings.shutdown_timeout
                await self._finish_open(deadline - self.settings.shutdown_timeout / 2)
                try:
                    self._flush(max(deadline - monotonic(), 0))
                except Exception as error:  # noqa: BLE001 - a sink of the user's own
                    ledger.failed("flush", error)
                assembly.settle_stores()
                flush_bridges(self._bridges, deadline - monotonic())
            await send(message)

        return send_after_flush


process.request_code = TraceMiddleware.__call__.__code__


def _refuses_scope(error: Exception) -> bool:
    """Whether an exception means that the app has no lifespan, and not that its start-up failed."""
    if isinstance(error, KeyError):
        return any(isinstance(key, str) and key in _REQUEST_KEYS for key in error.args)
    return (
        isinstance(error, (AssertionError, NotImplementedError)) or _OF_SCOPE.search(str(error)) is not None
    )


async def _sleep(seconds: float) -> None:
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


def _finish(exchange: Exchange | Unobserved, error: BaseException | None) -> None:
    exchange.trace.recorder.finish(exchange.trace, exchange, error)


def _reset(tokens: tuple[Token[Trace | None], Token[Span | None]]) -> None:
    try:
        trace_var.reset(tokens[0])
        span_var.reset(tokens[1])
    except ValueError:
        pass  # closed from another context, as at the end of a loop: nothing of ours is there


def _path_matcher(globs: Sequence[str]) -> Callable[[str], object] | None:
    if not globs:
        return None
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs)).match
