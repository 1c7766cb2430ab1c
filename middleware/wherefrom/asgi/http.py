"""How a request ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from .._types import Message, Receive, Scope, Send
from ..model import SpanStatus, SpanStatusCode
from ..process import ledger
from ..tracing.outgoing import traceparent
from ..tracing.recorder import LiveSpan, LiveTrace
from .capture import Body
from .headers import Found

Outcome = Literal["completed", "client_closed", "cancelled", "failed"]

COMPLETED: Final = "completed"
CLIENT_CLOSED: Final = "client_closed"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"

_INCOMPLETE = SpanStatus(SpanStatusCode.ERROR, "the app returned without a complete response")


def record_outcome(root: LiveSpan, error: BaseException | None, *, client_closed: bool) -> Outcome:
    """The outcome of a request that was not simply completed; what was raised goes to the root span.

    A client that left is no error of the app: the exception that came of it is an event, not a status.
    """
    if client_closed:
        if error is not None:
            root.add_exception(error)
        return CLIENT_CLOSED
    if error is None:
        root.status = _INCOMPLETE
        return FAILED
    root.record_exception(error)
    # An exception that is neither of these is asyncio's or trio's cancellation.
    return FAILED if isinstance(error, (Exception, KeyboardInterrupt, SystemExit)) else CANCELLED


# Messages other than a body that may be the last, and the key that says that more is to come.
_ENDINGS: Final = {
    "http.response.trailers": "more_trailers",
    "http.response.pathsend": "more_body",
    "http.response.zerocopysend": "more_body",
}

# Messages whose bytes the server reads by itself.
_UNSEEN: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})

_ERROR: Final = SpanStatusCode.ERROR

Header = tuple[bytes, bytes]


class HttpExchange:
    """Watches ``receive`` and ``send`` of one request; the trace is told at ``complete``.

    ``echo``, the request id, joins the response unless the app set it itself; with ``server_timing`` a
    ``Server-Timing`` names the trace besides.
    """

    # Defaults of the class, not of every instance: most requests change few of them.
    status: int | None = None
    response_headers: Sequence[Sequence[bytes]] = ()
    request_body: Body | None = None
    response_body: Body | None = None
    server_timing = False
    _client_closed = False
    _trailers = _unseen = _ending = False
    _ended_ns: int | None = None
    _outcome: Outcome = COMPLETED
    _size = _chunks = _first_ns = _last_ns = _longest_ns = 0

    def __init__(
        self,
        trace: LiveTrace,
        scope: Scope,
        found: Found,
        receive: Receive,
        send: Send,
        echo: Header | None,
    ) -> None:
        self.trace = trace
        self.found = found
        self.root_path = scope.get("root_path", "")
        self._receive = receive
        self._send = send
        self._echo = echo

    async def receive(self) -> Message:
        """The app reads: notice when the client has gone before the last byte."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            # While the last byte goes out the server may already say so: hypercorn under trio does.
            if self._ended_ns is None and not self._ending:
                self._client_closed = True
        elif self.request_body is not None:
            self.request_body.add(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """The app answers: add our headers, time and count what passes."""
        kind = message["type"]
        if kind == "http.response.body":
            if message.get("more_body"):
                self._time_chunk(message)
            elif not self._trailers:
                self._ending = True
            try:
                await self._send(message)
            except OSError:
                self._lost_client()
                raise
            self._body_sent(message)
            return
        if kind == "http.response.start":
            message = self._started(message)
        elif kind in _ENDINGS and not message.get(_ENDINGS[kind]):
            self._ending = True
        try:
            await self._send(message)
        except OSError:
            self._lost_client()
            raise
        if kind in _ENDINGS:
            self._unseen = self._unseen or kind in _UNSEEN
            if not message.get(_ENDINGS[kind]):
                self._ended_ns = self.trace.now()

    def complete(self, error: BaseException | None) -> None:
        """The app has returned or raised: end the root span with its outcome and status."""
        root, status = self.trace.root, self.status
        if error is not None or self._ended_ns is None or self._client_closed:
            self._outcome = record_outcome(root, error, client_closed=self._client_closed)
            if status is None and not self._client_closed:
                self.status = status = 500
        if status is not None and status >= 500 and root.status.code is not _ERROR:
            root.status = SpanStatus(_ERROR, f"HTTP {status}")
        root.end(self._ended_ns)

    def figures(self) -> dict[str, Any]:
        """What the response was like, as attributes; of streams also how they flowed."""
        figures: dict[str, Any] = {"wherefrom.outcome": self._outcome}
        if not self._unseen:
            figures["http.response.body.size"] = self._size
        if self.status is not None:
            figures["http.response.status_code"] = self.status
        if self._first_ns:
            started = self.trace.root.start_time_ns
            figures["wherefrom.time_to_first_byte_ms"] = (self._first_ns - started) / 1e6
            figures["wherefrom.response.chunks"] = self._chunks
            figures["wherefrom.response.longest_gap_ms"] = self._longest_ns / 1e6
        return figures

    def _lost_client(self) -> None:
        if self._ended_ns is None:
            self._client_closed = True

    def _started(self, message: Message) -> Message:
        try:
            self.status = message["status"]
            if "trailers" in message:
                self._trailers = bool(message["trailers"])
            # New objects: the app may send the same message, or the same headers, for every request.
            message = dict(message)
            message["headers"] = self.response_headers = headers = list(message.get("headers") or ())
            if self._echo is not None:
                add_header(headers, self._echo)
            if self.server_timing:
                headers.append(timing_header(self.trace))
        except Exception as error:  # noqa: BLE001 - the server will say what is wrong with it
            ledger.failed("response headers", error)
        return message

    def _time_chunk(self, message: Message) -> None:
        if not message.get("body"):
            return
        now = self.trace.now()
        if not self._first_ns:
            self._first_ns = now
        elif now - self._last_ns > self._longest_ns:
            self._longest_ns = now - self._last_ns
        self._last_ns = now

    def _body_sent(self, message: Message) -> None:
        body = message.get("body", b"")
        if body:
            self._size += len(body)
            self._chunks += 1
            if self.response_body is not None:
                self.response_body.add(body)
        if not message.get("more_body") and not self._trailers:
            self._ended_ns = now = self.trace.now()
            if self._first_ns and now - self._last_ns > self._longest_ns:
                self._longest_ns = now - self._last_ns


def add_header(headers: list[Sequence[bytes]], header: Header) -> None:
    """Add a header that is not there yet."""
    name = header[0]
    for present in headers:
        if present[0].lower() == name:
            return
    headers.append(header)


def timing_header(trace: LiveTrace) -> Header:
    """The trace, for browsers: made when the response starts, by when a bridge has settled its id."""
    return b"server-timing", f'traceparent;desc="{traceparent(trace, trace.root)}"'.encode()
