"""Websocket: observes the messages of one connection."""

from __future__ import annotations

from typing import Any, Final

from .._types import Message, Receive, Send
from ..process import ledger
from .exchange import FAILED, Exchange

_ABNORMAL: Final = 1006  # RFC 6455, section 7.4.1: the connection was lost without a closing handshake
_REFUSED: Final = 403
# What frameworks close with when their app fails: the code of RFC 6455, or Litestar's 4000 + the status.
_INTERNAL: Final = 1011
_OWN_FAILURES: Final = 4500


class WebSocketExchange(Exchange):
    """One connection: watches what passes through its ``receive`` and ``send``."""

    method = "WS"
    _accepted = _left = _lost = False
    _received = _sent = _bytes_received = _bytes_sent = 0
    _close_code: int | None = None
    _close_reason = ""
    _status: int | None = None
    _ended_ns: int | None = None

    async def receive(self, receive: Receive) -> Message:
        """Receive for the app; notice when the client leaves."""
        message = await receive()
        kind = message["type"]
        if kind == "websocket.receive":
            self._received += 1
            self._bytes_received += _size(message)
        elif kind == "websocket.disconnect" and self._ended_ns is None:
            self._closed(message.get("code", 1005), message.get("reason"))
            self._left, self._lost = True, self._close_code == _ABNORMAL
        return message

    async def send(self, send: Send, message: Message) -> None:
        """Send for the app: add our headers, and count what passes."""
        kind = message["type"]
        if kind in {"websocket.accept", "websocket.http.response.start"}:
            message = self._started(message)
        try:
            await send(message)
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
            self._ended_ns = self.now()

    def complete(self, error: BaseException | None) -> None:
        """End the root span with outcome and status."""
        if self.handled is not None:
            error = self.take_handled(failed=error is None and not self._is_refusal(self.handled)) or error
        # Frameworks tell the app by an exception that carries the code; uncaught, it is no error of the app.
        if self._left and error is not None and getattr(error, "code", None) == self._close_code:
            self._lost = True
        done = self._accepted or self._ended_ns is not None
        if error is not None or self._lost or not done:
            self.record_outcome(error, client_closed=self._lost)
        if self.outcome == FAILED and self._status is None:
            self._status = 500
        self.end_root(self._status, self._ended_ns)

    def measurements(self) -> dict[str, Any]:
        """Return outcome, counts, sizes and close code as attributes."""
        figures: dict[str, Any] = {
            "wherefrom.outcome": self.outcome,
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

    def _is_refusal(self, error: BaseException) -> bool:
        """Whether the app answers by this exception: a status of 4xx, or a close code of its own."""
        status = getattr(error, "status_code", None) or getattr(error, "status", None)
        if isinstance(status, int) and 400 <= status < 500:
            return True
        code = getattr(error, "code", None)
        return code is not None and code == self._close_code and code != _INTERNAL and code < _OWN_FAILURES

    def _closed(self, code: Any, reason: Any) -> None:
        self._close_code = code
        self._close_reason = reason or ""
        self._ended_ns = self.now()

    def _started(self, message: Message) -> Message:
        try:
            return self.started(message)
        except Exception as error:  # noqa: BLE001 - the server reports what is wrong with it
            ledger.failed("websocket headers", error)
            return message


def _size(message: Message) -> int:
    """Return the size of a message's payload in bytes: text counts as UTF-8, as on the wire."""
    data = message.get("bytes")
    if data is not None:
        return len(data)
    text = message.get("text")
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
