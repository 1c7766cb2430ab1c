"""What HTTP requests and websocket connections share: facts of the request, outcome, headers, capture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Final, Literal

from .. import keys
from .._capture.secrets import redactor
from .._clock import ticks_ns
from .._ids import new_request_id
from .._types import Message, Receive, Scope, Send
from ..model import Span, SpanStatus, SpanStatusCode, TraceInfo
from ..model.record import FactsTuple, links_to
from ..process import ledger, process
from ..propagation import TRACEPARENT_LENGTH, extract
from ..settings import Settings
from ..tracing.exceptions import without_framework_groups
from ..tracing.inject import HEADER_VALUE, traceparent
from ..tracing.live import LiveTrace
from .attributes import request_attributes, span_name, trusted_callers
from .capture import Redactor
from .decoding import prepare
from .disconnects import is_cancellation
from .headers import HeaderMap, HeaderReader, clean_often, clean_value
from .routes import RouteTrees, route_template

SCOPE_KEY: Final = "wherefrom.trace"

Outcome = Literal["completed", "client_closed", "cancelled", "failed"]

COMPLETED: Final = "completed"
CLIENT_CLOSED: Final = "client_closed"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"

ERROR: Final = SpanStatusCode.ERROR
_INCOMPLETE: Final = SpanStatus(ERROR, "the app returned without a complete response")
_MAX_REFUSED: Final = 100
_STOPPED: Final = SpanStatus(ERROR, "the server closed the connection")

# Attributes that clients choose, besides headers and bodies.
_FROM_CLIENT: Final = (
    "url.path",
    "http.request.method_original",
    "user_agent.original",
    "client.address",
    "server.address",
    "wherefrom.websocket.close_reason",
)

Header = tuple[bytes, bytes]
Hook = Callable[[LiveTrace, Scope], None]


class ExchangeOptions:
    """What the settings and hooks of one middleware mean for all of its exchanges."""

    def __init__(self, settings: Settings, on_response: Hook | None) -> None:
        self.reader = HeaderReader(settings)
        self.redactor = Redactor(settings.redact) if settings.capture_bodies else None
        self.max_body_bytes = settings.max_body_bytes
        if settings.capture_bodies:
            prepare()
        self.server_timing = settings.server_timing
        self.echo = settings.echo_request_id
        self.links = settings.upstream != "ignore"
        self.trusts = trusted_callers(settings)
        self.believes_all = settings.trust_headers == "all"
        self.reads_plainly = self.believes_all and self.reader.is_plain
        self.captures = settings.capture_bodies or self.reader.captures
        self.trees = RouteTrees()
        self.on_response = on_response
        self.has_hook = False  # a redaction hook
        self.adds_nothing = not self.captures and on_response is None
        process.exchange_options.add(self)
        if redactor().hook is not None:
            self.take_hook()

    def take_hook(self) -> None:
        """Ask the redaction hook, which counts for the whole process, about what clients send."""
        self.has_hook, self.adds_nothing = True, False


class Identity:
    """The ids of a request and the metadata in its headers, read at the first use.

    The accepted request id is shared with the app. The object keeps no reference to ``receive`` or ``send``:
    the server's objects behind them refer to the scope, and the scope to the trace, which would be a cycle.
    """

    method = ""
    _start: Message | None = None
    _is_unsendable = False

    def __init__(
        self,
        trace: LiveTrace,
        scope: Scope,
        headers: HeaderMap,
        options: ExchangeOptions,
    ) -> None:
        self.trace = trace
        self.scope = scope
        self.options = options
        self._headers = headers
        # The clock of the trace, which a message that is sent later still may need.
        self._epoch_ns = trace.epoch_ns
        name = options.reader.request_id
        request_id = clean_value(name, headers[name]) if name in headers else None
        self.request_id = request_id = request_id or new_request_id(trace.started_ns // 1_000_000)
        # Litestar overwrites it in the scope.
        self.path = scope["path"]
        scope[SCOPE_KEY] = trace
        trace.request = self
        if "state" not in scope:
            scope["state"] = {"request_id": request_id}
        elif type(state := scope["state"]) is dict or isinstance(state, MutableMapping):
            state["request_id"] = request_id

    def rename(self, request_id: str) -> bool:
        """Replace the request id for the app and the response; ``False`` if the response has started.

        An id that is not valid in a header is not sent.
        """
        if self.options.echo and self.response_headers:
            return False
        self.request_id = request_id
        self._is_unsendable = HEADER_VALUE.fullmatch(request_id) is None
        state = vars(self).get("scope", {}).get("state")
        if isinstance(state, MutableMapping):
            state["request_id"] = request_id
        return True

    @property
    def response_headers(self) -> Sequence[Sequence[bytes]]:
        """The headers of the response as passed to ``send``, with the changes of outer middlewares."""
        return () if self._start is None else self._start.get("headers") or ()

    def now(self) -> int:
        """Return the time of the trace's clock, in ns since the epoch."""
        return self._epoch_ns + ticks_ns()

    def identify(self, trace: LiveTrace, info: TraceInfo, root: Span) -> None:
        """Put the ids and metadata of the request on its trace."""
        info.client_request_id = self.request_id
        said = self.metadata(trace)
        info.trace_metadata[keys.INSTANCE_ID] = process.instance_id
        info.trace_metadata |= _hooked(said, said) if self.options.has_hook else said
        info.source = trace.source = trace.source.without(said)
        if not trace.over:
            root.links += links_to(self.link(trace))

    def metadata(self, trace: LiveTrace) -> dict[str, str]:
        """Return the metadata that headers carry; a value that is refused is counted."""
        headers, options, found = self._headers, self.options, {}
        for header, key in options.reader.metadata:
            raw = headers.get(header)
            if raw is None or not (options.believes_all or self._believes(header, trace)):
                continue
            if (value := clean_often(header, raw)) is not None:
                found[key] = trace.recorder.user(value) if key == keys.USER else value
        return found

    def _believes(self, header: bytes, trace: LiveTrace) -> bool:
        """Whether this client is trusted with this header; a refusal is counted."""
        trusted = not trace.over and self.options.trusts(self.scope)
        if not trusted:
            ledger.refused(header.decode("latin-1"))
        return trusted

    def excuses(self, error: BaseException) -> bool:  # noqa: ARG002
        """Whether an exception only means that the client of this request has disconnected."""
        return False

    def link(self, trace: LiveTrace) -> str | None:
        """Return the ``traceparent`` of the caller's span, unless the trace is a part of the caller's."""
        value = self._headers.get(b"traceparent")
        if value is None or trace.caller is not None or not self.options.links:
            return None
        given = self.scope["headers"]
        # Fewer names than headers: one is repeated, and two of this one are as none. Whether the rest is a
        # traceparent is checked by who reads it.
        if len(value) == TRACEPARENT_LENGTH and value[:3] == b"00-" and len(given) == len(self._headers):
            return value.decode("latin-1")
        caller = extract(given)
        return None if caller is None else f"00-{caller.trace_id}-{caller.span_id}-00"

    def with_response_headers(self, message: Message, trace: LiveTrace | None = None) -> Message:
        """Return the first message of a response with our headers: the request id, and ``Server-Timing``.

        The app's own header of that name overrides ours.
        """
        # New objects: the app may send the same message, or the same headers, for every request.
        headers = list(message.get("headers") or ())
        options = self.options
        if options.echo and not self._is_unsendable:
            name = options.reader.request_id
            length = len(name)
            for present in headers:
                if len(present[0]) == length and present[0].lower() == name:
                    break
            else:
                headers.append((name, self.request_id.encode("latin-1")))
        if trace is not None:
            headers.append(timing_header(trace))
        return {**message, "headers": headers}


class Exchange(Identity):
    """One request or connection, and the facts of it. ``Recorder.finish`` ends it."""

    outcome: Outcome = COMPLETED
    # The exception that the framework turned into a response, as an integration reports it.
    handled: BaseException | None = None
    # Exceptions of the server's send after a disconnect. They refer to this object; cleared at the end.
    refused: tuple[BaseException, ...] = ()

    async def receive(self, receive: Receive) -> Message:
        """Give the app the next message of the client, from the server's ``receive``."""
        raise NotImplementedError

    async def send(self, send: Send, message: Message) -> None:
        """Send a message of the app through the server's ``send``."""
        raise NotImplementedError

    def complete(self, error: BaseException | None) -> None:
        """End the root span with outcome and status: the app has returned, or raised ``error``."""
        raise NotImplementedError

    def measurements(self) -> dict[str, Any]:
        """Return outcome, status and sizes as attributes of the root span."""
        raise NotImplementedError

    def capture_bodies(self, redactor: Redactor) -> None:
        """Record the bodies as inputs and outputs."""

    def outline(self) -> tuple[str | None, int] | None:
        """Return route and end of a request that needs no trace made of it."""
        return None

    def facts(self, trace: LiveTrace, route: str | None, ended_ns: int) -> FactsTuple:
        """Return what is recorded of a request that has an outline."""
        raise NotImplementedError

    def end(self, error: BaseException | None) -> str | None:
        """End the root span, and return the template of the route that answered."""
        self.complete(error)
        return route_template(self.scope, self.path, self.options.trees)

    def describe(self, route: str | None) -> None:
        """Name the root span and put the request's attributes on it, under those that the app set."""
        root, options = self.trace.root, self.options
        attributes = request_attributes(
            self.scope, self.path, self.method, self._headers, self.measurements(), route
        )
        if options.has_hook:
            attributes = _hooked(attributes, _FROM_CLIENT)
        attributes.update(root.attributes)
        root.attributes = attributes
        if root.name == self.method:
            root.name = span_name(self.method, route)
        if options.captures:
            self._capture_headers("http.request.header.", self.scope.get("headers") or ())
            self._capture_headers("http.response.header.", self.response_headers)
            if options.redactor is not None:
                self.capture_bodies(options.redactor)

    def respond(self) -> None:
        """Call ``on_response``."""
        if self.options.on_response is not None:
            call_hook("on_response", self.options.on_response, self.trace, self.scope)

    def take_handled(self, *, failed: bool) -> BaseException | None:
        """Drop the exception that the framework handled; return it if the request ``failed``.

        Its traceback refers to the frames of the app, and these to the request: a cycle.
        """
        error, self.handled = self.handled, None
        return without_framework_groups(error) if failed and error is not None else None

    def refuse(self, error: BaseException) -> None:
        """Store an exception of the server's ``send``, to recognize it if the app raises it on."""
        if len(self.refused) < _MAX_REFUSED:
            self.refused += (error,)

    def record_outcome(self, outcome: Outcome, error: BaseException | None) -> None:
        """Set the outcome of a request that did not simply complete, and record what was raised.

        A client that left is no error of the app: the exception that it caused is an event, not a status.
        """
        root = self.trace.root
        self.outcome = outcome
        if outcome in {COMPLETED, CLIENT_CLOSED}:
            if error is not None:
                root.add_exception(error)
        elif error is not None:
            root.escape(error)
        else:
            root.status = _INCOMPLETE if outcome == FAILED else _STOPPED

    @staticmethod
    def outcome_of(error: BaseException | None) -> Outcome:
        """Return the outcome of an app that raised, or returned without a complete response."""
        return CANCELLED if error is not None and is_cancellation(error) else FAILED

    def end_root(self, status: int | None, ended_ns: int | None) -> None:
        """End the root span; a status of 500 and above is an error."""
        root = self.trace.root
        if status is not None and status >= 500:
            handled = [event.attributes.get("exception.type") for event in root.events]
            kind = next((kind for kind in reversed(handled) if kind), str(status))
            root.attributes.setdefault(keys.ERROR_TYPE, kind)
            if root.status.code is not ERROR:
                root.status = SpanStatus(ERROR, f"HTTP {status}")
        root.end(ended_ns)

    def started(self, message: Message) -> Message:
        """Return the first message of the response with our headers."""
        trace = self.trace if self.options.server_timing else None
        self._start = message = self.with_response_headers(message, trace)
        return message

    def _capture_headers(self, prefix: str, headers: Iterable[Sequence[bytes]]) -> None:
        trace, reader = self.trace, self.options.reader
        for name, values in reader.captured(headers).items():
            is_user, secrets = reader.is_user(name), redactor()
            found = [
                trace.recorder.user(value) if is_user else secrets.header(name, value) for value in values
            ]
            trace.root.attributes[prefix + name] = [secrets.hooked(name, value) for value in found]


def _hooked(pairs: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the pairs after the app's hook has replaced the values of these names."""
    secrets, found = redactor(), dict(pairs)
    for name in names:
        if name in found:
            found[name] = secrets.hooked(name, found[name])
    return {name: value for name, value in found.items() if value is not None}


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
