"""Websocket: observes the messages of one connection."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from .._types import Message, Receive, Send
from ..process import ledger
from .disconnects import is_cancellation, is_disconnect
from .exchange import CANCELLED, CLIENT_CLOSED, COMPLETED, FAILED, Exchange

# Close codes of RFC 6455, section 7.4.1, and its registry. 1006: the connection was lost without a closing
# handshake. 1012: the service restarts; only a server that stops sends it.
_ABNORMAL: Final = 1006
_RESTART: Final = 1012
_NO_CODE: Final = 1005
_REFUSED: Final = 403
# Close codes of frameworks if the app fails: that of RFC 6455, or Litestar's 4000 + the status.
_INTERNAL: Final = 1011
_OWN_FAILURES: Final = 4500
_MAX_UNREAD: Final = 1000


class WebSocketExchange(Exchange):
    """One connection: watches what passes through its ``receive`` and ``send``."""

    method = "WS"
    _accepted = _left = _lost = _stopped = False
    _received = _sent = _bytes_received = _bytes_sent = 0
    _close_code: int | None = None
    _told: int | None = None  # the code that the app received, which may be the answer to its own close
    _close_reason = ""
    _status: int | None = None
    _ended_ns: int | None = None
    _receive: Receive | None = None

    async def receive(self, receive: Receive) -> Message:
        """Receive for the app; notice when the client leaves."""
        self._receive = receive
        message = await receive()
        kind = message["type"]
        if kind == "websocket.receive":
            self._received += 1
            self._bytes_received += _size(message)
        elif kind == "websocket.disconnect":
            self._told = message.get("code", _NO_CODE)
            self._disconnected(self._told, message.get("reason"))
        return message

    async def send(self, send: Send, message: Message) -> None:
        """Send for the app: add our headers, and count what passes."""
        kind = message["type"]
        if kind in {"websocket.accept", "websocket.http.response.start"}:
            message = self._started(message)
        try:
            await send(message)
        except Exception as error:
            self._send_failed(error)
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
        if self._close_code is None and (self._lost or (self._accepted and self._ended_ns is None)):
            self._ask()
        is_excused = error is not None and self._says_over(error)
        self._receive, self.refused = None, ()  # both refer to this object
        if self._stopped and (error is None or is_excused):
            self.record_outcome(CANCELLED, error)
        elif self._lost or (self._left and is_excused):
            self.record_outcome(CLIENT_CLOSED, error)
        elif error is not None:
            # After the app has closed, another of its tasks may still get the disconnect.
            is_told = is_excused and not is_cancellation(error)
            self.record_outcome(COMPLETED if is_told else self.outcome_of(error), error)
        elif not self._accepted and self._ended_ns is None:
            self.record_outcome(FAILED, None)
        if self.outcome == FAILED and self._status is None:
            self._status = 500
        self.end_root(self._status, self._ended_ns)

    def excuses(self, error: BaseException) -> bool:
        """Whether an exception only means that the connection has ended, but not by a stop of the server."""
        return not self._stopped and self._says_over(error)

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
        """Whether the app refuses the client by this exception: a status of 4xx, or its own close code."""
        status = getattr(error, "status_code", None) or getattr(error, "status", None)
        if isinstance(status, int) and 400 <= status < 500:
            return True
        code = getattr(error, "code", None)
        return code is not None and code == self._close_code and code != _INTERNAL and code < _OWN_FAILURES

    def _says_over(self, error: BaseException) -> bool:
        return self._ended_ns is not None and is_disconnect(error, self._told, self.refused)

    def _send_failed(self, error: Exception) -> None:
        if isinstance(error, OSError):
            self.refuse(error)
            if self._ended_ns is None:
                self._lost, self._ended_ns = True, self.now()
                self._learn(error.__cause__)
        elif self._left:
            self.refuse(error)  # the server rejects a message that is sent after the end

    def _closed(self, code: Any, reason: Any) -> None:
        # The side that closed first decides: a later close is the answer to it, or is never received.
        if self._ended_ns is None:
            self._ended_ns = self.now()
            self._close_code, self._close_reason = code, reason or ""

    def _disconnected(self, code: Any, reason: Any) -> None:
        if self._ended_ns is None:
            self._ended_ns = self.now()
        elif not self._lost or self._close_code is not None:
            return
        self._close_code, self._close_reason = code, reason or ""
        self._left, self._stopped = True, code == _RESTART
        self._lost = not self._stopped and (self._lost or code == _ABNORMAL)

    def _learn(self, cause: BaseException | None) -> None:
        """Read the code of the side that closed first from ``ConnectionClosed`` of the package websockets."""
        received, sent = getattr(cause, "rcvd", None), getattr(cause, "sent", None)
        code = getattr(received or sent, "code", None)
        if isinstance(code, int) and (received is not None or code == _RESTART):
            self._disconnected(code, getattr(received, "reason", None))

    def _ask(self) -> None:
        """Read the code from the disconnect message, if the app has not read it.

        If the server has no message ready, its coroutine would wait: it is closed after its first step.
        """
        with suppress(Exception):  # exceptions of the server; only the code would be missing
            asyncio.get_running_loop()  # only asyncio's coroutines may be closed at any step
            for _ in range(_MAX_UNREAD):
                if self._receive is None or self._close_code is not None:
                    break
                answer = self._receive().__await__()
                try:
                    next(answer)
                    answer.close()
                    break
                except StopIteration as done:
                    if done.value["type"] == "websocket.disconnect":
                        self._disconnected(done.value.get("code", _NO_CODE), done.value.get("reason"))
                except BaseException:  # noqa: BLE001 - a cancellation inside of the server is not the app's
                    break
        if self._lost and self._close_code is None:
            self._close_code = _ABNORMAL

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
