"""One websocket connection as its messages pass by."""

from __future__ import annotations

from typing import Any, Final

from .._types import Message, Receive, Scope, Send
from ..model import SpanStatus, SpanStatusCode
from ..process import ledger
from ..tracing.recorder import LiveTrace
from .headers import Found
from .http import COMPLETED, FAILED, Header, Outcome, add_header, record_outcome, timing_header

_ABNORMAL: Final = 1006  # RFC 6455, section 7.4.1: the connection was lost without a closing handshake
_REFUSED: Final = 403
_ERROR: Final = SpanStatusCode.ERROR


class WebSocketExchange:
    """Watches ``receive`` and ``send`` of one connection; the trace is told at ``complete``."""

    __slots__ = (
        "_accepted",
        "_bytes_received",
        "_bytes_sent",
        "_close_code",
        "_close_reason",
        "_echo",
        "_ended_ns",
        "_left",
        "_lost",
        "_outcome",
        "_receive",
        "_received",
        "_send",
        "_sent",
        "_status",
        "found",
        "root_path",
        "server_timing",
        "trace",
    )

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
        self.server_timing = False
        self._accepted = self._left = self._lost = False
        self._outcome: Outcome = COMPLETED
        self._received = self._sent = self._bytes_received = self._bytes_sent = 0
        self._close_code: int | None = None
        self._close_reason = ""
        self._status: int | None = None
        self._ended_ns: int | None = None

    async def receive(self) -> Message:
        """The app reads a message, or learns that the client has gone."""
        message = await self._receive()
        kind = message["type"]
        if kind == "websocket.receive":
            self._received += 1
            self._bytes_received += _size(message)
        elif kind == "websocket.disconnect" and self._ended_ns is None:
            self._closed(message.get("code", 1005), message.get("reason"))
            self._left, self._lost = True, self._close_code == _ABNORMAL
        return message

    async def send(self, message: Message) -> None:
        """The app accepts, refuses, writes or closes."""
        kind = message["type"]
        if kind in {"websocket.accept", "websocket.http.response.start"}:
            message = self._with_headers(message)
        try:
            await self._send(message)
        except OSError:
            self._lost = self._ended_ns is None
            raise
        if kind == "websocket.send":
            self._sent += 1
            self._bytes_sent += _size(message)
        elif kind == "websocket.accept":
            self._accepted, self._status = True, 101
        elif kind == "websocket.close":
            self._status = self._status or _REFUSED
            self._closed(message.get("code", 1000), message.get("reason"))
        elif kind == "websocket.http.response.start":
            self._status = message["status"]
        elif kind == "websocket.http.response.body" and not message.get("more_body"):
            self._ended_ns = self.trace.now()

    def complete(self, error: BaseException | None) -> None:
        """The app has returned or raised: outcome, close code and counts go to the root span."""
        root = self.trace.root
        # Frameworks tell the app by an exception that carries the code; uncaught, it is no error of the app.
        if self._left and error is not None and getattr(error, "code", None) == self._close_code:
            self._lost = True
        done = self._accepted or self._ended_ns is not None
        if error is not None or self._lost or not done:
            self._outcome = record_outcome(root, error, client_closed=self._lost)
        if self._outcome == FAILED and self._status is None:
            self._status = 500
        if self._status is not None and self._status >= 500 and root.status.code is not _ERROR:
            root.status = SpanStatus(_ERROR, f"HTTP {self._status}")
        root.end(self._ended_ns)

    def figures(self) -> dict[str, Any]:
        """What the connection was like, as attributes."""
        figures: dict[str, Any] = {
            "wherefrom.outcome": self._outcome,
            "wherefrom.websocket.accepted": self._accepted,
            "wherefrom.websocket.messages_received": self._received,
            "wherefrom.websocket.messages_sent": self._sent,
            "wherefrom.websocket.bytes_received": self._bytes_received,
            "wherefrom.websocket.bytes_sent": self._bytes_sent,
        }
        if self._status is not None:
            figures["http.response.status_code"] = self._status
        if self._close_code is not None and self._accepted:
            figures["wherefrom.websocket.close_code"] = self._close_code
            if self._close_reason:
                figures["wherefrom.websocket.close_reason"] = self._close_reason
        return figures

    def _closed(self, code: Any, reason: Any) -> None:
        self._close_code = code
        self._close_reason = reason or ""
        self._ended_ns = self.trace.now()

    def _with_headers(self, message: Message) -> Message:
        try:
            message = {**message, "headers": list(message.get("headers") or ())}
            if self._echo is not None:
                add_header(message["headers"], self._echo)
            if self.server_timing:
                message["headers"].append(timing_header(self.trace))
        except Exception as error:  # noqa: BLE001 - the server will say what is wrong with it
            ledger.failed("websocket headers", error)
        return message


def _size(message: Message) -> int:
    """The payload's bytes; text counts as the UTF-8 that it is on the wire."""
    data = message.get("bytes")
    if data is not None:
        return len(data)
    text = message.get("text")
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
