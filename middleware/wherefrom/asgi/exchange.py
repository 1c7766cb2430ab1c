"""What HTTP requests and websocket connections share while their messages pass: outcome, headers, capture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal

from .._types import Message, Receive, Scope, Send
from ..model import SpanStatus, SpanStatusCode
from ..process import ledger
from ..settings import Settings
from ..tracing.inject import traceparent
from ..tracing.live import LiveTrace
from .attributes import describe, route_template
from .capture import Redactor
from .headers import HeaderMap, HeaderReader

Outcome = Literal["completed", "client_closed", "cancelled", "failed"]

COMPLETED: Final = "completed"
CLIENT_CLOSED: Final = "client_closed"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"

ERROR: Final = SpanStatusCode.ERROR
_INCOMPLETE: Final = SpanStatus(ERROR, "the app returned without a complete response")
_LONG_PATH: Final = 256

Header = tuple[bytes, bytes]
Hook = Callable[[LiveTrace, Scope], None]


class ExchangeOptions:
    """What the settings and hooks of one middleware mean for all of its exchanges."""

    def __init__(self, settings: Settings, on_response: Hook | None) -> None:
        self.reader = HeaderReader(settings)
        self.redactor = Redactor(settings.redact) if settings.capture_bodies else None
        self.max_body_bytes = settings.max_body_bytes
        self.server_timing = settings.server_timing
        self.captures = settings.capture_bodies or self.reader.captures
        self.on_response = on_response
        self.adds_nothing = not self.captures and on_response is None


class Exchange:
    """One request or connection. ``Recorder.finish`` calls ``end``, ``describe`` and ``respond``.

    ``echo`` is the request id as a response header, which the app's own header of that name overrides.
    """

    outcome: Outcome = COMPLETED
    response_headers: Sequence[Sequence[bytes]] = ()

    def __init__(
        self,
        trace: LiveTrace,
        scope: Scope,
        headers: HeaderMap,
        receive: Receive,
        send: Send,
        echo: Header | None,
        options: ExchangeOptions,
    ) -> None:
        self.trace = trace
        self.scope = scope
        self.options = options
        self._headers = headers
        self._root_path = scope.get("root_path", "")
        self._receive = receive
        self._send = send
        self._echo = echo

    async def receive(self) -> Message:
        """Give the app the next message of the client."""
        raise NotImplementedError

    async def send(self, message: Message) -> None:
        """Send a message of the app's."""
        raise NotImplementedError

    def complete(self, error: BaseException | None) -> None:
        """End the root span with outcome and status: the app has returned, or raised ``error``."""
        raise NotImplementedError

    def measurements(self) -> dict[str, Any]:
        """Return outcome, status and sizes as attributes of the root span."""
        raise NotImplementedError

    def capture_bodies(self, redactor: Redactor) -> None:
        """Record the bodies as inputs and outputs."""

    def end(self, error: BaseException | None) -> str | None:
        """End the root span, and return the template of the route that answered."""
        self.complete(error)
        return route_template(self.scope, self._root_path)

    def describe(self, route: str | None) -> None:
        """Name the root span and put the request's attributes on it."""
        trace, options = self.trace, self.options
        trace.plain = options.adds_nothing and not (
            trace.root.attributes or trace.baggage or len(self.scope["path"]) > _LONG_PATH
        )
        describe(trace.root, self.scope, self._headers, self.measurements(), route)
        if options.captures:
            self._capture_headers("http.request.header.", self.scope.get("headers") or ())
            self._capture_headers("http.response.header.", self.response_headers)
            if options.redactor is not None:
                self.capture_bodies(options.redactor)

    def respond(self) -> None:
        """Call ``on_response``."""
        if self.options.on_response is not None:
            call_hook("on_response", self.options.on_response, self.trace, self.scope)

    def record_outcome(self, error: BaseException | None, *, client_closed: bool) -> None:
        """Set the outcome of a request that did not simply complete, and record what was raised.

        A client that left is no error of the app: the exception that it caused is an event, not a status.
        """
        root = self.trace.root
        if client_closed:
            self.outcome = CLIENT_CLOSED
            if error is not None:
                root.add_exception(error)
        elif error is None:
            self.outcome = FAILED
            root.status = _INCOMPLETE
        else:
            root.record_exception(error)
            # Any other exception is the cancellation of asyncio or trio.
            is_failure = isinstance(error, (Exception, KeyboardInterrupt, SystemExit))
            self.outcome = FAILED if is_failure else CANCELLED

    def end_root(self, status: int | None, ended_ns: int | None) -> None:
        """End the root span; a status of 500 and above is an error."""
        root = self.trace.root
        if status is not None and status >= 500 and root.status.code is not ERROR:
            root.status = SpanStatus(ERROR, f"HTTP {status}")
        root.end(ended_ns)

    def add_response_headers(self, headers: list[Sequence[bytes]]) -> None:
        """Add the request id, unless the app set it itself, and ``Server-Timing``."""
        if self._echo is not None:
            name = self._echo[0]
            for present in headers:
                if present[0].lower() == name:
                    break
            else:
                headers.append(self._echo)
        if self.options.server_timing:
            headers.append(timing_header(self.trace))

    def _capture_headers(self, prefix: str, headers: Iterable[Sequence[bytes]]) -> None:
        trace, reader = self.trace, self.options.reader
        for name, values in reader.captured(headers).items():
            is_user = reader.is_user(name)
            trace.root.attributes[prefix + name] = [
                trace.recorder.user(value) if is_user else value for value in values
            ]


def timing_header(trace: LiveTrace) -> Header:
    """Return the header that names the trace to browsers.

    Made when the response starts: by then a bridge has decided on the trace id.
    """
    return b"server-timing", f'traceparent;desc="{traceparent(trace, trace.root)}"'.encode()


def call_hook(place: str, hook: Hook, trace: LiveTrace, scope: Scope) -> None:
    """Call a hook of the app's; what it raises is counted under ``place``."""
    try:
        hook(trace, scope)
    except Exception as error:  # noqa: BLE001 - a bug of the hook is not the client's
        ledger.failed(place, error)
