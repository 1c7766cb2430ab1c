"""HTTP: observes the messages of one request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from .. import keys
from .._types import Message, Receive, Send
from ..model.parts import part_source
from ..model.record import FactsTuple
from ..process import ledger, process
from ..tracing.live import LiveTrace
from .attributes import (
    MAX_PATH,
    OTHER_METHOD,
    header_text,
    other_method,
    shared_attributes,
    span_name,
)
from .capture import Body, Redactor
from .disconnects import is_cancellation, is_disconnect
from .exchange import CLIENT_CLOSED, COMPLETED, Exchange, Identity
from .headers import SESSION, USER, clean_often
from .routes import route_template

# Messages other than a body that may be the last, and the key that says that more is to come.
_ENDINGS: Final = {
    "http.response.trailers": "more_trailers",
    "http.response.pathsend": "more_body",
    "http.response.zerocopysend": "more_body",
}

# Messages whose bytes the server reads by itself.
_UNSEEN: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


class HttpExchange(Exchange):
    """One request: watches what passes through its ``receive`` and ``send``."""

    method = "GET"
    # Defaults of the class, not of every instance: most requests change few of them.
    status: int | None = None
    request_body: Body | None = None
    response_body: Body | None = None
    _client_closed = _is_gone = False
    _trailers = _unseen = _ending = False
    _ended_ns: int | None = None
    _size = _chunks = _first_ns = _last_ns = _longest_ns = 0

    def outline(self) -> tuple[str | None, int] | None:
        """Return route and end of a request that needs no trace made of it."""
        status = self.status
        if self._ended_ns is None or self._client_closed or not self.options.adds_nothing or status is None:
            return None
        path = self.path
        # What is odd in other texts is refused or cleaned; a path may hold a NUL, or a lone surrogate.
        if status >= 500 or len(path) > MAX_PATH or not path.isprintable():
            return None
        return route_template(self.scope, path, self.options.trees), self._ended_ns

    def facts(self, trace: LiveTrace, route: str | None, ended_ns: int) -> FactsTuple:
        """Return what is recorded of a request that has an outline."""
        scope, method, headers, recorder = self.scope, self.method, self._headers, trace.recorder
        metadata: dict[str, str] | None = None
        if self.options.reads_plainly:
            raw = headers.get(SESSION)
            session = None if raw is None else clean_often(SESSION, raw)
            raw = headers.get(USER)
            user = None if raw is None else clean_often(USER, raw)
            if user is not None:
                user = recorder.user(user)
        else:
            metadata = self.metadata(trace)
            # Metadata of a client stays on the trace: a client could create any number of sources.
            trace.source = trace.source.without(metadata)
            session, user = metadata.pop(keys.SESSION, None), metadata.pop(keys.USER, None)
        random_24, random_56, random_63 = trace.random
        rest = _bare_rest(process.instance_id)
        if metadata or self._first_ns or trace.caller is not None or method == OTHER_METHOD:
            rest = self._rest(trace, metadata)
        return (
            random_24,
            random_56,
            random_63,
            trace.started_ns,
            ended_ns,
            self.request_id,
            session,
            user,
            span_name(method, route),
            int(self.status or 0),  # it may be an ``http.HTTPStatus``
            None if self._unseen else self._size,
            self.path,
            self.link(trace),
            shared_attributes(scope, method, headers, route),
            rest,
            recorder.experiment,
            trace.source.digest,
        )

    def _rest(self, trace: LiveTrace, metadata: dict[str, str] | None) -> str:
        attributes = self._stream_figures() if self._first_ns else {}
        if self.method == OTHER_METHOD:
            attributes |= other_method(self.scope)
        own = {keys.INSTANCE_ID: process.instance_id, **(metadata or {})}
        rest: dict[str, Any] = {"metadata": own}
        if trace.caller is not None:
            trace_id, own[keys.PART] = trace.ids
            rest |= {"trace_id": trace_id, "parent_id": trace.caller.span_id}
            experiment, instance = trace.recorder.experiment, own[keys.INSTANCE_ID]
            attributes[keys.PART_SOURCE] = part_source(trace.source, experiment, instance)
        if attributes:
            rest["attributes"] = attributes
        return orjson.dumps(rest).decode()

    async def receive(self, receive: Receive) -> Message:
        """Receive for the app; notice when the client leaves before the last byte."""
        message = await receive()
        if message["type"] == "http.disconnect":
            self._is_gone = True
            # While the last byte is being sent the server may already report it: hypercorn under trio does.
            if self._ended_ns is None and not self._ending:
                self._client_closed = True
        elif self.request_body is not None:
            self.request_body.add(message.get("body", b""))
        return message

    async def send(self, send: Send, message: Message) -> None:
        """Send for the app: add our headers, and measure what passes."""
        kind = message["type"]
        if kind == "http.response.body":
            if message.get("more_body"):
                self._time_chunk(message)
            elif not self._trailers:
                self._ending = True
            try:
                await send(message)
            except OSError as error:
                self._lost_client(error)
                raise
            self._body_sent(message)
            return
        if kind == "http.response.start":
            message = self._started(message)
        elif kind in _ENDINGS and not message.get(_ENDINGS[kind]):
            self._ending = True
        try:
            await send(message)
        except OSError as error:
            self._lost_client(error)
            raise
        if kind in _ENDINGS:
            self._unseen = self._unseen or kind in _UNSEEN
            if not message.get(_ENDINGS[kind]):
                self._ended_ns = self.now()

    def complete(self, error: BaseException | None) -> None:
        """End the root span with its outcome and status."""
        if self.handled is not None:
            is_failure = self._ended_ns is None or self.status is None or self.status >= 500
            error = self.take_handled(failed=error is None and is_failure) or error
        status = self.status
        if self._client_closed:
            self.record_outcome(CLIENT_CLOSED, error)
            if error is not None and self.excuses(error):
                status = None  # the framework's 500 for a disconnect is not an error
        elif error is not None and self._is_gone and not is_cancellation(error) and is_disconnect(error):
            self.record_outcome(COMPLETED, error)  # the client left after the last byte
        elif error is not None or self._ended_ns is None:
            self.record_outcome(self.outcome_of(error), error)
            if status is None:
                self.status = status = 500
        self.refused = ()
        self.end_root(status, self._ended_ns)

    def excuses(self, error: BaseException) -> bool:
        """Whether an exception only means that the client disconnected before the last byte."""
        return self._client_closed and is_disconnect(error, refused=self.refused)

    def measurements(self) -> dict[str, Any]:
        """Return outcome, status and size as attributes; of a stream also its chunks and their timing."""
        figures: dict[str, Any] = {"wherefrom.outcome": self.outcome}
        if not self._unseen:
            figures["http.response.body.size"] = self._size
        if self.status is not None:
            figures["http.response.status_code"] = self.status
        if self._first_ns:
            figures |= self._stream_figures()
        return figures

    def _stream_figures(self) -> dict[str, Any]:
        return {
            "wherefrom.time_to_first_byte_ms": (self._first_ns - self.trace.started_ns) / 1e6,
            "wherefrom.response.chunks": self._chunks,
            "wherefrom.response.longest_gap_ms": self._longest_ns / 1e6,
        }

    def capture_bodies(self, redactor: Redactor) -> None:
        """Record the bodies as inputs and outputs, unless the app recorded its own."""
        root = self.trace.root
        if self.request_body is not None and root.inputs is None:
            root.set_inputs(_recorded(self.request_body, self.scope.get("headers") or (), redactor))
        if self.response_body is not None and root.outputs is None:
            root.set_outputs(_recorded(self.response_body, self.response_headers, redactor))

    def _lost_client(self, error: OSError) -> None:
        if self._ended_ns is None:
            self._client_closed = True
            self.refuse(error)

    def _started(self, message: Message) -> Message:
        try:
            self.status = message["status"]
            if "trailers" in message:
                self._trailers = bool(message["trailers"])
            return self.started(message)
        except Exception as error:  # noqa: BLE001 - the server reports what is wrong with it
            ledger.failed("response headers", error)
            return message

    def _time_chunk(self, message: Message) -> None:
        if not message.get("body"):
            return
        now = self.now()
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
            self._ended_ns = now = self.now()
            if self._first_ns and now - self._last_ns > self._longest_ns:
                self._longest_ns = now - self._last_ns


class HeadExchange(HttpExchange):
    """A HEAD request. Frameworks may send a body, which the server does not send to the client."""

    def _time_chunk(self, message: Message) -> None:
        pass

    def _body_sent(self, message: Message) -> None:
        super()._body_sent({**message, "body": b""})


@lru_cache(maxsize=2)
def _bare_rest(instance_id: str) -> str:
    """What most requests record besides their facts: encoded once per process."""
    return orjson.dumps({"metadata": {keys.INSTANCE_ID: instance_id}}).decode()


def _recorded(body: Body, headers: Iterable[Sequence[bytes]], redactor: Redactor) -> Any:
    kind, coding = header_text(headers, b"content-type"), header_text(headers, b"content-encoding")
    return body.value(kind, redactor, coding)


class Unobserved(Identity):
    """A request of which nobody gets anything: it has a request id, and a trace for whoever asks."""

    method = "GET"

    async def send(self, send: Send, message: Message) -> None:
        """Send for the app: add the request id."""
        if message["type"] == "http.response.start":
            try:
                message = self.with_response_headers(message)
            except Exception as error:  # noqa: BLE001 - the server reports what is wrong with it
                ledger.failed("response headers", error)
        await send(message)

    def outline(self) -> tuple[None, int]:
        """Return that it has ended now."""
        return None, self.now()

    def facts(self, trace: LiveTrace, route: str | None, ended_ns: int) -> FactsTuple:
        """Never called: of such a request nothing is recorded."""
        raise NotImplementedError

    def end(self, error: BaseException | None) -> None:  # noqa: ARG002
        """End the root span."""
        self.trace.root.end()

    def describe(self, route: str | None) -> None:
        """Nobody reads a description."""

    def respond(self) -> None:
        """There is no hook."""
